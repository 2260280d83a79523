//! What was posted to the adapter, and how it comes back: [`AtCard::back`], for the adapter's own
//! word, or not at all.

use core::ops::Deref;

use crate::done::CardDone;
use crate::os::{Job, JobId};

/// Why a posted buffer is taken back from the adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Its job is cancelled.
    Cancel,
    /// What so_rcv holds completes its job.
    Flush,
    /// An earlier job must go first.
    Yield,
    /// Bytes came before those it is being filled with, and it is too large to be moved: post
    /// it again behind them.
    Resync,
}

/// A job posted to the adapter, with what the adapter was told.
#[derive(Debug)]
pub(crate) struct Armed<J> {
    pub(crate) job: J,
    /// Page set; the job is a user of it.
    pub(crate) slot: u16,
    /// Byte of the job that the page set starts with.
    pub(crate) start: usize,
    /// Where the adapter's first byte goes, from `start` on.
    pub(crate) off: u32,
    /// End of the buffer, from `start` on.
    pub(crate) end: u32,
    /// Bytes placed from `off` on that the stream is past already: the adapter has sent data
    /// behind them. They are the job's only when the adapter says that it is done with the buffer.
    pub(crate) passed: u32,
    /// It is, or is to be, taken back.
    pub(crate) stop: Option<Stop>,
}

impl<J: Job> Armed<J> {
    /// Bytes the adapter may place.
    pub(crate) fn room(&self) -> u32 {
        self.end.saturating_sub(self.off)
    }

    /// Of those, bytes that the stream is not past yet.
    pub(crate) fn left(&self) -> u32 {
        self.room().saturating_sub(self.passed)
    }

    /// The job's progress, from `start` on.
    pub(crate) fn done(&self) -> u32 {
        u32::try_from(self.job.done().saturating_sub(self.start)).unwrap_or(u32::MAX)
    }

    /// Bytes between the job's progress and where the adapter began: kept for so_rcv.
    pub(crate) fn kept(&self) -> u32 {
        self.off.saturating_sub(self.done())
    }

    /// Which piece of which job it is.
    pub(crate) fn place(&self) -> (JobId, u32) {
        // Only the first piece of a job starts inside a page.
        (self.job.id(), (self.start / 4096) as u32)
    }

    /// The job ends with this piece of it.
    pub(crate) fn last_piece(&self) -> bool {
        let end = usize::try_from(self.end).unwrap_or(usize::MAX);
        self.start.saturating_add(end) >= self.job.len()
    }
}

/// What the adapter may write to: to look at, and to be had for a [`CardDone`] only.
#[derive(Debug)]
pub(crate) struct AtCard<J>(Armed<J>);

impl<J: Job> AtCard<J> {
    /// From here on the adapter has it.
    pub(crate) fn new(a: Armed<J>) -> AtCard<J> {
        AtCard(a)
    }

    /// It is to be taken back, for this reason.
    pub(crate) fn stop(&mut self, why: Stop) {
        self.0.stop = Some(why);
    }

    /// The stream is past `n` more bytes in it.
    pub(crate) fn pass(&mut self, n: u32) {
        self.0.passed = self.0.passed.saturating_add(n);
    }

    /// The adapter is done with it.
    pub(crate) fn back(self, _: &CardDone) -> Armed<J> {
        self.0
    }

    /// The adapter does not say that it is done: the job can go, the pages cannot.
    pub(crate) fn orphan(self) -> (J, Orphan) {
        let Armed { mut job, slot, .. } = self.0;
        job.set_slot(None);
        (job, Orphan(slot))
    }
}

#[cfg(test)]
impl<J> AtCard<J> {
    /// For tests that break rules.
    pub(crate) fn armed_mut(&mut self) -> &mut Armed<J> {
        &mut self.0
    }
}

impl<J> Deref for AtCard<J> {
    type Target = Armed<J>;

    fn deref(&self) -> &Armed<J> {
        &self.0
    }
}

/// A page set that the adapter may write to, though the job it was for has ended. It is a user of
/// the slot.
#[derive(Debug)]
pub(crate) struct Orphan(u16);

impl Orphan {
    /// The slot.
    pub(crate) fn slot(&self) -> u16 {
        self.0
    }

    /// The adapter is done with it: the slot has a user less.
    pub(crate) fn back(self, _: &CardDone) -> u16 {
        self.0
    }
}
