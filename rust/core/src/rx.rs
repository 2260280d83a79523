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

use crate::ddp::{Buf, MAX_SPAN, Mode, Pair, wrs};
use crate::errno::Errno;
use crate::os::{Counter, Job, JobId, JobQueue, Os, PageKey};
use crate::pageset::Ticket;
use crate::shared::Shared;
use crate::since::Since;

mod autosize;
mod brief;
mod cancel;
mod check;
mod cpl;
mod credits;
mod end;
mod landed;
mod mend;
mod pages;
mod pump;

/// Pages a worker was asked for.
struct Wanted<J> {
    ticket: Ticket,
    job: JobId,
    /// For one copy only, not for a slot.
    brief: Option<PageKey>,
    /// The job, once it is to end: the worker still looks at it.
    doomed: Option<(J, Result<usize, Errno>)>,
}

/// Receive state of a connection.
pub struct Rx<O: Os> {
    queue: O::Jobs,
    bufs: Pair<Buf<O::Job>>,
    /// The front buffer: the one the adapter fills first.
    active: usize,
    /// The buffer was asked back, and the reply to that is still to come. It is not used again
    /// before.
    asked: Pair<bool>,
    /// A buffer is to be asked back, and no work request is to be had for that.
    mute: bool,
    /// Since when any of these, or the reply to the enable request, is due: when the first was
    /// asked, or the last was answered.
    since: Option<Since>,
    mode: Mode,
    /// DDP was on before.
    was_on: bool,
    /// DDP was asked for, and the reply to that is still to come.
    enabling: bool,
    want: Option<Wanted<O::Job>>,
    /// A worker was asked for, and has not come yet.
    kicked: bool,
    /// Pages could not be had; wait for a retry before asking again.
    hold: bool,
    /// Not even for one copy.
    brief_hold: bool,
    /// Reads that have ended and wait for [`mend`], with all that ended after them.
    ended: O::Jobs,
    /// The first queued read waits for it, before it goes on to its next piece.
    stuck: Option<JobId>,
    mend: Option<mend::Mend>,
    /// Memory was short for that; wait for a retry.
    mend_hold: bool,
    /// Span of a piece, less than [`MAX_SPAN`] only while the budgets are short.
    span: u32,
    /// Received chains that cannot go to so_rcv before landed buffers are settled: what came
    /// behind the first landed buffer, and behind the second. With their bytes.
    parked: Pair<Option<(O::Mbuf, u32)>>,
    /// The last byte received had PSH.
    psh: bool,
    /// The job, and the page its buffer started with, last taken back to be posted again behind
    /// earlier bytes.
    resynced: Option<(JobId, u32)>,
    /// The last post failed for want of page pods.
    no_ppods: bool,
    /// The last flushed buffer came back empty: post the next without FLUSH.
    no_flush: bool,
    /// Bytes at the front of so_rcv that the adapter sent before DDP was on.
    early: u32,
    /// Bytes of so_rcv we know of; what is gone from there was read by plain reads.
    known: u32,
    /// so_rcv held more than half of what it may since it last grew.
    filled: bool,
    /// The peer's FIN has come.
    fin: bool,
    /// ... and the socket knows.
    fin_told: bool,
    /// The connection is being aborted: nothing new is posted.
    stopped: bool,
    /// Payload was thrown away: what comes behind it is not the stream any more.
    lost: bool,
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
            bufs: Pair::new(Buf::Empty, Buf::Empty),
            active: 0,
            asked: Pair::default(),
            mute: false,
            since: None,
            mode: Mode::Off,
            was_on: false,
            enabling: false,
            want: None,
            kicked: false,
            hold: false,
            brief_hold: false,
            ended: O::Jobs::default(),
            stuck: None,
            mend: None,
            mend_hold: false,
            span: MAX_SPAN,
            parked: Pair::new(None, None),
            psh: false,
            resynced: None,
            no_ppods: false,
            no_flush: false,
            early: 0,
            known: 0,
            filled: false,
            fin: false,
            fin_told: false,
            stopped: false,
            lost: false,
            dead: false,
        }
    }

    /// A claimed aio_read.
    ///
    /// # Errors
    /// Declined, for the generic path: DDP is off by [`crate::shared::Tunables::ddp`], no byte
    /// is asked for, the stream has ended, or the generic path has reads that were asked for
    /// before. But no read is declined past those that were claimed, unless a TLS session has
    /// taken the stream over: these end without a byte.
    pub fn aio_read(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        mut job: O::Job,
    ) -> Result<(), O::Job> {
        let over =
            self.dead || ((self.fin || os.rcv_shut()) && self.quiet() && os.rcv_avail() == 0);
        // Not past jobs that were claimed before.
        let off = self.quiet() && (!sh.tun.ddp || os.rcv_generic()) || os.rcv_tls();
        if off || job.is_empty() || over {
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

    /// The connection is being aborted: post nothing any more. What is posted stays so until
    /// the end.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Payload was thrown away: no job gets what was placed behind it.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
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
        self.retry_mend(os);
        if self.dead {
            return;
        }
        self.note_plain(os);
        self.hold = false;
        self.brief_hold = false;
        self.span = MAX_SPAN;
        self.pump(sh, os);
        self.credits(sh, os);
        os.publish(&sh.seq);
    }

    /// No job is here, nothing is posted, no worker is to come.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.quiet() && self.want.is_none() && self.ended.is_empty() && self.mend.is_none()
    }

    /// The stream has ended, and every read with it.
    #[must_use]
    pub fn served(&self) -> bool {
        self.idle() && (self.fin_told || self.dead)
    }

    /// No CPL_SET_TCB_RPL is to come.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.replies_due() == 0
    }

    /// The adapter has stopped: no reply will come.
    pub(crate) fn forget_replies(&mut self) {
        self.asked = Pair::default();
        self.enabling = false;
        self.mute = false;
    }

    /// No job is here and no payload waits to be settled.
    fn quiet(&self) -> bool {
        self.queue.is_empty()
            && self.bufs.iter().all(Buf::is_empty)
            && self.parked.iter().all(Option::is_none)
    }

    /// Ask for DDP.
    fn enable(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if self.enabling {
            return;
        }
        if wrs::enable(sh, os).is_ok() {
            sh.ulp_mode = wire::UlpMode::TcpDdp;
            self.mode = Mode::Requested;
            self.wait(os);
            self.enabling = true;
        } else {
            os.retry_later();
        }
    }
}

#[cfg(test)]
mod tests;
