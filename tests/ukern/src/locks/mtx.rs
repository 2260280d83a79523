//! mtx(9).

use std::ffi::c_char;

use super::{
    Class, Place, before, check_init, held_place, lo_destroy, lo_init, lock_wait, lock_wake, pop,
    push,
};
use crate::kp::{Kp, cstr};
use crate::{kpanic, sched, sys};

const RECURSED: u64 = sys::MTX_RECURSED as u64;
const CONTESTED: u64 = sys::MTX_CONTESTED as u64;
const DESTROYED: u64 = sys::MTX_DESTROYED as u64;
const FLAGMASK: u64 = sys::MTX_FLAGMASK as u64;

fn lo(m: Kp<sys::mtx>) -> Kp<sys::lock_object> {
    Kp::new(m.ptr().cast())
}

/// The mutex around a lock cookie (`&m->mtx_lock`).
fn of_cookie(c: usize) -> Kp<sys::mtx> {
    Kp::new((c - std::mem::offset_of!(sys::mtx, mtx_lock)) as *mut sys::mtx)
}

fn me() -> u64 {
    sched::current_thread().addr() as u64
}

fn owner(m: Kp<sys::mtx>) -> u64 {
    m.mtx_lock & !FLAGMASK
}

/// `mtx_init` with MTX_ options; `name` must outlive the mutex.
pub fn mtx_init(m: Kp<sys::mtx>, name: *const c_char, opts: u32) {
    init(m, name, std::ptr::null(), opts);
}

fn init(mut m: Kp<sys::mtx>, name: *const c_char, type_: *const c_char, opts: u32) {
    let class = if opts & sys::MTX_SPIN != 0 {
        Class::Spin
    } else {
        Class::Mtx
    };
    let mut flags = 0;
    if opts & sys::MTX_NOWITNESS == 0 {
        flags |= sys::LO_WITNESS;
    }
    if opts & sys::MTX_RECURSE != 0 {
        flags |= sys::LO_RECURSABLE;
    }
    if opts & sys::MTX_DUPOK != 0 {
        flags |= sys::LO_DUPOK;
    }
    if opts & sys::MTX_NEW != 0 {
        flags |= sys::LO_NEW;
    }
    lo_init(lo(m), class, name, type_, flags);
    m.mtx_lock = 0;
}

/// `mtx_destroy`: the mutex must be free, or held once by the caller.
pub fn mtx_destroy(mut m: Kp<sys::mtx>) {
    check_init(lo(m), "mtx_destroy");
    if owner(m) != 0 {
        if owner(m) != me() || m.mtx_lock & RECURSED != 0 {
            kpanic!(
                "mtx_destroy of \"{}\", held by another thread or recursed",
                cstr(lo(m).lo_name)
            );
        }
        pop(lo(m), true);
        if Class::of(&lo(m)) == Some(Class::Spin) {
            super::spinlock_exit();
        }
    }
    lo_destroy(lo(m));
    m.mtx_lock = DESTROYED;
}

/// Does the running thread own it?
#[must_use]
pub fn mtx_owned(m: Kp<sys::mtx>) -> bool {
    owner(m) == me()
}

/// `mtx_lock`.
pub fn mtx_lock(m: Kp<sys::mtx>) {
    lock_at(m, 0, Place::NONE);
}

pub(super) fn lock_at(mut m: Kp<sys::mtx>, opts: u32, place: Place) {
    let o = lo(m);
    check_init(o, "mtx_lock");
    if Class::of(&o) != Some(Class::Mtx) {
        kpanic!("mtx_lock() of spin mutex \"{}\" @ {place}", cstr(o.lo_name));
    }
    if owner(m) == me() {
        if o.lo_flags & sys::LO_RECURSABLE == 0 && opts & sys::MTX_RECURSE == 0 {
            let at = held_place(o.addr()).unwrap_or(Place::NONE);
            kpanic!(
                "recursed on non-recursive mutex \"{}\" @ {place}, first acquired @ {at}",
                cstr(o.lo_name)
            );
        }
        let mut o = o;
        o.lo_data += 1;
        m.mtx_lock |= RECURSED;
        return;
    }
    sched::yield_point();
    before(o, Class::Mtx, opts, place);
    while owner(m) != 0 {
        m.mtx_lock |= CONTESTED;
        lock_wait(o);
        check_init(o, "mtx_lock");
    }
    m.mtx_lock = me() | (m.mtx_lock & CONTESTED);
    push(o, Class::Mtx, true, place);
}

fn trylock(mut m: Kp<sys::mtx>, opts: u32, place: Place) -> bool {
    let mut o = lo(m);
    check_init(o, "mtx_trylock");
    if owner(m) == me() && (o.lo_flags & sys::LO_RECURSABLE != 0 || opts & sys::MTX_RECURSE != 0) {
        o.lo_data += 1;
        m.mtx_lock |= RECURSED;
        return true;
    }
    sched::yield_point();
    if owner(m) != 0 {
        return false;
    }
    m.mtx_lock = me();
    push(o, Class::Mtx, true, place);
    true
}

/// `mtx_unlock`.
pub fn mtx_unlock(m: Kp<sys::mtx>) {
    unlock_at(m, Place::NONE);
}

fn unlock_at(mut m: Kp<sys::mtx>, place: Place) {
    let mut o = lo(m);
    check_init(o, "mtx_unlock");
    if owner(m) != me() {
        kpanic!(
            "mtx_unlock of \"{}\" @ {place}, which this thread does not own",
            cstr(o.lo_name)
        );
    }
    if o.lo_data > 0 {
        o.lo_data -= 1;
        if o.lo_data == 0 {
            m.mtx_lock &= !RECURSED;
        }
        return;
    }
    let contested = m.mtx_lock & CONTESTED != 0;
    m.mtx_lock = 0;
    pop(o, true);
    if contested {
        lock_wake(o.addr());
    }
    sched::yield_point();
}

pub(super) fn lock_spin_at(mut m: Kp<sys::mtx>, place: Place) {
    let mut o = lo(m);
    check_init(o, "mtx_lock_spin");
    if Class::of(&o) != Some(Class::Spin) {
        kpanic!(
            "mtx_lock_spin() of sleep mutex \"{}\" @ {place}",
            cstr(o.lo_name)
        );
    }
    if owner(m) == me() {
        if o.lo_flags & sys::LO_RECURSABLE == 0 {
            kpanic!(
                "recursed on non-recursive spin mutex \"{}\" @ {place}",
                cstr(o.lo_name)
            );
        }
        o.lo_data += 1;
        super::spinlock_enter();
        return;
    }
    if sched::current_thread().td_critnest == 0 {
        sched::yield_point();
    }
    before(o, Class::Spin, 0, place);
    if owner(m) != 0 {
        // A holder is never switched out, so nobody else can be found holding it.
        kpanic!("spin mutex \"{}\" found held @ {place}", cstr(o.lo_name));
    }
    super::spinlock_enter();
    m.mtx_lock = me();
    push(o, Class::Spin, true, place);
}

pub(super) fn mtx_unlock_spin(mut m: Kp<sys::mtx>) {
    let mut o = lo(m);
    check_init(o, "mtx_unlock_spin");
    if owner(m) != me() {
        kpanic!(
            "mtx_unlock_spin of \"{}\", which this thread does not own",
            cstr(o.lo_name)
        );
    }
    if o.lo_data > 0 {
        o.lo_data -= 1;
        super::spinlock_exit();
        return;
    }
    m.mtx_lock = 0;
    pop(o, true);
    super::spinlock_exit();
    if sched::current_thread().td_critnest == 0 {
        sched::yield_point();
    }
}

extern "C" fn c_init(c: usize, name: *const c_char, type_: *const c_char, opts: i32) {
    init(of_cookie(c), name, type_, opts as u32);
}

extern "C" fn c_destroy(c: usize) {
    mtx_destroy(of_cookie(c));
}

extern "C" fn c_lock(c: usize, opts: i32, file: *const c_char, line: i32) {
    lock_at(of_cookie(c), opts as u32, Place::new(file, line));
}

extern "C" fn c_unlock(c: usize, _opts: i32, file: *const c_char, line: i32) {
    unlock_at(of_cookie(c), Place::new(file, line));
}

extern "C" fn c_trylock(c: usize, opts: i32, file: *const c_char, line: i32) -> i32 {
    i32::from(trylock(of_cookie(c), opts as u32, Place::new(file, line)))
}

extern "C" fn c_lock_spin(c: usize, _opts: i32, file: *const c_char, line: i32) {
    lock_spin_at(of_cookie(c), Place::new(file, line));
}

extern "C" fn c_unlock_spin(c: usize, _opts: i32, _file: *const c_char, _line: i32) {
    mtx_unlock_spin(of_cookie(c));
}

extern "C" fn c_trylock_spin(c: usize, _opts: i32, file: *const c_char, line: i32) -> i32 {
    if owner(of_cookie(c)) == me() {
        return 0;
    }
    lock_spin_at(of_cookie(c), Place::new(file, line));
    1
}

extern "C" fn c_assert(c: usize, what: i32, file: *const c_char, line: i32) {
    let m = of_cookie(c);
    let place = Place::new(file, line);
    let name = || cstr(lo(m).lo_name);
    let what = what as u32;
    check_init(lo(m), "mtx_assert");
    let owned = mtx_owned(m);
    if what & sys::LA_XLOCKED != 0 {
        if !owned {
            kpanic!("mutex \"{}\" not owned at {place}", name());
        }
        let rec = m.mtx_lock & RECURSED != 0;
        if what & sys::LA_RECURSED != 0 && !rec {
            kpanic!("mutex \"{}\" not recursed at {place}", name());
        }
        if what & sys::LA_NOTRECURSED != 0 && rec {
            kpanic!("mutex \"{}\" recursed at {place}", name());
        }
    } else if owned {
        kpanic!("mutex \"{}\" owned at {place}", name());
    }
}

extern "C" fn mtx_sysinit(arg: Kp<sys::mtx_args>) {
    init(
        of_cookie(arg.ma_mtx as usize + std::mem::offset_of!(sys::mtx, mtx_lock)),
        arg.ma_desc,
        std::ptr::null(),
        arg.ma_opts as u32,
    );
}

crate::exports! {
    "_mtx_init" => c_init,
    "_mtx_destroy" => c_destroy,
    "__mtx_lock_flags" => c_lock,
    "__mtx_unlock_flags" => c_unlock,
    "_mtx_trylock_flags_" => c_trylock,
    "__mtx_lock_spin_flags" => c_lock_spin,
    "__mtx_unlock_spin_flags" => c_unlock_spin,
    "__mtx_trylock_spin_flags" => c_trylock_spin,
    "__mtx_assert" => c_assert,
    "mtx_sysinit" => mtx_sysinit,
}
