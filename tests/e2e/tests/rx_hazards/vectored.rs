//! aio_readv(2) beside aio_read(2), and reads that start before or after zero copy is switched.
//!
//! A vectored read is copied, but it has its place among the others: who asked first reads first.

use std::time::Duration;

use toehold_e2e::bed::{Bed, TOE};
use toehold_e2e::pattern;
use ukern::Api;
use ukern::proc::{AioCancel, AioCb, Errno, Proc, Prot, Shut, SockOpt, UserVa};

use crate::help::{SOON, check, drain, go, on, quiet, ready, run, stat};

/// A read, and where its bytes go.
struct Job {
    cb: AioCb,
    iov: Vec<(UserVa, usize)>,
}

fn plain(p: &Proc, s: i32, len: usize) -> Job {
    let va = p.mmap(len, Prot::RW).unwrap();
    Job {
        cb: p.aio_read(s, va, len).unwrap(),
        iov: vec![(va, len)],
    }
}

/// Pieces in an order that is not that of their addresses.
fn vectored(p: &Proc, s: i32, lens: &[usize]) -> Job {
    let mut iov: Vec<_> = lens
        .iter()
        .rev()
        .map(|n| (p.mmap(*n + 4096, Prot::RW).unwrap() + 123, *n))
        .collect();
    iov.reverse();
    Job {
        cb: p.aio_readv(s, &iov).unwrap(),
        iov,
    }
}

/// It ends with the next bytes of the stream.
fn end(p: &Proc, j: &Job, seed: u64, at: u64) -> u64 {
    let n = p.aio_wait(j.cb).unwrap();
    let bytes: Vec<u8> = j
        .iov
        .iter()
        .flat_map(|(va, len)| p.load_vec(*va, *len))
        .collect();
    pattern::check(seed, at, &bytes[..n]);
    // What the adapter placed too far behind was moved to its place, and stands there too.
    let behind = &bytes[n..];
    let moved = n >= behind.len() && bytes[n - behind.len()..n] == *behind;
    assert!(
        moved || behind.iter().all(|b| *b == 0),
        "bytes behind the count"
    );
    at + n as u64
}

fn set(k: Api, name: &str, v: i64) {
    k.sysctl_set(&format!("{TOE}.{name}"), v).unwrap();
}

/// Plain, vectored, plain: all are queued before the first byte comes.
#[test]
fn between_plain_reads() {
    for seed in 0..12 {
        let bed = Bed::up(900 + seed);
        bed.sim("cpl_jitter", seed as i64 % 3 * 3000);
        bed.sim("ddp_off", if seed % 4 == 0 { 100_000 } else { 0 });
        on(
            &bed,
            move |p, s| {
                let jobs = [
                    plain(p, s, 10_000),
                    vectored(p, s, &[1, 5000, 4096, 3]),
                    plain(p, s, 20_000),
                    vectored(p, s, &[70_000]),
                    vectored(p, s, &[10, 10]),
                    plain(p, s, 100),
                ];
                p.sleep(SOON);
                go(p, s);
                let mut at = 0;
                for j in &jobs {
                    at = end(p, j, seed, at);
                }
                assert_eq!(drain(p, s, seed, at), 200_000);
            },
            move |p, s| {
                ready(p, s);
                for off in (0..200_000).step_by(20_000) {
                    p.send_all(s, &pattern::bytes(seed, off, 20_000)).unwrap();
                    p.sleep(Duration::from_micros(seed * 7 % 30));
                }
                p.close(s).unwrap();
            },
        );
        assert_eq!(bed.stat("rx_aio_ddp_jobs"), 6);
        assert!(bed.stat("rx_copied_vectored") > 0);
        quiet(bed);
    }
}

/// Plain, vectored and read(2) in any order, many outstanding.
#[test]
fn every_kind_of_read_in_any_order() {
    for seed in 0..16_u64 {
        run(
            920 + seed,
            move |p, s| {
                let mut busy = std::collections::VecDeque::new();
                let (mut at, mut over) = (0, false);
                for turn in seed * 31.. {
                    let len = 1 + (turn * 7919 % 20_000) as usize;
                    if !over {
                        busy.push_back(match turn % 3 {
                            0 => vectored(p, s, &[len / 3 + 1, 17, len]),
                            _ => plain(p, s, len),
                        });
                    }
                    if busy.len() > 4 || over {
                        let Some(j) = busy.pop_front() else { break };
                        let before = at;
                        at = end(p, &j, seed, at);
                        over |= at == before;
                    }
                    if turn % 11 == 0 && busy.is_empty() {
                        let b = p.recv_bytes(s, 3000).unwrap();
                        pattern::check(seed, at, &b);
                        at += b.len() as u64;
                    }
                }
                assert_eq!(at, 400_000);
            },
            move |p, s| {
                p.send_all(s, &pattern::bytes(seed, 0, 400_000)).unwrap();
                p.close(s).unwrap();
            },
        );
    }
}

/// Cancelled while it waits its turn, and while bytes come: those behind it lose nothing.
#[test]
fn cancelled() {
    for seed in 0..12_u64 {
        run(
            940 + seed,
            move |p, s| {
                let a = plain(p, s, 5000);
                let v = vectored(p, s, &[3000, 3000]);
                let b = plain(p, s, 5000);
                p.sleep(SOON);
                if seed > 0 {
                    go(p, s);
                    p.sleep(Duration::from_micros(seed * 3));
                }
                let was = p.aio_cancel(s, Some(v.cb)).unwrap();
                if seed == 0 {
                    assert_eq!(was, AioCancel::Canceled);
                    go(p, s);
                }
                let mut at = end(p, &a, seed, 0);
                if was == AioCancel::Canceled {
                    assert_eq!(p.aio_wait(v.cb), Err(Errno::ECANCELED));
                } else {
                    at = end(p, &v, seed, at);
                }
                at = end(p, &b, seed, at);
                assert_eq!(drain(p, s, seed, at), 60_000);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 60_000)).unwrap();
                p.close(s).unwrap();
            },
        );
    }
}

/// A piece that is not there: EFAULT, or the bytes before it; no byte of the stream is lost.
#[test]
fn a_piece_that_is_not_there() {
    run(
        960,
        |p, s| {
            let va = p.mmap(8192, Prot::RW).unwrap();
            let bad = p.mmap(8192, Prot::RW).unwrap();
            p.munmap(bad, 8192).unwrap();
            let one = p.aio_readv(s, &[(bad, 100), (va, 100)]).unwrap();
            let two = p.aio_readv(s, &[(va, 100), (bad, 100)]).unwrap();
            p.sleep(SOON);
            go(p, s);
            assert_eq!(p.aio_wait(one), Err(Errno::EFAULT));
            assert_eq!(p.aio_wait(two), Ok(100));
            let at = check(p, va, 100, 960, 0);
            assert_eq!(drain(p, s, 960, at), 5000);
        },
        |p, s| {
            ready(p, s);
            p.send_all(s, &pattern::bytes(960, 0, 5000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// The peer closes, and one resets: vectored reads that wait end as the others do.
#[test]
fn at_the_end_of_the_stream() {
    for reset in [false, true] {
        run(
            961,
            move |p, s| {
                let v = vectored(p, s, &[10, 10]);
                let a = plain(p, s, 10);
                let w = vectored(p, s, &[10, 10]);
                p.sleep(SOON);
                go(p, s);
                let first = if reset { Err(Errno::ECONNRESET) } else { Ok(0) };
                assert_eq!(p.aio_wait(v.cb), first);
                assert_eq!(p.aio_wait(a.cb), Ok(0));
                assert_eq!(p.aio_wait(w.cb), Ok(0));
            },
            move |p, s| {
                ready(p, s);
                if reset {
                    p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
                }
                p.close(s).unwrap();
            },
        );
    }
}

/// Zero copy off: everything is the generic path's. On again: no read overtakes those that wait
/// there; off while reads are outstanding: none is declined past those.
#[test]
fn zero_copy_switched_while_reads_wait() {
    let bed = Bed::up(962);
    let k = bed.k.api();
    on(
        &bed,
        move |p, s| {
            set(k, "ddp", 0);
            let a = plain(p, s, 1000);
            let b = vectored(p, s, &[500, 500]);
            set(k, "ddp", 1);
            let c = plain(p, s, 1000);
            p.sleep(SOON);
            assert_eq!(stat(k, "rx_aio_ddp_jobs"), 0);
            go(p, s);
            let mut at = 0;
            for j in [&a, &b, &c] {
                at = end(p, j, 962, at);
            }
            assert_eq!(at, 3000);
            p.sleep(SOON);
            let a = plain(p, s, 1000);
            set(k, "ddp", 0);
            let b = vectored(p, s, &[500, 500]);
            let c = plain(p, s, 1000);
            p.sleep(SOON);
            assert_eq!(stat(k, "rx_aio_ddp_jobs"), 3);
            go(p, s);
            for j in [&a, &b, &c] {
                at = end(p, j, 962, at);
            }
            assert_eq!(at, 6000);
            let d = plain(p, s, 1000);
            p.sleep(SOON);
            assert_eq!(stat(k, "rx_aio_ddp_jobs"), 3);
            assert_eq!(p.aio_wait(d.cb), Ok(0));
        },
        |p, s| {
            for off in [0, 3000] {
                ready(p, s);
                p.send_all(s, &pattern::bytes(962, off, 3000)).unwrap();
            }
            p.sleep(Duration::from_millis(100));
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}

/// SO_NO_DDP, set and cleared.
#[test]
fn a_socket_that_wants_no_placement() {
    let bed = Bed::up(963);
    let k = bed.k.api();
    on(
        &bed,
        move |p, s| {
            p.setsockopt(s, SockOpt::NoDdp(true)).unwrap();
            let a = plain(p, s, 1000);
            p.sleep(SOON);
            assert_eq!(stat(k, "rx_aio_ddp_jobs"), 0);
            go(p, s);
            let at = end(p, &a, 963, 0);
            p.setsockopt(s, SockOpt::NoDdp(false)).unwrap();
            p.sleep(SOON);
            let b = plain(p, s, 1000);
            assert_eq!(stat(k, "rx_aio_ddp_jobs"), 1);
            go(p, s);
            assert_eq!(end(p, &b, 963, at), 2000);
        },
        |p, s| {
            for off in [0, 1000] {
                ready(p, s);
                p.send_all(s, &pattern::bytes(963, off, 1000)).unwrap();
            }
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}

/// After shutdown(SHUT_RD) a read of any kind ends at once, also one that nobody claims: stock
/// 12.1 panics in its generic path.
#[test]
fn nothing_more_can_be_received() {
    let bed = Bed::up(964);
    let k = bed.k.api();
    on(
        &bed,
        move |p, s| {
            p.shutdown(s, Shut::Rd).unwrap();
            for ddp in [1, 0] {
                set(k, "ddp", ddp);
                let jobs = [
                    plain(p, s, 1000),
                    vectored(p, s, &[10, 10]),
                    plain(p, s, 1000),
                ];
                for j in &jobs {
                    assert_eq!(p.aio_error(j.cb), Ok(0));
                    assert_eq!(p.aio_wait(j.cb), Ok(0));
                }
                let va = p.mmap(4096, Prot::RW).unwrap();
                let none = p.aio_read(s, va, 0).unwrap();
                assert_eq!(p.aio_wait(none), Ok(0));
            }
            go(p, s);
        },
        |p, s| {
            ready(p, s);
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}
