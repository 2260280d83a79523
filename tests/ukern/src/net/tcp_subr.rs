//! The life of a tcpcb: birth, state, output, close, drop, TIME_WAIT (tcp_subr.c).

use std::ffi::c_int;

use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::acc::{InpExt, TcpcbExt};
use crate::net::{inpcb, k, offload, pipe, route, socket, tcp_timer, tcp_vars};
use crate::{kpanic, sched, sys};

/// The one function block ("freebsd"): modules reach output through `tp->t_fb`.
static DEFAULT_FB: KData =
    KData::of::<sys::tcp_function_block>("tcp_def_funcblk").with_init(init_fb);

fn init_fb(p: *mut u8) {
    let mut fb: Kp<sys::tcp_function_block> = Kp::new(p.cast());
    for (to, from) in fb.tfb_tcp_block_name.iter_mut().zip(b"freebsd") {
        *to = *from as std::ffi::c_char;
    }
    fb.tfb_tcp_output = Some(c::tcp_default_output);
    fb.tfb_refcnt = 1;
}

crate::exports_data! { DEFAULT_FB }

/// Names of the states, by number.
pub(crate) const STATES: [&str; sys::TCP_NSTATES as usize] = [
    "CLOSED",
    "LISTEN",
    "SYN_SENT",
    "SYN_RECEIVED",
    "ESTABLISHED",
    "CLOSE_WAIT",
    "FIN_WAIT_1",
    "CLOSING",
    "LAST_ACK",
    "FIN_WAIT_2",
    "TIME_WAIT",
];

/// Largest segment for a path: the interface's MTU less IP and TCP headers.
pub(crate) fn mss_for(v: *mut sys::vnet, faddr: u32) -> u32 {
    let mtu = route::ifp_for(v, faddr).map_or(576, |ifp| ifp.if_mtu);
    mtu.saturating_sub(40).max(64)
}

/// `tcp_newtcpcb`: fills in the tcpcb around a fresh pcb, inheriting from `listener` if given.
pub(crate) fn new_tcpcb(inp: Kp<sys::inpcb>, listener: Option<Kp<sys::tcpcb>>) -> Kp<sys::tcpcb> {
    let v = inpcb::vnet_of(inp);
    let mut tp = inp.tp();
    let mut fb: Kp<sys::tcp_function_block> = DEFAULT_FB.get();
    fb.tfb_refcnt += 1;
    tp.t_fb = fb.ptr();
    let mut cc: Kp<sys::cc_algo> = tcp_vars::CC_DEFAULT.get();
    if cc.name[0] == 0 {
        for (to, from) in cc.name.iter_mut().zip(b"newreno") {
            *to = *from as std::ffi::c_char;
        }
    }
    tp.t_cc = cc.ptr();
    tp.set_t_state(sys::TCPS_CLOSED);
    tp.set_t_maxseg(tcp_vars::get(v, &tcp_vars::MSSDFLT) as u32);
    tp.t_flags = 0;
    if tcp_vars::get(v, &tcp_vars::DO_RFC1323) != 0 {
        tp.t_flags |= sys::TF_REQ_SCALE | sys::TF_REQ_TSTMP;
    }
    if tcp_vars::get(v, &tcp_vars::DO_SACK) != 0 {
        tp.t_flags |= sys::TF_SACK_PERMIT;
    }
    tp.t_rcvtime = k::ticks();
    tp.t_starttime = 0;
    tp.snd_cwnd = 65_535 << 14;
    tp.snd_ssthresh = 65_535 << 14;
    tp.t_keepinit = listener.map_or(0, |l| l.t_keepinit);
    tp.t_keepidle = listener.map_or(0, |l| l.t_keepidle);
    tp.t_keepintvl = listener.map_or(0, |l| l.t_keepintvl);
    tp.t_keepcnt = listener.map_or(0, |l| l.t_keepcnt);
    tp
}

/// `tcp_state_change`. pcb write-locked.
pub(crate) fn state_change(mut tp: Kp<sys::tcpcb>, state: u32) {
    if state >= sys::TCP_NSTATES {
        kpanic!("tcp_state_change to {state}");
    }
    tp.set_t_state(state);
}

/// `tcp_sendseqinit`: send sequence starts at `iss`.
pub(crate) fn sendseqinit(mut tp: Kp<sys::tcpcb>, iss: u32) {
    tp.iss = iss;
    tp.snd_una = iss;
    tp.snd_nxt = iss;
    tp.snd_max = iss;
    tp.snd_up = iss;
    tp.snd_recover = iss;
}

/// `tcp_rcvseqinit`: the next byte expected is the one behind the SYN.
pub(crate) fn rcvseqinit(mut tp: Kp<sys::tcpcb>, irs: u32) {
    tp.irs = irs;
    tp.rcv_adv = irs.wrapping_add(1);
    tp.rcv_nxt = tp.rcv_adv;
}

/// A fresh initial send sequence number.
pub(crate) fn new_isn() -> u32 {
    sched::random_u64() as u32
}

/// `tcp_output` (the default stack's): the driver's output for an offloaded connection, the pipe
/// for any other. pcb write-locked.
pub(crate) fn output(tp: Kp<sys::tcpcb>) -> i32 {
    let mut tp = tp;
    k::assert_wlocked(tp.inp().lock_rw());
    tp.t_acktime = tp.t_acktime.max(1);
    if tp.toe() {
        offload::output(tp)
    } else {
        pipe::output(tp)
    }
}

/// `tcp_close`: the connection is over. Returns `None` when the socket's last holder was the
/// connection itself: the pcb is gone then, and its lock too.
pub(crate) fn close(tp: Kp<sys::tcpcb>) -> Option<Kp<sys::tcpcb>> {
    let inp = tp.inp();
    k::assert_wlocked(inp.lock_rw());
    if tp.st() == sys::TCPS_LISTEN {
        offload::listen_stop(tp);
    }
    tcp_timer::forget(tp);
    pipe::closed(tp);
    inpcb::drop(inp);
    state_change(tp, sys::TCPS_CLOSED);
    let so = inp.so();
    socket::isdisconnected(so);
    if inp.flags() & sys::INP_SOCKREF != 0 {
        inp.set_flags(0, sys::INP_SOCKREF);
        k::wunlock(inp.lock_rw());
        socket::rele(so);
        return None;
    }
    Some(tp)
}

/// `tcp_drop`: resets the peer where there is one, and closes with `error` for the program.
pub(crate) fn drop(tp: Kp<sys::tcpcb>, error: i32) -> Option<Kp<sys::tcpcb>> {
    let inp = tp.inp();
    k::assert_net_epoch();
    k::assert_wlocked(inp.lock_rw());
    let mut so = inp.so();
    if tp.st() >= sys::TCPS_SYN_RECEIVED {
        state_change(tp, sys::TCPS_CLOSED);
        output(tp);
    }
    let mut error = error;
    if error == sys::ETIMEDOUT as i32 && tp.t_softerror != 0 {
        error = tp.t_softerror;
    }
    so.so_error = error as u16;
    close(tp)
}

/// `tcp_discardcb`: the tcpcb lets go of everything. pcb write-locked.
pub(crate) fn discardcb(tp: Kp<sys::tcpcb>) {
    let mut tp = tp;
    k::assert_wlocked(tp.inp().lock_rw());
    tcp_timer::forget(tp);
    if tp.toe() {
        offload::detach(tp);
        if tp.toe() {
            kpanic!("tod_pcb_detach left TF_TOE set");
        }
    }
    pipe::discard(tp);
    let mut fb = Kp::new(tp.t_fb);
    if fb.tfb_refcnt <= 1 {
        kpanic!("tcp_discardcb: function block reference already dropped");
    }
    fb.tfb_refcnt -= 1;
    tp.t_fb = std::ptr::null_mut();
}

/// `tcp_twstart`: enters TIME_WAIT for 2 MSL. The pcb's lock is dropped. The driver must have
/// detached from the connection.
pub(crate) fn twstart(tp: Kp<sys::tcpcb>) {
    let inp = tp.inp();
    k::assert_net_epoch();
    k::assert_wlocked(inp.lock_rw());
    if inp.dropped() {
        kpanic!("tcp_twstart: INP_DROPPED is set");
    }
    state_change(tp, sys::TCPS_TIME_WAIT);
    socket::isdisconnected(inp.so());
    let msl_ms = tcp_vars::get(inpcb::vnet_of(inp), &tcp_vars::MSL);
    tcp_timer::activate(
        tp,
        sys::TT_2MSL,
        2 * msl_ms as u32 * sched::HZ as u32 / 1000,
    );
    k::wunlock(inp.lock_rw());
}

/// The options of a SYN and after (`tcp_dooptions`).
pub(crate) fn dooptions(to: Kp<sys::tcpopt>, opts: &[u8], syn: bool) {
    let mut to = to;
    to.to_flags = 0;
    let mut at = 0;
    let be16 = |o: &[u8]| u16::from_be_bytes([o[2], o[3]]);
    let be32 = |o: &[u8], i: usize| u32::from_be_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
    while let Some(&kind) = opts.get(at) {
        if kind == 0 {
            break;
        }
        if kind == 1 {
            at += 1;
            continue;
        }
        let Some(len) = opts.get(at + 1).map(|l| usize::from(*l)) else {
            break;
        };
        let Some(o) = opts.get(at..at + len).filter(|o| o.len() >= 2) else {
            break;
        };
        match (kind, len) {
            (2, 4) if syn => {
                to.to_flags |= sys::TOF_MSS;
                to.to_mss = be16(o);
            }
            (3, 3) if syn => {
                to.to_flags |= sys::TOF_SCALE;
                to.to_wscale = o[2].min(14);
            }
            (4, 2) if syn => to.to_flags |= sys::TOF_SACKPERM,
            (8, 10) => {
                to.to_flags |= sys::TOF_TS;
                to.to_tsval = be32(o, 2);
                to.to_tsecr = be32(o, 6);
            }
            (5, l) if !syn && l > 2 && (l - 2) % 8 == 0 => {
                to.to_flags |= sys::TOF_SACK;
                to.to_nsacks = ((l - 2) / 8) as u8;
                to.to_sacks = o.as_ptr().wrapping_add(2).cast_mut();
            }
            _ => {}
        }
        at += len;
    }
}

pub(crate) mod c {
    use super::*;

    /// What `tfb_tcp_output` points at.
    pub(crate) unsafe extern "C" fn tcp_default_output(tp: *mut sys::tcpcb) -> c_int {
        output(Kp::new(tp))
    }
    fn or_null(tp: Option<Kp<sys::tcpcb>>) -> *mut sys::tcpcb {
        tp.map_or(std::ptr::null_mut(), Kp::ptr)
    }
    pub(super) extern "C" fn tcp_close(tp: Kp<sys::tcpcb>) -> *mut sys::tcpcb {
        or_null(close(tp))
    }
    pub(super) extern "C" fn tcp_drop(tp: Kp<sys::tcpcb>, e: c_int) -> *mut sys::tcpcb {
        or_null(drop(tp, e))
    }
    pub(super) extern "C" fn tcp_discardcb(tp: Kp<sys::tcpcb>) {
        discardcb(tp);
    }
    pub(super) extern "C" fn tcp_twstart(tp: Kp<sys::tcpcb>) {
        twstart(tp);
    }
    pub(super) extern "C" fn tcp_state_change(tp: Kp<sys::tcpcb>, state: c_int) {
        k::assert_wlocked(tp.inp().lock_rw());
        state_change(tp, state as u32);
    }
    pub(super) extern "C" fn tcp_mssopt(inc: Kp<sys::in_conninfo>) -> c_int {
        let v = crate::vnet::curvnet();
        mss_for(v, crate::net::acc::inc_faddr(&inc)) as c_int
    }
    pub(super) extern "C" fn tcp_dooptions(
        to: Kp<sys::tcpopt>,
        cp: *const u8,
        len: c_int,
        flags: c_int,
    ) {
        let opts = crate::kp::bytes(cp, len.max(0) as usize);
        dooptions(to, opts, flags as u32 & sys::TO_SYN != 0);
    }
    /// No host cache: nothing is remembered, which callers must cope with.
    pub(super) extern "C" fn tcp_hc_getmtu(_inc: Kp<sys::in_conninfo>) -> u32 {
        0
    }
    pub(super) extern "C" fn tcp_hc_updatemtu(_inc: Kp<sys::in_conninfo>, _mtu: u32) {}
    pub(super) extern "C" fn tcp_hc_get(_inc: Kp<sys::in_conninfo>, m: Kp<sys::hc_metrics_lite>) {
        crate::kp::bytes_mut(m.ptr().cast(), size_of::<sys::hc_metrics_lite>()).fill(0);
    }
    pub(super) extern "C" fn tcp_maxseg(tp: Kp<sys::tcpcb>) -> u32 {
        let ts = tp.t_flags & sys::TF_RCVD_TSTMP != 0;
        tp.t_maxseg() - if ts { 12 } else { 0 }
    }
    pub(super) extern "C" fn tcp_new_isn(_inc: Kp<sys::in_conninfo>) -> u32 {
        new_isn()
    }
}

crate::exports! {
    "tcp_close" => c::tcp_close,
    "tcp_drop" => c::tcp_drop,
    "tcp_discardcb" => c::tcp_discardcb,
    "tcp_twstart" => c::tcp_twstart,
    "tcp_state_change" => c::tcp_state_change,
    "tcp_mssopt" => c::tcp_mssopt,
    "tcp_dooptions" => c::tcp_dooptions,
    "tcp_hc_getmtu" => c::tcp_hc_getmtu,
    "tcp_hc_updatemtu" => c::tcp_hc_updatemtu,
    "tcp_hc_get" => c::tcp_hc_get,
    "tcp_maxseg" => c::tcp_maxseg,
    "tcp_new_isn" => c::tcp_new_isn,
    "tcp_default_output" => c::tcp_default_output,
}
