//! A TLS session of the kernel's takes the stream over: what arrives is for it, and no read gets a
//! byte of it, however it came.

use std::vec::Vec;

use super::bench::{Bench, Read};
use super::stream;
use crate::errno::Errno;
use crate::os::Os;

/// The session is on, and the connection was told.
fn switch_on(b: &mut Bench) {
    b.os.tls = true;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    b.settle();
}

/// The read has no byte, and all `n` since went to the session, in order.
fn ciphered(b: &mut Bench, r: Read, n: usize) {
    assert_eq!(b.os.result(r.id), Some(Err(Errno::EOPNOTSUPP)));
    assert!(
        b.os.ciphered == stream(b.pos, n),
        "{} bytes",
        b.os.ciphered.len()
    );
}

#[test]
fn no_read_is_claimed() {
    let mut b = Bench::ddp_on();
    switch_on(&mut b);
    let job = b.os.job(b.os.mem.alloc(100, 0, 1), 100);
    let job = b.rx.aio_read(&mut b.sh, &mut b.os, job);
    assert!(job.is_err_and(|job| {
        job.end();
        true
    }));
    b.finish();
}

#[test]
fn posted_buffers_are_taken_back_and_their_bytes_go_to_the_session() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.recv(5000, false);
    switch_on(&mut b);
    b.recv(777, true);
    assert_eq!(b.os.result(r1.id), Some(Err(Errno::EOPNOTSUPP)));
    ciphered(&mut b, r0, 5777);
    b.finish();
}

/// The kernel marks so_rcv before it tells anybody.
#[test]
fn bytes_that_land_before_the_connection_is_told() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.os.tls = true;
    b.recv(4096, true);
    ciphered(&mut b, r, 4096);
    b.finish();
}

/// A record waits for its last byte in so_rcv, which takes no more than it may.
#[test]
fn more_than_so_rcv_takes() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(50_000);
    b.settle();
    b.os.rcv_hiwat = 4096;
    b.card.recv(50_000, false);
    b.os.tls = true;
    let mut got = Vec::new();
    while got.len() < 50_000 {
        b.settle_retry_once();
        assert!((1..=4096).contains(&b.os.ciphered.len()));
        got.append(&mut b.os.ciphered);
        b.rx.rcvd(&mut b.sh, &mut b.os);
    }
    assert!(got == stream(b.pos, 50_000));
    assert_eq!(b.os.rcv_held(), 0);
    b.settle();
    assert_eq!(b.os.result(r.id), Some(Err(Errno::EOPNOTSUPP)));
    b.finish();
}

/// A read that has bytes from before keeps them.
#[test]
fn a_read_half_done_ends_short() {
    let mut b = Bench::ddp_on();
    b.recv(50, false);
    let r = b.read_new(8192);
    b.settle();
    assert!(b.pending(r));
    switch_on(&mut b);
    b.recv(10, true);
    b.expect(r, 50);
    assert!(b.os.ciphered == stream(b.pos, 10));
    b.finish();
}

#[test]
fn the_end_of_the_stream_comes_to_the_session() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.os.tls = true;
    b.card.recv(30, false);
    b.card.fin();
    b.settle();
    assert!(b.os.rcv_shut);
    ciphered(&mut b, r, 30);
    b.finish();
}
