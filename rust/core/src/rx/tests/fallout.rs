//! Data with `ddp_off` while buffers are posted: the adapter fell out of DDP, or it held the
//! message back since before DDP was on. Only its word about a buffer ends its use of the pages.

use std::vec::Vec;

use wire::{CplStatus, SetTcbRpl};

use super::bench::Bench;
use super::card::Cpl;
use crate::done::CardDone;
use crate::os::Os;

/// Some page set has a user.
fn held(b: &Bench) -> bool {
    b.os.users.iter().any(|n| *n > 0)
}

/// The adapter tells late what it held back, and fills the posted buffer meanwhile.
#[test]
fn a_message_held_back_leaves_the_buffer_to_the_adapter() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.held_back(100);
    b.deliver();
    assert!(b.pending(r), "the adapter may still write to its pages");
    assert!(held(&b), "its pages are let go");
    assert!(!b.rx.answered(), "the adapter was not asked for the buffer");
    // It does write.
    b.card.recv(50, false);
    b.settle();
    b.expect(r, 150);
    b.finish();
}

#[test]
fn bytes_placed_before_a_fall_out_wait_for_the_reply() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(30, false);
    b.card.fall_out();
    b.card.recv(70, false);
    b.deliver();
    assert!(b.pending(r));
    assert_eq!(b.os.rcv_avail(), 0, "they precede what has come");
    b.settle();
    b.expect(r, 30);
    let r = b.read_new(70);
    b.settle();
    b.expect(r, 70);
    b.finish();
}

/// Two buffers, the first full, and more behind: all in order.
#[test]
fn a_fall_out_over_two_buffers() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.recv(5000, false);
    b.card.fall_out();
    b.card.recv(100, false);
    b.card.recv(100, true);
    b.settle();
    b.expect(r0, 4096);
    b.expect(r1, 904);
    let r = b.read_new(200);
    b.settle();
    b.expect(r, 200);
    b.finish();
}

/// The last word comes before the reply about the buffer: nothing that is known is lost.
#[test]
fn the_connection_ends_before_the_reply() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(30, false);
    b.card.fall_out();
    b.card.recv(70, false);
    b.deliver();
    assert!(b.pending(r));
    b.rx.fail_all(&mut b.sh, &mut b.os, None, &CardDone::for_test());
    b.expect(r, 30);
    b.finish();
}

fn replies(b: &mut Bench) -> Vec<SetTcbRpl> {
    let all: Vec<Cpl> = b.card.out.drain(..).collect();
    all.into_iter()
        .filter_map(|c| match c {
            Cpl::Rpl(r) => Some(r),
            _ => None,
        })
        .collect()
}

/// A reply that cannot be believed is a reply all the same: no other is waited for.
#[test]
fn a_reply_is_counted_before_it_is_judged() {
    for wrong in [0, 1] {
        let mut b = Bench::ddp_on();
        let r = b.read_new(4096);
        b.settle();
        assert!(b.cancel(r.id));
        b.exec();
        let mut rpl = replies(&mut b).pop().expect("a reply is due");
        assert!(!b.rx.answered());
        match wrong {
            0 => rpl.status = CplStatus(1),
            _ => rpl.oldval = u64::MAX,
        }
        b.rx.set_tcb_rpl(&mut b.sh, &mut b.os, &rpl).unwrap_err();
        assert!(b.rx.answered(), "the tid would be kept for ever");
        assert!(b.pending(r), "its pages may still be written to");
        assert!(held(&b), "its pages are let go");
        b.check();
        b.finish();
    }
}
