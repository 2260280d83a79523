//! epoch(9).

use std::collections::BTreeMap;
use std::ffi::c_char;

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::names::intern_c;
use crate::sched::{self, SleepOpts};
use crate::{kpanic, sys};

/// A section a thread is in.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    epoch: usize,
    /// Address of the caller's `struct epoch_tracker`; 0 for the non-preemptible kind.
    tracker: usize,
    /// Sections are numbered; a wait needs those up to the number at its start to end.
    no: u64,
}

struct Epoch {
    name: &'static str,
    preempt: bool,
    active: Vec<u64>,
    /// Callbacks with the section number they wait for: (no, function, context).
    calls: Vec<(u64, usize, usize)>,
}

struct State {
    epochs: BTreeMap<usize, Epoch>,
    /// A callback is running.
    running: bool,
    next_no: u64,
    next_handle: usize,
}

static STATE: Global<State> = Global::new("epochs");
static NET_EPOCH: KData = KData::of::<usize>("net_epoch_preempt");
static GLOBAL_EPOCH: KData = KData::of::<usize>("global_epoch");
static GLOBAL_EPOCH_PREEMPT: KData = KData::of::<usize>("global_epoch_preempt");

crate::exports_data! { NET_EPOCH, GLOBAL_EPOCH, GLOBAL_EPOCH_PREEMPT }

/// The channel waiters and the callback thread sleep on.
fn chan() -> usize {
    NET_EPOCH.addr()
}

pub(crate) fn boot() {
    // Handles are opaque; addresses nobody maps catch whoever looks inside.
    STATE.init(State {
        epochs: BTreeMap::new(),
        running: false,
        next_no: 1,
        next_handle: 0x0e0c_0000,
    });
    *NET_EPOCH.get::<usize>() = alloc("Net preemptible", true);
    *GLOBAL_EPOCH.get::<usize>() = alloc("Global", false);
    *GLOBAL_EPOCH_PREEMPT.get::<usize>() = alloc("Global preemptible", true);
    sched::spawn_kthread("epoch callbacks", callback_thread);
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn alloc(name: &'static str, preempt: bool) -> usize {
    STATE.with(|s| {
        s.next_handle += 64;
        s.epochs.insert(
            s.next_handle,
            Epoch {
                name,
                preempt,
                active: Vec::new(),
                calls: Vec::new(),
            },
        );
        s.next_handle
    })
}

fn with_epoch<R>(epoch: usize, f: impl FnOnce(&mut Epoch, &mut u64) -> R) -> R {
    let r = STATE.with(|s| s.epochs.get_mut(&epoch).map(|e| f(e, &mut s.next_no)));
    match r {
        Some(r) => r,
        None => kpanic!("no epoch {epoch:#x}"),
    }
}

/// The handle of the network epoch.
#[must_use]
pub fn net_epoch() -> usize {
    *NET_EPOCH.get::<usize>()
}

/// Enters; `tracker` tells nested sections of one thread apart.
pub fn enter(epoch: usize, tracker: usize) {
    let no = with_epoch(epoch, |e, next| {
        *next += 1;
        e.active.push(*next);
        *next
    });
    sched::current().epochs.push(Section { epoch, tracker, no });
}

/// Leaves the section entered with this tracker.
pub fn exit(epoch: usize, tracker: usize) {
    let mut me = sched::current();
    let Some(i) = me
        .epochs
        .iter()
        .rposition(|s| s.epoch == epoch && s.tracker == tracker)
    else {
        kpanic!("epoch_exit with no matching epoch_enter in this thread (tracker {tracker:#x})");
    };
    let s = me.epochs.remove(i);
    let ready = with_epoch(epoch, |e, _| {
        e.active.retain(|&n| n != s.no);
        !e.calls.is_empty()
    });
    if ready || sched::waiters(chan()) > 1 {
        sched::wakeup(chan());
    }
}

/// Runs `f` inside the network epoch.
pub fn with_net_epoch<R>(f: impl FnOnce() -> R) -> R {
    let e = net_epoch();
    let mark = std::ptr::from_ref(&e) as usize;
    enter(e, mark);
    let r = f();
    exit(e, mark);
    r
}

/// Is the running thread in this epoch?
#[must_use]
pub fn inside(epoch: usize) -> bool {
    sched::current().epochs.iter().any(|s| s.epoch == epoch)
}

/// Panics when the running thread is in any epoch section.
pub(crate) fn check_may_sleep(what: &str) {
    if let Some(s) = sched::current().epochs.first() {
        let name = with_epoch(s.epoch, |e, _| e.name);
        kpanic!("{what}: sleeping in epoch \"{name}\"");
    }
}

pub(crate) fn check_none(what: &str) {
    if let Some(s) = sched::current().epochs.first() {
        let name = with_epoch(s.epoch, |e, _| e.name);
        kpanic!("{what} in epoch \"{name}\"");
    }
}

/// Waits until every section active now has ended.
pub fn wait(epoch: usize) {
    if inside(epoch) {
        kpanic!("epoch_wait in the epoch waited for");
    }
    sched::check_may_sleep("epoch_wait");
    let upto = with_epoch(epoch, |_, next| *next);
    while with_epoch(epoch, |e, _| e.active.iter().any(|&n| n <= upto)) {
        sched::sleep_on(chan(), SleepOpts::new("epoch"));
    }
    // Even with nobody inside, the real wait gives others time to run.
    sched::yield_now();
}

/// Calls `func(ctx)` in a kernel thread once every section active now has ended.
pub fn call(epoch: usize, func: usize, ctx: usize) {
    with_epoch(epoch, |e, next| {
        let no = *next;
        e.calls.push((no, func, ctx));
    });
    sched::wakeup(chan());
}

/// One callback that is due.
fn due() -> Option<(usize, usize)> {
    STATE.with(|s| {
        for e in s.epochs.values_mut() {
            let oldest = e.active.iter().copied().min().unwrap_or(u64::MAX);
            if let Some(i) = e.calls.iter().position(|c| c.0 < oldest) {
                let c = e.calls.remove(i);
                s.running = true;
                return Some((c.1, c.2));
            }
        }
        None
    })
}

fn callback_thread() {
    loop {
        while let Some((func, ctx)) = due() {
            // SAFETY: module code registered this very function for this very context.
            let f: extern "C" fn(usize) = unsafe { std::mem::transmute(func) };
            // Callbacks run inside the network epoch's task and must not sleep.
            let mut td = sched::current_thread();
            td.td_no_sleeping += 1;
            f(ctx);
            td.td_no_sleeping -= 1;
            STATE.with(|s| s.running = false);
            sched::wakeup(chan() + 1);
        }
        sched::sleep_on(chan(), SleepOpts::new("epochcb"));
    }
}

extern "C" fn epoch_drain_callbacks(epoch: usize) {
    sched::check_may_sleep("epoch_drain_callbacks");
    let upto = with_epoch(epoch, |_, next| *next);
    while with_epoch(epoch, |e, _| e.calls.iter().any(|c| c.0 <= upto)) || STATE.with(|s| s.running)
    {
        sched::sleep_on(chan() + 1, SleepOpts::new("epochdr"));
    }
}

/// Panics when a callback into code that is about to go has not run yet.
pub(crate) fn check_code_gone(addr: usize, len: usize, what: &str) {
    let hit = STATE.with(|s| {
        s.epochs
            .values()
            .flat_map(|e| &e.calls)
            .any(|c| (addr..addr + len).contains(&c.1))
    });
    if hit {
        kpanic!("{what} with an epoch callback of its own pending");
    }
}

/// Number of callbacks not yet run.
#[must_use]
pub fn pending_calls() -> usize {
    STATE.with(|s| s.epochs.values().map(|e| e.calls.len()).sum())
}

extern "C" fn epoch_alloc(name: *const c_char, flags: i32) -> usize {
    alloc(intern_c(name), flags as u32 & sys::EPOCH_PREEMPT != 0)
}

extern "C" fn epoch_free(epoch: usize) {
    epoch_drain_callbacks(epoch);
    wait(epoch);
    STATE.with(|s| s.epochs.remove(&epoch));
}

extern "C" fn epoch_enter_preempt(epoch: usize, mut et: Kp<sys::epoch_tracker>) {
    if !with_epoch(epoch, |e, _| e.preempt) {
        kpanic!("epoch_enter_preempt of an epoch that is not preemptible");
    }
    et.et_td = sched::current_thread().ptr();
    enter(epoch, et.addr());
}

extern "C" fn epoch_exit_preempt(epoch: usize, mut et: Kp<sys::epoch_tracker>) {
    if et.et_td != sched::current_thread().ptr() {
        kpanic!("epoch_exit_preempt by another thread than entered");
    }
    exit(epoch, et.addr());
    et.et_td = std::ptr::null_mut();
}

extern "C" fn epoch_enter(epoch: usize) {
    sched::current_thread().td_critnest += 1;
    enter(epoch, 0);
}

extern "C" fn epoch_exit(epoch: usize) {
    exit(epoch, 0);
    sched::current_thread().td_critnest -= 1;
}

extern "C" fn epoch_wait(epoch: usize) {
    wait(epoch);
}

extern "C" fn epoch_call(epoch: usize, func: usize, ctx: usize) {
    call(epoch, func, ctx);
}

extern "C" fn in_epoch(epoch: usize) -> i32 {
    i32::from(inside(epoch))
}

extern "C" fn in_epoch_verbose(epoch: usize, _dump: i32) -> i32 {
    i32::from(inside(epoch))
}

crate::exports! {
    "epoch_alloc" => epoch_alloc,
    "epoch_free" => epoch_free,
    "_epoch_enter_preempt" => epoch_enter_preempt,
    "_epoch_exit_preempt" => epoch_exit_preempt,
    "epoch_enter" => epoch_enter,
    "epoch_exit" => epoch_exit,
    "epoch_wait" => epoch_wait,
    "epoch_wait_preempt" => epoch_wait,
    "epoch_call" => epoch_call,
    "epoch_drain_callbacks" => epoch_drain_callbacks,
    "in_epoch" => in_epoch,
    "in_epoch_verbose" => in_epoch_verbose,
}
