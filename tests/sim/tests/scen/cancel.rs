//! Hazard 2: cancel against completion. Exactly one completion, no lost byte, the truth.

use t5sim::Faults;
use toehold_core::errno::Errno;

use crate::help::{
    MS, SEC, US, finish, got, pair, pair_with, patient, placed, posted, quiet, read, sent, wait,
    write,
};

const CANCELED: Result<usize, Errno> = Err(Errno::ECANCELED);

#[test]
fn of_a_queued_read() {
    let (mut w, a, b) = pair(1);
    let ids: Vec<_> = (0..4).map(|_| read(&mut w, b, 8192)).collect();
    w.cancel(b, ids[2]);
    w.cancel(b, ids[3]);
    assert_eq!(wait(&mut w, b, ids[2]), CANCELED);
    assert_eq!(wait(&mut w, b, ids[3]), CANCELED);
    write(&mut w, a, 16_384);
    assert_eq!(wait(&mut w, b, ids[0]), Ok(8192));
    assert_eq!(wait(&mut w, b, ids[1]), Ok(8192));
    finish(w, a, b);
}

#[test]
fn of_an_active_read_with_nothing_placed() {
    let (mut w, a, b) = pair(2);
    let ids = posted(&mut w, b, 2, 8192);
    w.cancel(b, ids[0]);
    assert_eq!(wait(&mut w, b, ids[0]), CANCELED);
    write(&mut w, a, 8192);
    assert_eq!(wait(&mut w, b, ids[1]), Ok(8192));
    finish(w, a, b);
}

#[test]
fn of_the_second_buffer() {
    let (mut w, a, b) = pair(3);
    let ids = posted(&mut w, b, 2, 8192);
    w.cancel(b, ids[1]);
    write(&mut w, a, 12_000);
    assert_eq!(wait(&mut w, b, ids[0]), Ok(8192));
    assert_eq!(wait(&mut w, b, ids[1]), CANCELED);
    let id = read(&mut w, b, 8192);
    assert_eq!(wait(&mut w, b, id), Ok(12_000 - 8192));
    finish(w, a, b);
}

#[test]
fn of_a_partly_filled_buffer_gives_the_short_count() {
    let (mut w, a, b) = pair_with(patient(), 4, Default::default(), Default::default());
    let ids = posted(&mut w, b, 1, 64 << 10);
    write(&mut w, a, 5_000);
    w.run_until("placed", SEC, |w| placed(w, b) == 5_000);
    w.cancel(b, ids[0]);
    assert_eq!(wait(&mut w, b, ids[0]), Ok(5_000));
    finish(w, a, b);
}

#[test]
fn twice_is_once() {
    let (mut w, a, b) = pair_with(patient(), 5, Default::default(), Default::default());
    let ids = posted(&mut w, b, 1, 64 << 10);
    w.cancel(b, ids[0]);
    w.call(b, |conn, os| conn.cancel(os, ids[0]));
    assert_eq!(wait(&mut w, b, ids[0]), CANCELED);
    finish(w, a, b);
}

#[test]
fn with_data_landing_before_the_reply() {
    for delay in [5, 20, 60, 200] {
        let mut cfg = patient();
        cfg.faults = Faults {
            invalidate_delay: delay * US,
            set_tcb_rpl_delay: 50 * US,
            ..Faults::default()
        };
        let (mut w, a, b) = pair_with(cfg, delay, Default::default(), Default::default());
        let ids = posted(&mut w, b, 2, 256 << 10);
        for _ in 0..10 {
            write(&mut w, a, 20_000);
        }
        w.run_until("placed", SEC, |w| placed(w, b) > 10_000);
        w.cancel(b, ids[0]);
        let n = wait(&mut w, b, ids[0]).expect("something had landed");
        assert!(n >= 10_000);
        // What came behind is still there.
        while got(&w, b) < sent(&w, a) {
            w.read(b, 1 << 20);
            assert!(w.step(), "{}", w.story());
        }
        finish(w, a, b);
    }
}

#[test]
fn with_the_connection_gone_before_the_reply() {
    let mut cfg = patient();
    cfg.faults.set_tcb_rpl_delay = 3 * MS;
    cfg.faults.invalidate_delay = MS;
    let (mut w, a, b) = pair_with(cfg, 6, Default::default(), Default::default());
    let ids = posted(&mut w, b, 2, 64 << 10);
    write(&mut w, a, 5_000);
    w.run_until("placed", SEC, |w| placed(w, b) == 5_000);
    w.cancel(b, ids[0]);
    w.cancel(b, ids[1]);
    w.reset(a);
    quiet(&mut w, b);
    finish(w, a, b);
}

#[test]
fn while_a_worker_holds_the_pages() {
    let (mut w, a, b) = pair(7);
    w.lat.hold = (MS, MS);
    let id = read(&mut w, b, 8192);
    w.run_for(100 * US);
    w.cancel(b, id);
    // The worker still looks at the job.
    assert_eq!(w.result(b, id), None);
    assert_eq!(wait(&mut w, b, id), CANCELED);
    let id = write(&mut w, a, 8192);
    w.run_for(100 * US);
    w.cancel(a, id);
    assert_eq!(wait(&mut w, a, id), CANCELED);
    finish(w, a, b);
}

#[test]
fn of_writes_parked_partly_sent_and_in_flight() {
    let (mut w, a, b) = pair(8);
    // Nobody reads: the window shuts.
    let flying = write(&mut w, a, 50_000);
    w.run_for(MS);
    let partly = write(&mut w, a, 20 << 20);
    w.run_for(MS);
    let parked = write(&mut w, a, 50_000);
    w.run_for(MS);
    for id in [flying, parked, partly] {
        w.cancel(a, id);
    }
    assert_eq!(wait(&mut w, a, parked), CANCELED);
    while got(&w, b) < sent(&w, a) {
        w.read(b, 1 << 20);
        assert!(w.step(), "{}", w.story());
    }
    assert_eq!(wait(&mut w, a, flying), Ok(50_000));
    let n = wait(&mut w, a, partly).expect("it had sent something");
    assert!(n > 0 && n < 20 << 20);
    finish(w, a, b);
}

#[test]
fn of_everything_at_every_moment() {
    for at in 0..60 {
        let mut cfg = patient();
        cfg.faults.invalidate_delay = 7 * US;
        cfg.push_timer = 20 * US;
        let (mut w, a, b) = pair_with(cfg, at, Default::default(), Default::default());
        let ids: Vec<_> = (0..4).map(|_| read(&mut w, b, 20_000)).collect();
        for _ in 0..3 {
            write(&mut w, a, 15_000);
        }
        w.run_for(at * 2 * US);
        for id in ids {
            w.cancel(b, id);
        }
        quiet(&mut w, b);
        while got(&w, b) < sent(&w, a) {
            w.read(b, 1 << 20);
            assert!(w.step(), "{}", w.story());
        }
        finish(w, a, b);
    }
}
