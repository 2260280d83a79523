//! PSH: the peer hears of the last bytes, whatever becomes of those that were to follow.

use std::vec::Vec;

use super::aio::{ADDR, ended, sent};
use super::fake::Wr;
use super::rig::Rig;
use crate::errno::Errno;

fn pushes(r: &Rig) -> Vec<bool> {
    let data = |w: &Wr| match w {
        Wr::Data { shove, .. } => Some(*shove),
        _ => None,
    };
    r.os.wrs.iter().filter_map(data).collect()
}

/// A job fills so_snd, another is parked behind it.
fn full() -> Rig {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 65_536;
    r.aio(1, ADDR, 65_536);
    r.aio(2, ADDR + 0x100_0000, 5_000);
    r.work();
    assert!(pushes(&r).iter().all(|p| !p), "there is more to come");
    assert!(sent(&r) >= 65_536 - 4096, "{} bytes sent", sent(&r));
    r
}

#[test]
fn the_push_is_owed_when_the_parked_job_is_cancelled() {
    let mut r = full();
    assert!(r.cancel(2));
    assert_eq!(sent(&r), 65_536);
    assert_eq!(pushes(&r).last(), Some(&true));
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(65_536)));
}

#[test]
fn the_push_is_owed_when_the_parked_job_fails() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 65_536;
    r.aio(1, ADDR, 65_536);
    r.work();
    r.aio(2, ADDR + 0x100_0000, 5_000);
    assert!(r.work_begin());
    r.work_end(Some(Errno::EFAULT));
    // Neither held nor copied.
    while ended(&r, 2).is_none() {
        if r.work_begin() {
            r.work_end(Some(Errno::EFAULT));
        } else {
            r.ack(1);
        }
    }
    assert_eq!(ended(&r, 2), Some(Err(Errno::EFAULT)));
    assert_eq!(sent(&r), 65_536);
    assert_eq!(pushes(&r).last(), Some(&true));
}

#[test]
fn bytes_that_nothing_can_follow_now_are_pushed() {
    let mut r = Rig::with_credits(255);
    // There is room, but the pages of the second job come from a slow disk.
    r.aio(1, ADDR, 10_000);
    r.work();
    r.os.wrs.clear();
    r.aio(1 << 20, ADDR + 0x100_0000, 5_000);
    r.write(100);
    assert_eq!(pushes(&r), [true]);
    // The same behind a writer that stays inside the send I/O lock.
    r.work();
    r.os.io_busy = true;
    r.aio(3, ADDR, 10_000);
    r.os.wrs.clear();
    r.write(100);
    assert_eq!(pushes(&r), [true]);
}

#[test]
fn what_is_kept_back_is_little_and_goes_with_the_next_acknowledgement() {
    let mut r = full();
    let kept = 65_536 - sent(&r);
    assert!((1..=4096).contains(&kept), "{kept} bytes kept back");
    r.ack(1);
    assert!(sent(&r) > 65_536);
    r.ack_all();
    assert_eq!(sent(&r), 70_536);
    assert_eq!(pushes(&r).last(), Some(&true));
    assert_eq!(pushes(&r).iter().filter(|p| **p).count(), 1);
}

/// The least so_snd: what is kept back must not be all there is.
#[test]
fn a_tiny_send_buffer_still_moves() {
    for hiwat in [1, 40, 64, 65, 100, 3000] {
        let mut r = Rig::with_credits(255);
        r.os.hiwat = hiwat;
        r.aio(1, ADDR, 10_000);
        r.aio(2, ADDR, 10_000);
        r.work();
        r.ack_all();
        assert_eq!(ended(&r, 2), Some(Ok(10_000)), "so_snd of {hiwat}");
        assert_eq!(pushes(&r).last(), Some(&true));
    }
}
