//! Sizes and places of buffers (upstream hazard 6).

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Errno, Prot};

use crate::help::{BIG, SOON, drain, ends, on, quiet, run, writes};

#[test]
fn no_byte() {
    let (n, got) = run(
        400,
        |p, s| {
            let va = p.alloc(&[1; 16]);
            let cb = p.aio_write(s, va, 0).unwrap();
            let n = p.aio_wait(cb);
            p.close(s).unwrap();
            n
        },
        |p, s| drain(p, s, 400),
    );
    assert_eq!((n, got), (Ok(0), 0));
}

#[test]
fn more_than_sixteen_megabytes() {
    const LEN: usize = (35 << 20) + 12_345;
    let (n, got) = run(
        401,
        |p, s| {
            let jobs = writes(p, s, 401, &[LEN]);
            let n = p.aio_wait(jobs[0]);
            p.close(s).unwrap();
            n
        },
        |p, s| drain(p, s, 401),
    );
    assert_eq!((n, got), (Ok(LEN), LEN as u64));
}

#[test]
fn every_offset_and_length_about_a_page() {
    let (sum, got) = run(
        402,
        |p, s| {
            let mut at = 0;
            for (off, len) in [0, 1, 2, 2047, 4094, 4095]
                .into_iter()
                .flat_map(|o| [1, 2, 63, 64, 4095, 4096, 4097, 8193].map(|l| (o, l)))
            {
                let va = p.mmap(16_384, Prot::RW).unwrap() + off;
                p.store(va, &pattern::bytes(402, at, len)).unwrap();
                let cb = p.aio_write(s, va, len).unwrap();
                assert_eq!(p.aio_wait(cb), Ok(len), "{off} {len}");
                at += len as u64;
            }
            p.close(s).unwrap();
            at
        },
        |p, s| drain(p, s, 402),
    );
    assert_eq!(sum, got);
}

#[test]
fn a_source_that_cannot_be_written_to() {
    let (n, got) = run(
        403,
        |p, s| {
            let va = p.mmap(40_960, Prot::RW).unwrap();
            p.store(va, &pattern::bytes(403, 0, 40_000)).unwrap();
            p.mprotect(va, 40_960, Prot::R).unwrap();
            let cb = p.aio_write(s, va, 40_000).unwrap();
            let n = p.aio_wait(cb);
            p.close(s).unwrap();
            n
        },
        |p, s| drain(p, s, 403),
    );
    assert_eq!((n, got), (Ok(40_000), 40_000));
}

#[test]
fn memory_that_is_not_there() {
    let (r, got) = run(
        404,
        |p, s| {
            let va = p.mmap(40_960, Prot::RW).unwrap();
            p.store(va, &pattern::bytes(404, 0, 40_960)).unwrap();
            // None of it; then the end is missing; then whole again behind both.
            p.munmap(va + 20_480, 20_480).unwrap();
            let jobs = [
                p.aio_write(s, va + 20_480, 4096).unwrap(),
                p.aio_write(s, va, 40_960).unwrap(),
            ];
            let r = ends(p, jobs.to_vec());
            p.close(s).unwrap();
            r
        },
        |p, s| drain(p, s, 404),
    );
    assert_eq!(r[0], Err(Errno::EFAULT));
    // All, or what could be read before the hole.
    match r[1] {
        Err(e) => assert_eq!((e, got), (Errno::EFAULT, 0)),
        Ok(n) => assert_eq!((n as u64, n <= 20_480), (got, true)),
    }
}

#[test]
fn a_hole_in_a_later_piece_gives_the_count_before_it() {
    let (r, got) = run(
        405,
        |p, s| {
            let va = p.alloc(&pattern::bytes(405, 0, BIG));
            // Behind the first eight megabytes.
            p.munmap(va + (10 << 20), 4096).unwrap();
            let cb = p.aio_write(s, va, BIG).unwrap();
            let r = p.aio_wait(cb);
            p.close(s).unwrap();
            r
        },
        |p, s| drain(p, s, 405),
    );
    let n = r.unwrap() as u64;
    assert_eq!(n, got);
    // Up to the hole, if the piece before it was copied.
    assert!((8 << 20..=10 << 20).contains(&n), "{n}");
}

#[test]
fn far_more_than_the_socket_buffer_and_one_byte_at_a_time() {
    for (seed, sndbuf) in [(406, 4096), (407, 20_000), (408, 1 << 20)] {
        let bed = Bed::up(seed);
        let (n, got) = on(
            &bed,
            move |p, s| {
                p.setsockopt(s, ukern::proc::SockOpt::SndBuf(sndbuf))
                    .unwrap();
                let mut lens = vec![3 << 20];
                lens.extend([1; 40]);
                let jobs = writes(p, s, seed, &lens);
                let r = ends(p, jobs);
                p.close(s).unwrap();
                r.into_iter().map(Result::unwrap).sum::<usize>()
            },
            move |p, s| drain(p, s, seed),
        );
        assert_eq!((n, got), ((3 << 20) + 40, (3 << 20) + 40), "seed {seed}");
        quiet(bed);
    }
}

#[test]
fn nonblocking_ends_short_and_the_rest_is_another_write() {
    let (n, got) = run(
        409,
        |p, s| {
            p.set_nonblock(s, true).unwrap();
            let va = p.alloc(&pattern::bytes(409, 0, BIG));
            let mut at = 0;
            let mut shorts = 0;
            while at < BIG {
                let cb = p.aio_write(s, va + at as u64, BIG - at).unwrap();
                let n = p.aio_wait(cb).unwrap();
                assert!(n > 0);
                shorts += usize::from(n < BIG - at);
                at += n;
            }
            assert!(shorts > 0);
            p.close(s).unwrap();
            at
        },
        |p, s| {
            p.sleep(SOON);
            drain(p, s, 409)
        },
    );
    assert_eq!((n, got), (BIG, BIG as u64));
}
