//! Buffers whose pages are replaced by copies between two writes: the peer gets what the program
//! would read, not what an earlier write found there.

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Proc, Prot, UserVa};

use crate::help::{MS, drain, on, quiet};

const LEN: usize = 64 << 10;
const PAGE: usize = 4096;

/// Writes from a buffer twice, with new bytes in it the second time. `map` makes the memory, of
/// which the buffer is all but the first page; its entry gets its shadow object by a store to
/// that.
fn twice(seed: u64, map: impl FnOnce(&Proc, &Files) -> UserVa + 'static) {
    let bed = Bed::up(seed);
    let k = Files(bed.k.api());
    let hits = bed.stat("cache_hits");
    let (sent, got) = on(
        &bed,
        move |p, s| {
            let all = map(p, &k);
            let buf = all + PAGE as u64;
            p.store(all, &[1]).unwrap();
            let cb = p.aio_write(s, buf, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            let stamp = p.map_timestamp();
            let old = p.phys_of(buf);
            let new = pattern::bytes(seed, LEN as u64, LEN);
            p.store(buf, &new).unwrap();
            assert_eq!(p.map_timestamp(), stamp, "the map does not tell");
            assert_ne!(p.phys_of(buf), old, "the pages are others");
            let cb = p.aio_write(s, buf, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            // The same again, from where it is now: nothing is held anew.
            let next = pattern::bytes(seed, 2 * LEN as u64, LEN);
            p.store(buf, &next).unwrap();
            let cb = p.aio_write(s, buf, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            p.close(s).unwrap();
            3 * LEN as u64
        },
        move |p, s| drain(p, s, seed),
    );
    assert_eq!(sent, got, "seed {seed}");
    assert!(bed.stat("cache_hits") > hits, "the cache is of use");
    quiet(bed);
}

struct Files(ukern::Api);

#[test]
fn a_private_mapping_of_a_file() {
    for seed in 900..904 {
        twice(seed, move |p, k| {
            let file = k.0.file(PAGE + LEN);
            let shared = p.mmap_file(&file, PAGE + LEN, Prot::RW, true).unwrap();
            let first = pattern::bytes(seed, 0, LEN);
            p.store(shared + PAGE as u64, &first).unwrap();
            p.munmap(shared, PAGE + LEN).unwrap();
            p.mmap_file(&file, PAGE + LEN, Prot::RW, false).unwrap()
        });
    }
}

#[test]
fn the_heap_after_fork() {
    for seed in 910..914 {
        twice(seed, move |p, _| {
            let all = p.alloc(&vec![0; PAGE + LEN]);
            let first = pattern::bytes(seed, 0, LEN);
            p.store(all + PAGE as u64, &first).unwrap();
            p.fork(|c| c.sleep(1000 * MS)).unwrap();
            all
        });
    }
}

/// Mappings that come and go elsewhere cost a cached source nothing.
#[test]
fn a_busy_map_does_not_empty_the_cache() {
    let bed = Bed::up(920);
    let (sent, got) = on(
        &bed,
        |p, s| {
            let buf = p.alloc(&[0; LEN]);
            for i in 0..16 {
                p.store(buf, &pattern::bytes(920, i * LEN as u64, LEN))
                    .unwrap();
                let cb = p.aio_write(s, buf, LEN).unwrap();
                assert_eq!(p.aio_wait(cb), Ok(LEN));
                let other = p.mmap(PAGE, Prot::RW).unwrap();
                p.munmap(other, PAGE).unwrap();
            }
            p.close(s).unwrap();
            16 * LEN as u64
        },
        |p, s| drain(p, s, 920),
    );
    assert_eq!(sent, got);
    assert_eq!(bed.stat("cache_misses"), 1);
    quiet(bed);
}
