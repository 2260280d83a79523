//! The adapter: settings, counters, work requests, atids.

use core::ffi::CStr;
use core::ptr::NonNull;

use crate::mem::{Slice, Wait};
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
    /// User pages kept because the adapter does not say that it is done with them.
    Orphaned = sys::TH_GAUGE_ORPHANED,
    /// Connections kept for that.
    Orphans = sys::TH_GAUGE_ORPHANS,
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

    /// Add to a counter, and to that of the connection's class if it is about one.
    pub fn count(self, class: Option<Class>, counter: usize, n: u64) {
        let class = match class {
            Some(Class::Active) => sys::TH_CLASS_ACTIVE,
            Some(Class::Passive) => sys::TH_CLASS_PASSIVE,
            None => sys::TH_NCLASSES,
        };
        // SAFETY: live handle; a number that is no counter or no class is passed over.
        unsafe { sys::th_count(self.as_ptr(), class, counter as u32, n) };
    }

    /// Move a gauge.
    pub fn gauge(self, g: Gauge, delta: i64) {
        // SAFETY: live handle.
        unsafe { sys::th_gauge(self.as_ptr(), g as u32, delta) };
    }

    /// Log a line, rate limited.
    pub fn log(self, msg: &'static CStr, a: u64, b: u64) {
        self.log_bytes(msg.to_bytes(), a, b);
    }

    /// As [`Tom::log`], for text that is not terminated.
    pub fn log_str(self, msg: &str, a: u64, b: u64) {
        self.log_bytes(msg.as_bytes(), a, b);
    }

    fn log_bytes(self, msg: &[u8], a: u64, b: u64) {
        // SAFETY: live handle; the text is as long as that, and not kept.
        unsafe { sys::th_log(self.as_ptr(), msg.as_ptr().cast(), msg.len(), a, b) };
    }

    /// Uptime in milliseconds.
    #[must_use]
    pub fn uptime_ms(self) -> u64 {
        // SAFETY: reads the clock, in any context.
        unsafe { sys::th_uptime_ms() }
    }

    /// Run `toehold_retry` in `ms` milliseconds, or before if that was asked for.
    pub fn retry_schedule(self, ms: u32) {
        // SAFETY: live handle.
        unsafe { sys::th_retry_schedule(self.as_ptr(), ms) };
    }

    /// Submit a work request, whole as it is (a multiple of 16 bytes, at most 512), to a queue.
    ///
    /// # Errors
    /// ENOMEM: nothing was sent.
    pub fn send_wr(self, q: WrQueue, bytes: &[u8]) -> Result<(), Error> {
        let mut wr = NO_WR;
        // SAFETY: `wr` stays where it is until it is committed, just below.
        unsafe { self.start_wr(q, bytes, &mut wr) }?;
        // SAFETY: started above, committed once.
        unsafe { sys::th_wr_commit(&mut wr) };
        Ok(())
    }

    /// The same, but the request stays open.
    ///
    /// # Safety
    /// If the answer is `Ok`, `wr` must not move until it is committed, once and soon.
    unsafe fn start_wr(self, q: WrQueue, bytes: &[u8], wr: &mut sys::th_wr) -> Result<(), Error> {
        let len = bytes.len();
        if len == 0 || !len.is_multiple_of(16) || len > sys::TH_WR_MAX as usize {
            return Err(Error::EINVAL);
        }
        let (q, idx) = match q {
            WrQueue::Ctrl(i) => (sys::TH_Q_CTRL, i),
            WrQueue::Ofld(i) => (sys::TH_Q_OFLD, i),
        };
        // SAFETY: live handle; the index is a th_vi's `txq` or a control queue that each adapter has.
        check(unsafe { sys::th_wr_start(self.as_ptr(), q, idx, (len / 16) as u32, wr) })?;
        // SAFETY: th_wr_start() said 0, so `wr.wr` is room for `len` bytes, ours until commit; no
        // slice of ours lies in a queue.
        unsafe { wr.wr.copy_from_nonoverlapping(bytes.as_ptr(), len) };
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

/// A work request that was not started.
const NO_WR: sys::th_wr = sys::th_wr {
    wr: core::ptr::null_mut(),
    wrq: core::ptr::null_mut(),
    cookie: [0; 4],
};

/// Work requests of which the last stays open until the next is started, so that the adapter's
/// doorbell is rung once for all of them.
///
/// The queue knows an open request's cookie by its address, so those stand in memory of their
/// own. What is open delays other users of the queue: [`WrBatch::flush`] follows soon, in the
/// same thread, with no sleep between.
pub struct WrBatch {
    tom: Tom,
    wrs: Slice<sys::th_wr>,
    /// Which of the two is open, and where.
    open: Option<(usize, WrQueue)>,
}

// SAFETY: an open request is committed by whoever has the value; its queue has a lock.
unsafe impl Send for WrBatch {}

impl WrBatch {
    /// Nothing in it.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(tom: Tom) -> Result<WrBatch, Error> {
        Ok(WrBatch {
            tom,
            wrs: Slice::new(2, Wait::No, |_| NO_WR)?,
            open: None,
        })
    }

    /// As [`Tom::send_wr`], but the adapter may hear of it with [`WrBatch::flush`] only.
    ///
    /// # Errors
    /// ENOMEM: nothing was sent.
    pub fn send_wr(&mut self, q: WrQueue, bytes: &[u8]) -> Result<(), Error> {
        if self.open.is_some_and(|(_, at)| at != q) {
            self.flush();
        }
        let next = self.open.map_or(0, |(i, _)| 1 - i);
        let wr = self.wrs.get_mut(next).ok_or(Error::ENOMEM)?;
        // SAFETY: the slice's memory stays; flush() commits it, or the one that follows does.
        unsafe { self.tom.start_wr(q, bytes, wr) }?;
        self.flush();
        self.open = Some((next, q));
        Ok(())
    }

    /// Tell the adapter.
    pub fn flush(&mut self) {
        if let Some((i, _)) = self.open.take()
            && let Some(wr) = self.wrs.get_mut(i)
        {
            // SAFETY: started by send_wr(), and taken out of `open`, so committed once.
            unsafe { sys::th_wr_commit(wr) };
        }
    }
}

impl Drop for WrBatch {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Who opened a connection; there are counters for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// We.
    Active,
    /// The peer.
    Passive,
}

/// Where a work request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrQueue {
    /// Control queue, by its index.
    Ctrl(u32),
    /// Offload transmit queue, by its index.
    Ofld(u32),
}
