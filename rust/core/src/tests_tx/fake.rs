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
use crate::pageset::Slot;
use crate::ppod::{Geometry, Ppods};
use crate::sgl::Sgl;

pub(crate) const ISS: u32 = 0xffff_f000;
pub(crate) const TID: u32 = 77;

/// A job, as the connection holds it.
#[derive(Debug)]
pub(crate) struct FJob {
    pub(crate) id: usize,
    pub(crate) addr: u64,
    pub(crate) len: usize,
    done: usize,
    slot: Option<u16>,
    mark: u32,
}

impl FJob {
    pub(crate) fn new(id: usize, addr: u64, len: usize) -> FJob {
        FJob {
            id,
            addr,
            len,
            done: 0,
            slot: None,
            mark: 0,
        }
    }
}

impl Job for FJob {
    fn id(&self) -> JobId {
        JobId(self.id)
    }
    fn addr(&self) -> u64 {
        self.addr
    }
    fn len(&self) -> usize {
        self.len
    }
    fn done(&self) -> usize {
        self.done
    }
    fn set_done(&mut self, n: usize) {
        self.done = n;
    }
    fn slot(&self) -> Option<u16> {
        self.slot
    }
    fn set_slot(&mut self, slot: Option<u16>) {
        self.slot = slot;
    }
    fn mark(&self) -> u32 {
        self.mark
    }
    fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }
}

#[derive(Default)]
pub(crate) struct FJobs(VecDeque<FJob>);

impl JobQueue<FJob> for FJobs {
    fn push_back(&mut self, job: FJob) {
        self.0.push_back(job);
    }
    fn push_front(&mut self, job: FJob) {
        self.0.push_front(job);
    }
    fn pop_front(&mut self) -> Option<FJob> {
        self.0.pop_front()
    }
    fn front(&self) -> Option<&FJob> {
        self.0.front()
    }
    fn front_mut(&mut self) -> Option<&mut FJob> {
        self.0.front_mut()
    }
    fn remove(&mut self, id: JobId) -> Option<FJob> {
        let i = self.0.iter().position(|j| j.id == id.0)?;
        self.0.remove(i)
    }
    fn find_mut(&mut self, mut pred: impl FnMut(&FJob) -> bool) -> Option<&mut FJob> {
        self.0.iter_mut().find(|j| pred(j))
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Frames wired now, and errors found where no `&mut Fake` is at hand.
#[derive(Default)]
pub(crate) struct Frames {
    wired: BTreeMap<u64, u32>,
    /// Frames the adapter may read: of work requests not acknowledged.
    reading: BTreeMap<u64, u32>,
    errors: Vec<String>,
}

/// Held pages.
pub(crate) struct FPages {
    frames: Vec<u64>,
    table: Rc<RefCell<Frames>>,
}

impl Pages for FPages {
    fn count(&self) -> usize {
        self.frames.len()
    }
    fn phys(&self, i: usize) -> u64 {
        self.frames.get(i).copied().unwrap_or(0)
    }
    fn dirty(&mut self) {}
}

impl Drop for FPages {
    fn drop(&mut self) {
        let mut t = self.table.borrow_mut();
        for f in &self.frames {
            let n = t.wired.get_mut(f).expect("unwired twice");
            *n -= 1;
            if *n == 0 {
                t.wired.remove(f);
                if t.reading.contains_key(f) {
                    t.errors
                        .push(format!("I3: frame {f:#x} unwired while it is read"));
                }
            }
        }
    }
}

/// One append to so_snd.
struct Chunk {
    job: Option<usize>,
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
        align: bool,
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
    refs: u32,
    result: Option<Result<usize, Errno>>,
    queued: usize,
    /// Bytes of the stream up to and with its last.
    end: u64,
    slot: Option<u16>,
    ended: bool,
}

pub(crate) struct Fake {
    // --- knobs
    pub(crate) no_wr: u32,
    pub(crate) no_mbuf: u32,
    pub(crate) io_busy: bool,
    pub(crate) nonblocking: bool,
    pub(crate) more_to_come: bool,
    pub(crate) snd_shut: bool,
    pub(crate) rcv_shut: bool,
    pub(crate) so_error: Option<Errno>,
    pub(crate) state: TcpState,
    pub(crate) dropped: bool,
    pub(crate) hiwat: u32,
    pub(crate) lowat: u32,
    pub(crate) auto_max: u32,
    pub(crate) budget: u32,
    pub(crate) cancelled: BTreeSet<usize>,
    pub(crate) generation: u32,
    // --- what happened
    pub(crate) wrs: Vec<Wr>,
    pub(crate) retries: u32,
    pub(crate) kicks: u32,
    pub(crate) counters: Vec<u64>,
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
    out: VecDeque<Out>,
    acked: u64,
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
            io_busy: false,
            nonblocking: false,
            more_to_come: false,
            snd_shut: false,
            rcv_shut: false,
            so_error: None,
            state: TcpState::SynSent,
            dropped: false,
            hiwat: 256 * 1024,
            lowat: 2048,
            auto_max: 0,
            budget: u32::MAX,
            cancelled: BTreeSet::new(),
            generation: 1,
            wrs: Vec::new(),
            retries: 0,
            kicks: 0,
            counters: vec![0; Counter::Count as usize],
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
            out: VecDeque::new(),
            acked: 0,
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
        self.push_chunk(None, runs, n, ready);
    }

    /// Bytes that were not ready are (sendfile's pages came in).
    pub(crate) fn make_ready(&mut self) {
        for c in &mut self.so_snd {
            c.ready = true;
        }
    }

    fn push_chunk(&mut self, job: Option<usize>, runs: Vec<(u64, u32)>, len: u32, ready: bool) {
        self.appended.extend(runs.iter().copied());
        self.total += u64::from(len);
        self.so_snd.push_back(Chunk {
            job,
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

    /// Pages for a request, as a worker would hold them.
    pub(crate) fn hold(&mut self, addr: u64, len: u32) -> FPages {
        let first = addr >> 12;
        let last = (addr + u64::from(len) - 1) >> 12;
        let frames: Vec<u64> = (first..=last).map(frame_of).collect();
        let mut t = self.frames.borrow_mut();
        for f in &frames {
            *t.wired.entry(*f).or_default() += 1;
        }
        drop(t);
        FPages {
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

    pub(crate) fn users_total(&self) -> u32 {
        self.users.values().sum()
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
            if let Some(j) = c.job {
                self.unref(j);
            }
        }
        self.sent = 0;
    }

    fn unref(&mut self, job: usize) {
        let l = self.jobs.get_mut(&job).expect("job");
        l.refs -= 1;
        self.maybe_end(job);
    }

    fn maybe_end(&mut self, job: usize) {
        let l = self.jobs.get_mut(&job).expect("job");
        let Some(result) = l.result else { return };
        if l.refs > 0 || l.ended {
            return;
        }
        l.ended = true;
        if l.end > self.acked && !self.over {
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
        if let Some(s) = l.slot.take() {
            self.slot_unuse(s);
        }
        if self.ended.insert(job, result).is_some() {
            self.errors.push(format!("I1: job {job} ended twice"));
        }
        self.order.push(job);
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

impl Os for Fake {
    type Mbuf = u32;
    type Pages = FPages;
    type Job = FJob;
    type Jobs = FJobs;
    type Slots = Vec<Slot<FPages>>;

    fn send_wr(&mut self, q: Queue, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), NoWr> {
        assert!(
            len.is_multiple_of(16) && len <= 512 && len > 0,
            "length {len}"
        );
        if self.no_wr > 0 {
            self.no_wr -= 1;
            return Err(NoWr);
        }
        let mut b = vec![0; len];
        fill(&mut b);
        if self.final_cpl {
            self.errors
                .push("a work request after the final CPL".into());
        }
        self.got_wr(q, &b);
        Ok(())
    }
    fn geometry(&self) -> Geometry {
        Geometry::new(0, 1 << 20, [12, 14, 16, 18]).expect("geometry")
    }
    fn ppod_alloc(&mut self, _n: u32) -> Option<Ppods> {
        None
    }
    fn ppod_free(&mut self, _p: Ppods) {}
    fn retry_later(&mut self) {
        self.retries += 1;
    }
    fn kick_worker(&mut self) {
        self.kicks += 1;
    }
    fn count(&mut self, c: Counter, n: u64) {
        self.counters[c as usize] += n;
    }
    fn rcv_avail(&self) -> u32 {
        0
    }
    fn rcv_space(&self) -> i32 {
        65536
    }
    fn rcv_hiwat(&self) -> u32 {
        65536
    }
    fn rcv_lowat(&self) -> u32 {
        1
    }
    fn rcv_shut(&self) -> bool {
        self.rcv_shut
    }
    fn rcv_append(&mut self, _m: u32) {}
    fn rcv_discard(&mut self, m: u32) {
        self.discarded += m;
    }
    fn rcv_copy(&mut self, _p: &FPages, _off: u32, _max: u32) -> u32 {
        0
    }
    fn rcv_io_trylock(&mut self) -> bool {
        true
    }
    fn rcv_io_unlock(&mut self) {}
    fn rcv_append_pages(&mut self, _p: &FPages, _off: u32, _len: u32) -> Result<(), NoMbuf> {
        Err(NoMbuf)
    }
    fn pages_move(&mut self, _p: &FPages, _from: u32, _to: u32, _len: u32) {}
    fn mbuf_join(&mut self, head: u32, tail: u32) -> u32 {
        head + tail
    }
    fn rcv_autosize(&mut self, _n: u32) {}
    fn rcv_cant_more(&mut self) {
        self.rcv_shut = true;
        self.eof = true;
    }
    fn snd_unsent(&mut self, max: u32, sgl: &mut Sgl) -> Unsent {
        let mut len = 0;
        let mut more = false;
        for (a, l, _) in self.runs_from(self.sent) {
            let n = l.min(max - len);
            if n == 0 || sgl.push(a, n) == 0 {
                more = true;
                break;
            }
            len += n;
            if n < l {
                more = true;
                break;
            }
        }
        Unsent { len, more }
    }
    fn snd_peek(&mut self, out: &mut [u8]) {
        let mut at = 0;
        for (a, l, _) in self.runs_from(self.sent) {
            for i in 0..u64::from(l) {
                if at == out.len() {
                    return;
                }
                out[at] = content(a + i);
                at += 1;
            }
        }
        assert_eq!(at, out.len(), "peek past the end");
    }
    fn snd_advance(&mut self, n: u32) {
        self.sent += n;
        assert!(self.sent <= self.used());
    }
    fn snd_zcopy_octets(&mut self, n: u32) -> u32 {
        let (mut left, mut z) = (n, 0);
        for (_, l, job) in self.runs_from(self.sent) {
            let k = l.min(left);
            left -= k;
            z += if job.is_some() { k } else { 0 };
        }
        assert_eq!(left, 0);
        z
    }
    fn snd_drop(&mut self, mut n: u32) {
        assert!(!self.dropped, "so_snd is gone");
        assert!(n <= self.sent, "dropping what was not sent");
        self.sent -= n;
        while n > 0 {
            let c = self.so_snd.front_mut().expect("so_snd");
            let k = n.min(c.len);
            c.len -= k;
            n -= k;
            let mut cut = k;
            while cut > 0 {
                let (a, l) = c.runs.first_mut().expect("run");
                let m = cut.min(*l);
                *a += u64::from(m);
                *l -= m;
                cut -= m;
                if *l == 0 {
                    c.runs.remove(0);
                }
            }
            if c.len == 0
                && let Some(c) = self.so_snd.pop_front()
                && let Some(j) = c.job
            {
                self.unref(j);
            }
        }
    }
    fn snd_flush(&mut self) {
        assert!(!self.dropped, "so_snd is gone");
        self.flush();
    }
    fn snd_used(&self) -> u32 {
        self.used()
    }
    fn snd_space(&self) -> i32 {
        self.hiwat as i32 - self.used() as i32
    }
    fn snd_hiwat(&self) -> u32 {
        self.hiwat
    }
    fn snd_lowat(&self) -> u32 {
        self.lowat
    }
    fn snd_shut(&self) -> bool {
        self.snd_shut
    }
    fn snd_autosize(&mut self) -> bool {
        if self.hiwat < self.auto_max && self.used() >= self.hiwat / 8 * 7 {
            self.hiwat = (self.hiwat + 8192).min(self.auto_max);
            return true;
        }
        false
    }
    fn snd_io_trylock(&mut self) -> bool {
        assert!(!self.locked, "locked twice");
        self.locked = !self.io_busy;
        self.locked
    }
    fn snd_io_unlock(&mut self) {
        assert!(self.locked, "not locked");
        self.locked = false;
    }
    fn snd_append_pages(
        &mut self,
        job: &FJob,
        pages: &FPages,
        off: u32,
        len: u32,
    ) -> Result<(), NoMbuf> {
        assert!(self.locked, "appending without the I/O lock");
        assert!(
            len > 0 && i64::from(len) <= i64::from(self.snd_space()),
            "over-full"
        );
        if self.no_mbuf > 0 {
            self.no_mbuf -= 1;
            return Err(NoMbuf);
        }
        let (mut at, mut left) = (u64::from(off), len);
        // The bytes must be those of the job at its progress.
        let user = job.addr + job.done as u64;
        let mut runs = Vec::new();
        while left > 0 {
            let n = left.min(4096 - (at % 4096) as u32);
            let i = (at / 4096) as usize;
            assert!(i < pages.count(), "past the held pages");
            runs.push((pages.phys(i) + at % 4096, n));
            at += u64::from(n);
            left -= n;
        }
        let first = frame_of(user >> 12) + user % 4096;
        if runs[0].0 != first {
            self.errors
                .push(format!("I2: job {} appends another's bytes", job.id));
        }
        self.push_chunk(Some(job.id), runs, len, true);
        let end = self.total;
        let l = self.jobs.get_mut(&job.id).expect("job");
        l.refs += 1;
        l.queued += len as usize;
        l.end = end;
        Ok(())
    }
    fn more_to_come(&self) -> bool {
        self.more_to_come
    }
    fn nonblocking(&self) -> bool {
        self.nonblocking
    }
    fn sigpipe(&mut self, _job: &FJob) {
        self.sigpipes += 1;
    }
    fn take_so_error(&mut self) -> Option<Errno> {
        self.so_error.take()
    }
    fn tcp_state(&self) -> TcpState {
        self.state
    }
    fn set_tcp_state(&mut self, s: TcpState) {
        self.state = s;
    }
    fn dropped(&self) -> bool {
        self.dropped
    }
    fn publish(&mut self, seq: &SeqState) {
        self.seq = *seq;
    }
    fn so_disconnected(&mut self) {
        self.disconnected = true;
    }
    fn arm_cancel(&mut self, job: &FJob) -> bool {
        self.jobs.insert(job.id, Ledger::default());
        !self.cancelled.contains(&job.id)
    }
    fn complete(&mut self, job: FJob, result: Result<usize, Errno>) {
        assert_eq!(job.slot, None, "a page set goes with the job");
        let l = self.jobs.get_mut(&job.id).expect("job");
        assert_eq!(l.refs, 0);
        l.result = Some(result);
        self.maybe_end(job.id);
    }
    fn aiotx_finish(&mut self, job: FJob, result: Result<usize, Errno>) {
        let l = self.jobs.get_mut(&job.id).expect("job");
        l.result = Some(result);
        l.slot = job.slot;
        self.maybe_end(job.id);
    }
    fn page_key(&self, job: &FJob, off: usize, len: u32, write: bool) -> PageKey {
        PageKey {
            space: 1,
            generation: self.generation,
            addr: job.addr + off as u64,
            len,
            write,
        }
    }
    fn slot_use(&mut self, slot: u16) {
        *self.users.entry(slot).or_default() += 1;
    }
    fn slot_unuse(&mut self, slot: u16) {
        let n = self.users.get_mut(&slot).expect("slot");
        assert!(*n > 0, "unused slot {slot}");
        *n -= 1;
    }
    fn slot_users(&self, slot: u16) -> u32 {
        self.users.get(&slot).copied().unwrap_or(0)
    }
    fn charge_pages(&mut self, _job: &FJob, n: u32) -> bool {
        if n > self.budget {
            return false;
        }
        true
    }
}
