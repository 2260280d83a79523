//! The send side towards the host: FLOWC, payload work requests, credits; and the making of data
//! segments out of them.

use crate::Nanos;
use crate::card::Card;
use crate::conn::{Conn, Payload, TcpState, TxWr};
use crate::event::Timer;
use crate::host::{DmaFault, Host};
use crate::request::{FlowcReq, TxDataReq};
use crate::tcp::flags;

/// Most credits one `CPL_FW4_ACK` can carry.
const ACK_CREDITS: u16 = 255;

impl Card {
    /// FW_FLOWC_WR: the firmware learns of the connection. It has to come before anything that
    /// takes credits; later ones only change parameters.
    pub(crate) fn flowc(&mut self, now: Nanos, req: &FlowcReq) {
        let Some(mut c) = self.take(req.tid) else {
            self.host_error("FLOWC for no connection", req.tid);
            return;
        };
        if let Some(iq) = req.iqid {
            c.fw_rxq = iq;
        }
        if req.snd_nxt.is_some_and(|s| s != c.seq_of(c.end)) && c.state.synchronised() {
            self.host_error("FLOWC with a wrong SNDNXT", req.tid);
        }
        c.flowc = true;
        if let Some(n) = req.sndbuf {
            c.sndbuf = u64::from(n.max(1));
        }
        let empty = TxWr {
            start: c.end,
            len: 0,
            data: Payload::None,
            credits: req.credits,
            shove: false,
            compl: false,
        };
        self.queue(now, &mut c, empty);
        self.kick(now, &mut c);
        self.put(c);
    }

    /// FW_OFLD_TX_DATA_WR.
    pub(crate) fn tx_data(&mut self, now: Nanos, req: TxDataReq) {
        let Some(mut c) = self.take(req.tid) else {
            self.stats.stray += 1;
            return;
        };
        if !c.flowc {
            self.host_error("data before FLOWC", req.tid);
        } else if c.fin_queued {
            self.host_error("data after CLOSE_CON_REQ", req.tid);
        } else if !c.state.can_send() {
            // The connection ended while the request was on its way.
            self.stats.stray += 1;
        } else {
            let wr = TxWr {
                start: c.end,
                len: req.len,
                data: req.data,
                credits: req.credits,
                shove: req.shove,
                compl: req.compl,
            };
            self.queue(now, &mut c, wr);
            self.kick(now, &mut c);
        }
        self.put(c);
    }

    /// Enters a work request that takes credits into its flow.
    pub(crate) fn queue(&mut self, now: Nanos, c: &mut Conn, wr: TxWr) {
        // What crosses the end of its connection is forgotten; the host was told the last word.
        if matches!(
            c.state,
            TcpState::Closed | TcpState::Aborting | TcpState::TimeWait
        ) {
            self.stats.stray += 1;
            return;
        }
        if u32::from(c.credits_out) + u32::from(wr.credits) > u32::from(self.cfg.tx_credits) {
            self.host_error("more credits than the connection has", c.tid);
            self.give_up(now, c, wire::CplStatus::ABORT_FAILED);
            return;
        }
        c.credits_out += wr.credits;
        c.stats.credits_taken += u64::from(wr.credits);
        self.stats.credits_taken += u64::from(wr.credits);
        c.end = c.end.saturating_add(wr.len);
        c.txq.push_back(wr);
        self.retire(now, c);
    }

    /// Lets go of the work requests that are acknowledged in full. Their credits are reported at
    /// once if one of them asked for it, or if nothing is left in the flow after an
    /// acknowledgement of data; otherwise after `credit_delay` at the latest.
    pub(crate) fn retire(&mut self, now: Nanos, c: &mut Conn) {
        let mut report = false;
        let mut data = false;
        while let Some(wr) = c.txq.front() {
            if wr.end() > c.una {
                break;
            }
            report |= wr.compl;
            data |= wr.len > 0;
            let credits = wr.credits;
            c.txq.pop_front();
            c.unreported.push_back(credits);
        }
        if report || data && c.txq.is_empty() {
            self.report_credits(now, c);
        } else if !c.unreported.is_empty() && c.timer(Timer::Credit).is_none() {
            let at = now.saturating_add(self.cfg.credit_delay);
            self.arm(c, Timer::Credit, at);
        }
    }

    /// `CPL_FW4_ACK` for every retired work request. One message never carries part of one.
    pub(crate) fn report_credits(&mut self, now: Nanos, c: &mut Conn) {
        c.set_timer(Timer::Credit, None);
        while !c.unreported.is_empty() {
            let mut sum = 0_u16;
            while let Some(&n) = c.unreported.front() {
                if sum > 0 && sum.saturating_add(n) > ACK_CREDITS {
                    break;
                }
                sum = sum.saturating_add(n);
                c.unreported.pop_front();
            }
            c.credits_out = c.credits_out.saturating_sub(sum);
            c.stats.credits_returned += u64::from(sum);
            self.stats.credits_returned += u64::from(sum);
            let una = c.una.min(c.end);
            let msg = wire::Fw4Ack {
                tid: c.tid,
                credits: u8::try_from(sum).unwrap_or(u8::MAX),
                seq_vld: true,
                snd_nxt: c.seq_of(c.max.min(c.end)),
                snd_una: c.seq_of(una),
            };
            self.cpl(now, c.fw_rxq, wire::Fw4Ack::LEN, |b| msg.emit(b));
        }
    }

    /// The connection is over: what it had taken does not come back.
    pub(crate) fn forfeit(&mut self, c: &mut Conn) {
        self.stats.credits_forfeited += u64::from(c.credits_out);
        c.credits_out = 0;
        c.unreported.clear();
        c.txq.clear();
        c.set_timer(Timer::Credit, None);
        c.set_timer(Timer::Rexmt, None);
        c.set_timer(Timer::Persist, None);
    }

    /// Sends the next segment of `c`, if there is one the peer's window takes. The payload is
    /// read from host memory now.
    pub(crate) fn send_one(&mut self, now: Nanos, c: &mut Conn, host: &mut impl Host) -> bool {
        if !c.state.synchronised() || c.nxt >= c.total() {
            return false;
        }
        let data_left = c.end.saturating_sub(c.nxt);
        let mut room = c.una.saturating_add(c.snd_wnd).saturating_sub(c.nxt);
        if room == 0 && data_left > 0 {
            if !c.probe {
                if !c.outstanding() && c.timer(Timer::Persist).is_none() {
                    let at = now.saturating_add(self.cfg.rto);
                    self.arm(c, Timer::Persist, at);
                }
                return false;
            }
            room = 1;
        }
        let probe = core::mem::take(&mut c.probe);
        let full = c.una.saturating_add(c.sndbuf).saturating_sub(c.nxt);
        if full == 0 && data_left > 0 {
            return false;
        }
        let room = room.min(full);
        let draw = self
            .rng
            .range(u64::from(self.cfg.seg_min), u64::from(self.cfg.seg_max));
        let want = draw.min(data_left);
        let n = want.min(room);
        if n < want && n < u64::from(self.cfg.seg_min) && c.una < c.nxt && !probe {
            // Not worth a segment; what is in flight will open the window.
            return false;
        }
        let fin = c.fin_queued && n == data_left;
        let len = usize::try_from(n).unwrap_or(0);
        let mut payload = self.buffer(len);
        if let Err(fault) = read_payload(c, c.nxt, &mut payload, host) {
            self.stats.dma_faults += 1;
            let _ = fault;
            self.recycle(payload);
            self.give_up(now, c, wire::CplStatus::ABORT_FAILED);
            return false;
        }
        let end = c.nxt + n;
        let mut fl = flags::ACK;
        if c.txq
            .iter()
            .any(|w| w.shove && w.end() > c.nxt && w.end() <= end)
        {
            fl |= flags::PSH;
        }
        if fin {
            fl |= flags::FIN;
        }
        let mut seg = self.segment_of(c, fl);
        seg.payload = payload;
        let again = c.max.min(end).saturating_sub(c.nxt);
        c.nxt = end + u64::from(fin);
        c.max = c.max.max(c.nxt);
        c.stats.rexmt_bytes += again;
        c.stats.tx_bytes += n - again;
        self.stats.rexmt_bytes += again;
        self.stats.tx_bytes += n - again;
        if c.timer(Timer::Rexmt).is_none() {
            self.arm_rexmt(now, c);
        }
        self.transmit(now, c.port, seg);
        true
    }
}

/// Reads the stream bytes from offset `at` on into `out`.
fn read_payload(c: &Conn, at: u64, out: &mut [u8], host: &mut impl Host) -> Result<(), DmaFault> {
    let mut at = at;
    let mut out = out;
    let first = c.txq.partition_point(|w| w.end() <= at);
    for wr in c.txq.range(first..) {
        if out.is_empty() {
            break;
        }
        let mut skip = at.saturating_sub(wr.start);
        let n = usize::try_from(wr.len.saturating_sub(skip))
            .unwrap_or(usize::MAX)
            .min(out.len());
        let (mut head, tail) = core::mem::take(&mut out).split_at_mut(n);
        out = tail;
        at = at.saturating_add(u64::try_from(n).unwrap_or(0));
        match &wr.data {
            Payload::None => head.fill(0),
            Payload::Immediate(bytes) => {
                let from = usize::try_from(skip).unwrap_or(usize::MAX);
                if let Some(src) = bytes.get(from..).and_then(|b| b.get(..n)) {
                    head.copy_from_slice(src);
                }
            }
            Payload::Sgl(segs) => {
                for &(addr, len) in segs {
                    let len = u64::from(len);
                    if skip >= len {
                        skip -= len;
                        continue;
                    }
                    let here = usize::try_from(len - skip)
                        .unwrap_or(usize::MAX)
                        .min(head.len());
                    let (now, rest) = core::mem::take(&mut head).split_at_mut(here);
                    host.read(addr.wrapping_add(skip), now)?;
                    head = rest;
                    skip = 0;
                    if head.is_empty() {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}
