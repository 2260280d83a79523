//! Seeded schedules: everything about a run, its card, its faults and its programs, is drawn from
//! one 64-bit number.

use t5sim::{Config, Faults, Lose, Nanos};
use toehold_core::os::Counter;
use toehold_core::shared::Tunables;

use crate::os::Short;
use crate::program::{Closing, Plan, Program};
use crate::rng::Rng;
use crate::world::{EndConf, World};

/// No run takes longer than this, virtual time.
const LIMIT: Nanos = 200_000_000_000;

/// What a run came to, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Steps.
    pub steps: u64,
    /// Jobs.
    pub jobs: u64,
    /// Bytes that writers were told are sent.
    pub sent: u64,
    /// Of jobs, sent from held pages.
    pub held: u64,
    /// Of jobs, copied.
    pub copied: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes placed by DDP.
    pub placed: u64,
    /// Cancels, clean and short.
    pub cancels: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Programs whose writes in flight ended by a reset only.
    pub stuck: u64,
    /// Runs in which both streams were read to the end.
    pub whole: u64,
    /// Answers that the adapter did not give.
    pub lost: u64,
    /// Connections kept for want of its last word, until that came after all.
    pub orphans: u64,
}

impl Tally {
    /// Sum.
    pub fn add(&mut self, o: &Tally) {
        self.steps += o.steps;
        self.jobs += o.jobs;
        self.sent += o.sent;
        self.held += o.held;
        self.copied += o.copied;
        self.read += o.read;
        self.placed += o.placed;
        self.cancels += o.cancels;
        self.broken += o.broken;
        self.whole += o.whole;
        self.stuck += o.stuck;
        self.lost += o.lost;
        self.orphans += o.orphans;
    }
}

fn some(rng: &mut Rng, one_in: u64, lo: u64, hi: u64) -> u64 {
    if rng.one_in(one_in) {
        rng.range(lo, hi)
    } else {
        0
    }
}

fn card(rng: &mut Rng) -> Config {
    let mut c = Config {
        ntids: 16,
        natids: 16,
        nstids: 16,
        ppods: 1 << rng.range(6, 11),
        seed: rng.next_u64(),
        chip: rng.pick(&[
            wire::Chip::T5,
            wire::Chip::T5,
            wire::Chip::T6,
            wire::Chip::T4,
        ]),
        ..Config::default()
    };
    c.faults = Faults {
        drop_ppm: some(rng, 4, 100, 30_000) as u32,
        dup_ppm: some(rng, 5, 100, 30_000) as u32,
        reorder_ppm: some(rng, 5, 100, 30_000) as u32,
        reorder_delay: rng.range(1_000, 200_000),
        reset_ppm: some(rng, 10, 100, 5_000) as u32,
        invalidate_delay: some(rng, 3, 1_000, 300_000),
        set_tcb_rpl_delay: some(rng, 3, 1_000, 300_000),
        ddp_off_ppm: some(rng, 4, 1_000, 200_000) as u32,
        indicate_ppm: some(rng, 4, 1_000, 500_000) as u32,
        retransmit_delay: some(rng, 5, 1_000, 5_000_000),
        wr_jitter: some(rng, 3, 100, 50_000),
        cpl_jitter: some(rng, 3, 100, 50_000),
        ..Faults::default()
    };
    c.push_timer = some(rng, 3, 100, 100_000);
    c.indicate_hold = rng.pick(&[1_000, 50_000, 50_000, 1_000_000]);
    c.indicate_size = if rng.one_in(4) {
        rng.range(1, 5_000) as u32
    } else {
        0
    };
    c.seg_min = rng.pick(&[1, 100, 1460, 1460]);
    c.seg_max = rng.pick(&[1460, 8_960, 16_384, 65_535]);
    c.tx_credits = rng.pick(&[38, 64, 128, 255]);
    c.ack_delay = rng.pick(&[0, 10_000, 100_000]);
    c.credit_delay = rng.pick(&[0, 20_000, 500_000]);
    c.rto = rng.pick(&[300_000, 5_000_000]);
    c
}

/// What the adapter does not answer, or late, and how long is waited for it (ms).
fn silence(rng: &mut Rng, f: &mut Faults, wild: bool) -> Option<u64> {
    if rng.one_in(2) {
        return None;
    }
    // Much longer than anything takes that is answered.
    let bound = rng.pick(&[200, 500, 2_000]);
    if wild && rng.one_in(2) {
        let rate = |rng: &mut Rng| rng.pick(&[0, 0, 10_000, 200_000, 1_000_000]);
        f.lose = Lose {
            set_tcb_rpl_ppm: rate(rng),
            abort_rpl_ppm: rate(rng),
            close_con_rpl_ppm: rate(rng),
            fw4_ack_ppm: rate(rng),
        };
        if rng.one_in(3) {
            f.abort_delay = rng.range(1_000, 2 * bound * 1_000_000);
        }
    }
    Some(bound)
}

fn short(rng: &mut Rng) -> Short {
    let mut rate = |n| some(rng, n, 1, 400);
    Short {
        wr: rate(4),
        ppods: rate(4),
        mbuf: rate(4),
        charge: rate(5),
        fault: rate(12) / 4,
        nomem: rate(8) / 2,
        io: rate(4),
    }
}

fn end(rng: &mut Rng) -> EndConf {
    let buffer =
        |rng: &mut Rng| rng.pick(&[4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20]);
    let tiny = rng.one_in(16);
    EndConf {
        tun: Tunables {
            ddp: !rng.one_in(12),
            tx_zcopy: !rng.one_in(12),
            tx_zcopy_min: rng.pick(&[0, 0, 0, 3_000, 20_000, u32::MAX]),
            cache: rng.pick(&[0, 8, 9, 16, 64]),
        },
        rcv: if tiny { 1 } else { buffer(rng) },
        snd: buffer(rng),
        auto_max: if rng.one_in(3) { 2 << 20 } else { 0 },
        rcv_lowat: if rng.one_in(6) {
            rng.range(2, 3_000) as u32
        } else {
            1
        },
        nonblocking: rng.one_in(4),
        // Sequence numbers that wrap are as likely as others.
        iss: if rng.one_in(2) {
            0u32.wrapping_sub(rng.size(400_000) as u32)
        } else {
            rng.next_u64() as u32
        },
    }
}

fn plan(rng: &mut Rng, wild: bool, big: bool) -> Plan {
    // As many jobs as do not make a run long, whatever their size.
    let up_to = |rng: &mut Rng| rng.pick(&[100, 5_000, 30_000, 100_000, 200_000, 300_000]);
    let (max, max_read) = if big {
        (18 << 20, 1)
    } else {
        (up_to(rng), up_to(rng))
    };
    let total = if big {
        25 << 20
    } else {
        (rng.range(1, 500_000) as usize).min(max * 15)
    };
    let calm = [Closing::Drain, Closing::Drain, Closing::Second];
    let any = [
        Closing::Drain,
        Closing::Second,
        Closing::Hasty,
        Closing::Exit,
        Closing::Reset,
    ];
    Plan {
        total,
        max_write: max,
        max_read,
        depth: rng.range(1, 6) as usize,
        wdepth: rng.range(1, 5) as usize,
        write: rng.pick(&[1000, 500, 100, 20]),
        fill: rng.pick(&[1000, 500, 100, 0]),
        aio_write: rng.pick(&[1000, 1000, 700, 300, 0]),
        same: rng.pick(&[0, 0, 500, 1000]),
        plain_read: rng.pick(&[0, 0, 0, 30, 500, 1000]),
        cancel: if rng.one_in(2) { rng.range(1, 300) } else { 0 },
        block_read: some(rng, 8, 1, 100),
        stay_read: some(rng, 6, 1, 100),
        block_write: rng.pick(&[0, 500]),
        vectored: some(rng, 4, 1, 300),
        sendfile: some(rng, 4, 1, 1000),
        touch: some(rng, 4, 1, 200),
        remap: some(rng, 4, 1, 200),
        shut_rd: if wild { some(rng, 10, 1, 20) } else { 0 },
        stall: some(rng, 5, 1, 200),
        toggle: some(rng, 8, 1, 200),
        pace: rng.pick(&[1_000, 20_000, 200_000]),
        turns: rng.range(1, 100) as u32,
        closing: if wild {
            rng.pick(&any)
        } else {
            rng.pick(&calm)
        },
    }
}

/// A plan in which every way to write is mixed with every other.
fn writer(rng: &mut Rng) -> Plan {
    let wild = rng.one_in(2);
    let max = rng.pick(&[3_000, 10_000, 40_000, 150_000]);
    Plan {
        total: rng.range(10_000, 400_000) as usize,
        max_write: max,
        wdepth: rng.range(2, 8) as usize,
        write: 1000,
        aio_write: rng.pick(&[900, 700, 500]),
        same: rng.pick(&[0, 200]),
        vectored: rng.pick(&[0, 100, 400]),
        sendfile: rng.pick(&[0, 300, 700]),
        cancel: rng.pick(&[0, 20, 200]),
        toggle: rng.pick(&[0, 20]),
        turns: rng.range(20, 200) as u32,
        ..plan(rng, wild, false)
    }
}

/// One run. Panics with what is wrong.
#[must_use]
pub fn run(seed: u64) -> Tally {
    run_as(seed, false)
}

/// One run in which both ends write in all ways at once.
#[must_use]
pub fn writers(seed: u64) -> Tally {
    run_as(seed, true)
}

fn run_as(seed: u64, writers: bool) -> Tally {
    let mut rng = Rng::new(seed);
    let big = !writers && rng.one_in(400);
    let mut cfg = card(&mut rng);
    if big {
        cfg.ppods = 1 << 13;
        cfg.seg_min = 1460;
        cfg.seg_max = 65_535;
        cfg.faults.drop_ppm /= 30;
    }
    let wild = rng.one_in(2);
    if !wild {
        cfg.faults.reset_ppm = 0;
    }
    // What goes wrong begins when the connections are up.
    let faults = std::mem::take(&mut cfg.faults);
    let mut w = World::new(cfg, rng.next_u64());
    if rng.one_in(2) {
        w.lat.intr = (0, rng.pick(&[0, 1_000, 50_000]));
        w.lat.worker = (0, rng.pick(&[0, 100_000, 1_000_000]));
        w.lat.hold = (0, rng.pick(&[0, 100_000, 1_000_000]));
        w.lat.retry = (1_000, rng.pick(&[10_000, 5_000_000]));
    }
    if rng.one_in(3) {
        w.short = short(&mut rng);
    }
    if rng.one_in(6) {
        for p in [0, 1] {
            let pages = rng.range(64, 1_000) as u32;
            w.mem.borrow_mut().set_budget(p, pages);
        }
    }
    let pairs = if big { 1 } else { rng.pick(&[1, 1, 1, 2, 3]) };
    let mut programs = Vec::new();
    for _ in 0..pairs {
        let (a, b) = (end(&mut rng), end(&mut rng));
        let (a, b) = w.open(rng.range(0, 1) as usize, a, b);
        let mut plans = if writers {
            [writer(&mut rng), writer(&mut rng)]
        } else {
            [plan(&mut rng, wild, big), plan(&mut rng, wild, false)]
        };
        // No reader takes for ever over what it is sent.
        for (i, j) in [(0, 1), (1, 0)] {
            let least = if big && i == 1 {
                18 << 20
            } else {
                plans[j].total / 40
            };
            plans[i].max_read = plans[i].max_read.max(least);
        }
        for (e, plan) in [a, b].into_iter().zip(plans) {
            programs.push(Program::new(&mut w, e, plan, rng.fork()));
        }
    }
    // Drawn apart, so that a seed goes on to stand for what else it stood for.
    let mut apart = Rng::new(seed ^ 0x006f_7665_7264_7565);
    let mut faults = faults;
    w.bound = silence(&mut apart, &mut faults, wild);
    let lossy = faults.lose != Lose::NONE || faults.abort_delay > 0;
    w.card.set_faults(faults);
    play(&mut w, &mut programs, seed);
    tally(&mut w, &programs, lossy)
}

fn play(w: &mut World, programs: &mut [Program], seed: u64) {
    let trace = std::env::var_os("TRACE").is_some();
    while programs.iter().any(|p| !p.done()) {
        let more = w.step();
        assert!(more, "nothing more will happen\n{}", w.story());
        assert!(w.now < LIMIT, "programs never end (I9)\n{}", w.story());
        while let Some(e) = w.turns.pop_front() {
            programs[e].turn(w);
        }
        if trace {
            eprintln!("{seed:#x} {}", w.story());
        }
    }
    // From here on all shortages are over; what is left must end.
    for end in &mut w.ends {
        end.os.short = Short::default();
    }
    w.run_dry();
}

fn tally(w: &mut World, programs: &[Program], lossy: bool) -> Tally {
    let mut t = Tally {
        steps: w.steps,
        ..Tally::default()
    };
    for pair in programs.chunks(2) {
        let clean = pair
            .iter()
            .all(|p| p.orderly() && w.ends[p.e].broken.is_none());
        if clean {
            t.whole += 1;
            for p in pair {
                let end = &w.ends[p.e];
                let (got, sent) = (end.os.book.borrow().next, end.hears.borrow().len());
                assert_eq!(
                    got,
                    sent,
                    "end {}: stream not whole (I2)\n{}",
                    p.e,
                    w.story()
                );
            }
        }
    }
    t.stuck = programs.iter().filter(|p| p.stuck()).count() as u64;
    for end in &w.ends {
        assert_eq!(
            end.promised,
            end.os.sends.borrow().len(),
            "the stream is not what the results promised (I8)"
        );
        t.sent += end.promised;
        t.jobs += end.os.book.borrow().count as u64;
        t.read += end.os.book.borrow().next;
        t.placed += end.os.counter(Counter::RxPlacedOctets);
        t.held += end.os.counter(Counter::TxZcopyOctets);
        t.copied += end.os.counter(Counter::TxCopiedOctets);
        t.cancels += end.os.counter(Counter::CancelClean) + end.os.counter(Counter::CancelShort);
        t.broken += u64::from(end.broken.is_some());
        // Credits do not add up when some of them were lost.
        assert!(
            lossy || (end.os.counter(Counter::BadCpl) == 0 && end.os.log.is_empty()),
            "the adapter's words were not believed: {:?}",
            end.os.log
        );
    }
    w.check_orphans();
    t.lost = w.card.stats().cpls_lost;
    t.orphans = w.ends.iter().filter(|e| e.os.orphaned.0 > 0).count() as u64;
    if t.lost > 0 {
        // Better late than never.
        w.find_lost();
    }
    w.check_empty();
    t
}
