use crate::rig::*;
use t5sim::{Config, TcpState};
use wire::{CplStatus, Opcode};

#[test]
fn immediate_data_arrives() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let msg = pattern(3, 0, 48);
    let wr = r.imm_wr(a, &msg, true, true);
    assert_eq!(wr.len(), 64);
    r.queue_wr(a, wr, 48);
    r.recv_bytes(b, 48);
    assert_eq!(r.recv[&b].data, msg);
    r.idle();
    assert_eq!(r.b.read_bytes, 0, "no DMA for immediate data");
    assert_eq!(r.flows[&a].done, 48);
}

#[test]
fn scattered_data_arrives_in_order() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let data = pattern(4, 0, 41 * 1000);
    // 41 segments of odd lengths at odd addresses, the most one request takes.
    let mut segs = Vec::new();
    let mut at = 0;
    for i in 0..41 {
        let n = if i == 40 {
            data.len() - at
        } else {
            997 + i % 7
        };
        let addr = r.alloc_with(&data[at..at + n], 1);
        segs.push((addr, n as u32));
        r.alloc(5 + i, 1);
        at += n;
    }
    let wr = r.sgl_wr(a, &segs, true, true);
    assert_eq!(wr.len(), 512);
    r.queue_wr(a, wr, data.len() as u64);
    r.recv_bytes(b, data.len());
    assert_eq!(r.recv[&b].data, data);
}

#[test]
fn data_flows_both_ways_at_once() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 700_000);
    r.send_pattern(b, 2, 0, 500_000);
    r.recv_bytes(b, 700_000);
    r.recv_bytes(a, 500_000);
    r.idle();
    assert!(r.recv[&b].data == pattern(1, 0, 700_000));
    assert!(r.recv[&a].data == pattern(2, 0, 500_000));
    assert_eq!((r.flows[&a].done, r.flows[&b].done), (700_000, 500_000));
    let s = r.card.stats();
    assert_eq!(
        (s.rexmt_bytes, s.tx_bytes, s.cpl_bytes),
        (0, 1_200_000, 1_200_000)
    );
}

#[test]
fn all_credits_come_back() {
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect();
    for i in 0..40 {
        let wr = r.imm_wr(a, &pattern(1, i * 10, 10), false, false);
        r.queue_wr(a, wr, 10);
    }
    r.send_pattern(a, 1, 400, 300_000);
    r.idle();
    let total = r.credits;
    assert_eq!(r.flows[&a].avail, total);
    assert!(r.flows[&a].out.is_empty());
    let s = r.card.stats();
    assert_eq!(s.credits_taken, s.credits_returned);
    assert_eq!(r.card.connection(a).unwrap().credits_out, 0);
    assert_eq!(r.flows[&a].una, r.card.connection(a).unwrap().snd_nxt);
}

#[test]
fn flowc_credits_return_without_data() {
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect();
    r.idle();
    assert_eq!(r.flows[&a].avail, r.credits);
}

#[test]
fn compl_reports_before_the_credit_delay() {
    let wait = |compl: bool| {
        let mut r = Rig::new(Config {
            credit_delay: 10_000_000,
            ..Config::default()
        });
        let (a, _) = r.connect();
        r.run(20_000_000);
        // A second request behind keeps the flow from being empty when the first is acknowledged.
        let t0 = r.now;
        let wr = r.imm_wr(a, &pattern(1, 0, 40), true, compl);
        r.queue_wr(a, wr, 40);
        r.run(3_500);
        let addr = r.alloc_with(&pattern(1, 40, 200_000), 64);
        r.send(a, addr, 200_000, 65_536);
        r.run_while("credits", |r| r.flows[&a].done < 40);
        r.now - t0
    };
    let (with, without) = (wait(true), wait(false));
    assert!(with < 100_000, "{with}");
    assert!(without > with, "{without} {with}");
}

#[test]
fn credits_are_returned_by_whole_requests_over_255() {
    // More than one CPL_FW4_ACK can carry: the rig panics on a part.
    let mut r = Rig::new(Config {
        tx_credits: 2_000,
        credit_delay: 500_000,
        ..Config::default()
    });
    let (a, _) = r.connect();
    let addr = r.alloc_with(&pattern(1, 0, 1 << 20), 4096);
    for i in 0..60 {
        let segs: Vec<(u64, u32)> = (0..41).map(|k| (addr + (i * 41 + k) * 16, 16)).collect();
        let wr = r.sgl_wr(a, &segs, false, false);
        r.queue_wr(a, wr, 41 * 16);
    }
    r.idle();
    assert_eq!(r.flows[&a].avail, 2_000);
    assert_eq!(r.flows[&a].done, 60 * 41 * 16);
}

#[test]
fn more_than_the_credits_is_refused_and_ends_the_connection() {
    let mut r = Rig::new(Config {
        tx_credits: 40,
        ..Config::default()
    });
    let (a, _) = r.connect();
    let addr = r.alloc(1 << 20, 4096);
    for _ in 0..3 {
        let segs: Vec<(u64, u32)> = (0..41).map(|k| (addr + k * 16, 16)).collect();
        let wr = r.sgl_wr(a, &segs, true, true);
        r.submit(OFLD, &wr);
    }
    r.run_while("abort", |r| r.recv[&a].abort.is_none());
    assert_eq!(
        r.card.stats().last_host_error.unwrap().0,
        "more credits than the connection has"
    );
}

#[test]
fn data_before_flowc_is_an_error() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    r.act_open(1, 4000, 80, &Opts::default());
    let b = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    r.accept(b, &Opts::default());
    let a = r.wait(Opcode::ActEstablish, |_| true).tid();
    let wr = r.imm_wr(a, b"x", true, true);
    r.submit(OFLD, &wr);
    r.idle();
    assert_eq!(
        r.card.stats().last_host_error,
        Some(("data before FLOWC", a))
    );
    assert_eq!(r.card.stats().tx_bytes, 0);
}

#[test]
fn flowc_with_a_wrong_sequence_number_is_noticed() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    r.act_open(1, 4000, 80, &Opts::default());
    let b = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    r.accept(b, &Opts::default());
    let a = r.wait(Opcode::ActEstablish, |_| true).tid();
    r.flowc(a, RXQ_A, 900);
    r.idle();
    assert_eq!(r.card.stats().host_errors, 1);
}

#[test]
fn payload_is_read_when_the_segment_leaves() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let addr = r.alloc_with(&[1; 4096], 4096);
    let wr = r.sgl_wr(a, &[(addr, 4096)], true, true);
    r.queue_wr(a, wr, 4096);
    // The request is submitted but has not run: what is in memory then is what counts.
    r.mem(addr, 4096).fill(2);
    r.recv_bytes(b, 4096);
    assert!(r.recv[&b].data.iter().all(|&x| x == 2));
}

#[test]
fn data_outside_memory_resets_the_connection() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let wr = r.sgl_wr(a, &[(0x10, 100)], true, true);
    r.queue_wr(a, wr, 100);
    r.run_while("abort", |r| {
        r.recv[&a].abort.is_none() || r.recv[&b].abort.is_none()
    });
    assert_eq!(r.recv[&a].abort, Some(CplStatus::ABORT_FAILED));
    assert_eq!(r.recv[&b].abort, Some(CplStatus::CONN_RESET));
    assert_eq!(r.card.stats().dma_faults, 1);
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
}

#[test]
fn sequence_numbers_wrap() {
    let mut r = Rig::new(Config::default());
    let o = Opts {
        iss_a: u32::MAX - 100_000,
        iss_b: u32::MAX - 3,
        ..Opts::default()
    };
    let (a, b) = r.connect_with(&o, 5000);
    r.send_pattern(a, 1, 0, 400_000);
    r.send_pattern(b, 2, 0, 100);
    r.recv_bytes(b, 400_000);
    r.recv_bytes(a, 100);
    r.idle();
    assert!(r.recv[&b].data == pattern(1, 0, 400_000));
    assert_eq!(r.recv[&a].data, pattern(2, 0, 100));
    assert_eq!(r.flows[&a].una, o.iss_a.wrapping_add(400_001));
    assert_eq!(r.flows[&b].una, 97);
}

#[test]
fn sequence_numbers_wrap_under_loss() {
    let mut cfg = Config {
        seed: 5,
        ..Config::default()
    };
    cfg.faults.drop_ppm = 50_000;
    let mut r = Rig::new(cfg);
    let o = Opts {
        iss_a: u32::MAX - 100_000,
        iss_b: u32::MAX - 3,
        ..Opts::default()
    };
    let (a, b) = r.connect_with(&o, 5000);
    r.send_pattern(a, 1, 0, 400_000);
    r.recv_bytes(b, 400_000);
    assert!(r.recv[&b].data == pattern(1, 0, 400_000));
    assert!(r.card.stats().rexmt_bytes > 0);
}

#[test]
fn psh_is_on_the_segment_that_ends_a_shove() {
    let cfg = Config {
        seg_min: 65_535,
        seg_max: 65_535,
        ..Config::default()
    };
    let mut r = Rig::new(cfg);
    let (a, b) = r.connect();
    let addr = r.alloc_with(&pattern(1, 0, 3000), 4096);
    for (i, shove) in [(0, false), (1, true), (2, false)] {
        let wr = r.sgl_wr(a, &[(addr + i * 1000, 1000)], shove, false);
        r.queue_wr(a, wr, 1000);
        r.run(50_000);
    }
    r.recv_bytes(b, 3000);
    let psh: Vec<bool> = r
        .log
        .iter()
        .filter(|m| m.op() == Opcode::RxData)
        .map(|m| wire::RxData::parse(&m.cpl).unwrap().psh)
        .collect();
    assert_eq!(psh, [false, true, false]);
}

#[test]
fn segments_are_drawn_from_the_range() {
    let mut r = Rig::new(Config {
        seg_min: 3000,
        seg_max: 9000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 500_000);
    r.recv_bytes(b, 500_000);
    let lens: Vec<usize> = r
        .log
        .iter()
        .filter(|m| m.op() == Opcode::RxData)
        .map(|m| m.payload.len())
        .collect();
    let short = lens.iter().filter(|&&n| n < 3000).count();
    assert!(lens.iter().all(|&n| n <= 9000));
    assert!(short <= 2, "{short} short segments of {}", lens.len());
    let mut kinds = lens.clone();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.len() > 20, "segmentation is not random: {kinds:?}");
}

#[test]
fn closed_window_stops_the_sender_and_probes_find_it_open() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            rcv_kb: 64,
            ..Opts::default()
        },
        5000,
    );
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 200_000);
    r.run(30_000_000);
    // The window, less what its scaled field cannot say.
    assert_eq!(r.recv[&b].data.len(), 65_535);
    assert_eq!(r.card.connection(b).unwrap().rcv_wnd, 0);
    assert!(r.card.stats().probes > 0);
    assert_eq!(r.card.connection(a).unwrap().state, TcpState::Established);
    r.rx_ack(b, 100_000);
    r.run(1_000_000);
    assert!((165_520..=165_536).contains(&r.recv[&b].data.len()));
    r.rx_ack(b, 100_000);
    r.recv_bytes(b, 200_000);
    assert!(r.recv[&b].data == pattern(1, 0, 200_000));
}

#[test]
fn lost_window_update_is_found_by_the_probe() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            rcv_kb: 16,
            ..Opts::default()
        },
        5000,
    );
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 32_768);
    r.run(1_000_000);
    assert_eq!(r.recv[&b].data.len(), 16_384);
    let mut f = r.card.config().faults;
    f.drop_ppm = 1_000_000;
    r.card.set_faults(f);
    r.rx_ack(b, 16_384);
    r.run(20_000);
    f.drop_ppm = 0;
    r.card.set_faults(f);
    r.recv_bytes(b, 32_768);
    assert!(r.recv[&b].data == pattern(1, 0, 32_768));
}

#[test]
fn tcb_write_on_an_offload_queue_takes_credits_in_turn() {
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect();
    r.idle();
    let m = wire::SetTcbField {
        tid: a,
        reply: wire::ReplyCtrl::silent(0),
        word: wire::W_T_FLAGS,
        cookie: 0,
        mask: wire::TF_NAGLE,
        val: wire::TF_NAGLE,
    };
    let mut wr = vec![0; wire::SetTcbField::LEN];
    m.emit(&mut wr).unwrap();
    r.queue_wr(a, wr, 0);
    assert_eq!(r.flows[&a].avail, r.credits - 3);
    r.idle();
    assert_eq!(r.flows[&a].avail, r.credits);
    assert!(u64::from(r.card.tcb(a).unwrap().words[1]) & wire::TF_NAGLE != 0);
}
