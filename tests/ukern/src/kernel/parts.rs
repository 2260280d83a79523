//! The contributions of `vm`, `net`, `aio` and `proc`. Each of the four has `exports`, `data`, `boot`,
//! `quiesce`, `shutdown` and `leaks`; this file calls them in order. (Maintained with those modules.)

use crate::ksym::{Export, KData};
use crate::{aio, net, proc, vm};

/// Exported functions.
pub(super) fn exports() -> Vec<&'static [Export]> {
    let mut all = vm::exports();
    all.extend(net::exports());
    all.extend(aio::exports());
    all.extend(proc::exports());
    all
}

/// Exported variables.
pub(super) fn data() -> Vec<&'static [&'static KData]> {
    let mut all = vm::data();
    all.extend(net::data());
    all.extend(aio::data());
    all.push(proc::data());
    all
}

/// After every other part has booted; on the driver, threads may be started.
pub(super) fn boot() {
    vm::boot();
    proc::boot();
    net::boot();
    aio::boot();
}

/// First step of a shutdown, on a kernel thread that may sleep: stop what would go on for ever.
pub(super) fn quiesce() {
    net::settle();
    aio::quiesce();
    proc::quiesce();
    net::quiesce();
    vm::quiesce();
}

/// Forgets the state.
pub(super) fn shutdown() {
    aio::shutdown();
    net::shutdown();
    proc::shutdown();
    vm::shutdown();
}

/// What is still held, one line per kind.
pub(super) fn leaks() -> Vec<String> {
    let mut all = proc::leaks();
    all.extend(aio::leaks());
    all.extend(net::leaks());
    all.extend(vm::leaks());
    all
}
