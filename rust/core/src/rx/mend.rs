//! Reads whose memory changed under them: see that the program finds the bytes.
//!
//! The adapter, and copies from so_rcv, write to the pages held when the read was prepared. If
//! the map's generation has moved since (fork(2) and a store, or another mapping at the same
//! address), other pages may show at the buffer by the time the read ends. A read that has put
//! bytes in such pages does not end before the worker has compared what shows there now, page by
//! page, and copied the bytes to the pages that are others. Where no page may be written, the
//! program has no place for the bytes, and they are left where they are.
//!
//! The pages of a mapped file are looked at in any case. The kernel writes back those that it saw
//! a fault for writing of, since it wrote them back last; what the adapter placed after that is
//! in the page and in no file. Holding the page for writing once more, when the bytes are in it,
//! is such a fault. It also waits for a page that is being written back.
//!
//! This is done as [`Want`]s of a few pages at a time: first for reading, which leaves
//! copy-on-write pages shared, then, if a page differs or is a file's, for writing. A piece is
//! looked at again only if a page that was copied to does not show any more, and a few times only:
//! a program can change its memory faster than that.
//!
//! Pages that a truncation took away meanwhile have the bytes, but the program gets fresh ones,
//! or the same filled anew. Such a read ends with EFAULT ([`Rx::lost`]).

use super::Rx;
use crate::ddp;
use crate::errno::Errno;
use crate::os::{Job, JobId, JobQueue, Os, PageKey, Pages};
use crate::pageset::{Ticket, Want, pages_of};
use crate::ppod::PAGE;
use crate::shared::Shared;

/// Bytes of a buffer looked at together.
const SPAN: u64 = 64 << 10;
/// How often a piece is copied again because its pages were replaced meanwhile.
const TRIES: u8 = 8;

/// The read being seen to.
pub(super) struct Mend {
    pub(super) job: JobId,
    /// Bytes of its page set that are done.
    pub(super) at: u32,
    /// Look at single pages: a larger piece could not be held.
    single: bool,
    /// The pages are a file's: each is held for writing.
    file: bool,
    /// Hold for writing: a page was seen to be another, and is copied to, or is a file's.
    write: bool,
    /// How often the piece was copied.
    tries: u8,
    /// What the worker was asked for.
    out: Option<(Ticket, PageKey)>,
}

impl Mend {
    /// The next piece, behind `len` bytes more.
    fn go_on(&mut self, len: u32) {
        self.at = self.at.saturating_add(len);
        self.write = self.file;
        self.tries = 0;
    }
}

impl<O: Os> Rx<O> {
    /// Pages that got bytes for the job were truncated away: the program will not find them.
    pub(super) fn lost(&self, sh: &Shared<O>, job: &O::Job) -> bool {
        let gone = || {
            let slot = job.slot()?;
            let (key, pages) = (sh.sets.key(slot)?, sh.sets.pages(slot)?);
            let start = usize::try_from(key.addr.checked_sub(job.addr())?).ok()?;
            let got = u32::try_from(job.done().checked_sub(start)?).unwrap_or(u32::MAX);
            let n = pages_of(key.addr, got.min(key.len));
            Some(got > 0 && !pages.intact(usize::try_from(n).ok()?))
        };
        gone().unwrap_or(false)
    }

    /// Bytes that the job's page set got, if its pages may be others by now, or are a file's.
    fn strayed(&self, sh: &Shared<O>, os: &O, job: &O::Job) -> Option<(PageKey, u32)> {
        let key = *sh.sets.key(job.slot()?)?;
        let start = usize::try_from(key.addr.checked_sub(job.addr())?).ok()?;
        let got = job.done().checked_sub(start).filter(|n| *n > 0)?;
        let n = u32::try_from(got).unwrap_or(u32::MAX).min(key.len);
        let now = os.page_key(job, start, key.len, true);
        let file = sh.sets.pages(job.slot()?)?.of_file();
        (file || now != key).then_some((key, n))
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
    pub fn want_mend(&mut self, sh: &mut Shared<O>, os: &mut O) -> Option<Want<O::Lent>> {
        if self.mend_hold {
            return None;
        }
        loop {
            let id = match &self.mend {
                Some(m) if m.out.is_some() => return None,
                Some(m) => m.job,
                None => {
                    let id = self.ended.front().map(O::Job::id).or(self.stuck)?;
                    let slot = self.seen_to(id).and_then(O::Job::slot);
                    let file = slot
                        .and_then(|s| sh.sets.pages(s))
                        .is_some_and(O::Pages::of_file);
                    self.mend = Some(Mend {
                        job: id,
                        at: 0,
                        single: false,
                        file,
                        write: file,
                        tries: 0,
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

    fn mend_piece(&mut self, sh: &mut Shared<O>, os: &mut O, id: JobId) -> Option<Want<O::Lent>> {
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
        let lent = os.lend(job);
        self.mend.as_mut()?.out = Some((ticket, want));
        Some(Want {
            ticket,
            job: lent,
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
            Some((sh.sets.pages(slot)?, first as usize))
        });
        match (held, pages) {
            (Some((ours, first)), Ok(theirs)) => {
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
                if other && !m.write {
                    m.write = true;
                } else if other && m.tries < TRIES && !theirs.shown() {
                    // A store may have copied the page before we copied to it: look again.
                    m.tries += 1;
                } else {
                    m.go_on(now.len);
                }
            }
            (_, Err(Errno::ENOMEM | Errno::EAGAIN | Errno::ENOBUFS)) => {
                self.mend_hold = true;
                os.retry_later();
            }
            (_, Err(_)) if pages_of(now.addr, now.len) > 1 => m.single = true,
            // Nothing to be written there, or no job any more.
            _ => m.go_on(now.len),
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
