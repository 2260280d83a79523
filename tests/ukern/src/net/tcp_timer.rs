//! TCP's timers, as far as a connection without software retransmission needs them: keep-init,
//! FIN_WAIT_2 and 2MSL.
//!
//! For an offloaded connection none is started or stopped, `tcp_timer_activate` sees to that. One
//! that ran before it was offloaded goes off all the same.
//!
//! | simpler here than there | FreeBSD |
//! |---|---|
//! | one thread and one lock for all; a timer that was stopped does not run late | `tcp_timer_enter` (14, 15), `tcp_timer_stop` and its drain (12) |
//! | no keepalive probes: an idle connection lives | `tcp_timer_keep` |
//! | no retransmission, persist and delayed ACK timers, no maximum of unacknowledged time | `tcp_timer_rexmt`, `tcp_timer_persist`, `tcp_timer_delack` |

use std::collections::BTreeMap;

use crate::global::Global;
use crate::kp::Kp;
use crate::net::acc::{InpExt, SockbufExt, SocketExt, TcpcbExt};
use crate::net::{inpcb, k, tcp_subr};
use crate::sched::{self, HZ, SBT_1S, Sbt, SleepOpts};
use crate::{sys, vnet};

/// tcp.keepinit in ticks.
pub(crate) const KEEPINIT: u32 = 75 * HZ as u32;
/// TP_MAXIDLE: keepcnt times keepintvl, in ticks.
pub(crate) const MAXIDLE: u32 = 8 * 75 * HZ as u32;

#[derive(Default)]
struct State {
    /// Deadline by (tcpcb, timer).
    armed: BTreeMap<(usize, u32), Sbt>,
}

static STATE: Global<State> = Global::new("tcp timers");
static STOP: Global<bool> = Global::new("tcp timer stop");

fn chan() -> usize {
    (&raw const STATE) as usize
}

pub(crate) fn boot() {
    STATE.init(State::default());
    STOP.init(false);
    sched::spawn_kthread("tcp timers", run);
}

pub(crate) fn shutdown() {
    STATE.take();
    STOP.take();
}

/// `tcp_timer_activate`: `delta` ticks from now, 0 disarms. pcb write-locked.
pub(crate) fn activate(tp: Kp<sys::tcpcb>, which: u32, delta: u32) {
    k::assert_wlocked(tp.inp().lock_rw());
    if tp.toe() {
        return;
    }
    let key = (tp.addr(), which);
    STATE.with(|s| {
        if delta == 0 {
            s.armed.remove(&key);
        } else {
            s.armed
                .insert(key, sched::now_sbt() + i64::from(delta) * (SBT_1S / HZ));
        }
    });
    sched::wakeup(chan());
}

/// `tcp_timer_active`.
pub(crate) fn active(tp: Kp<sys::tcpcb>, which: u32) -> bool {
    STATE.with(|s| s.armed.contains_key(&(tp.addr(), which)))
}

/// `tcp_timer_stop`, and the end of a tcpcb.
pub(crate) fn forget(tp: Kp<sys::tcpcb>) {
    STATE.with(|s| s.armed.retain(|k, _| k.0 != tp.addr()));
}

fn run() {
    loop {
        let now = sched::now_sbt();
        let due = STATE.with(|s| {
            let key = s.armed.iter().find(|(_, at)| **at <= now).map(|(k, _)| *k);
            if let Some(k) = key {
                s.armed.remove(&k);
            }
            key
        });
        if let Some((tp, which)) = due {
            fire(Kp::new(tp as *mut sys::tcpcb), which);
            continue;
        }
        let next = STATE.with(|s| s.armed.values().min().copied());
        let opts = SleepOpts::new("tcptmr").timeout(next.map(|at| at - now));
        sched::sleep_on(chan(), opts);
    }
}

fn fire(tp: Kp<sys::tcpcb>, which: u32) {
    // An armed timer means a live tcpcb: forget() runs before its memory goes.
    let Some(inp) = inpcb::lock_found(tp.inp(), true) else {
        return;
    };
    if inp.dropped() {
        k::wunlock(inp.lock_rw());
        return;
    }
    let v = inpcb::vnet_of(inp);
    vnet::with_vnet(v, || {
        k::net_epoch(|| {
            let left = match which {
                sys::TT_2MSL => two_msl(tp),
                sys::TT_KEEP if tp.st() < sys::TCPS_ESTABLISHED => {
                    tcp_subr::drop(tp, sys::ETIMEDOUT as i32)
                }
                _ => Some(tp),
            };
            if left.is_some() {
                k::wunlock(inp.lock_rw());
            }
        });
    });
}

fn two_msl(tp: Kp<sys::tcpcb>) -> Option<Kp<sys::tcpcb>> {
    let idle = k::ticks().wrapping_sub(tp.t_rcvtime);
    let waiting = tp.st() != sys::TCPS_TIME_WAIT && idle <= MAXIDLE;
    let gone = tp.inp().so().rcv().st() & sys::SBS_CANTRCVMORE != 0;
    if waiting && !gone {
        activate(tp, sys::TT_2MSL, 75 * HZ as u32);
        return Some(tp);
    }
    tcp_subr::close(tp)
}

mod c {
    use super::*;
    pub(super) extern "C" fn tcp_timer_activate(tp: Kp<sys::tcpcb>, which: u32, delta: u32) {
        activate(tp, which, delta);
    }
    pub(super) extern "C" fn tcp_timer_active(tp: Kp<sys::tcpcb>, which: u32) -> bool {
        active(tp, which)
    }
    pub(super) extern "C" fn tcp_timer_stop(tp: Kp<sys::tcpcb>) {
        forget(tp);
    }
}

crate::exports! {
    "tcp_timer_activate" => c::tcp_timer_activate,
    "tcp_timer_active" => c::tcp_timer_active,
    "tcp_timer_stop" => c::tcp_timer_stop,
}
