//! Ending jobs, by cancel or otherwise.

use super::Rx;
use crate::ddp::{Buf, Fate, Stop};
use crate::errno::Errno;
use crate::os::{Counter, Job, JobId, JobQueue, Os};
use crate::shared::Shared;

impl<O: Os> Rx<O> {
    /// `aio_cancel` of a job, wherever it is. True: it is ended, or will be as soon as the
    /// adapter has let go of its pages (or the worker of the job), with the truth about what
    /// was moved: ECANCELED if nothing, else a short count (I8). False: it is not here.
    pub fn cancel(&mut self, sh: &mut Shared<O>, os: &mut O, id: JobId) -> bool {
        if let Some(job) = self.queue.remove(id) {
            self.end_cancelled(sh, os, job);
            self.pump(sh, os);
            return true;
        }
        for i in 0..2 {
            let b = self.bufs.at_mut(i);
            match b.take() {
                Buf::Posted(mut a) if a.job.id() == id => {
                    a.stop(Stop::Cancel);
                    *b = Buf::Posted(a);
                }
                Buf::Invalidating(mut a) if a.job.id() == id => {
                    a.stop(Stop::Cancel);
                    *b = Buf::Invalidating(a);
                }
                Buf::Landed(a, n, _) if a.job.id() == id => {
                    *b = Buf::Landed(a, n, Fate::Cancel);
                }
                Buf::Back(job) if job.id() == id => self.end_cancelled(sh, os, job),
                other => {
                    *b = other;
                    continue;
                }
            }
            self.pump(sh, os);
            return true;
        }
        if self.mending(id) {
            return true;
        }
        let doomed = self.want.as_ref().and_then(|w| w.doomed.as_ref());
        doomed.is_some_and(|(job, _)| job.id() == id)
    }

    /// Complete a cancelled job that nothing writes to.
    pub(super) fn end_cancelled(&mut self, sh: &mut Shared<O>, os: &mut O, job: O::Job) {
        let done = job.done();
        if done > 0 {
            os.count(Counter::CancelShort, 1);
            self.end_job(sh, os, job, Ok(done));
        } else {
            os.count(Counter::CancelClean, 1);
            self.end_job(sh, os, job, Err(Errno::ECANCELED));
        }
    }

    /// Complete a job that nothing writes to, now or when the worker has let go of it.
    pub(super) fn end_job(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        mut job: O::Job,
        mut result: Result<usize, Errno>,
    ) {
        if result.is_ok() && self.lost(sh, &job) {
            result = Err(Errno::EFAULT);
        }
        if result.is_ok_and(|n| n < job.len()) {
            os.count(Counter::RxShort, 1);
        }
        if result.is_ok() {
            job = match self.mend_first(sh, os, job) {
                Ok(()) => return,
                Err(job) => job,
            };
        }
        self.let_go(sh, os, job, result);
    }

    /// The same, when its bytes are where they belong.
    pub(super) fn let_go(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        mut job: O::Job,
        result: Result<usize, Errno>,
    ) {
        self.release(sh, os, &mut job);
        match &mut self.want {
            Some(w) if w.job == job.id() => w.doomed = Some((job, result)),
            _ => os.complete(job, result),
        }
    }

    /// The job lets go of its page set, which stays cached.
    pub(super) fn release(&mut self, sh: &mut Shared<O>, os: &mut O, job: &mut O::Job) {
        if let Some(slot) = job.slot() {
            job.set_slot(None);
            os.slot_unuse(slot);
            sh.sets.trim(os);
            // A set can be evicted now.
            self.hold = false;
        }
    }
}
