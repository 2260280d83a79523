//! The end of the stream: FIN, RST, shutdown and close against reads in every state.

use std::time::Duration;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{AioCb, Errno, Proc, Prot, Shut, SockOpt};

use crate::help::{MS, SOON, check, drain, go, on, quiet, ready, run};

const LEN: usize = 30_000;

/// `n` reads of [`LEN`] bytes outstanding, in buffers of their own.
fn reads(p: &Proc, s: i32, n: usize) -> Vec<(u64, AioCb)> {
    let va = p.mmap(n * 32_768, Prot::RW).unwrap();
    (0..n as u64)
        .map(|i| {
            let va = va + i * 32_768;
            (va, p.aio_read(s, va, LEN).unwrap())
        })
        .collect()
}

/// Every read ends well, in order, those without bytes last; returns where the stream goes on.
fn collect(p: &Proc, jobs: Vec<(u64, AioCb)>, seed: u64) -> u64 {
    let (mut at, mut end) = (0, false);
    for (va, cb) in jobs {
        let n = p.aio_wait(cb).unwrap();
        assert!(n == 0 || !end, "seed {seed}: data after the end of file");
        end |= n == 0;
        at = check(p, va, n, seed, at);
    }
    at
}

/// FIN behind bytes that fill the first buffer not at all, in part, wholly, and the second so too;
/// with more reads queued behind.
#[test]
fn fin_behind_bytes_in_both_buffers() {
    let totals = [
        0,
        1,
        100,
        LEN - 1,
        LEN,
        LEN + 1,
        LEN + 5000,
        2 * LEN - 1,
        2 * LEN,
        2 * LEN + 1,
    ];
    for (i, total) in totals.into_iter().enumerate() {
        for depth in 1..5 {
            let seed = 100 + 10 * i as u64 + depth as u64;
            run(
                seed,
                move |p, s| {
                    let jobs = reads(p, s, depth);
                    p.sleep(SOON);
                    go(p, s);
                    let at = collect(p, jobs, seed);
                    assert_eq!(drain(p, s, seed, at), total as u64, "seed {seed}");
                },
                move |p, s| {
                    ready(p, s);
                    p.send_all(s, &pattern::bytes(seed, 0, total)).unwrap();
                    p.close(s).unwrap();
                },
            );
        }
    }
}

/// The FIN comes when nothing was ever sent: reads that were never posted, posted, queued behind.
#[test]
fn fin_on_an_idle_connection() {
    for depth in 1..6 {
        for wait in [false, true] {
            let seed = 10 + 2 * depth as u64 + u64::from(wait);
            run(
                seed,
                move |p, s| {
                    let jobs = reads(p, s, depth);
                    if wait {
                        p.sleep(SOON);
                        go(p, s);
                    }
                    assert_eq!(collect(p, jobs, seed), 0);
                },
                move |p, s| {
                    if wait {
                        ready(p, s);
                    }
                    p.close(s).unwrap();
                },
            );
        }
    }
}

/// FIN and RST one after the other, at every distance. What came before either is read, or
/// the reset is told.
#[test]
fn fin_then_rst() {
    for seed in 200..224 {
        run(
            seed,
            move |p, s| {
                let jobs = reads(p, s, 1 + seed as usize % 4);
                p.sleep(SOON);
                go(p, s);
                let mut at = 0;
                for (va, cb) in jobs {
                    match p.aio_wait(cb) {
                        Ok(n) => at = check(p, va, n, seed, at),
                        Err(e) => assert_eq!(e, Errno::ECONNRESET, "seed {seed}"),
                    }
                }
                assert!(at <= 40_000);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 40_000)).unwrap();
                p.shutdown(s, Shut::Wr).unwrap();
                p.sleep(Duration::from_micros((seed - 200) * (seed - 200)));
                p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
                p.close(s).unwrap();
            },
        );
    }
}

/// RST while reads are posted and bytes are on their way.
#[test]
fn rst_in_the_middle() {
    for seed in 230..254 {
        let bed = Bed::up(seed);
        bed.sim("cpl_jitter", seed as i64 % 3 * 3000);
        on(
            &bed,
            move |p, s| {
                let jobs = reads(p, s, 1 + seed as usize % 5);
                p.sleep(SOON);
                go(p, s);
                let (mut at, mut resets) = (0, 0);
                for (va, cb) in jobs {
                    match p.aio_wait(cb) {
                        Ok(n) => at = check(p, va, n, seed, at),
                        Err(e) => {
                            assert_eq!(e, Errno::ECONNRESET);
                            resets += 1;
                        }
                    }
                }
                assert!(
                    resets <= 1,
                    "seed {seed}: one hears of the reset, the others end"
                );
            },
            move |p, s| {
                ready(p, s);
                let _ = p.send_bytes(s, &pattern::bytes(seed, 0, 100_000));
                p.sleep(Duration::from_micros((seed - 230) * 4));
                p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// shutdown(SHUT_RD) with reads posted and queued ends them; it panics a stock kernel's generic
/// path. Data that comes after it is nobody's, and does no harm.
#[test]
fn shutdown_of_the_reading_side() {
    for depth in 1..5 {
        for late in [false, true] {
            let seed = 300 + 2 * depth as u64 + u64::from(late);
            run(
                seed,
                move |p, s| {
                    let jobs = reads(p, s, depth);
                    p.sleep(SOON);
                    p.shutdown(s, Shut::Rd).unwrap();
                    assert_eq!(collect(p, jobs, seed), 0);
                    // A read after it sees the end of file as well.
                    let more = reads(p, s, 1);
                    assert_eq!(collect(p, more, seed), 0);
                    let _ = p.send_bytes(s, b"!");
                    p.sleep(SOON);
                },
                move |p, s| {
                    let _ = p.recv_bytes(s, 1);
                    if late {
                        let _ = p.send_bytes(s, &pattern::bytes(seed, 0, 50_000));
                        p.sleep(SOON);
                    }
                    let _ = p.recv_bytes(s, 1);
                },
            );
        }
    }
}

/// shutdown(SHUT_RD) while bytes land.
#[test]
fn shutdown_of_the_reading_side_under_way() {
    for seed in 320..336 {
        run(
            seed,
            move |p, s| {
                let jobs = reads(p, s, 3);
                p.sleep(SOON);
                go(p, s);
                p.sleep(Duration::from_nanos(seed * 1009 % 60_000));
                p.shutdown(s, Shut::Rd).unwrap();
                let mut at = 0;
                for (va, cb) in jobs {
                    match p.aio_wait(cb) {
                        Ok(n) => at = check(p, va, n, seed, at),
                        Err(e) => assert_eq!(e, Errno::ECONNRESET, "seed {seed}"),
                    }
                }
            },
            move |p, s| {
                ready(p, s);
                let _ = p.send_all(s, &pattern::bytes(seed, 0, 200_000));
                let _ = p.recv_bytes(s, 1);
            },
        );
    }
}

/// Half closed by the reader: everything still comes.
#[test]
fn half_closed_by_the_reader() {
    for seed in 340..344 {
        run(
            seed,
            move |p, s| {
                let jobs = reads(p, s, 4);
                if seed % 2 == 0 {
                    p.sleep(SOON);
                }
                p.shutdown(s, Shut::Wr).unwrap();
                let at = collect(p, jobs, seed);
                assert_eq!(drain(p, s, seed, at), 300_000);
            },
            move |p, s| {
                assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
                p.send_all(s, &pattern::bytes(seed, 0, 300_000)).unwrap();
                p.close(s).unwrap();
            },
        );
    }
}

/// Half closed by the peer: the reader may still write, by aio too.
#[test]
fn half_closed_by_the_peer() {
    run(
        350,
        |p, s| {
            let jobs = reads(p, s, 4);
            let at = collect(p, jobs, 350);
            assert_eq!(drain(p, s, 350, at), 50_000);
            let va = p.alloc(&pattern::bytes(351, 0, 300_000));
            let cb = p.aio_write(s, va, 300_000).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(300_000));
            p.close(s).unwrap();
        },
        |p, s| {
            p.send_all(s, &pattern::bytes(350, 0, 50_000)).unwrap();
            p.shutdown(s, Shut::Wr).unwrap();
            assert_eq!(drain(p, s, 351, 0), 300_000);
        },
    );
}

/// close(2) by another descriptor's owner, dup(2), and a close while reads are outstanding: jobs
/// keep the socket until they end.
#[test]
fn close_with_reads_outstanding() {
    run(
        360,
        |p, s| {
            let jobs = reads(p, s, 3);
            p.sleep(SOON);
            let other = p.dup(s).unwrap();
            p.close(s).unwrap();
            assert_eq!(p.aio_error(jobs[0].1), Ok(Errno::EINPROGRESS.0));
            go(p, other);
            p.close(other).unwrap();
            // They end with what comes: the descriptors are gone, the socket is not.
            let at = collect(p, jobs, 360);
            assert_eq!(at, 3 * LEN as u64);
        },
        |p, s| {
            ready(p, s);
            for i in 0..3 {
                p.send_all(s, &pattern::bytes(360, i * LEN as u64, LEN))
                    .unwrap();
                p.sleep(MS);
            }
            // Nobody is there any more: a reset, or the FIN of the last close.
            let _ = p.recv_bytes(s, 1);
        },
    );
}

/// A process that is killed, and one that exits, while its peer sends and closes.
#[test]
fn exit_and_fin_at_the_same_time() {
    for seed in 370..386 {
        let bed = Bed::up(seed);
        let r = crate::help::reader(&bed, move |p, s| {
            reads(p, s, 4);
            go(p, s);
            p.sleep(Duration::from_nanos(seed * 1013 % 50_000));
            p.exit(1);
        });
        let c = crate::help::peer(&bed, move |p, s| {
            ready(p, s);
            let _ = p.send_all(s, &pattern::bytes(seed, 0, 20_000));
            let _ = p.close(s);
        });
        c.join();
        let _: ukern::proc::Exit<()> = r.wait();
        quiet(bed);
    }
}
