//! Socket options.

use std::time::Duration;

use crate::kp::Kp;
use crate::net::acc::{SockbufExt, SocketExt, Which};
use crate::net::{k, sockbuf};
use crate::proc::api::{SockOpt, SockOptName};
use crate::proc::{Errno, Sys, to_sbt};
use crate::{sys, vnet};

fn option(so: Kp<sys::socket>, flag: u32, on: bool) {
    let mut s = so;
    k::mtx_lock(so.lock_mtx());
    if on {
        s.so_options |= flag as i32;
    } else {
        s.so_options &= !(flag as i32);
    }
    k::mtx_unlock(so.lock_mtx());
}

/// SO_RCVBUF and SO_SNDBUF: fixed from now on.
fn set_hiwat(so: Kp<sys::socket>, which: Which, n: u32) -> Sys<()> {
    if n == 0 {
        return Err(Errno::EINVAL);
    }
    if so.listening() {
        let mut sol = so.sol();
        let auto = !(sys::SB_AUTOSIZE as i16);
        match which {
            Which::Rcv => {
                (sol.sol_sbrcv_hiwat, sol.sol_sbrcv_flags) = (n, sol.sol_sbrcv_flags & auto)
            }
            Which::Snd => {
                (sol.sol_sbsnd_hiwat, sol.sol_sbsnd_flags) = (n, sol.sol_sbsnd_flags & auto)
            }
        }
        return Ok(());
    }
    k::mtx_lock(so.sb_mtx(which));
    let ok = sockbuf::reserve_locked(so, which, u64::from(n));
    so.sb(which).set_flags(0, sys::SB_AUTOSIZE);
    k::mtx_unlock(so.sb_mtx(which));
    if ok { Ok(()) } else { Err(Errno::ENOBUFS) }
}

fn set_lowat(so: Kp<sys::socket>, which: Which, n: u32) -> Sys<()> {
    if n == 0 {
        return Err(Errno::EINVAL);
    }
    if so.listening() {
        let mut sol = so.sol();
        match which {
            Which::Rcv => sol.sol_sbrcv_lowat = n as i32,
            Which::Snd => sol.sol_sbsnd_lowat = n as i32,
        }
        return Ok(());
    }
    k::mtx_lock(so.sb_mtx(which));
    let mut sb = so.sb(which);
    sb.sb_lowat = n.min(sb.sb_hiwat);
    k::mtx_unlock(so.sb_mtx(which));
    Ok(())
}

fn set_timeo(so: Kp<sys::socket>, which: Which, d: Duration) -> Sys<()> {
    if so.listening() {
        let mut sol = so.sol();
        match which {
            Which::Rcv => sol.sol_sbrcv_timeo = to_sbt(d),
            Which::Snd => sol.sol_sbsnd_timeo = to_sbt(d),
        }
        return Ok(());
    }
    so.sb(which).sb_timeo = to_sbt(d);
    Ok(())
}

fn tcp_option(so: Kp<sys::socket>, name: u32, value: i32, set: bool) -> Sys<i32> {
    let mut val = value;
    // SAFETY: plain C data.
    let mut sopt: sys::sockopt = unsafe { std::mem::zeroed() };
    sopt.sopt_dir = if set { sys::SOPT_SET } else { sys::SOPT_GET };
    sopt.sopt_level = sys::IPPROTO_TCP as i32;
    sopt.sopt_name = name as i32;
    sopt.sopt_val = (&raw mut val).cast();
    sopt.sopt_valsize = size_of::<i32>();
    let Some(f) = so.proto().pr_ctloutput else {
        return Err(Errno::ENOPROTOOPT);
    };
    let e = vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol; the option and its value outlive the call.
        unsafe { f(so.ptr(), &raw mut sopt) }
    });
    Errno::check(e)?;
    Ok(val)
}

pub(super) fn setsockopt(so: Kp<sys::socket>, o: SockOpt) -> Sys<()> {
    match o {
        SockOpt::RcvBuf(n) => set_hiwat(so, Which::Rcv, n),
        SockOpt::SndBuf(n) => set_hiwat(so, Which::Snd, n),
        SockOpt::RcvLowat(n) => set_lowat(so, Which::Rcv, n),
        SockOpt::SndLowat(n) => set_lowat(so, Which::Snd, n),
        SockOpt::RcvTimeo(d) => set_timeo(so, Which::Rcv, d),
        SockOpt::SndTimeo(d) => set_timeo(so, Which::Snd, d),
        SockOpt::Linger(l) => {
            let mut s = so;
            s.so_linger = l.unwrap_or(0) as i16;
            option(so, sys::SO_LINGER, l.is_some());
            Ok(())
        }
        SockOpt::NoSigpipe(on) => {
            option(so, sys::SO_NOSIGPIPE, on);
            Ok(())
        }
        SockOpt::ReuseAddr(on) => {
            option(so, sys::SO_REUSEADDR, on);
            Ok(())
        }
        SockOpt::KeepAlive(on) => {
            option(so, sys::SO_KEEPALIVE, on);
            Ok(())
        }
        SockOpt::NoOffload(on) => {
            option(so, sys::SO_NO_OFFLOAD, on);
            Ok(())
        }
        SockOpt::NoDdp(on) => {
            option(so, sys::SO_NO_DDP, on);
            Ok(())
        }
        SockOpt::NoDelay(on) => tcp_option(so, sys::TCP_NODELAY, i32::from(on), true).map(|_| ()),
        SockOpt::NoPush(on) => tcp_option(so, sys::TCP_NOPUSH, i32::from(on), true).map(|_| ()),
    }
}

pub(super) fn getsockopt(mut so: Kp<sys::socket>, o: SockOptName) -> Sys<i64> {
    let l = so.listening();
    let sol = so.sol();
    Ok(match o {
        SockOptName::Error => {
            let n = std::mem::take(&mut so.so_error);
            if n != 0 {
                i64::from(n)
            } else {
                i64::from(std::mem::take(&mut so.so_rerror))
            }
        }
        SockOptName::RcvBuf => i64::from(if l {
            sol.sol_sbrcv_hiwat
        } else {
            so.rcv().sb_hiwat
        }),
        SockOptName::SndBuf => i64::from(if l {
            sol.sol_sbsnd_hiwat
        } else {
            so.snd().sb_hiwat
        }),
        SockOptName::RcvLowat => i64::from(if l {
            sol.sol_sbrcv_lowat as u32
        } else {
            so.rcv().sb_lowat
        }),
        SockOptName::SndLowat => i64::from(if l {
            sol.sol_sbsnd_lowat as u32
        } else {
            so.snd().sb_lowat
        }),
        SockOptName::AcceptConn => i64::from(l),
        SockOptName::NoDelay => i64::from(tcp_option(so, sys::TCP_NODELAY, 0, false)?),
        SockOptName::MaxSeg => i64::from(tcp_option(so, sys::TCP_MAXSEG, 0, false)?),
    })
}
