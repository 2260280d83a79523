//! Reads whose memory changed under them: see that the program finds the bytes.
//!
//! The adapter, and copies from so_rcv, write to the pages held when the read was prepared. If
//! the map's generation has moved since (fork(2) and a store, or another mapping at the same
//! address), other pages may show at the buffer by the time the read ends. A read that has put
//! bytes in such pages does not end before the worker has compared what shows there now, page by
//! page, and copied the bytes to the pages that are others. Where nothing shows that may be
//! written, there is nobody to see the bytes.
//!
//! This is done as [`Want`]s of a few pages at a time: first for reading, which leaves
//! copy-on-write pages shared, then, if a page differs, for writing.

use super::Rx;
use crate::ddp;
use crate::errno::Errno;
use crate::os::{Job, JobId, JobQueue, Os, PageKey, Pages};
use crate::pageset::{Ticket, Want};
use crate::ppod::PAGE;
use crate::shared::Shared;

/// Bytes of a buffer looked at together.
const SPAN: u64 = 64 << 10;

/// The read being seen to.
pub(super) struct Mend {
    pub(super) job: JobId,
    /// Bytes of its page set that are done.
    pub(super) at: u32,
    /// Look at single pages: a larger piece could not be held.
    single: bool,
    /// A page was seen to be another: hold for writing, and copy.
    write: bool,
    /// What the worker was asked for.
    out: Option<(Ticket, PageKey)>,
}

impl<O: Os> Rx<O> {
    /// Bytes that the job's page set got, if its pages may be others by now.
    fn strayed(&self, sh: &Shared<O>, os: &O, job: &O::Job) -> Option<(PageKey, u32)> {
        let key = *sh.sets.key(job.slot()?)?;
        let start = usize::try_from(key.addr.checked_sub(job.addr())?).ok()?;
        let got = job.done().checked_sub(start).filter(|n| *n > 0)?;
        let n = u32::try_from(got).unwrap_or(u32::MAX).min(key.len);
        let now = os.page_key(job, start, key.len, true);
        (now != key).then_some((key, n))
    }

    /// The first job's set is to be let go with bytes in it: true if that must wait.
    pub(super) fn keep_head(&mut self, sh: &Shared<O>, os: &mut O) -> bool {
        let strayed = |j: &&O::Job| self.strayed(sh, os, j).is_some();
        self.stuck = self.queue.front().filter(strayed).map(O::Job::id);
        if self.stuck.is_some() {
            os.kick_worker();
        }
        self.stuck.is_some()
    }

    /// The first job waits for [`Rx::keep_head`]'s sake.
    pub(super) fn head_stuck(&self) -> bool {
        self.stuck.is_some() && self.stuck == self.queue.front().map(O::Job::id)
    }

    /// A job that ends well: true if it must wait its turn, and it was taken.
    pub(super) fn mend_first(
        &mut self,
        sh: &Shared<O>,
        os: &mut O,
        job: O::Job,
    ) -> Result<(), O::Job> {
        // Later ones wait as well, so that reads end in order.
        if self.ended.is_empty() && self.strayed(sh, os, &job).is_none() {
            return Err(job);
        }
        self.ended.push_back(job);
        os.kick_worker();
        Ok(())
    }

    /// The job is in the worker's hands or waits for that.
    pub(super) fn mending(&mut self, id: JobId) -> bool {
        self.ended.find_mut(|j| j.id() == id).is_some()
    }

    /// The pages to look at next, if any; answered by [`Rx::pages_ready`]. Also to be asked when
    /// the connection is gone.
    pub fn want_mend(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<Want> {
        if self.mend_hold {
            return None;
        }
        loop {
            let id = match &self.mend {
                Some(m) if m.out.is_some() => return None,
                Some(m) => m.job,
                None => {
                    let id = self.ended.front().map(O::Job::id).or(self.stuck)?;
                    self.mend = Some(Mend {
                        job: id,
                        at: 0,
                        single: false,
                        write: false,
                        out: None,
                    });
                    id
                }
            };
            if let Some(w) = self.mend_piece(sh, os, id) {
                return Some(w);
            }
            self.mend = None;
            self.mended(sh, os, id);
        }
    }

    /// The job in the worker's hands: the first that has ended, or else the first of all.
    fn seen_to(&self, id: JobId) -> Option<&O::Job> {
        let first = self.ended.front().or(self.queue.front());
        first.filter(|j| j.id() == id)
    }

    fn mend_piece(&mut self, sh: &mut Shared<O>, os: &mut O, id: JobId) -> Option<Want> {
        let job = self.seen_to(id)?;
        let (key, got) = self.strayed(sh, os, job)?;
        let m = self.mend.as_ref()?;
        let left = got.checked_sub(m.at).filter(|n| *n > 0)?;
        let addr = key.addr.wrapping_add(u64::from(m.at));
        let span = if m.single { PAGE } else { SPAN };
        let room = u32::try_from(span - addr % PAGE).unwrap_or(left);
        let len = left.min(room);
        let off = usize::try_from(addr.wrapping_sub(job.addr())).ok()?;
        let write = m.write;
        let want = os.page_key(job, off, len, write);
        let ticket = sh.sets.loose_ticket();
        self.mend.as_mut()?.out = Some((ticket, want));
        Some(Want {
            ticket,
            job: id,
            addr,
            len,
            write,
            key: want,
        })
    }

    /// The answer to [`Rx::want_mend`]; gives back what is none.
    pub(super) fn mend_ready(
        &mut self,
        sh: &Shared<O>,
        os: &mut O,
        ticket: Ticket,
        pages: Result<O::Pages, Errno>,
    ) -> Result<(), Result<O::Pages, Errno>> {
        let Some(mut m) = self.mend.take_if(|m| m.out.is_some_and(|o| o.0 == ticket)) else {
            return Err(pages);
        };
        let now = match m.out.take() {
            Some((_, now)) => now,
            None => return Ok(()),
        };
        let held = self.seen_to(m.job).and_then(|j| {
            let slot = j.slot()?;
            let key = sh.sets.key(slot)?;
            let first = ddp::page_off(key.addr, m.at) / PAGE as u32;
            Some((j, sh.sets.pages(slot)?, first as usize))
        });
        match (held, pages) {
            (Some((job, ours, first)), Ok(theirs)) => {
                let mut other = false;
                for i in 0..theirs.count() {
                    if theirs.phys(i) == ours.phys(first + i) {
                        continue;
                    }
                    other = true;
                    if m.write {
                        copy_page(os, ours, first + i, &theirs, i, &now);
                    }
                }
                let off = usize::try_from(now.addr.wrapping_sub(job.addr())).unwrap_or(0);
                let moved = os.page_key(job, off, now.len, now.write) != now;
                if other && !m.write {
                    m.write = true;
                } else if !(m.write && moved) {
                    // Else it may have been copied by a store before we did: look again.
                    m.at = m.at.saturating_add(now.len);
                    m.write = false;
                }
            }
            (_, Err(Errno::ENOMEM | Errno::EAGAIN | Errno::ENOBUFS)) => {
                self.mend_hold = true;
                os.retry_later();
            }
            (_, Err(_)) if theirs_pages(&now) > 1 => m.single = true,
            // Nothing to be written there, or no job any more.
            _ => {
                m.at = m.at.saturating_add(now.len);
                m.write = false;
            }
        }
        self.mend = Some(m);
        Ok(())
    }

    /// A shortage may be over.
    pub fn retry_mend(&mut self, os: &mut O) {
        if self.mend_hold {
            self.mend_hold = false;
            os.kick_worker();
        }
    }

    /// The bytes of a job are where its program finds them.
    fn mended(&mut self, sh: &mut Shared<O>, os: &mut O, id: JobId) {
        if self.stuck == Some(id) {
            self.stuck = None;
        }
        if let Some(job) = self.ended.remove(id) {
            let done = job.done();
            self.let_go(sh, os, job, Ok(done));
        } else {
            // The first of all goes on to its next piece.
            self.release_head(sh, os);
            self.pump(sh, os);
        }
    }
}

/// Pages a key touches.
fn theirs_pages(k: &PageKey) -> u32 {
    crate::pageset::pages_of(k.addr, k.len)
}

/// Copy the bytes of `now` that lie in its page `i`.
fn copy_page<O: Os>(
    os: &mut O,
    ours: &O::Pages,
    from: usize,
    theirs: &O::Pages,
    i: usize,
    now: &PageKey,
) {
    let page = PAGE as u32;
    let in_page = ddp::page_off(now.addr, 0);
    let base = u32::try_from(i).unwrap_or(0).saturating_mul(page);
    let begin = base.max(in_page);
    let end = base
        .saturating_add(page)
        .min(in_page.saturating_add(now.len));
    let n = end.saturating_sub(begin);
    let at = u32::try_from(from).unwrap_or(0).saturating_mul(page);
    os.pages_copy(ours, at.saturating_add(begin - base), theirs, begin, n);
}
