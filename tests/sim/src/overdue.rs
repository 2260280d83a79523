//! Answers of the adapter that do not come: what the module does of it, here.

use toehold_core::conn::Silent;
use toehold_core::os::Queue;

use crate::world::{End, Ev, NS_PER_MS, Tid, World};

impl World {
    pub(crate) fn release_tid(&mut self, e: usize, tid: u32) {
        let mut b = [0; wire::TidRelease::LEN];
        wire::TidRelease { tid }.emit(&mut b).expect("fits");
        self.submit(self.egress(e, Queue::Ctrl), &b);
    }

    /// A message that was owed about the tid of nobody.
    pub(crate) fn late(&mut self, tid: u32, what: fn(&mut Silent) -> bool) {
        let Some(Tid::Silent(s, e)) = self.tids.get_mut(&tid) else {
            return;
        };
        let e = *e;
        if what(s) {
            self.tids.remove(&tid);
            self.release_tid(e, tid);
        }
    }

    /// The adapter aborts a connection that is over: it is owed an answer all the same.
    pub(crate) fn answer_abort(&mut self, e: usize, cpl: &wire::AbortReqRss) {
        if !cpl.status.is_neg_advice() {
            let mut b = [0; wire::AbortRpl::LEN];
            let rpl = wire::AbortRpl {
                tid: cpl.tid,
                cmd: wire::AbortCmd::NO_RST,
                ..wire::AbortRpl::default()
            };
            rpl.emit(&mut b).expect("fits");
            self.submit(self.egress(e, Queue::Ofld), &b);
        }
    }

    /// Answers may be overdue, at this end.
    pub(crate) fn overdue(&mut self, e: usize) {
        let Some(bound) = self.bound else { return };
        let before = (self.now / NS_PER_MS).saturating_sub(bound);
        let late = self.ends[e].due.is_some_and(|t| t <= before);
        if late {
            self.ends[e].os.book.borrow_mut().silent = true;
        }
        let o = self.say(e, |conn, os| conn.overdue(os, before));
        self.finish(e, o);
    }

    /// Have it looked at in time whether the adapter answers.
    pub(crate) fn watch(&mut self, e: usize) {
        let Some(bound) = self.bound else { return };
        let End { conn, os, due, .. } = &mut self.ends[e];
        let now = conn.due(os);
        if std::mem::replace(due, now) == now {
            return;
        }
        if let Some(since) = now {
            let at = ((since + bound + 1) * NS_PER_MS).max(self.now);
            self.serial += 1;
            self.events.insert((at, self.serial), Ev::Overdue(e));
        }
    }
}
