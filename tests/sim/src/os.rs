//! The kernel as core sees it: [`toehold_core::os::Os`] over a simulated socket and memory.
//!
//! It behaves as the module's own does, also after the kernel has let go of the tcpcb
//! ([`Tcb::attached`]): then the socket is not there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use toehold_core::aiotx::MAX_WND;
use toehold_core::errno::Errno;
use toehold_core::open::MIN_RCV_WND;
use toehold_core::os::{
    Counter, Job, JobId, NoMbuf, NoWr, Os, PageKey, Queue, SeqState, TcpState, Unsent,
};
use toehold_core::pageset::Slot;
use toehold_core::ppod::{Geometry, Node, Ppods, Region};
use toehold_core::sgl::Sgl;
use toehold_core::testos::Sent;
use toehold_core::txcredits::RING;

use crate::job::{self, Ended, SimJob, SimJobs};
use crate::mem::{self, SimPages};
use crate::pattern;
use crate::rng::Rng;
use crate::sock::{Rcv, Seg, Snd, Sock};

/// What a program has got.
const READ: [Counter; 9] = [
    Counter::RxPlacedOctets,
    Counter::RxMovedOctets,
    Counter::RxCopiedBeforeDdp,
    Counter::RxCopiedNoBuffer,
    Counter::RxCopiedNoPpods,
    Counter::RxCopiedDdpOff,
    Counter::RxCopiedNoBudget,
    Counter::RxCopiedVectored,
    Counter::RxPlainOctets,
];

/// Page-pod memory of the adapter, shared by all connections.
#[derive(Debug)]
pub struct Pods {
    /// Who has which.
    pub region: Region<Vec<Node>>,
    /// Where they are.
    pub geometry: Geometry,
}

/// Shortages, in thousandths of the calls that may be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// No work request.
    pub wr: u64,
    /// No page pods.
    pub ppods: u64,
    /// No mbuf.
    pub mbuf: u64,
    /// Pages cannot be charged.
    pub charge: u64,
    /// Pages cannot be held: EFAULT.
    pub fault: u64,
    /// Pages cannot be held: ENOMEM.
    pub nomem: u64,
    /// A reader or writer is inside an I/O lock.
    pub io: u64,
}

/// What the simulated tcpcb has.
#[derive(Clone, Copy, Debug)]
pub struct Tcb {
    /// TCPS_*.
    pub state: TcpState,
    /// INP_DROPPED.
    pub dropped: bool,
    /// The kernel has not detached.
    pub attached: bool,
    /// TF_SENTFIN.
    pub sent_fin: bool,
    /// TF_MORETOCOME.
    pub more_to_come: bool,
    /// Last published.
    pub seq: SeqState,
}

/// The kernel's side of one connection.
pub struct SimOs {
    /// Memory.
    pub mem: mem::Shared,
    /// Page pods.
    pub pods: Rc<RefCell<Pods>>,
    /// The process, and the adapter's port.
    pub host: usize,
    /// Work requests not yet with the adapter.
    pub wrs: VecDeque<(Queue, Vec<u8>)>,
    /// What holds of all of them.
    pub sent: Sent,
    /// A retry is wanted.
    pub retry: bool,
    /// The worker is wanted.
    pub kicked: bool,
    /// Pages or pods were not to be had: others shall let go of what they do not use.
    pub pressure: bool,
    /// Milliseconds of uptime.
    pub now_ms: u64,
    /// Connections and pages kept for want of the adapter's last word.
    pub orphaned: (i64, i64),
    /// What the log says.
    pub log: Vec<&'static str>,
    /// Counters.
    pub counters: [u64; Counter::Count as usize],
    /// The socket.
    pub sock: Sock,
    /// The tcpcb.
    pub tcb: Tcb,
    /// Bytes that the program had got when so_rcv last grew.
    pub grown_at: u64,
    /// Jobs.
    pub book: job::Shared,
    /// What this end sends.
    pub sends: pattern::Shared,
    /// The last write job that put bytes in so_snd.
    pub last: JobId,
    /// Users of page-set slots.
    pub users: Vec<u32>,
    /// Mbufs freed while the adapter may still read them; kept until it is done.
    pub limbo: Vec<Seg>,
    /// Shortages.
    pub short: Short,
    /// Chance.
    pub rng: Rng,
}

impl SimOs {
    /// A socket of process `host` with empty buffers of the sizes given.
    #[must_use]
    pub fn new(
        host: usize,
        mem: &mem::Shared,
        pods: &Rc<RefCell<Pods>>,
        slots: usize,
        rcv_hiwat: u32,
        snd_hiwat: u32,
        rng: Rng,
    ) -> SimOs {
        SimOs {
            mem: Rc::clone(mem),
            pods: Rc::clone(pods),
            host,
            wrs: VecDeque::new(),
            sent: Sent::default(),
            retry: false,
            kicked: false,
            pressure: false,
            now_ms: 0,
            orphaned: (0, 0),
            log: Vec::new(),
            counters: [0; Counter::Count as usize],
            grown_at: 0,
            sock: Sock {
                rcv: Rcv::new(rcv_hiwat),
                snd: Snd::new(snd_hiwat),
                error: None,
                nonblocking: false,
                disconnected: false,
                closed: false,
                sigpipes: 0,
            },
            tcb: Tcb {
                state: TcpState::SynSent,
                dropped: false,
                attached: true,
                sent_fin: false,
                more_to_come: false,
                seq: SeqState::default(),
            },
            book: Rc::default(),
            sends: Rc::default(),
            last: JobId(0),
            users: vec![0; slots],
            limbo: Vec::new(),
            short: Short::default(),
            rng,
        }
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, c: Counter) -> u64 {
        self.counters[c as usize]
    }

    /// write(2) puts `n` bytes of the pattern in so_snd.
    pub fn write_copy(&mut self, place: u64, n: usize, wait: u32) {
        let mut b = vec![0; n];
        pattern::fill(place, &mut b);
        self.sock.snd.append_copy(&self.mem, &b, wait);
        self.sends.borrow_mut().append(place, n as u64);
    }

    /// A write job puts bytes in so_snd: in the order in which they were submitted.
    ///
    /// # Panics
    /// If it has passed another.
    pub fn in_turn(&mut self, id: JobId) {
        assert!(self.last <= id, "{id:?} behind {:?} (I2)", self.last);
        self.last = id;
    }

    fn free_segs(&mut self, segs: Vec<Seg>) {
        for s in segs {
            match s.job {
                None => self.mem.borrow_mut().kernel_free(s.pa),
                Some(at) => self.unref(at),
            }
        }
    }

    fn unref(&mut self, (id, slot): (JobId, u16)) {
        // The job may have ended, if its process has.
        if let Some(rec) = self.book.borrow_mut().jobs.get_mut(&id) {
            rec.refs -= 1;
        }
        self.slot_unuse(slot);
    }

    /// sbflush.
    fn snd_empty(&mut self) {
        let segs = self.sock.snd.drop_all();
        self.free_segs(segs);
    }

    /// Before a reset the module takes so_snd over: its mbufs live while the adapter may read
    /// them.
    pub fn take_snd(&mut self) {
        let segs = self.sock.snd.drop_all();
        self.limbo.extend(segs);
    }

    /// The adapter is done with the connection.
    pub fn free_limbo(&mut self) {
        let segs = std::mem::take(&mut self.limbo);
        self.free_segs(segs);
    }

    /// soisdisconnected.
    pub fn disconnect(&mut self) {
        self.sock.disconnected = true;
        self.sock.rcv.shut = true;
        self.sock.snd.shut = true;
        self.snd_empty();
    }

    fn so(&self) -> Option<&Sock> {
        self.tcb.attached.then_some(&self.sock)
    }

    fn refuse(&mut self, permille: u64) -> bool {
        permille > 0 && self.rng.permille(permille)
    }
}

impl Os for SimOs {
    type Mbuf = Vec<u8>;
    type Pages = SimPages;
    type Job = SimJob;
    type Lent = JobId;
    type Jobs = SimJobs;
    type Ring = [u32; RING];
    type Slots = Vec<Slot<SimPages>>;

    fn send_wr(&mut self, q: Queue, wr: &[u8]) -> Result<(), NoWr> {
        if self.refuse(self.short.wr) {
            return Err(NoWr);
        }
        self.sent.check(wr);
        self.wrs.push_back((q, wr.to_vec()));
        Ok(())
    }
    fn geometry(&self) -> Geometry {
        self.pods.borrow().geometry
    }
    fn ppod_alloc(&mut self, n: u32) -> Option<Ppods> {
        if self.refuse(self.short.ppods) {
            return None;
        }
        let r = self.pods.borrow_mut().region.alloc(n);
        self.pressure |= r.is_none();
        r
    }
    fn ppod_free(&mut self, p: Ppods) {
        let mut pods = self.pods.borrow_mut();
        let (before, n) = (pods.region.available(), p.count());
        pods.region.free(p);
        assert_eq!(
            pods.region.available(),
            before + n,
            "page pods freed twice (I5)"
        );
    }
    fn retry_later(&mut self) {
        self.retry = true;
    }
    fn kick_worker(&mut self) {
        self.kicked = true;
    }
    fn complain(&mut self, _tid: u32, why: &'static str) {
        self.log.push(why);
    }
    fn orphaned(&mut self, conns: i64, pages: i64) {
        self.orphaned.0 += conns;
        self.orphaned.1 += pages;
    }
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn count(&mut self, c: Counter, n: u64) {
        self.counters[c as usize] += n;
    }

    fn rcv_avail(&self) -> u32 {
        self.so().map_or(0, |s| s.rcv.len() as u32)
    }
    fn rcv_space(&self) -> i32 {
        self.rcv_hiwat() as i32 - self.rcv_avail() as i32
    }
    fn rcv_hiwat(&self) -> u32 {
        self.so().map_or(0, |s| s.rcv.hiwat.max(MIN_RCV_WND))
    }
    fn rcv_lowat(&self) -> u32 {
        self.so().map_or(0, |s| s.rcv.lowat)
    }
    fn rcv_held(&self) -> u32 {
        self.rcv_avail()
    }
    fn rcv_tls(&self) -> bool {
        false
    }
    fn rcv_shut(&self) -> bool {
        self.so().is_none_or(|s| s.rcv.shut)
    }
    fn rcv_generic(&self) -> bool {
        self.sock.rcv.generic > 0
    }
    fn rcv_append(&mut self, m: Vec<u8>) {
        if self.tcb.attached {
            self.sock.rcv.append(m);
        }
    }
    fn rcv_discard(&mut self, m: Vec<u8>) {
        drop(m);
    }
    fn rcv_copy(&mut self, pages: &SimPages, off: u32, max: u32) -> u32 {
        if !self.tcb.attached {
            return 0;
        }
        assert!(
            self.sock.rcv.locked,
            "so_rcv taken from without its I/O lock"
        );
        let bytes = self.sock.rcv.take(max as usize);
        pages.write(off, &bytes);
        bytes.len() as u32
    }
    fn rcv_io_trylock(&mut self) -> bool {
        if !self.tcb.attached {
            return true;
        }
        assert!(!self.sock.rcv.locked, "receive I/O lock taken twice");
        self.sock.rcv.locked = !self.sock.rcv.reader && !self.refuse(self.short.io);
        self.sock.rcv.locked
    }
    fn rcv_io_unlock(&mut self) {
        if self.tcb.attached {
            assert!(self.sock.rcv.locked, "receive I/O lock not held");
            self.sock.rcv.locked = false;
        }
    }
    fn rcv_append_pages(&mut self, pages: &SimPages, off: u32, len: u32) -> Result<(), NoMbuf> {
        if !self.tcb.attached {
            return Ok(());
        }
        if self.refuse(self.short.mbuf) {
            return Err(NoMbuf);
        }
        self.sock.rcv.append(pages.read(off, len));
        Ok(())
    }
    fn pages_move(&mut self, pages: &SimPages, from: u32, to: u32, len: u32) {
        let bytes = pages.read(from, len);
        pages.write(to, &bytes);
    }
    fn pages_copy(&mut self, from: &SimPages, off: u32, to: &SimPages, at: u32, len: u32) {
        to.write(at, &from.read(off, len));
    }
    fn mbuf_join(&mut self, mut head: Vec<u8>, tail: Vec<u8>) -> Vec<u8> {
        head.extend_from_slice(&tail);
        head
    }
    fn rcv_grow(&mut self) {
        let got = READ.map(|c| self.counters[c as usize]).iter().sum::<u64>();
        let since = got - std::mem::replace(&mut self.grown_at, got);
        let r = &mut self.sock.rcv;
        assert!(
            since >= u64::from(r.hiwat.max(MIN_RCV_WND) / 8 * 3),
            "so_rcv of {} grows though the program took {since} bytes only",
            r.hiwat
        );
        if r.hiwat < r.auto_max {
            r.hiwat = (r.hiwat + 16384).min(r.auto_max);
        }
    }
    fn rcv_cant_more(&mut self) {
        if self.tcb.attached {
            self.sock.rcv.shut = true;
        }
    }

    fn snd_unsent(&mut self, max: u32, sgl: &mut Sgl) -> Unsent {
        let mut u = Unsent::default();
        if !self.tcb.attached {
            return u;
        }
        for s in self.sock.snd.unsent() {
            let took = sgl.push(s.pa, s.len.min(max - u.len));
            u.len += took;
            if took < s.len {
                u.more = true;
                break;
            }
        }
        u
    }
    fn snd_peek(&mut self, out: &mut [u8]) -> bool {
        let mut at = 0;
        for s in self.sock.snd.unsent() {
            let n = (out.len() - at).min(s.len as usize);
            self.mem.borrow().read(s.pa, &mut out[at..at + n]);
            at += n;
        }
        assert_eq!(at, out.len(), "fewer unsent bytes than asked for");
        true
    }
    fn snd_advance(&mut self, n: u32) {
        self.sock.snd.sent += n;
        let s = &self.sock.snd;
        assert!(s.sent <= s.used(), "sent more than there is");
    }
    fn snd_zcopy_octets(&mut self, n: u32) -> u32 {
        if !self.tcb.attached {
            return 0;
        }
        let (mut left, mut z) = (n, 0);
        for s in self.sock.snd.unsent() {
            let here = s.len.min(left);
            left -= here;
            if s.job.is_some() {
                z += here;
            }
            if left == 0 {
                break;
            }
        }
        z
    }
    fn snd_drop(&mut self, n: u32) {
        if !self.tcb.attached {
            return;
        }
        assert!(n <= self.sock.snd.sent, "acknowledged what was not sent");
        let segs = self.sock.snd.drop_front(n);
        self.free_segs(segs);
    }
    fn snd_flush(&mut self) {
        if self.tcb.attached {
            self.snd_empty();
        }
    }
    fn snd_used(&self) -> u32 {
        self.so().map_or(0, |s| s.snd.used())
    }
    fn snd_space(&self) -> i32 {
        self.so().map_or(0, |s| s.snd.space())
    }
    fn snd_hiwat(&self) -> u32 {
        self.so().map_or(0, |s| s.snd.hiwat)
    }
    fn snd_lowat(&self) -> u32 {
        self.so().map_or(0, |s| s.snd.lowat)
    }
    fn snd_tls(&self) -> bool {
        false
    }
    fn snd_shut(&self) -> bool {
        self.so().is_none_or(|s| s.snd.shut)
    }
    fn snd_autosize(&mut self) -> bool {
        let s = &mut self.sock.snd;
        let grow = self.tcb.attached && s.hiwat < s.auto_max && s.used() >= s.hiwat / 8 * 7;
        if grow {
            s.hiwat = (s.hiwat + 8192).min(s.auto_max);
        }
        grow
    }
    fn snd_io_trylock(&mut self) -> bool {
        if !self.tcb.attached {
            return true;
        }
        assert!(!self.sock.snd.locked, "send I/O lock taken twice");
        self.sock.snd.locked = !self.sock.snd.writer && !self.refuse(self.short.io);
        self.sock.snd.locked
    }
    fn snd_io_unlock(&mut self) {
        if self.tcb.attached {
            assert!(self.sock.snd.locked, "send I/O lock not held");
            self.sock.snd.locked = false;
        }
    }
    fn snd_append_pages(
        &mut self,
        job: &SimJob,
        slot: u16,
        pages: &SimPages,
        off: u32,
        len: u32,
    ) -> Result<(), NoMbuf> {
        if !self.tcb.attached || self.refuse(self.short.mbuf) {
            return Err(NoMbuf);
        }
        assert!(
            self.sock.snd.locked,
            "so_snd written to without its I/O lock"
        );
        // Writes of held pages may go past the high-water mark, up to their window.
        let most = self.sock.snd.hiwat.max(MAX_WND);
        assert!(
            len > 0 && self.sock.snd.used() + len <= most,
            "so_snd is over-full"
        );
        let runs = pages.runs(off, len);
        let mut book = self.book.borrow_mut();
        let mut sends = self.sends.borrow_mut();
        let rec = book
            .jobs
            .get_mut(&job.id())
            .expect("a job that has not ended");
        rec.refs += runs.len() as u32;
        sends.append(rec.place + job.done() as u64, u64::from(len));
        rec.end = sends.len();
        for (pa, len) in runs {
            self.sock.snd.append(Seg {
                pa,
                len,
                job: Some((job.id(), slot)),
                wait: 0,
            });
            self.users[usize::from(slot)] += 1;
        }
        drop((book, sends));
        self.in_turn(job.id());
        Ok(())
    }
    fn snd_append(&mut self, job: &SimJob, m: Vec<u8>) {
        if !self.tcb.attached {
            return;
        }
        assert!(
            self.sock.snd.locked,
            "so_snd written to without its I/O lock"
        );
        let book = self.book.borrow();
        let place = book.jobs[&job.id()].place + job.done() as u64;
        self.sends.borrow_mut().append(place, m.len() as u64);
        self.sock.snd.append_copy(&self.mem, &m, 0);
        drop(book);
        self.in_turn(job.id());
    }
    fn snd_generic(&self) -> bool {
        self.sock.snd.generic > 0
    }
    fn leaving(&self, job: &SimJob) -> bool {
        let book = self.book.borrow();
        book.jobs.get(&job.id()).is_some_and(|r| r.leaving)
    }
    fn more_to_come(&self) -> bool {
        self.tcb.attached && self.tcb.more_to_come
    }
    fn nonblocking(&self) -> bool {
        self.so().is_some_and(|s| s.nonblocking)
    }
    fn sigpipe(&mut self, _job: &SimJob) {
        self.sock.sigpipes += 1;
    }

    fn take_so_error(&mut self) -> Option<Errno> {
        self.so()?;
        self.sock.error.take()
    }
    fn tcp_state(&self) -> TcpState {
        if self.tcb.attached {
            self.tcb.state
        } else {
            TcpState::Closed
        }
    }
    fn set_tcp_state(&mut self, s: TcpState) {
        if self.tcb.attached {
            self.tcb.state = s;
        }
    }
    fn dropped(&self) -> bool {
        !self.tcb.attached || self.tcb.dropped
    }
    fn publish(&mut self, seq: &SeqState) {
        if self.tcb.attached {
            self.tcb.seq = *seq;
        }
    }
    fn so_disconnected(&mut self) {
        if self.tcb.attached {
            self.disconnect();
        }
    }

    fn arm_cancel(&mut self, job: &SimJob) -> bool {
        let book = self.book.borrow();
        !book.jobs.get(&job.id()).is_some_and(|r| r.cancelled)
    }
    fn lend(&self, job: &SimJob) -> JobId {
        job.id()
    }

    fn complete(&mut self, job: SimJob, result: Ended) {
        assert!(job.slot().is_none(), "{:?} ends with a page set", job.id());
        let id = job.id();
        job.release();
        self.book.borrow_mut().end(id, result);
    }
    fn page_key(&self, job: &SimJob, off: usize, len: u32, write: bool) -> PageKey {
        PageKey {
            space: 0xfeed_0000 + self.host as u64,
            generation: self.mem.borrow().generation(self.host),
            addr: job.addr() + off as u64,
            len,
            write,
        }
    }
    fn slot_use(&mut self, slot: u16) {
        self.users[usize::from(slot)] += 1;
    }
    fn slot_unuse(&mut self, slot: u16) {
        let n = &mut self.users[usize::from(slot)];
        *n = n.checked_sub(1).expect("a slot loses a user it had not");
    }
    fn slot_users(&self, slot: u16) -> u32 {
        self.users.get(usize::from(slot)).copied().unwrap_or(0)
    }
    fn charge_pages(&mut self, _job: &SimJob, n: u32) -> bool {
        let ok = !self.refuse(self.short.charge) && self.mem.borrow_mut().charge(self.host, n);
        self.pressure |= !ok;
        ok
    }
}
