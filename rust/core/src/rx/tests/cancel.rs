//! Cancels, wherever the job is (upstream hazard 2; I1, I8).

use super::bench::Bench;
use super::stream;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::{Counter, JobId, Os};
use wire::DdpBuf;

const CANCELED: Option<Result<usize, Errno>> = Some(Err(Errno::ECANCELED));

#[test]
fn queued() {
    let mut b = Bench::new();
    let (r0, r1) = (b.read_new(100), b.read_new(100));
    assert!(b.cancel(r1.id));
    assert_eq!(b.os.result(r1.id), CANCELED);
    assert!(b.pending(r0));
    assert!(!b.cancel(r1.id), "found twice");
    assert_eq!(b.counter(Counter::CancelClean), 1);
    b.finish();
}

#[test]
fn unknown() {
    let mut b = Bench::new();
    b.read_new(100);
    assert!(!b.cancel(JobId(999)));
    b.finish();
}

#[test]
fn while_a_worker_holds_its_pages() {
    let mut b = Bench::new();
    let r = b.read_new(100);
    let w = b.want().unwrap();
    assert_eq!(w.job, r.id);
    assert!(b.cancel(r.id));
    assert!(b.pending(r), "the worker still looks at the job");
    assert!(!b.rx.idle());
    assert!(b.cancel(r.id), "it is on its way");
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert_eq!(b.os.result(r.id), CANCELED);
    // The pages are cached, with no user.
    assert_eq!((b.sh.sets.taken(), b.os.users.iter().sum::<u32>()), (1, 0));
    b.finish();
}

#[test]
fn partly_copied() {
    let mut b = Bench::ddp_on();
    b.recv(300, false);
    let r = b.read_new(4096);
    b.os.wr_budget = 0;
    b.settle();
    assert_eq!(b.os.rcv_avail(), 0);
    assert!(b.cancel(r.id));
    b.expect(r, 300);
    assert_eq!(b.counter(Counter::CancelShort), 1);
    b.finish();
}

#[test]
fn posted_and_empty() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id));
    assert!(b.pending(r), "the adapter may still write");
    b.settle();
    assert_eq!(b.os.result(r.id), CANCELED);
    assert!(!b.card.tcb.buf_valid(DdpBuf::B0));
    b.finish();
}

#[test]
fn posted_with_bytes_placed() {
    for (idx, n) in [(0, 1000), (1, 1), (0, 4095), (1, 2222)] {
        let mut b = Bench::ddp_on();
        if idx == 1 {
            // The other buffer is used up first.
            let r = b.read_new(10);
            b.settle();
            b.recv(10, false);
            b.expect(r, 10);
        }
        let r = b.read_new(4096);
        b.settle();
        b.card.recv(n, false);
        b.deliver();
        assert!(b.cancel(r.id));
        b.settle();
        b.expect(r, n as usize);
        assert_eq!(b.sh.seq.rcv_nxt, b.card.rcv_nxt);
        assert_eq!(b.counter(Counter::CancelShort), 1);
        b.finish();
    }
}

#[test]
fn second_buffer_with_bytes_placed_tells_its_offset() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(100), b.read_new(4096));
    b.settle();
    b.card.recv(150, false);
    assert!(b.cancel(r1.id));
    b.settle();
    b.expect(r0, 100);
    b.expect(r1, 50);
    b.finish();
}

#[test]
fn data_landing_while_the_invalidate_is_on_its_way_is_counted() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id));
    b.card.recv(700, false);
    b.settle();
    b.expect(r, 700);
    // Nothing is lost behind it.
    let r = b.read_new(4096);
    b.settle();
    b.recv(5, true);
    b.expect(r, 5);
    b.finish();
}

#[test]
fn the_read_completes_before_the_invalidate_arrives() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id));
    b.card.recv(4096, false);
    b.deliver();
    b.expect(r, 4096);
    // The buffer is not used before the reply is here.
    let r2 = b.read_new(100);
    b.work();
    assert!(!b.rx.idle());
    b.settle();
    b.recv(100, false);
    b.expect(r2, 100);
    b.finish();
}

#[test]
fn an_empty_report_before_the_invalidate_arrives() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id));
    b.card.time_out();
    b.deliver();
    assert_eq!(b.os.result(r.id), CANCELED, "not posted again");
    b.settle();
    assert!(b.rx.idle());
    b.finish();
}

#[test]
fn falling_out_of_ddp_before_the_invalidate_arrives() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id));
    b.card.fall_out();
    b.card.recv(100, true);
    b.deliver();
    assert!(b.pending(r), "what it says is not about the buffer");
    b.settle();
    assert_eq!(b.os.result(r.id), CANCELED);
    assert_eq!(b.os.rcv_avail(), 100);
    b.finish();
}

#[test]
fn data_behind_placed_bytes_waits_for_the_reply() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(5, false);
    assert!(b.cancel(r.id));
    b.exec();
    b.card.recv(7, true);
    // The reply is late.
    let reply = b.card.out.pop_front().unwrap();
    b.deliver();
    assert!(
        b.pending(r),
        "the adapter has not said that it is done with it"
    );
    assert_eq!(b.os.rcv_avail(), 0);
    b.card.out.push_back(reply);
    b.deliver();
    b.expect(r, 5);
    assert_eq!(b.os.rcv_avail(), 7);
    assert!(b.rx.idle());
    b.finish();
}

#[test]
fn data_that_finds_the_buffer_taken_back_goes_to_the_next_read() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(200, false);
    assert!(b.cancel(r.id));
    b.exec();
    b.card.recv(300, true);
    b.settle();
    b.expect(r, 200);
    let r = b.read_new(4096);
    b.settle();
    b.expect(r, 300);
    b.finish();
}

#[test]
fn the_front_buffer_with_another_behind() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.recv(10, false);
    assert!(b.cancel(r0.id));
    b.settle();
    b.expect(r0, 10);
    // The adapter goes on with the other.
    assert_eq!(b.card.tcb.active_buf(), DdpBuf::B1);
    b.recv(4096, false);
    b.expect(r1, 4096);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 4106);
    b.finish();
}

#[test]
fn the_second_buffer_with_the_first_filling() {
    let mut b = Bench::ddp_on();
    let (r0, r1, r2) = (b.read_new(4096), b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.recv(10, false);
    assert!(b.cancel(r1.id));
    b.settle();
    assert_eq!(b.os.result(r1.id), CANCELED);
    b.recv(4086, false);
    b.recv(4096, false);
    b.expect(r0, 4096);
    b.expect(r2, 4096);
    b.finish();
}

#[test]
fn both_buffers_at_once() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.recv(10, false);
    assert!(b.cancel(r0.id) && b.cancel(r1.id));
    b.settle();
    b.expect(r0, 10);
    assert_eq!(b.os.result(r1.id), CANCELED);
    b.finish();
}

#[test]
fn twice_sends_one_invalidate() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id) && b.cancel(r.id));
    assert_eq!(b.os.wrs.len(), 1);
    b.settle();
    assert_eq!(b.os.result(r.id), CANCELED);
    b.finish();
}

#[test]
fn without_a_work_request_waits_for_one() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.os.wr_budget = 0;
    assert!(b.cancel(r.id));
    assert!(b.os.retry && b.pending(r));
    b.card.recv(33, false);
    b.os.wr_budget = u32::MAX;
    b.settle_retry();
    b.expect(r, 33);
    b.finish();
}

#[test]
fn while_a_reader_is_inside() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.work();
    b.card.recv(50, false);
    b.exec();
    b.card.recv(60, true);
    b.os.reader_inside = true;
    b.deliver();
    assert!(b.pending(r));
    assert!(b.cancel(r.id));
    // What was placed is the reader's.
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECANCELED)));
    assert_eq!(b.os.plain_read(200), stream(b.pos, 110));
    b.finish();
}

#[test]
fn connection_lost_before_the_reply() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r.id));
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECONNRESET)));
    b.finish();
}

#[test]
fn so_rcv_is_left_alone_by_a_clean_cancel() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.work();
    b.card.recv(50, false);
    b.exec();
    b.deliver();
    assert_eq!(b.os.rcv_avail(), 50);
    assert!(b.cancel(r.id));
    b.settle();
    assert_eq!(b.os.result(r.id), CANCELED);
    assert_eq!(b.os.rcv_avail(), 50);
    b.finish();
}
