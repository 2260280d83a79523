//! Routes: connected networks and local addresses only.

use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::ifnet::{self, Addr};
use crate::net::tcp_vars;
use crate::{sys, vnet};

/// `IFCAP_TOE4`.
pub(crate) const IFCAP_TOE4: i32 = 1 << sys::IFCAP_B_TOE4;
/// `IFCAP_TOE`.
pub(crate) const IFCAP_TOE: i32 = IFCAP_TOE4 | 1 << sys::IFCAP_B_TOE6;

/// `V_in_loopback_mask`: which addresses IN_LOOPBACK() means.
static LOOPBACK_MASK: KData = KData::vnet::<u32>("vnet_entry_in_loopback_mask")
    .with_init(|p| crate::kp::poke(p as usize, 0xff00_0000_u32));

crate::exports_data! { LOOPBACK_MASK }

fn up(ifp: Kp<sys::ifnet>) -> bool {
    ifp.if_flags as u32 & sys::IFF_UP != 0
}

fn in_vnet(v: *mut sys::vnet) -> Vec<Kp<sys::ifnet>> {
    ifnet::all()
        .into_iter()
        .filter(|i| std::ptr::eq(i.if_vnet, v) && up(*i))
        .collect()
}

fn loopback(addr: u32) -> bool {
    addr.to_ne_bytes()[0] == 127
}

/// Is `addr` (network order) one of this stack's own?
pub(crate) fn is_local(v: *mut sys::vnet, addr: u32) -> bool {
    loopback(addr)
        || in_vnet(v)
            .iter()
            .any(|i| ifnet::addrs(*i).iter().any(|a| a.ip == addr))
}

/// The connected network a destination lies in, longest mask first.
fn connected(v: *mut sys::vnet, dst: u32) -> Option<(Kp<sys::ifnet>, Addr)> {
    let mut best: Option<(Kp<sys::ifnet>, Addr)> = None;
    for ifp in in_vnet(v) {
        for a in ifnet::addrs(ifp) {
            let hit = (a.ip & a.mask) == (dst & a.mask);
            let longer = best.is_none_or(|(_, b)| a.mask.count_ones() > b.mask.count_ones());
            if hit && longer {
                best = Some((ifp, a));
            }
        }
    }
    best
}

fn lo0(v: *mut sys::vnet) -> Option<Kp<sys::ifnet>> {
    in_vnet(v)
        .into_iter()
        .find(|i| i.if_flags as u32 & sys::IFF_LOOPBACK != 0)
}

/// The interface packets to `dst` leave by: lo0 for this stack's own addresses.
pub(crate) fn ifp_for(v: *mut sys::vnet, dst: u32) -> Option<Kp<sys::ifnet>> {
    if is_local(v, dst) {
        lo0(v)
    } else {
        connected(v, dst).map(|(i, _)| i)
    }
}

/// `fib4_lookup`.
pub(crate) fn lookup(v: *mut sys::vnet, dst: u32) -> Option<Kp<sys::nhop_object>> {
    ifp_for(v, dst).map(ifnet::nhop)
}

/// Source address for a destination (`in_pcbladdr`).
pub(crate) fn source_for(v: *mut sys::vnet, dst: u32) -> Option<u32> {
    if is_local(v, dst) {
        return Some(if loopback(dst) {
            u32::from_ne_bytes([127, 0, 0, 1])
        } else {
            dst
        });
    }
    connected(v, dst).map(|(_, a)| a.ip)
}

/// The stack and interface that own `addr` as seen from `v`: itself, or whoever is on the wire
/// its connected network is. All interfaces with an address in one network share a wire.
pub(crate) fn owner(v: *mut sys::vnet, addr: u32) -> Option<*mut sys::vnet> {
    if is_local(v, addr) {
        return Some(v);
    }
    connected(v, addr)?;
    neighbour(addr).map(|i| i.if_vnet)
}

fn neighbour(addr: u32) -> Option<Kp<sys::ifnet>> {
    ifnet::all()
        .into_iter()
        .find(|i| up(*i) && !loopback(addr) && ifnet::addrs(*i).iter().any(|a| a.ip == addr))
}

/// The link-level address of `ip` on the wire of `ifp`.
pub(crate) fn mac_on_wire(ifp: Kp<sys::ifnet>, ip: u32) -> Option<[u8; 6]> {
    if !ifnet::addrs(ifp)
        .iter()
        .any(|a| (a.ip & a.mask) == (ip & a.mask))
    {
        return None;
    }
    neighbour(ip).map(ifnet::mac)
}

mod c {
    use super::*;

    pub(super) extern "C" fn fib4_lookup(
        _fib: u32,
        dst: sys::in_addr,
        _scope: u32,
        _flags: u32,
        _flowid: u32,
    ) -> *mut sys::nhop_object {
        crate::net::k::assert_net_epoch();
        lookup(vnet::curvnet(), dst.s_addr).map_or(std::ptr::null_mut(), Kp::ptr)
    }

    /// Only TCP exists, over IPv4 for sockets of either domain.
    pub(super) extern "C" fn pffindproto(family: i32, type_: i32, proto: i32) -> *mut sys::protosw {
        let tcp =
            type_ as u32 == sys::SOCK_STREAM && (proto == 0 || proto as u32 == sys::IPPROTO_TCP);
        match family as u32 {
            sys::AF_INET if tcp => tcp_vars::TCP_PROTOSW.get::<sys::protosw>().ptr(),
            sys::AF_INET6 if tcp => tcp_vars::TCP6_PROTOSW.get::<sys::protosw>().ptr(),
            _ => std::ptr::null_mut(),
        }
    }
}

crate::exports! {
    "fib4_lookup" => c::fib4_lookup,
    "pffindproto" => c::pffindproto,
}
