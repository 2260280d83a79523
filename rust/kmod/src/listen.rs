//! Passive open: listeners (FreeBSD's `struct listen_ctx`) and answered SYNs (`synq_entry`).

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use kpi::inp::{InpGuard, InpRef, Vnet};
use kpi::l2::L2;
use kpi::mbuf::Mbuf;
use kpi::mem::{Arc, Last, Link, Room, Wait};
use kpi::syn::{self, Expand};
use kpi::tom::WrQueue;
use kpi::{Error, sys};
use spin::Once;
use toehold_core::open::{ConnParams, PeerSyn, pass_accept_rpl};
use wire::{
    AbortCmd, AbortReq, AbortReqRss, AbortRpl, CloseListsrvReq, CloseListsrvRpl, ConnPolicy, Flowc,
    FlowcParam, Opt0, PassAcceptReq, PassAcceptRpl, PassEstablish, PassOpenReq, PassOpenRpl,
    WireError,
};

use crate::adapter::{Adapter, Extra, Tid};
use crate::connect;
use crate::toepcb::{Reserved, Toepcb};

/// Where a listener stands with the adapter.
mod state {
    /// CPL_PASS_OPEN_REQ is out.
    pub(super) const OPENING: u8 = 0;
    /// The adapter listens.
    pub(super) const OPEN: u8 = 1;
    /// To be closed as soon as its reply is here.
    pub(super) const UNWANTED: u8 = 2;
    /// CPL_CLOSE_LISTSRV_REQ is to be sent.
    pub(super) const CLOSE_OWED: u8 = 3;
    /// It is out.
    pub(super) const CLOSING: u8 = 4;
}

/// A listener.
pub struct Lctx {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// Network stack instance.
    pub vnet: Vnet,
    /// For the adapter's `dead_lctx`.
    pub link: Link,
    vi: sys::th_vi,
    stid: Once<u32>,
    state: AtomicU8,
    inp: InpRef,
}

impl Lctx {
    fn is(&self, s: u8) -> bool {
        self.state.load(Ordering::Acquire) == s
    }

    fn set(&self, s: u8) {
        self.state.store(s, Ordering::Release);
    }

    fn stid(&self) -> u32 {
        let index = self.stid.get().copied().unwrap_or(0);
        self.adapter.info.stid_base + index
    }

    fn send_close(&self) {
        let req = CloseListsrvReq {
            stid: self.stid(),
            queue: self.vi.rxq_abs as u16,
            ipv6: false,
            no_reply: false,
        };
        let q = WrQueue::Ctrl(self.vi.port);
        let sent = self.adapter.tom.send_wr(q, CloseListsrvReq::LEN, |b| {
            let _ = req.emit(b);
        });
        if sent.is_ok() {
            self.set(state::CLOSING);
        } else {
            self.set(state::CLOSE_OWED);
            self.adapter.sweep_soon();
        }
    }

    fn close(&self) {
        match self.state.load(Ordering::Acquire) {
            state::OPENING => self.set(state::UNWANTED),
            state::OPEN => self.send_close(),
            _ => {}
        }
    }

    /// The retry task comes by.
    pub fn retry(this: &Arc<Lctx>, _: &Adapter) {
        if this.is(state::CLOSE_OWED) {
            this.send_close();
        }
    }
}

fn index_of(adapter: &Adapter, stid: u32) -> Option<u32> {
    stid.checked_sub(adapter.info.stid_base)
}

/// `tod_listen_start`. INP of the listener held.
///
/// # Errors
/// An errno: the host stack listens alone.
pub fn start(adapter: &Arc<Adapter>, g: &InpGuard, vi: &sys::th_vi) -> Result<(), Error> {
    let mut known = false;
    adapter
        .stids
        .each(|_, l| known |= l.inp.inp() == g.inp() && !l.is(state::CLOSING));
    if known {
        return Ok(());
    }
    let t = g.locked().tuple();
    let lctx = Arc::new(Wait::No, || Lctx {
        adapter: adapter.clone(),
        vnet: g.inp().vnet(),
        link: Link::default(),
        vi: *vi,
        stid: Once::new(),
        state: AtomicU8::new(state::OPENING),
        inp: g.reference(),
    })?;
    let index = adapter
        .stids
        .claim(lctx.clone())
        .map_err(|_| Error::ENOMEM)?;
    lctx.stid.call_once(|| index);
    let opt1 = wire::Opt1 {
        conn_policy: ConnPolicy::Ask,
        syn_rss_queue: Some(vi.rxq_abs as u16),
    };
    let req = PassOpenReq {
        stid: lctx.stid(),
        local_port: u16::from_be(t.lport),
        peer_port: 0,
        local_ip: u32::from_be(t.laddr),
        peer_ip: 0,
        opt0: Opt0 {
            tx_chan: vi.tx_chan as u8,
            ..Opt0::default()
        }
        .to_bits(),
        opt1: opt1.to_bits().map_err(|_| Error(22))?,
    };
    let sent = adapter
        .tom
        .send_wr(WrQueue::Ctrl(vi.port), PassOpenReq::LEN, |b| {
            let _ = req.emit(b);
        });
    if let Err(e) = sent {
        adapter
            .tom
            .log(c"no work request to listen with", u64::from(lctx.stid()), 0);
        drop(adapter.stids.take(index));
        return Err(e);
    }
    Ok(())
}

/// `tod_listen_stop`. INP of the listener held.
///
/// # Errors
/// ENOENT: the adapter does not listen for it.
pub fn stop(adapter: &Adapter, g: &InpGuard) -> Result<(), Error> {
    let mut found = false;
    adapter.stids.each(|_, l| {
        if l.inp.inp() == g.inp() {
            found = true;
            l.close();
        }
    });
    if found { Ok(()) } else { Err(Error(2)) }
}

/// Close every listener: the module goes.
pub fn stop_all(adapter: &Adapter) {
    adapter.stids.each(|_, l| l.close());
}

/// Nothing but listeners and answered SYNs that are on their way out is left.
pub fn closing(adapter: &Adapter) -> bool {
    let mut open = false;
    adapter.stids.each(|_, l| open |= l.is(state::OPEN));
    !open && adapter.connections() == 0
}

/// CPL_PASS_OPEN_RPL.
pub fn opened(adapter: &Adapter, cpl: &PassOpenRpl) {
    let Some(lctx) = index_of(adapter, cpl.stid).and_then(|i| adapter.stids.get(i)) else {
        adapter
            .tom
            .log(c"PASS_OPEN_RPL for an unknown stid", u64::from(cpl.stid), 0);
        return;
    };
    if !cpl.status.is_ok() {
        adapter.tom.log(
            c"listener refused",
            u64::from(cpl.stid),
            u64::from(cpl.status.0),
        );
        drop(index_of(adapter, cpl.stid).and_then(|i| adapter.stids.take(i)));
        return;
    }
    if lctx.is(state::UNWANTED) {
        lctx.send_close();
    } else {
        lctx.set(state::OPEN);
    }
}

/// CPL_CLOSE_LISTSRV_RPL.
pub fn closed(adapter: &Adapter, cpl: &CloseListsrvRpl) {
    if !cpl.status.is_ok() {
        adapter.tom.log(
            c"listener not closed",
            u64::from(cpl.stid),
            u64::from(cpl.status.0),
        );
        return;
    }
    drop(index_of(adapter, cpl.stid).and_then(|i| adapter.stids.take(i)));
}

/// A SYN that we answered. References: the tid table's, and the syncache's.
pub struct Synqe {
    lctx: Arc<Lctx>,
    tid: u32,
    vi: sys::th_vi,
    params: ConnParams,
    l3_off: u32,
    tcp_off: u32,
    tstamp: bool,
    iss: AtomicU32,
    irs: AtomicU32,
    ts: AtomicU32,
    responded: AtomicBool,
    /// We abort it; CPL_ABORT_RPL_RSS ends it.
    aborting: AtomicBool,
    /// What the abort still has to send.
    owed: AtomicBool,
    // Used once, by the queue's thread.
    parts: kpi::inp::InpCell<Parts>,
}

/// What becomes the connection's; guarded by the listener's INP.
struct Parts {
    syn: Option<Mbuf>,
    l2: Option<L2>,
    mem: Option<(Reserved, Room<Tid>)>,
    cpl: PassEstablish,
}

impl Last for Synqe {}

/// CPL_PASS_ACCEPT_REQ: a SYN. Net epoch, no lock.
///
/// # Errors
/// The message makes no sense.
pub fn syn(adapter: &Arc<Adapter>, b: &[u8], mut m: Mbuf) -> Result<(), WireError> {
    let cpl = PassAcceptReq::parse(b, adapter.chip)?;
    let port = u32::from(cpl.l2info.intf);
    let headers = usize::from(cpl.eth_hdr_len) + usize::from(cpl.ip_hdr_len);
    if b.len() < PassAcceptReq::LEN + headers + 20 {
        return Err(WireError::Truncated {
            need: PassAcceptReq::LEN + headers + 20,
            have: b.len(),
        });
    }
    m.trim_front(PassAcceptReq::LEN as u32);
    match offload(adapter, &cpl, m) {
        Ok(()) => {}
        Err((e, m)) => {
            adapter.count(Extra::ListenRejects);
            adapter.release_tid(cpl.tid, port);
            // What the adapter cannot take the host stack may.
            if let (Some(m), true) = (m, e == Error(45)) {
                syn::to_host(adapter.tom, port, m);
            }
        }
    }
    Ok(())
}

const NOT_OURS: Error = Error(45);

/// Offload the connection a SYN begins. On error the SYN comes back unless it is used up.
fn offload(
    adapter: &Arc<Adapter>,
    cpl: &PassAcceptReq,
    m: Mbuf,
) -> Result<(), (Error, Option<Mbuf>)> {
    let Some(lctx) = index_of(adapter, cpl.stid).and_then(|i| adapter.stids.get(i)) else {
        return Err((Error(2), None));
    };
    if !cpl.l2info.xact_match {
        return Err((Error(2), None));
    }
    if cpl.tcpopt.unknown {
        return Err((NOT_OURS, Some(m)));
    }
    let _vnet = lctx.vnet.enter();
    let wscale = cpl.tcpopt.wscale();
    let s = sys::th_syn {
        port: u32::from(cpl.l2info.intf),
        mac_idx: u32::from(cpl.l2info.mac_idx),
        vlan: cpl.vlan & 0xfff,
        mss: cpl.tcpopt.mss,
        wscale: wscale.unwrap_or(0xff),
        tstamp: cpl.tcpopt.tstamp,
        sack: cpl.tcpopt.sack,
        l3_off: u32::from(cpl.eth_hdr_len),
        tcp_off: u32::from(cpl.eth_hdr_len) + u32::from(cpl.ip_hdr_len),
    };
    let (vi, l2) = match syn::check_syn(adapter.tom, &s, &m, lctx.vnet) {
        Ok(x) => x,
        Err(e) => return Err((e, Some(m))),
    };
    let g = lctx.inp.inp().lock();
    if g.locked().dropped() {
        return Err((Error(2), None));
    }
    let (mut wish, _) = connect::wish(adapter, g.locked());
    wish.mss = u16::MAX; // bounded by the MTU table and the peer's SYN
    let peer = PeerSyn {
        tstamp: cpl.tcpopt.tstamp,
        sack: cpl.tcpopt.sack,
        wscale,
        ecn: cpl.tcpopt.ecn,
    };
    let params = ConnParams::passive(&wish, &adapter.info.mtus, &peer);
    let link = connect::link(adapter, &vi, &l2);
    let (l3_off, tcp_off) = (s.l3_off, s.tcp_off);
    let room = match (
        Arc::<Synqe>::reserve(Wait::No),
        Arc::<Tid>::reserve(Wait::No),
    ) {
        (Ok(a), Ok(b)) => (a, b),
        _ => return Err((Error::ENOMEM, None)),
    };
    let tstamp = params.tstamp;
    let synqe = room.0.fill(|| Synqe {
        lctx: lctx.clone(),
        tid: cpl.tid,
        vi,
        params,
        l3_off,
        tcp_off,
        tstamp,
        iss: AtomicU32::new(0),
        irs: AtomicU32::new(0),
        ts: AtomicU32::new(0),
        responded: AtomicBool::new(false),
        aborting: AtomicBool::new(false),
        owed: AtomicBool::new(false),
        parts: kpi::inp::InpCell::new(g.inp(), |_| Parts {
            syn: None,
            l2: Some(l2),
            mem: None,
            cpl: PassEstablish::default(),
        }),
    });
    // The kernel answers the SYN in here, or not.
    syn::syncache_add(adapter.tom, &s, &m, g, synqe.as_raw());
    if !synqe.responded.load(Ordering::Acquire) {
        return Err((Error(2), None));
    }
    let mut g = lctx.inp.inp().lock();
    let rpl = pass_accept_rpl(&params, &link, cpl.tid, synqe.iss.load(Ordering::Relaxed));
    let held = synqe.clone();
    drop(adapter.tids.put(cpl.tid, room.1.fill(|| Tid::Synqe(held))));
    let Some(parts) = synqe.parts.enter(&mut g) else {
        return Err((Error(22), None));
    };
    parts.syn = Some(m);
    let mut wr = [0; 64];
    let sent = match (wr.get_mut(..PassAcceptRpl::len(adapter.chip)), &parts.l2) {
        (Some(b), Some(l2)) => match rpl.emit(b, adapter.chip) {
            Ok(()) => l2.send(vi.port, b, SYNACK | u64::from(cpl.tid)),
            Err(_) => Err(Error(22)),
        },
        _ => Err(Error(22)),
    };
    if sent.is_err() {
        let m = parts.syn.take();
        drop(g);
        drop(adapter.tids.take(cpl.tid));
        return Err((NOT_OURS, m));
    }
    Ok(())
}

/// Cookie of a work request that carries a SYN|ACK: the tid, with this bit.
pub const SYNACK: u64 = 1 << 32;

/// The SYN|ACK was never sent: no next hop. Task context, net epoch.
pub fn unsent(adapter: &Arc<Adapter>, tid: u32) {
    adapter.count(Extra::L2Failures);
    done_with(adapter, tid);
}

/// The tid of a half-open connection is over.
fn done_with(adapter: &Adapter, tid: u32) {
    if let Some(e) = adapter.tids.take(tid)
        && let Tid::Synqe(s) = &*e
    {
        adapter.release_tid(tid, s.vi.port);
    }
}

/// CPL_PASS_ESTABLISH: the handshake is done. Net epoch, no lock.
pub fn established(adapter: &Arc<Adapter>, cpl: &PassEstablish) {
    let entry = adapter.tids.get(cpl.tid);
    let Some(Tid::Synqe(synqe)) = entry.as_deref() else {
        adapter
            .tom
            .log(c"PASS_ESTABLISH for an unknown tid", u64::from(cpl.tid), 0);
        return;
    };
    let _vnet = synqe.lctx.vnet.enter();
    let mut g = synqe.lctx.inp.inp().lock();
    let mem = Reserved::new().and_then(|m| Ok((m, Arc::<Tid>::reserve(Wait::No)?)));
    let syn = match (g.locked().dropped(), mem, synqe.parts.enter(&mut g)) {
        (false, Ok(mem), Some(parts)) => {
            parts.mem = Some(mem);
            parts.cpl = *cpl;
            parts.syn.take()
        }
        _ => None,
    };
    let Some(syn) = syn else {
        drop(g);
        Synqe::abort(synqe, adapter);
        return;
    };
    let e = Expand {
        l3_off: synqe.l3_off,
        tcp_off: synqe.tcp_off,
        iss: synqe.iss.load(Ordering::Relaxed),
        irs: synqe.irs.load(Ordering::Relaxed),
        ts: synqe.tstamp.then(|| synqe.ts.load(Ordering::Relaxed)),
    };
    // Calls Synqe::become_connection() on the way.
    let new = syn::syncache_expand(adapter.tom, &syn, &e, &mut g, synqe.as_raw());
    drop(g);
    if new.is_none() {
        Synqe::abort(synqe, adapter);
    }
}

impl Synqe {
    /// `tod_syncache_respond`: the kernel chose these numbers. Only the first answer counts.
    pub fn respond(&self, iss: u32, irs: u32, ts: u32) {
        if self.responded.load(Ordering::Acquire) {
            return;
        }
        self.iss.store(iss, Ordering::Relaxed);
        self.irs.store(irs, Ordering::Relaxed);
        self.ts.store(ts, Ordering::Relaxed);
        self.responded.store(true, Ordering::Release);
    }

    /// The listener whose lock guards the parts.
    pub fn listener(&self) -> kpi::inp::Inp {
        self.lctx.inp.inp()
    }

    /// `tod_offload_socket`: here is the socket. `listener` and `g` (the new inpcb) are locked.
    pub fn become_connection(this: &Arc<Synqe>, listener: &mut InpGuard, g: &mut InpGuard) {
        let adapter = &this.lctx.adapter;
        let Some(parts) = this.parts.enter(listener) else {
            return;
        };
        let (Some((mem, room)), Some(l2)) = (parts.mem.take(), parts.l2.take()) else {
            return;
        };
        let cpl = parts.cpl;
        let toep = Toepcb::new(mem, adapter, g, &this.vi, l2, this.params);
        g.locked().offload(adapter.tom, toep.as_raw());
        let conn = toep.clone();
        // t_toe's reference.
        let _ = toep.into_raw();
        let held = conn.clone();
        drop(adapter.tids.put(cpl.tid, room.fill(|| Tid::Toep(held))));
        // A connection that comes up has no outcome but to be there.
        let _ = Toepcb::established(&conn, g, cpl.tid, cpl.snd_isn, cpl.rcv_isn, cpl.tcp_opt);
    }

    /// Reset a half-open connection: FLOWC, then CPL_ABORT_REQ. Its reply ends it.
    pub fn abort(this: &Arc<Synqe>, adapter: &Adapter) {
        if this.aborting.swap(true, Ordering::AcqRel) {
            return;
        }
        this.send_abort(adapter);
    }

    fn send_abort(&self, adapter: &Adapter) {
        let params = [
            (FlowcParam::PfnVfn, adapter.info.pf << 8),
            (FlowcParam::Ch, self.vi.tx_chan),
            (FlowcParam::Port, self.vi.tx_chan),
            (FlowcParam::IqId, self.vi.rxq_abs),
            (FlowcParam::SndBuf, 512),
            (FlowcParam::Mss, 512),
        ];
        let q = WrQueue::Ofld(self.vi.txq);
        let flowc = Flowc {
            tid: self.tid,
            params: &params,
        };
        let abort = AbortReq {
            tid: self.tid,
            cmd: AbortCmd::SEND_RST,
            ..AbortReq::default()
        };
        let sent = adapter
            .tom
            .send_wr(q, Flowc::len(params.len()), |b| {
                let _ = flowc.emit(b);
            })
            .and_then(|()| {
                adapter.tom.send_wr(q, AbortReq::LEN, |b| {
                    let _ = abort.emit(b);
                })
            });
        self.owed.store(sent.is_err(), Ordering::Release);
        if sent.is_err() {
            adapter.sweep_soon();
        }
    }

    /// The retry task comes by.
    pub fn retry(this: &Arc<Synqe>, adapter: &Adapter) {
        if this.owed.load(Ordering::Acquire) {
            this.send_abort(adapter);
        }
    }
}

/// CPL_ABORT_REQ_RSS for a half-open connection.
pub fn abort_req(adapter: &Adapter, synqe: &Arc<Synqe>, cpl: &AbortReqRss) {
    if cpl.status.is_neg_advice() {
        return;
    }
    let rpl = AbortRpl {
        tid: cpl.tid,
        cmd: AbortCmd::NO_RST,
        ..AbortRpl::default()
    };
    let sent = adapter
        .tom
        .send_wr(WrQueue::Ofld(synqe.vi.txq), AbortRpl::LEN, |b| {
            let _ = rpl.emit(b);
        });
    if sent.is_err() {
        // The adapter repeats what is not answered.
        adapter
            .tom
            .log(c"no work request for ABORT_RPL", u64::from(cpl.tid), 0);
    }
    if !synqe.aborting.load(Ordering::Acquire) {
        done_with(adapter, cpl.tid);
    }
}

/// CPL_ABORT_RPL_RSS for a half-open connection that we aborted.
pub fn abort_rpl(adapter: &Adapter, synqe: &Arc<Synqe>) {
    done_with(adapter, synqe.tid);
}
