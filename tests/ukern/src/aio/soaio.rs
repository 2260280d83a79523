//! Generic socket AIO: queues on the socket buffers and the soaiod processes that serve them.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};

use crate::aio::{self, Job};
use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::acc::{SockbufExt, SocketExt, Which};
use crate::net::sockbuf::from_c;
use crate::net::{k, socket, sosend};
use crate::sched::{self, SBT_1S};
use crate::{kpanic, proc, sys, vnet};

/// kern.ipc.aio.target_procs and max_procs.
const TARGET: usize = 4;
const MAX: usize = 32;
/// kern.ipc.aio.lifetime.
const LIFETIME: i64 = 30 * SBT_1S;

static JOBS_LOCK: KData = KData::of::<sys::mtx>("ukern_soaio_jobs_lock");

#[derive(Default)]
struct State {
    tasks: VecDeque<Kp<sys::task>>,
    procs: usize,
    idle: usize,
    next_id: u32,
    stop: bool,
    /// Tasks queued since boot.
    queued: u64,
}

static STATE: Global<State> = Global::new("soaio");

crate::exports_data! { JOBS_LOCK }

fn jobs_lock() -> *mut sys::mtx {
    JOBS_LOCK.get::<sys::mtx>().ptr()
}

fn idle_chan() -> usize {
    JOBS_LOCK.addr() + 1
}

pub(super) fn boot() {
    STATE.init(State::default());
    k::mtx_init(jobs_lock(), c"soaio jobs", 0);
}

pub(super) fn stop() {
    STATE.with(|s| s.stop = true);
    sched::wakeup(idle_chan());
}

pub(super) fn shutdown() {
    STATE.take();
}

/// Tasks queued since boot: each has woken a soaiod.
pub(crate) fn queued() -> u64 {
    STATE.with(|s| s.queued)
}

/// `soaio_enqueue`: a soaiod will run the task once.
pub(crate) fn enqueue(mut task: Kp<sys::task>) {
    k::mtx_lock(jobs_lock());
    if task.ta_pending != 0 {
        kpanic!("soaio_enqueue: task {:#x} is queued already", task.addr());
    }
    task.ta_pending += 1;
    let more = STATE.with(|s| {
        s.queued += 1;
        s.tasks.push_back(task);
        s.tasks.len() > s.idle && s.procs < MAX
    });
    if more {
        spawn();
    }
    sched::wakeup_one(idle_chan());
    k::mtx_unlock(jobs_lock());
}

fn spawn() {
    let id = STATE.with(|s| {
        s.procs += 1;
        s.next_id += 1;
        s.next_id
    });
    proc::spawn_kproc(&format!("soaiod{id}"), daemon);
}

/// soaio_kproc_loop.
fn daemon() {
    let mine = crate::vm::vmspace0();
    k::mtx_lock(jobs_lock());
    loop {
        while let Some(mut t) = STATE.with(|s| s.tasks.pop_front()) {
            let pending = c_int::from(t.ta_pending);
            t.ta_pending = 0;
            let (func, ctx) = (t.ta_func, t.ta_context);
            k::mtx_unlock(jobs_lock());
            let Some(func) = func else {
                kpanic!("soaio task without a function")
            };
            // SAFETY: the task's own function and context; its owner keeps both until it has run.
            unsafe { func(ctx, pending) };
            crate::locks::check_none_held("return of a soaio task");
            k::mtx_lock(jobs_lock());
        }
        let p = Kp::new(sched::current_thread().td_proc);
        if !std::ptr::eq(p.p_vmspace, mine.ptr()) {
            k::mtx_unlock(jobs_lock());
            aio::switch_to(mine);
            k::mtx_lock(jobs_lock());
            continue;
        }
        if STATE.with(|s| s.stop) {
            break;
        }
        STATE.with(|s| s.idle += 1);
        let e = k::msleep(idle_chan(), jobs_lock(), false, "-", Some(LIFETIME));
        let surplus = STATE.with(|s| {
            s.idle -= 1;
            s.tasks.is_empty() && s.procs > TARGET
        });
        if e == sys::EWOULDBLOCK as i32 && surplus {
            break;
        }
    }
    STATE.with(|s| s.procs -= 1);
    k::mtx_unlock(jobs_lock());
}

fn ready(so: Kp<sys::socket>, which: Which) -> bool {
    sosend::ready(so, which)
}

/// One go at a job, which ends or goes back to the head of the queue. Buffer lock held on entry
/// and return, dropped meanwhile.
fn process_job(so: Kp<sys::socket>, which: Which, job: Job) {
    let mtx = so.sb_mtx(which);
    k::mtx_unlock(mtx);
    aio::switch_vmspace(job);
    let mut td = sched::current_thread();
    loop {
        let saved = std::mem::replace(&mut td.td_ucred, job.cred);
        let mut uio = Kp::new(job.uiop);
        let cnt = uio.uio_resid;
        uio.uio_offset = 0;
        uio.uio_td = td.ptr();
        let mut flags = sys::MSG_NBIO;
        let mut error;
        if which == Which::Rcv {
            uio.uio_rw = sys::UIO_READ;
            error = sosend::soreceive(so, uio, flags);
        } else {
            if !so.snd().aioq().is_empty() {
                flags |= sys::MSG_MORETOCOME;
            }
            uio.uio_rw = sys::UIO_WRITE;
            error = sosend::sosend(so, uio, flags, td.ptr());
            if error == sys::EPIPE as i32 && so.so_options as u32 & sys::SO_NOSIGPIPE == 0 {
                proc::psignal(Kp::new(job.userproc), sys::SIGPIPE as i32);
            }
        }
        let done = done_of(job) + (cnt - uio.uio_resid) as i64;
        set_done(job, done);
        td.td_ucred = saved;
        if error == sys::EWOULDBLOCK as i32 {
            k::mtx_lock(mtx);
            // Non-blocking sockets end a job that moved something; any other waits for more.
            if done == 0 || so.state() & sys::SS_NBIO == 0 {
                if ready(so, which) {
                    k::mtx_unlock(mtx);
                    continue;
                }
                if aio::set_cancel(job, Some(c::soo_aio_cancel)) {
                    so.sb(which).aioq().push_front(job);
                    return;
                }
                k::mtx_unlock(mtx);
                end(job, done);
                k::mtx_lock(mtx);
                return;
            }
            k::mtx_unlock(mtx);
        }
        if done != 0 && (error == sys::EINTR as i32 || error == sys::EWOULDBLOCK as i32) {
            error = 0;
        }
        if error != 0 {
            aio::complete(job, -1, error);
        } else {
            aio::complete(job, done, 0);
        }
        k::mtx_lock(mtx);
        return;
    }
}

/// Completes a job that is being cancelled: short where something moved.
fn end(job: Job, done: i64) {
    if done != 0 {
        aio::complete(job, done, 0);
    } else {
        aio::cancel(job);
    }
}

/// `aio_done` is `backend3`.
fn done_of(job: Job) -> i64 {
    crate::net::acc::uget!(job.__bindgen_anon_1.__bindgen_anon_3.backend3)
}

fn set_done(mut job: Job, n: i64) {
    crate::net::acc::uget!(job.__bindgen_anon_1.__bindgen_anon_3.backend3 = n);
}

/// soaio_process_sb.
fn process(so: Kp<sys::socket>, which: Which) {
    vnet::with_vnet(so.so_vnet, || {
        let sb = so.sb(which);
        k::mtx_lock(so.sb_mtx(which));
        while !sb.aioq().is_empty() && ready(so, which) {
            let Some(job) = sb.aioq().pop_front() else {
                break;
            };
            if !aio::clear_cancel(job) {
                continue;
            }
            process_job(so, which, job);
        }
        let waiting = !sb.aioq().is_empty();
        sb.set_flags(if waiting { sys::SB_AIO } else { 0 }, sys::SB_AIO_RUNNING);
        k::mtx_unlock(so.sb_mtx(which));
        socket::rele(so);
    });
}

/// `sowakeup_aio`: the buffer became ready for queued jobs. Its lock is held.
pub(crate) fn sowakeup_aio(so: Kp<sys::socket>, which: Which) {
    k::mtx_assert_owned(so.sb_mtx(which));
    let mut sb = so.sb(which);
    sb.set_flags(0, sys::SB_AIO);
    if sb.flags() & sys::SB_AIO_RUNNING != 0 {
        return;
    }
    sb.set_flags(sys::SB_AIO_RUNNING, 0);
    socket::hold(so);
    enqueue(Kp::new(&raw mut sb.sb_aiotask));
}

fn which_of(job: Job) -> Option<Which> {
    match job.uaiocb.aio_lio_opcode as u32 & (sys::LIO_READ | sys::LIO_WRITE) {
        sys::LIO_READ => Some(Which::Rcv),
        sys::LIO_WRITE => Some(Which::Snd),
        _ => None,
    }
}

/// `soaio_queue_generic`.
fn queue_generic(so: Kp<sys::socket>, job: Job) -> i32 {
    let Some(which) = which_of(job) else {
        return sys::EINVAL as i32;
    };
    let mtx = so.sb_mtx(which);
    k::mtx_lock(mtx);
    if so.listening() {
        k::mtx_unlock(mtx);
        return sys::EINVAL as i32;
    }
    if !aio::set_cancel(job, Some(c::soo_aio_cancel)) {
        kpanic!("soaio: a new job was cancelled");
    }
    let sb = so.sb(which);
    sb.aioq().push_back(job);
    if sb.flags() & sys::SB_AIO_RUNNING == 0 {
        if ready(so, which) {
            sowakeup_aio(so, which);
        } else {
            sb.set_flags(sys::SB_AIO, 0);
        }
    }
    k::mtx_unlock(mtx);
    0
}

pub(crate) mod c {
    use super::*;

    /// A cancelled job that waits in a buffer's queue.
    pub(super) unsafe extern "C" fn soo_aio_cancel(job: *mut sys::kaiocb) {
        let job = Kp::new(job);
        let so: Kp<sys::socket> = Kp::new(Kp::new(job.fd_file).f_data.cast());
        let Some(which) = which_of(job) else {
            kpanic!("soaio: cancel of a job of another kind")
        };
        let sb = so.sb(which);
        k::mtx_lock(so.sb_mtx(which));
        if !aio::cancel_cleared(job) {
            sb.aioq().remove(job);
        }
        if sb.aioq().is_empty() {
            sb.set_flags(0, sys::SB_AIO);
        }
        k::mtx_unlock(so.sb_mtx(which));
        end(job, done_of(job));
    }
    /// `pr_aio_queue` of TCP, and what a driver's hook falls back to.
    pub(crate) unsafe extern "C" fn soaio_queue_generic_c(
        so: *mut sys::socket,
        job: *mut sys::kaiocb,
    ) -> c_int {
        queue_generic(Kp::new(so), Kp::new(job))
    }
    /// `soaio_rcv`.
    pub(crate) unsafe extern "C" fn soaio_rcv_task(ctx: *mut c_void, _pending: c_int) {
        process(Kp::new(ctx.cast()), Which::Rcv);
    }
    /// `soaio_snd`.
    pub(crate) unsafe extern "C" fn soaio_snd_task(ctx: *mut c_void, _pending: c_int) {
        process(Kp::new(ctx.cast()), Which::Snd);
    }
    pub(super) extern "C" fn soaio_enqueue(task: Kp<sys::task>) {
        enqueue(task);
    }
    pub(super) extern "C" fn sowakeup_aio(so: Kp<sys::socket>, which: u32) {
        super::sowakeup_aio(so, from_c(which));
    }
}

crate::exports! {
    "soaio_queue_generic" => c::soaio_queue_generic_c,
    "soaio_rcv" => c::soaio_rcv_task,
    "soaio_snd" => c::soaio_snd_task,
    "soaio_enqueue" => c::soaio_enqueue,
    "sowakeup_aio" => c::sowakeup_aio,
}
