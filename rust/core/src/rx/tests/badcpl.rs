//! What the adapter may not say. Each is refused, and nothing is lost or completed twice.

use super::bench::{Bench, fin};
use crate::done::CardDone;
use crate::errno::Errno;
use crate::fault::BadCpl;
use crate::os::{Counter, Os};
use wire::{CplStatus, DdpReport, DdpVld, RxData, RxDataDdp, RxDdpComplete, SetTcbRpl};

fn posted() -> Bench {
    let mut b = Bench::ddp_on();
    b.read_new(4096);
    b.settle();
    b
}

fn refused(mut b: Bench, r: Result<(), BadCpl>) {
    r.unwrap_err();
    b.check();
    let before = b.os.completed.len();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNABORTED),
        &CardDone::for_test(),
    );
    let mut due = Err(Errno::ECONNABORTED);
    for (_, r) in &b.os.completed[before..] {
        assert_eq!(*r, std::mem::replace(&mut due, Ok(0)));
    }
    b.finish();
}

fn report(b: &mut Bench, idx: u8, inv: bool, n: u32) -> Result<(), BadCpl> {
    let cpl = RxDdpComplete {
        tid: b.sh.id.tid,
        report: DdpReport {
            buf_idx: idx,
            inv,
            ..DdpReport::default()
        },
        rcv_nxt: b.sh.seq.rcv_nxt.wrapping_add(n),
    };
    b.rx.rx_ddp_complete(&mut b.sh, &mut b.os, &cpl)
}

fn data(b: &mut Bench, seq: u32, ddp_off: bool) -> Result<(), BadCpl> {
    let cpl = RxData {
        len: 4,
        seq,
        ddp_off,
        ..RxData::default()
    };
    b.rx.rx_data(&mut b.sh, &mut b.os, &cpl, std::vec![0; 4])
}

#[test]
fn every_ddp_error_bit_is_refused() {
    for bit in 15..28 {
        let vld = DdpVld(1 << bit);
        let mut b = posted();
        let cpl = RxDataDdp {
            len: 10,
            seq: b.sh.seq.rcv_nxt,
            report: DdpReport {
                inv: true,
                ..DdpReport::default()
            },
            ddpvld: vld,
            ..RxDataDdp::default()
        };
        let r = b.rx.rx_data_ddp(&mut b.sh, &mut b.os, &cpl);
        if vld == DdpVld::PDU {
            // No error.
            r.unwrap();
        } else {
            refused(b, r);
        }
    }
}

#[test]
fn report_for_an_empty_buffer() {
    let mut b = posted();
    let r = report(&mut b, 1, true, 10);
    refused(b, r);
    let mut b = Bench::ddp_on();
    let r = report(&mut b, 0, true, 0);
    refused(b, r);
}

#[test]
fn report_for_the_second_buffer_first() {
    let mut b = posted();
    b.read_new(4096);
    b.settle();
    let r = report(&mut b, 1, true, 10);
    refused(b, r);
}

#[test]
fn report_that_leaves_the_buffer_valid() {
    let mut b = posted();
    let r = report(&mut b, 0, false, 10);
    refused(b, r);
}

#[test]
fn report_of_more_than_the_buffer() {
    let mut b = posted();
    let r = report(&mut b, 0, true, 4097);
    refused(b, r);
    let mut b = posted();
    let r = report(&mut b, 0, true, u32::MAX);
    refused(b, r);
    let mut b = posted();
    report(&mut b, 0, true, 4096).unwrap();
    b.finish();
}

#[test]
fn data_out_of_sequence() {
    for (delta, off) in [
        (u32::MAX, false),
        (1, false),
        (4097, true),
        (u32::MAX, true),
    ] {
        let mut b = posted();
        let seq = b.sh.seq.rcv_nxt.wrapping_add(delta);
        let r = data(&mut b, seq, off);
        assert_eq!(b.os.discarded, 4);
        refused(b, r);
    }
}

#[test]
fn data_that_skips_bytes_of_a_buffer_still_being_filled() {
    let mut b = posted();
    let r1 = b.read_new(4096);
    b.settle();
    // Only the second is being taken back.
    assert!(b.cancel(r1.id));
    let seq = b.sh.seq.rcv_nxt.wrapping_add(5);
    let r = data(&mut b, seq, false);
    refused(b, r);
}

#[test]
fn data_after_the_fin() {
    let mut b = Bench::ddp_on();
    b.card.fin();
    b.settle();
    let seq = b.sh.seq.rcv_nxt;
    let r = data(&mut b, seq, true);
    refused(b, r);
}

#[test]
fn fin_out_of_sequence() {
    for delta in [0, 4098, u32::MAX] {
        let mut b = posted();
        let nxt = b.sh.seq.rcv_nxt.wrapping_add(delta);
        let r = b.rx.peer_fin(&mut b.sh, &mut b.os, &fin(nxt));
        refused(b, r);
    }
    let mut b = posted();
    let nxt = b.sh.seq.rcv_nxt.wrapping_add(4097);
    b.rx.peer_fin(&mut b.sh, &mut b.os, &fin(nxt)).unwrap();
    let r =
        b.rx.peer_fin(&mut b.sh, &mut b.os, &fin(nxt.wrapping_add(1)));
    refused(b, r);
}

#[test]
fn reply_to_nothing() {
    for cookie in 0..8 {
        for word in [wire::W_T_FLAGS, wire::W_RX_DDP_BUF0, wire::W_RX_DDP_FLAGS] {
            let mut b = posted();
            let cpl = SetTcbRpl {
                cookie,
                word,
                ..SetTcbRpl::default()
            };
            let r = b.rx.set_tcb_rpl(&mut b.sh, &mut b.os, &cpl);
            refused(b, r);
        }
    }
}

#[test]
fn reply_with_a_failure() {
    let mut b = posted();
    let cpl = SetTcbRpl {
        cookie: 2,
        status: CplStatus(1),
        ..SetTcbRpl::default()
    };
    let r = b.rx.set_tcb_rpl(&mut b.sh, &mut b.os, &cpl);
    refused(b, r);
}

#[test]
fn reply_with_an_offset_outside_of_the_buffer() {
    let mut b = Bench::ddp_on();
    let job = b.read_new(4096);
    b.settle();
    assert!(b.cancel(job.id));
    let cpl = SetTcbRpl {
        cookie: 2,
        word: wire::W_RX_DDP_BUF0,
        oldval: 4097,
        ..SetTcbRpl::default()
    };
    b.rx.set_tcb_rpl(&mut b.sh, &mut b.os, &cpl).unwrap_err();
    b.check();
    b.finish();
}

#[test]
fn reply_that_claims_bytes_in_the_second_buffer_with_the_first_not_full() {
    let mut b = posted();
    let r1 = b.read_new(4096);
    b.settle();
    assert!(b.cancel(r1.id));
    let cpl = SetTcbRpl {
        cookie: 3,
        word: wire::W_RX_DDP_FLAGS,
        oldval: 5 << 40,
        ..SetTcbRpl::default()
    };
    b.rx.set_tcb_rpl(&mut b.sh, &mut b.os, &cpl).unwrap_err();
    b.finish();
}

#[test]
fn random_messages_never_panic() {
    super::bench::seeds(300, |r| {
        let mut b = posted();
        b.read_new(4096);
        b.settle();
        for _ in 0..20 {
            let near = b.sh.seq.rcv_nxt.wrapping_add(r.range(0, 5000) as u32);
            let seq = if r.one_in(3) {
                r.next_u64() as u32
            } else {
                near
            };
            let report = DdpReport::from_bits(r.next_u64() as u32 | 1 << 31);
            let (rx, sh, os) = (&mut b.rx, &mut b.sh, &mut b.os);
            let _ = match r.range(0, 4) {
                0 => rx.rx_data_ddp(
                    sh,
                    os,
                    &RxDataDdp {
                        len: r.range(0, 3000) as u16,
                        seq,
                        report,
                        ddpvld: DdpVld(if r.one_in(2) { 0 } else { r.next_u64() as u32 }),
                        ..RxDataDdp::default()
                    },
                ),
                1 => rx.rx_ddp_complete(
                    sh,
                    os,
                    &RxDdpComplete {
                        report,
                        rcv_nxt: seq,
                        ..RxDdpComplete::default()
                    },
                ),
                2 => {
                    let len = r.range(0, 2000) as u16;
                    let cpl = RxData {
                        len,
                        seq,
                        psh: r.one_in(2),
                        ddp_off: r.one_in(2),
                        ..RxData::default()
                    };
                    rx.rx_data(sh, os, &cpl, std::vec![1; usize::from(len)])
                }
                3 => rx.set_tcb_rpl(
                    sh,
                    os,
                    &SetTcbRpl {
                        word: r.range(0, 31) as u8,
                        cookie: r.range(0, 7) as u8,
                        oldval: r.next_u64(),
                        ..SetTcbRpl::default()
                    },
                ),
                _ if r.one_in(6) => rx.peer_fin(sh, os, &fin(seq)),
                _ => {
                    rx.retry(sh, os);
                    Ok(())
                }
            };
            b.check();
            while b.work() {}
        }
        b.finish();
    });
}

#[test]
fn bad_messages_change_no_counter_of_octets() {
    let mut b = posted();
    let before = b.counter(Counter::RxPlacedOctets);
    report(&mut b, 0, true, 5000).unwrap_err();
    assert_eq!(b.counter(Counter::RxPlacedOctets), before);
    assert_eq!(b.os.rcv_avail(), 0);
    b.finish();
}
