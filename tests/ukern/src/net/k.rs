//! The kernel services the network code uses, in the short forms it needs.

use std::ffi::CStr;

use crate::kp::Kp;
use crate::sched::{self, Sbt, SleepOpts, Wake};
use crate::{epoch, kpanic, locks, malloc, sys};

pub(crate) fn mtx_init(m: *mut sys::mtx, name: &'static CStr, opts: u32) {
    locks::mtx_init(Kp::new(m), name.as_ptr(), opts | sys::MTX_NEW);
}
pub(crate) fn mtx_destroy(m: *mut sys::mtx) {
    locks::mtx_destroy(Kp::new(m));
}
#[track_caller]
pub(crate) fn mtx_lock(m: *mut sys::mtx) {
    locks::mtx_lock(Kp::new(m));
}
#[track_caller]
pub(crate) fn mtx_unlock(m: *mut sys::mtx) {
    locks::mtx_unlock(Kp::new(m));
}
/// `mtx_trylock`.
pub(crate) fn mtx_trylock(m: *mut sys::mtx) -> bool {
    sched::yield_point();
    sched::no_preempt(|| {
        let free = Kp::new(m).mtx_lock & !(sys::MTX_FLAGMASK as usize) == 0;
        if free {
            locks::mtx_lock(Kp::new(m));
        }
        free
    })
}
#[track_caller]
pub(crate) fn mtx_assert_owned(m: *mut sys::mtx) {
    if !locks::mtx_owned(Kp::new(m)) {
        let at = std::panic::Location::caller();
        kpanic!("mutex \"{}\" not owned at {at}", crate::kp::cstr(Kp::new(m).lock_object.lo_name));
    }
}

pub(crate) fn rw_init(l: *mut sys::rwlock, name: &'static CStr, opts: u32) {
    locks::rw_init(Kp::new(l), name.as_ptr(), opts | sys::RW_NEW);
}
pub(crate) fn rw_destroy(l: *mut sys::rwlock) {
    locks::rw_destroy(Kp::new(l));
}
pub(crate) fn wlock(l: *mut sys::rwlock) {
    locks::rw_wlock(Kp::new(l));
}
pub(crate) fn wunlock(l: *mut sys::rwlock) {
    locks::rw_wunlock(Kp::new(l));
}
pub(crate) fn rlock(l: *mut sys::rwlock) {
    locks::rw_rlock(Kp::new(l));
}
pub(crate) fn runlock(l: *mut sys::rwlock) {
    locks::rw_runlock(Kp::new(l));
}
#[track_caller]
pub(crate) fn assert_wlocked(l: *mut sys::rwlock) {
    if !locks::rw_wowned(Kp::new(l)) {
        let at = std::panic::Location::caller();
        kpanic!("rwlock \"{}\" not write-owned at {at}", crate::kp::cstr(Kp::new(l).lock_object.lo_name));
    }
}
#[track_caller]
pub(crate) fn assert_held(l: *mut sys::rwlock) {
    if !locks::holds(l as usize) {
        let at = std::panic::Location::caller();
        kpanic!("rwlock \"{}\" not held at {at}", crate::kp::cstr(Kp::new(l).lock_object.lo_name));
    }
}

pub(crate) fn sx_init(l: *mut sys::sx, name: &'static CStr, opts: u32) {
    locks::sx_init(Kp::new(l), name.as_ptr(), opts | sys::SX_NEW);
}
pub(crate) fn sx_destroy(l: *mut sys::sx) {
    locks::sx_destroy(Kp::new(l));
}
pub(crate) fn sx_xlock(l: *mut sys::sx) {
    locks::sx_xlock(Kp::new(l));
}
pub(crate) fn sx_xunlock(l: *mut sys::sx) {
    locks::sx_xunlock(Kp::new(l));
}
fn sx_free(l: *mut sys::sx) -> bool {
    let w = Kp::new(l).sx_lock;
    // Unlocked is "shared, no sharers", give or take the waiter bits.
    w & sys::SX_LOCK_SHARED as usize != 0 && w >> sys::SX_SHARERS_SHIFT == 0
}
/// `sx_try_xlock`.
pub(crate) fn sx_try_xlock(l: *mut sys::sx) -> bool {
    sched::yield_point();
    sched::no_preempt(|| {
        let free = sx_free(l);
        if free {
            locks::sx_xlock(Kp::new(l));
        }
        free
    })
}
/// `sx_xlock_sig`: 0, or EINTR when a signal came first.
pub(crate) fn sx_xlock_sig(l: *mut sys::sx) -> i32 {
    loop {
        if sx_try_xlock(l) {
            return 0;
        }
        // Waiters of a lock sleep two bytes into it (locks::wait_chan), announced by this bit.
        Kp::new(l).sx_lock |= sys::SX_LOCK_EXCLUSIVE_WAITERS as usize;
        sched::check_may_sleep("sx_xlock_sig");
        let opts = SleepOpts { wmesg: "sx_sig", catch: true, lock: true, ..SleepOpts::default() };
        if sched::sleep_unlocking(l as usize + 2, opts, || {}) == Wake::Interrupted {
            return sys::EINTR as i32;
        }
    }
}

/// `msleep` with a mutex: 0, EWOULDBLOCK, EINTR (only with `catch`).
pub(crate) fn msleep(chan: usize, m: *mut sys::mtx, catch: bool, wmesg: &'static str, timeo: Option<Sbt>) -> i32 {
    let pri = if catch { sys::PCATCH as i32 } else { 0 };
    locks::msleep(chan, m.cast(), pri, wmesg, timeo)
}
/// `tsleep`.
pub(crate) fn tsleep(chan: usize, catch: bool, wmesg: &'static str, timeo: Option<Sbt>) -> i32 {
    msleep(chan, std::ptr::null_mut(), catch, wmesg, timeo)
}

/// Runs `f` inside a section of the net epoch.
pub(crate) fn net_epoch<R>(f: impl FnOnce() -> R) -> R {
    epoch::with_net_epoch(f)
}
/// `NET_EPOCH_ASSERT`.
#[track_caller]
pub(crate) fn assert_net_epoch() {
    if !epoch::inside(epoch::net_epoch()) {
        let at = std::panic::Location::caller();
        kpanic!("not in the net epoch at {at}");
    }
}

/// Zeroed kernel memory for one `T`, accounted to `what`.
pub(crate) fn zalloc<T>(what: &'static str) -> Option<Kp<T>> {
    Kp::opt(malloc::zalloc(size_of::<T>(), what).cast())
}
/// Frees what [`zalloc`] gave.
pub(crate) fn free<T>(p: Kp<T>) {
    malloc::free(p.ptr().cast());
}

/// `crhold`.
pub(crate) fn crhold(cr: *mut sys::ucred) -> *mut sys::ucred {
    if let Some(mut c) = Kp::opt(cr) {
        c.cr_ref += 1;
    }
    cr
}
/// `crfree`: no credential here is ever the last one's to free.
pub(crate) fn crfree(cr: *mut sys::ucred) {
    if let Some(mut c) = Kp::opt(cr) {
        c.cr_ref -= 1;
    }
}

/// `ticks`.
pub(crate) fn ticks() -> u32 {
    crate::time::ticks() as u32
}
