//! Mbuf chains received, and the walk over those that wait to be sent.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::sys;

/// An owned chain.
#[derive(Debug)]
pub struct Mbuf(NonNull<sys::mbuf>);

// SAFETY: the chain is owned.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `m` is the head of a chain whose ownership passes to the value.
    #[must_use]
    pub unsafe fn from_raw(m: NonNull<sys::mbuf>) -> Mbuf {
        Mbuf(m)
    }

    /// Give the chain up.
    #[must_use]
    pub fn into_raw(self) -> *mut sys::mbuf {
        let p = self.0.as_ptr();
        core::mem::forget(self);
        p
    }

    /// For calls of the shim that only look.
    #[must_use]
    pub fn as_ptr(&self) -> *mut sys::mbuf {
        self.0.as_ptr()
    }

    /// Bytes in the chain.
    #[must_use]
    pub fn len(&self) -> u32 {
        // SAFETY: an owned chain.
        unsafe { sys::th_mbuf_len(self.as_ptr()) }
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Trim `n` bytes from the front.
    pub fn trim_front(&mut self, n: u32) {
        // SAFETY: an owned chain.
        unsafe { sys::th_mbuf_adj(self.as_ptr(), n) };
    }

    /// Append another chain.
    #[must_use]
    pub fn join(self, tail: Mbuf) -> Mbuf {
        // SAFETY: both chains are owned; `tail` is handed over.
        unsafe { sys::th_mbuf_cat(self.as_ptr(), tail.into_raw()) };
        self
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: an owned chain, never used again.
        unsafe { sys::th_mbuf_free(self.0.as_ptr()) };
    }
}

/// A piece of an unsent mbuf: physically contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Physical address.
    pub pa: u64,
    /// Bytes.
    pub len: u32,
    /// From the pages of an aio_write.
    pub aiotx: bool,
}

/// Walk over the unsent bytes of so_snd. Valid while the inpcb's lock is held.
pub struct Unsent<'g> {
    m: *mut sys::mbuf,
    off: u32,
    _held: PhantomData<&'g ()>,
}

impl Unsent<'_> {
    /// # Safety
    /// `m` (may be null) is in a socket buffer that no mbuf leaves while the value is used.
    #[must_use]
    pub unsafe fn new(m: *mut sys::mbuf, off: u32) -> Self {
        Unsent {
            m,
            off,
            _held: PhantomData,
        }
    }

    /// Skip to an mbuf with bytes left, and look at it.
    fn view(&mut self) -> Option<sys::th_mbuf> {
        while !self.m.is_null() {
            let mut v = sys::th_mbuf::default();
            // SAFETY: an mbuf of the buffer (new()'s promise); `v` is written, not kept.
            unsafe { sys::th_mbuf(self.m, &mut v) };
            if v.flags & sys::TH_M_NOTREADY != 0 {
                return None;
            }
            if self.off < v.len {
                return Some(v);
            }
            self.off -= v.len;
            // SAFETY: as above.
            self.m = unsafe { sys::th_mbuf_next(self.m) };
        }
        None
    }

    /// True if a byte that is ready follows.
    pub fn more(&mut self) -> bool {
        self.view().is_some()
    }

    /// The next run, at most `max` bytes of it, which are passed over; `None` at the end or at
    /// data that is not ready.
    pub fn next_run(&mut self, max: u32) -> Option<Run> {
        let v = self.view()?;
        let mut len = 0;
        // SAFETY: an mbuf of the buffer, and `off` lies inside it.
        let pa = unsafe { sys::th_mbuf_run(self.m, self.off, &mut len) };
        let len = len.min(v.len - self.off).min(max);
        if len == 0 {
            return None;
        }
        self.off += len;
        Some(Run {
            pa,
            len,
            aiotx: v.flags & sys::TH_M_AIOTX != 0,
        })
    }

    /// Step back over the last `n` bytes of the run just returned.
    pub fn unread(&mut self, n: u32) {
        self.off -= n.min(self.off);
    }

    /// Copy the next `out.len()` bytes. False: there are not as many that are ready, and what
    /// `out` holds then is not to be used.
    #[must_use]
    pub fn copy(&mut self, mut out: &mut [u8]) -> bool {
        while !out.is_empty() {
            let Some(v) = self.view() else { return false };
            let here = out.len().min((v.len - self.off) as usize);
            let (now, rest) = out.split_at_mut(here);
            let len = here as u32;
            // SAFETY: an mbuf of the buffer (new()'s promise) with that many bytes behind `off`;
            // `now` has room for them.
            unsafe { sys::th_mbuf_copy(self.m, self.off, len, now.as_mut_ptr()) };
            self.off += len;
            out = rest;
        }
        true
    }
}
