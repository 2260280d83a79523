//! Processes: closures that make system calls.
//!
//! The calls (all on [`Proc`], all may switch threads, all errors FreeBSD's):
//!
//! ```ignore
//! // Kernel
//! fn spawn<R: 'static>(&self, cfg: ProcConfig, main: impl FnOnce(&Proc) -> R + 'static) -> Child<R>;
//! fn ifconfig(&self, ifname: &str, cidr: &str, vnet: VnetId, toe: bool) -> Sys<()>;  // "10.0.0.1/24"; moves the ifnet to vnet
//! fn ifconfig_toe(&self, ifname: &str, on: bool) -> Sys<()>;                          // SIOCSIFCAP as ifconfig [-]toe
//! fn ifconfig_mtu(&self, ifname: &str, mtu: u32) -> Sys<()>;                          // SIOCSIFMTU
//! fn ifconfig_up(&self, ifname: &str, up: bool) -> Sys<()>;                           // SIOCSIFFLAGS
//! fn ifnets(&self) -> Vec<IfInfo>;
//! fn l2_hold(&self, ifname: &str, on: bool);                        // toe_l2_resolve answers EWOULDBLOCK while on
//! fn l2_answer(&self, ifname: &str, ip: Ipv4Addr, found: bool);     // then tod_l2_update, as lle_event does
//! fn netstat(&self) -> Vec<PcbInfo>;
//! fn wired_pages(&self) -> usize;       // user pages wired by held references (not counting mlock)
//! fn vm_lowmem(&self);                  // fires the vm_lowmem event
//! fn set_vnet_int(&self, vnet: VnetId, name: &str, v: i32) -> Sys<()>; // "tcp_do_autosndbuf", "tcp_sendspace", ...
//!
//! // Child<R>
//! fn wait(self) -> Exit<R>;             // propagates a panic of the closure
//! fn join(self) -> R;                   // as wait, panics unless Returned
//! fn pid(&self) -> i32;
//! fn kill(&self, sig: Signal) -> Sys<()>;
//! fn is_done(&self) -> bool;
//!
//! // Proc: the process itself
//! fn pid(&self) -> i32;
//! fn fork<R>(&self, child: impl FnOnce(&Proc) -> R + 'static) -> Sys<Child<R>>;   // COW memory, shared files
//! fn thread<R>(&self, f: impl FnOnce(&Proc) -> R + 'static) -> Sys<Thread<R>>;    // same address space; .join()
//! fn exec(&self) -> Sys<()>;            // drops the address space as execve does: AIO rundown, fresh vmspace
//! fn exit(&self, code: i32) -> !;
//! fn kill(&self, pid: i32, sig: Signal) -> Sys<()>;
//! fn sigaction(&self, sig: Signal, act: SigAction);
//! fn signals(&self, sig: Signal) -> u32;              // posted so far, whatever the disposition
//! fn sleep(&self, d: Duration);  fn now(&self) -> Duration;  fn yield_now(&self);
//! // memory
//! fn mmap(&self, len: usize, prot: Prot) -> Sys<UserVa>;                 // MAP_ANON | MAP_PRIVATE
//! fn mmap_shared(&self, len: usize, prot: Prot) -> Sys<UserVa>;          // MAP_ANON | MAP_SHARED
//! fn mmap_fixed(&self, va: UserVa, len: usize, prot: Prot) -> Sys<UserVa>;
//! fn mmap_object(&self, obj: &ShmObject, off: usize, len: usize, prot: Prot, shared: bool) -> Sys<UserVa>; // shm_open-like
//! fn munmap(&self, va: UserVa, len: usize) -> Sys<()>;
//! fn mprotect(&self, va: UserVa, len: usize, prot: Prot) -> Sys<()>;
//! fn mlock(&self, va: UserVa, len: usize) -> Sys<()>;  fn munlock(..);
//! fn load(&self, va: UserVa, buf: &mut [u8]) -> Sys<()>;    // EFAULT where a program would get SIGSEGV
//! fn store(&self, va: UserVa, data: &[u8]) -> Sys<()>;
//! fn load_vec(&self, va: UserVa, len: usize) -> Vec<u8>;    // panics on a fault
//! fn alloc(&self, data: &[u8]) -> UserVa;                   // mmap + store, panics on ENOMEM
//! fn map_timestamp(&self) -> u32;
//! // files
//! fn close(&self, fd: i32) -> Sys<()>;  fn dup(&self, fd: i32) -> Sys<i32>;
//! fn set_nonblock(&self, fd: i32, on: bool) -> Sys<()>;
//! fn read(&self, fd: i32, va: UserVa, len: usize) -> Sys<usize>;
//! fn write(&self, fd: i32, va: UserVa, len: usize) -> Sys<usize>;
//! fn fionread(&self, fd: i32) -> Sys<usize>;
//! fn poll(&self, fd: i32, want: Poll, timeout: Option<Duration>) -> Sys<Poll>;
//! fn wait_readable(&self, fd: i32) -> Sys<()>;  fn wait_writable(&self, fd: i32) -> Sys<()>;
//! // sockets (TCP, IPv4)
//! fn socket(&self) -> Sys<i32>;
//! fn bind(&self, fd: i32, a: SockAddr) -> Sys<()>;  fn listen(&self, fd: i32, backlog: i32) -> Sys<()>;
//! fn accept(&self, fd: i32) -> Sys<(i32, SockAddr)>;
//! fn connect(&self, fd: i32, a: SockAddr) -> Sys<()>;
//! fn getsockname(&self, fd: i32) -> Sys<SockAddr>;  fn getpeername(&self, fd: i32) -> Sys<SockAddr>;
//! fn shutdown(&self, fd: i32, how: Shut) -> Sys<()>;
//! fn setsockopt(&self, fd: i32, o: SockOpt) -> Sys<()>;  fn getsockopt(&self, fd: i32, o: SockOptName) -> Sys<i64>;
//! fn recv(&self, fd: i32, va: UserVa, len: usize, f: MsgFlags) -> Sys<usize>;
//! fn send(&self, fd: i32, va: UserVa, len: usize, f: MsgFlags) -> Sys<usize>;
//! fn recv_bytes(&self, fd: i32, max: usize) -> Sys<Vec<u8>>;     // through a scratch mapping; empty at end of file
//! fn recv_exact(&self, fd: i32, len: usize) -> Sys<Vec<u8>>;     // short only at end of file
//! fn send_bytes(&self, fd: i32, data: &[u8]) -> Sys<usize>;      // one write(2)
//! fn send_all(&self, fd: i32, data: &[u8]) -> Sys<()>;
//! fn is_offloaded(&self, fd: i32) -> Sys<bool>;                  // TF_TOE
//! fn tcp_state(&self, fd: i32) -> Sys<&'static str>;
//! // aio
//! fn aio_read(&self, fd: i32, va: UserVa, len: usize) -> Sys<AioCb>;    // aiocb from the program's own heap
//! fn aio_write(&self, fd: i32, va: UserVa, len: usize) -> Sys<AioCb>;
//! fn aio_readv(&self, fd: i32, iov: &[(UserVa, usize)]) -> Sys<AioCb>;  fn aio_writev(..);
//! fn aio_mlock(&self, va: UserVa, len: usize) -> Sys<AioCb>;  fn aio_fsync(&self, fd: i32) -> Sys<AioCb>;
//! fn aio_error(&self, cb: AioCb) -> Sys<i32>;          // 0, EINPROGRESS, or the job's errno
//! fn aio_return(&self, cb: AioCb) -> Sys<usize>;       // frees the job; EINVAL when it is none
//! fn aio_suspend(&self, cbs: &[AioCb], timeout: Option<Duration>) -> Sys<()>;   // EAGAIN on timeout
//! fn aio_waitcomplete(&self, timeout: Option<Duration>) -> Sys<(AioCb, Sys<usize>)>;
//! fn aio_cancel(&self, fd: i32, cb: Option<AioCb>) -> Sys<AioCancel>;
//! fn aio_wait(&self, cb: AioCb) -> Sys<usize>;         // suspend without limit, then return
//! ```

mod aio;
mod api;
mod errno;
pub(crate) mod file;
mod mem;
mod process;
mod signal;
mod sock;

use std::time::Duration;

use crate::kp::Kp;
use crate::sched::{self, SBT_1S, Sbt};
use crate::sys;

pub use api::*;
pub use errno::{Errno, Sys};
pub use mem::ShmObject;
pub use process::{Child, Proc, Thread};

pub(crate) use mem::mlock;
pub(crate) use process::{boot, data, leaks, quiesce, shutdown, spawn_kproc};
pub(crate) use signal::{psignal, symbols};

pub(crate) fn to_sbt(d: Duration) -> Sbt {
    let frac = (u64::from(d.subsec_nanos()) << 32) / 1_000_000_000;
    (d.as_secs().min(i32::MAX as u64) as i64 * SBT_1S) + frac as i64
}

fn from_sbt(t: Sbt) -> Duration {
    let nanos = ((t & (SBT_1S - 1)) as u64 * 1_000_000_000) >> 32;
    Duration::new((t >> 32) as u64, nanos as u32)
}

/// The running process.
fn curproc() -> Kp<sys::proc_> {
    Kp::new(sched::current_thread().td_proc)
}
