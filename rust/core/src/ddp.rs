//! Direct data placement: what is posted to the adapter, and in which state.
//!
//! A connection has two DDP buffers. Each is in one state of `Buf`, moved by value, and the job
//! and the page set it holds leave it only when the adapter can no longer write to the pages
//! (I3). The adapter fills the *front* buffer, then the other.
//!
//! **Order of the stream.** Bytes in so_rcv always precede the bytes placed in posted buffers.
//! Usually so_rcv is empty while buffers are posted. But the adapter hands data to the host
//! while it knows of no valid buffer, also when one is on its way to it: then the bytes placed
//! in that buffer come later in the stream than those in so_rcv. When such a buffer lands,
//! `Rx::settle` puts things right: it moves the placed bytes up and copies those of so_rcv in
//! front of them. A buffer posted while so_rcv holds such bytes is armed at an offset that
//! leaves room for them, so after at most two buffers nothing is moved any more. A large buffer is taken back and
//! posted again instead.

use crate::os::Pages;

mod armed;
pub(crate) mod wrs;

pub(crate) use armed::{Armed, AtCard, Orphan, Stop};

/// A buffer handed to the adapter at once never spans more than this, from the start of its
/// first page: offset and length have 24 bits, and pieces of a longer read start on a page.
pub const MAX_SPAN: u32 = 0x00ff_f000;

/// Least span tried when the budgets of wired pages are short.
pub(crate) const MIN_SPAN: u32 = 0x0001_0000;

/// A buffer with more room than this is posted again rather than moved, once.
pub(crate) const MAX_MOVE: u32 = 16 << 10;

/// CPL_COOKIE_DDP0: cookie of replies that concern buffer 0; buffer 1's is the next.
pub const COOKIE_DDP0: u8 = 2;
/// CPL_COOKIE_DDP1.
pub const COOKIE_DDP1: u8 = 3;

/// The reply to a question about the send sequence; those about buffers are of other words.
pub(crate) fn is_probe(cpl: &wire::SetTcbRpl) -> bool {
    cpl.word == wire::W_TX_MAX && cpl.cookie == COOKIE_DDP0
}

/// Where DDP stands on the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Off: payload comes by CPL_RX_DATA only.
    Off,
    /// Asked for; the reply is to come.
    Requested,
    /// On: buffers may be posted.
    On,
}

/// What becomes of a job whose buffer has landed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The adapter reported: complete, unless nothing came.
    Report,
    /// Cancelled: short, or ECANCELED if nothing came.
    Cancel,
    /// End of file: complete with what came, even nothing.
    Eof,
    /// DDP ended under it: complete, or back to the queue if nothing was placed.
    Yield,
    /// Back to the queue with what came.
    Resync,
}

impl From<Stop> for Fate {
    fn from(s: Stop) -> Fate {
        match s {
            Stop::Cancel => Fate::Cancel,
            Stop::Flush => Fate::Report,
            Stop::Yield => Fate::Yield,
            Stop::Resync => Fate::Resync,
        }
    }
}

/// A DDP buffer.
#[derive(Debug)]
pub(crate) enum Buf<J> {
    /// Nothing posted. (A reply may still be due: `Rx::replies`.)
    Empty,
    /// The adapter may write to the pages.
    Posted(AtCard<J>),
    /// The adapter was told to stop, and may write until it replies. Data that it sends meanwhile
    /// says nothing about the buffer, though it tells how many bytes precede it there.
    Invalidating(AtCard<J>),
    /// The adapter writes no more; it placed that many bytes, which are not the job's yet.
    Landed(Armed<J>, u32, Fate),
    /// Settled with nothing to complete it with: back to the head of the queue.
    Back(J),
    /// The job has ended without the adapter's word: it may write to these pages for ever.
    Orphan(Orphan),
}

impl<J> Buf<J> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Buf::Empty)
    }

    /// The adapter may write to it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Buf::Posted(_) | Buf::Invalidating(_))
    }

    /// The stream is past bytes in it, but they are nobody's yet: what came behind them must wait.
    pub(crate) fn holds_passed(&self) -> bool {
        self.is_live() && self.armed().is_some_and(|a| a.passed > 0)
    }

    pub(crate) fn take(&mut self) -> Buf<J> {
        core::mem::replace(self, Buf::Empty)
    }

    /// What is posted or was.
    pub(crate) fn armed(&self) -> Option<&Armed<J>> {
        match self {
            Buf::Posted(a) | Buf::Invalidating(a) => Some(a),
            Buf::Landed(a, ..) => Some(a),
            Buf::Empty | Buf::Back(_) | Buf::Orphan(_) => None,
        }
    }
}

/// One value for each of the two buffers; odd numbers mean the second.
#[derive(Debug, Default)]
pub(crate) struct Pair<T>([T; 2]);

impl<T> Pair<T> {
    pub(crate) fn new(first: T, second: T) -> Self {
        Pair([first, second])
    }

    pub(crate) fn at(&self, i: usize) -> &T {
        let [first, second] = &self.0;
        if i.is_multiple_of(2) { first } else { second }
    }

    pub(crate) fn at_mut(&mut self, i: usize) -> &mut T {
        let [first, second] = &mut self.0;
        if i.is_multiple_of(2) { first } else { second }
    }

    pub(crate) fn iter(&self) -> core::slice::Iter<'_, T> {
        self.0.iter()
    }
}

/// Bytes of one buffer that are held and posted at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Byte of the job it starts with.
    pub(crate) start: usize,
    pub(crate) len: u32,
}

/// The piece of a job's buffer that holds byte `done`, in pieces of `span` bytes (a multiple of
/// the page size) counted from the buffer's first page. Only the first may start inside a page.
pub(crate) fn piece(addr: u64, len: usize, done: usize, span: u32) -> Piece {
    let in_page = usize::try_from(addr % crate::ppod::PAGE).unwrap_or(0);
    let span = usize::try_from(span).unwrap_or(1).max(1);
    let at = in_page.saturating_add(done);
    let from = (at - at % span).max(in_page);
    let to = (at - at % span)
        .saturating_add(span)
        .min(in_page.saturating_add(len));
    Piece {
        start: from - in_page,
        len: u32::try_from(to.saturating_sub(from)).unwrap_or(0),
    }
}

/// Held pages and the offset in their first page.
pub(crate) fn page_off(addr: u64, off: u32) -> u32 {
    let in_page = u32::try_from(addr % crate::ppod::PAGE).unwrap_or(0);
    in_page.saturating_add(off)
}

/// `Pages` are counted in 32 bits everywhere.
pub(crate) fn page_count<P: Pages>(p: &P) -> u32 {
    u32::try_from(p.count()).unwrap_or(u32::MAX)
}
