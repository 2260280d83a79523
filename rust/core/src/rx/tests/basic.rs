//! A read from submission to completion.

use std::vec::Vec;

use super::bench::Bench;
use crate::os::{Counter, Os, Queue};

#[test]
fn a_read_is_placed_from_the_first_byte_on() {
    let mut b = Bench::new();
    let r = b.read_new(8192);
    b.settle();
    b.recv(8192, false);
    b.expect(r, 8192);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 8192);
    assert_eq!(b.card.placed, 8192);
    assert!(b.os.rcv.is_empty());
    b.finish();
}

#[test]
fn nothing_is_posted_before_the_adapter_confirms() {
    let mut b = Bench::new();
    let r = b.read_new(4096);
    assert!(b.work());
    b.exec();
    assert_eq!(b.card.arms, 0);
    assert!(!b.card.tcb.ddp_off());
    assert!(!b.card.tcb.rcv_coalesce());
    b.deliver();
    b.exec();
    assert_eq!(b.card.arms, 1);
    assert!(b.pending(r));
    b.finish();
}

#[test]
fn enable_is_asked_for_once() {
    let mut b = Bench::new();
    b.read_new(4096);
    b.read_new(4096);
    b.work();
    b.retry();
    b.retry();
    assert_eq!(b.os.wrs.len(), 1);
    b.finish();
}

#[test]
fn two_buffers_are_posted_and_no_third() {
    let mut b = Bench::ddp_on();
    for _ in 0..4 {
        b.read_new(4096);
    }
    b.settle();
    let tcb = &b.card.tcb;
    assert!(tcb.buf_valid(wire::DdpBuf::B0) && tcb.buf_valid(wire::DdpBuf::B1));
    assert_ne!(tcb.buf_tag(wire::DdpBuf::B0), tcb.buf_tag(wire::DdpBuf::B1));
    b.finish();
}

#[test]
fn many_reads_keep_their_order() {
    let mut b = Bench::ddp_on();
    let reads: Vec<_> = (0..9).map(|i| b.read_new(1000 + 777 * i)).collect();
    b.settle();
    for r in &reads {
        b.recv(r.len as u32, false);
    }
    for r in reads {
        b.expect(r, r.len);
    }
    assert_eq!(b.counter(Counter::RxJobs), 10);
    b.finish();
}

#[test]
fn one_segment_fills_both_buffers() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(3000), b.read_new(5000));
    b.settle();
    b.recv(8000, false);
    b.expect(r0, 3000);
    b.expect(r1, 5000);
    b.finish();
}

#[test]
fn psh_ends_a_read_short() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    b.recv(100, true);
    b.expect(r, 100);
    assert_eq!(b.counter(Counter::RxShort), 1);
    b.finish();
}

#[test]
fn segments_without_psh_fill_a_read_bit_by_bit() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    for _ in 0..8 {
        assert!(b.pending(r));
        b.recv(1024, false);
    }
    b.expect(r, 8192);
    b.finish();
}

#[test]
fn a_report_counts_all_placements_since_the_last() {
    // RX_DATA_DDP's len and seq are of the last placement only.
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    b.recv(5000, false);
    b.recv(11, true);
    b.expect(r, 5011);
    assert_eq!(b.sh.seq.rcv_nxt, b.card.rcv_nxt);
    b.finish();
}

#[test]
fn the_push_timer_ends_a_read_by_ddp_complete() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    b.recv(500, false);
    b.card.time_out();
    b.settle();
    b.expect(r, 500);
    b.finish();
}

#[test]
fn an_empty_report_posts_the_read_again() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    let before = b.card.arms;
    b.card.time_out();
    b.settle();
    assert!(b.pending(r));
    assert_eq!(b.card.arms, before + 1);
    b.recv(8192, false);
    b.expect(r, 8192);
    b.finish();
}

#[test]
fn an_empty_report_does_not_let_the_next_read_overtake() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.time_out();
    b.settle();
    b.recv(8192, false);
    b.expect(r0, 4096);
    b.expect(r1, 4096);
    // Both were posted again, in their order: nothing was copied.
    assert_eq!(b.counter(Counter::RxPlacedOctets), 8192);
    assert_eq!(b.os.returned, 0);
    b.finish();
}

#[test]
fn an_empty_report_with_the_next_buffer_already_filling_keeps_order() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.time_out();
    b.card.recv(1000, false);
    b.settle();
    b.card.recv(7192, true);
    b.settle();
    b.expect(r0, 4096);
    b.expect(r1, 4096);
    b.finish();
}

#[test]
fn data_before_the_read_is_copied_and_the_rest_placed() {
    let mut b = Bench::ddp_on();
    b.recv(1000, false);
    let r = b.read_new(4096);
    b.settle();
    assert!(b.pending(r));
    assert_eq!(b.os.rcv_avail(), 0);
    b.recv(3096, false);
    b.expect(r, 4096);
    assert_eq!(b.counter(Counter::RxCopiedNoBuffer), 1000);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 3096);
    b.finish();
}

#[test]
fn data_before_ddp_fills_reads_by_copy_alone() {
    let mut b = Bench::new();
    b.recv(5000, true);
    let (r0, r1) = (b.read_new(2000), b.read_new(3000));
    b.settle();
    b.expect(r0, 2000);
    b.expect(r1, 3000);
    assert_eq!(b.counter(Counter::RxCopiedBeforeDdp), 5000);
    assert_eq!(b.card.arms, 0);
    b.finish();
}

#[test]
fn a_pushed_remainder_ends_the_read_and_does_not_wait_for_more() {
    // Request and response: the peer waits for us after its PSH.
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let r = b.read_new(4096);
    b.settle();
    b.expect(r, 100);
    b.finish();
}

#[test]
fn an_indicate_wakes_a_waiting_read() {
    let mut b = Bench::new();
    let r = b.read_new(4096);
    // Data came before the adapter saw the request to enable.
    b.card.recv(700, true);
    b.settle();
    b.expect(r, 700);
    b.finish();
}

#[test]
fn reads_are_declined_when_ddp_is_off_or_nothing_is_asked() {
    let mut b = Bench::new();
    let job = b.os.job(0x1000, 0);
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err().end();
    b.sh.tun.ddp = false;
    let job = b.os.job(0x1000, 10);
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err().end();
    assert!(b.rx.idle() && b.os.wrs.is_empty());
    assert_eq!(b.counter(Counter::RxJobs), 0);
}

#[test]
fn a_job_cancelled_before_it_is_queued_ends_at_once() {
    let mut b = Bench::new();
    let job = b.os.job(0x1000, 10);
    let id = crate::os::Job::id(&job);
    b.os.cancelled.push(id);
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap();
    assert_eq!(b.os.result(id), Some(Err(crate::errno::Errno::ECANCELED)));
    assert!(b.rx.idle());
}

#[test]
fn arming_comes_after_the_page_pods_on_the_same_queue() {
    let mut b = Bench::ddp_on();
    b.read_new(200_000);
    b.work();
    let n = b.os.wrs.len();
    assert!(b.os.wrs.iter().all(|(q, _)| *q == Queue::Ctrl));
    for (i, (_, wr)) in b.os.wrs.iter().enumerate() {
        assert_eq!(
            wire::UlpTxMemWrite::parse(wr).is_ok(),
            i + 1 < n,
            "{i} of {n}"
        );
    }
    // 50 single pages: 13 pods, 4 requests of up to 4 pods, and the one that arms.
    assert_eq!(n, 5);
    assert_eq!(
        b.counter(Counter::PpodWrs),
        5,
        "one of them for the first test read"
    );
    b.finish();
}

#[test]
fn the_same_buffer_again_needs_no_hold_and_no_page_pods() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(65536, 0, 1);
    for i in 0..5 {
        let r = b.read_at(addr, 65536);
        b.settle();
        let before = b.card.pod_wrs;
        b.recv(65536, false);
        b.expect(r, 65536);
        if i > 0 {
            assert_eq!(b.card.pod_wrs, before);
        }
    }
    assert_eq!(b.counter(Counter::PpodsWritten), 1 + 4);
    assert_eq!(b.card.pod_wrs, 2);
    assert_eq!(b.counter(Counter::CacheMiss), 2);
    assert_eq!(b.counter(Counter::CacheHit), 4);
    b.finish();
}

#[test]
fn pages_are_marked_dirty_after_dma() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    assert!(!b.os.mem.is_dirty(r.addr));
    b.recv(8192, false);
    assert!(b.os.mem.is_dirty(r.addr) && b.os.mem.is_dirty(r.addr + 8191));
    b.finish();
}

#[test]
fn a_nonblocking_socket_flushes_with_the_first_bytes() {
    let mut b = Bench::ddp_on();
    b.os.nonblocking = true;
    let r = b.read_new(8192);
    b.settle();
    assert!(b.card.tcb.buf_flush(wire::DdpBuf::B0));
    b.recv(10, false);
    b.expect(r, 10);
    b.finish();
}

#[test]
fn a_nonblocking_read_takes_what_is_there() {
    let mut b = Bench::ddp_on();
    b.os.nonblocking = true;
    b.recv(10, false);
    let r = b.read_new(8192);
    b.settle();
    b.expect(r, 10);
    b.finish();
}

#[test]
fn an_empty_flush_does_not_flush_forever() {
    let mut b = Bench::ddp_on();
    b.os.nonblocking = true;
    let r = b.read_new(8192);
    b.settle();
    b.card.time_out();
    b.settle();
    assert!(!b.card.tcb.buf_flush(wire::DdpBuf::B0));
    b.recv(10, true);
    b.expect(r, 10);
    // Bytes came: the next may flush again.
    b.read_new(8192);
    b.settle();
    let flushes = [wire::DdpBuf::B0, wire::DdpBuf::B1].map(|i| b.card.tcb.buf_flush(i));
    assert!(flushes.contains(&true));
    b.finish();
}

#[test]
fn sequence_numbers_wrap() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(1000);
    b.settle();
    b.recv(1000, false);
    assert!(b.sh.seq.rcv_nxt < 1000, "this test does not wrap");
    b.expect(r, 1000);
    assert_eq!(b.os.seq.rcv_nxt, b.sh.seq.rcv_nxt, "shown in the tcpcb");
    b.finish();
}

#[test]
fn a_read_of_one_byte() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(1);
    b.settle();
    b.recv(1, true);
    b.expect(r, 1);
    b.finish();
}
