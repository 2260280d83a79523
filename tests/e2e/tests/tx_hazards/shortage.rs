//! What can run out (upstream hazard 7): wired pages, memory, page sets. No write fails for it.

use toehold_e2e::bed::{Bed, TOE};
use toehold_e2e::pattern;
use ukern::fault::Plan;

use crate::help::{drain, drain_late, ends, on, quiet, writes};

/// The same writes on this bed; returns (octets from pages, octets copied).
fn send(bed: &Bed, seed: u64, late: bool) -> (u64, u64) {
    let before = (bed.stat("tx_aio_octets"), bed.stat("tx_copied_octets"));
    let lens = [3 << 20, 1, 70_000, 9000, 100_000];
    let w = move |p: &ukern::proc::Proc, s| {
        let jobs = writes(p, s, seed, &lens);
        let r = ends(p, jobs);
        p.close(s).unwrap();
        r
    };
    let (r, got) = if late {
        on(bed, w, drain_late(seed))
    } else {
        on(bed, w, move |p, s| drain(p, s, seed))
    };
    assert_eq!(r, lens.map(Ok), "seed {seed}");
    assert_eq!(got, lens.iter().sum::<usize>() as u64, "seed {seed}");
    bed.settle();
    (
        bed.stat("tx_aio_octets") - before.0,
        bed.stat("tx_copied_octets") - before.1,
    )
}

const ALL: u64 = (3 << 20) + 1 + 70_000 + 9000 + 100_000;

#[test]
fn no_page_may_be_wired() {
    let bed = Bed::up(500);
    bed.set("max_wired", 0);
    assert_eq!(send(&bed, 500, false), (0, ALL));
    bed.set("max_wired", 100_000);
    assert_eq!(send(&bed, 501, false), (ALL, 0));
    quiet(bed);
}

#[test]
fn a_few_pages_may_be_wired() {
    for (seed, pages) in [(510, 20), (511, 40), (512, 300)] {
        let bed = Bed::up(seed);
        bed.set("max_wired", pages);
        let (held, copied) = send(&bed, seed, seed % 2 == 0);
        assert_eq!(held + copied, ALL);
        assert!(held > 0, "seed {seed}");
        assert!(bed.stat("wired_pages_max") <= pages as u64, "seed {seed}");
        quiet(bed);
    }
}

#[test]
fn short_writes_are_copied_below_tx_zcopy_min() {
    let bed = Bed::up(520);
    bed.set("tx_zcopy_min", 9001);
    assert_eq!(send(&bed, 520, false), (ALL - 9001, 9001));
    bed.set("tx_zcopy_min", 9000);
    assert_eq!(send(&bed, 521, false), (ALL - 1, 1));
    let v = bed.k.sysctl_set(&format!("{TOE}.tx_zcopy_min"), i32::MAX);
    assert!(v.is_ok());
    assert_eq!(send(&bed, 522, true), (0, ALL));
    quiet(bed);
}

/// One page set: each write takes it from the last.
#[test]
fn page_sets() {
    let bed = Bed::up(530);
    bed.set("ddp_cache", 0);
    assert_eq!(send(&bed, 530, true), (ALL, 0));
    quiet(bed);
}

/// Every so many mbufs cannot be had.
#[test]
fn mbufs() {
    let bed = Bed::up(540);
    bed.k.fail("mbuf", Plan::OneIn(7));
    let (held, copied) = send(&bed, 540, false);
    assert_eq!(held + copied, ALL);
    let (hits, failures) = bed.k.fail_count("mbuf");
    assert!(failures > 0 && hits > failures, "{hits} {failures}");
    bed.k.fail("mbuf", Plan::Never);
    quiet(bed);
}

/// A buffer that stays in the cache is faulted in once, whatever the writes.
#[test]
fn the_same_buffers_again_pin_nothing() {
    let bed = Bed::up(550);
    let k = bed.k.api();
    let (misses, got) = on(
        &bed,
        move |p, s| {
            let stat = |name: &str| {
                let v = k.sysctl_get(&format!("{TOE}.stats.{name}"));
                v.ok().and_then(|v| v.as_u64()).unwrap()
            };
            let bufs: Vec<u64> = (0..8)
                .map(|i| p.alloc(&pattern::bytes(550, 50_000 * i, 50_000)))
                .collect();
            let mut before = 0;
            for round in 0..20 {
                if round == 1 {
                    before = stat("cache_misses");
                }
                let jobs = bufs.iter().map(|va| p.aio_write(s, *va, 50_000).unwrap());
                let jobs: Vec<_> = jobs.collect();
                for r in ends(p, jobs) {
                    assert_eq!(r, Ok(50_000));
                }
            }
            p.close(s).unwrap();
            stat("cache_misses") - before
        },
        |p, s| {
            let mut n = 0;
            loop {
                let b = p.recv_bytes(s, 65_536).unwrap();
                if b.is_empty() {
                    return n;
                }
                n += b.len();
            }
        },
    );
    assert_eq!((misses, got), (0, 20 * 8 * 50_000));
    quiet(bed);
}
