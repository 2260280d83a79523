//! Connections that end while jobs are outstanding.

use toehold_e2e::pattern;
use ukern::proc::{Errno, Prot, Shut, Sys};

use crate::world::{
    MS, Path, SOON, both_ways, check_at, ended, in_progress, read_to_end, reset, run,
};

both_ways! {
    eof_reads
    eof_after_data
    reset_reads
    reset_writes
    shutdown_read
    shutdown_write
    half_close
    after_reset
    after_fin
}

/// Reads that never saw a byte hear of the end of the stream, all of them.
fn eof_reads(path: Path) {
    let (r, ()) = run(
        path,
        70,
        |p, s| {
            let va = p.mmap(4 * 4096, Prot::RW).unwrap();
            let jobs: Vec<_> = (0..4)
                .map(|i| p.aio_read(s, va + 4096 * i, 4096).unwrap())
                .collect();
            jobs.into_iter().map(|cb| ended(p, cb)).collect::<Vec<_>>()
        },
        |p, s| {
            p.sleep(5 * MS);
            p.close(s).unwrap();
        },
    );
    assert_eq!(r, [Ok(0); 4]);
}

/// Data first, then the end, in the order of the reads.
fn eof_after_data(path: Path) {
    run(
        path,
        71,
        |p, s| {
            let va = p.mmap(4 * 4096, Prot::RW).unwrap();
            let jobs: Vec<_> = (0..4)
                .map(|i| p.aio_read(s, va + 4096 * i, 4096).unwrap())
                .collect();
            let (mut at, mut end) = (0, false);
            for (i, cb) in jobs.into_iter().enumerate() {
                let n = ended(p, cb).unwrap();
                assert!(!end || n == 0, "data after the end of file");
                end = n == 0;
                at = check_at(p, va + 4096 * i as u64, n, 71, at);
            }
            assert!(end);
            assert_eq!(at, 5000);
        },
        |p, s| {
            p.sleep(5 * MS);
            p.send_all(s, &pattern::bytes(71, 0, 5000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// The first gets the error, as read(2) would; to the others it is the end of the stream.
fn reset_reads(path: Path) {
    let (r, ()) = run(
        path,
        72,
        |p, s| {
            let va = p.mmap(3 * 4096, Prot::RW).unwrap();
            let jobs: Vec<_> = (0..3)
                .map(|i| p.aio_read(s, va + 4096 * i, 4096).unwrap())
                .collect();
            jobs.into_iter().map(|cb| ended(p, cb)).collect::<Vec<_>>()
        },
        |p, s| {
            p.sleep(5 * MS);
            reset(p, s);
        },
    );
    assert_eq!(r, [Err(Errno::ECONNRESET), Ok(0), Ok(0)]);
}

/// A write that was under way ends with the error or with what it had sent, one that had not
/// begun with an error.
fn reset_writes(path: Path) {
    let (r, ()) = run(
        path,
        73,
        |p, s| {
            let va = p.alloc(&pattern::bytes(73, 0, 4 << 20));
            let first = p.aio_write(s, va, 4 << 20).unwrap();
            let second = p.aio_write(s, va, 1000).unwrap();
            p.sleep(5 * MS);
            assert!(in_progress(p, first) && in_progress(p, second));
            p.sleep(SOON);
            [ended(p, first), ended(p, second)]
        },
        |p, s| {
            p.sleep(20 * MS);
            reset(p, s);
        },
    );
    let gone = |r: &Sys<usize>| matches!(r, Err(Errno::ECONNRESET | Errno::EPIPE));
    assert!(gone(&r[0]) || r[0].is_ok_and(|n| n < 4 << 20), "{r:?}");
    assert!(gone(&r[1]), "{r:?}");
}

/// The own reading side is closed under the reads.
fn shutdown_read(path: Path) {
    let (r, ()) = run(
        path,
        74,
        |p, s| {
            let va = p.mmap(3 * 4096, Prot::RW).unwrap();
            let jobs: Vec<_> = (0..3)
                .map(|i| p.aio_read(s, va + 4096 * i, 4096).unwrap())
                .collect();
            p.sleep(5 * MS);
            p.shutdown(s, Shut::Rd).unwrap();
            let r: Vec<_> = jobs.into_iter().map(|cb| ended(p, cb)).collect();
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
            let cb = p.aio_read(s, va, 4096).unwrap();
            assert_eq!(ended(p, cb), Ok(0));
            // The other direction is none the worse.
            let out = p.alloc(&pattern::bytes(74, 0, 10_000));
            let cb = p.aio_write(s, out, 10_000).unwrap();
            assert_eq!(ended(p, cb), Ok(10_000));
            r
        },
        |p, s| pattern::check(74, 0, &p.recv_exact(s, 10_000).unwrap()),
    );
    assert_eq!(r, [Ok(0); 3]);
}

/// The own writing side is closed under the writes: what was accepted is sent, the rest fails.
fn shutdown_write(path: Path) {
    const LEN: usize = 4 << 20;
    let (r, got) = run(
        path,
        75,
        |p, s| {
            let va = p.alloc(&pattern::bytes(75, 0, LEN));
            let first = p.aio_write(s, va, LEN).unwrap();
            let second = p.aio_write(s, va, 1000).unwrap();
            p.sleep(5 * MS);
            assert!(in_progress(p, first) && in_progress(p, second));
            p.shutdown(s, Shut::Wr).unwrap();
            let r = [ended(p, first), ended(p, second)];
            let cb = p.aio_write(s, va, 1).unwrap();
            assert_eq!(ended(p, cb), Err(Errno::EPIPE));
            r
        },
        |p, s| {
            p.sleep(SOON);
            read_to_end(p, s, 75, 0)
        },
    );
    assert!(got > 0 && got < LEN as u64, "{got}");
    assert!(
        r[0] == Err(Errno::EPIPE) || r[0] == Ok(got as usize),
        "{r:?}, {got} arrived"
    );
    assert_eq!(r[1], Err(Errno::EPIPE));
}

/// Reads go on after the own end of the stream was sent.
fn half_close(path: Path) {
    run(
        path,
        76,
        |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let mut cb = p.aio_read(s, va, 65_536).unwrap();
            let out = p.alloc(&pattern::bytes(77, 0, 10_000));
            let w = p.aio_write(s, out, 10_000).unwrap();
            assert_eq!(ended(p, w), Ok(10_000));
            p.shutdown(s, Shut::Wr).unwrap();
            let mut at = 0;
            loop {
                match ended(p, cb).unwrap() {
                    0 => break,
                    n => at = check_at(p, va, n, 76, at),
                }
                cb = p.aio_read(s, va, 65_536).unwrap();
            }
            assert_eq!(at, 500_000);
        },
        |p, s| {
            assert_eq!(read_to_end(p, s, 77, 0), 10_000);
            p.send_all(s, &pattern::bytes(76, 0, 500_000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// New jobs on a connection that was reset. The error was told once, by the read.
fn after_reset(path: Path) {
    run(
        path,
        78,
        |p, s| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 4096).unwrap();
            assert_eq!(ended(p, cb), Err(Errno::ECONNRESET));
            for _ in 0..2 {
                let cb = p.aio_read(s, va, 4096).unwrap();
                assert_eq!(ended(p, cb), Ok(0));
                let cb = p.aio_write(s, va, 4096).unwrap();
                assert_eq!(ended(p, cb), Err(Errno::EPIPE));
            }
        },
        |p, s| {
            p.sleep(5 * MS);
            reset(p, s);
        },
    );
}

/// New jobs on a connection of which both directions are closed, in TIME_WAIT.
fn after_fin(path: Path) {
    run(
        path,
        79,
        |p, s| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            p.shutdown(s, Shut::Wr).unwrap();
            let cb = p.aio_read(s, va, 4096).unwrap();
            assert_eq!(ended(p, cb), Ok(0));
            p.sleep(SOON);
            for _ in 0..2 {
                let cb = p.aio_read(s, va, 4096).unwrap();
                assert_eq!(ended(p, cb), Ok(0));
                let cb = p.aio_write(s, va, 4096).unwrap();
                assert_eq!(ended(p, cb), Err(Errno::EPIPE));
            }
        },
        |p, s| {
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
            p.close(s).unwrap();
        },
    );
}
