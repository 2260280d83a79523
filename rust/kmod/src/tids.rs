//! The adapter's identifiers: who a tid, an atid or an stid stands for.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering};

use kpi::Error;
use kpi::mem::{Arc, Last, Slice, Wait};
use kpi::mtx::Mutex;

/// A table of counted references, in shards with a mutex each: every CPL looks one up, from as
/// many threads as there are queues.
pub struct Table<T: Last> {
    shards: Slice<Mutex<Slice<Option<Arc<T>>>>>,
    base: u32,
    n: u32,
    used: AtomicU32,
}

const SHARDS: usize = 16;

impl<T: Last> Table<T> {
    /// A table for the `n` numbers from `base` on, which other things of the adapter may stand
    /// before: filters of high priority before a T6's tids, say. Sleeps.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(name: &'static CStr, base: u32, n: u32) -> Result<Table<T>, Error> {
        let per = n.div_ceil(SHARDS as u32) as usize;
        let shards = Slice::try_new(SHARDS, Wait::Ok, |_| {
            Ok(Mutex::new(name, Slice::new(per, Wait::Ok, |_| None)?))
        })?;
        Ok(Table {
            shards,
            base,
            n,
            used: AtomicU32::new(0),
        })
    }

    /// How many numbers are given to somebody.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    fn numbers(&self) -> core::ops::Range<u32> {
        self.base..self.base.saturating_add(self.n)
    }

    fn with<R>(&self, id: u32, f: impl FnOnce(&mut Option<Arc<T>>) -> R) -> Option<R> {
        let id = id.checked_sub(self.base).filter(|i| *i < self.n)? as usize;
        let mut shard = self.shards.get(id % SHARDS)?.lock();
        shard.get_mut(id / SHARDS).map(f)
    }

    /// Who has the number.
    pub fn get(&self, id: u32) -> Option<Arc<T>> {
        self.with(id, |e| e.clone()).flatten()
    }

    /// Give the number to `v`. Returns who had it, or `v` itself if there is no such number.
    pub fn put(&self, id: u32, v: Arc<T>) -> Option<Arc<T>> {
        let mut v = Some(v);
        let before = self.with(id, |e| core::mem::replace(e, v.take())).flatten();
        if before.is_none() && v.is_none() {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        // Not moved in: no such number.
        before.or(v)
    }

    /// Take the number away. The reference is dropped by the caller, with no shard locked.
    pub fn take(&self, id: u32) -> Option<Arc<T>> {
        let v = self.with(id, Option::take).flatten();
        if v.is_some() {
            self.used.fetch_sub(1, Ordering::Release);
        }
        v
    }

    /// A free number, given to `v`. `None` (and `v` back) if all are taken.
    pub fn claim(&self, v: Arc<T>) -> Result<u32, Arc<T>> {
        let mut v = Some(v);
        for id in self.numbers() {
            let done = self.with(id, |e| {
                if e.is_none() {
                    *e = v.take();
                    true
                } else {
                    false
                }
            });
            if done == Some(true) {
                self.used.fetch_add(1, Ordering::Relaxed);
                return Ok(id);
            }
        }
        match v {
            Some(v) => Err(v),
            None => unreachable!("given away only on return"),
        }
    }

    /// Call `f` with every entry, no shard locked. Entries that come or go meanwhile may be missed.
    pub fn each(&self, mut f: impl FnMut(u32, Arc<T>)) {
        let mut left = self.used();
        for id in self.numbers() {
            if left == 0 {
                return;
            }
            if let Some(v) = self.get(id) {
                left -= 1;
                f(id, v);
            }
        }
    }
}
