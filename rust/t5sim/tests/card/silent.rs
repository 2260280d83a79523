//! Answers that the card does not give, and what it tells of a TCB's send sequence.

use crate::rig::*;
use t5sim::{Config, Faults, Lose};
use wire::Opcode;

const ALL: u32 = 1_000_000;

fn losing(lose: Lose) -> Faults {
    Faults {
        lose,
        ..Faults::default()
    }
}

#[test]
fn each_answer_is_lost_by_name_and_found_again() {
    let cases = [
        (
            Opcode::SetTcbRpl,
            Lose {
                set_tcb_rpl_ppm: ALL,
                ..Lose::NONE
            },
        ),
        (
            Opcode::AbortRplRss,
            Lose {
                abort_rpl_ppm: ALL,
                ..Lose::NONE
            },
        ),
        (
            Opcode::CloseConRpl,
            Lose {
                close_con_rpl_ppm: ALL,
                ..Lose::NONE
            },
        ),
        (
            Opcode::Fw4Ack,
            Lose {
                fw4_ack_ppm: ALL,
                ..Lose::NONE
            },
        ),
    ];
    for (op, lose) in cases {
        let mut r = Rig::new(Config::default());
        r.auto_abort = false;
        let (a, b) = r.connect();
        r.idle();
        let before = r.count(op, a);
        r.card.set_faults(losing(lose));
        match op {
            Opcode::SetTcbRpl => r.set_tcb(a, &wire::tcb::nagle(true), Some((RXQ_A, 2))),
            Opcode::AbortRplRss => r.abort(a),
            Opcode::CloseConRpl => r.close(a),
            _ => {
                r.send_pattern(a, 1, 0, 1000);
            }
        }
        r.run(50_000_000);
        assert_eq!(r.count(op, a), before, "{op:?}");
        let lost = r.card.stats().cpls_lost;
        assert!(lost > 0, "{op:?}");
        r.card.set_faults(Faults::default());
        let now = r.now;
        assert_eq!(r.card.find_lost(now) as u64, lost, "{op:?}");
        r.run(1_000_000);
        assert!(r.count(op, a) > before, "{op:?}");
        assert_eq!(r.card.find_lost(now), 0, "once");
        let _ = b;
    }
}

/// A tid that has changed hands gets no answer that was another's.
#[test]
fn what_was_lost_is_nobody_elses() {
    let mut r = Rig::new(Config::default());
    r.auto_abort = false;
    let (a, b) = r.connect();
    r.idle();
    r.card.set_faults(losing(Lose {
        set_tcb_rpl_ppm: ALL,
        ..Lose::NONE
    }));
    r.set_tcb(a, &wire::tcb::nagle(true), Some((RXQ_A, 2)));
    r.run(1_000_000);
    r.abort(a);
    r.wait_tid(Opcode::AbortRplRss, a);
    r.release(a);
    r.run(1_000_000);
    assert!(r.card.connection(a).is_none());
    let now = r.now;
    assert_eq!(r.card.find_lost(now), 0);
    let _ = b;
}

#[test]
fn an_abort_that_is_late_lets_data_come() {
    let mut r = Rig::new(Config::default());
    r.auto_abort = false;
    let (a, b) = r.connect();
    r.idle();
    r.card.set_faults(Faults {
        abort_delay: 5_000_000,
        ..Faults::default()
    });
    r.abort(b);
    r.send_pattern(a, 1, 0, 1000);
    r.run(1_000_000);
    assert_eq!(r.recv[&b].data, pattern(1, 0, 1000));
    assert_eq!(r.count(Opcode::AbortRplRss, b), 0);
    r.wait_tid(Opcode::AbortRplRss, b);
}

/// An update that changes nothing tells how far the peer has acknowledged.
#[test]
fn the_send_sequence_is_told() {
    let mut r = Rig::new(Config::default());
    let (a, b) = r.connect();
    r.idle();
    let ask = wire::TcbUpdate {
        word: wire::W_TX_MAX,
        mask: 0,
        value: 0,
    };
    let una = |r: &mut Rig| {
        r.set_tcb(a, &ask, Some((RXQ_A, 2)));
        let m = r.wait_tid(Opcode::SetTcbRpl, a);
        wire::snd_una(wire::SetTcbRpl::parse(&m.cpl).unwrap().oldval)
    };
    let first = r.card.connection(a).unwrap().snd_una;
    assert_eq!(una(&mut r), first);
    r.card.drop_segments(1);
    r.send_pattern(a, 1, 0, 1000);
    r.run(20_000);
    assert_eq!(una(&mut r), first, "sent, and lost");
    r.recv_bytes(b, 1000);
    r.idle();
    assert_eq!(una(&mut r), first.wrapping_add(1000));
}
