//! The event queue: what is due first runs first, and of two events due at the same moment the
//! one scheduled first. Nothing else decides the order, so a run can be repeated.

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};

use crate::Nanos;
use crate::host::TxQueue;
use crate::request::Req;
use crate::tcp::Segment;

/// A connection's timers. Each has a deadline in [`crate::conn::Conn`]; an event whose time is
/// not (or no longer) that deadline is stale and does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// Retransmission, of data, SYN, SYN-ACK or FIN.
    Rexmt,
    /// Zero-window probe.
    Persist,
    /// Delayed acknowledgement.
    Ack,
    /// Report credits that have waited long enough.
    Credit,
    /// Deliver held data as an indicate.
    Hold,
    /// DDP push timer.
    Push,
}

impl Timer {
    pub(crate) const COUNT: usize = 6;

    pub(crate) fn idx(self) -> usize {
        match self {
            Self::Rexmt => 0,
            Self::Persist => 1,
            Self::Ack => 2,
            Self::Credit => 3,
            Self::Hold => 4,
            Self::Push => 5,
        }
    }
}

/// A CPL on its way to the host.
#[derive(Debug)]
pub(crate) struct CplOut {
    pub(crate) rxq: u16,
    pub(crate) len: u8,
    pub(crate) cpl: [u8; CPL_MAX],
    pub(crate) payload: Vec<u8>,
    /// First byte of `payload` that counts: segments are trimmed without moving them.
    pub(crate) from: usize,
}

/// Room for the longest CPL the card sends.
pub(crate) const CPL_MAX: usize = 64;

#[derive(Debug)]
pub(crate) enum Event {
    /// Execute a work request.
    Wr(TxQueue, Box<Req>),
    /// Hand a CPL to the host.
    Cpl(Box<CplOut>),
    /// A segment reaches a port.
    Segment(Box<Segment>),
    /// A port's transmitter is free.
    PortTx(u8),
    /// A connection's timer.
    Timer { tid: u32, born: u64, timer: Timer },
    /// A plain frame reaches a port.
    Frame { port: u8, frame: Vec<u8> },
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    serial: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, o: &Self) -> bool {
        self.at == o.at && self.serial == o.serial
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, o: &Self) -> Option<Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Entry {
    fn cmp(&self, o: &Self) -> Ordering {
        (self.at, self.serial).cmp(&(o.at, o.serial))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Reverse<Entry>>,
    serial: u64,
}

impl Events {
    pub(crate) fn push(&mut self, at: Nanos, event: Event) {
        self.serial += 1;
        self.heap.push(Reverse(Entry {
            at,
            serial: self.serial,
            event,
        }));
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse(e)| e.at)
    }

    /// Takes the next event if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<(Nanos, Event)> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(e)| (e.at, e.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_first_then_first_scheduled() {
        let mut q = Events::default();
        q.push(20, Event::PortTx(0));
        q.push(10, Event::PortTx(1));
        q.push(10, Event::PortTx(2));
        assert_eq!(q.next_at(), Some(10));
        let mut seen = Vec::new();
        while let Some((at, Event::PortTx(p))) = q.pop_due(19) {
            seen.push((at, p));
        }
        assert_eq!(seen, [(10, 1), (10, 2)]);
        assert!(q.pop_due(19).is_none());
        assert!(matches!(q.pop_due(20), Some((20, Event::PortTx(0)))));
        assert_eq!(q.next_at(), None);
    }
}
