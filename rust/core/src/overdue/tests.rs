//! The adapter never answers, or late: time is bounded, and no page goes without its word.

use std::vec::Vec;

use crate::conn::{Conn, End, EstablishInit, Outcome, Silent};
use crate::errno::Errno;
use crate::os::{JobId, Os, Queue, TcpState};
use crate::pageset::PageSets;
use crate::testos::TestOs;
use crate::tx::TxParams;
use crate::txcredits::RING;

const ISS: u32 = 0xffff_f000;
const IRS: u32 = 0x1000;
/// Longer than this nothing is waited for, ms.
const BOUND: u64 = 1000;

struct Rig {
    conn: Conn<TestOs>,
    os: TestOs,
    ends: Vec<End>,
    silent: Option<Silent>,
    finals: u32,
}

impl Rig {
    fn new() -> Rig {
        let mut os = TestOs::new();
        let id = TestOs::conn_id(wire::Chip::T5);
        let sets = PageSets::new(TestOs::slots());
        let mut conn = Conn::new(id, TestOs::tunables(), sets, [0; RING]);
        os.now = 5_000;
        let init = EstablishInit {
            id,
            snd_isn: ISS,
            rcv_isn: IRS,
            rcv_wnd: 65536,
            wr_credits: 66,
            tx: TxParams {
                sndbuf: 1 << 20,
                wnd: 1 << 18,
                emss: 1448,
                tx_align: false,
                nagle: true,
            },
        };
        let o = conn.established(&mut os, &init);
        assert_eq!(o, Outcome::NONE);
        let mut r = Rig {
            conn,
            os,
            ends: Vec::new(),
            silent: None,
            finals: 0,
        };
        r.ack(1);
        r
    }

    fn ack(&mut self, wrs: u8) {
        let credits = if wrs == 1 { 5 } else { wrs };
        let cpl = wire::Fw4Ack {
            tid: 0x123,
            credits,
            snd_una: 0,
            snd_nxt: 0,
            seq_vld: false,
        };
        let o = self.conn.fw4_ack(&mut self.os, &cpl);
        self.follow(o);
    }

    fn follow(&mut self, o: Outcome) {
        match o.end {
            End::None => {}
            end => {
                self.ends.push(end);
                if let End::Drop(e) = end {
                    self.os.so_error = Some(e);
                }
                self.os.state = TcpState::Closed;
                self.conn.send_rst(&mut self.os);
                self.os.dropped = true;
                self.conn.detach(&mut self.os);
            }
        }
        self.finals += u32::from(o.final_cpl);
        self.silent = self.silent.or(o.silent);
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.conn.check_invariants(&self.os), Ok(()));
        assert!(self.finals < 2);
    }

    /// Time goes by, and the caller looks whether something is overdue.
    fn pass(&mut self, ms: u64) {
        self.os.now += ms;
        let before = self.os.now.saturating_sub(BOUND);
        let o = self.conn.overdue(&mut self.os, before);
        self.follow(o);
    }

    fn reply(&mut self, word: u8, cookie: u8, oldval: u64) {
        let cpl = wire::SetTcbRpl {
            tid: 0x123,
            word,
            cookie,
            oldval,
            ..wire::SetTcbRpl::default()
        };
        let o = self.conn.set_tcb_rpl(&mut self.os, &cpl);
        self.follow(o);
    }

    fn abort_rpl(&mut self) {
        let o = self
            .conn
            .abort_rpl(&mut self.os, &wire::AbortRplRss::default());
        self.follow(o);
    }

    fn work(&mut self) {
        while let Some(w) = self.conn.want_pages(&mut self.os) {
            let pages = self.os.hold(&w);
            self.conn.pages_ready(&mut self.os, w.ticket, pages);
        }
    }

    /// A read of so many bytes.
    fn read(&mut self, len: usize) -> JobId {
        let at = self.os.mem.alloc(len, 0, 1);
        let job = self.os.job(at, len);
        let id = crate::os::Job::id(&job);
        assert!(self.conn.aio_read(&mut self.os, job).is_ok());
        self.work();
        self.check();
        id
    }

    /// A read that is posted to the adapter.
    fn posted(&mut self, len: usize) -> JobId {
        let id = self.read(len);
        self.reply(wire::W_T_FLAGS, crate::ddp::COOKIE_DDP0, 0);
        assert_eq!(self.os.result(id), None);
        id
    }

    fn sent(&self, what: fn(&[u8]) -> bool) -> usize {
        self.os.wrs.iter().filter(|(_, w)| what(w)).count()
    }

    fn aborts(&self) -> usize {
        self.sent(|w| wire::AbortReq::parse(w).is_ok())
    }

    fn probes(&self) -> usize {
        self.sent(|w| {
            wire::SetTcbField::parse(w).is_ok_and(|f| f.word == wire::W_TX_MAX && f.mask == 0)
        })
    }

    fn wired(&self) -> usize {
        self.os.mem.wired()
    }

    /// The kernel resets the connection.
    fn drop_now(&mut self) {
        self.os.state = TcpState::Closed;
        self.conn.send_rst(&mut self.os);
        self.os.dropped = true;
        self.conn.detach(&mut self.os);
        self.check();
    }

    /// close(2), with nothing to read.
    fn close(&mut self) {
        self.os.rcv_shut = true;
        self.os.snd_shut = true;
        self.os.state = TcpState::FinWait1;
        self.conn.send_fin(&mut self.os);
        self.check();
    }

    fn nothing_left(mut self) {
        if !self.os.dropped {
            self.conn.detach(&mut self.os);
        }
        assert_eq!(self.finals, 1);
        assert!(self.conn.reap(&mut self.os));
        assert_eq!(self.os.users, [0; crate::testos::SLOTS]);
        assert_eq!((self.wired(), self.os.orphaned, self.os.orphans), (0, 0, 0));
        assert_eq!(self.os.region.available(), self.os.region.capacity());
    }
}

/// Bytes so far below TX_MAX that are not acknowledged.
fn seq(tx_max: u32, below: u32) -> u64 {
    u64::from(tx_max) | u64::from(below) << 32
}

#[test]
fn nothing_is_due_of_a_connection_at_rest() {
    let mut r = Rig::new();
    assert_eq!(r.conn.due(&r.os), None);
    r.posted(8192);
    assert_eq!(r.conn.due(&r.os), None, "the peer may take its time");
    r.pass(100 * BOUND);
    assert_eq!(r.aborts(), 0);
    r.drop_now();
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn a_reset_that_is_not_answered_keeps_the_pages_and_frees_the_job() {
    let mut r = Rig::new();
    let id = r.posted(8192);
    r.drop_now();
    assert_eq!(r.conn.due(&r.os), Some(r.os.now));
    r.pass(BOUND - 1);
    assert_eq!(r.os.result(id), None, "the adapter may yet answer");
    r.pass(1);
    assert_eq!(r.os.result(id), Some(Err(Errno::EIO)));
    assert_eq!((r.wired(), r.os.orphaned), (2, 2), "it may write to them");
    assert_eq!(r.conn.due(&r.os), None);
    assert!(!r.conn.reap(&mut r.os));
    r.pass(1000 * BOUND);
    assert_eq!((r.wired(), r.finals), (2, 0));
    // What others are short of, or a process that exits, does not free them.
    r.conn.relieve(&mut r.os, None);
    r.conn.forget(&mut r.os, 0);
    r.check();
    assert_eq!(r.wired(), 2);
    r.abort_rpl();
    assert_eq!(
        (r.wired(), r.os.orphaned),
        (0, 0),
        "the word came after all"
    );
    r.nothing_left();
}

#[test]
fn idle_pages_are_not_kept() {
    let mut r = Rig::new();
    let id = r.posted(8192);
    let other = r.read(3 * 4096);
    assert!(r.conn.cancel(&mut r.os, other));
    r.reply(wire::W_RX_DDP_FLAGS, crate::ddp::COOKIE_DDP1, 0);
    assert_eq!(r.os.result(other), Some(Err(Errno::ECANCELED)));
    assert_eq!(r.wired(), 5);
    r.drop_now();
    r.pass(BOUND);
    assert!(r.os.result(id).is_some());
    assert_eq!((r.wired(), r.os.orphaned), (2, 2));
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn an_invalidation_that_is_not_answered_ends_with_a_reset() {
    let mut r = Rig::new();
    let id = r.posted(8192);
    assert!(r.conn.cancel(&mut r.os, id));
    assert_eq!(r.conn.due(&r.os), Some(r.os.now));
    r.pass(BOUND);
    assert_eq!(r.aborts(), 1);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(
        r.os.result(id),
        None,
        "the answer to the reset is waited for"
    );
    r.pass(BOUND);
    assert_eq!(r.os.result(id), Some(Err(Errno::EIO)));
    assert_eq!(r.os.orphaned, 2);
    // The word about the buffer is enough for its pages.
    r.reply(wire::W_RX_DDP_FLAGS, crate::ddp::COOKIE_DDP0, 0);
    assert_eq!((r.wired(), r.os.orphaned, r.finals), (0, 0, 0));
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn a_failure_is_no_word() {
    let mut r = Rig::new();
    let id = r.posted(8192);
    assert!(r.conn.cancel(&mut r.os, id));
    r.drop_now();
    r.pass(BOUND);
    let cpl = wire::SetTcbRpl {
        tid: 0x123,
        word: wire::W_RX_DDP_FLAGS,
        cookie: crate::ddp::COOKIE_DDP0,
        status: wire::CplStatus(1),
        ..wire::SetTcbRpl::default()
    };
    let o = r.conn.set_tcb_rpl(&mut r.os, &cpl);
    r.follow(o);
    assert_eq!((r.wired(), r.os.orphaned), (2, 2));
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn ddp_that_is_never_on_ends_with_a_reset() {
    let mut r = Rig::new();
    let id = r.read(8192);
    r.pass(BOUND);
    assert_eq!(r.aborts(), 1);
    r.abort_rpl();
    assert_eq!(r.os.result(id), Some(Err(Errno::ECONNABORTED)));
    assert_eq!(r.finals, 0, "the reply may yet come, and is nobody else's");
    r.pass(BOUND);
    let due = Silent {
        replies: 1,
        abort: false,
    };
    assert_eq!(r.silent, Some(due));
    r.nothing_left();
}

#[test]
fn no_work_request_to_take_a_buffer_back() {
    let mut r = Rig::new();
    let id = r.posted(8192);
    r.os.wr_budget = 0;
    assert!(r.conn.cancel(&mut r.os, id));
    r.pass(BOUND);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    r.pass(BOUND);
    assert_eq!(r.os.result(id), Some(Err(Errno::EIO)));
    assert_eq!(r.os.orphaned, 2);
    // There are some again.
    r.os.wr_budget = u32::MAX;
    let o = r.conn.retry(&mut r.os);
    r.follow(o);
    assert_eq!(r.aborts(), 1);
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn nothing_at_stake_the_connection_goes_but_for_its_tid() {
    let mut r = Rig::new();
    r.drop_now();
    r.pass(BOUND);
    let due = Silent {
        replies: 0,
        abort: true,
    };
    assert_eq!(r.silent, Some(due));
    assert_eq!(r.os.orphaned, 0);
    r.nothing_left();
}

#[test]
fn a_write_in_flight_keeps_its_pages() {
    let mut r = Rig::new();
    let at = r.os.mem.alloc(3 * 4096, 0, 1);
    let job = r.os.job(at, 3 * 4096);
    let id = crate::os::Job::id(&job);
    assert!(r.conn.aio_write(&mut r.os, job).is_ok());
    r.work();
    assert!(r.conn.tx.cred.in_flight() > 0);
    r.drop_now();
    r.pass(BOUND);
    assert_eq!(r.os.result(id), Some(Err(Errno::EIO)));
    assert_eq!((r.wired(), r.os.orphaned), (3, 3), "it may read them");
    assert_eq!(r.os.orphans, 1);
    assert!(r.conn.sending(), "mbufs stay, too");
    r.abort_rpl();
    r.os.snd_flush();
    r.nothing_left();
}

#[test]
fn a_slow_peer_is_waited_for() {
    let mut r = Rig::new();
    r.os.plain_write(&[7; 1000]);
    r.conn.output(&mut r.os);
    r.close();
    for n in 1..10 {
        r.pass(BOUND);
        assert_eq!(r.probes(), n);
        // 1000 bytes and the FIN are not acknowledged.
        r.reply(
            wire::W_TX_MAX,
            crate::ddp::COOKIE_DDP0,
            seq(ISS + 1001, 1001),
        );
    }
    assert_eq!(r.aborts(), 0);
}

#[test]
fn a_silent_adapter_does_not_keep_a_closed_connection() {
    let mut r = Rig::new();
    r.close();
    r.pass(BOUND);
    assert_eq!((r.probes(), r.aborts()), (1, 0));
    r.pass(BOUND);
    assert_eq!(r.aborts(), 1);
    r.pass(BOUND);
    let due = Silent {
        replies: 1,
        abort: true,
    };
    assert_eq!(r.silent, Some(due));
    r.nothing_left();
}

#[test]
fn an_answer_that_was_lost_is_noticed() {
    let mut r = Rig::new();
    r.os.plain_write(&[7; 1000]);
    r.conn.output(&mut r.os);
    r.close();
    r.pass(BOUND);
    // The peer has all; perhaps the adapter is just about to say so.
    r.reply(wire::W_TX_MAX, crate::ddp::COOKIE_DDP0, seq(ISS + 1001, 0));
    assert_eq!(r.aborts(), 0);
    r.pass(BOUND);
    r.reply(wire::W_TX_MAX, crate::ddp::COOKIE_DDP0, seq(ISS + 1001, 0));
    assert_eq!(r.aborts(), 1);
    r.abort_rpl();
    r.nothing_left();
}

#[test]
fn messages_to_nobody_are_counted_off() {
    let mut s = Silent {
        replies: 2,
        abort: true,
    };
    assert!(!s.replied() && !s.aborted() && s.replied());
}

#[test]
fn the_question_goes_to_the_control_queue_and_changes_nothing() {
    let mut r = Rig::new();
    r.close();
    r.os.wrs.clear();
    r.pass(BOUND);
    let (q, wr) = r.os.wrs.pop_front().unwrap();
    let f = wire::SetTcbField::parse(&wr).unwrap();
    assert_eq!((q, f.mask, f.reply.no_reply), (Queue::Ctrl, 0, false));
}
