//! sx(9).

use std::ffi::c_char;

use super::{
    Class, Place, before, check_init, held_place, lo_destroy, lo_init, lock_wait, lock_wake, pop,
    push,
};
use crate::kp::{Kp, cstr};
use crate::{kpanic, sched, sys};

const SHARED: u64 = sys::SX_LOCK_SHARED as u64;
const WAITERS: u64 = sys::SX_LOCK_WAITERS as u64;
const RECURSED: u64 = sys::SX_LOCK_RECURSED as u64;
const FLAGMASK: u64 = sys::SX_LOCK_FLAGMASK as u64;
const ONE: u64 = sys::SX_ONE_SHARER as u64;
const DESTROYED: u64 = sys::SX_LOCK_DESTROYED as u64;

fn lo(l: Kp<sys::sx>) -> Kp<sys::lock_object> {
    Kp::new(l.ptr().cast())
}

fn me() -> u64 {
    sched::current_thread().addr() as u64
}

fn owner(l: Kp<sys::sx>) -> u64 {
    if l.sx_lock & SHARED != 0 {
        0
    } else {
        l.sx_lock & !FLAGMASK
    }
}

fn sharers(l: Kp<sys::sx>) -> u64 {
    if l.sx_lock & SHARED != 0 {
        (l.sx_lock & !FLAGMASK) / ONE
    } else {
        0
    }
}

/// `sx_init_flags`; `name` must outlive the lock.
pub fn sx_init(mut l: Kp<sys::sx>, name: *const c_char, opts: u32) {
    let mut flags = sys::LO_SLEEPABLE;
    for (opt, flag) in [
        (sys::SX_DUPOK, sys::LO_DUPOK),
        (sys::SX_RECURSE, sys::LO_RECURSABLE),
        (sys::SX_NEW, sys::LO_NEW),
    ] {
        if opts & opt != 0 {
            flags |= flag;
        }
    }
    if opts & sys::SX_NOWITNESS == 0 {
        flags |= sys::LO_WITNESS;
    }
    lo_init(lo(l), Class::Sx, name, std::ptr::null(), flags);
    l.sx_lock = SHARED;
}

/// `sx_destroy`: nobody may hold it.
pub fn sx_destroy(mut l: Kp<sys::sx>) {
    check_init(lo(l), "sx_destroy");
    if l.sx_lock & !WAITERS != SHARED {
        kpanic!("sx_destroy of \"{}\", which is held", cstr(lo(l).lo_name));
    }
    lo_destroy(lo(l));
    l.sx_lock = DESTROYED;
}

/// Does the running thread hold it exclusively?
#[must_use]
pub fn sx_xlocked(l: Kp<sys::sx>) -> bool {
    owner(l) == me()
}

/// `sx_xlock`.
pub fn sx_xlock(l: Kp<sys::sx>) {
    xlock_at(l, Place::NONE);
}

pub(super) fn xlock_at(mut l: Kp<sys::sx>, place: Place) {
    let mut o = lo(l);
    check_init(o, "sx_xlock");
    if owner(l) == me() {
        if o.lo_flags & sys::LO_RECURSABLE == 0 {
            let at = held_place(o.addr()).unwrap_or(Place::NONE);
            kpanic!(
                "recursed on non-recursive sx \"{}\" @ {place}, first acquired @ {at}",
                cstr(o.lo_name)
            );
        }
        o.lo_data += 1;
        l.sx_lock |= RECURSED;
        return;
    }
    if sharers(l) > 0 && super::holds(o.addr()) {
        kpanic!(
            "sx_xlock of \"{}\" @ {place} by a thread that holds it shared",
            cstr(o.lo_name)
        );
    }
    sched::yield_point();
    before(o, Class::Sx, 0, place);
    while owner(l) != 0 || sharers(l) != 0 {
        l.sx_lock |= u64::from(sys::SX_LOCK_EXCLUSIVE_WAITERS);
        lock_wait(o);
        check_init(o, "sx_xlock");
    }
    l.sx_lock = me() | (l.sx_lock & WAITERS);
    push(o, Class::Sx, true, place);
}

/// `sx_xunlock`.
pub fn sx_xunlock(mut l: Kp<sys::sx>) {
    let mut o = lo(l);
    check_init(o, "sx_xunlock");
    if owner(l) != me() {
        kpanic!(
            "sx_xunlock of \"{}\", which this thread does not hold",
            cstr(o.lo_name)
        );
    }
    if o.lo_data > 0 {
        o.lo_data -= 1;
        if o.lo_data == 0 {
            l.sx_lock &= !RECURSED;
        }
        return;
    }
    let wake = l.sx_lock & WAITERS != 0;
    l.sx_lock = SHARED;
    pop(o, true);
    if wake {
        lock_wake(o.addr());
    }
    sched::yield_point();
}

/// `sx_slock`.
pub fn sx_slock(l: Kp<sys::sx>) {
    slock_at(l, Place::NONE);
}

pub(super) fn slock_at(mut l: Kp<sys::sx>, place: Place) {
    let o = lo(l);
    check_init(o, "sx_slock");
    if owner(l) == me() {
        kpanic!(
            "sx_slock of \"{}\" @ {place}: xlock already held",
            cstr(o.lo_name)
        );
    }
    sched::yield_point();
    before(o, Class::Sx, 0, place);
    while owner(l) != 0 {
        l.sx_lock |= u64::from(sys::SX_LOCK_SHARED_WAITERS);
        lock_wait(o);
        check_init(o, "sx_slock");
    }
    l.sx_lock += ONE;
    push(o, Class::Sx, false, place);
}

/// `sx_sunlock`.
pub fn sx_sunlock(mut l: Kp<sys::sx>) {
    let o = lo(l);
    check_init(o, "sx_sunlock");
    if sharers(l) == 0 {
        kpanic!("sx_sunlock of \"{}\", which nobody shares", cstr(o.lo_name));
    }
    pop(o, false);
    l.sx_lock -= ONE;
    if sharers(l) == 0 && l.sx_lock & WAITERS != 0 {
        l.sx_lock &= !WAITERS;
        lock_wake(o.addr());
    }
    sched::yield_point();
}

fn try_xlock(mut l: Kp<sys::sx>, place: Place) -> bool {
    let mut o = lo(l);
    check_init(o, "sx_try_xlock");
    if owner(l) == me() && o.lo_flags & sys::LO_RECURSABLE != 0 {
        o.lo_data += 1;
        l.sx_lock |= RECURSED;
        return true;
    }
    sched::yield_point();
    if owner(l) != 0 || sharers(l) != 0 {
        return false;
    }
    l.sx_lock = me() | (l.sx_lock & WAITERS);
    push(o, Class::Sx, true, place);
    true
}

fn try_slock(mut l: Kp<sys::sx>, place: Place) -> bool {
    let o = lo(l);
    check_init(o, "sx_try_slock");
    sched::yield_point();
    if owner(l) != 0 {
        return false;
    }
    l.sx_lock += ONE;
    push(o, Class::Sx, false, place);
    true
}

extern "C" fn c_init(l: Kp<sys::sx>, name: *const c_char, opts: i32) {
    sx_init(l, name, opts as u32);
}
extern "C" fn c_destroy(l: Kp<sys::sx>) {
    sx_destroy(l);
}
extern "C" fn c_xlock(l: Kp<sys::sx>, _opts: i32, file: *const c_char, line: i32) -> i32 {
    xlock_at(l, Place::new(file, line));
    0
}
extern "C" fn c_xunlock(l: Kp<sys::sx>, _file: *const c_char, _line: i32) {
    sx_xunlock(l);
}
extern "C" fn c_slock(l: Kp<sys::sx>, _opts: i32, file: *const c_char, line: i32) -> i32 {
    slock_at(l, Place::new(file, line));
    0
}
extern "C" fn c_sunlock(l: Kp<sys::sx>, _file: *const c_char, _line: i32) {
    sx_sunlock(l);
}
extern "C" fn c_try_xlock(l: Kp<sys::sx>, file: *const c_char, line: i32) -> i32 {
    i32::from(try_xlock(l, Place::new(file, line)))
}
extern "C" fn c_try_slock(l: Kp<sys::sx>, file: *const c_char, line: i32) -> i32 {
    i32::from(try_slock(l, Place::new(file, line)))
}
extern "C" fn c_downgrade(mut l: Kp<sys::sx>, file: *const c_char, line: i32) {
    let o = lo(l);
    check_init(o, "sx_downgrade");
    let place = Place::new(file, line);
    if owner(l) != me() || o.lo_data != 0 {
        kpanic!(
            "sx_downgrade of \"{}\" @ {place}, not held exclusively once",
            cstr(o.lo_name)
        );
    }
    let wake = l.sx_lock & WAITERS != 0;
    pop(o, true);
    l.sx_lock = SHARED + ONE;
    push(o, Class::Sx, false, place);
    if wake {
        lock_wake(o.addr());
    }
}
extern "C" fn c_try_upgrade(mut l: Kp<sys::sx>, file: *const c_char, line: i32) -> i32 {
    let o = lo(l);
    check_init(o, "sx_try_upgrade");
    if sharers(l) != 1 || !super::holds(o.addr()) {
        return 0;
    }
    pop(o, false);
    l.sx_lock = me() | (l.sx_lock & WAITERS);
    push(o, Class::Sx, true, Place::new(file, line));
    1
}

extern "C" fn c_assert(l: Kp<sys::sx>, what: i32, file: *const c_char, line: i32) {
    let o = lo(l);
    check_init(o, "sx_assert");
    let place = Place::new(file, line);
    let (x, held) = (sx_xlocked(l), super::holds(o.addr()));
    let what = what as u32;
    let name = || cstr(o.lo_name);
    if what & sys::LA_XLOCKED != 0 && !x {
        kpanic!("sx \"{}\" not exclusively locked @ {place}", name());
    }
    if what & sys::LA_SLOCKED != 0 && (!held || x) {
        kpanic!("sx \"{}\" not share locked @ {place}", name());
    }
    if what & sys::LA_LOCKED != 0 && !held {
        kpanic!("sx \"{}\" not locked @ {place}", name());
    }
    if what & (sys::LA_XLOCKED | sys::LA_SLOCKED | sys::LA_LOCKED) == 0 && held {
        kpanic!("sx \"{}\" locked @ {place}", name());
    }
    if what & sys::LA_RECURSED != 0 && o.lo_data == 0 {
        kpanic!("sx \"{}\" not recursed @ {place}", name());
    }
    if what & sys::LA_NOTRECURSED != 0 && o.lo_data != 0 {
        kpanic!("sx \"{}\" recursed @ {place}", name());
    }
}

extern "C" fn sx_sysinit(a: Kp<sys::sx_args>) {
    sx_init(Kp::new(a.sa_sx), a.sa_desc, a.sa_flags as u32);
}

crate::exports! {
    "sx_init_flags" => c_init,
    "sx_destroy" => c_destroy,
    "_sx_xlock" => c_xlock,
    "_sx_xunlock" => c_xunlock,
    "_sx_slock" => c_slock,
    "_sx_sunlock" => c_sunlock,
    "sx_try_xlock_" => c_try_xlock,
    "sx_try_slock_" => c_try_slock,
    "sx_downgrade_" => c_downgrade,
    "sx_try_upgrade_" => c_try_upgrade,
    "_sx_assert" => c_assert,
    "sx_sysinit" => sx_sysinit,
}
