//! When a connection that met a shortage is looked at again.
//!
//! Each has its own back-off, so that what one program cannot have delays no other's. The time
//! that was asked for first does not bind: an earlier one wins.
//!
//! Context: any; the adapter's retry task takes turns without the connection's lock.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Milliseconds until a shortage is looked at again, if nothing wakes it before. Doubled as long
/// as that does not help.
pub const RETRY_MS: u32 = 1;
/// Longest time between two looks at a shortage, milliseconds.
pub const RETRY_MS_MAX: u32 = 256;

/// No time is set.
const NEVER: u64 = u64::MAX;

/// The turn of one connection.
pub struct Turn {
    /// In the adapter's queue.
    queued: AtomicBool,
    /// `Conn::retry` is wanted, not the worker alone.
    retry: AtomicBool,
    /// Uptime in milliseconds.
    due: AtomicU64,
    /// How long it waits when a look has not helped.
    patience: AtomicU32,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            queued: AtomicBool::new(false),
            retry: AtomicBool::new(false),
            due: AtomicU64::new(NEVER),
            patience: AtomicU32::new(RETRY_MS),
        }
    }
}

impl Turn {
    /// A shortage was met by the way: the back-off begins anew. Returns the milliseconds to wait.
    pub fn afresh(&self) -> u32 {
        self.patience.store(RETRY_MS, Ordering::Relaxed);
        RETRY_MS
    }

    /// Milliseconds to wait after a look that has not helped.
    pub fn longer(&self) -> u32 {
        self.patience.load(Ordering::Relaxed)
    }

    /// Ask for a look, for `Conn::retry` if `retry`, `ms` from `now` or before. True: it is to be
    /// put into the queue.
    #[must_use]
    pub fn ask(&self, now: u64, ms: u32, retry: bool) -> bool {
        if retry {
            self.retry.store(true, Ordering::Release);
        }
        self.due.fetch_min(now + u64::from(ms), Ordering::AcqRel);
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Milliseconds from `now` on until its turn; 0: it has come.
    pub fn left(&self, now: u64) -> u32 {
        let left = self.due.load(Ordering::Acquire).saturating_sub(now);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// It was taken out of the queue, at its time or (`early`) because something was given back.
    /// True if `Conn::retry` is wanted.
    pub fn take(&self, early: bool) -> bool {
        if !early {
            let ms = self.patience.load(Ordering::Relaxed);
            let ms = (ms * 2).min(RETRY_MS_MAX);
            self.patience.store(ms, Ordering::Relaxed);
        }
        self.due.store(NEVER, Ordering::Release);
        // Who asks from here on puts it back.
        self.queued.store(false, Ordering::Release);
        self.retry.swap(false, Ordering::AcqRel)
    }
}
