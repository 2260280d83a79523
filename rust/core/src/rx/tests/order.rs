//! Data that meets no valid buffer while one is on its way to the adapter, and falling out of
//! DDP (upstream hazard 9).

use std::vec::Vec;

use super::bench::{Bench, Read};
use crate::os::{Counter, Os};
use crate::testos::TestOs;
use wire::DdpBuf;

/// A read is posted, but `x` bytes reach the adapter before the request does.
fn skewed(len: usize, x: u32) -> (Bench, Read) {
    let mut b = Bench::ddp_on();
    let r = b.read_new(len);
    b.work();
    b.card.recv(x, false);
    b.exec();
    b.deliver();
    assert!(b.card.tcb.buf_valid(DdpBuf::B0));
    assert_eq!(b.os.rcv_avail(), x);
    (b, r)
}

#[test]
fn placed_bytes_move_up_behind_those_that_came_before() {
    let (mut b, r) = skewed(8192, 1000);
    b.recv(5000, true);
    b.expect(r, 6000);
    assert_eq!(b.os.moved, 5000);
    assert_eq!(b.counter(Counter::RxCopiedNoBuffer), 1000);
    b.finish();
}

#[test]
fn a_read_does_not_wait_for_what_a_shut_window_keeps_back() {
    let mut os = TestOs::new();
    os.rcv_hiwat = 20_000;
    let mut b = Bench::with(os);
    b.turn_on();
    let r = b.read_new(30_000);
    b.work();
    // Ahead of the buffer, without PSH: the peer has more, but may not send it.
    b.card.recv(19_000, false);
    b.settle();
    b.expect(r, 19_000);
    // All of the window is open again.
    assert_eq!(b.card.wnd, 20_000);
    b.finish();
}

#[test]
fn what_does_not_fit_any_more_goes_back_to_the_stream() {
    let (mut b, r) = skewed(8192, 1000);
    b.recv(8192, false);
    b.expect(r, 8192);
    assert_eq!(b.os.rcv_avail(), 1000);
    assert_eq!(b.os.returned, 1000);
    let r = b.read_new(1000);
    b.settle();
    b.expect(r, 1000);
    b.finish();
}

#[test]
fn overlapping_moves_are_right() {
    // Moved by 1: source and destination overlap all but a byte.
    let (mut b, r) = skewed(20_000, 1);
    b.recv(16_000, true);
    b.expect(r, 16_001);
    b.finish();
}

#[test]
fn a_large_buffer_is_posted_again_rather_than_moved() {
    let n = 1 << 20;
    let (mut b, r) = skewed(n, 1000);
    let arms = b.card.arms;
    // Some bytes are placed before the adapter sees that it is to stop.
    b.card.recv(5000, false);
    b.settle();
    assert_eq!(b.card.arms, arms + 1);
    assert_eq!((b.os.moved, b.os.rcv_avail()), (5000, 0));
    let mut left = n as u32 - 6000;
    while left > 0 {
        let k = left.min(50_000);
        left -= k;
        b.recv(k, false);
    }
    b.expect(r, n);
    assert_eq!(b.os.moved, 5000);
    b.finish();
}

#[test]
fn it_is_posted_again_once_and_moved_then() {
    let n = 1 << 20;
    let (mut b, r) = skewed(n, 1000);
    b.exec();
    b.card.recv(10, false); // no buffer
    b.deliver();
    b.card.recv(20, false); // no buffer: skewed again
    b.settle();
    let arms = b.card.arms;
    b.recv(30, false);
    assert_eq!(b.card.arms, arms);
    b.recv(40, true);
    b.expect(r, 1100);
    b.finish();
}

#[test]
fn a_large_buffer_posted_again_keeps_its_place_in_front() {
    let n = 1 << 20;
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(n), b.read_new(n));
    b.work();
    b.work();
    b.card.recv(100, false);
    b.settle();
    let mut left = 2 * n as u32 - 100;
    while left > 0 {
        let k = left.min(50_000);
        left -= k;
        b.recv(k, left == 0);
    }
    b.expect(r0, n);
    b.expect(r1, n);
    assert_eq!(b.os.moved, 0);
    b.finish();
}

#[test]
fn pushed_bytes_do_not_wait_for_the_posted_buffer() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.work();
    b.card.recv(300, true);
    b.settle();
    // The buffer is taken back: nothing was placed.
    b.expect(r, 300);
    assert!(!b.card.tcb.buf_valid(DdpBuf::B0));
    b.finish();
}

#[test]
fn enough_bytes_to_fill_the_posted_buffer_take_it_back() {
    let (mut b, r) = skewed(500, 700);
    b.settle();
    b.expect(r, 500);
    assert_eq!(b.os.rcv_avail(), 200);
    b.finish();
}

#[test]
fn two_skewed_buffers_then_in_step() {
    let mut b = Bench::ddp_on();
    let reads: Vec<Read> = (0..8).map(|_| b.read_new(4096)).collect();
    b.work();
    b.work();
    // Both are posted, neither has arrived.
    b.card.recv(100, false);
    b.settle();
    for (i, r) in reads.iter().enumerate() {
        b.recv(4096, false);
        b.expect(*r, 4096);
        assert_eq!(
            b.os.rcv_avail(),
            if i == 7 { 100 } else { b.os.rcv_avail() }
        );
        if i == 1 {
            assert_eq!(b.os.moved, 2 * 3996);
        }
    }
    // From the third on the buffers are armed with room for what so_rcv holds.
    assert_eq!(b.os.moved, 2 * 3996, "moved after the second buffer");
    b.finish();
}

#[test]
fn a_buffer_in_step_is_armed_behind_what_comes_first() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.work();
    b.card.recv(100, false);
    b.exec();
    b.deliver();
    b.work();
    b.exec();
    assert_eq!(b.card.tcb.buf_offset(DdpBuf::B1), 100);
    b.recv(4096, false);
    b.recv(3996, true);
    b.expect(r0, 4096);
    b.expect(r1, 4096);
    assert_eq!(b.os.moved, 3996, "only the first was moved");
    b.finish();
}

#[test]
fn kept_room_is_closed_if_the_first_bytes_went_elsewhere() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.work();
    b.card.recv(100, false);
    b.exec();
    b.deliver();
    b.work();
    b.exec();
    assert_eq!(b.card.tcb.buf_offset(DdpBuf::B1), 100);
    // The first ends short: it takes the 100 bytes, and nothing is left for the second.
    b.recv(50, true);
    b.expect(r0, 150);
    b.recv(60, true);
    b.expect(r1, 60);
    b.finish();
}

#[test]
fn a_small_read_is_not_posted_behind_what_will_fill_it() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(80));
    b.work();
    b.card.recv(100, false);
    b.exec();
    b.deliver();
    b.work();
    b.exec();
    assert!(!b.card.tcb.buf_valid(DdpBuf::B1));
    b.recv(4096, false);
    b.expect(r0, 4096);
    b.expect(r1, 80);
    assert_eq!(b.os.rcv_avail(), 20);
    b.finish();
}

#[test]
fn a_busy_reader_delays_but_loses_nothing() {
    let (mut b, r) = skewed(8192, 1000);
    b.os.reader_inside = true;
    b.recv(5000, true);
    assert!(b.pending(r) && b.os.retry);
    b.recv(77, true);
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r, 6077);
    b.finish();
}

#[test]
fn data_behind_each_landed_buffer_waits_in_its_place() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.work();
    b.work();
    b.card.recv(10, false);
    b.exec_one(); // page pods
    b.exec_one(); // the first is armed
    b.card.recv(4096, false);
    b.card.recv(20, false); // no buffer
    b.exec();
    b.card.recv(4096, false);
    b.card.recv(30, false); // no buffer
    b.os.deny_mbufs = true;
    b.deliver();
    assert!(b.pending(r0) && b.pending(r1));
    b.card.recv(40, true);
    b.deliver();
    assert_eq!(b.os.rcv_avail(), 10);
    b.os.deny_mbufs = false;
    b.settle_retry();
    b.expect(r0, 4096);
    b.expect(r1, 4096);
    assert_eq!(b.os.rcv_avail(), 100);
    let r = b.read_new(100);
    b.settle();
    b.expect(r, 100);
    b.finish();
}

#[test]
fn a_reader_that_took_the_bytes_leaves_the_placed_ones_in_place() {
    let (mut b, r) = skewed(8192, 1000);
    let got = b.os.plain_read(1000);
    assert_eq!(got, super::stream(b.pos, 1000));
    b.pos = b.pos.wrapping_add(1000);
    b.rx.rcvd(&mut b.sh, &mut b.os);
    b.recv(2000, true);
    b.expect(r, 2000);
    assert_eq!(b.os.moved, 0);
    assert_eq!(b.counter(Counter::RxPlainOctets), 1000);
    b.finish();
}

#[test]
fn falling_out_with_bytes_in_the_first_buffer() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.recv(1000, false);
    b.card.fall_out();
    b.recv(500, true);
    // The first has what was placed, the second what came after.
    b.expect(r0, 1000);
    b.expect(r1, 500);
    assert_eq!(b.counter(Counter::RxCopiedDdpOff), 500);
    b.finish();
}

#[test]
fn falling_out_with_bytes_in_both_buffers() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(1000), b.read_new(4096));
    b.settle();
    // Both were filled, and the report of the first is on its way.
    b.card.recv(1700, false);
    b.card.fall_out();
    b.recv(500, true);
    b.expect(r0, 1000);
    b.expect(r1, 700);
    assert_eq!(b.os.rcv_avail(), 500);
    b.finish();
}

#[test]
fn falling_out_with_nothing_placed_keeps_the_reads_in_order() {
    let mut b = Bench::ddp_on();
    let (r0, r1, r2) = (b.read_new(400), b.read_new(400), b.read_new(400));
    b.settle();
    b.card.fall_out();
    b.recv(1200, true);
    b.expect(r0, 400);
    b.expect(r1, 400);
    b.expect(r2, 400);
    b.finish();
}

#[test]
fn ddp_comes_back_after_falling_out() {
    let mut b = Bench::ddp_on();
    let r0 = b.read_new(4096);
    b.settle();
    b.card.fall_out();
    b.recv(10, true);
    b.expect(r0, 10);
    let r1 = b.read_new(4096);
    b.settle();
    b.recv(4096, false);
    b.expect(r1, 4096);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 4096);
    b.finish();
}

#[test]
fn data_from_before_the_enable_does_not_count_as_falling_out() {
    let mut b = Bench::new();
    let r = b.read_new(4096);
    b.work();
    b.card.recv(10, false); // DDP is off still
    b.exec();
    b.card.recv(20, false); // on, no buffer
    b.settle();
    b.recv(4066, true);
    b.expect(r, 4096);
    assert_eq!(b.counter(Counter::RxCopiedBeforeDdp), 10);
    b.finish();
}

#[test]
fn ddp_is_not_asked_for_again_before_the_first_reply() {
    let mut b = Bench::new();
    let r = b.read_new(4096);
    b.work();
    b.exec();
    let reply = b.card.out.pop_front().unwrap();
    // On, by the data; then out again, all before the late reply.
    b.recv(10, true);
    b.expect(r, 10);
    b.card.fall_out();
    b.recv(10, true);
    let r = b.read_new(4096);
    b.work();
    b.expect(r, 10);
    let r = b.read_new(4096);
    b.work();
    assert!(b.os.wrs.is_empty());
    b.card.out.push_back(reply);
    b.settle();
    b.recv(4096, false);
    b.expect(r, 4096);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 4096);
    b.finish();
}

#[test]
fn a_read_in_the_second_buffer_never_overtakes() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(100), b.read_new(100));
    b.settle();
    b.card.recv(100, false);
    b.card.recv(100, false);
    b.deliver();
    b.expect(r0, 100);
    b.expect(r1, 100);
    let order: Vec<_> = b.os.completed.iter().map(|c| c.0).skip(1).collect();
    assert_eq!(order, [r0.id, r1.id]);
    b.finish();
}

#[test]
fn buffers_alternate_for_as_long_as_you_like() {
    let mut b = Bench::ddp_on();
    let addrs: Vec<u64> = (0..3).map(|_| b.os.mem.alloc(3000, 7, 1)).collect();
    let mut reads: Vec<Read> = addrs.iter().map(|a| b.read_at(*a, 3000)).collect();
    b.settle();
    for i in 0..50 {
        b.recv(3000, false);
        let r = reads[i % 3];
        b.expect(r, 3000);
        reads[i % 3] = b.read_at(r.addr, 3000);
        b.settle();
    }
    assert_eq!(b.counter(Counter::RxPlacedOctets), 150_000);
    assert_eq!(b.os.moved, 0);
    b.finish();
}

#[test]
fn nothing_is_posted_while_a_reader_is_inside() {
    let mut b = Bench::ddp_on();
    let r0 = b.read_new(4096);
    b.settle();
    assert_eq!(b.card.arms, 2);
    // A reader with MSG_WAITALL comes, takes what is there and sleeps.
    b.os.reader_inside = true;
    let r1 = b.read_new(4096);
    b.settle();
    assert!(b.os.retry && b.card.arms == 2);
    // The read that was posted before goes on; what comes then is the reader's.
    b.recv(4096, false);
    b.expect(r0, 4096);
    b.recv(1000, true);
    assert!(b.pending(r1));
    let got = b.os.plain_read(1000);
    assert_eq!(got, super::stream(b.pos, 1000));
    b.pos = b.pos.wrapping_add(1000);
    b.os.reader_inside = false;
    b.settle_retry();
    b.recv(4096, true);
    b.expect(r1, 4096);
    b.finish();
}

#[test]
fn falling_out_with_nothing_placed_does_not_end_a_read_that_has_bytes() {
    let mut b = Bench::ddp_on();
    b.recv(1000, false);
    let r = b.read_new(4096);
    b.settle();
    assert!(b.pending(r) && b.card.arms == 2);
    b.card.fall_out();
    b.recv(1000, false);
    assert!(b.pending(r), "nobody pushed");
    b.recv(2096, false);
    b.expect(r, 4096);
    b.finish();
}
