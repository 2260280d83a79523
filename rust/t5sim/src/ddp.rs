//! Direct data placement: the DDP words of the TCB and what they do to in-order bytes.
//!
//! Two buffers, of which the active one is filled. A full buffer is handed back
//! (`CPL_RX_DATA_DDP` with BUF_COMPLETE and INV), its valid bit cleared, and the other becomes
//! active. If the active one is not valid but the other is, the other becomes active.
//!
//! A buffer that is not full is handed back
//! - when bytes are placed and its FLUSH flag is set;
//! - after a segment with PSH, unless its PUSH_DISABLE flag is set: at once if its PSHF_ENABLE
//!   flag is set or the push timer is 0, else when the push timer runs out
//!   (`CPL_RX_DDP_COMPLETE`). PSH_NO_INVALIDATE leaves the buffer valid.
//!
//! The host's own invalidate is a write to the valid bit. It hands nothing back: the bytes placed
//! are told by the offset in `CPL_SET_TCB_RPL`'s old value.

use alloc::vec::Vec;

use crate::Nanos;
use crate::card::Card;
use crate::conn::{Conn, Payload, TxWr};
use crate::event::Timer;
use crate::host::{Host, TxQueue};
use crate::ppod::{Place, PodError};
use crate::request::{SetTcb, UlpCmd};
use crate::rx::Chunk;
use wire::{CplStatus, DdpBuf, DdpVld, UlpMode};

/// One DDP buffer as the TCB has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BufInfo {
    /// The buffer may be filled.
    pub valid: bool,
    /// Where the next byte goes.
    pub offset: u32,
    /// Where it is full.
    pub len: u32,
    /// Page-pod tag.
    pub tag: u32,
}

/// DDP state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DdpInfo {
    /// The connection is in TCPDDP mode and not switched off.
    pub on: bool,
    /// The buffer that is filled, 0 or 1.
    pub active: usize,
    /// Both buffers.
    pub bufs: [BufInfo; 2],
}

/// How a buffer is handed back.
#[derive(Clone, Copy)]
struct HandBack {
    buf: DdpBuf,
    psh: bool,
    full: bool,
    timed_out: bool,
    invalidate: bool,
}

/// Why a buffer is handed back.
#[derive(Clone, Copy)]
enum Why {
    /// A placement of `len` bytes, the first with sequence number `seq` at `offset`.
    Placed { seq: u32, len: u32, offset: u32 },
    /// Something else, with the stream delivered up to `rcv_nxt`.
    Nothing { rcv_nxt: u32 },
}

impl Card {
    pub(crate) fn ddp_info(&self, c: &Conn) -> DdpInfo {
        let buf = |b| BufInfo {
            valid: c.tcb.buf_valid(b),
            offset: c.tcb.buf_offset(b),
            len: c.tcb.buf_len(b),
            tag: c.tcb.buf_tag(b),
        };
        let bufs = [buf(DdpBuf::B0), buf(DdpBuf::B1)];
        DdpInfo {
            on: self.ddp_on(c),
            active: c.tcb.active_buf().index(),
            bufs,
        }
    }

    pub(crate) fn ddp_on(&self, c: &Conn) -> bool {
        c.tcb.ulp_type() == UlpMode::TcpDdp as u8 && !c.tcb.ddp_off()
    }

    /// Data that finds no buffer is delivered as an indicate.
    pub(crate) fn indicates(c: &Conn) -> bool {
        c.tcb.buf_indicate(DdpBuf::B0) || c.tcb.buf_indicate(DdpBuf::B1)
    }

    /// Leaves DDP: both buffers are lost to the card, what they hold is not reported. The next
    /// `CPL_RX_DATA` says so by its `ddp_off` and tells the bytes placed by its `seq`.
    pub(crate) fn fall_out(&mut self, now: Nanos, c: &mut Conn) {
        c.fall_out = false;
        let valid = valid_bit(DdpBuf::B0) | valid_bit(DdpBuf::B1);
        c.tcb.set_flags(wire::TF_DDP_OFF | valid, wire::TF_DDP_OFF);
        c.push_buf = None;
        self.stats.ddp_off += 1;
        self.flush_held(now, c, true);
    }

    /// Places as much of `chunk` as there is buffer for.
    pub(crate) fn place(
        &mut self,
        now: Nanos,
        c: &mut Conn,
        chunk: &mut Chunk,
        host: &mut impl Host,
    ) {
        while chunk.len() > 0 {
            let mut buf = c.tcb.active_buf();
            if !c.tcb.buf_valid(buf) {
                buf = buf.other();
                if !c.tcb.buf_valid(buf) {
                    return;
                }
                c.tcb.set_active_buf(buf);
            }
            let offset = c.tcb.buf_offset(buf);
            let room = c.tcb.buf_len(buf).saturating_sub(offset);
            if room == 0 {
                // Armed with nothing to fill.
                let how = HandBack {
                    buf,
                    psh: false,
                    full: true,
                    timed_out: false,
                    invalidate: true,
                };
                self.hand_back(now, c, how, Why::Nothing { rcv_nxt: chunk.seq });
                continue;
            }
            let n = chunk.len().min(room);
            let seq = chunk.seq;
            if let Err(e) = self.dma_in(c, buf, offset, chunk, n, host) {
                self.placement_failed(now, c, buf, seq, n, e);
                chunk.advance(n);
                continue;
            }
            chunk.advance(n);
            c.tcb.set_buf_offset(buf, offset + n);
            if let Some(p) = c.placed.get_mut(buf.index()) {
                *p = p.saturating_add(n);
            }
            if c.tcb.rx_fc_ddp() {
                // The window slides with what DDP takes.
            } else {
                c.rcv_wnd = c.rcv_wnd.saturating_sub(i64::from(n));
            }
            c.stats.ddp_bytes += u64::from(n);
            self.stats.ddp_bytes += u64::from(n);
            let full = n == room;
            let last = chunk.len() == 0;
            let psh = last && chunk.psh;
            self.after_placement(
                now,
                c,
                buf,
                Why::Placed {
                    seq,
                    len: n,
                    offset,
                },
                full,
                psh,
            );
        }
    }

    /// Decides whether the placement just made ends the buffer's turn.
    fn after_placement(
        &mut self,
        now: Nanos,
        c: &mut Conn,
        buf: DdpBuf,
        dma: Why,
        full: bool,
        psh: bool,
    ) {
        let pushes = psh && !c.tcb.push_disable(buf);
        let at_once = flag(c, buf, wire::TF_DDP_PSHF_ENABLE_0) || self.cfg.push_timer == 0;
        if full || c.tcb.buf_flush(buf) || pushes && at_once {
            let invalidate = full || !c.tcb.psh_no_invalidate(buf);
            let how = HandBack {
                buf,
                psh,
                full,
                timed_out: false,
                invalidate,
            };
            self.hand_back(now, c, how, dma);
        } else if pushes || c.push_buf == Some(buf) {
            c.push_buf = Some(buf);
            let at = now.saturating_add(self.cfg.push_timer);
            self.arm(c, Timer::Push, at);
        }
    }

    /// The push timer ran out.
    pub(crate) fn push_timeout(&mut self, now: Nanos, c: &mut Conn) {
        let Some(buf) = c.push_buf.take() else { return };
        if !self.ddp_on(c) || !c.tcb.buf_valid(buf) || c.placed.get(buf.index()) == Some(&0) {
            return;
        }
        let invalidate = !c.tcb.psh_no_invalidate(buf);
        let how = HandBack {
            buf,
            psh: true,
            full: false,
            timed_out: true,
            invalidate,
        };
        self.hand_back(
            now,
            c,
            how,
            Why::Nothing {
                rcv_nxt: c.delivered_nxt(),
            },
        );
    }

    /// Hands a buffer back to the host, for the reason `why`.
    fn hand_back(&mut self, now: Nanos, c: &mut Conn, how: HandBack, why: Why) {
        if how.invalidate {
            c.tcb.set_flags(valid_bit(how.buf), 0);
            c.tcb.set_active_buf(how.buf.other());
        }
        if c.push_buf == Some(how.buf) {
            c.push_buf = None;
            c.set_timer(Timer::Push, None);
        }
        if let Some(p) = c.placed.get_mut(how.buf.index()) {
            *p = 0;
        }
        if how.full {
            self.stats.ddp_complete += 1;
        } else {
            self.stats.ddp_partial += 1;
        }
        let report = wire::DdpReport {
            // Where the last placement started, or where the buffer stands.
            offset: match why {
                Why::Placed { offset, .. } => offset,
                Why::Nothing { .. } => c.tcb.buf_offset(how.buf),
            },
            dack_mode: 0,
            buf_idx: idx(how.buf),
            urg: false,
            psh: how.psh,
            buf_complete: how.full,
            buf_timed_out: how.timed_out,
            inv: how.invalidate,
        };
        match why {
            Why::Placed { seq, len, .. } => {
                self.rx_data_ddp(now, c, seq, len, report, DdpVld::default());
            }
            Why::Nothing { rcv_nxt } => {
                let msg = wire::RxDdpComplete {
                    tid: c.tid,
                    report,
                    rcv_nxt,
                };
                self.cpl(now, c.rxq, wire::RxDdpComplete::LEN, |b| msg.emit(b));
            }
        }
    }

    fn rx_data_ddp(
        &mut self,
        now: Nanos,
        c: &Conn,
        seq: u32,
        len: u32,
        report: wire::DdpReport,
        ddpvld: DdpVld,
    ) {
        let msg = wire::RxDataDdp {
            tid: c.tid,
            urg: 0,
            len: u16::try_from(len).unwrap_or(u16::MAX),
            seq,
            report,
            ulp_crc: 0,
            ddpvld: ddpvld.with_ulp_mode(DdpVld::ULP_TCPDDP),
        };
        self.cpl(now, c.rxq, wire::RxDataDdp::LEN, |b| msg.emit(b));
    }

    /// Writes `n` bytes of `chunk` to host memory through the page pods of buffer `buf`.
    fn dma_in(
        &mut self,
        c: &Conn,
        buf: DdpBuf,
        offset: u32,
        chunk: &Chunk,
        n: u32,
        host: &mut impl Host,
    ) -> Result<(), PodError> {
        let len = usize::try_from(n).unwrap_or(0);
        let place = Place {
            tid: c.tid,
            tag: c.tcb.buf_tag(buf),
            offset,
            len,
        };
        let mut out = core::mem::take(&mut self.stretches);
        out.clear();
        let looked_up = self.pods.resolve(&place, &mut out);
        if looked_up.is_ok() {
            let mut bytes = chunk.bytes().get(..len).unwrap_or(&[]);
            for &(addr, n) in &out {
                let (now, rest) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
                bytes = rest;
                // A write the IOMMU refuses is lost without the card knowing.
                if host.write(addr, now).is_err() {
                    self.stats.dma_faults += 1;
                }
            }
        }
        self.stretches = out;
        looked_up
    }

    /// A placement the pods do not allow: nothing is written, the bytes are gone, the host is
    /// told by the error bits and the buffer's end.
    fn placement_failed(
        &mut self,
        now: Nanos,
        c: &mut Conn,
        buf: DdpBuf,
        seq: u32,
        n: u32,
        e: PodError,
    ) {
        let s = &mut self.stats;
        s.ddp_errors += 1;
        let bit = match e {
            PodError::InvalidTag => {
                s.invalid_tag += 1;
                DdpVld::INVALID_TAG
            }
            PodError::InvalidPod => {
                s.invalid_pod += 1;
                DdpVld::INVALID_PPOD
            }
            PodError::Tid => {
                s.tid_mismatch += 1;
                DdpVld::TID_MISMATCH
            }
            PodError::Mismatch => {
                s.tag_mismatch += 1;
                DdpVld::PPOD_MISMATCH
            }
            PodError::Color => {
                s.tag_mismatch += 1;
                DdpVld::COLOR_ERR
            }
            PodError::Limit => {
                s.over_limit += 1;
                DdpVld::ULIMIT_ERR
            }
        };
        c.stats.ddp_errors += 1;
        let offset = c.tcb.buf_offset(buf);
        c.tcb.set_flags(valid_bit(buf), 0);
        c.tcb.set_active_buf(buf.other());
        if c.push_buf == Some(buf) {
            c.push_buf = None;
        }
        let report = wire::DdpReport {
            offset,
            buf_idx: idx(buf),
            inv: true,
            ..Default::default()
        };
        self.rx_data_ddp(now, c, seq, n, report, bit);
    }

    /// The host has written to the TCB: acts on what changed of the DDP state.
    pub(crate) fn tcb_changed(
        &mut self,
        now: Nanos,
        c: &mut Conn,
        before: [bool; 2],
        host: &mut impl Host,
    ) {
        for (buf, was) in [DdpBuf::B0, DdpBuf::B1].into_iter().zip(before) {
            let is = c.tcb.buf_valid(buf);
            if is
                && !was
                && let Some(p) = c.placed.get_mut(buf.index())
            {
                *p = 0;
            }
            if was && !is {
                self.stats.invalidates += 1;
                if c.push_buf == Some(buf) {
                    c.push_buf = None;
                    c.set_timer(Timer::Push, None);
                }
            }
            if is && c.tcb.buf_flush(buf) && c.placed.get(buf.index()).is_some_and(|&p| p > 0) {
                let invalidate = !c.tcb.psh_no_invalidate(buf);
                let how = HandBack {
                    buf,
                    psh: false,
                    full: false,
                    timed_out: false,
                    invalidate,
                };
                self.hand_back(
                    now,
                    c,
                    how,
                    Why::Nothing {
                        rcv_nxt: c.delivered_nxt(),
                    },
                );
            }
        }
        self.drain_held(now, c, host);
    }

    /// CPL_SET_TCB_FIELD by itself. On an offload queue it takes credits like any request there.
    pub(crate) fn set_tcb_field(
        &mut self,
        now: Nanos,
        q: TxQueue,
        m: &SetTcb,
        host: &mut impl Host,
    ) {
        let Some(mut c) = self.take(m.tid) else {
            self.stats.stray += 1;
            return;
        };
        if matches!(q, TxQueue::Ofld(_)) && c.flowc {
            let wr = TxWr {
                start: c.end,
                len: 0,
                data: Payload::None,
                credits: u16::try_from(wire::SetTcbField::LEN.div_ceil(16)).unwrap_or(0),
                shove: false,
                compl: false,
            };
            self.queue(now, &mut c, wr);
        }
        let before = valid(&c);
        self.write_tcb(now, &mut c, m);
        self.tcb_changed(now, &mut c, before, host);
        self.put(c);
    }

    /// Applies the write and sends the reply if one is asked for.
    fn write_tcb(&mut self, now: Nanos, c: &mut Conn, m: &SetTcb) {
        let oldval = match m.update.word {
            // What the host does not write is kept elsewhere.
            wire::W_TX_MAX => c.live_tcb().set_field(&wire::TcbUpdate {
                mask: 0,
                ..m.update
            }),
            _ => c.tcb.set_field(&m.update),
        };
        let Some((queue, cookie)) = m.reply else {
            return;
        };
        let word = m.update.word;
        let status = CplStatus::NONE;
        let msg = wire::SetTcbRpl {
            tid: c.tid,
            word,
            cookie,
            status,
            oldval,
        };
        let late = self.cfg.faults.set_tcb_rpl_delay;
        let n = wire::SetTcbRpl::LEN;
        self.cpl_with(now, queue, n, Vec::new(), 0, late, |b| msg.emit(b));
    }

    /// FW_ULPTX_WR: its commands take effect together.
    pub(crate) fn ulptx(&mut self, now: Nanos, cmds: Vec<UlpCmd>, host: &mut impl Host) {
        let mut touched: Vec<(u32, [bool; 2])> = Vec::new();
        let mut acks = Vec::new();
        for cmd in cmds {
            match cmd {
                UlpCmd::SetTcb(m) => {
                    let Some(mut c) = self.take(m.tid) else {
                        self.stats.stray += 1;
                        continue;
                    };
                    if !touched.iter().any(|(tid, _)| *tid == m.tid) {
                        touched.push((m.tid, valid(&c)));
                    }
                    self.write_tcb(now, &mut c, &m);
                    self.put(c);
                }
                UlpCmd::RxDataAck(m) => acks.push(m),
            }
        }
        for (tid, before) in touched {
            let Some(mut c) = self.take(tid) else {
                continue;
            };
            self.tcb_changed(now, &mut c, before, host);
            self.put(c);
        }
        for m in acks {
            self.rx_data_ack(now, &m, host);
        }
    }

    /// CPL_GET_TCB: the TCB as it stands, words in descending order.
    pub(crate) fn get_tcb(&mut self, now: Nanos, m: &wire::GetTcb) {
        let Some(c) = self.conn(m.tid) else {
            self.stats.stray += 1;
            return;
        };
        if m.reply.no_reply {
            return;
        }
        let tcb = c.live_tcb();
        let payload: Vec<u8> = tcb
            .words
            .iter()
            .rev()
            .flat_map(|w| w.to_be_bytes())
            .collect();
        let len = u16::try_from(payload.len()).unwrap_or(0);
        let msg = wire::GetTcbRpl {
            tid: m.tid,
            cookie: m.cookie,
            status: CplStatus::NONE,
            len,
        };
        let n = wire::GetTcbRpl::LEN;
        self.cpl_with(now, m.reply.queue, n, payload, 0, 0, |b| msg.emit(b));
    }
}

fn valid_bit(buf: DdpBuf) -> u64 {
    buf.flag(wire::TF_DDP_BUF0_VALID)
}

fn valid(c: &Conn) -> [bool; 2] {
    [c.tcb.buf_valid(DdpBuf::B0), c.tcb.buf_valid(DdpBuf::B1)]
}

/// A DDP flag of `buf`, given as buffer 0 has it.
fn flag(c: &Conn, buf: DdpBuf, of_buf0: u64) -> bool {
    let [lo, hi] = [27, 28].map(|w| u64::from(c.tcb.words.get(w).copied().unwrap_or(0)));
    (lo | hi << 32) & buf.flag(of_buf0) != 0
}

fn idx(buf: DdpBuf) -> u8 {
    u8::from(buf == DdpBuf::B1)
}
