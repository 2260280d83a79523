//! `sim.conns`: a connection in one line.

use core::fmt::Write;

use t5sim::Card;

use crate::text::Text;

/// Writes connection number `n`, in the order of tids. `false`: there are not that many.
pub(crate) fn write(card: &Card, n: usize, text: &mut Text<'_>) -> bool {
    let Some(c) = card.connections().nth(n) else {
        return false;
    };
    let _ = write!(text, "tid {} port {} ", c.tid, c.port);
    if let Some(peer) = c.peer_tid {
        let _ = write!(text, "peer {peer} ");
    }
    let _ = write!(
        text,
        "{:?} snd_una {} snd_nxt {} rcv_nxt {} rcv_wnd {} queued {} credits {} tx {} rexmt {} \
         ddp {} cpl {}",
        c.state,
        c.snd_una,
        c.snd_nxt,
        c.rcv_nxt,
        c.rcv_wnd,
        c.queued,
        c.credits_out,
        c.stats.tx_bytes,
        c.stats.rexmt_bytes,
        c.stats.ddp_bytes,
        c.stats.cpl_bytes,
    );
    true
}
