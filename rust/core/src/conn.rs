//! One offloaded connection: what the kernel and the adapter say to it.
//!
//! Context: inpcb write lock held for every method; nothing sleeps. The life of a connection
//! (close, abort) is in `lifecycle.rs`.

use wire::WireError;

use crate::errno::Errno;
use crate::fault::BadCpl;
use crate::flags::Flags;
use crate::os::{Counter, Job, JobId, Os, SeqState};
use crate::pageset::{PageSets, Ticket, Want};
use crate::rx::Rx;
use crate::shared::{ConnId, Shared, Tunables};
use crate::since::Since;
use crate::tx::{Tx, TxParams};

/// How the kernel's part of the connection ends. Each asks the caller to call a function that
/// may let go of the inpcb lock and may call back into [`Conn::send_rst`] and [`Conn::detach`];
/// no reference to the [`Conn`] may be held across it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum End {
    /// Not at all.
    #[default]
    None,
    /// `tcp_twstart`.
    TimeWait,
    /// `tcp_close`.
    Close,
    /// `tcp_drop` with this error.
    Drop(Errno),
}

/// What a message led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "the kernel's side must follow"]
pub struct Outcome {
    /// Do this first.
    pub end: End,
    /// A read has had the error already: `tcp_drop` sets no so_error.
    pub told: bool,
    /// Then: the adapter will say nothing more about the tid. Release it and the reference of
    /// the inpcb (`final_cpl_received`). True once in a connection's life.
    pub final_cpl: bool,
    /// With `final_cpl`: but for this. The tid is not released before it has been said.
    pub silent: Option<Silent>,
}

/// What the adapter still owes, in messages, of a connection that does not wait for it any more:
/// nothing of the connection's hangs on it but the tid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Silent {
    /// CPL_SET_TCB_RPLs.
    pub replies: u8,
    /// CPL_ABORT_RPL_RSS.
    pub abort: bool,
}

impl Silent {
    /// A CPL_SET_TCB_RPL has come. True: that was all.
    pub fn replied(&mut self) -> bool {
        self.replies = self.replies.saturating_sub(1);
        *self == Silent::default()
    }

    /// CPL_ABORT_RPL_RSS has come. True: that was all.
    pub fn aborted(&mut self) -> bool {
        self.abort = false;
        *self == Silent::default()
    }
}

impl Outcome {
    /// Nothing to do.
    pub const NONE: Outcome = Outcome {
        end: End::None,
        told: false,
        final_cpl: false,
        silent: None,
    };
}

/// The connection is up (CPL_ACT_ESTABLISH, CPL_PASS_ESTABLISH).
#[derive(Clone, Copy, Debug)]
pub struct EstablishInit {
    /// Who it is on the adapter.
    pub id: ConnId,
    /// `snd_isn` of the CPL: sequence number of the first payload byte to send.
    pub snd_isn: u32,
    /// `rcv_isn` of the CPL: sequence number of the first payload byte to come.
    pub rcv_isn: u32,
    /// Receive window given with the open request, bytes (RCV_BUFSIZ in opt0 times 1024).
    pub rcv_wnd: u32,
    /// Work-request credits the firmware grants (`params.ofldq_wr_cred`), units of 16 bytes.
    pub wr_credits: u16,
    /// Rest of what transmit needs.
    pub tx: TxParams,
}

/// One offloaded connection (the logic of `struct toepcb`).
pub struct Conn<O: Os> {
    pub(crate) sh: Shared<O>,
    pub(crate) rx: Rx<O>,
    pub(crate) tx: Tx<O>,
    pub(crate) flags: Flags,
    /// What jobs hear that end with the connection.
    pub(crate) why: Option<Errno>,
    /// Both directions are closed; reads that still get what so_rcv has hold up this end.
    pub(crate) ending: Option<End>,
    /// When the abort began; or, while our direction is being closed, when the adapter last said
    /// something, or was asked.
    pub(crate) since: Option<Since>,
    /// Pages kept for want of the adapter's last word, as counted.
    pub(crate) orphaned: u32,
}

impl<O: Os> Conn<O> {
    /// A connection not yet established. `id.tid` is not used before [`Conn::established`].
    /// `sets` has as many slots as `tun.cache` says, and never fewer than
    /// [`crate::pageset::MIN_SLOTS`]. `ring` has [`crate::txcredits::RING`] words.
    pub fn new(id: ConnId, tun: Tunables, mut sets: PageSets<O>, ring: O::Ring) -> Conn<O> {
        sets.set_limit(tun.cache);
        Conn {
            sh: Shared {
                id,
                seq: SeqState::default(),
                sets,
                tun,
                ulp_mode: wire::UlpMode::None,
                wrs: crate::wr::Wrs::default(),
            },
            rx: Rx::new(),
            tx: Tx::new(ring),
            flags: Flags::empty(),
            why: None,
            ending: None,
            since: None,
            orphaned: 0,
        }
    }

    /// Who the connection is on the adapter.
    pub fn id(&self) -> &ConnId {
        &self.sh.id
    }

    /// Take over changed settings. A larger `tun.cache` than at first does not add slots.
    pub fn set_tunables(&mut self, tun: Tunables) {
        self.sh.tun = tun;
        self.sh.sets.set_limit(tun.cache);
    }

    /// The connection is up. Sends FW_FLOWC_WR, sets the tcpcb to ESTABLISHED and shows the
    /// sequence numbers in it; the caller does the rest of `make_established` (options, MSS,
    /// `soisconnected`) before. If the kernel dropped the connection meanwhile, it is aborted.
    pub fn established(&mut self, os: &mut O, init: &EstablishInit) -> Outcome {
        if self.flags.contains(Flags::ESTABLISHED) {
            return self.bad_cpl(os);
        }
        self.flags |= Flags::ESTABLISHED;
        self.sh.id = init.id;
        self.sh.seq = SeqState {
            rcv_nxt: init.rcv_isn,
            rcv_wnd: i32::try_from(init.rcv_wnd).unwrap_or(i32::MAX),
            snd_una: init.snd_isn,
            snd_nxt: init.snd_isn,
        };
        let gone = self.gone(os);
        self.tx
            .established(&mut self.sh, os, init.wr_credits, init.tx, !gone);
        if gone {
            self.start_abort(os, Errno::ECONNABORTED);
            return Outcome::NONE;
        }
        os.set_tcp_state(crate::os::TcpState::Established);
        os.publish(&self.sh.seq);
        // opt0 carries at most 1023 KB of the window: give the rest.
        self.rx.rcvd(&mut self.sh, os);
        self.tx.output(&mut self.sh, os);
        self.hear(os);
        Outcome::NONE
    }

    /// `tod_output`: send what lies in so_snd.
    pub fn output(&mut self, os: &mut O) {
        if self.alive(os) {
            if self.tx.fin_asked() {
                self.closed(os);
            }
            self.tx.output(&mut self.sh, os);
        }
    }

    /// TCP_NODELAY changed; the adapter's own Nagle is the caller's to switch.
    pub fn set_nagle(&mut self, on: bool) {
        self.tx.params.nagle = on;
    }

    /// `tod_rcvd`: the socket's user has taken data.
    pub fn rcvd(&mut self, os: &mut O) {
        if self.alive(os) {
            self.rx.rcvd(&mut self.sh, os);
        }
    }

    /// A TLS session of the kernel's has taken over one direction ([`Os::rcv_tls`],
    /// [`Os::snd_tls`]): jobs claimed before end.
    pub fn tls(&mut self, os: &mut O) {
        if self.alive(os) {
            self.rx.rcvd(&mut self.sh, os);
            self.tx.pump(&mut self.sh, os);
        }
    }

    /// CPL_RX_DATA with its payload.
    pub fn rx_data(&mut self, os: &mut O, cpl: &wire::RxData, m: O::Mbuf) -> Outcome {
        if !self.alive(os) {
            os.rcv_discard(m);
            self.rx.lose();
            let open = self.flags.contains(Flags::ESTABLISHED) && !self.over();
            if open && self.gone(os) {
                // Nobody will ever read; without a reset the peer would wait at a shut window.
                self.start_abort(os, Errno::ECONNRESET);
            }
            return Outcome::NONE;
        }
        if os.rcv_shut() {
            // Data for nobody: the peer shall know (as do_rx_data does).
            os.rcv_discard(m);
            self.rx.lose();
            return self.give_up(os, Errno::ECONNRESET);
        }
        self.hear(os);
        let r = self.rx.rx_data(&mut self.sh, os, cpl, m);
        self.judge(os, r)
    }

    /// CPL_RX_DATA_DDP.
    pub fn rx_data_ddp(&mut self, os: &mut O, cpl: &wire::RxDataDdp) -> Outcome {
        if self.over() {
            return Outcome::NONE;
        }
        let r = self.rx.rx_data_ddp(&mut self.sh, os, cpl);
        self.judge(os, r)
    }

    /// CPL_RX_DDP_COMPLETE.
    pub fn rx_ddp_complete(&mut self, os: &mut O, cpl: &wire::RxDdpComplete) -> Outcome {
        if self.over() {
            return Outcome::NONE;
        }
        let r = self.rx.rx_ddp_complete(&mut self.sh, os, cpl);
        self.judge(os, r)
    }

    /// CPL_SET_TCB_RPL.
    pub fn set_tcb_rpl(&mut self, os: &mut O, cpl: &wire::SetTcbRpl) -> Outcome {
        if crate::ddp::is_probe(cpl) {
            return self.probed(os, cpl);
        }
        if self.over() {
            return self.late_reply(os, cpl);
        }
        let r = self.rx.set_tcb_rpl(&mut self.sh, os, cpl);
        self.recount(os);
        self.judge(os, r)
    }

    /// CPL_FW4_ACK: credits are back, the peer has acknowledged. Parked writes go on at once.
    pub fn fw4_ack(&mut self, os: &mut O, cpl: &wire::Fw4Ack) -> Outcome {
        if self.over() || self.flags.intersects(Flags::ABORT | Flags::FIN_ACKED) {
            return Outcome::NONE;
        }
        self.hear(os);
        let gone = self.gone(os);
        let r = self.tx.fw4_ack(&mut self.sh, os, cpl, gone);
        self.sh.sets.trim(os);
        self.judge(os, r)
    }

    /// An aio_read job.
    ///
    /// # Errors
    /// Declined: the generic path shall have it.
    pub fn aio_read(&mut self, os: &mut O, job: O::Job) -> Result<(), O::Job> {
        if !self.alive(os) {
            return Err(job);
        }
        self.rx.aio_read(&mut self.sh, os, job)
    }

    /// An aio_writev job. Its bytes are copied, and only if jobs are here that it must not pass.
    ///
    /// # Errors
    /// Declined: the generic path shall have it.
    pub fn aio_writev(&mut self, os: &mut O, mut job: O::Job) -> Result<(), O::Job> {
        if !self.tx.writes.more_to_come() {
            return Err(job);
        }
        job.set_copies();
        self.aio_write(os, job)
    }

    /// An aio_write job. If its pages are not held yet, the worker is asked for them; a caller
    /// that may sleep serves [`Conn::want_pages`] itself and saves the round trip.
    ///
    /// # Errors
    /// Declined: the generic path shall have it (`tx_zcopy` is off, nothing to write, the
    /// connection is closed or closing).
    pub fn aio_write(&mut self, os: &mut O, job: O::Job) -> Result<(), O::Job> {
        if !self.alive(os) {
            return Err(job);
        }
        self.tx.aio_write(&mut self.sh, os, job)
    }

    /// `aio_cancel` of a job. True: it is ended or will be as soon as that is safe. False: it is
    /// not here, or in flight and must run its course.
    pub fn cancel(&mut self, os: &mut O, id: JobId) -> bool {
        self.rx.cancel(&mut self.sh, os, id) || self.tx.cancel(&mut self.sh, os, id)
    }

    /// What pages to hold next, if any. The caller drops the lock, faults them in, and answers
    /// with [`Conn::pages_ready`]; the job named stays valid until then. A worker that was asked
    /// for ([`Os::kick_worker`]) repeats this until the answer is `None`.
    pub fn want_pages(&mut self, os: &mut O) -> Option<Want<O::Lent>> {
        // Reads that have ended are seen to even when the connection is gone.
        if let Some(w) = self.rx.want_mend(&mut self.sh, os) {
            return Some(w);
        }
        if !self.alive(os) {
            return None;
        }
        if let Some(w) = self.rx.want_pages(&mut self.sh, os) {
            return Some(w);
        }
        self.tx.want_pages(&mut self.sh, os)
    }

    /// The answer to [`Conn::want_pages`].
    pub fn pages_ready(&mut self, os: &mut O, ticket: Ticket, pages: Result<O::Pages, Errno>) {
        if self.tx.owns(&ticket) {
            self.tx.pages_ready(&mut self.sh, os, ticket, pages);
        } else {
            self.rx.pages_ready(&mut self.sh, os, ticket, pages);
        }
        if self.over() {
            // They came too late to be of use.
            self.sh.sets.release_idle(os);
        }
        self.recount(os);
    }

    /// The answer to a want that [`Want::is_copy`]: all the bytes, or EFAULT.
    pub fn copied(&mut self, os: &mut O, want: &Want<O::Lent>, m: Result<O::Mbuf, Errno>) {
        self.tx.copied(&mut self.sh, os, want, m);
    }

    /// A shortage may be over.
    pub fn retry(&mut self, os: &mut O) -> Outcome {
        self.rx.retry_mend(os);
        if !self.flags.contains(Flags::ESTABLISHED) || self.over() {
            return Outcome::NONE;
        }
        if let Some(o) = self.unbuilt(os) {
            return o;
        }
        let o = self.retry_abort(os);
        if self.alive(os) {
            self.rx.retry(&mut self.sh, os);
            self.tx.retry(&mut self.sh, os);
        }
        match self.ending {
            Some(end) => self.try_end(os, end),
            None => o,
        }
    }

    /// Others are short of wired pages or page pods, or the process with this address space is:
    /// let go of page sets that nobody uses.
    pub fn relieve(&mut self, os: &mut O, space: Option<u64>) {
        self.sh.sets.relieve(os, space);
    }

    /// Room for page sets, before the first aio job: most connections never have one. What is
    /// there already stays, and the new is given back.
    pub fn provide(&mut self, slots: O::Slots) -> Option<O::Slots> {
        self.sh.sets.provide(slots)
    }

    /// The process with this address space exits or execs: nothing of it stays behind
    /// ([`PageSets::forget`]).
    pub fn forget(&mut self, os: &mut O, space: u64) {
        self.sh.sets.forget(os, space);
    }

    /// True if the value can be freed: no CPL is to come, the kernel let go of the tcpcb, no
    /// worker holds a ticket, and no mbuf refers to a page set. Releases what it can; to be asked
    /// again when the last user of a slot is gone.
    pub fn reap(&mut self, os: &mut O) -> bool {
        let up = self.flags.contains(Flags::ESTABLISHED);
        (self.over() || !up)
            && self.flags.contains(Flags::DETACHED)
            && self.tx.idle()
            && self.rx.idle()
            && (self.answered() || self.flags.contains(Flags::TID_KEPT))
            && self.sh.sets.release_idle(os)
    }

    /// What must hold after every step (I1, I3, I5).
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_invariants(&self, os: &O) -> Result<(), &'static str> {
        self.tx
            .check(&self.sh, os, self.flags.contains(Flags::ABORT))?;
        self.rx.check(&self.sh, os)?;
        if self.over() && !self.tx.quiet() {
            return Err("write jobs outlive the connection");
        }
        if self.flags.contains(Flags::REQ_OWED | Flags::REQ_SENT) {
            return Err("CPL_ABORT_REQ both sent and owed");
        }
        if self
            .flags
            .intersects(Flags::REQ_OWED | Flags::REQ_SENT | Flags::RPL_OWED)
            && !self.flags.contains(Flags::ABORT)
        {
            return Err("abort messages without an abort");
        }
        self.check_orphans()
    }

    /// The kernel holds no socket of ours any more.
    pub(crate) fn gone(&self, os: &O) -> bool {
        self.flags.contains(Flags::DETACHED) || os.dropped()
    }

    /// The adapter may read what lies, or lay, in so_snd.
    pub fn sending(&self) -> bool {
        self.flags.contains(Flags::ESTABLISHED) && !self.over()
    }

    /// The adapter is done with the tid.
    pub(crate) fn over(&self) -> bool {
        self.flags.contains(Flags::FINAL)
    }

    /// Established, not aborting, not over, and the socket is there.
    pub(crate) fn alive(&self, os: &O) -> bool {
        self.flags.contains(Flags::ESTABLISHED)
            && !self.flags.intersects(Flags::ABORT | Flags::FINAL)
            && !self.gone(os)
    }

    fn judge(&mut self, os: &mut O, r: Result<(), BadCpl>) -> Outcome {
        match r {
            Ok(()) => self.unbuilt(os).unwrap_or_default(),
            // Payload is thrown away during an abort, so numbers cannot fit any more.
            Err(_) if self.flags.contains(Flags::ABORT) => Outcome::NONE,
            Err(bad) => self.bad_cpl_for(os, bad),
        }
    }

    /// The adapter said what cannot be: this one connection is closed.
    pub(crate) fn bad_cpl(&mut self, os: &mut O) -> Outcome {
        self.bad_cpl_for(os, BadCpl("a CPL that cannot come in this state"))
    }

    /// A work request could not be built, and never will be: this one connection is closed.
    fn unbuilt(&mut self, os: &mut O) -> Option<Outcome> {
        let e = self.sh.wrs.take_unbuilt()?;
        let tid = self.sh.id.tid;
        os.complain(
            tid,
            "a work request cannot be built; the field without room is",
        );
        os.complain(
            tid,
            match e {
                WireError::Field { name, .. } => name,
                WireError::Truncated { .. } => "its length",
                WireError::Opcode { .. } => "its opcode",
            },
        );
        Some(self.give_up(os, Errno::ECONNABORTED))
    }

    fn bad_cpl_for(&mut self, os: &mut O, bad: BadCpl) -> Outcome {
        os.complain(self.sh.id.tid, bad.0);
        os.count(Counter::BadCpl, 1);
        self.give_up(os, Errno::ECONNABORTED)
    }
}
