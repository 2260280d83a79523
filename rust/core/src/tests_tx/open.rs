//! opt0, opt2 and what follows from the options.

use super::rng::{Rng, seeds};
use crate::aiotx::MAX_WND;
use crate::errno::Errno;
use crate::open::*;
use crate::os::TcpState;
use crate::status::{abort_errno, act_open_errno};
use wire::{Chip, CplStatus, QidTid, TcpOpt};

const MTUS: [u16; 16] = [
    88, 256, 512, 576, 808, 1024, 1280, 1488, 1500, 2002, 2048, 4096, 4352, 8192, 9000, 9600,
];

fn wish() -> Wish {
    Wish {
        mss: 1460,
        rcv_space: 65536,
        sb_max: 2 << 20,
        wscale: true,
        tstamp: true,
        sack: true,
        ecn: false,
        nodelay: false,
        keepalive: false,
        cong: CongAlgo::NewReno,
        rx_coalesce: true,
        sndbuf: -1,
        snd_autosize: true,
        snd_hiwat: 32768,
    }
}

fn link(chip: Chip) -> Link {
    Link {
        chip,
        l2t_idx: 0x123,
        smt_idx: 0x45,
        tx_chan: 1,
        tx_modq: 5,
        rxq: 0x2aa,
    }
}

#[test]
fn mtu_index_is_the_largest_that_fits() {
    assert_eq!(mtu_idx(&MTUS, 1460), 8);
    assert_eq!(mtu_idx(&MTUS, 1459), 7);
    assert_eq!(mtu_idx(&MTUS, 8960), 14);
    assert_eq!(mtu_idx(&MTUS, 0), 0);
    assert_eq!(mtu_idx(&MTUS, u16::MAX), 15);
    for mss in 0..10000u16 {
        let mut i = 0;
        while i < 15 && MTUS[i + 1] <= mss + 40 {
            i += 1;
        }
        assert_eq!(usize::from(mtu_idx(&MTUS, mss)), i, "{mss}");
    }
}

#[test]
fn window_scale_covers_the_largest_buffer() {
    assert_eq!(rcv_wscale(65535), 0);
    assert_eq!(rcv_wscale(65536), 1);
    assert_eq!(rcv_wscale(2 << 20), 6);
    // 27 bits are what a tid can have.
    assert_eq!(rcv_wscale(u64::MAX), 12);
    for s in 0..12u32 {
        assert_eq!(rcv_wscale(65535 << s), s as u8);
        assert_eq!(rcv_wscale((65535 << s) + 1), s as u8 + 1);
    }
}

#[test]
fn window_in_opt0_is_bounded() {
    let at = |n| {
        let w = Wish {
            rcv_space: n,
            ..wish()
        };
        ConnParams::active(&w, &MTUS).opt0_bufsize
    };
    assert_eq!(at(0), 4);
    assert_eq!(at(16_384), 16);
    assert_eq!(at(16_383), 15);
    assert_eq!(at(65536), 64);
    assert_eq!(at(65536 + 1023), 64);
    assert_eq!(at(1023 << 10), 1023);
    assert_eq!(at(u32::MAX), 1023);
    let w = Wish {
        rcv_space: 8 << 20,
        ..wish()
    };
    assert_eq!(ConnParams::active(&w, &MTUS).rcv_wnd(), 1023 * 1024);
}

#[test]
fn send_buffer_of_the_adapter() {
    let at = |sndbuf, snd_autosize, snd_hiwat| {
        let w = Wish {
            sndbuf,
            snd_autosize,
            snd_hiwat,
            ..wish()
        };
        let p = ConnParams::active(&w, &MTUS);
        (p.sndbuf, p.snd_wnd)
    };
    // The adapter is told once of the most there can be; write jobs begin with less.
    assert_eq!(at(-1, true, 32768), (MAX_WND, 256 * 1024));
    assert_eq!(at(-1, false, 32768), (MAX_WND, 32768));
    assert_eq!(at(0, false, 32768), (MAX_WND, 32768));
    assert_eq!(at(-1, false, 8 << 20), (8 << 20, 8 << 20));
    assert_eq!(at(100_000, true, 32768), (100_000, 100_000));
    assert_eq!(at(8 << 20, true, 32768), (8 << 20, 8 << 20));
}

#[test]
fn passive_takes_only_what_the_peer_offers() {
    let none = ConnParams::passive(&wish(), &MTUS, &PeerSyn::default());
    assert_eq!(
        (none.wscale, none.tstamp, none.sack, none.ecn),
        (0, false, false, false)
    );
    let syn = PeerSyn {
        tstamp: true,
        sack: true,
        wscale: Some(7),
        ecn: true,
    };
    let all = ConnParams::passive(
        &Wish {
            ecn: true,
            ..wish()
        },
        &MTUS,
        &syn,
    );
    assert_eq!(
        (all.wscale, all.tstamp, all.sack, all.ecn),
        (6, true, true, true)
    );
    // We do not want them.
    let w = Wish {
        wscale: false,
        tstamp: false,
        sack: false,
        ..wish()
    };
    let p = ConnParams::passive(&w, &MTUS, &syn);
    assert_eq!(
        (p.wscale, p.tstamp, p.sack, p.ecn),
        (0, false, false, false)
    );
    // Scale 0 is an offer, 15 is nonsense.
    let at = |s| {
        ConnParams::passive(
            &wish(),
            &MTUS,
            &PeerSyn {
                wscale: Some(s),
                ..syn
            },
        )
        .wscale
    };
    assert_eq!((at(0), at(14), at(15)), (6, 6, 0));
}

#[test]
fn opt0_bit_by_bit() {
    let w = Wish {
        keepalive: true,
        ..wish()
    };
    let p = ConnParams::active(&w, &MTUS);
    let got = p.opt0(&link(Chip::T5)).to_bits();
    let want = 1u64 << 48 // TCAM_BYPASS
        | 8 << 60 // MSS_IDX
        | 1 << 54 // KEEP_ALIVE
        | 6 << 50 // WND_SCALE
        | 1 << 49 // NAGLE
        | 0x123 << 36 // L2T_IDX
        | 0x45 << 28 // SMAC_SEL
        | 64 << 12 // RCV_BUFSIZ
        | 1 << 2; // TX_CHAN
    assert_eq!(got, want, "{got:#x} {want:#x}");
}

#[test]
fn opt0_without_nagle_or_keepalive_has_no_ulp_mode() {
    let w = Wish {
        nodelay: true,
        ..wish()
    };
    let o = ConnParams::active(&w, &MTUS).opt0(&link(Chip::T6));
    assert!(!o.nagle && !o.keep_alive);
    assert_eq!(o.ulp_mode, 0);
}

#[test]
fn opt2_bit_by_bit() {
    let p = ConnParams::active(&wish(), &MTUS);
    let common = 0x2aau32 // RSS_QUEUE
        | 1 << 10 // RSS_QUEUE_VALID
        | 3 << 12 // RX_COALESCE
        | 2 << 14 // CONG_CNTRL
        | 5 << 23 // TX_QUEUE
        | 1 << 28 // WND_SCALE_EN
        | 1 << 29 // TSTAMPS_EN
        | 1 << 30; // SACK_EN
    let t5 = p.opt2(&link(Chip::T5)).to_bits(Chip::T5);
    assert_eq!(t5, common | 1 << 31 | 1 << 18, "{t5:#x}");
    let t4 = p.opt2(&link(Chip::T4)).to_bits(Chip::T4);
    assert_eq!(
        t4,
        common | 1 << 11 | 1 << 18 | 1 << 19 | 1 << 22,
        "{t4:#x}"
    );
}

#[test]
fn opt2_leaves_out_what_is_off() {
    let w = Wish {
        wscale: false,
        tstamp: false,
        sack: false,
        rx_coalesce: false,
        ..wish()
    };
    let o = ConnParams::active(&w, &MTUS).opt2(&link(Chip::T6));
    assert!(!o.wnd_scale_en && !o.tstamps_en && !o.sack_en);
    assert_eq!(o.rx_coalesce, 0);
    assert!(!o.rx_fc_ddp && !o.rx_fc_disable);
}

#[test]
fn congestion_algorithms_by_name() {
    // Upstream's missing else made all of these newreno.
    let by = |n: &str| CongAlgo::choose(-1, n.as_bytes());
    assert_eq!(by("reno"), CongAlgo::Reno);
    assert_eq!(by("tahoe"), CongAlgo::Tahoe);
    assert_eq!(by("newreno"), CongAlgo::NewReno);
    assert_eq!(by("HighSpeed"), CongAlgo::HighSpeed);
    assert_eq!(by("cubic"), CongAlgo::NewReno);
    assert_eq!(CongAlgo::choose(0, b"cubic"), CongAlgo::Reno);
    assert_eq!(CongAlgo::choose(3, b"reno"), CongAlgo::HighSpeed);
    assert_eq!(CongAlgo::choose(99, b"reno"), CongAlgo::NewReno);
}

#[test]
fn act_open_req_carries_all() {
    let p = ConnParams::active(&wish(), &MTUS);
    let who = FourTuple {
        local_ip: 0x0a00_0001,
        local_port: 40000,
        peer_ip: 0x0a00_0002,
        peer_port: 80,
    };
    for chip in [Chip::T4, Chip::T5, Chip::T6] {
        let l = link(chip);
        let tuple = Ntuple {
            protocol_shift: Some(8),
            port_shift: Some(4),
            ..Ntuple::default()
        };
        let nt = tuple.pack(None, 3, 0);
        let req = act_open_req(&p, &l, QidTid::default(), &who, 0x1234_5678, nt);
        let mut b = [0xa5u8; 80];
        let b = &mut b[..wire::ActOpenReq::len(chip)];
        req.emit(b, chip).unwrap();
        let back = wire::ActOpenReq::parse(b, chip).unwrap();
        assert_eq!((back.local_ip, back.local_port), (0x0a00_0001, 40000));
        assert_eq!((back.peer_ip, back.peer_port), (0x0a00_0002, 80));
        assert_eq!(back.opt0, p.opt0(&l).to_bits());
        assert_eq!(back.opt2, p.opt2(&l).to_bits(chip));
        assert_eq!(back.iss, if chip == Chip::T4 { 0 } else { 0x1234_5678 });
        assert_eq!(back.filter_tuple, 6 << 8 | 3 << 4);
    }
}

#[test]
fn pass_accept_rpl_carries_all() {
    let p = ConnParams::passive(&wish(), &MTUS, &PeerSyn::default());
    let l = link(Chip::T5);
    let rpl = pass_accept_rpl(&p, &l, 77, 99);
    assert_eq!((rpl.tid, rpl.iss), (77, 99));
    assert_eq!(rpl.opt0, p.opt0(&l).to_bits());
    assert_eq!(rpl.opt2, p.opt2(&l).to_bits(Chip::T5));
}

#[test]
fn tuple_fields_go_where_the_adapter_wants_them() {
    let all = Ntuple {
        vlan_shift: Some(0),
        port_shift: Some(17),
        protocol_shift: Some(20),
        vnic_shift: Some(28),
    };
    assert_eq!(
        all.pack(Some(100), 2, 0xff),
        100 | 1 << 16 | 2 << 17 | 6 << 20 | 0xff << 28
    );
    assert_eq!(all.pack(None, 0, 0), 6 << 20);
    assert_eq!(Ntuple::default().pack(Some(1), 1, 1), 0);
}

#[test]
fn agreed_options() {
    let a = Agreed::new(
        TcpOpt {
            mss_idx: 8,
            tstamp: true,
            sack: true,
            wscale_ok: true,
            snd_wscale: 9,
        },
        &MTUS,
    );
    assert_eq!((a.maxseg, a.emss, a.snd_scale), (1460, 1448, Some(9)));
    assert!(a.tstamp && a.sack);
    let a = Agreed::new(
        TcpOpt {
            mss_idx: 14,
            ..TcpOpt::default()
        },
        &MTUS,
    );
    assert_eq!((a.maxseg, a.emss, a.snd_scale), (8960, 8960, None));
    // A table of zeros must not make the segment empty.
    let a = Agreed::new(
        TcpOpt {
            tstamp: true,
            ..TcpOpt::default()
        },
        &[0; 16],
    );
    assert_eq!((a.maxseg, a.emss), (1, 1));
}

#[test]
fn abort_status_to_errno() {
    let est = TcpState::Established;
    assert_eq!(abort_errno(est, CplStatus::CONN_RESET), Errno::ECONNRESET);
    assert_eq!(abort_errno(est, CplStatus::BAD_SYN), Errno::ECONNRESET);
    assert_eq!(
        abort_errno(TcpState::CloseWait, CplStatus::CONN_RESET),
        Errno::EPIPE
    );
    for s in [31, 32, 33, 34] {
        assert_eq!(
            abort_errno(TcpState::CloseWait, CplStatus(s)),
            Errno::ETIMEDOUT
        );
    }
    for s in (0..=255u8).filter(|s| ![20, 24, 31, 32, 33, 34].contains(s)) {
        assert_eq!(abort_errno(est, CplStatus(s)), Errno::EIO, "{s}");
    }
}

#[test]
fn open_status_to_errno() {
    let e = |s| act_open_errno(CplStatus(s));
    assert_eq!(e(20), Errno::ECONNREFUSED);
    assert_eq!(e(23), Errno::EHOSTUNREACH);
    assert_eq!(e(30), Errno::ETIMEDOUT);
    assert_eq!((e(3), e(22)), (Errno::EAGAIN, Errno::EAGAIN));
    assert_eq!(
        (e(0), e(1), e(21), e(255)),
        (Errno::EIO, Errno::EIO, Errno::EIO, Errno::EIO)
    );
}

#[test]
fn parameters_never_overflow_their_fields() {
    seeds(500, |seed| {
        let mut r = Rng::new(seed);
        let w = Wish {
            mss: r.next() as u16,
            rcv_space: r.next() as u32,
            sb_max: r.next(),
            wscale: r.one_in(2),
            tstamp: r.one_in(2),
            sack: r.one_in(2),
            ecn: r.one_in(2),
            nodelay: r.one_in(2),
            keepalive: r.one_in(2),
            cong: CongAlgo::choose(r.range(0, 5) as i32 - 1, b"x"),
            rx_coalesce: r.one_in(2),
            sndbuf: r.next() as i32,
            snd_autosize: r.one_in(2),
            snd_hiwat: r.next() as u32,
        };
        let syn = PeerSyn {
            tstamp: r.one_in(2),
            sack: r.one_in(2),
            wscale: r.one_in(2).then(|| r.next() as u8),
            ecn: r.one_in(2),
        };
        for p in [
            ConnParams::active(&w, &MTUS),
            ConnParams::passive(&w, &MTUS, &syn),
        ] {
            let l = link(Chip::T5);
            let o = p.opt0(&l);
            if wire::Opt0::from_bits(o.to_bits()) != o {
                return Err("opt0 is cut".into());
            }
            let o = p.opt2(&l);
            if wire::Opt2::from_bits(o.to_bits(Chip::T5), Chip::T5) != o {
                return Err("opt2 is cut".into());
            }
            if p.rcv_wnd() < MIN_RCV_WND {
                return Err("window too small".into());
            }
        }
        Ok(())
    });
}
