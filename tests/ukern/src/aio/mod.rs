//! Asynchronous I/O: the life of a request (vfs_aio.c).
//!
//! A job is owned by whoever serves it until [`complete`]. Job flags, the cancel function and the
//! lists of a process are protected by the process's "aiomtx"; a backend's own list by the
//! backend's lock, which is taken before aiomtx. Cancel functions run with no lock held.

mod daemon;
mod soaio;
mod syscalls;

use std::collections::BTreeMap;

use crate::global::Global;
use crate::kmem;
use crate::kp::Kp;
use crate::ksym::{Export, KData};
use crate::net::k;
use crate::{kpanic, sched, sys};

pub(crate) use soaio::{
    c::soaio_queue_generic_c, c::soaio_rcv_task, c::soaio_snd_task, queued as soaio_queued,
    sowakeup_aio,
};

// kaiocb.jobflags, private to vfs_aio.c.
const QUEUEING: i32 = 0x01;
const CANCELLED: i32 = 0x02;
const CANCELLING: i32 = 0x04;
const CLEARED: i32 = 0x10;
const FINISHED: i32 = 0x20;

/// max_aio_queue_per_proc.
const MAX_PER_PROC: usize = 256;
/// max_aio_queue.
const MAX_TOTAL: usize = 1024;

pub(crate) type Job = Kp<sys::kaiocb>;

static M_AIO: KData = KData::of::<sys::malloc_type>("ukern_M_AIO").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"aio".as_ptr();
});

/// `struct kaioinfo`: the requests of one process.
struct Kaio {
    mtx: Kp<sys::mtx>,
    /// KAIO_RUNDOWN: the process exits.
    rundown: bool,
    /// Every job, oldest first.
    all: Vec<Job>,
    /// Those not finished.
    queue: Vec<Job>,
    /// Those finished and not yet returned.
    done: Vec<Job>,
}

#[derive(Default)]
struct State {
    procs: BTreeMap<usize, Kaio>,
    total: usize,
    seqno: u64,
    /// Handlers of `process_exit` and `process_exec`.
    handlers: Vec<(&'static str, Kp<sys::eventhandler_entry>)>,
}

static STATE: Global<State> = Global::new("aio");

pub(crate) fn exports() -> Vec<&'static [Export]> {
    vec![symbols(), soaio::symbols(), daemon::symbols()]
}

pub(crate) fn data() -> Vec<&'static [&'static KData]> {
    static OWN: &[&KData] = &[&M_AIO];
    vec![OWN, soaio::data(), daemon::data()]
}

pub(crate) fn boot() {
    let at = |event, func| {
        let any = 10_000; // EVENTHANDLER_PRI_ANY
        let none = std::ptr::null_mut();
        let tag = crate::eventhandler::register(std::ptr::null_mut(), event, func, none, any);
        (event, tag)
    };
    let handlers = vec![
        at("process_exit", c::aio_proc_rundown as *const () as usize),
        at("process_exec", c::aio_proc_rundown as *const () as usize),
    ];
    STATE.init(State {
        handlers,
        ..State::default()
    });
    soaio::boot();
    daemon::boot();
}

pub(crate) fn quiesce() {
    for (event, tag) in STATE.with(|s| std::mem::take(&mut s.handlers)) {
        crate::eventhandler::remove_handler(event, tag);
    }
    soaio::stop();
    daemon::stop();
}

pub(crate) fn shutdown() {
    STATE.take();
    soaio::shutdown();
    daemon::shutdown();
}

pub(crate) fn leaks() -> Vec<String> {
    let n = STATE.with(|s| s.total);
    if n > 0 {
        vec![format!("{n} aio requests")]
    } else {
        Vec::new()
    }
}

fn with<R>(p: Kp<sys::proc_>, f: impl FnOnce(&mut Kaio) -> R) -> R {
    match STATE.with(|s| s.procs.get_mut(&p.addr()).map(f)) {
        Some(r) => r,
        None => kpanic!("aio: process {} has no aioinfo", p.p_pid),
    }
}

fn has_info(p: Kp<sys::proc_>) -> bool {
    !p.p_aioinfo.is_null()
}

fn lock(p: Kp<sys::proc_>) {
    k::mtx_lock(p.p_aioinfo.cast());
}

fn unlock(p: Kp<sys::proc_>) {
    k::mtx_unlock(p.p_aioinfo.cast());
}

/// The channel waiters of a process sleep on (`&p->p_aioinfo`).
fn chan(p: Kp<sys::proc_>) -> usize {
    p.addr() + std::mem::offset_of!(sys::proc_, p_aioinfo)
}

fn owner(job: Job) -> Kp<sys::proc_> {
    Kp::new(job.userproc)
}

fn init_info(mut p: Kp<sys::proc_>) {
    let mtx: Kp<sys::mtx> = kmem::alloc_zeroed(&M_AIO);
    k::mtx_init(mtx.ptr(), c"aiomtx", 0);
    STATE.with(|s| {
        let info = Kaio {
            mtx,
            rundown: false,
            all: Vec::new(),
            queue: Vec::new(),
            done: Vec::new(),
        };
        s.procs.insert(p.addr(), info);
    });
    p.p_aioinfo = mtx.ptr().cast();
}

/// Frees a finished, returned job and its references.
fn free_job(job: Job) {
    let fp = job.fd_file;
    k::crfree(job.cred);
    if !std::ptr::eq(job.uiop, &raw const job.uio) {
        syscalls::free_uio(job.uiop);
    }
    kmem::free_obj(job, &M_AIO);
    if let Some(fp) = Kp::opt(fp) {
        crate::proc::file::fdrop(fp);
    }
}

/// The job is finished: moves it to the done list and wakes waiters. aiomtx held.
fn notify(p: Kp<sys::proc_>, job: Job) {
    with(p, |i| i.done.push(job));
    let sig = job.uaiocb.aio_sigevent.sigev_signo;
    let wants = job.uaiocb.aio_sigevent.sigev_notify as u32 == sys::SIGEV_SIGNAL;
    if wants && !with(p, |i| i.rundown) {
        crate::proc::psignal(p, sig);
    }
    sched::wakeup(chan(p));
}

/// `aio_set_cancel_function`: false when a cancel is pending already.
pub(crate) fn set_cancel(mut job: Job, f: sys::aio_cancel_fn_t) -> bool {
    let p = owner(job);
    lock(p);
    let ok = job.jobflags & CANCELLED == 0;
    if ok {
        job.cancel_fn = f;
    }
    unlock(p);
    ok
}

/// `aio_clear_cancel_function`: false when the canceller has the job.
pub(crate) fn clear_cancel(mut job: Job) -> bool {
    let p = owner(job);
    lock(p);
    if job.cancel_fn.is_none() {
        kpanic!("aio_clear_cancel_function: no cancel function is set");
    }
    let ok = job.jobflags & CANCELLING == 0;
    if ok {
        job.cancel_fn = None;
    } else {
        job.jobflags |= CLEARED;
    }
    unlock(p);
    ok
}

/// `aio_cancel_cleared`: the one that dequeued the job lost to the canceller.
pub(crate) fn cancel_cleared(job: Job) -> bool {
    job.jobflags & CLEARED != 0
}

/// `aio_complete`: the job is over, once.
pub(crate) fn complete(mut job: Job, status: i64, error: i32) {
    let p = owner(job);
    if p.is_null() {
        kpanic!("aio_complete: job {:#x} has no process", job.addr());
    }
    job.uaiocb._aiocb_private.error = i64::from(error);
    job.uaiocb._aiocb_private.status = status;
    lock(p);
    if job.jobflags & FINISHED != 0 {
        kpanic!("duplicate aio_complete of job {:#x}", job.addr());
    }
    if error == 0 && status < 0 {
        kpanic!("aio_complete with status {status} and no error");
    }
    job.jobflags |= FINISHED;
    if job.jobflags & (QUEUEING | CANCELLING) == 0 {
        with(p, |i| i.queue.retain(|&j| j != job));
        notify(p, job);
    }
    unlock(p);
}

/// `aio_cancel`: completes with ECANCELED.
pub(crate) fn cancel(job: Job) {
    complete(job, -1, sys::ECANCELED as i32);
}

/// Asks a job to be cancelled; true when it was by the time its cancel function returned.
/// aiomtx held on entry and return, dropped meanwhile.
fn cancel_job(p: Kp<sys::proc_>, mut job: Job) -> bool {
    if job.jobflags & (CANCELLED | FINISHED) != 0 {
        return false;
    }
    if job.jobflags & CANCELLING != 0 {
        kpanic!("aio: a job is being cancelled twice");
    }
    job.jobflags |= CANCELLED;
    let Some(f) = job.cancel_fn else { return false };
    job.jobflags |= CANCELLING;
    unlock(p);
    // SAFETY: the function the job's present server installed; CANCELLING keeps the job alive.
    unsafe { f(job.ptr()) };
    crate::locks::check_none_held("return of an aio cancel function");
    lock(p);
    job.jobflags &= !CANCELLING;
    if job.jobflags & FINISHED == 0 {
        return false;
    }
    with(p, |i| i.queue.retain(|&j| j != job));
    let was = job.uaiocb._aiocb_private.error == i64::from(sys::ECANCELED);
    notify(p, job);
    was
}

/// `aio_proc_rundown`: at exit and exec. Cancels what can be cancelled and waits for the rest.
fn rundown(mut p: Kp<sys::proc_>) {
    if !has_info(p) {
        return;
    }
    lock(p);
    with(p, |i| i.rundown = true);
    loop {
        for job in with(p, |i| i.queue.clone()) {
            // It may have finished while the lock was dropped for another.
            if with(p, |i| i.queue.contains(&job)) {
                cancel_job(p, job);
            }
        }
        if with(p, |i| i.queue.is_empty()) {
            break;
        }
        k::msleep(
            chan(p),
            p.p_aioinfo.cast(),
            false,
            "aioprn",
            Some(sched::SBT_1S),
        );
    }
    while let Some(job) = with(p, |i| i.done.pop()) {
        forget(p, job);
        unlock(p);
        free_job(job);
        lock(p);
    }
    unlock(p);
    let Some(info) = STATE.with(|s| s.procs.remove(&p.addr())) else {
        return;
    };
    p.p_aioinfo = std::ptr::null_mut();
    k::mtx_destroy(info.mtx.ptr());
    kmem::free_obj(info.mtx, &M_AIO);
}

/// Takes a done job off the books. aiomtx held.
fn forget(p: Kp<sys::proc_>, job: Job) {
    with(p, |i| {
        i.all.retain(|&j| j != job);
        i.done.retain(|&j| j != job);
    });
    STATE.with(|s| s.total -= 1);
}

/// `aio_switch_vmspace`: the running kernel process borrows the job's address space.
pub(crate) fn switch_vmspace(job: Job) {
    switch_to(Kp::new(owner(job).p_vmspace));
}

/// `vmspace_switch_aio`.
pub(crate) fn switch_to(new: Kp<sys::vmspace>) {
    let mut p = Kp::new(sched::current_thread().td_proc);
    let old = Kp::new(p.p_vmspace);
    if old == new {
        return;
    }
    crate::vm::acquire(new);
    p.p_vmspace = new.ptr();
    crate::vm::release(old);
}

pub(crate) use syscalls::{
    aio_cancel as sys_cancel, aio_error as sys_error, aio_return as sys_return,
    aio_suspend as sys_suspend, aio_waitcomplete as sys_waitcomplete, aqueue, as_bytes, new_aiocb,
};

/// Jobs of a process that are not finished, for tests.
pub(crate) fn pending(p: Kp<sys::proc_>) -> usize {
    if has_info(p) {
        with(p, |i| i.queue.len())
    } else {
        0
    }
}

mod c {
    use super::*;

    pub(super) extern "C" fn aio_complete(job: Job, status: i64, error: i32) {
        complete(job, status, error);
    }
    /// The argument is the handler's own.
    pub(super) extern "C" fn aio_proc_rundown(_: *mut std::ffi::c_void, p: Kp<sys::proc_>) {
        super::rundown(p);
    }
    pub(super) extern "C" fn aio_cancel(job: Job) {
        cancel(job);
    }
    pub(super) extern "C" fn aio_cancel_cleared(job: Job) -> bool {
        cancel_cleared(job)
    }
    pub(super) extern "C" fn aio_set_cancel_function(job: Job, f: sys::aio_cancel_fn_t) -> bool {
        set_cancel(job, f)
    }
    pub(super) extern "C" fn aio_clear_cancel_function(job: Job) -> bool {
        clear_cancel(job)
    }
    pub(super) extern "C" fn aio_switch_vmspace(job: Job) {
        switch_vmspace(job);
    }
}

crate::exports! {
    "aio_complete" => c::aio_complete,
    "aio_cancel" => c::aio_cancel,
    "aio_cancel_cleared" => c::aio_cancel_cleared,
    "aio_set_cancel_function" => c::aio_set_cancel_function,
    "aio_clear_cancel_function" => c::aio_clear_cancel_function,
    "aio_switch_vmspace" => c::aio_switch_vmspace,
}
