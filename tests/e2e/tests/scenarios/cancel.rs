//! aio_cancel(2): what it answers, what becomes of the job, and of the bytes.

use std::time::Duration;

use toehold_e2e::pattern;
use ukern::proc::{AioCancel, AioCb, Errno, Proc, Prot, Sys};

use crate::world::{
    MS, Path, SOON, World, both_ways, check_at, ended, in_progress, read_to_end, run,
};

both_ways! {
    cancel_done
    cancel_queued_read
    cancel_posted_reads
    cancel_running_reads
    cancel_queued_write
    cancel_started_write
}

/// Cancels a job and returns its result. What aio_cancel answers and how the job ends go together.
fn cancel(p: &Proc, s: i32, cb: AioCb) -> Sys<usize> {
    let how = p.aio_cancel(s, Some(cb)).unwrap();
    if how == AioCancel::Canceled {
        assert_eq!(
            p.aio_error(cb),
            Ok(Errno::ECANCELED.0),
            "said to be cancelled"
        );
    }
    let r = ended(p, cb);
    assert!(r.is_ok() || r == Err(Errno::ECANCELED), "{r:?}");
    r
}

fn cancel_done(path: Path) {
    run(
        path,
        30,
        |p, s| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 10).unwrap();
            p.aio_suspend(&[cb], None).unwrap();
            assert_eq!(p.aio_cancel(s, Some(cb)), Ok(AioCancel::AllDone));
            assert_eq!(p.aio_return(cb), Ok(10));
            assert_eq!(p.aio_cancel(s, None), Ok(AioCancel::AllDone));
            check_at(p, va, 10, 30, 0);
        },
        |p, s| p.send_all(s, &pattern::bytes(30, 0, 10)).unwrap(),
    );
}

/// The last of four reads, which waits behind the others, goes at once; the others stay.
fn cancel_queued_read(path: Path) {
    run(
        path,
        31,
        |p, s| {
            let va = p.mmap(4 * 4096, Prot::RW).unwrap();
            let jobs: Vec<_> = (0..4)
                .map(|i| p.aio_read(s, va + 4096 * i, 4096).unwrap())
                .collect();
            p.sleep(MS);
            assert_eq!(p.aio_cancel(s, Some(jobs[3])), Ok(AioCancel::Canceled));
            assert_eq!(ended(p, jobs[3]), Err(Errno::ECANCELED));
            p.sleep(SOON);
            assert!(
                jobs[..3].iter().all(|cb| in_progress(p, *cb)),
                "others went with it"
            );
            p.send_all(s, b"!").unwrap();
            let mut at = 0;
            for (i, cb) in jobs[..3].iter().enumerate() {
                let n = ended(p, *cb).unwrap();
                at = check_at(p, va + 4096 * i as u64, n, 31, at);
            }
            assert_eq!(read_to_end(p, s, 31, at), 50_000);
        },
        |p, s| {
            p.recv_exact(s, 1).unwrap();
            p.send_all(s, &pattern::bytes(31, 0, 50_000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// Reads on an idle connection, posted to the adapter or not: cancelled, and no byte is lost.
fn cancel_posted_reads(path: Path) {
    run(
        path,
        32,
        |p, s| {
            let va = p.mmap(2 * 65_536, Prot::RW).unwrap();
            // The second time direct placement is on, and both are posted.
            for _ in 0..2 {
                let a = p.aio_read(s, va, 65_536).unwrap();
                let b = p.aio_read(s, va + 65_536, 65_536).unwrap();
                p.sleep(5 * MS);
                assert_eq!(cancel(p, s, a), Err(Errno::ECANCELED));
                assert_eq!(cancel(p, s, b), Err(Errno::ECANCELED));
            }
            p.send_all(s, b"!").unwrap();
            assert_eq!(read_to_end(p, s, 32, 0), 50_000);
        },
        |p, s| {
            p.recv_exact(s, 1).unwrap();
            p.send_all(s, &pattern::bytes(32, 0, 50_000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// Cancels while bytes pour in: each either ends with its count or with ECANCELED and none.
fn cancel_running_reads(path: Path) {
    const LEN: usize = 1_000_000;
    for seed in 33..43 {
        let w = World::up(path, seed);
        w.bed.sim("invalidate_delay", 200_000);
        let (at, ()) = w.run(
            move |p, s| {
                let va = p.mmap(2 * 65_536, Prot::RW).unwrap();
                let mut at = 0;
                loop {
                    let a = p.aio_read(s, va, 65_536).unwrap();
                    let b = p.aio_read(s, va + 65_536, 65_536).unwrap();
                    p.sleep(Duration::from_micros(seed * 17 % 130));
                    let (ra, rb) = (cancel(p, s, a), cancel(p, s, b));
                    let mut end = false;
                    for (r, va) in [(ra, va), (rb, va + 65_536)] {
                        match r {
                            Ok(0) => end = true,
                            Ok(n) => {
                                assert!(!end, "data after the end of file");
                                at = check_at(p, va, n, seed, at);
                            }
                            Err(_) => {}
                        }
                    }
                    if end {
                        return at;
                    }
                }
            },
            move |p, s| {
                p.send_all(s, &pattern::bytes(seed, 0, LEN)).unwrap();
                p.close(s).unwrap();
            },
        );
        assert_eq!(at, LEN as u64, "seed {seed}");
        w.down();
    }
}

const BIG: usize = 4 << 20;

/// A write that waits behind another one goes at once; the other stays.
fn cancel_queued_write(path: Path) {
    let ((), got) = run(
        path,
        50,
        |p, s| {
            let va = p.alloc(&pattern::bytes(50, 0, BIG));
            let first = p.aio_write(s, va, BIG).unwrap();
            let second = p.aio_write(s, va, 1000).unwrap();
            p.sleep(5 * MS);
            assert_eq!(p.aio_cancel(s, Some(second)), Ok(AioCancel::Canceled));
            assert_eq!(ended(p, second), Err(Errno::ECANCELED));
            assert!(in_progress(p, first));
            assert_eq!(ended(p, first), Ok(BIG));
            p.close(s).unwrap();
        },
        |p, s| {
            p.sleep(SOON);
            read_to_end(p, s, 50, 0)
        },
    );
    assert_eq!(got, BIG as u64);
}

/// A write under way ends short, with what the peer gets.
fn cancel_started_write(path: Path) {
    let (sent, got) = run(
        path,
        51,
        |p, s| {
            let va = p.alloc(&pattern::bytes(51, 0, BIG));
            let cb = p.aio_write(s, va, BIG).unwrap();
            p.sleep(5 * MS);
            assert_eq!(p.aio_cancel(s, Some(cb)), Ok(AioCancel::NotCanceled));
            let n = ended(p, cb).unwrap();
            p.close(s).unwrap();
            n
        },
        |p, s| {
            p.sleep(SOON);
            read_to_end(p, s, 51, 0)
        },
    );
    assert!(sent > 0 && sent < BIG, "{sent}");
    assert_eq!(got, sent as u64);
}
