//! `make demo DEMO=linerate`: how close zero-copy aio_write comes to what line and program allow,
//! in virtual time, with socket-buffer autosizing and without.
//!
//! A cell is a line rate, a round-trip time, a size of write and a number of writes kept
//! outstanding. The round trip is what the sending host sees of it: doorbell to card, wire, wire
//! back, message to host. A write is back when its last byte is acknowledged, so one place among
//! the outstanding ones carries `size` bytes each `rtt + size / line`; in the same way the work
//! request is the unit of the adapter's credits. The bound of a cell is the least of the line
//! rate and of those two.
//!
//! SEED: the schedule. ONLY: part of the name of the cells to run, as `40g/50us/32k/4`.

use std::time::{Duration, Instant};

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use ukern::Config;
use ukern::proc::{Proc, ProcConfig, Prot, SockOpt, addr};
use ukern::sched::SBT_1US;

use crate::number;

/// Gb/s.
const LINES: [u64; 3] = [10, 40, 100];
/// Microseconds.
const RTTS: [u64; 3] = [10, 50, 200];
/// Bytes.
const SIZES: [usize; 4] = [8 << 10, 32 << 10, 256 << 10, 1 << 20];
const DEPTHS: [usize; 3] = [2, 4, 16];
/// SO_SNDBUF where the socket buffer does not size itself: what many programs set.
const SNDBUF: u32 = 256 << 10;
/// Least ratio of reached rate to bound.
const LEAST: f64 = 0.97;
/// Most that autosizing may cost, as a part of the rate reached without.
const COST: f64 = 0.02;
/// Doorbell to execution and event to message, ns: the card's defaults, told apart because the
/// wire gets the rest of the round trip.
const WR_DELAY: u64 = 1_000;
const HOST_DELAY: u64 = 5_000;
/// Bytes of a segment: the model acknowledges segments as a whole.
const SEG: u64 = 8192;
/// Virtual time of a switch between threads, in parts of a microsecond.
const SWITCH: i64 = 100;
/// The receiver's buffers.
const RX_BUF: usize = 1 << 20;
const RX_DEPTH: usize = 4;
const PORT: u16 = 5001;
const PAGE: usize = 4096;
/// Credits of a work request of the greatest length, and its segments.
const WR_CREDITS: u64 = 32;
const WR_SEGS: u64 = 41;
/// What the simulated firmware grants a connection, less an abort's worth, in units of 16 bytes.
const CREDITS: u64 = 128 - 2;

#[derive(Clone, Copy)]
struct Cell {
    /// Gb/s.
    line: u64,
    /// us.
    rtt: u64,
    size: usize,
    depth: usize,
}

impl Cell {
    fn name(&self) -> String {
        format!(
            "{}g/{}us/{}k/{}",
            self.line,
            self.rtt,
            self.size >> 10,
            self.depth
        )
    }

    /// Gb/s if `n` units of `unit` bytes may be outstanding, each back a round trip after its
    /// last byte went out.
    fn by_units(&self, n: f64, unit: f64) -> f64 {
        let bits = unit * 8.0;
        n * bits / (self.rtt as f64 * 1e3 + bits / self.line as f64)
    }

    /// The bound in Gb/s, and what sets it.
    fn bound(&self, wr: &Wrs) -> (f64, &'static str) {
        let jobs = (self.by_units(self.depth as f64, self.size as f64), "writes");
        let credits = (self.by_units(wr.outstanding, wr.bytes), "credits");
        let line = (self.line as f64, "line");
        [jobs, credits, line]
            .into_iter()
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or(line)
    }
}

/// How the buffers fill work requests.
#[derive(Clone, Copy, Default)]
struct Wrs {
    /// Work requests that the credits are enough for.
    outstanding: f64,
    /// Mean payload of one, bytes.
    bytes: f64,
}

/// Work requests for one pass over the buffers.
fn work_requests(p: &Proc, bufs: &[u64], size: usize) -> Wrs {
    let (mut wrs, mut credits) = (0, 0);
    for va in bufs {
        let pages = (0..size).step_by(PAGE).map(|o| p.phys_of(va + o as u64));
        let (mut segs, mut last) = (0_u64, None);
        for pa in pages {
            segs += u64::from(last.is_none() || pa != last);
            last = pa.map(|a| a + PAGE as u64);
        }
        wrs += segs.div_ceil(WR_SEGS);
        credits += segs / WR_SEGS * WR_CREDITS;
        // Header, head of the list with one segment, twelve bytes for each further one.
        if let Some(more) = (segs % WR_SEGS).checked_sub(1) {
            credits += (32 + 12 * more).div_ceil(16);
        }
    }
    Wrs {
        outstanding: CREDITS as f64 * wrs as f64 / credits as f64,
        bytes: (size * bufs.len()) as f64 / wrs as f64,
    }
}

/// What a run of a cell came to.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Gb/s.
    rate: f64,
    wrs: Wrs,
}

/// Writes to leave out of the measure and writes to measure, each a multiple of the depth.
fn counts(c: &Cell) -> (usize, usize) {
    let rounds = |bytes: usize, least: usize| (bytes / (c.size * c.depth)).max(least) * c.depth;
    (rounds(8 << 20, 4), rounds(16 << 20, 4))
}

fn send(p: &Proc, fd: i32, c: &Cell) -> Run {
    let bufs: Vec<u64> = (0..c.depth)
        .map(|i| {
            let va = p.mmap(c.size, Prot::RW).expect("mmap");
            // Every other page first, so that neighbours hardly ever are neighbours in memory: the
            // adapter's lists of segments are as long as they can be.
            let pages = (0..c.size).step_by(PAGE);
            for at in pages.clone().step_by(2).chain(pages.skip(1).step_by(2)) {
                p.fill(va + at as u64, PAGE, i as u8 + 1).expect("fill");
            }
            va
        })
        .collect();
    let wrs = work_requests(p, &bufs, c.size);
    let (warm, measure) = counts(c);
    let write = |i: usize| {
        p.aio_write(fd, bufs[i % c.depth], c.size)
            .expect("aio_write")
    };
    let mut jobs: Vec<_> = (0..c.depth).map(write).collect();
    let (mut from, mut to) = (Duration::ZERO, Duration::ZERO);
    for i in 0..warm + measure + c.depth {
        let n = p.aio_wait(jobs[i % c.depth]).expect("aio_write");
        assert_eq!(n, c.size, "aio_write ended short");
        if i + 1 == warm {
            from = p.now();
        }
        if i + 1 == warm + measure {
            to = p.now();
        }
        if i < warm + measure {
            jobs[i % c.depth] = write(i);
        }
    }
    let ns = (to - from).as_nanos() as f64;
    Run {
        rate: (measure * c.size) as f64 * 8.0 / ns,
        wrs,
    }
}

/// Read to the end of the stream with plenty of posted buffers.
fn receive(p: &Proc, fd: i32) -> u64 {
    let read = |va| (va, p.aio_read(fd, va, RX_BUF).expect("aio_read"));
    let mut busy: std::collections::VecDeque<_> = (0..RX_DEPTH)
        .map(|_| read(p.mmap(RX_BUF, Prot::RW).expect("mmap")))
        .collect();
    let mut sum = 0;
    while let Some((va, cb)) = busy.pop_front() {
        let n = p.aio_wait(cb).expect("aio_read");
        sum += n as u64;
        if n > 0 {
            busy.push_back(read(va));
        }
    }
    sum
}

/// A run of a cell on a kernel of its own, so that nothing before it counts.
fn run_cell(seed: u64, c: Cell, autosize: bool) -> Run {
    let bed = bed(seed, c.line, c.rtt);
    let server = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("receiver"), move |p| {
            let l = p.socket().expect("socket");
            p.setsockopt(l, SockOpt::ReuseAddr(true))
                .expect("SO_REUSEADDR");
            p.setsockopt(l, SockOpt::RcvBuf(1800 << 10))
                .expect("SO_RCVBUF");
            p.bind(l, addr(SERVER_IP, PORT)).expect("bind");
            p.listen(l, 8).expect("listen");
            let (s, _) = p.accept(l).expect("accept");
            p.close(l).expect("close");
            let n = receive(p, s);
            p.close(s).expect("close");
            n
        });
    bed.k.run_until_idle();
    let client = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("sender"), move |p| {
            let s = p.socket().expect("socket");
            if !autosize {
                p.setsockopt(s, SockOpt::SndBuf(SNDBUF)).expect("SO_SNDBUF");
            }
            p.connect(s, addr(SERVER_IP, PORT)).expect("connect");
            assert!(p.is_offloaded(s).expect("is_offloaded"), "not offloaded");
            let run = send(p, s, &c);
            p.close(s).expect("close");
            run
        });
    let run = client.join();
    let (warm, measure) = counts(&c);
    let want = ((warm + measure + c.depth) * c.size) as u64;
    assert_eq!(
        server.join(),
        want,
        "the receiver has other bytes than were sent"
    );
    bed.down();
    run
}

/// A test bed with this line.
fn bed(seed: u64, line: u64, rtt: u64) -> Bed {
    let config = Config {
        seed,
        preempt: 0,
        switch_cost: SBT_1US / SWITCH,
        ..Config::default()
    };
    let bed = Bed::with(config);
    bed.sim("line_rate", (line * 1_000_000_000) as i64);
    let wire = (rtt * 1000 - WR_DELAY - HOST_DELAY) / 2;
    for (name, ns) in [
        ("wr_delay", WR_DELAY),
        ("host_delay", HOST_DELAY),
        ("wire_delay", wire),
        // All of one size, of which each write is a multiple.
        ("seg_max", SEG),
        ("seg_min", SEG),
        // The peer holds no acknowledgement back.
        ("ack_delay", 0),
        // A receiver gets its buffer back full, or this long after a PSH.
        ("push_timer", 50_000),
    ] {
        bed.sim(name, ns as i64);
    }
    bed
}

/// Worst of all cells so far.
struct Worst {
    ratio: f64,
    cell: String,
    cost: f64,
    cost_cell: String,
}

fn size_text(n: usize) -> String {
    if n >= 1 << 20 {
        format!("{}M", n >> 20)
    } else {
        format!("{}K", n >> 10)
    }
}

fn one(seed: u64, c: Cell, w: &mut Worst) {
    let runs = [false, true].map(|autosize| run_cell(seed, c, autosize));
    let ratios = runs.map(|r| r.rate / c.bound(&r.wrs).0);
    let cost = (1.0 - runs[1].rate / runs[0].rate).max(0.0);
    let (bound, by) = c.bound(&runs[1].wrs);
    println!(
        "{:>4}  {:>4}  {:>5}  {:>5}  {bound:>7.2} {by:<8}{:>8.2} {:>7.3}  {:>8.2} {:>7.3}  {cost:>6.3}",
        c.line,
        c.rtt,
        size_text(c.size),
        c.depth,
        runs[0].rate,
        ratios[0],
        runs[1].rate,
        ratios[1],
    );
    for (i, r) in ratios.into_iter().enumerate() {
        if r < w.ratio {
            w.ratio = r;
            w.cell = format!("{}/{}", c.name(), ["fixed", "autosize"][i]);
        }
    }
    if cost > w.cost {
        w.cost = cost;
        w.cost_cell = c.name();
    }
}

/// Runs it.
///
/// # Errors
/// A cell is below what it should reach, or autosizing costs too much.
pub(crate) fn run() -> Result<String, String> {
    let seed = number("SEED")?.unwrap_or(1);
    let only = std::env::var("ONLY").unwrap_or_default();
    let begin = Instant::now();
    println!("virtual time; wr_delay {WR_DELAY} ns, host_delay {HOST_DELAY} ns, the wire has the");
    println!(
        "rest of the RTT; a switch of threads costs {} ns, a system call nothing",
        1000 / SWITCH
    );
    println!(
        "fixed: SO_SNDBUF {} KB; auto: the default, which starts at 32 KB",
        SNDBUF >> 10
    );
    println!();
    println!(
        "Gb/s    us  write  depth    bound set by     fixed   ratio      auto   ratio    cost"
    );
    let mut w = Worst {
        ratio: f64::MAX,
        cell: String::new(),
        cost: 0.0,
        cost_cell: "none".into(),
    };
    for (line, rtt) in LINES.into_iter().flat_map(|l| RTTS.map(|r| (l, r))) {
        let cells: Vec<Cell> = SIZES
            .into_iter()
            .flat_map(|size| {
                DEPTHS.map(|depth| Cell {
                    line,
                    rtt,
                    size,
                    depth,
                })
            })
            .filter(|c| c.name().contains(&only))
            .collect();
        if cells.is_empty() {
            continue;
        }
        eprintln!(
            "linerate: {line} Gb/s, {rtt} us ({:.0} s so far)",
            begin.elapsed().as_secs_f64()
        );
        for c in cells {
            one(seed, c, &mut w);
        }
    }
    println!();
    println!(
        "worst cell {}, autosizing dearest at {}",
        w.cell, w.cost_cell
    );
    let line = format!("worst_cell={:.3} autosize_cost={:.3}", w.ratio, w.cost);
    if w.ratio >= LEAST && w.cost <= COST {
        Ok(line)
    } else {
        Err(line)
    }
}
