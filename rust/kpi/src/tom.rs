//! The adapter: settings, counters, work requests, atids.

use core::ffi::CStr;
use core::ptr::NonNull;

use crate::{Error, check, sys};

/// Handle of an adapter that the module is active on.
///
/// # Invariants
/// Points to the `struct th_tom` of an active adapter. It is made in `toehold_activate` and
/// whatever holds a copy is freed in `toehold_free`, before the `th_tom` is.
#[derive(Clone, Copy)]
pub struct Tom(NonNull<sys::th_tom>);

// SAFETY: the shim's functions on a th_tom may be called from any thread.
unsafe impl Send for Tom {}
// SAFETY: as for Send.
unsafe impl Sync for Tom {}

/// A gauge shown by sysctl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Gauge {
    /// Page pods in use.
    Ppods = sys::TH_GAUGE_PPODS,
    /// Offloaded connections.
    Toepcb = sys::TH_GAUGE_TOEPCB,
}

impl Tom {
    /// # Safety
    /// The type's invariant must hold for `p`.
    #[must_use]
    pub unsafe fn from_raw(p: NonNull<sys::th_tom>) -> Tom {
        Tom(p)
    }

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(self) -> *mut sys::th_tom {
        self.0.as_ptr()
    }

    /// The sysctls as they stand now.
    #[must_use]
    pub fn tunables(self) -> sys::th_tunables {
        let mut t = sys::th_tunables::default();
        // SAFETY: live handle (type invariant); `t` is written, not kept.
        unsafe { sys::th_tunables(self.as_ptr(), &mut t) };
        t
    }

    /// Add to a counter.
    pub fn count(self, counter: usize, n: u64) {
        // SAFETY: live handle; a number that is no counter is passed over.
        unsafe { sys::th_count(self.as_ptr(), counter as u32, n) };
    }

    /// Move a gauge.
    pub fn gauge(self, g: Gauge, delta: i64) {
        // SAFETY: live handle.
        unsafe { sys::th_gauge(self.as_ptr(), g as u32, delta) };
    }

    /// Log a line, rate limited.
    pub fn log(self, msg: &'static CStr, a: u64, b: u64) {
        // SAFETY: live handle; `msg` is a terminated string.
        unsafe { sys::th_log(self.as_ptr(), msg.as_ptr(), a, b) };
    }

    /// Run `toehold_retry` soon.
    pub fn retry_schedule(self, ms: u32) {
        // SAFETY: live handle.
        unsafe { sys::th_retry_schedule(self.as_ptr(), ms) };
    }

    /// Reserve a work request of `len` bytes (a multiple of 16, at most 512) in a queue, let
    /// `fill` write it, submit it. `fill` gets zeroed bytes.
    ///
    /// # Errors
    /// ENOMEM; `fill` was not called.
    pub fn send_wr(
        self,
        q: WrQueue,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Error> {
        if len == 0 || !len.is_multiple_of(16) || len > sys::TH_WR_MAX as usize {
            return Err(Error(22));
        }
        let (q, idx) = match q {
            WrQueue::Ctrl(port) => (sys::TH_Q_CTRL, port),
            WrQueue::Ofld(i) => (sys::TH_Q_OFLD, i),
        };
        let mut wr = sys::th_wr {
            wr: core::ptr::null_mut(),
            wrq: core::ptr::null_mut(),
            cookie: [0; 4],
        };
        // SAFETY: live handle; the queue's index came from the adapter (th_vi, port).
        check(unsafe { sys::th_wr_start(self.as_ptr(), q, idx, (len / 16) as u32, &mut wr) })?;
        // SAFETY: th_wr_start() said 0, so `wr.wr` is room for `len` bytes, ours until commit.
        unsafe { wr.wr.write_bytes(0, len) };
        // SAFETY: `len` bytes, initialised just above, that nobody else touches until commit.
        fill(unsafe { core::slice::from_raw_parts_mut(wr.wr, len) });
        // SAFETY: started above, committed once.
        unsafe { sys::th_wr_commit(&mut wr) };
        Ok(())
    }

    /// Take an atid. `None`: all are in use.
    #[must_use]
    pub fn atid_alloc(self) -> Option<u32> {
        // SAFETY: live handle.
        u32::try_from(unsafe { sys::th_atid_alloc(self.as_ptr()) }).ok()
    }

    /// Give back an atid that [`Tom::atid_alloc`] gave.
    pub fn atid_free(self, atid: u32) {
        if let Ok(id) = i32::try_from(atid) {
            // SAFETY: live handle; the atid is in use, and given back once by its only holder.
            unsafe { sys::th_atid_free(self.as_ptr(), id) };
        }
    }
}

/// Where a work request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrQueue {
    /// Control queue of a port.
    Ctrl(u32),
    /// Offload transmit queue, by its index.
    Ofld(u32),
}
