//! Buffers of every size and place: longer than the adapter takes at once, empty, odd, across
//! superpages, in each of the adapter's page sizes, not writable.

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Errno, Proc, Prot};

use crate::help::{SOON, check, drain, go, on, quiet, ready, run, stat};

const MB: usize = 1 << 20;

/// A stream of `total` bytes into reads of `len` bytes at `off` in their mapping.
fn stream(seed: u64, len: usize, off: usize, total: usize) {
    let bed = Bed::up(seed);
    on(
        &bed,
        move |p, s| {
            let va = p.mmap(len + off, Prot::RW).unwrap() + off as u64;
            let mut at = 0;
            loop {
                let cb = p.aio_read(s, va, len).unwrap();
                let n = p.aio_wait(cb).unwrap();
                if n == 0 {
                    assert_eq!(at, total as u64);
                    return;
                }
                at = check(p, va, n, seed, at);
            }
        },
        move |p, s| {
            let buf = p.alloc(&pattern::bytes(seed, 0, total));
            let cb = p.aio_write(s, buf, total).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(total));
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}

/// Spans of the adapter's 24 bits and around them.
#[test]
fn longer_than_the_adapter_takes_at_once() {
    let top = 1 << 24;
    for (i, (len, off)) in [
        (top - 4096, 0),
        (top - 4095, 0),
        (top - 1, 1),
        (top, 0),
        (top + 1, 4095),
        (2 * top + 12_345, 77),
    ]
    .into_iter()
    .enumerate()
    {
        stream(10 + i as u64, len, off, len + 1000);
    }
}

#[test]
fn odd_lengths_at_odd_addresses() {
    for i in 0..24_u64 {
        let len = [
            1, 2, 3, 63, 64, 65, 4095, 4096, 4097, 12_287, 65_535, 100_001,
        ][i as usize % 12];
        let off = [0, 1, 31, 32, 63, 2047, 4000, 4095][i as usize % 8];
        stream(20 + i, len, off, (len * 9 + 5).min(300_000));
    }
}

/// Buffers that lie across multiples of 2 MB.
#[test]
fn across_superpages() {
    run(
        50,
        |p, s| {
            let map = p.mmap(5 * MB, Prot::RW).unwrap();
            let big = map.next_multiple_of(2 << 20);
            let mut at = 0;
            for (before, len) in [(1, 2), (4096, 8192), (100_000, 300_001), (5, MB)] {
                let va = big - before;
                let cb = p.aio_read(s, va, len).unwrap();
                p.sleep(SOON);
                go(p, s);
                let n = p.aio_wait(cb).unwrap();
                at = check(p, va, n, 50, at);
                at = check_rest(p, s, len - n, at);
            }
        },
        |p, s| {
            let mut at = 0;
            for len in [2, 8192, 300_001, MB] {
                ready(p, s);
                p.send_all(s, &pattern::bytes(50, at, len)).unwrap();
                at += len as u64;
            }
        },
    );
}

/// Plain reads of exactly `n` more bytes.
fn check_rest(p: &Proc, s: i32, n: usize, at: u64) -> u64 {
    let b = p.recv_exact(s, n).unwrap();
    assert_eq!(b.len(), n);
    pattern::check(50, at, &b);
    at + n as u64
}

/// A read of nothing waits for data, as it does on any socket, and takes none.
#[test]
fn an_empty_read_takes_nothing() {
    run(
        60,
        |p, s| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 0).unwrap();
            p.sleep(SOON);
            assert_eq!(p.aio_error(cb), Ok(Errno::EINPROGRESS.0));
            go(p, s);
            assert_eq!(p.aio_wait(cb), Ok(0));
            assert_eq!(drain(p, s, 60, 0), 5000);
        },
        |p, s| {
            ready(p, s);
            p.send_all(s, &pattern::bytes(60, 0, 5000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// Memory that cannot be written, all of it or some: EFAULT, or what fits before it, and every
/// byte not delivered stays in the stream.
#[test]
fn memory_that_cannot_be_written() {
    for seed in 70..82 {
        let bed = Bed::up(seed);
        on(
            &bed,
            move |p, s| {
                let len = 5 * 4096;
                let va = p.alloc(&vec![0xee; len]);
                let bad = va + 4096 * (seed % 5);
                match seed % 3 {
                    0 => p.mprotect(bad, 4096, Prot::R).unwrap(),
                    1 => p.mprotect(bad, 4096, Prot::NONE).unwrap(),
                    _ => p.munmap(bad, 4096).unwrap(),
                }
                if seed % 2 == 0 {
                    go(p, s);
                    p.sleep(SOON);
                }
                let cb = p.aio_read(s, va, len).unwrap();
                if seed % 2 != 0 {
                    p.sleep(SOON);
                    go(p, s);
                }
                let at = match p.aio_wait(cb) {
                    Ok(n) => {
                        assert!(va + n as u64 <= bad, "seed {seed}");
                        check(p, va, n, seed, 0)
                    }
                    Err(e) => {
                        assert_eq!(e, Errno::EFAULT);
                        0
                    }
                };
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

/// A read of pieces whose later one cannot be written ends short with the earlier ones.
#[test]
fn the_second_piece_cannot_be_written() {
    const LEN: usize = 18 << 20;
    let bed = Bed::up(90);
    on(
        &bed,
        |p, s| {
            let va = p.mmap(LEN, Prot::RW).unwrap();
            p.munmap(va + (17 << 20), 4096).unwrap();
            let cb = p.aio_read(s, va, LEN).unwrap();
            let n = p.aio_wait(cb).unwrap();
            assert!(n <= 17 << 20);
            let at = check(p, va, n, 90, 0);
            assert_eq!(drain(p, s, 90, at), LEN as u64);
        },
        |p, s| {
            let va = p.alloc(&pattern::bytes(90, 0, LEN));
            let cb = p.aio_write(s, va, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}

/// Contiguous memory needs fewer page pods: all four page sizes serve, and every byte lands where
/// it belongs.
#[test]
fn every_page_size_of_the_adapter() {
    let mut used = Vec::new();
    for (i, run_pages) in [1, 4, 16, 64].into_iter().enumerate() {
        let seed = 100 + i as u64;
        let bed = Bed::up(seed);
        let k = bed.k.api();
        let (pods, ()) = on(
            &bed,
            move |p, s| {
                const LEN: usize = 1 << 20;
                let va = p.mmap(LEN, Prot::RW).unwrap();
                k.frames_in_runs(run_pages);
                p.fill(va, LEN, 0xee).unwrap();
                k.frames_in_runs(0);
                let cb = p.aio_read(s, va, LEN).unwrap();
                p.sleep(SOON);
                let pods = stat(k, "ppods_used");
                go(p, s);
                let n = p.aio_wait(cb).unwrap();
                let at = check(p, va, n, seed, 0);
                assert_eq!(drain(p, s, seed, at), LEN as u64);
                pods
            },
            move |p, s| {
                ready(p, s);
                p.send_all(s, &pattern::bytes(seed, 0, 1 << 20)).unwrap();
                p.close(s).unwrap();
            },
        );
        used.push(pods);
        quiet(bed);
    }
    assert_eq!(used, [64, 16, 4, 1], "page pods for 1 MB");
}
