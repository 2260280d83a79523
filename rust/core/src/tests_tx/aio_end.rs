//! How write jobs end when not by success: cancel, reset, shutdown, errors (upstream hazards 2, 4,
//! 10).

use super::aio::{ADDR, ended, sent};
use super::fake::Wr;
use super::rig::Rig;
use crate::aiotx::PIECE;
use crate::conn::End;
use crate::errno::Errno;
use crate::os::{Counter, TcpState};

#[test]
fn cancel_before_anything_is_sent() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), Some(Err(Errno::ECANCELED)));
    assert!(!r.cancel(1));
    assert_eq!(r.os.counter(Counter::CancelClean), 1);
    r.work();
    assert_eq!(sent(&r), 0);
    r.abort_req(20);
    r.nothing_left();
}

#[test]
fn cancelled_before_it_came() {
    let mut r = Rig::up();
    r.os.cancelled.insert(1);
    assert!(r.aio(1, ADDR, 1000));
    assert_eq!(ended(&r, 1), Some(Err(Errno::ECANCELED)));
    r.work();
    assert_eq!(sent(&r), 0);
}

#[test]
fn cancel_with_a_worker_at_work() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    r.aio(2, ADDR, 1000);
    assert!(r.work_begin());
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), None, "the worker looks at it");
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Err(Errno::ECANCELED)));
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 2), Some(Ok(1000)));
}

#[test]
fn cancel_of_a_part_gives_the_short_count() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 200_000);
    r.work();
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), None, "in flight");
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(65536)));
    assert_eq!(r.os.counter(Counter::CancelShort), 1);
    assert_eq!(sent(&r), 65536);
}

#[test]
fn cancel_of_a_part_that_is_acknowledged() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 200_000);
    r.work();
    r.os.io_busy = true;
    r.ack_all();
    assert_eq!(r.os.used(), 0);
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), Some(Ok(65536)), "at once");
}

#[test]
fn cancel_in_flight_is_refused() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    r.work();
    assert!(!r.cancel(1));
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(1000)));
    assert!(!r.cancel(1));
    assert!(!r.cancel(99));
}

#[test]
fn cancel_lets_the_next_through() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    assert!(r.work_begin());
    r.work_end(Some(Errno::ENOMEM));
    assert!(r.work_begin(), "to copy");
    r.aio(2, ADDR, 1000);
    assert!(r.cancel(1));
    assert_eq!(ended(&r, 1), None, "a worker copies");
    r.aio(3, ADDR + 0x10_0000, 1000);
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Err(Errno::ECANCELED)));
    assert!(r.cancel(2));
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 3), Some(Ok(1000)));
    assert_eq!(sent(&r), 1000);
}

#[test]
fn nonblocking_ends_short_when_something_fitted() {
    let mut r = Rig::up();
    r.os.nonblocking = true;
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 200_000);
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(65536)));
    assert_eq!(sent(&r), 65536);
}

#[test]
fn nonblocking_waits_when_nothing_fits() {
    let mut r = Rig::up();
    r.os.nonblocking = true;
    r.os.hiwat = 20_000;
    r.write(19_000);
    r.aio(1, ADDR, 30_000);
    r.work();
    assert_eq!(ended(&r, 1), None);
    r.ack_all();
    r.work();
    assert_eq!(ended(&r, 1), Some(Ok(20_000)));
}

/// The peer reads nothing, and no acknowledgement comes.
#[test]
fn nonblocking_ends_in_the_callers_own_time() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    // From its pages: it ends when the peer has it.
    r.aio(1, ADDR, 20_000);
    r.work();
    r.os.nonblocking = true;
    r.aio(2, ADDR, 30_000);
    r.work();
    assert_eq!(ended(&r, 2), Some(Ok(30_000)), "there was room for all");
    r.aio(3, ADDR, 30_000);
    r.work();
    assert_eq!(ended(&r, 3), Some(Ok(15_536)), "and here for a part");
    assert_eq!(ended(&r, 1), None);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(20_000)));
}

#[test]
fn room_for_the_rest_is_room_enough() {
    // Less than the low-water mark is free, but the job needs no more.
    let mut r = Rig::up();
    r.os.hiwat = 20_000;
    r.write(19_000);
    r.aio(1, ADDR, 900);
    r.work();
    assert_eq!(sent(&r), 19_900);
    r.aio(2, ADDR, 1500);
    assert_eq!(sent(&r), 19_900, "and here it does");
}

#[test]
fn growth_is_filled_at_once() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 32768;
    r.os.auto_max = 2 << 20;
    r.aio(1, ADDR, 3_000_000);
    r.work();
    // Upstream grows by one step per trip; here so_snd opens as fast as credits allow.
    assert!(r.os.used() > 500_000, "{}", r.os.used());
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(3_000_000)));
}

#[test]
fn reset_ends_parked_and_sent_jobs() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 30_000);
    r.aio(2, ADDR, 100_000);
    r.aio(3, ADDR, 5);
    r.work();
    r.abort_req(20);
    assert_eq!(ended(&r, 1), Some(Ok(30_000)));
    assert_eq!(ended(&r, 2), Some(Ok(35_536)));
    assert_eq!(ended(&r, 3), Some(Err(Errno::ECONNRESET)));
    assert_eq!(r.os.sigpipes, 0);
    r.nothing_left();
}

#[test]
fn reset_in_close_wait_is_a_broken_pipe() {
    let mut r = Rig::up();
    r.os.hiwat = 4096;
    r.peer_close();
    r.write(4096);
    r.aio(1, ADDR, 5);
    r.work();
    r.abort_req(20);
    assert_eq!(ended(&r, 1), Some(Err(Errno::EPIPE)));
    assert_eq!(r.os.sigpipes, 1);
    r.nothing_left();
}

#[test]
fn our_abort_keeps_pages_until_the_reply() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 30_000);
    r.aio(2, ADDR, 100_000);
    r.aio(3, ADDR, 5);
    r.work();
    r.drop_now();
    r.check();
    assert_eq!(ended(&r, 1), None, "the adapter may still read it");
    assert_eq!(ended(&r, 2), None);
    assert_eq!(ended(&r, 3), Some(Err(Errno::ECONNABORTED)));
    assert!(r.os.wired() > 0);
    r.abort_rpl();
    assert_eq!(ended(&r, 1), Some(Ok(30_000)));
    assert_eq!(ended(&r, 2), Some(Ok(35_536)));
    r.nothing_left();
}

#[test]
fn reset_with_a_worker_at_work() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    assert!(r.work_begin());
    r.abort_req(20);
    assert_eq!(r.finals, 1);
    assert_eq!(ended(&r, 1), None);
    assert!(!r.conn.reap(&mut r.os), "the worker will be back");
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Err(Errno::ECONNRESET)));
    r.nothing_left();
}

#[test]
fn reset_with_a_worker_ahead_of_a_sent_part() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 1 << 20;
    r.aio(1, ADDR, PIECE + 500);
    assert!(r.work_begin());
    r.work_end(None);
    assert!(r.work_begin(), "the piece ahead");
    r.abort_req(20);
    assert_eq!(ended(&r, 1), None);
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Ok(1 << 20)));
    r.nothing_left();
}

#[test]
fn shutdown_ends_parked_jobs() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 100_000);
    r.aio(2, ADDR, 10);
    r.work();
    r.shutdown();
    assert_eq!(ended(&r, 2), Some(Err(Errno::EPIPE)));
    assert_eq!(r.os.sigpipes, 1, "not for the short one");
    assert_eq!(ended(&r, 1), None);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(65536)));
    assert_eq!(r.os.wrs.last(), Some(&Wr::Close));
    r.close_con_rpl();
    r.peer_close();
    r.nothing_left();
}

#[test]
fn shutdown_with_a_worker_at_work() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    assert!(r.work_begin());
    r.shutdown();
    assert_eq!(
        r.os.wrs.last(),
        Some(&Wr::Close),
        "the FIN does not wait for it"
    );
    assert_eq!(ended(&r, 1), None);
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Err(Errno::EPIPE)));
    assert_eq!(sent(&r), 0);
}

#[test]
fn fin_acknowledged_ends_what_was_in_flight() {
    // No CPL_FW4_ACK for the last requests: CPL_CLOSE_CON_RPL says it all.
    let mut r = Rig::up();
    r.aio(1, ADDR, 30_000);
    r.work();
    r.shutdown();
    assert_eq!(ended(&r, 1), None);
    r.close_con_rpl();
    assert_eq!(ended(&r, 1), Some(Ok(30_000)));
    r.peer_close();
    r.nothing_left();
}

#[test]
fn half_closed_by_the_peer_still_writes() {
    let mut r = Rig::up();
    r.os.hiwat = 8192;
    r.aio(1, ADDR, 50_000);
    r.work();
    r.peer_close();
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(50_000)));
    assert!(r.aio(2, ADDR, 100));
}

#[test]
fn a_socket_error_is_reported_once() {
    let mut r = Rig::up();
    r.os.hiwat = 4096;
    r.write(4096);
    r.aio(1, ADDR, 100);
    r.aio(2, ADDR, 100);
    r.work();
    r.os.so_error = Some(Errno::EHOSTUNREACH);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Err(Errno::EHOSTUNREACH)));
    assert_eq!(ended(&r, 2), Some(Ok(100)));
}

#[test]
fn a_partial_job_leaves_the_socket_error() {
    let mut r = Rig::up();
    r.os.hiwat = 8192;
    r.aio(1, ADDR, 20_000);
    r.work();
    r.os.so_error = Some(Errno::EHOSTUNREACH);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(20_000)));
    assert_eq!(r.os.so_error, Some(Errno::EHOSTUNREACH));
}

#[test]
fn not_connected_any_more() {
    let mut r = Rig::up();
    r.os.hiwat = 4096;
    r.write(4096);
    r.aio(1, ADDR, 100);
    r.work();
    r.os.state = TcpState::Closed;
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Err(Errno::ENOTCONN)));
}

#[test]
fn bad_cpl_ends_writes() {
    let mut r = Rig::up();
    r.os.hiwat = 8192;
    r.aio(1, ADDR, 20_000);
    r.aio(2, ADDR, 20);
    r.work();
    let mut a = r.os.ack(1);
    a.credits += 1;
    r.fw4_ack(a);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(ended(&r, 2), Some(Err(Errno::ECONNABORTED)));
    assert_eq!(ended(&r, 1), None);
    r.abort_rpl();
    assert_eq!(ended(&r, 1), Some(Ok(8192)));
    r.nothing_left();
}

#[test]
fn an_acknowledgement_frees_so_snd_of_a_detached_close() {
    // Half-closed, the tcpcb gone, data still in flight.
    let mut r = Rig::up();
    r.aio(1, ADDR, 30_000);
    r.work();
    r.shutdown();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    r.check();
    assert_eq!(
        ended(&r, 1),
        None,
        "so_snd was emptied, the adapter still reads"
    );
    r.ack(1);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(30_000)));
    r.close_con_rpl();
    r.peer_close();
    r.nothing_left();
}

/// Retries asked for by one retry, with nothing short.
fn asked_again(r: &mut Rig) -> u32 {
    let before = r.os.retries;
    r.retry();
    r.os.retries - before
}

#[test]
fn a_cancel_in_flight_is_remembered_until_that_job_has_ended() {
    let mut r = Rig::with_credits(255);
    r.aio(1, ADDR, 10_000);
    r.work();
    assert!(!r.cancel(1), "in flight");
    assert_eq!(asked_again(&mut r), 1, "its process may go yet");
    // Another write is in flight when it ends, and then another, for ever.
    for id in 2..6 {
        r.aio(id, ADDR, 10_000);
        r.ack(1);
        assert_eq!(ended(&r, id - 1), Some(Ok(10_000)));
        assert_eq!(asked_again(&mut r), 0, "nobody has cancelled job {id}");
    }
    // A later cancel counts for the job it is about, and for those before it.
    r.aio(6, ADDR, 10_000);
    assert!(!r.cancel(6));
    r.aio(7, ADDR, 10_000);
    r.ack(1);
    assert_eq!(asked_again(&mut r), 1);
    r.os.leaving.insert(6);
    assert_eq!(asked_again(&mut r), 0);
    assert_eq!(ended(&r, 6), Some(Ok(10_000)));
    assert_eq!(ended(&r, 7), None);
}
