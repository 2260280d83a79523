//! Passive open: listeners (FreeBSD's `struct listen_ctx`).

use core::sync::atomic::{AtomicU8, Ordering};

use kpi::inp::{InpGuard, InpRef, Vnet};
use kpi::mem::{Arc, Link, Wait};
use kpi::{Error, sys};
use spin::Once;
use wire::{CloseListsrvReq, CloseListsrvRpl, ConnPolicy, Opt0, PassOpenReq, PassOpenRpl};

use crate::adapter::{Adapter, NotSent, Tid};
use crate::egress;
use crate::synqe::Synqe;

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
    /// The adapter is stopped and will be asked to listen when it restarts.
    pub(super) const PARKED: u8 = 5;
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
    /// The listening inpcb.
    pub inp: InpRef,
}

impl Lctx {
    fn is(&self, s: u8) -> bool {
        self.state.load(Ordering::Acquire) == s
    }

    fn set(&self, s: u8) {
        self.state.store(s, Ordering::Release);
    }

    fn stid(&self) -> u32 {
        self.stid.get().copied().unwrap_or_default()
    }

    /// CPL_CLOSE_LISTSRV_REQ, now or with a retry. It has room for all that CPL_PASS_OPEN_REQ had.
    fn send_close(&self) {
        let req = CloseListsrvReq {
            stid: self.stid(),
            queue: self.vi.rxq_abs,
            ipv6: false,
            no_reply: false,
        };
        let mut buf = [0; CloseListsrvReq::LEN];
        let sent = self
            .adapter
            .send(egress::CTRL, &mut buf, self.stid(), |b| req.emit(b));
        match sent {
            Ok(()) => self.set(state::CLOSING),
            Err(NotSent::NoWr) => {
                self.set(state::CLOSE_OWED);
                self.adapter.sweep_soon();
            }
            // The adapter was never asked to listen in these words either.
            Err(NotSent::Unbuilt) => {}
        }
    }

    fn close(&self) {
        match self.state.load(Ordering::Acquire) {
            state::OPENING => self.set(state::UNWANTED),
            state::OPEN => self.send_close(),
            state::PARKED => drop(self.adapter.stids.take(self.stid())),
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
    let lctx = Arc::new(Wait::No, || Lctx {
        adapter: adapter.clone(),
        vnet: g.inp().vnet(),
        link: Link::default(),
        vi: *vi,
        stid: Once::new(),
        state: AtomicU8::new(state::OPENING),
        inp: g.reference(),
    })?;
    adapter.listener_born();
    let stid = adapter
        .stids
        .claim(lctx.clone())
        .map_err(|_| Error::ENOMEM)?;
    lctx.stid.call_once(|| stid);
    lctx.open(g).inspect_err(|_| drop(adapter.stids.take(stid)))
}

impl Lctx {
    /// CPL_PASS_OPEN_REQ, unless the adapter is stopped.
    fn open(&self, g: &InpGuard) -> Result<(), Error> {
        let adapter = &self.adapter;
        if adapter.stopped() {
            self.set(state::PARKED);
            return Ok(());
        }
        let (t, vi) = (g.locked().tuple(), &self.vi);
        let opt1 = wire::Opt1 {
            conn_policy: ConnPolicy::Ask,
            syn_rss_queue: Some(vi.rxq_abs),
        };
        let req = PassOpenReq {
            stid: self.stid(),
            local_port: u16::from_be(t.lport),
            peer_port: 0,
            local_ip: u32::from_be(t.laddr),
            peer_ip: 0,
            opt0: Opt0 {
                tx_chan: vi.tx_chan,
                ..Opt0::default()
            }
            .to_bits(),
            opt1: opt1.to_bits().map_err(|_| Error::EINVAL)?,
        };
        let mut buf = [0; PassOpenReq::LEN];
        let sent = adapter.send(egress::CTRL, &mut buf, self.stid(), |b| req.emit(b));
        match sent {
            Ok(()) => Ok(()),
            Err(NotSent::NoWr) if self.is(state::PARKED) => Ok(()),
            Err(e) => {
                if e == NotSent::NoWr {
                    adapter
                        .tom
                        .log(c"no work request to listen with", u64::from(self.stid()), 0);
                }
                Err(e.errno())
            }
        }
    }

    /// The adapter works again.
    fn open_again(&self) -> Result<(), Error> {
        let _vnet = self.vnet.enter();
        let g = self.inp.inp().lock();
        if g.locked().dropped() || !self.is(state::PARKED) {
            return Err(Error::ENOENT);
        }
        self.set(state::OPENING);
        self.open(&g)
    }
}

/// The adapter has stopped ([`crate::stop`]): it listens no more, and is asked to when it
/// restarts. What was on its way out is gone.
pub fn park_all(adapter: &Adapter) {
    adapter.stids.each(|stid, l| {
        if l.is(state::OPENING) || l.is(state::OPEN) {
            l.set(state::PARKED);
        } else if !l.is(state::PARKED) {
            drop(adapter.stids.take(stid));
        }
    });
}

/// The adapter works again: have it listen. No lock held.
pub fn start_again(adapter: &Adapter) {
    adapter.stids.each(|stid, l| {
        if l.open_again().is_err() {
            drop(adapter.stids.take(stid));
        }
    });
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

/// Close every listener and reset what is half-open: the module goes.
pub fn stop_all(adapter: &Adapter) {
    adapter.stids.each(|_, l| l.close());
    adapter.tids.each(|_, e| {
        if let Tid::Synqe(s) = &*e {
            Synqe::abort(s, adapter);
        }
    });
}

/// Nothing but listeners and answered SYNs that are on their way out is left.
pub fn closing(adapter: &Adapter) -> bool {
    let mut open = false;
    adapter.stids.each(|_, l| open |= l.is(state::OPEN));
    !open && adapter.connections() == 0
}

/// CPL_PASS_OPEN_RPL.
pub fn opened(adapter: &Adapter, cpl: &PassOpenRpl) {
    let Some(lctx) = adapter.stids.get(cpl.stid) else {
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
        drop(adapter.stids.take(cpl.stid));
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
    drop(adapter.stids.take(cpl.stid));
}
