//! The socket of a connection whose handshake is done.

use std::ffi::c_void;

use super::entry::Entry;
use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, Which, inc_faddr, inc_laddr};
use crate::net::inpcb::{self, Tuple};
use crate::net::{k, listen, sockbuf, socket, tcp_subr, tcp_timer, tcp_usrreq};
use crate::{kpanic, sys};

/// `syncache_socket`: the connection's socket, in SYN_RECEIVED, its pcb write-locked; it is on
/// the listener's queue of complete connections already.
pub(crate) fn new_socket(e: &Entry, lso: Kp<sys::socket>) -> Option<Kp<sys::socket>> {
    k::assert_net_epoch();
    if !lso.listening() {
        return None;
    }
    let so = listen::clone(lso)?;
    let Some(mut inp) = inpcb::alloc(so) else {
        socket::dealloc(so);
        return None;
    };
    let ltp = lso.inp().tp();
    let mut tp = tcp_subr::new_tcpcb(inp, Some(ltp));
    inp.inp_inc.inc_flags = e.inc.inc_flags;
    inp.set_laddr(inc_laddr(&e.inc));
    inp.inp_inc.inc_ie.ie_lport = e.lport;
    if inpcb::connect(inp, inc_faddr(&e.inc), e.inc.inc_ie.ie_fport) != 0 {
        tcp_subr::discardcb(tp);
        inpcb::free(inp);
        socket::dealloc(so);
        return None;
    }
    tcp_subr::state_change(tp, sys::TCPS_SYN_RECEIVED);
    tcp_subr::rcvseqinit(tp, e.irs);
    tcp_subr::sendseqinit(tp, e.iss);
    tp.snd_wl1 = e.irs;
    tp.snd_max = e.iss.wrapping_add(1);
    tp.snd_nxt = e.iss.wrapping_add(1);
    tp.rcv_up = e.irs.wrapping_add(1);
    tp.rcv_wnd = e.wnd;
    tp.rcv_adv = tp.rcv_adv.wrapping_add(e.wnd);
    tp.last_ack_sent = tp.rcv_nxt;
    tp.t_flags = ltp.t_flags & (sys::TF_LRD | sys::TF_NOPUSH | sys::TF_NODELAY);
    if let Some((peer, ours)) = e.scale {
        tp.t_flags |= sys::TF_REQ_SCALE | sys::TF_RCVD_SCALE;
        tp.snd_scale = peer;
        tp.request_r_scale = ours;
    }
    if let Some((recent, off)) = e.ts {
        tp.t_flags |= sys::TF_REQ_TSTMP | sys::TF_RCVD_TSTMP;
        tp.ts_recent = recent;
        tp.ts_recent_age = k::ticks();
        tp.ts_offset = off;
    }
    if e.sack {
        tp.t_flags |= sys::TF_SACK_PERMIT;
    }
    mss(tp, so, e.peer_mss);
    if let Some(tod) = Kp::<sys::toedev>::opt(e.tod as *mut _) {
        let Some(f) = tod.tod_offload_socket else {
            kpanic!("tod_offload_socket is NULL")
        };
        // SAFETY: the driver's method with the context it gave, the new pcb write-locked.
        unsafe { f(tod.ptr(), e.ctx as *mut c_void, so.ptr()) };
    }
    tcp_timer::activate(tp, sys::TT_KEEP, tcp_usrreq::keepinit(tp));
    if !listen::enqueue(so, sys::SS_ISCONNECTED) {
        tp.t_flags |= sys::TF_SONOTCONN;
    }
    Some(so)
}

/// `tcp_mss`: segment size from what the peer offered, and buffers rounded to it.
fn mss(tp: Kp<sys::tcpcb>, so: Kp<sys::socket>, offer: u16) {
    let mut tp = tp;
    let ours = tcp_subr::mss_for(so.so_vnet, so.inp().faddr());
    let offer = if offer == 0 {
        536
    } else {
        u32::from(offer).max(64)
    };
    let seg = ours.min(offer);
    tp.set_t_maxseg(seg);
    let max = *sockbuf::SB_MAX.get::<u64>();
    for w in [Which::Snd, Which::Rcv] {
        k::mtx_lock(so.sb_mtx(w));
        let hi = u64::from(so.sb(w).sb_hiwat);
        let up = hi.next_multiple_of(u64::from(seg)).min(max);
        if hi > u64::from(seg) && up > hi {
            sockbuf::reserve_locked(so, w, up);
        }
        k::mtx_unlock(so.sb_mtx(w));
    }
}

/// An entry for a connection between two ends of this machine that no driver carries.
pub(crate) fn plain(v: *mut sys::vnet, t: Tuple, irs: u32, peer: Kp<sys::tcpcb>) -> Entry {
    // SAFETY: plain C data.
    let mut inc: sys::in_conninfo = unsafe { std::mem::zeroed() };
    inc.inc_ie.ie_lport = t.lport;
    inc.inc_ie.ie_fport = t.fport;
    inc.inc_ie.ie_dependladdr.id46_addr = crate::net::acc::v4(t.laddr);
    inc.inc_ie.ie_dependfaddr.id46_addr = crate::net::acc::v4(t.faddr);
    Entry {
        vnet: v as usize,
        inc,
        lport: t.lport,
        tod: 0,
        ctx: 0,
        irs,
        iss: tcp_subr::new_isn(),
        wnd: 65_535,
        peer_mss: tcp_subr::mss_for(v, t.faddr) as u16,
        scale: Some((peer.request_r_scale, tcp_usrreq::window_scale())),
        ts: None,
        sack: true,
        tos: 0,
        rxmits: 0,
        next: 0,
    }
}
