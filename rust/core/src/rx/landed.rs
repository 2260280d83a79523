//! Buffers that came back from the adapter: put the stream in order, give each job its bytes.

use super::Rx;
use crate::ddp::{Armed, Buf, Fate, Mode, Stop, page_off};
use crate::os::{Counter, Job, JobQueue, Os};
use crate::shared::Shared;

impl<O: Os> Rx<O> {
    /// Settle every buffer that has landed, in the order of the stream, and what came behind
    /// them. False: a shortage stops it ([`Os::retry_later`] was asked for), and nothing may go
    /// to so_rcv meanwhile.
    pub(super) fn settle(&mut self, sh: &mut Shared<O>, os: &mut O) -> bool {
        loop {
            let (front, other) = (self.active, self.active ^ 1);
            let (a, b) = match self.bufs.get(front).zip(self.bufs.get(other)) {
                Some(pair) => pair,
                None => return true,
            };
            match (a, b) {
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
                    if !self.give_back(sh, os, other) {
                        return false;
                    }
                    self.unpark(os);
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
                    if let Some(Buf::Landed(a, n, fate)) = self.bufs.get_mut(other).map(Buf::take) {
                        self.conclude(sh, os, other, a, n, fate);
                    }
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
        if let Some(Buf::Back(job)) = self.bufs.get_mut(i).map(Buf::take) {
            self.queue.push_front(job);
        }
    }

    /// What came behind a buffer that is settled now can go to so_rcv.
    fn unpark(&mut self, os: &mut O) {
        let [first, second] = &mut self.parked;
        if let Some((m, len)) = first.take() {
            os.rcv_append(m);
            self.known = self.known.wrapping_add(len);
        }
        *first = second.take();
    }

    /// Give a landed job what precedes its placed bytes in so_rcv, then those.
    fn absorb(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize) -> bool {
        let Some(Buf::Landed(a, n, fate)) = self.bufs.get(i) else {
            return true;
        };
        let (n, fate) = (*n, *fate);
        let done = a.done();
        let room = a.end.saturating_sub(done);
        let base = sh.sets.key(a.slot).map_or(0, |k| page_off(k.addr, 0));
        let off = a.off;
        let slot = a.slot;
        let Some(pages) = sh.sets.pages(slot) else {
            debug_assert!(false, "a landed buffer's pages are held");
            if let Some(Buf::Landed(a, ..)) = self.bufs.get_mut(i).map(Buf::take) {
                self.conclude(sh, os, i, a, 0, Fate::Cancel);
            }
            return true;
        };
        // A cancelled job with no byte placed leaves so_rcv alone.
        let mut avail = os.rcv_avail();
        if n == 0 && fate == Fate::Cancel {
            avail = 0;
        }
        let mut copied = 0;
        let mut kept = n;
        if avail > 0 {
            if !os.rcv_io_trylock() {
                os.retry_later();
                return false;
            }
            avail = os.rcv_avail();
            copied = avail.min(room);
            kept = n.min(room - copied);
            let over = n - kept;
            if over > 0 {
                let from = base.saturating_add(off).saturating_add(kept);
                if os.rcv_append_pages(pages, from, over).is_err() {
                    os.rcv_io_unlock();
                    os.retry_later();
                    return false;
                }
            }
        }
        let to = done.saturating_add(copied);
        let stays = off == to;
        let c = if stays {
            Counter::RxPlacedOctets
        } else {
            Counter::RxMovedOctets
        };
        if kept > 0 {
            os.count(c, u64::from(kept));
        }
        if kept > 0 && !stays {
            os.pages_move(
                pages,
                base.saturating_add(off),
                base.saturating_add(to),
                kept,
            );
        }
        if avail > 0 {
            if copied > 0 {
                let got = os.rcv_copy(pages, base.saturating_add(done), copied);
                debug_assert_eq!(got, copied, "so_rcv is locked and has the bytes");
            }
            os.rcv_io_unlock();
            self.count_copied(os, copied, None);
            self.known = os.rcv_avail();
        }
        if let Some(Buf::Landed(mut a, _, _)) = self.bufs.get_mut(i).map(Buf::take) {
            let all = copied.saturating_add(kept);
            if all > 0 {
                sh.sets.dirty(slot);
                let more = usize::try_from(all).unwrap_or(0);
                let done = a.job.done();
                a.job.set_done(done.saturating_add(more));
            }
            self.conclude(sh, os, i, a, n, fate);
        }
        true
    }

    /// An earlier job was left without: what was placed for this one goes to so_rcv, from where
    /// both are served in order.
    fn give_back(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize) -> bool {
        let Some(Buf::Landed(a, n, fate)) = self.bufs.get(i) else {
            return true;
        };
        let (n, fate) = (*n, *fate);
        if n > 0
            && let (Some(key), Some(pages)) = (sh.sets.key(a.slot), sh.sets.pages(a.slot))
        {
            let from = page_off(key.addr, a.off);
            if os.rcv_append_pages(pages, from, n).is_err() {
                os.retry_later();
                return false;
            }
            self.known = os.rcv_avail();
        }
        if let Some(b) = self.bufs.get_mut(i)
            && let Buf::Landed(a, ..) = b.take()
        {
            if fate == Fate::Cancel {
                self.end_cancelled(sh, os, a.job);
            } else {
                *b = Buf::Back(a.job);
            }
        }
        true
    }

    /// Decide what becomes of a settled job.
    fn conclude(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        i: usize,
        a: Armed<O::Job>,
        n: u32,
        fate: Fate,
    ) {
        let (piece_full, last) = (a.done() >= a.end, a.last_piece());
        let job = a.job;
        let done = job.done();
        let back = match fate {
            _ if done >= job.len() => false,
            Fate::Eof => false,
            Fate::Cancel => {
                self.end_cancelled(sh, os, job);
                return;
            }
            Fate::Report => done == 0 || (piece_full && !last),
            Fate::Yield => n == 0 || (piece_full && !last),
            Fate::Resync => true,
        };
        if fate == Fate::Cancel {
            os.count(Counter::CancelLate, 1);
        }
        if fate == Fate::Report {
            self.no_flush = done == 0;
        }
        if !back {
            self.end_job(sh, os, job, Ok(done));
            return;
        }
        if let Some(b) = self.bufs.get_mut(i) {
            *b = Buf::Back(job);
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
