//! Memory of connections that do nothing.

use toehold_e2e::idle::measure;

#[test]
fn room_for_page_sets_comes_with_the_first_request() {
    let (never, after) = measure(1, 16).unwrap();
    assert_eq!((never.conns, after.conns), (32, 32));
    let each = |bytes: u64| bytes / 32;
    assert!(each(never.taken) <= 2048, "{never:?}");
    assert!(never.taken >= never.asked, "{never:?}");
    // 64 slots, for those that had a request.
    assert!(each(after.asked) > each(never.asked) + 4096, "{after:?}");
}
