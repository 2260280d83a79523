//! Processes: closures that make system calls.
//!
//! The calls (all on [`Proc`], all may switch threads, all errors FreeBSD's):
//!
//! ```ignore
//! // Kernel (and Api, its copyable handle)
//! fn spawn<R: 'static>(&self, cfg: ProcConfig, main: impl FnOnce(&Proc) -> R + 'static) -> Child<R>;
//! fn ifconfig(&self, ifname: &str, cidr: &str, vnet: VnetId, toe: bool) -> Sys<()>;  // "10.0.0.1/24"; moves the ifnet to vnet
//! fn ifconfig_toe(&self, ifname: &str, on: bool) -> Sys<()>;         // SIOCSIFCAP, as ifconfig [-]toe
//! fn ifconfig_mtu(&self, ifname: &str, mtu: u32) -> Sys<()>;         // SIOCSIFMTU
//! fn ifconfig_up(&self, ifname: &str, up: bool) -> Sys<()>;          // SIOCSIFFLAGS
//! fn ifnets(&self) -> Vec<IfInfo>;
//! fn l2_hold(&self, ifname: &str, on: bool);                         // toe_l2_resolve answers EWOULDBLOCK while on
//! fn l2_answer(&self, ifname: &str, ip: Ipv4Addr, found: bool);      // then tod_l2_update
//! fn netstat(&self) -> Vec<PcbInfo>;  fn syncache_count(&self) -> usize;
//! fn wired_pages(&self) -> usize;     // wirings by drivers, not by mlock
//! fn shm(&self, len: usize) -> ShmObject;                            // .truncate(len)
//! fn file(&self, len: usize) -> File;                                // .sync() .recycle() .read() .truncate(len)
//! fn vm_lowmem(&self);                                               // fires the vm_lowmem event
//! fn set_vnet_int(&self, vnet: VnetId, name: &str, v: i32) -> Sys<()>; // "tcp_do_autosndbuf", "tcp_sendspace", ...
//!
//! // Child<R>: the closure's panics go on to whoever waits
//! fn wait(self) -> Exit<R>;  fn join(self) -> R;  fn pid(&self) -> i32;  fn is_done(&self) -> bool;
//! fn kill(&self, sig: Signal) -> Sys<()>;
//!
//! // Proc: the process itself
//! fn pid(&self) -> i32;
//! fn fork<R>(&self, child: impl FnOnce(&Proc) -> R + 'static) -> Sys<Child<R>>;   // COW memory, shared files
//! fn thread<R>(&self, f: impl FnOnce(&Proc) -> R + 'static) -> Sys<Thread<R>>;    // same address space; .join() -> Option<R>
//! fn exec(&self) -> Sys<()>;          // AIO rundown, fresh address space
//! fn exit(&self, code: i32) -> !;
//! fn kill(&self, pid: i32, sig: Signal) -> Sys<()>;  fn sigaction(&self, sig: Signal, act: SigAction);
//! fn signals(&self, sig: Signal) -> u32;             // posted so far, whatever the disposition
//! fn sleep(&self, d: Duration);  fn now(&self) -> Duration;  fn yield_now(&self);
//! // memory
//! fn mmap(&self, len: usize, prot: Prot) -> Sys<UserVa>;                 // MAP_ANON | MAP_PRIVATE
//! fn mmap_shared(&self, len: usize, prot: Prot) -> Sys<UserVa>;          // MAP_ANON | MAP_SHARED
//! fn mmap_fixed(&self, va: UserVa, len: usize, prot: Prot) -> Sys<UserVa>;
//! fn mmap_object(&self, obj: &ShmObject, off: usize, len: usize, prot: Prot, shared: bool) -> Sys<UserVa>;
//! fn mmap_file(&self, file: &File, len: usize, prot: Prot, shared: bool) -> Sys<UserVa>;
//! fn munmap(..);  fn mprotect(..);  fn mlock(..);  fn munlock(..);  fn msync(..);
//! fn load(&self, va: UserVa, buf: &mut [u8]) -> Sys<()>;    // EFAULT where a program would get SIGSEGV
//! fn store(&self, va: UserVa, data: &[u8]) -> Sys<()>;  fn fill(&self, va: UserVa, len: usize, byte: u8) -> Sys<()>;
//! fn load_vec(&self, va: UserVa, len: usize) -> Vec<u8>;    // panics on a fault
//! fn alloc(&self, data: &[u8]) -> UserVa;                   // mmap + store
//! fn map_timestamp(&self) -> u32;  fn page_dirty(&self, va) -> Option<bool>;  fn phys_of(&self, va) -> Option<u64>;
//! // files and sockets (TCP, IPv4)
//! fn socket(&self) -> Sys<i32>;  fn close(&self, fd: i32) -> Sys<()>;  fn dup(&self, fd: i32) -> Sys<i32>;
//! fn bind(&self, fd: i32, a: SockAddr) -> Sys<()>;  fn listen(&self, fd: i32, backlog: i32) -> Sys<()>;
//! fn accept(&self, fd: i32) -> Sys<(i32, SockAddr)>;  fn connect(&self, fd: i32, a: SockAddr) -> Sys<()>;
//! fn getsockname(&self, fd: i32) -> Sys<SockAddr>;  fn getpeername(&self, fd: i32) -> Sys<SockAddr>;
//! fn shutdown(&self, fd: i32, how: Shut) -> Sys<()>;  fn set_nonblock(&self, fd: i32, on: bool) -> Sys<()>;
//! fn setsockopt(&self, fd: i32, o: SockOpt) -> Sys<()>;  fn getsockopt(&self, fd: i32, o: SockOptName) -> Sys<i64>;
//! fn read(&self, fd: i32, va: UserVa, len: usize) -> Sys<usize>;  fn write(..);  fn recv(.., f: MsgFlags);  fn send(..);
//! fn recv_bytes(&self, fd: i32, max: usize) -> Sys<Vec<u8>>;     // one read, through a scratch buffer; empty at end of file
//! fn recv_exact(&self, fd: i32, len: usize) -> Sys<Vec<u8>>;     // short only at end of file
//! fn send_bytes(&self, fd: i32, data: &[u8]) -> Sys<usize>;      // one write
//! fn send_all(&self, fd: i32, data: &[u8]) -> Sys<()>;
//! fn fionread(&self, fd: i32) -> Sys<usize>;  fn poll(&self, fd: i32, want: Poll, timeout: Option<Duration>) -> Sys<Poll>;
//! fn wait_readable(&self, fd: i32) -> Sys<()>;  fn wait_writable(&self, fd: i32) -> Sys<()>;
//! fn is_offloaded(&self, fd: i32) -> Sys<bool>;  fn tcp_state(&self, fd: i32) -> Sys<&'static str>;
//! // aio: aiocbs lie in the program's own memory and are never used twice
//! fn aio_read(&self, fd: i32, va: UserVa, len: usize) -> Sys<AioCb>;  fn aio_write(..);
//! fn aio_readv(&self, fd: i32, iov: &[(UserVa, usize)]) -> Sys<AioCb>;  fn aio_writev(..);
//! fn aio_mlock(&self, va: UserVa, len: usize) -> Sys<AioCb>;  fn aio_fsync(&self, fd: i32) -> Sys<AioCb>;
//! fn aio_error(&self, cb: AioCb) -> Sys<i32>;          // 0, EINPROGRESS, or the job's errno
//! fn aio_return(&self, cb: AioCb) -> Sys<usize>;       // EINVAL when it is no finished request
//! fn aio_suspend(&self, cbs: &[AioCb], timeout: Option<Duration>) -> Sys<()>;   // EAGAIN on timeout
//! fn aio_waitcomplete(&self, timeout: Option<Duration>) -> Sys<(AioCb, Sys<usize>)>;
//! fn aio_cancel(&self, fd: i32, cb: Option<AioCb>) -> Sys<AioCancel>;
//! fn aio_wait(&self, cb: AioCb) -> Sys<usize>;         // suspend without limit, then return
//! fn aio_pending(&self) -> usize;
//! fn aio_read_signal(&self, fd: i32, va: UserVa, len: usize, sig: Signal) -> Sys<AioCb>;   // SIGEV_SIGNAL
//! ```

mod aio;
mod api;
mod errno;
pub(crate) mod file;
mod mem;
mod process;
mod signal;
mod sock;
mod sockopt;

use std::time::Duration;

use crate::sched::{SBT_1S, Sbt};

pub use api::*;
pub use errno::{Errno, Sys};
pub use mem::{File, ShmObject};
pub use process::{Child, Proc, Thread};

pub(crate) use mem::mlock;
pub(crate) use process::{boot, data, leaks, quiesce, shutdown, spawn_kproc};
pub(crate) use signal::psignal;

pub(crate) fn exports() -> Vec<&'static [crate::ksym::Export]> {
    vec![mem::symbols(), signal::symbols()]
}

pub(crate) fn to_sbt(d: Duration) -> Sbt {
    let frac = (u64::from(d.subsec_nanos()) << 32) / 1_000_000_000;
    (d.as_secs().min(i32::MAX as u64) as i64 * SBT_1S) + frac as i64
}

fn from_sbt(t: Sbt) -> Duration {
    let nanos = ((t & (SBT_1S - 1)) as u64 * 1_000_000_000) >> 32;
    Duration::new((t >> 32) as u64, nanos as u32)
}
