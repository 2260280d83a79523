//! Threads, sleeping, and the virtual clock.
//!
//! Exactly one thread runs at a time. It goes on until it blocks, or until a preemption point
//! strikes: every call from a module into the kernel, every lock operation and wakeup is one,
//! and one in [`crate::Config::preempt`] gives way. Who runs next is drawn from the seed, so a
//! seed is a schedule. The clock is virtual: it gains a little with every switch and jumps to
//! the next timeout when every thread sleeps.
//!
//! "The driver" is the test's own stack. It runs threads from [`drive`] and never any module code.

use std::any::Any;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::coro::{self, Stack};
use crate::global::Global;
use crate::kp::Kp;
use crate::rng::Rng;
use crate::{ksym, locks, sys};

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

/// The thread that holds the lock at this address, and how.
pub(crate) fn holder_of(addr: usize) -> Option<(Tid, String)> {
    SCHED.with(|s| {
        s.threads.values().find_map(|t| {
            t.held
                .iter()
                .find(|h| h.addr == addr)
                .map(|h| (t.tid, h.to_string()))
        })
    })
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
fn reap() {
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

fn make_runnable(s: &mut Sched, tid: Tid, why: Wake) {
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
fn next_timer(s: &mut Sched) -> Option<Sbt> {
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
fn schedule() {
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

/// Panics when a thread started in code that is about to go still lives.
pub(crate) fn check_code_gone(addr: usize, len: usize, what: &str) {
    let hit = SCHED.with(|s| {
        s.threads
            .values()
            .find(|t| t.state != State::Dead && (addr..addr + len).contains(&t.entry))
            .map(|t| t.name.clone())
    });
    if let Some(name) = hit {
        crate::kpanic!("{what} while its thread \"{name}\" still runs");
    }
}

/// Threads alive now belong to the kernel itself and are no leaks.
pub(crate) fn mark_builtin() {
    SCHED.with(|s| {
        for t in s.threads.values_mut() {
            t.builtin = true;
        }
    });
}

/// Live threads that the kernel did not start at boot.
#[must_use]
pub fn live_threads() -> Vec<(Tid, String)> {
    SCHED.with(|s| {
        s.threads
            .values()
            .filter(|t| !t.builtin && t.state != State::Dead)
            .map(|t| (t.tid, t.name.clone()))
            .collect()
    })
}

/// Is any thread able to run now?
#[must_use]
pub(crate) fn any_runnable() -> bool {
    SCHED.with(|s| !s.runq.is_empty())
}

/// Does any thread sleep with a timeout?
pub(crate) fn has_timer() -> bool {
    SCHED.with(|s| next_timer(s).is_some())
}

/// One line per thread: name, state, what it waits for, locks held.
#[must_use]
pub fn ps() -> String {
    use std::fmt::Write;
    let mut out = String::new();
    SCHED.with(|s| {
        for t in s
            .threads
            .values()
            .filter(|t| t.tid != TID0 && t.state != State::Dead)
        {
            let _ = write!(out, "  {} ({})", t.name, t.tid);
            let _ = match t.state {
                State::Sleeping if t.opts.lock => {
                    write!(out, " waits for lock \"{}\" {:#x}", t.opts.wmesg, t.chan)
                }
                State::Sleeping => write!(out, " sleeps on \"{}\" {:#x}", t.opts.wmesg, t.chan),
                State::Runnable => write!(out, " can run"),
                State::Dead => Ok(()),
            };
            for h in &t.held {
                let _ = write!(out, "; holds {h}");
            }
            out.push('\n');
        }
    });
    out
}
