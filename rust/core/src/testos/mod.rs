//! The kernel in plain memory: an [`Os`] for tests.
//!
//! Work requests are captured, sockets are byte queues, user memory is pages at made-up physical
//! addresses with a count of wirings. Everything the trait promises to refuse can be made to
//! refuse. What must never happen (a job dropped without completion, DMA to pages not wired,
//! bytes where there is no room) panics.

use std::collections::VecDeque;
use std::rc::Rc;
use std::vec::Vec;

use crate::errno::Errno;
use crate::os::{
    Counter, Job, JobId, NoMbuf, NoWr, Os, PageKey, Pages, Queue, SeqState, TcpState, Unsent,
};
use crate::pageset::{PageSets, Slot, Want};
use crate::ppod::{Geometry, Node, Ppods, Region};
use crate::sgl::Sgl;
use crate::shared::{ConnId, Shared, Tunables};
use crate::txcredits::RING;

mod job;
mod mem;
mod rng;
mod sent;

pub use job::{TestJob, TestJobs};
pub use mem::{Mem, PAGE, TestPages};
pub use rng::Rng;
pub use sent::Sent;

/// Slots of page sets a test connection has.
pub const SLOTS: usize = 16;

/// One contiguous run of so_snd.
#[derive(Clone, Debug)]
pub struct SndSeg {
    /// Physical address of its first byte.
    pub phys: u64,
    /// Bytes.
    pub len: u32,
    /// The page set it refers to; `None` for an ordinary mbuf.
    pub slot: Option<u16>,
}

/// The kernel, as one connection sees it, and what it was told.
pub struct TestOs {
    /// Physical and user memory.
    pub mem: Rc<Mem>,
    /// Work requests sent and not yet taken by the test, oldest first.
    pub wrs: VecDeque<(Queue, Vec<u8>)>,
    /// Work requests that may still be sent; the rest are refused.
    pub wr_budget: u32,
    /// Page pods.
    pub region: Region<Vec<Node>>,
    /// Layout of page-pod memory.
    pub geometry: Geometry,
    /// Refuse page pods whatever is free.
    pub deny_ppods: bool,
    /// [`Os::retry_later`] was called since the test cleared it.
    pub retry: bool,
    /// [`Os::kick_worker`] was called since the test cleared it.
    pub kicked: bool,
    /// Pages kept for want of the adapter's word.
    pub orphaned: i64,
    /// Connections kept for that.
    pub orphans: i64,
    /// Milliseconds of uptime.
    pub now: u64,
    /// Counters.
    pub counters: [u64; Counter::Count as usize],

    /// so_rcv.
    pub rcv: VecDeque<u8>,
    /// sb_hiwat of so_rcv.
    pub rcv_hiwat: u32,
    /// sb_lowat of so_rcv.
    pub rcv_lowat: u32,
    /// SBS_CANTRCVMORE.
    pub rcv_shut: bool,
    /// A TLS session has taken over either direction.
    pub tls: bool,
    /// What it has not deciphered.
    pub ciphered: Vec<u8>,
    /// A reader is inside the receive I/O lock.
    pub reader_inside: bool,
    /// The generic path has reads.
    pub rcv_generic: bool,
    /// We are inside it.
    rcv_locked: bool,
    /// Refuse mbufs.
    pub deny_mbufs: bool,
    /// so_rcv grows by this, each time it is told to; 0: it does not size itself.
    pub rcv_step: u32,
    /// Bytes freed unread.
    pub discarded: u64,
    /// Bytes moved within pages by [`Os::pages_move`].
    pub moved: u64,
    /// Bytes put back by [`Os::rcv_append_pages`].
    pub returned: u64,

    /// so_snd, acknowledged bytes dropped.
    pub snd: VecDeque<SndSeg>,
    /// Bytes of `snd` handed to the adapter.
    pub snd_sent: u32,
    /// sb_hiwat of so_snd.
    pub snd_hiwat: u32,
    /// sb_lowat of so_snd.
    pub snd_lowat: u32,
    /// SBS_CANTSENDMORE.
    pub snd_shut: bool,
    /// SB_AUTOSIZE: grow by this up to this.
    pub snd_grow: Option<(u32, u32)>,
    /// A writer is inside the send I/O lock.
    pub writer_inside: bool,
    snd_locked: bool,
    /// TF_MORETOCOME.
    pub more_to_come: bool,
    /// SIGPIPEs sent.
    pub sigpipes: u32,

    /// SS_NBIO.
    pub nonblocking: bool,
    /// so_error.
    pub so_error: Option<Errno>,
    /// State of the tcpcb.
    pub state: TcpState,
    /// States it went through.
    pub states: Vec<TcpState>,
    /// INP_DROPPED.
    pub dropped: bool,
    /// Last [`Os::publish`].
    pub seq: SeqState,
    /// `soisdisconnected` was called.
    pub disconnected: bool,

    /// Jobs completed, in order.
    pub completed: Vec<(JobId, Result<usize, Errno>)>,
    /// Jobs for which [`Os::arm_cancel`] says no.
    pub cancelled: Vec<JobId>,
    /// Write jobs finished but for their mbufs.
    /// Users per slot.
    pub users: [u32; SLOTS],
    /// Pages that may still be wired by [`Os::charge_pages`] at a time.
    pub page_budget: u32,
    next_job: usize,
    sent: Sent,
}

impl Default for TestOs {
    fn default() -> Self {
        TestOs::new()
    }
}

impl TestOs {
    /// A socket with 64 KB buffers, an adapter with 4096 page pods of 4, 16, 64 and 256 KB pages.
    #[must_use]
    pub fn new() -> TestOs {
        TestOs::with_ppods(4096)
    }

    /// The same with another number of page pods.
    ///
    /// # Panics
    /// If there cannot be so many.
    #[must_use]
    pub fn with_ppods(n: u32) -> TestOs {
        let geometry = Geometry::new(0x10_0000, n * 64, [12, 14, 16, 18]).expect("geometry");
        TestOs {
            mem: Rc::new(Mem::new()),
            wrs: VecDeque::new(),
            wr_budget: u32::MAX,
            region: Region::new(std::vec![Node::default(); n as usize]),
            geometry,
            deny_ppods: false,
            retry: false,
            kicked: false,
            now: 0,
            orphaned: 0,
            orphans: 0,
            counters: [0; Counter::Count as usize],
            rcv: VecDeque::new(),
            rcv_hiwat: 64 << 10,
            rcv_lowat: 1,
            rcv_shut: false,
            tls: false,
            ciphered: Vec::new(),
            reader_inside: false,
            rcv_generic: false,
            rcv_locked: false,
            deny_mbufs: false,
            rcv_step: 0,
            discarded: 0,
            moved: 0,
            returned: 0,
            snd: VecDeque::new(),
            snd_sent: 0,
            snd_hiwat: 64 << 10,
            snd_lowat: 2048,
            snd_shut: false,
            snd_grow: None,
            writer_inside: false,
            snd_locked: false,
            more_to_come: false,
            sigpipes: 0,
            nonblocking: false,
            so_error: None,
            state: TcpState::Established,
            states: Vec::new(),
            dropped: false,
            seq: SeqState::default(),
            disconnected: false,
            completed: Vec::new(),
            cancelled: Vec::new(),
            users: [0; SLOTS],
            page_budget: u32::MAX,
            next_job: 1,
            sent: Sent::default(),
        }
    }

    /// Slots for a connection's page sets.
    #[must_use]
    pub fn slots() -> Vec<Slot<TestPages>> {
        (0..SLOTS).map(|_| Slot::default()).collect()
    }

    /// Identity of a test connection: tid 0x123, ingress queue 77.
    #[must_use]
    pub fn conn_id(chip: wire::Chip) -> ConnId {
        ConnId {
            chip,
            tid: 0x123,
            pf: 4,
            channel: 1,
            port: 1,
            rxq: 77,
        }
    }

    /// DDP and zero-copy sends on, default buffers, up to 16 page sets.
    #[must_use]
    pub fn tunables() -> Tunables {
        Tunables {
            ddp: true,
            tx_zcopy: true,
            tx_zcopy_min: 0,
            cache: 16,
        }
    }

    /// Shared state of an established T5 connection: next sequences `rcv_nxt` and `snd_nxt`,
    /// receive window as large as so_rcv.
    #[must_use]
    pub fn shared(&self, rcv_nxt: u32, snd_nxt: u32) -> Shared<TestOs> {
        Shared {
            id: TestOs::conn_id(wire::Chip::T5),
            seq: SeqState {
                rcv_nxt,
                rcv_wnd: i32::try_from(self.rcv_hiwat).unwrap_or(i32::MAX),
                snd_una: snd_nxt,
                snd_nxt,
            },
            sets: PageSets::new(TestOs::slots()),
            tun: TestOs::tunables(),
            ulp_mode: wire::UlpMode::None,
            wrs: crate::wr::Wrs::default(),
        }
    }

    /// A new job for `len` bytes at user address `addr`.
    pub fn job(&mut self, addr: u64, len: usize) -> TestJob {
        let id = JobId(self.next_job);
        self.next_job += 1;
        TestJob::new(id, addr, len)
    }

    /// A new job for several pieces of memory: addresses and lengths.
    pub fn vectored(&mut self, iov: &[(u64, usize)]) -> TestJob {
        self.job(u64::MAX, iov.iter().map(|v| v.1).sum())
            .scatter(iov.to_vec())
    }

    /// Value of a counter.
    #[must_use]
    pub fn counter(&self, c: Counter) -> u64 {
        self.counters[c as usize]
    }

    /// Result of a completed job.
    #[must_use]
    pub fn result(&self, id: JobId) -> Option<Result<usize, Errno>> {
        let mut it = self.completed.iter().filter(|(j, _)| *j == id);
        let r = it.next().map(|(_, r)| *r);
        assert!(it.next().is_none(), "{id:?} completed twice");
        r
    }

    /// What a worker does with a [`Want`]: hold the pages. EFAULT if some are not mapped, or not
    /// writable when they must be.
    ///
    /// # Errors
    /// As a worker reports them.
    pub fn hold(&self, w: &Want<JobId>) -> Result<TestPages, Errno> {
        Mem::hold(&self.mem, w.addr, w.len, w.write)
    }

    /// A plain read(2): takes up to `max` bytes of so_rcv.
    pub fn plain_read(&mut self, max: usize) -> Vec<u8> {
        let n = max.min(self.rcv.len());
        self.rcv.drain(..n).collect()
    }

    /// A plain write(2): ordinary mbufs behind so_snd.
    pub fn plain_write(&mut self, data: &[u8]) {
        for (phys, len) in self.mem.kernel_copy(data) {
            self.snd.push_back(SndSeg {
                phys,
                len,
                slot: None,
            });
        }
    }

    fn snd_free(&mut self, seg: &SndSeg) {
        if let Some(slot) = seg.slot {
            self.slot_unuse(slot);
        }
    }

    fn unsent_segs(&self) -> impl Iterator<Item = (u64, u32, bool)> + '_ {
        let mut skip = self.snd_sent;
        self.snd.iter().filter_map(move |s| {
            let cut = skip.min(s.len);
            skip -= cut;
            (cut < s.len).then_some((s.phys + u64::from(cut), s.len - cut, s.slot.is_some()))
        })
    }
}

impl Os for TestOs {
    type Mbuf = Vec<u8>;
    type Pages = TestPages;
    type Job = TestJob;
    type Lent = JobId;
    type Jobs = TestJobs;
    type Ring = [u32; RING];
    type Slots = Vec<Slot<TestPages>>;

    fn send_wr(&mut self, q: Queue, wr: &[u8]) -> Result<(), NoWr> {
        self.wr_budget = self.wr_budget.checked_sub(1).ok_or(NoWr)?;
        self.sent.check(wr);
        self.wrs.push_back((q, wr.to_vec()));
        Ok(())
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn ppod_alloc(&mut self, n: u32) -> Option<Ppods> {
        if self.deny_ppods {
            return None;
        }
        self.region.alloc(n)
    }
    fn ppod_free(&mut self, p: Ppods) {
        let (before, n) = (self.region.available(), p.count());
        self.region.free(p);
        assert_eq!(self.region.available(), before + n, "page pods freed twice");
    }
    fn retry_later(&mut self) {
        self.retry = true;
    }
    fn kick_worker(&mut self) {
        self.kicked = true;
    }
    fn complain(&mut self, _tid: u32, _why: &'static str) {}

    fn orphaned(&mut self, conns: i64, pages: i64) {
        self.orphans += conns;
        self.orphaned += pages;
    }
    fn now_ms(&self) -> u64 {
        self.now
    }
    fn count(&mut self, c: Counter, n: u64) {
        self.counters[c as usize] += n;
    }

    fn rcv_avail(&self) -> u32 {
        self.rcv.len() as u32
    }
    fn rcv_held(&self) -> u32 {
        (self.rcv.len() + self.ciphered.len()) as u32
    }
    fn rcv_space(&self) -> i32 {
        self.rcv_hiwat as i32 - self.rcv_held() as i32
    }
    fn rcv_hiwat(&self) -> u32 {
        self.rcv_hiwat
    }
    fn rcv_lowat(&self) -> u32 {
        self.rcv_lowat
    }
    fn rcv_shut(&self) -> bool {
        self.rcv_shut
    }
    fn rcv_tls(&self) -> bool {
        self.tls
    }
    fn rcv_generic(&self) -> bool {
        self.rcv_generic
    }
    fn rcv_append(&mut self, m: Vec<u8>) {
        if self.tls {
            self.ciphered.extend(m);
        } else {
            self.rcv.extend(m);
        }
    }
    fn rcv_discard(&mut self, m: Vec<u8>) {
        self.discarded += m.len() as u64;
    }
    fn rcv_copy(&mut self, pages: &TestPages, off: u32, max: u32) -> u32 {
        assert!(self.rcv_locked, "so_rcv taken from without its I/O lock");
        assert!(!self.tls, "records of a TLS session taken as a stream");
        let n = max.min(self.rcv_avail());
        let data: Vec<u8> = self.rcv.drain(..n as usize).collect();
        pages.write(off, &data);
        n
    }
    fn rcv_io_trylock(&mut self) -> bool {
        assert!(!self.rcv_locked, "receive I/O lock taken twice");
        self.rcv_locked = !self.reader_inside;
        self.rcv_locked
    }
    fn rcv_io_unlock(&mut self) {
        assert!(self.rcv_locked, "receive I/O lock not held");
        self.rcv_locked = false;
    }
    fn rcv_append_pages(&mut self, pages: &TestPages, off: u32, len: u32) -> Result<(), NoMbuf> {
        if self.deny_mbufs {
            return Err(NoMbuf);
        }
        self.rcv_append(pages.read(off, len));
        self.returned += u64::from(len);
        Ok(())
    }
    fn pages_move(&mut self, pages: &TestPages, from: u32, to: u32, len: u32) {
        let data = pages.read(from, len);
        pages.write(to, &data);
        self.moved += u64::from(len);
    }
    fn pages_copy(&mut self, from: &TestPages, off: u32, to: &TestPages, at: u32, len: u32) {
        to.write(at, &from.read(off, len));
    }
    fn mbuf_join(&mut self, mut head: Vec<u8>, tail: Vec<u8>) -> Vec<u8> {
        head.extend(tail);
        head
    }
    fn rcv_grow(&mut self) {
        self.rcv_hiwat += self.rcv_step;
    }
    fn rcv_cant_more(&mut self) {
        self.rcv_shut = true;
    }

    fn snd_unsent(&mut self, max: u32, sgl: &mut Sgl) -> Unsent {
        let mut u = Unsent::default();
        for (phys, len, _) in self.unsent_segs() {
            let want = len.min(max - u.len);
            let took = sgl.push(phys, want);
            u.len += took;
            if took < len {
                u.more = true;
                break;
            }
        }
        u
    }
    fn snd_peek(&mut self, out: &mut [u8]) -> bool {
        let mut at = 0;
        for (phys, len, _) in self.unsent_segs() {
            let n = (out.len() - at).min(len as usize);
            self.mem.read(phys, &mut out[at..at + n]);
            at += n;
            if at == out.len() {
                return true;
            }
        }
        panic!("fewer unsent bytes than asked for");
    }
    fn snd_advance(&mut self, n: u32) {
        self.snd_sent += n;
        assert!(self.snd_sent <= self.snd_used(), "sent more than there is");
    }
    fn snd_zcopy_octets(&mut self, n: u32) -> u32 {
        let (mut left, mut z) = (n, 0);
        for (_, len, zcopy) in self.unsent_segs() {
            let here = len.min(left);
            left -= here;
            z += if zcopy { here } else { 0 };
        }
        z
    }
    fn snd_drop(&mut self, n: u32) {
        assert!(n <= self.snd_sent, "acknowledged what was not sent");
        self.snd_sent -= n;
        let mut left = n;
        while left > 0 {
            let seg = self.snd.front_mut().expect("dropped more than there is");
            let cut = left.min(seg.len);
            seg.phys += u64::from(cut);
            seg.len -= cut;
            left -= cut;
            if seg.len == 0
                && let Some(seg) = self.snd.pop_front()
            {
                self.snd_free(&seg);
            }
        }
    }
    fn snd_flush(&mut self) {
        self.snd_sent = 0;
        while let Some(seg) = self.snd.pop_front() {
            self.snd_free(&seg);
        }
    }
    fn snd_used(&self) -> u32 {
        self.snd.iter().map(|s| s.len).sum()
    }
    fn snd_space(&self) -> i32 {
        self.snd_hiwat as i32 - self.snd_used() as i32
    }
    fn snd_hiwat(&self) -> u32 {
        self.snd_hiwat
    }
    fn snd_lowat(&self) -> u32 {
        self.snd_lowat
    }
    fn snd_tls(&self) -> bool {
        self.tls
    }
    fn snd_shut(&self) -> bool {
        self.snd_shut
    }
    fn snd_autosize(&mut self) -> bool {
        let Some((step, max)) = self.snd_grow else {
            return false;
        };
        let grow = self.snd_hiwat < max && self.snd_used() >= self.snd_hiwat / 8 * 7;
        if grow {
            self.snd_hiwat = (self.snd_hiwat + step).min(max);
        }
        grow
    }
    fn snd_io_trylock(&mut self) -> bool {
        assert!(!self.snd_locked, "send I/O lock taken twice");
        self.snd_locked = !self.writer_inside;
        self.snd_locked
    }
    fn snd_io_unlock(&mut self) {
        assert!(self.snd_locked, "send I/O lock not held");
        self.snd_locked = false;
    }
    fn snd_append_pages(
        &mut self,
        _job: &TestJob,
        slot: u16,
        pages: &TestPages,
        off: u32,
        len: u32,
    ) -> Result<(), NoMbuf> {
        assert!(self.snd_locked, "so_snd written to without its I/O lock");
        if self.deny_mbufs {
            return Err(NoMbuf);
        }
        let (mut at, end) = (off, off + len);
        while at < end {
            let n = (PAGE as u32 - at % PAGE as u32).min(end - at);
            let phys = pages.phys((at / PAGE as u32) as usize);
            assert!(phys != 0, "mbuf outside of the held pages");
            self.snd.push_back(SndSeg {
                phys: phys + u64::from(at % PAGE as u32),
                len: n,
                slot: Some(slot),
            });
            self.slot_use(slot);
            at += n;
        }
        Ok(())
    }
    fn snd_append(&mut self, _job: &TestJob, m: Vec<u8>) {
        self.plain_write(&m);
    }
    fn snd_generic(&self) -> bool {
        false
    }
    fn leaving(&self, _job: &TestJob) -> bool {
        false
    }
    fn more_to_come(&self) -> bool {
        self.more_to_come
    }
    fn nonblocking(&self) -> bool {
        self.nonblocking
    }
    fn sigpipe(&mut self, _job: &TestJob) {
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
        self.states.push(s);
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

    fn arm_cancel(&mut self, job: &TestJob) -> bool {
        !self.cancelled.contains(&job.id())
    }
    fn lend(&self, job: &TestJob) -> JobId {
        job.id()
    }

    fn complete(&mut self, job: TestJob, result: Result<usize, Errno>) {
        let (id, len) = (job.id(), job.len());
        assert!(job.slot().is_none(), "{id:?} completed with a page set");
        if let Ok(n) = result {
            assert!(n <= len, "{id:?} got {n} of {len} bytes");
        }
        assert!(self.result(id).is_none(), "{id:?} completed twice");
        job.end();
        self.completed.push((id, result));
    }
    fn page_key(&self, job: &TestJob, off: usize, len: u32, write: bool) -> PageKey {
        PageKey {
            space: 0xfeed,
            generation: self.mem.generation(),
            addr: job.run(off).0,
            len,
            write,
        }
    }
    fn slot_use(&mut self, slot: u16) {
        self.users[usize::from(slot)] += 1;
    }
    fn slot_unuse(&mut self, slot: u16) {
        let n = &mut self.users[usize::from(slot)];
        *n = n.checked_sub(1).expect("slot has no user");
    }
    fn slot_users(&self, slot: u16) -> u32 {
        self.users[usize::from(slot)]
    }
    fn charge_pages(&mut self, _job: &TestJob, n: u32) -> bool {
        self.mem.wired() + n as usize <= self.page_budget as usize
    }
}
