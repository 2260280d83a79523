use crate::rig::*;
use t5sim::{Config, TxQueue, WrError};

struct Rnd(u64);
impl Rnd {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn wrs(r: &Rig, tid: u32) -> Vec<Vec<u8>> {
    let mut v = vec![
        r.imm_wr(tid, &[7; 40], true, true),
        r.sgl_wr(
            tid,
            &[(MEM_BASE, 1000), (MEM_BASE + 5000, 20), (MEM_BASE, 3)],
            true,
            false,
        ),
    ];
    let mut wr = vec![0; wire::ulptx::Compound::len(3, 1)];
    let mut c = wire::ulptx::Compound::begin(&mut wr, true, tid, RXQ_B).unwrap();
    for u in wire::tcb::arm(wire::DdpBuf::B0, 0, 0, 5000, true, false) {
        c.set_tcb(&u, Some(2)).unwrap();
    }
    c.rx_modulate().unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::UlpTxMemWrite::len(4)];
    let pod = wire::PagePod {
        valid: true,
        tid,
        len: 9000,
        ..wire::PagePod::default()
    };
    wire::UlpTxMemWrite {
        addr: 0,
        pods: [pod; 4],
        count: 4,
    }
    .emit(r.chip, &mut wr)
    .unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::Flowc::len(2)];
    let params = [(wire::FlowcParam::IqId, 5), (wire::FlowcParam::SndNxt, 5)];
    wire::Flowc {
        tid,
        params: &params,
    }
    .emit(&mut wr)
    .unwrap();
    v.push(wr);
    let (opt0, opt2) = r.opts(&Opts::default(), RXQ_A, 8, 0);
    let mut wr = vec![0; wire::ActOpenReq::len(r.chip)];
    let atid = wire::QidTid {
        tid: 5,
        cookie: 1,
        qid: RXQ_A,
    };
    let m = wire::ActOpenReq {
        atid,
        opt0,
        opt2,
        peer_port: 80,
        ..Default::default()
    };
    m.emit(&mut wr, r.chip).unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::PassAcceptRpl::len(r.chip)];
    wire::PassAcceptRpl {
        tid,
        opt0,
        opt2,
        iss: 1,
        opt3: 0,
    }
    .emit(&mut wr, r.chip)
    .unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::CloseConReq::LEN];
    wire::CloseConReq { tid }.emit(&mut wr).unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::RxDataAck::LEN];
    wire::RxDataAck {
        tid,
        credits: 5000,
        ..Default::default()
    }
    .emit(&mut wr)
    .unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::AbortReq::LEN];
    let cmd = wire::AbortCmd::SEND_RST;
    wire::AbortReq {
        tid,
        rsvd0: 0,
        rsvd1: 0,
        cmd,
    }
    .emit(&mut wr)
    .unwrap();
    v.push(wr);
    let mut wr = vec![0; wire::TidRelease::LEN];
    wire::TidRelease { tid }.emit(&mut wr).unwrap();
    v.push(wr);
    v
}

#[test]
fn bad_lengths_are_refused() {
    let mut r = Rig::new(Config::default());
    for n in [0, 8, 17, 528, 4096] {
        assert!(
            matches!(r.card.submit(0, OFLD, &vec![0; n]), Err(WrError::Length(_))),
            "{n}"
        );
    }
    assert_eq!(r.card.stats().wr_refused, 5);
}

#[test]
fn unknown_opcodes_are_refused() {
    let mut r = Rig::new(Config::default());
    let mut wr = [0; 32];
    wr[7] = 2;
    wr[0] = 0x7f;
    assert_eq!(r.card.submit(0, OFLD, &wr), Err(WrError::Opcode(0x7f)));
    wr[0] = wire::WrOp::Tp.code();
    wr[16] = 0xee;
    assert_eq!(r.card.submit(0, OFLD, &wr), Err(WrError::Opcode(0xee)));
    // A CPL the card sends but does not take.
    wr[16] = wire::Opcode::RxData.code();
    assert_eq!(r.card.submit(0, OFLD, &wr), Err(WrError::Opcode(0x39)));
}

#[test]
fn data_on_a_control_queue_is_refused() {
    let mut r = Rig::new(Config::default());
    let wr = r.imm_wr(0, b"x", true, true);
    assert_eq!(r.card.submit(0, TxQueue::Ctrl(0), &wr), Err(WrError::Queue));
}

#[test]
fn lengths_that_disagree_are_refused() {
    let mut r = Rig::new(Config::default());
    // len16 of the header.
    let mut wr = r.imm_wr(0, &[1; 40], true, true);
    wr[7] = 1;
    assert_eq!(r.card.submit(0, OFLD, &wr), Err(WrError::Length(16)));
    // plen against the SGL.
    let mut wr = r.sgl_wr(0, &[(MEM_BASE, 1000)], true, true);
    wr[11] ^= 1;
    assert!(matches!(
        r.card.submit(0, OFLD, &wr),
        Err(WrError::Malformed(_))
    ));
    // plen against the immediate data.
    let mut wr = r.imm_wr(0, &[1; 40], true, true);
    wr[11] = 41;
    assert!(matches!(
        r.card.submit(0, OFLD, &wr),
        Err(WrError::Malformed(_))
    ));
    // Immediate data longer than the request.
    let mut wr = r.imm_wr(0, &[1; 40], true, true);
    wr[3] = 200;
    wr[11] = 200;
    assert!(matches!(
        r.card.submit(0, OFLD, &wr),
        Err(WrError::Malformed(_))
    ));
    assert_eq!(r.card.stats().wr_refused, 4);
    assert!(r.card.next_event().is_none());
}

#[test]
fn requests_for_no_connection_do_no_harm() {
    let mut r = Rig::new(Config::default());
    for tid in [0, 5, 1023, 1024, 0xf_ffff] {
        for wr in wrs(&r, tid) {
            let _ = r.card.submit(r.now, OFLD, &wr);
            let _ = r.card.submit(r.now, CTRL, &wr);
        }
        r.idle();
    }
    assert!(r.card.stats().host_errors > 0);
    assert_eq!(r.b.writes, 0);
}

/// Submits and runs; never panics, and the card's invariants hold after each step.
fn survive(r: &mut Rig, q: TxQueue, wr: &[u8]) {
    let _ = r.card.submit(r.now, q, wr);
    for _ in 0..20 {
        let Some(at) = r.card.next_event() else { break };
        if at > r.now + 200_000 {
            break;
        }
        r.now = r.now.max(at);
        r.card.advance(r.now, &mut r.b);
        r.b.new.clear();
        r.card.check().unwrap();
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut x = Rnd(0x1234_5678_9abc_def1);
    let mut r = Rig::new(Config {
        ntids: 16,
        ..Config::default()
    });
    r.connect_ddp();
    for _ in 0..20_000 {
        let n = (x.next() % 33) as usize * 16;
        let mut wr: Vec<u8> = (0..n).map(|_| x.next() as u8).collect();
        if n > 16 {
            // Most would fail at the first byte: let them get further.
            wr[0] = [4, 5, 0x0a, 0x0b][(x.next() % 4) as usize];
            wr[7] = (n / 16) as u8;
            wr[4..7].copy_from_slice(&[0, 0, (x.next() % 4) as u8]);
            if x.next().is_multiple_of(2) {
                wr[16] = (x.next() % 0x20) as u8;
            }
        }
        let q = if x.next().is_multiple_of(2) {
            CTRL
        } else {
            OFLD
        };
        survive(&mut r, q, &wr);
    }
    assert!(r.card.stats().wr_refused > 1_000);
}

#[test]
fn flipped_bits_in_good_requests_never_panic() {
    let mut x = Rnd(0xfeed_beef_1234_5677);
    for round in 0..60 {
        let mut r = Rig::new(Config {
            seed: round,
            ntids: 16,
            ..Config::default()
        });
        let (a, b) = r.connect_ddp();
        for _ in 0..200 {
            let tid = if x.next().is_multiple_of(2) { a } else { b };
            let all = wrs(&r, tid);
            let mut wr = all[(x.next() as usize) % all.len()].clone();
            for _ in 0..x.next() % 6 {
                let bit = x.next() as usize % (wr.len() * 8);
                wr[bit / 8] ^= 1 << (bit % 8);
            }
            let q = if x.next().is_multiple_of(2) {
                CTRL
            } else {
                OFLD
            };
            survive(&mut r, q, &wr);
        }
    }
}

#[test]
fn a_huge_work_request_does_not_break_the_sums() {
    let mut r = Rig::new(Config::default());
    let (a, _) = r.connect();
    // Four segments of 1 GiB; only the start of the first is memory.
    let segs = [(MEM_BASE, 1 << 30); 3];
    let wr = r.sgl_wr(a, &segs, true, true);
    r.queue_wr(a, wr, 3 << 30);
    r.run_while("fault", |r| r.recv[&a].abort.is_none());
    assert_eq!(r.card.stats().dma_faults, 1);
}
