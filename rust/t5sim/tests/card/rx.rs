use crate::rig::*;
use t5sim::Config;
use wire::Opcode;

#[test]
fn acknowledgements_are_delayed_but_not_for_long() {
    let mut r = Rig::new(Config {
        ack_delay: 200_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.idle();
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    let out = |r: &Rig| r.card.connection(b).unwrap().stats.segments_out;
    let (t0, before) = (r.now, out(&r));
    let wr = r.imm_wr(a, b"hello", true, true);
    r.queue_wr(a, wr, 5);
    r.run_while("ack", |r| r.flows[&a].done < 5);
    let took = r.now - t0;
    assert!((200_000..230_000).contains(&took), "{took}");
    assert_eq!(out(&r) - before, 1);
}

#[test]
fn data_going_back_carries_the_acknowledgement() {
    let mut r = Rig::new(Config {
        ack_delay: 200_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.idle();
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    let t0 = r.now;
    let wr = r.imm_wr(a, b"hello", true, true);
    r.queue_wr(a, wr, 5);
    r.recv_bytes(b, 5);
    let wr = r.imm_wr(b, b"world", true, true);
    r.queue_wr(b, wr, 5);
    r.run_while("ack", |r| r.flows[&a].done < 5);
    assert!(r.now - t0 < 100_000);
}

#[test]
fn a_stream_is_acknowledged_every_other_segment() {
    let mut r = Rig::new(Config {
        ack_delay: 50_000_000,
        seg_min: 10_000,
        seg_max: 10_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 200_000);
    r.recv_bytes(b, 200_000);
    let s = r.card.connection(b).unwrap().stats;
    assert!((10..=13).contains(&s.segments_out), "{}", s.segments_out);
}

#[test]
fn forced_ack() {
    let mut r = Rig::new(Config {
        ack_delay: 50_000_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.idle();
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    let wr = r.imm_wr(a, b"hello", true, true);
    r.queue_wr(a, wr, 5);
    r.recv_bytes(b, 5);
    let m = wire::RxDataAck {
        tid: b,
        force_ack: true,
        ..wire::RxDataAck::default()
    };
    let mut wr = [0; wire::RxDataAck::LEN];
    m.emit(&mut wr).unwrap();
    r.submit(CTRL, &wr);
    r.run(20_000);
    assert_eq!(r.flows[&a].done, 5);
}

#[test]
fn window_is_credits_less_what_was_delivered() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            rcv_kb: 100,
            ..Opts::default()
        },
        5000,
    );
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 50_000);
    r.recv_bytes(b, 50_000);
    r.run(1_000_000);
    let w = || (102_400 - 50_000) & !15;
    assert_eq!(r.card.connection(b).unwrap().rcv_wnd, w());
    r.rx_ack(b, 50_000);
    r.run(100_000);
    assert_eq!(r.card.connection(b).unwrap().rcv_wnd, 102_400);
}

#[test]
fn small_window_updates_are_not_sent_alone() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 100_000);
    r.recv_bytes(b, 100_000);
    r.idle();
    let out = |r: &Rig| r.card.connection(b).unwrap().stats.segments_out;
    let before = out(&r);
    for _ in 0..20 {
        r.rx_ack(b, 100);
        r.run(10_000);
    }
    assert_eq!(
        out(&r),
        before,
        "2000 bytes of window are not worth a segment"
    );
    r.rx_ack(b, 50_000);
    r.run(10_000);
    assert_eq!(out(&r), before + 1);
}

#[test]
fn get_tcb_shows_the_connection() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 5000);
    r.recv_bytes(b, 5000);
    r.idle();
    let m = wire::GetTcb {
        tid: b,
        reply: wire::ReplyCtrl::reply_to(RXQ_B),
        cookie: 5,
    };
    let mut wr = [0; wire::GetTcb::LEN];
    m.emit(&mut wr).unwrap();
    r.submit(CTRL, &wr);
    let m = r.wait_tid(Opcode::GetTcbRpl, b);
    let rpl = wire::GetTcbRpl::parse(&m.cpl).unwrap();
    assert_eq!((rpl.len, rpl.cookie, m.payload.len()), (128, 5, 128));
    // Big-endian, last word first.
    let word = |i: usize| {
        let at = 4 * (31 - i);
        u64::from(u32::from_be_bytes(
            m.payload[at..at + 4].try_into().unwrap(),
        ))
    };
    let pair = |i: usize| word(i) | word(i + 1) << 32;
    assert_eq!(word(3) >> 16 & 0xf, 4, "ESTABLISHED");
    assert_eq!(pair(16) >> 10 & 0xffff_ffff, 1001 + 5000, "rcv_nxt");
    assert_eq!(word(9), 9_000_001, "tx_max");
}

#[test]
fn rx_data_tells_ddp_is_off_on_a_plain_connection() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 100);
    r.recv_bytes(b, 100);
    assert_eq!(r.recv[&b].last_ddp_off, Some(true));
}

#[test]
fn cpls_of_a_queue_keep_their_order_under_jitter() {
    let mut cfg = Config::default();
    cfg.faults.cpl_jitter = 40_000;
    cfg.faults.wr_jitter = 7_000;
    let mut r = Rig::new(cfg);
    let (a, b) = r.connect();
    // The rig appends in delivery order: a CPL out of order breaks the pattern.
    r.send_pattern(a, 1, 0, 600_000);
    r.recv_bytes(b, 600_000);
    assert!(r.recv[&b].data == pattern(1, 0, 600_000));
}

#[test]
fn frames_reach_the_other_port() {
    let mut r = Rig::new(Config::default());
    r.card.frame_in(0, 0, b"arp who-has");
    r.card.frame_in(0, 1, b"arp reply");
    r.card.frame_in(0, 2, b"no such port");
    r.idle();
    assert_eq!(
        r.b.frames,
        [(1, b"arp who-has".to_vec()), (0, b"arp reply".to_vec())]
    );
    assert_eq!(
        (r.card.stats().frames, r.card.stats().frames_dropped),
        (2, 1)
    );
    assert!(r.now >= 2_000, "a frame takes the wire's delay");
}

#[test]
fn the_line_rate_bounds_a_flow() {
    let mut r = Rig::new(Config {
        line_rate_bps: 1_000_000_000,
        ..Config::default()
    });
    let (a, b) = r.connect();
    let t0 = r.now;
    r.send_pattern(a, 1, 0, 1_000_000);
    r.recv_bytes(b, 1_000_000);
    let took = r.now - t0;
    assert!(
        (8_000_000..9_000_000).contains(&took),
        "8 Mbit at 1 Gb/s took {took} ns"
    );
}
