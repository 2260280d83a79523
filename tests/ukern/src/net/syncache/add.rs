//! A SYN that a driver saw.

use std::ffi::c_void;

use super::answer::respond;
use super::cookie;
use super::entry::{self, Entry, Rules};
use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt};
use crate::net::{k, tcp_subr, tcp_usrreq, tcp_vars};
use crate::sched::{self, SBT_1S};
use crate::{kpanic, sys, vnet};

/// `syncache_add` for a SYN a driver saw. The listener's pcb is read-locked on entry and
/// unlocked on return.
pub(crate) fn add(
    inc: Kp<sys::in_conninfo>,
    to: Kp<sys::tcpopt>,
    th: Kp<sys::tcphdr>,
    inp: Kp<sys::inpcb>,
    tod: *mut sys::toedev,
    ctx: *mut c_void,
    _iptos: u8,
) {
    k::assert_held(inp.lock_rw());
    let so = inp.so();
    if !so.listening() {
        kpanic!("toe_syncache_add: socket is not listening");
    }
    let flags = u32::from(th.th_flags);
    if flags & (sys::TH_RST | sys::TH_ACK | sys::TH_SYN) != sys::TH_SYN {
        kpanic!("toe_syncache_add: TCP flags {flags:#x}");
    }
    let win = so.sol().sol_sbrcv_hiwat.min(65_535);
    let tos = crate::net::acc::uget!(inp.__bindgen_anon_2.inp_ip_tos);
    k::runlock(inp.lock_rw());

    let v = vnet::curvnet() as usize;
    let none = entry::cookies_only(v);
    if !none {
        entry::lock();
        let dup = entry::find(v, &inc);
        if let Some(e) = dup {
            repeated(e, to);
        }
        entry::unlock();
        if dup.is_some() {
            return;
        }
    }
    let mut e = Entry {
        wnd: win,
        tos,
        tod: tod as usize,
        ctx: ctx as usize,
        iss: tcp_subr::new_isn(),
        ..wish(v, *inc, to, th.th_seq)
    };
    if entry::cookies(v) || none {
        e.iss = cookie::make(&e);
    }
    if respond(&e) != 0 || none {
        return;
    }
    if entry::is(Rules::Fbsd12) && entry::cookies(v) && entry::only(v) {
        return;
    }
    entry::insert(e);
}

/// What the peer asks for, and what of it we have.
fn wish(v: usize, inc: sys::in_conninfo, to: Kp<sys::tcpopt>, irs: u32) -> Entry {
    let var = |d| tcp_vars::get(v as *mut _, d);
    let asked = |flag| to.to_flags & flag != 0;
    let rfc1323 = var(&tcp_vars::DO_RFC1323) != 0;
    Entry {
        vnet: v,
        inc,
        lport: inc.inc_ie.ie_lport,
        tod: 0,
        ctx: 0,
        irs,
        iss: 0,
        wnd: 0,
        peer_mss: if asked(sys::TOF_MSS) { to.to_mss } else { 0 },
        scale: (rfc1323 && asked(sys::TOF_SCALE))
            .then(|| (to.to_wscale, tcp_usrreq::window_scale())),
        ts: (rfc1323 && asked(sys::TOF_TS)).then(|| (to.to_tsval, entry::ts_offset(v, &inc))),
        sack: asked(sys::TOF_SACKPERM) && var(&tcp_vars::DO_SACK) != 0,
        tos: 0,
        rxmits: 0,
        next: sched::now_sbt() + SBT_1S,
    }
}

/// The SYN of an entry once more: answered once more. Bucket lock held.
fn repeated(mut e: Entry, to: Kp<sys::tcpopt>) {
    e.ts = match (e.ts, to.to_flags & sys::TOF_TS != 0) {
        (Some((_, off)), true) => Some((to.to_tsval, off)),
        _ => None,
    };
    entry::update(&e, |x| x.ts = e.ts);
    if respond(&e) == 0 {
        let next = sched::now_sbt() + SBT_1S;
        entry::update(&e, |x| (x.rxmits, x.next) = (0, next));
    } else if entry::is(Rules::Fbsd14) {
        entry::remove(&e);
    }
}
