//! One card, two hosts, virtual time: the loop that runs what is due, and what follows each step.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use t5sim::{Card, Nanos, TxQueue};
use toehold_core::conn::{Conn, Outcome, Silent};
use toehold_core::egress::Egress;
use toehold_core::errno::Errno;
use toehold_core::open::{ConnParams, MIN_RCV_WND};
use toehold_core::os::{JobId, Queue};
use toehold_core::pageset::Want;
use toehold_core::ppod::{Geometry, Node, Region};
use toehold_core::shared::Tunables;

use crate::buf::Bufs;
use crate::job::Ended;
use crate::mem::{self, SimPages};
use crate::nic::{Cpl, Nic};
use crate::open::Pending;
use crate::os::{Pods, Short, SimOs};
use crate::pattern;
use crate::rng::Rng;
use crate::sock::Stay;

/// How long things take, ns: each is drawn from its range.
#[derive(Clone, Copy, Debug)]
pub struct Lat {
    /// From a CPL's arrival to its handling, and from one to the next.
    pub intr: (u64, u64),
    /// From a wish for the worker to its coming.
    pub worker: (u64, u64),
    /// Faulting in and wiring pages.
    pub hold: (u64, u64),
    /// From a shortage to the retry.
    pub retry: (u64, u64),
}

impl Default for Lat {
    fn default() -> Lat {
        Lat {
            intr: (100, 3_000),
            worker: (500, 20_000),
            hold: (500, 30_000),
            retry: (20_000, 200_000),
        }
    }
}

/// One end of a connection, before it is opened.
#[derive(Clone, Copy, Debug)]
pub struct EndConf {
    /// Settings.
    pub tun: Tunables,
    /// so_rcv, bytes.
    pub rcv: u32,
    /// so_snd, bytes.
    pub snd: u32,
    /// SB_AUTOSIZE of both, up to so many bytes; 0: off.
    pub auto_max: u32,
    /// SO_RCVLOWAT.
    pub rcv_lowat: u32,
    /// SS_NBIO.
    pub nonblocking: bool,
    /// First sequence number.
    pub iss: u32,
}

impl Default for EndConf {
    fn default() -> EndConf {
        EndConf {
            tun: Tunables {
                ddp: true,
                tx_zcopy: true,
                tx_zcopy_min: 0,
                cache: 16,
            },
            rcv: 256 << 10,
            snd: 256 << 10,
            auto_max: 0,
            rcv_lowat: 1,
            nonblocking: false,
            iss: 0x1000,
        }
    }
}

/// One end of a connection.
pub struct End {
    /// core's part.
    pub conn: Conn<SimOs>,
    /// The kernel's.
    pub os: SimOs,
    /// How it was opened.
    pub params: ConnParams,
    /// Settings, taken over with each job.
    pub tun: Tunables,
    /// Its tid, once there is one.
    pub tid: Option<u32>,
    /// The other end's number.
    pub peer: usize,
    /// What the other end sends.
    pub hears: pattern::Shared,
    /// Port and process.
    pub host: usize,
    /// Its ingress queue.
    pub rxq: u16,
    /// Its egress queue.
    pub txq: u8,
    /// First sequence number of the stream it sends.
    pub snd_isn: u32,
    /// ESTABLISH has come.
    pub up: bool,
    /// The adapter is done with the tid.
    pub over: bool,
    /// The kernel was told of an end by error, or made it.
    pub broken: Option<Errno>,
    /// A reader has seen the end of the stream.
    pub eof: bool,
    /// Results nobody has asked for yet.
    pub results: BTreeMap<JobId, Ended>,
    /// A write(2) inside the I/O lock, with bytes to go.
    pub writer: Option<usize>,
    /// A read(2) inside the I/O lock, of so many bytes, and what it waits for.
    pub reader: Option<(usize, Stay)>,
    /// Bytes of the stream thrown away by shutdown or close.
    pub unread: u64,
    /// Bytes that write(2), sendfile(2) and write jobs said they sent.
    pub promised: u64,
    /// sendfile(2)s so far.
    pub files: u32,
    /// Jobs not claimed, served by the generic path.
    pub generic: VecDeque<crate::job::SimJob>,
    pub(crate) task_queued: bool,
    pub(crate) retry_due: bool,
    pub(crate) chains: u32,
    pub(crate) pumping: bool,
    /// Since when an answer of the adapter is due, ms.
    pub(crate) due: Option<u64>,
}

pub(crate) enum Ev {
    Cpl(u16),
    /// A worker (or the thread that submitted a job) asks what to hold.
    Ask {
        e: usize,
        task: bool,
    },
    Hold(usize, Want<JobId>),
    Ready(usize, Want<JobId>, Held),
    Retry(usize),
    /// An answer may be overdue.
    Overdue(usize),
    /// The program's turn.
    App(usize),
    /// A read(2) that waited long enough gives up.
    ReaderLeaves(usize),
    /// The data of a sendfile(2) is there.
    FileReady(usize, u32),
}

/// Everything.
pub struct World {
    /// The adapter.
    pub card: Card,
    /// What it touches.
    pub nic: Nic,
    /// Memory.
    pub mem: mem::Shared,
    /// Page pods.
    pub pods: Rc<RefCell<Pods>>,
    /// Virtual time.
    pub now: Nanos,
    /// Both ends of all connections.
    pub ends: Vec<End>,
    /// User buffers.
    pub bufs: Bufs,
    /// How long things take.
    pub lat: Lat,
    /// Chance.
    pub rng: Rng,
    /// A budget shortage was made on purpose, or page faults were.
    pub short: Short,
    pub(crate) events: BTreeMap<(Nanos, u64), Ev>,
    pub(crate) serial: u64,
    pub(crate) tids: BTreeMap<u32, Tid>,
    pub(crate) pending: BTreeMap<u16, Pending>,
    pub(crate) listening: Vec<u16>,
    queue_due: BTreeMap<u16, bool>,
    pub(crate) ppods: u32,
    /// Steps made.
    pub steps: u64,
    /// Programs' turns that are due.
    pub turns: VecDeque<usize>,
    /// How long an answer of the adapter is waited for, ms; `None`: for ever.
    pub bound: Option<u64>,
    /// Messages may come for connections that are over.
    pub strays: bool,
    /// Errors of the adapter's that the test made itself.
    pub allow_card_errors: bool,
}

/// What a worker comes back with.
pub(crate) enum Held {
    Pages(Result<SimPages, Errno>),
    Copy(Result<Vec<u8>, Errno>),
}

/// ns.
pub(crate) const NS_PER_MS: Nanos = 1_000_000;

pub(crate) enum Tid {
    Half(u16, ConnParams),
    End(usize),
    /// Nobody; the adapter owes messages about it, for one that was handled by this queue.
    Silent(Silent, usize),
}

/// The adapter's queue for a request of a connection with transmit queue `txq`.
pub(crate) fn egress(q: Queue, txq: u8) -> TxQueue {
    match q.egress(u32::from(txq)) {
        Egress::Ctrl(i) => TxQueue::Ctrl(i as u8),
        Egress::Ofld(i) => TxQueue::Ofld(i as u8),
    }
}

impl World {
    /// A card with `cfg`, two hosts without a connection.
    ///
    /// # Panics
    /// If the configuration is none.
    #[must_use]
    pub fn new(cfg: t5sim::Config, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let mem = Mem::new(rng.fork());
        let n = cfg.ppods;
        let geometry = Geometry::new(cfg.ddp_start, n * 64, cfg.page_shifts).expect("geometry");
        let region = Region::new(vec![Node::default(); n as usize]);
        World {
            card: Card::new(cfg).expect("a card"),
            nic: Nic {
                mem: Rc::clone(&mem),
                queues: BTreeMap::new(),
            },
            pods: Rc::new(RefCell::new(Pods { region, geometry })),
            bufs: Bufs::new(&mem),
            mem,
            now: 0,
            ends: Vec::new(),
            lat: Lat::default(),
            rng,
            short: Short::default(),
            events: BTreeMap::new(),
            serial: 0,
            tids: BTreeMap::new(),
            pending: BTreeMap::new(),
            listening: Vec::new(),
            queue_due: BTreeMap::new(),
            ppods: n,
            steps: 0,
            turns: VecDeque::new(),
            bound: None,
            strays: false,
            allow_card_errors: false,
        }
    }

    pub(crate) fn after_ns(&mut self, range: (u64, u64), ev: Ev) {
        let at = self.now + self.rng.range(range.0, range.1);
        self.serial += 1;
        self.events.insert((at, self.serial), ev);
    }

    /// The program of end `e` has a turn in so many ns.
    pub fn turn_in(&mut self, e: usize, range: (u64, u64)) {
        self.after_ns(range, Ev::App(e));
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<Nanos> {
        let own = self.events.keys().next().map(|k| k.0);
        match (own, self.card.next_event()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Run what is due next. False if nothing is.
    pub fn step(&mut self) -> bool {
        let Some(at) = self.next_at() else {
            return false;
        };
        self.now = self.now.max(at);
        self.steps += 1;
        if self.card.next_event().is_some_and(|t| t <= at) {
            self.card.advance(at, &mut self.nic);
            self.interrupts();
        } else if let Some((_, ev)) = self.events.pop_first() {
            self.run(ev);
        }
        self.check();
        true
    }

    fn interrupts(&mut self) {
        let queues = self.nic.queues.iter().filter(|(_, q)| !q.is_empty());
        let queues: Vec<u16> = queues.map(|(rxq, _)| *rxq).collect();
        for rxq in queues {
            if !self.queue_due.insert(rxq, true).unwrap_or(false) {
                self.after_ns(self.lat.intr, Ev::Cpl(rxq));
            }
        }
    }

    fn run(&mut self, ev: Ev) {
        match ev {
            Ev::Cpl(rxq) => {
                self.queue_due.insert(rxq, false);
                let cpl = self.nic.queues.get_mut(&rxq).and_then(VecDeque::pop_front);
                if let Some(Cpl { bytes, payload }) = cpl {
                    self.dispatch(rxq, &bytes, payload);
                }
                self.interrupts();
            }
            Ev::Ask { e, task } => self.ask(e, task),
            Ev::Hold(e, want) => self.hold(e, want),
            Ev::Ready(e, want, pages) => {
                let mut book = self.ends[e].os.book.borrow_mut();
                if let Some(r) = book.jobs.get_mut(&want.job) {
                    r.watched -= 1;
                }
                drop(book);
                self.call(e, |conn, os| match pages {
                    Held::Pages(p) => conn.pages_ready(os, want.ticket, p),
                    Held::Copy(m) => conn.copied(os, &want, m),
                });
                self.ask(e, false);
            }
            Ev::Retry(e) => {
                self.ends[e].retry_due = false;
                self.relieve();
                let o = self.say(e, |conn, os| conn.retry(os));
                self.finish(e, o);
            }
            Ev::Overdue(e) => self.overdue(e),
            Ev::App(e) => self.turns.push_back(e),
            Ev::FileReady(e, file) => {
                self.ends[e].os.sock.snd.ready(file);
                self.tcp_output(e);
            }
            Ev::ReaderLeaves(e) => {
                if matches!(self.ends[e].reader, Some((_, Stay::Any))) {
                    self.ends[e].reader = None;
                    self.ends[e].os.sock.rcv.reader = false;
                }
            }
        }
    }

    /// A thread begins to serve `want_pages`.
    pub(crate) fn serve(&mut self, e: usize) {
        self.ends[e].chains += 1;
        self.ask(e, false);
    }

    /// If anybody is short of pages or pods, idle page sets are let go of.
    fn relieve(&mut self) {
        if self
            .ends
            .iter_mut()
            .any(|e| std::mem::take(&mut e.os.pressure))
        {
            for e in 0..self.ends.len() {
                if self.ends[e].up && !self.ends[e].over {
                    self.call(e, |conn, os| conn.relieve(os, None));
                }
            }
        }
    }

    fn ask(&mut self, e: usize, task: bool) {
        if task {
            self.ends[e].task_queued = false;
            self.ends[e].chains += 1;
        }
        match self.call(e, |conn, os| conn.want_pages(os)) {
            Some(want) => {
                let mut book = self.ends[e].os.book.borrow_mut();
                let r = book.jobs.get_mut(&want.job);
                r.expect("pages are wanted for a job that has ended")
                    .watched += 1;
                drop(book);
                self.after_ns(self.lat.hold, Ev::Hold(e, want));
            }
            None => self.ends[e].chains -= 1,
        }
    }

    fn hold(&mut self, e: usize, want: Want<JobId>) {
        let host = self.ends[e].host;
        let s = self.ends[e].os.short;
        let deny = if self.rng.permille(s.fault) {
            Some(Errno::EFAULT)
        } else if self.rng.permille(s.nomem) {
            Some(Errno::ENOMEM)
        } else {
            None
        };
        let pages = if want.is_copy() {
            let deny = deny.filter(|e| *e == Errno::EFAULT);
            let bytes = || {
                let mem = self.mem.borrow();
                mem.user_read(host, want.addr, want.len as usize)
            };
            Held::Copy(deny.map_or_else(|| Ok(bytes()), Err))
        } else {
            let (addr, len) = (want.addr, want.len);
            Held::Pages(mem::hold(&self.mem, host, addr, len, want.write, deny))
        };
        self.after_ns((0, self.lat.hold.1 / 4), Ev::Ready(e, want, pages));
    }

    /// Something is said to the connection of end `e`; then its wishes are seen to.
    pub fn call<R>(&mut self, e: usize, f: impl FnOnce(&mut Conn<SimOs>, &mut SimOs) -> R) -> R {
        let r = self.say(e, f);
        self.after(e);
        r
    }

    /// The same; [`World::finish`] is to follow.
    pub(crate) fn say<R>(
        &mut self,
        e: usize,
        f: impl FnOnce(&mut Conn<SimOs>, &mut SimOs) -> R,
    ) -> R {
        let now_ms = self.now / NS_PER_MS;
        let End { conn, os, tid, .. } = &mut self.ends[e];
        os.now_ms = now_ms;
        if !os.limbo.is_empty() {
            let c = tid.and_then(|tid| self.card.connection(tid));
            let done = |c: t5sim::ConnInfo| {
                use t5sim::TcpState::{Aborting, Closed, TimeWait};
                matches!(c.state, Closed | Aborting | TimeWait)
            };
            let done = c.is_none_or(done);
            os.book.borrow_mut().card_done = done;
        }
        let r = f(conn, os);
        if !conn.sending() {
            os.free_limbo();
        }
        r
    }

    pub(crate) fn submit(&mut self, q: TxQueue, wr: &[u8]) {
        if let Err(why) = self.card.submit(self.now, q, wr) {
            panic!("the adapter refuses a work request: {why}: {wr:02x?}");
        }
    }

    fn after(&mut self, e: usize) {
        while let Some((q, wr)) = self.ends[e].os.wrs.pop_front() {
            self.submit(self.egress(e, q), &wr);
        }
        if std::mem::take(&mut self.ends[e].os.kicked) && !self.ends[e].task_queued {
            self.ends[e].task_queued = true;
            self.after_ns(self.lat.worker, Ev::Ask { e, task: true });
        }
        if std::mem::take(&mut self.ends[e].os.retry) && !self.ends[e].retry_due {
            self.ends[e].retry_due = true;
            self.after_ns(self.lat.retry, Ev::Retry(e));
        }
        let end = &self.ends[e];
        assert!(
            !end.os.sock.rcv.locked && !end.os.sock.snd.locked,
            "an I/O lock is kept"
        );
        if let Err(why) = end.conn.check_invariants(&end.os) {
            panic!("end {e}: {why}");
        }
        self.watch(e);
        self.look_at_ended(e);
        self.user_pump(e);
        let End { conn, os, .. } = &mut self.ends[e];
        if !os.tcb.attached {
            // As when the module looks whether it can free the connection.
            conn.reap(os);
        }
    }

    /// What an outcome says.
    pub(crate) fn finish(&mut self, e: usize, o: Outcome) {
        use toehold_core::conn::End as How;
        match o.end {
            How::None => {}
            How::TimeWait => self.tcp_twstart(e),
            How::Close => self.tcp_close(e),
            How::Drop(_) if o.told => self.drop_with(e, None),
            How::Drop(why) => self.drop_with(e, Some(why)),
        }
        if o.final_cpl {
            assert!(!self.ends[e].over, "end {e}: two final CPLs");
            self.ends[e].over = true;
            let tid = self.ends[e].tid.expect("a tid");
            self.tids.remove(&tid);
            match o.silent {
                Some(s) => drop(self.tids.insert(tid, Tid::Silent(s, e))),
                None => self.release_tid(e, tid),
            }
        }
        self.after(e);
    }

    /// The adapter's queue for a request of end `e`, as the module chooses it.
    #[must_use]
    pub fn egress(&self, e: usize, q: Queue) -> TxQueue {
        egress(q, self.ends[e].txq)
    }

    /// After every step.
    fn check(&mut self) {
        if let Some(why) = &self.mem.borrow().wrong {
            panic!("{why} (I3)");
        }
        if let Err(why) = self.card.check() {
            panic!("the card: {why}");
        }
        if self.allow_card_errors {
            return;
        }
        let s = self.card.stats();
        assert_eq!(s.host_errors, 0, "the card: {:?}", s.last_host_error);
        assert_eq!(s.ddp_errors, 0, "the card: placements refused: {s:?}");
        assert_eq!(s.dma_faults, 0, "the card: DMA refused");
        for (e, end) in self.ends.iter().enumerate() {
            let rcv = &end.os.sock.rcv;
            // What was placed comes on top of the window that the peer was given.
            let most = 2 * rcv.hiwat.max(MIN_RCV_WND) as usize;
            assert!(
                rcv.len() <= most,
                "end {e}: so_rcv holds {} bytes and may hold {most}\n{}",
                rcv.len(),
                self.story()
            );
        }
    }

    /// Run until `done` is true.
    ///
    /// # Panics
    /// If nothing is left to happen before, or it takes longer than `ns`.
    pub fn run_until(&mut self, what: &str, ns: Nanos, mut done: impl FnMut(&World) -> bool) {
        let end = self.now + ns;
        while !done(self) {
            assert!(
                self.step(),
                "{what}: nothing more will happen\n{}",
                self.story()
            );
            assert!(
                self.now < end,
                "{what}: takes for ever (I9)\n{}",
                self.story()
            );
        }
    }

    /// Run for `ns`.
    pub fn run_for(&mut self, ns: Nanos) {
        let end = self.now + ns;
        while self.next_at().is_some_and(|t| t <= end) {
            self.step();
        }
        self.now = end;
    }

    /// For a failing test.
    #[must_use]
    pub fn story(&self) -> String {
        use std::fmt::Write;
        let mut s = format!("at {} ns, step {}\n", self.now, self.steps);
        let m = self.mem.borrow();
        let _ = writeln!(s, "wired and charged: {:?} {:?}", m.wired(0), m.wired(1));
        drop(m);
        for (e, end) in self.ends.iter().enumerate() {
            let o = &end.os;
            let _ = writeln!(
                s,
                "end {e}: tid {:?} {:?} over {} dropped {} attached {} rcv {}/{} shut {} snd {}/{} sent {} \
                 shut {} stream {} of {} error {:?} broken {:?} closed {} task {} retry {} chains {} writer {:?} \
                 reader {:?} generic {}",
                end.tid,
                o.tcb.state,
                end.over,
                o.tcb.dropped,
                o.tcb.attached,
                o.sock.rcv.len(),
                o.sock.rcv.hiwat,
                o.sock.rcv.shut,
                o.sock.snd.used(),
                o.sock.snd.hiwat,
                o.sock.snd.sent,
                o.sock.snd.shut,
                o.book.borrow().next,
                end.hears.borrow().len(),
                o.sock.error,
                end.broken,
                o.sock.closed,
                end.task_queued,
                end.retry_due,
                end.chains,
                end.writer,
                end.reader,
                end.generic.len(),
            );
            for (id, r) in &o.book.borrow().jobs {
                let _ = writeln!(s, "  {id:?} {r:?}");
            }
        }
        for c in self.card.connections() {
            let _ = writeln!(s, "card: {c:?}");
        }
        let _ = writeln!(s, "{:?}", self.card.stats());
        s
    }
}

use crate::mem::Mem;
