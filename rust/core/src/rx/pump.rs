//! What keeps reads going: copy, enable, post, take back.

use super::Rx;
use crate::ddp::wrs::{self, Arm};
use crate::ddp::{Armed, AtCard, Buf, MAX_MOVE, Mode, Stop, page_off};
use crate::errno::Errno;
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
        debug_assert!(!self.dead, "nothing is to be done any more");
        loop {
            if !self.settle(sh, os) {
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
        if os.rcv_tls() {
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
        if let Buf::Posted(a) = self.bufs.at_mut(self.active)
            && a.stop.is_none()
        {
            if push || avail >= a.end.saturating_sub(a.done()) {
                a.stop(Stop::Flush);
            } else if avail != a.kept() && a.room() > MAX_MOVE && self.resynced != Some(a.place()) {
                self.resynced = Some(a.place());
                a.stop(Stop::Resync);
            }
        }
    }

    /// Mark a posted buffer to be taken back.
    pub(super) fn take_back(&mut self, i: usize, why: Stop) {
        if let Buf::Posted(a) = self.bufs.at_mut(i)
            && a.stop.is_none()
        {
            a.stop(why);
        }
    }

    /// Take marked buffers back.
    pub(super) fn send_stops(&mut self, sh: &mut Shared<O>, os: &mut O) {
        for i in [self.active, self.active ^ 1] {
            if !matches!(self.bufs.at(i), Buf::Posted(a) if a.stop.is_some()) {
                continue;
            }
            // If this one is in front, the adapter goes on with the other.
            let next = i == self.active && matches!(self.bufs.at(i ^ 1), Buf::Posted(_));
            let buf = wire::DdpBuf::from_index(i);
            if wrs::invalidate(sh, os, buf, next).is_err() {
                self.wait(os);
                self.mute = true;
                os.retry_later();
                return;
            }
            self.wait(os);
            *self.asked.at_mut(i) = true;
            let b = self.bufs.at_mut(i);
            *b = match b.take() {
                Buf::Posted(a) => Buf::Invalidating(a),
                other => other,
            };
        }
        self.mute = false;
    }

    fn step(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        if self.queue.is_empty() || self.head_stuck() {
            return Step::Done;
        }
        let (front, other) = (self.active, self.active ^ 1);
        match (self.bufs.at(front), self.bufs.at(other)) {
            (Buf::Empty, Buf::Empty) => self.step_unposted(sh, os),
            (Buf::Posted(a), Buf::Empty) if a.stop.is_none() && a.last_piece() => {
                let kept = a.kept();
                self.step_second(sh, os, other, kept)
            }
            _ => Step::Done,
        }
    }

    /// Nothing is posted: the first job takes what so_rcv has, or the end, or is posted.
    fn step_unposted(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        if os.rcv_tls() {
            // It was claimed before; what comes is not for its buffer.
            let partial = self.queue.front().is_some_and(|j| j.done() > 0);
            self.end_head(sh, os, (!partial).then_some(Errno::EOPNOTSUPP));
            return Step::Again;
        }
        if os.rcv_avail() > 0 {
            return self.copy(sh, os);
        }
        let partial = self.queue.front().is_some_and(|j| j.done() > 0);
        let scattered = self.queue.front().is_some_and(O::Job::scattered);
        if !partial && let Some(e) = os.take_so_error() {
            self.end_head(sh, os, Some(e));
            return Step::Again;
        }
        if self.fin || os.rcv_shut() || (partial && (self.psh || os.nonblocking() || scattered)) {
            self.end_head(sh, os, None);
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
        let free = |i: &usize| !*self.asked.at(*i);
        match [0, 1].into_iter().find(free) {
            Some(i) => self.post(sh, os, i, 0, true),
            None => Step::Done,
        }
    }

    /// One buffer is posted: post the first job behind it.
    fn step_second(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, kept: u32) -> Step {
        if *self.asked.at(i) || self.stopped || os.dropped() {
            return Step::Done;
        }
        // What the buffer in front will leave in so_rcv, if it is filled.
        let left = os.rcv_avail().saturating_sub(kept);
        self.post(sh, os, i, left, false)
    }

    /// The first job ends: with this error, or with what it has.
    pub(super) fn end_head(&mut self, sh: &mut Shared<O>, os: &mut O, err: Option<Errno>) {
        let job = self.queue.pop_front();
        let r = job.map(|job| {
            let done = job.done();
            self.end_job(sh, os, job, err.map_or(Ok(done), Err));
        });
        debug_assert!(r.is_some(), "there is a first job");
    }

    /// Where the first job stands in its page set, if it has or finds one: it is done with any
    /// earlier piece.
    fn stand(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<Stand> {
        loop {
            let slot = self.head_slot(sh, os)?;
            if let Some(at) = place(self.queue.front()?, slot, sh.sets.key(slot)?) {
                return Some(at);
            }
            self.drop_head_slot(sh, os)?;
        }
    }

    /// Copy from so_rcv to the first job.
    fn copy(&mut self, sh: &mut Shared<O>, os: &mut O) -> Step {
        let Some(at) = self.stand(sh, os) else {
            return Step::Done;
        };
        let pages = sh.sets.pages(at.slot);
        let copy = |os: &mut O| pages.map_or(0, |p| os.rcv_copy(p, at.byte, at.room));
        let Some(n) = os.with_rcv_io(copy) else {
            os.retry_later();
            return Step::Done;
        };
        if n == 0 {
            return Step::Done;
        }
        sh.sets.dirty(at.slot);
        let more = usize::try_from(n).unwrap_or(0);
        let full = self.queue.front_mut().is_some_and(|job| {
            job.set_done(job.done().saturating_add(more));
            job.done() >= job.len()
        });
        self.known = os.rcv_avail();
        self.count_copied(os, n, None);
        self.took(os, n);
        if full {
            self.end_head(sh, os, None);
        } else if n == at.room {
            let _ = self.drop_head_slot(sh, os);
        }
        self.credits(sh, os);
        Step::Again
    }

    /// The first job is past the piece its set holds. It goes on to the next, unless the bytes
    /// in this one must be seen to (`None`).
    fn drop_head_slot(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<()> {
        if self.queue.front().is_some_and(|j| self.lost(sh, j)) {
            self.end_head(sh, os, Some(Errno::EFAULT));
            return Some(());
        }
        if self.keep_head(sh, os) {
            return None;
        }
        self.release_head(sh, os);
        Some(())
    }

    /// The first job lets go of its set.
    pub(super) fn release_head(&mut self, sh: &mut Shared<O>, os: &mut O) {
        let slot = self.queue.front_mut().and_then(|job| {
            let slot = job.slot();
            job.set_slot(None);
            slot
        });
        if let Some(slot) = slot {
            os.slot_unuse(slot);
            sh.sets.trim(os);
        }
    }

    /// Post the first job in buffer `i`, leaving room for `left` bytes that so_rcv will hold.
    fn post(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, left: u32, only: bool) -> Step {
        let Some(at) = self.stand(sh, os) else {
            return Step::Done;
        };
        if left >= at.room {
            // so_rcv alone will fill it.
            return Step::Done;
        }
        let (slot, off) = (at.slot, at.off.saturating_add(left));
        // A read(2) in progress (MSG_WAITALL, perhaps) gets what comes next.
        if os.with_rcv_io(|_| ()).is_none() {
            os.retry_later();
            return Step::Done;
        }
        if sh.sets.pods(slot).is_none() && !wrs::take_ppods(sh, os, slot) {
            self.no_ppods = true;
            os.retry_later();
            return Step::Done;
        }
        self.no_ppods = false;
        let arm = Arm {
            buf: wire::DdpBuf::from_index(i),
            off,
            end: at.end,
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
        let armed = self.queue.pop_front().map(|job| Armed {
            job,
            slot,
            start: at.start,
            off,
            end: at.end,
            passed: 0,
            stop: None,
        });
        *self.bufs.at_mut(i) = armed.map_or(Buf::Empty, |a| Buf::Posted(AtCard::new(a)));
        Step::Again
    }
}

/// Where a job stands in its page set.
pub(super) struct Stand {
    pub(super) slot: u16,
    /// Byte of the job that the set starts with.
    start: usize,
    /// Progress from there on.
    off: u32,
    /// End of the set, from there on.
    end: u32,
    /// Bytes to go.
    pub(super) room: u32,
    /// Where the next byte goes, from the start of the first page.
    pub(super) byte: u32,
}

/// `None` if the set is of another piece.
pub(super) fn place<J: Job>(job: &J, slot: u16, key: &crate::os::PageKey) -> Option<Stand> {
    let start = key.addr.checked_sub(job.addr())?;
    let off = u64::try_from(job.done()).ok()?.checked_sub(start)?;
    let off = u32::try_from(off).ok()?;
    let room = key.len.checked_sub(off).filter(|r| *r > 0)?;
    Some(Stand {
        slot,
        start: usize::try_from(start).ok()?,
        off,
        end: key.len,
        room,
        byte: page_off(key.addr, off),
    })
}
