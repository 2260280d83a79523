//! Who runs next: picking, switching, preemption, the driver.

use std::cmp::Reverse;

use super::{FAST, SCHED, Sbt, Sched, State, TID0, Thread, Tid, Wake, cur, on_thread, reap, tick};
use crate::coro;
use crate::kp::Kp;
use crate::ksym;

pub(super) fn make_runnable(s: &mut Sched, tid: Tid, why: Wake) {
    let Some(t) = s.threads.get_mut(&tid) else {
        return;
    };
    if t.state != State::Sleeping {
        return;
    }
    t.state = State::Runnable;
    t.woken_by = why;
    let chan = t.chan;
    if let Some(q) = s.sleepq.get_mut(&chan) {
        q.retain(|&x| x != tid);
        if q.is_empty() {
            s.sleepq.remove(&chan);
        }
    }
    s.runq.push(tid);
}

/// Fires the timers that are due.
fn fire(s: &mut Sched, now: Sbt) {
    while let Some(&Reverse((at, no, tid))) = s.timers.peek() {
        let live = s
            .threads
            .get(&tid)
            .is_some_and(|t| t.state == State::Sleeping && t.sleep_no == no);
        if live && at > now {
            break;
        }
        s.timers.pop();
        if live {
            make_runnable(s, tid, Wake::TimedOut);
        }
    }
}

/// Time of the next timeout of a thread that still sleeps for it.
pub(super) fn next_timer(s: &mut Sched) -> Option<Sbt> {
    while let Some(&Reverse((at, no, tid))) = s.timers.peek() {
        if s.threads
            .get(&tid)
            .is_some_and(|t| t.state == State::Sleeping && t.sleep_no == no)
        {
            return Some(at);
        }
        s.timers.pop();
    }
    None
}

/// The next thread to run, with the clock moved as far as needed and allowed.
fn pick() -> Option<*mut Thread> {
    let found = SCHED.with(|s| {
        fire(s, FAST.now.get());
        if s.runq.is_empty() {
            let at = next_timer(s)?;
            if at > FAST.horizon.get() {
                return None;
            }
            FAST.now.set(at);
            fire(s, at);
        }
        let i = s.rng.below(s.runq.len());
        let tid = s.runq.swap_remove(i);
        s.switches += 1;
        s.trace = (s.trace ^ tid as u64).wrapping_mul(0x0100_0000_01b3);
        s.threads.get_mut(&tid).map(|t| &raw mut **t)
    });
    if found.is_some() {
        FAST.now.set(FAST.now.get() + FAST.switch_cost.get());
        tick();
    }
    found
}

fn set_current(next: *mut Thread) {
    FAST.current.set(next);
    Kp::new(FAST.pcpu.get()).pc_curthread = Kp::new(next).td_ptr();
}

/// Gives up the processor; the caller has set its state and queues.
pub(super) fn schedule() {
    let mut me = cur();
    if FAST.kick.get() {
        return to_driver();
    }
    let Some(next) = pick() else {
        return to_driver();
    };
    if std::ptr::eq(next, me.ptr()) {
        return;
    }
    set_current(next);
    let to = Kp::new(next).sp;
    // SAFETY: `next` is runnable, so its stack pointer was saved by a switch and is used once.
    unsafe { coro::switch(&raw mut me.sp, to) };
}

fn driver_thread() -> *mut Thread {
    SCHED
        .with(|s| s.threads.get_mut(&TID0).map(|t| &raw mut **t))
        .unwrap_or(std::ptr::null_mut())
}

fn to_driver() {
    let mut me = cur();
    set_current(driver_thread());
    let to = FAST.driver_sp.get();
    // SAFETY: the driver saved its stack pointer in `drive` and waits there.
    unsafe { coro::switch(&raw mut me.sp, to) };
}

/// Leaves the running thread for good and goes on in the driver (a ukern panic).
pub(crate) fn abandon() -> ! {
    FAST.kick.set(true);
    to_driver();
    unreachable!("an abandoned thread was resumed")
}

/// Why [`drive`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The condition holds.
    Done,
    /// Nothing can run before the horizon.
    Idle,
}

/// Runs threads from the driver until `done`, with the clock kept at or below `horizon`.
/// Returns early when a ukern panic or a closure's panic is pending.
pub(crate) fn drive(horizon: Sbt, mut done: impl FnMut() -> bool) -> Stop {
    assert!(!on_thread(), "ukern: drive called on a thread");
    FAST.horizon.set(horizon);
    loop {
        FAST.kick.set(false);
        reap();
        if crate::panic::pending() || !SCHED.with(|s| s.unclaimed.is_empty()) || done() {
            return Stop::Done;
        }
        let Some(next) = pick() else {
            return Stop::Idle;
        };
        set_current(next);
        let to = Kp::new(next).sp;
        // SAFETY: `next` is runnable, so its stack pointer was saved by a switch and is used once.
        unsafe { coro::switch(FAST.driver_sp.as_ptr(), to) };
    }
}

/// Makes [`drive`] look at its condition soon.
pub fn kick_driver() {
    FAST.kick.set(true);
}

/// A preemption point of Rust code in the kernel.
#[inline]
pub fn yield_point() {
    let mut c = ksym::countdown();
    *c -= 1;
    if *c < 0 {
        preempt_slow();
    }
}

/// The countdown ran out: gives way if that is allowed here.
pub(crate) extern "C" fn preempt_slow() {
    let odds = FAST.preempt.get();
    let gap = SCHED.with(|s| s.rng.gap(odds));
    *ksym::countdown() = gap.min(i32::MAX as u32) as i32;
    if odds != 0 && FAST.no_preempt.get() == 0 && on_thread() && may_switch() {
        yield_now();
    }
}

fn may_switch() -> bool {
    cur().td.td_critnest == 0
}

/// Lets others run; comes back when picked again.
pub fn yield_now() {
    if !on_thread() {
        return;
    }
    let tid = cur().tid;
    SCHED.with(|s| s.runq.push(tid));
    schedule();
}

/// Runs `f` with preemption points off.
pub fn no_preempt<R>(f: impl FnOnce() -> R) -> R {
    FAST.no_preempt.set(FAST.no_preempt.get() + 1);
    let r = f();
    FAST.no_preempt.set(FAST.no_preempt.get() - 1);
    r
}

pub(crate) fn reset_no_preempt() {
    FAST.no_preempt.set(0);
}
