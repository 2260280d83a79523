//! Credits and the txsd ring (upstream hazard 11).

use std::collections::VecDeque;
use std::format;

use super::rng::{Rng, seeds};
use crate::txcredits::{ABORT_CREDITS, BadCredits, MAX_PLEN, MAX_WR_CREDITS, RING, TxCredits};

/// Those of a connection that was granted so many.
fn credits(wr_cred: u16) -> TxCredits<[u32; RING]> {
    let mut c = TxCredits::new([0; RING]);
    c.grant(wr_cred);
    c
}

#[test]
fn one_abort_is_set_aside() {
    let c = credits(60);
    assert_eq!(c.total(), 60 - ABORT_CREDITS);
    assert_eq!(c.avail(), 58);
}

#[test]
fn more_than_a_byte_of_credits_is_not_used() {
    assert_eq!(credits(1000).total(), 253);
    assert_eq!(credits(1).total(), 0);
}

#[test]
fn take_and_give_back_in_order() {
    let mut c = credits(60);
    c.take(5, 0, false).unwrap();
    c.take(2, 100, false).unwrap();
    c.take(32, 64000, true).unwrap();
    assert_eq!(c.avail(), 58 - 39);
    assert_eq!(c.in_flight(), 64100);
    assert_eq!(c.outstanding(), 3);
    assert_eq!(c.give_back(7), Ok(100));
    assert_eq!(c.in_flight(), 64000);
    assert_eq!(c.give_back(32), Ok(64000));
    assert_eq!((c.avail(), c.outstanding()), (58, 0));
    c.check().unwrap();
}

#[test]
fn part_of_a_request_is_refused_and_changes_nothing() {
    let mut c = credits(60);
    c.take(5, 50, false).unwrap();
    c.take(5, 51, false).unwrap();
    let before = (c.avail(), c.in_flight(), c.outstanding());
    for n in [1, 4, 6, 9] {
        assert_eq!(c.give_back(n), Err(BadCredits), "{n}");
        assert_eq!((c.avail(), c.in_flight(), c.outstanding()), before);
    }
    assert_eq!(c.give_back(10), Ok(101));
}

#[test]
fn more_than_is_out_is_refused() {
    let mut c = credits(60);
    assert_eq!(c.give_back(1), Err(BadCredits));
    c.take(5, 50, false).unwrap();
    assert_eq!(c.give_back(255), Err(BadCredits));
    assert_eq!(c.give_back(0), Ok(0));
    assert_eq!(c.give_back(5), Ok(50));
    assert_eq!(c.give_back(5), Err(BadCredits));
}

#[test]
fn a_request_must_fit() {
    let mut c = credits(12);
    assert_eq!(c.take(0, 0, false), Err(BadCredits));
    assert_eq!(c.take(11, 0, false), Err(BadCredits));
    assert_eq!(c.take(2, MAX_PLEN + 1, false), Err(BadCredits));
    assert_eq!(c.take(2, MAX_PLEN, false), Ok(()));
    assert_eq!(c.give_back(2), Ok(MAX_PLEN));
    let mut c = credits(255);
    assert_eq!(c.take(MAX_WR_CREDITS + 1, 0, false), Err(BadCredits));
    assert_eq!(c.take(MAX_WR_CREDITS, 0, false), Ok(()));
}

#[test]
fn completion_is_asked_for_at_three_eighths() {
    // 62 usable. 3/8 is 23.25: not before 39 are out and a sixteenth (4) of them silently.
    let mut c = credits(64);
    let mut asked = 0;
    for n in 0..31u16 {
        let compl = c.wants_compl(2);
        let left = 62 - 2 * (n + 1);
        assert_eq!(
            compl,
            left * 8 <= 62 * 3 && c_silent(n, asked) * 16 >= 62,
            "{n}"
        );
        c.take(2, 1, compl).unwrap();
        if compl {
            asked = n + 1;
        }
    }
    assert!(asked > 0);
    // Credits of requests since `asked`, with this one.
    fn c_silent(n: u16, asked: u16) -> u16 {
        2 * (n + 1 - asked)
    }
}

#[test]
fn returned_credits_are_not_silent_any_more() {
    let mut c = credits(66);
    for _ in 0..20 {
        c.take(2, 10, false).unwrap();
    }
    c.give_back(40).unwrap();
    assert_eq!(c.plen_nocompl(), 0);
    // All are back: one request is far from a quarter.
    assert!(!c.wants_compl(2));
}

#[test]
fn suspended_means_a_completion_is_due() {
    // However credits are used up, some outstanding request asks for a completion: otherwise
    // nothing would ever resume.
    seeds(300, |seed| {
        let mut r = Rng::new(seed);
        let wr_cred = r.range(40, 255) as u16;
        let mut c = credits(wr_cred);
        let mut any = false;
        loop {
            let n = r.range(2, 32).min(u64::from(c.avail())) as u8;
            if n < 2 || !c.can_take(n) {
                break;
            }
            let compl = c.wants_compl(n);
            any |= compl;
            c.take(n, 1, compl).map_err(|_| "take")?;
        }
        if !any {
            return Err(format!("{wr_cred} credits, stuck at {}", c.avail()));
        }
        Ok(())
    });
}

#[test]
fn forget_makes_all_available() {
    let mut c = credits(60);
    c.take(5, 500, true).unwrap();
    c.take(7, 600, false).unwrap();
    assert_eq!(c.forget(), 1100);
    assert_eq!((c.avail(), c.total(), c.in_flight()), (58, 58, 0));
    c.check().unwrap();
    assert_eq!(c.give_back(5), Err(BadCredits));
}

#[test]
fn ring_against_a_queue() {
    seeds(200, |seed| {
        let mut r = Rng::new(seed);
        let total = r.range(8, 253) as u16;
        let mut c = credits(total + ABORT_CREDITS);
        let mut model: VecDeque<(u8, u32)> = VecDeque::new();
        for step in 0..800 {
            let out: u16 = model.iter().map(|m| u16::from(m.0)).sum();
            if r.one_in(2) {
                let credits = r.range(1, 33) as u8;
                let plen = r.below(1 << 27) as u32;
                let fits = credits <= 32 && plen <= MAX_PLEN && u16::from(credits) + out <= total;
                let fits = fits && model.len() < 128;
                let got = c.take(credits, plen, r.one_in(3)).is_ok();
                if got != fits {
                    return Err(format!("step {step}: take({credits}, {plen}) {got}"));
                }
                if got {
                    model.push_back((credits, plen));
                }
            } else {
                let k = r.below(4).min(model.len() as u64) as usize;
                let sum: u32 = model.iter().take(k).map(|m| u32::from(m.0)).sum();
                let ask = if r.one_in(4) {
                    r.below(256) as u32
                } else {
                    sum
                };
                // Does `ask` stand at the end of a request?
                let (mut acc, mut n, mut plen) = (0u32, 0, 0u32);
                while acc < ask && n < model.len() {
                    acc += u32::from(model[n].0);
                    plen += model[n].1;
                    n += 1;
                }
                let want = if acc == ask {
                    Ok(plen)
                } else {
                    Err(BadCredits)
                };
                let Ok(ask) = u8::try_from(ask) else { continue };
                let got = c.give_back(ask);
                if got != want {
                    return Err(format!(
                        "step {step}: give_back({ask}) {got:?}, not {want:?}"
                    ));
                }
                if got.is_ok() {
                    model.drain(..n);
                }
            }
            c.check()?;
            if c.outstanding() != model.len() {
                return Err(format!("step {step}: outstanding"));
            }
        }
        Ok(())
    });
}
