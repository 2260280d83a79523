//! Segments between the two ports: windows, acknowledgements, loss.
//!
//! What is lost is sent again from the first missing byte on; a receiver keeps nothing that is
//! out of order. Any three segments that say the same acknowledgement, or a timeout, start that.

use alloc::vec::Vec;

use crate::Nanos;
use crate::card::Card;
use crate::conn::{Conn, SynOpts, TcpState, Tuple, seq_gt};
use crate::event::{Event, Timer};
use crate::host::Host;
use wire::CplStatus;

/// Header flags, with TCP's values.
pub(crate) mod flags {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
}

/// A segment on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Port it arrives at.
    pub(crate) port: u8,
    /// Addresses as the receiver sees them.
    pub(crate) tuple: Tuple,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// Receive window in bytes, scaling already applied.
    pub(crate) wnd: u32,
    pub(crate) opts: SynOpts,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    pub(crate) fn bare(port: u8, tuple: Tuple, flags: u8) -> Self {
        Self {
            port,
            tuple,
            seq: 0,
            ack: 0,
            flags,
            wnd: 0,
            opts: SynOpts::default(),
            payload: Vec::new(),
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn counts_as_data(&self) -> bool {
        !self.payload.is_empty()
    }
}

/// Smallest gain of window worth a segment of its own.
const WORTH_AN_ACK: u32 = 2 * 1460;

impl Card {
    /// A segment has reached `seg.port`.
    pub(crate) fn segment(&mut self, now: Nanos, seg: Segment, host: &mut impl Host) {
        let key = (seg.port, seg.tuple);
        let Some(mut c) = self
            .by_tuple
            .get(&key)
            .copied()
            .and_then(|tid| self.take(tid))
        else {
            self.orphan(now, seg);
            return;
        };
        c.stats.segments_in += 1;
        match c.state {
            TcpState::SynSent => self.syn_sent(now, &mut c, &seg),
            TcpState::SynReceived => {
                if self.syn_received(now, &mut c, &seg) {
                    self.synchronised(now, &mut c, seg, host);
                }
            }
            TcpState::Closed | TcpState::Aborting => self.answer_rst(now, &seg),
            _ => self.synchronised(now, &mut c, seg, host),
        }
        self.put(c);
    }

    /// Answers a segment nobody wants with an RST.
    pub(crate) fn answer_rst(&mut self, now: Nanos, seg: &Segment) {
        if seg.has(flags::RST) {
            return;
        }
        let mut rst = Segment::bare(0, seg.tuple.reversed(), flags::RST);
        if seg.has(flags::ACK) {
            rst.seq = seg.ack;
        } else {
            rst.flags |= flags::ACK;
            let len = u32::try_from(seg.payload.len()).unwrap_or(0);
            rst.ack = seg
                .seq
                .wrapping_add(len)
                .wrapping_add(u32::from(seg.has(flags::SYN)));
        }
        self.stats.no_connection += 1;
        self.transmit(now, seg.port, rst);
    }

    fn synchronised(&mut self, now: Nanos, c: &mut Conn, seg: Segment, host: &mut impl Host) {
        if seg.has(flags::RST) {
            // Believed only inside the window, so that one of an earlier connection is not.
            let edge = c.rcv_adv.wrapping_sub(c.rcv_nxt);
            if seg.seq.wrapping_sub(c.rcv_nxt) <= edge {
                self.peer_reset(now, c, CplStatus::CONN_RESET);
            }
            return;
        }
        if seg.has(flags::SYN) {
            // Our acknowledgement of the SYN was lost.
            self.send_ack(now, c);
            return;
        }
        if seg.has(flags::ACK) {
            self.acknowledged(now, c, &seg);
        }
        if !seg.payload.is_empty() || seg.has(flags::FIN) {
            self.in_order(now, c, seg, host);
        }
        self.kick(now, c);
    }

    /// Takes what is new of an in-order segment; anything else is answered with an ACK.
    fn in_order(&mut self, now: Nanos, c: &mut Conn, seg: Segment, host: &mut impl Host) {
        if c.fin_rcvd || seq_gt(seg.seq, c.rcv_nxt) {
            self.recycle(seg.payload);
            self.send_ack(now, c);
            return;
        }
        let old = c.rcv_nxt.wrapping_sub(seg.seq);
        let len = u32::try_from(seg.payload.len()).unwrap_or(u32::MAX);
        let fin = seg.has(flags::FIN);
        if old > len || old == len && !fin {
            self.recycle(seg.payload);
            self.send_ack(now, c);
            return;
        }
        let fresh = len - old;
        let room = c.rcv_adv.wrapping_sub(c.rcv_nxt);
        let take = fresh.min(room);
        let cut = take < fresh;
        let seq = c.rcv_nxt;
        if take > 0 {
            let from = usize::try_from(old).unwrap_or(0);
            let mut data = seg.payload;
            data.truncate(from + usize::try_from(take).unwrap_or(0));
            c.rcv_nxt = c.rcv_nxt.wrapping_add(take);
            c.unacked = c.unacked.saturating_add(take);
            let psh = seg.flags & flags::PSH != 0 && !cut;
            self.received(
                now,
                c,
                crate::rx::Chunk {
                    seq,
                    data,
                    from,
                    psh,
                },
                host,
            );
        } else {
            self.recycle(seg.payload);
        }
        if fin && !cut {
            c.rcv_nxt = c.rcv_nxt.wrapping_add(1);
            c.fin_rcvd = true;
            self.peer_fin(now, c);
        }
        // Past two segments an acknowledgement waits for nothing.
        if fin || cut || take == 0 || c.unacked >= self.cfg.seg_max.saturating_mul(2) {
            self.send_ack(now, c);
        } else if c.timer(Timer::Ack).is_none() {
            let at = now.saturating_add(self.cfg.ack_delay);
            self.arm(c, Timer::Ack, at);
        }
    }

    /// The acknowledgement and window of a segment.
    fn acknowledged(&mut self, now: Nanos, c: &mut Conn, seg: &Segment) {
        let Some(off) = c.off_of(seg.ack) else { return };
        if off > c.max {
            // Of what was never sent.
            self.send_ack(now, c);
            return;
        }
        let wnd = u64::from(seg.wnd);
        if off == c.una
            && c.outstanding()
            && seg.payload.is_empty()
            && !seg.has(flags::FIN)
            && wnd == c.snd_wnd
        {
            c.dupacks = c.dupacks.saturating_add(1);
            if c.dupacks == 3 && c.una >= c.recover && wnd > 0 {
                c.recover = c.max;
                self.stats.rexmts += 1;
                let late = self.cfg.faults.retransmit_delay;
                if late == 0 {
                    c.nxt = c.una;
                } else {
                    self.arm(c, Timer::Rexmt, now.saturating_add(late));
                }
            }
        }
        if off > c.una || !seq_gt(c.snd_wl1, seg.seq) {
            c.snd_wnd = wnd;
            c.snd_wl1 = seg.seq;
        }
        if c.snd_wnd == 0 {
            // The peer lives, it only has no room.
            c.tries = 0;
        } else {
            c.set_timer(Timer::Persist, None);
        }
        if off > c.una {
            let fin_was = c.fin_acked();
            c.una = off;
            c.nxt = c.nxt.max(off);
            c.dupacks = 0;
            c.tries = 0;
            c.set_timer(Timer::Rexmt, None);
            if c.outstanding() {
                self.arm_rexmt(now, c);
            }
            self.retire(now, c);
            if c.fin_acked() && !fin_was {
                self.fin_acked(now, c);
            }
        }
    }

    /// Starts the retransmission timer, backed off by the tries so far.
    pub(crate) fn arm_rexmt(&mut self, now: Nanos, c: &mut Conn) {
        let backoff = self.cfg.rto.saturating_mul(1 << c.tries.min(8));
        let at = now
            .saturating_add(backoff)
            .saturating_add(self.cfg.faults.retransmit_delay);
        self.arm(c, Timer::Rexmt, at);
    }

    pub(crate) fn rexmt_timeout(&mut self, now: Nanos, c: &mut Conn) {
        match c.state {
            TcpState::SynSent | TcpState::SynReceived => self.resend_syn(now, c),
            s if s.synchronised() && c.outstanding() => {
                c.tries = c.tries.saturating_add(1);
                if c.tries > self.cfg.max_rexmt {
                    self.give_up(now, c, CplStatus::XMIT_TIMEDOUT);
                    return;
                }
                self.stats.rexmts += 1;
                c.recover = c.max;
                c.dupacks = 0;
                c.nxt = c.una;
                c.probe = c.snd_wnd == 0;
                self.arm_rexmt(now, c);
                self.kick(now, c);
            }
            _ => {}
        }
    }

    pub(crate) fn persist_timeout(&mut self, now: Nanos, c: &mut Conn) {
        if c.state.synchronised() && c.snd_wnd == 0 && !c.outstanding() && c.nxt < c.total() {
            self.stats.probes += 1;
            c.probe = true;
            self.kick(now, c);
        }
    }

    /// A segment of `c` as things stand, with nothing in it.
    pub(crate) fn segment_of(&mut self, c: &mut Conn, flags: u8) -> Segment {
        let mut seg = Segment::bare(c.port, c.tuple.reversed(), flags);
        seg.seq = c.seq_of(c.nxt);
        if flags & flags::ACK != 0 {
            seg.ack = c.rcv_nxt;
            seg.wnd = c.window();
            let edge = c.rcv_nxt.wrapping_add(seg.wnd);
            if seq_gt(edge, c.rcv_adv) {
                c.rcv_adv = edge;
            }
            c.unacked = 0;
            c.set_timer(Timer::Ack, None);
        }
        c.stats.segments_out += 1;
        seg
    }

    /// Acknowledges everything received, now.
    pub(crate) fn send_ack(&mut self, now: Nanos, c: &mut Conn) {
        if !c.state.synchronised() {
            return;
        }
        let mut seg = self.segment_of(c, flags::ACK);
        // A bare ACK sits past everything sent, whatever is being sent again.
        seg.seq = c.seq_of(c.max);
        self.transmit(now, c.port, seg);
    }

    /// Tells the peer of more room, if it is worth a segment.
    pub(crate) fn window_update(&mut self, now: Nanos, c: &mut Conn) {
        let wnd = c.window();
        let edge = c.rcv_nxt.wrapping_add(wnd);
        if !seq_gt(edge, c.rcv_adv) || c.fin_rcvd {
            return;
        }
        let gain = edge.wrapping_sub(c.rcv_adv);
        let shut = c.rcv_adv == c.rcv_nxt;
        if shut || gain >= WORTH_AN_ACK || u64::from(gain) * 2 >= u64::from(wnd) {
            self.send_ack(now, c);
        }
    }

    /// Puts a connection that may have something to send in its port's turn.
    pub(crate) fn kick(&mut self, now: Nanos, c: &mut Conn) {
        if c.in_ring || !c.state.synchronised() || c.nxt >= c.total() {
            return;
        }
        c.in_ring = true;
        let port = usize::from(c.port);
        if let Some(ring) = self.ring.get_mut(port) {
            ring.push_back(c.tid);
        }
        self.wake_port(now, c.port);
    }

    fn wake_port(&mut self, now: Nanos, port: u8) {
        let i = usize::from(port);
        let (Some(due), Some(link)) = (self.ring_due.get_mut(i), self.links.get(i)) else {
            return;
        };
        if !*due {
            *due = true;
            let at = link.busy_until.max(now);
            self.events.push(at, Event::PortTx(port));
        }
    }

    /// The transmitter of `port` is free: the next connection in turn sends one segment.
    pub(crate) fn port_tx(&mut self, now: Nanos, port: u8, host: &mut impl Host) {
        let i = usize::from(port);
        if let Some(due) = self.ring_due.get_mut(i) {
            *due = false;
        }
        while let Some(tid) = self.ring.get_mut(i).and_then(|r| r.pop_front()) {
            let Some(mut c) = self.take(tid) else {
                continue;
            };
            c.in_ring = false;
            let sent = self.send_one(now, &mut c, host);
            if sent {
                self.kick(now, &mut c);
            }
            self.put(c);
            if sent {
                break;
            }
        }
        if self.ring.get(i).is_some_and(|r| !r.is_empty()) {
            self.wake_port(now, port);
        }
    }
}
