//! aio and socket calls on a connection that has left the adapter: after a reset, in TIME_WAIT,
//! closed. The socket must go on as any other, whatever it still has to give.

use std::time::Duration;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{AioCancel, Errno, MsgFlags, Proc, Prot, Shut, SockOpt, SockOptName};

use crate::help::{MS, SOON, check, drain, go, on, quiet, ready, run};

/// Resets the connection.
fn reset(p: &Proc, s: i32) {
    p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
    p.close(s).unwrap();
}

/// Everything a program may do with a socket whose stream is over: end of file, no panic.
fn poke(p: &Proc, s: i32) {
    let va = p.alloc(&[0xee; 8192]);
    for _ in 0..3 {
        let cb = p.aio_read(s, va, 8192).unwrap();
        assert_eq!(p.aio_wait(cb), Ok(0));
    }
    let both = [0, 4096].map(|o| p.aio_read(s, va + o, 4096).unwrap());
    let _ = p.aio_cancel(s, None).unwrap();
    for cb in both {
        let r = p.aio_wait(cb);
        assert!(r == Ok(0) || r == Err(Errno::ECANCELED), "{r:?}");
    }
    let cb = p.aio_write(s, va, 4096).unwrap();
    assert_eq!(p.aio_wait(cb), Err(Errno::EPIPE));
    assert_eq!(p.aio_cancel(s, None), Ok(AioCancel::AllDone));
    assert_eq!(p.recv_bytes(s, 10), Ok(vec![]));
    assert_eq!(p.send_bytes(s, b"x"), Err(Errno::EPIPE));
    // Options of the connection: set, or refused cleanly.
    for o in [
        SockOpt::NoDelay(true),
        SockOpt::NoPush(true),
        SockOpt::KeepAlive(true),
    ] {
        if let Err(e) = p.setsockopt(s, o) {
            assert!([Errno::ECONNRESET, Errno::EINVAL].contains(&e), "{e:?}");
        }
    }
    let _ = p.getsockopt(s, SockOptName::MaxSeg);
    p.setsockopt(s, SockOpt::RcvBuf(70_000)).unwrap();
    let _ = p.shutdown(s, Shut::RdWr);
    assert_eq!(p.fionread(s), Ok(0));
}

/// Waits for the connection's end on the wire.
fn until_off(p: &Proc, s: i32, state: &[&str]) {
    for _ in 0..1000 {
        if state.contains(&p.tcp_state(s).unwrap()) {
            return;
        }
        p.sleep(MS);
    }
    panic!("still {}", p.tcp_state(s).unwrap());
}

#[test]
fn after_a_reset() {
    run(
        10,
        |p, s| {
            go(p, s);
            p.sleep(SOON);
            assert_eq!(
                p.getsockopt(s, SockOptName::Error),
                Ok(i64::from(Errno::ECONNRESET.0))
            );
            poke(p, s);
        },
        |p, s| {
            ready(p, s);
            reset(p, s);
        },
    );
}

/// The error is told once, to the first read; what came before it is still there.
#[test]
fn after_a_reset_the_first_read_hears_of_it() {
    run(
        11,
        |p, s| {
            go(p, s);
            p.sleep(SOON);
            let va = p.alloc(&[0xee; 4096]);
            let cb = p.aio_read(s, va, 4096).unwrap();
            assert_eq!(p.aio_wait(cb), Err(Errno::ECONNRESET));
            poke(p, s);
        },
        |p, s| {
            ready(p, s);
            reset(p, s);
        },
    );
}

#[test]
fn reads_queued_when_the_reset_comes() {
    for seed in 12..20 {
        let depth = 1 + seed % 4;
        run(
            seed,
            move |p, s| {
                let va = p.mmap(4 * 65_536, Prot::RW).unwrap();
                let jobs: Vec<_> = (0..depth)
                    .map(|i| p.aio_read(s, va + i * 65_536, 65_536).unwrap())
                    .collect();
                if seed % 2 == 0 {
                    p.sleep(SOON);
                }
                go(p, s);
                let mut at = 0;
                let mut errors = 0;
                for (i, cb) in jobs.into_iter().enumerate() {
                    match p.aio_wait(cb) {
                        Ok(n) => at = check(p, va + i as u64 * 65_536, n, seed, at),
                        Err(e) => {
                            assert_eq!(e, Errno::ECONNRESET);
                            errors += 1;
                        }
                    }
                }
                p.sleep(SOON);
                // None may take the reset for an end of file and none of the others tell of it.
                if errors == 0 {
                    let e = p.getsockopt(s, SockOptName::Error).unwrap();
                    assert_eq!(e, i64::from(Errno::ECONNRESET.0), "seed {seed}");
                }
                let _ = p.getsockopt(s, SockOptName::Error);
                poke(p, s);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 1000 * (seed as usize % 3)))
                    .unwrap();
                p.sleep(Duration::from_micros(seed * 29 % 100));
                reset(p, s);
            },
        );
    }
}

/// Our side closes first and keeps the descriptor through TIME_WAIT, and after.
#[test]
fn in_time_wait_and_after() {
    run(
        20,
        |p, s| {
            p.shutdown(s, Shut::Wr).unwrap();
            until_off(p, s, &["TIME_WAIT", "CLOSED"]);
            poke(p, s);
            p.sleep(Duration::from_secs(90));
            poke(p, s);
        },
        |p, s| {
            assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
            p.close(s).unwrap();
        },
    );
}

/// The peer closes first.
#[test]
fn after_the_last_ack() {
    run(
        21,
        |p, s| {
            assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
            p.shutdown(s, Shut::Wr).unwrap();
            until_off(p, s, &["CLOSED", "TIME_WAIT"]);
            poke(p, s);
        },
        |p, s| {
            p.shutdown(s, Shut::Wr).unwrap();
            assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
            p.close(s).unwrap();
        },
    );
}

/// Data that nobody has read outlives the connection.
#[test]
fn bytes_left_behind_are_read_in_time_wait() {
    for (seed, aio) in [(22, true), (23, false)] {
        run(
            seed,
            move |p, s| {
                p.shutdown(s, Shut::Wr).unwrap();
                until_off(p, s, &["TIME_WAIT", "CLOSED"]);
                let mut at = 0;
                if aio {
                    let va = p.mmap(4096, Prot::RW).unwrap();
                    loop {
                        let cb = p.aio_read(s, va, 4096).unwrap();
                        let n = p.aio_wait(cb).unwrap();
                        if n == 0 {
                            break;
                        }
                        at = check(p, va, n, seed, at);
                    }
                }
                assert_eq!(drain(p, s, seed, at), 30_000);
                poke(p, s);
            },
            move |p, s| {
                assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
                p.send_all(s, &pattern::bytes(seed, 0, 30_000)).unwrap();
                p.close(s).unwrap();
            },
        );
    }
}

/// Reads posted to the adapter, then both FINs; another read on the same descriptor after each.
#[test]
fn reads_across_the_end_of_the_connection() {
    for seed in 30..36 {
        run(
            seed,
            move |p, s| {
                let va = p.mmap(3 * 65_536, Prot::RW).unwrap();
                let jobs = [0, 1, 2].map(|i| p.aio_read(s, va + i * 65_536, 65_536).unwrap());
                p.sleep(SOON);
                p.shutdown(s, Shut::Wr).unwrap();
                let mut at = 0;
                let mut ended = false;
                for (i, cb) in jobs.into_iter().enumerate() {
                    let n = p.aio_wait(cb).unwrap();
                    assert!(n == 0 || !ended, "data after the end of file");
                    ended |= n == 0;
                    at = check(p, va + i as u64 * 65_536, n, seed, at);
                }
                assert_eq!(drain(p, s, seed, at), 5000);
                poke(p, s);
                until_off(p, s, &["TIME_WAIT", "CLOSED"]);
                poke(p, s);
            },
            move |p, s| {
                if seed % 2 == 0 {
                    p.send_all(s, &pattern::bytes(seed, 0, 5000)).unwrap();
                    assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
                } else {
                    assert_eq!(p.recv_exact(s, 1).unwrap(), b"");
                    p.send_all(s, &pattern::bytes(seed, 0, 5000)).unwrap();
                }
                p.close(s).unwrap();
            },
        );
    }
}

/// A cancel that comes when the connection is gone finds jobs of the generic path, or none.
#[test]
fn cancel_after_the_reset() {
    for seed in 40..56 {
        let bed = Bed::up(seed);
        bed.sim("invalidate_delay", 100_000 * (seed as i64 % 2));
        bed.sim("set_tcb_rpl_delay", 300_000 * (seed as i64 % 3));
        on(
            &bed,
            move |p, s| {
                let va = p.mmap(4 * 65_536, Prot::RW).unwrap();
                let jobs = [0, 1, 2, 3].map(|i| p.aio_read(s, va + i * 65_536, 65_536).unwrap());
                p.sleep(SOON);
                go(p, s);
                p.sleep(Duration::from_micros(seed * 3 % 40));
                let _ = p.aio_cancel(s, Some(jobs[(seed % 4) as usize])).unwrap();
                let _ = p.aio_cancel(s, None).unwrap();
                let mut at = 0;
                for (i, cb) in jobs.into_iter().enumerate() {
                    match p.aio_wait(cb) {
                        Ok(n) => at = check(p, va + i as u64 * 65_536, n, seed, at),
                        Err(e) => assert!(
                            [Errno::ECANCELED, Errno::ECONNRESET].contains(&e),
                            "seed {seed}: {e:?}"
                        ),
                    }
                }
                p.sleep(SOON);
                let _ = p.getsockopt(s, SockOptName::Error);
                poke(p, s);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 3000)).unwrap();
                reset(p, s);
            },
        );
        quiet(bed);
    }
}

/// What a reset throws away goes out as it was, or not at all: the adapter reads the sender's
/// buffer when its turn comes.
#[test]
fn a_reset_sends_nothing_that_was_freed() {
    for seed in 70..86 {
        run(
            seed,
            move |p, s| {
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let cb = p.aio_read(s, va, 65_536).unwrap();
                p.sleep(SOON);
                go(p, s);
                if let Ok(n) = p.aio_wait(cb) {
                    check(p, va, n, seed, 0);
                }
            },
            move |p, s| {
                ready(p, s);
                let data = pattern::bytes(seed, 0, 30_000);
                let va = p.alloc(&data);
                let cb = (seed % 2 == 0).then(|| p.aio_write(s, va, 20_000).unwrap());
                if cb.is_none() {
                    p.send_all(s, &data).unwrap();
                }
                p.sleep(Duration::from_nanos(seed * 331 % 4000));
                reset(p, s);
                if let Some(cb) = cb {
                    // It ends, and only then are its pages free for others.
                    let _ = p.aio_wait(cb);
                    p.munmap(va, 30_000).unwrap();
                }
            },
        );
    }
}

/// A peek, a plain read and an aio_read of what a reset connection left in the socket.
#[test]
fn peek_and_read_after_a_reset() {
    run(
        60,
        |p, s| {
            go(p, s);
            p.sleep(SOON);
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let peek = MsgFlags {
                peek: true,
                dontwait: true,
                ..MsgFlags::default()
            };
            let mut at = 0;
            if let Ok(n) = p.recv(s, va, 100, peek)
                && n > 0
            {
                check(p, va, n, 60, 0);
                let cb = p.aio_read(s, va, 65_536).unwrap();
                let n = p.aio_wait(cb).unwrap();
                at = check(p, va, n, 60, 0);
            }
            assert!(at <= 3000);
            let _ = p.getsockopt(s, SockOptName::Error);
            poke(p, s);
        },
        |p, s| {
            ready(p, s);
            p.send_all(s, &pattern::bytes(60, 0, 3000)).unwrap();
            p.sleep(5 * MS);
            reset(p, s);
        },
    );
}
