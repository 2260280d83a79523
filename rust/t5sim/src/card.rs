//! The card: its parts, and the loop that runs what is due.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::Nanos;
use crate::config::{Config, ConfigError};
use crate::conn::{Conn, TcpState, Tuple};
use crate::ddp::DdpInfo;
use crate::event::{CPL_MAX, CplOut, Event, Events, Timer};
use crate::host::{Host, TxQueue, WrError};
use crate::open::{Listener, TimeWait};
use crate::ppod::PodMemory;
use crate::request::Req;
use crate::rng::Rng;
use crate::stats::{ConnStats, Stats};
use crate::wire_link::Link;

/// Payload buffers kept for reuse.
const POOL: usize = 256;
/// What buffers are extended with.
const ZEROS: [u8; 4096] = [0; 4096];

/// A simulated adapter. See the crate's documentation.
#[derive(Debug)]
pub struct Card {
    pub(crate) cfg: Config,
    /// Time of the event being run, or of the last call.
    pub(crate) now: Nanos,
    pub(crate) events: Events,
    pub(crate) rng: Rng,
    pub(crate) stats: Stats,
    pub(crate) conns: Vec<Option<Box<Conn>>>,
    pub(crate) free_tids: VecDeque<u32>,
    /// Connections by receiving port and by the card's end of the address tuple.
    pub(crate) by_tuple: BTreeMap<(u8, Tuple), u32>,
    pub(crate) atids: BTreeMap<u32, u32>,
    pub(crate) listeners: BTreeMap<u32, Listener>,
    pub(crate) l2t: BTreeMap<u16, [u8; 6]>,
    pub(crate) timewait: BTreeMap<(u8, Tuple), TimeWait>,
    pub(crate) timewait_order: VecDeque<((u8, Tuple), u64)>,
    pub(crate) pods: PodMemory,
    pub(crate) links: [Link; 2],
    /// Connections with something to send, by port, served in turn.
    pub(crate) ring: [VecDeque<u32>; 2],
    pub(crate) ring_due: [bool; 2],
    /// When the last request of each queue runs: the next may not run before it.
    wrq_last: BTreeMap<TxQueue, Nanos>,
    /// When the last CPL of each queue arrives: the next may not arrive before it.
    rxq_last: BTreeMap<u16, Nanos>,
    pool: Vec<Vec<u8>>,
    /// Data segments the wire will lose next, on demand.
    pub(crate) drop_next: u32,
    pub(crate) serial: u64,
    /// Answers that were lost, and the serial number of the last connection then.
    pub(crate) lost: Vec<(u64, Box<CplOut>)>,
    /// DMA addresses of the placement under way, kept for its allocation.
    pub(crate) stretches: Vec<(u64, usize)>,
}

impl Card {
    /// A card with no connection and every page pod invalid.
    ///
    /// # Errors
    /// The field of `cfg` that is out of range.
    pub fn new(cfg: Config) -> Result<Self, ConfigError> {
        cfg.validate()?;
        let mut conns = Vec::new();
        let ntids = usize::try_from(cfg.ntids).unwrap_or(0);
        conns.resize_with(ntids, || None);
        Ok(Self {
            now: 0,
            events: Events::default(),
            rng: Rng::new(cfg.seed),
            stats: Stats::default(),
            conns,
            free_tids: (0..cfg.ntids).collect(),
            by_tuple: BTreeMap::new(),
            atids: BTreeMap::new(),
            listeners: BTreeMap::new(),
            l2t: BTreeMap::new(),
            timewait: BTreeMap::new(),
            timewait_order: VecDeque::new(),
            pods: PodMemory::new(cfg.ppods, cfg.ddp_start, cfg.page_shifts),
            links: [Link::default(), Link::default()],
            ring: [VecDeque::new(), VecDeque::new()],
            ring_due: [false; 2],
            wrq_last: BTreeMap::new(),
            rxq_last: BTreeMap::new(),
            pool: Vec::new(),
            drop_next: 0,
            serial: 0,
            lost: Vec::new(),
            stretches: Vec::new(),
            cfg,
        })
    }

    /// A reset of the whole adapter: no connection, listener, next hop or page pod of before is
    /// left, nothing is on its way, and no memory of the host is reached for it any more. What
    /// was set and counted stays.
    pub fn reset(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        self.events = Events::default();
        self.conns.fill_with(|| None);
        self.free_tids.clear();
        self.free_tids.extend(0..self.cfg.ntids);
        self.by_tuple.clear();
        self.atids.clear();
        self.listeners.clear();
        self.l2t.clear();
        self.timewait.clear();
        self.timewait_order.clear();
        self.pods = PodMemory::new(self.cfg.ppods, self.cfg.ddp_start, self.cfg.page_shifts);
        self.links = [Link::default(), Link::default()];
        self.ring.iter_mut().for_each(VecDeque::clear);
        self.ring_due = [false; 2];
        self.wrq_last.clear();
        self.rxq_last.clear();
        self.drop_next = 0;
        self.lost.clear();
    }

    /// Puts one whole work request on a queue. It runs `wr_delay` (and jitter) later, after every
    /// earlier request of the same queue. The bytes are copied; what an SGL points to is not.
    ///
    /// # Errors
    /// The request does not parse. It is counted and forgotten. What parses but makes no sense in
    /// the connection's state is found when it runs, see [`Stats::host_errors`].
    pub fn submit(&mut self, now: Nanos, q: TxQueue, wr: &[u8]) -> Result<(), WrError> {
        let req = match Req::parse(self.cfg.chip, q, wr) {
            Ok(req) => req,
            Err(e) => {
                self.stats.wr_refused += 1;
                return Err(e);
            }
        };
        let now = now.max(self.now);
        let mut at = now.saturating_add(self.cfg.wr_delay);
        at = at.saturating_add(self.rng.range(0, self.cfg.faults.wr_jitter));
        if req.invalidates() {
            at = at.saturating_add(self.cfg.faults.invalidate_delay);
        }
        let last = self.wrq_last.entry(q).or_default();
        at = at.max(*last);
        *last = at;
        if matches!(req, Req::AbortReq(_)) {
            // What is behind it in the queue is about others, and does not wait.
            at = at.saturating_add(self.cfg.faults.abort_delay);
        }
        self.events.push(at, Event::Wr(q, Box::new(req)));
        Ok(())
    }

    /// Runs every event due at or before `now`, in order. DMA and CPL delivery happen in here.
    pub fn advance(&mut self, now: Nanos, host: &mut impl Host) {
        while let Some((at, event)) = self.events.pop_due(now) {
            self.now = self.now.max(at);
            let at = self.now;
            match event {
                Event::Wr(q, req) => self.execute(at, q, *req, host),
                Event::Cpl(out) => self.deliver(&out, host),
                Event::Segment(seg) => self.segment(at, *seg, host),
                Event::PortTx(port) => self.port_tx(at, port, host),
                Event::Timer { tid, born, timer } => self.timer(at, tid, born, timer, host),
                Event::Frame { port, frame } => host.frame(port, &frame),
            }
        }
        self.now = self.now.max(now);
    }

    /// When the next event is due, if any is pending.
    #[must_use]
    pub fn next_event(&self) -> Option<Nanos> {
        self.events.next_at()
    }

    /// The card's counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the card was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.cfg
    }

    /// The connections, by tid.
    pub fn connections(&self) -> impl Iterator<Item = ConnInfo> + '_ {
        self.conns.iter().flatten().map(|c| self.info(c))
    }

    /// One connection.
    #[must_use]
    pub fn connection(&self, tid: u32) -> Option<ConnInfo> {
        self.conn(tid).map(|c| self.info(c))
    }

    /// The TCB of a connection, as the host's `CPL_SET_TCB_FIELD`s left it (only the fields the
    /// host writes are kept up to date; `CPL_GET_TCB` fills in the rest).
    #[must_use]
    pub fn tcb(&self, tid: u32) -> Option<&wire::Tcb> {
        self.conn(tid).map(|c| &c.tcb)
    }

    fn info(&self, c: &Conn) -> ConnInfo {
        let key = (Self::far_end(c.port), c.tuple.reversed());
        ConnInfo {
            tid: c.tid,
            port: c.port,
            peer_tid: self.by_tuple.get(&key).copied(),
            state: c.state,
            snd_una: c.seq_of(c.una),
            snd_nxt: c.snd_nxt(),
            rcv_nxt: c.rcv_nxt,
            rcv_wnd: c.window(),
            queued: c.end.saturating_sub(c.una),
            held: c.held_bytes,
            credits_out: c.credits_out,
            ddp: self.ddp_info(c),
            stats: c.stats,
        }
    }

    /// Nothing submitted to `q` from now on runs before `at`.
    pub(crate) fn hold_queue(&mut self, q: TxQueue, at: Nanos) {
        let last = self.wrq_last.entry(q).or_default();
        *last = at.max(*last);
    }

    // What the other parts share.

    pub(crate) fn conn(&self, tid: u32) -> Option<&Conn> {
        self.slot(tid)?.as_deref()
    }

    fn slot(&self, tid: u32) -> Option<&Option<Box<Conn>>> {
        self.conns.get(usize::try_from(tid).ok()?)
    }

    /// Takes a connection out of the table to work on it; [`Card::put`] brings it back.
    pub(crate) fn take(&mut self, tid: u32) -> Option<Box<Conn>> {
        self.conns.get_mut(usize::try_from(tid).ok()?)?.take()
    }

    /// Puts a connection back, or frees it if the host has released it and nothing is owed.
    pub(crate) fn put(&mut self, c: Box<Conn>) {
        if c.released && !c.abort_rpl_due {
            self.free(c);
            return;
        }
        let slot = usize::try_from(c.tid)
            .ok()
            .and_then(|i| self.conns.get_mut(i));
        if let Some(slot) = slot {
            *slot = Some(c);
        }
    }

    /// Notes a request that made no sense.
    pub(crate) fn host_error(&mut self, what: &'static str, tid: u32) {
        self.stats.host_errors += 1;
        self.stats.last_host_error = Some((what, tid));
    }

    /// Sends a CPL with nothing behind it. `emit` writes it into a zeroed buffer.
    pub(crate) fn cpl(
        &mut self,
        now: Nanos,
        rxq: u16,
        len: usize,
        emit: impl FnOnce(&mut [u8]) -> Result<(), wire::WireError>,
    ) {
        self.cpl_with(now, rxq, len, Vec::new(), 0, 0, emit);
    }

    /// Sends a CPL followed by `payload[from..]`, `late` later than usual. CPLs of one queue
    /// never overtake each other.
    #[expect(
        clippy::too_many_arguments,
        reason = "one place that every CPL goes through"
    )]
    pub(crate) fn cpl_with(
        &mut self,
        now: Nanos,
        rxq: u16,
        len: usize,
        payload: Vec<u8>,
        from: usize,
        late: Nanos,
        emit: impl FnOnce(&mut [u8]) -> Result<(), wire::WireError>,
    ) {
        let mut cpl = [0; CPL_MAX];
        let Some(room) = cpl.get_mut(..len) else {
            self.host_error("CPL too long", 0);
            return;
        };
        if emit(room).is_err() {
            self.host_error("CPL does not fit its fields", 0);
            return;
        }
        let mut at = now.saturating_add(self.cfg.host_delay).saturating_add(late);
        at = at.saturating_add(self.rng.range(0, self.cfg.faults.cpl_jitter));
        let last = self.rxq_last.entry(rxq).or_default();
        at = at.max(*last);
        *last = at;
        let rate = self.cfg.faults.lose.rate(&cpl);
        let len = u8::try_from(len).unwrap_or(u8::MAX);
        let out = Box::new(CplOut {
            rxq,
            len,
            cpl,
            payload,
            from,
        });
        if self.rng.chance(rate) {
            self.lose(out);
        } else {
            self.events.push(at, Event::Cpl(out));
        }
    }

    fn deliver(&mut self, out: &CplOut, host: &mut impl Host) {
        self.stats.cpls += 1;
        let cpl = out.cpl.get(..usize::from(out.len)).unwrap_or(&[]);
        host.cpl(out.rxq, cpl, out.payload.get(out.from..).unwrap_or(&[]));
    }

    /// A buffer of `n` bytes with any content.
    pub(crate) fn buffer(&mut self, n: usize) -> Vec<u8> {
        let mut b = self.pool.pop().unwrap_or_default();
        b.truncate(n);
        while b.len() < n {
            let more = (n - b.len()).min(ZEROS.len());
            // By the block: byte by byte is slow where nothing is optimised.
            b.extend_from_slice(ZEROS.get(..more).unwrap_or(&ZEROS));
        }
        b
    }

    /// Gives a payload buffer back.
    pub(crate) fn recycle(&mut self, b: Vec<u8>) {
        if b.capacity() > 0 && self.pool.len() < POOL {
            self.pool.push(b);
        }
    }

    /// Arms or moves a timer.
    pub(crate) fn arm(&mut self, c: &mut Conn, timer: Timer, at: Nanos) {
        if c.timer(timer) == Some(at) {
            return;
        }
        c.set_timer(timer, Some(at));
        self.events.push(
            at,
            Event::Timer {
                tid: c.tid,
                born: c.born,
                timer,
            },
        );
    }

    fn timer(&mut self, now: Nanos, tid: u32, born: u64, timer: Timer, host: &mut impl Host) {
        let live = self
            .conn(tid)
            .is_some_and(|c| c.born == born && c.timer(timer) == Some(now));
        if !live {
            return;
        }
        let Some(mut c) = self.take(tid) else { return };
        c.set_timer(timer, None);
        match timer {
            Timer::Rexmt => self.rexmt_timeout(now, &mut c),
            Timer::Persist => self.persist_timeout(now, &mut c),
            Timer::Ack => self.send_ack(now, &mut c),
            Timer::Credit => self.report_credits(now, &mut c),
            Timer::Hold => self.hold_timeout(now, &mut c, host),
            Timer::Push => self.push_timeout(now, &mut c),
        }
        self.put(c);
    }

    fn execute(&mut self, now: Nanos, q: TxQueue, req: Req, host: &mut impl Host) {
        match q {
            TxQueue::Ctrl(0) => self.stats.ctrl_first += 1,
            TxQueue::Ctrl(_) => self.stats.ctrl_other += 1,
            TxQueue::Ofld(_) => {}
        }
        let w = &mut self.stats.wrs;
        match req {
            Req::ActOpen(m) => {
                w.act_open += 1;
                self.act_open(now, &m);
            }
            Req::PassOpen(m) => {
                w.pass_open += 1;
                self.pass_open(now, &m);
            }
            Req::CloseListsrv(m) => {
                w.close_listsrv += 1;
                self.close_listsrv(now, &m);
            }
            Req::PassAcceptRpl(m) => {
                w.pass_accept_rpl += 1;
                self.pass_accept_rpl(now, &m);
            }
            Req::CloseCon(m) => {
                w.close_con += 1;
                self.close_con(now, m.tid);
            }
            Req::AbortReq(m) => {
                w.abort_req += 1;
                self.abort_req(now, &m);
            }
            Req::AbortRpl(m) => {
                w.abort_rpl += 1;
                self.abort_rpl(m.tid);
            }
            Req::TidRelease(m) => {
                w.tid_release += 1;
                self.tid_release(m.tid);
            }
            Req::RxDataAck(m) => {
                w.rx_data_ack += 1;
                self.rx_data_ack(now, &m, host);
            }
            Req::SetTcb(m) => {
                w.set_tcb_field += 1;
                self.set_tcb_field(now, q, &m, host);
            }
            Req::GetTcb(m) => {
                w.get_tcb += 1;
                self.get_tcb(now, &m);
            }
            Req::L2tWrite(m) => {
                w.l2t_write += 1;
                self.l2t_write(now, &m);
            }
            Req::Flowc(m) => {
                w.flowc += 1;
                self.flowc(now, &m);
            }
            Req::TxData(m) => {
                w.tx_data += 1;
                self.tx_data(now, m);
            }
            Req::Ulptx(cmds) => {
                w.ulptx += 1;
                self.ulptx(now, cmds, host);
            }
            Req::MemWrite { addr, data } => {
                w.mem_write += 1;
                self.mem_write(addr, &data);
            }
        }
    }

    pub(crate) fn mem_write(&mut self, addr: u64, data: &[u8]) {
        match self.pods.write(addr, data) {
            Some(n) => self.stats.pods_written += n,
            None => self.host_error("memory write outside DDP memory", 0),
        }
    }
}

/// What can be seen of a connection from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnInfo {
    /// Its tid.
    pub tid: u32,
    /// The port it runs over.
    pub port: u8,
    /// Tid of the other end, while both ends exist.
    pub peer_tid: Option<u32>,
    /// Where it stands.
    pub state: TcpState,
    /// Oldest sequence number not acknowledged.
    pub snd_una: u32,
    /// Next to send; counts the FIN once sent.
    pub snd_nxt: u32,
    /// Next expected; counts the FIN once received.
    pub rcv_nxt: u32,
    /// Window offered now, bytes.
    pub rcv_wnd: u32,
    /// Bytes the host has queued that are not acknowledged.
    pub queued: u64,
    /// Received bytes kept in the card until a buffer is posted.
    pub held: u32,
    /// Credits taken and not given back.
    pub credits_out: u16,
    /// DDP state.
    pub ddp: DdpInfo,
    /// Its counters.
    pub stats: ConnStats,
}
