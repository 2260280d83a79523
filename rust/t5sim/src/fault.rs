//! Faults on demand, beside those that [`Faults`] draws by chance.

use alloc::boxed::Box;

use crate::card::Card;
use crate::config::Faults;
use crate::conn::TcpState;
use crate::event::{CplOut, Event};
use crate::{Nanos, TxQueue};

impl Card {
    /// Changes what goes wrong by chance from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.cfg.faults = faults;
    }

    /// The wire loses the next `n` segments that carry payload.
    pub fn drop_segments(&mut self, n: u32) {
        self.drop_next = self.drop_next.saturating_add(n);
    }

    /// Breaks a connection: its host gets `CPL_ABORT_REQ_RSS`, its peer an RST. False if there is
    /// no such connection or it is over already.
    pub fn link_reset(&mut self, now: Nanos, tid: u32) -> bool {
        let now = now.max(self.now);
        let Some(mut c) = self.take(tid) else {
            return false;
        };
        let live = !matches!(c.state, TcpState::SynSent) && c.state.synchronised();
        if live {
            self.give_up(now, &mut c, wire::CplStatus::CONN_RESET);
        }
        self.put(c);
        live
    }

    /// The next in-order bytes throw the connection out of DDP, as urgent data or a burst of
    /// misordered segments would. False if it is not in DDP.
    pub fn ddp_fall_out(&mut self, tid: u32) -> bool {
        let Some(mut c) = self.take(tid) else {
            return false;
        };
        let on = self.ddp_on(&c);
        c.fall_out |= on;
        self.put(c);
        on
    }

    /// Spoils the tag of a DDP buffer in the TCB, so that its pods no longer answer to it.
    /// False if there is no such connection or buffer.
    pub fn stale_tag(&mut self, tid: u32, buf: usize) -> bool {
        let Some(mut c) = self.take(tid) else {
            return false;
        };
        let known = buf < 2;
        if known {
            let word = wire::W_RX_DDP_BUF0_TAG + u8::from(buf == 1);
            let old = c.tcb.buf_tag(wire::DdpBuf::from_index(buf));
            // Another pod of the same region: the low bit of the pod index.
            let value = u64::from(old ^ 1 << 6);
            c.tcb.set_field(&wire::TcbUpdate {
                word,
                mask: 0xffff_ffff,
                value,
            });
        }
        self.put(c);
        known
    }

    /// Keeps an answer that the host does not get.
    pub(crate) fn lose(&mut self, out: Box<CplOut>) {
        self.stats.cpls_lost += 1;
        // The serial number says which connection of its tid it is about.
        self.lost.push((self.serial, out));
    }

    /// Every answer that was lost reaches the host after all, in order, if its connection is still
    /// there. How many.
    pub fn find_lost(&mut self, now: Nanos) -> usize {
        let now = now.max(self.now);
        let mut n = 0;
        for (serial, out) in core::mem::take(&mut self.lost) {
            let tid = wire::tid_of(&out.cpl).ok();
            let born = tid.and_then(|t| self.conn(t)).map(|c| c.born);
            if born.is_some_and(|b| b <= serial) {
                self.events.push(now, Event::Cpl(out));
                n += 1;
            }
        }
        n
    }

    /// Delays everything still to run on a queue that is submitted from now on by `by`, as a
    /// queue stalled for want of descriptors would.
    pub fn stall_queue(&mut self, now: Nanos, q: TxQueue, by: Nanos) {
        let at = now.max(self.now).saturating_add(by);
        self.hold_queue(q, at);
    }
}
