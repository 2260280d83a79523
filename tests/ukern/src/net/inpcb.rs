//! Protocol control blocks: making, finding, binding, references (in_pcb.c).
//!
//! A pcb is the front of its `struct tcpcb`. It lives while `inp_refcount` is not zero; the
//! socket's reference is dropped by [`free`]. `inp_lock` ("tcpinp") comes before every socket lock.

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::acc::{InpExt, at, inc_faddr, inc_laddr};
use crate::net::{k, route};
use crate::{kpanic, sched, sys, vnet};

/// `INP_FREED`, private to in_pcb.c.
const INP_FREED: u32 = 0x0000_0200;

/// First and last port handed out by the kernel (net.inet.ip.portrange).
const ANON: std::ops::RangeInclusive<u16> = 10_000..=65_535;

static TCBINFO: KData = KData::vnet::<sys::inpcbinfo>("vnet_entry_tcbinfo");
static ALL: Global<Vec<Kp<sys::inpcb>>> = Global::new("tcp pcbs");

crate::exports_data! { TCBINFO }

/// `V_tcbinfo` of a stack.
pub(crate) fn tcbinfo(v: *mut sys::vnet) -> Kp<sys::inpcbinfo> {
    vnet::var_of(v, &TCBINFO)
}

pub(crate) fn boot() {
    ALL.init(Vec::new());
}

pub(crate) fn shutdown() {
    ALL.take();
}

/// Per-stack part of boot.
pub(crate) fn boot_vnet(v: *mut sys::vnet) {
    let mut pi = tcbinfo(v);
    pi.ipi_vnet = v;
    k::mtx_init(at!(pi, ipi_lock), c"tcp", 0);
    k::mtx_init(at!(pi, ipi_hash_lock), c"pcbinfohash", 0);
}

/// Every pcb there is, of every stack.
pub(crate) fn all() -> Vec<Kp<sys::inpcb>> {
    ALL.with(|a| a.clone())
}

/// The stack a pcb belongs to (`inp_vnet`).
pub(crate) fn vnet_of(inp: Kp<sys::inpcb>) -> *mut sys::vnet {
    Kp::new(inp.inp_pcbinfo).ipi_vnet
}

/// `in_pcballoc`: a pcb (with its zeroed tcpcb) for the socket; returned write-locked.
pub(crate) fn alloc(mut so: Kp<sys::socket>) -> Option<Kp<sys::inpcb>> {
    let mut tp: Kp<sys::tcpcb> = k::zalloc(&k::M_TCPCB, "inpcb")?;
    let mut inp: Kp<sys::inpcb> = Kp::new(tp.ptr().cast());
    k::rw_init(inp.lock_rw(), c"tcpinp", sys::RW_RECURSE | sys::RW_DUPOK);
    let mut pi = tcbinfo(so.so_vnet);
    inp.inp_pcbinfo = pi.ptr();
    inp.inp_socket = so.ptr();
    inp.inp_cred = k::crhold(so.so_cred);
    inp.inp_vflag = sys::INP_IPV4 as u8;
    inp.inp_ip_ttl = 64;
    inp.inp_ip_p = sys::IPPROTO_TCP as u8;
    inp.inp_refcount = 1;
    tp.t_inpcb.inp_numa_domain = 0xff;
    pi.ipi_count += 1;
    pi.ipi_gencnt += 1;
    inp.inp_gencnt = pi.ipi_gencnt;
    so.so_pcb = inp.ptr().cast();
    ALL.with(|a| a.push(inp));
    k::wlock(inp.lock_rw());
    Some(inp)
}

/// `in_pcbref`: pcb locked either way, or otherwise kept.
pub(crate) fn hold(mut inp: Kp<sys::inpcb>) {
    if inp.inp_refcount == 0 {
        kpanic!("in_pcbref of a dead pcb");
    }
    inp.inp_refcount += 1;
}

/// `in_pcbrele_wlocked`: drops a reference; true when it was the last, the lock then is gone
/// with the pcb.
pub(crate) fn rele_wlocked(mut inp: Kp<sys::inpcb>) -> bool {
    k::assert_wlocked(inp.lock_rw());
    if inp.inp_refcount == 0 {
        kpanic!("in_pcbrele: no references");
    }
    inp.inp_refcount -= 1;
    if inp.inp_refcount > 0 {
        return false;
    }
    if inp.flags() & INP_FREED == 0 || !inp.inp_socket.is_null() {
        kpanic!("in_pcbrele: last reference of a pcb that was not freed");
    }
    k::crfree(inp.inp_cred);
    k::wunlock(inp.lock_rw());
    k::rw_destroy(inp.lock_rw());
    crate::net::tcp_timer::forget(inp.tp());
    k::free(inp.tp(), &k::M_TCPCB);
    true
}

/// `in_pcbfree`: off all lists and away from its socket; drops the socket's reference and the lock.
pub(crate) fn free(mut inp: Kp<sys::inpcb>) {
    k::assert_wlocked(inp.lock_rw());
    if inp.inp_socket.is_null() || inp.flags() & INP_FREED != 0 {
        kpanic!("in_pcbfree: called twice");
    }
    let mut pi = Kp::new(inp.inp_pcbinfo);
    pi.ipi_gencnt += 1;
    pi.ipi_count -= 1;
    ALL.with(|a| a.retain(|&x| x != inp));
    inp.inp_vflag = 0;
    inp.set_flags(INP_FREED, sys::INP_INHASHLIST);
    let mut so = inp.so();
    so.so_pcb = std::ptr::null_mut();
    inp.inp_socket = std::ptr::null_mut();
    if !rele_wlocked(inp) {
        k::wunlock(inp.lock_rw());
    }
}

/// `in_pcbdrop`: the connection is over; the pcb can no longer be found.
pub(crate) fn drop(inp: Kp<sys::inpcb>) {
    k::assert_wlocked(inp.lock_rw());
    inp.set_flags(sys::INP_DROPPED, sys::INP_INHASHLIST);
}

fn hashed(inp: Kp<sys::inpcb>) -> bool {
    inp.flags() & sys::INP_INHASHLIST != 0
}

fn lport(inp: Kp<sys::inpcb>) -> u16 {
    inp.inp_inc.inc_ie.ie_lport
}

fn fport(inp: Kp<sys::inpcb>) -> u16 {
    inp.inp_inc.inc_ie.ie_fport
}

/// A 4-tuple in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tuple {
    pub(crate) laddr: u32,
    pub(crate) lport: u16,
    pub(crate) faddr: u32,
    pub(crate) fport: u16,
}

impl Tuple {
    pub(crate) fn of_inc(inc: &sys::in_conninfo) -> Tuple {
        Tuple {
            laddr: inc_laddr(inc),
            lport: inc.inc_ie.ie_lport,
            faddr: inc_faddr(inc),
            fport: inc.inc_ie.ie_fport,
        }
    }

    pub(crate) fn of(inp: Kp<sys::inpcb>) -> Tuple {
        Tuple::of_inc(&inp.inp_inc)
    }
}

/// The connection with exactly this 4-tuple, unlocked.
pub(crate) fn find_exact(v: *mut sys::vnet, t: Tuple) -> Option<Kp<sys::inpcb>> {
    ALL.with(|a| {
        a.iter().copied().find(|&i| {
            std::ptr::eq(vnet_of(i), v) && hashed(i) && t.fport != 0 && Tuple::of(i) == t
        })
    })
}

/// The listener for a local end, a bound address before the wildcard, unlocked.
pub(crate) fn find_listener(v: *mut sys::vnet, laddr: u32, port: u16) -> Option<Kp<sys::inpcb>> {
    ALL.with(|a| {
        let fits = |i: &Kp<sys::inpcb>| {
            std::ptr::eq(vnet_of(*i), v) && hashed(*i) && fport(*i) == 0 && lport(*i) == port
        };
        let exact = a.iter().copied().filter(fits).find(|i| i.laddr() == laddr);
        exact.or_else(|| a.iter().copied().filter(fits).find(|i| i.laddr() == 0))
    })
}

/// Locks what a lookup found, unless it went away while waiting for the lock.
pub(crate) fn lock_found(inp: Kp<sys::inpcb>, write: bool) -> Option<Kp<sys::inpcb>> {
    hold(inp);
    k::wlock(inp.lock_rw());
    if rele_wlocked(inp) {
        return None;
    }
    if inp.flags() & INP_FREED != 0 {
        k::wunlock(inp.lock_rw());
        return None;
    }
    if !write {
        sched::no_preempt(|| {
            k::wunlock(inp.lock_rw());
            k::rlock(inp.lock_rw());
        });
    }
    Some(inp)
}

fn wild_conflict(inp: Kp<sys::inpcb>, laddr: u32, port: u16, reuse: bool) -> bool {
    let v = vnet_of(inp);
    ALL.with(|a| {
        a.iter().any(|&t| {
            if t == inp || !std::ptr::eq(vnet_of(t), v) || !hashed(t) || lport(t) != port {
                return false;
            }
            if reuse {
                // Only a socket bound to the very same end and not connected is in the way.
                fport(t) == 0 && t.laddr() == laddr
            } else {
                t.laddr() == laddr || t.laddr() == 0 || laddr == 0
            }
        })
    })
}

fn anon_port(inp: Kp<sys::inpcb>, laddr: u32, remote: Option<(u32, u16)>) -> Option<u16> {
    let n = usize::from(*ANON.end() - *ANON.start()) + 1;
    let first = sched::random_below(n);
    let v = vnet_of(inp);
    (0..n)
        .map(|i| (*ANON.start() + ((first + i) % n) as u16).to_be())
        .find(|&p| match remote {
            None => !wild_conflict(inp, laddr, p, false),
            Some((faddr, fport)) => {
                find_exact(
                    v,
                    Tuple {
                        laddr,
                        lport: p,
                        faddr,
                        fport,
                    },
                )
                .is_none()
                    && !wild_conflict(inp, laddr, p, false)
            }
        })
}

/// `in_pcbbind`: `laddr` and `port` in network order, 0 for any. pcb write-locked.
pub(crate) fn bind(mut inp: Kp<sys::inpcb>, laddr: u32, port: u16) -> i32 {
    k::assert_wlocked(inp.lock_rw());
    if lport(inp) != 0 || inp.laddr() != 0 {
        return sys::EINVAL as i32;
    }
    if laddr != 0 && !route::is_local(vnet_of(inp), laddr) {
        return sys::EADDRNOTAVAIL as i32;
    }
    let reuse = inp.so().so_options as u32 & (sys::SO_REUSEADDR | sys::SO_REUSEPORT) != 0;
    let port = if port != 0 {
        if wild_conflict(inp, laddr, port, reuse) {
            return sys::EADDRINUSE as i32;
        }
        port
    } else {
        match anon_port(inp, laddr, None) {
            Some(p) => p,
            None => return sys::EADDRNOTAVAIL as i32,
        }
    };
    inp.set_laddr(laddr);
    inp.inp_inc.inc_ie.ie_lport = port;
    inp.set_flags(sys::INP_INHASHLIST, 0);
    0
}

/// `in_pcbconnect`: fills in the 4-tuple. pcb write-locked.
pub(crate) fn connect(mut inp: Kp<sys::inpcb>, faddr: u32, fport: u16) -> i32 {
    k::assert_wlocked(inp.lock_rw());
    if fport == 0 {
        return sys::EADDRNOTAVAIL as i32;
    }
    if inp.faddr() != 0 {
        return sys::EISCONN as i32;
    }
    let v = vnet_of(inp);
    let mut laddr = inp.laddr();
    if laddr == 0 {
        laddr = match route::source_for(v, faddr) {
            Some(a) => a,
            None => return sys::ENETUNREACH as i32,
        };
    }
    let lp = match lport(inp) {
        0 => match anon_port(inp, laddr, Some((faddr, fport))) {
            Some(p) => p,
            None => return sys::EADDRNOTAVAIL as i32,
        },
        p => {
            if find_exact(
                v,
                Tuple {
                    laddr,
                    lport: p,
                    faddr,
                    fport,
                },
            )
            .is_some()
            {
                return sys::EADDRINUSE as i32;
            }
            p
        }
    };
    inp.set_laddr(laddr);
    inp.inp_inc.inc_ie.ie_lport = lp;
    inp.set_faddr(faddr);
    inp.inp_inc.inc_ie.ie_fport = fport;
    inp.set_flags(sys::INP_INHASHLIST, 0);
    0
}

mod c {
    use super::*;
    use std::ffi::{c_int, c_void};

    pub(super) extern "C" fn in_pcbref(inp: Kp<sys::inpcb>) {
        hold(inp);
    }
    pub(super) extern "C" fn in_pcbrele_wlocked(inp: Kp<sys::inpcb>) -> bool {
        rele_wlocked(inp)
    }
    pub(super) extern "C" fn inp_wlock(inp: Kp<sys::inpcb>) {
        k::wlock(inp.lock_rw());
    }
    pub(super) extern "C" fn inp_wunlock(inp: Kp<sys::inpcb>) {
        k::wunlock(inp.lock_rw());
    }
    pub(super) extern "C" fn inp_rlock(inp: Kp<sys::inpcb>) {
        k::rlock(inp.lock_rw());
    }
    pub(super) extern "C" fn inp_runlock(inp: Kp<sys::inpcb>) {
        k::runlock(inp.lock_rw());
    }
    pub(super) extern "C" fn inp_inpcbtosocket(inp: Kp<sys::inpcb>) -> *mut sys::socket {
        k::assert_wlocked(inp.lock_rw());
        inp.inp_socket
    }
    pub(super) extern "C" fn inp_4tuple_get(
        inp: Kp<sys::inpcb>,
        laddr: Kp<u32>,
        lp: Kp<u16>,
        faddr: Kp<u32>,
        fp: Kp<u16>,
    ) {
        k::assert_held(inp.lock_rw());
        let (mut a, mut b, mut c, mut d) = (laddr, lp, faddr, fp);
        let t = Tuple::of(inp);
        (*a, *b, *c, *d) = (t.laddr, t.lport, t.faddr, t.fport);
    }
    pub(super) extern "C" fn inp_apply_all(
        pi: Kp<sys::inpcbinfo>,
        func: extern "C" fn(*mut sys::inpcb, *mut c_void),
        arg: *mut c_void,
    ) {
        for inp in all() {
            if !std::ptr::eq(inp.inp_pcbinfo, pi.ptr()) {
                continue;
            }
            if let Some(inp) = lock_found(inp, true) {
                func(inp.ptr(), arg);
                k::wunlock(inp.lock_rw());
            }
        }
    }
    pub(super) extern "C" fn in_pcblookup(
        pi: Kp<sys::inpcbinfo>,
        faddr: sys::in_addr,
        fp: u32,
        laddr: sys::in_addr,
        lp: u32,
        flags: c_int,
        _ifp: *mut sys::ifnet,
    ) -> *mut sys::inpcb {
        let flags = flags as u32;
        let t = Tuple {
            laddr: laddr.s_addr,
            lport: lp as u16,
            faddr: faddr.s_addr,
            fport: fp as u16,
        };
        let mut found = find_exact(pi.ipi_vnet, t);
        if found.is_none() && flags & sys::INPLOOKUP_WILDCARD != 0 {
            found = find_listener(pi.ipi_vnet, t.laddr, t.lport);
        }
        let write = flags & sys::INPLOOKUP_WLOCKPCB != 0;
        found
            .and_then(|i| lock_found(i, write))
            .map_or(std::ptr::null_mut(), Kp::ptr)
    }
}

crate::exports! {
    "in_pcbref" => c::in_pcbref,
    "in_pcbrele_wlocked" => c::in_pcbrele_wlocked,
    "inp_wlock" => c::inp_wlock,
    "inp_wunlock" => c::inp_wunlock,
    "inp_rlock" => c::inp_rlock,
    "inp_runlock" => c::inp_runlock,
    "inp_inpcbtosocket" => c::inp_inpcbtosocket,
    "inp_4tuple_get" => c::inp_4tuple_get,
    "inp_apply_all" => c::inp_apply_all,
    "in_pcblookup" => c::in_pcblookup,
}
