//! Processes that end while a peer does not read: nobody waits for it, and it gets all the same
//! what was queued (upstream hazard 2, invariant I9).

use std::cell::Cell;
use std::rc::Rc;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Exit, Signal};

use crate::help::{BIG, LATER, SOON, drain, drain_late, in_progress, peer, quiet, writer, writes};

#[test]
fn exit_with_bytes_in_flight_to_a_peer_that_does_not_read() {
    for seed in 300..306 {
        let bed = Bed::up(seed);
        let begun = Rc::new(Cell::new(false));
        let reads = Rc::clone(&begun);
        let r = peer(&bed, move |p, s| {
            p.sleep(LATER * 20);
            reads.set(true);
            drain(p, s, seed)
        });
        let w = writer(&bed, move |p, s| {
            // In flight, half queued, not begun; some cancelled before.
            let jobs = writes(p, s, seed, &[60_000, 60_000, BIG, 7000]);
            p.sleep(SOON);
            for cb in jobs.into_iter().take(seed as usize % 3) {
                let _ = p.aio_cancel(s, Some(cb)).unwrap();
            }
            p.sleep(SOON);
            p.exit(4)
        });
        let end: Exit<()> = w.wait();
        assert_eq!(end, Exit::Code(4));
        assert!(!begun.get(), "seed {seed}: the exit waited for the peer");
        assert!(bed.k.wired_pages() > 0, "the adapter may send them again");
        let got = r.join();
        assert!(got > 120_000, "seed {seed}: {got}");
        quiet(bed);
    }
}

#[test]
fn a_process_that_is_killed() {
    let bed = Bed::up(310);
    let r = peer(&bed, drain_late(310));
    let w = writer(&bed, |p, s| {
        let jobs = writes(p, s, 310, &[60_000, BIG]);
        let _ = p.aio_wait(jobs[1]);
    });
    bed.k.run_for(ukern::sched::SBT_1US * 20_000);
    w.kill(Signal::Kill).unwrap();
    let end: Exit<()> = w.wait();
    assert_eq!(end, Exit::Signal(Signal::Kill as i32));
    assert!(r.join() >= 60_000);
    quiet(bed);
}

#[test]
fn exec_with_bytes_in_flight() {
    let bed = Bed::up(311);
    let r = peer(&bed, |p, s| {
        p.sleep(LATER * 20);
        let begun = p.now();
        (begun, drain(p, s, 311))
    });
    let w = writer(&bed, |p, s| {
        let jobs = writes(p, s, 311, &[150_000, 50_000]);
        p.sleep(SOON);
        assert!(in_progress(p, jobs[0]));
        p.exec().unwrap();
        assert_eq!(p.aio_pending(), 0);
        let now = p.now();
        // The new program goes on where the old one was.
        p.send_all(s, &pattern::bytes(311, 200_000, 10_000))
            .unwrap();
        p.close(s).unwrap();
        now
    });
    let gone = w.join();
    let (begun, got) = r.join();
    assert!(gone < begun, "exec waited for the peer");
    assert_eq!(got, 210_000);
    quiet(bed);
}

#[test]
fn lost_segments_of_a_process_that_is_gone() {
    for seed in 320..326 {
        let bed = Bed::up(seed);
        bed.sim("loss", 50_000);
        bed.sim("rto", 2_000_000);
        bed.sim("retransmit_delay", 2_000_000);
        let r = peer(&bed, drain_late(seed));
        let w = writer(&bed, move |p, s| {
            writes(p, s, seed, &[60_000, 200_000]);
            p.sleep(SOON / 10);
            p.exit(0)
        });
        let end: Exit<()> = w.wait();
        assert_eq!(end, Exit::Code(0));
        assert!(r.join() > 0, "seed {seed}");
        bed.sim("loss", 0);
        quiet(bed);
    }
}

#[test]
fn a_reset_lets_go_of_the_pages_of_a_process_that_is_gone() {
    let bed = Bed::up(330);
    let r = peer(&bed, |p, s| {
        p.sleep(LATER);
        crate::help::reset(p, s);
    });
    let w = writer(&bed, |p, s| {
        writes(p, s, 330, &[60_000, BIG]);
        p.sleep(SOON);
        p.exit(0)
    });
    let end: Exit<()> = w.wait();
    assert_eq!(end, Exit::Code(0));
    assert!(bed.k.wired_pages() > 0);
    r.join();
    quiet(bed);
}
