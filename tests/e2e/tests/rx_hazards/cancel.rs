//! aio_cancel against everything a read can be doing: each job ends once, ECANCELED means that no
//! byte went to it, and no byte of the stream is lost.

use std::time::Duration;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::Config;
use ukern::proc::{AioCancel, AioCb, Errno, MsgFlags, Proc, Prot, SigAction, Signal, SockOpt, Sys};

use crate::help::{SOON, check, drain, go, on, quiet, ready, run};

const LEN: usize = 30_000;

/// How the adapter is slow.
#[derive(Clone, Copy, Default)]
struct Slow {
    /// An invalidate takes effect late: bytes land meanwhile.
    invalidate: i64,
    /// Its reply comes late.
    reply: i64,
    /// Segments that end direct placement, ppm.
    off: i64,
}

fn slow(bed: &Bed, s: Slow) {
    bed.sim("invalidate_delay", s.invalidate);
    bed.sim("set_tcb_rpl_delay", s.reply);
    bed.sim("ddp_off", s.off);
}

/// What one read came to; `Some(true)` is end of file.
fn settle(p: &Proc, r: Sys<usize>, va: u64, seed: u64, at: &mut u64) -> bool {
    match r {
        Ok(0) => return true,
        Ok(n) => *at = check(p, va, n, seed, *at),
        Err(e) => assert_eq!(e, Errno::ECANCELED),
    }
    false
}

/// Reads a stream with three jobs at a time, of which number `which` (or all) is cancelled
/// `delay` after the three were queued.
fn sweep(seed: u64, s: Slow, delay: Duration, which: Option<usize>) {
    const TOTAL: usize = 400_000;
    let bed = Bed::up(seed);
    slow(&bed, s);
    let (at, ()) = on(
        &bed,
        move |p, s| {
            let va = p.mmap(3 * 32_768, Prot::RW).unwrap();
            let vas = [0, 1, 2].map(|i| va + i * 32_768 + 17 * i);
            let mut at = 0;
            loop {
                let jobs = vas.map(|va| p.aio_read(s, va, LEN).unwrap());
                p.sleep(delay);
                let _ = p.aio_cancel(s, which.map(|i| jobs[i])).unwrap();
                let mut end = false;
                for (va, cb) in vas.into_iter().zip(jobs) {
                    let r = p.aio_wait(cb);
                    assert!(
                        !end || matches!(r, Ok(0) | Err(_)),
                        "data after the end of file"
                    );
                    end |= settle(p, r, va, seed, &mut at);
                }
                if end {
                    return at;
                }
            }
        },
        move |p, s| {
            p.send_all(s, &pattern::bytes(seed, 0, TOTAL)).unwrap();
            p.close(s).unwrap();
        },
    );
    assert_eq!(at, TOTAL as u64, "seed {seed}, {delay:?}, {which:?}");
    quiet(bed);
}

fn delays() -> impl Iterator<Item = (u64, Duration)> {
    (0..24_u64).map(|i| (i, Duration::from_nanos(i * i * 97)))
}

#[test]
fn at_any_moment() {
    for (i, d) in delays() {
        sweep(
            10 + i,
            Slow::default(),
            d,
            [None, Some(0), Some(1), Some(2)][i as usize % 4],
        );
    }
}

#[test]
fn with_bytes_landing_while_the_buffer_is_taken_back() {
    for (i, d) in delays() {
        let s = Slow {
            invalidate: 15_000,
            ..Slow::default()
        };
        sweep(
            50 + i,
            s,
            d,
            [None, Some(0), Some(1), Some(2)][i as usize % 4],
        );
    }
}

#[test]
fn with_replies_long_after_the_bytes() {
    for (i, d) in delays() {
        let s = Slow {
            invalidate: 3_000,
            reply: 40_000,
            ..Slow::default()
        };
        sweep(
            90 + i,
            s,
            d,
            [None, Some(0), Some(1), Some(2)][i as usize % 4],
        );
    }
}

#[test]
fn with_placement_ending_now_and_then() {
    for (i, d) in delays() {
        let s = Slow {
            invalidate: 10_000,
            reply: 10_000,
            off: 100_000,
        };
        sweep(
            130 + i,
            s,
            d,
            [None, Some(0), Some(1), Some(2)][i as usize % 4],
        );
    }
}

/// Each state by name: queued with and without pages, posted in front and behind, being taken
/// back already, done.
#[test]
fn in_every_state() {
    run(
        200,
        |p, s| {
            let va = p.mmap(5 * 32_768, Prot::RW).unwrap();
            let read = |i: u64| p.aio_read(s, va + i * 32_768, LEN).unwrap();
            let gone = |cb: AioCb| {
                let r = p.aio_cancel(s, Some(cb)).unwrap();
                assert!(r != AioCancel::AllDone, "it was outstanding");
                assert_eq!(p.aio_wait(cb), Err(Errno::ECANCELED));
                assert_eq!(p.aio_return(cb), Err(Errno::EINVAL), "it is forgotten");
            };
            // At once: perhaps without pages.
            gone(read(0));
            // Placement is asked for or on, the first posted.
            let a = read(0);
            p.sleep(SOON);
            gone(a);
            // Both posted, three queued of which two have pages.
            for order in [
                [0, 1, 2, 3, 4],
                [4, 3, 2, 1, 0],
                [1, 0, 4, 2, 3],
                [2, 4, 1, 3, 0],
            ] {
                let jobs = [0, 1, 2, 3, 4].map(read);
                p.sleep(SOON);
                for i in order {
                    gone(jobs[i]);
                }
            }
            // All in one call, then again.
            let jobs = [0, 1, 2, 3, 4].map(read);
            p.sleep(SOON);
            let _ = p.aio_cancel(s, None).unwrap();
            let _ = p.aio_cancel(s, None).unwrap();
            for cb in jobs {
                assert_eq!(p.aio_wait(cb), Err(Errno::ECANCELED));
            }
            go(p, s);
            // Done, and not cancelled any more.
            let cb = read(0);
            p.aio_suspend(&[cb], None).unwrap();
            assert_eq!(p.aio_cancel(s, Some(cb)), Ok(AioCancel::AllDone));
            let n = p.aio_return(cb).unwrap();
            let at = check(p, va, n, 200, 0);
            assert_eq!(drain(p, s, 200, at), 100_000);
        },
        |p, s| {
            ready(p, s);
            p.send_all(s, &pattern::bytes(200, 0, 100_000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// Twice while the buffer is being taken back, by two threads.
#[test]
fn twice_at_the_same_time() {
    for seed in 210..222 {
        let bed = Bed::with(Config::seed(seed).preempt(4));
        slow(
            &bed,
            Slow {
                invalidate: 30_000,
                reply: 20_000,
                off: 0,
            },
        );
        on(
            &bed,
            move |p, s| {
                let va = p.mmap(32_768, Prot::RW).unwrap();
                let cb = p.aio_read(s, va, LEN).unwrap();
                p.sleep(SOON);
                go(p, s);
                let t = p
                    .thread(move |p| {
                        p.sleep(Duration::from_nanos(seed * 977 % 30_000));
                        p.aio_cancel(s, Some(cb)).unwrap();
                    })
                    .unwrap();
                p.sleep(Duration::from_nanos(seed * 613 % 30_000));
                let _ = p.aio_cancel(s, Some(cb));
                let r = p.aio_wait(cb);
                t.join();
                let mut at = 0;
                settle(p, r, va, seed, &mut at);
                assert_eq!(drain(p, s, seed, at), 50_000);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 50_000)).unwrap();
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// Every job tells of its end once, however it ends.
#[test]
fn one_signal_for_each_job() {
    for seed in 230..236 {
        let bed = Bed::up(seed);
        slow(
            &bed,
            Slow {
                invalidate: 10_000,
                ..Slow::default()
            },
        );
        on(
            &bed,
            move |p, s| {
                p.sigaction(Signal::Usr1, SigAction::Catch);
                let va = p.mmap(4 * 32_768, Prot::RW).unwrap();
                let (mut at, mut jobs, mut end) = (0, 0, false);
                while !end {
                    let four = [0, 1, 2, 3].map(|i| {
                        let va = va + i * 32_768;
                        (va, p.aio_read_signal(s, va, LEN, Signal::Usr1).unwrap())
                    });
                    jobs += 4;
                    p.sleep(Duration::from_nanos(seed * 733 % 40_000));
                    let _ = p.aio_cancel(s, None).unwrap();
                    for (va, cb) in four {
                        let r = p.aio_wait(cb);
                        end |= settle(p, r, va, seed, &mut at);
                    }
                }
                assert_eq!(at, 200_000, "seed {seed}");
                assert_eq!(p.signals(Signal::Usr1), jobs, "seed {seed}");
            },
            move |p, s| {
                p.send_all(s, &pattern::bytes(seed, 0, 200_000)).unwrap();
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// The connection goes before the adapter has answered the invalidate: by a reset, or by FIN.
#[test]
fn the_connection_goes_before_the_reply() {
    for seed in 240..264 {
        let bed = Bed::up(seed);
        slow(
            &bed,
            Slow {
                invalidate: 20_000,
                reply: 400_000,
                off: 0,
            },
        );
        on(
            &bed,
            move |p, s| {
                let va = p.mmap(2 * 32_768, Prot::RW).unwrap();
                let vas = [va, va + 32_768];
                let jobs = vas.map(|va| p.aio_read(s, va, LEN).unwrap());
                p.sleep(SOON);
                go(p, s);
                p.sleep(Duration::from_nanos(seed * 997 % 25_000));
                let _ = p.aio_cancel(s, None).unwrap();
                let mut at = 0;
                for (va, cb) in vas.into_iter().zip(jobs) {
                    match p.aio_wait(cb) {
                        Err(Errno::ECONNRESET) => {}
                        r => drop(settle(p, r, va, seed, &mut at)),
                    }
                }
                if seed % 2 == 0 {
                    assert_eq!(drain(p, s, seed, at), 10_000, "seed {seed}");
                }
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 10_000)).unwrap();
                if seed % 2 != 0 {
                    p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
                }
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// A plain reader sits in recv(2) with the socket's receive lock while reads are cancelled.
#[test]
fn beside_a_reader_that_sleeps_in_the_socket() {
    for seed in 270..282 {
        let bed = Bed::up(seed);
        slow(
            &bed,
            Slow {
                invalidate: 10_000,
                ..Slow::default()
            },
        );
        on(
            &bed,
            move |p, s| {
                let va = p.mmap(3 * 65_536, Prot::RW).unwrap();
                let t = p
                    .thread(move |p| {
                        let flags = MsgFlags {
                            waitall: true,
                            ..MsgFlags::default()
                        };
                        p.recv(s, va + 2 * 65_536, 20_000, flags)
                    })
                    .unwrap();
                p.sleep(SOON);
                let a = p.aio_read(s, va, LEN).unwrap();
                let b = p.aio_read(s, va + 65_536, LEN).unwrap();
                p.sleep(SOON);
                go(p, s);
                p.sleep(Duration::from_nanos(seed * 911 % 40_000));
                let _ = p.aio_cancel(s, None).unwrap();
                let (ra, rb) = (p.aio_wait(a), p.aio_wait(b));
                let n = t.join().unwrap().unwrap();
                // Which part of the stream each got is theirs to fight out; together with what
                // is left it is all of it.
                let mut parts: Vec<Vec<u8>> = vec![p.load_vec(va + 2 * 65_536, n)];
                for (r, va) in [(ra, va), (rb, va + 65_536)] {
                    match r {
                        Ok(n) => parts.push(p.load_vec(va, n)),
                        Err(e) => assert_eq!(e, Errno::ECANCELED),
                    }
                }
                parts.push(p.recv_exact(s, 100_000).unwrap());
                let sum: usize = parts.iter().map(Vec::len).sum();
                assert_eq!(sum, 60_000, "seed {seed}");
                covers(seed, 60_000, &parts);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 60_000)).unwrap();
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// The parts are cut from the stream without gap or overlap, each perhaps of several runs.
fn covers(seed: u64, total: usize, parts: &[Vec<u8>]) {
    let all = pattern::bytes(seed, 0, total);
    let mut seen = vec![false; total];
    for part in parts {
        let mut i = 0;
        let mut from = 0;
        while i < part.len() {
            // A run goes on as long as it can.
            let key = &part[i..part.len().min(i + 8)];
            let at = (from..=total - key.len()).find(|a| all[*a..*a + key.len()] == *key);
            let at = at.unwrap_or_else(|| panic!("seed {seed}: bytes that were never sent"));
            let mut n = 0;
            while i + n < part.len()
                && at + n < total
                && part[i + n] == all[at + n]
                && !seen[at + n]
            {
                seen[at + n] = true;
                n += 1;
            }
            assert!(n > 0, "seed {seed}: byte {at} was delivered twice");
            (i, from) = (i + n, at + n);
        }
    }
}
