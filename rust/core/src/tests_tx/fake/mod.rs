//! A kernel and an adapter made of plain values, for the send side.
//!
//! Every byte of so_snd has a physical address. What the adapter would read is compared with
//! what was appended, byte by byte (I2); a job that ends or a page that is unwired while the
//! adapter may still read it is an error (I3).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use crate::errno::Errno;
use crate::os::*;
use crate::testos::Sent;

mod jobs;
mod kernel;

pub(crate) use jobs::{FJob, FJobs, FPages, Frames, LOOKS};

pub(crate) const ISS: u32 = 0xffff_f000;
pub(crate) const TID: u32 = 77;

/// One append to so_snd.
struct Chunk {
    job: Option<usize>,
    /// The page set that the mbufs refer to.
    slot: Option<u16>,
    /// Physical runs.
    runs: Vec<(u64, u32)>,
    len: u32,
    ready: bool,
}

/// A work request, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wr {
    Flowc(Vec<(wire::FlowcParam, u32)>),
    Data {
        plen: u32,
        imm: bool,
        segs: usize,
        credits: u8,
        compl: bool,
        shove: bool,
        align: wire::TxAlign,
    },
    Close,
    AbortReq {
        seq: u32,
        no_data: bool,
    },
    AbortRpl,
    Ctrl(u8),
}

/// What the adapter holds and will give credits for.
struct Out {
    credits: u8,
    plen: u32,
    runs: Vec<(u64, u32)>,
}

/// The fate of a job.
#[derive(Default, Debug)]
struct Ledger {
    /// Mbufs that refer to its pages.
    refs: u32,
    queued: usize,
    /// Bytes of the stream up to and with its last that is read from its pages.
    end: u64,
    ended: bool,
}

pub(crate) struct Fake {
    // --- knobs
    pub(crate) no_wr: u32,
    pub(crate) no_mbuf: u32,
    /// So many more can be had, if it is set.
    pub(crate) mbufs: Option<u32>,
    pub(crate) io_busy: bool,
    pub(crate) nonblocking: bool,
    pub(crate) more_to_come: bool,
    pub(crate) snd_shut: bool,
    pub(crate) rcv_shut: bool,
    pub(crate) so_error: Option<Errno>,
    pub(crate) state: TcpState,
    pub(crate) dropped: bool,
    pub(crate) hiwat: u32,
    /// Most bytes of so_snd with which a job may be appended past `hiwat`.
    pub(crate) wnd_max: u32,
    pub(crate) lowat: u32,
    pub(crate) auto_max: u32,
    pub(crate) budget: u32,
    pub(crate) cancelled: BTreeSet<usize>,
    /// Jobs whose process exits.
    pub(crate) leaving: BTreeSet<usize>,
    /// The generic path has write jobs.
    pub(crate) generic: bool,
    pub(crate) generation: u32,
    // --- what happened
    pub(crate) wrs: Vec<Wr>,
    pub(crate) retries: u32,
    pub(crate) kicks: u32,
    /// Milliseconds of uptime.
    pub(crate) now: u64,
    pub(crate) orphaned: i64,
    pub(crate) orphans: i64,
    pub(crate) counters: Vec<u64>,
    /// What was said of the adapter's messages, and of which tid.
    pub(crate) complaints: Vec<(u32, &'static str)>,
    pub(crate) ended: BTreeMap<usize, Result<usize, Errno>>,
    pub(crate) order: Vec<usize>,
    pub(crate) sigpipes: u32,
    pub(crate) seq: SeqState,
    pub(crate) disconnected: bool,
    pub(crate) discarded: u32,
    pub(crate) eof: bool,
    // --- so_snd
    so_snd: VecDeque<Chunk>,
    /// Bytes of so_snd handed over.
    sent: u32,
    /// Every byte ever appended, as physical runs.
    appended: VecDeque<(u64, u32)>,
    plain: u64,
    total: u64,
    jobs: BTreeMap<usize, Ledger>,
    users: BTreeMap<u16, u32>,
    locked: bool,
    // --- adapter
    checked: Sent,
    out: VecDeque<Out>,
    /// A TLS session has taken over so_snd.
    pub(crate) tls: bool,
    acked: u64,
    /// The last payload went without SHOVE, and nobody said that more would follow.
    unpushed: bool,
    pub(crate) una: u32,
    /// The adapter reads no page of the connection any more.
    over: bool,
    pub(crate) final_cpl: bool,
    frames: Rc<RefCell<Frames>>,
    pub(crate) errors: Vec<String>,
}

/// Physical address of byte `n` of all plain data: clusters of 2 KB, none next to another.
fn plain_phys(n: u64) -> u64 {
    0x4000_0000_0000 + n / 2048 * 4096 + n % 2048
}

/// What the byte at a physical address is.
fn content(phys: u64) -> u8 {
    (phys.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Frame of a user page: neighbours in pairs, so that some runs merge.
fn frame_of(page: u64) -> u64 {
    (page / 2 * 4 + page % 2 + 16) << 12
}

impl Fake {
    pub(crate) fn new() -> Fake {
        Fake {
            no_wr: 0,
            no_mbuf: 0,
            mbufs: None,
            io_busy: false,
            nonblocking: false,
            more_to_come: false,
            snd_shut: false,
            rcv_shut: false,
            so_error: None,
            state: TcpState::SynSent,
            dropped: false,
            hiwat: 256 * 1024,
            wnd_max: 0,
            lowat: 2048,
            auto_max: 0,
            budget: u32::MAX,
            cancelled: BTreeSet::new(),
            leaving: BTreeSet::new(),
            generic: false,
            generation: 1,
            wrs: Vec::new(),
            retries: 0,
            kicks: 0,
            now: 0,
            orphaned: 0,
            orphans: 0,
            counters: vec![0; Counter::Count as usize],
            complaints: Vec::new(),
            ended: BTreeMap::new(),
            order: Vec::new(),
            sigpipes: 0,
            seq: SeqState::default(),
            disconnected: false,
            discarded: 0,
            eof: false,
            so_snd: VecDeque::new(),
            sent: 0,
            appended: VecDeque::new(),
            plain: 0,
            total: 0,
            jobs: BTreeMap::new(),
            users: BTreeMap::new(),
            locked: false,
            checked: Sent::default(),
            out: VecDeque::new(),
            tls: false,
            acked: 0,
            unpushed: false,
            una: ISS,
            over: false,
            final_cpl: false,
            frames: Rc::default(),
            errors: Vec::new(),
        }
    }

    pub(crate) fn counter(&self, c: Counter) -> u64 {
        self.counters[c as usize]
    }

    /// write(2) of `n` bytes, ready or not.
    pub(crate) fn append(&mut self, n: u32, ready: bool) {
        let mut runs = Vec::new();
        let mut left = n;
        while left > 0 {
            let len = left.min(2048 - (self.plain % 2048) as u32);
            runs.push((plain_phys(self.plain), len));
            self.plain += u64::from(len);
            left -= len;
        }
        self.push_chunk(None, None, runs, n, ready);
    }

    /// Bytes that were not ready are (sendfile's pages came in).
    pub(crate) fn make_ready(&mut self) {
        for c in &mut self.so_snd {
            c.ready = true;
        }
    }

    fn push_chunk(
        &mut self,
        job: Option<usize>,
        slot: Option<u16>,
        runs: Vec<(u64, u32)>,
        len: u32,
        ready: bool,
    ) {
        self.appended.extend(runs.iter().copied());
        self.total += u64::from(len);
        self.so_snd.push_back(Chunk {
            job,
            slot,
            runs,
            len,
            ready,
        });
    }

    pub(crate) fn used(&self) -> u32 {
        self.so_snd.iter().map(|c| c.len).sum()
    }

    /// Runs of so_snd from `skip` on, with their job, while ready.
    fn runs_from(&self, mut skip: u32) -> Vec<(u64, u32, Option<usize>)> {
        let mut v = Vec::new();
        for c in &self.so_snd {
            if !c.ready {
                break;
            }
            for (a, l) in &c.runs {
                if skip >= *l {
                    skip -= l;
                    continue;
                }
                v.push((a + u64::from(skip), l - skip, c.job));
                skip = 0;
            }
        }
        v
    }

    /// Everything is mapped anew.
    pub(crate) fn remap(&mut self) {
        self.generation += 1;
        self.frames.borrow_mut().mapping += 1;
    }

    /// Pages for a request, as a worker would hold them.
    pub(crate) fn hold(&mut self, addr: u64, len: u32) -> FPages {
        let first = addr >> 12;
        let last = (addr + u64::from(len) - 1) >> 12;
        let frames: Vec<u64> = (first..=last).map(frame_of).collect();
        let mut t = self.frames.borrow_mut();
        for f in &frames {
            *t.wired.entry(*f).or_default() += 1;
        }
        let mapping = t.mapping;
        drop(t);
        FPages {
            mapping,
            frames,
            table: self.frames.clone(),
        }
    }

    pub(crate) fn wired(&self) -> usize {
        self.frames.borrow().wired.len()
    }

    /// Work requests the adapter holds.
    pub(crate) fn outstanding(&self) -> usize {
        self.out.len()
    }

    /// Bytes of so_snd that the adapter holds.
    pub(crate) fn in_flight(&self) -> u32 {
        self.sent
    }

    pub(crate) fn users_total(&self) -> u32 {
        self.users.values().sum()
    }

    /// Page sets in use.
    pub(crate) fn slots_used(&self) -> usize {
        self.users.values().filter(|n| **n > 0).count()
    }

    pub(crate) fn jobs_open(&self) -> usize {
        self.jobs.values().filter(|l| !l.ended).count()
    }

    /// The adapter acknowledges its oldest `n` work requests.
    pub(crate) fn ack(&mut self, n: usize) -> wire::Fw4Ack {
        let mut credits = 0u32;
        for _ in 0..n {
            let Some(o) = self.out.front() else { break };
            if credits + u32::from(o.credits) > 255 {
                break;
            }
            let Some(o) = self.out.pop_front() else { break };
            credits += u32::from(o.credits);
            self.acked += u64::from(o.plen);
            self.una = self.una.wrapping_add(o.plen);
            self.reading(&o.runs, false);
        }
        wire::Fw4Ack {
            tid: TID,
            credits: credits as u8,
            seq_vld: true,
            snd_nxt: self.una,
            snd_una: self.una,
        }
    }

    /// The peer has acknowledged all, and no message says so.
    pub(crate) fn ack_silently(&mut self) {
        while self.outstanding() > 0 {
            self.ack(1);
        }
    }

    /// The adapter is done with the connection.
    pub(crate) fn stop_reading(&mut self) {
        self.over = true;
        while let Some(o) = self.out.pop_front() {
            self.reading(&o.runs, false);
        }
    }

    fn reading(&mut self, runs: &[(u64, u32)], on: bool) {
        let mut t = self.frames.borrow_mut();
        for (a, l) in runs {
            for f in (a >> 12)..=((a + u64::from(*l) - 1) >> 12) {
                let n = t.reading.entry(f << 12).or_default();
                *n = if on { *n + 1 } else { *n - 1 };
                if *n == 0 {
                    t.reading.remove(&(f << 12));
                }
            }
        }
    }

    /// The kernel's part of tcp_drop, tcp_close: so_snd is emptied.
    pub(crate) fn kernel_close(&mut self) {
        self.dropped = true;
        self.state = TcpState::Closed;
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(c) = self.so_snd.pop_front() {
            self.free(&c);
        }
        self.sent = 0;
    }

    /// An mbuf is freed.
    fn free(&mut self, c: &Chunk) {
        if let Some(j) = c.job {
            self.jobs.get_mut(&j).expect("job").refs -= 1;
        }
        if let Some(slot) = c.slot {
            self.slot_unuse(slot);
        }
    }

    fn end(&mut self, job: usize, result: Result<usize, Errno>) {
        let leaving = self.leaving.contains(&job);
        let l = self.jobs.get_mut(&job).expect("job");
        l.ended = true;
        if (l.refs > 0 || l.end > self.acked) && !self.over && !leaving {
            self.errors
                .push(format!("I3: job {job} ended while it may be read"));
        }
        if let Ok(n) = result
            && n != l.queued
        {
            self.errors
                .push(format!("I8: job {job} says {n}, queued {}", l.queued));
        }
        if result.is_err() && l.queued > 0 {
            self.errors.push(format!(
                "I8: job {job} says {result:?}, queued {}",
                l.queued
            ));
        }
        if self.ended.insert(job, result).is_some() {
            self.errors.push(format!("I1: job {job} ended twice"));
        }
        self.order.push(job);
    }

    /// The peer has all there is and was not told so: a reader with room left would wait.
    pub(crate) fn peer_waits(&self) -> bool {
        self.unpushed && self.sent == self.used() && !self.over && !self.dropped
    }

    /// Everything found wrong so far.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let t = self.frames.borrow();
        match self.errors.first().or(t.errors.first()) {
            Some(e) => Err(e.clone()),
            None => Ok(()),
        }
    }

    fn got_data(&mut self, wr: &[u8]) {
        let d = wire::OfldTxData::parse(wr).expect("OFLD_TX_DATA");
        assert_eq!(d.tid, TID);
        let body = &wr[16..];
        let credits = (wr.len() / 16) as u8;
        let imm = d.immdlen > 0;
        let mut segs = Vec::new();
        if imm {
            assert_eq!(u32::from(d.immdlen), d.plen);
            assert!(wr.len() <= 64, "immediate data in one descriptor");
        } else {
            segs = wire::Dsgl::parse(body).expect("DSGL").segs().collect();
            let sum: u32 = segs.iter().map(|s| s.1).sum();
            assert_eq!(sum, d.plen, "segments and plen");
        }
        // I2: the very bytes appended, in order.
        let mut want = Vec::new();
        let mut left = d.plen;
        while left > 0 {
            let Some((a, l)) = self.appended.front_mut() else {
                self.errors.push("I2: more sent than appended".into());
                break;
            };
            let n = left.min(*l);
            want.push((*a, n));
            *a += u64::from(n);
            *l -= n;
            left -= n;
            if *l == 0 {
                self.appended.pop_front();
            }
        }
        let bytes = |v: &[(u64, u32)]| -> Vec<u64> {
            v.iter()
                .flat_map(|(a, l)| (0..u64::from(*l)).map(move |i| a + i))
                .collect()
        };
        if imm {
            let w: Vec<u8> = bytes(&want).into_iter().map(content).collect();
            if w != body[..d.plen as usize] {
                self.errors.push("I2: immediate bytes differ".into());
            }
        } else if merged(&want) != merged(&segs) {
            self.errors
                .push(format!("I2: sent {segs:x?}, not {want:x?}"));
        }
        if !imm {
            self.reading(&segs, true);
        }
        self.unpushed = !d.shove && !self.more_to_come;
        self.out.push_back(Out {
            credits,
            plen: d.plen,
            runs: if imm { Vec::new() } else { segs.clone() },
        });
        self.wrs.push(Wr::Data {
            plen: d.plen,
            imm,
            segs: segs.len(),
            credits,
            compl: d.compl,
            shove: d.shove,
            align: d.align,
        });
    }

    fn got_wr(&mut self, q: Queue, wr: &[u8]) {
        use wire::WrOp;
        let credits = (wr.len() / 16) as u8;
        let plain = |credits| Out {
            credits,
            plen: 0,
            runs: Vec::new(),
        };
        if q == Queue::Ctrl {
            self.wrs.push(Wr::Ctrl(wr[0]));
            return;
        }
        match wire::wr_op(wr).expect("work request") {
            WrOp::Flowc => {
                let (tid, p) = wire::parse_flowc(wr).expect("FLOWC");
                assert_eq!(tid, TID);
                self.wrs.push(Wr::Flowc(p.collect()));
                self.out.push_back(plain(credits));
            }
            WrOp::OfldTxData => self.got_data(wr),
            WrOp::Tp => {
                if let Ok(r) = wire::CloseConReq::parse(wr) {
                    assert_eq!(r.tid, TID);
                    self.wrs.push(Wr::Close);
                    self.out.push_back(plain(credits));
                } else if let Ok(r) = wire::AbortReq::parse(wr) {
                    assert_eq!((r.tid, r.cmd), (TID, wire::AbortCmd::SEND_RST));
                    self.wrs.push(Wr::AbortReq {
                        seq: r.rsvd0,
                        no_data: r.rsvd1 != 0,
                    });
                } else {
                    let r = wire::AbortRpl::parse(wr).expect("known CPL");
                    assert_eq!((r.tid, r.cmd), (TID, wire::AbortCmd::NO_RST));
                    self.wrs.push(Wr::AbortRpl);
                }
            }
            other => panic!("{other:?} in the offload queue"),
        }
    }
}

/// Adjacent runs joined, so that two descriptions of the same bytes are equal.
fn merged(v: &[(u64, u32)]) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (a, l) in v {
        match out.last_mut() {
            Some((b, m)) if *b + *m == *a => *m += u64::from(*l),
            _ => out.push((*a, u64::from(*l))),
        }
    }
    out
}
