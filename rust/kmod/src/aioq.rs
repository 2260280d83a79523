//! aio_read and aio_write: claiming, holding pages, cancelling, ending.

use core::sync::atomic::Ordering;

use kpi::aio::Job;
use kpi::inp::InpGuard;
use kpi::mem::Arc;
use kpi::pages::Pages;
use toehold_core::errno::Errno;
use toehold_core::os::JobId;

use crate::kos::{KJob, KPages};
use crate::toepcb::Toepcb;

/// What a process asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// aio_read.
    Read,
    /// aio_write.
    Write,
    /// aio_writev.
    Writev,
}

/// Offer a job to a connection, and hold its pages. Process context: may sleep, no lock held.
///
/// # Errors
/// The job, declined.
pub fn queue(toep: &Arc<Toepcb>, job: Job, op: Op) -> Result<(), Job> {
    let _vnet = toep.vnet.enter();
    let mut tun = toep.adapter().tunables();
    let mut slot = Some(KJob(job));
    let mut room = toep.room();
    let mut g = toep.inp().lock();
    Toepcb::begin_to_serve(toep, &mut g);
    let _ = Toepcb::run(toep, &mut g, |conn, os| {
        // Two may come first at once: what the second brings is freed behind the lock.
        if let Some(slots) = room.take() {
            room = conn.provide(slots);
            toep.side.room.store(true, Ordering::Relaxed);
        }
        tun.ddp &= !os.no_ddp();
        conn.set_tunables(tun);
        let Some(job) = slot.take() else { return };
        let declined = match op {
            Op::Read => conn.aio_read(os, job),
            Op::Write => conn.aio_write(os, job),
            Op::Writev => conn.aio_writev(os, job),
        };
        if let Err(job) = declined {
            slot = Some(job);
        }
    });
    match slot {
        Some(KJob(job)) => {
            Toepcb::stop_serving(toep, &mut g, false);
            Err(job)
        }
        None => {
            serve(toep, g);
            Ok(())
        }
    }
}

/// Most requests for pages or copies that one thread sees to: a program that submits a job shall
/// come back from that, however busy the connection is. The worker does the rest.
const ROUNDS: u32 = 64;

/// Hold the pages that are wanted, as long as any are. May sleep; the lock comes in and goes.
/// [`Toepcb::begin_to_serve`] was called.
fn serve(toep: &Arc<Toepcb>, mut g: InpGuard) {
    for _ in 0..ROUNDS {
        Toepcb::about_to_look(toep, &mut g);
        let want = Toepcb::run(toep, &mut g, |conn, os| conn.want_pages(os)).flatten();
        let Some(want) = want else {
            Toepcb::stop_serving(toep, &mut g, false);
            return;
        };
        drop(g);
        let tom = toep.adapter().tom;
        if want.is_copy() {
            let off = want.addr.wrapping_sub(want.job.addr());
            let m = want.job.copy(off, want.len).map_err(|_| Errno::EFAULT);
            g = toep.inp().lock();
            let _ = Toepcb::run(toep, &mut g, |conn, os| conn.copied(os, &want, m));
            continue;
        }
        let charged = want.ticket.charged();
        let pages = Pages::hold(tom, &want.job, want.addr, want.len, want.write, charged)
            .map(KPages)
            .map_err(|e| Errno::new(e.0).unwrap_or(Errno::EFAULT));
        drop(want.job);
        g = toep.inp().lock();
        let _ = Toepcb::run(toep, &mut g, |conn, os| {
            conn.pages_ready(os, want.ticket, pages)
        });
    }
    Toepcb::stop_serving(toep, &mut g, true);
}

/// The worker: what could not be done where sleeping is forbidden.
pub fn worker(toep: &Arc<Toepcb>) {
    let _vnet = toep.vnet.enter();
    let mut g = toep.inp().lock();
    Toepcb::begin_to_serve(toep, &mut g);
    serve(toep, g);
}

/// aio_cancel of a job. It is ended, if it is still here.
pub fn cancel(toep: &Arc<Toepcb>, g: &mut InpGuard, id: JobId) {
    let _ = Toepcb::run(toep, g, |conn, os| conn.cancel(os, id));
}
