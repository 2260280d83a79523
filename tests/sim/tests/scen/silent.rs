//! The adapter does not answer: every end is bounded in time, and what it may still use is held,
//! counted, and given back when it answers after all.

use t5sim::{Faults, Lose};
use toehold_core::errno::Errno;
use toehold_sim::world::World;

use crate::help::{MS, SEC, finish, pair_with, patient, placed, posted, quiet, read, wait, write};

/// Answers are waited for so long, ms.
const BOUND: u64 = 100;

const ALL: u32 = 1_000_000;

fn pair(seed: u64) -> (World, usize, usize) {
    let (mut w, a, b) = pair_with(patient(), seed, Default::default(), Default::default());
    w.bound = Some(BOUND);
    (w, a, b)
}

fn lose(w: &mut World, lose: Lose) {
    w.card.set_faults(Faults {
        lose,
        ..Faults::default()
    });
}

fn wired(w: &World, e: usize) -> u32 {
    w.mem.borrow().wired(w.ends[e].host).0
}

/// Both ends' sockets go, the adapter answers after all, and nothing is left.
fn answers_after_all(mut w: World, a: usize, b: usize) {
    for e in [a, b] {
        for id in w.jobs(e) {
            w.cancel(e, id);
        }
    }
    w.run_until("jobs", 20 * SEC, |w| {
        w.jobs(a).is_empty() && w.jobs(b).is_empty()
    });
    w.close(a);
    w.close(b);
    w.run_dry();
    w.check_orphans();
    w.find_lost();
    w.check_empty();
}

#[test]
fn no_answer_to_a_reset() {
    let (mut w, a, b) = pair(1);
    let ids = posted(&mut w, b, 2, 8192);
    lose(
        &mut w,
        Lose {
            abort_rpl_ppm: ALL,
            ..Lose::NONE
        },
    );
    w.reset(b);
    let began = w.now;
    assert_eq!(wait(&mut w, b, ids[0]), Err(Errno::EIO));
    let took = (w.now - began) / MS;
    assert!((BOUND..BOUND + 3).contains(&took), "{took} ms");
    assert_eq!(w.ends[b].os.orphaned, (1, 4));
    w.run_for(100 * SEC);
    assert_eq!(wired(&w, b), 4, "it never said that it is done");
    answers_after_all(w, a, b);
}

/// What is held is written to: the abort takes effect later than anybody waits.
#[test]
fn pages_are_held_while_bytes_are_placed() {
    let (mut w, a, b) = pair(2);
    let ids = posted(&mut w, b, 1, 64 << 10);
    w.card.set_faults(Faults {
        abort_delay: 3 * BOUND * MS,
        ..Faults::default()
    });
    w.reset(b);
    let r = wait(&mut w, b, ids[0]);
    let before = placed(&w, b);
    write(&mut w, a, 4096);
    w.run_until("placed", SEC, |w| placed(w, b) > before);
    assert_eq!(r, Err(Errno::EIO));
    assert_eq!(w.ends[b].os.orphaned, (1, 16));
    w.run_until("the answer", 10 * SEC, |w| w.ends[b].over);
    assert_eq!(w.ends[b].os.orphaned, (0, 0));
    finish(w, a, b);
}

/// The adapter fetches from the pages of a write that has ended.
#[test]
fn pages_are_held_while_bytes_are_fetched() {
    let (mut w, a, b) = pair(3);
    w.card.set_faults(Faults {
        abort_delay: 3 * BOUND * MS,
        ..Faults::default()
    });
    // Nothing is acknowledged, so all is sent again.
    w.card.drop_segments(8);
    let id = write(&mut w, a, 256 << 10);
    w.run_for(MS);
    w.reset(a);
    let r = wait(&mut w, a, id);
    assert_eq!(r, Err(Errno::EIO));
    assert!(w.ends[a].os.orphaned.1 >= 64);
    w.run_until("the answer", 10 * SEC, |w| w.ends[a].over);
    finish(w, a, b);
}

#[test]
fn no_answer_about_a_buffer() {
    let (mut w, a, b) = pair(4);
    let ids = posted(&mut w, b, 2, 8192);
    lose(
        &mut w,
        Lose {
            set_tcb_rpl_ppm: ALL,
            ..Lose::NONE
        },
    );
    let began = w.now;
    w.cancel(b, ids[0]);
    let r = wait(&mut w, b, ids[0]);
    assert!(r.is_err(), "{r:?}");
    assert!(w.now - began < 2 * BOUND * MS);
    // The reset was answered: that is a word about all.
    assert_eq!(w.ends[b].broken, Some(Errno::ECONNABORTED));
    assert_eq!(w.ends[b].os.orphaned, (0, 0));
    answers_after_all(w, a, b);
}

#[test]
fn no_answer_that_ddp_is_on() {
    let (mut w, a, b) = pair(5);
    lose(
        &mut w,
        Lose {
            set_tcb_rpl_ppm: ALL,
            ..Lose::NONE
        },
    );
    let id = read(&mut w, b, 8192);
    let r = wait(&mut w, b, id);
    assert!(r == Ok(0) || r == Err(Errno::ECONNABORTED), "{r:?}");
    answers_after_all(w, a, b);
}

#[test]
fn nobody_says_that_our_fin_is_acknowledged() {
    let (mut w, a, b) = pair(6);
    lose(
        &mut w,
        Lose {
            close_con_rpl_ppm: ALL,
            ..Lose::NONE
        },
    );
    w.close(a);
    w.close(b);
    let began = w.now;
    w.run_until("the end", 10 * SEC, |w| w.ends[a].over && w.ends[b].over);
    assert!(
        w.now - began < 5 * BOUND * MS,
        "{} ms",
        (w.now - began) / MS
    );
    answers_after_all(w, a, b);
}

#[test]
fn no_credits_come_back() {
    let (mut w, a, b) = pair(7);
    lose(
        &mut w,
        Lose {
            fw4_ack_ppm: ALL,
            ..Lose::NONE
        },
    );
    // More work requests than there are credits for: our FIN waits.
    for _ in 0..100 {
        w.write(a, 2000);
        w.run_for(MS / 100);
    }
    w.close(a);
    let began = w.now;
    w.run_until("the end", 10 * SEC, |w| {
        w.ends[a].broken.is_some() || w.ends[a].over
    });
    assert!(
        w.now - began < 5 * BOUND * MS,
        "{} ms",
        (w.now - began) / MS
    );
    answers_after_all(w, a, b);
}

/// Nothing at all is answered any more.
#[test]
fn a_dead_adapter() {
    let (mut w, a, b) = pair(8);
    let ids = posted(&mut w, b, 2, 8192);
    let t = write(&mut w, b, 100_000);
    lose(
        &mut w,
        Lose {
            set_tcb_rpl_ppm: ALL,
            abort_rpl_ppm: ALL,
            close_con_rpl_ppm: ALL,
            fw4_ack_ppm: ALL,
        },
    );
    w.run_for(MS);
    // As a process that exits, but for the write, which nobody can cancel.
    let began = w.now;
    for id in ids {
        w.cancel(b, id);
    }
    quiet(&mut w, b);
    assert!(w.now - began < 3 * BOUND * MS);
    assert_eq!(w.result(b, t), Some(Err(Errno::EIO)));
    assert!(w.ends[b].os.orphaned.1 > 0);
    answers_after_all(w, a, b);
}

/// A peer that does not read is no adapter that does not answer.
#[test]
fn a_slow_peer_is_waited_for() {
    let (mut w, a, b) = pair(9);
    w.write(a, 200 << 10);
    w.write(a, 200 << 10);
    w.close(a);
    w.run_for(100 * BOUND * MS);
    assert_eq!(w.ends[a].broken, None);
    assert!(w.ends[a].os.log.is_empty(), "{:?}", w.ends[a].os.log);
    let into = crate::help::bufs(&mut w, b, 4, 64 << 10);
    crate::help::drain(&mut w, a, b, &into);
    finish(w, a, b);
}
