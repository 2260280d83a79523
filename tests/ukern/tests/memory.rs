//! Address spaces as programs see them.

mod ends;

use ends::{alone, kernel, pattern};
use ukern::proc::{Errno, ProcConfig, Prot};

const PAGE: usize = 4096;

#[test]
fn fresh_memory_is_zero_and_keeps_what_is_stored() {
    alone(1, |p| {
        let va = p.mmap(3 * PAGE, Prot::RW).unwrap();
        assert_eq!(p.load_vec(va, 3 * PAGE), vec![0; 3 * PAGE]);
        let data = pattern(5000, 1);
        p.store(va + 3000, &data).unwrap();
        assert_eq!(p.load_vec(va + 3000, 5000), data);
    });
}

#[test]
fn memory_past_the_mapping_faults() {
    alone(2, |p| {
        let va = p.mmap(PAGE, Prot::RW).unwrap();
        assert_eq!(p.store(va + 4000, &[1; 200]), Err(Errno::EFAULT));
        assert_eq!(p.load(0, &mut [0]), Err(Errno::EFAULT));
        assert_eq!(p.load(u64::MAX - 2, &mut [0; 8]), Err(Errno::EFAULT));
        p.munmap(va, PAGE).unwrap();
        assert_eq!(p.load(va, &mut [0]), Err(Errno::EFAULT));
        assert_eq!(p.munmap(va + 1, PAGE), Err(Errno::EINVAL));
        assert_eq!(p.mmap(0, Prot::RW), Err(Errno::EINVAL));
    });
}

#[test]
fn protection_is_enforced_and_splits_entries() {
    alone(3, |p| {
        let va = p.alloc(&pattern(3 * PAGE, 2));
        let mid = va + PAGE as u64;
        p.mprotect(mid, PAGE, Prot::R).unwrap();
        assert_eq!(p.store(mid, &[1]), Err(Errno::EFAULT));
        p.store(va, &[1]).unwrap();
        p.store(mid + PAGE as u64, &[1]).unwrap();
        p.mprotect(mid, PAGE, Prot::NONE).unwrap();
        assert_eq!(p.load(mid, &mut [0]), Err(Errno::EFAULT));
        p.mprotect(va, 3 * PAGE, Prot::RW).unwrap();
        assert_eq!(p.load_vec(mid, 10), pattern(3 * PAGE, 2)[PAGE..PAGE + 10]);
        assert_eq!(
            p.mprotect(va + 4 * PAGE as u64, PAGE, Prot::R),
            Err(Errno::ENOMEM)
        );
    });
}

#[test]
fn unmapping_the_middle_leaves_the_ends() {
    alone(4, |p| {
        let va = p.alloc(&pattern(4 * PAGE, 3));
        p.munmap(va + PAGE as u64, 2 * PAGE).unwrap();
        assert_eq!(p.load_vec(va, PAGE), pattern(4 * PAGE, 3)[..PAGE]);
        assert_eq!(p.load(va + PAGE as u64, &mut [0]), Err(Errno::EFAULT));
        assert_eq!(
            p.load_vec(va + 3 * PAGE as u64, PAGE),
            pattern(4 * PAGE, 3)[3 * PAGE..]
        );
        let again = p.mmap_fixed(va + PAGE as u64, PAGE, Prot::RW).unwrap();
        assert_eq!(
            p.load_vec(again, PAGE),
            vec![0; PAGE],
            "new memory, not the old pages"
        );
    });
}

#[test]
fn the_generation_moves_with_every_change_of_the_map() {
    alone(5, |p| {
        let last = std::cell::Cell::new(p.map_timestamp());
        let moved =
            |what: &str| assert_ne!(p.map_timestamp(), last.replace(p.map_timestamp()), "{what}");
        let va = p.mmap(2 * PAGE, Prot::RW).unwrap();
        moved("mmap");
        p.store(va, &[1; 8000]).unwrap();
        assert_eq!(
            p.map_timestamp(),
            last.get(),
            "a zero-fill fault does not change the map"
        );
        p.mprotect(va, PAGE, Prot::R).unwrap();
        moved("mprotect");
        p.mlock(va, PAGE).unwrap();
        moved("mlock");
        p.munmap(va, PAGE).unwrap();
        moved("munmap");
        let child = p.fork(|_| ()).unwrap();
        moved("fork");
        p.store(va + PAGE as u64, &[2]).unwrap();
        moved("the copy-on-write fault that makes the shadow object");
        p.store(va + PAGE as u64, &[3]).unwrap();
        assert_eq!(
            p.map_timestamp(),
            last.get(),
            "the second store finds the shadow"
        );
        child.join();
    });
}

#[test]
fn fork_copies_on_write_both_ways() {
    alone(6, |p| {
        let va = p.alloc(&pattern(2 * PAGE, 4));
        let before = p.phys_of(va).unwrap();
        let child = p
            .fork(move |c| {
                assert_eq!(c.load_vec(va, 2 * PAGE), pattern(2 * PAGE, 4));
                assert_eq!(c.phys_of(va), Some(before), "shared until someone writes");
                c.store(va, b"child").unwrap();
                c.sleep(ends::ms(2));
                (
                    c.load_vec(va, 6),
                    c.load_vec(va + PAGE as u64, 6),
                    c.phys_of(va),
                )
            })
            .unwrap();
        p.sleep(ends::ms(1));
        p.store(va + PAGE as u64, b"parent").unwrap();
        let (first, second, theirs) = child.join();
        assert_eq!(&first[..5], b"child");
        assert_eq!(
            second,
            pattern(2 * PAGE, 4)[PAGE..PAGE + 6],
            "the parent's store is not seen"
        );
        assert_eq!(p.load_vec(va, 6), pattern(2 * PAGE, 4)[..6]);
        assert_ne!(theirs, Some(before));
    });
}

#[test]
fn shared_mappings_stay_shared_over_fork() {
    alone(7, |p| {
        let va = p.mmap_shared(PAGE, Prot::RW).unwrap();
        p.store(va, b"one").unwrap();
        let child = p
            .fork(move |c| {
                assert_eq!(c.load_vec(va, 3), b"one");
                c.store(va, b"two").unwrap();
            })
            .unwrap();
        child.join();
        assert_eq!(p.load_vec(va, 3), b"two");
    });
}

#[test]
fn grandchildren_see_through_chains_of_shadows() {
    alone(8, |p| {
        let va = p.alloc(b"original");
        let child = p
            .fork(move |c| {
                c.store(va, b"childish").unwrap();
                let g = c
                    .fork(move |g| {
                        assert_eq!(g.load_vec(va, 8), b"childish");
                        g.store(va + 4, b"DISH").unwrap();
                        g.load_vec(va, 8)
                    })
                    .unwrap();
                let seen = g.join();
                (seen, c.load_vec(va, 8))
            })
            .unwrap();
        let (g, c) = child.join();
        assert_eq!(
            (g.as_slice(), c.as_slice()),
            (&b"chilDISH"[..], &b"childish"[..])
        );
        assert_eq!(p.load_vec(va, 8), b"original");
    });
}

#[test]
fn objects_are_mapped_shared_or_private() {
    let k = kernel(9);
    let obj = k.shm(3 * PAGE);
    let o = obj.clone();
    k.spawn(ProcConfig::default(), move |p| {
        let shared = p.mmap_object(&o, 0, 3 * PAGE, Prot::RW, true).unwrap();
        let private = p.mmap_object(&o, PAGE, PAGE, Prot::RW, false).unwrap();
        p.store(shared + PAGE as u64, b"in the object").unwrap();
        assert_eq!(p.load_vec(private, 13), b"in the object");
        p.store(private, b"my").unwrap();
        assert_eq!(p.load_vec(shared + PAGE as u64, 13), b"in the object");
        assert_eq!(
            p.mmap_object(&o, 100, PAGE, Prot::RW, true),
            Err(Errno::EINVAL)
        );
        o.truncate(PAGE);
        assert_eq!(
            p.load(shared + PAGE as u64, &mut [0]),
            Err(Errno::EFAULT),
            "past the new end"
        );
        assert_eq!(p.load_vec(private, 2), b"my", "a private copy stays");
        p.load(shared, &mut [0]).unwrap();
    })
    .join();
    drop(obj);
    k.shutdown();
}

#[test]
fn locked_memory_obeys_its_limit_and_survives_unmapping() {
    let k = kernel(10);
    k.spawn(ProcConfig::default().memlock(2 * PAGE as u64), |p| {
        let va = p.mmap(4 * PAGE, Prot::RW).unwrap();
        p.mlock(va, 2 * PAGE).unwrap();
        assert_eq!(p.mlock(va + 2 * PAGE as u64, 1), Err(Errno::ENOMEM));
        p.munmap(va, PAGE).unwrap();
        p.mlock(va + 2 * PAGE as u64, 1).unwrap();
        assert_eq!(
            p.munlock(va, PAGE),
            Err(Errno::ENOMEM),
            "nothing is mapped there any more"
        );
    })
    .join();
    k.shutdown();
}

#[test]
fn fork_copies_locked_memory_at_once() {
    alone(11, |p| {
        let va = p.alloc(&pattern(PAGE, 5));
        p.mlock(va, PAGE).unwrap();
        let before = p.phys_of(va).unwrap();
        let child = p
            .fork(move |c| (c.phys_of(va), c.load_vec(va, PAGE)))
            .unwrap();
        p.store(va, b"x").unwrap();
        assert_eq!(
            p.phys_of(va),
            Some(before),
            "a wired page stays where it is"
        );
        let (theirs, bytes) = child.join();
        assert_ne!(theirs, Some(before));
        assert_eq!(bytes, pattern(PAGE, 5));
    });
}

#[test]
fn dirty_bits_follow_stores_and_msync() {
    alone(12, |p| {
        let va = p.alloc(b"x");
        assert_eq!(p.page_dirty(va), Some(true));
        p.msync(va, PAGE);
        assert_eq!(p.page_dirty(va), Some(false));
        p.load(va, &mut [0]).unwrap();
        assert_eq!(p.page_dirty(va), Some(false));
        p.store(va, b"y").unwrap();
        assert_eq!(p.page_dirty(va), Some(true));
    });
}

#[test]
fn frames_are_contiguous_only_in_part() {
    alone(13, |p| {
        let n = 64;
        let va = p.alloc(&vec![1; n * PAGE]);
        let pa: Vec<u64> = (0..n)
            .map(|i| p.phys_of(va + (i * PAGE) as u64).unwrap())
            .collect();
        let joined = pa.windows(2).filter(|w| w[1] == w[0] + PAGE as u64).count();
        assert!(
            joined > 0 && joined < n - 1,
            "{joined} of {n} pages follow the one before"
        );
    });
}

#[test]
fn the_layout_of_frames_depends_on_the_seed() {
    let layout = |seed| {
        alone(seed, |p| {
            let va = p.alloc(&vec![1; 16 * PAGE]);
            let first = p.phys_of(va).unwrap();
            (0..16)
                .map(|i| p.phys_of(va + i * PAGE as u64).unwrap() as i64 - first as i64)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(layout(1), layout(1));
    assert_ne!(layout(1), layout(2));
}

#[test]
fn running_out_of_frames_is_a_fault_not_a_crash() {
    let k = ukern::boot(ukern::Config {
        user_frames: 300,
        ..ukern::Config::seed(14)
    });
    k.spawn(ProcConfig::default(), |p| {
        let va = p.mmap(400 * PAGE, Prot::RW).unwrap();
        assert_eq!(p.fill(va, 400 * PAGE, 1), Err(Errno::EFAULT));
        p.munmap(va, 400 * PAGE).unwrap();
        let va = p.mmap(PAGE, Prot::RW).unwrap();
        p.store(va, &[1]).unwrap();
    })
    .join();
    k.shutdown();
}
