//! TCP's protocol switch: what socket calls do to a connection (tcp_usrreq.c).

use std::ffi::{c_int, c_ulong};

use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, TcpcbExt, Which};
use crate::net::{
    inpcb, k, listen, offload, sockbuf, socket, sosend, tcp_subr, tcp_timer, tcp_vars, toecore,
};
use crate::{sys, vnet};

/// Fills in `tcp_protosw`.
pub(crate) fn boot() {
    let mut p: Kp<sys::protosw> = tcp_vars::TCP_PROTOSW.get();
    p.pr_type = sys::SOCK_STREAM as i16;
    p.pr_protocol = sys::IPPROTO_TCP as i16;
    p.pr_flags =
        (sys::PR_CONNREQUIRED | sys::PR_IMPLOPCL | sys::PR_WANTRCVD | sys::PR_CAPATTACH) as i16;
    p.pr_soreceive = Some(sosend::c::soreceive_generic);
    p.pr_sosend = Some(sosend::c::sosend_generic);
    p.pr_send = Some(usr_send);
    p.pr_attach = Some(usr_attach);
    p.pr_detach = Some(usr_detach);
    p.pr_connect = Some(usr_connect);
    p.pr_disconnect = Some(usr_disconnect);
    p.pr_close = Some(usr_close);
    p.pr_shutdown = Some(usr_shutdown);
    p.pr_rcvd = Some(usr_rcvd);
    p.pr_aio_queue = Some(crate::aio::soaio_queue_generic_c);
    p.pr_bind = Some(usr_bind);
    p.pr_listen = Some(usr_listen);
    p.pr_accept = Some(peer_addr);
    p.pr_abort = Some(usr_abort);
    p.pr_ctloutput = Some(ctloutput);
    p.pr_peeraddr = Some(peer_addr);
    p.pr_sockaddr = Some(sock_addr);
    p.pr_control = Some(control);

    let mut p6: Kp<sys::protosw> = tcp_vars::TCP6_PROTOSW.get();
    *p6 = *p;
    p6.pr_accept = Some(peer_addr6);
    p6.pr_peeraddr = Some(peer_addr6);
}

/// The pcb, write-locked, or ECONNRESET when the connection is gone.
fn locked(so: Kp<sys::socket>) -> Kp<sys::inpcb> {
    let inp = so.inp();
    k::wlock(inp.lock_rw());
    inp
}

unsafe extern "C" fn usr_attach(
    so: *mut sys::socket,
    _proto: c_int,
    _td: *mut sys::thread,
) -> c_int {
    let so = Kp::new(so);
    let v = so.so_vnet;
    let (mut snd, mut rcv) = (so.snd(), so.rcv());
    if snd.sb_hiwat == 0 || rcv.sb_hiwat == 0 {
        let s = tcp_vars::get(v, &tcp_vars::SENDSPACE).max(0) as u64;
        let r = tcp_vars::get(v, &tcp_vars::RECVSPACE).max(0) as u64;
        if !socket::reserve(so, s, r) {
            return sys::ENOBUFS as c_int;
        }
        rcv.sb_flags |= sys::SB_AUTOSIZE as i16;
        snd.sb_flags |= (sys::SB_AUTOLOWAT | sys::SB_AUTOSIZE) as i16;
    }
    let Some(inp) = inpcb::alloc(so) else {
        return sys::ENOBUFS as c_int;
    };
    let tp = tcp_subr::new_tcpcb(inp, None);
    tcp_subr::state_change(tp, sys::TCPS_CLOSED);
    k::wunlock(inp.lock_rw());
    0
}

unsafe extern "C" fn usr_detach(so: *mut sys::socket) {
    let inp = locked(Kp::new(so));
    let tp = inp.tp();
    if !inp.dropped() && tp.st() >= sys::TCPS_SYN_SENT {
        crate::kpanic!(
            "tcp_usr_detach: connection in {} not dropped",
            tcp_subr::STATES[tp.st() as usize]
        );
    }
    tcp_subr::discardcb(tp);
    inpcb::free(inp);
}

fn sin(nam: *mut sys::sockaddr) -> Kp<sys::sockaddr_in> {
    Kp::new(nam.cast())
}

unsafe extern "C" fn usr_bind(
    so: *mut sys::socket,
    nam: *mut sys::sockaddr,
    _td: *mut sys::thread,
) -> c_int {
    let inp = locked(Kp::new(so));
    let a = sin(nam);
    let e = if inp.dropped() {
        sys::EINVAL as c_int
    } else {
        inpcb::bind(inp, a.sin_addr.s_addr, a.sin_port)
    };
    k::wunlock(inp.lock_rw());
    e
}

unsafe extern "C" fn usr_listen(
    so: *mut sys::socket,
    backlog: c_int,
    _td: *mut sys::thread,
) -> c_int {
    let so = Kp::new(so);
    let inp = locked(so);
    if inp.dropped() {
        k::wunlock(inp.lock_rw());
        return sys::EINVAL as c_int;
    }
    let tp = inp.tp();
    k::mtx_lock(so.lock_mtx());
    let mut e = listen::proto_check(so);
    if e == 0 && inp.inp_inc.inc_ie.ie_lport == 0 {
        e = inpcb::bind(inp, inp.laddr(), 0);
        if e != 0 && !so.listening() {
            listen::proto_abort(so);
        }
    }
    if e == 0 {
        tcp_subr::state_change(tp, sys::TCPS_LISTEN);
        listen::proto(so, backlog);
    }
    // The socket lock is held here too, as in FreeBSD: drivers may not sleep.
    if e == 0 && so.so_options as u32 & sys::SO_NO_OFFLOAD == 0 {
        offload::listen_start(tp);
    }
    k::mtx_unlock(so.lock_mtx());
    k::wunlock(inp.lock_rw());
    e
}

unsafe extern "C" fn usr_connect(
    so: *mut sys::socket,
    nam: *mut sys::sockaddr,
    _td: *mut sys::thread,
) -> c_int {
    let so = Kp::new(so);
    let inp = locked(so);
    let e = if inp.dropped() {
        sys::ECONNREFUSED as c_int
    } else if so.listening() {
        sys::EOPNOTSUPP as c_int
    } else {
        k::net_epoch(|| connect_locked(so, inp, nam))
    };
    k::wunlock(inp.lock_rw());
    e
}

fn connect_locked(so: Kp<sys::socket>, inp: Kp<sys::inpcb>, nam: *mut sys::sockaddr) -> i32 {
    let mut tp = inp.tp();
    let busy = sys::SS_ISCONNECTING
        | sys::SS_ISCONNECTED
        | sys::SS_ISDISCONNECTING
        | sys::SS_ISDISCONNECTED;
    if so.state() & busy != 0 {
        return sys::EISCONN as i32;
    }
    let a = sin(nam);
    let e = inpcb::connect(inp, a.sin_addr.s_addr, a.sin_port);
    if e != 0 {
        return e;
    }
    tp.request_r_scale = window_scale();
    socket::isconnecting(so);
    tcp_subr::state_change(tp, sys::TCPS_SYN_SENT);
    tp.ts_offset = crate::sched::random_u64() as u32;
    tcp_subr::sendseqinit(tp, tcp_subr::new_isn());
    if toecore::registered() > 0
        && so.so_options as u32 & sys::SO_NO_OFFLOAD == 0
        && offload::connect(so, nam) == 0
    {
        return 0;
    }
    tcp_timer::activate(tp, sys::TT_KEEP, keepinit(tp));
    tcp_subr::output(tp)
}

/// TP_KEEPINIT in ticks.
pub(crate) fn keepinit(tp: Kp<sys::tcpcb>) -> u32 {
    if tp.t_keepinit != 0 {
        tp.t_keepinit
    } else {
        tcp_timer::KEEPINIT
    }
}

/// The smallest shift with which a 16-bit window covers `sb_max`.
pub(crate) fn window_scale() -> u8 {
    let max = *sockbuf::SB_MAX.get::<u64>();
    (0..14).find(|s| 65_535_u64 << s >= max).unwrap_or(14)
}

/// `tcp_usrclosed`: the program will send no more. pcb write-locked.
fn usrclosed(tp: Kp<sys::tcpcb>) {
    let mut tp = tp;
    match tp.st() {
        sys::TCPS_LISTEN => {
            offload::listen_stop(tp);
            tcp_subr::state_change(tp, sys::TCPS_CLOSED);
            tcp_subr::close(tp);
        }
        sys::TCPS_CLOSED => {
            tcp_subr::close(tp);
        }
        sys::TCPS_SYN_SENT | sys::TCPS_SYN_RECEIVED => tp.t_flags |= sys::TF_NEEDFIN,
        sys::TCPS_ESTABLISHED => tcp_subr::state_change(tp, sys::TCPS_FIN_WAIT_1),
        sys::TCPS_CLOSE_WAIT => tcp_subr::state_change(tp, sys::TCPS_LAST_ACK),
        _ => {}
    }
    if tp.st() >= sys::TCPS_FIN_WAIT_2 {
        socket::isdisconnected(tp.inp().so());
        if tp.st() == sys::TCPS_FIN_WAIT_2 {
            tcp_timer::activate(tp, sys::TT_2MSL, tcp_timer::MAXIDLE);
        }
    }
}

/// `tcp_disconnect`: close(2)'s half. pcb write-locked on entry; on return only if the pcb is
/// still the caller's, which it is while the socket has a file descriptor.
fn disconnect(tp: Kp<sys::tcpcb>) {
    let inp = tp.inp();
    let so = inp.so();
    if tp.st() < sys::TCPS_ESTABLISHED {
        if tcp_subr::close(tp).is_none() {
            crate::kpanic!("tcp_disconnect: tcp_close() freed the pcb");
        }
        return;
    }
    if so.so_options as u32 & sys::SO_LINGER != 0 && so.so_linger == 0 {
        if tcp_subr::drop(tp, 0).is_none() {
            crate::kpanic!("tcp_disconnect: tcp_drop() freed the pcb");
        }
        return;
    }
    socket::isdisconnecting(so);
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    sockbuf::flush_locked(so.rcv());
    k::mtx_unlock(so.sb_mtx(Which::Rcv));
    usrclosed(tp);
    if !inp.dropped() {
        tcp_subr::output(tp);
    }
}

unsafe extern "C" fn usr_disconnect(so: *mut sys::socket) -> c_int {
    k::net_epoch(|| {
        let inp = locked(Kp::new(so));
        let tp = inp.tp();
        let mut e = 0;
        if tp.st() != sys::TCPS_TIME_WAIT {
            if inp.dropped() {
                e = sys::ECONNRESET as c_int;
            } else {
                disconnect(tp);
            }
        }
        k::wunlock(inp.lock_rw());
        e
    })
}

unsafe extern "C" fn usr_close(so: *mut sys::socket) {
    let so = Kp::new(so);
    k::net_epoch(|| {
        let inp = locked(so);
        let mut tp = inp.tp();
        if !inp.dropped() && tp.st() != sys::TCPS_TIME_WAIT {
            tp.t_flags |= sys::TF_CLOSED;
            disconnect(tp);
        }
        if !inp.dropped() {
            socket::hold(so);
            inp.set_flags(sys::INP_SOCKREF, 0);
        }
        k::wunlock(inp.lock_rw());
    });
}

unsafe extern "C" fn usr_abort(so: *mut sys::socket) {
    let so = Kp::new(so);
    k::net_epoch(|| {
        let inp = locked(so);
        if !inp.dropped() && tcp_subr::drop(inp.tp(), sys::ECONNABORTED as i32).is_none() {
            return;
        }
        if !inp.dropped() {
            socket::hold(so);
            inp.set_flags(sys::INP_SOCKREF, 0);
        }
        k::wunlock(inp.lock_rw());
    });
}

unsafe extern "C" fn usr_shutdown(so: *mut sys::socket, how: sys::shutdown_how) -> c_int {
    let mut so = Kp::new(so);
    let (rd, wr) = (how != sys::SHUT_WR, how != sys::SHUT_RD);
    k::mtx_lock(so.lock_mtx());
    if so.listening() {
        if rd {
            so.so_error = sys::ECONNABORTED as u16;
            listen::wakeup(so);
        } else {
            k::mtx_unlock(so.lock_mtx());
        }
        return sys::ENOTCONN as c_int;
    }
    let any = sys::SS_ISCONNECTED | sys::SS_ISCONNECTING | sys::SS_ISDISCONNECTING;
    let connected = so.state() & any != 0;
    k::mtx_unlock(so.lock_mtx());
    if !connected {
        return sys::ENOTCONN as c_int;
    }
    if rd {
        socket::rflush(so);
    }
    if !wr {
        return 0;
    }
    let inp = locked(so);
    if inp.dropped() {
        k::wunlock(inp.lock_rw());
        return sys::ECONNRESET as c_int;
    }
    k::net_epoch(|| {
        socket::cantsendmore(so);
        usrclosed(inp.tp());
        let e = if inp.dropped() {
            0
        } else {
            tcp_subr::output(inp.tp())
        };
        k::wunlock(inp.lock_rw());
        e
    })
}

unsafe extern "C" fn usr_rcvd(so: *mut sys::socket, _flags: c_int) -> c_int {
    let inp = locked(Kp::new(so));
    let tp = inp.tp();
    let e = if inp.dropped() {
        sys::ECONNRESET as c_int
    } else if tp.toe() {
        offload::rcvd(tp);
        0
    } else {
        k::net_epoch(|| tcp_subr::output(tp))
    };
    k::wunlock(inp.lock_rw());
    e
}

unsafe extern "C" fn usr_send(
    so: *mut sys::socket,
    flags: c_int,
    m: *mut sys::mbuf,
    _nam: *mut sys::sockaddr,
    _control: *mut sys::mbuf,
    _td: *mut sys::thread,
) -> c_int {
    let (so, m, flags) = (Kp::new(so), Kp::new(m), flags as u32);
    let inp = locked(so);
    if inp.dropped() {
        crate::net::m::freem(m);
        k::wunlock(inp.lock_rw());
        return sys::ECONNRESET as c_int;
    }
    let mut tp = inp.tp();
    let e = k::net_epoch(|| {
        sockbuf::append_stream(so.snd(), m);
        if flags & sys::PRUS_EOF != 0 {
            socket::cantsendmore(so);
            usrclosed(tp);
        }
        if inp.dropped() || flags & sys::PRUS_NOTREADY != 0 {
            return 0;
        }
        if flags & sys::PRUS_MORETOCOME != 0 {
            tp.t_flags |= sys::TF_MORETOCOME;
        }
        let e = tcp_subr::output(tp);
        tp.t_flags &= !sys::TF_MORETOCOME;
        e
    });
    k::wunlock(inp.lock_rw());
    e
}

fn put_addr(sa: *mut sys::sockaddr, ip: u32, port: u16) {
    let mut s = sin(sa);
    s.sin_len = size_of::<sys::sockaddr_in>() as u8;
    s.sin_family = sys::AF_INET as u8;
    s.sin_addr.s_addr = ip;
    s.sin_port = port;
}

unsafe extern "C" fn peer_addr(so: *mut sys::socket, sa: *mut sys::sockaddr) -> c_int {
    let inp = locked(Kp::new(so));
    put_addr(sa, inp.faddr(), inp.inp_inc.inc_ie.ie_fport);
    k::wunlock(inp.lock_rw());
    0
}

/// `tcp6_usr_accept` and `in6_mapped_peeraddr`: the peer of an IPv4 connection as a mapped address.
unsafe extern "C" fn peer_addr6(so: *mut sys::socket, sa: *mut sys::sockaddr) -> c_int {
    let inp = locked(Kp::new(so));
    let mut s: Kp<sys::sockaddr_in6> = Kp::new(sa.cast());
    s.sin6_len = size_of::<sys::sockaddr_in6>() as u8;
    s.sin6_family = sys::AF_INET6 as u8;
    s.sin6_port = inp.inp_inc.inc_ie.ie_fport;
    let v4 = std::net::Ipv4Addr::from(inp.faddr().to_ne_bytes());
    s.sin6_addr.__u6_addr.__u6_addr8 = v4.to_ipv6_mapped().octets();
    k::wunlock(inp.lock_rw());
    0
}

unsafe extern "C" fn sock_addr(so: *mut sys::socket, sa: *mut sys::sockaddr) -> c_int {
    let inp = locked(Kp::new(so));
    put_addr(sa, inp.laddr(), inp.inp_inc.inc_ie.ie_lport);
    k::wunlock(inp.lock_rw());
    0
}

unsafe extern "C" fn control(
    _so: *mut sys::socket,
    _cmd: c_ulong,
    _data: *mut std::ffi::c_void,
    _ifp: *mut sys::ifnet,
    _td: *mut sys::thread,
) -> c_int {
    sys::EOPNOTSUPP as c_int
}

/// Options of level IPPROTO_TCP; values are kernel memory (`sopt_td` NULL).
unsafe extern "C" fn ctloutput(so: *mut sys::socket, sopt: *mut sys::sockopt) -> c_int {
    let (so, sopt) = (Kp::new(so), Kp::new(sopt));
    if sopt.sopt_level != sys::IPPROTO_TCP as c_int {
        return sys::ENOPROTOOPT as c_int;
    }
    let inp = locked(so);
    if inp.dropped() {
        k::wunlock(inp.lock_rw());
        return sys::ECONNRESET as c_int;
    }
    let mut tp = inp.tp();
    let mut val: Kp<c_int> = Kp::new(sopt.sopt_val.cast());
    let set = sopt.sopt_dir == sys::SOPT_SET;
    let name = sopt.sopt_name as u32;
    let flag = match name {
        sys::TCP_NODELAY => Some(sys::TF_NODELAY),
        sys::TCP_NOPUSH => Some(sys::TF_NOPUSH),
        _ => None,
    };
    let mut e = 0;
    match (flag, set) {
        (Some(f), true) => {
            if *val != 0 {
                tp.t_flags |= f;
            } else {
                tp.t_flags &= !f;
            }
            if tp.toe() {
                offload::ctloutput(tp, sopt.sopt_dir, name);
            }
        }
        (Some(f), false) => *val = c_int::from(tp.t_flags & f != 0),
        (None, false) if name == sys::TCP_MAXSEG => *val = tp.t_maxseg() as c_int,
        _ => e = sys::ENOPROTOOPT as c_int,
    }
    k::wunlock(inp.lock_rw());
    e
}

/// shutdown(2) through the protocol of the socket.
pub(crate) fn soshutdown(so: Kp<sys::socket>, how: sys::shutdown_how) -> i32 {
    let Some(f) = so.proto().pr_shutdown else {
        return sys::EOPNOTSUPP as i32;
    };
    vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol on a referenced socket.
        unsafe { f(so.ptr(), how) }
    })
}
