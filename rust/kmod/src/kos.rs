//! `toehold_core::os::Os` over the kernel.

use core::sync::atomic::Ordering;

use kpi::aio::{JobList, Lent};
use kpi::cell::Inside;
use kpi::mbuf::Mbuf;
use kpi::mem::{Arc, Slice};
use kpi::pages::Pages;
use kpi::sock::{Socket, Which};
use kpi::sys;
use kpi::tom::{Class, Gauge, WrBatch};
use toehold_core::errno::Errno;
use toehold_core::os::{
    self, Counter, JobId, NoMbuf, NoWr, Os, PageKey, Queue, SeqState, TcpState, Unsent,
};
use toehold_core::pageset::Slot;
use toehold_core::ppod::{Geometry, Ppods};
use toehold_core::sgl::Sgl;

use crate::toepcb::Side;

/// Held pages.
pub struct KPages(pub Pages);

impl os::Pages for KPages {
    fn count(&self) -> usize {
        self.0.addrs().len()
    }
    fn phys(&self, i: usize) -> u64 {
        self.0.addrs().get(i).copied().unwrap_or(0)
    }
    fn dirty(&mut self) {
        self.0.dirty();
    }
    fn intact(&self, n: usize) -> bool {
        self.0.intact(n)
    }
    fn shown(&self) -> bool {
        self.0.shown()
    }
    fn of_file(&self) -> bool {
        self.0.of_file()
    }
}

kpi::job_newtype! {
    /// A claimed aio job.
    KJob
}

impl os::Job for KJob {
    fn id(&self) -> JobId {
        JobId(self.0.id())
    }
    fn addr(&self) -> u64 {
        self.0.addr()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn run(&self, off: usize) -> (u64, usize) {
        self.0.run(off)
    }
    fn scattered(&self) -> bool {
        self.0.vectored()
    }
    fn done(&self) -> usize {
        self.0.done()
    }
    fn set_done(&mut self, n: usize) {
        self.0.set_done(n);
    }
    fn slot(&self) -> Option<u16> {
        self.0.slot()
    }
    fn set_slot(&mut self, slot: Option<u16>) {
        self.0.set_slot(slot);
    }
    fn mark(&self) -> u32 {
        self.0.mark()
    }
    fn set_mark(&mut self, mark: u32) {
        self.0.set_mark(mark);
    }
    fn copies(&self) -> bool {
        self.0.copies()
    }
    fn set_copies(&mut self) {
        self.0.set_copies();
    }
}

/// Jobs in order.
#[derive(Default)]
pub struct KJobs(JobList<KJob>);

impl os::JobQueue<KJob> for KJobs {
    fn push_back(&mut self, job: KJob) {
        self.0.push_back(job);
    }
    fn push_front(&mut self, job: KJob) {
        self.0.push_front(job);
    }
    fn pop_front(&mut self) -> Option<KJob> {
        self.0.pop_front()
    }
    fn front(&self) -> Option<&KJob> {
        self.0.front()
    }
    fn front_mut(&mut self) -> Option<&mut KJob> {
        self.0.front_mut()
    }
    fn remove(&mut self, id: JobId) -> Option<KJob> {
        self.0.remove(id.0)
    }
    fn find_mut(&mut self, pred: impl FnMut(&KJob) -> bool) -> Option<&mut KJob> {
        self.0.find_mut(pred)
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The kernel, as one connection sees it under its lock.
pub struct Kos {
    inside: Inside,
    side: Arc<Side>,
    class: Class,
    txq: u32,
    /// Work requests of one run of the state machine.
    batch: WrBatch,
    /// Bytes at the front of so_snd that the adapter has and the peer has not acknowledged.
    sent: u32,
    /// The kernel has not detached: the tcpcb is there to be written.
    attached: bool,
}

impl Kos {
    /// For a connection that is attached.
    pub fn new(
        inside: Inside,
        side: Arc<Side>,
        class: Class,
        vi: &sys::th_vi,
        batch: WrBatch,
    ) -> Kos {
        Kos {
            inside,
            side,
            class,
            txq: vi.txq,
            batch,
            sent: 0,
            attached: true,
        }
    }

    /// Have the adapter see what was sent: one doorbell for all since the last time.
    pub fn flush(&mut self) {
        self.batch.flush();
    }

    /// The kernel has let go of the tcpcb.
    pub fn detach(&mut self) {
        self.attached = false;
    }

    /// The program wants no DDP on this socket (SO_NO_DDP).
    pub fn no_ddp(&self) -> bool {
        self.so().is_some_and(Socket::no_ddp)
    }

    /// All of so_snd, which the kernel is about to free.
    pub fn take_snd(&mut self) -> Option<Mbuf> {
        self.sent = 0;
        self.reach()?.snd_take()
    }

    fn so(&self) -> Option<Socket<'_>> {
        self.view()?.locked().socket()
    }

    /// The inpcb, if its socket is still ours to change.
    fn view(&self) -> Option<&Inside> {
        self.attached.then_some(&self.inside)
    }

    fn reach(&mut self) -> Option<&mut Inside> {
        self.attached.then_some(&mut self.inside)
    }

    fn sb(&self, which: Which) -> sys::th_sockbuf {
        self.so().map_or(
            // No socket: nothing in it, no room, nothing more to come.
            sys::th_sockbuf {
                shut: true,
                ..sys::th_sockbuf::default()
            },
            |so| so.sb(which),
        )
    }
}

fn tcp_state(n: u32) -> TcpState {
    match n {
        1 => TcpState::Listen,
        2 => TcpState::SynSent,
        3 => TcpState::SynReceived,
        4 => TcpState::Established,
        5 => TcpState::CloseWait,
        6 => TcpState::FinWait1,
        7 => TcpState::Closing,
        8 => TcpState::LastAck,
        9 => TcpState::FinWait2,
        10 => TcpState::TimeWait,
        _ => TcpState::Closed,
    }
}

impl Os for Kos {
    type Mbuf = Mbuf;
    type Pages = KPages;
    type Job = KJob;
    type Lent = Lent;
    type Jobs = KJobs;
    type Ring = Slice<u32>;
    type Slots = Slice<Slot<KPages>>;

    fn send_wr(&mut self, q: Queue, wr: &[u8]) -> Result<(), NoWr> {
        let q = crate::egress::queue(q, self.txq);
        self.batch.send_wr(q, wr).map_err(|_| NoWr)
    }

    fn geometry(&self) -> Geometry {
        self.side.adapter.geometry
    }

    fn ppod_alloc(&mut self, n: u32) -> Option<Ppods> {
        self.side.adapter.ppod_alloc(n)
    }

    fn ppod_free(&mut self, p: Ppods) {
        self.side.adapter.ppod_free(p);
    }

    fn retry_later(&mut self) {
        self.side.short.store(true, Ordering::Release);
    }

    fn kick_worker(&mut self) {
        self.side.work.store(true, Ordering::Release);
    }

    fn complain(&mut self, tid: u32, why: &'static str) {
        self.side.adapter.tom.log_str(why, u64::from(tid), 0);
    }

    fn orphaned(&mut self, conns: i64, pages: i64) {
        let tom = self.side.adapter.tom;
        tom.gauge(Gauge::Orphans, conns);
        tom.gauge(Gauge::Orphaned, pages);
    }

    fn now_ms(&self) -> u64 {
        self.side.adapter.tom.uptime_ms()
    }

    fn count(&mut self, c: Counter, n: u64) {
        self.side.adapter.tom.count(Some(self.class), c as usize, n);
    }

    fn rcv_avail(&self) -> u32 {
        self.sb(Which::Rcv).avail
    }

    fn rcv_space(&self) -> i32 {
        self.sb(Which::Rcv).space
    }

    fn rcv_hiwat(&self) -> u32 {
        self.sb(Which::Rcv).hiwat
    }

    fn rcv_lowat(&self) -> u32 {
        self.sb(Which::Rcv).lowat
    }

    fn rcv_shut(&self) -> bool {
        self.sb(Which::Rcv).shut
    }

    fn rcv_held(&self) -> u32 {
        self.sb(Which::Rcv).used
    }

    fn rcv_tls(&self) -> bool {
        self.sb(Which::Rcv).tls
    }

    fn rcv_generic(&self) -> bool {
        self.so().is_some_and(Socket::rcv_generic)
    }

    fn rcv_append(&mut self, m: Mbuf) {
        if let Some(so) = self.so() {
            so.rcv_append(m);
        }
    }

    fn rcv_discard(&mut self, m: Mbuf) {
        drop(m);
    }

    fn rcv_copy(&mut self, pages: &KPages, off: u32, max: u32) -> u32 {
        self.so().map_or(0, |so| so.rcv_copy(&pages.0, off, max))
    }

    fn rcv_io_trylock(&mut self) -> bool {
        // Without a socket nobody reads.
        self.reach().is_none_or(Inside::rcv_io_trylock)
    }

    fn rcv_io_unlock(&mut self) {
        self.inside.rcv_io_unlock();
    }

    fn rcv_append_pages(&mut self, pages: &KPages, off: u32, len: u32) -> Result<(), NoMbuf> {
        match self.so() {
            Some(so) => so.rcv_append_pages(&pages.0, off, len).map_err(|_| NoMbuf),
            None => Ok(()),
        }
    }

    fn pages_move(&mut self, pages: &KPages, from: u32, to: u32, len: u32) {
        pages.0.move_bytes(from, to, len);
    }

    fn pages_copy(&mut self, from: &KPages, off: u32, to: &KPages, at: u32, len: u32) {
        from.0.copy_to(off, &to.0, at, len);
    }

    fn mbuf_join(&mut self, head: Mbuf, tail: Mbuf) -> Mbuf {
        head.join(tail)
    }

    fn rcv_grow(&mut self) {
        if let Some(so) = self.so() {
            so.rcv_grow();
        }
    }

    fn rcv_cant_more(&mut self) {
        if let Some(so) = self.so() {
            so.rcv_cant_more();
        }
    }

    fn snd_unsent(&mut self, max: u32, sgl: &mut Sgl) -> Unsent {
        let Some(inside) = self.view() else {
            return Unsent::default();
        };
        let mut at = inside.snd_unsent(self.sent);
        let mut len = 0;
        while len < max {
            let Some(run) = at.next_run(max - len) else {
                break;
            };
            let taken = sgl.push(run.pa, run.len);
            len += taken;
            if taken < run.len {
                at.unread(run.len - taken);
                break;
            }
        }
        Unsent {
            len,
            more: at.more(),
        }
    }

    fn snd_peek(&mut self, out: &mut [u8]) -> bool {
        let at = self.view().map(|inside| inside.snd_unsent(self.sent));
        at.is_some_and(|mut at| at.copy(out))
    }

    fn snd_advance(&mut self, n: u32) {
        if let Some(so) = self.so() {
            so.snd_advance(self.sent, n);
        }
        self.sent = self.sent.saturating_add(n);
    }

    fn snd_zcopy_octets(&mut self, n: u32) -> u32 {
        let Some(inside) = self.view() else { return 0 };
        let mut at = inside.snd_unsent(self.sent);
        let (mut seen, mut zcopy) = (0, 0);
        while seen < n {
            let Some(run) = at.next_run(n - seen) else {
                break;
            };
            seen += run.len;
            if run.aiotx {
                zcopy += run.len;
            }
        }
        zcopy
    }

    fn snd_drop(&mut self, n: u32) {
        self.sent = self.sent.saturating_sub(n);
        if let Some(inside) = self.reach() {
            inside.snd_drop(n);
        }
    }

    fn snd_flush(&mut self) {
        self.sent = 0;
        if let Some(inside) = self.reach() {
            inside.snd_flush();
        }
    }

    fn snd_used(&self) -> u32 {
        self.sb(Which::Snd).used
    }

    fn snd_space(&self) -> i32 {
        self.sb(Which::Snd).space
    }

    fn snd_hiwat(&self) -> u32 {
        self.sb(Which::Snd).hiwat
    }

    fn snd_lowat(&self) -> u32 {
        self.sb(Which::Snd).lowat
    }

    fn snd_tls(&self) -> bool {
        self.sb(Which::Snd).tls
    }

    fn snd_shut(&self) -> bool {
        self.sb(Which::Snd).shut
    }

    fn snd_autosize(&mut self) -> bool {
        self.so().is_some_and(Socket::snd_autosize)
    }

    fn snd_io_trylock(&mut self) -> bool {
        self.reach().is_none_or(Inside::snd_io_trylock)
    }

    fn snd_io_unlock(&mut self) {
        self.inside.snd_io_unlock();
    }

    fn snd_append_pages(
        &mut self,
        _job: &KJob,
        slot: u16,
        pages: &KPages,
        off: u32,
        len: u32,
    ) -> Result<(), NoMbuf> {
        let so = self.so().ok_or(NoMbuf)?;
        so.snd_append_pages(&pages.0, self.side.as_raw(), slot, off, len)
            .map_err(|_| NoMbuf)
    }

    fn snd_append(&mut self, _job: &KJob, m: Mbuf) {
        if let Some(so) = self.so() {
            so.snd_append(m);
        }
    }

    fn snd_generic(&self) -> bool {
        self.sb(Which::Snd).aio
    }

    fn leaving(&self, job: &KJob) -> bool {
        job.0.leaving()
    }

    fn more_to_come(&self) -> bool {
        self.attached && self.inside.locked().more_to_come()
    }

    fn nonblocking(&self) -> bool {
        self.so().is_some_and(Socket::nonblocking)
    }

    fn sigpipe(&mut self, job: &KJob) {
        if let Some(so) = self.so() {
            so.sigpipe(&job.0);
        }
    }

    fn take_so_error(&mut self) -> Option<Errno> {
        self.so()?.take_error().and_then(|e| Errno::new(e.0))
    }

    fn tcp_state(&self) -> TcpState {
        if self.attached {
            tcp_state(self.inside.locked().tcp_state())
        } else {
            TcpState::Closed
        }
    }

    fn set_tcp_state(&mut self, s: TcpState) {
        // make_established() has set ESTABLISHED already.
        if self.attached && self.tcp_state() != s {
            self.inside.locked().set_tcp_state(s as u32);
        }
    }

    fn dropped(&self) -> bool {
        !self.attached || self.inside.locked().dropped()
    }

    fn publish(&mut self, seq: &SeqState) {
        if self.attached {
            let wnd = u32::try_from(seq.rcv_wnd).unwrap_or(0);
            self.inside
                .locked()
                .tcp_publish(seq.rcv_nxt, wnd, seq.snd_una, seq.snd_nxt);
        }
    }

    fn so_disconnected(&mut self) {
        if let Some(inside) = self.reach() {
            inside.disconnected();
        }
    }

    fn arm_cancel(&mut self, job: &KJob) -> bool {
        job.0.arm_cancel()
    }

    fn lend(&self, job: &KJob) -> Lent {
        job.0.lend()
    }

    fn complete(&mut self, job: KJob, result: Result<usize, Errno>) {
        job.0.complete(result.map_err(Errno::get));
    }

    fn page_key(&self, job: &KJob, off: usize, len: u32, write: bool) -> PageKey {
        let (space, generation) = job.0.space();
        PageKey {
            space,
            generation,
            addr: job.0.run(off).0,
            len,
            write,
        }
    }

    fn slot_use(&mut self, slot: u16) {
        if let Some(u) = self.side.users(slot.into()) {
            u.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn slot_unuse(&mut self, slot: u16) {
        if let Some(u) = self.side.users(slot.into()) {
            u.fetch_sub(1, Ordering::Release);
        }
    }

    fn slot_users(&self, slot: u16) -> u32 {
        let u = self.side.users(slot.into());
        u.map_or(0, |u| u.load(Ordering::Acquire))
    }

    fn charge_pages(&mut self, job: &KJob, n: u32) -> bool {
        job.0.charge(self.side.adapter.tom, n)
    }
}
