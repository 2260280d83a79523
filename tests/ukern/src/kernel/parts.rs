//! The contributions of `vm`, `net`, `aio` and `proc`. Each of the four has `exports`, `data`, `boot`,
//! `quiesce`, `shutdown` and `leaks`; this file calls them in order. (Maintained with those modules.)

use crate::ksym::{Export, KData};

/// Exported functions.
pub(super) fn exports() -> Vec<&'static [Export]> {
    crate::vm::exports()
}

/// Exported variables.
pub(super) fn data() -> Vec<&'static [&'static KData]> {
    crate::vm::data()
}

/// After every other part has booted; on the driver, threads may be started.
pub(super) fn boot() {
    crate::vm::boot();
}

/// First step of a shutdown, on a kernel thread that may sleep: stop what would go on for ever.
pub(super) fn quiesce() {
    crate::vm::quiesce();
}

/// Forgets the state.
pub(super) fn shutdown() {
    crate::vm::shutdown();
}

/// What is still held, one line per kind.
pub(super) fn leaks() -> Vec<String> {
    crate::vm::leaks()
}
