//! Sleeping (upstream hazard 14): ukern panics if pages are faulted in, memory is waited for or a
//! sleepable lock is taken under a mutex or in a net epoch. So it is enough that each path is
//! taken.

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::Prot;

use crate::help::{BIG, SOON, drain_late, ends, on, quiet, run, writes};

/// Pages that were never touched, by the thread that submits.
#[test]
fn pages_are_faulted_in_by_the_caller() {
    let (n, got) = run(
        700,
        |p, s| {
            let va = p.mmap(BIG, Prot::RW).unwrap();
            let cb = p.aio_write(s, va, 3 << 20).unwrap();
            let n = p.aio_wait(cb).unwrap();
            p.close(s).unwrap();
            n
        },
        |p, s| {
            let mut n = 0;
            loop {
                let b = p.recv_bytes(s, 65_536).unwrap();
                assert!(b.iter().all(|b| *b == 0));
                if b.is_empty() {
                    return n;
                }
                n += b.len();
            }
        },
    );
    assert_eq!((n, got), (3 << 20, 3 << 20));
}

/// Later pieces and parked jobs: by the worker, whom acknowledgements wake.
#[test]
fn pages_are_faulted_in_by_the_worker() {
    let (r, got) = run(
        701,
        |p, s| {
            let jobs = writes(p, s, 701, &[20 << 20, 1 << 20, 9 << 20]);
            let r = ends(p, jobs);
            p.close(s).unwrap();
            r
        },
        drain_late(701),
    );
    assert_eq!(r, [20 << 20, 1 << 20, 9 << 20].map(Ok));
    assert_eq!(got, 30 << 20);
}

/// Copies too, in both places.
#[test]
fn bytes_are_copied_by_the_caller_and_by_the_worker() {
    let bed = Bed::up(702);
    bed.set("tx_zcopy_min", 1 << 30);
    let (r, got) = on(
        &bed,
        |p, s| {
            let jobs = writes(p, s, 702, &[5000, 2 << 20, 5000]);
            assert_eq!(p.aio_error(jobs[0]), Ok(0), "it ends at once");
            let r = ends(p, jobs);
            p.close(s).unwrap();
            r
        },
        drain_late(702),
    );
    assert_eq!(r, [5000, 2 << 20, 5000].map(Ok));
    assert_eq!(got, (2 << 20) + 10_000);
    quiet(bed);
}

/// write(2) sleeps inside the send I/O lock, for as long as its peer likes.
#[test]
fn behind_a_write_that_sleeps() {
    let (r, got) = run(
        703,
        |p, s| {
            let t = p
                .thread(move |p| p.send_all(s, &pattern::bytes(703, 0, 2 << 20)).unwrap())
                .unwrap();
            p.sleep(SOON);
            let va = p.alloc(&pattern::bytes(703, 2 << 20, 100_000));
            let cb = p.aio_write(s, va, 100_000).unwrap();
            let r = p.aio_wait(cb);
            t.join().unwrap();
            p.close(s).unwrap();
            r
        },
        drain_late(703),
    );
    assert_eq!(r, Ok(100_000));
    assert_eq!(got, (2 << 20) + 100_000);
}
