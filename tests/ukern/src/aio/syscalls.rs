//! aio_read(2) and its kin, on behalf of the running process.

use std::ffi::c_void;

use crate::aio::{self, FINISHED, Job, M_AIO, MAX_PER_PROC, MAX_TOTAL, QUEUEING, STATE, daemon};
use crate::kmem;
use crate::kp::{Kp, bytes};
use crate::net::acc::SocketExt;
use crate::net::k;
use crate::proc::{AioCancel, Errno, Sys, file};
use crate::sched::Sbt;
use crate::{sys, vm};

const STATUS: u64 = (std::mem::offset_of!(sys::aiocb, _aiocb_private)
    + std::mem::offset_of!(sys::__aiocb_private, status)) as u64;
const ERROR: u64 = (std::mem::offset_of!(sys::aiocb, _aiocb_private)
    + std::mem::offset_of!(sys::__aiocb_private, error)) as u64;
const UIO_MAXIOV: usize = 1024;

fn curproc() -> Kp<sys::proc_> {
    Kp::new(crate::sched::current_thread().td_proc)
}

/// `suword` to the program's aiocb; a fault is the program's own loss.
fn store(ujob: u64, off: u64, val: i64) -> bool {
    vm::copyout(&val.to_ne_bytes(), ujob.wrapping_add(off)) == 0
}

fn fetch(ujob: u64, off: u64) -> i64 {
    let mut b = [0; 8];
    if vm::copyin(ujob.wrapping_add(off), &mut b) != 0 {
        return -1;
    }
    i64::from_ne_bytes(b)
}

fn read_aiocb(ujob: u64) -> Sys<sys::aiocb> {
    let mut buf = [0_u8; size_of::<sys::aiocb>()];
    Errno::check(vm::copyin(ujob, &mut buf))?;
    // SAFETY: the buffer has the size of the plain C structure.
    Ok(unsafe { std::ptr::read_unaligned(buf.as_ptr().cast()) })
}

/// Copies the program's iovec array in, as copyinuio does: one allocation for both.
fn read_iov(ucb: &sys::aiocb) -> Sys<*mut sys::uio> {
    let n = ucb.aio_nbytes;
    if n > UIO_MAXIOV {
        return Err(Errno::EINVAL);
    }
    let len = size_of::<sys::uio>() + n * size_of::<sys::iovec>();
    let p = kmem::malloc(len, M_AIO.addr(), (sys::M_WAITOK | sys::M_ZERO) as i32);
    let mut uio: Kp<sys::uio> = Kp::new(p.cast());
    let iov = p.wrapping_add(size_of::<sys::uio>());
    let e = vm::copyin(
        ucb.aio_buf as u64,
        crate::kp::bytes_mut(iov, n * size_of::<sys::iovec>()),
    );
    if e != 0 {
        free_uio(uio.ptr());
        return Err(Errno(e));
    }
    uio.uio_iov = iov.cast();
    uio.uio_iovcnt = n as i32;
    uio.uio_segflg = sys::UIO_USERSPACE;
    let mut total = 0_usize;
    for i in 0..n {
        let v = Kp::new(uio.uio_iov.wrapping_add(i));
        total = total.saturating_add(v.iov_len);
    }
    if total > isize::MAX as usize {
        free_uio(uio.ptr());
        return Err(Errno::EINVAL);
    }
    uio.uio_resid = total as isize;
    Ok(uio.ptr())
}

pub(super) fn free_uio(uio: *mut sys::uio) {
    kmem::free(uio.cast(), M_AIO.addr());
}

/// `aio_aqueue`: queues the request described by the aiocb at `ujob`. `opcode`: LIO_*.
pub(crate) fn aqueue(ujob: u64, opcode: u32) -> Sys<()> {
    let p = curproc();
    if !aio::has_info(p) {
        aio::init_info(p);
    }
    store(ujob, STATUS, -1);
    store(ujob, ERROR, 0);
    let full =
        STATE.with(|s| s.total >= MAX_TOTAL) || aio::with(p, |i| i.all.len() >= MAX_PER_PROC);
    let r = if full {
        Err(Errno::EAGAIN)
    } else {
        queue(p, ujob, opcode)
    };
    if let Err(e) = r {
        store(ujob, ERROR, i64::from(e.0));
    }
    r
}

fn check(ucb: &sys::aiocb) -> Sys<()> {
    if ucb.aio_nbytes > isize::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let n = ucb.aio_sigevent.sigev_notify as u32;
    let signo = ucb.aio_sigevent.sigev_signo;
    match n {
        sys::SIGEV_NONE => Ok(()),
        sys::SIGEV_SIGNAL if (1..=128).contains(&signo) => Ok(()),
        // No kqueue here.
        _ => Err(Errno::EINVAL),
    }
}

fn queue(p: Kp<sys::proc_>, ujob: u64, opcode: u32) -> Sys<()> {
    let ucb = read_aiocb(ujob)?;
    check(&ucb)?;
    let mut job: Job = kmem::alloc_zeroed(&M_AIO);
    job.uaiocb = ucb;
    job.uaiocb.aio_lio_opcode = opcode as i32;
    job.ujob = ujob as *mut sys::aiocb;
    let fail = |mut job: Job, e: Errno| {
        if !job.uiop.is_null() && !std::ptr::eq(job.uiop, &raw const job.uio) {
            free_uio(job.uiop);
        }
        job.userproc = std::ptr::null_mut();
        if let Some(fp) = Kp::opt(job.fd_file) {
            file::fdrop(fp);
        }
        kmem::free_obj(job, &M_AIO);
        Err(e)
    };
    if opcode != sys::LIO_MLOCK {
        match file::fget(p, ucb.aio_fildes) {
            Ok(fp) => job.fd_file = fp.ptr(),
            Err(e) => return fail(job, e),
        }
    }
    // Sockets are the only files: fsync wants a vnode, and there is no offset below 0.
    if opcode & sys::LIO_SYNC != 0 || (opcode != sys::LIO_MLOCK && ucb.aio_offset < 0) {
        return fail(job, Errno::EINVAL);
    }
    if opcode & sys::LIO_VECTORED != 0 {
        match read_iov(&ucb) {
            Ok(u) => job.uiop = u,
            Err(e) => return fail(job, e),
        }
    } else {
        job.iov[0] = sys::iovec {
            iov_base: ucb.aio_buf,
            iov_len: ucb.aio_nbytes,
        };
        job.uio.uio_iov = &raw mut job.iov[0];
        job.uio.uio_iovcnt = 1;
        job.uio.uio_resid = ucb.aio_nbytes as isize;
        job.uio.uio_segflg = sys::UIO_USERSPACE;
        job.uiop = &raw mut job.uio;
    }
    job.seqno = STATE.with(|s| {
        s.seqno += 1;
        s.seqno
    });
    store(ujob, ERROR, i64::from(sys::EINPROGRESS));
    job.uaiocb._aiocb_private.error = i64::from(sys::EINPROGRESS);
    job.userproc = p.ptr();
    job.cred = k::crhold(crate::sched::current_thread().td_ucred);
    job.jobflags = QUEUEING;

    let e = if opcode == sys::LIO_MLOCK {
        daemon::schedule(job, Some(daemon::process_mlock));
        0
    } else {
        soo_aio_queue(job)
    };
    if e != 0 {
        k::crfree(job.cred);
        return fail(job, Errno(e));
    }
    aio::lock(p);
    job.jobflags &= !QUEUEING;
    STATE.with(|s| s.total += 1);
    aio::with(p, |i| i.all.push(job));
    if job.jobflags & FINISHED != 0 {
        aio::notify(p, job);
    } else {
        aio::with(p, |i| i.queue.push(job));
    }
    aio::unlock(p);
    Ok(())
}

/// `soo_aio_queue`: the protocol's own hook decides.
fn soo_aio_queue(job: Job) -> i32 {
    let so: Kp<sys::socket> = Kp::new(Kp::new(job.fd_file).f_data.cast());
    let Some(f) = so.proto().pr_aio_queue else {
        return sys::EOPNOTSUPP as i32;
    };
    let e = crate::vnet::with_vnet(so.so_vnet, || {
        // SAFETY: the socket's own protocol; the job is the callee's on success.
        unsafe { f(so.ptr(), job.ptr()) }
    });
    crate::locks::check_none_held("return of pr_aio_queue");
    e
}

fn find(list: &[Job], ujob: u64) -> Option<Job> {
    list.iter().copied().find(|j| j.ujob as u64 == ujob)
}

/// aio_error(2).
pub(crate) fn aio_error(ujob: u64) -> Sys<i32> {
    let p = curproc();
    if !aio::has_info(p) {
        return Ok(Errno::EINVAL.0);
    }
    aio::lock(p);
    let job = aio::with(p, |i| find(&i.all, ujob));
    let e = job.map(|j| {
        if j.jobflags & FINISHED != 0 {
            j.uaiocb._aiocb_private.error as i32
        } else {
            Errno::EINPROGRESS.0
        }
    });
    aio::unlock(p);
    if let Some(e) = e {
        return Ok(e);
    }
    // A request that was refused left its error in the aiocb.
    if fetch(ujob, STATUS) == -1 {
        return Ok(fetch(ujob, ERROR) as i32);
    }
    Ok(Errno::EINVAL.0)
}

/// Frees a done job and hands its result to the program. aiomtx held on entry, dropped.
fn finish(p: Kp<sys::proc_>, job: Job) -> Sys<usize> {
    let (status, error) = (
        job.uaiocb._aiocb_private.status,
        job.uaiocb._aiocb_private.error,
    );
    let ujob = job.ujob as u64;
    aio::forget(p, job);
    aio::unlock(p);
    aio::free_job(job);
    store(ujob, ERROR, error);
    store(ujob, STATUS, status);
    if error != 0 {
        Err(Errno(error as i32))
    } else {
        Ok(status as usize)
    }
}

/// aio_return(2): EINVAL for what is no finished request.
pub(crate) fn aio_return(ujob: u64) -> Sys<usize> {
    let p = curproc();
    if !aio::has_info(p) {
        return Err(Errno::EINVAL);
    }
    aio::lock(p);
    match aio::with(p, |i| find(&i.done, ujob)) {
        Some(job) => finish(p, job),
        None => {
            aio::unlock(p);
            Err(Errno::EINVAL)
        }
    }
}

/// aio_suspend(2).
pub(crate) fn aio_suspend(ujobs: &[u64], timeout: Option<Sbt>) -> Sys<()> {
    let p = curproc();
    if !aio::has_info(p) {
        return Err(Errno::EAGAIN);
    }
    aio::lock(p);
    let r = loop {
        let (any, finished) = aio::with(p, |i| {
            let hit = |j: &&Job| ujobs.contains(&(j.ujob as u64));
            (
                i.all.iter().any(|j| hit(&j)),
                i.done.iter().any(|j| hit(&j)),
            )
        });
        if finished || !any {
            break Ok(());
        }
        if timeout == Some(0) {
            break Err(Errno::EAGAIN);
        }
        let e = k::msleep(aio::chan(p), p.p_aioinfo.cast(), true, "aiospn", timeout);
        if e != 0 {
            break Err(Errno(e));
        }
    };
    aio::unlock(p);
    r
}

/// aio_waitcomplete(2): the oldest finished request and its result.
pub(crate) fn aio_waitcomplete(timeout: Option<Sbt>) -> Sys<(u64, Sys<usize>)> {
    let p = curproc();
    if !aio::has_info(p) {
        aio::init_info(p);
    }
    aio::lock(p);
    loop {
        if let Some(job) = aio::with(p, |i| i.done.first().copied()) {
            let ujob = job.ujob as u64;
            return Ok((ujob, finish(p, job)));
        }
        if timeout == Some(0) {
            aio::unlock(p);
            return Err(Errno::EAGAIN);
        }
        let e = k::msleep(aio::chan(p), p.p_aioinfo.cast(), true, "aiowc", timeout);
        if e != 0 {
            aio::unlock(p);
            return Err(Errno(e));
        }
    }
}

/// aio_cancel(2). `ujob` `None`: every request on the descriptor.
pub(crate) fn aio_cancel(fd: i32, ujob: Option<u64>) -> Sys<AioCancel> {
    let p = curproc();
    let fp = file::fget(p, fd)?;
    let (mut yes, mut no) = (0, 0);
    if aio::has_info(p) {
        aio::lock(p);
        for job in aio::with(p, |i| i.queue.clone()) {
            // It may have gone while the lock was dropped for another.
            if !aio::with(p, |i| i.queue.contains(&job)) {
                continue;
            }
            if job.uaiocb.aio_fildes != fd || ujob.is_some_and(|u| u != job.ujob as u64) {
                continue;
            }
            if aio::cancel_job(p, job) {
                yes += 1;
            } else {
                no += 1;
            }
            if ujob.is_some() {
                break;
            }
        }
        aio::unlock(p);
    }
    file::fdrop(fp);
    Ok(match (yes, no) {
        (_, 1..) => AioCancel::NotCanceled,
        (1.., _) => AioCancel::Canceled,
        _ => AioCancel::AllDone,
    })
}

/// The bytes of a structure, to copy it out.
pub(crate) fn as_bytes<T: Copy>(v: &T) -> &[u8] {
    bytes((v as *const T).cast(), size_of::<T>())
}

/// An aiocb as a program would fill it in.
pub(crate) fn new_aiocb(fd: i32, buf: u64, len: usize, opcode: u32) -> sys::aiocb {
    // SAFETY: plain C data.
    let mut cb: sys::aiocb = unsafe { std::mem::zeroed() };
    cb.aio_fildes = fd;
    cb.aio_buf = buf as *mut c_void;
    cb.aio_nbytes = len;
    cb.aio_lio_opcode = opcode as i32;
    cb.aio_sigevent.sigev_notify = sys::SIGEV_NONE as i32;
    cb
}
