//! `make demo`: a real file from one process to another, with no copy.
//!
//! FILE: what to send (default: the toehold.ko just built). SIZE: send that many bytes of a
//! pattern instead. OFFSET: offset of the programs' buffers in their pages. SEED: the schedule.

use std::sync::Arc;
use std::time::Instant;

use toehold_e2e::bed::{Bed, TOE, kmod};
use toehold_e2e::pattern;
use toehold_e2e::transfer::{self, Outcome, Shape};

use crate::number;

struct Args {
    what: String,
    data: Arc<Vec<u8>>,
    offset: usize,
    seed: u64,
}

fn args() -> Result<Args, String> {
    let seed = number("SEED")?.unwrap_or(1);
    let offset = number("OFFSET")?.unwrap_or(0);
    if offset >= 4096 {
        return Err(format!("OFFSET={offset} is not within a page"));
    }
    let (what, data) = match (number("SIZE")?, std::env::var("FILE")) {
        (Some(n), _) => (
            format!("{n} bytes of a pattern"),
            pattern::bytes(seed, 0, n as usize),
        ),
        (None, f) => {
            let f = f.unwrap_or_else(|_| kmod("toehold"));
            let data = std::fs::read(&f).map_err(|e| format!("FILE={f}: {e}"))?;
            (f, data)
        }
    };
    Ok(Args {
        what,
        data: Arc::new(data),
        offset: offset as usize,
        seed,
    })
}

/// Numbers of the last line.
struct Summary {
    file_bytes: usize,
    sha256: String,
    tx_copied: u64,
    rx_copied: u64,
    /// Of these: not for being there before DDP was on.
    rx_unplaced: u64,
    rx_placed: u64,
    cache_hits: u64,
    wired: u64,
}

/// Why bytes went through the receiver's CPU.
const COPIES: [&str; 5] = [
    "rx_copied_before_ddp",
    "rx_copied_no_buffer",
    "rx_copied_no_ppods",
    "rx_copied_ddp_off",
    "rx_moved_octets",
];

fn report(bed: &Bed, a: &Args, o: &Outcome) -> Summary {
    println!("sent      {} ({} bytes)", a.what, a.data.len());
    println!("sender    sha256 {}  {} jobs", o.tx.sha256, o.tx.jobs);
    println!("receiver  sha256 {}  {} jobs", o.rx.sha256, o.rx.jobs);
    println!();
    println!(
        "sender    {:>12} bytes read by the adapter from held pages",
        bed.stat("tx_aio_octets")
    );
    for n in ["tx_copied_octets", "tx_plain_octets"] {
        println!("          {:>12} bytes {n}", bed.stat(n));
    }
    println!(
        "receiver  {:>12} bytes placed by the adapter in user pages",
        bed.stat("rx_aio_ddp_octets")
    );
    for n in COPIES {
        println!("          {:>12} bytes {n}", bed.stat(n));
    }
    println!();
    for n in [
        "ppods_written",
        "ppod_wrs",
        "wrs",
        "cache_hits",
        "cache_misses",
        "wired_pages_max",
    ] {
        println!("{n:<22} {}", bed.stat(n));
    }
    let gbps = if o.rx.nanos == 0 {
        0.0
    } else {
        o.rx.bytes as f64 * 8.0 / o.rx.nanos as f64
    };
    println!("simulated throughput   {gbps:.2} Gb/s");
    println!();
    for (name, v) in bed.k.sysctl_tree(TOE) {
        println!("{name}: {v}");
    }
    println!();
    Summary {
        file_bytes: a.data.len(),
        sha256: o.rx.sha256.clone(),
        tx_copied: bed.stat("tx_copied_octets") + bed.stat("tx_plain_octets"),
        rx_copied: COPIES.iter().map(|n| bed.stat(n)).sum(),
        rx_unplaced: COPIES.iter().skip(1).map(|n| bed.stat(n)).sum(),
        rx_placed: bed.stat("rx_aio_ddp_octets"),
        cache_hits: bed.stat("cache_hits"),
        wired: 0,
    }
}

fn verdict(a: &Args, o: &Outcome, s: &Summary) -> Result<(), String> {
    let n = a.data.len() as u64;
    if o.tx.sha256 != o.rx.sha256 {
        return Err("the bytes received are not the bytes sent".into());
    }
    if (o.tx.bytes, o.rx.bytes) != (n, n) {
        return Err(format!(
            "{} bytes sent, {} received, of {n}",
            o.tx.bytes, o.rx.bytes
        ));
    }
    if s.tx_copied != 0 {
        return Err(format!(
            "{} bytes were copied on the sending side",
            s.tx_copied
        ));
    }
    if s.rx_copied + s.rx_placed != n {
        return Err(format!(
            "{} copied and {} placed, of {n}",
            s.rx_copied, s.rx_placed
        ));
    }
    // The first segments may come before DDP is on; the rest is placed.
    if n >= 1 << 20 && s.rx_placed < n / 10 * 9 {
        return Err(format!("only {} of {n} bytes were placed", s.rx_placed));
    }
    if s.rx_unplaced != 0 {
        return Err(format!("{} bytes were copied with DDP on", s.rx_unplaced));
    }
    if s.wired != 0 {
        return Err(format!("{} pages are still wired", s.wired));
    }
    Ok(())
}

fn demo(a: &Args) -> Result<Summary, String> {
    let begin = Instant::now();
    eprintln!("demo: loading t5sim.ko and toehold.ko, bringing the ports up");
    let bed = Bed::up(a.seed);
    if a.data.len() > 16 << 20 {
        eprintln!("demo: sending {} MiB", a.data.len() >> 20);
    }
    let shape = Shape {
        offset: a.offset,
        ..Shape::default()
    };
    let o = transfer::run(&bed, a.data.clone(), shape);
    bed.settle();
    let mut s = report(&bed, a, &o);
    s.wired = bed.stat("wired_pages") + bed.k.wired_pages() as u64;
    println!("wired pages at the end {}", s.wired);
    bed.down();
    println!(
        "both modules unloaded, nothing left behind ({:.1} s)",
        begin.elapsed().as_secs_f64()
    );
    verdict(a, &o, &s).map(|()| s)
}

/// The demonstration: its last line.
///
/// # Errors
/// Why it failed.
pub(crate) fn run() -> Result<String, String> {
    let s = demo(&args()?)?;
    Ok(format!(
        "file_bytes={} sha256={} tx_copied_bytes={} rx_copied_bytes={} \
         rx_placed_bytes={} cache_hits={} wired_pages={}",
        s.file_bytes, s.sha256, s.tx_copied, s.rx_copied, s.rx_placed, s.cache_hits, s.wired
    ))
}
