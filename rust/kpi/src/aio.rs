//! AIO jobs (`struct kaiocb`): their fields, their lists, their end.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::mbuf::Mbuf;
use crate::{Error, check, sys, tom::Tom};

/// A job that is ours. To be ended by [`Job::complete`]; it has no drop.
#[derive(Debug)]
#[repr(transparent)]
#[must_use = "a job must be completed"]
pub struct Job(NonNull<sys::kaiocb>);

// SAFETY: owned by whoever has the value; the shim's calls on it are from any thread.
unsafe impl Send for Job {}

/// The word of a job that is ours: slot, a flag, mark.
mod word {
    pub(super) const SLOT: usize = 0xffff;
    pub(super) const COPIES: usize = 1 << 16;
    pub(super) const MARK_SHIFT: u32 = 32;
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
        job.lent().store(0, Ordering::Relaxed);
        job
    }

    /// Give it back unclaimed: the generic path has it.
    ///
    /// # Errors
    /// It is lent, and stays ours.
    pub fn decline(mut self) -> Result<(), Job> {
        if self.lent().load(Ordering::Acquire) != 0 {
            return Err(self);
        }
        self.set_done(0);
        self.set_word(0);
        Ok(())
    }

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(&self) -> *mut sys::kaiocb {
        self.0.as_ptr()
    }

    /// Its address, as an identity.
    #[must_use]
    pub fn id(&self) -> usize {
        self.as_ptr().addr()
    }

    /// Who borrows it.
    fn lent(&self) -> &AtomicU32 {
        // SAFETY: an owned job lives.
        let p = unsafe { sys::th_job_lent(self.as_ptr()) };
        // SAFETY: a field of the job that is ours alone until aio_complete(), and reached as an
        // atomic by whoever does not own the job.
        unsafe { AtomicU32::from_ptr(p) }
    }

    /// Lend it to a thread that holds no lock: it lives until that lets go of it, and if it is
    /// ended before, its process hears of that only then.
    #[must_use]
    pub fn lend(&self) -> Lent {
        self.lent().fetch_add(1, Ordering::Relaxed);
        Lent(self.0)
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

    /// The buffer is in several places.
    #[must_use]
    pub fn vectored(&self) -> bool {
        // SAFETY: an owned job lives.
        unsafe { sys::th_job_vectored(self.as_ptr()) }
    }

    /// Address of byte `off` of the buffer, and how many of its bytes lie there in a row.
    #[must_use]
    pub fn run(&self, off: usize) -> (u64, usize) {
        let mut len = 0;
        // SAFETY: an owned job lives; `len` is written, not kept.
        let addr = unsafe { sys::th_job_run(self.as_ptr(), off, &mut len) };
        (addr, len)
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

    /// A 32-bit number kept with the job; 0 at first.
    #[must_use]
    pub fn mark(&self) -> u32 {
        (self.word() >> word::MARK_SHIFT) as u32
    }

    /// Record it.
    pub fn set_mark(&mut self, mark: u32) {
        let low = self.word() & (word::SLOT | word::COPIES);
        self.set_word(low | (mark as usize) << word::MARK_SHIFT);
    }

    /// A write's bytes are to be copied.
    #[must_use]
    pub fn copies(&self) -> bool {
        self.word() & word::COPIES != 0
    }

    /// Record that.
    pub fn set_copies(&mut self) {
        let w = self.word();
        self.set_word(w | word::COPIES);
    }

    /// Install the cancel function; false if the job is cancelled already.
    #[must_use]
    pub fn arm_cancel(&self) -> bool {
        // SAFETY: an owned job lives.
        unsafe { sys::th_job_arm_cancel(self.as_ptr()) }
    }

    /// End it: bytes moved, or an errno. If it is lent, whoever gives it back ends it.
    pub fn complete(mut self, result: Result<usize, i32>) {
        // Nobody but the owner lends it: what is not lent now stays so.
        if self.lent().load(Ordering::Acquire) == 0 {
            return finish(self.0, result);
        }
        self.set_done(result.unwrap_or(0));
        self.set_mark(result.err().map_or(0, i32::cast_unsigned));
        if self.lent().fetch_or(ENDED, Ordering::AcqRel) == 0 {
            finish(self.0, result);
        }
    }

    /// Key of the process's address space now: vmspace and map generation.
    #[must_use]
    pub fn space(&self) -> (u64, u32) {
        let (mut space, mut generation) = (0, 0);
        // SAFETY: an owned job lives, and so its process's vmspace; both are written, not kept.
        unsafe { sys::th_job_space(self.as_ptr(), &mut space, &mut generation) };
        (space, generation)
    }

    /// May `n` more pages be wired, beside what is wired through all adapters and what the job's
    /// process has? If so they are charged, and [`crate::pages::Pages::hold`] must follow. If
    /// not, whoever keeps idle page sets has been asked to let go of them.
    #[must_use]
    pub fn charge(&self, tom: Tom, n: u32) -> bool {
        // SAFETY: live handle, owned job.
        unsafe { sys::th_pages_budget(tom.as_ptr(), self.as_ptr(), n) }
    }

    /// The process exits or execs.
    #[must_use]
    pub fn leaving(&self) -> bool {
        // SAFETY: an owned job lives, and so does its process.
        unsafe { sys::th_job_leaving(self.as_ptr()) }
    }
}

/// In the count of those who borrow a job: its owner has ended it.
const ENDED: u32 = 1 << 31;

/// `aio_complete` of a job that nobody has any more.
fn finish(p: NonNull<sys::kaiocb>, result: Result<usize, i32>) {
    let (status, error) = match result {
        Ok(n) => (i64::try_from(n).unwrap_or(i64::MAX), 0),
        Err(e) => (-1, e),
    };
    // SAFETY: neither owned nor lent, so not completed before, and not used after.
    unsafe { sys::th_job_complete(p.as_ptr(), status, error) };
}

/// A job that its owner lends: it lives, and so does its process, until this is dropped.
#[derive(Debug)]
pub struct Lent(NonNull<sys::kaiocb>);

// SAFETY: the job lives while the value does, and what is read of it does not change.
unsafe impl Send for Lent {}

impl Lent {
    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(&self) -> *mut sys::kaiocb {
        self.0.as_ptr()
    }

    /// Copy bytes `[off, off + len)` of its buffer; of a vectored job the next `len`. Sleeps: no
    /// lock may be held.
    ///
    /// # Errors
    /// EFAULT.
    pub fn copy(&self, off: u64, len: u32) -> Result<Mbuf, Error> {
        let mut m = core::ptr::null_mut();
        // SAFETY: a live job; no lock is held (this function's contract); `m` is written.
        check(unsafe { sys::th_job_copy(self.as_ptr(), off, len, &mut m) })?;
        let m = NonNull::new(m).ok_or(Error::EFAULT)?;
        // SAFETY: the chain was handed over just now.
        Ok(unsafe { Mbuf::from_raw(m) })
    }

    /// User address of its buffer.
    #[must_use]
    pub fn addr(&self) -> u64 {
        // SAFETY: a live job.
        unsafe { sys::th_job_addr(self.as_ptr()) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The job lives on while it is owned or lent: through this until here.
        let job = Job(self.0);
        // Only an ended job's words stay as they are.
        let result = |job: &Job| match job.mark() {
            0 => Ok(job.done()),
            e => Err(e.cast_signed()),
        };
        if job.lent().fetch_sub(1, Ordering::AcqRel) == ENDED | 1 {
            finish(self.0, result(&job));
        }
    }
}

/// A name of another crate's for [`Job`].
///
/// # Safety
/// The type is `repr(transparent)` over [`Job`]; `job_newtype!` makes such types.
pub unsafe trait JobLike: Sized {
    /// Wrap.
    fn wrap(job: Job) -> Self;
    /// Unwrap.
    fn unwrap(self) -> Job;
}

/// Define a newtype of [`Job`], so that another crate can give it traits.
#[macro_export]
macro_rules! job_newtype {
    ($(#[$m:meta])* $name:ident) => {
        $(#[$m])*
        #[repr(transparent)]
        #[derive(Debug)]
        pub struct $name(pub $crate::aio::Job);

        // SAFETY: transparent over Job, as written just above.
        unsafe impl $crate::aio::JobLike for $name {
            fn wrap(job: $crate::aio::Job) -> Self {
                $name(job)
            }
            fn unwrap(self) -> $crate::aio::Job {
                self.0
            }
        }
    };
}

/// Jobs in order, linked through `kaiocb::list`; allocates nothing. Every link, the head's and
/// those in the jobs, is an `Option<J>`: a pointer that may be null.
#[derive(Debug)]
pub struct JobList<J: JobLike> {
    head: Option<J>,
    tail: Option<NonNull<sys::kaiocb>>,
    len: usize,
}

impl<J: JobLike> Default for JobList<J> {
    fn default() -> Self {
        JobList {
            head: None,
            tail: None,
            len: 0,
        }
    }
}

/// The link inside a job.
fn link<'a, J: JobLike>(p: NonNull<sys::kaiocb>) -> &'a mut Option<J> {
    const { assert!(size_of::<Option<J>>() == size_of::<*mut sys::kaiocb>()) };
    // SAFETY: a job in a list is owned by it and lives.
    let at = unsafe { sys::th_job_next(p.as_ptr()) };
    // SAFETY: the word is the list's while the job is in it, and holds null or a job that the
    // list owns: an Option<J>, J being transparent over a NonNull. Callers hold `&mut` of the
    // list, or only read under `&`.
    unsafe { &mut *at.cast::<Option<J>>() }
}

fn ptr_of<J: JobLike>(j: &J) -> NonNull<sys::kaiocb> {
    // SAFETY: J is transparent over Job (JobLike's contract), and Job over the pointer.
    unsafe { *core::ptr::from_ref(j).cast::<NonNull<sys::kaiocb>>() }
}

impl<J: JobLike> JobList<J> {
    /// Append.
    pub fn push_back(&mut self, job: J) {
        let p = ptr_of(&job);
        *Self::fresh_link(p) = None;
        match self.tail {
            Some(t) => *link(t) = Some(job),
            None => self.head = Some(job),
        }
        self.tail = Some(p);
        self.len += 1;
    }

    /// The link of a job not yet in a list: set to null before it is read as an Option.
    fn fresh_link<'a>(p: NonNull<sys::kaiocb>) -> &'a mut Option<J> {
        // SAFETY: a job that is ours lives.
        let at = unsafe { sys::th_job_next(p.as_ptr()) };
        // SAFETY: the word is ours while the job is.
        unsafe { at.write(core::ptr::null_mut()) };
        link(p)
    }

    /// Put at the head.
    pub fn push_front(&mut self, job: J) {
        let p = ptr_of(&job);
        let rest = self.head.take();
        if rest.is_none() {
            self.tail = Some(p);
        }
        *Self::fresh_link(p) = rest;
        self.head = Some(job);
        self.len += 1;
    }

    /// Take the head.
    pub fn pop_front(&mut self) -> Option<J> {
        let job = self.head.take()?;
        self.head = link::<J>(ptr_of(&job)).take();
        if self.head.is_none() {
            self.tail = None;
        }
        self.len -= 1;
        Some(job)
    }

    /// Look at the head.
    #[must_use]
    pub fn front(&self) -> Option<&J> {
        self.head.as_ref()
    }

    /// Look at the head, to change it.
    pub fn front_mut(&mut self) -> Option<&mut J> {
        self.head.as_mut()
    }

    /// Take the job with this address.
    pub fn remove(&mut self, addr: usize) -> Option<J> {
        let mut before = None;
        let mut slot = &mut self.head;
        loop {
            let p = ptr_of(slot.as_ref()?);
            if p.as_ptr().addr() == addr {
                break;
            }
            before = Some(p);
            slot = link(p);
        }
        let job = slot.take()?;
        let rest = link::<J>(ptr_of(&job)).take();
        if rest.is_none() {
            self.tail = before;
        }
        *slot = rest;
        self.len -= 1;
        Some(job)
    }

    /// The first job for which `pred` holds, to change it.
    pub fn find_mut(&mut self, mut pred: impl FnMut(&J) -> bool) -> Option<&mut J> {
        let mut slot = &mut self.head;
        loop {
            let job = slot.as_ref()?;
            if pred(job) {
                return slot.as_mut();
            }
            slot = link(ptr_of(job));
        }
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
}
