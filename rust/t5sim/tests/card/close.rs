use crate::rig::*;
use t5sim::{Config, TcpState};
use wire::{CplStatus, Opcode};

fn state(r: &Rig, t: u32) -> TcpState {
    r.card.connection(t).unwrap().state
}

#[test]
fn both_sides_close_in_turn() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 5000);
    r.run(1_000);
    r.close(a);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
    // The FIN came after the data and counts for one.
    assert_eq!(r.recv[&b].data.len(), 5000);
    assert_eq!(r.recv[&b].fin, Some(1000 + 1 + 5000 + 1));
    r.run(100_000);
    assert_eq!(
        (state(&r, a), state(&r, b)),
        (TcpState::FinWait2, TcpState::CloseWait)
    );
    let m = r.wait_tid(Opcode::CloseConRpl, a);
    let rpl = wire::CloseConRpl::parse(&m.cpl).unwrap();
    assert_eq!((rpl.snd_nxt, rpl.rcv_nxt), (1000 + 5002, 9_000_001));
    // The other direction still works.
    r.send_pattern(b, 2, 0, 3000);
    r.recv_bytes(a, 3000);
    r.close(b);
    r.run_while("FIN", |r| r.recv[&a].fin.is_none() || !r.recv[&b].closed);
    assert_eq!(
        (state(&r, a), state(&r, b)),
        (TcpState::TimeWait, TcpState::TimeWait)
    );
    r.release(a);
    r.release(b);
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    assert_eq!(r.card.stats().host_errors, 0);
    assert_eq!(r.card.stats().tids_freed, 2);
}

#[test]
fn both_close_at_once() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.close(a);
    r.close(b);
    r.run_while("close", |r| {
        [a, b]
            .iter()
            .any(|t| !r.recv[t].closed || r.recv[t].fin.is_none())
    });
    assert_eq!(
        (state(&r, a), state(&r, b)),
        (TcpState::TimeWait, TcpState::TimeWait)
    );
    assert_eq!(
        r.count(Opcode::PeerClose, a) + r.count(Opcode::PeerClose, b),
        2
    );
    assert_eq!(
        r.count(Opcode::CloseConRpl, a) + r.count(Opcode::CloseConRpl, b),
        2
    );
}

#[test]
fn fin_waits_for_the_data_and_credits() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            rcv_kb: 16,
            ..Opts::default()
        },
        5000,
    );
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 60_000);
    r.run(1_000_000);
    r.close(a);
    r.run(1_000_000);
    assert_eq!(r.recv[&b].fin, None);
    r.rx_ack(b, 100_000);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
    assert_eq!(r.recv[&b].data.len(), 60_000);
}

#[test]
fn fin_passes_a_closed_window() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            rcv_kb: 16,
            ..Opts::default()
        },
        5000,
    );
    r.recv.get_mut(&b).unwrap().auto_ack = false;
    r.send_pattern(a, 1, 0, 16_384);
    r.run(1_000_000);
    assert_eq!(r.card.connection(b).unwrap().rcv_wnd, 0);
    r.close(a);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
}

#[test]
fn lost_fin_and_lost_last_ack_are_made_good() {
    for seed in 1..60 {
        let mut cfg = Config {
            seed,
            ..Config::default()
        };
        cfg.faults.drop_ppm = 0;
        let mut r = Rig::new(cfg);
        let (a, b) = r.connect();
        let mut f = r.card.config().faults;
        f.drop_ppm = 400_000;
        r.card.set_faults(f);
        r.close(a);
        r.close(b);
        let mut gone = [false; 2];
        r.run_while("close", |r| {
            for (g, t) in gone.iter_mut().zip([a, b]) {
                if !*g && r.recv[&t].closed && r.recv[&t].fin.is_some() {
                    *g = true;
                    r.release(t);
                }
            }
            gone != [true; 2] && [a, b].iter().all(|t| r.recv[t].abort.is_none())
        });
        assert_eq!(gone, [true; 2], "seed {seed}");
        r.idle();
        assert_eq!(r.card.stats().host_errors, 0, "seed {seed}");
    }
}

#[test]
fn data_after_close_is_the_hosts_error() {
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect();
    r.close(a);
    let wr = r.imm_wr(a, b"late", true, true);
    r.submit(OFLD, &wr);
    r.run(100_000);
    assert_eq!(
        r.card.stats().last_host_error,
        Some(("data after CLOSE_CON_REQ", a))
    );
}

#[test]
fn abort_resets_the_peer() {
    let mut r = Rig::new(Config::default());
    r.auto_abort = false;
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 500_000);
    r.run(30_000);
    let reads = r.b.reads;
    r.abort(a);
    let m = r.wait_tid(Opcode::AbortRplRss, a);
    assert_eq!(
        wire::AbortRplRss::parse(&m.cpl).unwrap().status,
        CplStatus::NONE
    );
    let after = r.b.reads;
    r.run_while("RST", |r| r.recv[&b].abort.is_none());
    assert_eq!(r.recv[&b].abort, Some(CplStatus::CONN_RESET));
    assert!(
        r.b.reads == after && after >= reads,
        "no DMA after the reply"
    );
    // The tid stays until both the release and the reply have come.
    r.release(b);
    r.run(100_000);
    assert!(r.card.connection(b).is_some());
    r.abort_rpl(b);
    r.release(a);
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    assert_eq!(r.card.stats().host_errors, 0);
    assert!(r.card.stats().credits_forfeited > 0);
}

#[test]
fn aborts_that_cross() {
    let mut r = Rig::new(Config::default());
    r.auto_abort = false;
    let (a, b) = r.connect();
    r.abort(a);
    // b's reset is on its way to the host when the host aborts b too.
    r.run(3_500);
    assert_eq!(state(&r, b), TcpState::Aborting);
    assert!(r.recv[&b].abort.is_none());
    r.abort(b);
    let m = r.wait_tid(Opcode::AbortRplRss, b);
    assert_eq!(
        wire::AbortRplRss::parse(&m.cpl).unwrap().status,
        CplStatus::ABORT_FAILED
    );
    assert_eq!(r.count(Opcode::AbortReqRss, b), 1);
    r.abort_rpl(b);
    r.release(b);
    r.release(a);
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn both_abort_at_once() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.abort(a);
    r.abort(b);
    for t in [a, b] {
        r.wait_tid(Opcode::AbortRplRss, t);
        r.release(t);
    }
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn reset_meets_a_close_in_progress() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.close(a);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
    r.abort(b);
    r.run_while("RST", |r| r.recv[&a].abort.is_none());
    r.wait_tid(Opcode::AbortRplRss, b);
    r.release(b);
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
}

#[test]
fn close_twice_is_the_hosts_error() {
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect();
    r.close(a);
    r.close(a);
    r.run(100_000);
    assert_eq!(r.card.stats().host_errors, 1);
}

#[test]
fn release_of_a_live_connection_is_noticed() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.release(a);
    r.run(10_000);
    assert_eq!(r.card.stats().host_errors, 1);
    assert!(r.card.connection(a).is_none());
    // The peer finds out when it sends.
    r.send_pattern(b, 1, 0, 10);
    r.run_while("RST", |r| r.recv[&b].abort.is_none());
}

#[test]
fn link_reset_tells_both_hosts() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let now = r.now;
    assert!(r.card.link_reset(now, a));
    r.run_while("RST", |r| {
        r.recv[&a].abort.is_none() || r.recv[&b].abort.is_none()
    });
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    assert!(!r.card.link_reset(now, a));
}

#[test]
fn a_peer_that_is_gone_ends_in_a_timeout() {
    let mut r = Rig::new(Config {
        max_rexmt: 4,
        ..Config::default()
    });
    let (a, _) = r.connect();
    let mut f = r.card.config().faults;
    f.drop_ppm = 1_000_000;
    r.card.set_faults(f);
    r.send_pattern(a, 1, 0, 1000);
    r.run_while("timeout", |r| r.recv[&a].abort.is_none());
    assert_eq!(r.recv[&a].abort, Some(CplStatus::XMIT_TIMEDOUT));
    assert_eq!(r.card.stats().rexmts, 4);
}

#[test]
fn a_tid_comes_back_for_new_connections() {
    let mut r = Rig::new(Config {
        ntids: 2,
        ..Config::default()
    });
    for i in 0..20 {
        let (a, b) = r.connect_with(&Opts::default(), 5000 + i);
        r.send_pattern(a, 1, 0, 100);
        r.recv_bytes(b, 100);
        r.close(a);
        r.close(b);
        r.run_while("close", |r| {
            [a, b]
                .iter()
                .any(|t| !r.recv[t].closed || r.recv[t].fin.is_none())
        });
        r.release(a);
        r.release(b);
        r.recv.clear();
        r.run(10_000);
    }
    assert_eq!(r.card.stats().tids_allocated, 40);
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn same_ports_again_after_a_close() {
    let mut r = Rig::new(Config::default());
    for _ in 0..3 {
        let (a, b) = r.connect_with(&Opts::default(), 5000);
        r.close(a);
        r.close(b);
        r.run_while("close", |r| {
            [a, b]
                .iter()
                .any(|t| !r.recv[t].closed || r.recv[t].fin.is_none())
        });
        r.release(a);
        r.release(b);
        r.recv.clear();
        r.run(10_000);
    }
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn close_and_abort_credits_come_back_where_they_are_counted() {
    let mut r = Rig::new(Config {
        close_credits: true,
        ..Config::default()
    });
    let (a, b) = r.connect();
    r.send_pattern(a, 1, 0, 5000);
    r.run(1_000_000);
    let wr_credits = (wire::CloseConReq::LEN / 16) as u16;
    let flow = r.flows.get_mut(&a).unwrap();
    flow.avail -= wr_credits;
    flow.out.push_back((wr_credits, 0));
    r.close(a);
    r.run_while("FIN", |r| r.recv[&b].fin.is_none());
    r.run(1_000_000);
    assert_eq!(r.flows[&a].avail, r.credits);
}
