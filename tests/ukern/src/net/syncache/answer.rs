//! The SYN|ACK: as a packet, given to the driver.

use std::ffi::c_void;

use super::entry::Entry;
use crate::kp::Kp;
use crate::net::acc::{inc_faddr, inc_laddr};
use crate::net::{k, m, tcp_subr};
use crate::{kpanic, sys};

/// Options of our SYN|ACK.
fn options(e: &Entry) -> Vec<u8> {
    let v = e.vnet as *mut sys::vnet;
    let mss = tcp_subr::mss_for(v, inc_faddr(&e.inc)) as u16;
    let mut o = vec![2, 4];
    o.extend(mss.to_be_bytes());
    if let Some((_, ours)) = e.scale {
        o.extend([1, 3, 3, ours]);
    }
    if e.sack {
        o.extend([1, 1, 4, 2]);
    }
    if let Some((peer, off)) = e.ts {
        let val = k::ticks().wrapping_add(off);
        o.extend([1, 1, 8, 10]);
        o.extend(val.to_be_bytes());
        o.extend(peer.to_be_bytes());
    }
    while o.len() % 4 != 0 {
        o.push(0);
    }
    o
}

/// `syncache_respond`. An errno of the driver, or ENOBUFS.
pub(super) fn respond(e: &Entry) -> i32 {
    let Some(tod) = Kp::<sys::toedev>::opt(e.tod as *mut _) else {
        return 0;
    };
    let opts = options(e);
    let len = 20 + 20 + opts.len();
    let mut pkt = Vec::with_capacity(len);
    // IPv4 header.
    pkt.extend([0x45, e.tos]);
    pkt.extend((len as u16).to_be_bytes());
    pkt.extend([0, 0, 0x40, 0, 64, sys::IPPROTO_TCP as u8, 0, 0]);
    pkt.extend(inc_laddr(&e.inc).to_ne_bytes());
    pkt.extend(inc_faddr(&e.inc).to_ne_bytes());
    // TCP header; ports are in network order already.
    pkt.extend(e.lport.to_ne_bytes());
    pkt.extend(e.inc.inc_ie.ie_fport.to_ne_bytes());
    pkt.extend(e.iss.to_be_bytes());
    pkt.extend(e.irs.wrapping_add(1).to_be_bytes());
    pkt.push((((20 + opts.len()) / 4) << 4) as u8);
    pkt.push((sys::TH_SYN | sys::TH_ACK) as u8);
    pkt.extend((e.wnd as u16).to_be_bytes());
    pkt.extend([0; 4]);
    pkt.extend(&opts);
    let Some(mb) = m::packet(&pkt) else {
        return sys::ENOBUFS as i32;
    };
    let Some(f) = tod.tod_syncache_respond else {
        kpanic!("tod_syncache_respond is NULL")
    };
    // SAFETY: the driver's method with the context it gave; the mbuf is handed over.
    unsafe { f(tod.ptr(), e.ctx as *mut c_void, mb.ptr()) }
}
