//! AIO jobs of tests.

use std::collections::VecDeque;

use crate::os::{Job, JobId, JobQueue};

/// A job. Dropping one that was not completed panics: it would never end for its program.
#[derive(Debug)]
pub struct TestJob {
    id: JobId,
    addr: u64,
    len: usize,
    done: usize,
    slot: Option<u16>,
    mark: u32,
    iov: std::vec::Vec<(u64, usize)>,
    copies: bool,
    ended: bool,
}

impl TestJob {
    pub(super) fn scatter(mut self, iov: std::vec::Vec<(u64, usize)>) -> TestJob {
        self.iov = iov;
        self
    }

    pub(super) fn new(id: JobId, addr: u64, len: usize) -> TestJob {
        TestJob {
            id,
            addr,
            len,
            done: 0,
            slot: None,
            mark: 0,
            iov: std::vec::Vec::new(),
            copies: false,
            ended: false,
        }
    }

    /// The job is completed, or declined and so not ours any more.
    pub fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for TestJob {
    fn drop(&mut self) {
        if !self.ended && !std::thread::panicking() {
            panic!("{:?} was lost", self.id);
        }
    }
}

impl Job for TestJob {
    fn id(&self) -> JobId {
        self.id
    }
    fn addr(&self) -> u64 {
        self.addr
    }
    fn len(&self) -> usize {
        self.len
    }
    fn run(&self, mut off: usize) -> (u64, usize) {
        if self.iov.is_empty() {
            return (self.addr + off as u64, self.len - off);
        }
        for (addr, len) in &self.iov {
            if off < *len {
                return (addr + off as u64, len - off);
            }
            off -= len;
        }
        (0, 0)
    }
    fn scattered(&self) -> bool {
        !self.iov.is_empty()
    }
    fn done(&self) -> usize {
        self.done
    }
    fn set_done(&mut self, n: usize) {
        assert!(n <= self.len, "{:?}: {n} of {} bytes", self.id, self.len);
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
pub struct TestJobs(VecDeque<TestJob>);

impl TestJobs {
    /// The jobs, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &TestJob> {
        self.0.iter()
    }
}

impl JobQueue<TestJob> for TestJobs {
    fn push_back(&mut self, job: TestJob) {
        self.0.push_back(job);
    }
    fn push_front(&mut self, job: TestJob) {
        self.0.push_front(job);
    }
    fn pop_front(&mut self) -> Option<TestJob> {
        self.0.pop_front()
    }
    fn front(&self) -> Option<&TestJob> {
        self.0.front()
    }
    fn front_mut(&mut self) -> Option<&mut TestJob> {
        self.0.front_mut()
    }
    fn remove(&mut self, id: JobId) -> Option<TestJob> {
        let i = self.0.iter().position(|j| j.id == id)?;
        self.0.remove(i)
    }
    fn find_mut(&mut self, mut pred: impl FnMut(&TestJob) -> bool) -> Option<&mut TestJob> {
        self.0.iter_mut().find(|j| pred(j))
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}
