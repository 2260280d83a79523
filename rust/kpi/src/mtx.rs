//! A mutex of the kernel (mtx(9), `MTX_DEF`), seen by WITNESS, around a value.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::sys;

/// A value under a mutex. Not recursive; nothing may sleep while it is held.
pub struct Mutex<T> {
    m: NonNull<sys::th_mtx>,
    v: UnsafeCell<T>,
}

// SAFETY: the value is reached under the mutex only, by one thread at a time.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as for Send; a `&Mutex<T>` gives `&mut T` to the holder only, so `T: Send` suffices.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Make a mutex; `name` is what WITNESS shows. Sleeps for memory: no lock held.
    pub fn new(name: &'static CStr, v: T) -> Mutex<T> {
        // SAFETY: `name` lives forever; th_mtx_alloc() waits for memory and never fails.
        let m = unsafe { sys::th_mtx_alloc(name.as_ptr()) };
        match NonNull::new(m) {
            Some(m) => Mutex {
                m,
                v: UnsafeCell::new(v),
            },
            None => panic!("th_mtx_alloc"),
        }
    }

    /// Lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: the mutex is initialised, and destroyed only by drop().
        unsafe { sys::th_mtx_lock(self.m.as_ptr()) };
        MutexGuard(self, PhantomData)
    }
}

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: nobody holds or waits for it, and it is not used again.
        unsafe { sys::th_mtx_free(self.m.as_ptr()) };
    }
}

/// The mutex, held by this thread, which alone may release it.
pub struct MutexGuard<'a, T>(&'a Mutex<T>, PhantomData<*mut ()>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the mutex is held by this thread while the guard lives.
        unsafe { &*self.0.v.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in deref(), and there is one guard.
        unsafe { &mut *self.0.v.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: locked by the lock() that made this guard, by this thread.
        unsafe { sys::th_mtx_unlock(self.0.m.as_ptr()) };
    }
}
