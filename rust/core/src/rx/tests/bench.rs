//! One connection's receive side, its kernel and its adapter.

use std::vec::Vec;

use super::card::{Card, Cpl};
use super::stream;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::fault::BadCpl;
use crate::os::{Counter, Job, JobId};
use crate::pageset::Want;
use crate::rx::Rx;
use crate::shared::Shared;
use crate::testos::{Rng, TestOs, TestPages};

/// First sequence number: close to the wrap, so that every test crosses it.
pub(super) const SEQ: u32 = 0xffff_ff80;

pub(super) struct Bench {
    pub(super) os: TestOs,
    pub(super) sh: Shared<TestOs>,
    pub(super) rx: Rx<TestOs>,
    pub(super) card: Card,
    /// Next byte of the stream that some reader gets.
    pub(super) pos: u32,
}

/// A read submitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) id: JobId,
    pub(super) addr: u64,
    pub(super) len: usize,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(TestOs::new())
    }

    pub(super) fn with(os: TestOs) -> Bench {
        let sh = os.shared(SEQ, 1);
        let card = Card::new(
            std::rc::Rc::clone(&os.mem),
            os.geometry,
            sh.id.tid,
            SEQ,
            os.rcv_hiwat,
        );
        Bench {
            os,
            sh,
            rx: Rx::new(),
            card,
            pos: SEQ,
        }
    }

    /// DDP is on already.
    pub(super) fn ddp_on() -> Bench {
        let mut b = Bench::new();
        b.turn_on();
        b
    }

    pub(super) fn turn_on(&mut self) {
        let r = self.read_new(16);
        self.settle();
        assert!(self.rx.cancel(&mut self.sh, &mut self.os, r.id));
        self.settle();
        assert_eq!(self.os.result(r.id), Some(Err(Errno::ECANCELED)));
    }

    /// Submit a read into a buffer.
    pub(super) fn read_at(&mut self, addr: u64, len: usize) -> Read {
        let job = self.os.job(addr, len);
        let id = job.id();
        self.rx.aio_read(&mut self.sh, &mut self.os, job).unwrap();
        self.check();
        Read { id, addr, len }
    }

    /// Submit a read into a new buffer, 0x123 bytes into its first page.
    pub(super) fn read_new(&mut self, len: usize) -> Read {
        let addr = self.os.mem.alloc(len, 0x123, 1);
        self.read_at(addr, len)
    }

    /// Let the adapter execute what was sent.
    pub(super) fn exec(&mut self) {
        while self.exec_one() {}
    }

    pub(super) fn exec_one(&mut self) -> bool {
        match self.os.wrs.pop_front() {
            Some((q, wr)) => {
                self.card.exec(q, &wr);
                true
            }
            None => false,
        }
    }

    /// Hand one message to the driver.
    pub(super) fn deliver_one(&mut self) -> Result<bool, BadCpl> {
        let (rx, sh, os) = (&mut self.rx, &mut self.sh, &mut self.os);
        match self.card.out.pop_front() {
            None => return Ok(false),
            Some(Cpl::Data(c, m)) => rx.rx_data(sh, os, &c, m)?,
            Some(Cpl::Ddp(c)) => rx.rx_data_ddp(sh, os, &c)?,
            Some(Cpl::Complete(c)) => rx.rx_ddp_complete(sh, os, &c)?,
            Some(Cpl::Rpl(c)) => rx.set_tcb_rpl(sh, os, &c)?,
            Some(Cpl::Fin(rcv_nxt)) => rx.peer_fin(sh, os, &fin(rcv_nxt))?,
        }
        self.check();
        Ok(true)
    }

    pub(super) fn deliver(&mut self) {
        while self.deliver_one().unwrap() {}
    }

    /// What the worker does when it is asked.
    pub(super) fn work(&mut self) -> bool {
        let Some(w) = self.want() else { return false };
        let pages = self.os.hold(&w);
        self.ready(w, pages);
        true
    }

    pub(super) fn want(&mut self) -> Option<Want<JobId>> {
        let mend = self.rx.want_mend(&mut self.sh, &mut self.os);
        let w = mend.or_else(|| self.rx.want_pages(&mut self.sh, &mut self.os));
        self.check();
        w
    }

    pub(super) fn ready(&mut self, w: Want<JobId>, pages: Result<TestPages, Errno>) {
        self.rx
            .pages_ready(&mut self.sh, &mut self.os, w.ticket, pages);
        self.check();
    }

    /// Run the worker alone, as far as it is asked.
    pub(super) fn settle_work(&mut self) {
        while core::mem::take(&mut self.os.kicked) {
            while self.work() {}
        }
    }

    /// Run worker, adapter and messages until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            let mut moved = self.exec_one();
            moved |= self.deliver_one().unwrap();
            if core::mem::take(&mut self.os.kicked) {
                while self.work() {
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// The same, with shortages over.
    pub(super) fn settle_retry(&mut self) {
        self.settle();
        while core::mem::take(&mut self.os.retry) {
            self.retry();
            self.settle();
        }
    }

    /// One retry, as a timer would, if a shortage was met.
    pub(super) fn settle_retry_once(&mut self) {
        self.settle();
        if core::mem::take(&mut self.os.retry) {
            self.retry();
            self.settle();
        }
    }

    pub(super) fn retry(&mut self) {
        self.rx.retry(&mut self.sh, &mut self.os);
        self.check();
    }

    pub(super) fn cancel(&mut self, id: JobId) -> bool {
        let r = self.rx.cancel(&mut self.sh, &mut self.os, id);
        self.check();
        r
    }

    /// The peer sends `n` bytes and everything runs.
    pub(super) fn recv(&mut self, n: u32, psh: bool) {
        self.card.recv(n, psh);
        self.settle();
    }

    pub(super) fn check(&self) {
        self.rx.check(&self.sh, &self.os).unwrap();
        assert_eq!(
            self.sh.sets.ppods_held() + self.os.region.available(),
            self.os.region.capacity()
        );
        assert!(self.os.mem.wired() >= self.sh.sets.pages_held().min(1));
    }

    /// The next read to end is `r`, with `n` bytes, which are the next of the stream.
    pub(super) fn expect(&mut self, r: Read, n: usize) {
        assert_eq!(self.os.result(r.id), Some(Ok(n)), "{r:?}");
        self.expect_bytes(r.addr, n);
    }

    pub(super) fn expect_bytes(&mut self, addr: u64, n: usize) {
        let have = self.os.mem.user_read(addr, n);
        let want = stream(self.pos, n);
        if have != want {
            let at = have.iter().zip(&want).position(|(a, b)| a != b);
            panic!("bytes differ from {at:?} of {n} on");
        }
        self.pos = self.pos.wrapping_add(n as u32);
    }

    pub(super) fn pending(&self, r: Read) -> bool {
        self.os.result(r.id).is_none()
    }

    pub(super) fn counter(&self, c: Counter) -> u64 {
        self.os.counter(c)
    }

    /// The connection ends; everything must be given back.
    pub(super) fn finish(mut self) {
        self.rx.fail_all(
            &mut self.sh,
            &mut self.os,
            Some(Errno::ECONNRESET),
            &CardDone::for_test(),
        );
        self.check();
        assert!(self.rx.idle());
        assert_eq!(self.os.users, [0; crate::testos::SLOTS]);
        assert!(self.sh.sets.release_idle(&mut self.os));
        assert_eq!(self.os.mem.wired(), 0, "pages stay wired");
        assert_eq!(self.os.region.available(), self.os.region.capacity());
    }
}

/// Run `f` for `n` seeds, times `SCHEDULES` if that is set; a failure says which. `SEED` runs one.
pub(super) fn seeds(n: u64, f: impl Fn(&mut Rng) + std::panic::RefUnwindSafe) {
    let one = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let all: Vec<u64> = match one {
        Some(seed) => std::vec![seed],
        None => {
            let times = std::env::var("SCHEDULES").ok().and_then(|s| s.parse().ok());
            (1..=n * times.unwrap_or(1)).collect()
        }
    };
    for seed in all {
        let r = std::panic::catch_unwind(|| f(&mut Rng::new(seed)));
        if let Err(e) = r {
            std::eprintln!("failed with SEED={seed}");
            std::panic::resume_unwind(e);
        }
    }
}

/// CPL_PEER_CLOSE.
pub(super) fn fin(rcv_nxt: u32) -> wire::PeerClose {
    wire::PeerClose {
        tid: 0x123,
        rcv_nxt,
    }
}
