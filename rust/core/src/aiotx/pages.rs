//! Page sets of write jobs: found in the cache, or asked of a worker.
//!
//! Context: inpcb write lock; the worker holds pages with no lock and comes back. Writes may wait
//! long for a peer that does not read, so they never use so many sets that no read could be
//! served: two ends that write to each other would wait for ever.

use crate::errno::Errno;
use crate::os::{Job, JobId, JobQueue, Os, PageKey};
use crate::pageset::{MIN_SLOTS, Ticket, Want};
use crate::shared::Shared;
use crate::tx::Tx;

/// Page sets left for reads.
pub(super) const READ_SLOTS: usize = 4;
/// Least piece tried when the budgets of wired pages are short.
const MIN_SPAN: usize = 64 << 10;
/// Slots looked at when counting.
const MAX_SLOTS: u16 = 256;

/// Parked jobs that may have page sets: as many as there may be sets. What is behind them gets
/// its pages when it comes nearer, so that no step looks at all of a long queue.
pub(super) const LOOKAHEAD: usize = 64;

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
fn most_sets<O: Os>(sh: &Shared<O>) -> usize {
    let limit = usize::from(sh.tun.cache).max(MIN_SLOTS);
    limit.min(sh.sets.slots()).saturating_sub(READ_SLOTS)
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

/// Key of the piece of `job` that byte `at` lies in, if pieces are of `span` bytes.
fn key_of<O: Os>(os: &O, job: &O::Job, at: usize, span: usize) -> PageKey {
    let off = at - at % span;
    let len = job.len().saturating_sub(off).min(span);
    os.page_key(job, off, len as u32, false)
}

/// The piece of `job` that `slot` holds: offset and length. `None` if it is not the one the job
/// is at.
pub(super) fn piece<O: Os>(sh: &Shared<O>, job: &O::Job, slot: u16) -> Option<(usize, usize)> {
    let key = sh.sets.key(slot)?;
    let off = usize::try_from(key.addr.wrapping_sub(job.addr())).ok()?;
    let len = key.len as usize;
    job.done().checked_sub(off).filter(|d| *d < len)?;
    Some((off, len))
}

fn give<O: Os>(os: &mut O, slot: u16, job: &mut O::Job) {
    os.slot_use(slot);
    job.set_slot(Some(slot));
}

/// The first job that wants a page set and may have one.
fn next_without<J: Job>(parked: &mut impl JobQueue<J>) -> Option<&mut J> {
    let wants = |j: &J| j.slot().is_none() && !j.copies();
    let mut seen = 0;
    let near = parked.find_mut(|j| {
        seen += 1;
        wants(j) || seen >= LOOKAHEAD
    });
    near.filter(|j| wants(j))
}

/// Give the job its page set if it is cached and may be used.
pub(super) fn attach<O: Os>(
    sh: &mut Shared<O>,
    os: &mut O,
    jobs: usize,
    span: usize,
    job: &mut O::Job,
) {
    let key = key_of(os, job, job.done(), span);
    if let Some(slot) = sh.sets.lookup(os, &key)
        && (os.slot_users(slot) > 0 || may_grow(sh, os, jobs))
    {
        give(os, slot, job);
    }
}

impl<O: Os> Tx<O> {
    /// The pages to hold next.
    pub fn want_pages(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<Want<O::Lent>> {
        if self.writes.io_busy {
            self.writes.io_busy = false;
            // This is the worker, or as good as one: it must not call itself over and over.
            self.writes.kicked = true;
            self.pump(sh, os);
            if self.writes.io_busy {
                // The writer is still inside, and perhaps no acknowledgement is on its way.
                os.retry_later();
            }
        }
        self.writes.kicked = false;
        if self.writes.want.is_some() {
            return None;
        }
        if let Some(want) = self.want_copy(sh, os) {
            return Some(want);
        }
        if self.writes.hold {
            return None;
        }
        let mut found = false;
        let w = &mut self.writes;
        let (jobs, span) = (w.jobs(), w.span);
        let missing = loop {
            let Some(job) = next_without(&mut w.parked) else {
                break None;
            };
            attach(sh, os, jobs, span, job);
            if job.slot().is_none() {
                break Some((job.id(), os.lend(job), key_of(os, job, job.done(), span)));
            }
            found = true;
        };
        if found {
            self.pump(sh, os);
        }
        let ahead = missing.is_none();
        let (id, lent, key) = missing.or_else(|| self.next_piece(sh, os))?;
        let Some((ticket, key)) = self.reserve(sh, os, id, key, ahead) else {
            return self.want_copy(sh, os);
        };
        self.writes.want = Some(Wanted {
            ticket,
            job: id,
            ahead,
            doomed: None,
        });
        Some(Want {
            ticket,
            job: lent,
            addr: key.addr,
            len: key.len,
            write: false,
            key,
        })
    }

    /// Room for a page set. If the first job needs it, later ones give up theirs, then it does
    /// with a smaller piece, then it is copied.
    fn reserve(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        id: JobId,
        mut key: PageKey,
        ahead: bool,
    ) -> Option<(Ticket, PageKey)> {
        let w = &mut self.writes;
        let first = w.parked.front().is_some_and(|j| j.id() == id) && !ahead;
        loop {
            if ahead || may_grow(sh, os, w.jobs()) {
                let job = w.parked.find_mut(|j| j.id() == id)?;
                if let Some(t) = sh.sets.reserve(os, job, key) {
                    return Some((t, key));
                }
            }
            if !first {
                return None;
            }
            let later = |j: &O::Job| j.id() != id && j.slot().is_some();
            if let Some(job) = w.parked.find_mut(later) {
                os.slot_unuse(job.slot()?);
                job.set_slot(None);
            } else if w.span > MIN_SPAN {
                w.span /= 2;
                let job = w.parked.front()?;
                key = key_of(os, job, job.done(), w.span);
            } else if w.jobs() > 1 && !may_grow(sh, os, w.jobs()) {
                // Acknowledgements bring sets back.
                w.hold = true;
                os.retry_later();
                return None;
            } else {
                w.parked.front_mut()?.set_copies();
                return None;
            }
        }
    }

    /// The piece after the one the first job is at, to be held ahead; once.
    fn next_piece(&mut self, sh: &Shared<O>, os: &O) -> Option<(JobId, O::Lent, PageKey)> {
        let job = self.writes.parked.front()?;
        let (off, len) = piece(sh, job, job.slot()?)?;
        let next = off + len;
        if next >= job.len() || self.writes.ahead == Some((job.id(), (next / 4096) as u32)) {
            return None;
        }
        self.writes.ahead = Some((job.id(), (next / 4096) as u32));
        let key = key_of(os, job, next, self.writes.span);
        Some((job.id(), os.lend(job), key))
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
            self.finish_late(os);
        } else if !w.ahead {
            match filled {
                Ok(slot) => {
                    // It may have found its pages in the cache meanwhile, and be past them.
                    let at_it = |j: &O::Job| piece(sh, j, slot).is_some();
                    let needy = |j: &O::Job| j.id() == w.job && j.slot().is_none() && at_it(j);
                    if let Some(job) = self.writes.parked.find_mut(needy) {
                        give(os, slot, job);
                    }
                }
                // Perhaps they can be read all the same.
                Err(_) => {
                    if let Some(job) = self.writes.parked.find_mut(|j| j.id() == w.job) {
                        job.set_copies();
                    }
                }
            }
        }
        self.writes.acked(os, self.acked);
        self.pump(sh, os);
    }
}
