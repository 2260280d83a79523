//! Sockets: making, references, state, wakeups, the end (uipc_socket.c).
//!
//! Lock order: tcpinp > so_snd / so_rcv > socket; the I/O locks (sx) come before all of them.

use crate::kp::Kp;
use crate::net::acc::{SockbufExt, SocketExt, Which, at};
use crate::net::{k, listen, sockbuf};
use crate::{kpanic, sched, sys, vnet};

/// A socket of this stack with no pcb and no references (`soalloc`).
pub(crate) fn alloc(vnet: *mut sys::vnet) -> Option<Kp<sys::socket>> {
    let mut so: Kp<sys::socket> = k::zalloc(&k::M_SOCKET, "socket")?;
    k::mtx_init(so.lock_mtx(), c"socket", sys::MTX_DUPOK);
    k::mtx_init(so.sb_mtx(Which::Snd), c"so_snd", 0);
    k::mtx_init(so.sb_mtx(Which::Rcv), c"so_rcv", 0);
    k::sx_init(so.io_sx(Which::Snd), c"so_snd_sx", sys::SX_DUPOK);
    k::sx_init(so.io_sx(Which::Rcv), c"so_rcv_sx", sys::SX_DUPOK);
    so.so_vnet = vnet;
    sockbuf::init(so, Which::Rcv, crate::aio::soaio_rcv_task);
    sockbuf::init(so, Which::Snd, crate::aio::soaio_snd_task);
    Kp::new(vnet).vnet_sockcnt += 1;
    Some(so)
}

/// Frees a socket nobody references (`sodealloc`).
pub(crate) fn dealloc(so: Kp<sys::socket>) {
    if so.so_count != 0 {
        kpanic!("sodealloc: so_count {}", so.so_count);
    }
    if !so.so_pcb.is_null() {
        kpanic!("sodealloc: so_pcb {:p} still set", so.so_pcb);
    }
    Kp::new(so.so_vnet).vnet_sockcnt -= 1;
    k::crfree(so.so_cred);
    if !so.listening() {
        for w in [Which::Rcv, Which::Snd] {
            if !so.sb(w).aioq().is_empty() {
                kpanic!("sodealloc: AIO jobs are still queued");
            }
        }
    }
    k::sx_destroy(so.io_sx(Which::Snd));
    k::sx_destroy(so.io_sx(Which::Rcv));
    k::mtx_destroy(so.sb_mtx(Which::Snd));
    k::mtx_destroy(so.sb_mtx(Which::Rcv));
    k::mtx_destroy(so.lock_mtx());
    k::free(so, &k::M_SOCKET);
}

/// `socreate` of a TCP socket; on success it has one reference.
///
/// # Errors
/// ENOBUFS, or what the protocol's attach says.
pub(crate) fn create(
    vnet: *mut sys::vnet,
    cred: *mut sys::ucred,
    proto: *mut sys::protosw,
    td: *mut sys::thread,
) -> Result<Kp<sys::socket>, i32> {
    let mut so = alloc(vnet).ok_or(sys::ENOBUFS as i32)?;
    so.so_type = sys::SOCK_STREAM as i16;
    so.so_cred = k::crhold(cred);
    so.so_proto = proto;
    let Some(attach) = so.proto().pr_attach else {
        kpanic!("protocol without pr_attach")
    };
    let e = vnet::with_vnet(vnet, || {
        // SAFETY: a protocol's own attach on a socket made for it.
        unsafe { attach(so.ptr(), sys::IPPROTO_TCP as i32, td) }
    });
    if e != 0 {
        dealloc(so);
        return Err(e);
    }
    so.so_count = 1;
    Ok(so)
}

/// `soref`.
pub(crate) fn hold(mut so: Kp<sys::socket>) {
    so.so_count += 1;
}

/// `sorele_locked`: drops a reference; the socket lock is held on entry and not on return.
pub(crate) fn rele_locked(mut so: Kp<sys::socket>) {
    k::mtx_assert_owned(so.lock_mtx());
    if so.so_count == 0 {
        kpanic!("sorele: so_count is 0 already");
    }
    so.so_count -= 1;
    if so.so_count > 0 {
        k::mtx_unlock(so.lock_mtx());
        return;
    }
    free(so);
}

/// `sorele`.
pub(crate) fn rele(mut so: Kp<sys::socket>) {
    if so.so_count > 1 {
        so.so_count -= 1;
        return;
    }
    k::mtx_lock(so.lock_mtx());
    rele_locked(so);
}

/// `sofree`: the last reference went; the socket lock is held.
fn free(so: Kp<sys::socket>) {
    if !so.listening() && so.flow().so_qstate != sys::SQ_NONE {
        kpanic!("sofree: socket is on an accept queue");
    }
    k::mtx_unlock(so.lock_mtx());
    let detach = so.proto().pr_detach;
    vnet::with_vnet(so.so_vnet, || {
        if let Some(detach) = detach {
            // SAFETY: the socket's own protocol; nobody else references the socket.
            unsafe { detach(so.ptr()) };
        }
        if !so.listening() {
            for w in [Which::Snd, Which::Rcv] {
                // sbdestroy: freeing mbufs runs drivers' free routines, with the lock held here
                // only to satisfy the assertions.
                k::mtx_lock(so.sb_mtx(w));
                sockbuf::release_locked(so, w);
                k::mtx_unlock(so.sb_mtx(w));
            }
        }
    });
    dealloc(so);
}

/// `soisconnecting`.
pub(crate) fn isconnecting(so: Kp<sys::socket>) {
    k::mtx_lock(so.lock_mtx());
    so.set_state(
        sys::SS_ISCONNECTING,
        sys::SS_ISCONNECTED | sys::SS_ISDISCONNECTING,
    );
    k::mtx_unlock(so.lock_mtx());
}

/// `soisconnected`: an embryonic connection moves to its listener's queue of complete ones.
pub(crate) fn isconnected(so: Kp<sys::socket>) {
    k::mtx_lock(so.lock_mtx());
    so.set_state(
        sys::SS_ISCONNECTED,
        sys::SS_ISCONNECTING | sys::SS_ISDISCONNECTING,
    );
    if so.flow().so_qstate == sys::SQ_INCOMP {
        listen::promote(so);
        return;
    }
    k::mtx_unlock(so.lock_mtx());
    sched::wakeup(so.timeo_chan());
    sorwakeup(so);
    sowwakeup(so);
}

fn closing(so: Kp<sys::socket>, set: u32, clear: u32, drop_snd: bool) {
    k::mtx_lock(so.lock_mtx());
    so.set_state(set, clear);
    let listening = so.listening();
    k::mtx_unlock(so.lock_mtx());
    if !listening {
        k::mtx_lock(so.sb_mtx(Which::Rcv));
        cantrcvmore_locked(so);
        k::mtx_lock(so.sb_mtx(Which::Snd));
        if drop_snd {
            let n = so.snd().sb_ccc;
            sockbuf::drop_locked(so.snd(), n);
        }
        cantsendmore_locked(so);
    }
    sched::wakeup(so.timeo_chan());
}

/// `soisdisconnecting`.
pub(crate) fn isdisconnecting(so: Kp<sys::socket>) {
    closing(so, sys::SS_ISDISCONNECTING, sys::SS_ISCONNECTING, false);
}

/// `soisdisconnected`: also drops what waits to be sent.
pub(crate) fn isdisconnected(so: Kp<sys::socket>) {
    let clear = sys::SS_ISCONNECTING | sys::SS_ISCONNECTED | sys::SS_ISDISCONNECTING;
    closing(so, sys::SS_ISDISCONNECTED, clear, true);
}

/// `socantrcvmore_locked`: receive lock held on entry, not on return.
pub(crate) fn cantrcvmore_locked(so: Kp<sys::socket>) {
    k::mtx_assert_owned(so.sb_mtx(Which::Rcv));
    let mut sb = so.rcv();
    sb.sb_state |= sys::SBS_CANTRCVMORE as i16;
    sorwakeup_locked(so);
}

/// `socantrcvmore`.
pub(crate) fn cantrcvmore(so: Kp<sys::socket>) {
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    cantrcvmore_locked(so);
}

/// `socantsendmore_locked`: send lock held on entry, not on return.
pub(crate) fn cantsendmore_locked(so: Kp<sys::socket>) {
    k::mtx_assert_owned(so.sb_mtx(Which::Snd));
    let mut sb = so.snd();
    sb.sb_state |= sys::SBS_CANTSENDMORE as i16;
    sowwakeup_locked(so);
}

/// `socantsendmore`.
pub(crate) fn cantsendmore(so: Kp<sys::socket>) {
    k::mtx_lock(so.sb_mtx(Which::Snd));
    cantsendmore_locked(so);
}

/// `soreadable`.
pub(crate) fn readable(so: Kp<sys::socket>) -> bool {
    let sb = so.rcv();
    sb.sb_acc >= sb.sb_lowat
        || so.so_error != 0
        || so.so_rerror != 0
        || sb.st() & sys::SBS_CANTRCVMORE != 0
}

/// `sowriteable`.
pub(crate) fn writable(so: Kp<sys::socket>) -> bool {
    let sb = so.snd();
    let connected = so.state() & sys::SS_ISCONNECTED != 0
        || so.proto().pr_flags as u32 & sys::PR_CONNREQUIRED == 0;
    (sb.space() >= i64::from(sb.sb_lowat) && connected)
        || sb.st() & sys::SBS_CANTSENDMORE != 0
        || so.so_error != 0
}

/// `sowakeup`: buffer lock held on entry, not on return.
fn wakeup(so: Kp<sys::socket>, which: Which) {
    k::mtx_assert_owned(so.sb_mtx(which));
    let sb = so.sb(which);
    if sb.flags() & sys::SB_WAIT != 0 {
        sb.set_flags(0, sys::SB_WAIT);
        sched::wakeup(sb.acc_chan());
    }
    // poll(2) sleepers.
    sb.set_flags(0, sys::SB_SEL);
    sched::wakeup(sel_chan(so));
    if sb.flags() & sys::SB_UPCALL != 0
        && let Some(up) = sb.sb_upcall
    {
        let arg = sb.sb_upcallarg;
        // SAFETY: the upcall its owner installed, called with the buffer lock held as documented.
        let ret = unsafe { up(so.ptr(), arg, sys::M_NOWAIT as i32) };
        if ret != 0 {
            kpanic!("upcall on a connected socket returned {ret}");
        }
    }
    if sb.flags() & sys::SB_AIO != 0 {
        crate::aio::sowakeup_aio(so, which);
    }
    k::mtx_unlock(so.sb_mtx(which));
}

/// The channel poll(2) sleeps on, whatever it waits for.
pub(crate) fn sel_chan(so: Kp<sys::socket>) -> usize {
    at!(so, so_rdsel) as usize
}

/// `sorwakeup_locked`: receive lock held on entry, not on return.
pub(crate) fn sorwakeup_locked(so: Kp<sys::socket>) {
    wakeup(so, Which::Rcv);
}

/// `sowwakeup_locked`: send lock held on entry, not on return.
pub(crate) fn sowwakeup_locked(so: Kp<sys::socket>) {
    wakeup(so, Which::Snd);
}

/// `sorwakeup`.
pub(crate) fn sorwakeup(so: Kp<sys::socket>) {
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    sorwakeup_locked(so);
}

/// `sowwakeup`.
pub(crate) fn sowwakeup(so: Kp<sys::socket>) {
    k::mtx_lock(so.sb_mtx(Which::Snd));
    sowwakeup_locked(so);
}

/// `soabort`: resets a connection nobody accepted and drops the queue's reference.
pub(crate) fn abort(so: Kp<sys::socket>) {
    if let Some(abort) = so.proto().pr_abort {
        vnet::with_vnet(so.so_vnet, || {
            // SAFETY: the socket's own protocol; the queue's reference keeps the socket.
            unsafe { abort(so.ptr()) };
        });
    }
    k::mtx_lock(so.lock_mtx());
    rele_locked(so);
}

/// `sodisconnect`.
pub(crate) fn disconnect(so: Kp<sys::socket>) -> i32 {
    if so.state() & sys::SS_ISCONNECTED == 0 {
        return sys::ENOTCONN as i32;
    }
    if so.state() & sys::SS_ISDISCONNECTING != 0 {
        return sys::EALREADY as i32;
    }
    let Some(f) = so.proto().pr_disconnect else {
        return sys::EOPNOTSUPP as i32;
    };
    // SAFETY: the socket's own protocol on a referenced socket.
    unsafe { f(so.ptr()) }
}

/// `soclose`: what the last close(2) does. May sleep for SO_LINGER.
pub(crate) fn close(so: Kp<sys::socket>) -> i32 {
    vnet::with_vnet(so.so_vnet, || close_in_vnet(so))
}

fn close_in_vnet(so: Kp<sys::socket>) -> i32 {
    let mut error = 0;
    if so.state() & sys::SS_ISCONNECTED != 0 {
        if so.state() & sys::SS_ISDISCONNECTING == 0 {
            error = disconnect(so);
        }
        if error != 0 {
            if error == sys::ENOTCONN as i32 {
                error = 0;
            }
        } else if so.so_options as u32 & sys::SO_LINGER != 0 && so.so_linger != 0 {
            error = linger(so);
        }
    }
    if let Some(f) = so.proto().pr_close {
        // SAFETY: the socket's own protocol on a referenced socket.
        unsafe { f(so.ptr()) };
    }
    k::mtx_lock(so.lock_mtx());
    let orphans = if so.listening() {
        listen::take_queues(so)
    } else {
        Vec::new()
    };
    rele_locked(so);
    for sp in orphans {
        abort(sp);
    }
    error
}

fn linger(so: Kp<sys::socket>) -> i32 {
    if so.state() & sys::SS_ISDISCONNECTING != 0 && so.state() & sys::SS_NBIO != 0 {
        return 0;
    }
    let limit = i64::from(so.so_linger) * sched::SBT_1S;
    while so.state() & sys::SS_ISCONNECTED != 0 {
        let e = k::tsleep(so.timeo_chan(), true, "soclos", Some(limit));
        if e != 0 {
            return e;
        }
    }
    0
}

/// `sorflush`: no more reading; what is in the buffer goes, and so does the reservation.
pub(crate) fn rflush(so: Kp<sys::socket>) {
    if sockbuf::io_lock(so, Which::Rcv, sys::SBL_WAIT | sys::SBL_NOINTR) != 0 {
        return;
    }
    cantrcvmore(so);
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    sockbuf::release_locked(so, Which::Rcv);
    k::mtx_unlock(so.sb_mtx(Which::Rcv));
    sockbuf::io_unlock(so, Which::Rcv);
}

/// `soconnect`: starts connecting to `nam`.
pub(crate) fn connect(
    mut so: Kp<sys::socket>,
    nam: *mut sys::sockaddr,
    td: *mut sys::thread,
) -> i32 {
    if so.listening() {
        return sys::EOPNOTSUPP as i32;
    }
    if so.state() & (sys::SS_ISCONNECTED | sys::SS_ISCONNECTING) != 0 {
        return sys::EISCONN as i32;
    }
    // A leftover error must not fail this attempt.
    so.so_error = 0;
    let Some(f) = so.proto().pr_connect else {
        return sys::EOPNOTSUPP as i32;
    };
    vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol; `nam` is a kernel copy of the caller's address.
        unsafe { f(so.ptr(), nam, td) }
    })
}

/// Sets both marks of a socket (`soreserve`); false: too much.
pub(crate) fn reserve(so: Kp<sys::socket>, snd: u64, rcv: u64) -> bool {
    let mut ok = true;
    for (w, cc) in [(Which::Snd, snd), (Which::Rcv, rcv)] {
        k::mtx_lock(so.sb_mtx(w));
        ok = ok && sockbuf::reserve_locked(so, w, cc);
        let mut sb = so.sb(w);
        if sb.sb_lowat == 0 {
            sb.sb_lowat = if w == Which::Snd { sys::MCLBYTES } else { 1 };
        }
        if sb.sb_lowat > sb.sb_hiwat {
            sb.sb_lowat = sb.sb_hiwat;
        }
        k::mtx_unlock(so.sb_mtx(w));
    }
    ok
}

mod c {
    use super::*;

    pub(super) extern "C" fn soisconnecting(so: Kp<sys::socket>) {
        isconnecting(so);
    }
    pub(super) extern "C" fn soisconnected(so: Kp<sys::socket>) {
        isconnected(so);
    }
    pub(super) extern "C" fn soisdisconnecting(so: Kp<sys::socket>) {
        isdisconnecting(so);
    }
    pub(super) extern "C" fn soisdisconnected(so: Kp<sys::socket>) {
        isdisconnected(so);
    }
    pub(super) extern "C" fn socantrcvmore(so: Kp<sys::socket>) {
        cantrcvmore(so);
    }
    pub(super) extern "C" fn socantrcvmore_locked(so: Kp<sys::socket>) {
        cantrcvmore_locked(so);
    }
    pub(super) extern "C" fn socantsendmore(so: Kp<sys::socket>) {
        cantsendmore(so);
    }
    pub(super) extern "C" fn socantsendmore_locked(so: Kp<sys::socket>) {
        cantsendmore_locked(so);
    }
    pub(super) extern "C" fn sorwakeup_locked(so: Kp<sys::socket>) {
        super::sorwakeup_locked(so);
    }
    pub(super) extern "C" fn sowwakeup_locked(so: Kp<sys::socket>) {
        super::sowwakeup_locked(so);
    }
    pub(super) extern "C" fn sorele_locked(so: Kp<sys::socket>) {
        rele_locked(so);
    }
    pub(super) extern "C" fn sorflush(so: Kp<sys::socket>) {
        rflush(so);
    }
    pub(super) extern "C" fn soclose(so: Kp<sys::socket>) -> i32 {
        close(so)
    }
    pub(super) extern "C" fn soabort(so: Kp<sys::socket>) {
        abort(so);
    }
    pub(super) extern "C" fn sodisconnect(so: Kp<sys::socket>) -> i32 {
        disconnect(so)
    }
}

crate::exports! {
    "soisconnecting" => c::soisconnecting,
    "soisconnected" => c::soisconnected,
    "soisdisconnecting" => c::soisdisconnecting,
    "soisdisconnected" => c::soisdisconnected,
    "socantrcvmore" => c::socantrcvmore,
    "socantrcvmore_locked" => c::socantrcvmore_locked,
    "socantsendmore" => c::socantsendmore,
    "socantsendmore_locked" => c::socantsendmore_locked,
    "sorwakeup_locked" => c::sorwakeup_locked,
    "sowwakeup_locked" => c::sowwakeup_locked,
    "sorele_locked" => c::sorele_locked,
    "sorflush" => c::sorflush,
    "soclose" => c::soclose,
    "soabort" => c::soabort,
    "sodisconnect" => c::sodisconnect,
}
