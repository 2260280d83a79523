//! Jobs and held pages.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::format;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use crate::os::{Job, JobId, JobQueue, Pages};

/// A job, as the connection holds it.
#[derive(Debug)]
pub(crate) struct FJob {
    pub(crate) id: usize,
    pub(crate) addr: u64,
    pub(crate) len: usize,
    pub(super) done: usize,
    pub(super) slot: Option<u16>,
    mark: u32,
    copies: bool,
}

impl FJob {
    pub(crate) fn new(id: usize, addr: u64, len: usize) -> FJob {
        FJob {
            id,
            addr,
            len,
            done: 0,
            slot: None,
            mark: 0,
            copies: false,
        }
    }
}

impl Job for FJob {
    fn id(&self) -> JobId {
        JobId(self.id)
    }
    fn addr(&self) -> u64 {
        self.addr
    }
    fn len(&self) -> usize {
        self.len
    }
    fn done(&self) -> usize {
        self.done
    }
    fn set_done(&mut self, n: usize) {
        self.done = n;
    }
    fn slot(&self) -> Option<u16> {
        self.slot
    }
    fn set_slot(&mut self, slot: Option<u16>) {
        self.slot = slot;
    }
    fn mark(&self) -> u32 {
        self.mark
    }
    fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }
    fn copies(&self) -> bool {
        self.copies
    }
    fn set_copies(&mut self) {
        self.copies = true;
    }
}

std::thread_local! {
    /// Jobs looked at in search of one, by this test.
    pub(crate) static LOOKS: Cell<u64> = const { Cell::new(0) };
}

#[derive(Default)]
pub(crate) struct FJobs(VecDeque<FJob>);

impl JobQueue<FJob> for FJobs {
    fn push_back(&mut self, job: FJob) {
        self.0.push_back(job);
    }
    fn push_front(&mut self, job: FJob) {
        self.0.push_front(job);
    }
    fn pop_front(&mut self) -> Option<FJob> {
        self.0.pop_front()
    }
    fn front(&self) -> Option<&FJob> {
        self.0.front()
    }
    fn front_mut(&mut self) -> Option<&mut FJob> {
        self.0.front_mut()
    }
    fn remove(&mut self, id: JobId) -> Option<FJob> {
        let i = self.0.iter().position(|j| j.id == id.0)?;
        self.0.remove(i)
    }
    fn find_mut(&mut self, mut pred: impl FnMut(&FJob) -> bool) -> Option<&mut FJob> {
        self.0.iter_mut().find(|j| {
            LOOKS.set(LOOKS.get() + 1);
            pred(j)
        })
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Frames wired now, and errors found where no `&mut Fake` is at hand.
#[derive(Default)]
pub(crate) struct Frames {
    pub(super) wired: BTreeMap<u64, u32>,
    /// Frames the adapter may read: of work requests not acknowledged.
    pub(super) reading: BTreeMap<u64, u32>,
    pub(super) errors: Vec<String>,
    /// How often other pages were mapped.
    pub(super) mapping: u32,
}

/// Held pages.
pub(crate) struct FPages {
    pub(super) frames: Vec<u64>,
    pub(super) table: Rc<RefCell<Frames>>,
    /// The mapping they are of.
    pub(super) mapping: u32,
}

impl Pages for FPages {
    fn intact(&self, _n: usize) -> bool {
        true
    }
    fn shown(&self) -> bool {
        self.table.borrow().mapping == self.mapping
    }
    fn of_file(&self) -> bool {
        false
    }
    fn count(&self) -> usize {
        self.frames.len()
    }
    fn phys(&self, i: usize) -> u64 {
        self.frames.get(i).copied().unwrap_or(0)
    }
    fn dirty(&mut self) {}
}

impl Drop for FPages {
    fn drop(&mut self) {
        let mut t = self.table.borrow_mut();
        for f in &self.frames {
            let n = t.wired.get_mut(f).expect("unwired twice");
            *n -= 1;
            if *n == 0 {
                t.wired.remove(f);
                if t.reading.contains_key(f) {
                    t.errors
                        .push(format!("I3: frame {f:#x} unwired while it is read"));
                }
            }
        }
    }
}
