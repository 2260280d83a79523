//! What the adapter says about received data.

use super::Rx;
use crate::ddp::{Buf, COOKIE_DDP0, Fate, Mode, Stop};
use crate::done::CardDone;
use crate::fault::BadCpl;
use crate::os::Os;
use crate::shared::Shared;

impl<O: Os> Rx<O> {
    /// CPL_RX_DATA with its payload.
    ///
    /// # Errors
    /// [`BadCpl`]: its sequence number cannot be. The payload is freed.
    pub fn rx_data(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::RxData,
        m: O::Mbuf,
    ) -> Result<(), BadCpl> {
        self.note_plain(os);
        let len = u32::from(cpl.len);
        if self.dead || len == 0 {
            os.rcv_discard(m);
            return Ok(());
        }
        if self.fin {
            os.rcv_discard(m);
            return Err(BadCpl("CPL_RX_DATA after the FIN"));
        }
        // Bytes placed before these.
        let gap = cpl.seq.wrapping_sub(sh.seq.rcv_nxt);
        let fell = cpl.ddp_off && self.mode == Mode::On;
        if gap > self.room(fell) {
            os.rcv_discard(m);
            return Err(BadCpl("CPL_RX_DATA out of sequence"));
        }
        Self::placed(sh, gap);
        if fell {
            // The adapter fell out of DDP; or it held this message back since DDP was off, and
            // fills a buffer now. So the buffers are taken back, and it says which it was.
            self.mode = Mode::Off;
            self.take_back(0, Stop::Yield);
            self.take_back(1, Stop::Yield);
        }
        self.pass(gap);
        if self.mode == Mode::Requested && !cpl.ddp_off {
            self.now_on();
        }
        sh.seq.rcv_nxt = sh.seq.rcv_nxt.wrapping_add(len);
        sh.seq.rcv_wnd = sh.seq.rcv_wnd.saturating_sub_unsigned(len);
        self.psh = cpl.psh;
        if cpl.ddp_off && !self.was_on {
            self.early = self.early.saturating_add(len);
        }
        let settled = self.settle(sh, os);
        if os.rcv_shut() {
            // shutdown(2): acknowledged, and thrown away, as tcp_input does.
            os.rcv_discard(m);
        } else if settled && !self.bufs.iter().any(Buf::holds_passed) {
            os.rcv_append(m);
            self.known = self.known.wrapping_add(len);
        } else {
            self.park(os, m, len);
        }
        self.came(os);
        self.credits(sh, os);
        self.pump(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// CPL_RX_DATA_DDP: bytes were placed, and the buffer is back.
    ///
    /// # Errors
    /// [`BadCpl`]: error bits, or numbers that cannot be.
    pub fn rx_data_ddp(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::RxDataDdp,
    ) -> Result<(), BadCpl> {
        if cpl.ddpvld.has_error() {
            return Err(BadCpl("CPL_RX_DATA_DDP with error bits"));
        }
        // `seq` and `len` are those of the last placement only.
        let end = cpl.seq.wrapping_add(u32::from(cpl.len));
        self.report(sh, os, &cpl.report, end)
    }

    /// CPL_RX_DDP_COMPLETE: the buffer is back.
    ///
    /// # Errors
    /// [`BadCpl`]: numbers that cannot be.
    pub fn rx_ddp_complete(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::RxDdpComplete,
    ) -> Result<(), BadCpl> {
        self.report(sh, os, &cpl.report, cpl.rcv_nxt)
    }

    fn report(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        report: &wire::DdpReport,
        end: u32,
    ) -> Result<(), BadCpl> {
        if self.dead || self.fin || self.lost {
            // What the FIN had not said already, nothing says now.
            return Ok(());
        }
        let i = usize::from(report.buf_idx);
        if self.live_front() != Some(i) {
            return Err(BadCpl("DDP report for a buffer that is not being filled"));
        }
        let Some(done) = CardDone::reported(report) else {
            return Err(BadCpl("DDP report leaves the buffer valid"));
        };
        let n = end.wrapping_sub(sh.seq.rcv_nxt);
        let (room, passed) = self
            .bufs
            .at(i)
            .armed()
            .map_or((0, 0), |a| (a.left(), a.passed));
        if n > room || (n > 0 && passed > 0) {
            return Err(BadCpl("DDP report of more than the buffer holds"));
        }
        self.note_plain(os);
        Self::placed(sh, n);
        self.psh = report.psh;
        self.land(i, n.saturating_add(passed), Fate::Report, &done);
        self.pump(sh, os);
        self.credits(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// CPL_SET_TCB_RPL with one of our cookies.
    ///
    /// # Errors
    /// [`BadCpl`]: a failure, a reply to nothing, or numbers that cannot be.
    pub fn set_tcb_rpl(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::SetTcbRpl,
    ) -> Result<(), BadCpl> {
        let done = CardDone::taken_back(cpl);
        // It is one reply less that is due, whatever it says: the tid waits for no more.
        if cpl.word == wire::W_T_FLAGS && cpl.cookie == COOKIE_DDP0 {
            if !core::mem::take(&mut self.enabling) {
                return Err(BadCpl("CPL_SET_TCB_RPL to nothing"));
            }
            self.wait_on(os);
            if done.is_none() {
                return Err(BadCpl("CPL_SET_TCB_RPL with a failure"));
            }
            if self.dead {
                return Ok(());
            }
            if self.mode == Mode::Requested {
                self.now_on();
            }
            self.note_plain(os);
            self.pump(sh, os);
            return Ok(());
        }
        let i = usize::from(cpl.cookie.wrapping_sub(COOKIE_DDP0));
        if i > 1 || !core::mem::take(self.asked.at_mut(i)) {
            return Err(BadCpl("CPL_SET_TCB_RPL to nothing"));
        }
        self.wait_on(os);
        let Some(done) = done else {
            // Nobody knows what the adapter does with the buffer: it stays where it is until the
            // connection, which is reset now, is over.
            self.stop();
            return Err(BadCpl("CPL_SET_TCB_RPL with a failure"));
        };
        if self.dead {
            self.found(sh, os, i, &done);
            return Ok(());
        }
        self.note_plain(os);
        self.taken_back(sh, i, cpl.oldval, &done)?;
        self.pump(sh, os);
        self.credits(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// The reply about a buffer that was invalidated, with the old value of its TCB word.
    fn taken_back(
        &mut self,
        sh: &mut Shared<O>,
        i: usize,
        oldval: u64,
        done: &CardDone,
    ) -> Result<(), BadCpl> {
        // If the buffer came back by itself meanwhile, all was said then.
        let Buf::Invalidating(a) = self.bufs.at(i) else {
            return Ok(());
        };
        let (at, _) = wire::reached(wire::DdpBuf::from_index(i), oldval);
        let n = at.wrapping_sub(a.off);
        let more = n.checked_sub(a.passed);
        // Nothing is placed in it behind data that was sent instead.
        let fits = more.is_some_and(|more| {
            n <= a.room() && (more == 0 || (a.passed == 0 && self.live_front() == Some(i)))
        });
        let (Some(more), true) = (more, fits) else {
            self.stop();
            return Err(BadCpl("CPL_SET_TCB_RPL with an offset that cannot be"));
        };
        let fate = a.stop.map_or(Fate::Report, Fate::from);
        let passed = a.passed;
        let more = if self.lost { 0 } else { more };
        Self::placed(sh, more);
        self.land(i, passed.saturating_add(more), fate, done);
        Ok(())
    }

    /// CPL_PEER_CLOSE. Its `rcv_nxt` is behind the FIN; what was placed in posted buffers
    /// before it is given, then all reads end with what they have (0: end of file). Also calls
    /// [`Os::rcv_cant_more`], when all data is where readers find it.
    ///
    /// # Errors
    /// [`BadCpl`]: a sequence number that cannot be.
    pub fn peer_fin(
        &mut self,
        sh: &mut Shared<O>,
        os: &mut O,
        cpl: &wire::PeerClose,
    ) -> Result<(), BadCpl> {
        let rcv_nxt = cpl.rcv_nxt;
        if self.dead {
            return Ok(());
        }
        self.note_plain(os);
        let n = rcv_nxt.wrapping_sub(1).wrapping_sub(sh.seq.rcv_nxt);
        if self.fin || n > self.room(true) {
            return Err(BadCpl("CPL_PEER_CLOSE out of sequence"));
        }
        Self::placed(sh, n);
        sh.seq.rcv_nxt = rcv_nxt;
        self.fin = true;
        self.mode = Mode::Off;
        self.land_all(n, Fate::Eof, &CardDone::fin(cpl));
        self.pump(sh, os);
        os.publish(&sh.seq);
        Ok(())
    }

    /// The buffer the adapter fills now.
    fn live_front(&self) -> Option<usize> {
        let live = |i: &usize| self.bufs.at(*i).is_live();
        [self.active, self.active ^ 1].into_iter().find(live)
    }

    /// Bytes the adapter may have placed in buffers without having said so: in all of them, or
    /// only in those it was told to stop filling, as far as they are in front.
    fn room(&self, all: bool) -> u32 {
        let mut n: u32 = 0;
        for i in [self.active, self.active ^ 1] {
            match self.bufs.at(i) {
                Buf::Invalidating(a) => n = n.saturating_add(a.left()),
                Buf::Posted(a) if all => n = n.saturating_add(a.left()),
                Buf::Posted(_) => break,
                _ => {}
            }
        }
        n
    }

    /// `n` bytes were placed by DDP. They are not charged against the window (RX_FC_DDP).
    fn placed(sh: &mut Shared<O>, n: u32) {
        sh.seq.rcv_nxt = sh.seq.rcv_nxt.wrapping_add(n);
    }

    fn now_on(&mut self) {
        self.mode = Mode::On;
        self.was_on = true;
    }

    /// The adapter writes no more to a live buffer, and placed `n` bytes there.
    fn land(&mut self, i: usize, n: u32, fate: Fate, done: &CardDone) {
        let b = self.bufs.at_mut(i);
        *b = match b.take() {
            Buf::Posted(a) | Buf::Invalidating(a) => {
                let a = a.back(done);
                let cancelled = a.stop == Some(Stop::Cancel) && fate != Fate::Eof;
                Buf::Landed(a, n, if cancelled { Fate::Cancel } else { fate })
            }
            other => other,
        };
    }

    /// All live buffers land; `n` bytes fill them in their order.
    fn land_all(&mut self, mut n: u32, fate: Fate, done: &CardDone) {
        for i in [self.active, self.active ^ 1] {
            let b = self.bufs.at(i);
            if b.is_live() {
                let (left, passed) = b.armed().map_or((0, 0), |a| (a.left(), a.passed));
                let here = n.min(left);
                n -= here;
                self.land(i, here.saturating_add(passed), fate, done);
            }
        }
    }

    /// `n` bytes went to buffers that are taken back, before data that met no valid buffer. It is
    /// not this data that says when the adapter is done with them.
    fn pass(&mut self, mut n: u32) {
        for i in [self.active, self.active ^ 1] {
            if let Buf::Posted(a) | Buf::Invalidating(a) = self.bufs.at_mut(i)
                && a.stop.is_some()
            {
                let here = n.min(a.left());
                a.pass(here);
                n -= here;
            }
        }
    }

    /// The adapter has said its last word: bytes that the stream is past are the jobs'.
    pub(super) fn land_passed(&mut self, done: &CardDone) {
        for i in 0..2 {
            let b = self.bufs.at(i);
            if b.holds_passed() {
                let passed = b.armed().map_or(0, |a| a.passed);
                self.land(i, passed, Fate::Yield, done);
            }
        }
    }

    /// Keep a chain that must not go to so_rcv yet.
    fn park(&mut self, os: &mut O, m: O::Mbuf, len: u32) {
        let landed = |b: &&Buf<O::Job>| matches!(b, Buf::Landed(..)) || b.holds_passed();
        let behind = self.bufs.iter().filter(landed).count();
        let p = self.parked.at_mut(behind.saturating_sub(1));
        *p = Some(match p.take() {
            Some((head, n)) => (os.mbuf_join(head, m), n.saturating_add(len)),
            None => (m, len),
        });
    }
}
