//! A point in time, or none: since when a connection waits for an answer of the adapter, to be
//! read without its lock.
//!
//! Context: any.

use core::sync::atomic::{AtomicU64, Ordering};

/// No answer is due.
const NEVER: u64 = u64::MAX;

/// Uptime in milliseconds, or never.
pub struct Due(AtomicU64);

impl Default for Due {
    fn default() -> Due {
        Due(AtomicU64::new(NEVER))
    }
}

impl Due {
    /// It is so now, says who has the lock. `Some` if an answer is due that was not, or since
    /// another time.
    pub fn changed(&self, due: Option<u64>) -> Option<u64> {
        let was = self.0.load(Ordering::Relaxed);
        if due.unwrap_or(NEVER) == was {
            return None;
        }
        self.0.store(due.unwrap_or(NEVER), Ordering::Release);
        due
    }

    /// Not later than `at`. True: that is sooner than before.
    pub fn sooner(&self, at: u64) -> bool {
        at < self.0.fetch_min(at, Ordering::AcqRel)
    }

    /// Since when, if an answer is due.
    pub fn since(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|t| *t != NEVER)
    }
}
