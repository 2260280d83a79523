//! Hazard 8: receive credits and windows under DDP.

use toehold_core::os::Counter;
use toehold_sim::world::EndConf;

use crate::help::{SEC, bufs, finish, got, pair_with, post, send, sent, write};

fn rcv(n: u32) -> EndConf {
    EndConf {
        rcv: n,
        ..EndConf::default()
    }
}

#[test]
fn placed_bytes_do_not_shut_the_window() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 1, rcv(64 << 10), rcv(64 << 10));
    let dst = bufs(&mut w, b, 3, 256 << 10);
    post(&mut w, b, &dst);
    w.run_for(SEC);
    let acks = w.card.stats().wrs.rx_data_ack;
    let ids: Vec<_> = (0..4).map(|_| write(&mut w, a, 256 << 10)).collect();
    send(&mut w, a, b, &ids, &dst);
    assert!(w.card.stats().ddp_bytes > 900_000);
    assert!(
        w.card.stats().wrs.rx_data_ack - acks < 8,
        "{:?}",
        w.card.stats()
    );
    assert_eq!(w.card.stats().probes, 0, "the window was shut");
    finish(w, a, b);
}

#[test]
fn a_small_so_rcv() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 2, rcv(4096), rcv(4096));
    let dst = bufs(&mut w, b, 3, 256 << 10);
    let ids: Vec<_> = (0..4).map(|_| write(&mut w, a, 256 << 10)).collect();
    send(&mut w, a, b, &ids, &dst);
    finish(w, a, b);
}

#[test]
fn a_reader_that_never_calls_rcvd() {
    // The adapter is thrown out of DDP all the time: jobs get all by copy.
    let mut cfg = t5sim::Config::default();
    cfg.faults.ddp_off_ppm = 1_000_000;
    let (mut w, a, b) = pair_with(cfg, 3, rcv(32 << 10), rcv(32 << 10));
    let dst = bufs(&mut w, b, 3, 64 << 10);
    let ids: Vec<_> = (0..4).map(|_| write(&mut w, a, 100_000)).collect();
    send(&mut w, a, b, &ids, &dst);
    assert!(w.ends[b].os.counter(Counter::RxCopiedDdpOff) > 0);
    finish(w, a, b);
}

#[test]
fn plain_reads_between_aio_reads() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 4, rcv(64 << 10), rcv(64 << 10));
    let dst = bufs(&mut w, b, 2, 30_000);
    for i in 0..40 {
        if i % 3 == 0 {
            post(&mut w, b, &dst);
        }
        write(&mut w, a, 20_000);
        w.run_for(30_000);
        w.read(b, 7_000);
    }
    while got(&w, b) < sent(&w, a) {
        w.read(b, 1 << 20);
        assert!(w.step(), "{}", w.story());
    }
    finish(w, a, b);
}

#[test]
fn a_low_water_mark_above_the_window() {
    let mut c = rcv(64 << 10);
    c.rcv_lowat = 60_000;
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 5, c, c);
    for _ in 0..5 {
        w.write(a, 60_000);
        w.run_until("enough for the reader", SEC, |w| {
            w.ends[b].os.sock.rcv.len() >= 60_000
        });
        w.read(b, 60_000);
    }
    finish(w, a, b);
}

#[test]
fn autosizing_while_nothing_enters_so_rcv() {
    let mut c = rcv(64 << 10);
    c.auto_max = 1 << 20;
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 6, c, c);
    let dst = bufs(&mut w, b, 3, 256 << 10);
    post(&mut w, b, &dst);
    w.run_for(SEC);
    let ids: Vec<_> = (0..8).map(|_| write(&mut w, a, 256 << 10)).collect();
    send(&mut w, a, b, &ids, &dst);
    finish(w, a, b);
}
