//! Listening sockets and their accept queues.
//!
//! A listening socket's `so_lock` protects both queues. Each queued socket holds a reference on
//! the listener and is held by one of its own.

use crate::kp::Kp;
use crate::net::acc::{SockbufExt, SocketExt, Which, at};
use crate::net::tailq::Tailq;
use crate::net::{k, sockbuf, socket};
use crate::{kpanic, sched, sys, vnet};

const NONE: sys::socket_qstate = sys::SQ_NONE;
const INCOMP: sys::socket_qstate = sys::SQ_INCOMP;
const COMP: sys::socket_qstate = sys::SQ_COMP;

/// kern.ipc.somaxconn.
const SOMAXCONN: i32 = 128;

fn queue(head: usize) -> Tailq<sys::socket> {
    let link = std::mem::offset_of!(sys::socket, __bindgen_anon_1)
        + std::mem::offset_of!(sys::socket__bindgen_ty_1__bindgen_ty_1, so_list);
    Tailq::at(head, link)
}

/// `sol_comp`: complete connections.
pub(crate) fn comp(head: Kp<sys::socket>) -> Tailq<sys::socket> {
    queue(at!(head.sol(), sol_comp) as usize)
}

/// `sol_incomp`: connections on their way.
pub(crate) fn incomp(head: Kp<sys::socket>) -> Tailq<sys::socket> {
    queue(at!(head.sol(), sol_incomp) as usize)
}

/// `solisten_proto_check`: may this socket listen? Takes what `solisten_proto` or
/// `solisten_proto_abort` must give back: the socket lock (held by the caller) and both
/// buffers' locks.
pub(crate) fn proto_check(so: Kp<sys::socket>) -> i32 {
    k::mtx_assert_owned(so.lock_mtx());
    let busy = sys::SS_ISCONNECTED | sys::SS_ISCONNECTING | sys::SS_ISDISCONNECTING;
    if so.state() & busy != 0 {
        return sys::EINVAL as i32;
    }
    if so.listening() {
        return 0;
    }
    // Nobody may be in the middle of an I/O; sleeping for the sx is not possible here.
    if !k::sx_try_xlock(so.io_sx(Which::Snd)) {
        return sys::EAGAIN as i32;
    }
    if !k::sx_try_xlock(so.io_sx(Which::Rcv)) {
        k::sx_xunlock(so.io_sx(Which::Snd));
        return sys::EAGAIN as i32;
    }
    k::mtx_lock(so.sb_mtx(Which::Snd));
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    let busy_aio = [Which::Snd, Which::Rcv].into_iter().any(|w| {
        let sb = so.sb(w);
        sb.flags() & (sys::SB_AIO | sys::SB_AIO_RUNNING) != 0 || !sb.aioq().is_empty()
    });
    if busy_aio {
        proto_abort(so);
        return sys::EINVAL as i32;
    }
    0
}

/// `solisten_proto_abort`.
pub(crate) fn proto_abort(so: Kp<sys::socket>) {
    k::mtx_unlock(so.sb_mtx(Which::Snd));
    k::mtx_unlock(so.sb_mtx(Which::Rcv));
    k::sx_xunlock(so.io_sx(Which::Snd));
    k::sx_xunlock(so.io_sx(Which::Rcv));
}

/// `solisten_proto`: the socket becomes a listener. Its buffers go; their parameters stay for
/// the sockets it will bear.
pub(crate) fn proto(mut so: Kp<sys::socket>, backlog: i32) {
    k::mtx_assert_owned(so.lock_mtx());
    if !so.listening() {
        let (snd, rcv) = (*so.snd(), *so.rcv());
        for w in [Which::Snd, Which::Rcv] {
            sockbuf::release_locked(so, w);
        }
        proto_abort(so);
        let mut sol = so.sol();
        sol.sol_sbrcv_lowat = rcv.sb_lowat as i32;
        sol.sol_sbsnd_lowat = snd.sb_lowat as i32;
        sol.sol_sbrcv_hiwat = rcv.sb_hiwat;
        sol.sol_sbsnd_hiwat = snd.sb_hiwat;
        sol.sol_sbrcv_flags = rcv.sb_flags;
        sol.sol_sbsnd_flags = snd.sb_flags;
        sol.sol_sbrcv_timeo = rcv.sb_timeo;
        sol.sol_sbsnd_timeo = snd.sb_timeo;
        sol.sol_qlen = 0;
        sol.sol_incqlen = 0;
        comp(so).init();
        incomp(so).init();
        sol.sol_accept_filter = std::ptr::null_mut();
        sol.sol_accept_filter_arg = std::ptr::null_mut();
        sol.sol_accept_filter_str = std::ptr::null_mut();
        sol.sol_upcall = None;
        sol.sol_upcallarg = std::ptr::null_mut();
        so.so_options |= sys::SO_ACCEPTCONN as i32;
    }
    let limit = if (0..=SOMAXCONN).contains(&backlog) {
        backlog
    } else {
        SOMAXCONN
    };
    so.sol().sol_qlimit = limit as u32;
}

/// `solisten_clone`: a socket for a connection that reached `head`; 0 references, on no queue.
/// `None`: the queue overflows, or no memory.
pub(crate) fn clone(head: Kp<sys::socket>) -> Option<Kp<sys::socket>> {
    k::mtx_lock(head.lock_mtx());
    let over = head.sol().sol_qlen > 3 * head.sol().sol_qlimit / 2;
    if over {
        head.sol().sol_overcount += 1;
    }
    k::mtx_unlock(head.lock_mtx());
    if over {
        return None;
    }
    let mut so = socket::alloc(head.so_vnet)?;
    so.flow().so_listen = head.ptr();
    so.so_type = head.so_type;
    so.so_options = head.so_options & !(sys::SO_ACCEPTCONN as i32);
    so.so_linger = head.so_linger;
    so.so_state = head.so_state & !(sys::SS_NBIO as i16);
    so.so_fibnum = head.so_fibnum;
    so.so_proto = head.so_proto;
    so.so_cred = k::crhold(head.so_cred);
    let sol = head.sol();
    if !socket::reserve(
        so,
        u64::from(sol.sol_sbsnd_hiwat),
        u64::from(sol.sol_sbrcv_hiwat),
    ) {
        socket::dealloc(so);
        return None;
    }
    let (mut rcv, mut snd) = (so.rcv(), so.snd());
    rcv.sb_lowat = sol.sol_sbrcv_lowat as u32;
    snd.sb_lowat = sol.sol_sbsnd_lowat as u32;
    rcv.sb_timeo = sol.sol_sbrcv_timeo;
    snd.sb_timeo = sol.sol_sbsnd_timeo;
    rcv.set_flags(u32::from(sol.sol_sbrcv_flags as u16) & sys::SB_AUTOSIZE, 0);
    snd.set_flags(
        u32::from(sol.sol_sbsnd_flags as u16) & (sys::SB_AUTOSIZE | sys::SB_AUTOLOWAT),
        0,
    );
    Some(so)
}

/// `solisten_enqueue`: gives the fresh socket its one reference and queues it on its listener;
/// true when it went on the complete queue.
pub(crate) fn enqueue(mut so: Kp<sys::socket>, connstatus: u32) -> bool {
    let head = Kp::new(so.flow().so_listen);
    if so.so_count != 0 {
        kpanic!("solisten_enqueue: so_count {}", so.so_count);
    }
    so.so_count = 1;
    k::mtx_lock(head.lock_mtx());
    so.set_state(connstatus, 0);
    so.so_options = head.so_options & !(sys::SO_ACCEPTCONN as i32);
    socket::hold(head);
    if connstatus != 0 {
        comp(head).push_back(so);
        so.flow().so_qstate = COMP;
        head.sol().sol_qlen += 1;
        wakeup(head);
        return true;
    }
    while head.sol().sol_incqlen > head.sol().sol_qlimit {
        let Some(sp) = incomp(head).pop_front() else {
            break;
        };
        head.sol().sol_incqlen -= 1;
        k::mtx_lock(sp.lock_mtx());
        sp.flow().so_qstate = NONE;
        sp.flow().so_listen = std::ptr::null_mut();
        k::mtx_unlock(sp.lock_mtx());
        socket::rele_locked(head);
        socket::abort(sp);
        k::mtx_lock(head.lock_mtx());
    }
    incomp(head).push_back(so);
    so.flow().so_qstate = INCOMP;
    head.sol().sol_incqlen += 1;
    k::mtx_unlock(head.lock_mtx());
    false
}

/// `sonewconn`: clone, attach, enqueue.
pub(crate) fn newconn(head: Kp<sys::socket>, connstatus: u32) -> Option<Kp<sys::socket>> {
    let so = clone(head)?;
    let attach = so.proto().pr_attach?;
    // SAFETY: a protocol's own attach on a socket made for it.
    let e = unsafe { attach(so.ptr(), 0, std::ptr::null_mut()) };
    if e != 0 {
        socket::dealloc(so);
        return None;
    }
    enqueue(so, connstatus);
    Some(so)
}

/// The half of `soisconnected` for a socket on the incomplete queue. Its lock is held on entry
/// and not on return.
pub(crate) fn promote(so: Kp<sys::socket>) {
    let head = Kp::new(so.flow().so_listen);
    if !k::mtx_trylock(head.lock_mtx()) {
        socket::hold(head);
        k::mtx_unlock(so.lock_mtx());
        k::mtx_lock(head.lock_mtx());
        k::mtx_lock(so.lock_mtx());
        if !std::ptr::eq(so.flow().so_listen, head.ptr()) {
            // The listener was closed meanwhile, and the socket is about to be aborted.
            k::mtx_unlock(so.lock_mtx());
            socket::rele_locked(head);
            return;
        }
        let mut h = head;
        h.so_count -= 1;
    }
    incomp(head).remove(so);
    head.sol().sol_incqlen -= 1;
    comp(head).push_back(so);
    head.sol().sol_qlen += 1;
    so.flow().so_qstate = COMP;
    k::mtx_unlock(so.lock_mtx());
    wakeup(head);
}

/// `solisten_wakeup`: listener's lock held on entry, not on return.
pub(crate) fn wakeup(head: Kp<sys::socket>) {
    if let Some(up) = head.sol().sol_upcall {
        let arg = head.sol().sol_upcallarg;
        // SAFETY: the upcall its owner installed, under the listener's lock as documented.
        unsafe { up(head.ptr(), arg, sys::M_NOWAIT as i32) };
    }
    sched::wakeup(socket::sel_chan(head));
    k::mtx_unlock(head.lock_mtx());
    sched::wakeup_one(comp_chan(head));
}

fn comp_chan(head: Kp<sys::socket>) -> usize {
    at!(head.sol(), sol_comp) as usize
}

/// `solisten_dequeue`: sleeps for a complete connection and takes it off. The listener's lock is
/// held on entry and not on return.
pub(crate) fn dequeue(mut head: Kp<sys::socket>, nonblock: bool) -> Result<Kp<sys::socket>, i32> {
    let mut error = 0;
    if nonblock && comp(head).is_empty() && head.so_error == 0 {
        k::mtx_unlock(head.lock_mtx());
        return Err(sys::EWOULDBLOCK as i32);
    }
    while comp(head).is_empty() && head.so_error == 0 {
        error = k::msleep(comp_chan(head), head.lock_mtx(), true, "accept", None);
        if error != 0 {
            break;
        }
    }
    if error == 0 && head.so_error != 0 {
        error = i32::from(std::mem::take(&mut head.so_error));
    }
    if error != 0 {
        k::mtx_unlock(head.lock_mtx());
        return Err(error);
    }
    let Some(so) = comp(head).first() else {
        kpanic!("accept woke with an empty queue")
    };
    k::mtx_lock(so.lock_mtx());
    if so.flow().so_qstate != COMP {
        kpanic!("accept: socket not on the complete queue");
    }
    so.flow().so_qstate = NONE;
    so.flow().so_listen = std::ptr::null_mut();
    comp(head).remove(so);
    head.sol().sol_qlen -= 1;
    so.set_state(head.state() & sys::SS_NBIO, 0);
    k::mtx_unlock(so.lock_mtx());
    // Drops the queue's reference on the listener; the caller's own keeps it.
    socket::rele_locked(head);
    Ok(so)
}

/// For soclose: empties both queues. Listener's lock held.
pub(crate) fn take_queues(mut head: Kp<sys::socket>) -> Vec<Kp<sys::socket>> {
    let mut all = Vec::new();
    for q in [incomp(head), comp(head)] {
        while let Some(sp) = q.pop_front() {
            all.push(sp);
        }
    }
    head.sol().sol_qlen = 0;
    head.sol().sol_incqlen = 0;
    for &sp in &all {
        k::mtx_lock(sp.lock_mtx());
        sp.flow().so_qstate = NONE;
        sp.flow().so_listen = std::ptr::null_mut();
        k::mtx_unlock(sp.lock_mtx());
        head.so_count -= 1;
    }
    all
}

/// `solisten`: listen(2) on a bound or unbound socket.
pub(crate) fn solisten(so: Kp<sys::socket>, backlog: i32, td: *mut sys::thread) -> i32 {
    let Some(f) = so.proto().pr_listen else {
        return sys::EOPNOTSUPP as i32;
    };
    vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol on a referenced socket.
        unsafe { f(so.ptr(), backlog, td) }
    })
}

mod c {
    use super::*;
    pub(super) extern "C" fn sonewconn(head: Kp<sys::socket>, status: i32) -> *mut sys::socket {
        newconn(head, status as u32).map_or(std::ptr::null_mut(), Kp::ptr)
    }
    pub(super) extern "C" fn solisten_wakeup(head: Kp<sys::socket>) {
        wakeup(head);
    }
}

crate::exports! {
    "sonewconn" => c::sonewconn,
    "solisten_wakeup" => c::solisten_wakeup,
}
