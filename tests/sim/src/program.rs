//! A program at one end of a connection: it does what its plan and its dice say, then closes.

use t5sim::Nanos;
use toehold_core::os::{Queue, TcpState};

use crate::buf::BufId;
use crate::rng::Rng;
use crate::sock::Stay;
use crate::world::{World, egress};

/// How a program ends its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// Waits for its writes, shuts its direction, reads to the end, closes.
    Drain,
    /// Shuts its direction with writes under way, then as `Drain`.
    Hasty,
    /// Waits for the peer's end first, for a while, then as `Drain`.
    Second,
    /// Cancels what is left, as exit(2) does, and closes.
    Exit,
    /// Resets the connection, whatever is under way.
    Reset,
}

/// What a program does. Rates are thousandths of its turns.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes it sends.
    pub total: usize,
    /// Largest write.
    pub max_write: usize,
    /// Largest read.
    pub max_read: usize,
    /// Reads kept outstanding.
    pub depth: usize,
    /// aio_writes that are aio_writev.
    pub vectored: u64,
    /// write(2)s that are sendfile(2), with data that comes later.
    pub sendfile: u64,
    /// Writes kept outstanding.
    pub wdepth: usize,
    /// Turns in which it writes.
    pub write: u64,
    /// Turns in which it fills its queue of reads.
    pub fill: u64,
    /// Writes that are aio_write; the rest is write(2).
    pub aio_write: u64,
    /// Of these: from one buffer, again and again.
    pub same: u64,
    /// Turns in which it reads by read(2) instead of aio_read.
    pub plain_read: u64,
    /// Cancels a job.
    pub cancel: u64,
    /// Sits in a blocking read(2) for a while.
    pub block_read: u64,
    /// Stays in recv(2) until all it asked for, or a low-water mark, is there.
    pub stay_read: u64,
    /// write(2)s that block.
    pub block_write: u64,
    /// Changes its address space elsewhere.
    pub touch: u64,
    /// Maps other memory at an idle buffer's address.
    pub remap: u64,
    /// shutdown(SHUT_RD).
    pub shut_rd: u64,
    /// A queue of the adapter's stalls, for want of descriptors.
    pub stall: u64,
    /// The settings change.
    pub toggle: u64,
    /// Longest time between its turns, ns.
    pub pace: u64,
    /// Most turns before it closes.
    pub turns: u32,
    /// How it closes.
    pub closing: Closing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Active,
    /// Waits for its own writes, or the peer's end.
    Waiting,
    /// Our direction is shut; reads to the end.
    Draining,
    /// Waits for its jobs to end.
    Leaving,
    Done,
}

/// A program.
pub struct Program {
    /// Its end of the connection.
    pub e: usize,
    plan: Plan,
    phase: Phase,
    left: usize,
    rng: Rng,
    rbufs: Vec<BufId>,
    wbufs: Vec<BufId>,
    /// A source of many writes at once.
    same: BufId,
    since: Nanos,
    shut_rd: bool,
    stuck: bool,
    /// Longest time to the next turn while nothing happens.
    idle: Nanos,
    /// What it saw at its last turn.
    seen: (Phase, u64, u64, usize),
}

/// A program waits no longer than this for what its peer may never do.
const PATIENCE: Nanos = 3_000_000_000;
/// Most time between turns.
const IDLE: Nanos = 3_000_000;

impl Program {
    /// Starts with a turn soon.
    pub fn new(w: &mut World, e: usize, plan: Plan, mut rng: Rng) -> Program {
        let host = w.ends[e].host;
        let mut add = |n: usize, max: usize| -> Vec<BufId> {
            (0..n)
                .map(|_| {
                    let run = rng.pick(&[1, 1, 3, 4, 16, 64]);
                    let guard = rng.range(0, 2) as usize * crate::mem::PAGE;
                    w.bufs.add(host, max + guard, run)
                })
                .collect()
        };
        let rbufs = add(plan.depth + 1, plan.max_read);
        let wbufs = add(plan.wdepth + 1, plan.max_write);
        let run = rng.pick(&[1, 4, 16]);
        let same = w
            .bufs
            .add_constant(host, plan.max_write, run, rng.range(0, 1 << 40));
        w.turn_in(e, (0, plan.pace));
        Program {
            e,
            left: plan.total,
            plan,
            phase: Phase::Active,
            rng,
            rbufs,
            wbufs,
            same,
            since: 0,
            shut_rd: false,
            stuck: false,
            idle: 0,
            seen: (Phase::Active, 0, 0, 0),
        }
    }

    /// It has closed its socket.
    #[must_use]
    pub fn done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// It had to reset the connection to end its writes.
    #[must_use]
    pub fn stuck(&self) -> bool {
        self.stuck
    }

    /// It closes in order and reads to the end.
    #[must_use]
    pub fn orderly(&self) -> bool {
        matches!(
            self.plan.closing,
            Closing::Drain | Closing::Second | Closing::Hasty
        ) && !self.shut_rd
    }

    fn gone(&self, w: &World) -> bool {
        let end = &w.ends[self.e];
        end.broken.is_some()
    }

    /// Its turn.
    pub fn turn(&mut self, w: &mut World) {
        match self.phase {
            Phase::Active => self.active(w),
            Phase::Waiting => self.waiting(w),
            Phase::Draining => self.draining(w),
            Phase::Leaving => {
                if w.jobs(self.e).is_empty() && w.ends[self.e].writer.is_none() {
                    w.close(self.e);
                    self.phase = Phase::Done;
                } else if w.now - self.since > PATIENCE && !self.gone(w) {
                    // Writes in flight cannot be cancelled, and the peer does not read.
                    self.stuck = true;
                    w.reset(self.e);
                }
            }
            Phase::Done => return,
        }
        // Turns in which nothing can have changed become rare.
        let end = &w.ends[self.e];
        let book = end.os.book.borrow();
        let now = (
            self.phase,
            book.next,
            end.os.sends.borrow().len(),
            book.jobs.len(),
        );
        drop(book);
        self.idle = if now == self.seen {
            (self.idle * 2).min(IDLE)
        } else {
            self.plan.pace
        };
        self.seen = now;
        w.turn_in(self.e, (self.plan.pace / 2, self.idle.max(self.plan.pace)));
    }

    fn active(&mut self, w: &mut World) {
        let e = self.e;
        let p = self.plan.clone();
        self.read_some(w);
        if self.rng.permille(p.write) {
            self.write_some(w);
        }
        if self.rng.permille(p.cancel) {
            let jobs = w.jobs(e);
            if !jobs.is_empty() {
                let id = self.rng.pick(&jobs);
                w.cancel(e, id);
            }
        }
        if self.rng.permille(p.touch) {
            w.mem.borrow_mut().touch(w.ends[e].host);
        }
        if self.rng.permille(p.remap) {
            let all = [self.rbufs.clone(), self.wbufs.clone()].concat();
            let b = self.rng.pick(&all);
            if !w.bufs.busy(b) {
                let run = self.rng.pick(&[1, 4, 16]);
                w.bufs.remap(b, run);
            }
        }
        if self.rng.permille(p.stall) {
            let n = self.rng.range(0, 1) as u8;
            let q = self
                .rng
                .pick(&[egress(Queue::Ctrl, n), egress(Queue::Ofld, n)]);
            let by = self.rng.range(1_000, 500_000);
            w.card.stall_queue(w.now, q, by);
        }
        if self.rng.permille(p.toggle) {
            let tun = &mut w.ends[e].tun;
            tun.ddp ^= self.rng.one_in(3);
            tun.tx_zcopy ^= self.rng.one_in(3);
            tun.tx_zcopy_min = self.rng.pick(&[0, 3_000, 50_000]);
            tun.cache = self.rng.pick(&[0, 8, 12, 64]);
        }
        if self.rng.permille(p.shut_rd) {
            self.shut_rd = true;
            w.shutdown_rd(e);
        }
        self.plan.turns = self.plan.turns.saturating_sub(1);
        if self.left == 0 || self.plan.turns == 0 || self.gone(w) {
            self.begin_to_close(w);
        }
    }

    fn begin_to_close(&mut self, w: &mut World) {
        self.since = w.now;
        match self.plan.closing {
            Closing::Drain | Closing::Second => self.phase = Phase::Waiting,
            Closing::Hasty => self.shut(w),
            Closing::Exit => self.leave(w),
            Closing::Reset => {
                w.reset(self.e);
                self.phase = Phase::Leaving;
            }
        }
    }

    /// Cancel what is left and go.
    fn leave(&mut self, w: &mut World) {
        if self.plan.closing == Closing::Exit {
            w.exit(self.e);
        } else {
            for id in w.jobs(self.e) {
                w.cancel(self.e, id);
            }
        }
        let end = &mut w.ends[self.e];
        if end.writer.take().is_some() {
            end.os.sock.snd.writer = false;
        }
        self.since = w.now;
        self.phase = Phase::Leaving;
    }

    fn shut(&mut self, w: &mut World) {
        w.shutdown_wr(self.e);
        self.since = w.now;
        self.phase = Phase::Draining;
    }

    fn waiting(&mut self, w: &mut World) {
        self.read_some(w);
        let e = self.e;
        let end = &w.ends[e];
        let late = w.now - self.since > PATIENCE;
        let writes = end.os.book.borrow().jobs.values().any(|r| r.write) || end.writer.is_some();
        let second = self.plan.closing == Closing::Second && !end.eof;
        if self.gone(w) || late && writes {
            self.leave(w);
        } else if !writes && (!second || late) {
            self.shut(w);
        }
    }

    fn draining(&mut self, w: &mut World) {
        let end = &w.ends[self.e];
        let over = end.os.tcb.state == TcpState::TimeWait;
        if end.eof || self.gone(w) || w.now - self.since > 10 * PATIENCE {
            self.leave(w);
        } else {
            let _ = over;
            self.read_some(w);
        }
    }

    fn read_some(&mut self, w: &mut World) {
        let e = self.e;
        if w.ends[e].eof {
            return;
        }
        if self.rng.permille(self.plan.block_read) {
            let ns = self.rng.range(1_000, 2_000_000);
            let n = self.rng.size(self.plan.max_read as u64) as usize;
            w.read_blocking(e, n, ns);
        } else if self.rng.permille(self.plan.stay_read) {
            let n = self.rng.size(self.plan.max_read as u64);
            let stay = self.rng.pick(&[Stay::All, Stay::Lowat(n as u32)]);
            w.read_staying(e, n as usize, stay);
        } else if self.rng.permille(self.plan.plain_read) {
            let n = self.rng.size(self.plan.max_read as u64) as usize;
            w.read(e, n);
        } else {
            let fill = self.rng.permille(self.plan.fill);
            for _ in 0..=self.plan.depth {
                let idle = |b: &BufId| !w.bufs.busy(*b);
                let idle: Vec<BufId> = self.rbufs.iter().copied().filter(idle).collect();
                if idle.len() < 2 || w.ends[e].eof {
                    return;
                }
                let b = self.rng.pick(&idle);
                let (off, len) = self.place(w, b, self.plan.max_read);
                w.aio_read(e, b, off, len);
                if !fill {
                    return;
                }
            }
        }
    }

    /// Somewhere in a buffer; often all of it from its start, so that caches are of use.
    fn place(&mut self, w: &World, b: BufId, max: usize) -> (usize, usize) {
        let size = w.bufs.size(b);
        if self.rng.one_in(2) {
            return (0, size.min(max));
        }
        let len = self.rng.size(max as u64) as usize;
        let off = self.rng.range(0, (size - len) as u64) as usize;
        (off, len)
    }

    fn write_some(&mut self, w: &mut World) {
        let e = self.e;
        if self.left == 0 || w.ends[e].os.sock.snd.shut {
            return;
        }
        if self.rng.permille(self.plan.aio_write) {
            if self.rng.permille(self.plan.same) {
                let len = self.plan.max_write.min(self.left);
                let writes = w.jobs(e).len();
                if writes < 2 * self.plan.wdepth + self.plan.depth {
                    self.left -= len;
                    let v = self.rng.permille(self.plan.vectored);
                    w.aio_write_as(e, self.same, 0, len, v);
                }
                return;
            }
            let idle: Vec<BufId> = self
                .wbufs
                .iter()
                .copied()
                .filter(|b| !w.bufs.busy(*b))
                .collect();
            if idle.len() > 1 {
                let b = self.rng.pick(&idle);
                let (off, len) = self.place(w, b, self.plan.max_write);
                let len = len.min(self.left);
                self.left -= len;
                let v = self.rng.permille(self.plan.vectored);
                w.aio_write_as(e, b, off, len, v);
            }
            return;
        }
        let n = self.rng.size(self.plan.max_write as u64) as usize;
        let n = n.min(self.left);
        if self.rng.permille(self.plan.sendfile) {
            let ns = self.rng.pick(&[1_000, 100_000, 2_000_000]);
            self.left -= w.sendfile(e, n, ns);
        } else if self.rng.permille(self.plan.block_write) {
            if w.ends[e].writer.is_none() {
                self.left -= n;
                w.write_blocking(e, n);
            }
        } else {
            self.left -= w.write(e, n);
        }
    }
}
