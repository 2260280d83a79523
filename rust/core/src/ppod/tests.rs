//! Geometry, choice of page size, pod contents; the region against a naive model.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::testos::Rng;

const SHIFTS: [u8; 4] = [12, 14, 16, 18];

struct Runs(Vec<u64>);

impl Runs {
    /// Runs of so many contiguous pages, with gaps between them.
    fn of(runs: &[usize]) -> Runs {
        let mut phys = Vec::new();
        let mut at = 0x10_0000;
        for n in runs {
            for _ in 0..*n {
                phys.push(at);
                at += PAGE;
            }
            at += 5 * PAGE;
        }
        Runs(phys)
    }
}

impl Pages for Runs {
    fn intact(&self, _n: usize) -> bool {
        true
    }
    fn shown(&self) -> bool {
        true
    }
    fn of_file(&self) -> bool {
        false
    }
    fn count(&self) -> usize {
        self.0.len()
    }
    fn phys(&self, i: usize) -> u64 {
        self.0.get(i).copied().unwrap_or(0)
    }
    fn dirty(&mut self) {}
}

fn size(runs: &[usize]) -> u8 {
    choose_size(&Runs::of(runs), SHIFTS)
}

#[test]
fn geometry_refuses_nonsense() {
    assert!(Geometry::new(0, 64, SHIFTS).is_some());
    assert!(Geometry::new(0, 63, SHIFTS).is_none(), "no pod");
    assert!(Geometry::new(32, 6400, SHIFTS).is_none(), "unaligned");
    assert!(
        Geometry::new(0, 6400, [12, 12, 14, 16]).is_none(),
        "not ascending"
    );
    assert!(
        Geometry::new(0, 6400, [14, 12, 16, 18]).is_none(),
        "not ascending"
    );
    assert!(
        Geometry::new(0, 6400, [11, 12, 16, 18]).is_none(),
        "less than a page"
    );
    assert!(
        Geometry::new(0, 6400, [12, 14, 16, 28]).is_none(),
        "more than the adapter has"
    );
    assert!(
        Geometry::new(u32::MAX - 63, 6400, SHIFTS).is_none(),
        "wraps"
    );
    assert!(
        Geometry::new(0, 1 << 30, SHIFTS).is_none(),
        "no alias bit left"
    );
}

#[test]
fn the_tag_mask_has_one_bit_more_than_the_region() {
    for (size, mask) in [
        (64, 0x40),
        (4096, 0x1fc0),
        (4160, 0x1fc0),
        (1 << 20, 0x1f_ffc0),
    ] {
        let g = Geometry::new(0, size, SHIFTS).unwrap();
        assert_eq!(g.tag_mask(), mask, "{size}");
        assert_eq!(g.tag_mask(), wire::tag_mask(size));
        // Every offset lies within, and leaves the top bit for invalid tags.
        let last = (g.ppods() - 1) * PPOD_SIZE;
        assert_eq!(last & mask, last);
    }
}

#[test]
fn single_pages_take_the_smallest_size() {
    assert_eq!(size(&[1; 40]), 0);
    assert_eq!(size(&[1]), 0);
}

#[test]
fn contiguous_runs_take_the_largest_that_divides() {
    assert_eq!(size(&[4; 16]), 1);
    assert_eq!(size(&[16; 8]), 2);
    assert_eq!(size(&[64; 8]), 3);
    assert_eq!(size(&[256; 2]), 3);
    assert_eq!(size(&[16, 16, 4, 16, 16, 16, 16, 16]), 1);
    assert_eq!(size(&[64, 2, 64]), 0);
}

#[test]
fn the_last_run_may_be_short() {
    // Its length keeps the adapter off the rest.
    assert_eq!(size(&[64, 64, 64, 64, 3]), 3);
    assert_eq!(size(&[16, 16, 16, 1]), 2);
    // Only the last.
    assert_eq!(size(&[16, 3, 16, 16, 16]), 0);
}

#[test]
fn a_larger_size_that_saves_no_pod_is_not_taken() {
    assert_eq!(size(&[4]), 0, "one pod either way");
    assert_eq!(size(&[16]), 1, "four pages of 16 KB are one pod");
}

#[test]
fn pods_are_counted_in_adapter_pages() {
    assert_eq!(ppods_for(1, 12), 1);
    assert_eq!(ppods_for(4, 12), 1);
    assert_eq!(ppods_for(5, 12), 2);
    assert_eq!(ppods_for(16, 14), 1);
    assert_eq!(ppods_for(17, 14), 2);
    assert_eq!(ppods_for(4096, 18), 16);
    assert_eq!(ppods_for(0, 12), 0);
}

#[test]
fn every_byte_of_a_buffer_is_found_through_its_pods() {
    for runs in [
        &[1usize; 9][..],
        &[4, 4, 4, 4, 4],
        &[16, 16, 16, 16, 16, 7],
        &[64, 64, 64, 64, 64, 1],
    ] {
        let pages = Runs::of(runs);
        let idx = choose_size(&pages, SHIFTS);
        let shift = SHIFTS[usize::from(idx)];
        let n = ppods_for(pages.count() as u32, shift);
        for p in 0..pages.count() {
            let at = p as u64 * PAGE;
            let page = at >> shift;
            let pod = (page / 4) as u32;
            assert!(pod < n);
            let addrs = pod_addrs(&pages, shift, pod);
            let here = addrs[(page % 4) as usize] + (at & ((1 << shift) - 1));
            assert_eq!(here, pages.phys(p), "page {p} of {runs:?}");
        }
        // The fifth address is the next pod's first; none behind the last page.
        for pod in 0..n {
            let next = pod_addrs(&pages, shift, pod + 1);
            assert_eq!(pod_addrs(&pages, shift, pod)[4], next[0]);
        }
        assert_eq!(pod_addrs(&pages, shift, n), [0; 5]);
    }
}

fn region(n: usize) -> Region<Vec<Node>> {
    Region::new(std::vec![Node::default(); n])
}

#[test]
fn an_empty_region_gives_nothing() {
    let mut r = region(0);
    assert!(r.alloc(1).is_none());
    assert_eq!((r.available(), r.largest()), (0, 0));
}

#[test]
fn all_of_it_and_then_nothing() {
    let mut r = region(100);
    assert!(r.alloc(101).is_none() && r.alloc(0).is_none());
    let p = r.alloc(100).unwrap();
    assert_eq!((p.first(), p.count(), r.available()), (0, 100, 0));
    assert!(r.alloc(1).is_none());
    r.free(p);
    assert_eq!((r.available(), r.largest()), (100, 100));
    r.check();
}

#[test]
fn the_shortest_run_that_fits_is_taken() {
    let mut r = region(100);
    let held: Vec<Ppods> = [10, 1, 5, 1, 7, 1].map(|n| r.alloc(n).unwrap()).into();
    let mut keep = Vec::new();
    for (i, p) in held.into_iter().enumerate() {
        if i % 2 == 0 { r.free(p) } else { keep.push(p) }
    }
    // Free: 10 at 0, 5 at 11, 7 at 17, 75 at 25.
    assert_eq!(r.check(), [(0, 10), (11, 5), (17, 7), (25, 75)]);
    let p = r.alloc(6).unwrap();
    assert_eq!(p.first(), 17);
    let q = r.alloc(5).unwrap();
    assert_eq!(q.first(), 11);
    let s = r.alloc(11).unwrap();
    assert_eq!(s.first(), 25);
    for p in keep.into_iter().chain([p, q, s]) {
        r.free(p);
    }
    assert_eq!(r.check(), [(0, 100)]);
}

#[test]
fn freed_neighbours_coalesce_on_both_sides() {
    let mut r = region(30);
    let [a, b, c] = [10, 10, 10].map(|n| r.alloc(n).unwrap());
    r.free(a);
    r.free(c);
    assert_eq!(r.largest(), 10);
    assert!(r.alloc(11).is_none());
    r.free(b);
    assert_eq!(r.check(), [(0, 30)]);
}

#[test]
fn what_was_not_taken_is_not_freed() {
    let mut r = region(30);
    let p = r.alloc(10).unwrap();
    r.free(Ppods { first: 10, n: 5 });
    r.free(Ppods { first: 0, n: 9 });
    r.free(Ppods { first: 0, n: 0 });
    r.free(Ppods { first: 30, n: 0 });
    r.free(Ppods { first: 25, n: 10 });
    r.free(Ppods {
        first: u32::MAX,
        n: 10,
    });
    assert_eq!(r.available(), 20);
    r.check();
    r.free(p);
    assert_eq!(r.check(), [(0, 30)]);
}

/// First pod -> pods, of what is taken.
struct Naive {
    n: u32,
    taken: BTreeMap<u32, u32>,
}

impl Naive {
    fn free_runs(&self) -> Vec<(u32, u32)> {
        let mut out = Vec::new();
        let mut at = 0;
        for (first, n) in &self.taken {
            if *first > at {
                out.push((at, first - at));
            }
            at = first + n;
        }
        if at < self.n {
            out.push((at, self.n - at));
        }
        out
    }

    fn alloc(&mut self, n: u32) -> Option<u32> {
        let fits = self.free_runs().into_iter().filter(|r| r.1 >= n);
        let best = fits.min_by_key(|r| (r.1, r.0))?;
        self.taken.insert(best.0, n);
        Some(best.0)
    }
}

#[test]
fn against_a_naive_model() {
    for seed in 1..=60 {
        let mut rng = Rng::new(seed);
        let n = rng.range(1, 400) as u32;
        let mut r = region(n as usize);
        let mut m = Naive {
            n,
            taken: BTreeMap::new(),
        };
        let mut held: Vec<Ppods> = Vec::new();
        for _ in 0..400 {
            if held.is_empty() || rng.range(0, 99) < 55 {
                let want = if rng.one_in(4) {
                    rng.range(1, 100)
                } else {
                    rng.range(1, 12)
                } as u32;
                let (got, model) = (r.alloc(want), m.alloc(want));
                assert_eq!(got.as_ref().map(Ppods::first), model, "SEED={seed}");
                held.extend(got);
            } else {
                let p = held.swap_remove(rng.range(0, held.len() as u64 - 1) as usize);
                assert_eq!(m.taken.remove(&p.first()), Some(p.count()));
                r.free(p);
            }
            let runs = m.free_runs();
            assert_eq!(r.check(), runs, "SEED={seed}");
            assert_eq!(r.largest(), runs.iter().map(|r| r.1).max().unwrap_or(0));
        }
        for p in held {
            r.free(p);
        }
        assert_eq!(r.check(), [(0, n)], "SEED={seed}: not all came back");
    }
}

#[test]
fn a_large_region_stays_shallow() {
    // check() asserts the depth of the tree.
    let mut r = region(1 << 17);
    let mut held: Vec<Ppods> = Vec::new();
    while let Some(p) = r.alloc(1 + (held.len() % 7) as u32) {
        held.push(p);
    }
    assert!(r.available() < 7);
    let mut keep = Vec::new();
    for (i, p) in held.into_iter().enumerate() {
        if i % 2 == 0 { r.free(p) } else { keep.push(p) }
    }
    assert!(r.check().len() > 10_000);
    for p in keep {
        r.free(p);
    }
    assert_eq!(r.check(), [(0, 1 << 17)]);
}
