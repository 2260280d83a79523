//! The wire between the two ports: line rate, propagation delay, and its faults.

use alloc::boxed::Box;

use crate::card::Card;
use crate::event::Event;
use crate::tcp::{Segment, flags};
use crate::{Nanos, config::Config};

/// Ethernet, IPv4 and TCP header, preamble, check sequence and gap: what a segment takes on the
/// wire besides its payload.
const FRAMING: u64 = 54 + 24;

/// One direction of the wire.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// When the transmitter has sent the last bit it was given.
    pub(crate) busy_until: Nanos,
}

/// Time `bytes` take at the line rate, ns, rounded up.
fn serialise(cfg: &Config, bytes: u64) -> Nanos {
    let bits_ns = bytes.saturating_mul(8).saturating_mul(1_000_000_000);
    bits_ns.div_ceil(cfg.line_rate_bps)
}

impl Card {
    /// The port at the other end of the wire.
    pub(crate) fn far_end(port: u8) -> u8 {
        port ^ 1
    }

    /// Occupies the transmitter of `port` for `bytes` of payload and gives the time the last bit
    /// arrives at the other end.
    fn occupy(&mut self, now: Nanos, port: u8, bytes: usize) -> Nanos {
        let took = serialise(
            &self.cfg,
            u64::try_from(bytes).unwrap_or(u64::MAX) + FRAMING,
        );
        let Some(link) = self.links.get_mut(usize::from(port)) else {
            return now;
        };
        link.busy_until = link.busy_until.max(now).saturating_add(took);
        link.busy_until.saturating_add(self.cfg.wire_delay)
    }

    /// Sends a segment out of `port`. The faults of the wire happen here.
    pub(crate) fn transmit(&mut self, now: Nanos, port: u8, mut seg: Segment) {
        let arrives = self.occupy(now, port, seg.payload.len());
        seg.port = Self::far_end(port);
        self.stats.segments += 1;
        let f = self.cfg.faults;
        if self.rng.chance(f.drop_ppm) || self.drop_next > 0 && seg.counts_as_data() {
            self.drop_next = self.drop_next.saturating_sub(1);
            self.stats.wire_dropped += 1;
            self.recycle(seg.payload);
            return;
        }
        if self.rng.chance(f.reset_ppm) && seg.flags & (flags::SYN | flags::RST) == 0 {
            self.wire_reset(arrives, &seg);
        }
        if self.rng.chance(f.dup_ppm) {
            self.stats.wire_duplicated += 1;
            self.events
                .push(arrives, Event::Segment(Box::new(seg.clone())));
        }
        let late = if self.rng.chance(f.reorder_ppm) {
            self.stats.wire_reordered += 1;
            f.reorder_delay
        } else {
            0
        };
        self.events
            .push(arrives.saturating_add(late), Event::Segment(Box::new(seg)));
    }

    /// An RST for both ends of the connection `seg` belongs to, as a middlebox would forge it.
    fn wire_reset(&mut self, at: Nanos, seg: &Segment) {
        self.stats.wire_resets += 1;
        let mut there = Segment::bare(seg.port, seg.tuple, flags::RST);
        there.seq = seg.seq;
        let mut here = Segment::bare(Self::far_end(seg.port), seg.tuple.reversed(), flags::RST);
        here.seq = seg.ack;
        self.events.push(at, Event::Segment(Box::new(there)));
        self.events.push(at, Event::Segment(Box::new(here)));
    }

    /// A frame of plain traffic the host sends out of `port`. It arrives at the other port.
    /// Frames for a port that is not there are dropped.
    pub fn frame_in(&mut self, now: Nanos, port: u8, frame: &[u8]) {
        if port >= self.cfg.ports || frame.len() > 16_384 {
            self.stats.frames_dropped += 1;
            return;
        }
        let now = now.max(self.now);
        self.stats.frames += 1;
        let at = self.occupy(now, port, frame.len());
        self.events.push(
            at,
            Event::Frame {
                port: Self::far_end(port),
                frame: frame.to_vec(),
            },
        );
    }
}
