//! Receive credits, readers of several kinds on one socket, and falling out of direct placement.

use std::time::Duration;

use toehold_e2e::bed::{Bed, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{Errno, MsgFlags, Poll, Proc, ProcConfig, Prot, SockOpt, SockOptName, addr};

use crate::help::{SOON, check, drain, go, on, peer, quiet, reader, ready, run, stat};

/// Sends `total` bytes and closes.
fn sender(seed: u64, total: usize) -> impl FnOnce(&Proc, i32) {
    move |p, s| {
        p.send_all(s, &pattern::bytes(seed, 0, total)).unwrap();
        p.close(s).unwrap();
    }
}

/// Reads by aio to the end, `depth` jobs of `len` bytes at a time.
fn read_all(p: &Proc, s: i32, seed: u64, len: usize, depth: usize) -> u64 {
    let va = p
        .mmap(depth * len.next_multiple_of(4096), Prot::RW)
        .unwrap();
    let mut busy: std::collections::VecDeque<_> = (0..depth)
        .map(|i| {
            let va = va + (i * len.next_multiple_of(4096)) as u64;
            (va, p.aio_read(s, va, len).unwrap())
        })
        .collect();
    let mut at = 0;
    while let Some((va, cb)) = busy.pop_front() {
        let n = p.aio_wait(cb).unwrap();
        if n > 0 {
            at = check(p, va, n, seed, at);
            busy.push_back((va, p.aio_read(s, va, len).unwrap()));
        }
    }
    at
}

/// A receive buffer smaller than a read, a segment, a page; set before and after the connection.
#[test]
fn a_small_receive_buffer() {
    for (i, size) in [600, 2048, 4096, 10_000, 65_536].into_iter().enumerate() {
        let seed = 10 + i as u64;
        run(
            seed,
            move |p, s| {
                p.setsockopt(s, SockOpt::RcvBuf(size)).unwrap();
                assert_eq!(read_all(p, s, seed, 40_000, 1 + i % 3), 150_000, "{size}");
                assert_eq!(p.getsockopt(s, SockOptName::RcvBuf), Ok(i64::from(size)));
            },
            sender(seed, 150_000),
        );
    }
}

/// No window scale can say that there is room for one byte: there is a little more.
#[test]
fn a_receive_buffer_of_one_byte() {
    for seed in 10..50 {
        run(
            seed,
            move |p, s| {
                p.setsockopt(s, SockOpt::RcvBuf(1)).unwrap();
                assert_eq!(read_all(p, s, seed, 40_000, 1), 150_000);
            },
            sender(seed, 150_000),
        );
    }
}

/// More than a window has to come before anyone reads, then all by aio.
#[test]
fn a_full_receive_buffer_first() {
    for (seed, size) in [(20, 5000), (21, 65_536), (22, 200_000)] {
        run(
            seed,
            move |p, s| {
                p.setsockopt(s, SockOpt::RcvBuf(size)).unwrap();
                go(p, s);
                p.sleep(Duration::from_millis(100));
                let held = p.fionread(s).unwrap();
                assert!(held > 0);
                assert_eq!(read_all(p, s, seed, 30_000, 2), 1_000_000);
            },
            move |p, s| {
                ready(p, s);
                sender(seed, 1_000_000)(p, s);
            },
        );
    }
}

/// Bytes that are placed never count against the window: the peer is never held up, and what is
/// left of it at the end is all of it.
#[test]
fn megabytes_through_a_small_window() {
    let bed = Bed::up(30);
    on(
        &bed,
        |p, s| {
            p.setsockopt(s, SockOpt::RcvBuf(16_384)).unwrap();
            assert_eq!(read_all(p, s, 30, 262_144, 4), 4 << 20);
        },
        |p, s| {
            let va = p.alloc(&pattern::bytes(30, 0, 4 << 20));
            let cb = p.aio_write(s, va, 4 << 20).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(4 << 20));
            p.close(s).unwrap();
        },
    );
    let placed = bed.stat("rx_aio_ddp_octets");
    assert!(placed > 3 << 20, "{placed} placed");
    quiet(bed);
}

/// read(2), recv(2) with MSG_PEEK, MSG_WAITALL and MSG_DONTWAIT, aio_read and poll by turns.
#[test]
fn every_kind_of_reader_by_turns() {
    for seed in 40..56 {
        run(
            seed,
            move |p, s| {
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let mut at = 0_u64;
                for turn in seed.. {
                    let len = 1 + (turn * 7919 % 9000) as usize;
                    let flags = MsgFlags::default();
                    match turn % 6 {
                        0 => {
                            let cb = p.aio_read(s, va, len).unwrap();
                            let n = p.aio_wait(cb).unwrap();
                            if n == 0 {
                                break;
                            }
                            at = check(p, va, n, seed, at);
                        }
                        1 => {
                            let n = p.read(s, va, len).unwrap();
                            at = check(p, va, n, seed, at);
                        }
                        2 => {
                            let n = p
                                .recv(
                                    s,
                                    va,
                                    len,
                                    MsgFlags {
                                        peek: true,
                                        ..flags
                                    },
                                )
                                .unwrap();
                            check(p, va, n, seed, at);
                        }
                        3 => {
                            let n = p
                                .recv(
                                    s,
                                    va,
                                    len,
                                    MsgFlags {
                                        waitall: true,
                                        ..flags
                                    },
                                )
                                .unwrap();
                            at = check(p, va, n, seed, at);
                        }
                        4 => match p.recv(
                            s,
                            va,
                            len,
                            MsgFlags {
                                dontwait: true,
                                ..flags
                            },
                        ) {
                            Ok(n) => at = check(p, va, n, seed, at),
                            Err(e) => assert_eq!(e, Errno::EWOULDBLOCK),
                        },
                        _ => {
                            let got = p.poll(s, Poll::IN, None).unwrap();
                            assert!(got.readable);
                            // A read that finds bytes takes them, however many reads are posted
                            // after it.
                            let a = p.aio_read(s, va, len).unwrap();
                            let b = p.aio_read(s, va + 16_384, len).unwrap();
                            let c = p.aio_read(s, va + 32_768, len).unwrap();
                            for (va, cb) in [(va, a), (va + 16_384, b), (va + 32_768, c)] {
                                let n = p.aio_wait(cb).unwrap();
                                at = check(p, va, n, seed, at);
                            }
                        }
                    }
                }
                assert_eq!(at, 300_000, "seed {seed}");
            },
            sender(seed, 300_000),
        );
    }
}

/// A peek while reads are posted takes nothing from them and shows nothing they have.
#[test]
fn peek_beside_posted_reads() {
    run(
        60,
        |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let a = p.aio_read(s, va, 20_000).unwrap();
            p.sleep(SOON);
            let peek = MsgFlags {
                peek: true,
                dontwait: true,
                ..MsgFlags::default()
            };
            assert_eq!(p.recv(s, va + 32_768, 100, peek), Err(Errno::EWOULDBLOCK));
            go(p, s);
            let n = p.aio_wait(a).unwrap();
            let at = check(p, va, n, 60, 0);
            p.sleep(SOON);
            let n = p.recv(s, va + 32_768, 100, peek).unwrap();
            check(p, va + 32_768, n, 60, at);
            assert_eq!(drain(p, s, 60, at), 50_000);
        },
        |p, s| {
            ready(p, s);
            sender(60, 50_000)(p, s);
        },
    );
}

/// SO_RCVLOWAT holds a plain reader; the credits must not.
#[test]
fn low_water_mark() {
    for (i, low) in [1, 2000, 30_000, 64_000].into_iter().enumerate() {
        let seed = 70 + i as u64;
        run(
            seed,
            move |p, s| {
                p.setsockopt(s, SockOpt::RcvBuf(65_536)).unwrap();
                p.setsockopt(s, SockOpt::RcvLowat(low)).unwrap();
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let mut at = 0;
                for turn in 0.. {
                    let n = if turn % 2 == 0 {
                        p.read(s, va, 65_536).unwrap()
                    } else {
                        let cb = p.aio_read(s, va, 10_000).unwrap();
                        p.aio_wait(cb).unwrap()
                    };
                    if n == 0 {
                        break;
                    }
                    at = check(p, va, n, seed, at);
                }
                assert_eq!(at, 400_000);
            },
            sender(seed, 400_000),
        );
    }
}

/// A non-blocking socket's reads stay queued without data, and end with what there is.
#[test]
fn a_nonblocking_socket() {
    for seed in 80..84 {
        run(
            seed,
            move |p, s| {
                p.set_nonblock(s, true).unwrap();
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let cb = p.aio_read(s, va, 60_000).unwrap();
                p.sleep(SOON);
                assert_eq!(p.aio_error(cb), Ok(Errno::EINPROGRESS.0));
                assert_eq!(p.recv_bytes(s, 10), Err(Errno::EWOULDBLOCK));
                p.send_all(s, b"!").unwrap();
                let n = p.aio_wait(cb).unwrap();
                assert!(n > 0);
                let mut at = check(p, va, n, seed, 0);
                loop {
                    let cb = p.aio_read(s, va, 60_000).unwrap();
                    let n = p.aio_wait(cb).unwrap();
                    if n == 0 {
                        break;
                    }
                    at = check(p, va, n, seed, at);
                }
                assert_eq!(at, 250_000);
            },
            move |p, s| {
                ready(p, s);
                // In pieces with pauses, so that parts of buffers are flushed.
                for off in (0..250_000).step_by(25_000) {
                    p.send_all(s, &pattern::bytes(seed, off, 25_000)).unwrap();
                    p.sleep(Duration::from_micros(seed * 41 % 100));
                }
                p.close(s).unwrap();
            },
        );
    }
}

/// The adapter leaves direct placement in the middle of buffers, often; losses and disorder make
/// indicates cross the posting of buffers.
#[test]
fn falling_out_in_the_middle_of_buffers() {
    for seed in 100..124 {
        let bed = Bed::up(seed);
        bed.sim(
            "ddp_off",
            [1000, 20_000, 200_000, 1_000_000][seed as usize % 4],
        );
        bed.sim("reorder", if seed % 3 == 0 { 30_000 } else { 0 });
        bed.sim("loss", if seed % 5 == 0 { 3000 } else { 0 });
        bed.sim("cpl_jitter", seed as i64 % 7 * 1000);
        bed.sim("wr_jitter", seed as i64 % 11 * 1000);
        let len = 1000 + (seed as usize * 7919) % 60_000;
        let (at, ()) = on(
            &bed,
            move |p, s| read_all(p, s, seed, len, 1 + seed as usize % 4),
            sender(seed, 500_000),
        );
        assert_eq!(at, 500_000, "seed {seed}");
        assert!(bed.stat("rx_copied_ddp_off") + bed.stat("rx_aio_ddp_octets") > 0);
        quiet(bed);
    }
}

/// Tids, page pods and page sets of connections that ended serve later ones.
#[test]
fn many_connections_one_after_the_other() {
    let bed = Bed::up(140);
    for i in 0..24 {
        let seed = 1400 + i;
        let r = reader(&bed, move |p, s| {
            let n = read_all(p, s, seed, 30_000, 2);
            p.close(s).unwrap();
            n
        });
        let c = peer(&bed, sender(seed, 100_000));
        c.join();
        assert_eq!(r.join(), 100_000);
    }
    quiet(bed);
}

/// Autosizing: the receive buffer may grow though nothing enters it, and must not get in the way.
#[test]
fn autosizing_while_everything_is_placed() {
    let bed = Bed::up(150);
    let k = bed.k.api();
    on(
        &bed,
        move |p, s| {
            let before = p.getsockopt(s, SockOptName::RcvBuf).unwrap();
            assert_eq!(read_all(p, s, 150, 1 << 20, 2), 8 << 20);
            let after = p.getsockopt(s, SockOptName::RcvBuf).unwrap();
            assert!(after >= before);
            assert!(stat(k, "rx_aio_ddp_octets") > 7 << 20);
        },
        |p, s| {
            let va = p.alloc(&pattern::bytes(150, 0, 8 << 20));
            for i in 0..8 {
                let cb = p.aio_write(s, va + (i << 20), 1 << 20).unwrap();
                assert_eq!(p.aio_wait(cb), Ok(1 << 20));
            }
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}

/// A program that reads nothing: what its peer sends makes no room for more, and read at last it
/// does.
#[test]
fn what_nobody_reads_does_not_pile_up() {
    let bed = Bed::up(160);
    on(
        &bed,
        |p, s| {
            let size = || p.getsockopt(s, SockOptName::RcvBuf).unwrap();
            let may = size();
            p.sleep(Duration::from_secs(2));
            let held = p.fionread(s).unwrap() as i64;
            assert!((may / 2..=may).contains(&held), "{held} of {may} bytes");
            assert_eq!(size(), may);
            assert_eq!(drain(p, s, 160, 0), 4 << 20);
            assert!(size() > may, "a program that reads everything");
        },
        sender(160, 4 << 20),
    );
    quiet(bed);
}

/// SO_RCVBUF set on the listener holds for the connections: their first window is no larger, and
/// they do not size themselves.
#[test]
fn a_listener_with_a_small_receive_buffer() {
    for size in [4096, 16_384, 65_536_u32] {
        let bed = Bed::up(161);
        let r = bed
            .k
            .spawn(ProcConfig::vnet(SERVER).name("reader"), move |p| {
                let l = p.socket().unwrap();
                p.setsockopt(l, SockOpt::RcvBuf(size)).unwrap();
                p.bind(l, addr(SERVER_IP, 7)).unwrap();
                p.listen(l, 4).unwrap();
                let (s, _) = p.accept(l).unwrap();
                p.close(l).unwrap();
                assert!(p.is_offloaded(s).unwrap());
                // The kernel rounds it up to whole segments.
                let may = p.getsockopt(s, SockOptName::RcvBuf).unwrap();
                assert!((i64::from(size)..i64::from(size) + 9000).contains(&may));
                p.sleep(Duration::from_secs(2));
                let held = p.fionread(s).unwrap() as i64;
                assert!((may / 2..=may).contains(&held), "{held} of {may} bytes");
                assert_eq!(drain(p, s, 161, 0), 300_000);
                assert_eq!(p.getsockopt(s, SockOptName::RcvBuf), Ok(may));
            });
        bed.k.run_until_idle();
        let c = peer(&bed, sender(161, 300_000));
        c.join();
        r.join();
        quiet(bed);
    }
}
