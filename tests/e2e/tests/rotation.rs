//! Reads and writes that rotate over many buffers: no page is held, no page pod written and nothing
//! allocated once every buffer has been used. A write asks the page table once per page whether it
//! still shows what is held; a read need not.

use toehold_e2e::rotation::{Cost, Way, run};

#[track_caller]
fn free(c: Cost) {
    assert_eq!((c.holds, c.pods, c.allocs), (0, 0, 0), "{c:?}");
    // What comes at the start of a measured read may have come with no buffer posted; with one
    // buffer, so does what comes between two reads.
    let least = if c.buffers > 2 { 9 } else { 7 };
    assert!(c.placed > c.bytes / 10 * least, "{c:?}");
}

fn reads(seed: u64, buffers: usize, cache: Option<i64>) -> Cost {
    run(Way::Reads, seed, buffers, cache)
}

fn writes(seed: u64, buffers: usize, cache: Option<i64>) -> Cost {
    run(Way::Writes, seed, buffers, cache)
}

#[test]
fn up_to_sixty_four_buffers_are_free() {
    for (seed, buffers) in [(1, 1), (2, 2), (3, 3), (4, 8), (5, 17), (6, 63), (7, 64)] {
        free(reads(seed, buffers, None));
    }
}

#[test]
fn writes_are_free_but_for_a_look_at_each_page() {
    for (seed, buffers) in [(41, 1), (42, 3), (43, 17), (44, 60)] {
        let c = writes(seed, buffers, None);
        free(c);
        // Something has to ask: an equal map timestamp alone proves nothing of a source.
        let asked = c.lookups_per_page();
        assert!((0.9..=1.0).contains(&asked), "{asked} per page: {c:?}");
    }
}

#[test]
fn writes_leave_four_page_sets_to_reads() {
    let c = writes(44, 61, None);
    assert!(c.holds > 0, "{c:?}");
}

#[test]
fn a_third_source_costs_a_hold_with_two_page_sets() {
    let c = writes(45, 3, Some(2));
    assert!(c.holds > c.jobs / 10 * 9, "{c:?}");
}

#[test]
fn sixty_four_buffers_whatever_the_schedule() {
    for seed in 100..116 {
        free(reads(seed, 64, None));
    }
}

#[test]
fn a_cache_as_large_as_the_rotation_is_enough() {
    for (seed, n) in [(10, 1), (11, 2), (12, 3), (13, 9)] {
        free(reads(seed, n, Some(n as i64)));
    }
}

#[test]
fn with_two_page_sets_a_third_buffer_costs_a_hold_and_pods_for_every_read() {
    for (seed, buffers) in [(20, 3), (21, 8), (22, 64)] {
        let c = reads(seed, buffers, Some(2));
        assert!(c.holds > c.jobs / 10 * 9, "{c:?}");
        assert!(c.pods > c.jobs * 3, "{c:?}");
    }
}

#[test]
fn one_buffer_too_many_costs_every_read() {
    let c = reads(30, 65, None);
    assert!(c.holds > c.jobs / 10 * 9, "{c:?}");
}
