//! Bytes that move: whole, short, in order, from and to memory of every kind.

use toehold_e2e::pattern;
use ukern::proc::{Errno, Poll, Proc, Prot};

use crate::world::{
    MS, Path, SOON, World, both_ways, check_at, connect, ended, in_progress, read_to_end, run,
};

both_ways! {
    stream
    two_reads
    short_read
    short_write
    large_write
    zero_length
    read_only_target
    read_only_source
    mixed
    many_connections
}

const STREAM: usize = 4 << 20;
const BUF: usize = 128 << 10;

/// Writes the stream with two jobs in flight.
fn aio_send(p: &Proc, s: i32, seed: u64, len: usize) {
    let va = p.alloc(&pattern::bytes(seed, 0, len));
    let mut jobs = std::collections::VecDeque::new();
    for off in (0..len).step_by(BUF) {
        if jobs.len() == 2 {
            assert_eq!(p.aio_wait(jobs.pop_front().unwrap()), Ok(BUF));
        }
        jobs.push_back(p.aio_write(s, va + off as u64, BUF).unwrap());
    }
    for cb in jobs {
        assert_eq!(p.aio_wait(cb), Ok(BUF));
    }
}

/// Reads the stream to its end with two jobs in flight; its length.
fn aio_receive(p: &Proc, s: i32, seed: u64) -> u64 {
    let vas = [
        p.mmap(BUF, Prot::RW).unwrap(),
        p.mmap(BUF, Prot::RW).unwrap(),
    ];
    let mut jobs = vas.map(|va| p.aio_read(s, va, BUF).unwrap());
    let (mut at, mut i) = (0, 0);
    loop {
        let n = p.aio_wait(jobs[i]).unwrap();
        if n == 0 {
            assert_eq!(p.aio_wait(jobs[1 - i]), Ok(0), "data after the end of file");
            return at;
        }
        at = check_at(p, vas[i], n, seed, at);
        jobs[i] = p.aio_read(s, vas[i], BUF).unwrap();
        i = 1 - i;
    }
}

fn stream(path: Path) {
    let w = World::up(path, 10);
    let before = w.bed.stats();
    let (n, ()) = w.run(
        |p, s| aio_receive(p, s, 10),
        |p, s| {
            aio_send(p, s, 10, STREAM);
            p.close(s).unwrap();
        },
    );
    assert_eq!(n, STREAM as u64);
    let grown = |name: &str| w.bed.stat(name) - before[name];
    if path == Path::Toe {
        assert_eq!(
            grown("tx_aio_octets"),
            STREAM as u64,
            "sent from the program's pages"
        );
        assert!(
            grown("rx_aio_ddp_octets") > STREAM as u64 / 2,
            "placed in the program's pages"
        );
    } else {
        for (name, v) in w.bed.stats() {
            assert_eq!(
                v, before[&name],
                "{name}: toehold had a part in a connection over lo0"
            );
        }
    }
    w.down();
}

/// What arrives for the first leaves the second waiting.
fn two_reads(path: Path) {
    run(
        path,
        11,
        |p, s| {
            let va = p.mmap(8192, Prot::RW).unwrap();
            let a = p.aio_read(s, va, 512).unwrap();
            let b = p.aio_read(s, va + 4096, 512).unwrap();
            assert_eq!(ended(p, a), Ok(512));
            p.sleep(SOON);
            assert!(in_progress(p, b), "the second ended with the first");
            p.send_all(s, b"!").unwrap();
            assert_eq!(ended(p, b), Ok(512));
            check_at(p, va, 512, 11, 0);
            check_at(p, va + 4096, 512, 11, 512);
        },
        |p, s| {
            p.sleep(MS);
            p.send_all(s, &pattern::bytes(11, 0, 512)).unwrap();
            p.recv_exact(s, 1).unwrap();
            p.send_all(s, &pattern::bytes(11, 512, 512)).unwrap();
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        },
    );
}

/// A read ends with what there is.
fn short_read(path: Path) {
    run(
        path,
        12,
        |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            for i in 0..4 {
                let cb = p.aio_read(s, va, 65_536).unwrap();
                assert_eq!(ended(p, cb), Ok(100));
                check_at(p, va, 100, 12, 100 * i);
                p.send_all(s, b"!").unwrap();
            }
        },
        |p, s| {
            for i in 0..4 {
                p.sleep(MS);
                p.send_all(s, &pattern::bytes(12, 100 * i, 100)).unwrap();
                p.recv_exact(s, 1).unwrap();
            }
        },
    );
}

/// Non-blocking sockets write what fits, and say how much that was.
fn short_write(path: Path) {
    let (sent, got) = run(
        path,
        13,
        |p, s| {
            let va = p.alloc(&pattern::bytes(13, 0, STREAM));
            p.set_nonblock(s, true).unwrap();
            let cb = p.aio_write(s, va, STREAM).unwrap();
            let n = ended(p, cb).unwrap();
            p.close(s).unwrap();
            n
        },
        |p, s| {
            p.sleep(SOON);
            read_to_end(p, s, 13, 0)
        },
    );
    assert!(sent > 0 && sent < STREAM, "{sent}");
    assert_eq!(got, sent as u64);
}

/// Blocking sockets take their time, and write it all.
fn large_write(path: Path) {
    let ((), got) = run(
        path,
        14,
        |p, s| {
            let va = p.alloc(&pattern::bytes(14, 0, STREAM));
            let cb = p.aio_write(s, va, STREAM).unwrap();
            p.sleep(2 * MS);
            assert!(in_progress(p, cb), "{STREAM} bytes went nowhere");
            assert_eq!(ended(p, cb), Ok(STREAM));
            p.close(s).unwrap();
        },
        |p, s| {
            p.sleep(SOON);
            read_to_end(p, s, 14, 0)
        },
    );
    assert_eq!(got, STREAM as u64);
}

/// Jobs for no byte end with none, and take none.
fn zero_length(path: Path) {
    run(
        path,
        19,
        |p, s| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_write(s, va, 0).unwrap();
            assert_eq!(ended(p, cb), Ok(0));
            assert!(p.poll(s, Poll::IN, None).unwrap().readable);
            let cb = p.aio_read(s, va, 0).unwrap();
            assert_eq!(ended(p, cb), Ok(0));
            let cb = p.aio_read(s, va, 4096).unwrap();
            assert_eq!(ended(p, cb), Ok(100));
            check_at(p, va, 100, 19, 0);
        },
        |p, s| {
            p.send_all(s, &pattern::bytes(19, 0, 100)).unwrap();
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        },
    );
}

/// EFAULT, and the stream keeps what could not be stored.
fn read_only_target(path: Path) {
    run(
        path,
        15,
        |p, s| {
            assert!(p.poll(s, Poll::IN, None).unwrap().readable);
            let ro = p.mmap(4096, Prot::R).unwrap();
            let cb = p.aio_read(s, ro, 4096).unwrap();
            assert_eq!(ended(p, cb), Err(Errno::EFAULT));
            let cb = p.aio_read(s, 0x1000, 4096).unwrap();
            assert_eq!(ended(p, cb), Err(Errno::EFAULT));
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 4096).unwrap();
            assert_eq!(ended(p, cb), Ok(1000));
            check_at(p, va, 1000, 15, 0);
        },
        |p, s| {
            p.send_all(s, &pattern::bytes(15, 0, 1000)).unwrap();
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        },
    );
}

fn read_only_source(path: Path) {
    run(
        path,
        16,
        |p, s| {
            let va = p.alloc(&pattern::bytes(16, 0, 50_000));
            p.mprotect(va, 53_248, Prot::R).unwrap();
            let cb = p.aio_write(s, va, 50_000).unwrap();
            assert_eq!(ended(p, cb), Ok(50_000));
        },
        |p, s| pattern::check(16, 0, &p.recv_exact(s, 50_000).unwrap()),
    );
}

/// aio and plain calls in turns keep the order, both ways.
fn mixed(path: Path) {
    const PART: usize = 30_000;
    const PARTS: usize = 40;
    let (got, ()) = run(
        path,
        17,
        |p, s| {
            let va = p.mmap(PART, Prot::RW).unwrap();
            let mut at = 0;
            for i in 0.. {
                if i % 2 == 0 {
                    let got = p.recv_bytes(s, PART / 2).unwrap();
                    if got.is_empty() {
                        break;
                    }
                    pattern::check(17, at, &got);
                    at += got.len() as u64;
                } else {
                    let cb = p.aio_read(s, va, PART).unwrap();
                    match p.aio_wait(cb).unwrap() {
                        0 => break,
                        n => at = check_at(p, va, n, 17, at),
                    }
                }
            }
            at
        },
        |p, s| {
            let va = p.alloc(&pattern::bytes(17, 0, PART * PARTS));
            for i in 0..PARTS {
                let part = va + (i * PART) as u64;
                if i % 2 == 0 {
                    let data = p.load_vec(part, PART);
                    p.send_all(s, &data).unwrap();
                } else {
                    let cb = p.aio_write(s, part, PART).unwrap();
                    assert_eq!(p.aio_wait(cb), Ok(PART));
                }
            }
            p.close(s).unwrap();
        },
    );
    assert_eq!(got, (PART * PARTS) as u64);
}

/// 64 connections at once, each with a read and a write under way.
fn many_connections(path: Path) {
    const N: usize = 64;
    const LEN: usize = 100_000;
    let w = World::up(path, 18);
    let peer = w.peers(N, |p, fds| {
        let va = p.alloc(&pattern::bytes(18, 0, LEN));
        let writes: Vec<_> = fds
            .iter()
            .map(|s| p.aio_write(*s, va, LEN).unwrap())
            .collect();
        for (s, cb) in fds.iter().zip(writes) {
            assert_eq!(ended(p, cb), Ok(LEN));
            pattern::check(18, 0, &p.recv_exact(*s, LEN).unwrap());
            p.close(*s).unwrap();
        }
    });
    let program = w.bed.k.spawn(
        ukern::proc::ProcConfig::vnet(toehold_e2e::CLIENT),
        move |p| {
            let out = p.alloc(&pattern::bytes(18, 0, LEN));
            let open = |_| {
                let (s, va) = (connect(p, path), p.mmap(LEN, Prot::RW).unwrap());
                (
                    s,
                    va,
                    p.aio_read(s, va, LEN).unwrap(),
                    p.aio_write(s, out, LEN).unwrap(),
                )
            };
            let all: Vec<_> = (0..N).map(open).collect();
            for (s, va, read, write) in all {
                let mut at = check_at(p, va, ended(p, read).unwrap(), 18, 0);
                while at < LEN as u64 {
                    let cb = p.aio_read(s, va, LEN).unwrap();
                    at = check_at(p, va, ended(p, cb).unwrap(), 18, at);
                }
                assert_eq!(ended(p, write), Ok(LEN));
                p.close(s).unwrap();
            }
        },
    );
    program.join();
    peer.join();
    w.down();
}
