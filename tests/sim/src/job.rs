//! AIO jobs: what a program asked for, and what became of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use toehold_core::errno::Errno;
use toehold_core::os::{Job, JobId, JobQueue};

/// How a job ended.
pub type Ended = Result<usize, Errno>;

/// What is known of a job that has not ended.
#[derive(Debug)]
pub struct Record {
    /// It writes.
    pub write: bool,
    /// The buffer.
    pub addr: u64,
    /// Its length.
    pub len: usize,
    /// Where in the pattern the bytes of a write begin.
    pub place: u64,
    /// Bytes moved.
    pub done: usize,
    /// Of a read: (first byte of the buffer, first byte of the stream, bytes).
    pub pieces: Vec<(usize, u64, usize)>,
    /// Mbufs that refer to its pages.
    pub refs: u32,
    /// Its process exits.
    pub leaving: bool,
    /// aio_cancel was called.
    pub cancelled: bool,
    /// Workers that look at it.
    pub watched: u32,
    /// Stream position after the last byte of a write.
    pub end: u64,
}

/// What the receiving end of a stream has taken from it, and the jobs of one end.
#[derive(Debug, Default)]
pub struct Book {
    /// Next byte of the stream that a reader gets (I2).
    pub next: u64,
    /// Jobs that have not ended.
    pub jobs: BTreeMap<JobId, Record>,
    /// Jobs that have, in order, and are not looked at yet.
    pub ended: VecDeque<(JobId, Record, Ended)>,
    /// Jobs ever.
    pub count: usize,
    /// The connection is reset, and the adapter does not read from it any more.
    pub card_done: bool,
    /// The adapter has not answered in time, once.
    pub silent: bool,
}

/// Shared by an end's kernel, its jobs and its program.
pub type Shared = Rc<RefCell<Book>>;

impl Book {
    /// A job ends, once (I1).
    pub fn end(&mut self, id: JobId, r: Ended) {
        let rec = self.jobs.remove(&id);
        let rec = rec.unwrap_or_else(|| panic!("{id:?} ends twice (I1)"));
        assert!(
            rec.refs == 0 || rec.leaving || self.card_done || r == Err(Errno::EIO),
            "{id:?} ends while mbufs refer to its pages (I3)"
        );
        assert_eq!(rec.watched, 0, "{id:?} ends while a worker looks at it");
        if let Ok(n) = r {
            assert!(n <= rec.len, "{id:?} got {n} of {} bytes (I2)", rec.len);
            assert_eq!(n, rec.done, "{id:?} says {n}, moved {} (I8)", rec.done);
        } else if r == Err(Errno::EIO) {
            assert!(self.silent, "{id:?} ends with EIO for no reason");
        } else {
            assert_eq!(
                rec.done, 0,
                "{id:?} ends with {r:?}, moved {} (I8)",
                rec.done
            );
        }
        self.ended.push_back((id, rec, r));
    }
}

/// A job as core has it. Dropping one that has not ended panics (I1).
#[derive(Debug)]
pub struct SimJob {
    id: JobId,
    addr: u64,
    len: usize,
    done: usize,
    slot: Option<u16>,
    mark: u32,
    copies: bool,
    write: bool,
    over: bool,
    book: Shared,
}

impl SimJob {
    /// A new job, entered in the book.
    #[must_use]
    pub fn new(book: &Shared, write: bool, addr: u64, len: usize, place: u64) -> SimJob {
        let mut b = book.borrow_mut();
        b.count += 1;
        let id = JobId(0x1000 + b.count * 0x100);
        b.jobs.insert(
            id,
            Record {
                write,
                addr,
                len,
                place,
                done: 0,
                pieces: Vec::new(),
                refs: 0,
                leaving: false,
                cancelled: false,
                watched: 0,
                end: 0,
            },
        );
        SimJob {
            id,
            addr,
            len,
            done: 0,
            slot: None,
            mark: 0,
            copies: false,
            write,
            over: false,
            book: Rc::clone(book),
        }
    }

    /// It writes.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// It is not core's any more.
    pub fn release(mut self) {
        self.over = true;
    }
}

impl Drop for SimJob {
    fn drop(&mut self) {
        if !self.over && !std::thread::panicking() {
            panic!("{:?} was lost (I1)", self.id);
        }
    }
}

impl Job for SimJob {
    fn id(&self) -> JobId {
        self.id
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
        assert!(n <= self.len, "{:?}: {n} of {} bytes", self.id, self.len);
        assert!(
            n >= self.done,
            "{:?}: from {} back to {n}",
            self.id,
            self.done
        );
        let mut book = self.book.borrow_mut();
        let more = n - self.done;
        let at = book.next;
        if !self.write && more > 0 {
            book.next += more as u64;
        }
        if let Some(r) = book.jobs.get_mut(&self.id) {
            r.done = n;
            if !self.write && more > 0 {
                r.pieces.push((self.done, at, more));
            }
        }
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

/// A list of jobs.
#[derive(Debug, Default)]
pub struct SimJobs(VecDeque<SimJob>);

impl JobQueue<SimJob> for SimJobs {
    fn push_back(&mut self, job: SimJob) {
        self.0.push_back(job);
    }
    fn push_front(&mut self, job: SimJob) {
        self.0.push_front(job);
    }
    fn pop_front(&mut self) -> Option<SimJob> {
        self.0.pop_front()
    }
    fn front(&self) -> Option<&SimJob> {
        self.0.front()
    }
    fn front_mut(&mut self) -> Option<&mut SimJob> {
        self.0.front_mut()
    }
    fn remove(&mut self, id: JobId) -> Option<SimJob> {
        let i = self.0.iter().position(|j| j.id == id)?;
        self.0.remove(i)
    }
    fn find_mut(&mut self, mut pred: impl FnMut(&SimJob) -> bool) -> Option<&mut SimJob> {
        self.0.iter_mut().find(|j| pred(j))
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}
