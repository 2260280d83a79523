//! The worker of a connection.

use core::ptr::NonNull;

use crate::{Error, mem::Cookie, sys};

/// A task that runs `toehold_worker(toep)` in a kernel process that may sleep.
pub struct Task(NonNull<sys::th_task>);

// SAFETY: the shim's functions on a task may be called from any thread.
unsafe impl Send for Task {}
// SAFETY: as for Send.
unsafe impl Sync for Task {}

impl Task {
    /// A task for `toep`, an [`crate::mem::Arc`]'s pointer.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(toep: Cookie) -> Result<Task, Error> {
        // SAFETY: `toep` is only kept.
        NonNull::new(unsafe { sys::th_task_alloc(toep.as_ptr()) })
            .map(Task)
            .ok_or(Error::ENOMEM)
    }

    /// Queue it. True: it was not queued, and the worker will take over one reference of the
    /// connection, which the caller gives up.
    #[must_use]
    pub fn enqueue(&self) -> bool {
        // SAFETY: the task lives; a queued task holds a reference of the connection that owns
        // it, and so is not dropped.
        unsafe { sys::th_task_enqueue(self.0.as_ptr()) }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: not queued: a queued task keeps its owner alive.
        unsafe { sys::th_task_free(self.0.as_ptr()) };
    }
}
