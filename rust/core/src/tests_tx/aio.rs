//! aio_write from held pages (upstream hazards 4, 6, 7, 11, 14).

use std::format;
use std::string::String;
use std::vec::Vec;

use super::fake::{FJob, Wr};
use super::rig::Rig;
use super::rng::{Rng, seeds};
use crate::aiotx::PIECE;
use crate::conn::End;
use crate::errno::Errno;
use crate::os::{Counter, TcpState};

const ADDR: u64 = 0x10_0123;

/// Bytes sent so far.
fn sent(r: &Rig) -> u64 {
    r.os.wrs
        .iter()
        .map(|w| match w {
            Wr::Data { plen, .. } => u64::from(*plen),
            _ => 0,
        })
        .sum()
}

fn ended(r: &Rig, id: usize) -> Option<Result<usize, Errno>> {
    r.os.ended.get(&id).copied()
}

#[test]
fn declined_when_off_or_empty_or_closed() {
    let mut r = Rig::up();
    assert!(!r.aio(1, ADDR, 0));
    let mut tun = super::rig::tun();
    tun.tx_zcopy = false;
    r.conn.set_tunables(tun);
    assert!(!r.aio(2, ADDR, 10));
    tun.tx_zcopy = true;
    r.conn.set_tunables(tun);
    r.os.snd_shut = true;
    assert!(!r.aio(3, ADDR, 10));
    let mut r = Rig::up();
    r.shutdown();
    assert!(!r.aio(4, ADDR, 10));
    let mut r = Rig::fresh();
    assert!(!r.aio(5, ADDR, 10));
    assert_eq!(r.os.counter(Counter::TxJobs), 0);
}

#[test]
fn a_job_ends_when_it_is_acknowledged() {
    let mut r = Rig::up();
    assert!(r.aio(1, ADDR, 10_000));
    assert_eq!(r.os.kicks, 1, "pages are wanted");
    assert_eq!(sent(&r), 0);
    r.work();
    assert_eq!(sent(&r), 10_000);
    assert_eq!(ended(&r, 1), None);
    assert_eq!(r.os.wired(), 3);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(10_000)));
    assert_eq!(r.os.wired(), 3, "kept for the next");
    assert_eq!(r.os.users_total(), 0);
    r.abort_req(20);
    r.nothing_left();
}

#[test]
fn the_same_buffer_again_costs_no_worker() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 10_000);
    r.work();
    let kicks = r.os.kicks;
    r.aio(2, ADDR, 10_000);
    assert_eq!(sent(&r), 20_000);
    assert_eq!(r.os.kicks, kicks);
    assert_eq!(r.os.counter(Counter::CacheHit), 1);
    assert_eq!(r.os.counter(Counter::CacheMiss), 1);
    r.ack_all();
    assert_eq!(
        (ended(&r, 1), ended(&r, 2)),
        (Some(Ok(10_000)), Some(Ok(10_000)))
    );
}

#[test]
fn a_changed_map_is_another_buffer() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 10_000);
    r.work();
    r.os.generation += 1;
    r.aio(2, ADDR, 10_000);
    assert_eq!(sent(&r), 10_000, "not from the old pages");
    r.work();
    assert_eq!(sent(&r), 20_000);
}

#[test]
fn small_jobs_go_by_reference() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 8);
    r.work();
    assert!(matches!(
        r.os.wrs[0],
        Wr::Data {
            imm: false,
            segs: 1,
            credits: 2,
            plen: 8,
            ..
        }
    ));
    assert_eq!(r.os.counter(Counter::TxZcopyOctets), 8);
    assert_eq!(r.os.counter(Counter::TxPlainOctets), 0);
}

#[test]
fn the_last_request_of_a_job_asks_for_completion_and_pushes() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 100_000);
    r.work();
    let last = r.os.wrs.last();
    assert!(
        matches!(
            last,
            Some(Wr::Data {
                compl: true,
                shove: true,
                ..
            })
        ),
        "{last:?}"
    );
    assert!(matches!(r.os.wrs[0], Wr::Data { shove: false, .. }));
}

#[test]
fn plain_bytes_behind_a_job_carry_its_completion() {
    let mut r = Rig::up();
    r.os.more_to_come = true;
    r.aio(1, ADDR, 100);
    r.os.append(100, true);
    r.work();
    r.os.more_to_come = false;
    // One request for both: the job's acknowledgement must be asked for with it.
    assert!(
        matches!(
            r.os.wrs[0],
            Wr::Data {
                plen: 200,
                compl: true,
                ..
            }
        ),
        "{:?}",
        r.os.wrs
    );
}

#[test]
fn a_job_larger_than_so_snd_refills_with_each_ack() {
    let mut r = Rig::up();
    r.os.hiwat = 65536;
    r.aio(1, ADDR, 1_000_000);
    r.work();
    let kicks = r.os.kicks;
    assert_eq!(r.os.used(), 65536, "so_snd is full");
    let mut turns = 0;
    while ended(&r, 1).is_none() {
        let before = sent(&r);
        r.ack(1);
        turns += 1;
        if ended(&r, 1).is_none() && before < 1_000_000 {
            assert!(sent(&r) > before, "the ack itself refills");
        }
        assert!(turns < 1000);
    }
    assert_eq!(ended(&r, 1), Some(Ok(1_000_000)));
    assert_eq!(r.os.kicks, kicks, "no worker");
}

#[test]
fn first_come_first_served() {
    let mut r = Rig::up();
    r.os.hiwat = 16384;
    for id in 1..=5 {
        r.aio(id, ADDR + 0x10_0000 * id as u64, 10_000);
    }
    r.work();
    r.ack_all();
    assert_eq!(r.os.order, [1, 2, 3, 4, 5]);
    assert_eq!(sent(&r), 50_000);
}

#[test]
fn no_push_between_jobs() {
    let mut r = Rig::up();
    r.os.hiwat = 8192;
    r.aio(1, ADDR, 8192);
    r.aio(2, ADDR, 8192);
    r.work();
    assert!(matches!(
        r.os.wrs.last(),
        Some(Wr::Data { shove: false, .. })
    ));
    r.ack_all();
    assert!(matches!(
        r.os.wrs.last(),
        Some(Wr::Data { shove: true, .. })
    ));
}

#[test]
fn a_long_job_goes_piece_by_piece() {
    let len = 2 * PIECE + 12_345;
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 4 << 20;
    r.aio(1, ADDR, len);
    let mut most = 0;
    for _ in 0..100_000 {
        if ended(&r, 1).is_some() {
            break;
        }
        r.work();
        most = most.max(r.os.wired());
        r.ack(3);
    }
    assert_eq!(ended(&r, 1), Some(Ok(len)));
    assert_eq!(sent(&r), len as u64);
    assert_eq!(r.os.users_total(), 0);
    assert!(most > PIECE / 4096 + 10, "the next piece is held ahead");
    r.abort_req(20);
    r.nothing_left();
}

#[test]
fn the_last_byte_counts() {
    // One request of 32768, one of a single byte.
    let mut r = Rig::up();
    r.os.hiwat = 128 * 1024;
    r.aio(1, ADDR, 32769);
    r.work();
    assert_eq!(r.os.outstanding(), 2);
    r.ack(1);
    assert_eq!(ended(&r, 1), None);
    r.ack(1);
    assert_eq!(ended(&r, 1), Some(Ok(32769)));
}

#[test]
fn an_earlier_piece_is_used_until_acknowledged() {
    let mut r = Rig::with_credits(16);
    r.os.hiwat = PIECE as u32 + 100_000;
    r.aio(1, ADDR, PIECE + 1000);
    r.work();
    assert_eq!(r.os.used() as usize, PIECE + 1000, "all queued");
    while r.os.used() > 100_000 {
        assert_eq!(r.os.users_total(), 2);
        r.ack(1);
    }
    r.ack_all();
    assert_eq!(r.os.users_total(), 0);
}

#[test]
fn the_next_piece_is_not_waited_for() {
    // Once the first is in so_snd, the second follows with no worker in between.
    let mut r = Rig::with_credits(255);
    r.os.hiwat = PIECE as u32 + 100_000;
    r.aio(1, ADDR, PIECE + 1000);
    r.work();
    assert_eq!(r.os.used() as usize, PIECE + 1000);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(PIECE + 1000)));
}

#[test]
fn fault_before_anything_is_sent() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 1000);
    r.aio(2, ADDR + 0x10_0000, 1000);
    assert!(r.work_begin());
    r.work_end(Some(Errno::EFAULT));
    assert_eq!(ended(&r, 1), Some(Err(Errno::EFAULT)));
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 2), Some(Ok(1000)), "the next goes on");
}

#[test]
fn fault_in_the_middle_gives_the_short_count() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 1 << 20;
    r.aio(1, ADDR, PIECE + 500);
    assert!(r.work_begin());
    r.work_end(None);
    // The piece ahead fails; nothing is told yet.
    assert!(r.work_begin());
    r.work_end(Some(Errno::EFAULT));
    assert_eq!(ended(&r, 1), None);
    for _ in 0..10_000 {
        if sent(&r) == PIECE as u64 {
            break;
        }
        r.ack(1);
    }
    assert!(r.work_begin(), "asked again when it is needed");
    r.work_end(Some(Errno::EFAULT));
    assert_eq!(ended(&r, 1), None, "still in flight");
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(PIECE)));
}

#[test]
fn no_budget_is_retried() {
    let mut r = Rig::up();
    r.os.budget = 0;
    r.aio(1, ADDR, 1000);
    assert!(!r.work_begin());
    assert!(r.os.retries > 0);
    assert!(!r.work_begin());
    assert_eq!(ended(&r, 1), None);
    r.os.budget = 100;
    r.retry();
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(1000)));
}

#[test]
fn a_small_budget_makes_small_pieces() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 1 << 20;
    r.os.budget = 40;
    r.aio(1, ADDR, 1_000_000);
    for _ in 0..1000 {
        if ended(&r, 1).is_some() {
            break;
        }
        r.work();
        r.ack(1);
    }
    assert_eq!(ended(&r, 1), Some(Ok(1_000_000)));
    assert_eq!(r.os.users_total(), 0);
    // Enough again: the next goes in one piece.
    r.os.budget = u32::MAX;
    r.retry();
    r.aio(2, ADDR, 900_000);
    r.work();
    assert_eq!(r.os.used(), 900_000);
}

#[test]
fn no_mbuf_is_retried() {
    let mut r = Rig::up();
    r.os.no_mbuf = 2;
    r.aio(1, ADDR, 1000);
    r.work();
    assert_eq!(sent(&r), 0);
    assert!(r.os.retries > 0);
    r.retry();
    r.retry();
    assert_eq!(sent(&r), 1000);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(1000)));
}

#[test]
fn no_credits_is_no_loss() {
    let mut r = Rig::with_credits(12);
    r.aio(1, ADDR, 300_000);
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(300_000)));
    assert_eq!(sent(&r), 300_000);
}

#[test]
fn a_writer_inside_is_not_cut_in_two() {
    let mut r = Rig::up();
    r.os.io_busy = true;
    r.aio(1, ADDR, 1000);
    r.work();
    assert_eq!(sent(&r), 0);
    assert!(r.os.kicks > 1);
    assert!(r.os.retries > 0, "and if no worker finds the lock free");
    r.os.io_busy = false;
    r.work();
    assert_eq!(sent(&r), 1000);
}

#[test]
fn an_ack_finds_the_lock_free() {
    let mut r = Rig::up();
    r.write(5000);
    r.os.io_busy = true;
    r.aio(1, ADDR, 1000);
    r.work();
    r.os.io_busy = false;
    r.ack(1);
    assert_eq!(sent(&r), 6000);
}

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
    r.os.budget = 0;
    r.aio(2, ADDR, 1000);
    assert!(!r.work_begin());
    r.os.budget = 100;
    r.aio(3, ADDR + 0x10_0000, 1000);
    r.cancel(2);
    r.retry();
    r.work();
    r.ack_all();
    assert_eq!(ended(&r, 3), Some(Ok(1000)));
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

#[test]
fn many_buffers_leave_page_sets_for_reads() {
    // The peer reads nothing: no acknowledgement, so_snd is large enough for all.
    let mut r = Rig::with_credits(255);
    r.set_cache(8);
    r.os.hiwat = 1 << 20;
    for id in 1..=30 {
        r.aio(id, 0x10_0000 * id as u64, 100);
    }
    r.work();
    assert_eq!(sent(&r), 400, "four sets of eight");
    r.ack_all();
    for _ in 0..100 {
        r.work();
        r.ack_all();
    }
    assert_eq!(sent(&r), 3000);
    assert_eq!(r.os.order, (1..=30).collect::<Vec<_>>());
}

#[test]
fn the_first_job_gets_the_set_of_a_later_one() {
    let mut r = Rig::up();
    r.set_cache(8);
    // Four buffers cached.
    for id in 1..=4 {
        r.aio(id, 0x10_0000 * id as u64, 100);
        r.work();
        r.ack_all();
    }
    r.os.hiwat = 4096;
    r.write(4096);
    // A new buffer first, then the cached ones: all sets writes may use are taken by hits.
    r.aio(10, 0x90_0000, 100);
    for id in 1..=4 {
        r.aio(10 + id, 0x10_0000 * id as u64, 100);
    }
    r.work();
    r.ack_all();
    for _ in 0..10 {
        r.work();
        r.ack_all();
    }
    assert_eq!(r.os.order, [1, 2, 3, 4, 10, 11, 12, 13, 14]);
}

/// Seeded schedules of everything at once; I1, I2, I3, I5, I8 after each step.
#[test]
fn any_schedule() {
    seeds(400, |seed| schedule(&mut Rng::new(seed)));
}

fn schedule(g: &mut Rng) -> Result<(), String> {
    let mut r = Rig::with_credits(g.range(16, 255) as u16);
    r.os.hiwat = g.range(3000, 300_000) as u32;
    r.os.lowat = g.range(1, 4096) as u32;
    r.os.auto_max = if g.one_in(2) { 1 << 20 } else { 0 };
    r.os.nonblocking = g.one_in(4);
    if g.one_in(2) {
        r.set_cache(g.range(1, 16) as u16);
    }
    let mut jobs: Vec<usize> = Vec::new();
    let mut declined = 0;
    let mut next = 1;
    let mut late = 0;
    let steps = g.range(20, 300);
    for step in 0..steps {
        match g.below(40) {
            0..8 => {
                let addr = 0x40_0000 * g.range(1, 12) + if g.one_in(2) { 0 } else { g.below(5000) };
                let len = match g.below(4) {
                    0 => g.range(1, 100),
                    1 => g.range(1, 5000),
                    2 => g.range(1, 70_000),
                    _ => g.range(1, 900_000),
                };
                // Mostly the same lengths, so that the cache hits.
                let len = if g.one_in(2) { 65_536 } else { len };
                if g.one_in(30) {
                    r.os.cancelled.insert(next);
                }
                let job = FJob::new(next, addr, len as usize);
                if r.conn.aio_write(&mut r.os, job).is_ok() {
                    jobs.push(next);
                } else {
                    declined += 1;
                }
                next += 1;
            }
            8..12 if !r.os.dropped && !r.os.snd_shut => {
                r.os.append(g.range(1, 9000) as u32, true);
                r.os.more_to_come = g.one_in(5);
                r.conn.output(&mut r.os);
            }
            12..18 => {
                if r.pending.is_none() {
                    r.pending = r.conn.want_pages(&mut r.os);
                } else {
                    let err = g.one_in(12).then_some(Errno::EFAULT);
                    r.work_end(err);
                }
            }
            18..26 => r.ack(g.range(1, 6) as usize),
            26..29 if !jobs.is_empty() => {
                let id = jobs[g.below(jobs.len() as u64) as usize];
                r.conn.cancel(&mut r.os, crate::os::JobId(id));
            }
            29 => r.os.no_wr = g.below(4) as u32,
            30 => r.os.no_mbuf = g.below(4) as u32,
            31 => r.os.io_busy = !r.os.io_busy,
            32 => r.os.budget = [3, 20, 100, u32::MAX, u32::MAX][g.below(5) as usize],
            33 | 34 => {
                let o = r.conn.retry(&mut r.os);
                follow(&mut r, o)?;
            }
            35 => r.os.generation += 1,
            36 => {
                r.os.nonblocking = !r.os.nonblocking;
            }
            37 if step > steps / 2 && late == 0 => {
                late = g.range(1, 4);
                match late {
                    1 if !r.os.dropped => r.shutdown(),
                    2 => r.abort_req(20),
                    3 if !r.os.dropped => r.drop_now(),
                    _ => r.abort_req(35),
                }
            }
            _ => {}
        }
        r.try_check().map_err(|e| format!("step {step}: {e}"))?;
    }
    // Shortages end; everything comes to rest.
    r.os.no_wr = 0;
    r.os.no_mbuf = 0;
    r.os.io_busy = false;
    r.os.budget = u32::MAX;
    for _ in 0..100_000 {
        let o = r.conn.retry(&mut r.os);
        follow(&mut r, o)?;
        while r.pending.is_some() || r.work_begin() {
            r.work_end(None);
        }
        let aborting = r.count(|w| matches!(w, Wr::AbortReq { .. })) > 0;
        if aborting || r.os.outstanding() == 0 {
            break;
        }
        r.ack(g.range(1, 4) as usize);
    }
    r.try_check()?;
    if r.finals == 0 {
        if r.count(|w| matches!(w, Wr::AbortReq { .. })) > 0 {
            r.abort_rpl();
        } else if r.os.jobs_open() > 0 {
            return Err(format!(
                "{} jobs never end: {}",
                r.os.jobs_open(),
                r.conn.tx.writes.story(&r.os)
            ));
        } else {
            if !r.os.snd_shut {
                r.shutdown();
            }
            r.close_con_rpl();
            r.peer_close();
        }
    }
    r.try_check()?;
    if r.os.ended.len() != jobs.len() || jobs.len() + declined != next - 1 {
        return Err(format!("{} jobs, {} ends", jobs.len(), r.os.ended.len()));
    }
    if r.finals != 1 {
        return Err("no final CPL".into());
    }
    if r.os.counter(Counter::BadCpl) != 0 {
        return Err("bad CPL".into());
    }
    r.nothing_left();
    Ok(())
}

fn follow(r: &mut Rig, o: crate::conn::Outcome) -> Result<(), String> {
    r.follow(o);
    r.try_check()
}
