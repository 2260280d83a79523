//! The public types of the process API. A program under test is a closure that receives a
//! [`Proc`](super::Proc) and makes system calls on it.
//!
//! ```ignore
//! let k = ukern::boot(Config { seed, ..Config::default() });
//! k.kldload("t5sim.ko")?; k.kldload("toehold.ko")?;
//! k.ifconfig("cxl0", "10.0.0.1/24", 0, true)?;      // vnet 0, `ifconfig cxl0 toe`
//! k.ifconfig("cxl1", "10.0.0.2/24", 1, true)?;      // vnet 1
//! let server = k.spawn(ProcConfig::vnet(1).name("server"), |p| {
//!     let l = p.socket().unwrap();
//!     p.bind(l, addr("10.0.0.2", 5001)).unwrap();
//!     p.listen(l, 8).unwrap();
//!     let (s, _peer) = p.accept(l).unwrap();
//!     let buf = p.mmap(65536, Prot::RW).unwrap();
//!     let job = p.aio_read(s, buf, 65536).unwrap();
//!     let n = p.aio_wait(job).unwrap();
//!     p.load_vec(buf, n).unwrap()
//! });
//! let client = k.spawn(ProcConfig::vnet(0), |p| { /* ... */ });
//! let got = server.join();                          // the closure's value; panics propagate
//! client.join();
//! k.shutdown();                                     // leak checks
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

/// Number of a network stack instance: 0 is the base system's, 1 exists as well.
pub type VnetId = u32;

/// A user virtual address.
pub type UserVa = u64;

/// An IPv4 socket address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SockAddr {
    /// Address, `0.0.0.0` for any.
    pub ip: Ipv4Addr,
    /// Port in host order, 0 for any.
    pub port: u16,
}

/// Shorthand: `addr("10.0.0.1", 80)`.
///
/// # Panics
/// When the text is no IPv4 address: a mistake of the test.
#[must_use]
pub fn addr(ip: &str, port: u16) -> SockAddr {
    SockAddr {
        ip: ip.parse().expect("an IPv4 address"),
        port,
    }
}

/// Page protection of a mapping (`PROT_READ`, `PROT_WRITE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prot {
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
}

impl Prot {
    /// `PROT_NONE`.
    pub const NONE: Prot = Prot {
        read: false,
        write: false,
    };
    /// `PROT_READ`.
    pub const R: Prot = Prot {
        read: true,
        write: false,
    };
    /// `PROT_READ | PROT_WRITE`.
    pub const RW: Prot = Prot {
        read: true,
        write: true,
    };
}

/// What `shutdown(2)` closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shut {
    /// `SHUT_RD`
    Rd,
    /// `SHUT_WR`
    Wr,
    /// `SHUT_RDWR`
    RdWr,
}

/// A socket option and its value, for `setsockopt(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SockOpt {
    /// `SO_RCVBUF`: bytes; clears autosizing.
    RcvBuf(u32),
    /// `SO_SNDBUF`: bytes; clears autosizing.
    SndBuf(u32),
    /// `SO_RCVLOWAT`: bytes.
    RcvLowat(u32),
    /// `SO_SNDLOWAT`: bytes.
    SndLowat(u32),
    /// `SO_RCVTIMEO`.
    RcvTimeo(Duration),
    /// `SO_SNDTIMEO`.
    SndTimeo(Duration),
    /// `SO_LINGER`: `None` is off, `Some(0)` resets on close, otherwise seconds.
    Linger(Option<u16>),
    /// `SO_NOSIGPIPE`.
    NoSigpipe(bool),
    /// `SO_REUSEADDR`.
    ReuseAddr(bool),
    /// `SO_KEEPALIVE`.
    KeepAlive(bool),
    /// `SO_NO_OFFLOAD`: never hand the connection to a TOE.
    NoOffload(bool),
    /// `SO_NO_DDP`: no direct placement for this socket.
    NoDdp(bool),
    /// `TCP_NODELAY`.
    NoDelay(bool),
    /// `TCP_NOPUSH`.
    NoPush(bool),
}

/// A readable socket option, for `getsockopt(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SockOptName {
    /// `SO_ERROR`: reads and clears the pending error.
    Error,
    /// `SO_RCVBUF` in bytes.
    RcvBuf,
    /// `SO_SNDBUF` in bytes.
    SndBuf,
    /// `SO_RCVLOWAT` in bytes.
    RcvLowat,
    /// `SO_SNDLOWAT` in bytes.
    SndLowat,
    /// `SO_ACCEPTCONN`: 1 for a listener.
    AcceptConn,
    /// `TCP_NODELAY`.
    NoDelay,
    /// `TCP_MAXSEG` in bytes.
    MaxSeg,
}

/// `recv(2)`/`send(2)` flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MsgFlags {
    /// `MSG_PEEK`
    pub peek: bool,
    /// `MSG_WAITALL`
    pub waitall: bool,
    /// `MSG_DONTWAIT`
    pub dontwait: bool,
    /// `MSG_NOSIGNAL`
    pub nosignal: bool,
    /// `MSG_EOF`: send, then shut down the sending side.
    pub eof: bool,
    /// `MSG_SOCALLBCK`: as a reader inside the kernel, which tells the protocol nothing.
    pub callback: bool,
}

/// `poll(2)` conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Poll {
    /// `POLLIN | POLLRDNORM`
    pub readable: bool,
    /// `POLLOUT`
    pub writable: bool,
    /// `POLLHUP` (output only)
    pub hup: bool,
}

impl Poll {
    /// Ask for readability.
    pub const IN: Poll = Poll {
        readable: true,
        writable: false,
        hup: false,
    };
    /// Ask for writability.
    pub const OUT: Poll = Poll {
        readable: false,
        writable: true,
        hup: false,
    };
}

/// An `aiocb` of the program: it lies in the program's own memory, as on FreeBSD.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AioCb(pub UserVa);

/// What `aio_cancel(2)` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AioCancel {
    /// `AIO_CANCELED`: all requested operations were cancelled.
    Canceled,
    /// `AIO_NOTCANCELED`: at least one could not be cancelled.
    NotCanceled,
    /// `AIO_ALLDONE`: all had finished already.
    AllDone,
}

/// Signals the API knows, by FreeBSD number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// `SIGINT` (2)
    Int = 2,
    /// `SIGKILL` (9)
    Kill = 9,
    /// `SIGSEGV` (11)
    Segv = 11,
    /// `SIGPIPE` (13)
    Pipe = 13,
    /// `SIGALRM` (14)
    Alrm = 14,
    /// `SIGTERM` (15)
    Term = 15,
    /// `SIGURG` (16)
    Urg = 16,
    /// `SIGIO` (23)
    Io = 23,
    /// `SIGUSR1` (30)
    Usr1 = 30,
    /// `SIGUSR2` (31)
    Usr2 = 31,
}

/// Disposition of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SigAction {
    /// `SIG_DFL`: SIGURG is dropped, every other signal here ends the process.
    Default,
    /// `SIG_IGN`
    Ignore,
    /// A handler that does nothing. A sleeping system call ends with EINTR (or a short count
    /// where something was moved); no SA_RESTART.
    Catch,
}

impl Signal {
    /// The one of this FreeBSD number.
    #[must_use]
    pub fn from_number(n: i32) -> Option<Signal> {
        use Signal::{Alrm, Int, Io, Kill, Pipe, Segv, Term, Urg, Usr1, Usr2};
        [Int, Kill, Segv, Pipe, Alrm, Term, Urg, Io, Usr1, Usr2]
            .into_iter()
            .find(|s| *s as i32 == n)
    }
}

/// How a process ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit<R> {
    /// The closure returned this.
    Returned(R),
    /// `Proc::exit(code)`.
    Code(i32),
    /// Killed by this signal number.
    Signal(i32),
}

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct ProcConfig {
    /// `p_comm`, for messages.
    pub name: String,
    /// The network stack its sockets use.
    pub vnet: VnetId,
    /// `RLIMIT_MEMLOCK` in bytes; `None` is RLIM_INFINITY (the default).
    pub memlock: Option<u64>,
    /// `RLIMIT_NOFILE`.
    pub nofile: usize,
    /// Disposition of SIGPIPE at start; `Ignore` by default, as most servers have it.
    pub sigpipe: SigAction,
    /// Bytes of `va` space the layout of mmap starts from; every process may have another.
    pub mmap_base: UserVa,
}

impl Default for ProcConfig {
    fn default() -> Self {
        ProcConfig {
            name: "prog".to_string(),
            vnet: 0,
            memlock: None,
            nofile: 1024,
            sigpipe: SigAction::Ignore,
            mmap_base: 0x10_0000_0000,
        }
    }
}

impl ProcConfig {
    /// Defaults, in this network stack.
    #[must_use]
    pub fn vnet(vnet: VnetId) -> Self {
        ProcConfig {
            vnet,
            ..ProcConfig::default()
        }
    }

    /// Sets the name shown in messages.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_string();
        self
    }

    /// Sets `RLIMIT_MEMLOCK` in bytes.
    #[must_use]
    pub fn memlock(mut self, bytes: u64) -> Self {
        self.memlock = Some(bytes);
        self
    }

    /// Sets the disposition of SIGPIPE.
    #[must_use]
    pub fn sigpipe(mut self, act: SigAction) -> Self {
        self.sigpipe = act;
        self
    }
}

/// One line of `netstat -an -p tcp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcbInfo {
    /// Network stack it belongs to.
    pub vnet: VnetId,
    /// Local end.
    pub local: SockAddr,
    /// Far end, port 0 for a listener.
    pub foreign: SockAddr,
    /// `t_state` by name: "LISTEN", "SYN_SENT", "ESTABLISHED", "TIME_WAIT" ...
    pub state: &'static str,
    /// TF_TOE is set.
    pub offloaded: bool,
    /// A socket is still attached.
    pub has_socket: bool,
    /// The receive buffer's and the send buffer's used bytes.
    pub used: (u32, u32),
    /// The receive buffer's and the send buffer's high-water marks.
    pub hiwat: (u32, u32),
}
