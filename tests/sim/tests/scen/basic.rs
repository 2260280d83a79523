//! Transfers with nothing in the way.

use toehold_core::os::Counter;

use crate::help::{bufs, drain, finish, got, pair, post};

#[test]
fn plain_both_ways() {
    let (mut w, a, b) = pair(1);
    for (e, f) in [(a, b), (b, a)] {
        let mut sent = 0;
        while got(&w, f) < 1_000_000 {
            sent += w.write(e, 10_000.min(1_000_000 - sent));
            w.step();
            w.read(f, 1 << 20);
        }
        assert_eq!(sent, 1_000_000);
    }
    finish(&mut w, a, b);
}

#[test]
fn aio_both_ways_by_ddp() {
    let (mut w, a, b) = pair(2);
    for (e, f) in [(a, b), (b, a)] {
        let src = bufs(&mut w, e, 4, 256 << 10);
        let dst = bufs(&mut w, f, 4, 256 << 10);
        for _ in 0..6 {
            post(&mut w, f, &dst);
            let ids: Vec<_> = src
                .iter()
                .map(|&s| w.aio_write(e, s, 0, 256 << 10))
                .collect();
            while ids.iter().any(|&id| w.result(e, id).is_none()) {
                assert!(w.step(), "{}", w.story());
                post(&mut w, f, &dst);
            }
            drain(&mut w, e, f, &dst);
        }
        let placed = w.ends[f].os.counter(Counter::RxPlacedOctets);
        assert!(placed > 5 << 20, "only {placed} placed");
        let zcopy = w.ends[e].os.counter(Counter::TxZcopyOctets);
        assert_eq!(zcopy, 6 << 20);
    }
    finish(&mut w, a, b);
}
