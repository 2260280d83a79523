//! The end of all reads: when the adapter has said its last word, or will never say it.

use super::Rx;
use crate::ddp::{Buf, Mode};
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::{Job, JobQueue, Os};
use crate::shared::Shared;
use crate::since::Since;

impl<O: Os> Rx<O> {
    /// The connection is gone: the adapter has said its last word, nor will it say anything but the
    /// replies that are due ([`Rx::answered`]). Every job ends: short with what it has, else with
    /// end of file; only the first of those has `err`, as so_error is reported once. A job for
    /// which a worker is holding pages ends in [`Rx::pages_ready`].
    ///
    /// True: `err` was reported, and so_error was not set before (`tcp_drop` is still to come).
    pub(crate) fn fail_all(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        err: Option<Errno>,
        done: &CardDone,
    ) -> bool {
        for i in 0..2 {
            self.found(sh, os, i, done);
        }
        if self.dead {
            return false;
        }
        self.land_passed(done);
        self.end_all(sh, os, err, Some(done))
    }

    /// The adapter does not answer. Every job ends as in [`Rx::fail_all`], but those whose pages
    /// the adapter may still write to with EIO; and these pages stay held.
    pub(crate) fn orphan_all(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        err: Option<Errno>,
    ) -> bool {
        !self.dead && self.end_all(sh, os, err, None)
    }

    fn end_all(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        err: Option<Errno>,
        done: Option<&CardDone>,
    ) -> bool {
        let _ = self.settle(sh, os);
        self.dead = true;
        self.mode = Mode::Off;
        let dropped = os.dropped();
        let mut why = err.and_then(|e| if dropped { os.take_so_error() } else { Some(e) });
        let due = why.is_some();
        let mut result = |job: &O::Job| match job.done() {
            0 => why.take().map_or(Ok(0), Err),
            n => Ok(n),
        };
        for i in [self.active, self.active ^ 1] {
            let job = match self.bufs.at_mut(i).take() {
                Buf::Posted(a) | Buf::Invalidating(a) => match done {
                    Some(done) => a.back(done).job,
                    None => {
                        let (job, orphan) = a.orphan();
                        *self.bufs.at_mut(i) = Buf::Orphan(orphan);
                        self.end_job(sh, os, job, Err(Errno::EIO));
                        continue;
                    }
                },
                Buf::Landed(a, ..) => a.job,
                Buf::Back(job) => job,
                Buf::Orphan(o) => {
                    *self.bufs.at_mut(i) = Buf::Orphan(o);
                    continue;
                }
                Buf::Empty => continue,
            };
            let r = result(&job);
            self.end_job(sh, os, job, r);
        }
        while let Some(job) = self.queue.pop_front() {
            let r = result(&job);
            self.end_job(sh, os, job, r);
        }
        for i in 0..2 {
            if let Some((m, _)) = self.parked.at_mut(i).take() {
                os.rcv_discard(m);
            }
        }
        due && why.is_none() && !dropped
    }

    /// The adapter's word about a buffer came after all: if its pages were kept for that, they are
    /// anybody's again.
    pub(super) fn found(&mut self, sh: &mut Shared<O>, os: &mut O, i: usize, done: &CardDone) {
        let b = self.bufs.at_mut(i);
        *b = match b.take() {
            Buf::Orphan(o) => {
                os.slot_unuse(o.back(done));
                sh.sets.release_idle(os);
                Buf::Empty
            }
            other => other,
        };
    }

    /// Slots that the adapter may still write to though their jobs have ended.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = u16> + '_ {
        self.bufs.iter().filter_map(|b| match b {
            Buf::Orphan(o) => Some(o.slot()),
            _ => None,
        })
    }

    /// CPL_SET_TCB_RPLs that are to come.
    pub(crate) fn replies_due(&self) -> u8 {
        let asked = self.asked.iter().chain([&self.enabling]);
        asked.map(|a| u8::from(*a)).sum()
    }

    /// Since when answers are due, or a question cannot be asked, about a buffer or about DDP.
    pub(crate) fn due(&self) -> Option<Since> {
        let marked = |b: &Buf<O::Job>| matches!(b, Buf::Posted(a) if a.stop.is_some());
        let mute = self.mute && self.bufs.iter().any(marked);
        self.since.filter(|_| self.replies_due() > 0 || mute)
    }

    /// Something more is about to be due.
    pub(super) fn wait(&mut self, os: &O) {
        if self.due().is_none() {
            self.since = Some(Since::new(os.now_ms()));
        }
    }

    /// An answer has come: if others are due, it shows that the adapter is at it.
    pub(super) fn wait_on(&mut self, os: &O) {
        if self.due().is_some() {
            self.since = Some(Since::new(os.now_ms()));
        }
    }
}
