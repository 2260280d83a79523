//! Moments that the other tests do not meet, and what [`crate::rx::Rx::check`] must notice.

use super::bench::{Bench, SEQ};
use super::stream;
use crate::ddp::Buf;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::{Counter, Job};
use crate::txcredits::RING;

#[test]
fn a_dead_connection_declines_and_ignores() {
    let mut b = Bench::ddp_on();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    let job = b.os.job(0x1000, 100);
    let job = b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err();
    job.end();
    let sent = b.os.wrs.len();
    b.os.rcv_hiwat = 1 << 20;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    assert_eq!(b.os.wrs.len(), sent, "no credits for the dead");
    assert!(b.rx.served() && b.rx.answered());
    b.finish();
}

#[test]
fn served_and_answered() {
    let mut b = Bench::new();
    assert!(!b.rx.served() && b.rx.answered());
    let r = b.read_new(100);
    b.settle_work();
    assert!(!b.rx.answered(), "the reply to the enable is due");
    b.settle();
    assert!(b.rx.answered());
    assert!(b.cancel(r.id));
    assert!(!b.rx.answered(), "the reply to the invalidate is due");
    b.settle();
    assert!(b.rx.answered() && !b.rx.served());
    b.card.fin();
    b.settle();
    assert!(b.rx.served());
    b.finish();
}

#[test]
fn the_connection_ends_before_the_enable_is_answered() {
    let mut b = Bench::new();
    b.read_new(100);
    b.settle_work();
    b.rx.fail_all(&mut b.sh, &mut b.os, None, &CardDone::for_test());
    assert!(!b.rx.answered());
    b.settle();
    assert!(b.rx.answered());
    b.finish();
}

#[test]
fn a_read_behind_the_fin_is_claimed_while_others_wait() {
    let mut b = Bench::new();
    b.recv(50, false);
    b.os.reader_inside = true;
    let r0 = b.read_new(30);
    b.card.fin();
    b.settle();
    let (r1, r2) = (b.read_new(100), b.read_new(100));
    assert!(b.pending(r0));
    b.os.reader_inside = false;
    b.settle_retry();
    b.expect(r0, 30);
    b.expect(r1, 20);
    b.expect(r2, 0);
    b.finish();
}

#[test]
fn pages_that_came_another_way_make_a_failed_hold_harmless() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    let w = b.want().unwrap();
    // Another job of the same buffer, of whatever kind, had its pages held first.
    let job = b.os.job(r.addr, r.len);
    let t = b.sh.sets.reserve(&mut b.os, &job, w.key).unwrap();
    let pages = b.os.hold(&w);
    b.sh.sets.fill(&mut b.os, t, pages).unwrap();
    job.end();
    b.retry();
    assert!(!b.os.wrs.is_empty(), "it is posted");
    b.ready(w, Err(Errno::EFAULT));
    b.settle();
    b.recv(4096, false);
    b.expect(r, 4096);
    b.finish();
}

/// Two buffers have landed behind bytes in so_rcv, which a reader keeps.
fn two_landed(fin: bool) -> (Bench, [super::bench::Read; 2]) {
    let mut b = Bench::ddp_on();
    let reads = [b.read_new(200), b.read_new(200)];
    b.settle_work();
    b.card.recv(20, false);
    b.exec();
    b.os.reader_inside = true;
    b.card.recv(300, false);
    if fin {
        b.card.fin();
    }
    b.deliver();
    (b, reads)
}

#[test]
fn the_second_of_two_landed_buffers_is_cancelled() {
    for fin in [false, true] {
        let (mut b, [r0, r1]) = two_landed(fin);
        assert!(b.cancel(r1.id), "fin {fin}");
        b.os.reader_inside = false;
        b.settle_retry();
        b.expect(r0, 200);
        if fin {
            // It was in the queue again.
            assert_eq!(b.os.result(r1.id), Some(Err(Errno::ECANCELED)));
            assert_eq!(b.os.rcv.len(), 120);
        } else {
            b.expect(r1, 120);
        }
        b.finish();
    }
}

#[test]
fn a_job_that_goes_back_is_cancelled() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    // An empty report: the first goes first again, once the second is taken back.
    b.card.time_out();
    b.deliver();
    assert!(matches!(b.rx.bufs.at(b.rx.active), Buf::Back(_)));
    assert!(b.cancel(r0.id));
    assert_eq!(b.os.result(r0.id), Some(Err(Errno::ECANCELED)));
    b.settle();
    b.recv(4096, false);
    b.expect(r1, 4096);
    b.finish();
}

#[test]
fn the_buffer_behind_one_that_goes_back_is_cancelled() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.time_out();
    b.deliver();
    assert!(b.cancel(r1.id));
    b.settle();
    assert_eq!(b.os.result(r1.id), Some(Err(Errno::ECANCELED)));
    b.recv(4096, false);
    b.expect(r0, 4096);
    b.finish();
}

/// Without mbufs, and though so_rcv has no room for it.
#[test]
fn what_was_placed_too_early_goes_straight_to_the_first_read() {
    for early in [0, 700] {
        let mut b = Bench::ddp_on();
        b.os.rcv_hiwat = 4096;
        let (r0, r1) = (b.read_new(60_000), b.read_new(64 << 10));
        b.settle();
        b.card.time_out();
        if early > 0 {
            // Held back since before the buffers were armed.
            b.card.held_back(early);
        }
        // The second buffer is being filled before it can be taken back.
        b.card.recv(60_000, false);
        b.os.deny_mbufs = true;
        b.settle();
        assert_eq!(b.os.rcv.len(), 0);
        b.recv(50, true);
        b.expect(r0, 60_000);
        b.expect(r1, if early > 0 { early as usize } else { 50 });
        b.finish();
    }
}

#[test]
fn payload_was_thrown_away() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.rx.lose();
    // What is placed behind it is no part of the stream any more.
    b.card.recv(4096, false);
    let before = b.sh.seq.rcv_nxt;
    assert!(b.deliver_one().unwrap());
    assert!(b.pending(r) && b.sh.seq.rcv_nxt == before);
    b.finish();

    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(1000, false);
    b.rx.lose();
    assert!(b.cancel(r.id));
    b.settle();
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECANCELED)));
    b.finish();
}

#[test]
fn an_abort_posts_nothing_more() {
    let mut b = Bench::ddp_on();
    let r0 = b.read_new(4096);
    b.settle();
    let arms = b.card.arms;
    b.rx.stop();
    let r1 = b.read_new(4096);
    b.settle();
    assert_eq!(b.card.arms, arms, "no second buffer");
    b.recv(4096, false);
    b.expect(r0, 4096);
    b.settle();
    assert_eq!(b.card.arms, arms, "and no other");
    assert!(b.pending(r1));
    b.finish();
}

#[test]
fn a_dropped_connection_posts_no_second_buffer() {
    let mut b = Bench::ddp_on();
    b.read_new(4096);
    b.settle();
    let arms = b.card.arms;
    b.os.dropped = true;
    b.read_new(4096);
    b.settle();
    assert_eq!(b.card.arms, arms);
    b.os.dropped = false;
    b.finish();
}

#[test]
fn a_buffer_told_to_stop_keeps_its_reason() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.os.wr_budget = 0;
    assert!(b.cancel(r.id));
    // shutdown(2) would take it back, too.
    b.os.rcv_shut = true;
    b.retry();
    b.os.wr_budget = u32::MAX;
    b.settle_retry();
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECANCELED)));
    b.finish();
}

#[test]
fn while_a_piece_is_seen_to_nothing_else_moves() {
    let mut b = Bench::ddp_on();
    let n = (17 << 20) + 100;
    let r = b.read_new(n);
    b.settle();
    b.os.mem.touch_map();
    let mut left = n as u32;
    while left > 0 && b.rx.stuck.is_none() {
        let k = left.min(64 << 10);
        left -= k;
        b.card.recv(k, false);
        b.exec();
        b.deliver();
    }
    assert!(b.rx.stuck.is_some(), "the first piece waits for the worker");
    let w = b.rx.want_mend(&mut b.sh, &mut b.os).unwrap();
    assert!(
        b.rx.want_mend(&mut b.sh, &mut b.os).is_none(),
        "one at a time"
    );
    b.retry();
    assert!(b.rx.stuck.is_some() && b.pending(r));
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    b.os.kicked = true;
    b.settle();
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        b.recv(k, left == 0);
    }
    b.expect(r, n);
    b.finish();
}

#[test]
fn cancelled_while_a_piece_is_seen_to() {
    let mut b = Bench::ddp_on();
    let n = (17 << 20) + 100;
    let r = b.read_new(n);
    b.settle();
    b.os.mem.touch_map();
    let mut sent = 0;
    while b.rx.stuck.is_none() {
        sent += 64 << 10;
        b.card.recv(64 << 10, false);
        b.exec();
        b.deliver();
    }
    let w = b.rx.want_mend(&mut b.sh, &mut b.os).unwrap();
    assert!(b.cancel(r.id) && b.pending(r));
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    b.os.kicked = true;
    b.settle();
    let got = b.os.result(r.id).unwrap().unwrap();
    assert!(got > 0 && got <= sent as usize);
    b.expect(r, got);
    assert!(b.rx.stuck.is_none());
    let left = b.os.plain_read(usize::MAX);
    assert_eq!(left, stream(b.pos, left.len()));
    assert_eq!(b.pos.wrapping_sub(SEQ) as usize + left.len(), sent as usize);
    b.finish();
}

/// Every rule of `check` is broken once, and noticed.
#[test]
fn broken_rules_are_noticed() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(20_000);
    b.settle();
    let i = b.rx.active;
    let slot = b.rx.bufs.at(i).armed().unwrap().slot;
    let bad = |b: &Bench| b.rx.check(&b.sh, &b.os).unwrap_err();

    b.os.users[usize::from(slot)] -= 1;
    assert!(bad(&b).contains("no user"));
    b.os.users[usize::from(slot)] += 1;

    fn armed(b: &mut Bench, i: usize) -> &mut crate::ddp::Armed<crate::testos::TestJob> {
        match b.rx.bufs.at_mut(i) {
            Buf::Posted(a) | Buf::Invalidating(a) => a.armed_mut(),
            _ => panic!("a buffer is posted"),
        }
    }
    armed(&mut b, i).job.set_slot(None);
    assert!(bad(&b).contains("another page set"));
    armed(&mut b, i).job.set_slot(Some(slot));

    let (_, _, pods) = b.sh.sets.pods_mut(slot).unwrap();
    pods.as_mut().unwrap().written -= 1;
    assert!(bad(&b).contains("before its page pods"));
    let (_, _, pods) = b.sh.sets.pods_mut(slot).unwrap();
    pods.as_mut().unwrap().written += 1;
    let taken = b.sh.sets.pods_mut(slot).unwrap().2.take();
    assert!(bad(&b).contains("no page pods"));
    *b.sh.sets.pods_mut(slot).unwrap().2 = taken;

    let a = armed(&mut b, i);
    let (off, end) = (a.off, a.end);
    a.end += 1;
    assert!(bad(&b).contains("outside"));
    armed(&mut b, i).end = end;
    armed(&mut b, i).off = end + 1;
    assert!(bad(&b).contains("outside"));
    armed(&mut b, i).off = off;
    armed(&mut b, i).end = 10;
    armed(&mut b, i).job.set_done(11);
    assert!(bad(&b).contains("outside"));
    armed(&mut b, i).job.set_done(0);
    armed(&mut b, i).end = end;

    b.rx.active ^= 1;
    assert!(bad(&b).contains("front buffer is empty"));
    b.rx.active ^= 1;

    *b.rx.parked.at_mut(0) = Some((stream(b.pos, 5), 5));
    assert!(bad(&b).contains("parked for nothing"));
    *b.rx.parked.at_mut(0) = None;

    b.rx.dead = true;
    assert!(bad(&b).contains("outlive"));
    b.rx.dead = false;

    assert!(b.cancel(r.id));
    *b.rx.asked.at_mut(i) = false;
    assert!(bad(&b).contains("no reply is due"));
    *b.rx.asked.at_mut(i) = true;
    b.settle();
    assert_eq!(b.counter(Counter::CancelClean), 2);
    b.finish();
}

/// A buffer came back empty, and what its read is to have lies in so_rcv with a reader inside:
/// a cancel does not wait for the reader, and leaves the bytes.
#[test]
fn an_empty_landed_buffer_is_cancelled_at_once() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle_work();
    // They come before the buffer is armed.
    b.card.recv(20, true);
    b.exec();
    b.os.reader_inside = true;
    b.settle();
    assert!(b.pending(r));
    assert!(b.cancel(r.id));
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECANCELED)));
    b.os.reader_inside = false;
    assert_eq!(b.os.plain_read(100), stream(b.pos, 20));
    b.finish();
}

/// A buffer that came back by itself is not posted again before the reply to its invalidate: the
/// invalidate would take back the next read.
#[test]
fn a_buffer_is_not_posted_before_the_reply_about_it() {
    let mut b = Bench::ddp_on();
    let r0 = b.read_new(4096);
    b.settle();
    let first = b.rx.active;
    assert!(b.cancel(r0.id));
    // It fills before the invalidate reaches the adapter.
    b.card.recv(4096, false);
    assert!(b.deliver_one().unwrap());
    b.expect(r0, 4096);
    let (r1, r2) = (b.read_new(4096), b.read_new(4096));
    b.settle_work();
    assert!(matches!(b.rx.bufs.at(first), Buf::Empty));
    assert!(matches!(b.rx.bufs.at(first ^ 1), Buf::Posted(_)));
    b.settle();
    assert!(matches!(b.rx.bufs.at(first), Buf::Posted(_)));
    b.recv(8192, false);
    b.expect(r1, 4096);
    b.expect(r2, 4096);
    b.finish();
}

/// Replies and reports still come while a connection is being aborted; they post nothing.
#[test]
fn an_aborted_connection_posts_nothing() {
    use crate::conn::{Conn, EstablishInit};
    use crate::os::Queue;
    use crate::testos::TestOs;

    fn work(conn: &mut Conn<TestOs>, os: &mut TestOs) {
        while let Some(w) = conn.want_pages(os) {
            let pages = os.hold(&w);
            conn.pages_ready(os, w.ticket, pages);
        }
    }
    let mut os = TestOs::new();
    let id = TestOs::conn_id(wire::Chip::T5);
    let sets = crate::pageset::PageSets::new(TestOs::slots());
    let mut conn: Conn<TestOs> = Conn::new(id, TestOs::tunables(), sets, [0; RING]);
    let init = EstablishInit {
        id,
        snd_isn: 1,
        rcv_isn: SEQ,
        rcv_wnd: os.rcv_hiwat,
        wr_credits: 64,
        tx: crate::tx::TxParams {
            sndbuf: 256 << 10,
            wnd: 256 << 10,
            emss: 1448,
            tx_align: false,
            nagle: true,
        },
    };
    let _ = conn.established(&mut os, &init);
    let mut ids = std::vec::Vec::new();
    for _ in 0..3 {
        let addr = os.mem.alloc(4096, 0, 1);
        let job = os.job(addr, 4096);
        ids.push(job.id());
        conn.aio_read(&mut os, job).unwrap();
        work(&mut conn, &mut os);
    }
    let on = wire::SetTcbRpl {
        tid: id.tid,
        word: wire::W_T_FLAGS,
        cookie: crate::ddp::COOKIE_DDP0,
        ..wire::SetTcbRpl::default()
    };
    let _ = conn.set_tcb_rpl(&mut os, &on);
    work(&mut conn, &mut os);
    conn.send_rst(&mut os);
    os.wrs.clear();
    let full = wire::RxDataDdp {
        tid: id.tid,
        len: 4096,
        seq: SEQ,
        report: wire::DdpReport {
            inv: true,
            buf_complete: true,
            ..wire::DdpReport::default()
        },
        ddpvld: wire::DdpVld(0).with_ulp_mode(wire::DdpVld::ULP_TCPDDP),
        ..wire::RxDataDdp::default()
    };
    let _ = conn.rx_data_ddp(&mut os, &full);
    assert_eq!(os.result(ids[0]), Some(Ok(4096)));
    assert!(
        os.wrs.iter().all(|(q, _)| *q != Queue::Ctrl),
        "posted again"
    );
    let _ = conn.abort_rpl(&mut os, &wire::AbortRplRss::default());
    assert_eq!(os.result(ids[1]), Some(Err(Errno::ECONNABORTED)));
    assert_eq!(os.result(ids[2]), Some(Ok(0)));
    conn.detach(&mut os);
    assert!(conn.reap(&mut os));
    assert_eq!(os.mem.wired(), 0);
}

/// A read that has bytes ends short, and the error is for the next.
#[test]
fn an_error_behind_bytes_waits_for_the_next_read() {
    let mut b = Bench::new();
    b.recv(100, false);
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    // DDP is asked for, and the answer is not here yet.
    b.settle_work();
    b.os.so_error = Some(Errno::ETIMEDOUT);
    b.retry();
    assert!(b.pending(r0) && b.os.so_error.is_some());
    b.os.rcv_shut = true;
    b.retry();
    b.expect(r0, 100);
    assert_eq!(b.os.result(r1.id), Some(Err(Errno::ETIMEDOUT)));
    b.settle();
    b.finish();
}

/// The kernel has dropped the connection and knows the error: nobody is to set it again.
#[test]
fn the_end_of_a_dropped_connection_tells_what_so_error_says() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.os.dropped = true;
    b.os.so_error = Some(Errno::ETIMEDOUT);
    let told = b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    assert!(!told, "there is no tcp_drop to come");
    assert_eq!(b.os.result(r0.id), Some(Err(Errno::ETIMEDOUT)));
    assert_eq!(b.os.result(r1.id), Some(Ok(0)));
    b.finish();
}
