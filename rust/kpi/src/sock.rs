//! Socket and socket buffers of a locked inpcb.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::aio::Job;
use crate::mbuf::Mbuf;
use crate::mem::Cookie;
use crate::pages::Pages;
use crate::{Error, check, sys};

/// The socket of an inpcb whose lock is held for `'g`.
#[derive(Clone, Copy)]
pub struct Socket<'g> {
    so: NonNull<sys::socket>,
    _held: PhantomData<&'g ()>,
}

/// Which socket buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Which {
    /// so_rcv.
    Rcv = sys::TH_SB_RCV,
    /// so_snd.
    Snd = sys::TH_SB_SND,
}

impl Socket<'_> {
    /// # Safety
    /// `so` is the socket of an inpcb whose write lock is held for the lifetime of the value.
    #[must_use]
    pub unsafe fn from_raw(so: NonNull<sys::socket>) -> Self {
        Socket {
            so,
            _held: PhantomData,
        }
    }

    /// For calls of the shim.
    pub(crate) fn as_ptr(self) -> *mut sys::socket {
        self.so.as_ptr()
    }

    /// A socket buffer at this moment.
    #[must_use]
    pub fn sb(self, which: Which) -> sys::th_sockbuf {
        let mut s = sys::th_sockbuf::default();
        // SAFETY: live socket (type's contract); `s` is written, not kept.
        unsafe { sys::th_sb(self.as_ptr(), which as u32, &mut s) };
        s
    }

    /// Append received data and wake readers.
    pub fn rcv_append(self, m: Mbuf) {
        // SAFETY: live socket; the chain is handed over.
        unsafe { sys::th_rcv_append(self.as_ptr(), m.into_raw()) };
    }

    /// Grow so_rcv by a step, if it sizes itself and may have more.
    pub fn rcv_grow(self) {
        // SAFETY: live socket.
        unsafe { sys::th_rcv_grow(self.as_ptr()) };
    }

    /// `socantrcvmore`.
    pub fn rcv_cant_more(self) {
        // SAFETY: live socket.
        unsafe { sys::th_rcv_cant_more(self.as_ptr()) };
    }

    /// Reads of the generic path wait or are being served.
    #[must_use]
    pub fn rcv_generic(self) -> bool {
        // SAFETY: live socket.
        unsafe { sys::th_rcv_generic(self.as_ptr()) }
    }

    /// Grow so_snd if it is nearly full and autosizing is on.
    #[must_use]
    pub fn snd_autosize(self) -> bool {
        // SAFETY: live socket.
        unsafe { sys::th_snd_autosize(self.as_ptr()) }
    }

    /// Remember that `n` bytes more, behind the `sent` ones, went to the adapter.
    pub fn snd_advance(self, sent: u32, n: u32) {
        // SAFETY: live socket.
        unsafe { sys::th_snd_advance(self.as_ptr(), sent, n) };
    }

    /// Take so_error.
    #[must_use]
    pub fn take_error(self) -> Option<Error> {
        // SAFETY: live socket.
        check(unsafe { sys::th_so_take_error(self.as_ptr()) }).err()
    }

    /// SS_NBIO.
    #[must_use]
    pub fn nonblocking(self) -> bool {
        // SAFETY: live socket.
        unsafe { sys::th_so_nonblocking(self.as_ptr()) }
    }

    /// SO_NO_DDP.
    #[must_use]
    pub fn no_ddp(self) -> bool {
        // SAFETY: live socket.
        unsafe { sys::th_so_no_ddp(self.as_ptr()) }
    }

    /// SIGPIPE for the job's process unless SO_NOSIGPIPE.
    pub fn sigpipe(self, job: &Job) {
        // SAFETY: live socket, live job.
        unsafe { sys::th_job_sigpipe(job.as_ptr(), self.as_ptr()) };
    }

    /// Move up to `max` bytes of so_rcv to byte `off` of the pages; returns how many.
    pub fn rcv_copy(self, pages: &Pages, off: u32, max: u32) -> u32 {
        let max = max.min(pages.bytes().saturating_sub(off));
        // SAFETY: live socket; the range lies within the held pages.
        unsafe { sys::th_rcv_copy(self.as_ptr(), pages.as_ptr(), off, max) }
    }

    /// Append a copy of bytes of the pages to so_rcv.
    ///
    /// # Errors
    /// ENOBUFS, or EINVAL if the range lies outside the pages: nothing was appended.
    pub fn rcv_append_pages(self, pages: &Pages, off: u32, len: u32) -> Result<(), Error> {
        pages.check_range(off, len)?;
        // SAFETY: live socket; the range lies within the held pages.
        check(unsafe { sys::th_rcv_append_pages(self.as_ptr(), pages.as_ptr(), off, len) })
    }

    /// Append an ordinary chain to so_snd.
    pub fn snd_append(self, m: Mbuf) {
        // SAFETY: live socket; the chain is handed over.
        unsafe { sys::th_snd_append(self.as_ptr(), m.into_raw()) };
    }

    /// Append bytes of the pages to so_snd as mbufs; each calls `toehold_aiotx_hold` with `owner`
    /// and `slot`, and `toehold_aiotx_rele` when it goes.
    ///
    /// # Errors
    /// ENOBUFS, or EINVAL if the range lies outside the pages: nothing was appended.
    pub fn snd_append_pages(
        self,
        pages: &Pages,
        owner: Cookie,
        slot: u16,
        off: u32,
        len: u32,
    ) -> Result<(), Error> {
        pages.check_range(off, len)?;
        let (so, p, slot) = (self.as_ptr(), pages.as_ptr(), u32::from(slot));
        // SAFETY: live socket; the range lies within the held pages, which outlive the mbufs: each
        // is a user of their slot until it goes.
        check(unsafe { sys::th_snd_append_pages(so, p, owner.as_ptr(), slot, off, len) })
    }
}
