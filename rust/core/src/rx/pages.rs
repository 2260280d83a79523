//! Page sets for queued reads: from the cache, or by a worker that may sleep.

use super::{Rx, Wanted};
use crate::ddp::{self, MIN_SPAN};
use crate::errno::Errno;
use crate::os::{Counter, Job, JobQueue, Os, PageKey};
use crate::pageset::{Ticket, Want};
use crate::shared::Shared;

/// Queued reads that get their pages ahead of time, so that one can be posted the moment a
/// buffer comes back.
const LOOKAHEAD: usize = 2;

/// Mark of a job that was given other pages, because the map had changed before any byte came.
const RENEWED: u32 = 1;

/// The map has changed since the job's pages were held, and they are untouched.
fn outdated<O: Os>(sh: &Shared<O>, os: &O, job: &O::Job, slot: u16) -> bool {
    sh.sets.key(slot).is_some_and(|key| {
        let start = usize::try_from(key.addr.wrapping_sub(job.addr())).unwrap_or(usize::MAX);
        job.done() == start && os.page_key(job, start, key.len, key.write) != *key
    })
}

/// Key of the piece a job is at.
fn key_of<O: Os>(os: &O, job: &O::Job, span: u32) -> PageKey {
    let p = ddp::piece(job.addr(), job.len(), job.done(), span);
    os.page_key(job, p.start, p.len, true)
}

impl<O: Os> Rx<O> {
    /// The page set of the first queued job, if it has or finds one.
    pub(super) fn head_slot(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<u16> {
        let span = self.span;
        let job = self.queue.front_mut().filter(|j| !j.scattered())?;
        if let Some(slot) = job.slot() {
            if job.mark() == RENEWED || !outdated(sh, os, job, slot) {
                return Some(slot);
            }
            // Once only: a program may change its map faster than pages are held.
            job.set_mark(RENEWED);
            job.set_slot(None);
            os.slot_unuse(slot);
        }
        let key = key_of(os, job, span);
        let slot = sh.sets.lookup(os, &key)?;
        os.slot_use(slot);
        job.set_slot(Some(slot));
        Some(slot)
    }

    /// The first queued job, of those that may have pages, that has none.
    fn unprepared(&mut self) -> Option<&mut O::Job> {
        let mut before = 0;
        let job = self.queue.find_mut(|j| {
            let none = j.slot().is_none() && !j.scattered();
            before += usize::from(!none);
            none
        })?;
        (before < LOOKAHEAD).then_some(job)
    }

    /// Attach cached page sets to the jobs that may have pages; true if one is left without.
    fn attach(&mut self, sh: &mut Shared<O>, os: &mut O) -> bool {
        let span = self.span;
        while let Some(job) = self.unprepared() {
            let key = key_of(os, job, span);
            match sh.sets.lookup(os, &key) {
                Some(slot) => {
                    os.slot_use(slot);
                    job.set_slot(Some(slot));
                }
                None => return true,
            }
        }
        false
    }

    /// Have the worker come if a job needs it.
    pub(super) fn stage(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if self.want.is_some() || self.kicked || self.ended(os) {
            return;
        }
        if self.brief_due(os) || (!self.hold && self.attach(sh, os)) {
            self.kicked = true;
            os.kick_worker();
        }
    }

    /// Pages to hold next, if any. One request is out at a time; the next is to be had after
    /// [`Rx::pages_ready`].
    pub fn want_pages(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<Want<O::Lent>> {
        // A set may have become available since the worker was asked for.
        if !self.dead {
            self.note_plain(os);
            self.pump(sh, os);
        }
        self.kicked = false;
        if self.want.is_some() || self.dead || self.ended(os) {
            return None;
        }
        if let Some(w) = self.want_brief(sh, os) {
            return Some(w);
        }
        if self.hold || !self.attach(sh, os) {
            return None;
        }
        sh.sets.set_limit(sh.tun.cache);
        loop {
            let span = self.span;
            let job = self.unprepared()?;
            let key = key_of(os, job, span);
            let id = job.id();
            let lent = os.lend(job);
            if let Some(ticket) = sh.sets.reserve(os, job, key) {
                os.count(Counter::CacheMiss, 1);
                self.want = Some(Wanted {
                    ticket,
                    job: id,
                    brief: None,
                    doomed: None,
                });
                return Some(Want {
                    ticket,
                    job: lent,
                    addr: key.addr,
                    len: key.len,
                    write: true,
                    key,
                });
            }
            // Budgets are short: a smaller piece may still fit.
            if span <= MIN_SPAN || key.len <= MIN_SPAN {
                self.hold = true;
                os.retry_later();
                return self.want_brief(sh, os);
            }
            self.span = (span / 2).next_multiple_of(MIN_SPAN).max(MIN_SPAN);
        }
    }

    /// The answer to [`Rx::want_pages`]. A job whose pages cannot be held ends with the error,
    /// or short if bytes were copied to it before; if only memory is short, it waits.
    pub fn pages_ready(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        ticket: Ticket,
        pages: Result<O::Pages, Errno>,
    ) {
        let pages = match self.mend_ready(sh, os, ticket, pages) {
            Ok(()) => return,
            Err(pages) => pages,
        };
        let Some(w) = self.want.take_if(|w| w.ticket == ticket) else {
            let _ = sh.sets.fill(os, ticket, pages);
            return;
        };
        if let Some((job, result)) = w.doomed {
            let _ = sh.sets.fill(os, ticket, pages);
            os.complete(job, result);
        } else if let Some(key) = w.brief {
            self.brief_ready(sh, os, w.job, &key, pages);
        } else {
            match sh.sets.fill(os, ticket, pages) {
                Ok(slot) => {
                    // It may have found its pages in the cache meanwhile.
                    let needy = |j: &O::Job| j.id() == w.job && j.slot().is_none();
                    if let Some(job) = self.queue.find_mut(needy) {
                        os.slot_use(slot);
                        job.set_slot(Some(slot));
                    }
                }
                Err(e) => self.hold_failed(sh, os, w.job, e),
            }
        }
        if !self.dead {
            self.note_plain(os);
            self.pump(sh, os);
            self.credits(sh, os);
            os.publish(&sh.seq);
        }
    }

    /// Nothing more will be read: no data, and none to come.
    pub(super) fn ended(&self, os: &O) -> bool {
        (self.fin || os.rcv_shut()) && os.rcv_avail() == 0
    }
}
