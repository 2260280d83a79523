//! The aiod daemon: jobs that run as ordinary calls in a kernel process (aio_mlock(2)).

use std::collections::VecDeque;

use crate::aio::{self, Job};
use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::k;
use crate::sched;
use crate::{proc, sys};

static JOB_MTX: KData = KData::of::<sys::mtx>("ukern_aio_job_mtx");

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    running: bool,
    stop: bool,
}

static STATE: Global<State> = Global::new("aiod");

crate::exports_data! { JOB_MTX }

fn mtx() -> *mut sys::mtx {
    JOB_MTX.get::<sys::mtx>().ptr()
}

fn chan() -> usize {
    JOB_MTX.addr() + 1
}

pub(super) fn boot() {
    STATE.init(State::default());
    k::mtx_init(mtx(), c"aio_job", 0);
}

pub(super) fn stop() {
    STATE.with(|s| s.stop = true);
    sched::wakeup(chan());
}

pub(super) fn shutdown() {
    STATE.take();
}

unsafe extern "C" fn cancel_daemon_job(job: *mut sys::kaiocb) {
    let job = Kp::new(job);
    k::mtx_lock(mtx());
    if !aio::cancel_cleared(job) {
        STATE.with(|s| s.jobs.retain(|&j| j != job));
    }
    k::mtx_unlock(mtx());
    aio::cancel(job);
}

/// `aio_schedule`: the daemon will call `func`.
pub(super) fn schedule(mut job: Job, func: sys::aio_handle_fn_t) {
    k::mtx_lock(mtx());
    if !aio::set_cancel(job, Some(cancel_daemon_job)) {
        k::mtx_unlock(mtx());
        return aio::cancel(job);
    }
    job.handle_fn = func;
    let start = STATE.with(|s| {
        s.jobs.push_back(job);
        !std::mem::replace(&mut s.running, true)
    });
    if start {
        proc::spawn_kproc("aiod1", daemon);
    }
    sched::wakeup(chan());
    k::mtx_unlock(mtx());
}

fn daemon() {
    k::mtx_lock(mtx());
    loop {
        while let Some(job) = STATE.with(|s| s.jobs.pop_front()) {
            if !aio::clear_cancel(job) {
                continue;
            }
            k::mtx_unlock(mtx());
            if let Some(f) = job.handle_fn {
                // SAFETY: the handler the job was scheduled with.
                unsafe { f(job.ptr()) };
            }
            aio::switch_to(crate::vm::vmspace0());
            k::mtx_lock(mtx());
        }
        if STATE.with(|s| s.stop) {
            break;
        }
        k::msleep(chan(), mtx(), false, "aiordy", None);
    }
    STATE.with(|s| s.running = false);
    k::mtx_unlock(mtx());
}

/// LIO_MLOCK.
pub(super) unsafe extern "C" fn process_mlock(job: *mut sys::kaiocb) {
    let job = Kp::new(job);
    aio::switch_vmspace(job);
    let p = Kp::new(job.userproc);
    let r = proc::mlock(p, job.uaiocb.aio_buf as u64, job.uaiocb.aio_nbytes);
    match r {
        Ok(()) => aio::complete(job, 0, 0),
        Err(e) => aio::complete(job, -1, e.0),
    }
}

mod c {
    use super::*;
    pub(super) extern "C" fn aio_schedule(job: Job, f: sys::aio_handle_fn_t) {
        schedule(job, f);
    }
}

crate::exports! {
    "aio_schedule" => c::aio_schedule,
}
