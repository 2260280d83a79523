//! sosend(9) and soreceive(9) for streams.

use std::ffi::c_int;

use crate::kp::Kp;
use crate::net::acc::{SockbufExt, SocketExt, Which};
use crate::net::m::{self, MbufExt};
use crate::net::{k, sockbuf, socket};
use crate::{kpanic, sys, vm, vnet};

const E_FAULT: i32 = sys::EFAULT as i32;

fn wait_flag(flags: u32) -> u32 {
    if flags & sys::MSG_DONTWAIT != 0 {
        0
    } else {
        sys::SBL_WAIT
    }
}

/// `sosend_generic` with data from `uio`. Returns 0 or an errno; `uio_resid` tells how much is
/// left. EPIPE raises no signal here.
pub(crate) fn send_generic(
    so: Kp<sys::socket>,
    uio: Kp<sys::uio>,
    flags: u32,
    td: *mut sys::thread,
) -> i32 {
    if uio.uio_resid < 0 {
        return sys::EINVAL as i32;
    }
    let e = sockbuf::io_lock(so, Which::Snd, wait_flag(flags));
    if e != 0 {
        return e;
    }
    let e = send_locked(so, uio, flags, td);
    sockbuf::io_unlock(so, Which::Snd);
    e
}

fn send_locked(
    mut so: Kp<sys::socket>,
    uio: Kp<sys::uio>,
    flags: u32,
    td: *mut sys::thread,
) -> i32 {
    let mtx = so.sb_mtx(Which::Snd);
    let sb = so.snd();
    if !td.is_null() {
        Kp::new(td).td_ru.ru_msgsnd += 1;
    }
    loop {
        k::mtx_lock(mtx);
        if sb.st() & sys::SBS_CANTSENDMORE != 0 {
            k::mtx_unlock(mtx);
            return sys::EPIPE as i32;
        }
        if so.so_error != 0 {
            let e = i32::from(std::mem::take(&mut so.so_error));
            k::mtx_unlock(mtx);
            return e;
        }
        if so.state() & sys::SS_ISCONNECTED == 0 {
            k::mtx_unlock(mtx);
            return sys::ENOTCONN as i32;
        }
        let mut space = sb.space();
        let resid = uio.uio_resid as i64;
        if space < resid && space < i64::from(sb.sb_lowat) {
            if so.state() & sys::SS_NBIO != 0 || flags & (sys::MSG_NBIO | sys::MSG_DONTWAIT) != 0 {
                k::mtx_unlock(mtx);
                return sys::EWOULDBLOCK as i32;
            }
            let e = sockbuf::wait(so, Which::Snd);
            k::mtx_unlock(mtx);
            if e != 0 {
                return e;
            }
            continue;
        }
        k::mtx_unlock(mtx);
        loop {
            let Some(top) = m::from_uio(uio, space.max(0) as usize) else {
                return E_FAULT;
            };
            let left = uio.uio_resid as i64;
            space -= m::chain_len(top) as i64;
            let mut prus = 0;
            if flags & sys::MSG_EOF != 0 && left <= 0 {
                prus = sys::PRUS_EOF;
            } else if flags & sys::MSG_MORETOCOME != 0 || (left > 0 && space > 0) {
                prus = sys::PRUS_MORETOCOME;
            }
            let e = pr_send(so, prus as c_int, top, td);
            if e != 0 {
                return e;
            }
            if left <= 0 || space <= 0 {
                break;
            }
        }
        if uio.uio_resid <= 0 {
            return 0;
        }
    }
}

fn pr_send(so: Kp<sys::socket>, flags: c_int, m: Kp<sys::mbuf>, td: *mut sys::thread) -> i32 {
    let Some(f) = so.proto().pr_send else {
        kpanic!("protocol without pr_send")
    };
    vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol; the mbuf chain is handed over.
        unsafe {
            f(
                so.ptr(),
                flags,
                m.ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                td,
            )
        }
    })
}

fn pr_rcvd(so: Kp<sys::socket>, flags: u32) {
    if so.proto().pr_flags as u32 & sys::PR_WANTRCVD == 0 || flags & sys::MSG_SOCALLBCK != 0 {
        return;
    }
    if let Some(f) = so.proto().pr_rcvd {
        vnet::with_vnet(so.so_vnet, || {
            // SAFETY: the socket's own protocol on a referenced socket, no buffer lock held.
            unsafe { f(so.ptr(), flags as c_int) };
        });
    }
}

/// `soreceive_generic` into `uio`, with MSG_ `flags`. Returns 0 or an errno.
pub(crate) fn receive_generic(so: Kp<sys::socket>, uio: Kp<sys::uio>, flags: u32) -> i32 {
    let e = sockbuf::io_lock(so, Which::Rcv, wait_flag(flags));
    if e != 0 {
        return e;
    }
    let e = receive_locked(so, uio, flags);
    sockbuf::io_unlock(so, Which::Rcv);
    e
}

/// What to do when the buffer cannot satisfy the caller yet.
enum Next {
    Copy,
    Done(i32),
    Again,
}

/// Receive lock held on entry; still held for `Copy`, dropped otherwise.
fn block(mut so: Kp<sys::socket>, uio: Kp<sys::uio>, flags: u32) -> Next {
    let mtx = so.sb_mtx(Which::Rcv);
    let sb = so.rcv();
    let empty = sb.d().sb_mb.is_null() || sb.sb_acc == 0;
    let starved = flags & sys::MSG_DONTWAIT == 0
        && i64::from(sb.sb_acc) < uio.uio_resid as i64
        && sb.sb_acc < sb.sb_lowat;
    if !empty && !starved {
        return Next::Copy;
    }
    if so.so_error != 0 || so.so_rerror != 0 {
        if !empty {
            return Next::Copy;
        }
        let slot = if so.so_error != 0 {
            &mut so.so_error
        } else {
            &mut so.so_rerror
        };
        let e = i32::from(*slot);
        if flags & sys::MSG_PEEK == 0 {
            *slot = 0;
        }
        k::mtx_unlock(mtx);
        return Next::Done(e);
    }
    if sb.st() & sys::SBS_CANTRCVMORE != 0 {
        if !empty {
            return Next::Copy;
        }
        k::mtx_unlock(mtx);
        return Next::Done(0);
    }
    let any = sys::SS_ISCONNECTING
        | sys::SS_ISCONNECTED
        | sys::SS_ISDISCONNECTING
        | sys::SS_ISDISCONNECTED;
    if so.state() & any == 0 && so.proto().pr_flags as u32 & sys::PR_CONNREQUIRED != 0 {
        k::mtx_unlock(mtx);
        return Next::Done(sys::ENOTCONN as i32);
    }
    if uio.uio_resid == 0 {
        k::mtx_unlock(mtx);
        return Next::Done(0);
    }
    if so.state() & sys::SS_NBIO != 0 || flags & (sys::MSG_DONTWAIT | sys::MSG_NBIO) != 0 {
        k::mtx_unlock(mtx);
        return Next::Done(sys::EWOULDBLOCK as i32);
    }
    let e = sockbuf::wait(so, Which::Rcv);
    k::mtx_unlock(mtx);
    if e != 0 { Next::Done(e) } else { Next::Again }
}

fn receive_locked(so: Kp<sys::socket>, uio: Kp<sys::uio>, flags: u32) -> i32 {
    let mtx = so.sb_mtx(Which::Rcv);
    let orig = uio.uio_resid;
    loop {
        k::mtx_lock(mtx);
        match block(so, uio, flags) {
            Next::Again => continue,
            Next::Done(e) => return e,
            Next::Copy => {}
        }
        let e = copy_out(so, uio, flags);
        if e != 0 {
            // copy_out has dropped the lock.
            return e;
        }
        if flags & sys::MSG_PEEK == 0 {
            k::mtx_unlock(mtx);
            pr_rcvd(so, flags);
            k::mtx_lock(mtx);
        }
        let cant = so.rcv().st() & sys::SBS_CANTRCVMORE != 0;
        k::mtx_unlock(mtx);
        if orig == uio.uio_resid && orig != 0 && !cant {
            continue;
        }
        let mut td = crate::sched::current_thread();
        td.td_ru.ru_msgrcv += 1;
        return 0;
    }
}

/// Moves data to the caller. Receive lock held on entry, and on return of 0; dropped on error.
fn copy_out(so: Kp<sys::socket>, uio: Kp<sys::uio>, flags: u32) -> i32 {
    let mtx = so.sb_mtx(Which::Rcv);
    let sb = so.rcv();
    let peek = flags & sys::MSG_PEEK != 0;
    let mut moff = 0;
    let mut at = Kp::opt(sb.d().sb_mb);
    loop {
        while let Some(mb) = at {
            if uio.uio_resid <= 0 || std::ptr::eq(sb.d().sb_fnrdy, mb.ptr()) {
                return 0;
            }
            let len = (mb.m_len as usize - moff).min(uio.uio_resid as usize);
            k::mtx_unlock(mtx);
            let e = move_out(mb, moff, len, uio);
            k::mtx_lock(mtx);
            if e != 0 {
                k::mtx_unlock(mtx);
                return e;
            }
            if peek {
                moff += len;
                if moff == mb.m_len as usize {
                    (at, moff) = (mb.next(), 0);
                }
            } else {
                // The I/O lock keeps other readers off, so these bytes are still in front,
                // unless the buffer was flushed meanwhile.
                let n = (len as u32).min(sb.sb_ccc);
                sockbuf::drop_locked(sb, n);
                at = Kp::opt(sb.d().sb_mb);
            }
        }
        if flags & sys::MSG_WAITALL == 0 || uio.uio_resid <= 0 {
            return 0;
        }
        if so.so_error != 0 || so.so_rerror != 0 || sb.st() & sys::SBS_CANTRCVMORE != 0 {
            return 0;
        }
        if peek {
            // The data cannot grow past what a peek has seen without being taken.
            return 0;
        }
        k::mtx_unlock(mtx);
        pr_rcvd(so, flags);
        k::mtx_lock(mtx);
        if sb.d().sb_mb.is_null() && sb.st() & sys::SBS_CANTRCVMORE == 0 && so.so_error == 0 {
            let e = sockbuf::wait(so, Which::Rcv);
            if e != 0 {
                k::mtx_unlock(mtx);
                return e;
            }
        }
        at = Kp::opt(sb.d().sb_mb);
    }
}

fn move_out(mb: Kp<sys::mbuf>, off: usize, len: usize, uio: Kp<sys::uio>) -> i32 {
    for (addr, n) in m::pieces(mb, off, len) {
        let e = vm::uiomove(addr as *mut u8, n, uio);
        if e != 0 {
            return e;
        }
    }
    0
}

/// `sosend`.
pub(crate) fn sosend(
    so: Kp<sys::socket>,
    uio: Kp<sys::uio>,
    flags: u32,
    td: *mut sys::thread,
) -> i32 {
    if so.listening() {
        return sys::ENOTCONN as i32;
    }
    let Some(f) = so.proto().pr_sosend else {
        return sys::EOPNOTSUPP as i32;
    };
    let null = std::ptr::null_mut();
    vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol on a referenced socket; `uio` lives through the call.
        unsafe {
            f(
                so.ptr(),
                null,
                uio.ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                flags as c_int,
                td,
            )
        }
    })
}

/// `sousrsend`: sosend on behalf of a program: a short count wins over EINTR and EWOULDBLOCK,
/// and EPIPE raises SIGPIPE.
pub(crate) fn usrsend(so: Kp<sys::socket>, uio: Kp<sys::uio>, flags: u32) -> i32 {
    let len = uio.uio_resid;
    let td = crate::sched::current_thread();
    let mut e = sosend(so, uio, flags, td.ptr());
    if e != 0 && uio.uio_resid != len && (e == sys::EINTR as i32 || e == sys::EWOULDBLOCK as i32) {
        e = 0;
    }
    if e == sys::EPIPE as i32
        && so.so_options as u32 & sys::SO_NOSIGPIPE == 0
        && flags & sys::MSG_NOSIGNAL == 0
    {
        crate::proc::psignal(Kp::new(td.td_proc), sys::SIGPIPE as i32);
    }
    e
}

/// `soreceive`. MSG_ flags in and out through `flags`.
pub(crate) fn soreceive(so: Kp<sys::socket>, uio: Kp<sys::uio>, flags: u32) -> i32 {
    if so.listening() {
        return sys::ENOTCONN as i32;
    }
    let Some(f) = so.proto().pr_soreceive else {
        return sys::EOPNOTSUPP as i32;
    };
    let mut fl = flags as c_int;
    let null = std::ptr::null_mut;
    vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol on a referenced socket; `uio` lives through the call.
        unsafe {
            f(
                so.ptr(),
                std::ptr::null_mut(),
                uio.ptr(),
                std::ptr::null_mut(),
                null(),
                &raw mut fl,
            )
        }
    })
}

/// The entries a protocol switch points at.
pub(crate) mod c {
    use super::*;

    pub(crate) unsafe extern "C" fn sosend_generic(
        so: *mut sys::socket,
        _addr: *mut sys::sockaddr,
        uio: *mut sys::uio,
        top: *mut sys::mbuf,
        _control: *mut sys::mbuf,
        flags: c_int,
        td: *mut sys::thread,
    ) -> c_int {
        if let Some(top) = Kp::opt(top) {
            return send_mbufs(Kp::new(so), top, flags as u32, td);
        }
        send_generic(Kp::new(so), Kp::new(uio), flags as u32, td)
    }

    /// The form for kernel callers with a ready chain.
    fn send_mbufs(
        so: Kp<sys::socket>,
        top: Kp<sys::mbuf>,
        flags: u32,
        td: *mut sys::thread,
    ) -> c_int {
        let e = sockbuf::io_lock(so, Which::Snd, wait_flag(flags));
        if e != 0 {
            m::freem(top);
            return e;
        }
        let ok = so.state() & sys::SS_ISCONNECTED != 0;
        let e = if ok {
            pr_send(so, 0, top, td)
        } else {
            sys::ENOTCONN as i32
        };
        if !ok {
            m::freem(top);
        }
        sockbuf::io_unlock(so, Which::Snd);
        e
    }

    pub(crate) unsafe extern "C" fn soreceive_generic(
        so: *mut sys::socket,
        _paddr: *mut *mut sys::sockaddr,
        uio: *mut sys::uio,
        _mp0: *mut *mut sys::mbuf,
        _controlp: *mut *mut sys::mbuf,
        flagsp: *mut c_int,
    ) -> c_int {
        let flags = if flagsp.is_null() {
            0
        } else {
            *Kp::new(flagsp)
        };
        receive_generic(Kp::new(so), Kp::new(uio), flags as u32)
    }

    pub(super) extern "C" fn sosend(
        so: Kp<sys::socket>,
        _addr: *mut sys::sockaddr,
        uio: *mut sys::uio,
        top: *mut sys::mbuf,
        control: *mut sys::mbuf,
        flags: c_int,
        td: *mut sys::thread,
    ) -> c_int {
        let Some(f) = so.proto().pr_sosend else {
            return sys::EOPNOTSUPP as i32;
        };
        // SAFETY: the caller's arguments, passed on to the socket's own protocol.
        unsafe { f(so.ptr(), std::ptr::null_mut(), uio, top, control, flags, td) }
    }

    pub(super) extern "C" fn soreceive(
        so: Kp<sys::socket>,
        paddr: *mut *mut sys::sockaddr,
        uio: *mut sys::uio,
        mp0: *mut *mut sys::mbuf,
        controlp: *mut *mut sys::mbuf,
        flagsp: *mut c_int,
    ) -> c_int {
        let Some(f) = so.proto().pr_soreceive else {
            return sys::EOPNOTSUPP as i32;
        };
        // SAFETY: the caller's arguments, passed on to the socket's own protocol.
        unsafe { f(so.ptr(), paddr, uio, mp0, controlp, flagsp) }
    }
}

/// Readiness for poll(2).
pub(crate) fn ready(so: Kp<sys::socket>, which: Which) -> bool {
    match which {
        Which::Rcv => socket::readable(so),
        Which::Snd => socket::writable(so),
    }
}

crate::exports! {
    "sosend" => c::sosend,
    "sosend_generic" => c::sosend_generic,
    "soreceive" => c::soreceive,
    "soreceive_generic" => c::soreceive_generic,
}
