//! A host for the card: memory, a small driver that keeps credits and streams, and helpers to
//! write the work requests a driver would.

use std::collections::{BTreeMap, VecDeque};

use t5sim::{Card, Config, Dma, DmaFault, Host, Nanos, TxQueue};
use wire::Opcode;

pub const MEM_BASE: u64 = 0x4000_0000;
pub const IP_A: u32 = 0x0a00_0001;
pub const IP_B: u32 = 0x0a00_0002;
pub const RXQ_A: u16 = 11;
pub const RXQ_B: u16 = 12;
pub const STID: u32 = 77;
pub const CTRL: TxQueue = TxQueue::Ctrl(0);
pub const OFLD: TxQueue = TxQueue::Ofld(0);
/// No test needs more virtual time than this.
const FOREVER: Nanos = 60_000_000_000;

/// Byte `i` of the stream every test sends.
pub fn pat(seed: u64, i: u64) -> u8 {
    let x = (i.wrapping_add(seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 56) as u8 ^ (x >> 24) as u8
}

pub fn pattern(seed: u64, from: u64, n: usize) -> Vec<u8> {
    (from..).take(n).map(|i| pat(seed, i)).collect()
}

#[derive(Clone, Debug)]
pub struct Msg {
    pub rxq: u16,
    pub cpl: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Msg {
    pub fn op(&self) -> Opcode {
        wire::opcode_of_cpl(&self.cpl).unwrap()
    }
    pub fn tid(&self) -> u32 {
        wire::tid_of(&self.cpl).unwrap()
    }
}

#[derive(Default)]
pub struct Bench {
    pub mem: Vec<u8>,
    pub brk: u64,
    pub new: VecDeque<Msg>,
    pub frames: Vec<(u8, Vec<u8>)>,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    /// Every CPL and DMA, hashed in order.
    pub trace: u64,
}

impl Bench {
    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(17);
    }
    fn at(&mut self, addr: u64, n: usize) -> Result<&mut [u8], DmaFault> {
        let off = addr
            .checked_sub(MEM_BASE)
            .ok_or(DmaFault { addr, len: n })?;
        let off = usize::try_from(off).unwrap();
        self.mem
            .get_mut(off..off.saturating_add(n))
            .ok_or(DmaFault { addr, len: n })
    }
}

impl Dma for Bench {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), DmaFault> {
        self.reads += 1;
        self.read_bytes += buf.len() as u64;
        self.note(addr ^ buf.len() as u64);
        let src = self.at(addr, buf.len())?;
        buf.copy_from_slice(src);
        Ok(())
    }
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.writes += 1;
        self.note(addr ^ data.len() as u64 ^ 1 << 63);
        self.at(addr, data.len())?.copy_from_slice(data);
        Ok(())
    }
}

impl Host for Bench {
    fn cpl(&mut self, rxq: u16, cpl: &[u8], payload: &[u8]) {
        for b in cpl.iter().chain(payload.iter().step_by(97)) {
            self.note(u64::from(*b));
        }
        self.new.push_back(Msg {
            rxq,
            cpl: cpl.to_vec(),
            payload: payload.to_vec(),
        });
    }
    fn frame(&mut self, port: u8, frame: &[u8]) {
        self.frames.push((port, frame.to_vec()));
    }
}

/// Send side of one connection.
#[derive(Default)]
pub struct Flow {
    pub avail: u16,
    pub out: VecDeque<(u16, u64)>,
    /// Bytes acknowledged with their work request.
    pub done: u64,
    pub una: u32,
    /// Work requests waiting for credits.
    pub wait: VecDeque<(Vec<u8>, u64)>,
}

/// Receive side of one connection.
#[derive(Default, Clone)]
pub struct Recv {
    pub nxt: u32,
    /// Bytes that came in CPL_RX_DATA.
    pub data: Vec<u8>,
    /// Report of each DDP buffer handed back, with the bytes it accounts for.
    pub ddp: Vec<(wire::DdpReport, u32, wire::DdpVld)>,
    pub fin: Option<u32>,
    pub abort: Option<wire::CplStatus>,
    pub closed: bool,
    /// Return credits for what comes.
    pub auto_ack: bool,
    pub last_ddp_off: Option<bool>,
}

#[derive(Clone, Copy)]
pub struct Opts {
    pub ddp: bool,
    pub fc_ddp: bool,
    pub rcv_kb: u16,
    pub wscale: u8,
    pub iss_a: u32,
    pub iss_b: u32,
    pub mss_a: u8,
    pub mss_b: u8,
}

impl Default for Opts {
    fn default() -> Self {
        Self {
            ddp: false,
            fc_ddp: true,
            rcv_kb: 256,
            wscale: 4,
            iss_a: 1000,
            iss_b: 9_000_000,
            mss_a: 8,
            mss_b: 8,
        }
    }
}

pub struct Rig {
    pub card: Card,
    pub b: Bench,
    pub now: Nanos,
    pub chip: wire::Chip,
    /// CPLs seen and not looked at by a test.
    pub log: VecDeque<Msg>,
    pub flows: BTreeMap<u32, Flow>,
    pub recv: BTreeMap<u32, Recv>,
    /// Answer aborts and release tids as a driver does.
    pub auto_abort: bool,
    pub credits: u16,
    check_every: u64,
    steps: u64,
}

impl Rig {
    pub fn new(cfg: Config) -> Self {
        let chip = cfg.chip;
        let credits = cfg.tx_credits;
        let b = Bench {
            mem: vec![0; 48 << 20],
            ..Bench::default()
        };
        Self {
            card: Card::new(cfg).unwrap(),
            b,
            now: 0,
            chip,
            log: VecDeque::new(),
            flows: BTreeMap::new(),
            recv: BTreeMap::new(),
            auto_abort: true,
            credits,
            check_every: 1,
            steps: 0,
        }
    }

    pub fn check_every(&mut self, n: u64) {
        self.check_every = n;
    }

    /// Host memory: `n` bytes at a multiple of `align`.
    pub fn alloc(&mut self, n: usize, align: u64) -> u64 {
        let at = (MEM_BASE + self.b.brk).next_multiple_of(align);
        self.b.brk = at - MEM_BASE + n as u64;
        assert!(self.b.brk <= self.b.mem.len() as u64, "test memory used up");
        at
    }
    pub fn mem(&mut self, addr: u64, n: usize) -> &mut [u8] {
        self.b.at(addr, n).unwrap()
    }
    pub fn alloc_with(&mut self, data: &[u8], align: u64) -> u64 {
        let at = self.alloc(data.len(), align);
        self.mem(at, data.len()).copy_from_slice(data);
        at
    }

    pub fn submit(&mut self, q: TxQueue, wr: &[u8]) {
        self.card.submit(self.now, q, wr).unwrap();
    }

    /// Runs the next event. False if there is none.
    pub fn step(&mut self) -> bool {
        let Some(at) = self.card.next_event() else {
            return false;
        };
        self.advance(at);
        true
    }

    pub fn advance(&mut self, to: Nanos) {
        self.now = self.now.max(to);
        self.card.advance(self.now, &mut self.b);
        self.steps += 1;
        if self.steps.is_multiple_of(self.check_every) {
            self.card.check().unwrap();
        }
        while let Some(m) = self.b.new.pop_front() {
            self.driver(&m);
            self.log.push_back(m);
        }
        let tids: Vec<u32> = self.flows.keys().copied().collect();
        for tid in tids {
            self.push(tid);
        }
    }

    /// Runs until nothing is pending.
    pub fn idle(&mut self) {
        let end = self.now + FOREVER;
        while self.step() {
            assert!(self.now < end, "the card never comes to rest");
        }
    }

    /// Runs for `ns` of virtual time.
    pub fn run(&mut self, ns: Nanos) {
        let end = self.now + ns;
        while self.card.next_event().is_some_and(|at| at <= end) {
            self.step();
        }
        self.advance(end);
    }

    pub fn run_while(&mut self, what: &str, mut more: impl FnMut(&mut Self) -> bool) {
        let end = self.now + FOREVER;
        while more(self) {
            assert!(
                self.step(),
                "{what}: nothing more will happen: {:?}",
                self.card.stats()
            );
            assert!(
                self.now < end,
                "{what}: takes for ever: {:?}",
                self.card.stats()
            );
        }
    }

    /// The next CPL with this opcode for which `want` is true, taken out of the log.
    pub fn wait(&mut self, op: Opcode, want: impl Fn(&Msg) -> bool) -> Msg {
        let end = self.now + FOREVER;
        loop {
            if let Some(i) = self.log.iter().position(|m| m.op() == op && want(m)) {
                return self.log.remove(i).unwrap();
            }
            assert!(self.step(), "no {op:?}; {:?}", self.card.stats());
            assert!(self.now < end, "no {op:?} in time");
        }
    }
    pub fn wait_tid(&mut self, op: Opcode, tid: u32) -> Msg {
        self.wait(op, |m| m.tid() == tid)
    }
    pub fn count(&self, op: Opcode, tid: u32) -> usize {
        self.log
            .iter()
            .filter(|m| m.op() == op && m.tid() == tid)
            .count()
    }

    /// What a driver does with each CPL.
    fn driver(&mut self, m: &Msg) {
        let tid = m.tid();
        match m.op() {
            Opcode::Fw4Ack => {
                let ack = wire::Fw4Ack::parse(&m.cpl).unwrap();
                let flow = self.flows.entry(tid).or_default();
                let mut n = u16::from(ack.credits);
                while n > 0 {
                    let (c, plen) = flow.out.pop_front().expect("credits nobody took");
                    assert!(c <= n, "part of a work request returned");
                    n -= c;
                    flow.avail += c;
                    flow.done += plen;
                }
                if ack.seq_vld {
                    assert!(
                        ack.snd_una.wrapping_sub(flow.una) < 1 << 31,
                        "snd_una went back"
                    );
                    flow.una = ack.snd_una;
                }
            }
            Opcode::RxData => {
                let d = wire::RxData::parse(&m.cpl).unwrap();
                assert_eq!(usize::from(d.len), m.payload.len());
                let r = self.recv.entry(tid).or_default();
                r.nxt = d.seq.wrapping_add(u32::from(d.len));
                r.data.extend_from_slice(&m.payload);
                r.last_ddp_off = Some(d.ddp_off);
                if r.auto_ack {
                    self.rx_ack(tid, u32::from(d.len));
                }
            }
            Opcode::RxDataDdp => {
                let d = wire::RxDataDdp::parse(&m.cpl).unwrap();
                let r = self.recv.entry(tid).or_default();
                let end = d.seq.wrapping_add(u32::from(d.len));
                let n = end.wrapping_sub(r.nxt);
                r.nxt = end;
                r.ddp.push((d.report, n, d.ddpvld));
            }
            Opcode::RxDdpComplete => {
                let d = wire::RxDdpComplete::parse(&m.cpl).unwrap();
                let r = self.recv.entry(tid).or_default();
                let n = d.rcv_nxt.wrapping_sub(r.nxt);
                r.nxt = d.rcv_nxt;
                r.ddp.push((d.report, n, wire::DdpVld::default()));
            }
            Opcode::PeerClose => {
                let d = wire::PeerClose::parse(&m.cpl).unwrap();
                self.recv.entry(tid).or_default().fin = Some(d.rcv_nxt);
            }
            Opcode::CloseConRpl => self.recv.entry(tid).or_default().closed = true,
            Opcode::AbortReqRss => {
                let d = wire::AbortReqRss::parse(&m.cpl).unwrap();
                self.recv.entry(tid).or_default().abort = Some(d.status);
                if self.auto_abort {
                    self.release(tid);
                    self.abort_rpl(tid);
                }
            }
            _ => {}
        }
    }

    // Requests.

    pub fn listen(&mut self, stid: u32, ip: u32, port: u16) {
        let opt1 = wire::cpl_listen::Opt1 {
            conn_policy: wire::ConnPolicy::Ask,
            syn_rss_queue: Some(RXQ_B),
        };
        let m = wire::PassOpenReq {
            stid,
            local_port: port,
            peer_port: 0,
            local_ip: ip,
            peer_ip: 0,
            opt0: wire::Opt0::default().to_bits(),
            opt1: opt1.to_bits().unwrap(),
        };
        let mut wr = [0xa5; wire::PassOpenReq::LEN];
        m.emit(&mut wr).unwrap();
        self.submit(CTRL, &wr);
        let m = self.wait_tid(Opcode::PassOpenRpl, stid);
        assert!(wire::PassOpenRpl::parse(&m.cpl).unwrap().status.is_ok());
        assert_eq!(m.rxq, RXQ_B);
    }

    pub fn close_listener(&mut self, stid: u32) -> wire::CplStatus {
        let m = wire::CloseListsrvReq {
            stid,
            queue: RXQ_B,
            ipv6: false,
            no_reply: false,
        };
        let mut wr = [0xa5; wire::CloseListsrvReq::LEN];
        m.emit(&mut wr).unwrap();
        self.submit(CTRL, &wr);
        let m = self.wait_tid(Opcode::CloseListsrvRpl, stid);
        wire::CloseListsrvRpl::parse(&m.cpl).unwrap().status
    }

    pub fn opts(&self, o: &Opts, rxq: u16, mss: u8, port: u8) -> (u64, u32) {
        let opt0 = wire::Opt0 {
            tx_chan: port,
            ulp_mode: if o.ddp {
                wire::UlpMode::TcpDdp as u8
            } else {
                0
            },
            rcv_bufsiz: o.rcv_kb,
            l2t_idx: u16::from(port),
            tcam_bypass: true,
            wnd_scale: o.wscale,
            mss_idx: mss,
            ..wire::Opt0::default()
        };
        let opt2 = wire::Opt2 {
            rss_queue: rxq,
            rss_queue_valid: true,
            rx_coalesce: 3,
            rx_fc_ddp: o.ddp && o.fc_ddp,
            wnd_scale_en: o.wscale > 0,
            sack_en: true,
            iss_valid: self.chip != wire::Chip::T4,
            ..wire::Opt2::default()
        };
        (opt0.to_bits(), opt2.to_bits(self.chip))
    }

    pub fn act_open(&mut self, atid: u16, lport: u16, pport: u16, o: &Opts) {
        let (opt0, opt2) = self.opts(o, RXQ_A, o.mss_a, 0);
        let m = wire::ActOpenReq {
            atid: wire::QidTid {
                tid: atid,
                cookie: 1,
                qid: RXQ_A,
            },
            local_port: lport,
            peer_port: pport,
            local_ip: IP_A,
            peer_ip: IP_B,
            opt0,
            opt2,
            iss: o.iss_a,
            ..wire::ActOpenReq::default()
        };
        let mut wr = vec![0xa5; wire::ActOpenReq::len(self.chip)];
        m.emit(&mut wr, self.chip).unwrap();
        self.submit(CTRL, &wr);
    }

    pub fn accept(&mut self, tid: u32, o: &Opts) {
        let (opt0, opt2) = self.opts(o, RXQ_B, o.mss_b, 1);
        let m = wire::PassAcceptRpl {
            tid,
            opt0,
            opt2,
            iss: o.iss_b,
            opt3: 0,
        };
        let mut wr = vec![0xa5; wire::PassAcceptRpl::len(self.chip)];
        m.emit(&mut wr, self.chip).unwrap();
        self.submit(CTRL, &wr);
    }

    pub fn flowc(&mut self, tid: u32, iq: u16, snd_nxt: u32) {
        let params = [
            (wire::FlowcParam::PfnVfn, 0x400),
            (wire::FlowcParam::IqId, u32::from(iq)),
            (wire::FlowcParam::SndBuf, 262_144),
            (wire::FlowcParam::SndNxt, snd_nxt),
        ];
        let mut wr = vec![0xa5; wire::Flowc::len(params.len())];
        wire::Flowc {
            tid,
            params: &params,
        }
        .emit(&mut wr)
        .unwrap();
        let credits = (wr.len() / 16) as u16;
        self.submit(OFLD, &wr);
        let mut flow = Flow {
            avail: self.credits - credits,
            una: snd_nxt,
            ..Flow::default()
        };
        flow.out.push_back((credits, 0));
        self.flows.insert(tid, flow);
    }

    /// A connection from port 0 to port 1, both FLOWCs sent: the two tids.
    pub fn connect_with(&mut self, o: &Opts, lport: u16) -> (u32, u32) {
        if self.card.stats().wrs.pass_open == 0 {
            self.listen(STID, 0, 80);
        }
        self.act_open(lport & 0xff, lport, 80, o);
        let req = self.wait(Opcode::PassAcceptReq, |_| true);
        let b = req.tid();
        self.accept(b, o);
        let m = self.wait(Opcode::ActEstablish, |_| true);
        let a = m.tid();
        let est = wire::ActEstablish::parse(&m.cpl).unwrap();
        self.flowc(a, RXQ_A, est.snd_isn);
        self.recv.insert(
            a,
            Recv {
                nxt: est.rcv_isn,
                auto_ack: true,
                ..Recv::default()
            },
        );
        let m = self.wait_tid(Opcode::PassEstablish, b);
        let est = wire::PassEstablish::parse(&m.cpl).unwrap();
        self.flowc(b, RXQ_B, est.snd_isn);
        let r = self.recv.entry(b).or_default();
        r.nxt = est.rcv_isn;
        r.auto_ack = true;
        (a, b)
    }

    pub fn connect(&mut self) -> (u32, u32) {
        self.connect_with(&Opts::default(), 5000)
    }

    /// A connection whose passive end is in DDP mode, switched on.
    pub fn connect_ddp(&mut self) -> (u32, u32) {
        let o = Opts {
            ddp: true,
            ..Opts::default()
        };
        let (a, b) = self.connect_with(&o, 5000);
        self.ddp_on(b);
        (a, b)
    }

    pub fn rx_ack(&mut self, tid: u32, credits: u32) {
        let m = wire::RxDataAck {
            tid,
            credits,
            ..wire::RxDataAck::default()
        };
        let mut wr = [0xa5; wire::RxDataAck::LEN];
        m.emit(&mut wr).unwrap();
        self.submit(CTRL, &wr);
    }

    /// A payload work request over `segs`.
    pub fn sgl_wr(&self, tid: u32, segs: &[(u64, u32)], shove: bool, compl: bool) -> Vec<u8> {
        let plen = segs.iter().map(|s| s.1).sum();
        let len = (16 + wire::dsgl_len(segs.len())).next_multiple_of(16);
        let mut wr = vec![0; len];
        let h = wire::OfldTxData {
            tid,
            plen,
            immdlen: 0,
            len,
            compl,
            shove,
            ulp_mode: 0,
            ..Default::default()
        };
        h.emit(&mut wr).unwrap();
        wire::emit_dsgl(segs, &mut wr[16..]).unwrap();
        wr
    }

    pub fn imm_wr(&self, tid: u32, data: &[u8], shove: bool, compl: bool) -> Vec<u8> {
        let n = data.len();
        let len = (16 + n).next_multiple_of(16);
        let mut wr = vec![0; len];
        let h = wire::OfldTxData {
            tid,
            plen: n as u32,
            immdlen: n as u8,
            len,
            compl,
            shove,
            ..Default::default()
        };
        h.emit(&mut wr).unwrap();
        wr[16..16 + n].copy_from_slice(data);
        wr
    }

    /// Sends a work request as soon as credits allow.
    pub fn queue_wr(&mut self, tid: u32, wr: Vec<u8>, plen: u64) {
        self.flows.get_mut(&tid).unwrap().wait.push_back((wr, plen));
        self.push(tid);
    }

    fn push(&mut self, tid: u32) {
        loop {
            let Some(flow) = self.flows.get_mut(&tid) else {
                return;
            };
            let Some((wr, _)) = flow.wait.front() else {
                return;
            };
            let credits = (wr.len() / 16) as u16;
            if credits > flow.avail {
                return;
            }
            let (wr, plen) = flow.wait.pop_front().unwrap();
            flow.avail -= credits;
            flow.out.push_back((credits, plen));
            self.card.submit(self.now, OFLD, &wr).unwrap();
        }
    }

    /// Sends `n` bytes from `addr` in work requests of at most `per` bytes, each of 16 KiB
    /// segments; the last shoves.
    pub fn send(&mut self, tid: u32, addr: u64, n: usize, per: usize) {
        let mut at = 0;
        while at < n {
            let take = per.min(n - at);
            let segs: Vec<(u64, u32)> = (0..take)
                .step_by(16_384)
                .map(|o| (addr + (at + o) as u64, (take - o).min(16_384) as u32))
                .collect();
            let last = at + take == n;
            let wr = self.sgl_wr(tid, &segs, last, last);
            self.queue_wr(tid, wr, take as u64);
            at += take;
        }
    }

    /// Sends the pattern stream bytes `from .. from + n` out of fresh memory.
    pub fn send_pattern(&mut self, tid: u32, seed: u64, from: u64, n: usize) -> u64 {
        let addr = self.alloc_with(&pattern(seed, from, n), 4096);
        self.send(tid, addr, n, 65_536);
        addr
    }

    /// Runs until `n` bytes in all have come in CPL_RX_DATA.
    pub fn recv_bytes(&mut self, tid: u32, n: usize) {
        self.run_while("receive", |r| {
            r.recv.get(&tid).is_none_or(|v| v.data.len() < n)
        });
    }

    pub fn close(&mut self, tid: u32) {
        let mut wr = [0xa5; wire::CloseConReq::LEN];
        wire::CloseConReq { tid }.emit(&mut wr).unwrap();
        self.submit(OFLD, &wr);
    }
    pub fn release(&mut self, tid: u32) {
        let mut wr = [0xa5; wire::TidRelease::LEN];
        wire::TidRelease { tid }.emit(&mut wr).unwrap();
        self.submit(CTRL, &wr);
        self.flows.remove(&tid);
    }
    pub fn abort(&mut self, tid: u32) {
        let m = wire::AbortReq {
            tid,
            rsvd0: 0,
            rsvd1: 0,
            cmd: wire::AbortCmd::SEND_RST,
        };
        let mut wr = [0xa5; wire::AbortReq::LEN];
        m.emit(&mut wr).unwrap();
        self.submit(OFLD, &wr);
    }
    pub fn abort_rpl(&mut self, tid: u32) {
        let m = wire::AbortRpl {
            tid,
            rsvd0: 0,
            rsvd1: 0,
            cmd: wire::AbortCmd::NO_RST,
        };
        let mut wr = [0xa5; wire::AbortRpl::LEN];
        m.emit(&mut wr).unwrap();
        self.submit(OFLD, &wr);
    }

    // DDP.

    pub fn set_tcb(&mut self, tid: u32, u: &wire::TcbUpdate, reply: Option<(u16, u8)>) {
        let m = wire::SetTcbField {
            tid,
            reply: wire::ReplyCtrl {
                queue: reply.map_or(0, |r| r.0),
                chan: false,
                no_reply: reply.is_none(),
            },
            word: u.word,
            cookie: reply.map_or(0, |r| r.1),
            mask: u.mask,
            val: u.value,
        };
        let mut wr = [0xa5; wire::SetTcbField::LEN];
        m.emit(&mut wr).unwrap();
        self.submit(CTRL, &wr);
    }

    pub fn ddp_on(&mut self, tid: u32) {
        self.set_tcb(tid, &wire::tcb::ddp_on(), None);
        self.set_tcb(tid, &wire::tcb::coalesce_off(), None);
        self.run_while("DDP on", |r| !r.card.connection(tid).unwrap().ddp.on);
    }

    /// Writes the pods of a buffer over `pages`; `pod` is the index of the first.
    pub fn write_pods(&mut self, tid: u32, pod: u32, b: &Buf) -> u32 {
        let shift = self.card.config().page_shifts[usize::from(b.pgsz)];
        let span = u64::from(b.offset) + u64::from(b.len);
        let npages = span.div_ceil(1 << shift) as usize;
        assert_eq!(
            npages,
            b.pages.len(),
            "the test's pages do not cover its buffer"
        );
        let tag = wire::PpodTag::new(b.pgsz, pod * 64).0;
        let n = npages.div_ceil(4);
        let pods: Vec<wire::PagePod> = (0..n)
            .map(|p| wire::PagePod {
                valid: true,
                tid,
                tag,
                len: b.len,
                offset: b.offset,
                addrs: std::array::from_fn(|k| b.pages.get(p * 4 + k).copied().unwrap_or(0)),
            })
            .collect();
        let start = self.card.config().ddp_start;
        for (i, four) in pods.chunks(4).enumerate() {
            let mut m = wire::UlpTxMemWrite {
                addr: start + (pod + i as u32 * 4) * 64,
                pods: [wire::PagePod::default(); 4],
                count: four.len(),
            };
            m.pods[..four.len()].copy_from_slice(four);
            let mut wr = vec![0xa5; wire::UlpTxMemWrite::len(four.len())];
            m.emit(self.chip, &mut wr).unwrap();
            self.submit(CTRL, &wr);
        }
        tag
    }

    /// Posts a buffer whose pods are written.
    pub fn arm(&mut self, tid: u32, which: usize, tag: u32, at: u32, len: u32, only: bool) {
        self.arm_flags(tid, which, tag, at, len, only, 0);
    }

    /// As `arm`, with extra flags given as buffer 0 has them.
    #[allow(clippy::too_many_arguments)]
    pub fn arm_flags(
        &mut self,
        tid: u32,
        which: usize,
        tag: u32,
        at: u32,
        len: u32,
        only: bool,
        extra: u64,
    ) {
        let buf = wire::DdpBuf::from_index(which);
        let mut ups = wire::tcb::arm(buf, tag, at, len, only, false);
        ups[2].value |= buf.flag(extra);
        let mut wr = vec![0xa5; wire::ulptx::Compound::len(3, 1)];
        let mut c = wire::ulptx::Compound::begin(&mut wr, true, tid, RXQ_B).unwrap();
        for u in &ups {
            c.set_tcb(u, None).unwrap();
        }
        c.rx_modulate().unwrap();
        self.submit(CTRL, &wr);
    }

    pub fn invalidate(&mut self, tid: u32, which: usize) {
        let u = wire::tcb::invalidate(wire::DdpBuf::from_index(which));
        self.set_tcb(tid, &u, Some((RXQ_B, 2 + which as u8)));
    }

    /// A buffer of `len` bytes starting `offset` into its first page, over scattered pages.
    pub fn buffer(&mut self, len: u32, offset: u32, pgsz: u8) -> Buf {
        let shift = self.card.config().page_shifts[usize::from(pgsz)];
        let n = (u64::from(offset) + u64::from(len)).div_ceil(1 << shift) as usize;
        let mut pages: Vec<u64> = (0..n).map(|_| self.alloc(1 << shift, 1 << shift)).collect();
        // Not in order, and no two neighbours.
        pages.reverse();
        for p in &pages {
            let p = *p;
            self.mem(p, 1 << shift).fill(0xee);
        }
        Buf {
            pages,
            offset,
            len,
            pgsz,
            shift,
        }
    }

    pub fn arm_new(&mut self, tid: u32, which: usize, pod: u32, len: u32, only: bool) -> Buf {
        let b = self.buffer(len, 0, 0);
        let tag = self.write_pods(tid, pod, &b);
        self.arm(tid, which, tag, 0, len, only);
        b
    }

    /// What a buffer's memory holds, and whether the memory around it is untouched.
    pub fn read_buf(&mut self, b: &Buf) -> Vec<u8> {
        let mut all = Vec::new();
        for p in &b.pages {
            all.extend_from_slice(self.mem(*p, 1 << b.shift));
        }
        let from = b.offset as usize;
        let to = from + b.len as usize;
        assert!(
            all[..from].iter().all(|&x| x == 0xee),
            "written before the buffer"
        );
        assert!(
            all[to..].iter().all(|&x| x == 0xee),
            "written past the buffer"
        );
        all[from..to].to_vec()
    }

    pub fn wait_ddp(&mut self, tid: u32, n: usize) {
        self.run_while("DDP reports", |r| r.recv[&tid].ddp.len() < n);
    }
}

pub struct Buf {
    pub pages: Vec<u64>,
    pub offset: u32,
    pub len: u32,
    pub pgsz: u8,
    pub shift: u8,
}
