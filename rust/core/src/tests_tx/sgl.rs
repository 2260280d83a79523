//! Scatter lists and the sizes derived from them.

use std::format;
use std::vec::Vec;

use super::rng::{Rng, seeds};
use crate::sgl::{MAX_SEGS, Sgl};
use crate::tx::{max_dsgl_nsegs, max_imm_payload};

#[test]
fn adjacent_runs_become_one() {
    let mut s = Sgl::new(41);
    assert_eq!(s.push(0x1000, 0x1000), 0x1000);
    assert_eq!(s.push(0x2000, 0x800), 0x800);
    assert_eq!(s.push(0x2800, 1), 1);
    assert_eq!(s.push(0x5000, 7), 7);
    assert_eq!(s.segs(), [(0x1000, 0x1801), (0x5000, 7)]);
    assert_eq!(s.len(), 0x1808);
}

#[test]
fn runs_that_touch_the_other_way_round_stay_apart() {
    let mut s = Sgl::new(41);
    s.push(0x2000, 0x1000);
    s.push(0x1000, 0x1000);
    assert_eq!(s.segs().len(), 2);
}

#[test]
fn a_full_list_still_merges() {
    let mut s = Sgl::new(1);
    assert_eq!(s.push(0x1000, 16), 16);
    assert!(s.is_full());
    assert_eq!(s.push(0x3000, 16), 0);
    assert_eq!(s.push(0x1010, 16), 16);
    assert_eq!(s.segs(), [(0x1000, 32)]);
}

#[test]
fn no_more_than_a_work_request_holds() {
    let mut s = Sgl::new(1000);
    for i in 0..MAX_SEGS as u64 {
        assert_eq!(s.push(i * 0x2000, 1), 1);
    }
    assert_eq!(s.push(0x100_0000, 1), 0);
    assert_eq!(s.segs().len(), 41);
    let mut none = Sgl::new(0);
    assert_eq!(none.push(1, 1), 0);
    assert!(none.is_empty());
}

#[test]
fn nothing_and_too_much_are_not_taken() {
    let mut s = Sgl::new(41);
    assert_eq!(s.push(0x1000, 0), 0);
    assert!(s.segs().is_empty());
    assert_eq!(s.push(0x1000, u32::MAX), u32::MAX);
    assert_eq!(s.push(0x9000_0000_0000, 1), 0);
    // The end of the address space does not wrap into a merge.
    let mut s = Sgl::new(41);
    s.push(u64::MAX - 3, 4);
    s.push(0, 4);
    assert_eq!(s.segs().len(), 2);
}

#[test]
fn against_a_byte_map() {
    seeds(300, |seed| {
        let mut r = Rng::new(seed);
        let cap = r.range(0, 45) as usize;
        let mut s = Sgl::new(cap);
        let mut bytes: Vec<u64> = Vec::new();
        for _ in 0..60 {
            let addr = if r.one_in(2) {
                bytes.last().map_or(64, |b| b + 1)
            } else {
                r.below(1 << 16)
            };
            let len = r.below(40) as u32;
            let n = s.push(addr, len);
            if n != 0 && n != len {
                return Err(format!("took {n} of {len}"));
            }
            bytes.extend((0..u64::from(n)).map(|i| addr + i));
        }
        let mut out = Vec::new();
        for (a, l) in s.segs() {
            out.extend((0..u64::from(*l)).map(|i| a + i));
        }
        if out != bytes || s.len() as usize != bytes.len() {
            return Err("bytes differ".into());
        }
        let splits = bytes.windows(2).filter(|w| w[1] != w[0] + 1).count();
        let want = if bytes.is_empty() { 0 } else { splits + 1 };
        if s.segs().len() != want || want > cap.min(41) {
            return Err(format!(
                "{} segments, {want} wanted, {cap} allowed",
                s.segs().len()
            ));
        }
        Ok(())
    });
}

#[test]
fn segments_for_credits_are_the_most_that_fit() {
    for credits in 0..=40u8 {
        let room = usize::from(credits.min(32)) * 16;
        let best = (1..=41)
            .take_while(|n| 16 + wire::dsgl_len(*n) <= room)
            .last()
            .unwrap_or(0);
        assert_eq!(max_dsgl_nsegs(credits), best, "{credits}");
    }
    assert_eq!(max_dsgl_nsegs(32), 41);
    assert_eq!(max_dsgl_nsegs(2), 1);
    assert_eq!(max_dsgl_nsegs(1), 0);
}

#[test]
fn immediate_payload_is_one_descriptor_at_most() {
    assert_eq!(max_imm_payload(0), 0);
    assert_eq!(max_imm_payload(1), 0);
    assert_eq!(max_imm_payload(2), 16);
    assert_eq!(max_imm_payload(3), 32);
    assert_eq!(max_imm_payload(4), 48);
    assert_eq!(max_imm_payload(32), 48);
}
