//! sleep(9) and condvar(9).

use std::ffi::{c_char, c_void};

use super::{Place, check_may_sleep, drop_for_sleep, retake};
use crate::kp::Kp;
use crate::ksym::KData;
use crate::names::intern_c;
use crate::sched::{self, Sbt, SleepOpts, Wake};
use crate::{kpanic, sys};

static PAUSE_CHAN: KData = KData::of::<[u8; 64]>("pause_wchan");

crate::exports_data! { PAUSE_CHAN }

fn errno(w: Wake) -> i32 {
    match w {
        Wake::Woken => 0,
        Wake::TimedOut => sys::EWOULDBLOCK as i32,
        Wake::Interrupted => sys::EINTR as i32,
    }
}

fn relative(sbt: Sbt, flags: i32) -> Option<Sbt> {
    if sbt == 0 {
        return None;
    }
    if flags as u32 & sys::C_ABSOLUTE != 0 {
        return Some((sbt - sched::now_sbt()).max(1));
    }
    Some(sbt)
}

/// `msleep`: gives up `lock` (NULL for none) while sleeping on `chan`; `pri` may carry PCATCH and
/// PDROP. Returns 0, EWOULDBLOCK or EINTR.
pub fn msleep(
    chan: usize,
    lock: *mut sys::lock_object,
    pri: i32,
    wmesg: &'static str,
    timeout: Option<Sbt>,
) -> i32 {
    if chan == 0 {
        kpanic!("sleep on a null channel (\"{wmesg}\")");
    }
    sched::check_may_sleep_but(wmesg, lock as usize);
    let opts = SleepOpts::new(wmesg)
        .timeout(timeout)
        .catch(pri as u32 & sys::PCATCH != 0);
    if lock.is_null() {
        return errno(sched::sleep_unlocking(chan, opts, || {}));
    }
    let mut dropped = None;
    let w = sched::sleep_unlocking(chan, opts, || dropped = Some(drop_for_sleep(lock)));
    if pri as u32 & sys::PDROP == 0
        && let Some(d) = dropped
    {
        retake(d);
    }
    errno(w)
}

extern "C" fn c_sleep(
    chan: usize,
    lock: *mut sys::lock_object,
    pri: i32,
    wmesg: *const c_char,
    sbt: Sbt,
    _pr: Sbt,
    flags: i32,
) -> i32 {
    msleep(chan, lock, pri, intern_c(wmesg), relative(sbt, flags))
}

extern "C" fn c_msleep_spin(
    chan: usize,
    m: Kp<sys::mtx>,
    wmesg: *const c_char,
    sbt: Sbt,
    _pr: Sbt,
    flags: i32,
) -> i32 {
    if sched::current_thread().td_critnest != 1 {
        kpanic!("msleep_spin with another spin lock or critical section");
    }
    let opts = SleepOpts::new(intern_c(wmesg)).timeout(relative(sbt, flags));
    // The spin lock is the critical section: it goes first, and nothing can run before the sleep.
    let d = drop_for_sleep(m.ptr().cast());
    let w = sched::sleep_unlocking(chan, opts, || {});
    retake(d);
    errno(w)
}

extern "C" fn c_wakeup(chan: usize) {
    sched::wakeup(chan);
}

extern "C" fn c_wakeup_one(chan: usize) {
    sched::wakeup_one(chan);
}

extern "C" fn c_pause(wmesg: *const c_char, sbt: Sbt, _pr: Sbt, flags: i32) -> i32 {
    let opts = SleepOpts::new(intern_c(wmesg))
        .timeout(Some(relative(sbt, flags).unwrap_or(1)))
        .catch(flags as u32 & sys::C_CATCH != 0);
    sched::check_may_sleep("pause");
    errno(sched::sleep_unlocking(PAUSE_CHAN.addr(), opts, || {}))
}

/// `cv_init`; `name` must outlive it.
pub fn cv_init(mut cv: Kp<sys::cv>, name: *const c_char) {
    cv.cv_description = name;
    cv.cv_waiters = 0;
}

fn cv_sleep(
    mut cv: Kp<sys::cv>,
    lock: *mut sys::lock_object,
    timeout: Option<Sbt>,
    catch: bool,
    relock: bool,
) -> i32 {
    let wmesg = intern_c(cv.cv_description);
    sched::check_may_sleep_but(wmesg, lock as usize);
    cv.cv_waiters += 1;
    let mut dropped = None;
    let opts = SleepOpts::new(wmesg).timeout(timeout).catch(catch);
    let w = sched::sleep_unlocking(cv.addr(), opts, || dropped = Some(drop_for_sleep(lock)));
    if w != Wake::Woken {
        cv.cv_waiters -= 1;
    }
    if relock && let Some(d) = dropped {
        retake(d);
    }
    errno(w)
}

/// `cv_wait` with a lock of any class.
pub fn cv_wait(cv: Kp<sys::cv>, lock: *mut sys::lock_object) {
    cv_sleep(cv, lock, None, false, true);
}

/// `cv_broadcast`.
pub fn cv_broadcast(mut cv: Kp<sys::cv>) {
    cv.cv_waiters = 0;
    sched::wakeup(cv.addr());
}

extern "C" fn c_cv_destroy(mut cv: Kp<sys::cv>) {
    if sched::waiters(cv.addr()) != 0 {
        kpanic!(
            "cv_destroy of \"{}\" with waiters",
            crate::kp::cstr(cv.cv_description)
        );
    }
    cv.cv_description = std::ptr::null();
}
extern "C" fn c_cv_init(cv: Kp<sys::cv>, name: *const c_char) {
    cv_init(cv, name);
}
extern "C" fn c_cv_wait(cv: Kp<sys::cv>, lock: *mut sys::lock_object) {
    cv_wait(cv, lock);
}
extern "C" fn c_cv_wait_unlock(cv: Kp<sys::cv>, lock: *mut sys::lock_object) {
    cv_sleep(cv, lock, None, false, false);
}
extern "C" fn c_cv_wait_sig(cv: Kp<sys::cv>, lock: *mut sys::lock_object) -> i32 {
    cv_sleep(cv, lock, None, true, true)
}
extern "C" fn c_cv_timedwait(
    cv: Kp<sys::cv>,
    lock: *mut sys::lock_object,
    sbt: Sbt,
    _pr: Sbt,
    flags: i32,
) -> i32 {
    cv_sleep(
        cv,
        lock,
        Some(relative(sbt, flags).unwrap_or(1)),
        false,
        true,
    )
}
extern "C" fn c_cv_timedwait_sig(
    cv: Kp<sys::cv>,
    lock: *mut sys::lock_object,
    sbt: Sbt,
    _pr: Sbt,
    flags: i32,
) -> i32 {
    cv_sleep(
        cv,
        lock,
        Some(relative(sbt, flags).unwrap_or(1)),
        true,
        true,
    )
}
extern "C" fn c_cv_signal(mut cv: Kp<sys::cv>) {
    if cv.cv_waiters > 0 {
        cv.cv_waiters -= 1;
    }
    sched::wakeup_one(cv.addr());
}
extern "C" fn c_cv_broadcastpri(cv: Kp<sys::cv>, _pri: i32) {
    cv_broadcast(cv);
}

/// `witness_warn`: only its panicking form matters here.
extern "C" fn witness_warn(_flags: i32, lock: *const c_void, _fmt: *const c_char) -> i32 {
    check_may_sleep("WITNESS_WARN", lock as usize);
    let _ = Place::NONE;
    0
}

crate::exports! {
    "_sleep" => c_sleep,
    "msleep_spin_sbt" => c_msleep_spin,
    "wakeup" => c_wakeup,
    "wakeup_one" => c_wakeup_one,
    "wakeup_any" => c_wakeup_one,
    "pause_sbt" => c_pause,
    "cv_init" => c_cv_init,
    "cv_destroy" => c_cv_destroy,
    "_cv_wait" => c_cv_wait,
    "_cv_wait_unlock" => c_cv_wait_unlock,
    "_cv_wait_sig" => c_cv_wait_sig,
    "_cv_timedwait_sbt" => c_cv_timedwait,
    "_cv_timedwait_sig_sbt" => c_cv_timedwait_sig,
    "cv_signal" => c_cv_signal,
    "cv_broadcastpri" => c_cv_broadcastpri,
    "witness_warn" => witness_warn,
}
