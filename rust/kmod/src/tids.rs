//! The adapter's identifiers: who a tid, an atid or an stid stands for.

use core::ffi::CStr;

use kpi::Error;
use kpi::mem::{Arc, Last, Slice, Wait};
use kpi::mtx::Mutex;

/// A table of counted references, in shards with a mutex each: every CPL looks one up, from as
/// many threads as there are queues.
pub struct Table<T: Last> {
    shards: Slice<Mutex<Slice<Option<Arc<T>>>>>,
    n: u32,
}

const SHARDS: usize = 16;

impl<T: Last> Table<T> {
    /// A table for the numbers 0 to `n - 1`. Sleeps.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(name: &'static CStr, n: u32) -> Result<Table<T>, Error> {
        let per = n.div_ceil(SHARDS as u32) as usize;
        let shards = Slice::try_new(SHARDS, Wait::Ok, |_| {
            Ok(Mutex::new(name, Slice::new(per, Wait::Ok, |_| None)?))
        })?;
        Ok(Table { shards, n })
    }

    /// How many numbers.
    pub fn capacity(&self) -> u32 {
        self.n
    }

    fn with<R>(&self, id: u32, f: impl FnOnce(&mut Option<Arc<T>>) -> R) -> Option<R> {
        if id >= self.n {
            return None;
        }
        let id = id as usize;
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
        // Not moved in: no such number.
        before.or(v)
    }

    /// Take the number away. The reference is dropped by the caller, with no shard locked.
    pub fn take(&self, id: u32) -> Option<Arc<T>> {
        self.with(id, Option::take).flatten()
    }

    /// A free number, given to `v`. `None` (and `v` back) if all are taken.
    pub fn claim(&self, v: Arc<T>) -> Result<u32, Arc<T>> {
        let mut v = Some(v);
        for id in 0..self.n {
            let done = self.with(id, |e| {
                if e.is_none() {
                    *e = v.take();
                    true
                } else {
                    false
                }
            });
            if done == Some(true) {
                return Ok(id);
            }
        }
        match v {
            Some(v) => Err(v),
            None => unreachable!("given away only on return"),
        }
    }

    /// Call `f` with every entry, no shard locked.
    pub fn each(&self, mut f: impl FnMut(u32, Arc<T>)) {
        for id in 0..self.n {
            if let Some(v) = self.get(id) {
                f(id, v);
            }
        }
    }
}
