//! What the state machines ask of the kernel.
//!
//! An [`Os`] value speaks for **one connection** during one call: it knows the connection's
//! socket, tcpcb, queues and adapter. It exists only while the inpcb's write lock is held, so
//! none of its methods may sleep. The module implements it over the C shim, the tests over
//! plain memory.

use crate::errno::Errno;
use crate::pageset::Slot;
use crate::ppod::{Geometry, Ppods};
use crate::sgl::Sgl;

/// Egress queue of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// The control queue: TCB updates, page pods, receive credits. One for all connections of the
    /// adapter, whatever their port, and for CPL_TID_RELEASE: page pods and tids change hands,
    /// and what their last owner had queued must not run after what their next one queues.
    Ctrl,
    /// The offload transmit queue: payload, FLOWC, close and abort.
    Ofld,
}

/// No work request could be had now (descriptors and memory are short): try again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoWr;

/// No mbuf could be had now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMbuf;

/// Identity of an AIO job for as long as it is not completed (the address of its kaiocb).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct JobId(pub usize);

/// A claimed AIO job (`struct kaiocb`). Owned: it is completed exactly once, by
/// [`Os::complete`].
pub trait Job {
    /// Identity, for cancels.
    fn id(&self) -> JobId;
    /// User address of the buffer.
    fn addr(&self) -> u64;
    /// Bytes asked for (`aio_nbytes`).
    fn len(&self) -> usize;
    /// True if no byte was asked for.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Address of byte `off` of the buffer, and how many of its bytes lie there in a row.
    fn run(&self, off: usize) -> (u64, usize) {
        let left = self.len().saturating_sub(off);
        (self.addr().wrapping_add(off as u64), left)
    }
    /// The buffer is in several places (`aio_readv`): [`Job::addr`] says nothing.
    fn scattered(&self) -> bool {
        false
    }
    /// Bytes moved so far (received, or queued for sending).
    fn done(&self) -> usize;
    /// Record progress.
    fn set_done(&mut self, n: usize);
    /// Page set the job holds, if prepared (a slot of [`crate::pageset::PageSets`]).
    fn slot(&self) -> Option<u16>;
    /// Record the page set.
    fn set_slot(&mut self, slot: Option<u16>);
    /// What [`Job::set_mark`] recorded; 0 at first. A write job keeps here the sequence number
    /// after its last queued byte.
    fn mark(&self) -> u32;
    /// Record a number with the job.
    fn set_mark(&mut self, mark: u32);
    /// A write's bytes are to be copied: its pages cannot be held, or are not worth it.
    fn copies(&self) -> bool;
    /// Record that.
    fn set_copies(&mut self);
}

/// A first-in first-out list of jobs that allocates nothing (`TAILQ` through `kaiocb::list`).
pub trait JobQueue<J: Job>: Default {
    /// Append.
    fn push_back(&mut self, job: J);
    /// Put back at the head.
    fn push_front(&mut self, job: J);
    /// Take the head.
    fn pop_front(&mut self) -> Option<J>;
    /// Look at the head.
    fn front(&self) -> Option<&J>;
    /// Look at the head, to change it.
    fn front_mut(&mut self) -> Option<&mut J>;
    /// Take a given job out of the middle.
    fn remove(&mut self, id: JobId) -> Option<J>;
    /// The first job for which `pred` holds, to change it.
    fn find_mut(&mut self, pred: impl FnMut(&J) -> bool) -> Option<&mut J>;
    /// True if no job waits.
    fn is_empty(&self) -> bool;
    /// Jobs in the list.
    fn len(&self) -> usize;
}

/// Held (wired) pages of one user buffer. Dropping the value unwires them.
pub trait Pages {
    /// How many pages.
    fn count(&self) -> usize;
    /// Physical address of page `i`; 4096-byte aligned. 0 if there is no such page.
    fn phys(&self, i: usize) -> u64;
    /// Mark every page dirty: the adapter has written to them.
    fn dirty(&mut self);
    /// True if the first `n` pages still are part of what was mapped. The map's generation does
    /// not tell: a file or shared-memory object that is truncated takes its pages away under the
    /// mapping (`vm_object_page_remove`). Loads one word a page.
    fn intact(&self, n: usize) -> bool;
    /// True if a load by the program, at this moment, at the addresses the pages were held at,
    /// would find these very pages: the pmap maps each of them there (`pmap_extract`, one call a
    /// page; no fault, no sleep). False also where nothing is mapped just now.
    fn shown(&self) -> bool;
    /// Some page is a file's. Bytes that were placed in it are written back only if the kernel
    /// sees a fault for writing afterwards.
    fn of_file(&self) -> bool;
}

/// What makes two buffers the same buffer (invariant I7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageKey {
    /// The address space (pointer of the vmspace, which the held pages keep alive).
    pub space: u64,
    /// `vm_map` timestamp, read before the pages were faulted in.
    pub generation: u32,
    /// First byte of the buffer.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Held for writing by the adapter (receive), else for reading.
    pub write: bool,
}

/// State of the connection as the tcpcb shows it (`TCPS_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Closed.
    Closed = 0,
    /// Listening.
    Listen = 1,
    /// SYN sent.
    SynSent = 2,
    /// SYN received.
    SynReceived = 3,
    /// Open both ways.
    Established = 4,
    /// The peer has sent its FIN.
    CloseWait = 5,
    /// We have sent our FIN.
    FinWait1 = 6,
    /// Both FINs crossed.
    Closing = 7,
    /// FIN after the peer's FIN.
    LastAck = 8,
    /// Our FIN is acknowledged.
    FinWait2 = 9,
    /// 2MSL.
    TimeWait = 10,
}

/// Sequence state to show in the tcpcb (netstat, TCP_INFO, the close paths read it there).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SeqState {
    /// Next sequence expected from the peer.
    pub rcv_nxt: u32,
    /// Receive window the adapter may still advertise, bytes. Negative under DDP in passing.
    pub rcv_wnd: i32,
    /// First byte the peer has not acknowledged.
    pub snd_una: u32,
    /// Next byte to hand to the adapter.
    pub snd_nxt: u32,
}

/// What lies unsent in the send buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unsent {
    /// Bytes described (payload of the next work request), 0 if nothing is ready.
    pub len: u32,
    /// More ready bytes follow behind those.
    pub more: bool,
}

/// Everything that is counted, per adapter and per connection class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Counter {
    /// aio_read jobs claimed.
    RxJobs,
    /// Octets that the adapter placed where they belong.
    RxPlacedOctets,
    /// Octets placed by the adapter and moved up within the buffer, because bytes that precede
    /// them were on their way to so_rcv when it was posted.
    RxMovedOctets,
    /// Octets copied into aio_read buffers from the socket buffer: arrived before DDP was on.
    RxCopiedBeforeDdp,
    /// ... arrived while no buffer was posted.
    RxCopiedNoBuffer,
    /// ... because no page pods were free.
    RxCopiedNoPpods,
    /// ... because the adapter fell out of DDP.
    RxCopiedDdpOff,
    /// ... because no pages could be wired under the budgets.
    RxCopiedNoBudget,
    /// ... because the buffer is in several places (`aio_readv`).
    RxCopiedVectored,
    /// Octets received outside aio_read (plain read(2)).
    RxPlainOctets,
    /// Reads completed short (PSH, FIN, cancel).
    RxShort,
    /// aio_write jobs claimed.
    TxJobs,
    /// Octets sent from held pages.
    TxZcopyOctets,
    /// Octets of claimed writes that were copied: too few to be worth holding pages, or no page
    /// set could be had.
    TxCopiedOctets,
    /// Octets sent from ordinary mbufs: plain write(2), and what was copied.
    TxPlainOctets,
    /// Page-set cache hits.
    CacheHit,
    /// Page-set cache misses.
    CacheMiss,
    /// Page sets evicted.
    CacheEvict,
    /// Page pods written.
    PpodsWritten,
    /// Page-pod work requests sent.
    PpodWrs,
    /// Work requests sent.
    Wrs,
    /// Page-pod shortage met.
    NoPpods,
    /// Work-request shortage met.
    NoWr,
    /// Cancelled before anything moved.
    CancelClean,
    /// Cancelled after something moved: completed short.
    CancelShort,
    /// Taken back from the adapter for a cancel, and found full.
    CancelLate,
    /// Connections closed because the adapter sent nonsense.
    BadCpl,
    /// Work requests that could not be built. The connection is closed, and may be for a bad
    /// setting of the adapter.
    BadWr,
    /// Number of counters.
    Count,
}

/// The kernel, as one connection sees it.
pub trait Os: Sized {
    /// Chain of received mbufs, owned.
    type Mbuf;
    /// Held pages, owned.
    type Pages: Pages;
    /// AIO job, owned.
    type Job: Job;
    /// A job [lent](Os::lend): until it is dropped, job and process are there.
    type Lent;
    /// Job list.
    type Jobs: JobQueue<Self::Job>;
    /// Storage of the connection's page sets: none, or from the first aio job on at least
    /// [`crate::pageset::MIN_SLOTS`] slots, each [`Slot::default`] at first.
    type Slots: AsRef<[Slot<Self::Pages>]> + AsMut<[Slot<Self::Pages>]>;
    /// [`crate::txcredits::RING`] words of a connection: what each work request in flight carries.
    type Ring: AsRef<[u32]> + AsMut<[u32]>;

    // --- adapter -------------------------------------------------------------------------

    /// Submit a work request, whole as it is (a multiple of 16 bytes, at most 512), to queue `q`.
    ///
    /// # Errors
    /// [`NoWr`]: nothing was sent.
    fn send_wr(&mut self, q: Queue, wr: &[u8]) -> Result<(), NoWr>;

    /// Layout of the adapter's page-pod memory.
    fn geometry(&self) -> Geometry;
    /// Take `n` page pods from the adapter's region.
    fn ppod_alloc(&mut self, n: u32) -> Option<Ppods>;
    /// Give them back.
    fn ppod_free(&mut self, p: Ppods);
    /// Ask that [`crate::conn::Conn::retry`] be called once the shortage may be over
    /// (another connection freed pods, descriptors came back, or a short timer).
    fn retry_later(&mut self);
    /// Ask that a worker call want_pages/pages_ready: pages are wanted and this context
    /// may not sleep.
    fn kick_worker(&mut self);
    /// The adapter said what cannot be, about this connection: to the log, with its tid.
    fn complain(&mut self, tid: u32, why: &'static str);
    /// This connection is kept only because the adapter has not said that it is done (`conns` 1), or
    /// not any more (-1), and so many more pages, or less, for the same reason.
    fn orphaned(&mut self, conns: i64, pages: i64);
    /// Milliseconds that the system is up.
    fn now_ms(&self) -> u64;
    /// Add to a counter.
    fn count(&mut self, c: Counter, n: u64);

    // --- receive side of the socket ------------------------------------------------------

    /// Bytes in so_rcv (`sbavail`).
    fn rcv_avail(&self) -> u32;
    /// Bytes in so_rcv, those included that a TLS session has not deciphered (`sbused`).
    fn rcv_held(&self) -> u32;
    /// Room in so_rcv (`sbspace`), negative if over-full.
    fn rcv_space(&self) -> i32;
    /// High-water mark of so_rcv, and at least [`crate::open::MIN_RCV_WND`].
    fn rcv_hiwat(&self) -> u32;
    /// Low-water mark of so_rcv.
    fn rcv_lowat(&self) -> u32;
    /// SBS_CANTRCVMORE is set.
    fn rcv_shut(&self) -> bool;
    /// A TLS session of the kernel's takes what arrives from so_rcv and puts there what it has
    /// deciphered (`SB_TLS_RX`, FreeBSD 13 and later). Never off again.
    fn rcv_tls(&self) -> bool;
    /// Reads of the generic path wait for data or are taking it: one claimed now would overtake
    /// them.
    fn rcv_generic(&self) -> bool;
    /// Append to so_rcv and wake readers (`sbappendstream`, `sorwakeup`).
    fn rcv_append(&mut self, m: Self::Mbuf);
    /// Free a received chain unread.
    fn rcv_discard(&mut self, m: Self::Mbuf);
    /// Move up to `max` bytes from so_rcv into held pages; `off` is the byte offset from the
    /// start of the first page. Returns the bytes moved and removed from so_rcv, which is `max`
    /// if so_rcv has that many. Called with the receive I/O lock ([`Os::rcv_io_trylock`]) taken.
    fn rcv_copy(&mut self, slot_pages: &Self::Pages, off: u32, max: u32) -> u32;
    /// Take the socket's receive I/O lock without waiting, so that bytes are not taken from under
    /// a read(2) in progress. False: a reader is inside.
    fn rcv_io_trylock(&mut self) -> bool;
    /// Release it.
    fn rcv_io_unlock(&mut self);
    /// Do something under the receive I/O lock, if that is free.
    fn with_rcv_io<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> Option<R> {
        if !self.rcv_io_trylock() {
            return None;
        }
        let r = f(self);
        self.rcv_io_unlock();
        Some(r)
    }
    /// Append a copy of `len` bytes of held pages, from byte `off` of the first page on, to
    /// so_rcv and wake readers: bytes that were placed too early in a user's buffer go back to
    /// where the stream is read from.
    ///
    /// # Errors
    /// [`NoMbuf`]: nothing was appended.
    fn rcv_append_pages(&mut self, pages: &Self::Pages, off: u32, len: u32) -> Result<(), NoMbuf>;
    /// Move `len` bytes within held pages, `from` and `to` counted from the start of the first
    /// page; the ranges may overlap (`memmove`).
    fn pages_move(&mut self, pages: &Self::Pages, from: u32, to: u32, len: u32);
    /// Copy `len` bytes between held pages, which may be the same, but then not overlap.
    fn pages_copy(&mut self, from: &Self::Pages, off: u32, to: &Self::Pages, at: u32, len: u32);
    /// One received chain out of two, `head` first (`m_cat`).
    fn mbuf_join(&mut self, head: Self::Mbuf, tail: Self::Mbuf) -> Self::Mbuf;
    /// Grow so_rcv by a step, if it sizes itself and may have more (`SB_AUTOSIZE`,
    /// `net.inet.tcp.recvbuf_auto`, `recvbuf_max`).
    fn rcv_grow(&mut self);
    /// No more data will come (`socantrcvmore`).
    fn rcv_cant_more(&mut self);

    // --- send side of the socket ---------------------------------------------------------

    /// Describe up to `max` unsent bytes of so_snd as physical segments, stopping when `sgl` is
    /// full or at data that is not ready. Moves nothing.
    fn snd_unsent(&mut self, max: u32, sgl: &mut Sgl) -> Unsent;
    /// Copy the next `out.len()` unsent bytes. False: as many are not there, or not ready.
    #[must_use]
    fn snd_peek(&mut self, out: &mut [u8]) -> bool;
    /// The next `n` unsent bytes were handed to the adapter (`sb_sndptr`).
    fn snd_advance(&mut self, n: u32);
    /// Octets among the next `n` unsent bytes that come from held user pages.
    fn snd_zcopy_octets(&mut self, n: u32) -> u32;
    /// The peer acknowledged `n` bytes: drop them, wake writers (`sbdrop`, `sowwakeup`).
    fn snd_drop(&mut self, n: u32);
    /// Drop all (`sbflush`).
    fn snd_flush(&mut self);
    /// Bytes in so_snd (`sbused`).
    fn snd_used(&self) -> u32;
    /// Room in so_snd (`sbspace`), negative if over-full.
    fn snd_space(&self) -> i32;
    /// High-water mark of so_snd.
    fn snd_hiwat(&self) -> u32;
    /// Low-water mark of so_snd.
    fn snd_lowat(&self) -> u32;
    /// SBS_CANTSENDMORE is set.
    fn snd_shut(&self) -> bool;
    /// What programs write goes through a TLS session of the kernel's before it comes to so_snd
    /// (`sb_tls_info`, FreeBSD 13 and later). Never off again.
    fn snd_tls(&self) -> bool;
    /// Grow so_snd if autosizing is on and it is nearly full; true if it grew.
    fn snd_autosize(&mut self) -> bool;
    /// Take the socket's send I/O lock without waiting, so that no write(2) in progress is cut
    /// in two. False: a writer is inside.
    fn snd_io_trylock(&mut self) -> bool;
    /// Release it.
    fn snd_io_unlock(&mut self);
    /// Append `len` bytes of held pages to so_snd as mbufs that refer to the page set in `slot`:
    /// each is a user of it until it is freed. `off` is the byte offset from the start of the
    /// first page.
    ///
    /// # Errors
    /// [`NoMbuf`]: nothing was appended.
    fn snd_append_pages(
        &mut self,
        job: &Self::Job,
        slot: u16,
        pages: &Self::Pages,
        off: u32,
        len: u32,
    ) -> Result<(), NoMbuf>;
    /// Append a copy of a part of the job's buffer to so_snd.
    fn snd_append(&mut self, job: &Self::Job, m: Self::Mbuf);
    /// The generic path has write jobs of this socket that have not ended.
    fn snd_generic(&self) -> bool;
    /// The caller of `tod_output` has more to send at once (`TF_MORETOCOME`): no PSH yet.
    fn more_to_come(&self) -> bool;
    /// Non-blocking socket (`SS_NBIO`).
    fn nonblocking(&self) -> bool;
    /// SIGPIPE for the job's process unless SO_NOSIGPIPE.
    fn sigpipe(&mut self, job: &Self::Job);

    // --- socket and tcpcb ----------------------------------------------------------------

    /// Take so_error.
    fn take_so_error(&mut self) -> Option<Errno>;
    /// State of the tcpcb.
    fn tcp_state(&self) -> TcpState;
    /// `tcp_state_change`.
    fn set_tcp_state(&mut self, s: TcpState);
    /// INP_DROPPED: the kernel has let go of the connection.
    fn dropped(&self) -> bool;
    /// Show the sequence state in the tcpcb.
    fn publish(&mut self, seq: &SeqState);
    /// `soisdisconnected`.
    fn so_disconnected(&mut self);

    // --- jobs and pages ------------------------------------------------------------------

    /// Install the cancel function. False: the job is cancelled already; complete it with
    /// ECANCELED (or short).
    fn arm_cancel(&mut self, job: &Self::Job) -> bool;
    /// Lend a job to the thread that will hold or copy the memory of its process with no lock
    /// held.
    fn lend(&self, job: &Self::Job) -> Self::Lent;
    /// End a job (`aio_complete`).
    fn complete(&mut self, job: Self::Job, result: Result<usize, Errno>);
    /// The job's process exits or execs: nobody can write to the buffer any more, and nobody is
    /// to wait.
    fn leaving(&self, job: &Self::Job) -> bool;
    /// Key of `len` bytes of the job's buffer from `off` on, with the map's generation now.
    fn page_key(&self, job: &Self::Job, off: usize, len: u32, write: bool) -> PageKey;
    /// One more user of a page-set slot. (Counted outside, because mbufs are freed in any context.)
    fn slot_use(&mut self, slot: u16);
    /// One user less.
    fn slot_unuse(&mut self, slot: u16);
    /// Users now.
    fn slot_users(&self, slot: u16) -> u32;
    /// May `n` more pages be wired under the budgets of the process and of all adapters? If so they are
    /// charged, until the hold that follows has failed or its [`Pages`] are dropped.
    fn charge_pages(&mut self, job: &Self::Job, n: u32) -> bool;
}
