use crate::rig::*;
use t5sim::{Config, TcpState};
use wire::{CplStatus, Opcode};

#[test]
fn both_ends_are_established() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    let (ia, ib) = (r.card.connection(a).unwrap(), r.card.connection(b).unwrap());
    assert_eq!(
        (ia.state, ib.state),
        (TcpState::Established, TcpState::Established)
    );
    assert_eq!((ia.peer_tid, ib.peer_tid), (Some(b), Some(a)));
    assert_eq!((ia.port, ib.port), (0, 1));
    assert_eq!(ia.snd_nxt, ib.rcv_nxt);
    assert_eq!(ia.rcv_nxt, ib.snd_nxt);
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn establish_messages_carry_the_isns_and_options() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, IP_B, 80);
    let o = Opts {
        iss_a: 0x1111_0000,
        iss_b: 0x2222_0000,
        mss_a: 8,
        mss_b: 6,
        ..Opts::default()
    };
    r.act_open(5, 4000, 80, &o);
    let m = r.wait(Opcode::PassAcceptReq, |_| true);
    assert_eq!(m.rxq, RXQ_B);
    let req = wire::PassAcceptReq::parse(&m.cpl, r.chip).unwrap();
    assert_eq!(
        (req.stid, req.l2info.intf, req.l2info.mac_idx),
        (STID, 1, 1)
    );
    assert!(req.l2info.xact_match);
    assert_eq!((req.tcpopt.mss, req.tcpopt.wsf), (1460, 4));
    assert!(req.tcpopt.sack && !req.tcpopt.tstamp && !req.tcpopt.unknown);
    r.accept(m.tid(), &o);
    let m = r.wait(Opcode::ActEstablish, |_| true);
    assert_eq!(m.rxq, RXQ_A);
    let e = wire::ActEstablish::parse(&m.cpl).unwrap();
    assert_eq!(
        e.atid,
        wire::QidTid {
            tid: 5,
            cookie: 1,
            qid: RXQ_A
        }
    );
    assert_eq!((e.snd_isn, e.rcv_isn), (0x1111_0001, 0x2222_0001));
    let opt = wire::TcpOpt::from_bits(e.tcp_opt);
    // mss index 6 is an MTU of 1280.
    assert_eq!(
        (opt.mss_idx, opt.wscale_ok, opt.snd_wscale, opt.sack),
        (6, true, 4, true)
    );
    let m = r.wait(Opcode::PassEstablish, |_| true);
    let e = wire::PassEstablish::parse(&m.cpl).unwrap();
    assert_eq!(
        (e.stid, e.snd_isn, e.rcv_isn),
        (STID, 0x2222_0001, 0x1111_0001)
    );
    assert_eq!(wire::TcpOpt::from_bits(e.tcp_opt).mss_idx, 6);
}

#[test]
fn syn_headers_are_a_frame() {
    let cfg = Config::default();
    let mut r = Rig::new(cfg.clone());
    r.listen(STID, 0, 80);
    r.act_open(
        5,
        4000,
        80,
        &Opts {
            iss_a: 0xdead_beef,
            ..Opts::default()
        },
    );
    let m = r.wait(Opcode::PassAcceptReq, |_| true);
    let req = wire::PassAcceptReq::parse(&m.cpl, r.chip).unwrap();
    let h = &m.payload;
    assert_eq!(usize::from(req.len), h.len());
    assert_eq!(h[..6], cfg.macs[1]);
    assert_eq!(h[6..12], cfg.macs[0]);
    assert_eq!(h[12..14], [8, 0]);
    let ip = &h[usize::from(req.eth_hdr_len)..];
    assert_eq!(ip[0], 0x45);
    assert_eq!(ip[12..16], IP_A.to_be_bytes());
    assert_eq!(ip[16..20], IP_B.to_be_bytes());
    let sum: u32 = ip[..20]
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "IP header checksum");
    let tcp = &ip[usize::from(req.ip_hdr_len)..];
    assert_eq!(tcp[..2], 4000_u16.to_be_bytes());
    assert_eq!(tcp[2..4], 80_u16.to_be_bytes());
    assert_eq!(tcp[4..8], 0xdead_beef_u32.to_be_bytes());
    assert_eq!(usize::from(tcp[12] >> 4) * 4, usize::from(req.tcp_hdr_len));
    assert_eq!(tcp.len(), usize::from(req.tcp_hdr_len));
    assert_eq!(tcp[13], 2, "only SYN");
}

fn refused(r: &mut Rig) -> (CplStatus, u32) {
    let m = r.wait(Opcode::ActOpenRpl, |_| true);
    let e = wire::ActOpenRpl::parse(&m.cpl).unwrap();
    (e.status, e.tid)
}

#[test]
fn no_listener_is_refused() {
    let mut r = Rig::new(Config::default());
    r.act_open(3, 4000, 81, &Opts::default());
    let (status, tid) = refused(&mut r);
    assert_eq!(status, CplStatus::CONN_RESET);
    assert!(status.act_open_has_tid());
    assert_eq!(r.card.connection(tid).unwrap().state, TcpState::Closed);
    r.release(tid);
    r.idle();
    assert!(r.card.connection(tid).is_none());
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn listener_on_another_address_does_not_answer() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0x0a0a_0a0a, 80);
    r.act_open(3, 4000, 80, &Opts::default());
    assert_eq!(refused(&mut r).0, CplStatus::CONN_RESET);
}

#[test]
fn closed_listener_refuses() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    assert_eq!(r.close_listener(STID), CplStatus::NONE);
    r.act_open(3, 4000, 80, &Opts::default());
    assert_eq!(refused(&mut r).0, CplStatus::CONN_RESET);
    assert_ne!(r.close_listener(STID), CplStatus::NONE);
}

#[test]
fn lost_syns_time_out() {
    let mut cfg = Config::default();
    cfg.faults.drop_ppm = 1_000_000;
    let mut r = Rig::new(cfg);
    r.act_open(3, 4000, 80, &Opts::default());
    let (status, tid) = refused(&mut r);
    assert_eq!(status, CplStatus::CONN_TIMEDOUT);
    assert_eq!(r.card.stats().wire_dropped, 7, "one SYN and six more");
    r.release(tid);
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
}

#[test]
fn unknown_station_times_out_and_known_one_answers() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    let write = |r: &mut Rig, mac: [u8; 6]| {
        let m = wire::L2tWriteReq {
            l2t_idx: 0,
            sync: true,
            qid: RXQ_A,
            info: 0,
            port: 0,
            lpbk: false,
            arpmiss: false,
            noreply: false,
            vlan: 0xfff,
            dst_mac: mac,
        };
        let mut wr = [0; wire::L2tWriteReq::LEN];
        m.emit(&mut wr).unwrap();
        r.submit(CTRL, &wr);
        r.wait(Opcode::L2tWriteRpl, |m| m.rxq == RXQ_A);
    };
    write(&mut r, [2; 6]);
    r.act_open(3, 4000, 80, &Opts::default());
    assert_eq!(refused(&mut r).0, CplStatus::CONN_TIMEDOUT);
    let mac = r.card.config().macs[1];
    write(&mut r, mac);
    r.connect_with(&Opts::default(), 4001);
}

#[test]
fn out_of_tids() {
    let mut r = Rig::new(Config {
        ntids: 1,
        ..Config::default()
    });
    r.act_open(3, 4000, 80, &Opts::default());
    r.act_open(4, 4001, 80, &Opts::default());
    let m = r.wait(Opcode::ActOpenRpl, |_| true);
    let e = wire::ActOpenRpl::parse(&m.cpl).unwrap();
    assert_eq!((e.atid.tid, e.status), (4, CplStatus::TCAM_FULL));
    assert!(!e.status.act_open_has_tid());
}

#[test]
fn no_tid_for_the_passive_end_until_one_is_released() {
    let mut r = Rig::new(Config {
        ntids: 2,
        ..Config::default()
    });
    r.listen(STID, 0, 80);
    r.act_open(1, 4000, 80, &Opts::default());
    r.act_open(2, 4001, 80, &Opts::default());
    r.run(1_000_000);
    // Both tids are the openers'; no SYN could be taken.
    assert_eq!(
        r.count(Opcode::PassAcceptReq, 0) + r.count(Opcode::PassAcceptReq, 1),
        0
    );
    assert_eq!(r.card.connections().count(), 2);
    r.card.check().unwrap();
}

#[test]
fn same_tuple_twice() {
    let mut r = Rig::new(Config::default());
    r.connect_with(&Opts::default(), 5000);
    r.act_open(9, 5000, 80, &Opts::default());
    assert_eq!(refused(&mut r).0, CplStatus::CONN_EXIST);
}

#[test]
fn atid_in_use_is_the_hosts_error() {
    let mut r = Rig::new(Config::default());
    r.act_open(9, 5000, 80, &Opts::default());
    r.act_open(9, 5001, 80, &Opts::default());
    r.run(2_000);
    assert_eq!(r.card.stats().host_errors, 1);
}

#[test]
fn stid_in_use_and_too_many_listeners() {
    let mut r = Rig::new(Config {
        nstids: 2,
        ..Config::default()
    });
    r.listen(1, 0, 80);
    r.listen(2, 0, 81);
    let m = wire::PassOpenReq {
        stid: 3,
        local_port: 82,
        peer_port: 0,
        local_ip: 0,
        peer_ip: 0,
        opt0: 0,
        opt1: 0,
    };
    let mut wr = [0; wire::PassOpenReq::LEN];
    m.emit(&mut wr).unwrap();
    r.submit(CTRL, &wr);
    let m = r.wait_tid(Opcode::PassOpenRpl, 3);
    assert_eq!(
        wire::PassOpenRpl::parse(&m.cpl).unwrap().status,
        CplStatus::TCAM_FULL
    );
}

#[test]
fn host_refuses_a_syn_by_releasing_the_tid() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    r.act_open(3, 4000, 80, &Opts::default());
    let b = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    r.release(b);
    // The SYN comes again, for another tid.
    let again = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    assert_ne!(b, again);
    assert!(r.card.connection(b).is_none());
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn host_aborts_a_half_open_connection() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    r.act_open(3, 4000, 80, &Opts::default());
    let b = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    r.flowc(b, RXQ_B, 0);
    r.abort(b);
    let m = r.wait_tid(Opcode::AbortRplRss, b);
    assert_eq!(
        wire::AbortRplRss::parse(&m.cpl).unwrap().status,
        CplStatus::NONE
    );
    r.release(b);
    let _ = refused(&mut r);
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn lost_syn_ack_and_lost_ack_are_made_good() {
    for seed in 1..40 {
        let mut cfg = Config {
            seed,
            ..Config::default()
        };
        cfg.faults.drop_ppm = 400_000;
        let mut r = Rig::new(cfg);
        r.listen(STID, 0, 80);
        r.act_open(3, 4000, 80, &Opts::default());
        let mut accepted = Vec::new();
        let mut act = None;
        r.run_while("open", |r| {
            while let Some(i) = r.log.iter().position(|m| m.op() == Opcode::PassAcceptReq) {
                let tid = r.log.remove(i).unwrap().tid();
                accepted.push(tid);
                r.accept(tid, &Opts::default());
            }
            if act.is_none() {
                act = r.log.iter().position(|m| m.op() == Opcode::ActEstablish);
            }
            let refused = r.log.iter().any(|m| m.op() == Opcode::ActOpenRpl);
            act.is_none() && !refused
        });
        assert_eq!(accepted.len(), 1, "seed {seed}: one SYN, one connection");
    }
}

#[test]
fn reset_before_the_host_has_accepted() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    let mut f = r.card.config().faults;
    r.act_open(3, 4000, 80, &Opts::default());
    let b = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    // The opener gives up: every answer to its SYN is lost, and so is every SYN.
    f.drop_ppm = 1_000_000;
    r.card.set_faults(f);
    let (_, a) = refused(&mut r);
    r.release(a);
    r.run(10_000);
    // From here on a segment of the passive end meets nobody and is answered with RST.
    f.drop_ppm = 0;
    r.card.set_faults(f);
    r.accept(b, &Opts::default());
    let m = r.wait_tid(Opcode::AbortReqRss, b);
    assert_eq!(
        wire::AbortReqRss::parse(&m.cpl).unwrap().status,
        CplStatus::CONN_RESET
    );
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    assert_eq!(r.card.stats().host_errors, 0);
}

#[test]
fn every_chip_opens() {
    for chip in [wire::Chip::T4, wire::Chip::T5, wire::Chip::T6] {
        let mut r = Rig::new(Config {
            chip,
            ..Config::default()
        });
        let (a, b) = r.connect();
        r.send_pattern(a, 1, 0, 10_000);
        r.recv_bytes(b, 10_000);
        assert_eq!(r.recv[&b].data, pattern(1, 0, 10_000), "{chip:?}");
    }
}

#[test]
fn no_window_scaling_unless_both_want_it() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect_with(
        &Opts {
            wscale: 0,
            ..Opts::default()
        },
        5000,
    );
    for t in [a, b] {
        assert_eq!(r.card.connection(t).unwrap().rcv_wnd, 65_535);
    }
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect_with(
        &Opts {
            wscale: 3,
            ..Opts::default()
        },
        5000,
    );
    assert_eq!(r.card.connection(a).unwrap().rcv_wnd, 262_144);
}

#[test]
fn bad_configurations_are_refused() {
    let bad = |f: fn(&mut Config), field| {
        let mut c = Config::default();
        f(&mut c);
        assert_eq!(t5sim::Card::new(c).unwrap_err().field, field);
    };
    bad(|c| c.ports = 3, "ports");
    bad(|c| c.ntids = 0, "ntids");
    bad(|c| c.page_shifts = [12, 12, 16, 18], "page_shifts");
    bad(|c| c.seg_max = 70_000, "seg_max");
    bad(|c| c.seg_min = 0, "seg_min");
    bad(|c| c.tx_credits = 20, "tx_credits");
    bad(|c| c.ddp_start = 32, "ddp_start");
    bad(|c| c.mtus[3] = 10, "mtus");
    bad(|c| c.line_rate_bps = 0, "line_rate_bps");
}

#[test]
fn scaling_wanted_by_one_end_only_is_not_used() {
    let mut r = Rig::new(Config::default());
    r.listen(STID, 0, 80);
    r.act_open(
        1,
        4000,
        80,
        &Opts {
            wscale: 4,
            ..Opts::default()
        },
    );
    let b = r.wait(Opcode::PassAcceptReq, |_| true).tid();
    r.accept(
        b,
        &Opts {
            wscale: 0,
            ..Opts::default()
        },
    );
    let m = r.wait(Opcode::ActEstablish, |_| true);
    let e = wire::ActEstablish::parse(&m.cpl).unwrap();
    assert!(!wire::TcpOpt::from_bits(e.tcp_opt).wscale_ok);
    r.wait_tid(Opcode::PassEstablish, b);
    for t in [m.tid(), b] {
        assert_eq!(r.card.connection(t).unwrap().rcv_wnd, 65_535);
    }
}
