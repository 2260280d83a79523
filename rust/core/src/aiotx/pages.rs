//! Page sets of write jobs: found in the cache, or asked of a worker.
//!
//! Context: inpcb write lock; the worker holds pages with no lock and comes back. Writes may wait
//! long for a peer that does not read, so they never use so many sets that no read could be
//! served: two ends that write to each other would wait for ever.

use super::piece;
use crate::errno::Errno;
use crate::os::{Job, JobId, JobQueue, Os, PageKey};
use crate::pageset::{MIN_SLOTS, Ticket, Want};
use crate::shared::Shared;
use crate::tx::{Tx, TxFlags};

/// Page sets left for reads.
const READ_SLOTS: usize = 4;
/// Slots looked at when counting.
const MAX_SLOTS: u16 = 256;

/// Pages were asked for.
pub(super) struct Wanted<J> {
    pub(super) ticket: Ticket,
    pub(super) job: JobId,
    /// For the job's next piece, not for the one it is at.
    pub(super) ahead: bool,
    /// The job, once it is to end: the worker still looks at it.
    pub(super) doomed: Option<(J, Errno)>,
}

/// Most page sets that writes may use.
pub(super) fn most_sets<O: Os>(sh: &Shared<O>) -> usize {
    usize::from(sh.tun.cache).max(MIN_SLOTS) - READ_SLOTS
}

/// Page sets that writes use.
pub(super) fn sets_used<O: Os>(sh: &Shared<O>, os: &O) -> usize {
    let ours = |s: &u16| sh.sets.key(*s).is_some_and(|k| !k.write) && os.slot_users(*s) > 0;
    (0..MAX_SLOTS).filter(ours).count()
}

/// Writes may use one more page set. `jobs` of them are here: no more than that many sets.
fn may_grow<O: Os>(sh: &Shared<O>, os: &O, jobs: usize) -> bool {
    let most = most_sets(sh);
    jobs < most || sets_used(sh, os) < most
}

fn give<O: Os>(os: &mut O, slot: u16, job: &mut O::Job) {
    os.slot_use(slot);
    job.set_slot(Some(slot));
}

/// Give the job its page set if it is cached and may be used.
pub(super) fn attach<O: Os>(sh: &mut Shared<O>, os: &mut O, jobs: usize, job: &mut O::Job) {
    let (off, len) = piece(job.done(), job.len());
    let key = os.page_key(job, off, len, false);
    if let Some(slot) = sh.sets.lookup(os, &key)
        && (os.slot_users(slot) > 0 || may_grow(sh, os, jobs))
    {
        give(os, slot, job);
    }
}

impl<O: Os> Tx<O> {
    /// The pages to hold next.
    pub fn want_pages(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<Want> {
        self.writes.kicked = false;
        if self.writes.io_busy {
            self.writes.io_busy = false;
            self.pump(sh, os);
            if self.writes.io_busy {
                // The writer is still inside, and perhaps no acknowledgement is on its way.
                os.retry_later();
            }
        }
        if self.writes.want.is_some() || self.writes.hold {
            return None;
        }
        let mut found = false;
        let w = &mut self.writes;
        let jobs = w.jobs();
        let missing = loop {
            let Some(job) = w.parked.find_mut(|j| j.slot().is_none()) else {
                break None;
            };
            attach(sh, os, jobs, job);
            if job.slot().is_none() {
                let (off, len) = piece(job.done(), job.len());
                break Some((job.id(), os.page_key(job, off, len, false)));
            }
            found = true;
        };
        if found {
            self.pump(sh, os);
        }
        let (id, key, ahead) = match missing {
            Some((id, key)) => (id, key, false),
            None => {
                let (id, key) = self.next_piece(os)?;
                (id, key, true)
            }
        };
        let ticket = self.reserve(sh, os, id, key, ahead)?;
        self.writes.want = Some(Wanted {
            ticket,
            job: id,
            ahead,
            doomed: None,
        });
        Some(Want {
            ticket,
            job: id,
            addr: key.addr,
            len: key.len,
            write: false,
            key,
        })
    }

    /// Room for a page set. If the first job needs it, later ones give up theirs.
    fn reserve(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        id: JobId,
        key: PageKey,
        ahead: bool,
    ) -> Option<Ticket> {
        let w = &mut self.writes;
        let first = w.parked.front().is_some_and(|j| j.id() == id) && !ahead;
        loop {
            if ahead || may_grow(sh, os, w.jobs()) {
                let job = w.parked.find_mut(|j| j.id() == id)?;
                if let Some(t) = sh.sets.reserve(os, job, key) {
                    return Some(t);
                }
            }
            if !first {
                return None;
            }
            let later = |j: &O::Job| j.id() != id && j.slot().is_some();
            let Some(job) = w.parked.find_mut(later) else {
                w.hold = true;
                os.retry_later();
                return None;
            };
            if let Some(slot) = job.slot() {
                os.slot_unuse(slot);
                job.set_slot(None);
            }
        }
    }

    /// The piece after the one the first job is at, to be held ahead; once.
    fn next_piece(&mut self, os: &O) -> Option<(JobId, PageKey)> {
        let job = self.writes.parked.front()?;
        let (off, held) = piece(job.done(), job.len());
        let next = off + held as usize;
        if next >= job.len() || self.writes.ahead == Some((job.id(), next)) {
            return None;
        }
        let (_, len) = piece(next, job.len());
        self.writes.ahead = Some((job.id(), next));
        Some((job.id(), os.page_key(job, next, len, false)))
    }

    /// The ticket is one of ours.
    pub(crate) fn owns(&self, t: &Ticket) -> bool {
        self.writes.want.as_ref().is_some_and(|w| w.ticket == *t)
    }

    /// The answer to [`Tx::want_pages`].
    pub fn pages_ready(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        ticket: Ticket,
        pages: Result<O::Pages, Errno>,
    ) {
        let Some(w) = self.writes.want.take() else {
            return;
        };
        let filled = sh.sets.fill(os, ticket, pages);
        if let Some((job, why)) = w.doomed {
            self.writes.end_job(os, job, why);
            if self.flags.contains(TxFlags::ENDED) {
                self.writes.finish(os);
            }
            self.writes.acked(os, self.acked);
        } else if !w.ahead {
            match filled {
                Ok(slot) => {
                    if let Some(job) = self.writes.parked.find_mut(|j| j.id() == w.job) {
                        give(os, slot, job);
                    }
                }
                Err(why) => {
                    if let Some(job) = self.writes.parked.remove(w.job) {
                        self.writes.end_job(os, job, why);
                        self.writes.acked(os, self.acked);
                    }
                }
            }
        }
        if !self.flags.contains(TxFlags::STOPPED) {
            self.pump(sh, os);
        }
    }
}
