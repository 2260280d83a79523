//! Threads, sleeping, and the virtual clock.
//!
//! Exactly one thread runs at a time. It goes on until it blocks, or until a preemption point
//! strikes: every call from a module into the kernel, every lock operation and wakeup is one,
//! and one in [`crate::Config::preempt`] gives way. Who runs next is drawn from the seed, so a
//! seed is a schedule. The clock is virtual: it gains a little with every switch and jumps to
//! the next timeout when every thread sleeps.
//!
//! "The driver" is the test's own stack. It runs threads from [`drive`] and never any module code.

mod report;
mod run;
mod sleep;
mod thread;

use std::any::Any;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use crate::coro::Stack;
use crate::global::Global;
use crate::kp::Kp;
use crate::rng::Rng;
use crate::{ksym, locks, sys};

pub(crate) use report::{any_runnable, check_code_gone, has_timer, holder_of, mark_builtin};
pub use report::{live_threads, ps};
pub(crate) use run::{Stop, abandon, drive, preempt_slow, reset_no_preempt};
pub use run::{kick_driver, no_preempt, yield_now, yield_point};
use run::{make_runnable, next_timer, schedule};
pub use sleep::{
    check_may_sleep, check_may_sleep_but, may_sleep, set_signal_pending, signal_pending, sleep_for,
    sleep_on, sleep_unlocking, waiters, wakeup, wakeup_one,
};
use thread::reap;
pub(crate) use thread::take_panic;
pub use thread::{Spawn, exit_chan, exit_thread, is_dead, join, spawn, spawn_kthread};

/// Signed 32.32 fixed-point seconds, `sbintime_t`.
pub type Sbt = i64;
/// One second.
pub const SBT_1S: Sbt = 1 << 32;
/// One millisecond.
pub const SBT_1MS: Sbt = SBT_1S / 1000;
/// One microsecond.
pub const SBT_1US: Sbt = SBT_1S / 1_000_000;
/// Ticks per second (`hz`).
pub const HZ: i64 = 1000;

/// A thread's number, `td_tid`.
pub type Tid = i32;

/// Why a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// By `wakeup`.
    Woken,
    /// By the timeout (EWOULDBLOCK of msleep).
    TimedOut,
    /// By a signal (EINTR of msleep with PCATCH).
    Interrupted,
}

/// How to sleep.
#[derive(Clone, Copy, Default)]
pub struct SleepOpts {
    /// Shown in reports, as in `ps`.
    pub wmesg: &'static str,
    /// Longest virtual time to sleep.
    pub timeout: Option<Sbt>,
    /// A signal ends the sleep (PCATCH).
    pub catch: bool,
    /// A wait for a lock: needs no permission to sleep, and nobody's `wakeup` counts it.
    pub lock: bool,
}

impl SleepOpts {
    /// No limit, no signals.
    #[must_use]
    pub fn new(wmesg: &'static str) -> Self {
        SleepOpts {
            wmesg,
            ..SleepOpts::default()
        }
    }

    /// With a longest time.
    #[must_use]
    pub fn timeout(mut self, t: Option<Sbt>) -> Self {
        self.timeout = t;
        self
    }

    /// Ended by signals.
    #[must_use]
    pub fn catch(mut self, on: bool) -> Self {
        self.catch = on;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Runnable,
    Sleeping,
    Dead,
}

/// `struct thread` at the alignment the flag bits of the lock words need (THREAD_ALIGN).
#[repr(align(64))]
pub(crate) struct AlignedTd(sys::thread);

impl std::ops::Deref for AlignedTd {
    type Target = sys::thread;
    fn deref(&self) -> &sys::thread {
        &self.0
    }
}

impl std::ops::DerefMut for AlignedTd {
    fn deref_mut(&mut self) -> &mut sys::thread {
        &mut self.0
    }
}

/// A kernel thread.
pub(crate) struct Thread {
    pub(crate) tid: Tid,
    pub(crate) name: String,
    pub(crate) td: Box<AlignedTd>,
    stack: Option<Stack>,
    sp: usize,
    state: State,
    chan: usize,
    opts: SleepOpts,
    /// Distinguishes this sleep from earlier ones in the timer heap.
    sleep_no: u64,
    woken_by: Wake,
    main: Option<Box<dyn FnOnce()>>,
    panic: Option<Box<dyn Any + Send>>,
    sig_pending: bool,
    entry: usize,
    builtin: bool,
    /// Locks held, for the checks in [`crate::locks`].
    pub(crate) held: Vec<locks::Held>,
    /// Sections of epochs this thread is in: (epoch, tracker or 0, number).
    pub(crate) epochs: Vec<crate::epoch::Section>,
}

impl Thread {
    /// The real `struct thread`.
    pub(crate) fn td_ptr(&self) -> *mut sys::thread {
        std::ptr::from_ref(&self.td.0).cast_mut()
    }

    /// Lowest and highest address of its stack.
    pub(crate) fn stack_range(&self) -> Option<(usize, usize)> {
        self.stack.as_ref().map(|s| (s.bottom(), s.top()))
    }

    /// Is this address just below the thread's stack?
    pub(crate) fn stack_guards(&self, addr: usize) -> bool {
        self.stack.as_ref().is_some_and(|s| s.guards(addr))
    }
}

struct Sched {
    threads: BTreeMap<Tid, Box<Thread>>,
    /// Threads that ended, whose stacks wait for reuse.
    stacks: Vec<Stack>,
    dead: Vec<Tid>,
    runq: Vec<Tid>,
    sleepq: HashMap<usize, Vec<Tid>>,
    timers: BinaryHeap<Reverse<(Sbt, u64, Tid)>>,
    next_tid: Tid,
    next_sleep: u64,
    rng: Rng,
    switches: u64,
    trace: u64,
    /// Threads whose closure panicked, not yet told to anyone.
    unclaimed: Vec<Tid>,
}

/// What is read too often for a `Global`.
struct Fast {
    current: Cell<*mut Thread>,
    pcpu: Cell<*mut sys::pcpu>,
    now: Cell<Sbt>,
    driver_sp: Cell<usize>,
    kick: Cell<bool>,
    /// The clock may not pass this.
    horizon: Cell<Sbt>,
    no_preempt: Cell<u32>,
    preempt: Cell<u32>,
    switch_cost: Cell<Sbt>,
    last_tick: Cell<i64>,
}
// SAFETY: only the host thread that holds the boot lock uses it.
unsafe impl Sync for Fast {}

static FAST: Fast = Fast {
    current: Cell::new(std::ptr::null_mut()),
    pcpu: Cell::new(std::ptr::null_mut()),
    now: Cell::new(0),
    driver_sp: Cell::new(0),
    kick: Cell::new(false),
    horizon: Cell::new(Sbt::MAX),
    no_preempt: Cell::new(0),
    preempt: Cell::new(0),
    switch_cost: Cell::new(0),
    last_tick: Cell::new(0),
};
static SCHED: Global<Sched> = Global::new("scheduler");

/// The driver's tid: `thread0`.
pub const TID0: Tid = 100_000;

fn blank_thread(tid: Tid, name: &str) -> Box<Thread> {
    // SAFETY: `struct thread` is plain C data, all zeroes is what the kernel starts it with.
    let td: Box<AlignedTd> = unsafe { crate::kp::zeroed_box() };
    let mut t = Box::new(Thread {
        tid,
        name: name.to_string(),
        td,
        stack: None,
        sp: 0,
        state: State::Runnable,
        chan: 0,
        opts: SleepOpts::default(),
        sleep_no: 0,
        woken_by: Wake::Woken,
        main: None,
        panic: None,
        sig_pending: false,
        entry: 0,
        builtin: false,
        held: Vec::new(),
        epochs: Vec::new(),
    });
    t.td.td_tid = tid;
    t.td.td_proc = crate::init::proc0();
    t.td.td_ucred = crate::init::cred0();
    t.td.td_realucred = t.td.td_ucred;
    let name = t.name.clone();
    for (to, from) in t.td.td_name.iter_mut().take(19).zip(name.bytes()) {
        *to = from as std::ffi::c_char;
    }
    t
}

/// Starts the scheduler with `thread0` current.
pub(crate) fn boot(seed: u64, preempt: u32, switch_cost: Sbt, pcpu: *mut sys::pcpu) {
    let mut threads = BTreeMap::new();
    let mut t0 = blank_thread(TID0, "thread0");
    let cur: *mut Thread = &raw mut *t0;
    let td = t0.td_ptr();
    threads.insert(TID0, t0);
    SCHED.init(Sched {
        threads,
        stacks: Vec::new(),
        dead: Vec::new(),
        runq: Vec::new(),
        sleepq: HashMap::new(),
        timers: BinaryHeap::new(),
        next_tid: TID0 + 1,
        next_sleep: 1,
        rng: Rng::new(seed),
        switches: 0,
        trace: 0xcbf2_9ce4_8422_2325,
        unclaimed: Vec::new(),
    });
    FAST.current.set(cur);
    FAST.pcpu.set(pcpu);
    FAST.now.set(SBT_1S);
    FAST.horizon.set(Sbt::MAX);
    FAST.kick.set(false);
    FAST.no_preempt.set(0);
    FAST.preempt.set(preempt);
    FAST.switch_cost.set(switch_cost);
    FAST.last_tick.set(0);
    Kp::new(pcpu).pc_curthread = td;
    *ksym::countdown() = 0;
    tick();
}

/// Drops every thread. Whatever their stacks own is lost, as in a machine switched off.
pub(crate) fn shutdown() {
    FAST.current.set(std::ptr::null_mut());
    FAST.pcpu.set(std::ptr::null_mut());
    drop(SCHED.take());
}

fn cur() -> Kp<Thread> {
    Kp::new(FAST.current.get())
}

/// The running thread's record.
pub(crate) fn current() -> Kp<Thread> {
    cur()
}

/// Is a kernel running, and is this code on one of its threads (not the driver)?
#[must_use]
pub fn on_thread() -> bool {
    let p = FAST.current.get();
    !p.is_null() && Kp::new(p).tid != TID0
}

/// `curthread`.
#[must_use]
pub fn current_thread() -> Kp<sys::thread> {
    Kp::new(cur().td_ptr())
}

/// The running thread's number.
#[must_use]
pub fn current_tid() -> Tid {
    cur().tid
}

/// The `struct thread` of a live thread.
#[must_use]
pub fn thread_of(tid: Tid) -> Option<Kp<sys::thread>> {
    with_thread(tid, |t| Kp::new(t.td_ptr()))
}

pub(crate) fn with_thread<R>(tid: Tid, f: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    SCHED.with(|s| s.threads.get_mut(&tid).map(|t| f(t)))
}

/// Name of a live thread, for reports.
#[must_use]
pub fn thread_name(tid: Tid) -> String {
    with_thread(tid, |t| t.name.clone()).unwrap_or_else(|| format!("tid {tid}"))
}

/// Virtual time since boot, `sbinuptime()`.
#[must_use]
pub fn now_sbt() -> Sbt {
    FAST.now.get()
}

/// Moves the clock forward without sleeping, as DELAY(9) does.
pub fn spend(d: Sbt) {
    FAST.now.set(FAST.now.get() + d.max(0));
    tick();
}

/// Brings `ticks` and friends up to the clock.
fn tick() {
    let t = ((i128::from(FAST.now.get()) * i128::from(HZ)) >> 32) as i64;
    if t != FAST.last_tick.replace(t) {
        crate::time::set_ticks(t, FAST.now.get());
    }
}

/// Random number of the schedule's own generator, for other choices a seed should decide.
pub fn random_below(n: usize) -> usize {
    SCHED.with(|s| s.rng.below(n))
}

/// 64 random bits.
pub fn random_u64() -> u64 {
    SCHED.with(|s| s.rng.next_u64())
}

/// Switches since boot, and a hash over who ran when: equal for equal seeds.
#[must_use]
pub fn trace() -> (u64, u64) {
    SCHED.with(|s| (s.switches, s.trace))
}

/// Sets the odds of a switch at a preemption point: one in `n`, 0 for never.
pub fn set_preempt(n: u32) {
    FAST.preempt.set(n);
    *ksym::countdown() = 0;
}
