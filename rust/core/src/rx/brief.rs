//! Reads that keep no page set: what so_rcv has is copied to pages held for just that copy.
//!
//! Two kinds of read are served so when their turn comes: those whose buffer is in several places
//! (`aio_readv`), which stand in the queue with the others so that the order of the stream is
//! kept, and those for which the budgets of wired pages have no room. Such pages are not charged
//! to the budgets: a worker holds no more than one piece of [`SPAN`] bytes at a time.

use super::{Rx, Wanted};
use crate::ddp::{Buf, page_off};
use crate::errno::Errno;
use crate::os::{Counter, Job, JobId, JobQueue, Os, PageKey, Pages};
use crate::pageset::Want;
use crate::ppod::PAGE;
use crate::shared::Shared;

/// Bytes copied at once, from the start of the first page.
const SPAN: u64 = 64 << 10;

impl<O: Os> Rx<O> {
    /// The first job is to be served in this way, now.
    pub(super) fn brief_due(&self, os: &O) -> bool {
        let alone = self.bufs.iter().all(Buf::is_empty) && self.stuck.is_none();
        let head = |j: &O::Job| j.slot().is_none() && (j.scattered() || self.hold);
        alone
            && !os.rcv_tls()
            && !self.brief_hold
            && self.queue.front().is_some_and(head)
            && os.rcv_avail() > 0
    }

    /// The pages for the next copy, if there is to be one.
    pub(super) fn want_brief(&mut self, sh: &mut Shared<O>, os: &O) -> Option<Want<O::Lent>> {
        if !self.brief_due(os) {
            return None;
        }
        let job = self.queue.front()?;
        let (addr, run) = job.run(job.done());
        let room = u32::try_from(SPAN - addr % PAGE).unwrap_or(0);
        let len = u32::try_from(run).unwrap_or(u32::MAX);
        let len = len.min(room).min(os.rcv_avail());
        let key = os.page_key(job, job.done(), len, true);
        let ticket = sh.sets.loose_ticket();
        self.want = Some(Wanted {
            ticket,
            job: job.id(),
            brief: Some(key),
            doomed: None,
        });
        Some(Want {
            ticket,
            job: os.lend(job),
            addr,
            len,
            write: true,
            key,
        })
    }

    /// The first job has the pages for one copy.
    pub(super) fn brief_ready(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        id: JobId,
        key: &PageKey,
        pages: Result<O::Pages, Errno>,
    ) {
        let mut pages = match pages {
            Ok(p) => p,
            Err(e) => {
                self.hold_failed(sh, os, id, e);
                return;
            }
        };
        let first = |j: &&mut O::Job| j.id() == id && j.slot().is_none();
        let Some(job) = self.queue.front_mut().filter(first) else {
            return;
        };
        // Else other pages may show there by now: ask anew.
        if os.page_key(job, job.done(), key.len, true) != *key {
            return;
        }
        let at = page_off(key.addr, 0);
        let Some(n) = os.with_rcv_io(|os| os.rcv_copy(&pages, at, key.len)) else {
            self.brief_hold = true;
            os.retry_later();
            return;
        };
        if n == 0 {
            return;
        }
        pages.dirty();
        drop(pages);
        let done = job.done().saturating_add(usize::try_from(n).unwrap_or(0));
        job.set_done(done);
        let why = if job.scattered() {
            Counter::RxCopiedVectored
        } else {
            Counter::RxCopiedNoBudget
        };
        let full = done >= job.len();
        self.known = os.rcv_avail();
        self.count_copied(os, n, Some(why));
        self.took(os, n);
        if full {
            self.end_head(sh, os, None);
        }
    }

    /// The pages of a queued job could not be held.
    pub(super) fn hold_failed(&mut self, sh: &mut Shared<O>, os: &mut O, id: JobId, e: Errno) {
        if let Errno::ENOMEM | Errno::EAGAIN | Errno::ENOBUFS = e {
            self.hold = true;
            self.brief_hold = true;
            os.retry_later();
        } else if let Some(job) = self.queue.remove(id) {
            let done = job.done();
            let r = if done > 0 { Ok(done) } else { Err(e) };
            self.end_job(sh, os, job, r);
        }
    }
}
