//! Write jobs whose bytes are copied: short ones, and those no pages can be held for (upstream
//! hazards 6, 7 and 14).

use super::aio::{ADDR, ended, sent};
use super::fake::FJob;
use super::rig::{Rig, tun};
use crate::errno::Errno;
use crate::os::Counter;
use crate::shared::Tunables;

const K: u32 = 1024;

/// Jobs shorter than `min` bytes are copied.
fn rig(min: u32) -> Rig {
    let mut r = Rig::with_credits(255);
    r.conn.set_tunables(Tunables {
        tx_zcopy_min: min,
        ..tun()
    });
    r
}

/// aio_writev; false if declined.
fn writev(r: &mut Rig, id: usize, len: usize) -> bool {
    let done = r.conn.aio_writev(&mut r.os, FJob::new(id, ADDR, len));
    r.check();
    done.is_ok()
}

fn counts(r: &Rig) -> [u64; 3] {
    use Counter::{TxCopiedOctets, TxPlainOctets, TxZcopyOctets};
    [TxCopiedOctets, TxPlainOctets, TxZcopyOctets].map(|c| r.os.counter(c))
}

#[test]
fn short_writes_are_copied() {
    let mut r = rig(8192);
    r.aio(1, ADDR, 8191);
    assert_eq!(sent(&r), 0, "not under the lock");
    r.work();
    // The program may have its buffer back.
    assert_eq!(ended(&r, 1), Some(Ok(8191)));
    assert_eq!((r.os.wired(), r.os.users_total()), (0, 0));
    assert_eq!(sent(&r), 8191);
    assert_eq!(counts(&r), [8191, 8191, 0]);
    assert_eq!(r.os.counter(Counter::CacheMiss), 0);
    r.aio(2, ADDR, 8192);
    r.work();
    assert_eq!(ended(&r, 2), None);
    assert_eq!(counts(&r), [8191, 8191, 8192]);
    r.ack_all();
    assert_eq!(ended(&r, 2), Some(Ok(8192)));
    r.shutdown();
    r.close_con_rpl();
    r.peer_close();
    r.nothing_left();
}

#[test]
fn what_is_copied_keeps_to_so_snd() {
    // The window is for what costs the kernel no memory.
    let mut r = rig(u32::MAX);
    r.os.hiwat = 16 * K;
    r.window(1 << 20, 1 << 20);
    r.aio(1, ADDR, 100_000);
    r.work();
    assert_eq!(r.os.used(), 16 * K);
    while ended(&r, 1).is_none() {
        r.ack(1);
        r.work();
        assert!(r.os.used() <= 16 * K);
    }
    assert_eq!(ended(&r, 1), Some(Ok(100_000)));
    r.ack_all();
    assert_eq!(sent(&r), 100_000);
}

#[test]
fn copies_of_a_part_at_a_time() {
    let mut r = rig(u32::MAX);
    r.os.hiwat = 1 << 20;
    r.aio(1, ADDR, 300_000);
    for n in 1..=4 {
        assert!(r.work_begin());
        assert!(r.os.used() as usize == (n - 1) * 65_536);
        r.work_end(None);
    }
    r.work();
    assert_eq!(ended(&r, 1), Some(Ok(300_000)));
}

#[test]
fn order_is_kept_among_copied_and_held() {
    // I2 is checked byte by byte.
    let mut r = rig(5000);
    r.os.hiwat = 20_000;
    for id in 1..=12 {
        let len = if id % 3 == 0 { 4999 } else { 30_000 };
        r.aio(id, ADDR + 0x1_0000 * id as u64, len);
    }
    for _ in 0..200 {
        r.work();
        r.ack(1);
    }
    for id in 1..=12 {
        let len = if id % 3 == 0 { 4999 } else { 30_000 };
        assert_eq!(ended(&r, id), Some(Ok(len)));
    }
    assert_eq!(r.os.order, (1..=12).collect::<std::vec::Vec<_>>());
    assert_eq!(sent(&r), 4 * 4999 + 8 * 30_000);
}

#[test]
fn pages_that_cannot_be_held_are_copied() {
    for why in [Errno::EFAULT, Errno::ENOMEM] {
        let mut r = rig(0);
        r.aio(1, ADDR, 10_000);
        assert!(r.work_begin());
        r.work_end(Some(why));
        assert_eq!(ended(&r, 1), None);
        r.work();
        assert_eq!(ended(&r, 1), Some(Ok(10_000)));
        assert_eq!(counts(&r), [10_000, 10_000, 0]);
    }
}

#[test]
fn no_budget_no_pages() {
    let mut r = rig(0);
    r.os.budget = 0;
    r.aio(1, ADDR, 200_000);
    r.work();
    assert_eq!(ended(&r, 1), Some(Ok(200_000)));
    assert_eq!(counts(&r), [200_000, 200_000, 0]);
    // When there is again, pages are held again.
    r.os.budget = u32::MAX;
    r.aio(2, ADDR, 20_000);
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 2), Some(Ok(20_000)));
    assert_eq!(counts(&r), [200_000, 200_000, 20_000]);
}

#[test]
fn a_job_half_held_half_copied_ends_with_the_acknowledgement_of_what_was_held() {
    let mut r = rig(0);
    r.os.budget = 40;
    r.os.hiwat = 1 << 20;
    r.aio(1, ADDR, 300_000);
    // A first piece in small pages, then none to be had.
    while counts(&r)[2] == 0 {
        assert!(r.work_begin());
        r.work_end(None);
    }
    r.os.budget = 0;
    r.work();
    let [copied, _, held] = counts(&r);
    assert!(copied > 0 && held > 0 && copied + held == 300_000);
    assert_eq!(ended(&r, 1), None);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(300_000)));
}

#[test]
fn a_copy_that_faults_ends_the_job() {
    let mut r = rig(u32::MAX);
    r.os.hiwat = 1 << 20;
    r.aio(1, ADDR, 1000);
    assert!(r.work_begin());
    r.work_end(Some(Errno::EFAULT));
    assert_eq!(ended(&r, 1), Some(Err(Errno::EFAULT)));
    // After something was sent it is short.
    r.aio(2, ADDR, 100_000);
    assert!(r.work_begin());
    r.work_end(None);
    assert!(r.work_begin());
    r.work_end(Some(Errno::EFAULT));
    assert_eq!(ended(&r, 2), Some(Ok(65_536)));
}

#[test]
fn nonblocking_copies_what_fits() {
    let mut r = rig(u32::MAX);
    r.os.nonblocking = true;
    r.os.hiwat = 10_000;
    r.aio(1, ADDR, 30_000);
    r.work();
    assert_eq!(ended(&r, 1), Some(Ok(10_000)));
    r.aio(2, ADDR, 30_000);
    r.work();
    assert_eq!(ended(&r, 2), None, "nothing fits");
    r.ack_all();
    r.work();
    assert_eq!(ended(&r, 2), Some(Ok(10_000)));
}

#[test]
fn what_was_copied_for_a_job_that_ended_short_is_not_the_next_ones() {
    for before_the_worker in [false, true] {
        let mut r = rig(u32::MAX);
        r.os.nonblocking = true;
        r.os.hiwat = 100_000;
        r.aio(1, ADDR, 110_000);
        assert!(r.work_begin());
        r.work_end(None);
        assert!(r.work_begin());
        // While the rest is copied, write(2) takes the room.
        r.os.append(40_000, true);
        if before_the_worker {
            r.retry();
            r.aio(2, ADDR + 0x10_0000, 1000);
        }
        r.work_end(None);
        assert_eq!(ended(&r, 1), Some(Ok(65_536)));
        if !before_the_worker {
            r.aio(2, ADDR + 0x10_0000, 1000);
        }
        r.ack_all();
        r.work();
        assert_eq!(ended(&r, 2), Some(Ok(1000)));
        r.ack_all();
        assert_eq!(sent(&r), 65_536 + 40_000 + 1000);
    }
}

#[test]
fn cancel_of_copies() {
    let mut r = rig(u32::MAX);
    r.os.hiwat = 10_000;
    r.aio(1, ADDR, 30_000);
    r.work();
    r.aio(2, ADDR, 30_000);
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), Some(Ok(10_000)), "copied is sent");
    // The next: while its bytes wait for the I/O lock.
    r.ack_all();
    r.os.io_busy = true;
    r.work();
    assert!(r.cancel(2));
    assert_eq!(ended(&r, 2), Some(Err(Errno::ECANCELED)));
    r.os.io_busy = false;
    r.retry();
    r.aio(3, ADDR, 500);
    r.work();
    assert_eq!(ended(&r, 3), Some(Ok(500)));
    assert_eq!(sent(&r), 10_500);
}

#[test]
fn the_io_lock_is_waited_for() {
    let mut r = rig(u32::MAX);
    r.os.io_busy = true;
    r.aio(1, ADDR, 500);
    r.work();
    assert_eq!(sent(&r), 0);
    r.os.io_busy = false;
    r.retry();
    assert_eq!(ended(&r, 1), Some(Ok(500)));
    assert_eq!(sent(&r), 500);
}

#[test]
fn reset_while_a_worker_copies() {
    let mut r = rig(u32::MAX);
    r.aio(1, ADDR, 500);
    assert!(r.work_begin());
    r.abort_req(20);
    assert_eq!(ended(&r, 1), None);
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Err(Errno::ECONNRESET)));
    r.nothing_left();
}

#[test]
fn vectored_writes_do_not_pass_jobs_that_wait() {
    let mut r = rig(0);
    assert!(!writev(&mut r, 1, 100), "nobody to pass: the generic path");
    r.os.hiwat = 10_000;
    r.aio(1, ADDR, 30_000);
    r.work();
    assert!(writev(&mut r, 2, 5000));
    r.aio(3, ADDR, 6000);
    for _ in 0..20 {
        r.work();
        r.ack(1);
    }
    assert_eq!(r.os.order, [1, 2, 3]);
    assert_eq!(ended(&r, 2), Some(Ok(5000)));
    assert_eq!(sent(&r), 41_000);
    assert_eq!(counts(&r)[0], 5000);
}

#[test]
fn jobs_of_the_generic_path_are_not_passed() {
    let mut r = rig(0);
    r.os.generic = true;
    assert!(!r.aio(1, ADDR, 30_000));
    r.os.generic = false;
    assert!(r.aio(1, ADDR, 30_000));
}
