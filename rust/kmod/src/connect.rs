//! Active open.

use kpi::inp::{InpGuard, Locked};
use kpi::l2::L2;
use kpi::mem::{Arc, Wait};
use kpi::tom::Class;
use kpi::{Error, sys};
use toehold_core::errno::Errno;
use toehold_core::open::{CongAlgo, ConnParams, FourTuple, Link, Ntuple, Wish, act_open_req};
use toehold_core::status::act_open_errno;
use wire::{ActEstablish, ActOpenReq, ActOpenRpl, QidTid};

use crate::adapter::{Adapter, Extra, Tid};
use crate::egress;
use crate::toepcb::{Reserved, Toepcb};

/// CPL_COOKIE_TOM: the reply is ours.
pub const COOKIE_TOM: u8 = 4;

/// What socket and sysctls ask of a connection.
pub fn wish(adapter: &Adapter, held: Locked<'_>) -> (Wish, u32) {
    let o = held.options();
    let t = adapter.tom.tunables();
    let mut name = [0u8; 16];
    for (d, s) in name.iter_mut().zip(o.cc_name) {
        *d = s as u8;
    }
    let name = name.get(..o.cc_len as usize).unwrap_or(&name);
    let wish = Wish {
        mss: u16::try_from(o.mss).unwrap_or(u16::MAX),
        rcv_space: o.rcv_space,
        sb_max: o.sb_max,
        wscale: o.wscale,
        tstamp: o.tstamp,
        sack: o.sack,
        ecn: o.ecn,
        nodelay: o.nodelay,
        keepalive: o.keepalive,
        cong: CongAlgo::choose(t.cong_algorithm, name),
        rx_coalesce: t.rx_coalesce != 0,
        sndbuf: t.sndbuf,
        snd_autosize: o.snd_autosize,
        snd_hiwat: o.snd_hiwat,
    };
    (wish, o.iss)
}

/// How the adapter reaches the peer.
pub fn link(adapter: &Adapter, vi: &sys::th_vi, l2: &L2) -> Link {
    Link {
        chip: adapter.chip,
        l2t_idx: l2.idx(),
        smt_idx: vi.smac_sel,
        tx_chan: vi.tx_chan,
        tx_modq: vi.tx_modq,
        rxq: vi.rxq_abs,
    }
}

/// The filter tuple of an offloaded connection.
fn ntuple(adapter: &Adapter, vi: &sys::th_vi) -> u64 {
    let i = &adapter.info;
    let shift = |s: i8| u8::try_from(s).ok();
    Ntuple {
        vlan_shift: shift(i.vlan_shift),
        port_shift: shift(i.port_shift),
        protocol_shift: shift(i.protocol_shift),
        vnic_shift: shift(i.vnic_shift),
    }
    .pack(None, vi.hw_port, vi.vnic)
}

/// `tod_connect`. INP held, SYN_SENT.
///
/// # Errors
/// An errno: the host stack connects by itself. Nothing of ours is left on the connection.
pub fn connect(
    adapter: &Arc<Adapter>,
    g: &mut InpGuard,
    vi: &sys::th_vi,
    nexthop: u32,
) -> Result<(), Error> {
    if adapter.stopped() {
        return Err(Error::ENXIO);
    }
    let l2 = L2::get(adapter.tom, vi, nexthop)?;
    let mem = Reserved::new(adapter, Class::Active)?;
    let entry = Arc::<Tid>::reserve(Wait::No)?;
    let (wish, iss) = wish(adapter, g.locked());
    let params = ConnParams::active(&wish, &adapter.info.mtus);
    let link = link(adapter, vi, &l2);

    let atid = adapter.tom.atid_alloc().ok_or(Error::ENOMEM)?;
    let toep = Toepcb::new(mem, adapter, g, vi, l2, params);
    if let Some(inner) = toep.inner(g) {
        inner.entry = Some(entry);
    }
    drop(adapter.atids.put(atid, toep.clone()));
    g.locked().set_rcv_scale(params.wscale);
    // Before the request goes out: the reply may be here at once.
    g.locked().offload(adapter.tom, toep.as_raw());

    let t = g.locked().tuple();
    let who = FourTuple {
        local_ip: u32::from_be(t.laddr),
        local_port: u16::from_be(t.lport),
        peer_ip: u32::from_be(t.faddr),
        peer_port: u16::from_be(t.fport),
    };
    let id = QidTid {
        tid: atid as u16,
        cookie: COOKIE_TOM,
        qid: vi.rxq_abs,
    };
    let req = act_open_req(&params, &link, id, &who, iss, ntuple(adapter, vi));
    let mut wr = [0; 128];
    let sent = match wr.get_mut(..ActOpenReq::len(adapter.chip)) {
        Some(b) => match req.emit(b, adapter.chip) {
            Ok(()) => toep.l2().send(egress::CTRL, b, u64::from(atid)),
            Err(_) => Err(Error(22)),
        },
        None => Err(Error(22)),
    };
    // Who takes the atid back sees to the end. The adapter may have stopped: then it is
    // adapter_stopped(), which waits for the lock if it was so fast.
    let undone = match sent {
        Ok(()) if !adapter.stopped() => None,
        Ok(()) => Some(Error::ENXIO),
        Err(e) => Some(e),
    };
    if let Some(e) = undone
        && adapter.atids.take(atid).is_some()
    {
        Toepcb::detach(&toep, g);
        g.locked().unoffload();
        adapter.tom.atid_free(atid);
        return Err(e);
    }
    // t_toe's reference.
    let _ = toep.into_raw();
    Ok(())
}

/// CPL_ACT_ESTABLISH. Net epoch, no lock.
pub fn established(adapter: &Arc<Adapter>, cpl: &ActEstablish) {
    let atid = u32::from(cpl.atid.tid);
    let Some(toep) = adapter.atids.take(atid) else {
        adapter
            .tom
            .log(c"ACT_ESTABLISH for an unknown atid", u64::from(atid), 0);
        return;
    };
    adapter.tom.atid_free(atid);
    let _vnet = toep.vnet.enter();
    let mut g = toep.inp().lock();
    // It was made with the request, and an atid is answered once.
    let Some(entry) = toep.inner(&mut g).and_then(|i| i.entry.take()) else {
        return;
    };
    let held = toep.clone();
    drop(adapter.tids.put(cpl.tid, entry.fill(|| Tid::Toep(held))));
    let o = Toepcb::established(
        &toep,
        &mut g,
        cpl.tid,
        cpl.snd_isn,
        cpl.rcv_isn,
        cpl.tcp_opt,
    );
    Toepcb::finish(&toep, g, o);
}

/// CPL_ACT_OPEN_RPL: it failed. Net epoch, no lock.
pub fn failed(adapter: &Arc<Adapter>, cpl: &ActOpenRpl) {
    if cpl.status.is_neg_advice() {
        return;
    }
    let atid = u32::from(cpl.atid.tid);
    let Some(toep) = adapter.atids.take(atid) else {
        adapter
            .tom
            .log(c"ACT_OPEN_RPL for an unknown atid", u64::from(atid), 0);
        return;
    };
    adapter.tom.atid_free(atid);
    if !cpl.status.is_ok() && cpl.status.act_open_has_tid() {
        adapter.release_tid(cpl.tid);
    }
    fail(adapter, &toep, act_open_errno(cpl.status));
}

/// The open request was never sent: no next hop. Task context, net epoch, no lock.
pub fn unsent(adapter: &Arc<Adapter>, atid: u32) {
    adapter.count(Extra::L2Failures);
    if let Some(toep) = adapter.atids.take(atid) {
        adapter.tom.atid_free(atid);
        fail(adapter, &toep, Errno::EHOSTUNREACH);
    }
}

/// The adapter has stopped ([`crate::stop`]): the kernel's own stack opens the connection. Net
/// epoch, no lock.
pub fn adapter_stopped(adapter: &Arc<Adapter>, atid: u32) {
    if let Some(toep) = adapter.atids.take(atid) {
        adapter.tom.atid_free(atid);
        fail(adapter, &toep, Errno::EAGAIN);
    }
}

/// `toe_connect_failed`. The tcpcb keeps its reference of us until the kernel detaches.
fn fail(adapter: &Arc<Adapter>, toep: &Arc<Toepcb>, error: Errno) {
    let _vnet = toep.vnet.enter();
    toep.inp().lock().connect_failed(adapter.tom, error.get());
}
