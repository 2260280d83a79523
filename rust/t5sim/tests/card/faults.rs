use crate::rig::*;
use t5sim::{Config, Faults};
use wire::{CplStatus, Opcode};

fn faulty(seed: u64, faults: Faults) -> Config {
    Config {
        seed,
        faults,
        ..Config::default()
    }
}

#[test]
fn lost_segments_are_sent_again_from_host_memory() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.card.drop_segments(1);
    r.send_pattern(a, 1, 0, 10_000);
    r.recv_bytes(b, 10_000);
    r.idle();
    assert!(r.recv[&b].data == pattern(1, 0, 10_000));
    let s = r.card.stats();
    assert_eq!(s.wire_dropped, 1);
    assert!(s.rexmt_bytes > 0);
    assert_eq!(
        r.b.read_bytes,
        10_000 + s.rexmt_bytes,
        "each sending reads the pages"
    );
    assert_eq!(r.flows[&a].done, 10_000);
}

#[test]
fn retransmission_shows_pages_given_up_too_early() {
    let late = Faults {
        retransmit_delay: 20_000_000,
        ..Faults::default()
    };
    let mut r = Rig::new(faulty(1, late));
    let (a, b) = r.connect();
    r.card.drop_segments(1);
    let addr = r.alloc_with(&[1; 5_000], 4096);
    let wr = r.sgl_wr(a, &[(addr, 5_000)], true, true);
    r.queue_wr(a, wr, 5_000);
    r.run(15_000_000);
    assert_eq!(
        r.flows[&a].done, 0,
        "not acknowledged: the pages are still the card's"
    );
    assert_eq!(r.recv[&b].data.len(), 0);
    // A host that reuses them now corrupts its own stream.
    r.mem(addr, 5_000).fill(9);
    r.recv_bytes(b, 5_000);
    assert!(r.now > 20_000_000);
    assert!(r.recv[&b].data.iter().all(|&x| x == 9));
}

#[test]
fn three_equal_acknowledgements_beat_the_timer() {
    let mut r = Rig::new(Config {
        rto: 1_000_000_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 200_000);
    r.run(4_000);
    r.card.drop_segments(1);
    r.recv_bytes(b, 200_000);
    assert!(r.now < 1_000_000, "{}", r.now);
    assert_eq!(r.card.stats().rexmts, 1);
    assert!(r.recv[&b].data == pattern(1, 0, 200_000));
}

#[test]
fn streams_survive_a_bad_wire_both_ways() {
    for seed in 0..25 {
        let f = Faults {
            drop_ppm: 30_000,
            dup_ppm: 50_000,
            reorder_ppm: 50_000,
            reorder_delay: 40_000,
            cpl_jitter: 10_000,
            wr_jitter: 10_000,
            ..Faults::default()
        };
        let mut r = Rig::new(Config {
            seed,
            ..Config::default()
        });
        let (a, b) = r.connect();
        r.card.set_faults(f);
        r.send_pattern(a, seed, 0, 400_000);
        r.send_pattern(b, seed + 1, 0, 150_000);
        r.recv_bytes(b, 400_000);
        r.recv_bytes(a, 150_000);
        r.idle();
        assert!(r.recv[&b].data == pattern(seed, 0, 400_000), "seed {seed}");
        assert!(
            r.recv[&a].data == pattern(seed + 1, 0, 150_000),
            "seed {seed}"
        );
        assert_eq!(
            (r.flows[&a].avail, r.flows[&b].avail),
            (r.credits, r.credits)
        );
        assert_eq!(r.card.stats().host_errors, 0);
    }
}

#[test]
fn ddp_survives_a_bad_wire() {
    for seed in 0..25 {
        let f = Faults {
            drop_ppm: 40_000,
            dup_ppm: 50_000,
            reorder_ppm: 50_000,
            reorder_delay: 30_000,
            ..Faults::default()
        };
        let mut r = Rig::new(Config {
            seed,
            ..Config::default()
        });
        let (a, b) = r.connect_ddp();
        r.card.set_faults(f);
        let size = 25_000_u32;
        let bufs = [r.buffer(size, 0, 0), r.buffer(size, 0, 0)];
        let tags = [r.write_pods(b, 0, &bufs[0]), r.write_pods(b, 64, &bufs[1])];
        r.arm(b, 0, tags[0], 0, size, true);
        r.arm(b, 1, tags[1], 0, size, false);
        let total = 12 * size as usize;
        r.send_pattern(a, seed, 0, total);
        let mut got = Vec::new();
        let mut seen = 0;
        while got.len() < total {
            r.wait_ddp(b, seen + 1);
            let (rep, n, _) = r.recv[&b].ddp[seen];
            seen += 1;
            let i = usize::from(rep.buf_idx);
            let mem = r.read_buf(&bufs[i]);
            got.extend_from_slice(&mem[..n as usize]);
            r.arm(b, i, tags[i], 0, size, false);
        }
        assert!(got == pattern(seed, 0, total), "seed {seed}");
    }
}

#[test]
fn resets_by_the_wire_reach_both_ends() {
    let mut hit = 0;
    for seed in 0..20 {
        let mut r = Rig::new(Config {
            seed,
            ..Config::default()
        });
        let (a, b) = r.connect();
        r.card.set_faults(Faults {
            reset_ppm: 100_000,
            ..Faults::default()
        });
        r.send_pattern(a, 1, 0, 300_000);
        r.idle();
        r.card.check().unwrap();
        let n = r.recv[&b].data.len();
        assert!(r.recv[&b].data == pattern(1, 0, n));
        if n < 300_000 {
            hit += 1;
            assert_eq!(r.recv[&b].abort, Some(CplStatus::CONN_RESET));
            assert_eq!(r.recv[&a].abort, Some(CplStatus::CONN_RESET));
            assert_eq!(r.card.connections().count(), 0);
        }
    }
    assert!(hit > 10, "{hit}");
}

#[test]
fn falling_out_by_chance_loses_nothing() {
    for seed in 0..20 {
        let f = Faults {
            ddp_off_ppm: 100_000,
            ..Faults::default()
        };
        let mut r = Rig::new(Config {
            seed,
            seg_min: 1_000,
            seg_max: 4_000,
            ..Config::default()
        });
        let (a, b) = r.connect_ddp();
        r.card.set_faults(f);
        let buf = r.arm_new(b, 0, 0, 60_000, true);
        r.send_pattern(a, 1, 0, 60_000);
        r.idle();
        let placed = match r.recv[&b].ddp.first() {
            Some(d) => d.1 as usize,
            None => 60_000 - r.recv[&b].data.len(),
        };
        let mut all = r.read_buf(&buf)[..placed].to_vec();
        all.extend_from_slice(&r.recv[&b].data);
        assert!(all == pattern(1, 0, 60_000), "seed {seed}");
    }
}

#[test]
fn a_late_set_tcb_reply_keeps_its_place_in_the_queue() {
    let f = Faults {
        set_tcb_rpl_delay: 300_000,
        ..Faults::default()
    };
    let mut r = Rig::new(faulty(1, f));
    let (a, b) = r.connect_ddp();
    r.arm_new(b, 0, 0, 1_000, true);
    r.run(5_000);
    let t0 = r.now;
    r.invalidate(b, 0);
    r.run(2_000);
    r.send_pattern(a, 1, 0, 500);
    r.recv_bytes(b, 500);
    assert!(r.now - t0 >= 300_000, "what comes after waits behind it");
    let of = |op| {
        r.log
            .iter()
            .position(|m| m.op() == op && m.tid() == b)
            .unwrap()
    };
    assert!(of(Opcode::SetTcbRpl) < of(Opcode::RxData));
}

#[test]
fn requests_of_different_queues_are_not_ordered() {
    // With jitter, a control request submitted after a data request sometimes runs first.
    let mut order = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let f = Faults {
            wr_jitter: 20_000,
            ..Faults::default()
        };
        let mut r = Rig::new(faulty(seed, f));
        let (a, _) = r.connect();
        r.idle();
        let wr = r.imm_wr(a, b"x", true, true);
        r.queue_wr(a, wr, 1);
        r.rx_ack(a, 1);
        let before = *r.card.stats();
        let tx0 = before.wrs.tx_data;
        let ack0 = before.wrs.rx_data_ack;
        r.run_while("either", |r| {
            r.card.stats().wrs.tx_data == tx0 && r.card.stats().wrs.rx_data_ack == ack0
        });
        order.insert(r.card.stats().wrs.tx_data > tx0);
    }
    assert_eq!(order.len(), 2);
}

#[test]
fn a_stalled_queue_waits() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let now = r.now;
    r.card.stall_queue(now, OFLD, 500_000);
    let wr = r.imm_wr(a, b"x", true, true);
    r.queue_wr(a, wr, 1);
    r.run(400_000);
    assert_eq!(r.recv[&b].data.len(), 0);
    r.recv_bytes(b, 1);
    assert!(r.now - now >= 500_000);
}

/// A run with everything in it; its trace and counters.
fn scenario(seed: u64) -> (u64, t5sim::Stats, u64) {
    let f = Faults {
        drop_ppm: 20_000,
        dup_ppm: 20_000,
        reorder_ppm: 20_000,
        reorder_delay: 25_000,
        ddp_off_ppm: 5_000,
        wr_jitter: 5_000,
        cpl_jitter: 5_000,
        ..Faults::default()
    };
    let mut r = Rig::new(Config {
        seed,
        ..Config::default()
    });
    let (a, b) = r.connect_ddp();
    r.card.set_faults(f);
    r.arm_new(b, 0, 0, 50_000, true);
    r.arm_new(b, 1, 100, 50_000, false);
    r.send_pattern(a, 1, 0, 200_000);
    r.send_pattern(b, 2, 0, 50_000);
    r.run(100_000_000);
    r.close(a);
    r.abort(b);
    r.run(100_000_000);
    (r.b.trace, *r.card.stats(), r.now)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let first = scenario(seed);
        assert_eq!(first, scenario(seed), "seed {seed}");
        traces.insert(first.0);
    }
    assert_eq!(traces.len(), 10, "other seeds, other runs");
}

#[test]
fn a_held_back_segment_is_late_and_others_overtake_it() {
    let mut r = Rig::new(Config {
        rto: 50_000_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    let f = Faults {
        reorder_ppm: 1_000_000,
        reorder_delay: 400_000,
        ..Faults::default()
    };
    r.card.set_faults(f);
    let t0 = r.now;
    let wr = r.imm_wr(a, b"first", true, true);
    r.queue_wr(a, wr, 5);
    r.run(2_000);
    r.card.set_faults(Faults::default());
    let wr = r.imm_wr(a, b"second", true, true);
    r.queue_wr(a, wr, 6);
    r.run(100_000);
    assert_eq!(
        r.recv[&b].data.len(),
        0,
        "what overtook it is out of order and not kept"
    );
    r.recv_bytes(b, 5);
    assert!(r.now - t0 >= 400_000);
    r.recv_bytes(b, 11);
    assert_eq!(r.recv[&b].data, b"firstsecond");
    assert_eq!(r.card.stats().wire_reordered, 1);
}
