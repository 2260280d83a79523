//! What [`Tx::check`] says of states that cannot be, and moments too rare for other tests.

use crate::aiotx::PIECE;
use crate::errno::Errno;
use crate::os::{Job, JobQueue, Os};
use crate::tests_tx::aio::{ADDR, ended, sent};
use crate::tests_tx::fake::FJob;
use crate::tests_tx::rig::Rig;

fn verdict(r: &Rig, aborting: bool) -> Result<(), &'static str> {
    r.conn.tx.check(&r.conn.sh, &r.os, aborting)
}

/// One job sent, one parked with its pages.
fn rig() -> Rig {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 100_000;
    r.aio(1, ADDR, 60_000);
    r.aio(2, ADDR + 0x100_0000, 200_000);
    r.work();
    assert_eq!(verdict(&r, false), Ok(()));
    r
}

#[test]
fn the_check_sees_jobs_that_should_have_ended() {
    let r = rig();
    assert_eq!(
        verdict(&r, true),
        Err("a write job is parked on an aborted connection")
    );
    let mut r = rig();
    r.conn.tx.acked = r.conn.tx.acked.wrapping_add(60_000);
    assert_eq!(
        verdict(&r, false),
        Err("an acknowledged write job has not ended")
    );
}

#[test]
fn the_check_sees_page_sets_without_users() {
    let mut r = rig();
    let slot = r.conn.tx.writes.parked.front().and_then(Job::slot);
    let slot = slot.expect("a page set");
    while r.os.slot_users(slot) > 0 {
        r.os.slot_unuse(slot);
    }
    assert_eq!(
        verdict(&r, false),
        Err("a write job's page set has no user")
    );
    let mut r = rig();
    r.os.slot_use(15);
    let job = r.conn.tx.writes.parked.front_mut().expect("a job");
    job.set_slot(Some(15));
    assert_eq!(verdict(&r, false), Err("a write job's page set is empty"));
}

#[test]
fn the_check_sees_what_earlier_pieces_use() {
    let two_pieces = || {
        let mut r = Rig::with_credits(255);
        r.os.hiwat = PIECE as u32 + 5000;
        r.aio(1, ADDR, 2 * PIECE);
        r.work();
        let left = r.conn.tx.writes.left.iter().flatten().next().copied();
        (r, left.expect("an earlier piece"))
    };
    let (mut r, (slot, _)) = two_pieces();
    let slot = slot.get() - 1;
    while r.os.slot_users(slot) > 0 {
        r.os.slot_unuse(slot);
    }
    assert_eq!(verdict(&r, false), Err("a page set in flight has no user"));
    let (mut r, (_, mark)) = two_pieces();
    r.conn.tx.acked = mark;
    assert_eq!(
        verdict(&r, false),
        Err("an acknowledged page set is still used")
    );
}

#[test]
fn the_check_sees_too_many_page_sets_and_lost_bytes() {
    let mut r = Rig::with_credits(255);
    for id in 1..=16 {
        r.aio(id, ADDR + 0x10_0000 * id as u64, 5000);
        r.work();
        r.ack_all();
    }
    assert_eq!(verdict(&r, false), Ok(()));
    for slot in 0..16 {
        r.os.slot_use(slot);
    }
    assert_eq!(
        verdict(&r, false),
        Err("writes leave no page sets for reads")
    );
    let mut r = rig();
    r.conn.sh.seq.snd_nxt = r.conn.sh.seq.snd_nxt.wrapping_add(1);
    assert_eq!(
        verdict(&r, false),
        Err("bytes in flight and sequence numbers disagree")
    );
}

/// A non-blocking job whose next piece a worker holds, and that ended short meanwhile.
fn short_and_watched() -> Rig {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = PIECE as u32 + 5000;
    r.aio(1, ADDR, PIECE + 1000);
    r.os.nonblocking = true;
    assert!(r.work_begin());
    r.work_end(None);
    assert!(r.work_begin(), "for the next piece");
    // write(2) takes the room.
    r.os.append(5000, true);
    r.retry();
    assert_eq!(r.conn.tx.writes.sent.len(), 1);
    r
}

#[test]
fn pages_for_a_job_that_ended_short() {
    for err in [None, Some(Errno::EFAULT)] {
        let mut r = short_and_watched();
        // Acknowledged, but the worker has the job in its hands.
        r.ack_all();
        assert_eq!(ended(&r, 1), None);
        r.work_end(err);
        assert_eq!(ended(&r, 1), Some(Ok(PIECE)));
    }
}

#[test]
fn a_job_that_a_worker_looks_at_is_not_let_go() {
    let mut r = short_and_watched();
    r.os.leaving.insert(1);
    assert!(!r.cancel(1));
    r.retry();
    assert_eq!(ended(&r, 1), None);
    r.work_end(None);
    r.retry();
    assert_eq!(ended(&r, 1), Some(Ok(PIECE)));
}

#[test]
fn the_connection_ends_while_a_worker_looks_at_a_job_that_is_sent() {
    let mut r = short_and_watched();
    r.abort_req(20);
    assert_eq!(ended(&r, 1), None);
    r.work_end(None);
    assert_eq!(ended(&r, 1), Some(Ok(PIECE)));
    r.nothing_left();
}

#[test]
fn a_copy_for_a_job_that_ended_short() {
    for err in [None, Some(Errno::EFAULT)] {
        let mut r = Rig::with_credits(255);
        r.os.nonblocking = true;
        r.os.hiwat = 100_000;
        r.os.budget = 0;
        r.aio(1, ADDR, 110_000);
        assert!(r.work_begin());
        r.work_end(None);
        assert!(r.work_begin());
        r.os.append(40_000, true);
        r.retry();
        r.work_end(err);
        assert_eq!(ended(&r, 1), Some(Ok(65_536)));
    }
}

#[test]
fn answers_that_nobody_asked_for() {
    let mut r = Rig::with_credits(255);
    r.os.budget = 0;
    r.aio(1, ADDR, 5000);
    assert!(r.work_begin());
    assert!(r.conn.want_pages(&mut r.os).is_none(), "one at a time");
    let want = r.pending.take().expect("a want");
    r.conn.copied(&mut r.os, &want, Ok(want.len));
    assert_eq!(ended(&r, 1), Some(Ok(5000)));
    r.conn.copied(&mut r.os, &want, Ok(want.len));
    let (tx, sh) = (&mut r.conn.tx, &mut r.conn.sh);
    tx.pages_ready(sh, &mut r.os, want.ticket, Err(Errno::EFAULT));
    r.ack_all();
    assert_eq!(sent(&r), 5000);
    r.check();
}

/// Jobs are known by the address of their kaiocb, which another job may have next.
#[test]
fn a_job_at_the_address_of_an_earlier_one() {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 1 << 20;
    for round in 0..2 {
        r.aio(1, ADDR, PIECE + 1000);
        let mut asked = 0;
        while r.work_begin() {
            asked += 1;
            r.work_end(None);
        }
        assert_eq!(asked, 2, "round {round}: this piece, and the next ahead");
        r.ack_all();
        assert_eq!(r.os.ended.remove(&1), Some(Ok(PIECE + 1000)));
        if round == 0 {
            r.os.remap();
        }
    }
    // All of it is in the cache: nothing to ask for.
    r.aio(1, ADDR, PIECE + 1000);
    assert_eq!(r.conn.tx.writes.ahead, None);
    r.ack_all();
    assert_eq!(ended(&r, 1), Some(Ok(PIECE + 1000)));
}

#[test]
fn the_socket_is_shut_before_the_connection_hears_of_it() {
    let mut r = rig();
    r.os.snd_shut = true;
    r.retry();
    assert!(r.conn.tx.writes.parked.is_empty());
    r.ack_all();
    assert_eq!(ended(&r, 2), Some(Ok(40_000)));
    assert!(
        r.conn
            .aio_write(&mut r.os, FJob::new(3, ADDR, 5000))
            .is_err()
    );
}
