//! Cancel against completion (upstream hazard 2): a cancelled write says what it sent, and what it
//! sent is read from its pages until the peer has it.

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{AioCancel, Errno};

use crate::help::{BIG, MS, SOON, drain, drain_late, in_progress, on, quiet, run, writes};

#[test]
fn before_anything_is_sent() {
    let (sent, got) = run(
        100,
        |p, s| {
            let jobs = writes(p, s, 100, &[BIG, 5000, 5000]);
            p.sleep(SOON);
            for cb in &jobs[1..] {
                assert_eq!(p.aio_cancel(s, Some(*cb)), Ok(AioCancel::Canceled));
                assert_eq!(p.aio_wait(*cb), Err(Errno::ECANCELED));
            }
            let n = p.aio_wait(jobs[0]).unwrap();
            p.close(s).unwrap();
            n
        },
        drain_late(100),
    );
    assert_eq!((sent, got), (BIG, BIG as u64));
}

#[test]
fn half_queued_it_ends_short_with_what_the_peer_gets() {
    let (sent, got) = run(
        101,
        |p, s| {
            let jobs = writes(p, s, 101, &[BIG]);
            p.sleep(SOON);
            p.aio_cancel(s, Some(jobs[0])).unwrap();
            p.sleep(SOON);
            assert!(in_progress(p, jobs[0]), "its bytes are on their way");
            let n = p.aio_wait(jobs[0]).unwrap();
            p.close(s).unwrap();
            n as u64
        },
        drain_late(101),
    );
    assert_eq!(sent, got);
    assert!(sent > 0 && sent < BIG as u64, "{sent}");
}

#[test]
fn in_flight_it_runs_its_course() {
    let (sent, got) = run(
        102,
        |p, s| {
            let jobs = writes(p, s, 102, &[100_000, 50_000]);
            p.sleep(SOON);
            for cb in &jobs {
                assert_eq!(p.aio_cancel(s, Some(*cb)), Ok(AioCancel::NotCanceled));
            }
            p.sleep(SOON);
            assert!(jobs.iter().all(|cb| in_progress(p, *cb)));
            let n: usize = jobs.into_iter().map(|cb| p.aio_wait(cb).unwrap()).sum();
            p.close(s).unwrap();
            n as u64
        },
        drain_late(102),
    );
    assert_eq!((sent, got), (150_000, 150_000));
}

/// Segments are lost and sent again long after; the program writes to its buffers the moment it
/// is told that it may.
#[test]
fn late_retransmissions_find_the_pages_as_they_were() {
    for seed in 110..122 {
        let bed = Bed::up(seed);
        bed.sim("loss", 30_000);
        bed.sim("rto", 2_000_000);
        bed.sim("retransmit_delay", 3_000_000);
        let (sent, got) = on(
            &bed,
            move |p, s| {
                let (mut at, mut sent) = (0, 0);
                let bufs: Vec<u64> = (0..4).map(|_| p.alloc(&[0; 90_000])).collect();
                for round in 0..6 {
                    let jobs: Vec<_> = bufs
                        .iter()
                        .enumerate()
                        .map(|(i, va)| {
                            let len = 10_000 + 7_919 * ((round + i) % 10);
                            p.store(*va, &pattern::bytes(seed, at, len)).unwrap();
                            at += len as u64;
                            (*va, len, p.aio_write(s, *va, len).unwrap())
                        })
                        .collect();
                    // Nothing is taken back: what is queued is sent.
                    p.sleep(MS);
                    let (_, _, cb) = jobs[round % 4];
                    let c = p.aio_cancel(s, Some(cb)).unwrap();
                    assert_ne!(c, AioCancel::Canceled, "seed {seed}");
                    for (va, len, cb) in jobs {
                        assert_eq!(p.aio_wait(cb), Ok(len), "seed {seed}");
                        p.fill(va, 90_000, 0xee).unwrap();
                        sent += len as u64;
                    }
                }
                p.close(s).unwrap();
                sent
            },
            move |p, s| drain(p, s, seed),
        );
        assert_eq!(sent, got, "seed {seed}");
        bed.sim("loss", 0);
        quiet(bed);
    }
}

/// Cancels at every moment of a write.
#[test]
fn at_every_moment() {
    for seed in 130..160 {
        let (sent, got) = run(
            seed,
            move |p, s| {
                let jobs = writes(p, s, seed, &[BIG, 40_000]);
                p.sleep(MS / 40 * (seed as u32 - 130) * (seed as u32 - 130) / 8);
                p.aio_cancel(s, Some(jobs[0])).unwrap();
                let first = p.aio_wait(jobs[0]);
                if !matches!(first, Ok(BIG)) {
                    // The next is not where the pattern would go on.
                    p.aio_cancel(s, Some(jobs[1])).unwrap();
                }
                let second = p.aio_wait(jobs[1]);
                p.close(s).unwrap();
                (first, second)
            },
            move |p, s| {
                let mut all = 0;
                loop {
                    let b = p.recv_bytes(s, 65_536).unwrap();
                    if b.is_empty() {
                        return all;
                    }
                    all += b.len();
                }
            },
        );
        let told = |r: ukern::proc::Sys<usize>| match r {
            Err(Errno::ECANCELED) => 0,
            r => r.unwrap(),
        };
        assert_eq!(told(sent.0) + told(sent.1), got, "seed {seed}: {sent:?}");
    }
}
