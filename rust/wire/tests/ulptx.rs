//! Scatter lists, writes of page pods, and compound requests.

mod common;

use common::{ROUNDS, Rng, cuts, emitted, hex, refused};
use wire::{
    Chip, Compound, DdpBuf, Dsgl, Inner, MAX_IMM_PPODS, MAX_SGL_SEGS, MAX_WR_LEN, PagePod,
    RxDataAck, Tcb, TcbUpdate, UlpTxMemWrite, WireError, arm, coalesce_off, ddp_on, dsgl_len,
    emit_dsgl, invalidate, parse_compound,
};

const CHIPS: [Chip; 3] = [Chip::T4, Chip::T5, Chip::T6];

// Scatter lists.

/// The list as the C structures lay it out: `ulptx_sgl`, then whole `ulptx_sge_pair`s, of which
/// the last loses the address it does not use.
fn reference(segs: &[(u64, u32)]) -> Vec<u8> {
    let mut b = vec![0x82, 0, (segs.len() >> 8) as u8, segs.len() as u8];
    b.extend(segs[0].1.to_be_bytes());
    b.extend(segs[0].0.to_be_bytes());
    let mut i = 1;
    while i < segs.len() {
        let second = segs.get(i + 1);
        b.extend(segs[i].1.to_be_bytes());
        b.extend(second.map_or(0, |s| s.1).to_be_bytes());
        b.extend(segs[i].0.to_be_bytes());
        if let Some(s) = second {
            b.extend(s.0.to_be_bytes());
        }
        i += 2;
    }
    b
}

fn random_segs(r: &mut Rng, n: usize) -> Vec<(u64, u32)> {
    (0..n).map(|_| (r.u64(), r.u32())).collect()
}

#[test]
fn dsgl_one_segment() {
    let want = hex("82000001 00001000 00000001 23456000");
    assert_eq!(
        emitted(16, |b| emit_dsgl(&[(0x1_2345_6000, 4096)], b)),
        want
    );
}

#[test]
fn dsgl_two_segments_leave_out_the_second_address_of_the_pair() {
    let segs = [(0x1000, 0x11), (0x2000, 0x22)];
    let want = hex("82000002 00000011 00000000 00001000
                    00000022 00000000 00000000 00002000");
    assert_eq!(emitted(32, |b| emit_dsgl(&segs, b)), want);
}

#[test]
fn dsgl_three_segments() {
    let segs = [(0x1000, 0x11), (0x2000, 0x22), (0x3000, 0x33)];
    let want = hex("82000003 00000011 00000000 00001000
                    00000022 00000033 00000000 00002000 00000000 00003000");
    // 40 bytes, with the padding to 48 checked elsewhere.
    let mut b = [0xa5; 40];
    assert_eq!(emit_dsgl(&segs, &mut b), Ok(40));
    assert_eq!(b.to_vec(), want);
}

#[test]
fn dsgl_lengths() {
    let want = [0, 16, 32, 40, 56, 64, 80, 88];
    for (n, len) in want.into_iter().enumerate() {
        assert_eq!(dsgl_len(n), len, "{n} segments");
    }
    assert_eq!((MAX_SGL_SEGS, MAX_WR_LEN), (41, 512));
    assert_eq!(16 + dsgl_len(MAX_SGL_SEGS), MAX_WR_LEN);
    assert!(16 + dsgl_len(MAX_SGL_SEGS + 1) > MAX_WR_LEN);
}

#[test]
fn dsgl_of_every_count_is_as_the_reference_and_back() {
    let mut r = Rng::new(0xd561);
    for n in 1..=MAX_SGL_SEGS {
        for _ in 0..20 {
            let segs = random_segs(&mut r, n);
            let want = reference(&segs);
            assert_eq!(want.len(), dsgl_len(n));
            let mut b = vec![0xa5; dsgl_len(n)];
            assert_eq!(emit_dsgl(&segs, &mut b), Ok(want.len()));
            assert_eq!(b, want, "{n} segments");
            let list = Dsgl::parse(&b).expect("a list");
            assert_eq!(list.count(), n);
            assert_eq!(list.segs().collect::<Vec<_>>(), segs);
        }
    }
}

#[test]
fn dsgl_padding_to_sixteen_is_zeroed_if_there_is_room() {
    let mut r = Rng::new(0x9ad);
    for n in 1..=MAX_SGL_SEGS {
        let segs = random_segs(&mut r, n);
        let (len, padded) = (dsgl_len(n), dsgl_len(n).next_multiple_of(16));
        let mut b = vec![0xa5; padded + 16];
        assert_eq!(emit_dsgl(&segs, &mut b), Ok(len));
        assert!(b[len..padded].iter().all(|x| *x == 0), "{n} segments");
        assert!(b[padded..].iter().all(|x| *x == 0xa5), "{n} segments");
    }
}

#[test]
fn dsgl_needs_its_room() {
    let mut r = Rng::new(0x700);
    for n in 1..=MAX_SGL_SEGS {
        let segs = random_segs(&mut r, n);
        for have in 0..dsgl_len(n) {
            let mut b = vec![0xa5; have];
            let want = WireError::Truncated {
                need: dsgl_len(n),
                have,
            };
            assert_eq!(emit_dsgl(&segs, &mut b), Err(want));
            assert!(b.iter().all(|x| *x == 0xa5), "refused, yet written");
        }
    }
}

#[test]
fn dsgl_truncated_at_every_length() {
    let mut r = Rng::new(0xc07);
    for n in 1..=MAX_SGL_SEGS {
        cuts(&reference(&random_segs(&mut r, n)), |b| {
            Dsgl::parse(b).map(|l| l.count())
        });
    }
}

#[test]
fn dsgl_refuses_an_empty_and_an_endless_list() {
    assert_eq!(refused(emit_dsgl(&[], &mut [0; 64])), "nsge");
    let segs = vec![(0, 0); 0x1_0000];
    let mut b = vec![0; dsgl_len(0x1_0000)];
    assert_eq!(refused(emit_dsgl(&segs, &mut b)), "nsge");
    assert_eq!(emit_dsgl(&segs[1..], &mut b), Ok(dsgl_len(0xffff)));
    assert_eq!(Dsgl::parse(&b).map(|l| l.count()), Ok(0xffff));
}

#[test]
fn dsgl_parse_refuses_what_is_no_list() {
    assert_eq!(
        refused(Dsgl::parse(&hex("82000000 00000000 00000000 00000000"))),
        "nsge"
    );
    let imm = hex("81000001 00000000 00000000 00000000");
    assert_eq!(
        Dsgl::parse(&imm).err(),
        Some(WireError::Opcode {
            want: 0x82,
            have: 0x81
        })
    );
}

#[test]
fn dsgl_random_bytes_never_panic() {
    let mut r = Rng::new(0xd5);
    for _ in 0..ROUNDS {
        let n = r.below(600);
        let mut b = r.bytes(n);
        if n >= 4 {
            b[0] = 0x82;
            b[2] = 0;
            b[3] = r.u8() & 0x3f;
        }
        if let Ok(list) = Dsgl::parse(&b) {
            assert_eq!(list.segs().count(), list.count());
        }
    }
}

// Page-pod writes.

fn random_pod(r: &mut Rng) -> PagePod {
    PagePod {
        valid: r.bool(),
        tid: r.bits(24),
        tag: r.u32(),
        len: r.u32(),
        offset: r.u32(),
        addrs: [r.u64(), r.u64(), r.u64(), r.u64(), r.u64()],
    }
}

/// `count` random pods, the rest empty, as a parsed message has them.
fn random_write(r: &mut Rng, count: usize) -> UlpTxMemWrite {
    let mut pods = [PagePod::default(); MAX_IMM_PPODS];
    for p in &mut pods[..count] {
        *p = random_pod(r);
    }
    UlpTxMemWrite {
        addr: r.u32() & !31,
        pods,
        count,
    }
}

#[test]
fn mem_write_of_one_pod_known_bytes() {
    let mut m = UlpTxMemWrite {
        addr: 0x0123_4560,
        pods: Default::default(),
        count: 1,
    };
    m.pods[0] = PagePod {
        valid: true,
        tid: 0x42,
        tag: 0x1240,
        len: 0x4000,
        offset: 0x10,
        addrs: [0x1000, 0x2000, 0x3000, 0x4000, 0],
    };
    let want = hex("04000000 00000007 00000000 00000000
                    03800000 00000006 00000002 00091a2b
                    81000000 00000040
                    01000042 00001240 00004000 00000010 00000000 00000000
                    00000000 00001000 00000000 00002000 00000000 00003000
                    00000000 00004000 00000000 00000000
                    00000000 00000000");
    for chip in CHIPS {
        assert_eq!(emitted(112, |b| m.emit(chip, b)), want, "{chip:?}");
    }
    assert_eq!(UlpTxMemWrite::parse(&want), Ok(m));
}

#[test]
fn mem_write_lengths() {
    assert_eq!([1, 2, 3, 4].map(UlpTxMemWrite::len), [112, 176, 240, 304]);
    assert_eq!(MAX_IMM_PPODS * PagePod::LEN, 256);
}

#[test]
fn mem_write_of_every_count_holds_the_pods_in_order() {
    let mut r = Rng::new(0x3e3);
    for count in 1..=MAX_IMM_PPODS {
        let m = random_write(&mut r, count);
        let len = UlpTxMemWrite::len(count);
        let b = emitted(len, |b| m.emit(Chip::T5, b));
        let n = count as u8;
        assert_eq!(b[4..8], [0, 0, 0, (len / 16) as u8]);
        assert_eq!(
            b[20..24],
            [0, 0, 0, (len / 16 - 1) as u8],
            "command in 16 bytes"
        );
        assert_eq!(b[24..28], [0, 0, 0, 2 * n], "data in 32 bytes");
        assert_eq!(b[28..32], (m.addr / 32).to_be_bytes());
        assert_eq!(b[36..40], (u32::from(n) * 64).to_be_bytes());
        for (i, p) in m.pods[..count].iter().enumerate() {
            assert_eq!(
                PagePod::parse(&b[40 + 64 * i..]),
                Ok(*p),
                "pod {i} of {count}"
            );
        }
        assert_eq!(b[40 + 64 * count..], [0; 8]);
        assert_eq!(UlpTxMemWrite::parse(&b), Ok(m));
    }
}

#[test]
fn mem_write_round_trips() {
    let mut r = Rng::new(0x3e32);
    for round in 0..ROUNDS {
        let count = 1 + r.below(MAX_IMM_PPODS);
        let m = random_write(&mut r, count);
        let mut b = [0xa5; UlpTxMemWrite::len(MAX_IMM_PPODS)];
        let len = m.emit(CHIPS[r.below(3)], &mut b).expect("fits");
        assert_eq!(len, UlpTxMemWrite::len(count));
        assert_eq!(UlpTxMemWrite::parse(&b), Ok(m), "round {round}");
        assert!(b[len..].iter().all(|x| *x == 0xa5));
    }
}

#[test]
fn mem_write_truncated_at_every_length() {
    let mut r = Rng::new(0x3e33);
    for count in 1..=MAX_IMM_PPODS {
        let m = random_write(&mut r, count);
        cuts(
            &emitted(UlpTxMemWrite::len(count), |b| m.emit(Chip::T5, b)),
            UlpTxMemWrite::parse,
        );
    }
}

#[test]
fn mem_write_emit_refuses_what_cannot_be() {
    let m = random_write(&mut Rng::new(1), 2);
    let mut b = [0; 512];
    for count in [0, 5, usize::MAX] {
        assert_eq!(
            refused(UlpTxMemWrite { count, ..m }.emit(Chip::T5, &mut b)),
            "ppods"
        );
    }
    assert_eq!(
        refused(UlpTxMemWrite { addr: 16, ..m }.emit(Chip::T5, &mut b)),
        "addr"
    );
    let mut wide = m;
    wide.pods[1].tid = 1 << 24;
    assert_eq!(refused(wide.emit(Chip::T5, &mut b)), "tid");
    // What is not sent is not looked at.
    assert!(
        UlpTxMemWrite { count: 1, ..wide }
            .emit(Chip::T5, &mut b)
            .is_ok()
    );
}

#[test]
fn mem_write_reaches_the_top_of_the_address_space() {
    let m = UlpTxMemWrite {
        addr: 0xffff_ffe0,
        ..random_write(&mut Rng::new(2), 1)
    };
    let mut b = emitted(112, |b| m.emit(Chip::T4, b));
    assert_eq!(b[28..32], [0x07, 0xff, 0xff, 0xff]);
    // The lock bit is no part of the address.
    b[28] |= 0x80;
    assert_eq!(UlpTxMemWrite::parse(&b), Ok(m));
}

#[test]
fn mem_write_parse_refuses_lengths_that_disagree() {
    let good = emitted(176, |b| random_write(&mut Rng::new(3), 2).emit(Chip::T5, b));
    let with = |at: usize, v: u32| {
        let mut b = good.clone();
        b[at..at + 4].copy_from_slice(&v.to_be_bytes());
        UlpTxMemWrite::parse(&b)
    };
    assert_eq!(refused(with(4, 0)), "len16");
    assert_eq!(refused(with(20, 9)), "len16");
    assert_eq!(refused(with(24, 3)), "dlen");
    assert_eq!(refused(with(24, 0)), "dlen");
    assert_eq!(refused(with(36, 64)), "dlen");
    assert_eq!(refused(with(36, 0xffff_ffff)), "dlen");
    assert_eq!(refused(with(32, 0x8200_0000)), "sc");
    assert_eq!(refused(with(16, 0x0300_0000)), "cmd");
    assert_eq!(
        with(16, 0x0280_0000),
        Err(WireError::Opcode { want: 3, have: 2 })
    );
    assert_eq!(
        with(0, 0x0500_0000),
        Err(WireError::Opcode { want: 4, have: 5 })
    );
    // Data of 4 pods in a request that has room for 2.
    let mut b = good.clone();
    b[27] = 8;
    b[36..40].copy_from_slice(&256u32.to_be_bytes());
    assert!(matches!(
        UlpTxMemWrite::parse(&b),
        Err(WireError::Truncated { need: 256, .. })
    ));
}

#[test]
fn mem_write_random_bytes_never_panic() {
    let mut r = Rng::new(0xfa11);
    for _ in 0..ROUNDS {
        let count = 1 + r.below(MAX_IMM_PPODS);
        let m = random_write(&mut r, count);
        let mut b = vec![0; UlpTxMemWrite::len(count)];
        m.emit(Chip::T6, &mut b).expect("fits");
        r.damage(&mut b[..40]);
        if let Ok(m) = UlpTxMemWrite::parse(&b) {
            assert!((1..=MAX_IMM_PPODS).contains(&m.count) && m.addr % 32 == 0);
        }
        let n = r.below(400);
        let _ = UlpTxMemWrite::parse(&r.bytes(n));
    }
}

// Compound requests.

fn inner(b: &[u8]) -> Vec<Result<Inner, WireError>> {
    parse_compound(b).expect("a FW_ULPTX_WR").1.collect()
}

/// Every message in it, all of them good.
fn good(b: &[u8]) -> Vec<Inner> {
    inner(b)
        .into_iter()
        .map(|m| m.expect("a good message"))
        .collect()
}

fn modulate(tid: u32) -> Inner {
    Inner::RxDataAck(RxDataAck {
        tid,
        modulate_rx: true,
        ..RxDataAck::default()
    })
}

fn enable(b: &mut [u8]) -> Result<(), WireError> {
    let mut c = Compound::begin(b.get_mut(..96).unwrap_or_default(), true, 7, 0x14d)?;
    c.set_tcb(&ddp_on(), None)?;
    c.rx_modulate()?;
    c.finish()
}

const ENABLE: &str = "04800000 00000006 00000000 00000000
                      04000000 00000003 81000000 00000018
                      05000007 814d001b 00000003 03050000 00000002 02000000
                      80000000 00000000
                      04000000 00000002 81000000 00000008
                      0d000007 08000000
                      80000000 00000000";

#[test]
fn compound_known_bytes() {
    let mut b = [0xa5; 112];
    enable(&mut b).expect("fits");
    assert_eq!(b[..96].to_vec(), hex(ENABLE));
    assert_eq!(b[96..], [0xa5; 16]);
    let (atomic, _) = parse_compound(&b).expect("a FW_ULPTX_WR");
    assert!(atomic);
    let on = Inner::SetTcb {
        tid: 7,
        update: ddp_on(),
        reply: None,
    };
    assert_eq!(good(&b), [on, modulate(7)]);
}

#[test]
fn compound_with_a_reply_known_bytes() {
    let mut b = [0xa5; Compound::len(1, 0)];
    let mut c = Compound::begin(&mut b, false, 0xf_ffff, 0x3ff).expect("room");
    c.set_tcb(&invalidate(DdpBuf::B1), Some(3)).expect("room");
    c.finish().expect("full");
    let want = hex("04000000 00000004 00000000 00000000
                    04000000 00000003 81000000 00000018
                    050fffff 03ff007b 00000001 00000000 00000000 00000000
                    80000000 00000000");
    assert_eq!(b.to_vec(), want);
    assert!(!parse_compound(&b).expect("a FW_ULPTX_WR").0);
    let update = invalidate(DdpBuf::B1);
    assert_eq!(
        good(&b),
        [Inner::SetTcb {
            tid: 0xf_ffff,
            update,
            reply: Some((0x3ff, 3))
        }]
    );
}

#[test]
fn compound_lengths() {
    assert_eq!(Compound::len(0, 0), 16);
    assert_eq!(Compound::len(1, 0), 64);
    assert_eq!(Compound::len(0, 1), 48);
    assert_eq!(Compound::len(3, 1), 192);
}

#[test]
fn compound_writes_every_byte() {
    let build = |fill: u8| {
        let mut b = [fill; Compound::len(3, 1)];
        let mut c = Compound::begin(&mut b, true, 3, 5).expect("room");
        for u in arm(DdpBuf::B1, 0x1240, 5, 4096, true, true) {
            c.set_tcb(&u, None).expect("room");
        }
        c.rx_modulate().expect("room");
        c.finish().expect("full");
        b
    };
    assert_eq!(build(0xa5), build(0x5a));
}

#[test]
fn compound_arms_a_buffer_of_a_tcb() {
    for buf in [DdpBuf::B0, DdpBuf::B1] {
        let mut b = [0; Compound::len(3, 1)];
        let mut c = Compound::begin(&mut b, true, 3, 5).expect("room");
        for u in arm(buf, 0x4000_1240, 0x80_0001, 0xff_f000, true, false) {
            c.set_tcb(&u, None).expect("room");
        }
        c.rx_modulate().expect("room");
        let mut tcb = Tcb::default();
        let mut acks = 0;
        for m in good(&b) {
            match m {
                Inner::SetTcb { tid, update, reply } => {
                    assert_eq!((tid, reply), (3, None));
                    tcb.set_field(&update);
                }
                Inner::RxDataAck(a) => {
                    assert!(a.modulate_rx && a.credits == 0);
                    acks += 1;
                }
            }
        }
        assert_eq!(acks, 1);
        assert!(tcb.buf_valid(buf) && tcb.active_buf() == buf);
        assert_eq!(tcb.buf_tag(buf), 0x4000_1240);
        assert_eq!(
            (tcb.buf_offset(buf), tcb.buf_len(buf)),
            (0x80_0001, 0xff_f000)
        );
    }
}

#[test]
fn compound_that_is_full_refuses_more_and_keeps_what_it_has() {
    let mut b = [0; Compound::len(1, 1)];
    let mut c = Compound::begin(&mut b, true, 7, 0x14d).expect("room");
    c.set_tcb(&ddp_on(), None).expect("room");
    let full = c.set_tcb(&coalesce_off(), None);
    assert_eq!(full, Err(WireError::Truncated { need: 48, have: 32 }));
    // The smaller one still fits.
    c.rx_modulate().expect("room");
    assert_eq!(
        c.rx_modulate(),
        Err(WireError::Truncated { need: 32, have: 0 })
    );
    c.finish().expect("full");
    assert_eq!(b.to_vec(), hex(ENABLE));
}

#[test]
fn compound_that_is_not_full_does_not_finish() {
    let mut b = [0; Compound::len(2, 1)];
    let mut c = Compound::begin(&mut b, true, 7, 0x14d).expect("room");
    c.set_tcb(&ddp_on(), None).expect("room");
    assert_eq!(
        c.finish(),
        Err(WireError::Field {
            name: "unfilled",
            value: 80
        })
    );
}

#[test]
fn compound_refuses_wide_fields_and_adds_nothing_then() {
    let mut b = [0; Compound::len(1, 1)];
    let mut c = Compound::begin(&mut b, true, 7, 0x14d).expect("room");
    assert_eq!(refused(c.set_tcb(&ddp_on(), Some(8))), "cookie");
    let beyond = TcbUpdate {
        word: 32,
        mask: 0,
        value: 0,
    };
    assert_eq!(refused(c.set_tcb(&beyond, None)), "word");
    c.set_tcb(&ddp_on(), None).expect("room");
    c.rx_modulate().expect("room");
    assert_eq!(b.to_vec(), hex(ENABLE));
}

#[test]
fn compound_begin_refuses_a_buffer_that_is_no_work_request() {
    let begin_on =
        |n: usize, tid: u32, rxq: u16| Compound::begin(&mut vec![0; n], true, tid, rxq).map(drop);
    let begin = |n: usize, tid: u32| begin_on(n, tid, 0x3ff);
    for have in 0..16 {
        assert_eq!(begin(have, 0), Err(WireError::Truncated { need: 16, have }));
    }
    assert_eq!(refused(begin(40, 0)), "len");
    assert_eq!(refused(begin(4096, 0)), "len");
    assert_eq!(refused(begin(64, 1 << 20)), "tid");
    assert_eq!(refused(begin_on(64, 7, 0x400)), "queue");
    assert_eq!(begin(4080, (1 << 20) - 1), Ok(()));
}

#[test]
fn compound_truncated_at_every_length() {
    cuts(&hex(ENABLE), |b| parse_compound(b).map(drop));
}

#[test]
fn compound_parse_refuses_another_request_and_an_empty_one() {
    let mut b = hex(ENABLE);
    b[0] = 5;
    assert_eq!(
        parse_compound(&b).map(drop),
        Err(WireError::Opcode { want: 4, have: 5 })
    );
    let mut b = hex(ENABLE);
    b[7] = 0;
    assert_eq!(refused(parse_compound(&b).map(drop)), "len16");
}

#[test]
fn compound_parse_reads_credits_too() {
    let b = hex("04000000 00000003 00000000 00000000
                 04000000 00000002 81000000 00000008
                 0d000009 90012345
                 80000000 00000000");
    let want = RxDataAck {
        tid: 9,
        credits: 0x1_2345,
        force_ack: true,
        dack_change: true,
        ..RxDataAck::default()
    };
    assert_eq!(good(&b), [Inner::RxDataAck(want)]);
}

#[test]
fn compound_parse_ends_at_a_message_that_makes_no_sense() {
    let with = |at: usize, v: u32| {
        let mut b = hex(ENABLE);
        b[at..at + 4].copy_from_slice(&v.to_be_bytes());
        inner(&b)
    };
    let only = |r: Vec<Result<Inner, WireError>>| -> WireError {
        assert_eq!(r.len(), 1, "{r:?}");
        r[0].expect_err("an error")
    };
    // The first packet: its command, its length, its immediate data, its CPL.
    assert_eq!(
        only(with(16, 0x0300_0000)),
        WireError::Opcode { want: 4, have: 3 }
    );
    assert_eq!(
        only(with(20, 0)),
        WireError::Field {
            name: "len16",
            value: 0
        }
    );
    assert_eq!(
        only(with(20, 0x1000_0000)),
        WireError::Field {
            name: "len16",
            value: 1 << 28
        }
    );
    assert_eq!(
        only(with(20, 6)),
        WireError::Truncated { need: 96, have: 80 }
    );
    assert_eq!(
        only(with(24, 0x8000_0000)),
        WireError::Field {
            name: "sc",
            value: 0x8000_0000
        }
    );
    assert_eq!(
        only(with(28, 33)),
        WireError::Truncated { need: 33, have: 32 }
    );
    assert_eq!(
        only(with(28, 32)),
        WireError::Field {
            name: "immdlen",
            value: 32
        }
    );
    assert_eq!(
        only(with(28, 8)),
        WireError::Truncated { need: 24, have: 8 }
    );
    assert_eq!(only(with(28, 0)), WireError::Truncated { need: 1, have: 0 });
    assert_eq!(
        only(with(32, 0x0600_0007)),
        WireError::Opcode { want: 5, have: 6 }
    );
    assert!(matches!(
        only(with(32, 0xff00_0007)),
        WireError::Field { name: "opcode", .. }
    ));
    // The second: the first is still delivered.
    let r = with(64, 0);
    assert_eq!(r.len(), 2);
    assert!(r[0].is_ok() && r[1].is_err());
}

#[test]
fn compound_round_trips() {
    let mut r = Rng::new(0xc0de);
    for round in 0..ROUNDS {
        let (tid, rxq) = (r.bits(20), r.bits(10) as u16);
        let atomic = r.bool();
        let want: Vec<Inner> = (0..r.below(11))
            .map(|_| match r.below(3) {
                0 => modulate(tid),
                which => Inner::SetTcb {
                    tid,
                    update: TcbUpdate {
                        word: r.u8() & 31,
                        mask: r.u64(),
                        value: r.u64(),
                    },
                    reply: (which == 1).then(|| (rxq, r.u8() & 7)),
                },
            })
            .collect();
        let acks = want
            .iter()
            .filter(|m| matches!(m, Inner::RxDataAck(_)))
            .count();
        let mut b = vec![0xa5; Compound::len(want.len() - acks, acks)];
        let mut c = Compound::begin(&mut b, atomic, tid, rxq).expect("room");
        for m in &want {
            match m {
                Inner::SetTcb { update, reply, .. } => {
                    c.set_tcb(update, reply.map(|r| r.1)).expect("room");
                }
                Inner::RxDataAck(_) => c.rx_modulate().expect("room"),
            }
        }
        c.finish().expect("full");
        assert_eq!(parse_compound(&b).map(|p| p.0), Ok(atomic));
        assert_eq!(good(&b), want, "round {round}");
    }
}

#[test]
fn compound_random_bytes_never_panic_and_end() {
    let mut r = Rng::new(0xdead);
    for _ in 0..ROUNDS {
        let mut b = hex(ENABLE);
        r.damage(&mut b);
        if let Ok((_, it)) = parse_compound(&b) {
            assert!(it.count() <= 6, "at most one message in 16 bytes");
        }
        let n = r.below(300);
        let mut b = r.bytes(n);
        if let Some(first) = b.first_mut() {
            *first = 4;
        }
        if let Ok((_, it)) = parse_compound(&b) {
            assert!(it.count() <= 20);
        }
    }
}
