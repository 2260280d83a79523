//! The order of everything that is written: the requests' own.

use toehold_e2e::bed::{Bed, TOE};
use toehold_e2e::pattern;
use ukern::proc::{MsgFlags, Proc, Prot, SockOpt};

use crate::help::{SOON, drain, drain_late, ends, on, quiet, run};

/// aio_write of various lengths, aio_writev, and write(2) when all before has ended.
#[test]
fn claimed_and_vectored() {
    for seed in 800..810 {
        let bed = Bed::up(seed);
        bed.set("tx_zcopy_min", [0, 6000][seed as usize % 2]);
        let (sum, got) = on(
            &bed,
            move |p, s| {
                let mut at = 0;
                let mut jobs = Vec::new();
                for i in 0..60 {
                    let len = [200_000, 5000, 1, 70_000, 8192][(i + seed as usize) % 5];
                    let va = p.alloc(&pattern::bytes(seed, at, len));
                    at += len as u64;
                    let cut = len / 3;
                    let cb = if i % 4 == 3 {
                        p.aio_writev(s, &[(va, cut), (va + cut as u64, len - cut)])
                    } else {
                        p.aio_write(s, va, len)
                    };
                    jobs.push(cb.unwrap());
                }
                for r in ends(p, jobs) {
                    r.unwrap();
                }
                p.send_all(s, &pattern::bytes(seed, at, 5000)).unwrap();
                p.close(s).unwrap();
                at + 5000
            },
            drain_late(seed),
        );
        assert_eq!(sum, got, "seed {seed}");
        quiet(bed);
    }
}

/// A child writes what is copied, its parent reads on the same socket: whoever comes by does what
/// there is to do for both, and stays in its own memory.
#[test]
fn two_processes_on_one_socket() {
    // Long ones are sent from their pages; short ones behind them are copied.
    const LENS: [usize; 4] = [20_000, 4000, 4000, 4000];
    for seed in 840..848 {
        let bed = Bed::up(seed);
        bed.set("tx_zcopy_min", 8192);
        let writer = move |p: &Proc, s: i32| {
            p.setsockopt(s, SockOpt::SndBuf(8192)).unwrap();
            p.sleep(SOON);
            let child = p.fork(move |c| {
                let mut jobs = std::collections::VecDeque::new();
                for i in 0..200_usize {
                    let (at, len) = (
                        i / 4 * 32_000 + [0, 20_000, 24_000, 28_000][i % 4],
                        LENS[i % 4],
                    );
                    let va = c.alloc(&pattern::bytes(seed, at as u64, len));
                    let cb = if i % 4 == 2 {
                        c.aio_writev(s, &[(va, 1000), (va + 1000, len - 1000)])
                    } else {
                        c.aio_write(s, va, len)
                    };
                    jobs.push_back((cb.unwrap(), len));
                    if jobs.len() > 15 {
                        let (cb, len) = jobs.pop_front().expect("sixteen are there");
                        assert_eq!(c.aio_wait(cb), Ok(len));
                    }
                }
                for (cb, len) in jobs {
                    assert_eq!(c.aio_wait(cb), Ok(len));
                }
            });
            let child = child.unwrap();
            let va = p.mmap(4096, Prot::RW).unwrap();
            // What it reads is there already: it does not sleep, and is often here before the worker.
            for at in (0..60_000).step_by(40) {
                let cb = p.aio_read(s, va, 40).unwrap();
                assert_eq!(p.aio_wait(cb), Ok(40));
                pattern::check(seed + 1000, at, &p.load_vec(va, 40));
            }
            child.join();
            p.close(s).unwrap();
        };
        let peer = move |p: &Proc, s: i32| {
            p.send_all(s, &pattern::bytes(seed + 1000, 0, 60_000))
                .unwrap();
            drain(p, s, seed)
        };
        let ((), got) = on(&bed, writer, peer);
        assert_eq!(got, 50 * 32_000, "seed {seed}");
        quiet(bed);
    }
}

/// Zero copy is switched on and off while jobs wait, on either path.
#[test]
fn tx_zcopy_toggled() {
    for seed in 820..828 {
        let bed = Bed::up(seed);
        let k = bed.k.api();
        let (sum, got) = on(
            &bed,
            move |p, s| {
                let mut at = 0;
                let mut jobs = Vec::new();
                for i in 0..40_u64 {
                    let on = (i / 3 + seed) % 2;
                    k.sysctl_set(&format!("{TOE}.tx_zcopy"), on).unwrap();
                    let len = 1000 + 13_000 * (i as usize % 7);
                    let va = p.alloc(&pattern::bytes(seed, at, len));
                    at += len as u64;
                    jobs.push(p.aio_write(s, va, len).unwrap());
                    if i % 5 == 0 {
                        p.sleep(SOON / 100);
                    }
                }
                for r in ends(p, jobs) {
                    r.unwrap();
                }
                p.close(s).unwrap();
                at
            },
            move |p, s| drain(p, s, seed),
        );
        assert_eq!(sum, got, "seed {seed}");
        quiet(bed);
    }
}

/// Options about when to push: what is held back goes in the end.
#[test]
fn nodelay_nopush_and_low_water() {
    for seed in 830..836 {
        let (sum, got) = run(
            seed,
            move |p, s| {
                p.setsockopt(s, SockOpt::NoDelay(seed % 2 == 0)).unwrap();
                p.setsockopt(s, SockOpt::NoPush(seed % 3 == 0)).unwrap();
                p.setsockopt(s, SockOpt::SndLowat(1 + 9000 * (seed as u32 % 3)))
                    .unwrap();
                p.setsockopt(s, SockOpt::KeepAlive(true)).unwrap();
                let mut at = 0;
                for i in 0..30 {
                    let len = 1 + 3001 * (i % 9);
                    if i % 2 == 0 {
                        let va = p.alloc(&pattern::bytes(seed, at, len));
                        let cb = p.aio_write(s, va, len).unwrap();
                        assert_eq!(p.aio_wait(cb), Ok(len));
                    } else {
                        p.send_all(s, &pattern::bytes(seed, at, len)).unwrap();
                    }
                    at += len as u64;
                }
                p.close(s).unwrap();
                at
            },
            move |p, s| drain(p, s, seed),
        );
        assert_eq!(sum, got, "seed {seed}");
    }
}

/// send(2) with MSG_EOF behind a write job: its bytes, then the FIN.
#[test]
fn the_end_of_the_stream_comes_last() {
    let (n, got) = run(
        840,
        |p, s| {
            let va = p.alloc(&pattern::bytes(840, 0, 60_000));
            let cb = p.aio_write(s, va, 50_000).unwrap();
            let eof = MsgFlags {
                eof: true,
                ..MsgFlags::default()
            };
            assert_eq!(p.send(s, va + 50_000, 10_000, eof), Ok(10_000));
            p.aio_wait(cb).unwrap()
        },
        |p, s| drain(p, s, 840),
    );
    assert_eq!((n, got), (50_000, 60_000));
}
