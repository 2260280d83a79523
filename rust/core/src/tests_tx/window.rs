//! The window of write jobs: how far past so_snd's high-water mark they go, and when it grows.

use std::vec;
use std::vec::Vec;

use super::aio::{ADDR, ended, sent};
use super::fake::Wr;
use super::rig::{Rig, init};
use crate::aiotx::MAX_WND;
use wire::FlowcParam as P;

const K: u32 = 1024;

/// A connection with so much so_snd and this window.
fn rig(credits: u16, hiwat: u32, wnd: u32, max: u32) -> Rig {
    let mut r = Rig::with_credits(credits);
    r.os.hiwat = hiwat;
    r.window(wnd, max);
    r
}

/// Values of SNDBUF that the adapter was told.
fn sndbufs(r: &Rig) -> Vec<u32> {
    let flowcs = r.os.wrs.iter().filter_map(|w| match w {
        Wr::Flowc(p) => p.iter().find(|(p, _)| *p == P::SndBuf).map(|(_, v)| *v),
        _ => None,
    });
    flowcs.collect()
}

#[test]
fn jobs_go_past_the_high_water_mark_to_the_window() {
    let mut r = rig(255, 16 * K, 128 * K, 128 * K);
    r.aio(1, ADDR, 1 << 20);
    r.work();
    assert_eq!(r.os.used(), 128 * K);
    let kept = u64::from(128 * K) - sent(&r);
    assert!(
        kept <= u64::from(crate::tx::PAGE),
        "kept back for the push: {kept}"
    );
    while ended(&r, 1).is_none() {
        r.ack(1);
        assert!(r.os.used() <= 128 * K);
    }
    assert_eq!(ended(&r, 1), Some(Ok(1 << 20)));
}

#[test]
fn a_large_so_snd_needs_no_window() {
    let mut r = rig(255, 512 * K, 64 * K, 64 * K);
    r.aio(1, ADDR, 1 << 20);
    r.work();
    assert_eq!(r.os.used(), 512 * K);
}

#[test]
fn plain_bytes_take_from_the_window() {
    let mut r = rig(255, 16 * K, 128 * K, 128 * K);
    r.os.append(16 * K, true);
    r.output();
    r.aio(1, ADDR, 1 << 20);
    r.work();
    assert_eq!(r.os.used(), 128 * K);
}

#[test]
fn crumbs_wait() {
    // An eighth of the window, not what each small acknowledgement leaves.
    let mut r = rig(255, 4 * K, 64 * K, 64 * K);
    r.os.append(2 * K, true);
    r.output();
    r.aio(1, ADDR, 1 << 20);
    r.work();
    assert_eq!(r.os.used(), 64 * K);
    let before = r.os.outstanding();
    r.ack(1);
    assert_eq!(r.os.used(), 62 * K);
    assert_eq!(r.os.outstanding(), before - 1);
    // But the end of a job is no crumb.
    let mut r = rig(255, 4 * K, 64 * K, 64 * K);
    r.os.append(2 * K, true);
    r.output();
    r.aio(1, ADDR, 63 * K as usize);
    r.work();
    assert_eq!(r.os.used(), 64 * K);
    r.ack(1);
    assert_eq!(r.os.used(), 63 * K);
    assert_eq!(sent(&r), u64::from(65 * K));
}

#[test]
fn grows_by_what_is_acknowledged_while_the_adapter_starves() {
    let mut r = rig(255, 16 * K, 128 * K, 512 * K);
    r.aio(1, ADDR, 4 << 20);
    r.work();
    assert_eq!(r.os.used(), 128 * K);
    let mut most = vec![];
    for _ in 0..40 {
        r.ack(1);
        most.push(r.os.used());
    }
    assert!(most[4] > 200 * K && most[4] < 400 * K, "{most:?}");
    assert_eq!(most.iter().max(), Some(&(512 * K)), "and no further");
}

#[test]
fn does_not_grow_while_credits_are_what_is_short() {
    // 30 credits carry two work requests; the rest of the window lies ready.
    let mut r = rig(32, 16 * K, 600 * K, MAX_WND);
    r.aio(1, ADDR, 4 << 20);
    r.work();
    assert!(sent(&r) < u64::from(300 * K), "{}", sent(&r));
    for _ in 0..10 {
        r.ack(1);
        assert!(r.os.used() <= 600 * K, "{}", r.os.used());
    }
}

#[test]
fn does_not_grow_for_a_peer_that_does_not_read() {
    let mut r = rig(255, 16 * K, 128 * K, MAX_WND);
    r.aio(1, ADDR, 4 << 20);
    r.work();
    for _ in 0..10 {
        r.output();
        r.aio(2, ADDR, 1000);
        r.retry();
        assert_eq!(r.os.used(), 128 * K);
    }
}

#[test]
fn the_adapter_is_told_once_of_the_largest_window() {
    let mut r = Rig::fresh();
    r.establish(255);
    r.ack(1);
    r.os.hiwat = 16 * K;
    r.os.wnd_max = MAX_WND;
    r.aio(1, ADDR, 32 << 20);
    r.work();
    let mut most = 0;
    while ended(&r, 1).is_none() {
        most = most.max(r.os.used());
        r.ack(1);
        r.work();
    }
    // The window has grown, and no firmware was asked to change its mind half way.
    assert!(most > 2 << 20 && most <= MAX_WND, "{most}");
    assert_eq!(sndbufs(&r), [MAX_WND]);
    assert_eq!(r.count(|w| matches!(w, Wr::Flowc(_))), 1);
}

#[test]
fn a_size_set_by_the_administrator_stays() {
    let mut r = Rig::fresh();
    let mut i = init(255);
    i.tx.sndbuf = 131_072;
    i.tx.wnd = 131_072;
    let o = r.conn.established(&mut r.os, &i);
    r.follow(o);
    r.os.hiwat = 16 * K;
    r.os.wnd_max = 131_072;
    r.ack(1);
    r.aio(1, ADDR, 2 << 20);
    r.work();
    while ended(&r, 1).is_none() {
        assert!(r.os.used() <= 131_072);
        r.ack(1);
    }
    assert_eq!(sndbufs(&r), [131_072]);
}

#[test]
fn starts_with_what_upstream_has_the_adapter_buffer() {
    let mut r = Rig::fresh();
    r.establish(255);
    r.ack(1);
    r.os.hiwat = 16 * K;
    r.os.wnd_max = MAX_WND;
    r.aio(1, ADDR, 4 << 20);
    r.work();
    assert_eq!(r.os.used(), init(255).tx.wnd);
}

#[test]
fn a_shortage_of_mbufs_refuses_no_more_than_a_part() {
    let mut r = rig(255, 16 * K, 1 << 20, 1 << 20);
    r.aio(1, ADDR, 1 << 20);
    r.os.no_mbuf = u32::MAX;
    r.work();
    assert_eq!(sent(&r), 0);
    // Memory for one append, and for one more.
    for n in 1..=2 {
        r.os.mbufs = Some(1);
        r.os.no_mbuf = 0;
        r.retry();
        assert_eq!(r.os.used(), n * 256 * K);
        r.os.no_mbuf = u32::MAX;
    }
    r.os.mbufs = None;
    r.os.no_mbuf = 0;
    r.retry();
    assert_eq!(r.os.used(), 1 << 20);
}

#[test]
fn what_little_is_left_waits_for_the_next_write_if_credits_are_scarce() {
    let mut r = rig(34, 16 * K, 1 << 20, 1 << 20);
    let held = |r: &Rig| r.os.used() - r.os.in_flight();
    let buffer = |id: usize| ADDR + 0x100_0000 * id as u64;
    let mut id = 0;
    while held(&r) == 0 && id < 10 {
        id += 1;
        r.aio(id, buffer(id), 40_000);
        r.work();
    }
    assert!(held(&r) > 0 && held(&r) <= 40_000, "{} of {id}", held(&r));
    let before = sent(&r);
    r.ack(1);
    assert!(ended(&r, 1).is_some());
    assert_eq!(sent(&r), before, "the program is about to come again");
    r.aio(id + 1, buffer(1), 40_000);
    assert!(sent(&r) > before, "and has");
    // If it does not come, the next acknowledgements send.
    r.ack_all();
    assert_eq!(held(&r), 0);
    assert_eq!(sent(&r), 40_000 * (id as u64 + 1));
}

#[test]
fn a_write_that_makes_so_snd_grow_makes_room_for_jobs() {
    let mut r = rig(255, 32 * K, 0, 0);
    r.os.lowat = 6 * K;
    r.aio(1, ADDR, 27_000);
    r.work();
    r.aio(2, ADDR + 0x100_0000, 30_000);
    r.work();
    assert_eq!(sent(&r), 27_000, "too little room for the second");
    r.os.auto_max = 256 * K;
    let before = sent(&r);
    // write(2) takes what is left and the mark goes up.
    let left = r.os.hiwat - r.os.used();
    r.os.append(left, true);
    r.output();
    assert!(sent(&r) > before + u64::from(left), "{} {left}", sent(&r));
    r.ack_all();
    assert_eq!(ended(&r, 2), Some(Ok(30_000)));
}
