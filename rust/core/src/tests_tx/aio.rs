//! aio_write from held pages (upstream hazards 4, 6, 7, 11, 14).

use std::vec::Vec;

use super::fake::{LOOKS, Wr};
use super::rig::Rig;
use crate::aiotx::PIECE;
use crate::errno::Errno;
use crate::os::Counter;

pub(crate) const ADDR: u64 = 0x10_0123;

/// Bytes sent so far.
pub(crate) fn sent(r: &Rig) -> u64 {
    r.os.wrs
        .iter()
        .map(|w| match w {
            Wr::Data { plen, .. } => u64::from(*plen),
            _ => 0,
        })
        .sum()
}

pub(crate) fn ended(r: &Rig, id: usize) -> Option<Result<usize, Errno>> {
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
fn another_mapping_is_another_buffer() {
    let mut r = Rig::up();
    r.aio(1, ADDR, 10_000);
    r.work();
    r.os.remap();
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

/// Jobs looked at by one request for pages, with `n` more writes of one buffer behind the first.
fn looks(n: usize) -> u64 {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 32_768;
    r.aio(1, ADDR, 32_768);
    assert!(r.work_begin());
    for id in 2..2 + n {
        r.aio(id, ADDR, 32_768);
    }
    // The pages are here: all of them could have the set.
    r.work_end(None);
    let before = LOOKS.get();
    assert!(!r.work_begin());
    LOOKS.get() - before
}

#[test]
fn a_step_does_not_look_at_all_of_a_long_queue() {
    let (some, many) = (looks(128), looks(4096));
    assert_eq!(some, many, "jobs looked at");
    assert!(many < 5000, "{many} jobs looked at");
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
        assert_eq!(r.os.slots_used(), 2);
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
    assert_eq!(ended(&r, 1), None, "perhaps they can be copied");
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
    while !r.work_begin() {
        r.ack(1);
    }
    r.work_end(Some(Errno::EFAULT));
    assert_eq!(ended(&r, 1), None, "still in flight");
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(PIECE)));
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
