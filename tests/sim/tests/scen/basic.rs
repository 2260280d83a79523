//! Transfers with nothing in the way.

use toehold_core::os::Counter;
use toehold_sim::world::EndConf;

use crate::help::{bufs, finish, got, pair, pair_with, post, send};

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
    finish(w, a, b);
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
            send(&mut w, e, f, &ids, &dst);
        }
        let placed = w.ends[f].os.counter(Counter::RxPlacedOctets);
        assert!(placed > 5 << 20, "only {placed} placed");
        let zcopy = w.ends[e].os.counter(Counter::TxZcopyOctets);
        assert_eq!(zcopy, 6 << 20);
    }
    finish(w, a, b);
}

#[test]
fn reused_buffers_cost_no_worker() {
    let (mut w, a, b) = pair(3);
    let src = bufs(&mut w, a, 3, 64 << 10);
    let dst = bufs(&mut w, b, 3, 64 << 10);
    for _ in 0..20 {
        post(&mut w, b, &dst);
        let ids: Vec<_> = src
            .iter()
            .map(|&s| w.aio_write(a, s, 0, 64 << 10))
            .collect();
        send(&mut w, a, b, &ids, &dst);
    }
    assert_eq!(w.ends[a].os.counter(Counter::CacheMiss), 3);
    assert_eq!(w.ends[b].os.counter(Counter::CacheMiss), 3);
    finish(w, a, b);
}

#[test]
fn many_writes_from_one_buffer() {
    let (mut w, a, b) = pair(4);
    let same = w.bufs.add_constant(w.ends[a].host, 40_000, 4, 77);
    let dst = bufs(&mut w, b, 3, 64 << 10);
    for _ in 0..5 {
        let ids: Vec<_> = (0..8).map(|_| w.aio_write(a, same, 0, 40_000)).collect();
        send(&mut w, a, b, &ids, &dst);
        assert!(ids.iter().all(|&id| w.result(a, id) == Some(Ok(40_000))));
    }
    finish(w, a, b);
}

#[test]
fn without_ddp_and_zcopy_the_generic_path_serves() {
    let mut c = EndConf::default();
    c.tun.ddp = false;
    c.tun.tx_zcopy = false;
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 5, c, c);
    let src = bufs(&mut w, a, 3, 64 << 10);
    let dst = bufs(&mut w, b, 3, 64 << 10);
    let ids: Vec<_> = src
        .iter()
        .map(|&s| w.aio_write(a, s, 0, 64 << 10))
        .collect();
    send(&mut w, a, b, &ids, &dst);
    assert_eq!(w.card.stats().ddp_bytes, 0);
    finish(w, a, b);
}

#[test]
fn other_memory_at_the_same_address() {
    let (mut w, a, b) = pair(6);
    let src = bufs(&mut w, a, 1, 64 << 10);
    let dst = bufs(&mut w, b, 1, 64 << 10);
    for round in 0..4 {
        post(&mut w, b, &dst);
        let id = w.aio_write(a, src[0], 0, 64 << 10);
        while w.result(a, id).is_none() || got(&w, b) < (round + 1) * (64 << 10) {
            assert!(w.step());
            if got(&w, b) < (round + 1) * (64 << 10) {
                post(&mut w, b, &dst);
            }
        }
        for id in w.jobs(b) {
            w.cancel(b, id);
        }
        w.run_until("cancel", crate::help::SEC, |w| w.jobs(b).is_empty());
        w.bufs.remap(src[0], 1);
        w.bufs.remap(dst[0], 4);
    }
    finish(w, a, b);
}
