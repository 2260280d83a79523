//! Answers of the adapter that do not come: when that is noticed, and the tids that wait on.
//!
//! A connection says since when an answer is due ([`crate::due::Due`]). The retry task looks at all
//! of them when the first may be overdue; no connection is kept for that.
//!
//! Context: the retry task, in the net epoch, no lock held; or as said.

use core::sync::atomic::Ordering;

use kpi::mem::{Arc, Wait};
use toehold_core::conn::Silent;
use toehold_core::os::Queue;

use crate::adapter::{Adapter, Tid};
use crate::egress;
use crate::owed::Owed;
use crate::synqe::Synqe;
use crate::toepcb::Toepcb;

/// Longest time for which the retry task is sent away, milliseconds.
const WATCH_MS_MAX: u32 = 60_000;

impl Adapter {
    /// How long an answer of the adapter is waited for, milliseconds.
    fn bound_ms(&self) -> u64 {
        u64::from(self.tom.tunables().answer_timeout.unsigned_abs()) * 1000
    }

    /// An answer is due since `since`: see in time whether it has come.
    pub fn watch(&self, since: u64) {
        let at = since.saturating_add(self.bound_ms());
        if self.watch.sooner(at) {
            self.look_at(at);
        }
    }

    /// Have the retry task come at `at`, or before.
    fn look_at(&self, at: u64) {
        let left = at.saturating_sub(self.tom.uptime_ms());
        self.tom
            .retry_schedule(u32::try_from(left).unwrap_or(u32::MAX).min(WATCH_MS_MAX));
    }

    /// See whose answers are overdue.
    pub(crate) fn watch_over(&self) {
        let Some(at) = self.watch.since() else {
            return;
        };
        let now = self.tom.uptime_ms();
        // The bound may have been made shorter meanwhile.
        let bound = self.bound_ms();
        if now < at && at - now <= bound {
            self.look_at(at);
            return;
        }
        self.watch.changed(None);
        let before = now.saturating_sub(bound);
        self.tids.each(|_, e| {
            let since = match &*e {
                Tid::Toep(t) => t.side.due.since(),
                Tid::Synqe(s) => s.due.since(),
                Tid::Releasing | Tid::Silent(_) => None,
            };
            match (&*e, since) {
                (_, None) => {}
                (_, Some(since)) if since > before => self.watch(since),
                (Tid::Toep(t), _) => Toepcb::overdue(t, before),
                (Tid::Synqe(s), _) => Synqe::overdue(s, self),
                _ => {}
            }
        });
    }

    /// A connection with transmit queue `txq` is over, and with it its tid, unless the adapter owes
    /// messages about that.
    pub fn done_with(&self, tid: u32, txq: u32, owed: Option<Silent>) {
        let Some(owed) = owed else {
            let entry = self.tids.take(tid);
            self.release_tid(tid);
            drop(entry);
            return;
        };
        match Arc::new(Wait::No, || Tid::Silent(Owed::new(owed, txq))) {
            Ok(e) => {
                self.silent.fetch_add(1, Ordering::AcqRel);
                drop(self.tids.put(tid, e));
            }
            Err(_) => {
                self.tom
                    .log(c"tid lost for want of memory", u64::from(tid), 0);
                drop(self.tids.take(tid));
            }
        }
    }

    /// A message that was owed about the tid of nobody has come. The last one frees the tid.
    pub fn late(&self, tid: u32, owed: &Owed, what: fn(&mut Silent) -> bool) {
        if owed.less(what) {
            self.no_longer_silent();
            self.done_with(tid, owed.txq(), None);
        }
    }

    /// One of the tids of nobody goes, whatever is owed about it.
    pub(crate) fn no_longer_silent(&self) {
        self.silent.fetch_sub(1, Ordering::AcqRel);
    }

    /// The adapter aborts the connection of a tid of nobody: it is owed an answer all the same. If
    /// none can be sent, it keeps the tid, as we do.
    pub fn answer_abort(&self, cpl: &wire::AbortReqRss, owed: &Owed) {
        if cpl.status.is_neg_advice() {
            return;
        }
        let rpl = wire::AbortRpl {
            tid: cpl.tid,
            cmd: wire::AbortCmd::NO_RST,
            ..wire::AbortRpl::default()
        };
        let mut buf = [0; wire::AbortRpl::LEN];
        let q = egress::queue(Queue::Ofld, owed.txq());
        let _ = self.send(q, &mut buf, cpl.tid, |b| rpl.emit(b));
    }
}
