//! What other calls see of a socket whose reads are placed: poll(2), the low-water mark, buffers
//! whose size changes, readers that tell the protocol nothing.

use std::time::Duration;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Errno, MsgFlags, Poll, Proc, Prot, SockOpt, SockOptName};

use crate::help::{SOON, check, drain, go, on, quiet, ready, run, stat};

const ALL: MsgFlags = MsgFlags {
    peek: false,
    waitall: true,
    dontwait: false,
    nosignal: false,
    eof: false,
    callback: false,
};

/// Is it readable now?
fn readable(p: &Proc, s: i32) -> bool {
    let got = p.poll(s, Poll::IN, Some(Duration::ZERO)).unwrap();
    got.readable
}

/// What goes to posted reads never makes a socket readable; what is left over does, and so does
/// the end. (kevent(2) and select(2) are woken by the same call.)
#[test]
fn poll_beside_posted_reads() {
    for seed in 0..8 {
        run(
            1100 + seed,
            move |p, s| {
                let va = p.mmap(3 * 16_384, Prot::RW).unwrap();
                // Placement is on, and so_rcv is empty.
                let cb = p.aio_read(s, va, 100).unwrap();
                go(p, s);
                assert_eq!(p.aio_wait(cb), Ok(100));
                let mut at = check(p, va, 100, seed, 0);
                let jobs: Vec<_> = (0..3)
                    .map(|i| {
                        let va = va + i * 16_384;
                        (va, p.aio_read(s, va, 10_000).unwrap())
                    })
                    .collect();
                p.sleep(SOON);
                assert!(!readable(p, s));
                go(p, s);
                for (va, cb) in jobs {
                    let n = p.aio_wait(cb).unwrap();
                    at = check(p, va, n, seed, at);
                }
                // 30 000 were sent; what a short read left is there to be read.
                p.sleep(SOON);
                assert_eq!(readable(p, s), at < 30_100);
                at = plain(p, s, seed, at, 30_100);
                go(p, s);
                let got = p.poll(s, Poll::IN, None).unwrap();
                assert!(got.readable && !got.hup);
                at = plain(p, s, seed, at, 30_200);
                assert!(!readable(p, s));
                go(p, s);
                let got = p.poll(s, Poll::IN, None).unwrap();
                assert!(got.readable, "end of file");
                assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
                assert_eq!(at, 30_200);
            },
            move |p, s| {
                for (from, n) in [(0, 100), (100, 30_000), (30_100, 100)] {
                    ready(p, s);
                    p.send_all(s, &pattern::bytes(seed, from, n)).unwrap();
                }
                ready(p, s);
                p.close(s).unwrap();
            },
        );
    }
}

/// read(2) up to byte `to` of the stream.
fn plain(p: &Proc, s: i32, seed: u64, mut at: u64, to: u64) -> u64 {
    while at < to {
        let b = p.recv_bytes(s, (to - at) as usize).unwrap();
        pattern::check(seed, at, &b);
        at += b.len() as u64;
    }
    at
}

/// poll(2) wakes at the low-water mark and not before, with placement on.
#[test]
fn poll_and_the_low_water_mark() {
    run(
        1110,
        |p, s| {
            let va = p.mmap(16_384, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 100).unwrap();
            go(p, s);
            assert_eq!(p.aio_wait(cb), Ok(100));
            p.setsockopt(s, SockOpt::RcvLowat(5000)).unwrap();
            go(p, s);
            p.sleep(SOON);
            assert!(!readable(p, s), "4999 bytes are below the mark");
            assert_eq!(p.fionread(s), Ok(4999));
            go(p, s);
            assert!(p.poll(s, Poll::IN, None).unwrap().readable);
            // A claimed read takes no notice of the mark.
            let cb = p.aio_read(s, va, 16_000).unwrap();
            let n = p.aio_wait(cb).unwrap();
            let at = check(p, va, n, 1110, 100);
            go(p, s);
            assert_eq!(drain(p, s, 1110, at), 5100);
        },
        |p, s| {
            for (from, n) in [(0, 100), (100, 4999), (5099, 1)] {
                ready(p, s);
                p.send_all(s, &pattern::bytes(1110, from, n)).unwrap();
            }
            ready(p, s);
            p.close(s).unwrap();
        },
    );
}

/// A reader that sleeps in MSG_WAITALL holds the socket; reads by aio come after it, and take
/// nothing from it.
#[test]
fn waitall_beside_reads_by_aio() {
    for seed in 0..6 {
        run(
            1120 + seed,
            move |p, s| {
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let buf = p.mmap(65_536, Prot::RW).unwrap();
                let t = p
                    .thread(move |p| {
                        let n = p.recv(s, va, 30_000, ALL).unwrap();
                        assert_eq!(n, 30_000);
                        check(p, va, n, seed, 0);
                    })
                    .unwrap();
                p.sleep(SOON);
                go(p, s);
                p.sleep(SOON);
                let cb = p.aio_read(s, buf, 20_000).unwrap();
                go(p, s);
                t.join().unwrap();
                let n = p.aio_wait(cb).unwrap();
                let at = check(p, buf, n, seed, 30_000);
                assert_eq!(drain(p, s, seed, at), 60_000);
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 10_000)).unwrap();
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 10_000, 50_000))
                    .unwrap();
                p.close(s).unwrap();
            },
        );
    }
}

/// SO_RCVBUF goes up and down while data comes, read by aio and plainly: the stream never stalls,
/// and no more is buffered than the largest.
#[test]
fn the_receive_buffer_changes_size() {
    const SIZES: [u32; 6] = [65_536, 4096, 200_000, 1, 16_384, 100_000];
    for seed in 0..8_u64 {
        let bed = Bed::up(1130 + seed);
        on(
            &bed,
            move |p, s| {
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let mut at = 0;
                for turn in seed as usize.. {
                    if turn % 3 == 0 {
                        let size = SIZES[turn / 3 % SIZES.len()];
                        p.setsockopt(s, SockOpt::RcvBuf(size)).unwrap();
                    }
                    assert!(p.fionread(s).unwrap() <= 200_000);
                    let len = 1 + turn * 7919 % 60_000;
                    let n = if turn % 2 == 0 {
                        let cb = p.aio_read(s, va, len).unwrap();
                        p.aio_wait(cb).unwrap()
                    } else {
                        p.read(s, va, len).unwrap()
                    };
                    if n == 0 {
                        break;
                    }
                    at = check(p, va, n, seed, at);
                }
                assert_eq!(at, 1_500_000);
            },
            move |p, s| {
                p.send_all(s, &pattern::bytes(seed, 0, 1_500_000)).unwrap();
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// A reader inside the kernel that takes bytes as they come and never calls pr_rcvd, as NFS does:
/// the window opens all the same. Alone, and by turns with reads that are placed.
#[test]
fn a_reader_that_never_calls_rcvd() {
    for seed in 0..6_u64 {
        run(
            1140 + seed,
            move |p, s| {
                let quiet = MsgFlags {
                    callback: true,
                    dontwait: true,
                    waitall: false,
                    ..ALL
                };
                p.setsockopt(s, SockOpt::RcvBuf(20_000)).unwrap();
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let mut at = 0;
                for turn in 0.. {
                    let n = if seed % 2 == 1 && turn % 4 == 0 {
                        let cb = p.aio_read(s, va, 30_000).unwrap();
                        p.aio_wait(cb).unwrap()
                    } else {
                        // As an upcall would: whenever there is something.
                        let got = p.poll(s, Poll::IN, Some(Duration::from_secs(60))).unwrap();
                        assert!(got.readable, "seed {seed}: stalled at {at}");
                        match p.recv(s, va, 65_536, quiet) {
                            Err(Errno::EWOULDBLOCK) => continue,
                            n => n.unwrap(),
                        }
                    };
                    if n == 0 {
                        break;
                    }
                    at = check(p, va, n, seed, at);
                }
                assert_eq!(at, 500_000);
            },
            move |p, s| {
                // Slowly enough for a reader that is woken by each segment.
                for off in (0..500_000).step_by(5000) {
                    p.send_all(s, &pattern::bytes(seed, off, 5000)).unwrap();
                    p.sleep(Duration::from_millis(1));
                }
                p.close(s).unwrap();
            },
        );
    }
}

/// The receive buffer grows by itself while bytes are copied, stays where a program has put it,
/// and never passes the system's limit.
#[test]
fn autosizing() {
    for fixed in [false, true] {
        let bed = Bed::up(1150);
        let k = bed.k.api();
        on(
            &bed,
            move |p, s| {
                if fixed {
                    p.setsockopt(s, SockOpt::RcvBuf(32_768)).unwrap();
                }
                let before = p.getsockopt(s, SockOptName::RcvBuf).unwrap();
                let va = p.mmap(1 << 20, Prot::RW).unwrap();
                let mut at = 0;
                loop {
                    let cb = p.aio_read(s, va, 1 << 20).unwrap();
                    let n = p.aio_wait(cb).unwrap();
                    if n == 0 {
                        break;
                    }
                    at = check(p, va, n, 1150, at);
                }
                assert_eq!(at, 4 << 20);
                let after = p.getsockopt(s, SockOptName::RcvBuf).unwrap();
                if fixed {
                    assert_eq!(after, 32_768);
                } else {
                    assert!(after >= before && after <= 2 << 20, "{before} {after}");
                }
                assert!(stat(k, "rx_aio_ddp_octets") > 0);
            },
            |p, s| {
                p.send_all(s, &pattern::bytes(1150, 0, 4 << 20)).unwrap();
                p.close(s).unwrap();
            },
        );
        quiet(bed);
    }
}

/// The process ends, or closes its socket, with reads posted and a peer that never says a word.
#[test]
fn gone_with_a_silent_peer() {
    for how in 0..4 {
        let bed = Bed::up(1160 + how);
        let r = crate::help::reader(&bed, move |p, s| {
            let va = p.mmap(5 * 65_536, Prot::RW).unwrap();
            for i in 0..5 {
                if i == 3 {
                    p.aio_readv(s, &[(va + i * 65_536, 100), (va, 100)])
                        .unwrap();
                } else {
                    p.aio_read(s, va + i * 65_536, 60_000).unwrap();
                }
            }
            p.sleep(SOON);
            match how {
                0 => p.exit(0),
                1 => {
                    p.close(s).unwrap();
                    p.exit(0)
                }
                2 => p.exec().unwrap(),
                _ => {
                    p.munmap(va, 5 * 65_536).unwrap();
                    p.exit(0)
                }
            }
        });
        let begin = bed.k.uptime();
        let c = crate::help::peer(&bed, |p, s| {
            // Never a word, but it hears of the end: a FIN or a reset.
            let _ = p.recv_bytes(s, 1);
        });
        let _: ukern::proc::Exit<()> = r.wait();
        c.join();
        let took = bed.k.uptime() - begin;
        assert!(took < 5 * ukern::sched::SBT_1S, "how {how}: {took}");
        quiet(bed);
    }
}
