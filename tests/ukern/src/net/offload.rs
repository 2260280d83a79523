//! The kernel's calls into a TOE driver (tcp_offload.c), and what each may rely on.
//!
//! | call | locks |
//! |---|---|
//! | tod_connect | pcb write-locked, net epoch |
//! | tod_listen_start / _stop | pcb write-locked, "toedev lock" |
//! | tod_output, tod_send_fin, tod_send_rst | pcb write-locked |
//! | tod_rcvd, tod_ctloutput, tod_input | pcb write-locked |
//! | tod_pcb_detach | pcb write-locked |

use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, TcpcbExt};
use crate::net::{k, route, toecore};
use crate::{kpanic, sys};

/// `tcp_outflags[]` by state: does a segment carry RST, FIN?
fn rst(state: u32) -> bool {
    state == sys::TCPS_CLOSED
}

fn fin(state: u32) -> bool {
    matches!(
        state,
        sys::TCPS_FIN_WAIT_1 | sys::TCPS_CLOSING | sys::TCPS_LAST_ACK
    )
}

fn tod_of(tp: Kp<sys::tcpcb>) -> Kp<sys::toedev> {
    match Kp::opt(tp.tod) {
        Some(tod) => tod,
        None => kpanic!("offloaded connection with tp->tod NULL"),
    }
}

/// `tcp_offload_connect`: 0 when a driver took the connection.
pub(crate) fn connect(so: Kp<sys::socket>, nam: *mut sys::sockaddr) -> i32 {
    k::assert_wlocked(so.inp().lock_rw());
    k::assert_net_epoch();
    let no = sys::EOPNOTSUPP as i32;
    if toecore::registered() == 0 {
        return no;
    }
    let sin: Kp<sys::sockaddr_in> = Kp::new(nam.cast());
    let Some(nh) = route::lookup(so.so_vnet, sin.sin_addr.s_addr) else {
        return sys::EHOSTUNREACH as i32;
    };
    let ifp = Kp::new(nh.nh_ifp);
    if ifp.if_capenable & route::IFCAP_TOE4 == 0 {
        return no;
    }
    let Some(tod) = Kp::<sys::toedev>::opt(ifp.if_llsoftc.cast()) else {
        return no;
    };
    let Some(f) = tod.tod_connect else {
        kpanic!("tod_connect is NULL: init_toedev not called")
    };
    // SAFETY: the driver's own method, with the locks its contract names (asserted above).
    unsafe { f(tod.ptr(), so.ptr(), nh.ptr(), nam) }
}

/// Fires `tcp_offload_listen_start`. pcb write-locked.
pub(crate) fn listen_start(tp: Kp<sys::tcpcb>) {
    k::assert_wlocked(tp.inp().lock_rw());
    toecore::listen_start_event(tp);
    k::event("tcp_offload_listen_start", tp.addr());
}

/// Fires `tcp_offload_listen_stop`. pcb write-locked.
pub(crate) fn listen_stop(tp: Kp<sys::tcpcb>) {
    k::assert_wlocked(tp.inp().lock_rw());
    toecore::listen_stop_event(tp);
    k::event("tcp_offload_listen_stop", tp.addr());
}

/// `tcp_offload_output`: RST, FIN or data, by the state the connection is in.
pub(crate) fn output(tp: Kp<sys::tcpcb>) -> i32 {
    let mut tp = tp;
    let tod = tod_of(tp);
    k::assert_wlocked(tp.inp().lock_rw());
    let st = tp.st();
    let is_fin =
        (fin(st) || tp.t_flags & sys::TF_NEEDFIN != 0) && tp.t_flags & sys::TF_SENTFIN == 0;
    let f = if rst(st) {
        tod.tod_send_rst
    } else if is_fin {
        tod.tod_send_fin
    } else {
        tod.tod_output
    };
    let Some(f) = f else {
        kpanic!("toedev method is NULL: init_toedev not called")
    };
    // SAFETY: the driver's own method on its connection, pcb write-locked.
    let e = unsafe { f(tod.ptr(), tp.ptr()) };
    if !rst(st) && is_fin && e == 0 {
        tp.t_flags |= sys::TF_SENTFIN;
    }
    e
}

/// `tcp_offload_rcvd`: the program took data. pcb write-locked.
pub(crate) fn rcvd(tp: Kp<sys::tcpcb>) {
    k::assert_wlocked(tp.inp().lock_rw());
    let tod = tod_of(tp);
    let Some(f) = tod.tod_rcvd else {
        kpanic!("tod_rcvd is NULL")
    };
    // SAFETY: the driver's own method on its connection, pcb write-locked.
    unsafe { f(tod.ptr(), tp.ptr()) };
}

/// `tcp_offload_ctloutput`: a TCP option was set (or read). pcb write-locked.
pub(crate) fn ctloutput(tp: Kp<sys::tcpcb>, dir: u32, name: u32) {
    k::assert_wlocked(tp.inp().lock_rw());
    let tod = tod_of(tp);
    let Some(f) = tod.tod_ctloutput else {
        kpanic!("tod_ctloutput is NULL")
    };
    // SAFETY: the driver's own method on its connection, pcb write-locked.
    unsafe { f(tod.ptr(), tp.ptr(), dir as i32, name as i32) };
}

/// `tcp_offload_detach`: the kernel is done with the connection. pcb write-locked.
pub(crate) fn detach(tp: Kp<sys::tcpcb>) {
    k::assert_wlocked(tp.inp().lock_rw());
    let tod = tod_of(tp);
    let Some(f) = tod.tod_pcb_detach else {
        kpanic!("tod_pcb_detach is NULL")
    };
    // SAFETY: the driver's own method on its connection, pcb write-locked.
    unsafe { f(tod.ptr(), tp.ptr()) };
}
