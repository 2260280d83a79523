//! Socket system calls.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::kp::Kp;
use crate::net::acc::{InpExt, SockbufExt, SocketExt, TcpcbExt, Which};
use crate::net::{k, listen, socket, sosend, tcp_subr, tcp_usrreq, tcp_vars};
use crate::proc::api::{MsgFlags, Poll, Shut, SockAddr, SockOpt, SockOptName, UserVa};
use crate::proc::process::Proc;
use crate::proc::sockopt;
use crate::proc::{Errno, Sys, file, from_sbt, to_sbt};
use crate::{sched, sys, vnet};

fn sin(a: SockAddr) -> sys::sockaddr_in {
    // SAFETY: plain C data.
    let mut s: sys::sockaddr_in = unsafe { std::mem::zeroed() };
    s.sin_len = size_of::<sys::sockaddr_in>() as u8;
    s.sin_family = sys::AF_INET as u8;
    s.sin_port = a.port.to_be();
    s.sin_addr.s_addr = u32::from_ne_bytes(a.ip.octets());
    s
}

/// Of either family: an IPv6 address is a mapped one.
fn from_sin6(s: &sys::sockaddr_in6) -> SockAddr {
    // An IPv4 address lies where the flow label is.
    let ip = match u32::from(s.sin6_family) {
        sys::AF_INET6 => {
            // SAFETY: plain bytes.
            let octets = unsafe { s.sin6_addr.__u6_addr.__u6_addr8 };
            Ipv6Addr::from(octets).to_ipv4_mapped()
        }
        _ => Some(Ipv4Addr::from(s.sin6_flowinfo.to_ne_bytes())),
    };
    SockAddr {
        ip: ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
        port: u16::from_be(s.sin6_port),
    }
}

fn any() -> SockAddr {
    SockAddr {
        ip: Ipv4Addr::UNSPECIFIED,
        port: 0,
    }
}

fn msg(f: MsgFlags) -> u32 {
    let bit = |on: bool, b: u32| if on { b } else { 0 };
    bit(f.peek, sys::MSG_PEEK)
        | bit(f.waitall, sys::MSG_WAITALL)
        | bit(f.dontwait, sys::MSG_DONTWAIT)
        | bit(f.nosignal, sys::MSG_NOSIGNAL)
        | bit(f.eof, sys::MSG_EOF)
        | bit(f.callback, sys::MSG_SOCALLBCK)
}

type AddrFn = Option<unsafe extern "C" fn(*mut sys::socket, *mut sys::sockaddr) -> i32>;

impl Proc {
    /// Runs `f` on the socket of a descriptor.
    fn with_so<R>(&self, fd: i32, f: impl FnOnce(Kp<sys::socket>) -> Sys<R>) -> Sys<R> {
        self.call(|| {
            let (fp, so) = file::getsock(self.p, fd)?;
            let r = f(so);
            file::fdrop(fp);
            r
        })
    }

    /// socket(2): TCP over IPv4.
    ///
    /// # Errors
    /// EMFILE, ENOBUFS.
    pub fn socket(&self) -> Sys<i32> {
        self.socket_of(&tcp_vars::TCP_PROTOSW)
    }

    /// socket(2) of AF_INET6 without IPV6_V6ONLY: it may be bound to all addresses and have
    /// connections over IPv4. There is no IPv6.
    ///
    /// # Errors
    /// EMFILE, ENOBUFS.
    pub fn socket6(&self) -> Sys<i32> {
        self.socket_of(&tcp_vars::TCP6_PROTOSW)
    }

    fn socket_of(&self, protosw: &crate::ksym::KData) -> Sys<i32> {
        self.call(|| {
            let td = sched::current_thread();
            let proto = protosw.get::<sys::protosw>().ptr();
            let so = socket::create(td.td_vnet, td.td_ucred, proto, td.ptr()).map_err(Errno)?;
            file::install(self.p, file::for_socket(so))
        })
    }

    /// bind(2).
    ///
    /// # Errors
    /// EADDRINUSE, EADDRNOTAVAIL, EINVAL.
    pub fn bind(&self, fd: i32, a: SockAddr) -> Sys<()> {
        self.with_so(fd, |so| {
            let mut s = sin(a);
            let Some(f) = so.proto().pr_bind else {
                return Err(Errno::EOPNOTSUPP);
            };
            let td = sched::current_thread().ptr();
            Errno::check(vnet::with_vnet(so.so_vnet, || {
                // SAFETY: the socket's own protocol; the address outlives the call.
                unsafe { f(so.ptr(), (&raw mut s).cast(), td) }
            }))
        })
    }

    /// listen(2).
    ///
    /// # Errors
    /// EINVAL on a connected socket.
    pub fn listen(&self, fd: i32, backlog: i32) -> Sys<()> {
        self.with_so(fd, |so| {
            Errno::check(listen::solisten(so, backlog, sched::current_thread().ptr()))
        })
    }

    /// accept(2): the new descriptor and the peer.
    ///
    /// # Errors
    /// EINVAL unless listening, EWOULDBLOCK, ECONNABORTED, EINTR, EMFILE.
    pub fn accept(&self, fd: i32) -> Sys<(i32, SockAddr)> {
        self.with_so(fd, |head| {
            if !head.listening() {
                return Err(Errno::EINVAL);
            }
            k::mtx_lock(head.lock_mtx());
            let so = listen::dequeue(head, head.state() & sys::SS_NBIO != 0).map_err(Errno)?;
            let peer = self.address(so, so.proto().pr_accept);
            let new = file::install(self.p, file::for_socket(so))?;
            Ok((new, peer.unwrap_or(any())))
        })
    }

    fn address(&self, so: Kp<sys::socket>, f: AddrFn) -> Sys<SockAddr> {
        self.sockaddr(so, f).map(|s| from_sin6(&s))
    }

    /// What the protocol says, in room for either family.
    fn sockaddr(&self, so: Kp<sys::socket>, f: AddrFn) -> Sys<sys::sockaddr_in6> {
        // SAFETY: plain C data.
        let mut s: sys::sockaddr_in6 = unsafe { std::mem::zeroed() };
        let Some(f) = f else {
            return Err(Errno::EOPNOTSUPP);
        };
        let e = vnet::with_vnet(so.so_vnet, || {
            // SAFETY: the socket's own protocol fills in an address of its family, at most
            // as large as this one.
            unsafe { f(so.ptr(), (&raw mut s).cast()) }
        });
        Errno::check(e)?;
        Ok(s)
    }

    /// The family of the address that getpeername(2) gives.
    ///
    /// # Errors
    /// EBADF, ENOTSOCK.
    pub fn peer_family(&self, fd: i32) -> Sys<u32> {
        self.with_so(fd, |so| {
            let s = self.sockaddr(so, so.proto().pr_peeraddr)?;
            Ok(u32::from(s.sin6_family))
        })
    }

    /// connect(2).
    ///
    /// # Errors
    /// EINPROGRESS on a non-blocking socket, EALREADY, EISCONN, ECONNREFUSED, ETIMEDOUT,
    /// ENETUNREACH, EINTR (the attempt then goes on).
    pub fn connect(&self, fd: i32, a: SockAddr) -> Sys<()> {
        self.with_so(fd, |so| connect(so, a))
    }

    /// getsockname(2).
    ///
    /// # Errors
    /// EBADF, ENOTSOCK.
    pub fn getsockname(&self, fd: i32) -> Sys<SockAddr> {
        self.with_so(fd, |so| self.address(so, so.proto().pr_sockaddr))
    }

    /// getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn getpeername(&self, fd: i32) -> Sys<SockAddr> {
        self.with_so(fd, |so| {
            if so.state() & sys::SS_ISCONNECTED == 0 {
                return Err(Errno::ENOTCONN);
            }
            self.address(so, so.proto().pr_peeraddr)
        })
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN, ECONNRESET.
    pub fn shutdown(&self, fd: i32, how: Shut) -> Sys<()> {
        self.with_so(fd, |so| {
            let how = match how {
                Shut::Rd => sys::SHUT_RD,
                Shut::Wr => sys::SHUT_WR,
                Shut::RdWr => sys::SHUT_RDWR,
            };
            Errno::check(tcp_usrreq::soshutdown(so, how))
        })
    }

    /// close(2).
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&self, fd: i32) -> Sys<()> {
        self.call(|| file::close(self.p, fd))
    }

    /// dup(2).
    ///
    /// # Errors
    /// EBADF, EMFILE.
    pub fn dup(&self, fd: i32) -> Sys<i32> {
        self.call(|| file::dup(self.p, fd))
    }

    /// fcntl(F_SETFL) of O_NONBLOCK.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_nonblock(&self, fd: i32, on: bool) -> Sys<()> {
        self.with_so(fd, |so| {
            k::mtx_lock(so.lock_mtx());
            if on {
                so.set_state(sys::SS_NBIO, 0);
            } else {
                so.set_state(0, sys::SS_NBIO);
            }
            k::mtx_unlock(so.lock_mtx());
            Ok(())
        })
    }

    /// ioctl(FIONREAD): bytes that can be read now.
    ///
    /// # Errors
    /// EBADF.
    pub fn fionread(&self, fd: i32) -> Sys<usize> {
        self.with_so(fd, |so| {
            Ok(if so.listening() {
                0
            } else {
                so.rcv().sb_acc as usize
            })
        })
    }

    /// read(2).
    ///
    /// # Errors
    /// The socket's error, ENOTCONN, EWOULDBLOCK, EINTR, EFAULT.
    pub fn read(&self, fd: i32, va: UserVa, len: usize) -> Sys<usize> {
        self.recv(fd, va, len, MsgFlags::default())
    }

    /// write(2).
    ///
    /// # Errors
    /// EPIPE (and SIGPIPE), the socket's error, ENOTCONN, EWOULDBLOCK, EINTR, EFAULT.
    pub fn write(&self, fd: i32, va: UserVa, len: usize) -> Sys<usize> {
        self.send(fd, va, len, MsgFlags::default())
    }

    /// recv(2).
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub fn recv(&self, fd: i32, va: UserVa, len: usize, f: MsgFlags) -> Sys<usize> {
        self.with_so(fd, |so| {
            io(va, len, sys::UIO_READ, |uio| {
                let e = sosend::soreceive(so, uio, msg(f));
                let moved = uio.uio_resid != len as isize;
                // A short count wins over being interrupted.
                if moved && [Errno::EINTR, Errno::EWOULDBLOCK].contains(&Errno(e)) {
                    0
                } else {
                    e
                }
            })
        })
    }

    /// send(2).
    ///
    /// # Errors
    /// As [`Proc::write`].
    pub fn send(&self, fd: i32, va: UserVa, len: usize, f: MsgFlags) -> Sys<usize> {
        self.with_so(fd, |so| {
            io(va, len, sys::UIO_WRITE, |uio| {
                sosend::usrsend(so, uio, msg(f))
            })
        })
    }

    /// One read of at most `max` bytes through a scratch buffer; empty at end of file.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub fn recv_bytes(&self, fd: i32, max: usize) -> Sys<Vec<u8>> {
        let b = self.scratch(max);
        let r = self.read(fd, b.0, max).map(|n| self.load_vec(b.0, n));
        self.scratch_back(b);
        r
    }

    /// Reads until `len` bytes are there; shorter only at end of file.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub fn recv_exact(&self, fd: i32, len: usize) -> Sys<Vec<u8>> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let part = self.recv_bytes(fd, len - out.len())?;
            if part.is_empty() {
                break;
            }
            out.extend(part);
        }
        Ok(out)
    }

    /// One write(2) of the bytes.
    ///
    /// # Errors
    /// As [`Proc::write`].
    pub fn send_bytes(&self, fd: i32, data: &[u8]) -> Sys<usize> {
        let b = self.scratch(data.len());
        let r = self
            .store(b.0, data)
            .and_then(|()| self.write(fd, b.0, data.len()));
        self.scratch_back(b);
        r
    }

    /// Writes until every byte is handed over.
    ///
    /// # Errors
    /// As [`Proc::write`].
    pub fn send_all(&self, fd: i32, data: &[u8]) -> Sys<()> {
        let mut done = 0;
        while done < data.len() {
            done += self.send_bytes(fd, &data[done..])?;
        }
        Ok(())
    }

    /// poll(2) on one descriptor. Nothing set: the timeout ran out.
    ///
    /// # Errors
    /// EBADF, EINTR.
    pub fn poll(&self, fd: i32, want: Poll, timeout: Option<Duration>) -> Sys<Poll> {
        self.with_so(fd, |so| {
            let deadline = timeout.map(|t| sched::now_sbt() + to_sbt(t));
            loop {
                let got = poll_now(so, want);
                if got != Poll::default() {
                    return Ok(got);
                }
                let left = deadline.map(|d| d - sched::now_sbt());
                if left.is_some_and(|l| l <= 0) {
                    return Ok(got);
                }
                // Nothing can run between the look and the sleep, so no wakeup is lost.
                match k::tsleep(socket::sel_chan(so), true, "select", left) {
                    0 => {}
                    e if e == Errno::EWOULDBLOCK.0 => return Ok(Poll::default()),
                    e => return Err(Errno(e)),
                }
            }
        })
    }

    /// Waits until a read would not block.
    ///
    /// # Errors
    /// EBADF, EINTR.
    pub fn wait_readable(&self, fd: i32) -> Sys<()> {
        self.poll(fd, Poll::IN, None).map(|_| ())
    }

    /// Waits until a write would not block.
    ///
    /// # Errors
    /// EBADF, EINTR.
    pub fn wait_writable(&self, fd: i32) -> Sys<()> {
        self.poll(fd, Poll::OUT, None).map(|_| ())
    }

    /// setsockopt(2).
    ///
    /// # Errors
    /// ENOBUFS for a buffer over the limit, EINVAL, ECONNRESET for TCP options of a dead connection.
    pub fn setsockopt(&self, fd: i32, o: SockOpt) -> Sys<()> {
        self.with_so(fd, |so| sockopt::setsockopt(so, o))
    }

    /// getsockopt(2).
    ///
    /// # Errors
    /// ECONNRESET for TCP options of a dead connection.
    pub fn getsockopt(&self, fd: i32, o: SockOptName) -> Sys<i64> {
        self.with_so(fd, |so| sockopt::getsockopt(so, o))
    }

    /// `SO_LINGER` in force, for tests.
    ///
    /// # Errors
    /// EBADF.
    pub fn linger(&self, fd: i32) -> Sys<Option<Duration>> {
        self.with_so(fd, |so| {
            let on = so.so_options as u32 & sys::SO_LINGER != 0;
            Ok(on.then(|| from_sbt(i64::from(so.so_linger) * sched::SBT_1S)))
        })
    }

    /// Is the connection offloaded (TF_TOE)?
    ///
    /// # Errors
    /// EBADF.
    pub fn is_offloaded(&self, fd: i32) -> Sys<bool> {
        self.with_so(fd, |so| Ok(so.inp().tp().toe()))
    }

    /// State of the connection by name.
    ///
    /// # Errors
    /// EBADF.
    pub fn tcp_state(&self, fd: i32) -> Sys<&'static str> {
        self.with_so(fd, |so| Ok(tcp_subr::STATES[so.inp().tp().st() as usize]))
    }
}

/// Runs one transfer with a `uio` over `[va, va + len)`: the count moved.
fn io(va: UserVa, len: usize, rw: sys::uio_rw, f: impl FnOnce(Kp<sys::uio>) -> i32) -> Sys<usize> {
    if len > isize::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let mut iov = sys::iovec {
        iov_base: va as *mut _,
        iov_len: len,
    };
    let mut uio = sys::uio {
        uio_iov: &raw mut iov,
        uio_iovcnt: 1,
        uio_offset: 0,
        uio_resid: len as isize,
        uio_segflg: sys::UIO_USERSPACE,
        uio_rw: rw,
        uio_td: sched::current_thread().ptr(),
    };
    Errno::check(f(Kp::new(&raw mut uio)))?;
    Ok(len - uio.uio_resid as usize)
}

fn poll_now(so: Kp<sys::socket>, want: Poll) -> Poll {
    if so.listening() {
        let ready = !listen::comp(so).is_empty() || so.so_error != 0;
        return Poll {
            readable: want.readable && ready,
            ..Poll::default()
        };
    }
    let (rcv, snd) = (so.rcv().st(), so.snd().st());
    Poll {
        readable: want.readable && sosend::ready(so, Which::Rcv),
        writable: want.writable && sosend::ready(so, Which::Snd),
        hup: rcv & sys::SBS_CANTRCVMORE != 0 && snd & sys::SBS_CANTSENDMORE != 0,
    }
}

fn connect(mut so: Kp<sys::socket>, a: SockAddr) -> Sys<()> {
    if so.state() & sys::SS_ISCONNECTING != 0 {
        return Err(Errno::EALREADY);
    }
    let mut s = sin(a);
    let e = socket::connect(so, (&raw mut s).cast(), sched::current_thread().ptr());
    if e != 0 {
        so.set_state(0, sys::SS_ISCONNECTING);
        return Err(Errno(e));
    }
    if so.state() & sys::SS_NBIO != 0 && so.state() & sys::SS_ISCONNECTING != 0 {
        return Err(Errno::EINPROGRESS);
    }
    k::mtx_lock(so.lock_mtx());
    let mut interrupted = 0;
    while so.state() & sys::SS_ISCONNECTING != 0 && so.so_error == 0 {
        interrupted = k::msleep(so.timeo_chan(), so.lock_mtx(), true, "connec", None);
        if interrupted != 0 {
            break;
        }
    }
    let mut e = interrupted;
    if e == 0 {
        e = i32::from(std::mem::take(&mut so.so_error));
        so.set_state(0, sys::SS_ISCONNECTING);
    }
    k::mtx_unlock(so.lock_mtx());
    Errno::check(e)
}
