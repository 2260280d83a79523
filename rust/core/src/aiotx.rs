//! Zero-copy aio_write: parked jobs, from held pages into so_snd.
//!
//! Context: inpcb write lock, and the socket's send I/O lock (by trylock) while bytes are
//! appended, so that no write(2) in progress is cut in two. Jobs are served first come, first
//! served.
//!
//! so_snd's high-water mark bounds what write(2) copies into the kernel. Held pages cost no kernel
//! memory, so jobs may go past it, up to a window of their own. Like a congestion window it grows
//! by what is acknowledged, but only if less than a work request is left for the adapter: neither
//! a peer that does not read nor want of credits makes it grow. Nothing waits for autosizing or
//! for a worker.
//!
//! A job is parked until its last byte is queued, then kept until the peer has
//! acknowledged that byte: the adapter reads the pages again when it retransmits, so neither
//! the job ends nor its pages go before (I3). If the connection is aborted, that is when the
//! final CPL has come. The pages are held by the mbufs that refer to them, so a job whose process
//! goes may end earlier: nobody can write to its buffer any more, and to wait for a peer that does
//! not read would keep the process for ever.
//!
//! Short writes are copied, and so is what no pages can be held for: by whoever submits the job,
//! or by the worker, into a few mbufs at a time. That is bounded by so_snd, as write(2) is. A
//! non-blocking socket's writes are copied as well: they end at once with what there is room for,
//! and a job that is read from its pages ends when the peer has it, which may be never.

use core::num::NonZeroU16;

use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::{Counter, Job, JobId, JobQueue, Os, TcpState};
use crate::shared::Shared;
use crate::tx::{MAX_CHUNK, Tx, TxFlags, seq_lt};

mod copy;
mod pages;
#[cfg(test)]
mod tests;

use copy::Copied;
use pages::{LOOKAHEAD, READ_SLOTS, Wanted, attach, piece, sets_used};

/// Bytes of a job held at a time; a longer one moves through its buffer in steps of this.
pub const PIECE: usize = 8 << 20;
/// Earlier pieces of a job whose last bytes may still be in flight.
const LEFT: usize = 4;
/// Most bytes of so_snd that the window of write jobs grows to: a bandwidth-delay product of
/// 100 Gb/s and a third of a millisecond.
pub const MAX_WND: u32 = 4 << 20;
/// Most bytes appended at once, so that a shortage of mbufs does not refuse all there is room for.
const MAX_APPEND: u32 = 256 << 10;
/// Most bytes copied at once.
const MAX_COPY: u32 = 64 << 10;

/// A page set that is past, and the mark up to which it is in flight. Slots are counted from 1, so
/// that there is room for none.
type Left = (NonZeroU16, u32);

/// Write jobs of a connection.
pub(crate) struct Writes<O: Os> {
    /// Not fully queued, oldest first.
    parked: O::Jobs,
    /// Queued as far as they will be; each ends when its mark is acknowledged.
    sent: O::Jobs,
    want: Option<Wanted<O::Job>>,
    /// The next bytes of a job that is copied.
    copy: Option<Copied<O::Mbuf>>,
    /// Mark of the last job that was cancelled with its bytes in flight: it ends early if its
    /// process goes, and only time shows that.
    asked: Option<u32>,
    /// Jobs have ended whose bytes were in flight, and so are their page sets.
    orphans: bool,
    /// Page sets the first job is past, with the mark up to which they are in flight.
    left: [Option<Left>; LEFT],
    /// A writer was inside the send I/O lock.
    io_busy: bool,
    /// A worker was asked for, and has not come yet.
    kicked: bool,
    /// Pages could not be had; wait for a retry before asking again.
    hold: bool,
    /// Bytes of a piece, less than [`PIECE`] only while the budgets of wired pages are short.
    span: usize,
    /// The piece last asked for ahead of its turn: job and page.
    ahead: Option<(JobId, u32)>,
    /// Bytes that so_snd may hold for jobs to go on, whatever its high-water mark.
    wnd: u32,
    /// Most that `wnd` grows to.
    wnd_max: u32,
    /// The window stopped a job, and so_snd holds no whole work request for the adapter.
    starved: bool,
}

#[cfg(test)]
impl<O: Os> Writes<O> {
    /// For a failing test.
    pub(crate) fn story(&self, os: &O) -> std::string::String {
        let front = self.parked.front();
        std::format!(
            "{} parked (first at {:?} of {:?}, slot {:?}), {} sent, want {}, hold {}, io_busy {}, \
             kicked {}, so_snd {} of {}, window {}",
            self.parked.len(),
            front.map(|j| j.done()),
            front.map(|j| j.len()),
            front.map(|j| j.slot()),
            self.sent.len(),
            self.want.is_some(),
            self.hold,
            self.io_busy,
            self.kicked,
            os.snd_used(),
            os.snd_hiwat(),
            self.wnd,
        )
    }
}

impl<O: Os> Writes<O> {
    pub(crate) fn new() -> Writes<O> {
        Writes {
            parked: O::Jobs::default(),
            sent: O::Jobs::default(),
            want: None,
            copy: None,
            asked: None,
            orphans: false,
            left: [None; LEFT],
            io_busy: false,
            kicked: false,
            hold: false,
            span: PIECE,
            ahead: None,
            wnd: 0,
            wnd_max: 0,
            starved: false,
        }
    }

    /// The connection is up: the window starts at `wnd` and never grows past `max`.
    pub(crate) fn open(&mut self, wnd: u32, max: u32) {
        self.wnd = wnd.min(MAX_WND);
        self.wnd_max = max.min(MAX_WND).max(self.wnd);
    }

    /// The window.
    pub(crate) fn wnd(&self) -> u32 {
        self.wnd
    }

    /// `n` bytes are acknowledged. If the adapter waited for bytes, more may be outstanding.
    pub(crate) fn grow(&mut self, n: u32) {
        if core::mem::take(&mut self.starved) {
            self.wnd = self.wnd.saturating_add(n).min(self.wnd_max);
        }
    }

    /// Bytes of a job with `left` to go that may be appended now: the room below so_snd's
    /// high-water mark, as for any writer, or in the window, if they are not copied. None rather
    /// than a few.
    fn room(&self, os: &O, left: u32, copies: bool) -> u32 {
        let space = u32::try_from(os.snd_space()).unwrap_or(0);
        let wnd = if copies { 0 } else { self.wnd };
        let ahead = wnd.saturating_sub(os.snd_used());
        let few = |n: u32, enough: u32| n < enough.clamp(1, left.max(1));
        let space = match os.snd_lowat().min(os.snd_hiwat()) {
            enough if few(space, enough) => 0,
            _ => space,
        };
        let ahead = if few(ahead, self.wnd / 8) { 0 } else { ahead };
        space.max(ahead).min(MAX_APPEND)
    }

    /// The first parked job goes on with the next acknowledgement, and waits for nothing else.
    pub(crate) fn waits_for_acks(&self, os: &O) -> bool {
        self.parked.front().is_some_and(|job| {
            let left = job.len().saturating_sub(job.done());
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            self.room(os, left, job.copies()) == 0
        })
    }

    /// Jobs, and earlier pieces of them: at most so many page sets are in use.
    fn jobs(&self) -> usize {
        if self.orphans {
            return usize::MAX;
        }
        self.parked.len() + self.sent.len() + self.left.iter().flatten().count()
    }

    /// No job is here.
    pub(crate) fn quiet(&self) -> bool {
        self.parked.is_empty() && self.sent.is_empty()
    }

    /// No worker works for us.
    pub(crate) fn idle(&self) -> bool {
        self.want.is_none() && self.quiet()
    }

    /// More bytes of parked jobs will follow.
    pub(crate) fn more_to_come(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Ask again for what could not be had.
    pub(crate) fn retry(&mut self, os: &mut O) {
        self.let_all_go(os);
        self.hold = false;
        self.io_busy = false;
        self.kicked = false;
        self.span = PIECE;
    }

    fn kick(&mut self, os: &mut O) {
        if !self.kicked {
            self.kicked = true;
            os.kick_worker();
        }
    }

    /// Everything before `upto` is acknowledged. True if a job ended.
    pub(crate) fn acked(&mut self, os: &mut O, upto: u32) -> bool {
        let mut ended = false;
        for l in &mut self.left {
            if let Some((slot, mark)) = *l
                && !seq_lt(upto, mark)
            {
                os.slot_unuse(slot.get() - 1);
                *l = None;
                self.hold = false;
            }
        }
        while let Some(job) = self.pop_acked(upto) {
            Self::over(os, job);
            // A page set may be free now.
            self.hold = false;
            ended = true;
        }
        ended
    }

    /// The first job that is queued, if it is acknowledged. One that a worker looks at ends when
    /// the worker has come back.
    fn pop_acked(&mut self, upto: u32) -> Option<O::Job> {
        let watched = self.watched();
        let over = |j: &&O::Job| !seq_lt(upto, j.mark()) && Some(j.id()) != watched;
        self.sent.front().filter(over)?;
        self.sent.pop_front()
    }

    /// A job has queued all that it will. It ends when the peer has acknowledged what is read
    /// from its pages, in its turn. On a non-blocking socket a copied one waits for nobody.
    fn queued(&mut self, os: &mut O, job: O::Job, acked: u32) {
        let copied = !seq_lt(acked, job.mark()) && self.watched() != Some(job.id());
        if copied && (self.sent.is_empty() || os.nonblocking()) {
            Self::over(os, job);
        } else {
            self.sent.push_back(job);
        }
    }

    /// A job ends with what it has sent.
    fn over(os: &mut O, job: O::Job) {
        let n = job.done();
        Self::over_with(os, job, Ok(n));
    }

    fn over_with(os: &mut O, mut job: O::Job, result: Result<usize, Errno>) {
        if let Some(slot) = job.slot() {
            os.slot_unuse(slot);
            job.set_slot(None);
        }
        os.complete(job, result);
    }

    /// Let go of a cancelled job whose bytes are in flight, if its process goes; else ask again
    /// later, because nobody else will.
    fn let_go(&mut self, os: &mut O, id: JobId) -> bool {
        let Some(job) = self.sent.find_mut(|j| j.id() == id) else {
            return false;
        };
        let mark = job.mark();
        if os.leaving(job) && self.watched() != Some(id) {
            self.abandon(os, id);
            return true;
        }
        if self.asked.is_none_or(|last| seq_lt(last, mark)) {
            self.asked = Some(mark);
        }
        os.retry_later();
        false
    }

    /// End a job early; its bytes are in flight.
    fn abandon(&mut self, os: &mut O, id: JobId) {
        self.orphans = true;
        if let Some(job) = self.sent.remove(id) {
            Self::over(os, job);
        }
    }

    /// The same for all of them. Asked again only as long as one that was cancelled is here:
    /// others are none of its business.
    fn let_all_go(&mut self, os: &mut O) {
        let Some(last) = self.asked.take() else {
            return;
        };
        let watched = self.watched();
        loop {
            let gone = |j: &O::Job| os.leaving(j) && Some(j.id()) != watched;
            let Some(id) = self.sent.find_mut(gone).map(|j| j.id()) else {
                break;
            };
            self.abandon(os, id);
        }
        let first = self.sent.front().map(Job::mark);
        if first.is_some_and(|mark| !seq_lt(last, mark)) {
            self.asked = Some(last);
            os.retry_later();
        }
    }

    /// Nothing queued will be acknowledged any more. `done`: nor read by the adapter.
    fn finish(&mut self, os: &mut O, done: bool) {
        for l in &mut self.left {
            if let Some((slot, _)) = l.take() {
                os.slot_unuse(slot.get() - 1);
            }
        }
        while let Some(job) = self.sent.pop_front() {
            match &mut self.want {
                // Short, if it is not whole: the answer to the want says so.
                Some(w) if w.job == job.id() => w.doomed = Some((job, Errno::ECONNABORTED)),
                _ => {
                    let r = match done || job.copies() {
                        true => Ok(job.done()),
                        false => Err(Errno::EIO),
                    };
                    Self::over_with(os, job, r);
                }
            }
        }
    }

    /// The job a worker looks at.
    fn watched(&self) -> Option<JobId> {
        self.want.as_ref().map(|w| w.job)
    }

    /// End a job that will queue no more.
    fn end_job(&mut self, os: &mut O, mut job: O::Job, why: Errno) {
        if job.done() > 0 {
            // Short, when what was queued is acknowledged.
            let id = job.id();
            self.sent.push_back(job);
            if why == Errno::ECANCELED {
                self.let_go(os, id);
            }
            return;
        }
        if let Some(slot) = job.slot() {
            os.slot_unuse(slot);
            job.set_slot(None);
        }
        if why == Errno::EPIPE {
            os.sigpipe(&job);
        }
        os.complete(job, Err(why));
    }

    /// The same, but a worker may be holding pages for the job.
    fn end_or_doom(&mut self, os: &mut O, job: O::Job, why: Errno) {
        self.copy.take_if(|c| c.job == job.id());
        match &mut self.want {
            Some(w) if w.job == job.id() => w.doomed = Some((job, why)),
            _ => self.end_job(os, job, why),
        }
    }

    /// End all parked jobs.
    fn end_parked(&mut self, os: &mut O, why: Errno) {
        while let Some(job) = self.parked.pop_front() {
            self.end_or_doom(os, job, why);
        }
    }
}

impl<O: Os> Tx<O> {
    /// An aio_write job.
    ///
    /// # Errors
    /// Declined: `tx_zcopy` is off, there is nothing to write, or nothing more may be written.
    pub fn aio_write(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        mut job: O::Job,
    ) -> Result<(), O::Job> {
        let closed = TxFlags::SEND_FIN | TxFlags::FIN_SENT | TxFlags::STOPPED;
        // Switched off: but not past jobs that were claimed before.
        let off = !sh.tun.tx_zcopy && !self.writes.more_to_come();
        // Nor past those that the generic path has, or a TLS session.
        let off = off || os.snd_generic() || os.snd_tls();
        if off || job.is_empty() || self.flags.intersects(closed) || os.snd_shut() {
            return Err(job);
        }
        os.count(Counter::TxJobs, 1);
        job.set_done(0);
        job.set_slot(None);
        if !os.arm_cancel(&job) {
            os.count(Counter::CancelClean, 1);
            os.complete(job, Err(Errno::ECANCELED));
            return Ok(());
        }
        if self.writes.ahead.is_some_and(|(id, _)| id == job.id()) {
            self.writes.ahead = None;
        }
        if job.len() < sh.tun.tx_zcopy_min as usize || os.nonblocking() {
            job.set_copies();
        }
        if !job.copies() {
            let jobs = self.writes.jobs();
            let near = self.writes.parked.len() < LOOKAHEAD;
            if near {
                attach(sh, os, jobs, self.writes.span, &mut job);
            }
            let miss = job.slot().is_none();
            if near && miss {
                os.count(Counter::CacheMiss, 1);
            }
            if miss || job.len() > PIECE {
                self.writes.kick(os);
            }
        }
        self.writes.parked.push_back(job);
        self.pump(sh, os);
        Ok(())
    }

    /// `aio_cancel`. True if the job is ended, or will be when a worker has let go of it.
    pub fn cancel(&mut self, sh: &mut Shared<O>, os: &mut O, id: JobId) -> bool {
        let Some(job) = self.writes.parked.remove(id) else {
            let gone = self.writes.let_go(os, id);
            // Jobs end in order: others may have waited for it.
            self.writes.acked(os, self.acked);
            return gone;
        };
        let c = if job.done() == 0 {
            Counter::CancelClean
        } else {
            Counter::CancelShort
        };
        os.count(c, 1);
        self.writes.end_or_doom(os, job, Errno::ECANCELED);
        self.writes.acked(os, self.acked);
        self.pump(sh, os);
        true
    }

    /// The connection is being aborted: no job queues any more.
    pub(crate) fn stop(&mut self, os: &mut O, why: Errno) {
        self.flags |= TxFlags::STOPPED;
        self.writes.end_parked(os, why);
        self.writes.acked(os, self.acked);
    }

    /// The adapter is done with the connection: no page of it is read any more.
    pub(crate) fn end(&mut self, os: &mut O, why: Errno, _: &CardDone) {
        self.stop(os, why);
        self.flags |= TxFlags::ENDED;
        self.cred.forget();
        self.writes.finish(os, true);
    }

    /// The adapter does not answer. Jobs that it may still read from end with EIO; the mbufs that
    /// refer to their pages keep these.
    pub(crate) fn orphan(&mut self, os: &mut O, why: Errno) {
        self.stop(os, why);
        self.flags |= TxFlags::ORPHANED;
        self.writes.orphans = true;
        self.writes.finish(os, false);
    }

    /// A job has ended only now, because a worker looked at it.
    fn finish_late(&mut self, os: &mut O) {
        if self.flags.intersects(TxFlags::ENDED | TxFlags::ORPHANED) {
            self.writes.finish(os, self.flags.contains(TxFlags::ENDED));
        }
    }

    /// Why no job may queue any more, as send(2) would say it.
    fn refusal(&self, os: &mut O, partial: bool) -> Option<Errno> {
        if os.snd_tls() {
            // Its bytes would go out as they are.
            return Some(Errno::EOPNOTSUPP);
        }
        if self.flags.contains(TxFlags::SEND_FIN) || os.snd_shut() {
            return Some(Errno::EPIPE);
        }
        // A job that has sent something ends short and leaves the error to the next call.
        if !partial && let Some(e) = os.take_so_error() {
            return Some(e);
        }
        match os.tcp_state() {
            TcpState::Established | TcpState::CloseWait => None,
            _ => Some(Errno::ENOTCONN),
        }
    }

    /// Append bytes of parked jobs to so_snd, as space and held pages allow. True if any.
    pub(crate) fn refill(&mut self, sh: &mut Shared<O>, os: &mut O) -> bool {
        if self.flags.contains(TxFlags::STOPPED) {
            return false;
        }
        let mut locked = false;
        let mut moved = false;
        while let Some(partial) = self.writes.parked.front().map(|j| j.done() > 0) {
            if let Some(why) = self.refusal(os, partial) {
                if let Some(job) = self.writes.parked.pop_front() {
                    self.writes.end_or_doom(os, job, why);
                }
                continue;
            }
            match self.refill_one(sh, os, &mut locked) {
                Some(Step::Moved) => moved = true,
                Some(Step::Again) => {}
                None => break,
            }
        }
        if locked {
            os.snd_io_unlock();
        }
        // A job may have ended short with all it queued acknowledged.
        self.writes.acked(os, self.acked);
        moved
    }
}

impl<O: Os> Tx<O> {
    /// The send I/O lock, if it is not taken yet. `None`: a writer is inside.
    pub(super) fn lock_io(&mut self, os: &mut O, locked: &mut bool) -> Option<()> {
        if !*locked {
            *locked = os.snd_io_trylock();
            if !*locked {
                self.writes.io_busy = true;
                self.writes.kick(os);
                return None;
            }
        }
        Some(())
    }

    /// One append for the first parked job. `None`: nothing more for now.
    fn refill_one(&mut self, sh: &mut Shared<O>, os: &mut O, locked: &mut bool) -> Option<Step> {
        let w = &mut self.writes;
        let (jobs, span) = (w.jobs(), w.span);
        let job = w.parked.front()?;
        let (done, len, copies) = (job.done(), job.len(), job.copies());
        let left = u32::try_from(len.saturating_sub(done)).unwrap_or(u32::MAX);
        let room = w.room(os, left, copies);
        if room == 0 {
            if done > 0 && os.nonblocking() {
                // What fitted is the answer.
                let job = w.parked.pop_front()?;
                w.copy = None;
                w.queued(os, job, self.acked);
                return Some(Step::Again);
            }
            w.starved = !copies && os.snd_used().saturating_sub(self.cred.in_flight()) < MAX_CHUNK;
            return None;
        }
        if copies {
            return self.append_copy(os, locked);
        }
        let job = w.parked.front_mut()?;
        if job.slot().is_none() {
            attach(sh, os, jobs, span, job);
        }
        let Some(slot) = job.slot() else {
            if w.want.is_none() && !w.hold {
                w.kick(os);
            }
            return None;
        };
        let (off, held) = piece(sh, job, slot)?;
        let end = off + held;
        let n = room.min(u32::try_from(end - done).unwrap_or(0));
        let place = w.left.iter().position(Option::is_none);
        if done + n as usize == end && end < len && place.is_none() {
            return None;
        }
        self.lock_io(os, locked)?;
        let w = &mut self.writes;
        let job = w.parked.front_mut()?;
        let pages = sh.sets.pages(slot)?;
        let at = (job.addr().wrapping_add(off as u64) & PAGE_MASK) as usize + (done - off);
        if os.snd_append_pages(job, slot, pages, at as u32, n).is_err() {
            os.retry_later();
            return None;
        }
        let done = done + n as usize;
        job.set_done(done);
        job.set_mark(self.acked.wrapping_add(os.snd_used()));
        if done == len {
            let job = w.parked.pop_front()?;
            w.sent.push_back(job);
        } else if done == end {
            // On to the next piece; this one's pages stay until it is acknowledged.
            let mark = job.mark();
            job.set_slot(None);
            *w.left.get_mut(place?)? = Some((NonZeroU16::new(slot.checked_add(1)?)?, mark));
            attach(sh, os, jobs, span, job);
            // The piece after that can be held meanwhile.
            w.kick(os);
        }
        Some(Step::Moved)
    }

    /// Jobs, marks and page sets agree (I1, I3).
    pub(crate) fn check(&self, sh: &Shared<O>, os: &O, aborting: bool) -> Result<(), &'static str> {
        self.cred.check()?;
        let w = &self.writes;
        if aborting && !w.parked.is_empty() {
            return Err("a write job is parked on an aborted connection");
        }
        if w.sent
            .front()
            .is_some_and(|j| !seq_lt(self.acked, j.mark()) && Some(j.id()) != w.watched())
        {
            return Err("an acknowledged write job has not ended");
        }
        for (slot, mark) in w.left.iter().flatten() {
            if os.slot_users(slot.get() - 1) == 0 {
                return Err("a page set in flight has no user");
            }
            if !seq_lt(self.acked, *mark) {
                return Err("an acknowledged page set is still used");
            }
        }
        for j in [w.sent.front(), w.parked.front()].into_iter().flatten() {
            if let Some(slot) = j.slot() {
                if os.slot_users(slot) == 0 {
                    return Err("a write job's page set has no user");
                }
                if sh.sets.pages(slot).is_none() {
                    return Err("a write job's page set is empty");
                }
            }
        }
        // Settings may have shrunk since, memory has not. One more: pages asked for while there
        // was room.
        if sets_used(sh, os) > sh.sets.slots().saturating_sub(READ_SLOTS) + 1 {
            return Err("writes leave no page sets for reads");
        }
        if !aborting && sh.seq.snd_nxt.wrapping_sub(self.acked) != self.cred.in_flight() {
            return Err("bytes in flight and sequence numbers disagree");
        }
        Ok(())
    }
}

/// Bits of an address within a page.
const PAGE_MASK: u64 = 4095;

enum Step {
    Moved,
    Again,
}
