//! The receive side of a connection: aio_read by DDP, and the plain stream beside it.
//!
//! Context: inpcb write lock held for every method; nothing sleeps. Jobs are served first come,
//! first served. A job waits in `queue`, possibly with its page set already attached, then is
//! posted in one of the two buffers of [`crate::ddp`], and ends when the adapter reports, when
//! it is cancelled, or when the stream ends. Data that came by CPL_RX_DATA is copied from so_rcv
//! into the first job before anything is posted, and the adapter places the rest.
//!
//! A read returns what is there when the adapter reports (PSH, push timer, buffer full), or when
//! so_rcv is drained into it and the last segment had PSH, or the socket is non-blocking.

use crate::ddp::{Buf, COOKIE_DDP0, Fate, MAX_SPAN, Mode, Stop, wrs};
use crate::errno::Errno;
use crate::fault::BadCpl;
use crate::os::{Counter, Job, JobId, JobQueue, Os};
use crate::pageset::Ticket;
use crate::shared::Shared;

mod cancel;
mod credits;
mod landed;
mod pages;
mod pump;

/// Pages a worker was asked for.
struct Wanted<J> {
    ticket: Ticket,
    job: JobId,
    /// The job, once it is to end: the worker still looks at it.
    doomed: Option<(J, Result<usize, Errno>)>,
}

/// Receive state of a connection.
pub struct Rx<O: Os> {
    queue: O::Jobs,
    bufs: [Buf<O::Job>; 2],
    /// The front buffer: the one the adapter fills first.
    active: usize,
    /// Replies to invalidates still to come, per buffer. A buffer is not used again before.
    replies: [u8; 2],
    mode: Mode,
    /// DDP was on before.
    was_on: bool,
    /// The reply to the enable request is to come.
    enabling: bool,
    want: Option<Wanted<O::Job>>,
    /// A worker was asked for, and has not come yet.
    kicked: bool,
    /// Pages could not be had; wait for a retry before asking again.
    hold: bool,
    /// Span of a piece, less than [`MAX_SPAN`] only while the budgets are short.
    span: u32,
    /// Received chains that cannot go to so_rcv before landed buffers are settled: what came
    /// behind the first landed buffer, and behind the second. With their bytes.
    parked: [Option<(O::Mbuf, u32)>; 2],
    /// The last byte received had PSH.
    psh: bool,
    /// The last post failed for want of page pods.
    no_ppods: bool,
    /// The last flushed buffer came back empty: post the next without FLUSH.
    no_flush: bool,
    /// Bytes of so_rcv we know of; what is gone from there was read by plain reads.
    known: u32,
    /// The peer's FIN has come.
    fin: bool,
    /// ... and the socket knows.
    fin_told: bool,
    /// The connection is being aborted: nothing new is posted.
    stopped: bool,
    /// The connection is gone.
    dead: bool,
}

impl<O: Os> Default for Rx<O> {
    fn default() -> Self {
        Rx::new()
    }
}

impl<O: Os> Rx<O> {
    /// Nothing received, DDP off.
    #[must_use]
    pub fn new() -> Self {
        Rx {
            queue: O::Jobs::default(),
            bufs: [Buf::Empty, Buf::Empty],
            active: 0,
            replies: [0; 2],
            mode: Mode::Off,
            was_on: false,
            enabling: false,
            want: None,
            kicked: false,
            hold: false,
            span: MAX_SPAN,
            parked: [None, None],
            psh: false,
            no_ppods: false,
            no_flush: false,
            known: 0,
            fin: false,
            fin_told: false,
            stopped: false,
            dead: false,
        }
    }

    /// A claimed aio_read.
    ///
    /// # Errors
    /// Declined, for the generic path: DDP is off by [`crate::shared::Tunables::ddp`], no byte
    /// is asked for, or the stream has ended (with no read of ours before this one).
    pub fn aio_read(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        mut job: O::Job,
    ) -> Result<(), O::Job> {
        let over = self.dead || ((self.fin || os.rcv_shut()) && self.quiet());
        if !sh.tun.ddp || job.is_empty() || over {
            return Err(job);
        }
        os.count(Counter::RxJobs, 1);
        job.set_done(0);
        job.set_slot(None);
        if !os.arm_cancel(&job) {
            os.count(Counter::CancelClean, 1);
            os.complete(job, Err(Errno::ECANCELED));
            return Ok(());
        }
        self.queue.push_back(job);
        self.pump(sh, os);
        Ok(())
    }

    /// CPL_RX_DATA with its payload.
    ///
    /// # Errors
    /// [`BadCpl`]: its sequence number cannot be. The payload is freed.
    pub fn rx_data(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::RxData,
        m: O::Mbuf,
    ) -> Result<(), BadCpl> {
        self.note_plain(os);
        let len = u32::from(cpl.len);
        if self.dead || len == 0 {
            os.rcv_discard(m);
            return Ok(());
        }
        if self.fin {
            os.rcv_discard(m);
            return Err(BadCpl("CPL_RX_DATA after the FIN"));
        }
        // Bytes placed before these.
        let gap = cpl.seq.wrapping_sub(sh.seq.rcv_nxt);
        let fell = cpl.ddp_off && self.mode == Mode::On;
        if gap > self.room(fell) {
            os.rcv_discard(m);
            return Err(BadCpl("CPL_RX_DATA out of sequence"));
        }
        self.placed(sh, os, gap);
        if fell {
            // The adapter fell out of DDP and writes no more.
            self.mode = Mode::Off;
            self.land_all(gap, Fate::Yield);
        } else {
            self.land_stopped(gap);
        }
        if self.mode == Mode::Requested && !cpl.ddp_off {
            self.now_on();
        }
        sh.seq.rcv_nxt = sh.seq.rcv_nxt.wrapping_add(len);
        sh.seq.rcv_wnd = sh.seq.rcv_wnd.saturating_sub_unsigned(len);
        self.psh = cpl.psh;
        if self.settle(sh, os) {
            os.rcv_append(m);
            self.known = self.known.wrapping_add(len);
        } else {
            self.park(os, m, len);
        }
        os.rcv_autosize(len);
        self.credits(sh, os);
        self.pump(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// CPL_RX_DATA_DDP: bytes were placed, and the buffer is back.
    ///
    /// # Errors
    /// [`BadCpl`]: error bits, or numbers that cannot be.
    pub fn rx_data_ddp(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::RxDataDdp,
    ) -> Result<(), BadCpl> {
        if cpl.ddpvld.has_error() {
            return Err(BadCpl("CPL_RX_DATA_DDP with error bits"));
        }
        // `seq` and `len` are those of the last placement only.
        let end = cpl.seq.wrapping_add(u32::from(cpl.len));
        self.report(sh, os, &cpl.report, end)
    }

    /// CPL_RX_DDP_COMPLETE: the buffer is back.
    ///
    /// # Errors
    /// [`BadCpl`]: numbers that cannot be.
    pub fn rx_ddp_complete(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::RxDdpComplete,
    ) -> Result<(), BadCpl> {
        self.report(sh, os, &cpl.report, cpl.rcv_nxt)
    }

    fn report(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        report: &wire::DdpReport,
        end: u32,
    ) -> Result<(), BadCpl> {
        if self.dead || self.fin {
            // What the FIN had not said already, nothing says now.
            return Ok(());
        }
        let i = usize::from(report.buf_idx);
        if self.live_front() != Some(i) {
            return Err(BadCpl("DDP report for a buffer that is not being filled"));
        }
        if !report.inv {
            return Err(BadCpl("DDP report leaves the buffer valid"));
        }
        let n = end.wrapping_sub(sh.seq.rcv_nxt);
        let room = self.bufs.get(i).and_then(Buf::armed).map_or(0, |a| a.room());
        if n > room {
            return Err(BadCpl("DDP report of more than the buffer holds"));
        }
        self.note_plain(os);
        self.placed(sh, os, n);
        self.psh = report.psh;
        self.land(i, n, Fate::Report);
        self.pump(sh, os);
        self.credits(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// CPL_SET_TCB_RPL with one of our cookies.
    ///
    /// # Errors
    /// [`BadCpl`]: a failure, a reply to nothing, or numbers that cannot be.
    pub fn set_tcb_rpl(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::SetTcbRpl,
    ) -> Result<(), BadCpl> {
        if cpl.status != wire::CplStatus(0) {
            return Err(BadCpl("CPL_SET_TCB_RPL with a failure"));
        }
        if self.dead {
            return Ok(());
        }
        if cpl.word == wire::W_T_FLAGS && cpl.cookie == COOKIE_DDP0 {
            if !core::mem::take(&mut self.enabling) {
                return Err(BadCpl("CPL_SET_TCB_RPL to nothing"));
            }
            if self.mode == Mode::Requested {
                self.now_on();
            }
            self.note_plain(os);
            self.pump(sh, os);
            return Ok(());
        }
        let i = usize::from(cpl.cookie.wrapping_sub(COOKIE_DDP0));
        let Some(due) = self.replies.get(i).and_then(|n| n.checked_sub(1)) else {
            return Err(BadCpl("CPL_SET_TCB_RPL to nothing"));
        };
        self.note_plain(os);
        // If the buffer came back by itself meanwhile, all was said then.
        if let Some(Buf::Invalidating(a)) = self.bufs.get(i) {
            let (at, _) = wire::reached(wire::DdpBuf::from_index(i), cpl.oldval);
            let n = at.wrapping_sub(a.off);
            if n > a.room() || (n > 0 && self.live_front() != Some(i)) {
                return Err(BadCpl("CPL_SET_TCB_RPL with an offset that cannot be"));
            }
            let fate = a.stop.map_or(Fate::Report, Fate::from);
            self.placed(sh, os, n);
            self.land(i, n, fate);
        }
        if let Some(n) = self.replies.get_mut(i) {
            *n = due;
        }
        self.pump(sh, os);
        self.credits(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// CPL_PEER_CLOSE. `rcv_nxt` is the CPL's, behind the FIN; what was placed in posted buffers
    /// before it is given, then all reads end with what they have (0: end of file). Also calls
    /// [`Os::rcv_cant_more`], when all data is where readers find it.
    ///
    /// # Errors
    /// [`BadCpl`]: a sequence number that cannot be.
    pub fn peer_fin(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        rcv_nxt: u32,
    ) -> Result<(), BadCpl> {
        if self.dead {
            return Ok(());
        }
        self.note_plain(os);
        let n = rcv_nxt.wrapping_sub(1).wrapping_sub(sh.seq.rcv_nxt);
        if self.fin || n > self.room(true) {
            return Err(BadCpl("CPL_PEER_CLOSE out of sequence"));
        }
        self.placed(sh, os, n);
        sh.seq.rcv_nxt = rcv_nxt;
        self.fin = true;
        self.mode = Mode::Off;
        self.land_all(n, Fate::Eof);
        self.pump(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// The connection is gone: the adapter will not touch a page nor say a word about it any
    /// more (its final CPL has come). Every job ends: short with what it has, else with `err`,
    /// `None` meaning end of file. A job for which a worker is holding pages ends in
    /// [`Rx::pages_ready`].
    pub fn fail_all(&mut self, sh: &mut Shared<O>, os: &mut O, err: Option<Errno>) {
        if self.dead {
            return;
        }
        let _ = self.settle(sh, os);
        self.dead = true;
        self.mode = Mode::Off;
        self.enabling = false;
        self.replies = [0; 2];
        let result = |job: &O::Job| match err {
            Some(e) if job.done() == 0 => Err(e),
            _ => Ok(job.done()),
        };
        for i in [self.active, self.active ^ 1] {
            let job = match self.bufs.get_mut(i).map(Buf::take) {
                Some(Buf::Posted(a) | Buf::Invalidating(a) | Buf::Landed(a, ..)) => a.job,
                Some(Buf::Back(job)) => job,
                Some(Buf::Empty) | None => continue,
            };
            let r = result(&job);
            self.end_job(sh, os, job, r);
        }
        while let Some(job) = self.queue.pop_front() {
            let r = result(&job);
            self.end_job(sh, os, job, r);
        }
        for p in &mut self.parked {
            if let Some((m, _)) = p.take() {
                os.rcv_discard(m);
            }
        }
    }

    /// The connection is being aborted: post nothing any more. What is posted stays so until
    /// [`Rx::fail_all`].
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// A reader has taken bytes from so_rcv (`pr_rcvd`), or may have: give credits back.
    pub fn rcvd(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if self.dead {
            return;
        }
        self.note_plain(os);
        self.credits(sh, os);
        if !self.quiet() {
            self.pump(sh, os);
        }
        os.publish(&sh.seq);
    }

    /// A shortage may be over.
    pub fn retry(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if self.dead {
            return;
        }
        self.note_plain(os);
        self.hold = false;
        self.span = MAX_SPAN;
        self.pump(sh, os);
        self.credits(sh, os);
        os.publish(&sh.seq);
    }

    /// No job is here, nothing is posted, no reply or worker is to come.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.quiet() && self.want.is_none() && self.replies == [0; 2]
    }

    /// No job is here and no payload waits to be settled.
    fn quiet(&self) -> bool {
        self.queue.is_empty()
            && self.bufs.iter().all(Buf::is_empty)
            && self.parked.iter().all(Option::is_none)
    }

    /// The buffer the adapter fills now.
    fn live_front(&self) -> Option<usize> {
        let live = |i: &usize| self.bufs.get(*i).is_some_and(Buf::is_live);
        [self.active, self.active ^ 1].into_iter().find(live)
    }

    /// Bytes the adapter may have placed in buffers without having said so: in all of them, or
    /// only in those it was told to stop filling, as far as they are in front.
    fn room(&self, all: bool) -> u32 {
        let mut n: u32 = 0;
        for i in [self.active, self.active ^ 1] {
            match self.bufs.get(i) {
                Some(Buf::Invalidating(a)) => n = n.saturating_add(a.room()),
                Some(Buf::Posted(a)) if all => n = n.saturating_add(a.room()),
                Some(Buf::Posted(_)) => break,
                _ => {}
            }
        }
        n
    }

    /// `n` bytes were placed by DDP. They are not charged against the window (RX_FC_DDP).
    fn placed(&mut self, sh: &mut Shared<O>, os: &mut O, n: u32) {
        if n > 0 {
            sh.seq.rcv_nxt = sh.seq.rcv_nxt.wrapping_add(n);
            os.count(Counter::RxPlacedOctets, u64::from(n));
            os.rcv_autosize(n);
        }
    }

    fn now_on(&mut self) {
        self.mode = Mode::On;
        self.was_on = true;
    }

    /// Ask for DDP.
    fn enable(&mut self, sh: &Shared<O>, os: &mut O) {
        if self.enabling {
            return;
        }
        if wrs::enable(sh, os).is_ok() {
            self.mode = Mode::Requested;
            self.enabling = true;
        } else {
            os.retry_later();
        }
    }

    /// The adapter writes no more to a live buffer, and placed `n` bytes there.
    fn land(&mut self, i: usize, n: u32, fate: Fate) {
        let Some(b) = self.bufs.get_mut(i) else { return };
        *b = match b.take() {
            Buf::Posted(a) | Buf::Invalidating(a) => {
                let cancelled = a.stop == Some(Stop::Cancel) && fate != Fate::Eof;
                Buf::Landed(a, n, if cancelled { Fate::Cancel } else { fate })
            }
            other => other,
        };
    }

    /// All live buffers land; `n` bytes fill them in their order.
    fn land_all(&mut self, mut n: u32, fate: Fate) {
        for i in [self.active, self.active ^ 1] {
            if let Some(b) = self.bufs.get(i)
                && b.is_live()
            {
                let here = n.min(b.armed().map_or(0, |a| a.room()));
                n -= here;
                self.land(i, here, fate);
            }
        }
    }

    /// `n` bytes went to buffers told to stop, before data that met no valid buffer.
    fn land_stopped(&mut self, mut n: u32) {
        for i in [self.active, self.active ^ 1] {
            if n == 0 {
                return;
            }
            if let Some(Buf::Invalidating(a)) = self.bufs.get(i) {
                let here = n.min(a.room());
                let fate = a.stop.map_or(Fate::Report, Fate::from);
                n -= here;
                self.land(i, here, fate);
            }
        }
    }

    /// Keep a chain that must not go to so_rcv yet.
    fn park(&mut self, os: &mut O, m: O::Mbuf, len: u32) {
        let landed = |b: &&Buf<O::Job>| matches!(b, Buf::Landed(..));
        let behind = self.bufs.iter().filter(landed).count();
        if let Some(p) = self.parked.get_mut(behind.saturating_sub(1)) {
            *p = Some(match p.take() {
                Some((head, n)) => (os.mbuf_join(head, m), n.saturating_add(len)),
                None => (m, len),
            });
        }
    }
}

/// Invariants.
impl<O: Os> Rx<O> {
    /// What must hold after every step (I3, I5).
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, sh: &Shared<O>, os: &O) -> Result<(), &'static str> {
        let mut live = 0;
        for (i, b) in self.bufs.iter().enumerate() {
            let Some(a) = b.armed() else { continue };
            live += 1;
            if os.slot_users(a.slot) == 0 {
                return Err("a buffer's page set has no user");
            }
            if a.job.slot() != Some(a.slot) {
                return Err("a buffer's job has another page set");
            }
            let (Some(key), Some(pods)) = (sh.sets.key(a.slot), sh.sets.pods(a.slot)) else {
                return Err("a buffer's page set is not held, or has no page pods");
            };
            if pods.written != pods.ppods.count() {
                return Err("a buffer was posted before its page pods were written");
            }
            if a.end > key.len || a.off > a.end || a.done() > a.off.max(a.end) {
                return Err("a buffer is armed outside of its page set");
            }
            if matches!(b, Buf::Invalidating(_)) && self.replies.get(i) == Some(&0) {
                return Err("no reply is due to an invalidate");
            }
        }
        if live > 0 && self.bufs.get(self.active).is_some_and(Buf::is_empty) {
            return Err("the front buffer is empty and the other is not");
        }
        if self.parked.iter().any(Option::is_some)
            && !self.bufs.iter().any(|b| matches!(b, Buf::Landed(..)))
        {
            return Err("received data is parked for nothing");
        }
        if self.dead && !self.quiet() {
            return Err("reads outlive the connection");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
