//! Seeded schedules: everything in any order, with I1, I2, I3, I5, I7, I8 after each step.
//!
//! `SEED=n cargo test` replays one.

use std::vec::Vec;

use super::bench::{Bench, Read, SEQ, seeds};
use super::stream;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::{Counter, Job, JobId};
use crate::pageset::Want;
use crate::testos::{PAGE, Rng, TestOs};

/// What a schedule may do.
#[derive(Clone, Copy, Debug, Default)]
struct Mix {
    /// The same few buffers again and again, else a new one each time.
    reuse: bool,
    /// Cancels.
    cancel: bool,
    /// Refusals of work requests, page pods, mbufs; readers inside.
    short: bool,
    /// Falling out of DDP, push timer.
    unruly: bool,
    /// Plain reads when no job is there.
    plain: bool,
    /// SS_NBIO comes and goes.
    nbio: bool,
    /// Large buffers, too.
    large: bool,
    /// Other pages are mapped where reads are under way.
    remap: bool,
    /// Some reads are vectored.
    vector: bool,
}

struct Run {
    b: Bench,
    mix: Mix,
    open: Vec<Read>,
    idle_bufs: Vec<(u64, usize)>,
    want: Option<Want<JobId>>,
    seen: usize,
    sent: u32,
    fin: bool,
    reset: bool,
    /// Steps without submissions, so that plain reads have their turn.
    pause: u32,
}

const GUARD: usize = 64;

impl Run {
    fn new(r: &mut Rng, mix: Mix) -> Run {
        let mut os = TestOs::with_ppods(r.range(40, 400) as u32);
        os.rcv_hiwat = [8 << 10, 64 << 10, 256 << 10][r.range(0, 2) as usize];
        if mix.short {
            os.page_budget = r.range(40, 300) as u32;
        }
        let mut bufs = Vec::new();
        for _ in 0..6 {
            bufs.push(Run::buffer(&mut os, r, mix));
        }
        Run {
            b: Bench::with(os),
            mix,
            open: Vec::new(),
            idle_bufs: bufs,
            want: None,
            seen: 0,
            sent: 0,
            fin: false,
            reset: false,
            pause: 0,
        }
    }

    fn buffer(os: &mut TestOs, r: &mut Rng, mix: Mix) -> (u64, usize) {
        let len = [r.range(1, 200), r.range(1, 9000), r.range(4096, 70_000)];
        let mut len = len[r.range(0, 2) as usize] as usize;
        if mix.large && r.one_in(3) {
            len = r.range(250_000, 600_000) as usize;
        }
        let run = [1, 1, 4, 5, 16][r.range(0, 4) as usize];
        let addr = os.mem.alloc(len + 2 * GUARD, r.range(0, PAGE - 1), run);
        (addr + GUARD as u64, len)
    }

    /// I1, I2, I8 for what completed since last time.
    fn judge(&mut self) {
        // A cancelled job with bytes ends when the worker lets go of it: before that, what others
        // got behind it cannot be judged.
        let want = self.b.rx.want.as_ref();
        if want.is_some_and(|w| w.doomed.as_ref().is_some_and(|(j, _)| j.done() > 0)) {
            return;
        }
        // Bytes go to reads in the order of submission.
        let mut ended = self.b.os.completed[self.seen..].to_vec();
        self.seen += ended.len();
        ended.sort_by_key(|(id, _)| *id);
        for (id, result) in ended {
            let at = self
                .open
                .iter()
                .position(|r| r.id == id)
                .expect("completed, not open");
            let r = self.open.remove(at);
            match result {
                Ok(n) => {
                    if n == 0 {
                        assert!(self.fin || self.reset, "end of file without a FIN");
                    }
                    self.b.expect_bytes(r.addr, n);
                }
                Err(Errno::ECANCELED) => assert!(self.mix.cancel),
                Err(Errno::ECONNRESET) => assert!(self.reset),
                Err(e) => panic!("{e:?}"),
            }
            // No byte outside of the buffer.
            let before = self.b.os.mem.user_read(r.addr - GUARD as u64, GUARD);
            let after = self.b.os.mem.user_read(r.addr + r.len as u64, GUARD);
            assert!(
                before.iter().chain(&after).all(|b| *b == 0xee),
                "wrote past {r:?}"
            );
            self.idle_bufs.push((r.addr, r.len));
        }
    }

    fn submit(&mut self, r: &mut Rng) {
        if self.open.len() > 6 || self.pause > 0 {
            return;
        }
        let (addr, len) = if self.mix.reuse && !self.idle_bufs.is_empty() {
            let i = r.range(0, self.idle_bufs.len() as u64 - 1) as usize;
            self.idle_bufs.swap_remove(i)
        } else {
            Run::buffer(&mut self.b.os, r, self.mix)
        };
        if self.mix.reuse && r.one_in(6) {
            // Another mapping at the same place (I7).
            self.b.os.mem.remap(addr - GUARD as u64, len + 2 * GUARD);
        }
        let job = if self.mix.vector && r.one_in(4) {
            // Pieces that happen to be neighbours.
            let cut = r.range(0, len as u64 - 1) as usize;
            let iov = [(addr, cut), (addr + cut as u64, len - cut)];
            self.b.os.vectored(&iov)
        } else {
            self.b.os.job(addr, len)
        };
        let id = crate::os::Job::id(&job);
        let (rx, sh, os) = (&mut self.b.rx, &mut self.b.sh, &mut self.b.os);
        match rx.aio_read(sh, os, job) {
            Ok(()) => self.open.push(Read { id, addr, len }),
            Err(job) => {
                assert!(self.fin, "declined in mid-stream");
                job.end();
                self.idle_bufs.push((addr, len));
            }
        }
    }

    fn receive(&mut self, r: &mut Rng) {
        if self.fin || self.reset {
            return;
        }
        let n = [r.range(1, 100), r.range(1, 3000), r.range(1, 20_000)][r.range(0, 2) as usize];
        let n = (n as u32).min(self.b.card.wnd);
        if n > 0 {
            self.b.card.recv(n, r.one_in(4));
            self.sent += n;
        }
    }

    fn worker(&mut self, r: &mut Rng) {
        match self.want.take() {
            Some(w) => {
                let pages = if self.mix.short && r.one_in(8) {
                    Err(Errno::ENOMEM)
                } else {
                    self.b.os.hold(&w)
                };
                self.b.ready(w, pages);
                // It repeats until nothing is wanted.
                self.want = self.b.want();
            }
            None if self.b.os.kicked => {
                self.b.os.kicked = false;
                self.want = self.b.want();
            }
            None => {}
        }
    }

    fn shortage(&mut self, r: &mut Rng) {
        let os = &mut self.b.os;
        match r.range(0, 7) {
            0 => os.wr_budget = r.range(0, 3) as u32,
            1 => os.deny_ppods = !os.deny_ppods,
            2 => os.deny_mbufs = !os.deny_mbufs,
            3 => os.reader_inside = !os.reader_inside,
            4..=5 => self.plenty(),
            _ => {}
        }
    }

    fn plenty(&mut self) {
        let os = &mut self.b.os;
        os.wr_budget = u32::MAX;
        os.deny_ppods = false;
        os.deny_mbufs = false;
        os.reader_inside = false;
    }

    fn plain(&mut self, r: &mut Rng) {
        if self.open.is_empty() && !self.b.os.rcv.is_empty() {
            let got = self.b.os.plain_read(r.range(1, 5000) as usize);
            assert_eq!(got, stream(self.b.pos, got.len()));
            self.b.pos = self.b.pos.wrapping_add(got.len() as u32);
            self.b.rx.rcvd(&mut self.b.sh, &mut self.b.os);
        }
    }

    /// The read has bytes in pages that we keep no more, or brought to where they belong
    /// already: another mapping there is the program's own way to throw them away.
    fn has_parted(&self, read: &Read) -> bool {
        let rx = &self.b.rx;
        let waiting = rx.queue.iter().chain(rx.ended.iter());
        let doomed = rx.want.iter().filter_map(|w| w.doomed.as_ref());
        let posted = rx.bufs.iter().filter_map(|b| b.armed());
        let mending = rx.mend.as_ref().filter(|m| m.job == read.id);
        if mending.is_some_and(|m| m.at > 0) {
            return true;
        }
        let mut jobs = { waiting }
            .chain(doomed.map(|(job, _)| job))
            .chain(posted.map(|a| &a.job));
        let kept = |slot| self.b.sh.sets.key(slot).map(|k| k.addr);
        jobs.any(|j| j.id() == read.id && j.done() > 0 && j.slot().and_then(kept) != Some(j.addr()))
    }

    fn step(&mut self, r: &mut Rng) {
        self.pause = self.pause.saturating_sub(1);
        if self.mix.plain && r.one_in(150) {
            self.pause = 60;
        }
        match r.range(0, 99) {
            0..=17 => self.submit(r),
            18..=39 => self.receive(r),
            40..=59 => drop(self.b.exec_one()),
            60..=79 => drop(self.b.deliver_one().unwrap()),
            80..=88 => self.worker(r),
            89..=90 if self.mix.cancel && !self.open.is_empty() => {
                let i = r.range(0, self.open.len() as u64 - 1) as usize;
                let id = self.open[i].id;
                let over = self.b.os.result(id).is_some();
                assert!(over || self.b.cancel(id), "an open job was not found");
            }
            91..=93 if self.mix.short => self.shortage(r),
            94 if self.mix.unruly => self.b.card.fall_out(),
            95 if self.mix.unruly => self.b.card.time_out(),
            96 if self.mix.plain => self.plain(r),
            97 if self.mix.nbio => self.b.os.nonblocking = !self.b.os.nonblocking,
            98 => self.b.os.mem.touch_map(),
            99 if self.mix.remap && !self.open.is_empty() => {
                let i = r.range(0, self.open.len() as u64 - 1) as usize;
                let at = self.open[i];
                if self.has_parted(&at) {
                    return;
                }
                let (addr, len) = (at.addr - GUARD as u64, at.len + 2 * GUARD);
                self.b.os.mem.remap(addr, len);
            }
            _ if self.b.os.retry => {
                self.b.os.retry = false;
                self.b.retry();
            }
            _ => {}
        }
        self.judge();
        self.b.check();
    }

    /// Let everything run until nothing moves.
    fn drain(&mut self) {
        self.plenty();
        self.b.os.page_budget = u32::MAX;
        let mut idle = 0;
        for turn in 0.. {
            assert!(turn < 20_000, "it never ends");
            let mut moved = self.b.exec_one();
            moved |= self.b.deliver_one().unwrap();
            if let Some(w) = self.want.take() {
                let pages = self.b.os.hold(&w);
                self.b.ready(w, pages);
                self.want = self.b.want();
                moved = true;
            } else if core::mem::take(&mut self.b.os.kicked) {
                self.want = self.b.want();
                moved = true;
            }
            self.judge();
            if moved {
                idle = 0;
                continue;
            }
            // What is short may stay so (page pods of a small region) until data comes.
            idle += 1;
            if idle > 3 || !core::mem::take(&mut self.b.os.retry) {
                return;
            }
            self.b.retry();
            self.judge();
        }
    }

    fn end(mut self, r: &mut Rng) -> Totals {
        if r.one_in(4) {
            // A reset: whatever is under way is lost, but every job ends.
            self.reset = true;
            self.b.card.out.clear();
            let (rx, sh, os) = (&mut self.b.rx, &mut self.b.sh, &mut self.b.os);
            rx.fail_all(sh, os, Some(Errno::ECONNRESET), &CardDone::for_test());
            self.judge();
            loop {
                while let Some(w) = self.want.take().or_else(|| self.b.want()) {
                    let pages = self.b.os.hold(&w);
                    self.b.ready(w, pages);
                }
                if !core::mem::take(&mut self.b.os.retry) {
                    break;
                }
                self.b.retry();
            }
            self.judge();
        } else {
            if r.one_in(2) {
                self.drain();
            }
            self.fin = true;
            self.b.card.fin();
            self.drain();
            assert!(self.b.os.rcv_shut, "the socket never heard of the FIN");
            // Nothing lost: what the peer sent was read or can be.
            let left = self.b.os.plain_read(usize::MAX);
            assert_eq!(left, stream(self.b.pos, left.len()));
            let read = self.b.pos.wrapping_sub(SEQ) as usize + left.len();
            assert_eq!(read, self.sent as usize, "bytes lost");
        }
        assert!(self.open.is_empty(), "never completed: {:?}", self.open);
        let c = |c| self.b.counter(c);
        let copied = c(Counter::RxCopiedBeforeDdp)
            + c(Counter::RxCopiedNoBuffer)
            + c(Counter::RxCopiedNoPpods)
            + c(Counter::RxCopiedDdpOff)
            + c(Counter::RxCopiedNoBudget);
        let totals = [
            c(Counter::RxPlacedOctets),
            copied,
            self.b.os.moved,
            c(Counter::CacheHit),
            c(Counter::CacheEvict),
            c(Counter::CancelClean),
            c(Counter::CancelShort),
            c(Counter::NoWr),
            c(Counter::NoPpods),
            self.b.os.returned,
            c(Counter::RxPlainOctets),
            c(Counter::RxCopiedVectored),
            c(Counter::RxCopiedNoBudget),
        ];
        self.b.finish();
        totals
    }
}

/// Sums over a schedule: octets placed, copied, moved within pages; cache hits, evictions; clean
/// and short cancels; shortages of work requests and page pods; octets returned to so_rcv, read
/// plainly, copied to vectored reads, copied for want of a budget.
type Totals = [u64; 13];

/// Run `n` schedules; each of the totals named in `must` must be reached by some.
fn schedules(n: u64, steps: u32, mix: Mix, must: &[usize]) {
    let sums = std::sync::Mutex::new(Totals::default());
    seeds(n, |r| {
        let mut run = Run::new(r, mix);
        for _ in 0..steps {
            run.step(r);
        }
        let totals = run.end(r);
        let mut sums = sums.lock().unwrap();
        for (s, t) in sums.iter_mut().zip(totals) {
            *s += t;
        }
    });
    let sums = sums.into_inner().unwrap();
    std::println!("{sums:?}");
    if std::env::var_os("SEED").is_none() {
        for i in must {
            assert!(sums[*i] > 0, "no schedule reached total {i}: {sums:?}");
        }
    }
}

#[test]
fn plain_sailing() {
    schedules(
        60,
        400,
        Mix {
            large: true,
            ..Mix::default()
        },
        &[0, 1, 2],
    );
}

#[test]
fn with_reuse() {
    let mix = Mix {
        reuse: true,
        plain: true,
        ..Mix::default()
    };
    schedules(60, 400, mix, &[0, 1, 2, 3, 4, 10]);
}

#[test]
fn with_cancels() {
    let mix = Mix {
        reuse: true,
        cancel: true,
        ..Mix::default()
    };
    schedules(80, 400, mix, &[0, 1, 2, 3, 5, 6]);
}

#[test]
fn with_shortages() {
    let mix = Mix {
        reuse: true,
        short: true,
        ..Mix::default()
    };
    schedules(80, 500, mix, &[0, 1, 2, 3, 4, 7, 8, 9]);
}

#[test]
fn with_an_unruly_adapter() {
    let mix = Mix {
        unruly: true,
        large: true,
        ..Mix::default()
    };
    schedules(80, 400, mix, &[0, 1, 2]);
}

#[test]
fn with_memory_that_changes() {
    let mix = Mix {
        reuse: true,
        cancel: true,
        unruly: true,
        large: true,
        remap: true,
        ..Mix::default()
    };
    schedules(120, 500, mix, &[0, 1, 2, 3, 5]);
}

#[test]
fn with_nonblocking_sockets() {
    let mix = Mix {
        nbio: true,
        unruly: true,
        ..Mix::default()
    };
    schedules(50, 400, mix, &[0, 1]);
}

#[test]
fn with_vectored_reads() {
    let mix = Mix {
        cancel: true,
        unruly: true,
        plain: true,
        vector: true,
        ..Mix::default()
    };
    schedules(80, 400, mix, &[0, 1, 5, 6, 10, 11]);
}

#[test]
fn with_everything() {
    let mix = Mix {
        reuse: true,
        cancel: true,
        short: true,
        unruly: true,
        plain: true,
        nbio: true,
        large: true,
        remap: true,
        vector: true,
    };
    let all: Vec<usize> = (0..Totals::default().len()).collect();
    schedules(150, 500, mix, &all);
}
