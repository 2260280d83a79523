//! Questions about threads: for reports, leak checks and unloading.

use super::{SCHED, State, TID0, Tid, next_timer};

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
