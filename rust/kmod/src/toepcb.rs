//! One connection: the state machine, and what it is to kernel and adapter.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kpi::cell::InpCell;
use kpi::inp::{Inp, InpGuard, InpRef, Vnet};
use kpi::l2::L2;
use kpi::mbuf::Mbuf;
use kpi::mem::{Arc, Last, Link, Linked, Room, Slice, Sole, Wait, Waits};
use kpi::task::Task;
use kpi::tom::{Class, WrBatch};
use kpi::{Error, sys};
use spin::Once;
use toehold_core::conn::{Conn, End, EstablishInit, Outcome};
use toehold_core::open::{Agreed, ConnParams};
use toehold_core::pageset::{PageSets, Slot};
use toehold_core::shared::ConnId;
use toehold_core::tx::TxParams;
use toehold_core::txcredits::RING;
use wire::TcpOpt;

use crate::adapter::{Adapter, Tid};
use crate::due::Due;
use crate::egress;
use crate::kos::{KPages, Kos};
use crate::turn::Turn;

/// Page-set slots of a connection.
pub const SLOTS: usize = sys::TH_MAX_SETS as usize;

/// What is reached without the lock: by mbufs that are freed, by the retry task.
pub struct Side {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// Users of each page-set slot; made with the slots.
    users: Once<Slice<AtomicU32>>,
    /// This run of the state machine met a shortage.
    pub short: AtomicBool,
    /// The worker is wanted.
    pub work: AtomicBool,
    /// Threads that do what the worker would, and look again before they go. Changed under INP.
    serving: AtomicU32,
    /// The connection has room for page sets.
    pub room: AtomicBool,
    /// The connection waits to be torn down.
    pub dying: AtomicBool,
    /// Since when an answer of the adapter is due.
    pub due: Due,
}

impl Last for Side {}

impl Side {
    /// How many use the page set in a slot, if there are sets.
    pub fn users(&self, slot: u32) -> Option<&AtomicU32> {
        self.users.get()?.get(slot as usize)
    }

    /// One more user of a page set.
    pub fn hold(&self, slot: u32) {
        if let Some(u) = self.users(slot) {
            u.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One user less. Any context.
    pub fn rele(&self, slot: u32) {
        if let Some(u) = self.users(slot) {
            u.fetch_sub(1, Ordering::Release);
        }
        if self.dying.load(Ordering::Acquire) {
            self.adapter.retry_soon();
        }
    }
}

/// What the inpcb's lock guards.
pub struct Inner {
    /// The state machine.
    pub conn: Conn<Kos>,
    /// Its way to the kernel.
    pub os: Kos,
    /// How the connection was opened.
    pub params: ConnParams,
    /// For the table of tids, until the tid is known (active open).
    pub entry: Option<Room<Tid>>,
    /// What was in so_snd when the connection was dropped: the adapter may read it to the end.
    kept: Option<Mbuf>,
}

/// A connection (FreeBSD's `struct toepcb`).
pub struct Toepcb {
    /// See [`Side`].
    pub side: Arc<Side>,
    /// Network stack instance.
    pub vnet: Vnet,
    /// Interface and queues.
    pub vi: sys::th_vi,
    /// The tid, once the adapter has given one.
    pub tid: Once<u32>,
    cell: InpCell<Inner>,
    /// Made at the first aio job.
    task: Once<Task>,
    link: Link,
    wait_link: Link,
    /// When it is looked at again.
    pub turn: Turn,
    // Dropped at teardown, in this order, by the retry task.
    l2: L2,
    inp: InpRef,
}

/// Memory of a connection, so that making it cannot fail later.
pub struct Reserved {
    class: Class,
    room: Room<Toepcb>,
    side: Room<Side>,
    ring: Slice<u32>,
    batch: WrBatch,
}

impl Reserved {
    /// Allocate, without sleeping.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(adapter: &Adapter, class: Class) -> Result<Reserved, Error> {
        Ok(Reserved {
            class,
            room: Arc::reserve(Wait::No)?,
            side: Arc::reserve(Wait::No)?,
            ring: Slice::new(RING, Wait::No, |_| 0)?,
            batch: WrBatch::new(adapter.tom)?,
        })
    }
}

impl Toepcb {
    /// A connection of the locked inpcb, not yet established.
    pub fn new(
        mem: Reserved,
        adapter: &Arc<Adapter>,
        g: &InpGuard,
        vi: &sys::th_vi,
        l2: L2,
        params: ConnParams,
    ) -> Arc<Toepcb> {
        adapter.born();
        let side = mem.side.fill(|| Side {
            adapter: adapter.clone(),
            users: Once::new(),
            short: AtomicBool::new(false),
            work: AtomicBool::new(false),
            serving: AtomicU32::new(0),
            room: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            due: Due::default(),
        });
        let inp = g.inp();
        let id = ConnId {
            chip: adapter.chip,
            tid: 0,
            pf: adapter.info.pf as u8,
            channel: vi.tx_chan,
            port: vi.port,
            rxq: vi.rxq_abs,
        };
        let (vi, class, batch, ring) = (*vi, mem.class, mem.batch, mem.ring);
        mem.room.fill(|| Toepcb {
            vnet: inp.vnet(),
            vi,
            tid: Once::new(),
            cell: InpCell::new(inp, |inside| Inner {
                conn: Conn::new(id, adapter.tunables(), PageSets::new(Slice::empty()), ring),
                os: Kos::new(inside, side.clone(), class, &vi, batch),
                params,
                entry: None,
                kept: None,
            }),
            side,
            task: Once::new(),
            link: Link::default(),
            wait_link: Link::default(),
            turn: Turn::default(),
            l2,
            inp: g.reference(),
        })
    }

    /// Room for page sets, at the first aio job. Process context: sleeps, no lock held. `None` if
    /// there is room.
    pub fn room(&self) -> Option<Slice<Slot<KPages>>> {
        if self.side.room.load(Ordering::Relaxed) {
            return None;
        }
        let users = Slice::new(SLOTS, Wait::Ok, |_| AtomicU32::new(0)).ok()?;
        // Another may have been first.
        self.side.users.call_once(|| users);
        Slice::new(SLOTS, Wait::Ok, |_| Slot::default()).ok()
    }

    /// The inpcb, kept alive by the connection.
    pub fn inp(&self) -> Inp {
        self.inp.inp()
    }

    /// Its next hop.
    pub fn l2(&self) -> &L2 {
        &self.l2
    }

    /// The adapter.
    pub fn adapter(&self) -> &Arc<Adapter> {
        &self.side.adapter
    }

    /// Run `f` on the state machine, then see to what it asked for. `None` if the guard is not
    /// this connection's.
    pub fn run<R>(
        this: &Arc<Toepcb>,
        g: &mut InpGuard,
        f: impl FnOnce(&mut Conn<Kos>, &mut Kos) -> R,
    ) -> Option<R> {
        let r = Self::enter(this, g, f)?;
        Self::see_to(this, || this.turn.afresh());
        Some(r)
    }

    /// Run `f` on the state machine.
    fn enter<R>(
        this: &Arc<Toepcb>,
        g: &mut InpGuard,
        f: impl FnOnce(&mut Conn<Kos>, &mut Kos) -> R,
    ) -> Option<R> {
        let Inner { conn, os, kept, .. } = this.cell.enter(g)?;
        let r = f(conn, os);
        os.flush();
        if let Some(since) = this.side.due.changed(conn.due(os)) {
            this.adapter().watch(since);
        }
        if !conn.sending() {
            *kept = None;
        }
        Some(r)
    }

    /// Data beside the state machine.
    pub fn inner<'g>(&'g self, g: &'g mut InpGuard) -> Option<&'g mut Inner> {
        self.cell.enter(g)
    }

    /// Start the worker if it is wanted, and have a shortage looked at in so many milliseconds.
    fn see_to(this: &Arc<Toepcb>, ms: impl FnOnce() -> u32) {
        if this.side.serving.load(Ordering::Relaxed) == 0
            && this.side.work.swap(false, Ordering::AcqRel)
        {
            match Self::task(this) {
                Some(task) => {
                    let held = this.clone();
                    if task.enqueue() {
                        // The worker takes this reference over.
                        let _ = held.into_raw();
                    }
                }
                None => {
                    // No memory for a task: the retry task asks again.
                    this.side.work.store(true, Ordering::Release);
                    this.adapter().wait(this, this.turn.longer(), false);
                }
            }
        }
        if this.side.short.swap(false, Ordering::AcqRel) {
            this.adapter().wait(this, ms(), true);
        }
    }

    /// This thread does the worker's work from here on, so that none need be woken for it.
    pub fn begin_to_serve(this: &Arc<Toepcb>, _: &mut InpGuard) {
        this.side.serving.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker's wishes so far are about to be looked at.
    pub fn about_to_look(this: &Arc<Toepcb>, _: &mut InpGuard) {
        this.side.work.store(false, Ordering::Relaxed);
    }

    /// This thread goes. `more`: there may be work left, for the worker.
    pub fn stop_serving(this: &Arc<Toepcb>, _: &mut InpGuard, more: bool) {
        this.side.serving.fetch_sub(1, Ordering::Relaxed);
        if more {
            this.side.work.store(true, Ordering::Relaxed);
        }
        Self::see_to(this, || this.turn.afresh());
    }

    fn task(this: &Arc<Toepcb>) -> Option<&Task> {
        this.task.try_call_once(|| Task::new(this.as_raw())).ok()
    }

    /// The retry task comes by, `early` if something was given back. No lock held.
    pub fn retry(this: &Arc<Toepcb>, early: bool) {
        let wanted = this.turn.take(early);
        if !wanted && !this.side.work.load(Ordering::Acquire) {
            return;
        }
        let _vnet = this.vnet.enter();
        let mut g = this.inp().lock();
        let o = match wanted {
            true => Self::enter(this, &mut g, |conn, os| conn.retry(os)),
            false => None,
        };
        Self::see_to(this, || this.turn.longer());
        Self::finish(this, g, o.unwrap_or_default());
    }

    /// Nobody waits any longer for what the adapter was to answer before `before`. Net epoch, no
    /// lock held.
    pub fn overdue(this: &Arc<Toepcb>, before: u64) {
        let _vnet = this.vnet.enter();
        let mut g = this.inp().lock();
        let o = Self::run(this, &mut g, |conn, os| conn.overdue(os, before));
        Self::finish(this, g, o.unwrap_or_default());
    }

    /// Others are short of what this connection's idle page sets hold, or the process with this
    /// address space is. No lock held.
    pub fn relieve(this: &Arc<Toepcb>, space: Option<u64>) {
        let _vnet = this.vnet.enter();
        let mut g = this.inp().lock();
        let _ = Self::run(this, &mut g, |conn, os| conn.relieve(os, space));
    }

    /// The process with this address space exits or execs. No lock held.
    pub fn forget(this: &Arc<Toepcb>, space: u64) {
        let _vnet = this.vnet.enter();
        let mut g = this.inp().lock();
        let _ = Self::run(this, &mut g, |conn, os| conn.forget(os, space));
    }

    /// Do what an outcome says. The lock goes.
    pub fn finish(this: &Arc<Toepcb>, mut g: InpGuard, o: Outcome) {
        match o.end {
            End::None => {}
            End::TimeWait => g.tcp_twstart(),
            End::Close => g.tcp_close(),
            End::Drop(e) => g.tcp_drop(if o.told { 0 } else { e.get() }),
        }
        drop(g);
        if o.final_cpl
            && let Some(&tid) = this.tid.get()
        {
            this.adapter().done_with(tid, this.vi.txq, o.silent);
        }
    }

    /// ESTABLISH has come: the tcpcb, then the state machine. In the net epoch. The caller has
    /// put the tid in the table.
    pub fn established(
        this: &Arc<Toepcb>,
        g: &mut InpGuard,
        tid: u32,
        snd_isn: u32,
        rcv_isn: u32,
        tcp_opt: u16,
    ) -> Outcome {
        this.tid.call_once(|| tid);
        let adapter = this.adapter().clone();
        let agreed = Agreed::new(TcpOpt::from_bits(tcp_opt), &adapter.info.mtus);
        let Some(inner) = this.inner(g) else {
            return Outcome::NONE;
        };
        let params = inner.params;
        if !g.locked().dropped() {
            g.locked().make_established(&sys::th_established {
                iss: snd_isn.wrapping_sub(1),
                irs: rcv_isn.wrapping_sub(1),
                snd_wnd: 0,
                rcv_wnd: params.rcv_wnd(),
                mss: u32::from(agreed.maxseg),
                snd_wscale: agreed.snd_scale.unwrap_or(0),
                rcv_wscale: params.wscale,
                wscale_ok: agreed.snd_scale.is_some(),
                tstamp_ok: agreed.tstamp,
                sack_ok: agreed.sack,
            });
        }
        let init = EstablishInit {
            id: ConnId {
                chip: adapter.chip,
                tid,
                pf: adapter.info.pf as u8,
                channel: this.vi.tx_chan,
                port: this.vi.port,
                rxq: this.vi.rxq_abs,
            },
            snd_isn,
            rcv_isn,
            rcv_wnd: params.rcv_wnd(),
            wr_credits: adapter.info.wr_credits as u16,
            tx: TxParams {
                sndbuf: params.sndbuf,
                wnd: params.snd_wnd,
                emss: agreed.emss,
                tx_align: this.vi.tx_align,
                nagle: params.nagle,
            },
        };
        Self::run(this, g, |conn, os| conn.established(os, &init)).unwrap_or_default()
    }

    /// `tod_pcb_detach`: the kernel lets go. The reference that `t_toe` was is the caller's.
    pub fn detach(this: &Arc<Toepcb>, g: &mut InpGuard) {
        let _ = Self::run(this, g, |conn, os| {
            conn.detach(os);
            os.detach();
        });
    }

    /// `tod_send_rst`: the kernel drops the connection, and frees so_snd next, without waiting
    /// for the adapter.
    pub fn send_rst(this: &Arc<Toepcb>, g: &mut InpGuard) {
        let kept = Self::run(this, g, |conn, os| {
            conn.send_rst(os);
            if conn.sending() { os.take_snd() } else { None }
        });
        if let (Some(Some(kept)), Some(inner)) = (kept, this.inner(g)) {
            inner.kept = Some(kept);
        }
    }

    /// The adapter has stopped ([`crate::stop`]). Net epoch, no lock.
    pub fn adapter_stopped(this: &Arc<Toepcb>) {
        let _vnet = this.vnet.enter();
        let mut g = this.inp().lock();
        let o = Self::run(this, &mut g, |conn, os| conn.adapter_stopped(os));
        Self::finish(this, g, o.unwrap_or_default());
    }

    /// TCP_NODELAY changed.
    pub fn nodelay(this: &Arc<Toepcb>, g: &mut InpGuard, on: bool) {
        let _ = Self::run(this, g, |conn, _| conn.set_nagle(!on));
        let Some(&tid) = this.tid.get() else { return };
        let u = wire::tcb::nagle(!on);
        let cpl = wire::SetTcbField {
            tid,
            reply: wire::ReplyCtrl::silent(this.vi.rxq_abs),
            word: u.word,
            mask: u.mask,
            val: u.value,
            ..wire::SetTcbField::default()
        };
        // Nagle is a preference: lost for want of a work request, the next setsockopt renews it.
        let mut buf = [0; wire::SetTcbField::LEN];
        let _ = this
            .adapter()
            .send(egress::CTRL, &mut buf, tid, |b| cpl.emit(b));
    }

    /// The last reference went. Release what can be released; gives it back if mbufs still refer
    /// to its pages. No lock held.
    pub fn teardown(this: Sole<Toepcb>) -> Option<Sole<Toepcb>> {
        let _vnet = this.vnet.enter();
        let mut g = this.inp().lock();
        let done = match this.cell.enter(&mut g) {
            Some(Inner { conn, os, .. }) => {
                let done = conn.reap(os);
                os.flush();
                done
            }
            None => true,
        };
        drop(g);
        if !done {
            return Some(this);
        }
        let adapter = this.adapter().clone();
        drop(this);
        adapter.gone();
        None
    }
}

impl Linked for Toepcb {
    fn link(&self) -> &Link {
        &self.link
    }
}

impl Waits for Toepcb {
    fn wait_link(&self) -> &Link {
        &self.wait_link
    }
}

impl Last for Toepcb {
    fn last(this: Sole<Toepcb>) {
        // Teardown takes the inpcb's lock, which may be held here.
        let adapter = this.adapter().clone();
        this.side.dying.store(true, Ordering::Release);
        adapter.dead.push(this);
        adapter.retry_soon();
    }
}
