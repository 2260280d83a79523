//! Readers that wait inside the receive I/O lock (MSG_WAITALL, SO_RCVLOWAT). They leave when they
//! have what they want, so nothing that they need may wait for them to leave.

use super::bench::{Bench, Read};
use super::stream;
use crate::os::Os;

/// A read of `len` bytes is posted behind 20 bytes in so_rcv, which a reader waits to see more of.
fn behind(len: usize) -> (Bench, Read) {
    let mut b = Bench::ddp_on();
    let r = b.read_new(len);
    b.settle_work();
    // They come before the buffer is armed.
    b.card.recv(20, false);
    b.exec();
    b.os.reader_inside = true;
    (b, r)
}

/// The reader inside takes `n` bytes and says so.
fn take(b: &mut Bench, n: usize) {
    assert!(b.os.plain_read(n) == stream(b.pos, n), "other bytes");
    b.pos = b.pos.wrapping_add(n as u32);
    b.rx.rcvd(&mut b.sh, &mut b.os);
    b.check();
}

#[test]
fn gets_what_was_placed_behind_its_bytes() {
    let (mut b, r) = behind(8192);
    b.recv(100, true);
    assert_eq!(b.os.rcv_avail(), 120);
    assert!(b.pending(r));
    take(&mut b, 70);
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r, 50);
    b.finish();
}

#[test]
fn hears_of_the_fin() {
    for placed in [0, 100] {
        let (mut b, r) = behind(8192);
        if placed > 0 {
            b.card.recv(placed, false);
        }
        b.card.fin();
        b.settle();
        assert_eq!(b.os.rcv_avail(), 20 + placed);
        assert!(b.os.rcv_shut, "{placed} bytes placed");
        assert!(b.pending(r));
        take(&mut b, 20 + placed as usize);
        b.os.reader_inside = false;
        b.settle_retry();
        b.expect(r, 0);
        b.finish();
    }
}

/// so_rcv takes no more than its high-water mark, however much was placed.
#[test]
fn is_served_through_a_small_so_rcv() {
    const PLACED: u32 = 50_000;
    let (mut b, r) = behind(64 << 10);
    b.os.rcv_hiwat = 4096;
    b.card.recv(PLACED, false);
    b.card.fin();
    b.settle();
    let mut left = PLACED as usize + 20 - 1000;
    while left > 0 {
        let there = b.os.rcv_avail() as usize;
        assert!((1..=4096).contains(&there), "{there} bytes in so_rcv");
        assert_eq!(b.os.rcv_shut, there - 1000 == left);
        let n = there.min(1500).min(left);
        take(&mut b, n);
        left -= n;
    }
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r, 1000);
    assert!(b.os.rcv_shut);
    b.finish();
}

/// It leaves while a part of what was placed has gone its way.
#[test]
fn leaves_half_way() {
    let (mut b, r) = behind(64 << 10);
    b.os.rcv_hiwat = 4096;
    b.recv(50_000, true);
    take(&mut b, 4000);
    assert_eq!(b.os.rcv_avail(), 4096);
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r, 50_020 - 4000);
    b.finish();
}

/// The job at the back of the queue is cancelled, or the one whose bytes go to the reader.
#[test]
fn a_cancel_meanwhile() {
    let (mut b, r) = behind(64 << 10);
    b.os.rcv_hiwat = 4096;
    b.recv(50_000, true);
    assert!(b.cancel(r.id));
    take(&mut b, 4000);
    b.os.reader_inside = false;
    b.settle_retry();
    let n = b.os.result(r.id).and_then(Result::ok).unwrap_or(0);
    b.expect_bytes(r.addr, n);
    while b.os.rcv_avail() > 0 {
        let n = b.os.rcv_avail() as usize;
        take(&mut b, n);
    }
    assert_eq!(b.pos, super::bench::SEQ.wrapping_add(50_020));
    b.finish();
}

#[test]
fn no_mbuf_for_what_was_placed() {
    let (mut b, r) = behind(8192);
    b.os.deny_mbufs = true;
    b.recv(100, true);
    assert_eq!(b.os.rcv_avail(), 20);
    assert!(b.os.retry && b.pending(r));
    b.os.deny_mbufs = false;
    b.settle_retry_once();
    assert_eq!(b.os.rcv_avail(), 120);
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r, 120);
    b.finish();
}
