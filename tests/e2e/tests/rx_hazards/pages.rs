//! Memory that changes under a read: unmapped, mapped anew, protected, copied on write,
//! truncated, inherited; while its pages are cached, staged, posted or being completed.

use std::time::Duration;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{AioCb, Errno, Proc, Prot, UserVa};

use crate::help::{MS, SOON, check, drain, go, on, quiet, ready, run, stat};

const LEN: usize = 4 * 4096;
/// Buffers begin here in their page, so that the program has something else in it.
const OFF: u64 = 100;

/// A peer that sends `n` bytes at each sign, then closes.
fn at_each_sign(seed: u64, times: usize, n: usize) -> impl FnOnce(&Proc, i32) {
    move |p, s| {
        for i in 0..times {
            ready(p, s);
            let off = (i * n) as u64;
            p.send_all(s, &pattern::bytes(seed, off, n)).unwrap();
        }
        p.close(s).unwrap();
    }
}

/// A read that is posted to the adapter, with nothing to fill it yet.
fn posted(p: &Proc, s: i32, va: UserVa) -> AioCb {
    let cb = p.aio_read(s, va, LEN).unwrap();
    p.sleep(SOON);
    assert_eq!(p.aio_error(cb), Ok(Errno::EINPROGRESS.0));
    cb
}

/// Reads the first `LEN` bytes, and leaves the buffer's pages in the cache.
fn cached(p: &Proc, s: i32, va: UserVa, seed: u64) {
    let cb = posted(p, s, va);
    go(p, s);
    assert_eq!(p.aio_wait(cb), Ok(LEN));
    check(p, va, LEN, seed, 0);
}

/// Everything read by one posted read, with `change` made meanwhile.
fn change_while_posted(seed: u64, change: impl FnOnce(&Proc, UserVa) + 'static) {
    run(
        seed,
        move |p, s| {
            let va = p.alloc(&[0xee; LEN + 4096]) + OFF;
            let cb = posted(p, s, va);
            change(p, va);
            go(p, s);
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            check(p, va, LEN, seed, 0);
            assert_eq!(drain(p, s, seed, LEN as u64), LEN as u64);
        },
        at_each_sign(seed, 1, LEN),
    );
}

/// One read by cached pages, with `change` made between that and the read before.
fn change_while_cached(seed: u64, change: impl FnOnce(&Proc, UserVa) + 'static) {
    run(
        seed,
        move |p, s| {
            let va = p.alloc(&[0xee; LEN + 4096]) + OFF;
            cached(p, s, va, seed);
            change(p, va);
            let cb = posted(p, s, va);
            go(p, s);
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            check(p, va, LEN, seed, LEN as u64);
            assert_eq!(drain(p, s, seed, 2 * LEN as u64), 2 * LEN as u64);
        },
        at_each_sign(seed, 2, LEN),
    );
}

/// Four reads wait, of which two are posted and the others may have pages already; `change` is
/// made to the buffer of the last two.
fn change_while_queued(seed: u64, change: impl FnOnce(&Proc, UserVa) + 'static) {
    run(
        seed,
        move |p, s| {
            let front = p.alloc(&[0xee; 2 * LEN]);
            let va = p.alloc(&[0xee; 2 * LEN + 4096]) + OFF;
            let len = LEN as u64;
            let all = [front, front + len, va, va + len];
            let jobs = all.map(|a| p.aio_read(s, a, LEN).unwrap());
            p.sleep(SOON);
            change(p, va);
            go(p, s);
            let mut at = 0;
            for (va, cb) in all.into_iter().zip(jobs) {
                let n = p.aio_wait(cb).unwrap();
                at = check(p, va, n, seed, at);
            }
            assert_eq!(drain(p, s, seed, at), 4 * len);
        },
        at_each_sign(seed, 1, 4 * LEN),
    );
}

fn page(va: UserVa) -> UserVa {
    va & !4095
}

/// New memory at the same address, with other contents.
fn remap(p: &Proc, va: UserVa) {
    let old = p.phys_of(va);
    p.munmap(page(va), LEN + 4096).unwrap();
    p.mmap_fixed(page(va), LEN + 4096, Prot::RW).unwrap();
    p.fill(page(va), LEN + 4096, 0x55).unwrap();
    assert_ne!(p.phys_of(va), old);
}

/// A child that lives on, and the parent's pages copied by its next stores.
fn fork_and_write(p: &Proc, va: UserVa) {
    let old = p.phys_of(va);
    p.fork(|c| c.sleep(100 * MS)).unwrap();
    // Beside the buffer in its first page, and in the middle of it.
    p.store(page(va), &[1]).unwrap();
    p.store(va + 9000, &[2]).unwrap();
    assert_ne!(p.phys_of(va), old);
}

fn protect_and_back(p: &Proc, va: UserVa) {
    p.mprotect(page(va), LEN + 4096, Prot::NONE).unwrap();
    p.mprotect(page(va), LEN + 4096, Prot::RW).unwrap();
}

#[test]
fn a_new_mapping_while_cached() {
    change_while_cached(10, remap);
}

#[test]
fn a_new_mapping_while_queued() {
    change_while_queued(11, remap);
}

#[test]
fn a_new_mapping_while_posted() {
    change_while_posted(12, remap);
}

#[test]
fn fork_and_copy_on_write_while_cached() {
    change_while_cached(13, fork_and_write);
}

#[test]
fn fork_and_copy_on_write_while_queued() {
    change_while_queued(14, fork_and_write);
}

#[test]
fn fork_and_copy_on_write_while_posted() {
    change_while_posted(15, fork_and_write);
}

#[test]
fn protection_taken_away_and_given_back() {
    change_while_cached(16, protect_and_back);
    change_while_queued(17, protect_and_back);
    change_while_posted(18, protect_and_back);
}

#[test]
fn fork_alone_changes_nothing() {
    let fork = |p: &Proc, _| drop(p.fork(|c| c.sleep(100 * MS)).unwrap());
    change_while_cached(19, fork);
    change_while_queued(20, fork);
    change_while_posted(21, fork);
}

#[test]
fn unmapped_while_posted_takes_the_bytes_and_nothing_else() {
    for seed in 30..34 {
        run(
            seed,
            move |p, s| {
                let va = p.alloc(&[0xee; LEN]);
                let cb = posted(p, s, va);
                p.munmap(va, LEN).unwrap();
                // Whoever gets the frames next must not see a byte arrive in them.
                let other = p.alloc(&[0x77; 8 * LEN]);
                go(p, s);
                let at = match p.aio_wait(cb) {
                    Ok(n) => n as u64,
                    Err(e) => {
                        assert_eq!(e, Errno::EFAULT);
                        0
                    }
                };
                assert!(p.load_vec(other, 8 * LEN).iter().all(|b| *b == 0x77));
                assert_eq!(drain(p, s, seed, at), 2 * LEN as u64);
            },
            at_each_sign(seed, 1, 2 * LEN),
        );
    }
}

#[test]
fn unmapped_while_cached_is_efault_and_loses_nothing() {
    run(
        40,
        |p, s| {
            let va = p.alloc(&[0xee; LEN]);
            cached(p, s, va, 40);
            p.munmap(va, LEN).unwrap();
            let cb = p.aio_read(s, va, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Err(Errno::EFAULT));
            go(p, s);
            assert_eq!(drain(p, s, 40, LEN as u64), 2 * LEN as u64);
        },
        at_each_sign(40, 2, LEN),
    );
}

#[test]
fn read_only_while_cached_is_efault_and_loses_nothing() {
    run(
        41,
        |p, s| {
            let va = p.alloc(&[0xee; LEN]);
            cached(p, s, va, 41);
            p.mprotect(va, LEN, Prot::R).unwrap();
            let cb = p.aio_read(s, va, LEN).unwrap();
            go(p, s);
            assert_eq!(p.aio_wait(cb), Err(Errno::EFAULT));
            check(p, va, LEN, 41, 0);
            assert_eq!(drain(p, s, 41, LEN as u64), 2 * LEN as u64);
        },
        at_each_sign(41, 2, LEN),
    );
}

/// The set of one process must not serve another that has the same socket and addresses.
#[test]
fn parent_and_child_read_into_the_same_address() {
    run(
        50,
        |p, s| {
            let va = p.alloc(&[0xee; LEN]);
            cached(p, s, va, 50);
            let child = p
                .fork(move |c| {
                    let cb = posted(c, s, va);
                    go(c, s);
                    assert_eq!(c.aio_wait(cb), Ok(LEN));
                    check(c, va, LEN, 50, LEN as u64);
                })
                .unwrap();
            child.join();
            check(p, va, LEN, 50, 0);
            let cb = posted(p, s, va);
            go(p, s);
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            check(p, va, LEN, 50, 2 * LEN as u64);
        },
        at_each_sign(50, 3, LEN),
    );
}

/// Reads what the mapping of a shared object shows after `change`, made while its pages are cached.
fn truncated_while_cached(seed: u64, shared: bool) {
    let bed = Bed::up(seed);
    let k = bed.k.api();
    on(
        &bed,
        move |p, s| {
            let obj = k.shm(LEN);
            let va = p.mmap_object(&obj, 0, LEN, Prot::RW, shared).unwrap();
            p.fill(va, LEN, 0xee).unwrap();
            cached(p, s, va, seed);
            obj.truncate(0);
            if shared {
                assert_eq!(p.load(va, &mut [0]), Err(Errno::EFAULT));
            }
            obj.truncate(LEN);
            let cb = posted(p, s, va);
            go(p, s);
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            check(p, va, LEN, seed, LEN as u64);
            let again = p.mmap_object(&obj, 0, LEN, Prot::R, true).unwrap();
            if shared {
                check(p, again, LEN, seed, LEN as u64);
            }
        },
        at_each_sign(seed, 2, LEN),
    );
    quiet(bed);
}

#[test]
fn a_shared_object_truncated_and_grown_while_cached() {
    truncated_while_cached(60, true);
}

#[test]
fn a_private_mapping_of_an_object_truncated_while_cached() {
    truncated_while_cached(61, false);
}

/// The bytes went to pages that the program cannot see any more: it is told, and those behind
/// them are the next read's.
#[test]
fn a_shared_object_truncated_while_posted() {
    for (seed, grow) in [(62, false), (63, true)] {
        let bed = Bed::up(seed);
        let k = bed.k.api();
        on(
            &bed,
            move |p, s| {
                let obj = k.shm(LEN);
                let va = p.mmap_object(&obj, 0, LEN, Prot::RW, true).unwrap();
                p.fill(va, LEN, 0xee).unwrap();
                let cb = posted(p, s, va);
                obj.truncate(0);
                if grow {
                    obj.truncate(LEN);
                }
                go(p, s);
                assert_eq!(p.aio_wait(cb), Err(Errno::EFAULT));
                let next = if grow { va } else { p.alloc(&[0xee; LEN]) };
                let cb = posted(p, s, next);
                go(p, s);
                assert_eq!(p.aio_wait(cb), Ok(LEN));
                check(p, next, LEN, seed, LEN as u64);
            },
            at_each_sign(seed, 2, LEN),
        );
        quiet(bed);
    }
}

/// Reads into a mapped file, one after the other into the same pages, which are written back
/// `when_posted` or between the reads; then the vnode is recycled. What was read is in the file.
fn written_back(seed: u64, when_posted: bool) {
    let bed = Bed::up(seed);
    let file = bed.k.api().file(LEN);
    let f = file.clone();
    on(
        &bed,
        move |p, s| {
            let va = p.mmap_file(&f, LEN, Prot::RW, true).unwrap();
            for i in 0..3 {
                if !when_posted {
                    f.sync();
                }
                let cb = posted(p, s, va);
                if when_posted {
                    f.sync();
                }
                go(p, s);
                assert_eq!(p.aio_wait(cb), Ok(LEN));
                check(p, va, LEN, seed, i * LEN as u64);
            }
            p.munmap(va, LEN).unwrap();
        },
        at_each_sign(seed, 3, LEN),
    );
    assert!(file.recycle());
    let want = pattern::bytes(seed, 2 * LEN as u64, LEN);
    assert!(file.read() == want, "seed {seed}: the file has other bytes");
    drop(file);
    quiet(bed);
}

#[test]
fn a_mapped_file_is_written_back_between_reads() {
    for seed in 64..68 {
        written_back(seed, false);
    }
}

#[test]
fn a_mapped_file_is_written_back_under_a_posted_read() {
    for seed in 68..72 {
        written_back(seed, true);
    }
}

/// Bytes that were copied to the pages, not placed.
#[test]
fn what_is_copied_to_a_mapped_file_is_written_back() {
    let bed = Bed::up(72);
    let file = bed.k.api().file(LEN);
    let f = file.clone();
    on(
        &bed,
        move |p, s| {
            let va = p.mmap_file(&f, LEN, Prot::RW, true).unwrap();
            cached(p, s, va, 72);
            go(p, s);
            p.sleep(SOON);
            f.sync();
            let cb = p.aio_read(s, va, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            check(p, va, LEN, 72, LEN as u64);
            p.munmap(va, LEN).unwrap();
        },
        at_each_sign(72, 2, LEN),
    );
    assert!(file.recycle());
    assert!(file.read() == pattern::bytes(72, LEN as u64, LEN));
    drop(file);
    quiet(bed);
}

fn all_dirty(p: &Proc, va: UserVa) -> bool {
    (page(va)..va + LEN as u64)
        .step_by(4096)
        .all(|a| p.page_dirty(a) == Some(true))
}

/// Pages written back while they were posted or cached are dirty again when the read is over.
#[test]
fn pages_are_dirty_when_the_read_is_over() {
    let clean = |p: &Proc, va: UserVa| {
        p.msync(page(va), LEN + 4096);
        assert!(!all_dirty(p, va));
    };
    for (seed, when_cached) in [(70, false), (71, true)] {
        run(
            seed,
            move |p, s| {
                let va = p.alloc(&[0xee; LEN + 4096]) + OFF;
                cached(p, s, va, seed);
                assert!(all_dirty(p, va));
                if when_cached {
                    clean(p, va);
                }
                let cb = posted(p, s, va);
                if !when_cached {
                    clean(p, va);
                }
                go(p, s);
                assert_eq!(p.aio_wait(cb), Ok(LEN));
                assert!(all_dirty(p, va), "seed {seed}");
            },
            at_each_sign(seed, 2, LEN),
        );
    }
}

#[test]
fn exec_with_reads_in_every_state() {
    for seed in 80..84 {
        let bed = Bed::up(seed);
        let k = bed.k.api();
        on(
            &bed,
            move |p, s| {
                let va = p.alloc(&[0xee; 4 * LEN]);
                for i in 0..4 {
                    p.aio_read(s, va + i * LEN as u64, LEN).unwrap();
                }
                if seed % 2 == 0 {
                    p.sleep(SOON);
                }
                p.exec().unwrap();
                assert_eq!(p.aio_pending(), 0);
                let va = p.alloc(&[0xdd; LEN]);
                let cb = posted(p, s, va);
                go(p, s);
                assert_eq!(p.aio_wait(cb), Ok(LEN));
                check(p, va, LEN, seed, 0);
                assert_eq!(drain(p, s, seed, LEN as u64), LEN as u64);
                // Only the new program's buffer is wired.
                assert!(stat(k, "wired_pages") <= 4 + 16);
            },
            at_each_sign(seed, 1, LEN),
        );
        quiet(bed);
    }
}

/// The process goes while bytes pour into its buffers.
#[test]
fn exit_while_bytes_arrive() {
    for seed in 90..106 {
        let bed = Bed::up(seed);
        bed.sim("invalidate_delay", 50_000 * (seed as i64 % 3));
        let r = crate::help::reader(&bed, move |p, s| {
            let va = p.alloc(&[0xee; 8 * LEN]);
            for i in 0..8 {
                p.aio_read(s, va + i * LEN as u64, LEN).unwrap();
            }
            go(p, s);
            p.sleep(Duration::from_micros(seed * 37 % 200));
            p.exit(0);
        });
        let c = crate::help::peer(&bed, move |p, s| {
            ready(p, s);
            let _ = p.send_all(s, &pattern::bytes(seed, 0, 64 * LEN));
        });
        c.join();
        let _: ukern::proc::Exit<()> = r.wait();
        quiet(bed);
    }
}

/// Another thread forks and writes beside the buffers all the time; every byte must show all the
/// same, whatever the moment: cached, staged, posted, landed.
#[test]
fn forks_and_stores_all_the_time() {
    for seed in 110..118 {
        storm(seed, |p, va| {
            p.fork(|_| ()).unwrap();
            p.store(page(va), &[3]).unwrap();
        });
    }
}

/// The same with memory mapped anew beside them, which leaves the pages as they are.
#[test]
fn maps_and_unmaps_all_the_time() {
    for seed in 120..124 {
        storm(seed, |p, _| {
            let other = p.mmap(4096, Prot::RW).unwrap();
            p.munmap(other, 4096).unwrap();
        });
    }
}

fn storm(seed: u64, change: fn(&Proc, UserVa)) {
    const TOTAL: usize = 600_000;
    run(
        seed,
        move |p, s| {
            // Each with pages of its own, since the other thread writes beside it.
            let va = p.alloc(&[0xee; 3 * (LEN + 4096)]) + OFF;
            let bufs = [0, 1, 2].map(|i| va + i * (LEN as u64 + 4096));
            let over = std::rc::Rc::new(std::cell::Cell::new(false));
            let seen = over.clone();
            let t = p
                .thread(move |p| {
                    let mut n = 0;
                    while !seen.get() {
                        change(p, bufs[n % 3]);
                        p.sleep(Duration::from_micros(seed * 7 % 40 + n as u64 * 13 % 50));
                        n += 1;
                    }
                    n
                })
                .unwrap();
            let mut busy: std::collections::VecDeque<_> = bufs
                .into_iter()
                .map(|va| (va, p.aio_read(s, va, LEN).unwrap()))
                .collect();
            let mut at = 0;
            while let Some((va, cb)) = busy.pop_front() {
                let n = p.aio_wait(cb).unwrap();
                if n > 0 {
                    at = check(p, va, n, seed, at);
                    busy.push_back((va, p.aio_read(s, va, LEN).unwrap()));
                }
            }
            over.set(true);
            let changes = t.join().unwrap();
            assert!(changes > 10, "only {changes} changes");
            assert_eq!(at, TOTAL as u64, "seed {seed}");
        },
        move |p, s| {
            // Slowly, so that the other thread meets every state.
            for off in (0..TOTAL).step_by(10_000) {
                p.send_all(s, &pattern::bytes(seed, off as u64, 10_000))
                    .unwrap();
                p.sleep(Duration::from_micros(seed * 11 % 30));
            }
            p.close(s).unwrap();
        },
    );
}
