//! Reads that rotate over many buffers: no page is held, no page pod written and nothing allocated
//! once every buffer has been used.

use toehold_e2e::rotation::{Cost, run};

#[track_caller]
fn free(c: Cost) {
    assert_eq!((c.holds, c.pods, c.allocs), (0, 0, 0), "{c:?}");
    // What comes at the start of a measured read may have come with no buffer posted; with one
    // buffer, so does what comes between two reads.
    let least = if c.buffers > 2 { 9 } else { 7 };
    assert!(c.placed > c.bytes / 10 * least, "{c:?}");
}

#[test]
fn up_to_sixty_four_buffers_are_free() {
    for (seed, buffers) in [(1, 1), (2, 2), (3, 3), (4, 8), (5, 17), (6, 63), (7, 64)] {
        free(run(seed, buffers, None));
    }
}

#[test]
fn sixty_four_buffers_whatever_the_schedule() {
    for seed in 100..116 {
        free(run(seed, 64, None));
    }
}

#[test]
fn a_cache_as_large_as_the_rotation_is_enough() {
    for (seed, n) in [(10, 1), (11, 2), (12, 3), (13, 9)] {
        free(run(seed, n, Some(n as i64)));
    }
}

#[test]
fn with_two_page_sets_a_third_buffer_costs_a_hold_and_pods_for_every_read() {
    for (seed, buffers) in [(20, 3), (21, 8), (22, 64)] {
        let c = run(seed, buffers, Some(2));
        assert!(c.holds > c.jobs / 10 * 9, "{c:?}");
        assert!(c.pods > c.jobs * 3, "{c:?}");
    }
}

#[test]
fn one_buffer_too_many_costs_every_read() {
    let c = run(30, 65, None);
    assert!(c.holds > c.jobs / 10 * 9, "{c:?}");
}
