//! mtx(9), rwlock(9), sx(9) on the real structures, with the checks of WITNESS and INVARIANTS.
//!
//! The lock words hold what FreeBSD's hold, for `mtx_owned`, `rw_wowned` and `sx_xlocked` read
//! them inline. Every acquisition is checked: initialised, not destroyed, recursion allowed, the
//! order of types never reversed, nothing sleepable taken under a mutex or rwlock.

mod mtx;
mod order;
mod rw;
mod sleep;
mod sx;

use std::ffi::c_char;
use std::fmt;

pub use mtx::{mtx_destroy, mtx_init, mtx_lock, mtx_owned, mtx_unlock};
pub use rw::{rw_destroy, rw_init, rw_rlock, rw_runlock, rw_wlock, rw_wowned, rw_wunlock};
pub use sleep::{cv_broadcast, cv_init, cv_wait, msleep};
pub use sx::{sx_destroy, sx_init, sx_slock, sx_sunlock, sx_xlock, sx_xlocked, sx_xunlock};

pub(crate) use order::{boot, shutdown};

use crate::kp::{Kp, cstr};
use crate::{kpanic, sched, sys};

/// Class of a lock, with the index FreeBSD gives it in `lock_classes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Class {
    Spin = 0,
    Mtx = 1,
    Sx = 2,
    Rw = 5,
}

impl Class {
    fn of(lo: &sys::lock_object) -> Option<Class> {
        match (lo.lo_flags & sys::LO_CLASSMASK) >> sys::LO_CLASSSHIFT {
            0 => Some(Class::Spin),
            1 => Some(Class::Mtx),
            2 => Some(Class::Sx),
            5 => Some(Class::Rw),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Class::Spin => "spin mutex",
            Class::Mtx => "sleep mutex",
            Class::Sx => "sx",
            Class::Rw => "rw",
        }
    }
}

/// Where C code called from: `__FILE__` and `__LINE__`, file NULL for Rust callers.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    file: *const c_char,
    line: i32,
}

impl Place {
    pub(crate) const fn new(file: *const c_char, line: i32) -> Place {
        Place { file, line }
    }
    pub(crate) const NONE: Place = Place {
        file: std::ptr::null(),
        line: 0,
    };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_null() {
            return write!(f, "?:{}", self.line);
        }
        let file = cstr(self.file);
        write!(
            f,
            "{}:{}",
            file.rsplit('/').next().unwrap_or(&file),
            self.line
        )
    }
}

/// A lock some thread holds.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) addr: usize,
    type_: u32,
    class: Class,
    exclusive: bool,
    place: Place,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.exclusive {
            "exclusive"
        } else {
            "shared"
        };
        write!(
            f,
            "{how} {} \"{}\" ({:#x}) from {}",
            self.class.name(),
            order::name(self.type_),
            self.addr,
            self.place
        )
    }
}

/// The channel threads that wait for a lock sleep on; no C code can name it.
fn wait_chan(lock: usize) -> usize {
    lock + 2
}

fn lock_wait(lo: Kp<sys::lock_object>) {
    if !sched::on_thread() {
        kpanic!("the driver would block on lock \"{}\"", cstr(lo.lo_name));
    }
    let opts = sched::SleepOpts {
        wmesg: order::wmesg(lo),
        lock: true,
        ..Default::default()
    };
    sched::sleep_unlocking(wait_chan(lo.addr()), opts, || {});
}

fn lock_wake(lock: usize) {
    sched::wakeup(wait_chan(lock));
}

/// Fills in the lock_object part.
fn lo_init(
    mut lo: Kp<sys::lock_object>,
    class: Class,
    name: *const c_char,
    type_: *const c_char,
    flags: u32,
) {
    if lo.lo_flags & sys::LO_INITIALIZED != 0
        && flags & sys::LO_NEW == 0
        && order::is_live(lo.addr())
    {
        kpanic!("lock \"{}\" {:p} already initialized", cstr(name), lo.ptr());
    }
    lo.lo_name = name;
    lo.lo_flags =
        (flags & !sys::LO_NEW) | ((class as u32) << sys::LO_CLASSSHIFT) | sys::LO_INITIALIZED;
    lo.lo_data = 0;
    order::enroll(lo, if type_.is_null() { name } else { type_ });
}

fn lo_destroy(mut lo: Kp<sys::lock_object>) {
    check_init(lo, "destroy");
    if sched::waiters(wait_chan(lo.addr())) != 0 {
        kpanic!(
            "lock \"{}\" destroyed while threads wait for it",
            cstr(lo.lo_name)
        );
    }
    order::retire(lo.addr());
    lo.lo_flags &= !sys::LO_INITIALIZED;
}

fn check_init(lo: Kp<sys::lock_object>, what: &str) {
    if lo.lo_flags & sys::LO_INITIALIZED == 0 {
        kpanic!(
            "{what} of lock {:p}, which is not initialized or was destroyed",
            lo.ptr()
        );
    }
    if !order::is_enrolled(lo) {
        kpanic!(
            "{what} of lock {:p}, whose memory is corrupt or freed",
            lo.ptr()
        );
    }
}

/// Checks of an acquisition that may block.
fn before(lo: Kp<sys::lock_object>, class: Class, opts: u32, place: Place) {
    let td = sched::current_thread();
    match class {
        Class::Spin => {}
        Class::Mtx | Class::Rw => {
            if td.td_critnest != 0 {
                kpanic!(
                    "acquiring blockable sleep lock \"{}\" in a critical section @ {place}",
                    cstr(lo.lo_name)
                );
            }
        }
        Class::Sx => {
            if sched::on_thread() && !sched::may_sleep() {
                sched::check_may_sleep(&format!(
                    "acquiring sleepable lock \"{}\" @ {place}",
                    cstr(lo.lo_name)
                ));
            }
        }
    }
    order::check(lo, class, opts, place);
}

fn push(lo: Kp<sys::lock_object>, class: Class, exclusive: bool, place: Place) {
    let mut me = sched::current();
    me.held.push(Held {
        addr: lo.addr(),
        type_: order::type_of(lo),
        class,
        exclusive,
        place,
    });
    me.td.td_locks += 1;
}

fn pop(lo: Kp<sys::lock_object>, exclusive: bool) {
    let mut me = sched::current();
    let addr = lo.addr();
    let Some(i) = me
        .held
        .iter()
        .rposition(|h| h.addr == addr && h.exclusive == exclusive)
    else {
        kpanic!(
            "lock \"{}\" released by a thread that does not hold it",
            cstr(lo.lo_name)
        );
    };
    me.held.remove(i);
    me.td.td_locks -= 1;
}

/// The place the running thread acquired this lock at.
fn held_place(addr: usize) -> Option<Place> {
    sched::current()
        .held
        .iter()
        .rfind(|h| h.addr == addr)
        .map(|h| h.place)
}

/// Does the running thread hold the lock at this address, in whichever way?
#[must_use]
pub fn holds(addr: usize) -> bool {
    sched::current().held.iter().any(|h| h.addr == addr)
}

/// Does the running thread hold only locks one may sleep under?
pub(crate) fn may_sleep() -> bool {
    sched::current().held.iter().all(|h| h.class == Class::Sx)
}

/// Panics when the running thread holds a lock one must not sleep under (but for the interlock).
pub(crate) fn check_may_sleep(what: &str, interlock: usize) {
    let me = sched::current();
    if let Some(h) = me
        .held
        .iter()
        .find(|h| h.class != Class::Sx && h.addr != interlock)
    {
        kpanic!("{what}: sleeping with a non-sleepable lock held: {h}");
    }
}

/// Panics when the running thread holds any lock (thread exit, return to the program).
pub fn check_none_held(what: &str) {
    if let Some(h) = sched::current().held.first() {
        kpanic!("{what} while holding {h}");
    }
}

/// Panics when `[addr, addr + len)`, which is about to be freed, contains a held lock.
pub(crate) fn check_freed(addr: usize, len: usize, what: &dyn Fn() -> String) {
    order::forget_range(addr, len, what);
}

fn spinlock_enter() {
    sched::current_thread().td_critnest += 1;
}

fn spinlock_exit() {
    let mut td = sched::current_thread();
    if td.td_critnest == 0 {
        kpanic!("critical_exit with no critical_enter");
    }
    td.td_critnest -= 1;
}

extern "C" fn critical_enter() {
    spinlock_enter();
}

extern "C" fn critical_exit() {
    spinlock_exit();
    sched::yield_point();
}

pub(crate) fn symbols() -> [&'static [crate::ksym::Export]; 5] {
    [
        mtx::symbols(),
        rw::symbols(),
        sx::symbols(),
        sleep::symbols(),
        own_symbols::symbols(),
    ]
}

mod own_symbols {
    use super::{critical_enter, critical_exit};
    extern "C" fn spinlock_enter() {
        super::spinlock_enter();
    }
    extern "C" fn spinlock_exit() {
        super::spinlock_exit();
    }
    crate::exports! {
        "critical_enter" => critical_enter,
        "critical_exit" => critical_exit,
        "critical_enter_KBI" => critical_enter,
        "critical_exit_KBI" => critical_exit,
        "spinlock_enter" => spinlock_enter,
        "spinlock_exit" => spinlock_exit,
    }
}

pub(crate) fn data() -> &'static [&'static crate::ksym::KData] {
    sleep::data()
}

/// A held lock of whatever class, given up for the length of a sleep.
#[derive(Clone, Copy)]
pub(crate) struct Dropped {
    lo: *mut sys::lock_object,
    class: Class,
    exclusive: bool,
    place: Place,
}

/// Releases the lock (held by the running thread, not recursed) without a preemption point.
pub(crate) fn drop_for_sleep(lo: *mut sys::lock_object) -> Dropped {
    let l = Kp::new(lo);
    check_init(l, "sleep");
    let Some(class) = Class::of(&l) else {
        kpanic!("sleep with a lock of unknown class")
    };
    let Some(h) = sched::current()
        .held
        .iter()
        .rfind(|h| h.addr == l.addr())
        .cloned()
    else {
        kpanic!("sleep with lock \"{}\", which is not held", cstr(l.lo_name));
    };
    if sched::current()
        .held
        .iter()
        .filter(|x| x.addr == l.addr())
        .count()
        > 1
        || l.lo_data != 0
    {
        kpanic!("sleep with recursed lock \"{}\"", cstr(l.lo_name));
    }
    match (class, h.exclusive) {
        (Class::Mtx, _) => mtx::mtx_unlock(Kp::new(lo.cast())),
        (Class::Rw, true) => rw::rw_wunlock(Kp::new(lo.cast())),
        (Class::Rw, false) => rw::rw_runlock(Kp::new(lo.cast())),
        (Class::Sx, true) => sx::sx_xunlock(Kp::new(lo.cast())),
        (Class::Sx, false) => sx::sx_sunlock(Kp::new(lo.cast())),
        (Class::Spin, _) => mtx::mtx_unlock_spin(Kp::new(lo.cast())),
    }
    Dropped {
        lo,
        class,
        exclusive: h.exclusive,
        place: h.place,
    }
}

/// Takes the lock back.
pub(crate) fn retake(d: Dropped) {
    let p = d.place;
    match (d.class, d.exclusive) {
        (Class::Mtx, _) => mtx::lock_at(Kp::new(d.lo.cast()), 0, p),
        (Class::Rw, true) => rw::wlock_at(Kp::new(d.lo.cast()), p),
        (Class::Rw, false) => rw::rlock_at(Kp::new(d.lo.cast()), p),
        (Class::Sx, true) => sx::xlock_at(Kp::new(d.lo.cast()), p),
        (Class::Sx, false) => sx::slock_at(Kp::new(d.lo.cast()), p),
        (Class::Spin, _) => mtx::lock_spin_at(Kp::new(d.lo.cast()), p),
    }
}

/// Locks a lock of any class for a callout; true when it is shared-capable and was taken so.
pub(crate) fn lock_any(lo: *mut sys::lock_object, shared: bool) {
    let l = Kp::new(lo);
    check_init(l, "callout lock");
    match Class::of(&l) {
        Some(Class::Mtx) => mtx::lock_at(Kp::new(lo.cast()), 0, Place::NONE),
        Some(Class::Rw) if shared => rw::rlock_at(Kp::new(lo.cast()), Place::NONE),
        Some(Class::Rw) => rw::wlock_at(Kp::new(lo.cast()), Place::NONE),
        _ => kpanic!("callout with a lock of a class it cannot take"),
    }
}

/// Undoes [`lock_any`].
pub(crate) fn unlock_any(lo: *mut sys::lock_object, shared: bool) {
    match Class::of(&Kp::new(lo)) {
        Some(Class::Mtx) => mtx::mtx_unlock(Kp::new(lo.cast())),
        Some(Class::Rw) if shared => rw::rw_runlock(Kp::new(lo.cast())),
        _ => rw::rw_wunlock(Kp::new(lo.cast())),
    }
}
