//! Transmit: what lies in so_snd goes out as FW_OFLD_TX_DATA_WRs, as far as credits allow.
//!
//! Context: inpcb write lock. Bytes leave so_snd when CPL_FW4_ACK returns the credits of the
//! work request that carried them. A shortage of credits suspends transmit until there are enough
//! for a work request worth its header; a shortage of work requests is retried ([`Os::retry_later`]).
//!
//! The last bytes that there are go with SHOVE, which becomes PSH: a peer whose reader has room
//! left (a DDP buffer, above all) would wait for more otherwise. Nothing can set PSH later, for a
//! work request without payload is not known to be legal. So if a parked write is to go on with
//! the next acknowledgement, a few bytes are kept back to carry SHOVE in case it is cancelled or
//! fails; and if it waits for anything else, SHOVE is set now.

use bitflags::bitflags;
use wire::{AbortCmd, AbortReq, AbortRpl, CloseConReq, Flowc, FlowcParam, OfldTxData, TxAlign};

use crate::aiotx::Writes;
use crate::done::CardDone;
use crate::fault::BadCpl;
use crate::os::{Counter, Os, Queue};
use crate::sgl::{MAX_SEGS, Sgl};
use crate::shared::Shared;
use crate::txcredits::{MAX_WR_CREDITS, MIN_TX_CREDITS, TxCredits};
use crate::wr::NotSent;

/// Payload bytes that go as immediate data: what one 64-byte descriptor holds beside the header.
pub const MAX_IMM: u32 = 48;
/// A work request carries no less than this if so_snd has it, however small so_snd is.
const MIN_CHUNK: u32 = 32 * 1024;
/// Nor more than this: acknowledgements come by work request.
pub(crate) const MAX_CHUNK: u32 = 256 * 1024;
/// Payload for which a completion is asked for at the latest.
const COMPL_BYTES: u32 = 64 * 1024;
/// A work request takes no more than this part of all credits. They come back when its last byte
/// is acknowledged, so a few long ones would keep idle what many short ones use; yet each pays for
/// its header. Six are about where the two balance.
const WR_PART: u16 = 6;
/// But this many if it needs them.
const WR_CREDITS: u16 = 16;
/// Least credits worth a work request: of fewer, most go into its header.
const FEW_CREDITS: u16 = 4;
/// Bytes of a short work request kept back for the push, at most: a cache line.
const TAIL: u32 = 64;
/// Fewer bytes than this are not worth a work request if more are to come soon.
const FEW_BYTES: u32 = 512;
/// Bytes kept back of a long work request, at most.
pub(crate) const PAGE: u32 = 4096;
/// Fewer bytes unsent than this do not fill a work request.
const SHORT: u32 = 96 * 1024;

/// What transmit needs to know when the connection comes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxParams {
    /// Bytes the adapter may buffer for sending (FLOWC SNDBUF). Said once, so the most that the
    /// window of write jobs may grow to; less only if `toe.sndbuf` says so.
    pub sndbuf: u32,
    /// The window of write jobs at first, bytes.
    pub wnd: u32,
    /// Payload bytes of a full segment, options taken off (FLOWC MSS).
    pub emss: u16,
    /// Align payload to full segments (`toe.tx_align`; by default T5 past 10 Gb/s).
    pub tx_align: bool,
    /// Nagle's algorithm is on at first (no TCP_NODELAY).
    pub nagle: bool,
}

bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct TxFlags: u16 {
        /// FW_FLOWC_WR was sent.
        const FLOWC_SENT = 1 << 0;
        /// FW_FLOWC_WR tells sequence numbers: the connection was taken over by the kernel.
        const FLOWC_SEQ = 1 << 1;
        /// Payload was sent.
        const DATA_SENT = 1 << 2;
        /// Out of credits.
        const SUSPENDED = 1 << 3;
        /// Close our direction after the data.
        const SEND_FIN = 1 << 4;
        /// CPL_CLOSE_CON_REQ was sent.
        const FIN_SENT = 1 << 5;
        /// Nothing is sent any more.
        const STOPPED = 1 << 6;
        /// The adapter is done with the connection.
        const ENDED = 1 << 7;
        /// The adapter does not say that it is.
        const ORPHANED = 1 << 8;
    }
}

/// Transmit side of a connection.
pub struct Tx<O: Os> {
    pub(crate) cred: TxCredits<O::Ring>,
    pub(crate) flags: TxFlags,
    pub(crate) params: TxParams,
    /// Sequence number of the first byte in so_snd.
    pub(crate) acked: u32,
    pub(crate) writes: Writes<O>,
}

/// Segments that fit a work request of `credits`.
#[must_use]
pub fn max_dsgl_nsegs(credits: u8) -> usize {
    let credits = usize::from(credits.min(MAX_WR_CREDITS));
    let Some(room) = (credits * 16).checked_sub(32) else {
        return 0;
    };
    // Pairs of 24 bytes; half a pair takes 16.
    (1 + 2 * (room / 24) + usize::from(room % 24 >= 16)).min(MAX_SEGS)
}

/// Payload that fits a work request of `credits` as immediate data.
#[must_use]
pub fn max_imm_payload(credits: u8) -> u32 {
    (u32::from(credits) * 16).saturating_sub(16).min(MAX_IMM)
}

impl<O: Os> Tx<O> {
    /// Before the connection is up.
    pub(crate) fn new(ring: O::Ring) -> Tx<O> {
        Tx {
            cred: TxCredits::new(ring),
            flags: TxFlags::empty(),
            params: TxParams {
                sndbuf: 0,
                wnd: 0,
                emss: 0,
                tx_align: false,
                nagle: true,
            },
            acked: 0,
            writes: Writes::new(),
        }
    }

    /// The connection is up: introduce it to the firmware. `seq` is false if the kernel dropped
    /// it already and it is only to be aborted.
    pub(crate) fn established(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        wr_credits: u16,
        params: TxParams,
        seq: bool,
    ) {
        self.cred.grant(wr_credits);
        self.params = params;
        self.writes.open(params.wnd, params.sndbuf);
        self.acked = sh.seq.snd_una;
        self.flags.set(TxFlags::FLOWC_SEQ, seq);
        if self.send_flowc(sh, os).is_err() {
            os.retry_later();
        }
    }

    /// Payload was handed to the adapter (for CPL_ABORT_REQ).
    #[must_use]
    pub fn data_sent(&self) -> bool {
        self.flags.contains(TxFlags::DATA_SENT)
    }

    /// Our direction is to be closed, or is.
    pub(crate) fn fin_asked(&self) -> bool {
        self.flags.contains(TxFlags::SEND_FIN)
    }

    /// CPL_CLOSE_CON_REQ was sent.
    #[must_use]
    pub fn fin_sent(&self) -> bool {
        self.flags.contains(TxFlags::FIN_SENT)
    }

    /// Send what so_snd holds; if so_snd grew, parked writes fill it further.
    pub fn output(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if self.push(sh, os) {
            while self.refill(sh, os) {
                self.push(sh, os);
            }
        }
        self.settle(sh, os);
    }

    /// Fill so_snd from parked writes and send, until neither moves.
    pub(crate) fn pump(&mut self, sh: &mut Shared<O>, os: &mut O) {
        self.refill(sh, os);
        self.push(sh, os);
        while self.refill(sh, os) {
            self.push(sh, os);
        }
        self.settle(sh, os);
    }

    /// The connection shall be closed as soon as it is up.
    pub(crate) fn fin_wanted(&mut self) {
        self.flags |= TxFlags::SEND_FIN;
    }

    /// No job is here.
    pub(crate) fn quiet(&self) -> bool {
        self.writes.quiet()
    }

    /// No job is here and no worker works for one.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.writes.idle()
    }

    /// Close our direction once so_snd is handed over. Parked writes can send no more.
    pub fn send_fin(&mut self, sh: &mut Shared<O>, os: &mut O) {
        self.flags |= TxFlags::SEND_FIN;
        self.pump(sh, os);
    }

    /// A shortage may be over.
    pub fn retry(&mut self, sh: &mut Shared<O>, os: &mut O) {
        self.writes.retry(os);
        self.writes.acked(os, self.acked);
        if self.send_flowc(sh, os).is_err() {
            os.retry_later();
            return;
        }
        self.pump(sh, os);
    }

    /// CPL_FW4_ACK: credits and acknowledged bytes. `gone`: there is no socket any more.
    ///
    /// # Errors
    /// Credits or a sequence number that cannot be.
    pub fn fw4_ack(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::Fw4Ack,
        gone: bool,
    ) -> Result<(), BadCpl> {
        if cpl.seq_vld && seq_lt(sh.seq.snd_una, cpl.snd_una) {
            // Our FIN takes a sequence number, too.
            let max = sh.seq.snd_nxt.wrapping_add(u32::from(self.fin_sent()));
            if seq_lt(max, cpl.snd_una) {
                return Err(BadCpl("CPL_FW4_ACK acknowledges what was not sent"));
            }
            sh.seq.snd_una = if seq_lt(sh.seq.snd_nxt, cpl.snd_una) {
                sh.seq.snd_nxt
            } else {
                cpl.snd_una
            };
        }
        let plen = self.cred.give_back(cpl.credits);
        let plen = plen.map_err(|_| BadCpl("CPL_FW4_ACK returns credits that are not out"))?;
        if self.cred.avail() >= FEW_CREDITS.min(self.cred.total()) {
            self.flags.remove(TxFlags::SUSPENDED);
        }
        let ended = self.drop_acked(sh, os, plen, gone, &CardDone::acked(cpl));
        if !gone {
            if !(ended && self.rather_wait(sh, os)) {
                self.pump(sh, os);
            }
            os.publish(&sh.seq);
        }
        Ok(())
    }

    /// A program whose write has just ended is about to come with the next. If credits are scarce,
    /// that one had better share a work request with what little is left here. Otherwise that goes
    /// with the next acknowledgement, which is on its way.
    fn rather_wait(&mut self, sh: &mut Shared<O>, os: &mut O) -> bool {
        if !self.cred.scarce() || self.flags.contains(TxFlags::SEND_FIN) {
            return false;
        }
        self.refill(sh, os);
        self.unsent(os) < SHORT
    }

    /// Most credits of one work request.
    fn wr_credits(&self) -> u16 {
        (self.cred.total() / WR_PART).clamp(WR_CREDITS, u16::from(MAX_WR_CREDITS))
    }

    /// Fewer credits than this are not worth a work request of their own if more would fit it: its
    /// header would take too large a part of them. While there is enough for a long one, they wait
    /// for the next that come back, or there would be short ones for ever.
    fn few_credits(&self, unsent: u32) -> u16 {
        if unsent > SHORT {
            self.wr_credits()
        } else {
            FEW_CREDITS
        }
    }

    /// Bytes of so_snd that the adapter has not been given.
    fn unsent(&self, os: &O) -> u32 {
        os.snd_used().saturating_sub(self.cred.in_flight())
    }

    /// The peer has acknowledged all, our FIN included.
    pub(crate) fn all_acked(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        gone: bool,
        done: &CardDone,
    ) {
        let plen = self.cred.forget();
        self.drop_acked(sh, os, plen, gone, done);
    }

    /// `plen` more bytes need not be sent again, and are read no more. True if that ended a write
    /// job.
    fn drop_acked(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        plen: u32,
        gone: bool,
        _: &CardDone,
    ) -> bool {
        if plen == 0 {
            return false;
        }
        self.acked = self.acked.wrapping_add(plen);
        if seq_lt(sh.seq.snd_una, self.acked) {
            sh.seq.snd_una = self.acked;
        }
        if !gone {
            os.snd_drop(plen);
        }
        self.writes.grow(plen);
        self.writes.acked(os, self.acked)
    }

    /// Hand unsent bytes to the adapter. True if so_snd was made larger.
    fn push(&mut self, sh: &mut Shared<O>, os: &mut O) -> bool {
        let mut grew = false;
        let mut sent = false;
        while self.may_send() {
            if !self.cred.can_take(MIN_TX_CREDITS as u8) {
                self.flags |= TxFlags::SUSPENDED;
                break;
            }
            match self.push_one(sh, os, &mut grew) {
                Pass::Idle => break,
                Pass::NoWr => {
                    os.retry_later();
                    break;
                }
                Pass::Sent => sent = true,
            }
        }
        if sent {
            os.publish(&sh.seq);
        }
        grew
    }

    fn may_send(&self) -> bool {
        let no = TxFlags::SUSPENDED | TxFlags::FIN_SENT | TxFlags::STOPPED;
        self.flags.contains(TxFlags::FLOWC_SENT) && !self.flags.intersects(no)
    }

    /// One work request.
    fn push_one(&mut self, sh: &mut Shared<O>, os: &mut O, grew: &mut bool) -> Pass {
        let credits = self.cred.avail().min(self.wr_credits()) as u8;
        let hiwat = os.snd_hiwat();
        // Acknowledgements come by work request: several must fit so_snd, or each refill would
        // wait for the last byte of a buffer-full.
        let room = match self.writes.quiet() {
            true => hiwat,
            false => hiwat.max(self.writes.wnd()),
        };
        let max = (room / 4).clamp(MIN_CHUNK, MAX_CHUNK);
        let mut sgl = Sgl::new(max_dsgl_nsegs(credits));
        let mut unsent = os.snd_unsent(max, &mut sgl);
        let last = !unsent.more;
        if last && self.writes.waits_for_acks(os) {
            unsent.more = self.keep_back(&mut sgl);
        }
        let plen = sgl.len();
        if plen == 0 {
            return Pass::Idle;
        }
        if unsent.more
            && sgl.is_full()
            && u16::from(credits) < self.few_credits(self.unsent(os))
            && self.cred.completion_due()
        {
            self.flags |= TxFlags::SUSPENDED;
            return Pass::Idle;
        }
        let zcopy = os.snd_zcopy_octets(plen);
        let imm = zcopy == 0 && plen <= max_imm_payload(credits);
        let body = match imm {
            true => plen as usize,
            false => wire::dsgl_len(sgl.segs().len()),
        };
        let len = (OfldTxData::HDR_LEN + body).next_multiple_of(16);
        let cost = (len / 16) as u8;
        let used = u64::from(os.snd_used());
        let quiet = self.cred.plen_nocompl().saturating_add(plen);
        let compl = self.cred.wants_compl(cost)
            || quiet >= COMPL_BYTES
            || (used * 8 > u64::from(hiwat) * 5 && quiet >= hiwat / 4)
            // A write job ends with the acknowledgement of its last byte: ask for it.
            || (last && !self.writes.quiet());
        let wr = OfldTxData {
            tid: sh.id.tid,
            plen,
            immdlen: if imm { plen as u8 } else { 0 },
            len,
            compl,
            shove: !unsent.more && !os.more_to_come(),
            ulp_mode: sh.ulp_mode as u8,
            align: self.align(plen),
        };
        let sent = if imm {
            let mut data = [0; MAX_IMM as usize];
            let data = data.get_mut(..plen as usize).unwrap_or_default();
            if !os.snd_peek(data) {
                debug_assert!(false, "snd_unsent() counted bytes that are not there");
                return Pass::NoWr;
            }
            let mut buf = [0; OfldTxData::HDR_LEN + OfldTxData::MAX_IMM];
            let buf = buf.get_mut(..len).unwrap_or_default();
            sh.wrs.send(os, Queue::Ofld, buf, |b| wr.emit_imm(data, b))
        } else {
            let mut buf = [0; wire::MAX_WR_LEN];
            let buf = buf.get_mut(..len).unwrap_or_default();
            sh.wrs
                .send(os, Queue::Ofld, buf, |b| wr.emit_dsgl(sgl.segs(), b))
        };
        if sent.is_err() {
            return Pass::NoWr;
        }
        // Cannot fail: `credits` bounds the work request, `max` its payload.
        let _ = self.cred.take(cost, plen, compl);
        self.flags |= TxFlags::DATA_SENT;
        sh.seq.snd_nxt = sh.seq.snd_nxt.wrapping_add(plen);
        os.snd_advance(plen);
        os.count(Counter::TxZcopyOctets, u64::from(zcopy));
        os.count(
            Counter::TxPlainOctets,
            u64::from(plen.saturating_sub(zcopy)),
        );
        if os.snd_autosize() {
            *grew = true;
        }
        Pass::Sent
    }

    /// These are the last bytes there are, and a parked write goes on when an acknowledgement
    /// comes: some are not to go yet, if one is to come. True if some are kept.
    ///
    /// A cache line is the least that is worth a DMA read of its own. But a page that is cut takes
    /// a segment in two work requests, so of many bytes that whole page is kept; and few bytes go
    /// with what the acknowledgement brings.
    fn keep_back(&self, sgl: &mut Sgl) -> bool {
        let due = self.cred.completion_due();
        match sgl.len() {
            n if due && n <= FEW_BYTES => *sgl = Sgl::new(0),
            n if n >= MIN_CHUNK => sgl.leave_tail(PAGE),
            n if due || n > TAIL => sgl.leave_tail(TAIL),
            _ => return false,
        }
        true
    }

    /// How `plen` bytes are to be cut in segments.
    fn align(&self, plen: u32) -> TxAlign {
        match self.params.tx_align {
            false => TxAlign::Any,
            true if plen < 2 * u32::from(self.params.emss) => TxAlign::NoLso,
            true if self.params.nagle => TxAlign::WholeShove,
            true => TxAlign::Whole,
        }
    }

    /// Send our FIN once everything before it is handed over.
    pub(crate) fn settle(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if !self.flags.contains(TxFlags::SEND_FIN)
            || !self.may_send()
            || os.snd_used() != self.cred.in_flight()
        {
            return;
        }
        let cost = (CloseConReq::LEN / 16) as u8;
        if !self.cred.can_take(cost) {
            self.flags |= TxFlags::SUSPENDED;
            return;
        }
        let req = CloseConReq { tid: sh.id.tid };
        let mut buf = [0; CloseConReq::LEN];
        let sent = sh.wrs.send(os, Queue::Ofld, &mut buf, |b| req.emit(b));
        if sent.is_err() {
            os.retry_later();
            return;
        }
        let _ = self.cred.take(cost, 0, false);
        self.flags |= TxFlags::FIN_SENT;
    }

    /// Introduce the connection to the firmware, if not done.
    fn send_flowc(&mut self, sh: &mut Shared<O>, os: &mut O) -> Result<(), NotSent> {
        if self.flags.contains(TxFlags::FLOWC_SENT) {
            return Ok(());
        }
        let all = [
            (FlowcParam::PfnVfn, u32::from(sh.id.pf) << 8),
            (FlowcParam::Ch, u32::from(sh.id.channel)),
            // The port's number on the chip; the driver counts only those in use.
            (FlowcParam::Port, u32::from(sh.id.channel)),
            (FlowcParam::IqId, u32::from(sh.id.rxq)),
            (FlowcParam::SndBuf, self.params.sndbuf),
            (FlowcParam::Mss, u32::from(self.params.emss)),
            (FlowcParam::SndNxt, sh.seq.snd_nxt),
            (FlowcParam::RcvNxt, sh.seq.rcv_nxt),
        ];
        let n = if self.flags.contains(TxFlags::FLOWC_SEQ) {
            all.len()
        } else {
            all.len() - 2
        };
        let params = all.get(..n).unwrap_or(&all);
        let len = Flowc::len(n);
        let flowc = Flowc {
            tid: sh.id.tid,
            params,
        };
        let mut buf = [0; Flowc::len(8)];
        let buf = buf.get_mut(..len).unwrap_or_default();
        sh.wrs
            .send(os, Queue::Ofld, buf, |b| flowc.emit(b).map(drop))?;
        let _ = self.cred.take((len / 16) as u8, 0, false);
        self.flags |= TxFlags::FLOWC_SENT;
        Ok(())
    }

    /// CPL_ABORT_REQ; its credits are kept aside.
    pub(crate) fn send_abort_req(&mut self, sh: &mut Shared<O>, os: &mut O) -> Result<(), NotSent> {
        self.send_flowc(sh, os)?;
        let req = AbortReq {
            tid: sh.id.tid,
            rsvd0: sh.seq.snd_nxt,
            rsvd1: u8::from(!self.data_sent()),
            cmd: AbortCmd::SEND_RST,
        };
        let mut buf = [0; AbortReq::LEN];
        sh.wrs.send(os, Queue::Ofld, &mut buf, |b| req.emit(b))
    }

    /// CPL_ABORT_RPL.
    pub(crate) fn send_abort_rpl(sh: &mut Shared<O>, os: &mut O) -> Result<(), NotSent> {
        let rpl = AbortRpl {
            tid: sh.id.tid,
            cmd: AbortCmd::NO_RST,
            ..AbortRpl::default()
        };
        let mut buf = [0; AbortRpl::LEN];
        sh.wrs.send(os, Queue::Ofld, &mut buf, |b| rpl.emit(b))
    }
}

/// `a` comes before `b`, in sequence space.
pub(crate) fn seq_lt(a: u32, b: u32) -> bool {
    let d = b.wrapping_sub(a);
    d != 0 && d < 1 << 31
}

enum Pass {
    Idle,
    NoWr,
    Sent,
}
