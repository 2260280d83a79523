//! Network interfaces: the opaque `if_t` of FreeBSD 15 over the real `struct ifnet`.

use std::ffi::{c_char, c_int, c_ulong, c_void};

use crate::global::Global;
use crate::kmem::{self, M_IFNET};
use crate::kp::{Kp, bytes, cstr};
use crate::net::acc::at;
use crate::net::k;
use crate::{kpanic, sys, vnet};

/// An IPv4 address of an interface, network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Addr {
    pub(crate) ip: u32,
    pub(crate) mask: u32,
}

struct Entry {
    ifp: Kp<sys::ifnet>,
    attached: bool,
    addrs: Vec<Addr>,
    mac: [u8; 6],
    /// The next hop of its connected routes.
    nh: Kp<sys::nhop_object>,
    /// Frames `if_input` brought that nobody here takes.
    frames_in: u64,
}

static IFS: Global<Vec<Entry>> = Global::new("interfaces");

pub(crate) fn boot() {
    IFS.init(Vec::new());
}

pub(crate) fn shutdown() {
    IFS.take();
}

fn with<R>(ifp: Kp<sys::ifnet>, f: impl FnOnce(&mut Entry) -> R) -> R {
    match IFS.with(|all| all.iter_mut().find(|e| e.ifp == ifp).map(f)) {
        Some(r) => r,
        None => kpanic!("{:#x} is no interface", ifp.addr()),
    }
}

/// `if_alloc`: never fails.
pub(crate) fn alloc(type_: u8) -> Kp<sys::ifnet> {
    let mut ifp: Kp<sys::ifnet> = kmem::alloc_zeroed(&M_IFNET);
    let mut nh: Kp<sys::nhop_object> = kmem::alloc_zeroed(&M_IFNET);
    ifp.if_type = type_;
    ifp.if_alloctype = type_;
    ifp.if_refcount = 1;
    ifp.if_vnet = vnet::vnet0();
    ifp.if_home_vnet = vnet::vnet0();
    ifp.if_numa_domain = 0xff;
    ifp.if_pcp = 0xff;
    ifp.if_mtu = 1500;
    ifp.if_index = IFS.with(|a| a.iter().map(|e| e.ifp.if_index).max().unwrap_or(0)) + 1;
    k::mtx_init(at!(ifp, if_addr_lock), c"if_addr_lock", 0);
    k::mtx_init(at!(ifp, if_afdata_lock), c"if_afdata", 0);
    let mut head = Kp::new(at!(ifp, if_addrhead));
    head.cstqh_last = &raw mut head.cstqh_first;
    nh.nh_ifp = ifp.ptr();
    nh.nh_aifp = ifp.ptr();
    nh.nh_mtu = 1500;
    IFS.with(|a| {
        a.push(Entry {
            ifp,
            attached: false,
            addrs: Vec::new(),
            mac: [0; 6],
            nh,
            frames_in: 0,
        });
    });
    ifp
}

/// `if_free`.
pub(crate) fn free(mut ifp: Kp<sys::ifnet>) {
    if ifp.if_refcount == 0 {
        kpanic!("if_free of a dead interface");
    }
    ifp.if_refcount -= 1;
    if ifp.if_refcount > 0 {
        return;
    }
    let nh = with(ifp, |e| {
        if e.attached {
            kpanic!("if_free of an interface that is attached");
        }
        e.nh
    });
    IFS.with(|a| a.retain(|e| e.ifp != ifp));
    k::mtx_destroy(at!(ifp, if_addr_lock));
    k::mtx_destroy(at!(ifp, if_afdata_lock));
    kmem::free_obj(nh, &M_IFNET);
    kmem::free_obj(ifp, &M_IFNET);
}

/// Name as in ifconfig(8).
pub(crate) fn name(ifp: Kp<sys::ifnet>) -> String {
    cstr(ifp.if_xname.as_ptr())
}

/// Every attached interface.
pub(crate) fn all() -> Vec<Kp<sys::ifnet>> {
    IFS.with(|a| a.iter().filter(|e| e.attached).map(|e| e.ifp).collect())
}

/// The attached interface of this name.
pub(crate) fn by_name(want: &str) -> Option<Kp<sys::ifnet>> {
    all().into_iter().find(|i| name(*i) == want)
}

pub(crate) fn addrs(ifp: Kp<sys::ifnet>) -> Vec<Addr> {
    with(ifp, |e| e.addrs.clone())
}

pub(crate) fn mac(ifp: Kp<sys::ifnet>) -> [u8; 6] {
    with(ifp, |e| e.mac)
}

pub(crate) fn nhop(ifp: Kp<sys::ifnet>) -> Kp<sys::nhop_object> {
    with(ifp, |e| {
        e.nh.nh_mtu = e.ifp.if_mtu.min(65_535) as u16;
        e.nh
    })
}

/// Frames handed to the host stack so far. There is no packet TCP here: they are counted and freed.
pub(crate) fn frames_in(ifp: Kp<sys::ifnet>) -> u64 {
    with(ifp, |e| e.frames_in)
}

/// Sets the one IPv4 address.
pub(crate) fn set_addr(ifp: Kp<sys::ifnet>, a: Addr) {
    with(ifp, |e| e.addrs = vec![a]);
    k::event("ifaddr_event", ifp.addr());
}

fn attach(ifp: Kp<sys::ifnet>, lla: [u8; 6]) {
    with(ifp, |e| {
        e.attached = true;
        e.mac = lla;
    });
    k::event("ifnet_arrival_event", ifp.addr());
    k::event("ether_ifattach_event", ifp.addr());
}

fn detach(ifp: Kp<sys::ifnet>) {
    with(ifp, |e| {
        if !e.attached {
            kpanic!("if_detach of an interface that is not attached");
        }
        e.attached = false;
        e.addrs.clear();
    });
    k::event("ifnet_departure_event", ifp.addr());
}

/// Calls the interface's ioctl; EOPNOTSUPP without one. May sleep.
pub(crate) fn ioctl(ifp: Kp<sys::ifnet>, cmd: c_ulong, data: *mut c_void) -> i32 {
    let Some(f) = ifp.if_ioctl else {
        return sys::EOPNOTSUPP as i32;
    };
    vnet::with_vnet(ifp.if_vnet, || {
        // SAFETY: the driver's own method; `data` is what the command calls for.
        unsafe { f(ifp.ptr(), cmd, data.cast()) }
    })
}

/// A loopback interface for a stack.
pub(crate) fn make_loopback(v: *mut sys::vnet) {
    let mut ifp = alloc(sys::IFT_LOOP as u8);
    ifp.if_vnet = v;
    ifp.if_home_vnet = v;
    ifp.if_mtu = 16_384;
    ifp.if_flags = (sys::IFF_UP | sys::IFF_LOOPBACK) as i32;
    for (to, from) in ifp.if_xname.iter_mut().zip(b"lo0") {
        *to = *from as c_char;
    }
    with(ifp, |e| {
        e.attached = true;
        let ip = u32::from_ne_bytes([127, 0, 0, 1]);
        e.addrs = vec![Addr {
            ip,
            mask: u32::from_ne_bytes([255, 0, 0, 0]),
        }];
    });
}

/// At shutdown: the loopbacks go; whatever else is left is a driver's leak.
pub(crate) fn free_loopbacks() {
    for ifp in all() {
        if ifp.if_flags as u32 & sys::IFF_LOOPBACK != 0 {
            with(ifp, |e| e.attached = false);
            free(ifp);
        }
    }
}

mod c {
    //! The `if_t` accessors.
    use super::*;

    type If = Kp<sys::ifnet>;

    macro_rules! getters {
        ($($f:ident: $t:ty = |$i:ident| $e:expr;)*) => {
            $(pub(super) extern "C" fn $f($i: If) -> $t { $e })*
        };
    }
    macro_rules! setters {
        ($($f:ident($t:ty) = |$i:ident, $v:ident| $e:expr;)*) => {
            $(pub(super) extern "C" fn $f(mut $i: If, $v: $t) -> c_int { $e; 0 })*
        };
    }

    getters! {
        if_getcapabilities: c_int = |i| i.if_capabilities;
        if_getcapenable: c_int = |i| i.if_capenable;
        if_getcapabilities2: c_int = |i| i.if_capabilities2;
        if_getcapenable2: c_int = |i| i.if_capenable2;
        if_getdrvflags: c_int = |i| i.if_drv_flags;
        if_getflags: c_int = |i| i.if_flags;
        if_getmtu: c_int = |i| i.if_mtu as c_int;
        if_getsoftc: *mut c_void = |i| i.if_softc;
        if_getllsoftc: *mut c_void = |i| i.if_llsoftc;
        if_getvnet: *mut sys::vnet = |i| i.if_vnet;
        if_gettype: c_int = |i| c_int::from(i.if_type);
        if_getindex: c_int = |i| c_int::from(i.if_index);
        if_getdunit: c_int = |i| i.if_dunit;
        if_getdname: *const c_char = |i| i.if_dname;
        if_name: *const c_char = |i| i.if_xname.as_ptr();
        if_getlinkstate: c_int = |i| c_int::from(i.if_link_state);
        if_gethwassist: c_int = |i| i.if_hwassist as c_int;
        if_getbaudrate: u64 = |i| i.if_baudrate;
        if_getpcp: u8 = |i| i.if_pcp;
        if_getfib: u32 = |i| i.if_fib;
        if_getlladdr: *mut c_char = |i| i.if_hw_addr.cast();
        if_getnumadomain: c_int = |i| c_int::from(i.if_numa_domain);
        if_getinputfn: sys::if_input_fn_t = |i| i.if_input;
        if_gettransmitfn: sys::if_transmit_fn_t = |i| i.if_transmit;
    }

    setters! {
        if_setcapabilities(c_int) = |i, v| i.if_capabilities = v;
        if_setcapenable(c_int) = |i, v| i.if_capenable = v;
        if_setcapabilities2(c_int) = |i, v| i.if_capabilities2 = v;
        if_setcapenable2(c_int) = |i, v| i.if_capenable2 = v;
        if_togglecapenable(c_int) = |i, v| i.if_capenable ^= v;
        if_togglecapenable2(c_int) = |i, v| i.if_capenable2 ^= v;
        if_setdrvflags(c_int) = |i, v| i.if_drv_flags = v;
        if_setflags(c_int) = |i, v| i.if_flags = v;
        if_setmtu(c_int) = |i, v| i.if_mtu = v as u32;
        if_setsoftc(*mut c_void) = |i, v| i.if_softc = v;
        if_setdev(*mut c_void) = |i, v| { let _ = (&mut i, v); };
        if_sethwassist(c_int) = |i, v| i.if_hwassist = v as u64;
        if_setllsoftc(*mut c_void) = |i, v| i.if_llsoftc = v;
        if_setinitfn(sys::if_init_fn_t) = |i, v| i.if_init = v;
        if_setinputfn(sys::if_input_fn_t) = |i, v| i.if_input = v;
        if_setioctlfn(sys::if_ioctl_fn_t) = |i, v| i.if_ioctl = v;
        if_setoutputfn(sys::if_output_fn_t) = |i, v| i.if_output = v;
        if_setstartfn(sys::if_start_fn_t) = |i, v| i.if_start = v;
        if_settransmitfn(sys::if_transmit_fn_t) = |i, v| i.if_transmit = v;
        if_setqflushfn(sys::if_qflush_fn_t) = |i, v| i.if_qflush = v;
        if_setgetcounterfn(sys::if_get_counter_t) = |i, v| i.if_get_counter = v;
        if_sethwtsomax(u32) = |i, v| i.if_hw_tsomax = v;
        if_sethwtsomaxsegcount(u32) = |i, v| i.if_hw_tsomaxsegcount = v;
        if_sethwtsomaxsegsize(u32) = |i, v| i.if_hw_tsomaxsegsize = v;
    }

    pub(super) extern "C" fn if_setbaudrate(mut i: If, v: u64) -> u64 {
        std::mem::replace(&mut i.if_baudrate, v)
    }
    pub(super) extern "C" fn if_setcapenablebit(mut i: If, set: c_int, clear: c_int) -> c_int {
        i.if_capenable = (i.if_capenable | set) & !clear;
        0
    }
    pub(super) extern "C" fn if_setcapabilitiesbit(mut i: If, set: c_int, clear: c_int) -> c_int {
        i.if_capabilities = (i.if_capabilities | set) & !clear;
        0
    }
    pub(super) extern "C" fn if_setdrvflagbits(mut i: If, set: c_int, clear: c_int) -> c_int {
        i.if_drv_flags = (i.if_drv_flags | set) & !clear;
        0
    }
    pub(super) extern "C" fn if_setflagbits(mut i: If, set: c_int, clear: c_int) -> c_int {
        i.if_flags = (i.if_flags | set) & !clear;
        0
    }
    pub(super) extern "C" fn if_sethwassistbits(mut i: If, set: c_int, clear: c_int) -> c_int {
        i.if_hwassist = (i.if_hwassist | set as u64) & !(clear as u64);
        0
    }
    pub(super) extern "C" fn if_alloc(type_: u8) -> *mut sys::ifnet {
        super::alloc(type_).ptr()
    }
    pub(super) extern "C" fn if_alloc_dev(type_: u8, _dev: *mut c_void) -> *mut sys::ifnet {
        super::alloc(type_).ptr()
    }
    pub(super) extern "C" fn if_free(i: If) {
        super::free(i);
    }
    pub(super) extern "C" fn if_ref(mut i: If) {
        i.if_refcount += 1;
    }
    pub(super) extern "C" fn if_rele(i: If) {
        super::free(i);
    }
    pub(super) extern "C" fn if_initname(mut i: If, name: *const c_char, unit: c_int) {
        i.if_dname = name;
        i.if_dunit = unit;
        let text = format!("{}{unit}", cstr(name));
        for (to, from) in i.if_xname.iter_mut().take(15).zip(text.bytes()) {
            *to = from as c_char;
        }
    }
    pub(super) extern "C" fn if_attach(i: If) {
        super::attach(i, [0; 6]);
    }
    pub(super) extern "C" fn if_detach(i: If) {
        super::detach(i);
    }
    pub(super) extern "C" fn ether_ifattach(mut i: If, lla: *const u8) {
        let mut mac = [0; 6];
        mac.copy_from_slice(bytes(lla, 6));
        i.if_addrlen = 6;
        i.if_hdrlen = 14;
        if i.if_mtu == 0 {
            i.if_mtu = 1500;
        }
        super::attach(i, mac);
    }
    pub(super) extern "C" fn ether_ifdetach(i: If) {
        super::detach(i);
    }
    pub(super) extern "C" fn ether_ioctl(mut i: If, cmd: c_ulong, data: *mut c_void) -> c_int {
        match cmd {
            super::SIOCSIFADDR => {
                i.if_flags |= sys::IFF_UP as i32;
                if_init(i, i.if_softc);
                0
            }
            super::SIOCSIFMTU => {
                let ifr: Kp<sys::ifreq> = Kp::new(data.cast());
                let mtu = crate::net::acc::uget!(ifr.ifr_ifru.ifru_mtu);
                if mtu > 1500 {
                    return sys::EINVAL as c_int;
                }
                i.if_mtu = mtu as u32;
                0
            }
            _ => sys::EINVAL as c_int,
        }
    }
    pub(super) extern "C" fn if_init(i: If, ctx: *mut c_void) {
        if let Some(f) = i.if_init {
            // SAFETY: the driver's own method with the softc it set.
            unsafe { f(ctx) };
        }
    }
    pub(super) extern "C" fn if_ioctl(i: If, cmd: c_ulong, data: *mut c_void) -> c_int {
        super::ioctl(i, cmd, data)
    }
    pub(super) extern "C" fn if_link_state_change(mut i: If, state: c_int) {
        i.if_link_state = state as u8;
    }
    /// There is no packet input: what reaches the host stack is counted and freed.
    pub(super) extern "C" fn if_input(i: If, m: Kp<sys::mbuf>) {
        if let Some(f) = i.if_input {
            // SAFETY: an input routine someone installed on the interface.
            unsafe { f(i.ptr(), m.ptr()) };
            return;
        }
        k::assert_net_epoch();
        super::with(i, |e| e.frames_in += 1);
        crate::net::m::freem(m);
    }
    pub(super) extern "C" fn if_transmit(i: If, m: Kp<sys::mbuf>) -> c_int {
        let Some(f) = i.if_transmit else {
            crate::net::m::freem(m);
            return sys::ENXIO as c_int;
        };
        // SAFETY: the driver's own method; the mbuf is handed over.
        unsafe { f(i.ptr(), m.ptr()) }
    }
    pub(super) extern "C" fn if_inc_counter(mut i: If, which: u32, n: i64) {
        // The counters are plain numbers here; if_getcounter reads them back.
        if let Some(c) = i.if_counters.get_mut(which as usize) {
            *c = (*c as usize).wrapping_add(n as usize) as sys::counter_u64_t;
        }
    }
    pub(super) extern "C" fn if_get_counter_default(i: If, which: u32) -> u64 {
        i.if_counters
            .get(which as usize)
            .map_or(0, |c| *c as usize as u64)
    }
    pub(super) extern "C" fn if_getcounter(i: If, which: u32) -> u64 {
        match i.if_get_counter {
            // SAFETY: the driver's own method.
            Some(f) => unsafe { f(i.ptr(), which) },
            None => if_get_counter_default(i, which),
        }
    }
    pub(super) extern "C" fn in_ifhasaddr(i: If, a: sys::in_addr) -> bool {
        super::addrs(i).iter().any(|x| x.ip == a.s_addr)
    }
    pub(super) extern "C" fn bpf_mtap_if(_i: If, _m: Kp<sys::mbuf>) {}
    pub(super) extern "C" fn ether_bpf_mtap_if(_i: If, _m: Kp<sys::mbuf>) {}
}

macro_rules! ioc {
    // _IOW('i', num, struct ifreq)
    ($num:literal) => {
        0x8000_0000
            | ((size_of::<sys::ifreq>() as c_ulong & 0x1fff) << 16)
            | (b'i' as c_ulong) << 8
            | $num
    };
}
/// ioctl commands on an interface.
pub(crate) const SIOCSIFADDR: c_ulong = ioc!(12);
pub(crate) const SIOCSIFFLAGS: c_ulong = ioc!(16);
pub(crate) const SIOCSIFCAP: c_ulong = ioc!(30);
pub(crate) const SIOCSIFMTU: c_ulong = ioc!(52);

crate::exports! {
    "if_getcapabilities" => c::if_getcapabilities,
    "if_getcapenable" => c::if_getcapenable,
    "if_getcapabilities2" => c::if_getcapabilities2,
    "if_getcapenable2" => c::if_getcapenable2,
    "if_getdrvflags" => c::if_getdrvflags,
    "if_getflags" => c::if_getflags,
    "if_getmtu" => c::if_getmtu,
    "if_getsoftc" => c::if_getsoftc,
    "if_getllsoftc" => c::if_getllsoftc,
    "if_getvnet" => c::if_getvnet,
    "if_gettype" => c::if_gettype,
    "if_getindex" => c::if_getindex,
    "if_getdunit" => c::if_getdunit,
    "if_getdname" => c::if_getdname,
    "if_name" => c::if_name,
    "if_getlinkstate" => c::if_getlinkstate,
    "if_gethwassist" => c::if_gethwassist,
    "if_getbaudrate" => c::if_getbaudrate,
    "if_getpcp" => c::if_getpcp,
    "if_getfib" => c::if_getfib,
    "if_getlladdr" => c::if_getlladdr,
    "if_getnumadomain" => c::if_getnumadomain,
    "if_getinputfn" => c::if_getinputfn,
    "if_gettransmitfn" => c::if_gettransmitfn,
    "if_setcapabilities" => c::if_setcapabilities,
    "if_setcapabilitiesbit" => c::if_setcapabilitiesbit,
    "if_setcapenable" => c::if_setcapenable,
    "if_setcapenablebit" => c::if_setcapenablebit,
    "if_setcapabilities2" => c::if_setcapabilities2,
    "if_setcapenable2" => c::if_setcapenable2,
    "if_togglecapenable" => c::if_togglecapenable,
    "if_togglecapenable2" => c::if_togglecapenable2,
    "if_setdrvflags" => c::if_setdrvflags,
    "if_setdrvflagbits" => c::if_setdrvflagbits,
    "if_setflags" => c::if_setflags,
    "if_setflagbits" => c::if_setflagbits,
    "if_setmtu" => c::if_setmtu,
    "if_setsoftc" => c::if_setsoftc,
    "if_setdev" => c::if_setdev,
    "if_sethwassist" => c::if_sethwassist,
    "if_sethwassistbits" => c::if_sethwassistbits,
    "if_setllsoftc" => c::if_setllsoftc,
    "if_setbaudrate" => c::if_setbaudrate,
    "if_setinitfn" => c::if_setinitfn,
    "if_setinputfn" => c::if_setinputfn,
    "if_setioctlfn" => c::if_setioctlfn,
    "if_setoutputfn" => c::if_setoutputfn,
    "if_setstartfn" => c::if_setstartfn,
    "if_settransmitfn" => c::if_settransmitfn,
    "if_setqflushfn" => c::if_setqflushfn,
    "if_setgetcounterfn" => c::if_setgetcounterfn,
    "if_sethwtsomax" => c::if_sethwtsomax,
    "if_sethwtsomaxsegcount" => c::if_sethwtsomaxsegcount,
    "if_sethwtsomaxsegsize" => c::if_sethwtsomaxsegsize,
    "if_alloc" => c::if_alloc,
    "if_alloc_dev" => c::if_alloc_dev,
    "if_free" => c::if_free,
    "if_ref" => c::if_ref,
    "if_rele" => c::if_rele,
    "if_initname" => c::if_initname,
    "if_attach" => c::if_attach,
    "if_detach" => c::if_detach,
    "ether_ifattach" => c::ether_ifattach,
    "ether_ifdetach" => c::ether_ifdetach,
    "ether_ioctl" => c::ether_ioctl,
    "if_init" => c::if_init,
    "if_ioctl" => c::if_ioctl,
    "if_link_state_change" => c::if_link_state_change,
    "if_input" => c::if_input,
    "if_transmit" => c::if_transmit,
    "if_inc_counter" => c::if_inc_counter,
    "if_get_counter_default" => c::if_get_counter_default,
    "if_getcounter" => c::if_getcounter,
    "in_ifhasaddr" => c::in_ifhasaddr,
    "bpf_mtap_if" => c::bpf_mtap_if,
    "ether_bpf_mtap_if" => c::ether_bpf_mtap_if,
}
