//! Hazard 9: falling out of DDP, indicates that cross buffers, two slots, sequence wrap.

use toehold_core::os::Counter;
use toehold_sim::world::EndConf;

use crate::help::{
    bufs, finish, got, pair, pair_with, patient, placed, post, posted, quiet, send, sent, write,
};

#[test]
fn in_the_middle_of_a_buffer() {
    for after in [1_u64, 9_000, 40_000, 70_000] {
        let (mut w, a, b) = pair_with(patient(), after, Default::default(), Default::default());
        posted(&mut w, b, 2, 64 << 10);
        let tid = w.ends[b].tid.expect("open");
        let ids: Vec<_> = (0..5).map(|_| write(&mut w, a, 50_000)).collect();
        w.run_until("placed", crate::help::SEC, |w| placed(w, b) >= after);
        assert!(w.card.ddp_fall_out(tid));
        let dst = bufs(&mut w, b, 3, 64 << 10);
        send(&mut w, a, b, &ids, &dst);
        assert!(w.card.stats().ddp_off >= 1);
        // It comes back to DDP by itself.
        let before = placed(&w, b);
        quiet(&mut w, a);
        post(&mut w, b, &dst);
        w.run_for(crate::help::MS);
        let id = write(&mut w, a, 60_000);
        send(&mut w, a, b, &[id], &dst);
        assert!(placed(&w, b) > before, "DDP is off for good");
        finish(w, a, b);
    }
}

#[test]
fn again_and_again() {
    let mut cfg = t5sim::Config::default();
    cfg.faults.ddp_off_ppm = 200_000;
    let (mut w, a, b) = pair_with(cfg, 2, Default::default(), Default::default());
    let dst = bufs(&mut w, b, 3, 64 << 10);
    let ids: Vec<_> = (0..10).map(|_| write(&mut w, a, 100_000)).collect();
    send(&mut w, a, b, &ids, &dst);
    assert!(w.card.stats().ddp_off > 3);
    finish(w, a, b);
}

#[test]
fn indicates_cross_buffers_being_posted() {
    for seed in 0..5 {
        let mut cfg = t5sim::Config::default();
        cfg.faults.indicate_ppm = 1_000_000;
        cfg.faults.wr_jitter = 30_000;
        let (mut w, a, b) = pair_with(cfg, seed, Default::default(), Default::default());
        let dst = bufs(&mut w, b, 3, 30_000);
        for _ in 0..6 {
            post(&mut w, b, &dst);
            let ids: Vec<_> = (0..3).map(|_| write(&mut w, a, 45_000)).collect();
            send(&mut w, a, b, &ids, &dst);
        }
        finish(w, a, b);
    }
}

#[test]
fn two_slots_take_turns() {
    let (mut w, a, b) = pair(3);
    let dst = bufs(&mut w, b, 4, 8192);
    post(&mut w, b, &dst);
    w.run_for(crate::help::MS);
    let ids: Vec<_> = (0..20).map(|_| write(&mut w, a, 40_960)).collect();
    send(&mut w, a, b, &ids, &dst);
    let s = w.card.stats();
    assert!(s.ddp_complete > 50, "{s:?}");
    finish(w, a, b);
}

#[test]
fn sequence_numbers_wrap() {
    for before in [1, 1_000, 30_000, 100_000, 200_000] {
        let c = EndConf {
            iss: 0u32.wrapping_sub(before),
            ..EndConf::default()
        };
        let (mut w, a, b) = pair_with(patient(), 4, c, c);
        for (e, f) in [(a, b), (b, a)] {
            let dst = bufs(&mut w, f, 3, 64 << 10);
            post(&mut w, f, &dst);
            w.run_for(crate::help::MS);
            let ids: Vec<_> = (0..5).map(|_| write(&mut w, e, 60_000)).collect();
            send(&mut w, e, f, &ids, &dst);
            assert!(w.ends[f].os.counter(Counter::RxPlacedOctets) > 100_000);
        }
        finish(w, a, b);
    }
}

#[test]
fn the_wire_loses_doubles_and_reorders() {
    for seed in 0..6 {
        let mut cfg = t5sim::Config {
            rto: 300_000,
            seed,
            ..t5sim::Config::default()
        };
        cfg.faults.drop_ppm = 0;
        let (mut w, a, b) = pair_with(cfg, seed, Default::default(), Default::default());
        w.card.set_faults(t5sim::Faults {
            drop_ppm: 20_000,
            dup_ppm: 20_000,
            reorder_ppm: 20_000,
            reorder_delay: 50_000,
            retransmit_delay: 100_000,
            ..Default::default()
        });
        let dst = bufs(&mut w, b, 3, 64 << 10);
        let ids: Vec<_> = (0..10).map(|_| write(&mut w, a, 100_000)).collect();
        send(&mut w, a, b, &ids, &dst);
        assert_eq!(got(&w, b), sent(&w, a));
        w.card.set_faults(Default::default());
        finish(w, a, b);
    }
}
