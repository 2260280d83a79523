//! Credits (upstream hazard 11): they run out in the middle of everything.

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Prot, Shut};

use crate::help::{BIG, SOON, drain, drain_late, ends, on, quiet, reset, run, writes};

/// Scattered pages: the longest lists of segments.
fn scattered(p: &ukern::proc::Proc, seed: u64, len: usize) -> u64 {
    let va = p.mmap(len, Prot::RW).unwrap();
    for first in [0, 4096] {
        for at in (first..len).step_by(8192) {
            let n = 4096.min(len - at);
            p.store(va + at as u64, &pattern::bytes(seed, at as u64, n))
                .unwrap();
        }
    }
    va
}

/// The FIN is asked for while no credit is left for it.
#[test]
fn fin_while_suspended() {
    for seed in 600..606 {
        let bed = Bed::up(seed);
        // Credits come late.
        bed.sim("credit_delay", 2_000_000);
        bed.sim("wr_jitter", 20_000);
        let (n, got) = on(
            &bed,
            move |p, s| {
                let len = (1 << 20) + 4096 * seed as usize % 7;
                let va = scattered(p, seed, len);
                let cb = p.aio_write(s, va, len).unwrap();
                p.sleep(SOON / 20 * (seed as u32 - 600));
                p.shutdown(s, Shut::Wr).unwrap();
                p.aio_wait(cb).unwrap_or(0) as u64
            },
            move |p, s| drain(p, s, seed),
        );
        assert_eq!(n, got, "seed {seed}");
        quiet(bed);
    }
}

/// So many work requests that the ring of them wraps, of all sizes.
#[test]
fn the_ring_wraps() {
    let (sum, got) = run(
        610,
        |p, s| {
            let mut at = 0;
            for round in 0..5 {
                let job = |i: usize| {
                    let len = 1 + (i * 7919) % 5000;
                    let va = p.alloc(&pattern::bytes(610, at, len));
                    at += len as u64;
                    p.aio_write(s, va, len).unwrap()
                };
                let jobs: Vec<_> = (200 * round..200 * round + 150).map(job).collect();
                for r in ends(p, jobs) {
                    assert!(r.is_ok());
                }
            }
            p.close(s).unwrap();
            at
        },
        |p, s| drain(p, s, 610),
    );
    assert_eq!(sum, got);
}

/// CPL_FW4_ACK comes while the connection is being aborted.
#[test]
fn acknowledgements_during_an_abort() {
    for seed in 620..640 {
        let bed = Bed::up(seed);
        bed.sim("cpl_jitter", 30_000);
        bed.sim("wr_jitter", 30_000);
        on(
            &bed,
            move |p, s| {
                let jobs = writes(p, s, seed, &[BIG]);
                p.sleep(SOON / 200 * (seed as u32 - 620));
                p.aio_cancel(s, None).unwrap();
                reset(p, s);
                for r in ends(p, jobs) {
                    assert!(
                        r.is_err() || r.is_ok_and(|n| n <= BIG),
                        "seed {seed}: {r:?}"
                    );
                }
            },
            move |p, s| drain(p, s, seed),
        );
        quiet(bed);
    }
}

/// A window that opens by crumbs.
#[test]
fn partial_acknowledgements() {
    for (seed, seg) in [(640, 1), (641, 700), (642, 1460)] {
        let bed = Bed::up(seed);
        bed.sim("seg_min", 1);
        bed.sim("seg_max", seg.max(100));
        bed.sim("ack_delay", 0);
        let (n, got) = on(
            &bed,
            move |p, s| {
                let jobs = writes(p, s, seed, &[200_000, 3, 50_000]);
                let r = ends(p, jobs);
                p.close(s).unwrap();
                r.into_iter().map(|r| r.unwrap() as u64).sum::<u64>()
            },
            drain_late(seed),
        );
        assert_eq!((n, got), (250_003, 250_003), "seed {seed}");
        quiet(bed);
    }
}
