//! so_rcv grows for programs that read, and only for these.

use super::bench::Bench;
use crate::os::Os;
use crate::testos::TestOs;

const HIWAT: u32 = 64 << 10;
const STEP: u32 = 16 << 10;

fn bench() -> Bench {
    let mut os = TestOs::new();
    os.rcv_step = STEP;
    Bench::with(os)
}

fn plain(b: &mut Bench, n: usize) {
    b.os.plain_read(n);
    b.rx.rcvd(&mut b.sh, &mut b.os);
}

/// The peer fills the window in steps of `n` bytes, whatever the window becomes.
fn fill(b: &mut Bench, n: u32) -> u32 {
    let mut sent = 0;
    loop {
        b.settle();
        let n = n.min(b.card.wnd);
        if n == 0 {
            return sent;
        }
        b.card.recv(n, true);
        sent += n;
    }
}

#[test]
fn what_nobody_reads_makes_no_room() {
    for n in [1448, 9000, 60_000] {
        let mut b = bench();
        assert_eq!(fill(&mut b, n), HIWAT);
        assert_eq!((b.os.rcv_hiwat, b.os.rcv_avail()), (HIWAT, HIWAT));
        b.finish();
    }
}

/// It takes some, but never catches up.
#[test]
fn a_reader_that_lags_behind_gets_no_more() {
    let mut b = bench();
    for _ in 0..100 {
        fill(&mut b, 9000);
        plain(&mut b, 40_000);
    }
    assert_eq!(b.os.rcv_hiwat, HIWAT);
    b.finish();
}

#[test]
fn a_reader_that_empties_it_gets_more() {
    let mut b = bench();
    fill(&mut b, 9000);
    plain(&mut b, 30_000);
    assert_eq!(b.os.rcv_hiwat, HIWAT);
    plain(&mut b, 30_000);
    assert_eq!(b.os.rcv_hiwat, HIWAT + STEP);
    // The peer may use it.
    plain(&mut b, 10_000);
    assert_eq!(fill(&mut b, 9000), HIWAT + STEP);
    b.finish();
}

#[test]
fn less_than_half_of_it_is_no_reason() {
    let mut b = bench();
    for _ in 0..20 {
        b.recv(30_000, true);
        plain(&mut b, 30_000);
    }
    assert_eq!(b.os.rcv_hiwat, HIWAT);
    b.finish();
}

#[test]
fn reads_of_more_than_half_of_it_make_it_grow() {
    // Placed, or copied.
    for placed in [true, false] {
        let mut b = bench();
        b.turn_on();
        let early = if placed { 0 } else { 50_000 };
        b.card.recv(early, true);
        b.deliver();
        let r = b.read_new(50_000);
        b.settle();
        b.card.recv(50_000 - early, true);
        b.settle();
        b.expect(r, 50_000);
        assert_eq!(b.os.rcv_hiwat, HIWAT + STEP, "placed {placed}");
        b.finish();
    }
}

/// What was placed and goes back to so_rcv was not taken by anyone.
#[test]
fn placed_bytes_that_go_to_so_rcv_are_not_taken() {
    let mut b = bench();
    b.turn_on();
    let r = b.read_new(60_000);
    b.settle_work();
    b.card.recv(20, false);
    b.exec();
    b.os.reader_inside = true;
    b.recv(50_000, true);
    assert!(b.pending(r));
    assert_eq!((b.os.rcv_hiwat, b.os.rcv_avail()), (HIWAT, 50_020));
    b.finish();
}
