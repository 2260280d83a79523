//! Starting and ending threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    FAST, SCHED, SleepOpts, State, Thread, Tid, blank_thread, cur, no_preempt, schedule, sleep_on,
    wakeup,
};
use crate::coro::Stack;
use crate::kp::Kp;
use crate::{locks, sys};

/// How a thread is made.
pub struct Spawn {
    /// Shown in reports.
    pub name: String,
    /// `td_proc`; null for the kernel's own process.
    pub proc_: *mut sys::proc_,
    /// `td_ucred`; null for the kernel's.
    pub ucred: *mut sys::ucred,
    /// `td_vnet`.
    pub vnet: *mut sys::vnet,
    /// Address of the C function it runs, 0 for Rust.
    pub entry: usize,
}

impl Spawn {
    /// A thread of the kernel's process, in no network stack, as kthread_add makes it.
    #[must_use]
    pub fn kernel(name: &str) -> Self {
        Spawn {
            name: name.to_string(),
            proc_: std::ptr::null_mut(),
            ucred: std::ptr::null_mut(),
            vnet: std::ptr::null_mut(),
            entry: 0,
        }
    }
}

/// Starts a kernel thread.
pub fn spawn_kthread(name: &str, main: impl FnOnce() + 'static) -> Tid {
    spawn(Spawn::kernel(name), main)
}

/// Starts a thread. It runs when the scheduler picks it. A Rust panic of `main` ends the test.
pub fn spawn(how: Spawn, main: impl FnOnce() + 'static) -> Tid {
    reap();
    let (tid, stack) = SCHED.with(|s| {
        let tid = s.next_tid;
        s.next_tid += 1;
        (tid, s.stacks.pop())
    });
    let mut t = blank_thread(tid, &how.name);
    if !how.proc_.is_null() {
        t.td.td_proc = how.proc_;
    }
    if !how.ucred.is_null() {
        t.td.td_ucred = how.ucred;
        t.td.td_realucred = how.ucred;
    }
    t.td.td_vnet = how.vnet;
    t.entry = how.entry;
    t.main = Some(Box::new(main));
    let stack = stack.unwrap_or_else(Stack::new);
    t.sp = stack.prepare(thread_main, &raw mut *t as usize);
    t.stack = Some(stack);
    SCHED.with(|s| {
        s.threads.insert(tid, t);
        s.runq.push(tid);
    });
    tid
}

extern "C" fn thread_main(arg: usize) -> ! {
    let mut me: Kp<Thread> = Kp::new(arg as *mut Thread);
    if let Some(main) = me.main.take()
        && let Err(payload) = catch_unwind(AssertUnwindSafe(main))
    {
        me.panic = Some(payload);
        let tid = me.tid;
        SCHED.with(|s| s.unclaimed.push(tid));
        FAST.kick.set(true);
    }
    exit_thread()
}

/// Ends the running thread at once; what its Rust frames own is not dropped.
pub fn exit_thread() -> ! {
    let mut me = cur();
    locks::check_none_held("thread exit");
    crate::epoch::check_none("thread exit");
    let tid = me.tid;
    me.state = State::Dead;
    no_preempt(|| wakeup(exit_chan(tid)));
    SCHED.with(|s| s.dead.push(tid));
    FAST.kick.set(true);
    schedule();
    unreachable!("a dead thread was resumed")
}

/// The channel which is woken when the thread ends.
#[must_use]
pub fn exit_chan(tid: Tid) -> usize {
    // Below any address: no kernel object can share it.
    tid as usize
}

/// Has the thread ended (or never been)?
#[must_use]
pub fn is_dead(tid: Tid) -> bool {
    SCHED.with(|s| s.threads.get(&tid).is_none_or(|t| t.state == State::Dead))
}

/// Sleeps until the thread has ended.
pub fn join(tid: Tid) {
    while !is_dead(tid) {
        sleep_on(exit_chan(tid), SleepOpts::new("join"));
    }
}

/// Frees the stacks of ended threads.
pub(super) fn reap() {
    let me = cur().tid;
    SCHED.with(|s| {
        let mut i = 0;
        while i < s.dead.len() {
            let tid = s.dead[i];
            if tid == me || s.unclaimed.contains(&tid) {
                i += 1;
                continue;
            }
            s.dead.swap_remove(i);
            if let Some(mut t) = s.threads.remove(&tid) {
                s.stacks.extend(t.stack.take());
            }
        }
    });
}

/// A panic of a thread's closure nobody has seen yet.
pub(crate) fn take_panic() -> Option<(String, Box<dyn Any + Send>)> {
    SCHED.with(|s| {
        let tid = s.unclaimed.pop()?;
        let t = s.threads.get_mut(&tid)?;
        let p = t.panic.take()?;
        Some((t.name.clone(), p))
    })
}
