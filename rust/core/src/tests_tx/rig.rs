//! A connection on a [`Fake`] kernel, and the kernel's answers to its outcomes. Invariants are
//! checked after every step.

use std::string::String;
use std::vec::Vec;

use super::fake::{FJob, Fake, ISS, TID, Wr};
use crate::aiotx::MAX_WND;
use crate::conn::{Conn, End, EstablishInit, Outcome};
use crate::errno::Errno;
use crate::os::{JobId, TcpState};
use crate::pageset::{PageSets, Slot, Want};
use crate::shared::{ConnId, Tunables};
use crate::tx::TxParams;
use crate::txcredits::RING;

pub(crate) const IRS: u32 = 0x1000;

pub(crate) struct Rig {
    pub(crate) os: Fake,
    pub(crate) conn: Conn<Fake>,
    /// Ends the kernel was told of.
    pub(crate) ends: Vec<End>,
    pub(crate) finals: u32,
    /// Pages a worker is about to hold.
    pub(crate) pending: Option<Want<JobId>>,
}

pub(crate) fn id() -> ConnId {
    ConnId {
        chip: wire::Chip::T5,
        tid: TID,
        pf: 4,
        channel: 1,
        port: 2,
        rxq: 300,
    }
}

pub(crate) fn init(wr_credits: u16) -> EstablishInit {
    EstablishInit {
        id: id(),
        snd_isn: ISS,
        rcv_isn: IRS,
        rcv_wnd: 65536,
        wr_credits,
        tx: TxParams {
            sndbuf: MAX_WND,
            wnd: 262_144,
            emss: 1448,
            tx_align: false,
            nagle: true,
        },
    }
}

pub(crate) fn tun() -> Tunables {
    Tunables {
        ddp: true,
        tx_zcopy: true,
        tx_zcopy_min: 0,
        cache: 16,
    }
}

impl Rig {
    pub(crate) fn set_cache(&mut self, cache: u16) {
        self.conn.set_tunables(Tunables { cache, ..tun() });
    }

    /// Not established.
    pub(crate) fn fresh() -> Rig {
        let slots = (0..16).map(|_| Slot::default()).collect();
        Rig {
            os: Fake::new(),
            conn: Conn::new(id(), tun(), PageSets::new(slots), [0; RING]),
            ends: Vec::new(),
            finals: 0,
            pending: None,
        }
    }

    /// Established, FLOWC acknowledged.
    pub(crate) fn up() -> Rig {
        Rig::with_credits(66)
    }

    pub(crate) fn with_credits(wr_credits: u16) -> Rig {
        let mut r = Rig::fresh();
        r.establish(wr_credits);
        r.ack(1);
        r.os.wrs.clear();
        r.window(0, 0);
        r
    }

    /// Write jobs may fill so_snd to `wnd` bytes whatever its high-water mark, later to `max`.
    /// Nothing at first: most tests want the mark alone to count.
    pub(crate) fn window(&mut self, wnd: u32, max: u32) {
        self.conn.tx.writes.open(wnd, max);
        self.os.wnd_max = max.max(wnd);
    }

    pub(crate) fn establish(&mut self, wr_credits: u16) {
        let o = self.conn.established(&mut self.os, &init(wr_credits));
        self.follow(o);
    }

    /// Do as the kernel does with an outcome; check everything.
    pub(crate) fn follow(&mut self, o: Outcome) {
        if o.end != End::None {
            self.ends.push(o.end);
        }
        match o.end {
            End::None => {}
            End::Drop(e) => {
                self.os.so_error = Some(e);
                self.drop_now();
            }
            End::Close | End::TimeWait => {
                self.os.kernel_close();
                self.conn.detach(&mut self.os);
            }
        }
        if o.final_cpl {
            self.finals += 1;
            self.os.final_cpl = true;
        }
        self.check();
    }

    /// tcp_drop: RST, then the tcpcb goes.
    pub(crate) fn drop_now(&mut self) {
        self.os.state = TcpState::Closed;
        self.conn.send_rst(&mut self.os);
        self.os.kernel_close();
        self.conn.detach(&mut self.os);
    }

    pub(crate) fn try_check(&self) -> Result<(), String> {
        self.conn.check_invariants(&self.os)?;
        if self.os.peer_waits() {
            return Err("all is sent, and the last byte without a push".into());
        }
        if self.finals > 1 {
            return Err("final CPL more than once".into());
        }
        if self.ends.len() > 1 {
            return Err("the kernel's part ends more than once".into());
        }
        self.os.verdict()
    }

    pub(crate) fn check(&self) {
        if let Err(e) = self.try_check() {
            panic!("{e}");
        }
    }

    /// write(2).
    pub(crate) fn write(&mut self, n: u32) {
        self.os.append(n, true);
        self.output();
    }

    pub(crate) fn output(&mut self) {
        self.conn.output(&mut self.os);
        self.check();
    }

    /// aio_write; false if declined.
    pub(crate) fn aio(&mut self, id: usize, addr: u64, len: usize) -> bool {
        let job = FJob::new(id, addr, len);
        let r = self.conn.aio_write(&mut self.os, job).is_ok();
        self.check();
        r
    }

    /// Let the worker run until it has nothing to do.
    pub(crate) fn work(&mut self) {
        for _ in 0..1000 {
            if !self.work_begin() {
                return;
            }
            self.work_end(None);
        }
        panic!("the worker never comes to rest");
    }

    /// A worker takes a request for pages.
    pub(crate) fn work_begin(&mut self) -> bool {
        if self.pending.is_none() {
            self.pending = self.conn.want_pages(&mut self.os);
        }
        self.check();
        self.pending.is_some()
    }

    /// It answers.
    pub(crate) fn work_end(&mut self, err: Option<Errno>) {
        if let Some(w) = self.pending.take().filter(|w| !self.copy(w, err)) {
            let pages = match err {
                Some(e) => Err(e),
                None => Ok(self.os.hold(w.addr, w.len)),
            };
            self.conn.pages_ready(&mut self.os, w.ticket, pages);
        }
        self.check();
    }

    /// If it is a copy that is wanted, here it is.
    fn copy(&mut self, w: &Want<JobId>, err: Option<Errno>) -> bool {
        if w.is_copy() {
            let m = err.map_or(Ok(w.len), Err);
            self.conn.copied(&mut self.os, w, m);
        }
        w.is_copy()
    }

    pub(crate) fn cancel(&mut self, id: usize) -> bool {
        let r = self.conn.cancel(&mut self.os, JobId(id));
        self.check();
        r
    }

    /// The adapter acknowledges `n` work requests.
    pub(crate) fn ack(&mut self, n: usize) {
        let a = self.os.ack(n);
        self.fw4_ack(a);
    }

    pub(crate) fn fw4_ack(&mut self, a: wire::Fw4Ack) {
        let o = self.conn.fw4_ack(&mut self.os, &a);
        self.follow(o);
    }

    /// Acknowledge until nothing is outstanding.
    pub(crate) fn ack_all(&mut self) {
        for _ in 0..100_000 {
            if self.os.outstanding() == 0 {
                return;
            }
            self.ack(1);
        }
        panic!("sending never ends");
    }

    pub(crate) fn retry(&mut self) {
        let o = self.conn.retry(&mut self.os);
        self.follow(o);
    }

    /// shutdown(SHUT_WR), or close(2): the tcpcb's state moves first.
    pub(crate) fn shutdown(&mut self) {
        self.os.snd_shut = true;
        self.os.state = match self.os.state {
            TcpState::Established => TcpState::FinWait1,
            TcpState::CloseWait => TcpState::LastAck,
            s => s,
        };
        self.conn.send_fin(&mut self.os);
        self.check();
    }

    pub(crate) fn close_con_rpl(&mut self) {
        self.os.ack_silently();
        let snd_nxt = self.os.una.wrapping_add(1);
        let cpl = wire::CloseConRpl {
            tid: TID,
            snd_nxt,
            ..wire::CloseConRpl::default()
        };
        let o = self.conn.close_con_rpl(&mut self.os, &cpl);
        self.follow(o);
    }

    pub(crate) fn peer_close(&mut self) {
        let cpl = wire::PeerClose {
            tid: TID,
            rcv_nxt: IRS + 1,
        };
        let o = self.conn.peer_close(&mut self.os, &cpl);
        self.follow(o);
    }

    pub(crate) fn abort_req(&mut self, status: u8) {
        let status = wire::CplStatus(status);
        if !status.is_neg_advice() && !self.os.wrs.iter().any(|w| matches!(w, Wr::AbortReq { .. }))
        {
            self.os.stop_reading();
        }
        let cpl = wire::AbortReqRss {
            tid: TID,
            status,
            ..wire::AbortReqRss::default()
        };
        let o = self.conn.abort_req(&mut self.os, &cpl);
        self.follow(o);
    }

    pub(crate) fn abort_rpl(&mut self) {
        self.os.stop_reading();
        let cpl = wire::AbortRplRss {
            tid: TID,
            ..wire::AbortRplRss::default()
        };
        let o = self.conn.abort_rpl(&mut self.os, &cpl);
        self.follow(o);
    }

    /// Nothing is left behind.
    pub(crate) fn nothing_left(mut self) {
        assert!(self.conn.reap(&mut self.os), "cannot be freed");
        assert_eq!(self.os.wired(), 0, "frames wired");
        assert_eq!(self.os.users_total(), 0, "users of page sets");
        assert_eq!(self.os.jobs_open(), 0, "jobs");
    }

    pub(crate) fn count(&self, f: impl Fn(&Wr) -> bool) -> usize {
        self.os.wrs.iter().filter(|w| f(w)).count()
    }
}
