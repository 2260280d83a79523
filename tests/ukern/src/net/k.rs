//! The kernel services the network code uses, in the short forms it needs.

use std::ffi::CStr;

use crate::kp::Kp;
use crate::ksym::KData;
use crate::sched::{self, Sbt, SleepOpts, Wake};
use crate::{epoch, kmem, kpanic, locks, sys};

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
/// An exported lock function of up to four integer-class arguments, by its C name.
fn by_name(name: &str, a: usize, b: usize, c: usize, d: usize) -> i32 {
    let Some(f) = crate::ksym::lookup(name) else {
        kpanic!("no kernel function {name}")
    };
    // SAFETY: the named function takes at most these four words and returns an int.
    let f: extern "C" fn(usize, usize, usize, usize) -> i32 = unsafe { std::mem::transmute(f) };
    f(a, b, c, d)
}
/// `mtx_trylock`.
pub(crate) fn mtx_trylock(m: *mut sys::mtx) -> bool {
    let cookie = m as usize + std::mem::offset_of!(sys::mtx, mtx_lock);
    by_name("_mtx_trylock_flags_", cookie, 0, 0, 0) != 0
}
#[track_caller]
pub(crate) fn mtx_assert_owned(m: *mut sys::mtx) {
    if !locks::mtx_owned(Kp::new(m)) {
        let at = std::panic::Location::caller();
        kpanic!(
            "mutex \"{}\" not owned at {at}",
            crate::kp::cstr(Kp::new(m).lock_object.lo_name)
        );
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
        kpanic!(
            "rwlock \"{}\" not write-owned at {at}",
            crate::kp::cstr(Kp::new(l).lock_object.lo_name)
        );
    }
}
#[track_caller]
pub(crate) fn assert_held(l: *mut sys::rwlock) {
    if !locks::holds(l as usize) {
        let at = std::panic::Location::caller();
        kpanic!(
            "rwlock \"{}\" not held at {at}",
            crate::kp::cstr(Kp::new(l).lock_object.lo_name)
        );
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
/// `sx_try_xlock`.
pub(crate) fn sx_try_xlock(l: *mut sys::sx) -> bool {
    by_name("sx_try_xlock_", l as usize, 0, 0, 0) != 0
}
/// `sx_xlock_sig`: 0, or EINTR when a signal came first.
pub(crate) fn sx_xlock_sig(l: *mut sys::sx) -> i32 {
    loop {
        if sx_try_xlock(l) {
            return 0;
        }
        // Waiters of a lock sleep two bytes into it (locks::wait_chan), announced by this bit.
        Kp::new(l).sx_lock |= u64::from(sys::SX_LOCK_EXCLUSIVE_WAITERS);
        sched::check_may_sleep("sx_xlock_sig");
        let opts = SleepOpts {
            wmesg: "sx_sig",
            catch: true,
            lock: true,
            ..SleepOpts::default()
        };
        if sched::sleep_unlocking(l as usize + 2, opts, || {}) == Wake::Interrupted {
            return sys::EINTR as i32;
        }
    }
}

/// `msleep` with a mutex: 0, EWOULDBLOCK, EINTR (only with `catch`).
pub(crate) fn msleep(
    chan: usize,
    m: *mut sys::mtx,
    catch: bool,
    wmesg: &'static str,
    timeo: Option<Sbt>,
) -> i32 {
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

macro_rules! types {
    ($($id:ident $sym:literal $desc:literal;)*) => {
        $(/// A malloc type.
        pub(crate) static $id: KData = KData::of::<sys::malloc_type>($sym).with_init(|p| {
            let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
            t.ks_version = u64::from(sys::M_VERSION);
            t.ks_shortdesc = $desc.as_ptr();
        });)*
        crate::exports_data! { $($id),* }
    };
}

types! {
    M_SOCKET "ukern_M_SOCKET" c"socket";
    M_TCPCB "ukern_M_TCPCB" c"tcp_inpcb";
}

/// Zeroed kernel memory for one `T`; `None` when failure injection says so at `point`.
pub(crate) fn zalloc<T>(type_: &KData, point: &'static str) -> Option<Kp<T>> {
    if crate::fault::hit(point) {
        None
    } else {
        Some(kmem::alloc_zeroed(type_))
    }
}
/// Frees what [`zalloc`] gave.
pub(crate) fn free<T>(p: Kp<T>, type_: &KData) {
    kmem::free_obj(p, type_);
}

/// Fires an event whose handlers take one argument after their own.
pub(crate) fn event(name: &str, a: usize) {
    event2(name, a, 0);
}

/// Fires an event whose handlers take two arguments after their own.
pub(crate) fn event2(name: &str, a: usize, b: usize) {
    crate::eventhandler::invoke(name, |func, arg| {
        // SAFETY: handlers of these events take their argument and at most two integer-class
        // values; a handler that takes fewer ignores the registers it does not know.
        let f: extern "C" fn(*mut std::ffi::c_void, usize, usize) =
            unsafe { std::mem::transmute(func) };
        f(arg, a, b);
    });
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
