//! The card's own invariants.

use alloc::string::String;
use core::fmt;

use crate::card::Card;
use crate::conn::{Conn, TcpState};

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Broken {}

macro_rules! need {
    ($cond:expr, $($arg:tt)+) => {
        if !$cond {
            return Err(Broken(alloc::format!($($arg)+)));
        }
    };
}

impl Card {
    /// Checks that tids, credits and bytes are conserved. To be called between any two calls.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<(), Broken> {
        let live = self.conns.iter().flatten().count();
        let free = self.free_tids.len();
        need!(
            live + free == self.conns.len(),
            "tids: {live} live and {free} free"
        );
        let s = &self.stats;
        let net = s.tids_allocated.checked_sub(s.tids_freed);
        need!(
            net == u64::try_from(live).ok(),
            "tids: {} allocated, {} freed, {live} live",
            s.tids_allocated,
            s.tids_freed
        );
        let mut out = 0;
        for c in self.conns.iter().flatten() {
            self.check_conn(c)?;
            out += u64::from(c.credits_out);
        }
        need!(
            s.credits_taken == s.credits_returned + s.credits_forfeited + out,
            "credits: {} taken, {} returned, {} forfeited, {out} out",
            s.credits_taken,
            s.credits_returned,
            s.credits_forfeited
        );
        for (key, tid) in &self.by_tuple {
            let owner = self.conn(*tid).is_some_and(|c| (c.port, c.tuple) == *key);
            need!(
                owner,
                "address table: tid {tid} is not the owner of {key:?}"
            );
        }
        for (port, ring) in self.ring.iter().enumerate() {
            let due = self.ring_due.get(port) == Some(&true);
            need!(
                ring.is_empty() || due,
                "port {port}: a turn nobody will take"
            );
        }
        Ok(())
    }

    fn check_conn(&self, c: &Conn) -> Result<(), Broken> {
        let tid = c.tid;
        need!(
            c.credits_out <= self.cfg.tx_credits,
            "tid {tid}: {} credits out of {}",
            c.credits_out,
            self.cfg.tx_credits
        );
        let queued: u16 = c.txq.iter().map(|w| w.credits).sum();
        let unreported: u16 = c.unreported.iter().sum();
        need!(
            queued + unreported == c.credits_out,
            "tid {tid}: {queued} credits queued, {unreported} unreported, {} out",
            c.credits_out
        );
        need!(
            c.una <= c.nxt && c.nxt <= c.max && c.max <= c.total()
                || matches!(c.state, TcpState::Closed | TcpState::Aborting),
            "tid {tid}: una {} nxt {} max {} total {}",
            c.una,
            c.nxt,
            c.max,
            c.total()
        );
        let mut at = None;
        for w in &c.txq {
            need!(
                at.is_none_or(|e| e == w.start),
                "tid {tid}: a gap in the send queue"
            );
            at = Some(w.end());
        }
        need!(
            at.is_none_or(|e| e == c.end),
            "tid {tid}: the send queue ends early"
        );
        let held: u64 = c.held.iter().map(|h| u64::from(h.len())).sum();
        need!(
            held == u64::from(c.held_bytes),
            "tid {tid}: {held} bytes held, {} counted",
            c.held_bytes
        );
        let waits = c.state.synchronised() && c.outstanding();
        need!(
            !waits || c.timer(crate::event::Timer::Rexmt).is_some(),
            "tid {tid}: something outstanding and no timer"
        );
        Ok(())
    }
}
