//! Hazard 4: writes that wait for room when the connection ends, and writes behind a lock.

use toehold_core::errno::Errno;
use toehold_sim::world::EndConf;

use crate::help::{MS, SEC, finish, got, pair, pair_with, quiet, sent, wait, write};

fn small() -> EndConf {
    EndConf {
        rcv: 32 << 10,
        snd: 32 << 10,
        ..EndConf::default()
    }
}

#[test]
fn end_when_the_peer_resets() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 1, small(), small());
    let ids: Vec<_> = (0..4).map(|_| write(&mut w, a, 6 << 20)).collect();
    w.run_for(5 * MS);
    assert!(w.jobs(a).len() == 4, "they wait for the window");
    w.reset(b);
    quiet(&mut w, a);
    assert!(matches!(w.result(a, ids[0]), Some(Ok(n)) if n > 0 && n < 6 << 20));
    assert!(matches!(
        w.result(a, ids[3]),
        Some(Err(Errno::ECONNRESET | Errno::EPIPE))
    ));
    finish(w, a, b);
}

#[test]
fn end_when_we_reset() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 2, small(), small());
    for _ in 0..4 {
        write(&mut w, a, 6 << 20);
    }
    w.run_for(5 * MS);
    w.reset(a);
    quiet(&mut w, a);
    finish(w, a, b);
}

#[test]
fn end_when_a_writer_holds_the_lock() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 3, small(), small());
    w.write_blocking(a, 1 << 20);
    w.run_for(5 * MS);
    let id = write(&mut w, a, 8192);
    w.run_for(5 * MS);
    assert_eq!(w.result(a, id), None);
    w.reset(b);
    wait(&mut w, a, id).expect_err("nothing was sent");
    finish(w, a, b);
}

#[test]
fn a_blocked_writer_costs_no_spinning() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 4, small(), small());
    w.lat.worker = (0, 0);
    w.write_blocking(a, 1 << 20);
    w.run_for(MS);
    let id = write(&mut w, a, 8192);
    let before = w.steps;
    w.run_for(20 * MS);
    assert!(
        w.steps - before < 5_000,
        "{} steps in 20 ms",
        w.steps - before
    );
    while w.result(a, id).is_none() {
        w.read(b, 1 << 20);
        assert!(w.step());
    }
    finish(w, a, b);
}

#[test]
fn wait_for_the_writer_and_go_behind_it() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 5, small(), small());
    w.write_blocking(a, 300_000);
    let id = write(&mut w, a, 8192);
    while w.result(a, id).is_none() {
        w.read(b, 1 << 20);
        assert!(w.step(), "{}", w.story());
    }
    assert_eq!(w.result(a, id), Some(Ok(8192)));
    assert_eq!(sent(&w, a), 308_192);
    w.run_until("all", SEC, |w| {
        w.ends[b].os.sock.rcv.len() as u64 + got(w, b) == 308_192
    });
    w.read(b, 1 << 20);
    finish(w, a, b);
}

#[test]
fn shutdown_ends_what_is_not_sent() {
    let (mut w, a, b) = pair_with(t5sim::Config::default(), 6, small(), small());
    let ids: Vec<_> = (0..3).map(|_| write(&mut w, a, 6 << 20)).collect();
    w.run_for(5 * MS);
    w.shutdown_wr(a);
    while !w.jobs(a).is_empty() {
        w.read(b, 1 << 20);
        assert!(w.step(), "{}", w.story());
    }
    assert!(matches!(w.result(a, ids[0]), Some(Ok(n)) if n > 0));
    assert_eq!(w.result(a, ids[2]), Some(Err(Errno::EPIPE)));
    finish(w, a, b);
}

#[test]
fn a_watched_job_ends_after_the_worker_has_come() {
    // The pages of a write are found in the cache while a worker holds them once more.
    let (mut w, a, b) = pair(7);
    let same = w.bufs.add_constant(w.ends[a].host, 40_000, 4, 5);
    w.lat.hold = (MS, 3 * MS);
    for round in 0..10 {
        for _ in 0..6 {
            w.aio_write(a, same, 0, 40_000);
        }
        w.mem.borrow_mut().touch(w.ends[a].host);
        while !w.jobs(a).is_empty() || got(&w, b) < (round + 1) * 240_000 {
            w.read(b, 1 << 20);
            assert!(w.step(), "{}", w.story());
        }
    }
    finish(w, a, b);
}
