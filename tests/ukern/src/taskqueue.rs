//! taskqueue(9).

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::names::intern_c;
use crate::printf::{self, VaList};
use crate::sched::{self, Sbt, SleepOpts, Spawn, Tid};
use crate::{callout, epoch, kpanic, locks, sys, time};

struct Queue {
    name: &'static str,
    /// Pending tasks in running order: (priority turned so that high comes first, number) to task.
    pending: BTreeMap<(u8, u64), usize>,
    running: Vec<(Tid, usize, u64)>,
    threads: Vec<Tid>,
    enqueue: usize,
    context: usize,
    blocked: bool,
    ending: bool,
    no_sleep: bool,
    builtin: bool,
    armed: usize,
}

struct State {
    queues: BTreeMap<usize, Queue>,
    next_handle: usize,
    next: u64,
}

static STATE: Global<State> = Global::new("taskqueues");
static TQ_THREAD: KData = KData::of::<usize>("taskqueue_thread");
static TQ_SWI: KData = KData::of::<usize>("taskqueue_swi");
static TQ_FAST: KData = KData::of::<usize>("taskqueue_fast");
static TQ_BUS: KData = KData::of::<usize>("taskqueue_bus");

crate::exports_data! { TQ_THREAD, TQ_SWI, TQ_FAST, TQ_BUS }

pub(crate) fn boot() {
    STATE.init(State {
        queues: BTreeMap::new(),
        next_handle: 0x07a5_0000,
        next: 1,
    });
    for (var, name, no_sleep) in [
        (&TQ_THREAD, "thread", false),
        (&TQ_SWI, "swi", true),
        (&TQ_FAST, "fast", true),
        (&TQ_BUS, "bus", false),
    ] {
        let q = create(name, 0, 0);
        *var.get::<usize>() = q;
        with(q, |t| {
            t.builtin = true;
            t.no_sleep = no_sleep;
        });
        start_thread(q, &format!("{name} taskq"));
    }
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn with<R>(q: usize, f: impl FnOnce(&mut Queue) -> R) -> R {
    match STATE.with(|s| s.queues.get_mut(&q).map(f)) {
        Some(r) => r,
        None => kpanic!("{q:#x} is no taskqueue (freed?)"),
    }
}

fn create(name: &'static str, enqueue: usize, context: usize) -> usize {
    STATE.with(|s| {
        s.next_handle += 16;
        s.queues.insert(
            s.next_handle,
            Queue {
                name,
                pending: BTreeMap::new(),
                running: Vec::new(),
                threads: Vec::new(),
                enqueue,
                context,
                blocked: false,
                ending: false,
                no_sleep: false,
                builtin: false,
                armed: 0,
            },
        );
        s.next_handle
    })
}

/// The handle of `taskqueue_thread`.
#[must_use]
pub fn thread_queue() -> usize {
    *TQ_THREAD.get::<usize>()
}

fn start_thread(q: usize, name: &str) {
    let tid = sched::spawn(Spawn::kernel(name), move || thread_loop(q));
    with(q, |t| t.threads.push(tid));
}

fn thread_loop(q: usize) {
    loop {
        run_all(q);
        if with(q, |t| t.ending) {
            break;
        }
        if with(q, |t| t.pending.is_empty() || t.blocked) {
            sched::sleep_on(q, SleepOpts::new("tq"));
        }
    }
    let me = sched::current_tid();
    with(q, |t| t.threads.retain(|&x| x != me));
    sched::wakeup(q + 1);
}

fn run_all(q: usize) {
    let me = sched::current_tid();
    loop {
        let next = STATE.with(|s| {
            s.next += 1;
            let no = s.next;
            let t = s.queues.get_mut(&q)?;
            let (_, task) = t.pending.pop_first()?;
            t.running.push((me, task, no));
            Some((task, no, t.no_sleep))
        });
        let Some((task, no, no_sleep)) = next else {
            return;
        };
        let mut t: Kp<sys::task> = Kp::new(task as *mut _);
        let pending = i32::from(t.ta_pending);
        t.ta_pending = 0;
        t.ta_flags &= !(sys::TASK_ENQUEUED as u8);
        let (func, ctx, net) = (
            t.ta_func,
            t.ta_context,
            u32::from(t.ta_flags) & sys::TASK_NETWORK != 0,
        );
        let mut td = sched::current_thread();
        td.td_no_sleeping += u32::from(no_sleep);
        let call = || {
            if let Some(func) = func {
                // SAFETY: the function and context the task was set up with. The task may be gone after.
                unsafe { func(ctx, pending) };
            }
        };
        if net {
            epoch::with_net_epoch(call);
        } else {
            call();
        }
        td.td_no_sleeping -= u32::from(no_sleep);
        locks::check_none_held("task returned");
        epoch::check_none("task returned");
        with(q, |t| t.running.retain(|r| r.2 != no));
        sched::wakeup(q + 1);
    }
}

/// `taskqueue_enqueue`.
pub fn enqueue(q: usize, mut task: Kp<sys::task>) {
    if task.ta_func.is_none() {
        kpanic!("taskqueue_enqueue of a task with no function");
    }
    let (pending, ending) = with(q, |t| {
        (t.pending.values().any(|&a| a == task.addr()), t.ending)
    });
    if ending {
        kpanic!("taskqueue_enqueue on a queue that is being freed");
    }
    if pending {
        task.ta_pending = task.ta_pending.saturating_add(1);
        return;
    }
    if task.ta_pending != 0 {
        kpanic!(
            "task {:#x} is marked pending, but not on this queue: on another, or never set up",
            task.addr()
        );
    }
    task.ta_pending = 1;
    task.ta_flags |= sys::TASK_ENQUEUED as u8;
    let prio = u8::MAX - task.ta_priority;
    let call = STATE.with(|s| {
        s.next += 1;
        let no = s.next;
        let t = s.queues.get_mut(&q)?;
        t.pending.insert((prio, no), task.addr());
        (!t.blocked).then_some((t.enqueue, t.context))
    });
    match call {
        None => {}
        Some((f, ctx)) if f != 0 && !callout::is_export(f, "taskqueue_thread_enqueue") => {
            // SAFETY: the notification function the queue was created with.
            let f: extern "C" fn(usize) = unsafe { std::mem::transmute(f) };
            f(ctx);
        }
        Some(_) => {
            sched::wakeup(q);
        }
    }
}

fn busy(q: usize, task: usize) -> bool {
    with(q, |t| {
        t.pending.values().any(|&a| a == task) || t.running.iter().any(|r| r.1 == task)
    })
}

/// `taskqueue_drain`: sleeps until the task is neither pending nor running.
pub fn drain(q: usize, task: usize) {
    sched::check_may_sleep("taskqueue_drain");
    let me = sched::current_tid();
    if with(q, |t| t.running.iter().any(|r| r.0 == me && r.1 == task)) {
        kpanic!("taskqueue_drain of a task from itself");
    }
    while busy(q, task) {
        sched::sleep_on(q + 1, SleepOpts::new("tqdrain"));
    }
}

fn cancel(q: usize, mut task: Kp<sys::task>) -> (i32, u32) {
    let a = task.addr();
    let was = u32::from(task.ta_pending);
    let running = with(q, |t| {
        t.pending.retain(|_, &mut x| x != a);
        t.running.iter().any(|r| r.1 == a)
    });
    task.ta_pending = 0;
    task.ta_flags &= !(sys::TASK_ENQUEUED as u8);
    (if running { sys::EBUSY as i32 } else { 0 }, was)
}

fn put(p: *mut u32, v: u32) {
    if !p.is_null() {
        *Kp::new(p) = v;
    }
}

/// Panics when memory about to be freed contains a pending task.
pub(crate) fn check_freed(addr: usize, len: usize, what: &dyn Fn() -> String) {
    let hit = STATE.with(|s| {
        s.queues.values().find_map(|t| {
            t.pending
                .values()
                .find(|&&a| (addr..addr + len).contains(&a))
                .map(|_| t.name)
        })
    });
    if let Some(name) = hit {
        kpanic!("{} contains a task pending on taskqueue {name}", what());
    }
}

/// Taskqueues nobody freed.
#[must_use]
pub fn leaks() -> Vec<String> {
    STATE.with(|s| {
        s.queues
            .values()
            .filter(|t| !t.builtin)
            .map(|t| format!("taskqueue \"{}\"", t.name))
            .collect()
    })
}

/// Panics when a task of code that is about to go is pending or running.
pub(crate) fn check_code_gone(addr: usize, len: usize, what: &str) {
    let tasks: Vec<usize> = STATE.with(|s| {
        s.queues
            .values()
            .flat_map(|t| t.pending.values().copied().collect::<Vec<_>>())
            .collect()
    });
    for a in tasks {
        let f = Kp::new(a as *mut sys::task)
            .ta_func
            .map_or(0, |f| f as usize);
        if (addr..addr + len).contains(&f) {
            kpanic!("{what} with a pending task of its own ({a:#x})");
        }
    }
}

extern "C" fn taskqueue_create(name: *const c_char, _mflags: i32, enq: usize, ctx: usize) -> usize {
    create(intern_c(name), enq, ctx)
}

extern "C" fn taskqueue_free(q: usize) {
    sched::check_may_sleep("taskqueue_free");
    let (armed, name) = with(q, |t| {
        t.ending = true;
        (t.armed, t.name)
    });
    if armed != 0 {
        kpanic!("taskqueue_free of \"{name}\" with {armed} armed timeout tasks");
    }
    sched::wakeup(q);
    while with(q, |t| !t.threads.is_empty()) {
        sched::sleep_on(q + 1, SleepOpts::new("tqdie"));
    }
    if with(q, |t| !t.pending.is_empty()) {
        run_all(q);
    }
    STATE.with(|s| s.queues.remove(&q));
}

extern "C" fn start_threads(
    tqp: Kp<usize>,
    count: i32,
    _pri: i32,
    fmt: *const c_char,
    mut ap: Kp<VaList>,
) -> i32 {
    let name = printf::to_string(fmt, &mut ap);
    if count <= 0 {
        return sys::EINVAL as i32;
    }
    for i in 0..count {
        let n = if count == 1 {
            name.clone()
        } else {
            format!("{name}_{i}")
        };
        start_thread(*tqp, &n);
    }
    0
}
crate::variadic!(fn taskqueue_start_threads, start_threads, fixed 4, list in "r8");

extern "C" fn start_threads_mask(
    tqp: Kp<usize>,
    count: i32,
    pri: i32,
    _mask: *const c_void,
    fmt: *const c_char,
    ap: Kp<VaList>,
) -> i32 {
    start_threads(tqp, count, pri, fmt, ap)
}
crate::variadic!(fn taskqueue_start_threads_cpuset, start_threads_mask, fixed 5, list in "r9");

extern "C" fn taskqueue_enqueue(q: usize, task: Kp<sys::task>) -> i32 {
    enqueue(q, task);
    0
}

extern "C" fn taskqueue_drain(q: usize, task: usize) {
    drain(q, task);
}

extern "C" fn taskqueue_drain_all(q: usize) {
    sched::check_may_sleep("taskqueue_drain_all");
    while with(q, |t| !t.pending.is_empty() || !t.running.is_empty()) {
        sched::sleep_on(q + 1, SleepOpts::new("tqdrain"));
    }
}

extern "C" fn taskqueue_cancel(q: usize, task: Kp<sys::task>, pendp: *mut u32) -> i32 {
    let (e, was) = cancel(q, task);
    put(pendp, was);
    e
}

extern "C" fn taskqueue_block(q: usize) {
    with(q, |t| t.blocked = true);
}

extern "C" fn taskqueue_unblock(q: usize) {
    with(q, |t| t.blocked = false);
    sched::wakeup(q);
}

extern "C" fn taskqueue_run(q: usize) {
    run_all(q);
}

extern "C" fn taskqueue_member(q: usize, td: Kp<sys::thread>) -> i32 {
    i32::from(with(q, |t| t.threads.contains(&td.td_tid)))
}

extern "C" fn taskqueue_poll_is_busy(q: usize, task: usize) -> i32 {
    i32::from(busy(q, task))
}

extern "C" fn taskqueue_thread_enqueue(ctx: Kp<usize>) {
    sched::wakeup(*ctx);
}

/// `timeout_task.f`: the callout is armed.
const ARMED: i32 = 1;

extern "C" fn timeout_fire(arg: *mut c_void) {
    let mut t: Kp<sys::timeout_task> = Kp::new(arg.cast());
    t.f &= !ARMED;
    let q = t.q as usize;
    with(q, |q| q.armed -= 1);
    enqueue(q, Kp::new(&raw mut t.t));
}

extern "C" fn timeout_task_init(
    q: usize,
    mut t: Kp<sys::timeout_task>,
    prio: i32,
    func: sys::task_fn_t,
    ctx: *mut c_void,
) {
    // SAFETY: `struct timeout_task` is plain C data.
    *t = unsafe { std::mem::zeroed() };
    t.q = q as *mut sys::taskqueue;
    t.t.ta_priority = prio as u8;
    t.t.ta_func = func;
    t.t.ta_context = ctx;
    callout::init(Kp::new(&raw mut t.c));
}

fn arm(q: usize, mut t: Kp<sys::timeout_task>, sbt: Sbt) -> i32 {
    let pending = i32::from(t.t.ta_pending);
    if sbt == 0 {
        enqueue(q, Kp::new(&raw mut t.t));
        return pending;
    }
    if t.f & ARMED == 0 {
        t.f |= ARMED;
        with(q, |q| q.armed += 1);
    } else if sbt < 0 {
        return pending + 1;
    }
    callout::reset(
        Kp::new(&raw mut t.c),
        sbt.abs(),
        Some(timeout_fire),
        t.ptr().cast(),
    );
    pending
}

extern "C" fn enqueue_timeout(q: usize, t: Kp<sys::timeout_task>, ticks: i32) -> i32 {
    let sbt = time::ticks_to_sbt(ticks).unwrap_or(0);
    arm(q, t, sbt)
}

extern "C" fn enqueue_timeout_sbt(
    q: usize,
    t: Kp<sys::timeout_task>,
    sbt: Sbt,
    _pr: Sbt,
    _flags: i32,
) -> i32 {
    arm(q, t, sbt)
}

fn disarm(q: usize, mut t: Kp<sys::timeout_task>, drain: bool) -> bool {
    let hit = callout::stop(Kp::new(&raw mut t.c), drain) > 0;
    if hit && t.f & ARMED != 0 {
        t.f &= !ARMED;
        with(q, |q| q.armed -= 1);
    }
    hit
}

extern "C" fn cancel_timeout(q: usize, mut t: Kp<sys::timeout_task>, pendp: *mut u32) -> i32 {
    let hit = disarm(q, t, false);
    let (e, was) = cancel(q, Kp::new(&raw mut t.t));
    put(pendp, was + u32::from(hit));
    e
}

extern "C" fn drain_timeout(q: usize, mut t: Kp<sys::timeout_task>) {
    disarm(q, t, true);
    drain(q, &raw mut t.t as usize);
}

crate::exports! {
    "taskqueue_create" => taskqueue_create,
    "taskqueue_create_fast" => taskqueue_create,
    "taskqueue_free" => taskqueue_free,
    "taskqueue_start_threads" => taskqueue_start_threads,
    "taskqueue_start_threads_cpuset" => taskqueue_start_threads_cpuset,
    "taskqueue_enqueue" => taskqueue_enqueue,
    "taskqueue_drain" => taskqueue_drain,
    "taskqueue_drain_all" => taskqueue_drain_all,
    "taskqueue_quiesce" => taskqueue_drain_all,
    "taskqueue_cancel" => taskqueue_cancel,
    "taskqueue_block" => taskqueue_block,
    "taskqueue_unblock" => taskqueue_unblock,
    "taskqueue_run" => taskqueue_run,
    "taskqueue_member" => taskqueue_member,
    "taskqueue_poll_is_busy" => taskqueue_poll_is_busy,
    "taskqueue_thread_enqueue" => taskqueue_thread_enqueue,
    "_timeout_task_init" => timeout_task_init,
    "taskqueue_enqueue_timeout" => enqueue_timeout,
    "taskqueue_enqueue_timeout_sbt" => enqueue_timeout_sbt,
    "taskqueue_cancel_timeout" => cancel_timeout,
    "taskqueue_drain_timeout" => drain_timeout,
}
