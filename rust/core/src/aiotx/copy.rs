//! Write jobs whose bytes are copied: asked of a worker, appended in their turn.
//!
//! Context: inpcb write lock; the worker copies with no lock and comes back.

use super::pages::Wanted;
use super::{MAX_COPY, Step};
use crate::errno::Errno;
use crate::os::{Counter, Job, JobId, JobQueue, Os};
use crate::pageset::Want;
use crate::shared::Shared;
use crate::tx::{Tx, seq_lt};

/// Bytes of a job, copied.
pub(super) struct Copied<M> {
    pub(super) job: JobId,
    m: M,
    len: u32,
}

impl<O: Os> Tx<O> {
    /// The bytes to copy next: of the first job, if it is to be copied and there is room.
    pub(super) fn want_copy(&mut self, sh: &mut Shared<O>, os: &O) -> Option<Want<O::Lent>> {
        let w = &mut self.writes;
        let job = w.parked.front().filter(|j| j.copies())?;
        let (id, done) = (job.id(), job.done());
        if w.copy.is_some() {
            return None;
        }
        let left = u32::try_from(job.len().saturating_sub(done)).unwrap_or(u32::MAX);
        let len = w.room(os, left, true).min(left).min(MAX_COPY);
        if len == 0 {
            return None;
        }
        let key = os.page_key(job, done, len, false);
        let lent = os.lend(job);
        let ticket = sh.sets.copy_ticket();
        w.want = Some(Wanted {
            ticket,
            job: id,
            ahead: false,
            doomed: None,
        });
        Some(Want {
            ticket,
            job: lent,
            addr: key.addr,
            len,
            write: false,
            key,
        })
    }

    /// The answer to a want of [`Tx::want_copy`]'s.
    pub fn copied(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        want: &Want<O::Lent>,
        m: Result<O::Mbuf, Errno>,
    ) {
        let Some(w) = self.writes.want.take_if(|w| w.ticket == want.ticket) else {
            return;
        };
        if let Some((job, why)) = w.doomed {
            self.writes.end_job(os, job, why);
            self.finish_late(os);
        } else {
            match m {
                // It may have ended short meanwhile.
                Ok(m) if self.writes.parked.front().is_some_and(|j| j.id() == w.job) => {
                    self.writes.copy = Some(Copied {
                        job: w.job,
                        m,
                        len: want.len,
                    });
                }
                Ok(_) => {}
                Err(why) => {
                    if let Some(job) = self.writes.parked.remove(w.job) {
                        self.writes.end_job(os, job, why);
                    }
                }
            }
        }
        self.writes.acked(os, self.acked);
        self.pump(sh, os);
    }

    /// Append what was copied for the first job.
    pub(super) fn append_copy(&mut self, os: &mut O, locked: &mut bool) -> Option<Step> {
        if self.writes.copy.is_none() {
            if self.writes.want.is_none() {
                self.writes.kick(os);
            }
            return None;
        }
        self.lock_io(os, locked)?;
        let w = &mut self.writes;
        let job = w.parked.front_mut()?;
        if job.done() == 0 || !seq_lt(self.acked, job.mark()) {
            // Nothing of it that pages are held for is in flight.
            job.set_mark(self.acked);
        }
        let c = w.copy.take()?;
        os.snd_append(job, c.m);
        os.count(Counter::TxCopiedOctets, u64::from(c.len));
        job.set_done(job.done() + c.len as usize);
        if job.done() >= job.len() {
            let job = w.parked.pop_front()?;
            w.queued(os, job, self.acked);
        }
        Some(Step::Moved)
    }
}
