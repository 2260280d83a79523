//! FLOWC, OFLD_TX_DATA and FW4_ACK.

mod common;

use common::{ROUNDS, Rng, cuts, emitted, hex, refused};
use wire::{Flowc, FlowcParam, Fw4Ack, OfldTxData, TxAlign, WireError, parse_flowc};

fn parsed(b: &[u8]) -> (u32, Vec<(FlowcParam, u32)>) {
    let (tid, params) = parse_flowc(b).expect("a FLOWC");
    (tid, params.collect())
}

const THREE: [(FlowcParam, u32); 3] = [
    (FlowcParam::PfnVfn, 0x400),
    (FlowcParam::SndNxt, 0x1122_3344),
    (FlowcParam::UlpMode, 5),
];

#[test]
fn flowc_known_bytes() {
    let m = Flowc {
        tid: 0x1_2345,
        params: &THREE,
    };
    let want = hex("0a000003 01234502
                    00000000 00000400
                    04000000 11223344
                    0f000000 00000005");
    assert_eq!(emitted(32, |b| m.emit(b)), want);
    assert_eq!(parsed(&want), (0x1_2345, THREE.to_vec()));
}

#[test]
fn flowc_pads_an_even_number_of_parameters() {
    let params = [(FlowcParam::Mss, 1460), (FlowcParam::SndBuf, 0x4_0000)];
    let m = Flowc {
        tid: 1,
        params: &params,
    };
    let want = hex("0a000002 00000102
                    07000000 000005b4
                    06000000 00040000
                    00000000 00000000");
    assert_eq!(emitted(32, |b| m.emit(b)), want);
    assert_eq!(parsed(&want), (1, params.to_vec()));
}

#[test]
fn flowc_lengths() {
    assert_eq!(
        [1, 2, 6, 7, 8, 9, 16].map(Flowc::len),
        [16, 32, 64, 64, 80, 80, 144]
    );
    let m = Flowc {
        tid: 0,
        params: &THREE,
    };
    assert_eq!(m.emit(&mut [0; 32]), Ok(Flowc::len(3)));
}

#[test]
fn flowc_mnemonics_have_their_numbers() {
    let all = [
        FlowcParam::PfnVfn,
        FlowcParam::Ch,
        FlowcParam::Port,
        FlowcParam::IqId,
        FlowcParam::SndNxt,
        FlowcParam::RcvNxt,
        FlowcParam::SndBuf,
        FlowcParam::Mss,
        FlowcParam::TxDataPlenMax,
        FlowcParam::TcpState,
        FlowcParam::EoState,
        FlowcParam::SchedClass,
        FlowcParam::DcbPrio,
        FlowcParam::SndScale,
        FlowcParam::RcvScale,
        FlowcParam::UlpMode,
    ];
    for (i, p) in (0u8..).zip(all) {
        assert_eq!(p as u8, i);
        assert_eq!(FlowcParam::from_code(i), Some(p));
    }
    for i in 16..=255 {
        assert_eq!(FlowcParam::from_code(i), None);
    }
}

#[test]
fn flowc_truncated() {
    for n in [1, 2, 3] {
        let b = emitted(Flowc::len(n), |b| {
            Flowc {
                tid: 9,
                params: &THREE[..n],
            }
            .emit(b)
        });
        cuts(&b, |b| parse_flowc(b).map(drop));
    }
}

#[test]
fn flowc_refuses_what_does_not_fit() {
    let many = [(FlowcParam::Ch, 0); 17];
    let mut b = [0; 256];
    assert_eq!(
        refused(
            Flowc {
                tid: 0,
                params: &many
            }
            .emit(&mut b)
        ),
        "nparams"
    );
    assert_eq!(
        refused(
            Flowc {
                tid: 1 << 20,
                params: &THREE
            }
            .emit(&mut b)
        ),
        "flowid"
    );
    assert!(
        Flowc {
            tid: (1 << 20) - 1,
            params: &many[..16]
        }
        .emit(&mut b)
        .is_ok()
    );
}

#[test]
fn flowc_parse_refuses_a_length_that_disagrees() {
    let b = hex("0a000003 01234503 00000000 00000400 04000000 11223344 0f000000 00000005");
    assert_eq!(refused(parse_flowc(&b)), "len16");
}

#[test]
fn flowc_parse_refuses_another_request() {
    let b = hex("0b000000 00000001 00000000 00000000");
    assert_eq!(
        parse_flowc(&b).err(),
        Some(WireError::Opcode {
            want: 0x0a,
            have: 0x0b
        })
    );
}

#[test]
fn flowc_parse_passes_over_unknown_mnemonics() {
    let b = hex("0a000003 00000702 10000000 00000001 07000000 00000218 ff000000 00000002");
    assert_eq!(parsed(&b), (7, vec![(FlowcParam::Mss, 536)]));
}

#[test]
fn flowc_round_trips() {
    let mut r = Rng::new(0xf10c);
    for round in 0..ROUNDS {
        let params: Vec<_> = (0..=r.below(16))
            .map(|_| (FlowcParam::from_code(r.u8() & 15).expect("known"), r.u32()))
            .collect();
        let tid = r.bits(20);
        let mut b = vec![0xa5; Flowc::len(params.len())];
        Flowc {
            tid,
            params: &params,
        }
        .emit(&mut b)
        .expect("fits");
        assert_eq!(parsed(&b), (tid, params), "round {round}");
    }
}

fn tx() -> OfldTxData {
    OfldTxData {
        tid: 0xabc,
        plen: 5,
        immdlen: 5,
        len: 32,
        compl: true,
        shove: true,
        ..OfldTxData::default()
    }
}

#[test]
fn tx_data_known_bytes() {
    let want = hex("0b200005 000abc02 00000005 00004000");
    assert_eq!(emitted(16, |b| tx().emit(b)), want);
    let whole = [want, vec![0; 16]].concat();
    assert_eq!(OfldTxData::parse(&whole), Ok(tx()));
}

#[test]
fn tx_data_with_a_scatter_list_known_bytes() {
    let m = OfldTxData {
        tid: 0xf_ffff,
        plen: 0x0012_3456,
        len: 512,
        ulp_mode: 5,
        align: TxAlign::Whole,
        ..OfldTxData::default()
    };
    let want = hex("0b000000 0fffff20 00123456 40001400");
    assert_eq!(emitted(16, |b| m.emit(b)), want);
    let whole = [want, vec![0; 496]].concat();
    assert_eq!(OfldTxData::parse(&whole), Ok(m));
}

#[test]
fn tx_data_flags_are_one_bit_each() {
    let none = OfldTxData {
        len: 16,
        ..OfldTxData::default()
    };
    let word = |m: OfldTxData, at: usize| {
        let b = emitted(16, |b| m.emit(b));
        u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    };
    assert_eq!(word(none, 0), 0x0b00_0000);
    assert_eq!(word(none, 12), 0);
    assert_eq!(
        word(
            OfldTxData {
                compl: true,
                ..none
            },
            0
        ),
        0x0b00_0000 | 1 << 21
    );
    assert_eq!(
        word(
            OfldTxData {
                shove: true,
                ..none
            },
            12
        ),
        1 << 14
    );
    for (align, bits) in [
        (TxAlign::Any, 0),
        (TxAlign::NoLso, 1 << 31),
        (TxAlign::Whole, 1 << 30),
        (TxAlign::WholeShove, 3 << 29),
    ] {
        assert_eq!(word(OfldTxData { align, ..none }, 12), bits);
    }
    assert_eq!(
        word(
            OfldTxData {
                ulp_mode: 7,
                ..none
            },
            12
        ),
        7 << 10
    );
}

#[test]
fn tx_data_truncated() {
    let mut b = emitted(16, |b| tx().emit(b));
    b.extend_from_slice(b"hello\0\0\0\0\0\0\0\0\0\0\0");
    cuts(&b, OfldTxData::parse);
}

#[test]
fn tx_data_emit_refuses_what_does_not_fit() {
    let mut b = [0; 64];
    for len in [0, 8, 17, 31, 4096] {
        assert_eq!(
            refused(
                OfldTxData {
                    len,
                    immdlen: 0,
                    ..tx()
                }
                .emit(&mut b)
            ),
            "len",
            "{len}"
        );
    }
    // 16 bytes hold the header but not its 5 bytes of payload.
    assert_eq!(refused(OfldTxData { len: 16, ..tx() }.emit(&mut b)), "len");
    assert_eq!(
        refused(
            OfldTxData {
                tid: 1 << 20,
                ..tx()
            }
            .emit(&mut b)
        ),
        "flowid"
    );
    assert_eq!(
        refused(
            OfldTxData {
                ulp_mode: 8,
                ..tx()
            }
            .emit(&mut b)
        ),
        "ulp_mode"
    );
    assert_eq!(b, [0; 64], "a refused request leaves the buffer alone");
}

#[test]
fn tx_data_parse_refuses_lengths_that_disagree() {
    let no_header = hex("0b000000 00000000 00000000 00000000");
    assert_eq!(refused(OfldTxData::parse(&no_header)), "len");
    let imm_too_long = hex("0b000001 00000001 00000001 00000000");
    assert_eq!(refused(OfldTxData::parse(&imm_too_long)), "len");
}

#[test]
fn tx_data_parse_refuses_another_request() {
    let b = hex("0a000000 00000001 00000000 00000000");
    assert_eq!(
        OfldTxData::parse(&b),
        Err(WireError::Opcode {
            want: 0x0b,
            have: 0x0a
        })
    );
}

#[test]
fn tx_data_parse_ignores_the_queue_update_bits() {
    // EQUIQ and EQUEQ stand above the flow id.
    let b = hex("0b000000 c0123401 00000000 00000000");
    assert_eq!(OfldTxData::parse(&b).map(|m| m.tid), Ok(0x1234));
}

#[test]
fn tx_data_parse_refuses_alignment_that_makes_no_sense() {
    for bits in [1 << 29, 5 << 29, 6 << 29, 7 << 29] {
        let mut b = hex("0b000000 00123401 00000000 00000000");
        b[12..].copy_from_slice(&u32::to_be_bytes(bits));
        assert_eq!(refused(OfldTxData::parse(&b)), "align");
    }
}

#[test]
fn tx_data_round_trips() {
    let mut r = Rng::new(0x0f1d);
    for round in 0..ROUNDS {
        let immdlen = r.u8();
        let least = (16 + usize::from(immdlen)).div_ceil(16);
        let m = OfldTxData {
            tid: r.bits(20),
            plen: r.u32(),
            immdlen,
            len: 16 * (least + r.below(256 - least)),
            compl: r.bool(),
            shove: r.bool(),
            ulp_mode: r.u8() & 7,
            align: [
                TxAlign::Any,
                TxAlign::NoLso,
                TxAlign::Whole,
                TxAlign::WholeShove,
            ][r.below(4)],
        };
        let mut b = vec![0xa5; m.len];
        m.emit(&mut b).expect("fits");
        assert_eq!(OfldTxData::parse(&b), Ok(m), "round {round}");
    }
}

const ACK: Fw4Ack = Fw4Ack {
    tid: 0xab_cdef,
    credits: 0x21,
    seq_vld: true,
    snd_nxt: 0x0102_0304,
    snd_una: 0x0a0b_0c0d,
};

#[test]
fn fw4_ack_known_bytes() {
    let want = hex("c3abcdef 21000001 01020304 0a0b0c0d 00000000 00000000");
    assert_eq!(emitted(Fw4Ack::LEN, |b| ACK.emit(b)), want);
    assert_eq!(Fw4Ack::parse(&want), Ok(ACK));
    cuts(&want, Fw4Ack::parse);
}

#[test]
fn fw4_ack_only_seqval_makes_the_numbers_count() {
    // CH and FLOWC are flags of their own.
    let b = hex("c3000001 05000006 00000000 00000000 00000000 00000000");
    assert_eq!(
        Fw4Ack::parse(&b).map(|m| (m.credits, m.seq_vld)),
        Ok((5, false))
    );
}

#[test]
fn fw4_ack_refuses_a_wide_tid_and_another_message() {
    assert_eq!(
        refused(
            Fw4Ack {
                tid: 1 << 24,
                ..ACK
            }
            .emit(&mut [0; 24])
        ),
        "tid"
    );
    let mut b = emitted(Fw4Ack::LEN, |b| ACK.emit(b));
    b[0] = 0xc0;
    assert_eq!(
        Fw4Ack::parse(&b),
        Err(WireError::Opcode {
            want: 0xc3,
            have: 0xc0
        })
    );
}

#[test]
fn fw4_ack_round_trips() {
    let mut r = Rng::new(0xacc);
    for round in 0..ROUNDS {
        let m = Fw4Ack {
            tid: r.bits(24),
            credits: r.u8(),
            seq_vld: r.bool(),
            snd_nxt: r.u32(),
            snd_una: r.u32(),
        };
        let mut b = [0xa5; Fw4Ack::LEN];
        m.emit(&mut b).expect("fits");
        assert_eq!(Fw4Ack::parse(&b), Ok(m), "round {round}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut r = Rng::new(0xbad_f00d);
    for _ in 0..ROUNDS {
        let n = r.below(160);
        let mut b = r.bytes(n);
        for op in [0x0a, 0x0b, 0xc3, r.u8()] {
            if let Some(first) = b.first_mut() {
                *first = op;
            }
            if let Ok((tid, params)) = parse_flowc(&b) {
                assert!(tid < 1 << 20 && params.count() <= 255);
            }
            if let Ok(m) = OfldTxData::parse(&b) {
                assert!(m.len >= 16 + usize::from(m.immdlen) && m.len <= b.len());
            }
            let _ = Fw4Ack::parse(&b);
        }
    }
}

#[test]
fn ofld_tx_data_is_whole_with_its_body() {
    let data = [7; 20];
    let imm = OfldTxData {
        tid: 9,
        plen: 20,
        immdlen: 20,
        len: 48,
        ..OfldTxData::default()
    };
    let mut b = [0xa5; 48];
    imm.emit_imm(&data, &mut b).expect("fits");
    assert_eq!(OfldTxData::parse(&b), Ok(imm));
    assert_eq!((&b[16..36], &b[36..]), (&data[..], &[0; 12][..]));
    let segs = [(0x1000, 10), (0x3000, 10)];
    let sgl = OfldTxData { immdlen: 0, ..imm };
    let mut b = [0xa5; 48];
    sgl.emit_dsgl(&segs, &mut b).expect("fits");
    assert_eq!(OfldTxData::parse(&b), Ok(sgl));
    let list = wire::Dsgl::parse(&b[16..]).expect("list");
    assert_eq!(list.segs().collect::<Vec<_>>(), segs);
}

#[test]
fn ofld_tx_data_refuses_a_body_of_another_length() {
    let wr = OfldTxData {
        plen: 20,
        immdlen: 20,
        len: 48,
        ..OfldTxData::default()
    };
    let mut b = [0; 64];
    assert_eq!(refused(wr.emit_imm(&[0; 19], &mut b)), "immdlen");
    assert_eq!(refused(wr.emit_imm(&[0; 21], &mut b)), "immdlen");
    assert!(wr.emit_imm(&[0; 20], &mut b[..32]).is_err());
    let wr = OfldTxData { immdlen: 0, ..wr };
    assert_eq!(refused(wr.emit_dsgl(&[(0, 1)], &mut b)), "len");
    assert_eq!(refused(wr.emit_dsgl(&[], &mut b)), "nsge");
    assert!(wr.emit_dsgl(&[(0, 1); 4], &mut b).is_err());
}
