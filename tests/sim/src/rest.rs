//! The end of a run: everything comes to rest, and nothing is left.

use crate::world::{Ev, World};

impl World {
    /// Run until nothing is left to happen, and no connection is left whose peer is gone: the
    /// chip's timers (keepalive, FIN_WAIT_2) end those, and the model of the card has none.
    pub fn run_dry(&mut self) {
        let end = self.now + 600_000_000_000;
        loop {
            while !self.only_watches() {
                self.step();
                assert!(self.now < end, "never comes to rest (I9)\n{}", self.story());
            }
            let alone = |c: &t5sim::ConnInfo| {
                use t5sim::TcpState::{Aborting, Closed, TimeWait};
                c.peer_tid.is_none() && !matches!(c.state, Aborting | Closed | TimeWait)
            };
            let alone = self.card.connections().find(alone);
            if let Some(c) = alone {
                assert!(self.card.link_reset(self.now, c.tid));
            } else if !self.step() {
                return;
            }
        }
    }

    /// Answers that were lost come after all, some for connections that are over.
    pub fn find_lost(&mut self) {
        self.strays = true;
        self.card.set_faults(t5sim::Faults::default());
        self.card.find_lost(self.now);
        self.run_dry();
    }

    /// Nothing is left but what the adapter has not given its word about, and that is counted: the
    /// pages that stay wired, and nothing else.
    pub fn check_orphans(&mut self) {
        for end in self.ends.iter_mut().filter(|e| e.over) {
            end.conn.reap(&mut end.os);
        }
        let mut sum = 0;
        for (e, end) in self.ends.iter().enumerate() {
            let (conns, pages) = end.os.orphaned;
            assert!(end.os.book.borrow().jobs.is_empty(), "end {e}: jobs (I1)");
            assert_eq!(conns, i64::from(end.up && !end.over), "end {e}");
            sum += pages;
        }
        let m = self.mem.borrow();
        let wired = i64::from(m.wired(0).0) + i64::from(m.wired(1).0);
        assert_eq!(wired, sum, "orphaned pages are not those wired");
    }

    /// When all is over: nothing is left anywhere (I1, I4, I5).
    pub fn check_empty(&mut self) {
        for e in 0..self.ends.len() {
            let end = &mut self.ends[e];
            assert!(
                end.os.book.borrow().jobs.is_empty(),
                "end {e}: jobs left (I1)"
            );
            assert!(end.over || !end.up, "end {e}: the adapter still has it");
            assert!(!end.os.tcb.attached, "end {e}: the kernel still has it");
            assert!(end.conn.reap(&mut end.os), "end {e} cannot be freed");
            assert!(
                end.os.users.iter().all(|u| *u == 0),
                "end {e}: users left (I5)"
            );
            assert!(end.os.wrs.is_empty());
            assert_eq!(end.os.orphaned, (0, 0), "end {e}");
        }
        let mem = self.mem.borrow();
        assert_eq!(
            (mem.wired(0), mem.wired(1)),
            ((0, 0), (0, 0)),
            "wired pages (I4)"
        );
        assert_eq!(mem.frames_wired(), 0, "wired frames (I4)");
        assert_eq!(mem.kernel_pages(), 0, "mbufs");
        drop(mem);
        assert_eq!(
            self.pods.borrow().region.available(),
            self.ppods,
            "page pods (I5)"
        );
        assert_eq!(
            self.card.connections().count(),
            0,
            "connections of the card's: {}",
            self.story()
        );
        let s = self.card.stats();
        assert_eq!(s.tids_allocated, s.tids_freed, "tids (I5)");
        self.bufs.check_idle();
    }

    /// Whether the adapter answers is all that is waited for.
    fn only_watches(&self) -> bool {
        let watch = |ev: &Ev| matches!(ev, Ev::Overdue(_));
        self.card.next_event().is_none() && self.events.values().all(watch)
    }
}
