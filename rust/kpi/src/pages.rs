//! Held user pages.

use core::ptr::NonNull;

use crate::aio::Lent;
use crate::{Error, check, sys, tom::Tom};

/// Bytes of a page.
pub const PAGE_SIZE: u32 = 4096;

/// Wired pages of one user buffer; unwired on drop. May be dropped under the inpcb's lock.
pub struct Pages {
    p: NonNull<sys::th_pages>,
    tom: Tom,
}

// SAFETY: owned; the shim's functions on it may be called from any thread.
unsafe impl Send for Pages {}

impl Pages {
    /// Fault in and wire the pages under `[addr, addr + len)` of the job's process. Sleeps: no
    /// lock may be held. `charged`:
    /// [`crate::aio::Job::charge`] said yes to them, and the value, or the error, ends that.
    ///
    /// # Errors
    /// EFAULT, ENOMEM.
    pub fn hold(
        tom: Tom,
        job: &Lent,
        addr: u64,
        len: u32,
        write: bool,
        charged: bool,
    ) -> Result<Pages, Error> {
        let mut p = core::ptr::null_mut();
        let (tomp, jobp) = (tom.as_ptr(), job.as_ptr());
        // SAFETY: live handle and job; no lock is held (this function's contract).
        check(unsafe { sys::th_pages_hold(tomp, jobp, addr, len, write, charged, &mut p) })?;
        NonNull::new(p)
            .map(|p| Pages { p, tom })
            .ok_or(Error::EFAULT)
    }

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(&self) -> *mut sys::th_pages {
        self.p.as_ptr()
    }

    fn view(&self) -> &sys::th_pages {
        // SAFETY: owned and alive until drop; C changes nothing in it.
        unsafe { self.p.as_ref() }
    }

    /// Physical addresses of the pages, in order.
    #[must_use]
    pub fn addrs(&self) -> &[u64] {
        let v = self.view();
        // SAFETY: `pa` has `count` entries that live and stay as they are until drop.
        unsafe { core::slice::from_raw_parts(v.pa, v.count as usize) }
    }

    /// Bytes in all pages.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.view().count.saturating_mul(PAGE_SIZE)
    }

    /// EINVAL unless `[off, off + len)` lies within the pages.
    ///
    /// # Errors
    /// EINVAL.
    pub fn check_range(&self, off: u32, len: u32) -> Result<(), Error> {
        match off.checked_add(len) {
            Some(end) if end <= self.bytes() => Ok(()),
            _ => Err(Error::EINVAL),
        }
    }

    /// The adapter has written to them.
    pub fn dirty(&mut self) {
        // SAFETY: owned and alive.
        unsafe { sys::th_pages_dirty(self.as_ptr()) };
    }

    /// None of the first `n` was taken away from its object (by a truncation) since it was held.
    #[must_use]
    pub fn intact(&self, n: usize) -> bool {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        // SAFETY: owned and alive; no more pages are looked at than there are.
        unsafe { sys::th_pages_valid(self.as_ptr(), n) }
    }

    /// A load by the process would find each of them where it was held. Takes the pmap's lock.
    #[must_use]
    pub fn shown(&self) -> bool {
        // SAFETY: owned and alive, and so is the address space it refers to.
        unsafe { sys::th_pages_shown(self.as_ptr()) }
    }

    /// Some of them are a file's.
    #[must_use]
    pub fn of_file(&self) -> bool {
        self.view().flags & sys::TH_PAGES_FILE != 0
    }

    /// Copy bytes to other pages; nothing happens if a range lies outside.
    pub fn copy_to(&self, off: u32, to: &Pages, at: u32, len: u32) {
        if self.check_range(off, len).is_ok() && to.check_range(at, len).is_ok() {
            // SAFETY: both are alive, and the ranges lie within them.
            unsafe { sys::th_pages_copy(self.as_ptr(), off, to.as_ptr(), at, len) };
        }
    }

    /// `memmove` within the pages; nothing happens if a range lies outside.
    pub fn move_bytes(&self, from: u32, to: u32, len: u32) {
        if self.check_range(from, len).is_ok() && self.check_range(to, len).is_ok() {
            // SAFETY: both ranges lie within the pages.
            unsafe { sys::th_pages_move(self.as_ptr(), from, to, len) };
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: owned, never used again; the adapter is done with them (core's invariant I3).
        unsafe { sys::th_pages_rele(self.tom.as_ptr(), self.as_ptr()) };
    }
}
