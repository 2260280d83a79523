//! The builtin module `toecore`: the register of TOE devices and what drivers ask of the kernel.

use std::ffi::{c_int, c_void};

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::acc::{InpExt, TcpcbExt};
use crate::net::inpcb::{self, Tuple};
use crate::net::tailq::{Tailq, tailq};
use crate::net::{k, route, syncache, tcp_subr, tcp_timer, tcp_usrreq, tcp_vars};
use crate::{kpanic, sched, sys, vnet};

static TOEDEV_LOCK: KData = KData::of::<sys::mtx>("ukern_toedev_lock");
static TOEDEV_LIST: KData = KData::of::<[usize; 2]>("ukern_toedev_list");

crate::exports_data! { TOEDEV_LOCK, TOEDEV_LIST }

/// toe_l2_resolve's answers under test control.
#[derive(Default)]
struct L2 {
    /// Interfaces (by address) whose resolutions wait.
    held: Vec<usize>,
    /// What waits: (toedev, ifnet, address).
    waiting: Vec<(usize, usize, u32)>,
}

static L2: Global<L2> = Global::new("toe l2");

fn lock() -> *mut sys::mtx {
    TOEDEV_LOCK.get::<sys::mtx>().ptr()
}

fn list() -> Tailq<sys::toedev> {
    tailq!(TOEDEV_LIST.get::<[usize; 2]>().ptr(), sys::toedev, link)
}

pub(crate) fn boot() {
    k::mtx_init(lock(), c"toedev lock", 0);
    list().init();
    L2.init(L2::default());
}

pub(crate) fn shutdown() {
    L2.take();
}

/// `registered_toedevs`.
pub(crate) fn registered() -> i32 {
    *tcp_vars::REGISTERED_TOEDEVS.get::<i32>()
}

fn for_each(only: Option<Kp<sys::toedev>>, f: impl Fn(Kp<sys::toedev>)) {
    k::mtx_lock(lock());
    for tod in list().to_vec() {
        if only.is_none_or(|t| t == tod) {
            f(tod);
        }
    }
    k::mtx_unlock(lock());
}

fn start_on(tod: Kp<sys::toedev>, tp: Kp<sys::tcpcb>) {
    let Some(f) = tod.tod_listen_start else {
        kpanic!("tod_listen_start is NULL")
    };
    // SAFETY: the driver's method, pcb write-locked and toedev lock held as its contract says.
    unsafe { f(tod.ptr(), tp.ptr()) };
}

/// toecore's handler of `tcp_offload_listen_start`.
pub(crate) fn listen_start_event(tp: Kp<sys::tcpcb>) {
    k::assert_wlocked(tp.inp().lock_rw());
    if tp.st() != sys::TCPS_LISTEN {
        kpanic!(
            "tcp_offload_listen_start in state {}",
            tcp_subr::STATES[tp.st() as usize]
        );
    }
    for_each(None, |tod| start_on(tod, tp));
}

/// toecore's handler of `tcp_offload_listen_stop`.
pub(crate) fn listen_stop_event(tp: Kp<sys::tcpcb>) {
    k::assert_wlocked(tp.inp().lock_rw());
    if tp.st() != sys::TCPS_LISTEN {
        kpanic!(
            "tcp_offload_listen_stop in state {}",
            tcp_subr::STATES[tp.st() as usize]
        );
    }
    for_each(None, |tod| {
        let Some(f) = tod.tod_listen_stop else {
            kpanic!("tod_listen_stop is NULL")
        };
        // SAFETY: the driver's method, pcb write-locked and toedev lock held as its contract says.
        unsafe { f(tod.ptr(), tp.ptr()) };
    });
}

/// Listeners that exist when a device arrives are announced to it.
fn announce_listeners(tod: Kp<sys::toedev>) {
    for inp in inpcb::all() {
        let Some(inp) = inpcb::lock_found(inp, true) else {
            continue;
        };
        let tp = inp.tp();
        if !inp.dropped() && tp.st() == sys::TCPS_LISTEN {
            vnet::with_vnet(inpcb::vnet_of(inp), || {
                for_each(Some(tod), |tod| start_on(tod, tp))
            });
        }
        k::wunlock(inp.lock_rw());
    }
}

/// Test control: while held, resolutions on the interface answer EWOULDBLOCK.
pub(crate) fn l2_hold(ifp: Kp<sys::ifnet>, on: bool) {
    L2.with(|l| {
        l.held.retain(|&h| h != ifp.addr());
        if on {
            l.held.push(ifp.addr());
        }
    });
}

/// Test control: answers what waits for `ip` (network order), as lle_event does; `found` false
/// is the entry timing out.
pub(crate) fn l2_answer(ifp: Kp<sys::ifnet>, ip: u32, found: bool) {
    let waiting = L2.with(|l| {
        let (hit, rest): (Vec<_>, Vec<_>) = l
            .waiting
            .iter()
            .partition(|w| w.1 == ifp.addr() && w.2 == ip);
        l.waiting = rest;
        hit
    });
    let mut seen = Vec::new();
    for (tod, _, _) in waiting {
        if seen.contains(&tod) {
            continue;
        }
        seen.push(tod);
        let tod: Kp<sys::toedev> = Kp::new(tod as *mut _);
        let mut sin = sin_of(ip);
        let mut mac = if found {
            route::mac_on_wire(ifp, ip).unwrap_or([0; 6])
        } else {
            [0; 6]
        };
        let lladdr = if found {
            mac.as_mut_ptr()
        } else {
            std::ptr::null_mut()
        };
        let Some(f) = tod.tod_l2_update else {
            kpanic!("tod_l2_update is NULL")
        };
        vnet::with_vnet(ifp.if_vnet, || {
            k::net_epoch(|| {
                // SAFETY: the driver's method; the address and the link-level address outlive the call.
                unsafe { f(tod.ptr(), ifp.ptr(), (&raw mut sin).cast(), lladdr, NO_VLAN) }
            });
        });
    }
}

/// Nobody has the address: the entry times out after as many tries as arp(4) makes.
fn ask_in_vain(tod: Kp<sys::toedev>, ifp: Kp<sys::ifnet>, ip: u32) {
    L2.with(|l| l.waiting.push((tod.addr(), ifp.addr(), ip)));
    sched::spawn_kthread("arp timeout", move || {
        sched::sleep_for(5 * sched::SBT_1S, "arp");
        if L2.with(|l| l.waiting.iter().any(|w| w.1 == ifp.addr() && w.2 == ip)) {
            l2_answer(ifp, ip, false);
        }
    });
}

/// EVL_MAKETAG(0xfff, 0, 0): no VLAN.
const NO_VLAN: u16 = 0x0fff;

fn sin_of(ip: u32) -> sys::sockaddr_in {
    // SAFETY: plain C data.
    let mut sin: sys::sockaddr_in = unsafe { std::mem::zeroed() };
    sin.sin_len = size_of::<sys::sockaddr_in>() as u8;
    sin.sin_family = sys::AF_INET as u8;
    sin.sin_addr.s_addr = ip;
    sin
}

mod defaults {
    //! What `init_toedev` puts where a driver has nothing.
    use super::*;

    pub(super) unsafe extern "C" fn connect(
        _t: *mut sys::toedev,
        _so: *mut sys::socket,
        _nh: *mut sys::nhop_object,
        _nam: *mut sys::sockaddr,
    ) -> c_int {
        sys::ENOTSUP as c_int
    }
    pub(super) unsafe extern "C" fn tp_int(_t: *mut sys::toedev, _tp: *mut sys::tcpcb) -> c_int {
        sys::ENOTSUP as c_int
    }
    pub(super) unsafe extern "C" fn tp_void(_t: *mut sys::toedev, _tp: *mut sys::tcpcb) {}
    pub(super) unsafe extern "C" fn input(
        _t: *mut sys::toedev,
        _tp: *mut sys::tcpcb,
        m: *mut sys::mbuf,
    ) {
        crate::net::m::freem(Kp::new(m));
    }
    pub(super) unsafe extern "C" fn l2_update(
        _t: *mut sys::toedev,
        _ifp: *mut sys::ifnet,
        _sa: *mut sys::sockaddr,
        _ll: *mut u8,
        _vtag: u16,
    ) {
    }
    pub(super) unsafe extern "C" fn route_redirect(
        _t: *mut sys::toedev,
        _ifp: *mut sys::ifnet,
        _a: *mut sys::nhop_object,
        _b: *mut sys::nhop_object,
    ) {
    }
    pub(super) unsafe extern "C" fn ctx_void(_t: *mut sys::toedev, _ctx: *mut c_void) {}
    pub(super) unsafe extern "C" fn respond(
        _t: *mut sys::toedev,
        _c: *mut c_void,
        m: *mut sys::mbuf,
    ) -> c_int {
        crate::net::m::freem(Kp::new(m));
        0
    }
    pub(super) unsafe extern "C" fn offload_socket(
        _t: *mut sys::toedev,
        _c: *mut c_void,
        _so: *mut sys::socket,
    ) {
    }
    pub(super) unsafe extern "C" fn ctloutput(
        _t: *mut sys::toedev,
        _tp: *mut sys::tcpcb,
        _d: c_int,
        _n: c_int,
    ) {
    }
    pub(super) unsafe extern "C" fn tcp_info(
        _t: *mut sys::toedev,
        _tp: *const sys::tcpcb,
        _ti: *mut sys::tcp_info,
    ) {
    }
    pub(super) unsafe extern "C" fn tls(
        _t: *mut sys::toedev,
        _tp: *mut sys::tcpcb,
        _s: *mut sys::ktls_session,
        _d: c_int,
    ) -> c_int {
        sys::EINVAL as c_int
    }
    pub(super) unsafe extern "C" fn pmtu(
        _t: *mut sys::toedev,
        _tp: *mut sys::tcpcb,
        _seq: u32,
        _mtu: c_int,
    ) {
    }
}

pub(crate) mod c {
    use super::*;

    pub(crate) extern "C" fn init_toedev(tod: Kp<sys::toedev>) {
        let mut t = tod;
        t.tod_softc = std::ptr::null_mut();
        t.tod_connect = Some(defaults::connect);
        t.tod_listen_start = Some(defaults::tp_int);
        t.tod_listen_stop = Some(defaults::tp_int);
        t.tod_input = Some(defaults::input);
        t.tod_rcvd = Some(defaults::tp_void);
        t.tod_output = Some(defaults::tp_int);
        t.tod_send_rst = Some(defaults::tp_int);
        t.tod_send_fin = Some(defaults::tp_int);
        t.tod_pcb_detach = Some(defaults::tp_void);
        t.tod_l2_update = Some(defaults::l2_update);
        t.tod_route_redirect = Some(defaults::route_redirect);
        t.tod_syncache_added = Some(defaults::ctx_void);
        t.tod_syncache_removed = Some(defaults::ctx_void);
        t.tod_syncache_respond = Some(defaults::respond);
        t.tod_offload_socket = Some(defaults::offload_socket);
        t.tod_ctloutput = Some(defaults::ctloutput);
        t.tod_tcp_info = Some(defaults::tcp_info);
        t.tod_alloc_tls_session = Some(defaults::tls);
        t.tod_pmtu_update = Some(defaults::pmtu);
    }

    pub(crate) extern "C" fn register_toedev(tod: Kp<sys::toedev>) -> c_int {
        k::mtx_lock(lock());
        if list().contains(tod) {
            k::mtx_unlock(lock());
            return sys::EEXIST as c_int;
        }
        list().push_back(tod);
        *tcp_vars::REGISTERED_TOEDEVS.get::<i32>() += 1;
        k::mtx_unlock(lock());
        announce_listeners(tod);
        0
    }

    pub(crate) extern "C" fn unregister_toedev(tod: Kp<sys::toedev>) -> c_int {
        k::mtx_lock(lock());
        let found = list().contains(tod);
        if found {
            list().remove(tod);
            *tcp_vars::REGISTERED_TOEDEVS.get::<i32>() -= 1;
        }
        k::mtx_unlock(lock());
        if found {
            L2.with(|l| l.waiting.retain(|w| w.0 != tod.addr()));
            0
        } else {
            sys::ENODEV as c_int
        }
    }

    pub(crate) extern "C" fn toe_syncache_add(
        inc: Kp<sys::in_conninfo>,
        to: Kp<sys::tcpopt>,
        th: Kp<sys::tcphdr>,
        inp: Kp<sys::inpcb>,
        tod: *mut c_void,
        todctx: *mut c_void,
        iptos: u8,
    ) {
        syncache::add(inc, to, th, inp, tod.cast(), todctx, iptos);
    }

    pub(crate) extern "C" fn toe_syncache_expand(
        inc: Kp<sys::in_conninfo>,
        to: Kp<sys::tcpopt>,
        th: Kp<sys::tcphdr>,
        lsop: Kp<*mut sys::socket>,
    ) -> c_int {
        k::assert_net_epoch();
        syncache::expand(inc, to, th, lsop)
    }

    pub(crate) extern "C" fn syncache_chkrst(
        inc: Kp<sys::in_conninfo>,
        th: Kp<sys::tcphdr>,
        _m: *mut c_void,
        _port: u16,
    ) {
        syncache::reset(inc, th);
    }

    pub(crate) extern "C" fn toe_4tuple_check(
        inc: Kp<sys::in_conninfo>,
        th: *mut sys::tcphdr,
        _ifp: *mut sys::ifnet,
    ) -> c_int {
        let Some(found) = inpcb::find_exact(vnet::curvnet(), Tuple::of_inc(&inc)) else {
            return 0;
        };
        let Some(inp) = inpcb::lock_found(found, true) else {
            return 0;
        };
        let tp = inp.tp();
        let in_use = sys::EADDRINUSE as c_int;
        let Some(th) = Kp::opt(th) else {
            k::wunlock(inp.lock_rw());
            return in_use;
        };
        if tp.st() != sys::TCPS_TIME_WAIT {
            k::wunlock(inp.lock_rw());
            return in_use;
        }
        // tcp_twcheck: a new SYN beyond the old connection's sequence space ends TIME_WAIT.
        let newer = th.th_seq.wrapping_sub(tp.rcv_nxt) as i32 > 0;
        if th.th_flags & sys::TH_SYN as u8 != 0 && newer {
            if tcp_subr::close(tp).is_some() {
                k::wunlock(inp.lock_rw());
            }
            return 0;
        }
        k::wunlock(inp.lock_rw());
        in_use
    }

    pub(crate) extern "C" fn toe_l2_resolve(
        tod: Kp<sys::toedev>,
        ifp: Kp<sys::ifnet>,
        sa: Kp<sys::sockaddr>,
        lladdr: *mut u8,
        vtag: Kp<u16>,
    ) -> c_int {
        if u32::from(sa.sa_family) != sys::AF_INET {
            return sys::EPROTONOSUPPORT as c_int;
        }
        let ip = Kp::<sys::sockaddr_in>::new(sa.ptr().cast()).sin_addr.s_addr;
        let held = L2.with(|l| {
            let held = l.held.contains(&ifp.addr());
            if held {
                l.waiting.push((tod.addr(), ifp.addr(), ip));
            }
            held
        });
        if held {
            return sys::EWOULDBLOCK as c_int;
        }
        let Some(mac) = route::mac_on_wire(ifp, ip) else {
            ask_in_vain(tod, ifp, ip);
            return sys::EWOULDBLOCK as c_int;
        };
        crate::kp::bytes_mut(lladdr, 6).copy_from_slice(&mac);
        let mut vtag = vtag;
        *vtag = NO_VLAN;
        0
    }

    pub(crate) extern "C" fn toe_connect_failed(
        tod: Kp<sys::toedev>,
        inp: Kp<sys::inpcb>,
        err: c_int,
    ) {
        k::assert_net_epoch();
        k::assert_wlocked(inp.lock_rw());
        if inp.dropped() {
            return;
        }
        let tp = inp.tp();
        if !tp.toe() {
            kpanic!("toe_connect_failed: connection is not offloaded");
        }
        if err == sys::EAGAIN as c_int {
            let Some(f) = tod.tod_pcb_detach else {
                kpanic!("tod_pcb_detach is NULL")
            };
            // SAFETY: the driver's own method on its connection, pcb write-locked.
            unsafe { f(tod.ptr(), tp.ptr()) };
            if tp.toe() {
                kpanic!("toe_connect_failed: still offloaded after tod_pcb_detach");
            }
            tcp_timer::activate(tp, sys::TT_KEEP, tcp_usrreq::keepinit(tp));
            tcp_subr::output(tp);
        } else if tcp_subr::drop(tp, err).is_none() {
            k::wlock(inp.lock_rw());
        }
    }

    pub(super) extern "C" fn tcp_offload_listen_start(tp: Kp<sys::tcpcb>) {
        crate::net::offload::listen_start(tp);
    }
    pub(super) extern "C" fn tcp_offload_listen_stop(tp: Kp<sys::tcpcb>) {
        crate::net::offload::listen_stop(tp);
    }
}

crate::exports! {
    "init_toedev" => c::init_toedev,
    "register_toedev" => c::register_toedev,
    "unregister_toedev" => c::unregister_toedev,
    "toe_syncache_add" => c::toe_syncache_add,
    "toe_syncache_expand" => c::toe_syncache_expand,
    "syncache_chkrst" => c::syncache_chkrst,
    "toe_4tuple_check" => c::toe_4tuple_check,
    "toe_l2_resolve" => c::toe_l2_resolve,
    "toe_connect_failed" => c::toe_connect_failed,
    "tcp_offload_listen_start" => c::tcp_offload_listen_start,
    "tcp_offload_listen_stop" => c::tcp_offload_listen_stop,
}
