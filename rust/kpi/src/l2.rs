//! Next hops in the adapter's L2 table.

use core::ptr::NonNull;

use crate::tom::{Tom, WrQueue};
use crate::{Error, check, sys};

/// A counted use of an L2 entry.
pub struct L2 {
    e: NonNull<sys::th_l2e>,
    tom: Tom,
}

// SAFETY: the shim's functions on an entry may be called from any thread.
unsafe impl Send for L2 {}
// SAFETY: as for Send.
unsafe impl Sync for L2 {}

impl L2 {
    /// Adopt a use that the shim gave.
    ///
    /// # Safety
    /// `e` carries one use that passes to the value.
    #[must_use]
    pub unsafe fn adopt(tom: Tom, e: NonNull<sys::th_l2e>) -> L2 {
        L2 { e, tom }
    }

    /// The next hop `addr` (network order) through an interface of the adapter.
    ///
    /// # Errors
    /// ENOMEM: no entry is free.
    pub fn get(tom: Tom, vi: &sys::th_vi, addr: u32) -> Result<L2, Error> {
        // SAFETY: live handle; `vi.ifp` came from the shim, for this call or the one before.
        let e = unsafe { sys::th_l2_get(tom.as_ptr(), vi.ifp, addr) };
        NonNull::new(e).map(|e| L2 { e, tom }).ok_or(Error::ENOMEM)
    }

    /// Index in the adapter's table.
    #[must_use]
    pub fn idx(&self) -> u16 {
        // SAFETY: a use of the entry is held.
        unsafe { sys::th_l2_idx(self.e.as_ptr()) as u16 }
    }

    /// Send a work request once the next hop is resolved; see `toehold_l2_failed`.
    ///
    /// # Errors
    /// An errno: nothing will be sent.
    pub fn send(&self, q: WrQueue, wr: &[u8], cookie: u64) -> Result<(), Error> {
        // The shim parks requests for control queues only.
        let WrQueue::Ctrl(ctrlq) = q else {
            return Err(Error::EINVAL);
        };
        let len = u32::try_from(wr.len()).map_err(|_| Error::EINVAL)?;
        // SAFETY: live handle, a use of the entry is held; the bytes are copied.
        check(unsafe {
            sys::th_l2_send(
                self.tom.as_ptr(),
                self.e.as_ptr(),
                ctrlq,
                wr.as_ptr(),
                len,
                cookie,
            )
        })
    }
}

impl Drop for L2 {
    fn drop(&mut self) {
        // SAFETY: gives back the use this value stands for.
        unsafe { sys::th_l2_rele(self.tom.as_ptr(), self.e.as_ptr()) };
    }
}
