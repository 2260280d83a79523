//! Closing: FIN both ways, resets, the release of the tid.

use alloc::boxed::Box;

use crate::Nanos;
use crate::card::Card;
use crate::conn::{Conn, Payload, TcpState, TxWr};
use crate::event::Timer;
use crate::tcp::{Segment, flags};
use wire::CplStatus;

impl Card {
    /// CPL_CLOSE_CON_REQ: a FIN after everything queued.
    pub(crate) fn close_con(&mut self, now: Nanos, tid: u32) {
        let Some(mut c) = self.take(tid) else {
            self.stats.stray += 1;
            return;
        };
        match c.state {
            TcpState::Established => c.state = TcpState::FinWait1,
            TcpState::CloseWait => c.state = TcpState::LastAck,
            TcpState::Closed | TcpState::Aborting => {
                self.stats.stray += 1;
                self.put(c);
                return;
            }
            _ => {
                self.host_error("CLOSE_CON_REQ twice or too early", tid);
                self.put(c);
                return;
            }
        }
        self.charge(now, &mut c, wire::CloseConReq::LEN);
        c.fin_queued = true;
        self.kick(now, &mut c);
        self.put(c);
    }

    /// Takes the credits of a request that carries no payload, where they are counted at all.
    fn charge(&mut self, now: Nanos, c: &mut Conn, len: usize) {
        if self.cfg.close_credits && c.flowc {
            let credits = u16::try_from(len.div_ceil(16)).unwrap_or(0);
            let data = Payload::None;
            let wr = TxWr {
                start: c.end,
                len: 0,
                data,
                credits,
                shove: false,
                compl: false,
            };
            self.queue(now, c, wr);
        }
    }

    /// Our FIN is acknowledged.
    pub(crate) fn fin_acked(&mut self, now: Nanos, c: &mut Conn) {
        c.state = match c.state {
            TcpState::FinWait1 => TcpState::FinWait2,
            TcpState::Closing | TcpState::LastAck => TcpState::TimeWait,
            other => other,
        };
        // Nothing is said of the flow after its end: this may be the connection's last message.
        self.report_credits(now, c);
        let msg = wire::CloseConRpl {
            tid: c.tid,
            status: CplStatus::NONE,
            snd_nxt: c.snd_nxt(),
            rcv_nxt: c.rcv_nxt,
        };
        self.cpl(now, c.rxq, wire::CloseConRpl::LEN, |b| msg.emit(b));
    }

    /// The peer's FIN has come, in order. What is held is delivered before the host is told.
    /// DDP buffers that are partly filled are not handed back: `rcv_nxt` of `CPL_PEER_CLOSE`
    /// tells how far they are.
    pub(crate) fn peer_fin(&mut self, now: Nanos, c: &mut Conn) {
        c.state = match c.state {
            TcpState::Established => TcpState::CloseWait,
            TcpState::FinWait1 => TcpState::Closing,
            TcpState::FinWait2 => TcpState::TimeWait,
            other => other,
        };
        let off = !self.ddp_on(c);
        self.flush_held(now, c, off);
        c.push_buf = None;
        c.set_timer(Timer::Push, None);
        let msg = wire::PeerClose {
            tid: c.tid,
            rcv_nxt: c.rcv_nxt,
        };
        self.cpl(now, c.rxq, wire::PeerClose::LEN, |b| msg.emit(b));
    }

    /// The peer, or the wire, has reset the connection.
    pub(crate) fn peer_reset(&mut self, now: Nanos, c: &mut Conn, status: CplStatus) {
        if c.state == TcpState::TimeWait {
            // Both ends have everything; the host expects no more of this tid.
            return;
        }
        self.abort_to_host(now, c, status);
    }

    /// The card gives the connection up by itself: an RST for the peer, an abort for the host.
    pub(crate) fn give_up(&mut self, now: Nanos, c: &mut Conn, status: CplStatus) {
        if matches!(
            c.state,
            TcpState::Closed | TcpState::Aborting | TcpState::TimeWait
        ) {
            return;
        }
        self.send_rst(now, c);
        self.abort_to_host(now, c, status);
    }

    /// `CPL_ABORT_REQ_RSS`; from now on nothing of the connection touches host memory. The host
    /// owes a `CPL_ABORT_RPL`.
    pub(crate) fn abort_to_host(&mut self, now: Nanos, c: &mut Conn, status: CplStatus) {
        self.silence(c);
        c.state = TcpState::Aborting;
        c.abort_rpl_due = true;
        let msg = wire::AbortReqRss {
            tid: c.tid,
            status,
            srqidx: 0,
        };
        self.cpl(now, c.rxq, wire::AbortReqRss::LEN, |b| msg.emit(b));
    }

    fn send_rst(&mut self, now: Nanos, c: &mut Conn) {
        let mut rst = Segment::bare(c.port, c.tuple.reversed(), flags::RST);
        rst.seq = if c.state == TcpState::SynReceived {
            c.iss.wrapping_add(1)
        } else {
            c.snd_nxt()
        };
        rst.flags |= flags::ACK;
        rst.ack = c.rcv_nxt;
        self.transmit(now, c.port, rst);
    }

    /// Drops everything the connection would still do.
    fn silence(&mut self, c: &mut Conn) {
        self.forfeit(c);
        self.drop_held(c);
        self.unhash(c);
        c.timers = Default::default();
        c.push_buf = None;
        c.fin_queued = false;
    }

    /// CPL_ABORT_REQ. If the card's own abort is on its way to the host, both are answered: this
    /// one says so by its status.
    pub(crate) fn abort_req(&mut self, now: Nanos, m: &wire::AbortReq) {
        let Some(mut c) = self.take(m.tid) else {
            self.host_error("ABORT_REQ for no connection", m.tid);
            return;
        };
        if !c.flowc {
            self.host_error("ABORT_REQ before FLOWC", m.tid);
        }
        let status = match c.state {
            TcpState::Aborting | TcpState::Closed => CplStatus::ABORT_FAILED,
            _ => {
                if !m.cmd.no_rst() && c.state != TcpState::TimeWait {
                    self.send_rst(now, &mut c);
                }
                self.silence(&mut c);
                c.state = TcpState::Closed;
                CplStatus::NONE
            }
        };
        let msg = wire::AbortRplRss {
            tid: m.tid,
            status,
            srqidx: 0,
        };
        self.cpl(now, c.rxq, wire::AbortRplRss::LEN, |b| msg.emit(b));
        self.put(c);
    }

    /// CPL_ABORT_RPL.
    pub(crate) fn abort_rpl(&mut self, tid: u32) {
        let Some(mut c) = self.take(tid) else {
            self.host_error("ABORT_RPL for no connection", tid);
            return;
        };
        if c.abort_rpl_due {
            c.abort_rpl_due = false;
            c.state = TcpState::Closed;
        } else {
            self.host_error("ABORT_RPL nobody asked for", tid);
        }
        self.put(c);
    }

    /// CPL_TID_RELEASE. The tid is free once no `CPL_ABORT_RPL` is owed.
    pub(crate) fn tid_release(&mut self, tid: u32) {
        let Some(mut c) = self.take(tid) else {
            self.host_error("TID_RELEASE for no connection", tid);
            return;
        };
        let refused = c.state == TcpState::SynReceived && !c.accepted;
        let over = matches!(
            c.state,
            TcpState::Closed | TcpState::Aborting | TcpState::TimeWait
        );
        if !refused && !over {
            self.host_error("TID_RELEASE of a live connection", tid);
        }
        c.released = true;
        self.put(c);
    }

    /// Takes the connection out of the address table.
    pub(crate) fn unhash(&mut self, c: &Conn) {
        let key = (c.port, c.tuple);
        if self.by_tuple.get(&key) == Some(&c.tid) {
            self.by_tuple.remove(&key);
        }
    }

    /// The end of a TCB.
    pub(crate) fn free(&mut self, mut c: Box<Conn>) {
        if c.state == TcpState::TimeWait {
            self.enter_time_wait(&c);
        }
        self.silence(&mut c);
        if let Some(atid) = c.atid {
            self.atids.remove(&atid);
        }
        self.stats.tids_freed += 1;
        self.free_tids.push_back(c.tid);
    }
}
