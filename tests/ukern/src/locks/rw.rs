//! rwlock(9).

use std::ffi::c_char;

use super::{
    Class, Place, before, check_init, held_place, lo_destroy, lo_init, lock_wait, lock_wake, pop,
    push,
};
use crate::kp::{Kp, cstr};
use crate::{kpanic, sched, sys};

const READ: u64 = sys::RW_LOCK_READ as u64;
const WAITERS: u64 = sys::RW_LOCK_WAITERS as u64;
const RECURSED: u64 = sys::RW_LOCK_WRITER_RECURSED as u64;
const FLAGMASK: u64 = sys::RW_LOCK_FLAGMASK as u64;
const ONE_READER: u64 = sys::RW_ONE_READER as u64;
const DESTROYED: u64 = sys::RW_DESTROYED as u64;

fn lo(l: Kp<sys::rwlock>) -> Kp<sys::lock_object> {
    Kp::new(l.ptr().cast())
}

fn of_cookie(c: usize) -> Kp<sys::rwlock> {
    Kp::new((c - std::mem::offset_of!(sys::rwlock, rw_lock)) as *mut sys::rwlock)
}

fn me() -> u64 {
    sched::current_thread().addr() as u64
}

/// The writer's thread, 0 for none.
fn writer(l: Kp<sys::rwlock>) -> u64 {
    if l.rw_lock & READ != 0 {
        0
    } else {
        l.rw_lock & !FLAGMASK
    }
}

fn readers(l: Kp<sys::rwlock>) -> u64 {
    if l.rw_lock & READ != 0 {
        (l.rw_lock & !FLAGMASK) / ONE_READER
    } else {
        0
    }
}

/// `rw_init_flags`; `name` must outlive the lock.
pub fn rw_init(mut l: Kp<sys::rwlock>, name: *const c_char, opts: u32) {
    let mut flags = 0;
    for (opt, flag) in [
        (sys::RW_DUPOK, sys::LO_DUPOK),
        (sys::RW_RECURSE, sys::LO_RECURSABLE),
        (sys::RW_NEW, sys::LO_NEW),
    ] {
        if opts & opt != 0 {
            flags |= flag;
        }
    }
    if opts & sys::RW_NOWITNESS == 0 {
        flags |= sys::LO_WITNESS;
    }
    lo_init(lo(l), Class::Rw, name, std::ptr::null(), flags);
    l.rw_lock = READ;
}

/// `rw_destroy`: nobody may hold it.
pub fn rw_destroy(mut l: Kp<sys::rwlock>) {
    check_init(lo(l), "rw_destroy");
    if l.rw_lock & !WAITERS != READ {
        kpanic!("rw_destroy of \"{}\", which is held", cstr(lo(l).lo_name));
    }
    lo_destroy(lo(l));
    l.rw_lock = DESTROYED;
}

/// Does the running thread hold it for writing?
#[must_use]
pub fn rw_wowned(l: Kp<sys::rwlock>) -> bool {
    writer(l) == me()
}

/// `rw_wlock`.
pub fn rw_wlock(l: Kp<sys::rwlock>) {
    wlock_at(l, Place::NONE);
}

pub(super) fn wlock_at(mut l: Kp<sys::rwlock>, place: Place) {
    let mut o = lo(l);
    check_init(o, "rw_wlock");
    if writer(l) == me() {
        if o.lo_flags & sys::LO_RECURSABLE == 0 {
            let at = held_place(o.addr()).unwrap_or(Place::NONE);
            kpanic!(
                "recursed on non-recursive rw \"{}\" @ {place}, first acquired @ {at}",
                cstr(o.lo_name)
            );
        }
        o.lo_data += 1;
        l.rw_lock |= RECURSED;
        return;
    }
    if readers(l) > 0 && super::holds(o.addr()) {
        kpanic!(
            "rw_wlock of \"{}\" @ {place} by a thread that holds it for reading",
            cstr(o.lo_name)
        );
    }
    sched::yield_point();
    before(o, Class::Rw, 0, place);
    while writer(l) != 0 || readers(l) != 0 {
        l.rw_lock |= u64::from(sys::RW_LOCK_WRITE_WAITERS);
        lock_wait(o);
        check_init(o, "rw_wlock");
    }
    l.rw_lock = me() | (l.rw_lock & WAITERS);
    push(o, Class::Rw, true, place);
}

/// `rw_wunlock`.
pub fn rw_wunlock(l: Kp<sys::rwlock>) {
    wunlock_at(l, Place::NONE);
}

fn wunlock_at(mut l: Kp<sys::rwlock>, place: Place) {
    let mut o = lo(l);
    check_init(o, "rw_wunlock");
    if writer(l) != me() {
        kpanic!(
            "rw_wunlock of \"{}\" @ {place}, which this thread does not hold",
            cstr(o.lo_name)
        );
    }
    if o.lo_data > 0 {
        o.lo_data -= 1;
        if o.lo_data == 0 {
            l.rw_lock &= !RECURSED;
        }
        return;
    }
    let wake = l.rw_lock & WAITERS != 0;
    l.rw_lock = READ;
    pop(o, true);
    if wake {
        lock_wake(o.addr());
    }
    sched::yield_point();
}

/// `rw_rlock`.
pub fn rw_rlock(l: Kp<sys::rwlock>) {
    rlock_at(l, Place::NONE);
}

pub(super) fn rlock_at(mut l: Kp<sys::rwlock>, place: Place) {
    let o = lo(l);
    check_init(o, "rw_rlock");
    if writer(l) == me() {
        kpanic!(
            "rw_rlock of \"{}\" @ {place}: wlock already held",
            cstr(o.lo_name)
        );
    }
    sched::yield_point();
    before(o, Class::Rw, 0, place);
    while writer(l) != 0 {
        l.rw_lock |= u64::from(sys::RW_LOCK_READ_WAITERS);
        lock_wait(o);
        check_init(o, "rw_rlock");
    }
    l.rw_lock += ONE_READER;
    push(o, Class::Rw, false, place);
}

/// `rw_runlock`.
pub fn rw_runlock(mut l: Kp<sys::rwlock>) {
    let o = lo(l);
    check_init(o, "rw_runlock");
    if readers(l) == 0 {
        kpanic!("rw_runlock of \"{}\", which nobody reads", cstr(o.lo_name));
    }
    pop(o, false);
    l.rw_lock -= ONE_READER;
    if readers(l) == 0 && l.rw_lock & WAITERS != 0 {
        l.rw_lock &= !WAITERS;
        lock_wake(o.addr());
    }
    sched::yield_point();
}

fn try_wlock(mut l: Kp<sys::rwlock>, place: Place) -> bool {
    let mut o = lo(l);
    check_init(o, "rw_try_wlock");
    if writer(l) == me() && o.lo_flags & sys::LO_RECURSABLE != 0 {
        o.lo_data += 1;
        l.rw_lock |= RECURSED;
        return true;
    }
    sched::yield_point();
    if writer(l) != 0 || readers(l) != 0 {
        return false;
    }
    l.rw_lock = me() | (l.rw_lock & WAITERS);
    push(o, Class::Rw, true, place);
    true
}

fn try_rlock(mut l: Kp<sys::rwlock>, place: Place) -> bool {
    let o = lo(l);
    check_init(o, "rw_try_rlock");
    sched::yield_point();
    if writer(l) != 0 {
        return false;
    }
    l.rw_lock += ONE_READER;
    push(o, Class::Rw, false, place);
    true
}

fn try_upgrade(mut l: Kp<sys::rwlock>, place: Place) -> bool {
    let o = lo(l);
    check_init(o, "rw_try_upgrade");
    if !super::holds(o.addr()) || readers(l) == 0 {
        kpanic!(
            "rw_try_upgrade of \"{}\" @ {place}, which this thread does not read",
            cstr(o.lo_name)
        );
    }
    if readers(l) != 1 {
        return false;
    }
    pop(o, false);
    l.rw_lock = me() | (l.rw_lock & WAITERS);
    push(o, Class::Rw, true, place);
    true
}

fn downgrade(mut l: Kp<sys::rwlock>, place: Place) {
    let o = lo(l);
    check_init(o, "rw_downgrade");
    if writer(l) != me() || o.lo_data != 0 {
        kpanic!(
            "rw_downgrade of \"{}\" @ {place}, not held for writing once",
            cstr(o.lo_name)
        );
    }
    let wake = l.rw_lock & WAITERS != 0;
    pop(o, true);
    l.rw_lock = READ + ONE_READER;
    push(o, Class::Rw, false, place);
    if wake {
        lock_wake(o.addr());
    }
}

extern "C" fn c_init(c: usize, name: *const c_char, opts: i32) {
    rw_init(of_cookie(c), name, opts as u32);
}
extern "C" fn c_destroy(c: usize) {
    rw_destroy(of_cookie(c));
}
extern "C" fn c_wowned(c: usize) -> i32 {
    i32::from(rw_wowned(of_cookie(c)))
}
extern "C" fn c_wlock(c: usize, file: *const c_char, line: i32) {
    wlock_at(of_cookie(c), Place::new(file, line));
}
extern "C" fn c_wunlock(c: usize, file: *const c_char, line: i32) {
    wunlock_at(of_cookie(c), Place::new(file, line));
}
extern "C" fn c_rlock(c: usize, file: *const c_char, line: i32) {
    rlock_at(of_cookie(c), Place::new(file, line));
}
extern "C" fn c_runlock(c: usize, _file: *const c_char, _line: i32) {
    rw_runlock(of_cookie(c));
}
extern "C" fn c_try_wlock(c: usize, file: *const c_char, line: i32) -> i32 {
    i32::from(try_wlock(of_cookie(c), Place::new(file, line)))
}
extern "C" fn c_try_rlock(c: usize, file: *const c_char, line: i32) -> i32 {
    i32::from(try_rlock(of_cookie(c), Place::new(file, line)))
}
extern "C" fn c_try_upgrade(c: usize, file: *const c_char, line: i32) -> i32 {
    i32::from(try_upgrade(of_cookie(c), Place::new(file, line)))
}
extern "C" fn c_downgrade(c: usize, file: *const c_char, line: i32) {
    downgrade(of_cookie(c), Place::new(file, line));
}

extern "C" fn c_assert(c: usize, what: i32, file: *const c_char, line: i32) {
    let l = of_cookie(c);
    let o = lo(l);
    check_init(o, "rw_assert");
    let place = Place::new(file, line);
    let (w, held) = (rw_wowned(l), super::holds(o.addr()));
    let what = what as u32;
    let (rec, notrec) = (
        what & sys::LA_RECURSED != 0,
        what & sys::LA_NOTRECURSED != 0,
    );
    let name = || cstr(o.lo_name);
    if what & sys::LA_XLOCKED != 0 && !w {
        kpanic!("rwlock \"{}\" not wlocked @ {place}", name());
    }
    if what & sys::LA_SLOCKED != 0 && (!held || w) {
        kpanic!("rwlock \"{}\" not rlocked @ {place}", name());
    }
    if what & sys::LA_LOCKED != 0 && !held {
        kpanic!("rwlock \"{}\" not locked @ {place}", name());
    }
    let any = sys::LA_XLOCKED | sys::LA_SLOCKED | sys::LA_LOCKED;
    if what & any == 0 && held {
        kpanic!("rwlock \"{}\" locked @ {place}", name());
    }
    if rec && o.lo_data == 0 {
        kpanic!("rwlock \"{}\" not recursed @ {place}", name());
    }
    if notrec && o.lo_data != 0 {
        kpanic!("rwlock \"{}\" recursed @ {place}", name());
    }
}

extern "C" fn rw_sysinit(a: Kp<sys::rw_args>) {
    rw_init(Kp::new(a.ra_rw.cast()), a.ra_desc, a.ra_flags as u32);
}

crate::exports! {
    "_rw_init_flags" => c_init,
    "_rw_destroy" => c_destroy,
    "_rw_wowned" => c_wowned,
    "_rw_wlock_cookie" => c_wlock,
    "_rw_wunlock_cookie" => c_wunlock,
    "__rw_rlock" => c_rlock,
    "_rw_runlock_cookie" => c_runlock,
    "__rw_try_wlock" => c_try_wlock,
    "__rw_try_rlock" => c_try_rlock,
    "__rw_try_upgrade" => c_try_upgrade,
    "__rw_downgrade" => c_downgrade,
    "__rw_assert" => c_assert,
    "rw_sysinit" => rw_sysinit,
}
