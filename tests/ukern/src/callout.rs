//! callout(9) in virtual time, run by one "clock" thread.

use std::collections::BTreeMap;
use std::ffi::c_void;

use crate::global::Global;
use crate::kp::Kp;
use crate::sched::{self, Sbt, SleepOpts};
use crate::{kpanic, ksym, locks, sys, time};

const PENDING: i16 = sys::CALLOUT_PENDING as i16;
const ACTIVE: i16 = sys::CALLOUT_ACTIVE as i16;
const RETURNUNLOCKED: i16 = sys::CALLOUT_RETURNUNLOCKED as i16;
const SHAREDLOCK: i16 = sys::CALLOUT_SHAREDLOCK as i16;

#[derive(Default)]
struct State {
    /// Due time and a number to tell equal times apart, to the callout.
    queue: BTreeMap<(Sbt, u64), usize>,
    /// Pending callouts, for lookup by address.
    by_addr: BTreeMap<usize, (Sbt, u64)>,
    next: u64,
    running: Option<Running>,
    clock: sched::Tid,
}

#[derive(Clone, Copy)]
struct Running {
    addr: usize,
    /// Called off while it waited for its lock.
    cancelled: bool,
    /// The function has been entered.
    started: bool,
}

static STATE: Global<State> = Global::new("callouts");

fn chan() -> usize {
    // Not an address a module can sleep on.
    0x0ca1_0007
}
fn done_chan() -> usize {
    0x0ca1_0009
}

pub(crate) fn boot() {
    STATE.init(State::default());
    let tid = sched::spawn_kthread("clock", clock);
    STATE.with(|s| s.clock = tid);
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn unlink(s: &mut State, addr: usize) -> bool {
    match s.by_addr.remove(&addr) {
        Some(key) => {
            s.queue.remove(&key);
            true
        }
        None => false,
    }
}

fn clock() {
    loop {
        let now = sched::now_sbt();
        let due = STATE.with(|s| {
            let (&key, &addr) = s.queue.first_key_value()?;
            if key.0 > now {
                return Some(Err(key.0));
            }
            unlink(s, addr);
            s.running = Some(Running {
                addr,
                cancelled: false,
                started: false,
            });
            Some(Ok(addr))
        });
        match due {
            Some(Ok(addr)) => run(addr),
            Some(Err(at)) => {
                sched::sleep_on(chan(), SleepOpts::new("clock").timeout(Some(at - now)));
            }
            None => {
                sched::sleep_on(chan(), SleepOpts::new("clock"));
            }
        }
    }
}

fn run(addr: usize) {
    let mut c: Kp<sys::callout> = Kp::new(addr as *mut _);
    c.c_iflags &= !PENDING;
    let (func, arg, lock, iflags) = (c.c_func, c.c_arg, c.c_lock, c.c_iflags);
    let shared = iflags & SHAREDLOCK != 0;
    if !lock.is_null() {
        locks::lock_any(lock, shared);
    }
    let go = STATE.with(|s| match &mut s.running {
        Some(r) if !r.cancelled => {
            r.started = true;
            true
        }
        _ => false,
    });
    if go && let Some(func) = func {
        let mut td = sched::current_thread();
        td.td_no_sleeping += 1;
        // SAFETY: the function and argument the callout was armed with. The callout itself may be gone after.
        unsafe { func(arg) };
        td.td_no_sleeping -= 1;
    }
    let returned_unlocked = go && iflags & RETURNUNLOCKED != 0;
    if !lock.is_null() && !returned_unlocked {
        locks::unlock_any(lock, shared);
    }
    STATE.with(|s| s.running = None);
    crate::epoch::check_none("callout function returned");
    locks::check_none_held("callout function returned");
    sched::wakeup(done_chan());
}

/// `callout_init`.
pub fn init(mut c: Kp<sys::callout>) {
    // SAFETY: `struct callout` is plain C data.
    *c = unsafe { std::mem::zeroed() };
    c.c_iflags = RETURNUNLOCKED;
}

/// Arms the callout; true when that cancelled an earlier arming.
pub fn reset(
    mut c: Kp<sys::callout>,
    delay: Sbt,
    func: sys::callout_func_t,
    arg: *mut c_void,
) -> bool {
    reset_at(
        &mut c,
        sched::now_sbt().saturating_add(delay.max(1)),
        func,
        arg,
    )
}

fn reset_at(
    c: &mut Kp<sys::callout>,
    at: Sbt,
    func: sys::callout_func_t,
    arg: *mut c_void,
) -> bool {
    let addr = c.addr();
    let cancelled = STATE.with(|s| {
        let mut hit = unlink(s, addr);
        if let Some(r) = &mut s.running
            && r.addr == addr
            && !r.started
            && !c.c_lock.is_null()
        {
            // It waits for the lock our caller holds: this arming replaces that run.
            r.cancelled = true;
            hit = true;
        }
        s.next += 1;
        let key = (at, s.next);
        s.queue.insert(key, addr);
        s.by_addr.insert(addr, key);
        hit
    });
    c.c_time = at;
    c.c_func = func;
    c.c_arg = arg;
    c.c_flags |= ACTIVE;
    c.c_iflags |= PENDING;
    sched::wakeup(chan());
    cancelled
}

/// `callout_stop` and `callout_drain`: 1 cancelled, 0 running and not stopped, -1 not armed.
pub fn stop(mut c: Kp<sys::callout>, drain: bool) -> i32 {
    let addr = c.addr();
    let lock = c.c_lock;
    if drain {
        sched::check_may_sleep_but("callout_drain", 0);
        if !lock.is_null() && locks::holds(lock as usize) {
            kpanic!("callout_drain while holding the callout's own lock");
        }
    }
    let (unlinked, state) = STATE.with(|s| (unlink(s, addr), s.running.filter(|r| r.addr == addr)));
    c.c_flags &= !ACTIVE;
    c.c_iflags &= !PENDING;
    let Some(r) = state else {
        return if unlinked { 1 } else { -1 };
    };
    let me = sched::current_tid() == STATE.with(|s| s.clock);
    if !r.started && !lock.is_null() && (locks::holds(lock as usize) || drain) {
        STATE.with(|s| {
            if let Some(r) = &mut s.running {
                r.cancelled = true;
            }
        });
        if drain {
            wait_done(addr);
        }
        return 1;
    }
    if drain {
        if me {
            kpanic!("callout_drain from the callout's own function");
        }
        wait_done(addr);
    }
    i32::from(unlinked)
}

fn wait_done(addr: usize) {
    while STATE.with(|s| s.running.is_some_and(|r| r.addr == addr)) {
        sched::sleep_on(done_chan(), SleepOpts::new("codrain"));
    }
}

/// Panics when memory about to be freed contains an armed or running callout.
pub(crate) fn check_freed(addr: usize, len: usize, what: &dyn Fn() -> String) {
    let hit = STATE.with(|s| s.by_addr.range(addr..addr + len).next().map(|(&a, _)| a));
    if let Some(a) = hit {
        kpanic!("{} contains a pending callout ({a:#x})", what());
    }
}

/// Panics when an armed callout would call into the code that is about to go.
pub(crate) fn check_code_gone(addr: usize, len: usize, what: &str) {
    let all: Vec<usize> = STATE.with(|s| s.by_addr.keys().copied().collect());
    for a in all {
        let f = Kp::new(a as *mut sys::callout)
            .c_func
            .map_or(0, |f| f as usize);
        if (addr..addr + len).contains(&f) || (addr..addr + len).contains(&a) {
            kpanic!("{what} with a pending callout of its own ({a:#x})");
        }
    }
}

/// Armed callouts.
#[must_use]
pub fn pending() -> usize {
    STATE.with(|s| s.queue.len())
}

extern "C" fn c_init(c: Kp<sys::callout>, mpsafe: i32) {
    init(c);
    if mpsafe == 0 {
        kpanic!("callout_init with Giant");
    }
}

extern "C" fn c_init_lock(mut c: Kp<sys::callout>, lock: *mut sys::lock_object, flags: i32) {
    // SAFETY: `struct callout` is plain C data.
    *c = unsafe { std::mem::zeroed() };
    c.c_lock = lock;
    c.c_iflags = flags as i16 & (RETURNUNLOCKED | SHAREDLOCK);
}

extern "C" fn c_reset(
    mut c: Kp<sys::callout>,
    sbt: Sbt,
    _prec: Sbt,
    func: sys::callout_func_t,
    arg: *mut c_void,
    _cpu: i32,
    flags: i32,
) -> i32 {
    let now = sched::now_sbt();
    let mut at = if flags as u32 & sys::C_ABSOLUTE != 0 {
        sbt
    } else {
        now.saturating_add(sbt)
    };
    if flags as u32 & sys::C_HARDCLOCK != 0 {
        // Aligned to the next tick, never early.
        let tick = sched::SBT_1S / sched::HZ;
        at = at.saturating_add(tick - 1) / tick * tick;
    }
    if !c.c_lock.is_null() && !locks::holds(c.c_lock as usize) {
        kpanic!("callout_reset without the callout's lock held");
    }
    i32::from(reset_at(&mut c, at.max(now + 1), func, arg))
}

extern "C" fn c_stop(c: Kp<sys::callout>, flags: i32) -> i32 {
    stop(c, flags as u32 & sys::CS_DRAIN != 0)
}

extern "C" fn c_schedule(c: Kp<sys::callout>, to_ticks: i32) -> i32 {
    let (func, arg) = (c.c_func, c.c_arg);
    i32::from(reset(
        c,
        time::ticks_to_sbt(to_ticks.max(1)).unwrap_or(1),
        func,
        arg,
    ))
}

extern "C" fn c_schedule_on(c: Kp<sys::callout>, to_ticks: i32, _cpu: i32) -> i32 {
    c_schedule(c, to_ticks)
}

/// The low-memory address of an exported function, as a module would pass it.
pub(crate) fn is_export(addr: usize, name: &str) -> bool {
    ksym::lookup(name) == Some(addr)
}

crate::exports! {
    "callout_init" => c_init,
    "_callout_init_lock" => c_init_lock,
    "callout_reset_sbt_on" => c_reset,
    "_callout_stop_safe" => c_stop,
    "callout_schedule" => c_schedule,
    "callout_schedule_on" => c_schedule_on,
}
