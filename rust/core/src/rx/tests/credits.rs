//! Receive credits (upstream hazard 8).

use std::vec::Vec;

use super::bench::Bench;
use crate::os::{Counter, Os};
use crate::testos::TestOs;
use wire::RxDataAck;

/// Credits in the work requests sent, oldest first.
fn acks(b: &mut Bench) -> Vec<u32> {
    let mut out = Vec::new();
    while let Some((q, wr)) = b.os.wrs.pop_front() {
        if let Ok(a) = RxDataAck::parse(&wr) {
            assert_eq!((a.tid, a.dack_mode, a.dack_change), (b.sh.id.tid, 1, true));
            out.push(a.credits);
        }
        b.card.exec(q, &wr);
    }
    out
}

fn bench(hiwat: u32) -> Bench {
    let mut os = TestOs::new();
    os.rcv_hiwat = hiwat;
    Bench::with(os)
}

/// Data arrives and is read.
fn through(b: &mut Bench, n: u32) {
    b.card.recv(n, false);
    b.deliver();
    let got = b.os.plain_read(n as usize);
    assert_eq!(got.len(), n as usize);
    b.rx.rcvd(&mut b.sh, &mut b.os);
}

#[test]
fn a_large_window_waits_for_64_kilobytes() {
    let mut b = bench(512 << 10);
    for _ in 0..7 {
        through(&mut b, 9000);
    }
    assert_eq!(acks(&mut b), []);
    through(&mut b, 9000);
    assert_eq!(acks(&mut b), [72_000]);
    assert_eq!(b.sh.seq.rcv_wnd, 512 << 10);
}

#[test]
fn a_middling_window_waits_for_16_kilobytes() {
    let mut b = bench(100 << 10);
    through(&mut b, 16_383);
    assert_eq!(acks(&mut b), []);
    through(&mut b, 1);
    assert_eq!(acks(&mut b), [16_384]);
}

#[test]
fn a_small_window_gets_every_byte_back() {
    let mut b = bench(32 << 10);
    through(&mut b, 1);
    assert_eq!(acks(&mut b), [1]);
    through(&mut b, 3);
    assert_eq!(acks(&mut b), [3]);
}

#[test]
fn unread_data_gives_none() {
    let mut b = bench(32 << 10);
    b.card.recv(1000, false);
    b.deliver();
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), []);
    assert_eq!(b.sh.seq.rcv_wnd, (32 << 10) - 1000);
    assert_eq!(b.os.seq.rcv_wnd, b.sh.seq.rcv_wnd);
}

#[test]
fn a_consumer_that_never_calls_rcvd_does_not_hang() {
    // NFS upstream: credits went back in pr_rcvd only (D41688).
    let mut b = bench(64 << 10);
    let mut total = 0;
    for _ in 0..100 {
        let n = 4000.min(b.card.wnd);
        assert!(n > 0, "the window closed");
        b.card.recv(n, false);
        b.deliver();
        total += b.os.plain_read(usize::MAX).len();
        acks(&mut b);
    }
    assert!(total > 300_000);
}

#[test]
fn ddp_bytes_are_not_charged() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(60_000, 0, 1);
    for _ in 0..4 {
        let r = b.read_at(addr, 60_000);
        b.settle();
        b.recv(60_000, false);
        b.expect(r, 60_000);
    }
    assert_eq!(b.sh.seq.rcv_wnd, 64 << 10);
    assert_eq!(b.card.wnd, 64 << 10);
}

#[test]
fn copied_bytes_are_given_back() {
    let mut b = bench(32 << 10);
    b.card.recv(10_000, true);
    b.deliver();
    let r = b.read_new(10_000);
    b.settle();
    b.expect(r, 10_000);
    assert_eq!(b.sh.seq.rcv_wnd, 32 << 10);
    assert_eq!(b.card.wnd, 32 << 10);
}

#[test]
fn a_low_water_mark_above_the_window_opens_it() {
    let mut b = bench(200 << 10);
    b.os.rcv_lowat = 190 << 10;
    b.sh.seq.rcv_wnd = 180 << 10;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), [20 << 10]);
}

#[test]
fn the_rest_of_a_large_window_is_given_after_open() {
    // opt0 carries 1023 KB at most.
    let mut b = bench(4 << 20);
    b.sh.seq.rcv_wnd = 1023 << 10;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), [(4 << 20) - (1023 << 10)]);
}

#[test]
fn more_credits_than_the_field_holds_go_in_two_messages() {
    let mut b = bench(100 << 20);
    b.sh.seq.rcv_wnd = 0;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), [(1 << 26) - 1, (100 << 20) - (1 << 26) + 1]);
}

#[test]
fn a_negative_window_is_made_good() {
    let mut b = bench(64 << 10);
    b.sh.seq.rcv_wnd = -1000;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), [(64 << 10) + 1000]);
    assert_eq!(b.sh.seq.rcv_wnd, 64 << 10);
}

#[test]
fn a_shrunk_buffer_takes_nothing_back() {
    let mut b = bench(64 << 10);
    b.os.rcv_hiwat = 16 << 10;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), []);
    assert_eq!(b.sh.seq.rcv_wnd, 64 << 10);
}

#[test]
fn without_a_work_request_credits_go_later() {
    let mut b = bench(32 << 10);
    b.os.wr_budget = 0;
    through(&mut b, 1000);
    assert!(b.os.retry);
    assert_eq!(b.sh.seq.rcv_wnd, (32 << 10) - 1000);
    b.os.wr_budget = u32::MAX;
    b.retry();
    assert_eq!(acks(&mut b), [1000]);
}

#[test]
fn parked_data_is_not_given_credit_for() {
    let mut b = Bench::ddp_on();
    b.read_new(4096);
    b.work();
    b.card.recv(50, false);
    b.exec();
    b.card.recv(60, true);
    b.card.recv(30_000, false);
    b.os.reader_inside = true;
    b.deliver();
    b.rx.rcvd(&mut b.sh, &mut b.os);
    b.exec();
    assert!(
        b.card.wnd as usize + 30_050 <= 64 << 10,
        "the peer may overrun so_rcv"
    );
    b.finish();
}

#[test]
fn no_credits_after_the_fin() {
    let mut b = bench(32 << 10);
    b.card.recv(1000, false);
    b.card.fin();
    b.deliver();
    b.os.plain_read(1000);
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(acks(&mut b), []);
    assert_eq!(b.counter(Counter::RxPlainOctets), 1000);
}

#[test]
fn arming_nudges_delivery() {
    let mut b = Bench::ddp_on();
    let before = b.card.modulates;
    b.read_new(10);
    b.settle();
    assert_eq!(b.card.modulates, before + 1);
    assert_eq!(b.os.rcv_space(), 64 << 10);
    b.finish();
}
