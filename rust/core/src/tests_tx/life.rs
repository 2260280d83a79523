//! From established to gone: every order of the messages that end a connection.

use std::vec;

use super::fake::{ISS, Wr};
use super::rig::{IRS, Rig, init};
use crate::aiotx::MAX_WND;
use crate::conn::{End, Outcome};
use crate::errno::Errno;
use crate::os::{Counter, TcpState};
use wire::FlowcParam as P;

const ABORT: fn(&Wr) -> bool = |w| matches!(w, Wr::AbortReq { .. });
const RPL: fn(&Wr) -> bool = |w| matches!(w, Wr::AbortRpl);
const CLOSE: fn(&Wr) -> bool = |w| matches!(w, Wr::Close);
const RESET: u8 = 20;

#[test]
fn established_introduces_the_connection() {
    let mut r = Rig::fresh();
    r.establish(66);
    let want = vec![
        (P::PfnVfn, 4 << 8),
        (P::Ch, 1),
        // Not the driver's number of the port, which is 2.
        (P::Port, 1),
        (P::IqId, 300),
        (P::SndBuf, MAX_WND),
        (P::Mss, 1448),
        (P::SndNxt, ISS),
        (P::RcvNxt, IRS),
    ];
    assert_eq!(r.os.wrs.first(), Some(&Wr::Flowc(want)));
    assert_eq!(r.os.state, TcpState::Established);
    assert_eq!((r.os.seq.snd_una, r.os.seq.snd_nxt), (ISS, ISS));
    assert_eq!(r.os.seq.rcv_nxt, IRS);
    assert_eq!(r.os.seq.rcv_wnd, 65536);
}

#[test]
fn flowc_is_charged() {
    let mut r = Rig::fresh();
    r.establish(66);
    // 64 usable, 5 of them out: three of 16 fit, and 11 wait for more.
    r.os.append(1 << 20, true);
    r.os.hiwat = 8 << 20;
    r.output();
    let used: u32 =
        r.os.wrs
            .iter()
            .map(|w| match w {
                Wr::Data { credits, .. } => u32::from(*credits),
                _ => 0,
            })
            .sum();
    assert_eq!(used, 48);
    r.os.append(100, true);
    r.ack(1);
    let last = r.os.wrs.last();
    assert!(
        matches!(last, Some(Wr::Data { credits: 16, .. })),
        "{last:?}"
    );
}

#[test]
fn dropped_before_established_is_aborted() {
    let mut r = Rig::fresh();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    r.establish(66);
    assert!(matches!(&r.os.wrs[0], Wr::Flowc(p) if p.len() == 6));
    assert_eq!(
        r.os.wrs[1],
        Wr::AbortReq {
            seq: ISS,
            no_data: true
        }
    );
    assert_eq!(r.ends, []);
    r.abort_rpl();
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn detached_before_established_can_be_freed() {
    let mut r = Rig::fresh();
    assert!(!r.conn.reap(&mut r.os));
    r.conn.detach(&mut r.os);
    assert!(r.os.wrs.is_empty());
    r.nothing_left();
}

#[test]
fn established_twice_is_nonsense() {
    let mut r = Rig::up();
    let o = r.conn.established(&mut r.os, &init(66));
    assert_eq!(o.end, End::Drop(Errno::ECONNABORTED));
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    let why = "a CPL that cannot come in this state";
    assert_eq!(r.os.complaints, [(r.conn.id().tid, why)]);
}

#[test]
fn no_work_request_for_flowc() {
    let mut r = Rig::fresh();
    r.os.no_wr = 2;
    r.establish(66);
    r.write(100);
    assert!(r.os.wrs.is_empty());
    assert!(r.os.retries >= 1);
    r.retry();
    assert!(r.os.wrs.is_empty(), "still short");
    r.retry();
    assert!(matches!(r.os.wrs[0], Wr::Flowc(_)));
    assert!(matches!(r.os.wrs[1], Wr::Data { plen: 100, .. }));
}

#[test]
fn we_close_first() {
    let mut r = Rig::up();
    r.write(1000);
    r.shutdown();
    assert_eq!(r.count(CLOSE), 1);
    assert!(matches!(r.os.wrs.last(), Some(Wr::Close)));
    r.close_con_rpl();
    assert_eq!(r.os.state, TcpState::FinWait2);
    assert!(!r.os.disconnected);
    assert_eq!(r.os.used(), 0, "all acknowledged");
    r.peer_close();
    assert_eq!(r.ends, [End::TimeWait]);
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn closed_both_ways_is_disconnected_in_fin_wait_2() {
    let mut r = Rig::up();
    r.os.rcv_shut = true;
    r.shutdown();
    r.close_con_rpl();
    assert!(r.os.disconnected);
}

#[test]
fn peer_closes_first() {
    let mut r = Rig::up();
    r.peer_close();
    assert_eq!(r.os.state, TcpState::CloseWait);
    assert!(r.os.eof);
    assert_eq!(r.os.seq.rcv_nxt, IRS + 1);
    // Half-closed: we may still send.
    r.write(5000);
    r.ack_all();
    r.shutdown();
    assert_eq!(r.os.state, TcpState::LastAck);
    r.close_con_rpl();
    assert_eq!(r.ends, [End::Close]);
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn both_close_at_once() {
    let mut r = Rig::up();
    r.shutdown();
    r.peer_close();
    assert_eq!(r.os.state, TcpState::Closing);
    r.close_con_rpl();
    assert_eq!(r.ends, [End::TimeWait]);
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn fin_waits_for_all_data() {
    let mut r = Rig::with_credits(34);
    r.os.append(200_000, true);
    r.output();
    r.shutdown();
    assert_eq!(r.count(CLOSE), 0, "suspended with data behind");
    let mut n = 0;
    while r.count(CLOSE) == 0 {
        r.ack(1);
        n += 1;
        assert!(n < 1000);
    }
    assert!(matches!(r.os.wrs.last(), Some(Wr::Close)));
    let sent: u32 =
        r.os.wrs
            .iter()
            .map(|w| match w {
                Wr::Data { plen, .. } => *plen,
                _ => 0,
            })
            .sum();
    assert_eq!(sent, 200_000);
    // And it goes only once.
    r.output();
    r.shutdown();
    r.retry();
    assert_eq!(r.count(CLOSE), 1);
}

#[test]
fn fin_waits_for_credits() {
    let mut r = Rig::with_credits(7);
    // 5 usable; immediate data of 48 bytes takes 4.
    r.write(48);
    r.shutdown();
    assert_eq!(r.count(CLOSE), 0);
    r.ack(1);
    assert_eq!(r.count(CLOSE), 1);
}

#[test]
fn fin_waits_for_data_that_is_not_ready() {
    let mut r = Rig::up();
    r.os.append(100, true);
    r.os.append(200, false);
    r.output();
    r.shutdown();
    assert_eq!(r.count(CLOSE), 0);
    r.os.make_ready();
    r.output();
    assert_eq!(r.count(CLOSE), 1);
    assert!(matches!(r.os.wrs.last(), Some(Wr::Close)));
}

#[test]
fn fin_without_a_work_request_is_retried() {
    let mut r = Rig::up();
    r.os.no_wr = 1;
    r.shutdown();
    assert_eq!(r.count(CLOSE), 0);
    assert!(r.os.retries >= 1);
    r.retry();
    assert_eq!(r.count(CLOSE), 1);
}

#[test]
fn fin_asked_for_before_established() {
    let mut r = Rig::fresh();
    r.os.state = TcpState::SynReceived;
    r.conn.send_fin(&mut r.os);
    assert!(r.os.wrs.is_empty());
    r.establish(66);
    assert_eq!(r.count(CLOSE), 1);
}

#[test]
fn reset_by_the_peer() {
    let mut r = Rig::up();
    r.write(10_000);
    r.aio(1, 0x5000, 5000);
    r.work();
    r.abort_req(RESET);
    assert_eq!(r.os.wired(), 0, "page sets go with the tid");
    assert_eq!(r.ends, [End::Drop(Errno::ECONNRESET)]);
    assert_eq!(r.count(RPL), 1);
    assert_eq!(r.count(ABORT), 0, "tcp_drop's RST is not sent again");
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn reset_errnos_by_state_and_status() {
    for (state, status, e) in [
        (TcpState::Established, 20, Errno::ECONNRESET),
        (TcpState::CloseWait, 20, Errno::EPIPE),
        (TcpState::CloseWait, 24, Errno::EPIPE),
        (TcpState::FinWait2, 33, Errno::ETIMEDOUT),
        (TcpState::Established, 31, Errno::ETIMEDOUT),
        (TcpState::Established, 99, Errno::EIO),
    ] {
        let mut r = Rig::up();
        r.os.state = state;
        r.abort_req(status);
        assert_eq!(r.ends, [End::Drop(e)], "{state:?} {status}");
        assert_eq!(r.finals, 1);
    }
}

#[test]
fn negative_advice_is_ignored() {
    let mut r = Rig::up();
    for s in [35, 36, 37] {
        r.abort_req(s);
    }
    assert_eq!((r.ends.len(), r.finals, r.os.wrs.len()), (0, 0, 0));
    r.write(10);
    assert_eq!(r.os.wrs.len(), 1, "lives on");
}

#[test]
fn abort_reply_is_owed_even_without_a_work_request() {
    let mut r = Rig::up();
    r.os.no_wr = 2;
    r.abort_req(RESET);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNRESET)]);
    assert_eq!((r.count(RPL), r.finals), (0, 0));
    assert!(r.os.retries >= 1);
    r.retry();
    assert_eq!((r.count(RPL), r.finals), (0, 0));
    r.retry();
    assert_eq!((r.count(RPL), r.finals), (1, 1));
    r.retry();
    assert_eq!((r.count(RPL), r.finals), (1, 1));
    r.nothing_left();
}

#[test]
fn we_abort_once() {
    let mut r = Rig::up();
    r.write(3000);
    r.conn.send_rst(&mut r.os);
    r.drop_now();
    r.conn.send_rst(&mut r.os);
    r.check();
    assert_eq!(r.count(ABORT), 1);
    assert_eq!(
        r.os.wrs.last(),
        Some(&Wr::AbortReq {
            seq: ISS.wrapping_add(3000),
            no_data: false
        })
    );
    assert_eq!(r.finals, 0);
    r.abort_rpl();
    assert_eq!((r.ends.len(), r.finals), (0, 1));
    r.abort_rpl();
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn abort_without_credits() {
    // All credits are out; the reserve is for this.
    let mut r = Rig::with_credits(34);
    r.write(200_000);
    assert!(r.os.outstanding() > 0);
    r.drop_now();
    assert_eq!(r.count(ABORT), 1);
    r.abort_rpl();
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn abort_without_a_work_request_is_retried() {
    let mut r = Rig::up();
    r.os.no_wr = 1;
    r.drop_now();
    assert_eq!(r.count(ABORT), 0);
    assert!(r.os.retries >= 1);
    r.retry();
    assert_eq!(r.count(ABORT), 1);
    r.retry();
    assert_eq!(r.count(ABORT), 1);
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn aborts_cross() {
    let mut r = Rig::up();
    r.drop_now();
    assert_eq!(r.count(ABORT), 1);
    r.abort_req(RESET);
    assert_eq!(r.count(RPL), 1, "always owed");
    assert_eq!(r.finals, 0, "the reply to ours is the last word");
    r.abort_rpl();
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn aborts_cross_before_ours_is_sent() {
    let mut r = Rig::up();
    r.os.no_wr = 1;
    r.drop_now();
    r.abort_req(RESET);
    assert_eq!((r.count(RPL), r.count(ABORT)), (1, 0));
    assert_eq!(r.finals, 1, "no reply will come to what was not sent");
    r.nothing_left();
}

#[test]
fn reply_to_no_abort_is_nonsense() {
    let mut r = Rig::up();
    let o = r.conn.abort_rpl(&mut r.os, &wire::AbortRplRss::default());
    r.follow(o);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    assert_eq!(r.count(ABORT), 1);
    r.abort_rpl();
    assert_eq!(r.finals, 1);
}

#[test]
fn nonsense_about_fins() {
    // A reply to no FIN.
    let mut r = Rig::up();
    r.close_con_rpl();
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    // Two replies.
    let mut r = Rig::up();
    r.shutdown();
    r.close_con_rpl();
    r.close_con_rpl();
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    // Two FINs.
    let mut r = Rig::up();
    r.peer_close();
    r.peer_close();
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    assert_eq!(r.count(ABORT), 1);
    // Two replies, and nobody there.
    let mut r = Rig::up();
    r.shutdown();
    r.close_con_rpl();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    r.close_con_rpl();
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
    // A FIN far ahead of the data.
    let mut r = Rig::up();
    let cpl = wire::PeerClose {
        tid: 77,
        rcv_nxt: IRS + 100,
    };
    let o = r.conn.peer_close(&mut r.os, &cpl);
    r.follow(o);
    assert_eq!(r.os.counter(Counter::BadCpl), 1);
}

#[test]
fn messages_during_an_abort_are_passed_over() {
    let mut r = Rig::up();
    r.write(4000);
    r.drop_now();
    r.ack(2);
    r.fw4_ack(wire::Fw4Ack {
        tid: 77,
        credits: 99,
        ..wire::Fw4Ack::default()
    });
    r.peer_close();
    r.close_con_rpl();
    let cpl = wire::RxData {
        len: 9,
        seq: IRS,
        ..wire::RxData::default()
    };
    let o = r.conn.rx_data(&mut r.os, &cpl, 9);
    assert_eq!(o, Outcome::NONE);
    assert_eq!(r.os.discarded, 9);
    assert_eq!(r.os.counter(Counter::BadCpl), 0);
    assert_eq!(r.finals, 0);
    r.abort_rpl();
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn data_for_nobody_resets() {
    let mut r = Rig::up();
    r.os.rcv_shut = true;
    let cpl = wire::RxData {
        len: 9,
        seq: IRS,
        ..wire::RxData::default()
    };
    let o = r.conn.rx_data(&mut r.os, &cpl, 9);
    r.follow(o);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNRESET)]);
    assert_eq!(r.os.discarded, 9);
    assert_eq!(r.count(ABORT), 1);
    assert_eq!(r.os.counter(Counter::BadCpl), 0);
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn data_after_the_kernel_let_go_resets() {
    let mut r = Rig::up();
    r.shutdown();
    r.close_con_rpl();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    assert_eq!(r.count(ABORT), 0);
    let cpl = wire::RxData {
        len: 9,
        seq: IRS,
        ..wire::RxData::default()
    };
    for _ in 0..2 {
        let o = r.conn.rx_data(&mut r.os, &cpl, 9);
        r.follow(o);
    }
    assert_eq!((r.os.discarded, r.count(ABORT)), (18, 1));
    r.abort_rpl();
    assert_eq!((r.ends.len(), r.finals), (0, 1));
    r.nothing_left();
}

#[test]
fn detached_while_open_is_aborted() {
    let mut r = Rig::up();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    assert_eq!(r.count(ABORT), 1);
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn detached_in_fin_wait_2_waits_for_the_peer() {
    let mut r = Rig::up();
    r.shutdown();
    r.close_con_rpl();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    assert_eq!(r.count(ABORT), 0);
    assert!(!r.conn.reap(&mut r.os));
    r.peer_close();
    assert_eq!((r.ends.len(), r.finals), (0, 1));
    r.nothing_left();
}

#[test]
fn detached_with_the_fin_under_way() {
    let mut r = Rig::up();
    r.write(50);
    r.shutdown();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    r.ack(1);
    r.peer_close();
    assert_eq!(r.finals, 0);
    r.close_con_rpl();
    assert_eq!((r.ends.len(), r.finals), (0, 1));
    r.nothing_left();
}

#[test]
fn finwait2_timeout_of_a_detached_connection() {
    let mut r = Rig::up();
    r.shutdown();
    r.close_con_rpl();
    r.os.kernel_close();
    r.conn.detach(&mut r.os);
    r.abort_req(33);
    assert_eq!((r.ends.len(), r.finals), (0, 1));
    assert_eq!(r.count(RPL), 1);
    r.nothing_left();
}

#[test]
fn a_dead_connection_declines_and_ignores() {
    let mut r = Rig::up();
    r.abort_req(RESET);
    let n = r.os.wrs.len();
    assert!(!r.aio(1, 0x1000, 100));
    r.conn.output(&mut r.os);
    r.conn.send_fin(&mut r.os);
    r.conn.send_rst(&mut r.os);
    r.conn.rcvd(&mut r.os);
    r.retry();
    r.abort_req(RESET);
    r.peer_close();
    r.close_con_rpl();
    r.ack(1);
    assert!(r.conn.want_pages(&mut r.os).is_none());
    assert_eq!(r.os.wrs.len(), n);
    assert_eq!(r.finals, 1);
    r.nothing_left();
}

#[test]
fn time_wait_detaches() {
    let mut r = Rig::up();
    r.shutdown();
    r.close_con_rpl();
    r.peer_close();
    assert_eq!(r.ends, [End::TimeWait]);
    // A later aio call on the socket.
    assert!(!r.aio(1, 0x1000, 100));
    r.nothing_left();
}

#[test]
fn a_connection_is_small() {
    // It is built on a kernel stack; the page sets and the jobs are kept elsewhere.
    let n = size_of::<crate::conn::Conn<super::fake::Fake>>();
    assert!(n < 1536, "{n} bytes");
}
