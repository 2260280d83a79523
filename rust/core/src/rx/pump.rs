//! What keeps reads going: copy, enable, post, take back.

use super::Rx;
use crate::ddp::wrs::{self, Arm};
use crate::ddp::{Armed, Buf, MAX_MOVE, Mode, Stop, page_off};
use crate::os::{Job, JobQueue, Os};
use crate::shared::Shared;

/// With less than this the peer may wait for more: its segments may be that long, and bytes of
/// so_rcv give no credits back before they are taken.
const MIN_WND: i32 = 16 << 10;

enum Step {
    /// Something moved: look again.
    Again,
    /// Nothing to do until something happens (or a shortage is over, if retry was asked for).
    Done,
}

impl<O: Os> Rx<O> {
    /// Do all that can be done now.
    pub(super) fn pump(&mut self, sh: &mut Shared<O>, os: &mut O) {
        loop {
            if self.dead || !self.settle(sh, os) {
                return;
            }
            self.flush_front(sh, os);
            self.send_stops(sh, os);
            if let Step::Done = self.step(sh, os) {
                break;
            }
        }
        self.stage(sh, os);
    }

    /// If so_rcv holds what completes the job being filled, or so much that the peer may not send
    /// the rest, or reading is over, have it back.
    fn flush_front(&mut self, sh: &Shared<O>, os: &mut O) {
        if os.rcv_shut() && !self.fin {
            // shutdown(2): nothing more is read.
            self.take_back(0, Stop::Flush);
            self.take_back(1, Stop::Flush);
            return;
        }
        let avail = os.rcv_avail();
        if avail == 0 {
            return;
        }
        let shut = sh.seq.rcv_wnd < MIN_WND;
        let push = self.psh || shut || os.nonblocking() || self.fin;
        if let Some(Buf::Posted(a)) = self.bufs.get_mut(self.active)
            && a.stop.is_none()
        {
            if push || avail >= a.end.saturating_sub(a.done()) {
                a.stop = Some(Stop::Flush);
            } else if avail != a.kept()
                && a.room() > MAX_MOVE
                && self.resynced != Some((a.job.id(), a.start))
            {
                self.resynced = Some((a.job.id(), a.start));
                a.stop = Some(Stop::Resync);
            }
        }
    }

    /// Mark a posted buffer to be taken back.
    pub(super) fn take_back(&mut self, i: usize, why: Stop) {
        if let Some(Buf::Posted(a)) = self.bufs.get_mut(i)
            && a.stop.is_none()
        {
            a.stop = Some(why);
        }
    }

    /// Take marked buffers back.
    pub(super) fn send_stops(&mut self, sh: &mut Shared<O>, os: &mut O) {
        for i in [self.active, self.active ^ 1] {
            if !matches!(self.bufs.get(i), Some(Buf::Posted(a)) if a.stop.is_some()) {
                continue;
            }
            // If this one is in front, the adapter goes on with the other.
            let next = i == self.active && matches!(self.bufs.get(i ^ 1), Some(Buf::Posted(_)));
            let buf = wire::DdpBuf::from_index(i);
            if wrs::invalidate(sh, os, buf, next).is_err() {
                os.retry_later();
                return;
            }
            if let Some(n) = self.replies.get_mut(i) {
                *n = n.saturating_add(1);
            }
            if let Some(b) = self.bufs.get_mut(i)
                && let Buf::Posted(a) = b.take()
            {
                *b = Buf::Invalidating(a);
            }
        }
    }

    fn step(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        if self.queue.is_empty() || self.head_stuck() {
            return Step::Done;
        }
        let (front, other) = (self.active, self.active ^ 1);
        match (self.bufs.get(front), self.bufs.get(other)) {
            (Some(Buf::Empty), Some(Buf::Empty)) => self.step_unposted(sh, os),
            (Some(Buf::Posted(a)), Some(Buf::Empty)) if a.stop.is_none() && a.last_piece() => {
                let kept = a.kept();
                self.step_second(sh, os, other, kept)
            }
            _ => Step::Done,
        }
    }

    /// Nothing is posted: the first job takes what so_rcv has, or the end, or is posted.
    fn step_unposted(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        if os.rcv_avail() > 0 {
            return self.copy(sh, os);
        }
        let partial = self.queue.front().is_some_and(|j| j.done() > 0);
        let scattered = self.queue.front().is_some_and(O::Job::scattered);
        if !partial && let Some(e) = os.take_so_error() {
            if let Some(job) = self.queue.pop_front() {
                self.end_job(sh, os, job, Err(e));
            }
            return Step::Again;
        }
        if self.fin || os.rcv_shut() || (partial && (self.psh || os.nonblocking() || scattered)) {
            if let Some(job) = self.queue.pop_front() {
                let done = job.done();
                self.end_job(sh, os, job, Ok(done));
            }
            return Step::Again;
        }
        if self.stopped || os.dropped() {
            return Step::Done;
        }
        match self.mode {
            Mode::On => {}
            // Once DDP is on the adapter holds data back for a buffer, but not for long: have
            // the first one's pages before.
            Mode::Off => {
                if self.head_slot(sh, os).is_some() {
                    self.enable(sh, os);
                }
                return Step::Done;
            }
            Mode::Requested => return Step::Done,
        }
        // Prefer buffer 0, unless a reply about it is still to come.
        let free = |i: &usize| self.replies.get(*i) == Some(&0);
        match [0, 1].into_iter().find(free) {
            Some(i) => self.post(sh, os, i, 0, true),
            None => Step::Done,
        }
    }

    /// One buffer is posted: post the first job behind it.
    fn step_second(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, kept: u32) -> Step {
        let free = self.replies.get(i) == Some(&0);
        let over = self.fin || self.stopped || os.dropped() || os.rcv_shut();
        if !free || self.mode != Mode::On || over {
            return Step::Done;
        }
        // What the buffer in front will leave in so_rcv, if it is filled.
        let left = os.rcv_avail().saturating_sub(kept);
        if left > 0 && os.nonblocking() {
            return Step::Done;
        }
        self.post(sh, os, i, left, false)
    }

    /// Copy from so_rcv to the first job.
    fn copy(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        let Some(slot) = self.head_slot(sh, os) else {
            return Step::Done;
        };
        let (Some(job), Some(key)) = (self.queue.front_mut(), sh.sets.key(slot)) else {
            return Step::Done;
        };
        let Some((start, at, room)) = place(job, key) else {
            return self.drop_head_slot(sh, os);
        };
        let off = page_off(job.addr().wrapping_add(start), at);
        if !os.rcv_io_trylock() {
            os.retry_later();
            return Step::Done;
        }
        let n = match sh.sets.pages(slot) {
            Some(pages) => os.rcv_copy(pages, off, room),
            None => 0,
        };
        os.rcv_io_unlock();
        if n == 0 {
            return Step::Done;
        }
        sh.sets.dirty(slot);
        let done = job.done().saturating_add(usize::try_from(n).unwrap_or(0));
        job.set_done(done);
        let full = done >= job.len();
        self.known = os.rcv_avail();
        self.count_copied(os, n, None);
        if full && let Some(job) = self.queue.pop_front() {
            self.end_job(sh, os, job, Ok(done));
        } else if n == room {
            let _ = self.drop_head_slot(sh, os);
        }
        self.credits(sh, os);
        Step::Again
    }

    /// The first job is past the piece its set holds. It goes on to the next, unless the bytes
    /// in this one must be seen to.
    fn drop_head_slot(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        if self.keep_head(sh, os) {
            return Step::Done;
        }
        self.release_head(sh, os);
        Step::Again
    }

    /// The first job lets go of its set.
    pub(super) fn release_head(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if let Some(job) = self.queue.front_mut()
            && let Some(slot) = job.slot()
        {
            job.set_slot(None);
            os.slot_unuse(slot);
            sh.sets.trim(os);
        }
    }

    /// Post the first job in buffer `i`, leaving room for `left` bytes that so_rcv will hold.
    fn post(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, left: u32, only: bool) -> Step {
        let Some(slot) = self.head_slot(sh, os) else {
            return Step::Done;
        };
        let (Some(job), Some(key)) = (self.queue.front(), sh.sets.key(slot)) else {
            return Step::Done;
        };
        let Some((start, at, room)) = place(job, key) else {
            return self.drop_head_slot(sh, os);
        };
        if left >= room {
            // so_rcv alone will fill it.
            return Step::Done;
        }
        let (off, end) = (at.saturating_add(left), key.len);
        // A read(2) in progress (MSG_WAITALL, perhaps) gets what comes next.
        if !os.rcv_io_trylock() {
            os.retry_later();
            return Step::Done;
        }
        os.rcv_io_unlock();
        if sh.sets.pods(slot).is_none() && !wrs::take_ppods(sh, os, slot) {
            self.no_ppods = true;
            os.retry_later();
            return Step::Done;
        }
        self.no_ppods = false;
        let arm = Arm {
            buf: wire::DdpBuf::from_index(i),
            off,
            end,
            only,
            flush: os.nonblocking() && !self.no_flush,
        };
        let sent = wrs::write_ppods(sh, os, slot).and_then(|()| wrs::arm(sh, os, slot, arm));
        if sent.is_err() {
            os.retry_later();
            return Step::Done;
        }
        if only {
            self.active = i;
        }
        if let Some(job) = self.queue.pop_front()
            && let Some(b) = self.bufs.get_mut(i)
        {
            *b = Buf::Posted(Armed {
                job,
                slot,
                start: usize::try_from(start).unwrap_or(0),
                off,
                end,
                stop: None,
            });
        }
        Step::Again
    }
}

/// Where a job stands in its page set: byte of the job the set starts with, progress from there
/// on, bytes to go. `None` if the set is of another piece.
fn place<J: Job>(job: &J, key: &crate::os::PageKey) -> Option<(u64, u32, u32)> {
    let start = key.addr.checked_sub(job.addr())?;
    let at = u64::try_from(job.done()).ok()?.checked_sub(start)?;
    let at = u32::try_from(at).ok()?;
    let room = key.len.checked_sub(at).filter(|r| *r > 0)?;
    Some((start, at, room))
}
