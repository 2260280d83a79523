//! The network side: sockets, socket buffers, TCP as far as an offloaded connection meets it, TOE
//! core, interfaces, routes.
//!
//! There is no software TCP. A connection is either offloaded, when a driver does the work, or it
//! runs over [`pipe`], so the same program can run both ways.

pub(crate) mod acc;
#[cfg(test)]
mod fake;
mod ifconfig;
pub(crate) mod ifnet;
pub(crate) mod inpcb;
pub(crate) mod k;
pub(crate) mod listen;
pub(crate) mod m;
pub(crate) mod offload;
pub(crate) mod pipe;
pub(crate) mod route;
pub(crate) mod sockbuf;
#[cfg(test)]
mod sockbuf_tests;
pub(crate) mod socket;
pub(crate) mod sosend;
pub(crate) mod syncache;
pub(crate) mod tailq;
pub(crate) mod tcp_subr;
pub(crate) mod tcp_timer;
pub(crate) mod tcp_usrreq;
pub(crate) mod tcp_vars;
#[cfg(test)]
mod tests;
pub(crate) mod toecore;

use crate::ksym::{Export, KData};
use crate::proc::VnetId;
use crate::{kpanic, sys, vnet};

pub use ifconfig::IfInfo;
pub use syncache::{BUCKET as SYNCACHE_BUCKET, Rules as SyncacheRules};

pub(crate) fn exports() -> Vec<&'static [Export]> {
    vec![
        ifnet::symbols(),
        inpcb::symbols(),
        listen::symbols(),
        route::symbols(),
        sockbuf::symbols(),
        socket::symbols(),
        sosend::symbols(),
        tcp_subr::symbols(),
        tcp_timer::symbols(),
        toecore::symbols(),
    ]
}

pub(crate) fn data() -> Vec<&'static [&'static KData]> {
    vec![
        inpcb::data(),
        k::data(),
        route::data(),
        sockbuf::data(),
        syncache::data(),
        tcp_subr::data(),
        tcp_vars::data(),
        toecore::data(),
    ]
}

/// Stacks there are from the start.
const VNETS: usize = 2;

pub(crate) fn boot() {
    while vnet::all().len() < VNETS {
        let _ = vnet::alloc();
    }
    ifnet::boot();
    inpcb::boot();
    for v in vnet::all() {
        tcp_vars::boot_vnet(v);
        inpcb::boot_vnet(v);
        ifnet::make_loopback(v);
    }
    tcp_usrreq::boot();
    tcp_timer::boot();
    pipe::boot();
    syncache::boot();
    toecore::boot();
}

/// Waits for connections that end by themselves (TIME_WAIT and the like).
pub(crate) fn settle() {
    for _ in 0..700 {
        if inpcb::all().is_empty() && syncache::count() == 0 {
            return;
        }
        crate::sched::sleep_for(crate::sched::SBT_1S, "settle");
    }
}

pub(crate) fn quiesce() {
    ifnet::free_loopbacks();
    for v in vnet::all() {
        tcp_vars::free_vnet(v);
    }
}

pub(crate) fn shutdown() {
    toecore::shutdown();
    syncache::shutdown();
    pipe::shutdown();
    tcp_timer::shutdown();
    inpcb::shutdown();
    ifnet::shutdown();
}

pub(crate) fn leaks() -> Vec<String> {
    let mut out: Vec<String> = ifnet::all()
        .into_iter()
        .map(|i| format!("interface {}", ifnet::name(i)))
        .collect();
    for inp in inpcb::all() {
        let t = inpcb::Tuple::of(inp);
        out.push(format!("tcp pcb {t:x?}"));
    }
    if syncache::count() > 0 {
        out.push(format!("{} syncache entries", syncache::count()));
    }
    if toecore::registered() != 0 {
        out.push(format!("{} TOE devices registered", toecore::registered()));
    }
    out
}

/// The stack of this number.
pub(crate) fn vnet_by_id(id: VnetId) -> *mut sys::vnet {
    match vnet::all().get(id as usize) {
        Some(v) => *v,
        None => kpanic!("no vnet {id}: there are {VNETS}"),
    }
}

/// The number of a stack.
pub(crate) fn vnet_id(v: *mut sys::vnet) -> VnetId {
    vnet::all()
        .iter()
        .position(|x| std::ptr::eq(*x, v))
        .unwrap_or(usize::MAX) as VnetId
}
