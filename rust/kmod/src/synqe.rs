//! Passive open: SYNs that we answered (FreeBSD's `struct synq_entry`), until they are
//! connections.
//!
//! References: the tid table's, and the syncache's. The parts that become the connection's are
//! guarded by the listener's INP.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use kpi::inp::InpGuard;
use kpi::l2::L2;
use kpi::mbuf::Mbuf;
use kpi::mem::{Arc, Last, Room, Wait};
use kpi::syn::{self, Expand};
use kpi::tom::Class;
use kpi::{Error, sys};
use toehold_core::conn::Silent;
use toehold_core::open::{ConnParams, PeerSyn, pass_accept_rpl};
use toehold_core::os::Queue;
use wire::{
    AbortCmd, AbortReq, AbortReqRss, AbortRpl, Flowc, FlowcParam, PassAcceptReq, PassAcceptRpl,
    PassEstablish, WireError,
};

use crate::adapter::{Adapter, Extra, NotSent, Tid};
use crate::connect;
use crate::due::Due;
use crate::egress;
use crate::listen::Lctx;
use crate::toepcb::{Reserved, Toepcb};

/// What a half-open connection still has to send.
mod owed {
    /// FW_FLOWC_WR, which precedes an abort.
    pub(super) const FLOWC: u8 = 1 << 0;
    /// CPL_ABORT_REQ.
    pub(super) const REQ: u8 = 1 << 1;
    /// CPL_ABORT_RPL.
    pub(super) const RPL: u8 = 1 << 2;
    /// And then the tid is over.
    pub(super) const END: u8 = 1 << 3;
    /// CPL_PASS_ACCEPT_RPL: the kernel has answered the SYN already and does so once only, so
    /// that no later SYN of the peer helps.
    pub(super) const SYNACK: u8 = 1 << 4;
}

/// A SYN that we answered.
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
    /// When our reset of it began.
    pub due: Due,
    /// What is still to be sent, see [`owed`].
    owed: AtomicU8,
    // Used once, by the queue's thread.
    parts: kpi::cell::InpCell<Parts>,
}

/// What becomes the connection's; guarded by the listener's INP.
struct Parts {
    syn: Option<Mbuf>,
    l2: Option<L2>,
    mem: Option<(Reserved, Room<Tid>)>,
    cpl: PassEstablish,
}

impl Last for Synqe {}

/// Parameters of the FW_FLOWC_WR before an abort.
const FLOWC_PARAMS: usize = 6;

/// Bytes of a TCP header without options.
const TCP_HDR_LEN: usize = 20;

/// CPL_PASS_ACCEPT_REQ: a SYN. `have` bytes of `m` are contiguous. Net epoch, no lock.
///
/// # Errors
/// The message makes no sense.
pub fn syn(adapter: &Arc<Adapter>, b: &[u8], have: usize, mut m: Mbuf) -> Result<(), WireError> {
    let cpl = PassAcceptReq::parse(b, adapter.chip)?;
    let port = u32::from(cpl.l2info.intf);
    // The SYN's headers are read in the first mbuf.
    let need = PassAcceptReq::LEN
        + usize::from(cpl.eth_hdr_len)
        + usize::from(cpl.ip_hdr_len)
        + TCP_HDR_LEN;
    if have < need {
        return Err(WireError::Truncated { need, have });
    }
    m.trim_front(PassAcceptReq::LEN as u32);
    match offload(adapter, &cpl, m) {
        Ok(()) => {}
        Err((e, m)) => {
            adapter.count(Extra::ListenRejects);
            adapter.release_tid(cpl.tid);
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
    let Some(lctx) = adapter.stids.get(cpl.stid) else {
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
        due: Due::default(),
        owed: AtomicU8::new(0),
        parts: kpi::cell::InpCell::new(g.inp(), |_| Parts {
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
    let held = synqe.clone();
    drop(adapter.tids.put(cpl.tid, room.1.fill(|| Tid::Synqe(held))));
    let Some(parts) = synqe.parts.enter(&mut g) else {
        return Err((Error(22), None));
    };
    parts.syn = Some(m);
    match synqe.answer(adapter, parts) {
        Ok(()) => Ok(()),
        Err(Error::ENOMEM) => {
            synqe.owed.fetch_or(owed::SYNACK, Ordering::AcqRel);
            adapter.sweep_soon();
            Ok(())
        }
        Err(_) => {
            let m = parts.syn.take();
            drop(g);
            drop(adapter.tids.take(cpl.tid));
            Err((NOT_OURS, m))
        }
    }
}

/// Cookie of a work request that carries a SYN|ACK: the tid, with this bit.
pub const SYNACK: u64 = 1 << 32;

/// The SYN|ACK was never sent: no next hop. Task context, net epoch.
pub fn unsent(adapter: &Adapter, tid: u32) {
    adapter.count(Extra::L2Failures);
    done_with(adapter, tid);
}

/// The tid of a half-open connection is over. Net epoch, no lock.
fn done_with(adapter: &Adapter, tid: u32) {
    if let Some(e) = adapter.tids.take(tid)
        && let Tid::Synqe(s) = &*e
    {
        s.forget();
        adapter.release_tid(tid);
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
    let mem = Reserved::new(adapter, Class::Passive)
        .and_then(|m| Ok((m, Arc::<Tid>::reserve(Wait::No)?)));
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
    if new.is_some() {
        return;
    }
    if let Some(parts) = synqe.parts.enter(&mut g) {
        parts.syn = Some(syn);
    }
    drop(g);
    Synqe::abort(synqe, adapter);
}

impl Synqe {
    /// `tod_syncache_respond`: the kernel chose these numbers. Only the first answer counts.
    ///
    /// # Errors
    /// ECONNABORTED: the connection is over, and there is nothing to answer.
    pub fn respond(&self, iss: u32, irs: u32, ts: u32) -> Result<(), Error> {
        if self.aborting.load(Ordering::Acquire) {
            return Err(Error::ECONNABORTED);
        }
        if self.responded.load(Ordering::Acquire) {
            return Ok(());
        }
        self.iss.store(iss, Ordering::Relaxed);
        self.irs.store(irs, Ordering::Relaxed);
        self.ts.store(ts, Ordering::Relaxed);
        self.responded.store(true, Ordering::Release);
        Ok(())
    }

    /// The adapter has no such connection any more: nor shall the syncache, which would wait for
    /// the peer's answer for many seconds, keep this listener meanwhile, and take a new SYN of
    /// that peer for a repetition. Net epoch, no lock.
    fn forget(&self) {
        let _vnet = self.lctx.vnet.enter();
        let mut g = self.lctx.inp.inp().lock();
        let irs = self.irs.load(Ordering::Relaxed);
        if let Some(syn) = self.parts.enter(&mut g).and_then(|p| p.syn.as_ref()) {
            syn::syncache_forget(syn, self.l3_off, self.tcp_off, irs);
        }
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

    /// Send the SYN|ACK, behind the resolution of the next hop.
    fn answer(&self, adapter: &Adapter, parts: &Parts) -> Result<(), Error> {
        let l2 = parts.l2.as_ref().ok_or(Error(22))?;
        let link = connect::link(adapter, &self.vi, l2);
        let iss = self.iss.load(Ordering::Relaxed);
        let rpl = pass_accept_rpl(&self.params, &link, self.tid, iss);
        let mut wr = [0; 64];
        let wr = wr.get_mut(..PassAcceptRpl::len(adapter.chip));
        let wr = wr.ok_or(Error(22))?;
        rpl.emit(wr, adapter.chip).map_err(|_| Error(22))?;
        l2.send(egress::CTRL, wr, SYNACK | u64::from(self.tid))
    }

    /// Try again to send the SYN|ACK.
    fn answer_late(&self, adapter: &Adapter) {
        let mut g = self.lctx.inp.inp().lock();
        let sent = match self.parts.enter(&mut g) {
            Some(parts) => self.answer(adapter, parts),
            None => Err(Error(22)),
        };
        drop(g);
        match sent {
            Ok(()) => drop(self.owed.fetch_and(!owed::SYNACK, Ordering::AcqRel)),
            Err(Error::ENOMEM) => adapter.sweep_soon(),
            Err(_) => unsent(adapter, self.tid),
        }
    }

    /// Reset a half-open connection: FLOWC, then CPL_ABORT_REQ. Its reply ends it.
    pub fn abort(this: &Arc<Synqe>, adapter: &Adapter) {
        if !this.aborting.swap(true, Ordering::AcqRel) {
            let now = adapter.tom.uptime_ms();
            this.due.changed(Some(now));
            this.owe(adapter, owed::FLOWC | owed::REQ);
            adapter.watch(now);
        }
    }

    /// Our reset was not answered in time. Nothing hangs on it but the tid, which is kept until it
    /// is. Net epoch, no lock.
    pub fn overdue(this: &Arc<Synqe>, adapter: &Adapter) {
        adapter.tom.log(
            c"no answer to the reset of a half-open connection",
            u64::from(this.tid),
            0,
        );
        this.forget();
        let owed = Silent {
            replies: 0,
            abort: true,
        };
        adapter.done_with(this.tid, this.vi.txq, Some(owed));
    }

    /// The adapter says the connection is gone: it is owed an answer, whatever else.
    fn aborted(this: &Arc<Synqe>, adapter: &Adapter) {
        if !this.aborting.swap(true, Ordering::AcqRel) {
            this.owe(adapter, owed::RPL | owed::END);
        } else {
            this.owe(adapter, owed::RPL);
        }
    }

    fn owe(&self, adapter: &Adapter, what: u8) {
        self.owed.fetch_or(what, Ordering::AcqRel);
        self.pay(adapter);
    }

    /// Send what is owed, in order, as far as work requests are to be had.
    fn pay(&self, adapter: &Adapter) {
        let q = egress::queue(Queue::Ofld, self.vi.txq);
        let params: [_; FLOWC_PARAMS] = [
            (FlowcParam::PfnVfn, adapter.info.pf << 8),
            (FlowcParam::Ch, self.vi.tx_chan.into()),
            (FlowcParam::Port, self.vi.tx_chan.into()),
            (FlowcParam::IqId, self.vi.rxq_abs.into()),
            (FlowcParam::SndBuf, 512),
            (FlowcParam::Mss, 512),
        ];
        let flowc = Flowc {
            tid: self.tid,
            params: &params,
        };
        let req = AbortReq {
            tid: self.tid,
            cmd: AbortCmd::SEND_RST,
            ..AbortReq::default()
        };
        let rpl = AbortRpl {
            tid: self.tid,
            cmd: AbortCmd::NO_RST,
            ..AbortRpl::default()
        };
        for bit in [owed::FLOWC, owed::REQ, owed::RPL] {
            if self.owed.load(Ordering::Acquire) & bit == 0 {
                continue;
            }
            let sent = match bit {
                owed::FLOWC => {
                    let mut buf = [0; Flowc::len(FLOWC_PARAMS)];
                    adapter.send(q, &mut buf, self.tid, |b| flowc.emit(b).map(drop))
                }
                owed::REQ => {
                    let mut buf = [0; AbortReq::LEN];
                    adapter.send(q, &mut buf, self.tid, |b| req.emit(b))
                }
                _ => {
                    let mut buf = [0; AbortRpl::LEN];
                    adapter.send(q, &mut buf, self.tid, |b| rpl.emit(b))
                }
            };
            match sent {
                Ok(()) => {}
                Err(NotSent::NoWr) => {
                    adapter.sweep_soon();
                    return;
                }
                // A tid with no room in a request had no SYN|ACK either: nobody is to answer.
                Err(NotSent::Unbuilt) => {
                    self.owed.fetch_or(owed::END, Ordering::AcqRel);
                }
            }
            self.owed.fetch_and(!bit, Ordering::AcqRel);
        }
        if self.owed.fetch_and(!owed::END, Ordering::AcqRel) & owed::END != 0 {
            done_with(adapter, self.tid);
        }
    }

    /// The retry task comes by.
    pub fn retry(this: &Arc<Synqe>, adapter: &Adapter) {
        let owes = this.owed.load(Ordering::Acquire);
        if owes & owed::SYNACK != 0 && !this.aborting.load(Ordering::Acquire) {
            this.answer_late(adapter);
        } else if owes & !owed::SYNACK != 0 {
            this.pay(adapter);
        }
    }
}

/// The adapter has stopped ([`crate::stop`]): nothing is owed to it. Net epoch, no lock.
pub fn adapter_stopped(synqe: &Arc<Synqe>) {
    synqe.aborting.store(true, Ordering::Release);
    synqe.owed.store(0, Ordering::Release);
    synqe.forget();
}

/// CPL_ABORT_REQ_RSS for a half-open connection.
pub fn abort_req(adapter: &Adapter, synqe: &Arc<Synqe>, cpl: &AbortReqRss) {
    if !cpl.status.is_neg_advice() {
        Synqe::aborted(synqe, adapter);
    }
}

/// CPL_ABORT_RPL_RSS for a half-open connection that we aborted.
pub fn abort_rpl(adapter: &Adapter, synqe: &Arc<Synqe>) {
    done_with(adapter, synqe.tid);
}
