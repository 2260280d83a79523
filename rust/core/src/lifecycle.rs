//! How a connection ends: FIN both ways, abort from either side, the kernel letting go.
//!
//! Context as in `conn.rs`. The tid is done (`final_cpl`) when both FINs are acknowledged, or
//! with the reply to our abort, or when the peer's abort is answered; exactly once.

use crate::conn::{Conn, End, Outcome};
use crate::done::CardDone;
use crate::errno::Errno;
use crate::flags::Flags;
use crate::os::{Counter, Os, TcpState};
use crate::since::Since;
use crate::status::abort_errno;
use crate::tx::Tx;
use crate::wr::NotSent;

impl<O: Os> Conn<O> {
    /// `tod_send_fin`: close our direction once all data is handed over.
    pub fn send_fin(&mut self, os: &mut O) {
        if self.alive(os) {
            self.closed(os);
            self.tx.send_fin(&mut self.sh, os);
            self.hear(os);
        } else if !self.flags.contains(Flags::ESTABLISHED) {
            self.tx.fin_wanted();
        }
    }

    /// If nobody will read any more, nothing may keep the peer from hearing of it: data that
    /// comes is answered with a reset, and must not wait at a shut window. Nor will there be jobs
    /// that could use a page set again: none is kept, whatever the peer does from here on.
    pub(crate) fn closed(&mut self, os: &mut O) {
        if os.rcv_shut() {
            self.sh.tun.cache = 0;
            self.sh.sets.set_limit(0);
            self.sh.sets.trim(os);
            self.rx.rcvd(&mut self.sh, os);
        }
    }

    /// `tod_send_rst`: abort. Calls after the first do nothing.
    pub fn send_rst(&mut self, os: &mut O) {
        if self.flags.contains(Flags::ESTABLISHED) && !self.over() {
            self.start_abort(os, Errno::ECONNABORTED);
        }
    }

    /// `tod_pcb_detach`: the kernel lets go of the tcpcb. A connection that is neither closing
    /// nor aborted is aborted, or its tid would never come back.
    pub fn detach(&mut self, os: &mut O) {
        self.flags |= Flags::DETACHED;
        if !self.flags.contains(Flags::ESTABLISHED) || self.over() {
            return;
        }
        if !self.tx.fin_sent() {
            self.start_abort(os, Errno::ECONNABORTED);
        }
    }

    /// CPL_PEER_CLOSE: the peer's FIN.
    pub fn peer_close(&mut self, os: &mut O, cpl: &wire::PeerClose) -> Outcome {
        if self.over() || self.flags.contains(Flags::ABORT) {
            return Outcome::NONE;
        }
        if !self.flags.contains(Flags::ESTABLISHED) || self.flags.contains(Flags::PEER_FIN) {
            return self.bad_cpl(os);
        }
        self.flags |= Flags::PEER_FIN;
        self.hear(os);
        if self.gone(os) {
            return self.maybe_final(os, End::None);
        }
        if self.rx.peer_fin(&mut self.sh, os, cpl).is_err() {
            return self.bad_cpl(os);
        }
        match os.tcp_state() {
            TcpState::SynReceived | TcpState::Established => {
                os.set_tcp_state(TcpState::CloseWait);
                Outcome::NONE
            }
            TcpState::FinWait1 => {
                os.set_tcp_state(TcpState::Closing);
                Outcome::NONE
            }
            TcpState::FinWait2 => self.maybe_final(os, End::TimeWait),
            _ => self.bad_cpl(os),
        }
    }

    /// CPL_CLOSE_CON_RPL: the peer has acknowledged our FIN, and so all data before it.
    pub fn close_con_rpl(&mut self, os: &mut O, cpl: &wire::CloseConRpl) -> Outcome {
        if self.over() || self.flags.contains(Flags::ABORT) {
            return Outcome::NONE;
        }
        if !self.tx.fin_sent() || self.flags.contains(Flags::FIN_ACKED) {
            return self.bad_cpl(os);
        }
        self.flags |= Flags::FIN_ACKED;
        self.hear(os);
        let gone = self.gone(os);
        let done = CardDone::fin_acked(cpl);
        self.tx.all_acked(&mut self.sh, os, gone, &done);
        if gone {
            return self.maybe_final(os, End::None);
        }
        os.publish(&self.sh.seq);
        match os.tcp_state() {
            TcpState::Closing => self.maybe_final(os, End::TimeWait),
            TcpState::LastAck => self.maybe_final(os, End::Close),
            TcpState::FinWait1 => {
                if os.rcv_shut() {
                    os.so_disconnected();
                }
                os.set_tcp_state(TcpState::FinWait2);
                Outcome::NONE
            }
            _ => self.bad_cpl(os),
        }
    }

    /// CPL_ABORT_REQ_RSS: reset by the peer, timed out, or as bad. Advice is ignored; anything
    /// else is owed a CPL_ABORT_RPL.
    pub fn abort_req(&mut self, os: &mut O, cpl: &wire::AbortReqRss) -> Outcome {
        if cpl.status.is_neg_advice() {
            return Outcome::NONE;
        }
        if self.over() {
            return Outcome::NONE;
        }
        let crossed = self.flags.contains(Flags::ABORT);
        if !crossed {
            self.since = Some(Since::new(os.now_ms()));
        }
        self.flags |= Flags::ABORT | Flags::RPL_OWED;
        let mut end = End::None;
        if crossed && self.flags.intersects(Flags::REQ_SENT | Flags::REQ_OWED) {
            // Ours is on its way; its reply is the last word.
            if self.flags.contains(Flags::REQ_OWED) {
                // Not even sent: the peer's abort does for both.
                self.flags.remove(Flags::REQ_OWED);
                self.flags |= Flags::LAST;
            }
        } else if !crossed {
            self.flags |= Flags::LAST;
            let gone = self.gone(os);
            let why = abort_errno(os.tcp_state(), cpl.status);
            self.why = Some(why);
            self.tx.stop(os, why);
            self.rx.stop();
            if !gone {
                end = End::Drop(why);
            }
        }
        let o = self.retry_abort(os);
        Outcome { end, ..o }
    }

    /// CPL_ABORT_RPL_RSS: the answer to our CPL_ABORT_REQ.
    pub fn abort_rpl(&mut self, os: &mut O, _cpl: &wire::AbortRplRss) -> Outcome {
        if self.over() {
            return Outcome::NONE;
        }
        if !self.flags.contains(Flags::REQ_SENT) {
            return self.bad_cpl(os);
        }
        self.flags.remove(Flags::REQ_SENT);
        self.flags |= Flags::LAST;
        self.retry_abort(os)
    }

    /// Begin an abort from our side, once.
    pub(crate) fn start_abort(&mut self, os: &mut O, why: Errno) {
        if self.flags.contains(Flags::ABORT) {
            return;
        }
        self.flags |= Flags::ABORT | Flags::REQ_OWED;
        self.since = Some(Since::new(os.now_ms()));
        self.why = Some(why);
        self.tx.stop(os, why);
        self.rx.stop();
        let _ = self.retry_abort(os);
    }

    /// Abort from our side, and tell the kernel.
    pub(crate) fn give_up(&mut self, os: &mut O, why: Errno) -> Outcome {
        let already = self.flags.contains(Flags::ABORT);
        self.start_abort(os, why);
        let end = if already || self.gone(os) {
            End::None
        } else {
            End::Drop(why)
        };
        Outcome {
            end,
            ..Outcome::NONE
        }
    }

    /// Send the abort messages owed, as far as work requests are to be had, and see whether the
    /// abort is over.
    pub(crate) fn retry_abort(&mut self, os: &mut O) -> Outcome {
        if !self.flags.contains(Flags::ABORT) || self.over() {
            return Outcome::NONE;
        }
        if self.flags.contains(Flags::RPL_OWED) {
            match Tx::send_abort_rpl(&mut self.sh, os) {
                Ok(()) => self.flags.remove(Flags::RPL_OWED),
                Err(NotSent::NoWr) => os.retry_later(),
                Err(NotSent::Unbuilt) => return self.nameless(os),
            }
        }
        if self.flags.contains(Flags::REQ_OWED) {
            match self.tx.send_abort_req(&mut self.sh, os) {
                Ok(()) => {
                    self.flags.remove(Flags::REQ_OWED);
                    self.flags |= Flags::REQ_SENT;
                }
                Err(NotSent::NoWr) => os.retry_later(),
                Err(NotSent::Unbuilt) => return self.nameless(os),
            }
        }
        let waiting = Flags::REQ_OWED | Flags::REQ_SENT | Flags::RPL_OWED;
        if self.flags.contains(Flags::LAST) && !self.flags.intersects(waiting) {
            return self.finish(os, End::None);
        }
        Outcome::NONE
    }

    /// Of all that is in an abort only the tid can be what no request has room for, and then none
    /// was ever sent: the adapter knows of no page, and there is no answer to wait for. The
    /// abort is over with the next retry, whose caller sees to the outcome.
    fn nameless(&mut self, os: &mut O) -> Outcome {
        self.flags.remove(Flags::REQ_OWED | Flags::RPL_OWED);
        self.flags |= Flags::LAST;
        os.retry_later();
        Outcome::NONE
    }

    /// The adapter has stopped: from here on it reaches no memory and says nothing, and of what it
    /// was asked none will be answered. Jobs end with ECONNABORTED, and so does the socket.
    pub fn adapter_stopped(&mut self, os: &mut O) -> Outcome {
        let due = !self.over() || !self.answered();
        self.rx.forget_replies();
        self.flags.remove(Flags::PROBED);
        if self.over() {
            return Outcome {
                final_cpl: due,
                ..Outcome::NONE
            };
        }
        if !self.flags.contains(Flags::ESTABLISHED) {
            return Outcome::NONE;
        }
        let told = self.flags.contains(Flags::ABORT) || self.gone(os);
        let why = *self.why.get_or_insert(Errno::ECONNABORTED);
        self.flags
            .remove(Flags::REQ_OWED | Flags::REQ_SENT | Flags::RPL_OWED);
        self.flags |= Flags::ABORT | Flags::LAST;
        self.tx.stop(os, why);
        self.rx.stop();
        self.finish(os, if told { End::None } else { End::Drop(why) })
    }

    /// Both FINs acknowledged?
    fn maybe_final(&mut self, os: &mut O, end: End) -> Outcome {
        if self.flags.contains(Flags::PEER_FIN | Flags::FIN_ACKED) {
            self.try_end(os, end)
        } else {
            // The tcpcb's state and the adapter's disagree.
            match end {
                End::None => Outcome::NONE,
                _ => self.bad_cpl(os),
            }
        }
    }

    /// Both directions are closed. Without the tcpcb the socket could not be reached, so the
    /// connection ends when no read is left that so_rcv has bytes for, and so_rcv has all that
    /// is owed to it; that is looked at with each retry.
    pub(crate) fn try_end(&mut self, os: &mut O, end: End) -> Outcome {
        if self.gone(os) {
            return self.finish(os, End::None);
        }
        if self.rx.served() {
            return self.finish(os, end);
        }
        self.ending = Some(end);
        os.retry_later();
        Outcome::NONE
    }

    /// The final CPL has come: no DMA reaches any page of the connection from here on.
    fn finish(&mut self, os: &mut O, end: End) -> Outcome {
        let Some(done) = CardDone::last(self.flags) else {
            debug_assert!(false, "there is a last word");
            return Outcome::NONE;
        };
        self.flags |= Flags::FINAL;
        self.ending = None;
        if self.flags.contains(Flags::ABORT) && !self.gone(os) {
            os.snd_flush();
        }
        self.tx
            .end(os, self.why.unwrap_or(Errno::ECONNABORTED), &done);
        let told = self.rx.fail_all(&mut self.sh, os, self.why, &done);
        self.sh.sets.release_idle(os);
        self.recount(os);
        Outcome {
            end,
            told,
            final_cpl: self.answered(),
            silent: None,
        }
    }

    /// CPL_SET_TCB_RPL after the end: the last one lets the tid go. Until then it must not, or
    /// a later connection of the same tid could be given a reply that is not its own.
    pub(crate) fn late_reply(&mut self, os: &mut O, cpl: &wire::SetTcbRpl) -> Outcome {
        let due = !self.answered();
        if self.rx.set_tcb_rpl(&mut self.sh, os, cpl).is_err() {
            os.count(Counter::BadCpl, 1);
        }
        Outcome {
            final_cpl: due && self.answered(),
            ..Outcome::NONE
        }
    }

    /// No CPL_SET_TCB_RPL is to come.
    pub(crate) fn answered(&self) -> bool {
        self.rx.answered() && !self.flags.contains(Flags::PROBED)
    }
}
