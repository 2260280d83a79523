//! Values too wide for their bits, headers that lie, and the small helpers.

mod cpl_common;

use cpl_common::hex;
use wire::bytes::{
    begin_req, bits32, bits64, fit, fresh, get_tp_wr, get_u8, get_u16, get_u32, get_u64, need,
    put_tp_wr, put_u64, round16,
};
use wire::cpl_listen::Opt1;
use wire::*;

fn refused<T: core::fmt::Debug>(r: Result<T, WireError>, field: &str) {
    match r {
        Err(WireError::Field { name, .. }) => assert_eq!(name, field),
        other => panic!("{field}: {other:?}"),
    }
}

/// `$field` set to one more than it can hold is refused by name.
macro_rules! too_wide {
    ($test:ident: $($t:ident { $($path:ident).+ = $v:expr } $(on $chip:ident)? => $name:literal;)*) => {
        #[test]
        fn $test() {
            let mut b = [0u8; 64];
            $({
                let mut m = $t::default();
                m.$($path).+ = $v;
                refused(m.emit(&mut b $(, Chip::$chip)?), $name);
                m.$($path).+ = $v - 1;
                m.emit(&mut b $(, Chip::$chip)?).unwrap();
            })*
        }
    };
}

too_wide! { open_fields:
    ActOpenReq { atid.tid = 1 << 11 } on T5 => "tid";
    ActOpenReq { atid.cookie = 1 << 3 } on T5 => "cookie";
    ActOpenReq { atid.qid = 1 << 10 } on T5 => "qid";
    ActOpenReq { filter_tuple = 1 << 32 } on T4 => "filter_tuple";
    ActOpenReq { filter_tuple = 1 << 40 } on T5 => "filter_tuple";
    ActOpenReq { filter_tuple = 1 << 40 } on T6 => "filter_tuple";
    ActOpenRpl { tid = 1 << 24 } => "tid";
    ActOpenRpl { atid.qid = 1 << 10 } => "qid";
    ActEstablish { tid = 1 << 24 } => "tid";
    ActEstablish { atid.tid = 1 << 11 } => "tid";
}

too_wide! { listen_fields:
    PassOpenReq { stid = 1 << 24 } => "tid";
    CloseListsrvReq { queue = 1 << 10 } => "queue";
    PassAcceptReq { rx_chan = 1 << 4 } on T5 => "rx_chan";
    PassAcceptReq { eth_hdr_len = 1 << 6 } on T4 => "eth_hdr_len";
    PassAcceptReq { eth_hdr_len = 1 << 6 } on T5 => "eth_hdr_len";
    PassAcceptReq { ip_hdr_len = 1 << 10 } on T5 => "ip_hdr_len";
    PassAcceptReq { tcp_hdr_len = 1 << 6 } on T6 => "tcp_hdr_len";
    PassAcceptReq { l2info.mac_idx = 1 << 9 } on T6 => "mac_idx";
    PassAcceptReq { l2info.intf = 1 << 4 } on T6 => "intf";
    PassAcceptReq { stid = 1 << 24 } on T6 => "stid";
    PassAcceptRpl { tid = 1 << 20 } on T6 => "flowid";
    PassEstablish { stid = 1 << 24 } => "stid";
}

too_wide! { close_fields:
    CloseConReq { tid = 1 << 20 } => "flowid";
    TidRelease { tid = 1 << 20 } => "flowid";
    AbortReq { tid = 1 << 20 } => "flowid";
    AbortReqRss { tid = 1 << 24 } => "tid";
    AbortReqRss { srqidx = 1 << 24 } => "srqidx";
    AbortRplRss { srqidx = 1 << 24 } => "srqidx";
}

too_wide! { rx_fields:
    RxData { dack_mode = 1 << 2 } => "dack_mode";
    RxDataAck { credits = 1 << 26 } => "credits";
    RxDataAck { dack_mode = 1 << 2 } => "dack_mode";
    RxDataDdp { report.offset = 1 << 24 } => "offset";
    RxDataDdp { report.buf_idx = 2 } => "buf_idx";
    RxDdpComplete { report.dack_mode = 1 << 2 } => "dack_mode";
}

too_wide! { tcb_and_l2t_fields:
    SetTcbField { word = 1 << 5 } => "word";
    SetTcbField { cookie = 1 << 3 } => "cookie";
    SetTcbField { reply.queue = 1 << 10 } => "queue";
    SetTcbRpl { word = 1 << 5 } => "word";
    SetTcbRpl { cookie = 1 << 3 } => "cookie";
    GetTcb { reply.queue = 1 << 10 } => "queue";
    L2tWriteReq { l2t_idx = 1 << 12 } => "l2t_idx";
    L2tWriteReq { info = 1 << 6 } => "info";
    L2tWriteReq { port = 1 << 2 } => "port";
    L2tWriteReq { qid = 1 << 10 } => "qid";
    RssHeader { channel = 1 << 2 } => "channel";
    RssHeader { hash_type = 1 << 2 } => "hash_type";
}

#[test]
fn t6_takes_a_longer_ethernet_header() {
    let mut b = [0u8; 24];
    let m = PassAcceptReq {
        eth_hdr_len: 0xff,
        ..PassAcceptReq::default()
    };
    m.emit(&mut b, Chip::T6).unwrap();
    assert_eq!(b[8], 0xff);
    assert_eq!(
        PassAcceptReq::parse(&b, Chip::T6).unwrap().eth_hdr_len,
        0xff
    );
}

#[test]
fn fields_of_later_chips_stay_out_of_earlier_ones() {
    let mut b = [0xa5u8; 64];
    let m = ActOpenReq {
        iss: !0,
        opt3: !0,
        ..ActOpenReq::default()
    };
    m.emit(&mut b, Chip::T5).unwrap();
    assert_eq!(&b[56..64], &[0; 8]);
    m.emit(&mut b, Chip::T4).unwrap();
    assert_eq!(&b[20..48], &[0; 28]);
    let m = PassAcceptRpl {
        iss: !0,
        opt3: !0,
        ..PassAcceptRpl::default()
    };
    m.emit(&mut b, Chip::T5).unwrap();
    assert_eq!(&b[36..48], &[0; 12]);
}

#[test]
fn lengths_by_chip() {
    let act = [Chip::T4, Chip::T5, Chip::T6].map(ActOpenReq::len);
    assert_eq!(act, [48, 64, 64]);
    let acc = [Chip::T4, Chip::T5, Chip::T6].map(PassAcceptRpl::len);
    assert_eq!(acc, [32, 48, 48]);
}

#[test]
fn a_work_request_that_lies_about_itself_is_refused() {
    let mut good = vec![0u8; CloseConReq::LEN];
    CloseConReq { tid: 5 }.emit(&mut good).unwrap();

    let mut b = good.clone();
    b[0] = 0x04;
    let e = WireError::Opcode {
        want: 0x05,
        have: 0x04,
    };
    assert_eq!(CloseConReq::parse(&b), Err(e));

    let mut b = good.clone();
    b[3] = 16;
    assert_eq!(
        CloseConReq::parse(&b),
        Err(WireError::Field {
            name: "immdlen",
            value: 16
        })
    );

    let mut b = good.clone();
    b[7] = 3;
    assert_eq!(
        CloseConReq::parse(&b),
        Err(WireError::Field {
            name: "len16",
            value: 3
        })
    );

    assert_eq!(CloseConReq::parse(&good), Ok(CloseConReq { tid: 5 }));
}

#[test]
fn an_l2t_write_must_name_one_entry() {
    let mut b = vec![0u8; L2tWriteReq::LEN];
    L2tWriteReq {
        l2t_idx: 0x123,
        ..L2tWriteReq::default()
    }
    .emit(&mut b)
    .unwrap();
    b[23] = 0x24;
    assert_eq!(
        L2tWriteReq::parse(&b),
        Err(WireError::Field {
            name: "l2t_idx",
            value: 0x124
        })
    );
}

#[test]
fn tp_wr_header() {
    let mut b = [0xa5; 16];
    put_tp_wr(&mut b, 0xf_ffff, 16 + 255).unwrap();
    assert_eq!(b.to_vec(), hex("050000ff 0fffff11 0000000000000000"));
    refused(put_tp_wr(&mut b, 0, 16 + 256), "immdlen");
    refused(put_tp_wr(&mut b, 0, 15), "immdlen");
    refused(put_tp_wr(&mut b, 0x10_0000, 24), "flowid");

    let mut b = [0; 32];
    put_tp_wr(&mut b, 0xa_1234, 24).unwrap();
    assert_eq!(get_tp_wr(&b, 24), Ok(0xa_1234));
    assert_eq!(wr_len(&b), Ok(32));
    assert_eq!(wr_op(&b), Ok(WrOp::Tp));
    assert_eq!(
        get_tp_wr(&b[..31], 24),
        Err(WireError::Truncated { need: 32, have: 31 })
    );
}

#[test]
fn a_request_body_has_the_cpls_length() {
    let mut b = [0xa5; 48];
    assert_eq!(begin_req(&mut b, Opcode::GetTcb, 7, 7, 8).unwrap().len(), 8);
    assert!(b[24..32].iter().all(|x| *x == 0));
    assert!(b[32..].iter().all(|x| *x == 0xa5));
}

#[test]
fn getters_stop_at_the_end() {
    let b = hex("0102030405060708");
    assert_eq!(get_u8(&b, 7), Ok(8));
    assert_eq!(get_u16(&b, 6), Ok(0x0708));
    assert_eq!(get_u32(&b, 4), Ok(0x0506_0708));
    assert_eq!(get_u64(&b, 0), Ok(0x0102_0304_0506_0708));
    assert_eq!(
        get_u8(&b, 8),
        Err(WireError::Truncated { need: 9, have: 8 })
    );
    assert_eq!(
        get_u64(&b, 1),
        Err(WireError::Truncated { need: 9, have: 8 })
    );
    assert!(get_u32(&b, usize::MAX).is_err());
    assert!(put_u64(&mut [0; 7], 0, 1).is_err());
    assert!(put_u64(&mut [0; 7], usize::MAX, 1).is_err());
    assert!(need(&b, 9).is_err());
    assert!(fresh(&mut [1; 3], 4).is_err());
}

#[test]
fn bit_helpers_at_their_edges() {
    assert_eq!(bits32(0xdead_beef, 0, 32), 0xdead_beef);
    assert_eq!(bits32(0xdead_beef, 32, 8), 0);
    assert_eq!(bits32(0xdead_beef, 28, 4), 0xd);
    assert_eq!(bits64(u64::MAX, 0, 64), u64::MAX);
    assert_eq!(bits64(u64::MAX, 64, 1), 0);
    assert_eq!(fit("x", u64::MAX, 64), Ok(u64::MAX));
    assert!(fit("x", 1 << 63, 63).is_err());
    assert_eq!([0, 1, 16, 17].map(round16), [0, 16, 16, 32]);
    assert_eq!(round16(usize::MAX), usize::MAX & !15);
}

#[test]
fn opcodes_known_and_unknown() {
    assert_eq!(opcode_of_cpl(&[0x42, 0, 0, 1]), Ok(Opcode::RxDataDdp));
    refused(opcode_of_cpl(&[0xff]), "opcode");
    assert_eq!(
        opcode_of_cpl(&[]),
        Err(WireError::Truncated { need: 1, have: 0 })
    );
    for c in 0..=255u8 {
        if let Ok(op) = Opcode::try_from(c) {
            assert_eq!(op.code(), c);
        }
        if let Ok(op) = WrOp::try_from(c) {
            assert_eq!(op.code(), c);
        }
    }
    refused(wr_op(&[0x08]), "wr_op");
    assert_eq!(tid_of(&[0x42, 0x0a, 0x12, 0x34]), Ok(0xa_1234));
    assert!(tid_of(&[0x42, 0, 0]).is_err());
    assert!(wr_len(&[0; 7]).is_err());
}

#[test]
fn parts_of_a_tid() {
    let q = QidTid {
        tid: 0x7ff,
        cookie: 0,
        qid: 0,
    };
    assert_eq!(q.to_bits(), Ok(0x7ff));
    let q = QidTid {
        tid: 0,
        cookie: 7,
        qid: 0,
    };
    assert_eq!(q.to_bits(), Ok(0x3800));
    let q = QidTid {
        tid: 0,
        cookie: 0,
        qid: 0x3ff,
    };
    assert_eq!(q.to_bits(), Ok(0xff_c000));
    for v in [0, 1, 0x05_6123, 0xff_ffff] {
        assert_eq!(QidTid::from_bits(v).to_bits(), Ok(v));
    }
}

#[test]
fn option_1() {
    let o = Opt1 {
        conn_policy: ConnPolicy::Ask,
        syn_rss_queue: Some(0x15),
    };
    assert_eq!(o.to_bits(), Ok(0x40_0055));
    assert_eq!(Opt1::from_bits(0x40_0055), o);
    for p in [
        ConnPolicy::Auto,
        ConnPolicy::Ask,
        ConnPolicy::Filter,
        ConnPolicy::Deny,
    ] {
        for q in [None, Some(0), Some(0x3ff)] {
            let o = Opt1 {
                conn_policy: p,
                syn_rss_queue: q,
            };
            assert_eq!(Opt1::from_bits(o.to_bits().unwrap()), o);
        }
    }
    refused(
        Opt1 {
            syn_rss_queue: Some(0x400),
            ..Opt1::default()
        }
        .to_bits(),
        "syn_rss_queue",
    );
}

#[test]
fn statuses() {
    assert!(CplStatus::NONE.is_ok());
    for s in 0..=255u8 {
        let s = CplStatus(s);
        assert_eq!(s.act_open_has_tid(), ![1, 2, 3, 21, 22].contains(&s.0));
        assert_eq!(s.is_neg_advice(), [35, 36, 37].contains(&s.0));
    }
    assert_eq!(CplStatus(20).name(), Some("CONN_RESET"));
    assert_eq!(CplStatus(99).name(), None);
    assert_eq!(
        format!("{:?} {:?}", CplStatus(3), CplStatus(99)),
        "TCAM_FULL CplStatus(99)"
    );
}

#[test]
fn ddp_errors() {
    // Bits 15 and 17 to 27; 16 marks a PDU and 28 to 31 hold the mode.
    assert_eq!(DdpVld::ANY_ERR.0, 0x0ffe_8000);
    assert!(!DdpVld(0x5001_0000).has_error());
    for bit in 0..32 {
        let v = DdpVld(1 << bit);
        assert_eq!(
            v.has_error(),
            bit == 15 || (17..28).contains(&bit),
            "bit {bit}"
        );
    }
    let v = (DdpVld::COLOR_ERR | DdpVld::PDU).with_ulp_mode(5);
    assert_eq!(v.ulp_mode(), 5);
    assert_eq!(v.errors(), DdpVld::COLOR_ERR);
    assert!(v.contains(DdpVld::PDU) && !v.contains(DdpVld::INVALID_TAG));
    assert_eq!(v.with_ulp_mode(0).ulp_mode(), 0);
}

#[test]
fn abort_commands() {
    assert!(!AbortCmd::SEND_RST.no_rst() && AbortCmd::NO_RST.no_rst());
    assert!(AbortCmd(2).after_close() && !AbortCmd(2).no_rst());
}

#[test]
fn window_scale_of_a_syn() {
    let with = |wsf| {
        SynOptions {
            wsf,
            ..SynOptions::default()
        }
        .wscale()
    };
    assert_eq!(
        [0, 1, 14, 15, 255].map(with),
        [None, Some(1), Some(14), None, None]
    );
}

#[test]
fn errors_say_what_is_wrong() {
    let e = CloseConRpl::parse(&hex("260a1234 00000000 00000000 00000000")).unwrap_err();
    assert_eq!(e.to_string(), "opcode 0x26, expected 0x32 (CloseConRpl)");
    let e = PeerClose::parse(&[0x26]).unwrap_err();
    assert_eq!(e.to_string(), "message of 8 bytes cut to 1");
    let e = WireError::field("tid", 0x100_0000);
    assert_eq!(e.to_string(), "field tid cannot be 0x1000000");
}
