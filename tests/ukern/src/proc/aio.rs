//! AIO system calls.

use std::time::Duration;

use crate::aio;
use crate::aio::as_bytes;
use crate::proc::api::{AioCancel, AioCb, Prot, Signal, UserVa};
use crate::proc::process::{CB_SLAB, Proc, with_state};
use crate::proc::{Errno, Sys, to_sbt};
use crate::{sys, vm};

impl Proc {
    /// Room for an aiocb that was never used before.
    fn new_cb(&self) -> UserVa {
        let size = size_of::<sys::aiocb>() as u64;
        let full = with_state(self.p, |s| s.cb_next + size > s.cb_end);
        if full {
            let va = vm::mmap_anon(vm::current(), None, CB_SLAB, Prot::RW, false)
                .expect("memory for aiocbs");
            with_state(self.p, |s| {
                (s.cb_next, s.cb_end) = (va, va + CB_SLAB as u64)
            });
        }
        with_state(self.p, |s| {
            let va = s.cb_next;
            s.cb_next += size;
            va
        })
    }

    fn submit(&self, cb: sys::aiocb) -> Sys<AioCb> {
        self.call(|| {
            let va = self.new_cb();
            self.store(va, as_bytes(&cb))?;
            aio::aqueue(va, cb.aio_lio_opcode as u32)?;
            Ok(AioCb(va))
        })
    }

    /// aio_read(2) of `len` bytes into memory at `va`.
    ///
    /// # Errors
    /// EBADF, EAGAIN (too many), EINVAL, EOPNOTSUPP. What the job itself meets comes with
    /// [`Proc::aio_return`].
    pub fn aio_read(&self, fd: i32, va: UserVa, len: usize) -> Sys<AioCb> {
        self.submit(aio::new_aiocb(fd, va, len, sys::LIO_READ))
    }

    /// aio_write(2).
    ///
    /// # Errors
    /// As [`Proc::aio_read`].
    pub fn aio_write(&self, fd: i32, va: UserVa, len: usize) -> Sys<AioCb> {
        self.submit(aio::new_aiocb(fd, va, len, sys::LIO_WRITE))
    }

    /// aio_read(2) that posts a signal when it completes (SIGEV_SIGNAL).
    ///
    /// # Errors
    /// As [`Proc::aio_read`].
    pub fn aio_read_signal(&self, fd: i32, va: UserVa, len: usize, sig: Signal) -> Sys<AioCb> {
        let mut cb = aio::new_aiocb(fd, va, len, sys::LIO_READ);
        cb.aio_sigevent.sigev_notify = sys::SIGEV_SIGNAL as i32;
        cb.aio_sigevent.sigev_signo = sig as i32;
        self.submit(cb)
    }

    fn submit_iov(&self, fd: i32, iov: &[(UserVa, usize)], opcode: u32) -> Sys<AioCb> {
        let mut raw = Vec::new();
        for (va, len) in iov {
            raw.extend(va.to_ne_bytes());
            raw.extend((*len as u64).to_ne_bytes());
        }
        let b = self.scratch(raw.len());
        self.store(b.0, &raw)?;
        let r = self.submit(aio::new_aiocb(fd, b.0, iov.len(), opcode));
        self.scratch_back(b);
        r
    }

    /// aio_readv(2): (address, length) pieces.
    ///
    /// # Errors
    /// As [`Proc::aio_read`].
    pub fn aio_readv(&self, fd: i32, iov: &[(UserVa, usize)]) -> Sys<AioCb> {
        self.submit_iov(fd, iov, sys::LIO_READV)
    }

    /// aio_writev(2).
    ///
    /// # Errors
    /// As [`Proc::aio_read`].
    pub fn aio_writev(&self, fd: i32, iov: &[(UserVa, usize)]) -> Sys<AioCb> {
        self.submit_iov(fd, iov, sys::LIO_WRITEV)
    }

    /// aio_mlock(2).
    ///
    /// # Errors
    /// As [`Proc::aio_read`].
    pub fn aio_mlock(&self, va: UserVa, len: usize) -> Sys<AioCb> {
        self.submit(aio::new_aiocb(0, va, len, sys::LIO_MLOCK))
    }

    /// aio_fsync(2): sockets refuse it.
    ///
    /// # Errors
    /// EINVAL.
    pub fn aio_fsync(&self, fd: i32) -> Sys<AioCb> {
        self.submit(aio::new_aiocb(fd, 0, 0, sys::LIO_SYNC))
    }

    /// aio_error(2): 0, EINPROGRESS, the job's error, or EINVAL for what is no request.
    ///
    /// # Errors
    /// None so far.
    pub fn aio_error(&self, cb: AioCb) -> Sys<i32> {
        self.call(|| aio::sys_error(cb.0))
    }

    /// aio_return(2): the job's count or error; the request is forgotten.
    ///
    /// # Errors
    /// EINVAL for what is no finished request.
    pub fn aio_return(&self, cb: AioCb) -> Sys<usize> {
        self.call(|| aio::sys_return(cb.0))
    }

    /// aio_suspend(2): until one of them has finished.
    ///
    /// # Errors
    /// EAGAIN when the timeout runs out, EINTR.
    pub fn aio_suspend(&self, cbs: &[AioCb], timeout: Option<Duration>) -> Sys<()> {
        let list: Vec<u64> = cbs.iter().map(|c| c.0).collect();
        self.call(|| aio::sys_suspend(&list, timeout.map(to_sbt)))
    }

    /// aio_waitcomplete(2): the request that finished first, and its result.
    ///
    /// # Errors
    /// EAGAIN when the timeout runs out, EINTR.
    pub fn aio_waitcomplete(&self, timeout: Option<Duration>) -> Sys<(AioCb, Sys<usize>)> {
        self.call(|| aio::sys_waitcomplete(timeout.map(to_sbt)))
            .map(|(cb, r)| (AioCb(cb), r))
    }

    /// aio_cancel(2); `None`: every request on the descriptor.
    ///
    /// # Errors
    /// EBADF.
    pub fn aio_cancel(&self, fd: i32, cb: Option<AioCb>) -> Sys<AioCancel> {
        self.call(|| aio::sys_cancel(fd, cb.map(|c| c.0)))
    }

    /// Waits for a request, whatever signals come, and returns its result.
    ///
    /// # Errors
    /// The job's, or EINVAL for what is no request.
    pub fn aio_wait(&self, cb: AioCb) -> Sys<usize> {
        loop {
            match self.aio_suspend(&[cb], None) {
                Ok(()) => return self.aio_return(cb),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Requests of this process that have not finished.
    #[must_use]
    pub fn aio_pending(&self) -> usize {
        aio::pending(self.p)
    }
}
