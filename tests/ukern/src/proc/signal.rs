//! Signals, as far as I/O meets them: SIGPIPE, EINTR, and being killed.

use crate::kp::Kp;
use crate::proc::api::{SigAction, Signal};
use crate::proc::process::{self, with_state};
use crate::{kpanic, sched, sys};

/// `kern_psignal`: posts a signal to a process.
pub(crate) fn psignal(p: Kp<sys::proc_>, sig: i32) {
    if !process::is_user(p) {
        return;
    }
    let wake = with_state(p, |s| {
        *s.posted.entry(sig).or_default() += 1;
        let act = s.actions.get(&sig).copied().unwrap_or(SigAction::Default);
        match act {
            SigAction::Ignore if sig != Signal::Kill as i32 => return Vec::new(),
            SigAction::Default if sig == Signal::Urg as i32 => return Vec::new(),
            SigAction::Catch if sig != Signal::Kill as i32 => s.caught = true,
            _ => {
                s.fatal.get_or_insert(sig);
            }
        }
        s.tids.clone()
    });
    for tid in wake {
        sched::set_signal_pending(tid, true);
    }
}

mod c {
    use super::*;
    pub(super) extern "C" fn kern_psignal(p: Kp<sys::proc_>, sig: i32) {
        let mut q = p;
        if !crate::locks::mtx_owned(Kp::new(&raw mut q.p_mtx)) {
            kpanic!("kern_psignal without the process lock");
        }
        psignal(p, sig);
    }
}

crate::exports! {
    "kern_psignal" => c::kern_psignal,
    "pksignal" => c::kern_psignal,
}
