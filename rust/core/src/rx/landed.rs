//! Buffers that came back from the adapter: put the stream in order, give each job its bytes.

use super::Rx;
use super::pump::{Stand, place};
use crate::ddp::{Buf, Fate, Mode, Stop, page_off};
use crate::os::{Counter, Job, JobQueue, NoMbuf, Os};
use crate::shared::Shared;

impl<O: Os> Rx<O> {
    /// Settle every buffer that has landed, in the order of the stream, and what came behind
    /// them. False: a shortage stops it ([`Os::retry_later`] was asked for), and nothing may go
    /// to so_rcv meanwhile.
    pub(super) fn settle(&mut self, sh: &mut Shared<O>, os: &mut O) -> bool {
        loop {
            let (front, other) = (self.active, self.active ^ 1);
            match (self.bufs.at(front), self.bufs.at(other)) {
                (Buf::Empty, Buf::Empty) => break,
                (Buf::Empty, _) => self.active = other,
                (Buf::Landed(..), _) => {
                    if !self.absorb(sh, os, front) {
                        return false;
                    }
                    self.unpark(os);
                }
                // The front job had nothing, so the other's bytes are its.
                (Buf::Back(_), Buf::Landed(..)) => {
                    if !self.hand_on(sh, os, front, other) {
                        return false;
                    }
                }
                // It goes first again: the other must not overtake it.
                (Buf::Back(_), Buf::Posted(_)) => {
                    self.take_back(other, Stop::Yield);
                    self.send_stops(sh, os);
                    break;
                }
                (Buf::Back(_), Buf::Invalidating(_)) => break,
                (Buf::Back(_), Buf::Back(_)) => self.requeue(other),
                (Buf::Back(_), Buf::Empty) => self.requeue(front),
                (_, Buf::Back(_)) => self.requeue(other),
                // Nothing was placed in it, or it would be in front.
                (_, Buf::Landed(_, 0, _)) => {
                    self.conclude(sh, os, other, 0);
                }
                _ => break,
            }
        }
        if self.fin && !self.fin_told {
            self.fin_told = true;
            os.rcv_cant_more();
        }
        true
    }

    /// Back to the head of the queue.
    fn requeue(&mut self, i: usize) {
        let b = self.bufs.at_mut(i);
        match b.take() {
            Buf::Back(job) => self.queue.push_front(job),
            other => *b = other,
        }
    }

    /// What came behind a buffer that is settled now can go to so_rcv.
    fn unpark(&mut self, os: &mut O) {
        if let Some((m, len)) = self.parked.at_mut(0).take() {
            os.rcv_append(m);
            self.known = self.known.wrapping_add(len);
        }
        *self.parked.at_mut(0) = self.parked.at_mut(1).take();
    }

    /// Give a landed job what precedes its placed bytes in so_rcv, then those.
    fn absorb(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize) -> bool {
        let (a, n, fate) = match self.bufs.at(i) {
            Buf::Landed(a, n, fate) => (a, *n, *fate),
            _ => return true,
        };
        let done = a.done();
        let room = a.end.saturating_sub(done);
        let base = sh.sets.key(a.slot).map_or(0, |k| page_off(k.addr, 0));
        let off = a.off;
        let slot = a.slot;
        if os.rcv_tls() {
            // For the session, not for a program.
            return self.give_back(sh, os, i, rcv_room(os));
        }
        // A cancelled job with no byte placed leaves so_rcv alone.
        let mut avail = os.rcv_avail();
        if n == 0 && fate == Fate::Cancel {
            avail = 0;
        }
        let arrange = |os: &mut O, avail: u32| {
            let copied = avail.min(room);
            let kept = n.min(room - copied);
            let over = n - kept;
            Self::arrange(sh, os, slot, [base, done, off], [copied, kept, over])
                .then_some([copied, kept])
        };
        let moved = if avail == 0 {
            arrange(os, 0)
        } else {
            let Some(moved) = os.with_rcv_io(|os| arrange(os, os.rcv_avail())) else {
                // A reader is inside, who may stay until it has more: what was placed is more.
                return self.give_back(sh, os, i, rcv_room(os));
            };
            self.known = os.rcv_avail();
            moved
        };
        let Some([copied, kept]) = moved else {
            os.retry_later();
            return false;
        };
        self.count_copied(os, copied, None);
        let all = copied.saturating_add(kept);
        if all > 0 {
            sh.sets.dirty(slot);
            self.took(os, all);
        }
        self.conclude(sh, os, i, all);
        true
    }

    /// In the pages of a landed job: `copied` bytes of so_rcv behind the `done` ones, `kept` of
    /// those placed at `off` behind them, the `over` bytes left back to the stream. `base` is the
    /// buffer's place in its first page. False: nothing was done.
    fn arrange(
        sh: &Shared<O>,
        os: &mut O,
        slot: u16,
        [base, done, off]: [u32; 3],
        [copied, kept, over]: [u32; 3],
    ) -> bool {
        let Some(pages) = sh.sets.pages(slot) else {
            debug_assert!(false, "a landed buffer's pages are held");
            return true;
        };
        let from = base.saturating_add(off);
        if over > 0 {
            let at = from.saturating_add(kept);
            if os.rcv_append_pages(pages, at, over).is_err() {
                return false;
            }
        }
        let to = done.saturating_add(copied);
        if kept > 0 && off == to {
            os.count(Counter::RxPlacedOctets, u64::from(kept));
        } else if kept > 0 {
            os.count(Counter::RxMovedOctets, u64::from(kept));
            os.pages_move(pages, from, base.saturating_add(to), kept);
        }
        if copied > 0 {
            let got = os.rcv_copy(pages, base.saturating_add(done), copied);
            debug_assert_eq!(got, copied, "so_rcv is locked and has the bytes");
        }
        true
    }

    /// What so_rcv has and then what was placed for `from`'s job go to `to`'s, which precedes it
    /// and had nothing: straight into its pages, because so_rcv may have no room for it.
    fn hand_on(&mut self, sh: &mut Shared<O>, os: &mut O, to: usize, from: usize) -> bool {
        let (Buf::Back(job), Buf::Landed(a, n, _)) = (self.bufs.at(to), self.bufs.at(from)) else {
            return true;
        };
        let at = job.slot().and_then(|s| place(job, s, sh.sets.key(s)?));
        let (src, off, n) = (a.slot, a.off, *n);
        let handed = at.filter(|_| !os.rcv_tls()).and_then(|at| {
            let hand = |os: &mut O, avail| Self::hand(sh, os, &at, avail, (src, off, n));
            if os.rcv_avail() == 0 {
                return Some(hand(os, 0));
            }
            let handed = os.with_rcv_io(|os| hand(os, os.rcv_avail()))?;
            self.known = os.rcv_avail();
            Some(handed)
        });
        // For a TLS session, or a reader is inside who may wait for just this.
        let Some([copied, moved]) = handed else {
            let all = self.give_back(sh, os, from, rcv_room(os));
            if all {
                self.unpark(os);
            }
            return all;
        };
        if let Buf::Landed(a, n, _) = self.bufs.at_mut(from) {
            a.off = a.off.saturating_add(moved);
            *n -= moved;
        }
        self.count_copied(os, copied, None);
        os.count(Counter::RxMovedOctets, u64::from(moved));
        self.handed(sh, os, to, copied.saturating_add(moved));
        if n > moved {
            return true;
        }
        let all = self.give_back(sh, os, from, 0);
        self.unpark(os);
        all
    }

    /// To the pages at `at`: `avail` bytes of so_rcv, then of `n` that were placed in slot `src`
    /// at `off`. As many as there is room for: how many of each.
    fn hand(
        sh: &Shared<O>,
        os: &mut O,
        at: &Stand,
        avail: u32,
        (src, off, n): (u16, u32, u32),
    ) -> [u32; 2] {
        let copied = avail.min(at.room);
        let moved = n.min(at.room - copied);
        if let (Some(to), Some(from)) = (sh.sets.pages(at.slot), sh.sets.pages(src)) {
            if copied > 0 {
                os.rcv_copy(to, at.byte, copied);
            }
            let byte = at.byte.saturating_add(copied);
            let off = page_off(sh.sets.key(src).map_or(0, |k| k.addr), off);
            if moved > 0 && src == at.slot {
                os.pages_move(to, off, byte, moved);
            } else if moved > 0 {
                os.pages_copy(from, off, to, byte, moved);
            }
        }
        [copied, moved]
    }

    /// The job that is to go back to the queue got `n` bytes, and ends if these fill its buffer.
    fn handed(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, n: u32) {
        let Buf::Back(mut job) = self.bufs.at_mut(i).take() else {
            return;
        };
        if let Some(slot) = job.slot().filter(|_| n > 0) {
            sh.sets.dirty(slot);
        }
        job.set_done(job.done().saturating_add(usize::try_from(n).unwrap_or(0)));
        let done = job.done();
        if done >= job.len() {
            self.end_job(sh, os, job, Ok(done));
        } else {
            *self.bufs.at_mut(i) = Buf::Back(job);
        }
        self.took(os, n);
    }

    /// What was placed for this job is not for it, but for a reader or a job that comes before: up
    /// to `room` bytes of it go to so_rcv, from where all are served in order. False: not all of
    /// it did.
    fn give_back(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, room: u32) -> bool {
        let Buf::Landed(a, n, _) = self.bufs.at_mut(i) else {
            return true;
        };
        let k = room.min(*n);
        if k > 0 {
            let base = sh.sets.key(a.slot).map_or(0, |k| k.addr);
            let pages = sh.sets.pages(a.slot);
            let r = pages.map(|p| os.rcv_append_pages(p, page_off(base, a.off), k));
            if r == Some(Err(NoMbuf)) {
                os.retry_later();
                return false;
            }
            a.off = a.off.saturating_add(k);
            *n -= k;
            self.known = os.rcv_avail();
        }
        if *n > 0 {
            os.retry_later();
            return false;
        }
        let b = self.bufs.at_mut(i);
        match b.take() {
            Buf::Landed(a, _, Fate::Cancel) => self.end_cancelled(sh, os, a.job),
            Buf::Landed(a, ..) => *b = Buf::Back(a.job),
            other => *b = other,
        }
        true
    }

    /// Decide what becomes of a settled job that got `more` bytes.
    fn conclude(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, more: u32) {
        let (mut a, n, fate) = match self.bufs.at_mut(i).take() {
            Buf::Landed(a, n, fate) => (a, n, fate),
            other => {
                *self.bufs.at_mut(i) = other;
                return;
            }
        };
        let more = usize::try_from(more).unwrap_or(0);
        a.job.set_done(a.job.done().saturating_add(more));
        let goes_on = a.done() >= a.end && !a.last_piece();
        let job = a.job;
        let done = job.done();
        let back = match fate {
            _ if done >= job.len() => false,
            Fate::Eof => false,
            Fate::Cancel => {
                self.end_cancelled(sh, os, job);
                return;
            }
            Fate::Report => done == 0 || goes_on,
            Fate::Yield => n == 0 || goes_on,
            Fate::Resync => true,
        };
        if fate == Fate::Cancel {
            os.count(Counter::CancelLate, 1);
        }
        if fate == Fate::Report {
            self.no_flush = done == 0;
        }
        if back {
            *self.bufs.at_mut(i) = Buf::Back(job);
        } else {
            self.end_job(sh, os, job, Ok(done));
        }
    }

    /// Bytes went from so_rcv to a read: count them by the reason they were not placed, which
    /// is `why` if that is known.
    pub(super) fn count_copied(&mut self, os: &mut O, n: u32, why: Option<Counter>) {
        let early = n.min(self.early);
        self.early -= early;
        let (first, then) = match why {
            Some(c) => (c, c),
            None => (Counter::RxCopiedBeforeDdp, self.not_placed()),
        };
        for (c, n) in [(first, early), (then, n - early)] {
            if n > 0 {
                os.count(c, u64::from(n));
            }
        }
    }

    /// Why bytes that come now are not placed.
    fn not_placed(&self) -> Counter {
        match self.mode {
            Mode::On if self.no_ppods => Counter::RxCopiedNoPpods,
            Mode::On => Counter::RxCopiedNoBuffer,
            _ if self.was_on => Counter::RxCopiedDdpOff,
            _ => Counter::RxCopiedBeforeDdp,
        }
    }
}

/// Bytes that so_rcv may take. That small mbufs use it up faster does not count: a reader may wait
/// for all of it.
fn rcv_room<O: Os>(os: &O) -> u32 {
    os.rcv_hiwat().saturating_sub(os.rcv_held())
}
