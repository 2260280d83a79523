//! The handshake's last ACK, or a reset in its place.

use super::cookie;
use super::entry::{self, Entry, Rules};
use super::socket::new_socket;
use crate::kp::Kp;
use crate::net::{k, tcp_vars};
use crate::{kpanic, sched, sys, vnet};

/// `syncache_chkrst`: a reset that fits an entry's SYN|ACK ends the entry. The listener's pcb
/// may be locked.
pub(crate) fn reset(inc: Kp<sys::in_conninfo>, th: Kp<sys::tcphdr>) {
    k::assert_net_epoch();
    let v = vnet::curvnet() as usize;
    let flags = u32::from(th.th_flags);
    if flags & sys::TH_RST == 0 {
        kpanic!("syncache_chkrst: TCP flags {flags:#x}");
    }
    if entry::cookies_only(v) {
        return;
    }
    entry::lock();
    let e = entry::find(v, &inc);
    if let Some(e) = e.filter(|e| th.th_seq == e.irs.wrapping_add(1)) {
        entry::remove(&e);
    }
    entry::unlock();
}

/// What an ACK is for the entry that it finds.
enum Verdict {
    Good,
    /// Drop it, and say nothing.
    Silent,
    /// Answer with a reset.
    Bad,
}

/// `syncache_expand`: the handshake's last ACK. 0: no such entry or a bad ACK; -1: drop it
/// silently; 1: `*lsop` is the new socket with its pcb write-locked, or NULL for lack of room.
/// With 0 and -1 `*lsop` may be what it was, the listener.
pub(crate) fn expand(
    inc: Kp<sys::in_conninfo>,
    to: Kp<sys::tcpopt>,
    th: Kp<sys::tcphdr>,
    lsop: Kp<*mut sys::socket>,
) -> i32 {
    let mut lsop = lsop;
    let v = vnet::curvnet() as usize;
    let flags = u32::from(th.th_flags);
    if flags & (sys::TH_RST | sys::TH_ACK | sys::TH_SYN) != sys::TH_ACK {
        kpanic!("toe_syncache_expand: TCP flags {flags:#x}");
    }
    if crate::fault::hit("toe_syncache_expand") {
        return -1;
    }
    let none = entry::cookies_only(v);
    let mut found = None;
    if !none {
        entry::lock();
        found = entry::find(v, &inc);
        if let Some(e) = found {
            let verdict = judge(&e, to, th);
            if matches!(verdict, Verdict::Good) || matches!(verdict, Verdict::Bad) && is12() {
                entry::remove(&e);
            }
            entry::unlock();
            match verdict {
                Verdict::Good => {}
                Verdict::Silent => return -1,
                Verdict::Bad => {
                    if is12() {
                        *lsop = std::ptr::null_mut();
                    }
                    return 0;
                }
            }
        } else {
            entry::unlock();
        }
    }
    let e = found.or_else(|| {
        let may = none
            || entry::cookies(v)
                && (is12() && entry::only(v) || entry::overflowed(sched::now_sbt()));
        may.then(|| cookie::open(v, &inc, to, th, Kp::new(*lsop)))
            .flatten()
    });
    let Some(e) = e else {
        *lsop = std::ptr::null_mut();
        return 0;
    };
    let child = new_socket(&e, Kp::new(*lsop));
    *lsop = child.map_or(std::ptr::null_mut(), Kp::ptr);
    1
}

fn is12() -> bool {
    entry::is(Rules::Fbsd12)
}

fn judge(e: &Entry, to: Kp<sys::tcpopt>, th: Kp<sys::tcphdr>) -> Verdict {
    let has_ts = to.to_flags & sys::TOF_TS != 0;
    let seq = th.th_seq;
    let in_window = seq.wrapping_sub(e.irs) as i32 > 0
        && seq.wrapping_sub(e.irs.wrapping_add(e.wnd)) as i32 <= 0;
    let ack = th.th_ack == e.iss.wrapping_add(1);
    let old =
        e.ts.is_some_and(|(recent, _)| has_ts && (to.to_tsval.wrapping_sub(recent) as i32) < 0);
    if old {
        return Verdict::Silent;
    }
    if is12() {
        let unasked = e.ts.is_none() && has_ts;
        return if ack && in_window && !unasked {
            Verdict::Good
        } else {
            Verdict::Bad
        };
    }
    let tolerate = tcp_vars::get(e.vnet as *mut _, &tcp_vars::TOLERATE_MISSING_TS) != 0;
    if e.ts.is_some() && !has_ts && !tolerate || !in_window {
        return Verdict::Silent;
    }
    if ack { Verdict::Good } else { Verdict::Bad }
}
