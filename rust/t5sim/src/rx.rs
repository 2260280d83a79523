//! In-order bytes on their way to the host: by DDP, held in the card, or in `CPL_RX_DATA`.

use alloc::vec::Vec;

use crate::Nanos;
use crate::card::Card;
use crate::conn::Conn;
use crate::event::Timer;
use crate::host::Host;

/// A stretch of the stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Sequence number of its first byte.
    pub(crate) seq: u32,
    pub(crate) data: Vec<u8>,
    /// First byte of `data` that counts.
    pub(crate) from: usize,
    /// Its last segment carried PSH.
    pub(crate) psh: bool,
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.data.get(self.from..).unwrap_or(&[])
    }

    /// Its length. A segment has at most 65535 bytes.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.data.len().saturating_sub(self.from)).unwrap_or(u32::MAX)
    }

    /// Forgets the first `n` bytes.
    pub(crate) fn advance(&mut self, n: u32) {
        self.from = self
            .from
            .saturating_add(usize::try_from(n).unwrap_or(usize::MAX));
        self.seq = self.seq.wrapping_add(n);
    }
}

/// Most credit a host may pile up, bytes. The window field cannot say more.
const MAX_CREDIT: i64 = 1 << 30;

impl Card {
    /// New in-order bytes. `c.rcv_nxt` is past them already.
    pub(crate) fn received(
        &mut self,
        now: Nanos,
        c: &mut Conn,
        mut chunk: Chunk,
        host: &mut impl Host,
    ) {
        if self.ddp_on(c) && (c.fall_out || self.rng.chance(self.cfg.faults.ddp_off_ppm)) {
            self.fall_out(now, c);
        }
        if !self.ddp_on(c) {
            self.rx_data(now, c, chunk, true);
            return;
        }
        if c.held.is_empty() {
            self.place(now, c, &mut chunk, host);
        }
        if chunk.len() == 0 {
            self.recycle(chunk.data);
            return;
        }
        // No buffer: the bytes wait for one, but not longer than `indicate_hold` unless the host
        // has switched indicates off.
        c.held_bytes = c.held_bytes.saturating_add(chunk.len());
        c.held.push_back(chunk);
        if self.rng.chance(self.cfg.faults.indicate_ppm) && Self::indicates(c) {
            self.flush_held(now, c, false);
        }
        self.arm_hold(now, c);
    }

    fn arm_hold(&mut self, now: Nanos, c: &mut Conn) {
        if !c.held.is_empty() && Self::indicates(c) && c.timer(Timer::Hold).is_none() {
            let at = now.saturating_add(self.cfg.indicate_hold);
            self.arm(c, Timer::Hold, at);
        }
    }

    /// `CPL_RX_DATA`.
    pub(crate) fn rx_data(&mut self, now: Nanos, c: &mut Conn, chunk: Chunk, ddp_off: bool) {
        let len = chunk.len();
        let msg = wire::RxData {
            tid: c.tid,
            len: u16::try_from(len).unwrap_or(u16::MAX),
            seq: chunk.seq,
            urg: 0,
            dack_mode: 0,
            psh: chunk.psh,
            heartbeat: false,
            ddp_off,
            status: wire::CplStatus::NONE,
        };
        c.rcv_wnd = c.rcv_wnd.saturating_sub(i64::from(len));
        c.stats.cpl_bytes += u64::from(len);
        self.stats.cpl_bytes += u64::from(len);
        self.stats.indicates += u64::from(!ddp_off);
        let n = wire::RxData::LEN;
        self.cpl_with(now, c.rxq, n, chunk.data, chunk.from, 0, |b| msg.emit(b));
    }

    /// Delivers everything held in `CPL_RX_DATA`.
    pub(crate) fn flush_held(&mut self, now: Nanos, c: &mut Conn, ddp_off: bool) {
        c.set_timer(Timer::Hold, None);
        while let Some(chunk) = c.held.pop_front() {
            c.held_bytes = c.held_bytes.saturating_sub(chunk.len());
            self.rx_data(now, c, chunk, ddp_off);
        }
        c.held_bytes = 0;
    }

    /// Drops everything held: the connection was reset.
    pub(crate) fn drop_held(&mut self, c: &mut Conn) {
        while let Some(chunk) = c.held.pop_front() {
            self.recycle(chunk.data);
        }
        c.held_bytes = 0;
        c.set_timer(Timer::Hold, None);
    }

    /// Places what is held into buffers that have come since, or delivers it if DDP is off.
    pub(crate) fn drain_held(&mut self, now: Nanos, c: &mut Conn, host: &mut impl Host) {
        if !c.held.is_empty() {
            if self.ddp_on(c) {
                while let Some(mut chunk) = c.held.pop_front() {
                    let before = chunk.len();
                    // What is being placed is delivered as far as reports are concerned.
                    c.held_bytes = c.held_bytes.saturating_sub(before);
                    self.place(now, c, &mut chunk, host);
                    let left = chunk.len();
                    if left > 0 {
                        c.held_bytes = c.held_bytes.saturating_add(left);
                        c.held.push_front(chunk);
                        break;
                    }
                    self.recycle(chunk.data);
                }
                if c.held.is_empty() {
                    c.set_timer(Timer::Hold, None);
                } else {
                    self.arm_hold(now, c);
                }
            } else {
                self.flush_held(now, c, true);
            }
            self.window_update(now, c);
        }
    }

    /// Nobody posted a buffer in time: an indicate.
    pub(crate) fn hold_timeout(&mut self, now: Nanos, c: &mut Conn, host: &mut impl Host) {
        if !self.ddp_on(c) || !Self::indicates(c) {
            self.drain_held(now, c, host);
            return;
        }
        let limit = self.cfg.indicate_size;
        if limit == 0 {
            self.flush_held(now, c, false);
            return;
        }
        if let Some(chunk) = self.held_up_to(c, limit) {
            c.held_bytes = c.held_bytes.saturating_sub(chunk.len());
            self.rx_data(now, c, chunk, false);
        }
        self.arm_hold(now, c);
    }

    /// Takes at most so many of the bytes held, in one stretch.
    fn held_up_to(&mut self, c: &mut Conn, limit: u32) -> Option<Chunk> {
        let mut all = c.held.pop_front()?;
        if all.len() > limit {
            let n = usize::try_from(limit).unwrap_or(0);
            let data = all.bytes().get(..n).unwrap_or(&[]).to_vec();
            let seq = all.seq;
            all.advance(limit);
            c.held.push_front(all);
            let (from, psh) = (0, false);
            return Some(Chunk {
                seq,
                data,
                from,
                psh,
            });
        }
        while c
            .held
            .front()
            .is_some_and(|next| all.len().saturating_add(next.len()) <= limit)
        {
            let Some(next) = c.held.pop_front() else {
                break;
            };
            all.data.extend_from_slice(next.bytes());
            all.psh = next.psh;
            self.recycle(next.data);
        }
        Some(all)
    }

    /// CPL_RX_DATA_ACK: credits for the window, or a nudge to deliver what is held back.
    pub(crate) fn rx_data_ack(&mut self, now: Nanos, m: &wire::RxDataAck, host: &mut impl Host) {
        let Some(mut c) = self.take(m.tid) else {
            self.stats.stray += 1;
            return;
        };
        c.rcv_wnd = c
            .rcv_wnd
            .saturating_add(i64::from(m.credits))
            .min(MAX_CREDIT);
        if m.modulate_rx {
            self.drain_held(now, &mut c, host);
        }
        if m.force_ack {
            self.send_ack(now, &mut c);
        } else if c.state.synchronised() {
            self.window_update(now, &mut c);
        }
        self.put(c);
    }
}
