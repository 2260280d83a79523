//! aio_read and aio_write: claiming, holding pages, cancelling, ending.

use kpi::aio::Job;
use kpi::inp::InpGuard;
use kpi::mem::Arc;
use kpi::pages::Pages;
use toehold_core::errno::Errno;
use toehold_core::os::JobId;

use crate::entry;
use crate::kos::{KJob, KPages, Kos};
use crate::toepcb::{Side, Toepcb};

/// What a process asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// aio_read.
    Read,
    /// aio_write.
    Write,
}

/// Offer a job to a connection, and hold its pages. Process context: may sleep, no lock held.
///
/// # Errors
/// The job, declined.
pub fn queue(toep: &Arc<Toepcb>, mut job: Job, op: Op) -> Result<(), Job> {
    let _vnet = toep.vnet.enter();
    if op == Op::Write {
        // Mbufs will refer to the job, and it must find the slot counts whatever becomes of the
        // connection.
        entry::keep_side(&mut job, toep.side.clone());
    }
    let mut tun = toep.adapter().tunables();
    let mut slot = Some(KJob(job));
    let mut g = toep.inp().lock();
    let _ = Toepcb::run(toep, &mut g, |conn, os| {
        tun.ddp &= !os.no_ddp();
        conn.set_tunables(tun);
        let Some(job) = slot.take() else { return };
        let declined = match op {
            Op::Read => conn.aio_read(os, job),
            Op::Write => conn.aio_write(os, job),
        };
        if let Err(job) = declined {
            slot = Some(job);
        }
    });
    match slot {
        Some(KJob(mut job)) => {
            drop(g);
            drop(entry::kept_side(&mut job));
            Err(job)
        }
        None => {
            serve(toep, g);
            Ok(())
        }
    }
}

/// Hold the pages that are wanted, as long as any are. May sleep; the lock comes in and goes.
fn serve(toep: &Arc<Toepcb>, mut g: InpGuard) {
    loop {
        let want = Toepcb::run(toep, &mut g, |conn, os| conn.want_pages(os)).flatten();
        drop(g);
        let Some(want) = want else { return };
        let tom = toep.adapter().tom;
        let charged = want.ticket.charged();
        let pages = match entry::job_of(want.job) {
            Some(job) => Pages::hold(tom, job, want.addr, want.len, want.write, charged)
                .map(KPages)
                .map_err(|e| Errno::new(e.0).unwrap_or(Errno::EFAULT)),
            None => Err(Errno::EFAULT),
        };
        g = toep.inp().lock();
        let _ = Toepcb::run(toep, &mut g, |conn, os| {
            conn.pages_ready(os, want.ticket, pages)
        });
    }
}

/// The worker: what could not be done where sleeping is forbidden.
pub fn worker(toep: &Arc<Toepcb>) {
    let _vnet = toep.vnet.enter();
    serve(toep, toep.inp().lock());
}

/// aio_cancel of a job. It is ended, if it is still here.
pub fn cancel(toep: &Arc<Toepcb>, g: &mut InpGuard, id: JobId) {
    let _ = Toepcb::run(toep, g, |conn, os| conn.cancel(os, id));
}

/// End a job whose pages no mbuf refers to.
pub fn complete(mut job: Job, result: Result<usize, i32>) {
    drop(entry::kept_side(&mut job));
    job.complete(result);
}

/// The queue is done with a write; the last mbuf ends it.
pub fn finish(job: Job, result: Result<usize, i32>) {
    if let Some(job) = job.aiotx_finish(result) {
        over(job);
    }
}

/// An mbuf is gone; was it the last reference? Any context: atomics, and aio_complete.
pub fn rele(job: Option<Job>) {
    if let Some(job) = job {
        over(job);
    }
}

fn over(mut job: Job) {
    let side: Option<Arc<Side>> = entry::kept_side(&mut job);
    let result = job.achieved();
    match side {
        Some(side) => Kos::job_over(job, &side, result),
        None => job.complete(result),
    }
}
