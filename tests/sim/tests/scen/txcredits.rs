//! Hazard 11: transmit credits.

use t5sim::Config;
use toehold_core::os::Counter;

use crate::help::{MS, US, bufs, finish, pair, pair_with, post, quiet, send, write};

fn few() -> Config {
    Config {
        tx_credits: 38,
        ..Config::default()
    }
}

#[test]
fn few_of_them() {
    let (mut w, a, b) = pair_with(few(), 1, Default::default(), Default::default());
    let dst = bufs(&mut w, b, 3, 256 << 10);
    post(&mut w, b, &dst);
    let ids: Vec<_> = (0..6).map(|_| write(&mut w, a, 300_000)).collect();
    send(&mut w, a, b, &ids, &dst);
    finish(w, a, b);
}

#[test]
fn fin_while_suspended() {
    let (mut w, a, b) = pair_with(few(), 2, Default::default(), Default::default());
    let id = write(&mut w, a, 200_000);
    w.run_until("queued", crate::help::SEC, |w| {
        crate::help::sent(w, a) == 200_000
    });
    w.shutdown_wr(a);
    let dst = bufs(&mut w, b, 3, 30_000);
    send(&mut w, a, b, &[id], &dst);
    w.run_until("end", crate::help::SEC, |w| w.ends[b].eof);
    finish(w, a, b);
}

#[test]
fn the_ring_wraps() {
    let (mut w, a, b) = pair(3);
    for _ in 0..3_000 {
        w.write(a, 20);
        w.step();
        w.read(b, 1 << 20);
    }
    assert!(w.ends[a].os.counter(Counter::Wrs) > 300, "no wrap");
    while crate::help::got(&w, b) < crate::help::sent(&w, a) {
        w.read(b, 1 << 20);
        assert!(w.step());
    }
    finish(w, a, b);
}

#[test]
fn acknowledgements_during_an_abort() {
    for at in 0..40 {
        let (mut w, a, b) = pair_with(few(), 4, Default::default(), Default::default());
        for _ in 0..4 {
            write(&mut w, a, 100_000);
        }
        w.run_for(30 * US + at * 2 * US);
        w.reset(if at % 2 == 0 { a } else { b });
        quiet(&mut w, a);
        finish(w, a, b);
    }
}

#[test]
fn pages_are_kept_for_the_last_retransmission() {
    let mut cfg = Config {
        rto: 500_000,
        ..Config::default()
    };
    cfg.faults.retransmit_delay = 2 * MS;
    let (mut w, a, b) = pair_with(cfg, 5, Default::default(), Default::default());
    let dst = bufs(&mut w, b, 3, 64 << 10);
    for round in 0..5 {
        let id = write(&mut w, a, 60_000);
        w.run_for(30 * US);
        w.card.drop_segments(1 + round);
        send(&mut w, a, b, &[id], &dst);
    }
    assert!(w.card.stats().rexmt_bytes > 0);
    finish(w, a, b);
}

#[test]
fn plain_and_zero_copy_writes_mixed() {
    let (mut w, a, b) = pair_with(few(), 6, Default::default(), Default::default());
    let dst = bufs(&mut w, b, 3, 64 << 10);
    for i in 0..30 {
        let id = write(&mut w, a, 1 + i * 3_000);
        w.write(a, 700);
        w.write(a, 30);
        send(&mut w, a, b, &[id], &dst);
    }
    finish(w, a, b);
}

#[test]
fn a_nonblocking_socket_writes_what_fits() {
    let c = toehold_sim::world::EndConf {
        nonblocking: true,
        snd: 64 << 10,
        ..Default::default()
    };
    let (mut w, a, b) = pair_with(Config::default(), 7, c, Default::default());
    let dst = bufs(&mut w, b, 3, 64 << 10);
    let mut whole = 0;
    for _ in 0..5 {
        let id = write(&mut w, a, 8 << 20);
        send(&mut w, a, b, &[id], &dst);
        whole += w.result(a, id).expect("ended").expect("something fits");
    }
    assert!(whole > 0 && whole < 40 << 20);
    finish(w, a, b);
}

#[test]
fn none_come_after_the_last_word() {
    for at in 0..30 {
        let cfg = Config {
            credit_delay: MS,
            ..Config::default()
        };
        let (mut w, a, b) = pair_with(cfg, 8, Default::default(), Default::default());
        write(&mut w, a, 3_000);
        w.run_for(at * 3 * US);
        match at % 3 {
            0 => w.reset(a),
            1 => w.reset(b),
            _ => {
                w.shutdown_wr(a);
                w.shutdown_wr(b);
            }
        }
        quiet(&mut w, a);
        finish(w, a, b);
    }
}
