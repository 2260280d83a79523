//! What connections of one adapter share: identifiers, page pods, the retry of shortages, and
//! the teardown of what has ended.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use kpi::mem::{Arc, Last, Link, Linked, Slice, Sole, Stack, Wait};
use kpi::mtx::Mutex;
use kpi::tom::{Gauge, Tom, WrQueue};
use kpi::{Error, sys};
use static_assertions::const_assert_eq;
use toehold_core::os::Counter;
use toehold_core::ppod::{Geometry, Node, Ppods, Region};
use toehold_core::shared::Tunables;
use wire::{Chip, TidRelease, WireError};

use crate::due::Due;
use crate::egress;
use crate::listen::Lctx;
use crate::owed::Owed;
use crate::synqe::Synqe;
use crate::tids::Table;
use crate::toepcb::{SLOTS, Toepcb};
use crate::turn::{RETRY_MS, RETRY_MS_MAX};

/// No address space has this name.
const EVERYBODY: u64 = u64::MAX;

/// Counters beyond those of core; the numbers are places in the shim's table.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Extra {
    /// SYNs not offloaded.
    ListenRejects = Counter::Count as usize,
    /// Work requests dropped for want of a next hop.
    L2Failures,
    /// How many counters there are.
    End,
}

const_assert_eq!(toehold_core::egress::CTRL_QUEUE, sys::TH_CTRLQ);
const_assert_eq!(toehold_core::open::MIN_RCV_WND, sys::TH_MIN_RCV);
const_assert_eq!(Counter::Count as u32, sys::TH_NCONN_COUNTERS);
const_assert_eq!(Extra::End as u32, sys::TH_NCOUNTERS);

/// Why a work request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// None could be had now; a retry may help.
    NoWr,
    /// It cannot be built: a number does not fit its field, now or later. Counted and logged.
    Unbuilt,
}

impl NotSent {
    /// What the kernel hears.
    pub fn errno(self) -> Error {
        match self {
            NotSent::NoWr => Error::ENOMEM,
            NotSent::Unbuilt => Error::EINVAL,
        }
    }
}

/// Who a tid stands for.
pub enum Tid {
    /// A connection.
    Toep(Arc<Toepcb>),
    /// A SYN that we answered.
    Synqe(Arc<Synqe>),
    /// Nobody: CPL_TID_RELEASE could not be sent yet.
    Releasing,
    /// Nobody: the connection is over, and the adapter owes it messages that no other of the same
    /// tid may get.
    Silent(Owed),
}

impl Last for Tid {}

/// One adapter.
pub struct Adapter {
    /// The shim's side.
    pub tom: Tom,
    /// What the adapter is.
    pub info: sys::th_adapter_info,
    /// Chip generation.
    pub chip: Chip,
    /// Layout of the page-pod memory.
    pub geometry: Geometry,
    ppods: Mutex<Region<Slice<Node>>>,
    /// Connections and answered SYNs.
    pub tids: Table<Tid>,
    /// Active opens under way.
    pub atids: Table<Toepcb>,
    /// Listeners.
    pub stids: Table<Lctx>,
    toepcbs: AtomicU32,
    /// Listeners, those included that only half-open connections of the syncache still need.
    lctxs: AtomicU32,
    /// Connections that met a shortage.
    pub waiting: Stack<Arc<Toepcb>>,
    /// Connections that have ended and are to be torn down.
    pub dead: Stack<Sole<Toepcb>>,
    /// Listeners whose inpcb is to be released.
    pub dead_lctx: Stack<Sole<Lctx>>,
    /// A listener, an answered SYN or a tid met a shortage: look at them all.
    sweep: AtomicBool,
    /// Wired pages or page pods are short: idle page sets are to go, [`EVERYBODY`]'s or those of
    /// one address space; 0 for none.
    pressure: AtomicU64,
    /// Page pods were given back: all that wait are asked, whenever their turn is.
    given: AtomicBool,
    /// Tids that stand for nobody because the adapter owes messages about them.
    pub(crate) silent: AtomicU32,
    /// Uptime in milliseconds at which some answer of the adapter's may be overdue.
    pub(crate) watch: Due,
    /// It does nothing and hears nothing ([`crate::stop`]).
    stopped: AtomicBool,
}

impl Last for Adapter {}

impl Adapter {
    /// Build the tables. Sleeps.
    ///
    /// # Errors
    /// ENXIO if the adapter has no usable DDP memory, ENOMEM.
    pub fn new(tom: Tom, info: &sys::th_adapter_info) -> Result<Arc<Adapter>, Error> {
        let chip = match info.chip {
            sys::TH_CHIP_T4 => Chip::T4,
            sys::TH_CHIP_T5 => Chip::T5,
            _ => Chip::T6,
        };
        let geometry =
            Geometry::new(info.ddp_start, info.ddp_size, info.page_shift).ok_or(Error(6))?;
        let nodes = Slice::new(geometry.ppods() as usize, Wait::Ok, |_| Node::default())?;
        let ppods = Mutex::new(c"toehold ppods", Region::new(nodes));
        let tids = Table::new(c"toehold tids", info.tid_base, info.ntids)?;
        let atids = Table::new(c"toehold atids", 0, info.natids)?;
        let stids = Table::new(c"toehold stids", info.stid_base, info.nstids)?;
        Arc::new(Wait::Ok, || Adapter {
            tom,
            info: *info,
            chip,
            geometry,
            ppods,
            tids,
            atids,
            stids,
            toepcbs: AtomicU32::new(0),
            lctxs: AtomicU32::new(0),
            waiting: Stack::default(),
            dead: Stack::default(),
            dead_lctx: Stack::default(),
            sweep: AtomicBool::new(false),
            pressure: AtomicU64::new(0),
            given: AtomicBool::new(false),
            silent: AtomicU32::new(0),
            watch: Due::default(),
            stopped: AtomicBool::new(false),
        })
    }

    /// Settings as core wants them.
    pub fn tunables(&self) -> Tunables {
        let t = self.tom.tunables();
        Tunables {
            ddp: t.ddp != 0,
            tx_zcopy: t.tx_zcopy != 0,
            tx_zcopy_min: u32::try_from(t.tx_zcopy_min).unwrap_or(0),
            cache: t.ddp_cache.clamp(0, SLOTS as i32) as u16,
        }
    }

    /// It is stopped. Whoever puts something in a table looks afterwards.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Only [`crate::stop`] says so.
    pub fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::SeqCst);
    }

    /// It is what `info` says, as far as tables and page pods are made for that.
    pub fn same(&self, info: &sys::th_adapter_info) -> bool {
        let key = |i: &sys::th_adapter_info| {
            (
                [i.chip, i.tid_base, i.ntids, i.stid_base, i.nstids, i.natids],
                [i.ddp_start, i.ddp_size],
                i.page_shift,
            )
        };
        key(&self.info) == key(info)
    }

    /// Count an event of the module's own.
    pub fn count(&self, c: Extra) {
        self.tom.count(None, c as usize, 1);
    }

    /// Take page pods.
    pub fn ppod_alloc(&self, n: u32) -> Option<Ppods> {
        let p = self.ppods.lock().alloc(n);
        if p.is_none() {
            self.pressure(None);
        }
        let p = p?;
        self.tom.gauge(Gauge::Ppods, i64::from(n));
        Some(p)
    }

    /// Give page pods back.
    pub fn ppod_free(&self, p: Ppods) {
        self.tom.gauge(Gauge::Ppods, -i64::from(p.count()));
        self.ppods.lock().free(p);
        if !self.waiting.is_empty() {
            // Somebody may wait for just these.
            self.given.store(true, Ordering::Release);
            self.retry_soon();
        }
    }

    /// A connection begins.
    pub fn born(&self) {
        self.toepcbs.fetch_add(1, Ordering::Relaxed);
        self.tom.gauge(Gauge::Toepcb, 1);
    }

    /// A connection is gone.
    pub fn gone(&self) {
        self.tom.gauge(Gauge::Toepcb, -1);
        self.toepcbs.fetch_sub(1, Ordering::Release);
    }

    /// A listener begins.
    pub fn listener_born(&self) {
        self.lctxs.fetch_add(1, Ordering::Relaxed);
    }

    /// A listener is gone, and with it every half-open connection that it had.
    pub fn listener_gone(&self) {
        self.lctxs.fetch_sub(1, Ordering::Release);
    }

    /// Connections that live.
    pub fn connections(&self) -> u32 {
        self.toepcbs.load(Ordering::Acquire)
    }

    /// Ask connections to let go of page sets that they only keep: all, or those of one address
    /// space.
    pub fn pressure(&self, space: Option<u64>) {
        self.press(space.unwrap_or(EVERYBODY));
        self.retry_soon();
    }

    fn press(&self, who: u64) {
        // Two at a time are as good as everybody.
        let join = |now| match now {
            0 => Some(who),
            n if n == who => None,
            _ => Some(EVERYBODY),
        };
        let _ = self
            .pressure
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, join);
    }

    /// Memory is short; the retry task comes at once.
    pub fn lowmem(&self) {
        self.press(EVERYBODY);
    }

    /// The process with this address space exits or execs: no connection keeps pages of it. A
    /// look at each connection, one lock at a time; no lock held.
    pub fn forget(&self, space: u64) {
        self.tids.each(|_, e| {
            if let Tid::Toep(t) = &*e {
                Toepcb::forget(t, space);
            }
        });
    }

    /// Page pods in all, and the longest run of free ones.
    pub fn ppods(&self) -> (u32, u32) {
        let r = self.ppods.lock();
        (r.capacity(), r.largest())
    }

    /// Something is to be done by the retry task, soon.
    pub fn retry_soon(&self) {
        self.tom.retry_schedule(RETRY_MS);
    }

    /// A connection waits for better times, and is looked at in `ms` milliseconds or before.
    pub fn wait(&self, toep: &Arc<Toepcb>, ms: u32, retry: bool) {
        if toep.turn.ask(self.tom.uptime_ms(), ms, retry) {
            self.waiting.push(toep.clone());
        }
        self.tom.retry_schedule(ms);
    }

    /// A listener, an answered SYN or a tid waits for a work request.
    pub fn sweep_soon(&self) {
        self.sweep.store(true, Ordering::Release);
        self.retry_soon();
    }

    /// Give a tid back to the adapter. If that cannot be sent now the tid stays taken until it
    /// can.
    pub fn release_tid(&self, tid: u32) {
        if self.stopped() || self.send_tid_release(tid) != Err(NotSent::NoWr) {
            return;
        }
        if let Ok(e) = Arc::new(Wait::No, || Tid::Releasing) {
            drop(self.tids.put(tid, e));
            self.sweep_soon();
        } else {
            // Nothing is left to remember it with: the adapter keeps one tid it could reuse.
            self.tom
                .log(c"tid lost for want of memory", u64::from(tid), 0);
        }
    }

    fn send_tid_release(&self, tid: u32) -> Result<(), NotSent> {
        let cpl = TidRelease { tid };
        let mut buf = [0; TidRelease::LEN];
        self.send(egress::CTRL, &mut buf, tid, |b| cpl.emit(b))
    }

    /// Build a work request of no connection in `buf`, which is as long as the request, and send
    /// it. `id` says in the log what it is about.
    ///
    /// # Errors
    /// Nothing was sent: [`NotSent`].
    pub fn send(
        &self,
        q: WrQueue,
        buf: &mut [u8],
        id: u32,
        build: impl FnOnce(&mut [u8]) -> Result<(), WireError>,
    ) -> Result<(), NotSent> {
        if build(buf).is_err() {
            self.tom.count(None, Counter::BadWr as usize, 1);
            self.tom
                .log(c"a work request cannot be built", u64::from(id), 0);
            return Err(NotSent::Unbuilt);
        }
        self.tom.send_wr(q, buf).map_err(|_| NotSent::NoWr)
    }

    /// The retry task: tear down the dead, and wake what met a shortage. No lock held.
    pub fn retry(&self) {
        self.dead_lctx.drain(|l| {
            drop(l);
            self.listener_gone();
        });
        self.bury();
        let who = self.pressure.swap(0, Ordering::AcqRel);
        if who != 0 {
            let space = (who != EVERYBODY).then_some(who);
            self.tids.each(|_, e| {
                if let Tid::Toep(t) = &*e {
                    Toepcb::relieve(t, space);
                }
            });
        }
        self.take_turns();
        self.watch_over();
        if self.sweep.swap(false, Ordering::AcqRel) {
            self.sweep();
        }
    }

    /// Look at the connections that wait, each when its turn has come.
    fn take_turns(&self) {
        let given = self.given.swap(false, Ordering::AcqRel);
        let now = self.tom.uptime_ms();
        let stay: Stack<Arc<Toepcb>> = Stack::default();
        let mut next = None;
        self.waiting.drain(|t| match t.turn.left(now) {
            0 => Toepcb::retry(&t, false),
            _ if given => Toepcb::retry(&t, true),
            ms => {
                next = Some(next.map_or(ms, |n: u32| n.min(ms)));
                stay.push(t);
            }
        });
        stay.drain(|t| self.waiting.push(t));
        if let Some(ms) = next {
            self.tom.retry_schedule(ms);
        }
    }

    fn sweep(&self) {
        self.tids.each(|tid, e| match &*e {
            Tid::Toep(_) | Tid::Silent(_) => {}
            Tid::Synqe(s) => Synqe::retry(s, self),
            Tid::Releasing => {
                if self.send_tid_release(tid) == Err(NotSent::NoWr) {
                    self.sweep_soon();
                } else {
                    drop(self.tids.take(tid));
                }
            }
        });
        self.stids.each(|_, l| Lctx::retry(&l, self));
    }

    /// Tear down connections that have ended. What mbufs still refer to stays for the next time.
    fn bury(&self) {
        let mut again = false;
        let stay: Stack<Sole<Toepcb>> = Stack::default();
        self.dead.drain(|t| {
            if let Some(t) = Toepcb::teardown(t) {
                stay.push(t);
                again = true;
            }
        });
        stay.drain(|t| self.dead.push(t));
        if again {
            // The last mbuf wakes us; this is for what nobody thought of.
            self.tom.retry_schedule(RETRY_MS_MAX);
        }
    }

    /// Nothing is left that the kernel or the adapter could refer to. The syncache's half-open
    /// connections are in no table once the adapter has done with them; they keep their listener.
    pub fn quiet(&self) -> bool {
        self.tids.used() == self.silent.load(Ordering::Acquire)
            && self.stids.used() == 0
            && self.connections() == 0
            && self.lctxs.load(Ordering::Acquire) == 0
            && self.dead.is_empty()
            && self.dead_lctx.is_empty()
    }
}

impl Linked for Lctx {
    fn link(&self) -> &Link {
        &self.link
    }
}

impl Last for Lctx {
    fn last(this: Sole<Lctx>) {
        // Releasing the inpcb takes its lock, which may be held here.
        let adapter = this.adapter.clone();
        adapter.dead_lctx.push(this);
        adapter.retry_soon();
    }
}
