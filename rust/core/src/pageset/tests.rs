//! Page sets: reuse by exact key only (I7), eviction, users, budgets.

use std::vec::Vec;

use super::*;
use crate::os::{Job, JobId};
use crate::testos::{Rng, SLOTS, TestJob, TestOs, TestPages};

struct Bench {
    os: TestOs,
    sets: PageSets<TestOs>,
    job: Option<TestJob>,
}

impl Bench {
    fn new() -> Bench {
        let mut os = TestOs::new();
        let addr = os.mem.alloc(1 << 20, 0, 1);
        let job = os.job(addr, 1 << 20);
        Bench {
            os,
            sets: PageSets::new(TestOs::slots()),
            job: Some(job),
        }
    }

    fn key(&self, page: usize, len: u32) -> PageKey {
        self.os
            .page_key(self.job.as_ref().unwrap(), page * 4096, len, true)
    }

    fn want(&self, ticket: Ticket, key: PageKey) -> Want<JobId> {
        Want {
            ticket,
            job: self.job.as_ref().unwrap().id(),
            addr: key.addr,
            len: key.len,
            write: key.write,
            key,
        }
    }

    fn reserve(&mut self, key: PageKey) -> Option<Ticket> {
        self.sets
            .reserve(&mut self.os, self.job.as_ref().unwrap(), key)
    }

    fn put(&mut self, key: PageKey) -> Option<u16> {
        let ticket = self.reserve(key)?;
        let pages = self.os.hold(&self.want(ticket, key));
        Some(self.sets.fill(&mut self.os, ticket, pages).unwrap())
    }

    fn find(&mut self, key: &PageKey) -> Option<u16> {
        self.sets.lookup(&mut self.os, key)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            job.end();
        }
    }
}

#[test]
fn every_part_of_the_key_counts() {
    let mut b = Bench::new();
    let key = b.key(3, 5000);
    let slot = b.put(key).unwrap();
    assert_eq!(b.find(&key), Some(slot));
    for other in [
        PageKey {
            space: key.space + 1,
            ..key
        },
        PageKey {
            generation: key.generation + 1,
            ..key
        },
        PageKey {
            addr: key.addr + 1,
            ..key
        },
        PageKey {
            addr: key.addr + 4096,
            ..key
        },
        PageKey {
            len: key.len + 1,
            ..key
        },
        PageKey {
            len: key.len - 1,
            ..key
        },
        PageKey {
            write: false,
            ..key
        },
    ] {
        assert_eq!(b.find(&other), None, "{other:?}");
    }
    assert_eq!(b.os.counter(Counter::CacheHit), 1);
}

#[test]
fn pages_of_a_buffer() {
    for (addr, len, n) in [
        (0, 1, 1),
        (4095, 1, 1),
        (4095, 2, 2),
        (0, 4096, 1),
        (1, 4096, 2),
        (10, 8192, 3),
    ] {
        assert_eq!(pages_of(0x7000_0000 + addr, len), n, "{addr} {len}");
    }
}

#[test]
fn the_longest_unused_goes_first() {
    let mut b = Bench::new();
    let keys: Vec<PageKey> = (0..SLOTS).map(|i| b.key(i, 4096)).collect();
    for k in &keys {
        b.put(*k).unwrap();
    }
    b.find(&keys[0]).unwrap();
    let one_more = b.key(100, 4096);
    b.put(one_more).unwrap();
    assert!(b.find(&keys[0]).is_some());
    assert!(b.find(&keys[1]).is_none());
    assert_eq!(b.os.counter(Counter::CacheEvict), 1);
    assert_eq!(b.os.mem.wired(), SLOTS);
}

#[test]
fn sets_that_can_never_be_found_go_before_older_ones() {
    let mut b = Bench::new();
    let fresh = b.key(0, 4096);
    b.os.mem.touch_map();
    let keys: Vec<PageKey> = (1..SLOTS).map(|i| b.key(i, 4096)).collect();
    for k in &keys {
        b.put(*k).unwrap();
    }
    // The youngest of all, but of a generation gone by.
    b.put(fresh).unwrap();
    let one_more = b.key(100, 4096);
    b.put(one_more).unwrap();
    assert!(b.find(&fresh).is_none());
    for k in &keys {
        assert!(b.find(k).is_some());
    }
}

#[test]
fn a_set_in_use_is_never_evicted() {
    let mut b = Bench::new();
    for i in 0..SLOTS {
        let key = b.key(i, 4096);
        let slot = b.put(key).unwrap();
        b.os.slot_use(slot);
    }
    let key = b.key(50, 4096);
    assert!(b.reserve(key).is_none());
    b.os.slot_unuse(7);
    assert_eq!(b.put(key), Some(7));
}

#[test]
fn no_more_sets_than_the_limit_are_kept() {
    for limit in [0, 1, 2, 12] {
        let mut b = Bench::new();
        b.sets.set_limit(limit);
        for i in 0..30 {
            let key = b.key(i, 4096);
            b.put(key).unwrap();
            assert!(b.sets.taken() <= usize::from(limit).max(1));
        }
    }
    let mut b = Bench::new();
    for i in 0..12 {
        let key = b.key(40 + i, 4096);
        b.put(key).unwrap();
    }
    // Lowered: the next reservation makes room.
    b.sets.set_limit(9);
    let key = b.key(90, 4096);
    b.put(key).unwrap();
    assert_eq!(b.sets.taken(), 9);
}

#[test]
fn sets_in_use_may_pass_the_limit_up_to_the_minimum() {
    let mut b = Bench::new();
    b.sets.set_limit(2);
    let used: Vec<u16> = (0..MIN_SLOTS)
        .map(|i| {
            let key = b.key(i, 4096);
            let slot = b.put(key).unwrap();
            b.os.slot_use(slot);
            slot
        })
        .collect();
    let key = b.key(20, 4096);
    assert!(b.reserve(key).is_none());
    // Of those that are not in use any more, no more than the limit stay.
    for (n, slot) in used.into_iter().enumerate() {
        b.os.slot_unuse(slot);
        b.sets.trim(&mut b.os);
        assert_eq!(b.sets.taken(), (MIN_SLOTS - n - 1).max(2));
    }
}

#[test]
fn a_budget_evicts_until_it_fits() {
    let mut b = Bench::new();
    for i in 0..10 {
        let key = b.key(i, 4096);
        b.put(key).unwrap();
    }
    b.os.page_budget = 12;
    let key = b.key(20, 5 * 4096);
    b.put(key).unwrap();
    assert_eq!(b.os.mem.wired(), 12);
    let key = b.key(40, 13 * 4096);
    assert!(b.reserve(key).is_none(), "more than the budget");
}

#[test]
fn a_failed_hold_frees_the_slot() {
    let mut b = Bench::new();
    let key = b.key(0, 4096);
    let t = b.reserve(key).unwrap();
    assert_eq!(b.sets.taken(), 1);
    assert_eq!(
        b.sets.fill(&mut b.os, t, Err(Errno::EFAULT)),
        Err(Errno::EFAULT)
    );
    assert_eq!(b.sets.taken(), 0);
}

#[test]
fn a_ticket_works_once() {
    let mut b = Bench::new();
    let key = b.key(0, 4096);
    let t = b.reserve(key).unwrap();
    let pages = |b: &Bench| b.os.hold(&b.want(t, key));
    let p = pages(&b);
    b.sets.fill(&mut b.os, t, p).unwrap();
    let p = pages(&b);
    assert_eq!(b.sets.fill(&mut b.os, t, p), Err(Errno::EFAULT));
    assert_eq!((b.sets.taken(), b.os.mem.wired()), (1, 1));
    // Nor for a later reservation of the same slot.
    assert!(b.sets.release_idle(&mut b.os));
    let t2 = b.reserve(key).unwrap();
    assert_ne!(t, t2);
    let p = pages(&b);
    assert_eq!(b.sets.fill(&mut b.os, t, p), Err(Errno::EFAULT));
    let p = b.os.hold(&b.want(t2, key));
    b.sets.fill(&mut b.os, t2, p).unwrap();
}

#[test]
fn too_few_or_too_many_pages_are_refused() {
    for len in [4096, 3 * 4096] {
        let mut b = Bench::new();
        let key = b.key(0, 2 * 4096);
        let t = b.reserve(key).unwrap();
        let pages = b.os.hold(&Want {
            len,
            ..b.want(t, key)
        });
        assert_eq!(b.sets.fill(&mut b.os, t, pages), Err(Errno::EFAULT));
        assert_eq!((b.sets.taken(), b.os.mem.wired()), (0, 0));
    }
}

#[test]
fn page_pods_go_back_with_the_set_or_before() {
    let mut b = Bench::new();
    for i in 0..3 {
        let key = b.key(i, 4096);
        let slot = b.put(key).unwrap();
        let ppods = b.os.ppod_alloc(2).unwrap();
        *b.sets.pods_mut(slot).unwrap().2 = Some(SetPods {
            ppods,
            size_idx: 0,
            written: 0,
        });
    }
    b.os.slot_use(1);
    let all = b.os.region.capacity();
    assert_eq!((b.sets.ppods_held(), b.os.region.available()), (6, all - 6));
    assert_eq!(b.sets.shed_ppods(&mut b.os), 4);
    assert_eq!((b.sets.ppods_held(), b.os.region.available()), (2, all - 2));
    assert_eq!(b.sets.pages_held(), 3, "the pages stay");
    assert!(!b.sets.release_idle(&mut b.os), "one is in use");
    b.os.slot_unuse(1);
    assert!(b.sets.release_idle(&mut b.os));
    assert_eq!((b.os.region.available(), b.os.mem.wired()), (all, 0));
}

#[test]
fn a_reservation_keeps_the_sets_from_being_released() {
    let mut b = Bench::new();
    let key = b.key(0, 4096);
    let t = b.reserve(key).unwrap();
    assert!(!b.sets.release_idle(&mut b.os));
    b.sets.fill(&mut b.os, t, Err(Errno::EFAULT)).unwrap_err();
    assert!(b.sets.release_idle(&mut b.os));
}

#[test]
fn against_a_naive_cache() {
    for seed in 1..=40 {
        let mut rng = Rng::new(seed);
        let mut b = Bench::new();
        // Key and users of each slot; order of use, oldest first.
        let mut model: Vec<(PageKey, u16)> = Vec::new();
        let mut used: Vec<u16> = Vec::new();
        for _ in 0..500 {
            let key = b.key(rng.range(0, 40) as usize, 4096);
            match rng.range(0, 5) {
                0..=3 => {
                    let hit = model.iter().position(|(k, _)| *k == key);
                    assert_eq!(b.find(&key), hit.map(|i| model[i].1), "SEED={seed}");
                    if let Some(i) = hit {
                        let e = model.remove(i);
                        model.push(e);
                        continue;
                    }
                    if model.len() == SLOTS {
                        let stale = |k: &PageKey| k.generation != key.generation;
                        let idle = |s: &u16| !used.contains(s);
                        let victim = model
                            .iter()
                            .position(|(k, s)| idle(s) && stale(k))
                            .or_else(|| model.iter().position(|(_, s)| idle(s)));
                        let Some(v) = victim else {
                            assert!(b.put(key).is_none(), "SEED={seed}");
                            continue;
                        };
                        let (_, s) = model.remove(v);
                        assert_eq!(b.put(key), Some(s), "SEED={seed}");
                        model.push((key, s));
                    } else {
                        let s = b.put(key).unwrap();
                        model.push((key, s));
                    }
                }
                4 if !model.is_empty() => {
                    let s = model[rng.range(0, model.len() as u64 - 1) as usize].1;
                    if let Some(i) = used.iter().position(|u| *u == s) {
                        used.swap_remove(i);
                        b.os.slot_unuse(s);
                    } else {
                        used.push(s);
                        b.os.slot_use(s);
                    }
                }
                _ if rng.one_in(10) => b.os.mem.touch_map(),
                _ => {}
            }
            assert_eq!(b.sets.taken(), model.len());
        }
        let _: Option<&TestPages> = b.sets.pages(0);
    }
}

#[test]
fn a_truncated_set_in_use_is_found_no_more_and_goes_first() {
    let mut b = Bench::new();
    let (k0, k1) = (b.key(0, 4096), b.key(1, 4096));
    let (s0, s1) = (b.put(k0).unwrap(), b.put(k1).unwrap());
    b.os.slot_use(s1);
    b.os.mem.truncate(k1.addr, 4096);
    assert_eq!(b.find(&k1), None);
    assert_eq!(b.sets.taken(), 2, "somebody still uses it");
    assert_eq!(b.find(&k1), None, "and never again");
    b.os.slot_unuse(s1);
    assert_eq!(b.find(&k0), Some(s0));
    // The other was used last, and stays.
    b.sets.set_limit(1);
    b.sets.trim(&mut b.os);
    assert_eq!((b.sets.taken(), b.find(&k0)), (1, Some(s0)));
}

#[test]
fn sets_of_another_address_space_are_not_stale() {
    let mut b = Bench::new();
    let k0 = b.key(0, 4096);
    b.put(k0).unwrap();
    let k1 = b.key(1, 4096);
    b.put(k1).unwrap();
    let other = PageKey {
        space: k0.space + 1,
        generation: k0.generation + 1,
        ..b.key(2, 4096)
    };
    b.sets.set_limit(8);
    b.os.page_budget = 2;
    let t = b.reserve(other);
    assert!(t.is_none() || b.sets.taken() > 0);
    // The longest unused went, not the one that "changed".
    assert_eq!(b.find(&k0), None);
    if let Some(t) = t {
        let _ = b.sets.fill(&mut b.os, t, Err(Errno::EFAULT));
    }
}

#[test]
fn relief_of_one_address_space_leaves_the_others() {
    let mut b = Bench::new();
    let (k0, k1, k2) = (b.key(0, 4096), b.key(1, 4096), b.key(2, 4096));
    let k1 = PageKey {
        space: k0.space + 1,
        ..k1
    };
    b.put(k0).unwrap();
    let (s1, s2) = (b.put(k1).unwrap(), b.put(k2).unwrap());
    b.os.slot_use(s2);
    b.sets.relieve(&mut b.os, Some(k0.space));
    assert_eq!(b.find(&k0), None);
    assert_eq!((b.find(&k1), b.find(&k2)), (Some(s1), Some(s2)));
    assert_eq!(b.os.counter(Counter::CacheEvict), 1);
    b.sets.relieve(&mut b.os, None);
    assert_eq!((b.find(&k1), b.find(&k2)), (None, Some(s2)));
    b.os.slot_unuse(s2);
}

#[test]
fn an_address_space_that_ends_leaves_no_set() {
    let mut b = Bench::new();
    let (k0, k1, k2) = (b.key(0, 4096), b.key(1, 4096), b.key(2, 4096));
    let k2 = PageKey {
        space: k0.space + 1,
        ..k2
    };
    b.put(k0).unwrap();
    let (s1, s2) = (b.put(k1).unwrap(), b.put(k2).unwrap());
    b.os.slot_use(s1);
    b.sets.forget(&mut b.os, k0.space);
    assert_eq!(b.find(&k0), None);
    assert_eq!(b.find(&k2), Some(s2), "another's stays");
    assert_eq!(b.sets.taken(), 2, "mbufs refer to one of them");
    b.sets.trim(&mut b.os);
    assert_eq!(b.sets.taken(), 2);
    b.os.slot_unuse(s1);
    b.sets.trim(&mut b.os);
    assert_eq!((b.sets.taken(), b.find(&k2)), (1, Some(s2)));
    assert_eq!(
        b.os.counter(Counter::CacheEvict),
        0,
        "nobody needed the room"
    );
}

#[test]
fn room_for_sets_comes_once() {
    let mut b = Bench::new();
    b.sets = PageSets::new(Vec::new());
    let k = b.key(0, 4096);
    assert!(!b.sets.has_room());
    assert_eq!(b.find(&k), None);
    assert!(b.reserve(k).is_none());
    b.sets.trim(&mut b.os);
    assert!(b.sets.provide(TestOs::slots()).is_none());
    let s = b.put(k).unwrap();
    let back = b.sets.provide(TestOs::slots());
    assert_eq!(back.map(|v| v.len()), Some(TestOs::slots().len()));
    assert_eq!(b.find(&k), Some(s), "what was there stays");
}

fn source(b: &Bench, page: usize, len: u32) -> PageKey {
    PageKey {
        write: false,
        ..b.key(page, len)
    }
}

/// A store beside the buffer, in an entry that has its shadow object already.
#[test]
fn a_source_whose_page_was_copied_on_write_is_not_found() {
    let mut b = Bench::new();
    let key = source(&b, 1, 8192);
    b.put(key).unwrap();
    assert!(b.find(&key).is_some());
    b.os.mem.copy_on_write(key.addr + 4096, 1);
    assert_eq!(
        b.os.page_key(b.job.as_ref().unwrap(), 4096, 8192, false),
        key
    );
    assert!(b.find(&key).is_none());
    assert_eq!(b.os.mem.wired(), 0, "it is let go");
    let again = b.put(key).unwrap();
    assert_eq!(b.find(&key), Some(again));
}

/// Mappings come and go elsewhere: a source's pages are the proof, not the map.
#[test]
fn a_source_is_found_whatever_else_the_map_does() {
    let mut b = Bench::new();
    let (from, to) = (source(&b, 1, 8192), b.key(5, 8192));
    let slot = b.put(from).unwrap();
    b.put(to).unwrap();
    b.os.mem.touch_map();
    assert_eq!(b.find(&source(&b, 1, 8192)), Some(slot));
    assert_eq!(
        b.find(&b.key(5, 8192)),
        None,
        "a target's are not looked at"
    );
    b.os.mem.unmap(from.addr, 4096);
    assert_eq!(b.find(&source(&b, 1, 8192)), None);
}
