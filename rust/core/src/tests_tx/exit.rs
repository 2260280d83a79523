//! Processes that go while their writes are in flight (upstream hazard 2; invariant I9).

use super::aio::{ADDR, ended};
use super::rig::Rig;
use crate::errno::Errno;

/// A peer that takes nothing: one job in flight, one half queued, one not begun.
fn stuck() -> Rig {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 100_000;
    for id in 1..=3 {
        r.aio(id, ADDR + 0x100_0000 * id as u64, 70_000);
    }
    r.work();
    assert_eq!(r.os.used(), 100_000);
    // A few bytes are kept back for the push.
    assert!((99_936..100_000).contains(&r.os.in_flight()));
    r
}

#[test]
fn exit_does_not_wait_for_the_peer_and_the_pages_stay() {
    let mut r = stuck();
    r.os.leaving.extend([1, 2, 3]);
    for id in 1..=3 {
        assert!(r.cancel(id));
    }
    assert_eq!(ended(&r, 1), Some(Ok(70_000)));
    assert_eq!(ended(&r, 2), Some(Ok(30_000)));
    assert_eq!(ended(&r, 3), Some(Err(Errno::ECANCELED)));
    // The adapter reads them again if it must.
    assert!(r.os.wired() >= 26, "{}", r.os.wired());
    assert_eq!(r.os.slots_used(), 2);
    // The socket is closed: FIN follows the data, and the peer gets all in the end.
    r.shutdown();
    r.ack_all();
    assert_eq!(r.os.users_total(), 0);
    r.close_con_rpl();
    r.peer_close();
    r.nothing_left();
}

#[test]
fn pages_of_a_process_that_is_gone_outlast_a_reset() {
    let mut r = stuck();
    r.os.leaving.extend([1, 2, 3]);
    for id in 1..=3 {
        r.cancel(id);
    }
    r.drop_now();
    assert!(!r.conn.reap(&mut r.os), "the adapter has not answered");
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn a_cancel_that_came_before_does_not_hold_up_the_exit() {
    // The kernel calls a job's cancel function once.
    let mut r = stuck();
    for id in 1..=3 {
        r.cancel(id);
    }
    assert_eq!(ended(&r, 1), None);
    assert_eq!(ended(&r, 2), None, "short when it is acknowledged");
    let before = r.os.retries;
    r.retry();
    assert!(r.os.retries > before, "asked again, and again");
    assert_eq!(ended(&r, 1), None);
    r.os.leaving.extend([1, 2]);
    r.retry();
    assert_eq!(ended(&r, 1), Some(Ok(70_000)));
    assert_eq!(ended(&r, 2), Some(Ok(30_000)));
    let before = r.os.retries;
    r.retry();
    assert_eq!(r.os.retries, before, "nobody is left to ask for");
}

#[test]
fn a_cancel_without_an_exit_waits_for_the_peer() {
    let mut r = stuck();
    assert!(!r.cancel(1));
    r.retry();
    assert_eq!(ended(&r, 1), None);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(70_000)));
    let before = r.os.retries;
    r.work();
    r.ack_all();
    r.retry();
    assert_eq!(r.os.retries, before);
}

#[test]
fn exit_while_a_worker_looks_at_the_job() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 1 << 20;
    // Two pieces: the second is being held while the first is in flight.
    let len = crate::aiotx::PIECE + 5000;
    r.aio(1, ADDR, len);
    assert!(r.work_begin());
    r.work_end(None);
    assert!(r.work_begin());
    r.os.leaving.insert(1);
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), None, "the worker uses its address space");
    r.work_end(None);
    r.retry();
    assert_eq!(ended(&r, 1), Some(Ok(1 << 20)));
    assert!(r.os.wired() > 0);
    r.ack_all();
    r.shutdown();
    r.close_con_rpl();
    r.peer_close();
    r.nothing_left();
}

#[test]
fn page_sets_of_a_process_that_is_gone_count() {
    // Reads must still find some: checked after each step.
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 1 << 20;
    for id in 1..=20 {
        r.aio(id, ADDR + 0x10_0000 * id as u64, 5000);
        r.work();
        if id <= 10 {
            r.os.leaving.insert(id);
            assert!(r.cancel(id));
        }
    }
    assert!(r.os.slots_used() > 10);
    r.ack_all();
    r.retry();
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 20), Some(Ok(5000)));
}

#[test]
fn a_larger_cache_is_no_larger_than_its_memory() {
    let mut r = Rig::with_credits(255);
    r.set_cache(64);
    r.os.hiwat = 1 << 20;
    for id in 1..=20 {
        r.aio(id, ADDR + 0x10_0000 * id as u64, 5000);
        r.work();
    }
    assert_eq!(r.os.slots_used(), 12, "of sixteen");
    r.ack_all();
    r.retry();
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 20), Some(Ok(5000)));
}
