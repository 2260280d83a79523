//! Hazard 3: the connection goes while buffers are with the adapter. Every job ends once, and
//! not before the adapter is done with its pages.

use toehold_core::errno::Errno;
use toehold_core::os::Queue;

use crate::help::{MS, SEC, finish, pair, pair_with, patient, placed, posted, quiet, wait, write};

#[test]
fn reset_by_the_peer() {
    let (mut w, a, b) = pair(1);
    let ids = posted(&mut w, b, 4, 8192);
    w.reset(a);
    assert_eq!(wait(&mut w, b, ids[0]), Err(Errno::ECONNRESET));
    quiet(&mut w, b);
    finish(w, a, b);
}

#[test]
fn reset_by_ourselves() {
    let (mut w, a, b) = pair(2);
    let ids = posted(&mut w, b, 4, 8192);
    w.reset(b);
    // The adapter may still place bytes: nothing ends before it has answered.
    assert_eq!(w.result(b, ids[0]), None);
    quiet(&mut w, b);
    finish(w, a, b);
}

#[test]
fn reset_with_an_invalidate_under_way() {
    for delay in [0, 20_000, 200_000, 2_000_000] {
        let mut cfg = patient();
        cfg.faults.set_tcb_rpl_delay = delay;
        let (mut w, a, b) = pair_with(cfg, 3, Default::default(), Default::default());
        let ids = posted(&mut w, b, 2, 64 << 10);
        write(&mut w, a, 9_000);
        w.run_until("placed", SEC, |w| placed(w, b) > 0);
        w.cancel(b, ids[0]);
        w.reset(b);
        quiet(&mut w, b);
        quiet(&mut w, a);
        finish(w, a, b);
    }
}

#[test]
fn the_tid_is_kept_until_the_last_reply() {
    // A reply to CPL_SET_TCB_FIELD that is still to come must not find another connection.
    let mut cfg = patient();
    cfg.faults.set_tcb_rpl_delay = 5 * MS;
    let (mut w, a, b) = pair_with(cfg, 4, Default::default(), Default::default());
    let ids = posted(&mut w, b, 2, 64 << 10);
    for id in ids {
        w.cancel(b, id);
    }
    w.reset(a);
    w.run_until("jobs", SEC, |w| w.jobs(b).is_empty());
    let replies = w.ends[b].over;
    assert!(!replies, "the tid went before the replies came");
    finish(w, a, b);
}

#[test]
fn both_reset_at_once() {
    let (mut w, a, b) = pair(5);
    posted(&mut w, a, 2, 8192);
    posted(&mut w, b, 2, 8192);
    w.reset(a);
    w.reset(b);
    quiet(&mut w, a);
    quiet(&mut w, b);
    finish(w, a, b);
}

#[test]
fn reset_while_a_worker_holds_pages() {
    let (mut w, a, b) = pair(6);
    w.lat.hold = (3 * MS, 3 * MS);
    let r = crate::help::read(&mut w, b, 8192);
    let t = write(&mut w, b, 8192);
    w.run_for(MS);
    w.reset(a);
    w.run_for(MS);
    assert!(w.ends[b].over && w.result(b, r).is_none() && w.result(b, t).is_none());
    quiet(&mut w, b);
    let host = w.ends[b].host;
    assert_eq!(
        w.mem.borrow().wired(host),
        (0, 0),
        "kept for nobody while the socket is open"
    );
    finish(w, a, b);
}

/// A connection ends with page pods on their way to the adapter, and another of the other port
/// gets these pods: what the first had queued must not run behind what the second queues.
#[test]
fn page_pods_change_hands() {
    let mut cfg = patient();
    cfg.ppods = 16;
    let (mut w, a, b) = pair_with(cfg, 7, Default::default(), Default::default());
    let (c, d) = w.open(1, Default::default(), Default::default());
    assert_ne!(w.ends[b].host, w.ends[d].host);
    for e in [b, d] {
        for id in posted(&mut w, e, 1, 4096) {
            w.cancel(e, id);
        }
        quiet(&mut w, e);
        w.call(e, |conn, os| conn.relieve(os, None));
    }
    let host = w.ends[b].host;
    let q = w.egress(b, Queue::Ctrl);
    w.card.stall_queue(w.now, q, 2 * MS);
    let theirs = w.bufs.add(host, 192 << 10, 1);
    w.aio_read(b, theirs, 0, 192 << 10);
    w.run_for(MS / 2);
    w.reset(b);
    w.run_for(MS / 2);
    let ours = w.bufs.add(w.ends[d].host, 192 << 10, 1);
    let id = w.aio_read(d, ours, 0, 192 << 10);
    w.run_for(3 * MS);
    write(&mut w, c, 192 << 10);
    wait(&mut w, d, id).expect("data came");
    for e in [c, d] {
        quiet(&mut w, e);
        w.close(e);
    }
    finish(w, a, b);
}
