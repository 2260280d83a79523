//! AIO jobs (`struct kaiocb`): their fields, their lists, their end.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{sys, tom::Tom};

/// A job by its address, which says nothing about who owns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobPtr(NonNull<sys::kaiocb>);

// SAFETY: an address; what is done with it is said where it is done.
unsafe impl Send for JobPtr {}

impl JobPtr {
    /// # Safety
    /// `p` is a job that is not completed while the value is used.
    #[must_use]
    pub unsafe fn from_raw(p: NonNull<sys::kaiocb>) -> JobPtr {
        JobPtr(p)
    }

    /// The job with this address.
    ///
    /// # Safety
    /// As [`JobPtr::from_raw`]; `addr` came from [`JobPtr::addr`].
    #[must_use]
    pub unsafe fn from_addr(addr: usize) -> Option<JobPtr> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(addr)).map(JobPtr)
    }

    /// Its address, as an identity.
    #[must_use]
    pub fn addr(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(self) -> *mut sys::kaiocb {
        self.0.as_ptr()
    }
}

/// A job that is ours. To be ended by [`Job::complete`]; it has no drop.
#[derive(Debug)]
#[must_use = "a job must be completed"]
pub struct Job(NonNull<sys::kaiocb>);

// SAFETY: owned by whoever has the value; the shim's calls on it are from any thread.
unsafe impl Send for Job {}

/// The word of a job that is ours: slot and errno of a finished write.
mod word {
    pub(super) const SLOT: usize = 0xffff;
    pub(super) const ERRNO_SHIFT: u32 = 16;
    /// Slot field: slot + 1, 0 for none.
    pub(super) const fn slot(w: usize) -> Option<u16> {
        match w & SLOT {
            0 => None,
            n => Some((n - 1) as u16),
        }
    }
}

impl Job {
    /// Take over a job that the kernel offers; its words are reset.
    ///
    /// # Safety
    /// `p` was handed to `toehold_aio_queue`, which will say that it took it.
    pub unsafe fn claim(p: NonNull<sys::kaiocb>) -> Job {
        let mut job = Job(p);
        job.set_done(0);
        job.set_word(0);
        job.refs().store(1, Ordering::Relaxed);
        job
    }

    /// Give it back unclaimed: the generic path has it.
    pub fn decline(self) {
        core::mem::forget(self);
    }

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(&self) -> *mut sys::kaiocb {
        self.0.as_ptr()
    }

    /// Its address.
    #[must_use]
    pub fn ptr(&self) -> JobPtr {
        JobPtr(self.0)
    }

    /// User address of the buffer.
    #[must_use]
    pub fn addr(&self) -> u64 {
        // SAFETY: an owned job lives.
        unsafe { sys::th_job_addr(self.as_ptr()) }
    }

    /// Bytes asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: an owned job lives.
        unsafe { sys::th_job_len(self.as_ptr()) }
    }

    /// True if it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes moved.
    #[must_use]
    pub fn done(&self) -> usize {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_done(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete().
        usize::try_from(unsafe { p.read() }).unwrap_or(0)
    }

    /// Record progress.
    pub fn set_done(&mut self, n: usize) {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_done(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete().
        unsafe { p.write(i64::try_from(n).unwrap_or(i64::MAX)) };
    }

    fn word(&self) -> usize {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_word(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete().
        unsafe { p.read() }
    }

    fn set_word(&mut self, w: usize) {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_word(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete().
        unsafe { p.write(w) };
    }

    /// The page-set slot the job uses.
    #[must_use]
    pub fn slot(&self) -> Option<u16> {
        word::slot(self.word())
    }

    /// Record it.
    pub fn set_slot(&mut self, slot: Option<u16>) {
        let w = self.word() & !word::SLOT;
        self.set_word(w | slot.map_or(0, |s| usize::from(s) + 1));
    }

    /// The pointer kept with the job (a counted reference of the connection, or null).
    #[must_use]
    pub fn toep(&self) -> Option<NonNull<core::ffi::c_void>> {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_toep(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete().
        NonNull::new(unsafe { p.read() })
    }

    /// Keep a pointer with the job.
    pub fn set_toep(&mut self, toep: *mut core::ffi::c_void) {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_toep(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete().
        unsafe { p.write(toep) };
    }

    fn refs(&self) -> &AtomicU32 {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_refs(self.as_ptr()) };
        // SAFETY: an aligned word of the job, changed atomically by C and by us, and only by
        // those who hold a reference of it.
        unsafe { AtomicU32::from_ptr(p) }
    }

    /// Install the cancel function; false if the job is cancelled already.
    #[must_use]
    pub fn arm_cancel(&self) -> bool {
        // SAFETY: an owned job lives.
        unsafe { sys::th_job_arm_cancel(self.as_ptr()) }
    }

    /// End it: bytes moved, or an errno.
    pub fn complete(self, result: Result<usize, i32>) {
        let (status, error) = match result {
            Ok(n) => (i64::try_from(n).unwrap_or(i64::MAX), 0),
            Err(e) => (-1, e),
        };
        // SAFETY: owned, so not completed before, and not used after.
        unsafe { sys::th_job_complete(self.as_ptr(), status, error) };
    }

    /// Key of the process's address space now: vmspace and map generation.
    #[must_use]
    pub fn space(&self) -> (u64, u32) {
        let (mut space, mut generation) = (0, 0);
        // SAFETY: an owned job lives, and so its process's vmspace; both are written, not kept.
        unsafe { sys::th_job_space(self.as_ptr(), &mut space, &mut generation) };
        (space, generation)
    }

    /// May `n` more pages be wired?
    #[must_use]
    pub fn budget(&self, tom: Tom, n: u32) -> bool {
        // SAFETY: live handle, owned job.
        unsafe { sys::th_pages_budget(tom.as_ptr(), self.as_ptr(), n) }
    }

    /// A write's own reference goes, with what it achieved; the last reference ends the job.
    /// Returns the finished job if that was the last.
    pub fn aiotx_finish(mut self, result: Result<usize, i32>) -> Option<Job> {
        match result {
            Ok(n) => self.set_done(n),
            Err(e) => {
                let w = self.word() & word::SLOT;
                self.set_word(w | usize::try_from(e).unwrap_or(0) << word::ERRNO_SHIFT);
            }
        }
        Self::unref(self)
    }

    /// A reference that an mbuf held goes. Returns the finished job if it was the last.
    ///
    /// # Safety
    /// `p` is the job that the mbuf referred to, and that mbuf is gone.
    pub unsafe fn aiotx_rele(p: NonNull<sys::kaiocb>) -> Option<Job> {
        Self::unref(Job(p))
    }

    fn unref(self) -> Option<Job> {
        if self.refs().fetch_sub(1, Ordering::Release) != 1 {
            core::mem::forget(self);
            return None;
        }
        core::sync::atomic::fence(Ordering::Acquire);
        Some(self)
    }

    /// What a finished write achieved.
    ///
    /// # Errors
    /// The errno it ended with.
    pub fn achieved(&self) -> Result<usize, i32> {
        match self.word() >> word::ERRNO_SHIFT {
            0 => Ok(self.done()),
            e => Err(i32::try_from(e).unwrap_or(5)),
        }
    }
}

/// Jobs in order, linked through `kaiocb::list`.
#[derive(Debug, Default)]
pub struct JobList {
    head: Option<NonNull<sys::kaiocb>>,
    tail: Option<NonNull<sys::kaiocb>>,
    len: usize,
}

// SAFETY: owns its jobs.
unsafe impl Send for JobList {}

fn next(p: NonNull<sys::kaiocb>) -> Option<NonNull<sys::kaiocb>> {
    // SAFETY: a job in a list is owned by it and lives.
    let at = unsafe { sys::th_job_next(p.as_ptr()) };
    // SAFETY: the link is ours while the job is.
    NonNull::new(unsafe { at.read() })
}

fn set_next(p: NonNull<sys::kaiocb>, n: Option<NonNull<sys::kaiocb>>) {
    // SAFETY: as in next().
    let at = unsafe { sys::th_job_next(p.as_ptr()) };
    // SAFETY: as in next().
    unsafe { at.write(n.map_or(core::ptr::null_mut(), NonNull::as_ptr)) };
}

impl JobList {
    /// Append.
    pub fn push_back(&mut self, job: Job) {
        set_next(job.0, None);
        match self.tail {
            Some(t) => set_next(t, Some(job.0)),
            None => self.head = Some(job.0),
        }
        self.tail = Some(job.0);
        self.len += 1;
        core::mem::forget(job);
    }

    /// Put at the head.
    pub fn push_front(&mut self, job: Job) {
        set_next(job.0, self.head);
        if self.head.is_none() {
            self.tail = Some(job.0);
        }
        self.head = Some(job.0);
        self.len += 1;
        core::mem::forget(job);
    }

    /// Take the head.
    pub fn pop_front(&mut self) -> Option<Job> {
        let p = self.head?;
        self.head = next(p);
        if self.head.is_none() {
            self.tail = None;
        }
        self.len -= 1;
        Some(Job(p))
    }

    /// Take the job with this address.
    pub fn remove(&mut self, addr: usize) -> Option<Job> {
        let mut before: Option<NonNull<sys::kaiocb>> = None;
        let mut at = self.head;
        while let Some(p) = at {
            let after = next(p);
            if p.as_ptr().addr() == addr {
                match before {
                    Some(b) => set_next(b, after),
                    None => self.head = after,
                }
                if after.is_none() {
                    self.tail = before;
                }
                self.len -= 1;
                return Some(Job(p));
            }
            before = at;
            at = after;
        }
        None
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Visit the jobs in order until `f` says to stop; returns the address it stopped at.
    pub fn find(&self, mut f: impl FnMut(&Job) -> bool) -> Option<JobPtr> {
        let mut at = self.head;
        while let Some(p) = at {
            let job = core::mem::ManuallyDrop::new(Job(p));
            if f(&job) {
                return Some(JobPtr(p));
            }
            at = next(p);
        }
        None
    }
}
