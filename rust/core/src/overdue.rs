//! Answers of the adapter that do not come.
//!
//! Whatever waits for an answer says since when ([`Conn::due`]). Once that is too long ago, by the
//! caller's bound, [`Conn::overdue`] goes one step on, so that no end takes for ever (I9):
//!
//! | due | step |
//! |---|---|
//! | the reply to a TCB update, on a connection that lives | it is reset |
//! | while our direction is being closed, any message | the adapter is asked for the TCB's send sequence, which changes nothing |
//! | the answer to that; or it says twice in a row that the peer has all, with no word of that | it is reset |
//! | the last word, after a reset | jobs end; pages, page pods and tid that the adapter may use stay held, and are counted |
//! | the reply to a TCB update, after the last word | the connection goes, but for its tid |
//!
//! A word that comes later is believed all the same: it gives back what was held.
//!
//! A peer may take its time to read, and to close its direction: while the adapter answers, that
//! is waited for.

use crate::conn::{Conn, Outcome, Silent};
use crate::ddp::COOKIE_DDP0;
use crate::errno::Errno;
use crate::flags::Flags;
use crate::os::{Os, Queue};
use crate::since::Since;

/// The first of these, as it was in full.
fn oldest<O: Os>(os: &O, mut all: impl Iterator<Item = Since>) -> Option<u64> {
    let first = all.next()?;
    let now = os.now_ms();
    Some(all.fold(first.when(now), |t, s| t.min(s.when(now))))
}

impl<O: Os> Conn<O> {
    /// Since when ([`Os::now_ms`]) an answer of the adapter is due, if one is.
    pub fn due(&self, os: &O) -> Option<u64> {
        if !self.flags.contains(Flags::ESTABLISHED) || self.flags.contains(Flags::TID_KEPT) {
            return None;
        }
        if self.over() {
            let asked = self.since.filter(|_| self.flags.contains(Flags::PROBED));
            let asked = self.rx.due().into_iter().chain(asked);
            return oldest(os, asked);
        }
        if self.flags.contains(Flags::SILENT) {
            return None;
        }
        if self.flags.contains(Flags::ABORT) {
            return oldest(os, self.since.into_iter());
        }
        let closing = self.since.filter(|_| self.tx.fin_asked());
        oldest(os, self.rx.due().into_iter().chain(closing))
    }

    /// Answers that have been due since `before` or longer are too late: see the head of this file.
    pub fn overdue(&mut self, os: &mut O, before: u64) -> Outcome {
        let late = |t: u64| t <= before;
        if !self.due(os).is_some_and(late) {
            return Outcome::NONE;
        }
        if self.over() {
            self.flags |= Flags::TID_KEPT;
            return self.without_tid();
        }
        if self.flags.contains(Flags::ABORT) {
            return self.silence(os);
        }
        if oldest(os, self.rx.due().into_iter()).is_some_and(late) {
            return self.unanswered(os, "no answer to an update of the TCB; reset");
        }
        if self.flags.contains(Flags::PROBED) {
            return self.unanswered(os, "no answer while the connection is closed; reset");
        }
        self.probe(os)
    }

    /// Something was heard from the adapter, about a connection that is being closed.
    pub(crate) fn hear(&mut self, os: &O) {
        // What was asked is still due: other words do not answer it.
        if self.tx.fin_asked() && !self.flags.contains(Flags::PROBED) {
            self.since = Some(Since::new(os.now_ms()));
        }
        self.flags.remove(Flags::MISSING);
    }

    fn unanswered(&mut self, os: &mut O, why: &'static str) -> Outcome {
        os.complain(self.sh.id.tid, why);
        self.give_up(os, Errno::ECONNABORTED)
    }

    /// Ask how far the peer has acknowledged, by a TCB update that updates nothing.
    fn probe(&mut self, os: &mut O) -> Outcome {
        self.since = Some(Since::new(os.now_ms()));
        let req = wire::SetTcbField {
            tid: self.sh.id.tid,
            reply: wire::ReplyCtrl::reply_to(self.sh.id.rxq),
            word: wire::W_TX_MAX,
            cookie: COOKIE_DDP0,
            mask: 0,
            val: 0,
        };
        let mut buf = [0; wire::SetTcbField::LEN];
        let sent = self.sh.wrs.send(os, Queue::Ctrl, &mut buf, |b| req.emit(b));
        if sent.is_ok() {
            self.flags |= Flags::PROBED;
        } else if self.flags.contains(Flags::MISSING) {
            return self.unanswered(os, "the adapter takes no work request; reset");
        } else {
            self.flags |= Flags::MISSING;
        }
        Outcome::NONE
    }

    /// The answer to that.
    pub(crate) fn probed(&mut self, os: &mut O, cpl: &wire::SetTcbRpl) -> Outcome {
        let failed = cpl.status != wire::CplStatus(0);
        let asked = self.flags.contains(Flags::PROBED);
        self.flags.remove(Flags::PROBED);
        if !asked || failed {
            return self.bad_cpl(os);
        }
        if self.over() {
            return Outcome {
                final_cpl: self.answered(),
                ..Outcome::NONE
            };
        }
        if self.flags.contains(Flags::ABORT) {
            return Outcome::NONE;
        }
        self.since = Some(Since::new(os.now_ms()));
        let fin = self.tx.fin_sent();
        let owed = !self.flags.contains(Flags::FIN_ACKED) && (fin || self.tx.cred.in_flight() > 0);
        let all = self.sh.seq.snd_nxt.wrapping_add(u32::from(fin));
        let lost = owed && wire::snd_una(cpl.oldval) == all;
        let again = lost && self.flags.contains(Flags::MISSING);
        self.flags.set(Flags::MISSING, lost);
        if again {
            return self.unanswered(
                os,
                "the peer has all, and the adapter did not say so; reset",
            );
        }
        Outcome::NONE
    }

    /// An abort, and no last word. Nobody waits any longer.
    fn silence(&mut self, os: &mut O) -> Outcome {
        os.complain(
            self.sh.id.tid,
            "no answer to a reset; what the adapter may use stays held",
        );
        self.flags |= Flags::SILENT;
        self.tx.orphan(os, self.why.unwrap_or(Errno::ECONNABORTED));
        let told = self.rx.orphan_all(&mut self.sh, os, self.why);
        self.sh.sets.release_idle(os);
        let at_stake = self.rx.orphans().next().is_some() || self.tx.cred.in_flight() > 0;
        if at_stake {
            self.recount(os);
            return Outcome {
                told,
                ..Outcome::NONE
            };
        }
        self.flags |= Flags::FINAL | Flags::TID_KEPT;
        Outcome {
            told,
            ..self.without_tid()
        }
    }

    /// The end, but for the tid.
    fn without_tid(&self) -> Outcome {
        let silent = Silent {
            replies: self.rx.replies_due() + u8::from(self.flags.contains(Flags::PROBED)),
            abort: self.flags.contains(Flags::REQ_SENT),
        };
        Outcome {
            final_cpl: true,
            silent: Some(silent),
            ..Outcome::NONE
        }
    }

    /// Count what is kept for want of the last word ([`Os::orphaned`]).
    pub(crate) fn recount(&mut self, os: &mut O) {
        if self.kept() {
            self.sh.sets.release_idle(os);
        }
        let (kept, pages) = (self.kept(), self.pages_kept());
        let was = self.flags.contains(Flags::COUNTED);
        if (kept, pages) != (was, self.orphaned) {
            let conns = i64::from(kept) - i64::from(was);
            os.orphaned(conns, i64::from(pages) - i64::from(self.orphaned));
            self.flags.set(Flags::COUNTED, kept);
            self.orphaned = pages;
        }
    }

    fn kept(&self) -> bool {
        self.flags.contains(Flags::SILENT) && !self.over()
    }

    fn pages_kept(&self) -> u32 {
        match self.kept() {
            true => u32::try_from(self.sh.sets.pages_held()).unwrap_or(u32::MAX),
            false => 0,
        }
    }

    /// What is kept is counted.
    pub(crate) fn check_orphans(&self) -> Result<(), &'static str> {
        let counted = (self.flags.contains(Flags::COUNTED), self.orphaned);
        match counted == (self.kept(), self.pages_kept()) {
            true => Ok(()),
            false => Err("what waits for the last word is not what is counted"),
        }
    }
}

#[cfg(test)]
mod tests;
