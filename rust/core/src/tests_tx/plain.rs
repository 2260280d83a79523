//! Ordinary bytes of so_snd: work requests, credits, completions (upstream hazards 7 and 11).

use super::fake::{ISS, TID, Wr};
use super::rig::{Rig, init};
use crate::conn::End;
use crate::errno::Errno;
use crate::os::Counter;
use wire::TxAlign;

fn data(r: &Rig) -> std::vec::Vec<(u32, bool, bool, bool)> {
    let f = |w: &Wr| match w {
        Wr::Data {
            plen,
            imm,
            compl,
            shove,
            ..
        } => Some((*plen, *imm, *compl, *shove)),
        _ => None,
    };
    r.os.wrs.iter().filter_map(f).collect()
}

#[test]
fn little_goes_as_immediate_data() {
    for (n, credits) in [(1, 2), (16, 2), (17, 3), (48, 4)] {
        let mut r = Rig::up();
        r.write(n);
        let Some(Wr::Data {
            plen,
            imm,
            credits: c,
            shove,
            compl,
            ..
        }) = r.os.wrs.first()
        else {
            panic!("no data");
        };
        assert_eq!((*plen, *imm, *c), (n, true, credits), "{n}");
        assert!(*shove && !*compl);
    }
}

#[test]
fn more_than_a_descriptor_goes_by_reference() {
    let mut r = Rig::up();
    r.write(49);
    assert_eq!(data(&r), [(49, false, false, true)]);
    assert!(matches!(
        r.os.wrs[0],
        Wr::Data {
            segs: 1,
            credits: 2,
            ..
        }
    ));
}

#[test]
fn no_push_while_more_is_to_come() {
    let mut r = Rig::up();
    r.os.more_to_come = true;
    r.write(100);
    r.os.more_to_come = false;
    r.write(100);
    assert_eq!(
        data(&r),
        [(100, false, false, false), (100, false, false, true)]
    );
}

#[test]
fn nothing_to_send_sends_nothing() {
    let mut r = Rig::up();
    r.output();
    r.os.append(10, false);
    r.output();
    assert!(r.os.wrs.is_empty());
}

#[test]
fn what_is_not_ready_waits_and_keeps_its_place() {
    let mut r = Rig::up();
    r.os.append(100, true);
    r.os.append(70, false);
    r.os.append(60, true);
    r.output();
    assert_eq!(data(&r), [(100, false, false, true)]);
    r.os.make_ready();
    r.output();
    assert_eq!(data(&r)[1..], [(130, false, false, true)]);
}

#[test]
fn a_work_request_takes_41_segments() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 4 << 20;
    r.write(41 * 2048 + 5);
    assert!(matches!(
        r.os.wrs[0],
        Wr::Data {
            segs: 41,
            credits: 32,
            plen: 83968,
            ..
        }
    ));
    assert_eq!(data(&r).last().map(|d| (d.0, d.3)), Some((5, true)));
    assert!(!data(&r)[0].3, "no push in the middle");
}

#[test]
fn a_work_request_takes_a_quarter_of_so_snd() {
    let mut r = Rig::up();
    r.os.hiwat = 160 * 1024;
    r.write(150_000);
    assert!(data(&r).iter().all(|d| d.0 <= 40 * 1024), "{:?}", data(&r));
    let mut r = Rig::up();
    r.os.hiwat = 40 * 1024;
    r.write(40 * 1024);
    assert_eq!(data(&r)[0].0, 32 * 1024, "but not crumbs");
}

#[test]
fn few_credits_cut_the_list() {
    // 10 usable credits: one request of 10 has 16 + 16 + 5 * 24 = 152 bytes, 11 segments.
    let mut r = Rig::with_credits(12);
    r.write(100_000);
    assert!(matches!(
        r.os.wrs[0],
        Wr::Data {
            segs: 11,
            credits: 10,
            ..
        }
    ));
    assert_eq!(r.os.wrs.len(), 1);
    r.output();
    assert_eq!(r.os.wrs.len(), 1, "suspended");
    r.ack(1);
    assert_eq!(r.os.wrs.len(), 2);
}

#[test]
fn three_credits_left_still_send() {
    let mut r = Rig::with_credits(9);
    // 7 usable: 4 for immediate data, then 3.
    r.write(48);
    r.write(100);
    r.write(100);
    assert_eq!(
        data(&r),
        [(48, true, false, true), (100, false, true, true)]
    );
    r.ack(1);
    assert_eq!(data(&r).len(), 3);
}

#[test]
fn a_work_request_takes_a_sixth_of_the_credits() {
    // 126 usable: 21 of them are 26 segments. Six go out, then there is none left.
    let mut r = Rig::with_credits(128);
    r.os.hiwat = 4 << 20;
    r.write(1 << 20);
    let wrs: std::vec::Vec<_> = (r.os.wrs.iter())
        .map(|w| match w {
            Wr::Data { segs, credits, .. } => (*segs, *credits),
            _ => (0, 0),
        })
        .collect();
    assert_eq!(wrs, [(26, 21); 6]);
}

#[test]
fn a_remainder_of_credits_waits_for_more() {
    // 58 usable: 16, 16, 16 and 10 that would carry 11 segments where 16 carry 19.
    let mut r = Rig::with_credits(60);
    r.os.hiwat = 4 << 20;
    r.write(1 << 20);
    assert_eq!(r.os.outstanding(), 3);
    r.ack(1);
    assert_eq!(r.os.outstanding(), 3, "16 of 26 are used");
    // What is short anyway goes with what there is.
    let mut r = Rig::with_credits(60);
    r.os.hiwat = 4 << 20;
    r.write(48 * 2048 + 20 * 2048);
    assert_eq!(r.os.outstanding(), 4);
}

#[test]
fn resumes_with_a_few() {
    let mut r = Rig::with_credits(66);
    r.os.hiwat = 1 << 20;
    let mut sent = 0;
    while sent < 32 {
        r.write(64);
        sent += 1;
    }
    assert_eq!(r.os.outstanding(), 32);
    r.write(64);
    assert_eq!(r.os.wrs.len(), 32, "64 credits are out");
    r.ack(1);
    assert_eq!(r.os.wrs.len(), 32, "2 of 64 are back");
    r.output();
    assert_eq!(r.os.wrs.len(), 32);
    r.ack(1);
    assert_eq!(r.os.wrs.len(), 33);
}

#[test]
fn acknowledged_bytes_leave_so_snd() {
    let mut r = Rig::up();
    r.write(1000);
    r.write(2000);
    assert_eq!(r.os.used(), 3000);
    assert_eq!(r.os.seq.snd_nxt, ISS.wrapping_add(3000));
    r.ack(1);
    assert_eq!(r.os.used(), 2000);
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(1000));
    r.ack(1);
    assert_eq!(r.os.used(), 0);
    assert_eq!(r.os.seq.snd_una, r.os.seq.snd_nxt);
}

#[test]
fn sequence_numbers_wrap() {
    let mut r = Rig::up();
    for _ in 0..20 {
        r.write(3000);
        r.ack(1);
    }
    assert!(ISS.checked_add(60_000).is_none(), "wraps");
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(60_000));
    assert_eq!(r.os.counter(Counter::BadCpl), 0);
}

#[test]
fn credits_without_sequence_numbers() {
    let mut r = Rig::up();
    r.write(1000);
    let mut a = r.os.ack(1);
    a.seq_vld = false;
    a.snd_una = 0xdead_beef;
    r.fw4_ack(a);
    assert_eq!(r.os.used(), 0);
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(1000));
}

#[test]
fn sequence_numbers_ahead_of_credits() {
    let mut r = Rig::up();
    r.write(1000);
    r.write(500);
    let a = wire::Fw4Ack {
        tid: TID,
        credits: 0,
        seq_vld: true,
        snd_nxt: 0,
        snd_una: ISS.wrapping_add(1300),
    };
    r.fw4_ack(a);
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(1300));
    assert_eq!(r.os.used(), 1500, "bytes go with credits");
    // An old one changes nothing.
    r.fw4_ack(wire::Fw4Ack {
        snd_una: ISS.wrapping_sub(5),
        ..a
    });
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(1300));
    r.ack(1);
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(1300));
    assert_eq!(r.os.counter(Counter::BadCpl), 0);
}

#[test]
fn acknowledging_the_unsent_is_nonsense() {
    let mut r = Rig::up();
    r.write(1000);
    let a = wire::Fw4Ack {
        tid: TID,
        credits: 0,
        seq_vld: true,
        snd_nxt: 0,
        snd_una: ISS.wrapping_add(1001),
    };
    r.fw4_ack(a);
    let why = "CPL_FW4_ACK acknowledges what was not sent";
    assert_eq!(r.os.complaints, [(TID, why)]);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn the_fin_may_be_acknowledged_in_numbers() {
    let mut r = Rig::up();
    r.write(1000);
    r.shutdown();
    let mut a = r.os.ack(2);
    a.snd_una = a.snd_una.wrapping_add(1);
    r.fw4_ack(a);
    assert_eq!(r.os.seq.snd_una, ISS.wrapping_add(1000));
    assert_eq!(r.os.counter(Counter::BadCpl), 0);
    r.close_con_rpl();
    r.peer_close();
    r.nothing_left();
}

#[test]
fn credits_that_are_not_out_are_nonsense() {
    for extra in [1u8, 200] {
        let mut r = Rig::up();
        r.write(1000);
        let mut a = r.os.ack(1);
        a.credits += extra;
        r.fw4_ack(a);
        assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)], "{extra}");
        assert_eq!(r.os.counter(Counter::BadCpl), 1);
        r.abort_rpl();
        assert_eq!(r.finals, 1);
    }
}

#[test]
fn part_of_the_credits_is_nonsense() {
    let mut r = Rig::up();
    r.write(1000);
    let mut a = r.os.ack(1);
    a.credits -= 1;
    r.fw4_ack(a);
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    assert_eq!(r.ends.len(), 1);
}

#[test]
fn credits_come_back_many_at_once() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 4 << 20;
    for _ in 0..100 {
        r.write(200);
    }
    assert_eq!(r.os.outstanding(), 100);
    r.ack(100);
    assert_eq!(r.os.outstanding(), 0);
    assert_eq!(r.os.used(), 0);
    // The ring has wrapped.
    for _ in 0..100 {
        r.write(200);
    }
    r.ack(60);
    assert_eq!(r.os.used(), 8000);
}

#[test]
fn completions_are_asked_for_as_so_snd_fills() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 64 * 1024;
    for _ in 0..16 {
        r.write(4096);
    }
    let asked: std::vec::Vec<usize> = data(&r)
        .iter()
        .enumerate()
        .filter(|(_, d)| d.2)
        .map(|(i, _)| i)
        .collect();
    // Over 40 KB used from the 11th on, and 16 KB unreported.
    assert_eq!(asked, [10, 14]);
}

#[test]
fn a_full_so_snd_always_has_a_completion_to_come() {
    // Whatever the sizes: a writer that waits for room will be woken.
    super::rng::seeds(150, |seed| {
        let mut g = super::rng::Rng::new(seed);
        let mut r = Rig::with_credits(g.range(60, 255) as u16);
        r.os.hiwat = g.range(4096, 300_000) as u32;
        while r.os.used() < r.os.hiwat {
            let room = u64::from(r.os.hiwat - r.os.used());
            r.write(g.range(1, 20_000).min(room) as u32);
        }
        if data(&r).iter().any(|d| d.2) {
            Ok(())
        } else {
            Err(std::format!("hiwat {}: {:?}", r.os.hiwat, data(&r)))
        }
    });
}

#[test]
fn no_work_request_now() {
    let mut r = Rig::up();
    r.os.no_wr = 2;
    r.write(5000);
    assert!(r.os.wrs.is_empty());
    assert_eq!(r.os.retries, 1);
    assert_eq!(r.os.counter(Counter::NoWr), 1);
    r.write(6000);
    assert!(r.os.wrs.is_empty());
    r.retry();
    assert_eq!(data(&r).iter().map(|d| d.0).sum::<u32>(), 11_000);
    r.ack_all();
    assert_eq!(r.os.used(), 0);
}

#[test]
fn so_snd_grows_by_itself() {
    let mut r = Rig::up();
    r.os.hiwat = 32768;
    r.os.auto_max = 65536;
    r.write(32000);
    assert_eq!(r.os.hiwat, 32768 + 8192);
    r.write(100);
    assert_eq!(r.os.hiwat, 32768 + 8192, "7/8 again first");
}

#[test]
fn the_fin_waits_for_credits() {
    // Sixteen, of which five requests of three credits leave one.
    let mut r = Rig::with_credits(18);
    for _ in 0..5 {
        r.write(17);
    }
    let fins = |r: &Rig| r.count(|w| matches!(w, Wr::Close));
    r.shutdown();
    assert_eq!(fins(&r), 0);
    r.ack(1);
    assert_eq!(fins(&r), 1);
}

#[test]
fn an_abort_waits_for_the_flowc() {
    let mut r = Rig::fresh();
    r.os.no_wr = 3;
    r.establish(66);
    r.drop_now();
    assert_eq!(r.os.wrs, []);
    r.retry();
    assert_eq!(r.os.wrs, [], "nor then");
    r.retry();
    assert!(matches!(r.os.wrs[..], [Wr::Flowc(_), Wr::AbortReq { .. }]));
    r.abort_rpl();
    r.nothing_left();
}

/// How the work requests for two segments and for a byte less are cut, then those for two when
/// TCP_NODELAY has changed.
fn aligns(tx_align: bool, nagle: bool) -> std::vec::Vec<TxAlign> {
    let mut r = Rig::fresh();
    let mut i = init(66);
    i.tx.tx_align = tx_align;
    i.tx.nagle = nagle;
    let o = r.conn.established(&mut r.os, &i);
    r.follow(o);
    r.write(2 * 1448);
    r.write(2 * 1448 - 1);
    r.conn.set_nagle(!nagle);
    r.write(2 * 1448);
    let data = r.os.wrs.iter().filter_map(|w| match w {
        Wr::Data { align, .. } => Some(*align),
        _ => None,
    });
    data.collect()
}

#[test]
fn whole_segments_are_aligned_where_asked() {
    use TxAlign::{Any, NoLso, Whole, WholeShove};
    assert_eq!(aligns(true, true), [WholeShove, NoLso, Whole]);
    assert_eq!(aligns(true, false), [Whole, NoLso, WholeShove]);
    assert_eq!(aligns(false, true), [Any; 3]);
    assert_eq!(aligns(false, false), [Any; 3]);
}

#[test]
fn octets_are_counted_as_plain() {
    let mut r = Rig::up();
    r.write(70);
    r.write(30);
    assert_eq!(r.os.counter(Counter::TxPlainOctets), 100);
    assert_eq!(r.os.counter(Counter::TxZcopyOctets), 0);
    // FLOWC and two of data.
    assert_eq!(r.os.counter(Counter::Wrs), 3);
}

#[test]
fn any_stream_comes_out_whole() {
    super::rng::seeds(150, |seed| {
        let mut g = super::rng::Rng::new(seed);
        let mut r = Rig::with_credits(g.range(12, 255) as u16);
        r.os.hiwat = g.range(2000, 400_000) as u32;
        r.os.auto_max = if g.one_in(2) { 1 << 20 } else { 0 };
        let mut total = 0u64;
        for _ in 0..150 {
            match g.below(6) {
                0..3 => {
                    let n = g.range(1, 60_000) as u32;
                    r.os.append(n, true);
                    total += u64::from(n);
                    r.os.more_to_come = g.one_in(4);
                    r.conn.output(&mut r.os);
                }
                3 => r.os.no_wr = g.below(3) as u32,
                4 => {
                    let o = r.conn.retry(&mut r.os);
                    r.follow(o);
                }
                _ => r.ack(g.range(1, 5) as usize),
            }
            r.try_check()?;
        }
        r.os.no_wr = 0;
        r.retry();
        r.ack_all();
        let sent: u64 = data(&r).iter().map(|d| u64::from(d.0)).sum();
        if sent != total || r.os.used() != 0 {
            return Err(std::format!("sent {sent} of {total}, {} left", r.os.used()));
        }
        Ok(())
    });
}
