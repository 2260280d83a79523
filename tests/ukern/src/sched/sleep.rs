//! Sleeping on channels, and what forbids it.

use std::cmp::Reverse;

use super::{
    FAST, SCHED, Sbt, Sched, SleepOpts, State, Tid, Wake, cur, make_runnable, no_preempt,
    on_thread, schedule, yield_point,
};
use crate::locks;

/// May the running thread sleep here?
#[must_use]
pub fn may_sleep() -> bool {
    let me = cur();
    on_thread()
        && me.td.td_critnest == 0
        && me.td.td_no_sleeping == 0
        && me.epochs.is_empty()
        && locks::may_sleep()
}

/// Panics unless the running thread may sleep here: holding no mutex or rwlock, in no epoch
/// section, not critical, not in a callout.
pub fn check_may_sleep(what: &str) {
    check_may_sleep_but(what, 0);
}

/// As [`check_may_sleep`], ignoring the lock at this address (the interlock of msleep).
pub fn check_may_sleep_but(what: &str, interlock: usize) {
    if !on_thread() {
        crate::kpanic!("{what} in the driver, which cannot sleep");
    }
    let me = cur();
    if me.td.td_critnest != 0 {
        crate::kpanic!("{what}: cannot sleep in a critical section");
    }
    if me.td.td_no_sleeping != 0 {
        crate::kpanic!("{what}: sleeping is prohibited in this thread (callout or the like)");
    }
    crate::epoch::check_may_sleep(what);
    locks::check_may_sleep(what, interlock);
}

/// Sleeps on a channel until [`wakeup`], the timeout or a signal.
pub fn sleep_on(chan: usize, opts: SleepOpts) -> Wake {
    if !opts.lock {
        check_may_sleep(opts.wmesg);
    }
    sleep_unlocking(chan, opts, || {})
}

/// Queues on the channel, runs `unlock`, sleeps: no wakeup after `unlock` began is lost.
pub fn sleep_unlocking(chan: usize, opts: SleepOpts, unlock: impl FnOnce()) -> Wake {
    let mut me = cur();
    if me.td.td_critnest != 0 {
        crate::kpanic!("{}: switch in a critical section", opts.wmesg);
    }
    if opts.catch && me.sig_pending {
        unlock();
        return Wake::Interrupted;
    }
    let now = FAST.now.get();
    let tid = me.tid;
    me.state = State::Sleeping;
    me.chan = chan;
    me.opts = opts;
    me.woken_by = Wake::Woken;
    SCHED.with(|s| {
        s.next_sleep += 1;
        let no = s.next_sleep;
        s.sleepq.entry(chan).or_default().push(tid);
        if let Some(t) = opts.timeout {
            s.timers
                .push(Reverse((now.saturating_add(t.max(1)), no, tid)));
        }
        if let Some(t) = s.threads.get_mut(&tid) {
            t.sleep_no = no;
        }
    });
    no_preempt(unlock);
    // Woken while unlocking: it is on the run queue already, and a switch takes it off again.
    schedule();
    me.chan = 0;
    me.woken_by
}

fn sleepers(s: &Sched, chan: usize) -> Vec<Tid> {
    s.sleepq.get(&chan).cloned().unwrap_or_default()
}

/// Wakes every thread on the channel; returns how many.
pub fn wakeup(chan: usize) -> usize {
    let n = SCHED.with(|s| {
        let all = sleepers(s, chan);
        for &tid in &all {
            make_runnable(s, tid, Wake::Woken);
        }
        all.len()
    });
    if n > 0 {
        yield_point();
    }
    n
}

/// Wakes one thread on the channel, a random one; true when there was one.
pub fn wakeup_one(chan: usize) -> bool {
    let hit = SCHED.with(|s| {
        let all = sleepers(s, chan);
        if all.is_empty() {
            return false;
        }
        let tid = all[s.rng.below(all.len())];
        make_runnable(s, tid, Wake::Woken);
        true
    });
    if hit {
        yield_point();
    }
    hit
}

/// How many threads sleep on the channel.
#[must_use]
pub fn waiters(chan: usize) -> usize {
    SCHED.with(|s| s.sleepq.get(&chan).map_or(0, Vec::len))
}

/// A signal for the thread came or went: while pending, sleeps with `catch` end at once.
pub fn set_signal_pending(tid: Tid, pending: bool) {
    SCHED.with(|s| {
        let Some(t) = s.threads.get_mut(&tid) else {
            return;
        };
        t.sig_pending = pending;
        if pending && t.state == State::Sleeping && t.opts.catch {
            make_runnable(s, tid, Wake::Interrupted);
        }
    });
}

/// Is a signal pending for the running thread?
#[must_use]
pub fn signal_pending() -> bool {
    cur().sig_pending
}

/// Sleeps for a virtual time.
pub fn sleep_for(d: Sbt, wmesg: &'static str) -> Wake {
    // The sleeper's own record is a channel nobody wakes.
    let chan = cur().addr() + 1;
    sleep_on(
        chan,
        SleepOpts {
            wmesg,
            timeout: Some(d),
            ..SleepOpts::default()
        },
    )
}
