//! Shortages (upstream hazard 7): everything waits, is retried, and nothing is lost.

use super::bench::Bench;
use crate::errno::Errno;
use crate::os::{Counter, Os};

#[test]
fn no_work_request_for_the_enable() {
    let mut b = Bench::new();
    b.os.wr_budget = 0;
    let r = b.read_new(4096);
    b.settle();
    assert!(b.os.retry && b.counter(Counter::NoWr) > 0);
    b.os.wr_budget = u32::MAX;
    b.settle_retry();
    b.recv(4096, false);
    b.expect(r, 4096);
    b.finish();
}

#[test]
fn no_work_request_anywhere_between_hold_and_post() {
    // 50 pages: 13 pods, 4 requests, and the one that arms.
    for budget in 0..5 {
        let mut b = Bench::ddp_on();
        let r = b.read_new(200_000);
        b.os.wr_budget = budget;
        b.settle();
        assert!(b.os.retry && b.card.arms == 1, "budget {budget}");
        let before = b.card.pod_wrs;
        b.os.wr_budget = u32::MAX;
        b.settle_retry();
        assert_eq!(
            b.card.pod_wrs,
            before + 4 - budget.min(4),
            "pods written twice or never"
        );
        b.recv(200_000, false);
        b.expect(r, 200_000);
        b.finish();
    }
}

#[test]
fn no_page_pods_then_data_comes_by_copy() {
    let mut b = Bench::ddp_on();
    b.os.deny_ppods = true;
    let r = b.read_new(4096);
    b.settle();
    assert!(b.os.retry);
    b.recv(4096, false);
    b.expect(r, 4096);
    assert_eq!(b.counter(Counter::RxCopiedNoPpods), 4096);
    assert!(b.counter(Counter::NoPpods) > 0);
    b.finish();
}

#[test]
fn page_pods_that_come_back_are_used() {
    let mut b = Bench::ddp_on();
    b.os.deny_ppods = true;
    let r = b.read_new(4096);
    b.settle();
    b.recv(100, false);
    b.os.deny_ppods = false;
    b.settle_retry();
    b.recv(3996, false);
    b.expect(r, 4096);
    assert_eq!(b.counter(Counter::RxCopiedNoPpods), 100);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 3996);
    b.finish();
}

#[test]
fn page_pods_of_idle_sets_are_taken_first() {
    // 16 pods; each read of 30 pages needs 8.
    let mut b = Bench::with(crate::testos::TestOs::with_ppods(16));
    b.turn_on();
    for _ in 0..5 {
        let r = b.read_new(30 * 4096);
        b.settle();
        b.recv(30 * 4096, false);
        b.expect(r, 30 * 4096);
    }
    assert_eq!(b.counter(Counter::NoPpods), 0);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 5 * 30 * 4096);
    b.finish();
}

#[test]
fn a_read_larger_than_the_region_is_copied() {
    let mut b = Bench::with(crate::testos::TestOs::with_ppods(16));
    b.turn_on();
    let r = b.read_new(100 * 4096);
    b.settle();
    for _ in 0..25 {
        b.recv(4 * 4096, false);
        b.settle_retry_once();
    }
    b.expect(r, 100 * 4096);
    b.finish();
}

#[test]
fn budgets_evict_idle_sets() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 5;
    for _ in 0..4 {
        let r = b.read_new(3 * 4096);
        b.settle();
        b.recv(3 * 4096, false);
        b.expect(r, 3 * 4096);
        assert!(b.os.mem.wired() <= 5);
    }
    assert_eq!(b.counter(Counter::CacheEvict), 4);
    b.finish();
}

#[test]
fn a_small_budget_serves_a_large_read_in_small_pieces() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 20;
    let n = 300 << 10;
    let r = b.read_new(n);
    b.settle();
    let mut left = n as u32;
    while left > 0 {
        let k = left.min(10_000);
        left -= k;
        b.recv(k, left == 0);
        b.settle_retry_once();
        assert!(b.os.mem.wired() <= 20, "over budget");
    }
    b.expect(r, n);
    b.finish();
}

#[test]
fn no_budget_at_all_waits_and_goes_on_later() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 0;
    let r = b.read_new(4096);
    b.settle();
    assert!(b.os.retry && b.pending(r));
    b.retry();
    b.settle();
    assert!(b.os.retry && b.pending(r));
    b.os.page_budget = 100;
    b.settle_retry();
    b.recv(4096, false);
    b.expect(r, 4096);
    b.finish();
}

#[test]
fn a_worker_short_of_memory_is_asked_again() {
    for e in [Errno::ENOMEM, Errno::EAGAIN, Errno::ENOBUFS] {
        let mut b = Bench::ddp_on();
        let r = b.read_new(4096);
        let w = b.want().unwrap();
        b.ready(w, Err(e));
        assert!(b.os.retry && b.pending(r));
        assert!(b.want().is_none(), "not before the retry");
        b.retry();
        b.settle();
        b.recv(4096, false);
        b.expect(r, 4096);
        b.finish();
    }
}

#[test]
fn bad_addresses_end_the_read_with_efault() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(8192, 0, 1);
    b.os.mem.unmap(addr + 4096, 4096);
    let (r0, r1) = (b.read_at(addr, 8192), b.read_new(100));
    b.settle();
    assert_eq!(b.os.result(r0.id), Some(Err(Errno::EFAULT)));
    b.recv(100, true);
    b.expect(r1, 100);
    b.finish();
}

#[test]
fn a_read_only_buffer_is_efault() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(8192, 0, 1);
    b.os.mem.protect(addr, 8192, false);
    let r = b.read_at(addr, 8192);
    b.settle();
    assert_eq!(b.os.result(r.id), Some(Err(Errno::EFAULT)));
    b.finish();
}

#[test]
fn a_worker_that_holds_too_few_pages_is_efault() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(3 * 4096);
    let mut w = b.want().unwrap();
    let len = core::mem::replace(&mut w.len, 4096);
    let pages = b.os.hold(&w);
    w.len = len;
    b.ready(w, pages);
    assert_eq!(b.os.result(r.id), Some(Err(Errno::EFAULT)));
    b.finish();
}

#[test]
fn all_slots_in_use_waits_for_one() {
    let mut b = Bench::ddp_on();
    // Another direction uses every slot.
    let mut tickets = std::vec::Vec::new();
    let addr = b.os.mem.alloc(4096 * 32, 0, 1);
    let job = b.os.job(addr, 4096 * 32);
    for i in 0..16 {
        let key = b.os.page_key(&job, i * 4096, 4096, false);
        if let Some(t) = b.sh.sets.reserve(&mut b.os, &job, key) {
            tickets.push(t);
        }
    }
    job.end();
    assert_eq!(tickets.len(), 16);
    let r = b.read_new(4096);
    b.settle();
    assert!(b.os.retry);
    let t = tickets.pop().unwrap();
    b.sh.sets
        .fill(&mut b.os, t, Err(Errno::EFAULT))
        .unwrap_err();
    b.settle_retry();
    b.recv(4096, false);
    b.expect(r, 4096);
    for t in tickets {
        let _ = b.sh.sets.fill(&mut b.os, t, Err(Errno::EFAULT));
    }
    b.finish();
}

#[test]
fn a_reader_inside_delays_the_copy() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    b.os.reader_inside = true;
    let r = b.read_new(4096);
    b.settle();
    assert!(b.pending(r) && b.os.retry);
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r, 100);
    b.finish();
}

#[test]
fn pages_given_up_by_an_ended_read_are_there_for_the_next_at_once() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 5;
    let r0 = b.read_new(3 * 4096);
    b.settle();
    let r1 = b.read_new(3 * 4096);
    b.settle();
    assert!(b.os.retry, "no room for both");
    b.os.retry = false;
    // No timer is needed.
    b.recv(3 * 4096, true);
    b.expect(r0, 3 * 4096);
    b.recv(3 * 4096, true);
    b.expect(r1, 3 * 4096);
    assert_eq!(b.counter(Counter::RxCopiedNoBudget), 0);
    assert!(b.counter(Counter::RxPlacedOctets) > 3 * 4096);
    b.finish();
}

#[test]
fn no_more_sets_than_the_setting_are_kept_when_reads_end() {
    let mut b = Bench::ddp_on();
    b.sh.tun.cache = 1;
    b.sh.sets.set_limit(1);
    let reads = [(); 4].map(|()| b.read_new(4096));
    b.settle();
    b.recv(4 * 4096, true);
    for r in reads {
        b.expect(r, 4096);
    }
    assert_eq!(b.sh.sets.taken(), 1);
    b.finish();
}
