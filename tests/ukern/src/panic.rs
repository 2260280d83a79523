//! Panics of the simulated kernel.
//!
//! Module code has no unwind tables, so a ukern panic does not unwind: it writes its report,
//! leaves the thread for good and lets the driver raise a Rust panic in the test.

use std::fmt;

use crate::global::Global;
use crate::sched;

#[derive(Default)]
struct State {
    report: Option<String>,
    quiet: bool,
    seed: u64,
}

static STATE: Global<State> = Global::new("panic state");

/// A panic of the simulated kernel, with a format as `panic!`. Does not return.
#[macro_export]
macro_rules! kpanic {
    ($($arg:tt)*) => { $crate::panic::kpanic(format_args!($($arg)*)) };
}

pub(crate) fn boot(seed: u64) {
    STATE.init(State {
        seed,
        ..State::default()
    });
}

pub(crate) fn shutdown() {
    STATE.take();
}

/// Keeps the next report off stderr: a test expects it.
pub(crate) fn set_quiet(on: bool) {
    STATE.with(|s| s.quiet = on);
}

/// Has the kernel panicked?
#[must_use]
pub fn pending() -> bool {
    STATE.is_set() && STATE.with(|s| s.report.is_some())
}

/// The seed of the boot.
pub(crate) fn seed() -> u64 {
    STATE.with(|s| s.seed)
}

/// The report of the panic.
pub(crate) fn report() -> Option<String> {
    STATE.with(|s| s.report.clone())
}

/// Return addresses of module code on the running thread's stack, innermost first: a backtrace good
/// enough to name the functions, though a stale address may be among them.
fn module_frames() -> Vec<String> {
    let here = 0_usize;
    let at = crate::trap::fault_sp().unwrap_or(&raw const here as usize);
    let Some((low, high)) = sched::current().stack_range() else {
        return Vec::new();
    };
    if !(low..high).contains(&at) {
        return Vec::new();
    }
    (at.next_multiple_of(8)..high)
        .step_by(8)
        .map(crate::kp::peek::<usize>)
        .filter(|&w| crate::loader::in_text(w))
        .filter_map(crate::loader::describe)
        .take(24)
        .collect()
}

fn compose(msg: fmt::Arguments<'_>) -> String {
    let seed = STATE.with(|s| s.seed);
    let mut out = format!("ukern panic: {msg}\n");
    let now = sched::now_sbt();
    let (switches, _) = sched::trace();
    out += &format!(
        "  seed {seed:#x}, virtual time {:.6} s, {switches} switches, thread {}\n",
        now as f64 / sched::SBT_1S as f64,
        sched::thread_name(sched::current_tid()),
    );
    for h in &sched::current().held {
        out += &format!("  holds {h}\n");
    }
    if sched::on_thread() {
        for f in module_frames() {
            out += &format!("  from {f}\n");
        }
    }
    out += "threads:\n";
    out += &sched::ps();
    out
}

/// Counts as a panic of the kernel without raising one: found by the driver, which reports it itself.
pub(crate) fn record(msg: fmt::Arguments<'_>) -> String {
    let report = compose(msg);
    STATE.with(|s| s.report.get_or_insert(report).clone())
}

/// The function behind [`kpanic!`](crate::kpanic).
pub fn kpanic(msg: fmt::Arguments<'_>) -> ! {
    if !STATE.is_set() {
        panic!("ukern panic with no kernel booted: {msg}");
    }
    // Whoever was using a cell does not come back to it.
    crate::global::reset_all();
    let report = compose(msg);
    let quiet = STATE.with(|s| {
        if s.report.is_none() {
            s.report = Some(report.clone());
        }
        s.quiet
    });
    if !quiet {
        eprintln!("{report}");
    }
    if sched::on_thread() {
        sched::abandon();
    }
    panic!("{report}");
}
