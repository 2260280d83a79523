//! User buffers: what surrounds a job must stay as it was, and what is idle, too.

use std::rc::Rc;

use crate::mem;

/// Number of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufId(pub usize);

#[derive(Clone, Copy, Debug)]
struct Rec {
    p: usize,
    base: u64,
    size: usize,
    canary: u8,
    busy: bool,
    /// Never changes: the pattern from this place on. Any number of writes may use it at once.
    constant: Option<u64>,
}

/// All user buffers.
#[derive(Debug)]
pub struct Bufs {
    mem: mem::Shared,
    all: Vec<Rec>,
}

impl Bufs {
    pub(crate) fn new(mem: &mem::Shared) -> Bufs {
        Bufs {
            mem: Rc::clone(mem),
            all: Vec::new(),
        }
    }

    /// A buffer of process `p`, in physical runs of `run` pages.
    pub fn add(&mut self, p: usize, size: usize, run: usize) -> BufId {
        let size = size.next_multiple_of(mem::PAGE);
        let base = self.mem.borrow_mut().map(p, size, run);
        self.mem.borrow_mut().user_fill(p, base, size, 0xc0);
        self.all.push(Rec {
            p,
            base,
            size,
            canary: 0xc0,
            busy: false,
            constant: None,
        });
        BufId(self.all.len() - 1)
    }

    /// A source that any number of writes may use at once, filled with the pattern from `place` on.
    pub fn add_constant(&mut self, p: usize, size: usize, run: usize, place: u64) -> BufId {
        let b = self.add(p, size, run);
        let r = &mut self.all[b.0];
        r.constant = Some(place);
        let mut bytes = vec![0; r.size];
        crate::pattern::fill(place, &mut bytes);
        self.mem.borrow_mut().user_write(p, r.base, &bytes);
        b
    }

    /// Place in the pattern of byte `off`, if the buffer never changes.
    #[must_use]
    pub fn place(&self, b: BufId, off: usize) -> Option<u64> {
        self.all[b.0].constant.map(|p| p + off as u64)
    }

    /// Its size.
    #[must_use]
    pub fn size(&self, b: BufId) -> usize {
        self.all[b.0].size
    }

    /// A job uses it.
    #[must_use]
    pub fn busy(&self, b: BufId) -> bool {
        self.all[b.0].busy
    }

    /// Address of byte `off`.
    #[must_use]
    pub fn addr(&self, b: BufId, off: usize) -> u64 {
        self.all[b.0].base + off as u64
    }

    /// Other pages at the same address.
    pub fn remap(&mut self, b: BufId, run: usize) {
        let r = self.all[b.0];
        assert!(!r.busy);
        self.idle(b);
        let mut m = self.mem.borrow_mut();
        m.remap(r.p, r.base, r.size, run);
        m.user_fill(r.p, r.base, r.size, r.canary);
    }

    fn idle(&self, b: BufId) {
        let r = &self.all[b.0];
        assert!(
            self.mem.borrow().user_is(r.p, r.base, r.size, r.canary),
            "buffer {b:?} was written to after its job ended (I3)"
        );
    }

    /// No buffer that no job used was touched.
    pub fn check_idle(&self) {
        for i in 0..self.all.len() {
            if !self.all[i].busy && self.all[i].constant.is_none() {
                self.idle(BufId(i));
            }
        }
    }

    /// A job takes bytes `off..` of it.
    pub(crate) fn take(&mut self, b: BufId) {
        self.idle(b);
        let r = &mut self.all[b.0];
        assert!(!r.busy);
        r.busy = true;
        // A write may be answered before all of it is seen: fill it so that dirtiness shows.
        let (p, base, size, canary) = (r.p, r.base, r.size, r.canary);
        self.mem.borrow_mut().user_fill(p, base, size, canary);
    }

    /// The job at `addr` is over: nothing around it was touched. Scribbles over the buffer.
    pub(crate) fn give(&mut self, addr: u64, p: usize, len: usize) {
        let i = self.at(addr, p);
        let r = &mut self.all[i];
        if r.constant.is_some() {
            return;
        }
        let head = (addr - r.base) as usize;
        let tail = r.size - head - len;
        let m = self.mem.borrow();
        assert!(
            m.user_is(p, r.base, head, r.canary) && m.user_is(p, addr + len as u64, tail, r.canary),
            "bytes outside of the buffer were written (I2)"
        );
        drop(m);
        r.busy = false;
        r.canary = r.canary.wrapping_add(0x11);
        let (base, size, canary) = (r.base, r.size, r.canary);
        self.mem.borrow_mut().user_fill(p, base, size, canary);
    }

    fn at(&self, addr: u64, p: usize) -> usize {
        let i = self
            .all
            .iter()
            .position(|r| r.p == p && addr >= r.base && addr < r.base + r.size as u64);
        i.expect("a buffer")
    }
}
