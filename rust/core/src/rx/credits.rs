//! Receive credits: what so_rcv has room for goes back to the adapter.

use wire::RxDataAck;

use super::Rx;
use crate::os::{Counter, Os, Queue};
use crate::shared::Shared;

/// Most credits of one CPL_RX_DATA_ACK: its field has 26 bits.
const MAX_CREDITS: u32 = (1 << 26) - 1;
/// Delayed-ACK mode asked for with credits, as t4_tom does.
const DACK_MODE: u8 = 1;

impl<O: Os> Rx<O> {
    /// Give credits back, if there are enough to be worth a message, or the window is small, or
    /// readers would wait for SO_RCVLOWAT in vain. Bytes placed by DDP are not part of this: the
    /// adapter does not charge them.
    pub(super) fn credits(&mut self, sh: &mut Shared<O>, os: &mut O) {
        if self.fin {
            return;
        }
        let wnd = sh.seq.rcv_wnd;
        let parked = self.parked.iter().flatten().map(|p| p.1);
        let parked = parked.fold(0, u32::saturating_add);
        let space = os.rcv_space().saturating_sub_unsigned(parked);
        let free = match u32::try_from(space.saturating_sub(wnd)) {
            Ok(n) if n > 0 => n.min(MAX_CREDITS),
            _ => return,
        };
        let used = i64::from(os.rcv_avail());
        let starved = used + i64::from(wnd) < i64::from(os.rcv_lowat());
        let worth = wnd <= 32 << 10
            || free >= 64 << 10
            || (free >= 16 << 10 && wnd <= 128 << 10)
            || starved;
        if !worth {
            return;
        }
        let ack = RxDataAck {
            tid: sh.id.tid,
            credits: free,
            dack_mode: DACK_MODE,
            dack_change: true,
            ..RxDataAck::default()
        };
        let mut buf = [0; RxDataAck::LEN];
        let sent = sh.wrs.send(os, Queue::Ctrl, &mut buf, |b| ack.emit(b));
        match sent {
            Ok(()) => sh.seq.rcv_wnd = wnd.saturating_add_unsigned(free),
            Err(_) => os.retry_later(),
        }
    }

    /// See what plain reads have taken from so_rcv since last time.
    pub(super) fn note_plain(&mut self, os: &mut O) {
        let avail = os.rcv_avail();
        if avail < self.known {
            let n = self.known - avail;
            os.count(Counter::RxPlainOctets, u64::from(n));
            self.took(os, n);
        }
        self.known = avail;
        self.early = self.early.min(avail);
    }
}
