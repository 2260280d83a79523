//! Every entry from C, and the few conversions between pointers that C keeps for us and what
//! they stand for. All `unsafe` of this crate is here.

use core::ffi::c_void;
use core::ptr::NonNull;

use kpi::aio::Job;
use kpi::inp::{Inp, InpGuard};
use kpi::mbuf::Mbuf;
use kpi::mem::Arc;
use kpi::sys::{inpcb, kaiocb, mbuf, socket, th_adapter_info, th_tom, th_vi};
use kpi::tom::Tom;
use kpi::{Error, sys};
use toehold_core::errno::Errno;
use toehold_core::os::JobId;

use crate::adapter::Adapter;
use crate::aioq::{self, Op};
use crate::listen;
use crate::synqe::{self, SYNACK, Synqe};
use crate::toepcb::{Side, Toepcb};
use crate::{connect, dispatch, stop};

const EINVAL: i32 = 22;
const EBUSY: i32 = 16;
const EOPNOTSUPP: i32 = 45;

fn rc(r: Result<(), Error>) -> i32 {
    match r {
        Ok(()) => 0,
        Err(e) => e.0,
    }
}

/// The adapter behind `th_tom.rs`.
///
/// # Safety
/// `rs` came from [`toehold_activate`] and [`toehold_free`] was not called yet.
unsafe fn adapter(rs: *mut c_void) -> Option<Arc<Adapter>> {
    // SAFETY: by the caller's promise, the reference that `rs` is lives.
    NonNull::new(rs).map(|p| unsafe { Arc::clone_raw(p) })
}

/// The connection behind `t_toe`.
///
/// # Safety
/// `p` is `t_toe` of a connection of ours, and its INP is held.
unsafe fn toepcb(p: *mut c_void) -> Option<Arc<Toepcb>> {
    // SAFETY: `t_toe` holds a reference, which goes under INP only.
    NonNull::new(p).map(|p| unsafe { Arc::clone_raw(p) })
}

/// The lock that the kernel holds around a call.
///
/// # Safety
/// `p` is an inpcb whose write lock this thread holds for the duration of the call.
unsafe fn held(p: *mut inpcb) -> Option<InpGuard> {
    let p = NonNull::new(p)?;
    // SAFETY: a live inpcb.
    let inp = unsafe { Inp::from_raw(p) };
    // SAFETY: the lock is held by this thread.
    Some(unsafe { InpGuard::assume(inp) })
}

// --- adapter -------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn toehold_activate(
    tom: *mut th_tom,
    info: *const th_adapter_info,
    rs: *mut *mut c_void,
) -> i32 {
    let Some(tom) = NonNull::new(tom) else {
        return EINVAL;
    };
    // SAFETY: the th_tom of an adapter being activated; freed after toehold_free().
    let tom = unsafe { Tom::from_raw(tom) };
    // SAFETY: C passes a valid structure, constant during the call.
    let info = unsafe { &*info };
    match Adapter::new(tom, info) {
        Ok(a) => {
            // SAFETY: C passes a place for the result.
            unsafe { rs.write(a.into_raw().as_ptr()) };
            0
        }
        Err(e) => e.0,
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_connections(rs: *mut c_void) -> u32 {
    // SAFETY: C passes th_tom.rs between activation and free.
    unsafe { adapter(rs) }.map_or(0, |a| a.connections())
}

#[unsafe(no_mangle)]
extern "C" fn toehold_stop_listeners(rs: *mut c_void) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        listen::stop_all(&a);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_deactivate(rs: *mut c_void) -> i32 {
    // SAFETY: as in toehold_connections().
    match unsafe { adapter(rs) } {
        Some(a) if !a.quiet() => EBUSY,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_closing(rs: *mut c_void) -> bool {
    // SAFETY: as in toehold_connections().
    unsafe { adapter(rs) }.is_some_and(|a| listen::closing(&a))
}

#[unsafe(no_mangle)]
extern "C" fn toehold_stop(rs: *mut c_void) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        stop::stop(&a);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_restart(rs: *mut c_void) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        stop::restart(&a);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_same_adapter(rs: *mut c_void, info: *const th_adapter_info) -> bool {
    // SAFETY: C passes a valid structure, constant during the call.
    let info = unsafe { &*info };
    // SAFETY: as in toehold_connections().
    unsafe { adapter(rs) }.is_some_and(|a| a.same(info))
}

#[unsafe(no_mangle)]
extern "C" fn toehold_free(rs: *mut c_void) {
    if let Some(p) = NonNull::new(rs) {
        // SAFETY: th_tom.rs, given up by C.
        drop(unsafe { Arc::<Adapter>::from_raw(p) });
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_retry(rs: *mut c_void) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        a.retry();
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_lowmem(rs: *mut c_void) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        a.lowmem();
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_pressure(rs: *mut c_void, space: u64) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        a.pressure((space != 0).then_some(space));
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_forget(rs: *mut c_void, space: u64) {
    // SAFETY: as in toehold_connections().
    if let Some(a) = unsafe { adapter(rs) } {
        a.forget(space);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_ppods(rs: *mut c_void, total: *mut u32, largest: *mut u32) {
    // SAFETY: as in toehold_connections().
    let (t, l) = unsafe { adapter(rs) }.map_or((0, 0), |a| a.ppods());
    // SAFETY: C passes a place for the result.
    unsafe { total.write(t) };
    // SAFETY: as above.
    unsafe { largest.write(l) };
}

#[unsafe(no_mangle)]
extern "C" fn toehold_cpl(rs: *mut c_void, cpl: *const u8, len: usize, m: *mut mbuf) {
    // SAFETY: the chain, if any, is handed over.
    let m = NonNull::new(m).map(|m| unsafe { Mbuf::from_raw(m) });
    // SAFETY: as in toehold_connections().
    let Some(a) = (unsafe { adapter(rs) }) else {
        return;
    };
    // With an mbuf the CPL lies in it, and the chain is about to be trimmed or freed.
    let mut head = [0; dispatch::MAX_CPL];
    let n = len.min(head.len());
    // SAFETY: C passes `len` readable bytes, and `head` has room for `n` of them.
    unsafe { head.as_mut_ptr().copy_from_nonoverlapping(cpl, n) };
    if let Some(head) = head.get(..n) {
        dispatch::cpl(&a, head, len, m);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_l2_failed(rs: *mut c_void, cookie: u64) {
    // SAFETY: as in toehold_connections().
    let Some(a) = (unsafe { adapter(rs) }) else {
        return;
    };
    let id = cookie as u32;
    if cookie & SYNACK != 0 {
        synqe::unsent(&a, id);
    } else {
        connect::unsent(&a, id);
    }
}

// --- opening -------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn toehold_connect(
    rs: *mut c_void,
    inp: *mut inpcb,
    vi: *const th_vi,
    nexthop: u32,
) -> i32 {
    // SAFETY: as in toehold_connections().
    let a = unsafe { adapter(rs) };
    // SAFETY: tod_connect is called with INP held.
    let g = unsafe { held(inp) };
    // SAFETY: C passes a valid structure, constant during the call.
    let vi = unsafe { &*vi };
    match (a, g) {
        (Some(a), Some(mut g)) => rc(connect::connect(&a, &mut g, vi, nexthop)),
        _ => EINVAL,
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_listen_start(rs: *mut c_void, inp: *mut inpcb, vi: *const th_vi) -> i32 {
    // SAFETY: as in toehold_connections().
    let a = unsafe { adapter(rs) };
    // SAFETY: tod_listen_start is called with INP held.
    let g = unsafe { held(inp) };
    // SAFETY: C passes a valid structure, constant during the call.
    let vi = unsafe { &*vi };
    match (a, g) {
        (Some(a), Some(g)) => rc(listen::start(&a, &g, vi)),
        _ => EINVAL,
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_listen_stop(rs: *mut c_void, inp: *mut inpcb) -> i32 {
    // SAFETY: as in toehold_connections().
    let a = unsafe { adapter(rs) };
    // SAFETY: tod_listen_stop is called with INP held.
    let g = unsafe { held(inp) };
    match (a, g) {
        (Some(a), Some(g)) => rc(listen::stop(&a, &g)),
        _ => EINVAL,
    }
}

/// The half-open connection behind the syncache's pointer.
///
/// # Safety
/// `p` is a synqe that toehold gave to the syncache and that is alive: the caller of
/// th_syncache_add() or the syncache holds a reference.
unsafe fn answered(p: *mut c_void) -> Option<Arc<Synqe>> {
    // SAFETY: by the caller's promise.
    NonNull::new(p).map(|p| unsafe { Arc::clone_raw(p) })
}

#[unsafe(no_mangle)]
extern "C" fn toehold_synqe_added(p: *mut c_void) {
    // SAFETY: called from within th_syncache_add(), whose caller holds a reference.
    if let Some(s) = unsafe { answered(p) } {
        // The syncache's reference.
        let _ = s.into_raw();
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_synqe_removed(p: *mut c_void) {
    if let Some(p) = NonNull::new(p) {
        // SAFETY: gives back the reference of toehold_synqe_added(), once.
        drop(unsafe { Arc::<Synqe>::from_raw(p) });
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_synqe_respond(p: *mut c_void, iss: u32, irs: u32, ts: u32) -> i32 {
    // SAFETY: the syncache, or th_syncache_add()'s caller, holds a reference.
    let s = unsafe { answered(p) };
    s.map_or(EINVAL, |s| rc(s.respond(iss, irs, ts)))
}

#[unsafe(no_mangle)]
extern "C" fn toehold_synqe_offload(p: *mut c_void, inp: *mut inpcb) {
    // SAFETY: the caller of th_syncache_expand() holds a reference.
    let s = unsafe { answered(p) };
    // SAFETY: the new connection's INP is held.
    let g = unsafe { held(inp) };
    let (Some(s), Some(mut g)) = (s, g) else {
        return;
    };
    // SAFETY: th_syncache_expand() is called with the listener's lock held, and its guard is
    // borrowed exclusively by that call.
    let mut listener = unsafe { InpGuard::assume(s.listener()) };
    Synqe::become_connection(&s, &mut listener, &mut g);
}

// --- the kernel's calls on a connection ----------------------------------------------------

/// Run `f` on the connection behind `t_toe`.
fn on_toep(p: *mut c_void, inp: *mut inpcb, f: impl FnOnce(&Arc<Toepcb>, InpGuard)) {
    // SAFETY: every caller is a toedev method, called with INP held and t_toe set.
    let t = unsafe { toepcb(p) };
    // SAFETY: as above.
    let g = unsafe { held(inp) };
    if let (Some(t), Some(g)) = (t, g) {
        f(&t, g);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_rcvd(p: *mut c_void, inp: *mut inpcb) {
    on_toep(p, inp, |t, mut g| {
        let _ = Toepcb::run(t, &mut g, |conn, os| conn.rcvd(os));
    });
}

#[unsafe(no_mangle)]
extern "C" fn toehold_tls(p: *mut c_void, inp: *mut inpcb) {
    on_toep(p, inp, |t, mut g| {
        let _ = Toepcb::run(t, &mut g, |conn, os| conn.tls(os));
    });
}

#[unsafe(no_mangle)]
extern "C" fn toehold_output(p: *mut c_void, inp: *mut inpcb) -> i32 {
    on_toep(p, inp, |t, mut g| {
        let _ = Toepcb::run(t, &mut g, |conn, os| conn.output(os));
    });
    0
}

#[unsafe(no_mangle)]
extern "C" fn toehold_send_fin(p: *mut c_void, inp: *mut inpcb) -> i32 {
    on_toep(p, inp, |t, mut g| {
        let _ = Toepcb::run(t, &mut g, |conn, os| conn.send_fin(os));
    });
    0
}

#[unsafe(no_mangle)]
extern "C" fn toehold_send_rst(p: *mut c_void, inp: *mut inpcb) -> i32 {
    on_toep(p, inp, |t, mut g| Toepcb::send_rst(t, &mut g));
    0
}

#[unsafe(no_mangle)]
extern "C" fn toehold_pcb_detach(p: *mut c_void, inp: *mut inpcb) {
    on_toep(p, inp, |t, mut g| {
        Toepcb::detach(t, &mut g);
        g.locked().unoffload();
        if let Some(p) = NonNull::new(p) {
            // SAFETY: t_toe's reference; unoffload() has just cleared t_toe.
            drop(unsafe { Arc::<Toepcb>::from_raw(p) });
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn toehold_nodelay(p: *mut c_void, inp: *mut inpcb, on: bool) {
    on_toep(p, inp, |t, mut g| Toepcb::nodelay(t, &mut g, on));
}

// --- aio -----------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn toehold_aio_queue(_so: *mut socket, job: *mut kaiocb, op: u32) -> i32 {
    let Some(p) = NonNull::new(job) else {
        return EINVAL;
    };
    let op = match op {
        sys::TH_AIO_READ => Op::Read,
        sys::TH_AIO_WRITE => Op::Write,
        sys::TH_AIO_WRITEV => Op::Writev,
        _ => return EOPNOTSUPP,
    };
    // SAFETY: a job being queued keeps its socket and so its inpcb alive.
    let inp = NonNull::new(unsafe { sys::th_job_inp(p.as_ptr()) });
    let Some(inp) = inp else { return EOPNOTSUPP };
    // SAFETY: live, as said above, until the job is completed.
    let inp = unsafe { Inp::from_raw(inp) };
    let g = inp.lock();
    // SAFETY: INP is held, so t_toe's reference cannot go.
    let toep = g
        .locked()
        .toep()
        .map(|t| unsafe { Arc::<Toepcb>::clone_raw(t) });
    drop(g);
    let Some(toep) = toep else { return EOPNOTSUPP };
    // SAFETY: offered by the kernel; declined below if the answer is not 0.
    let job = unsafe { Job::claim(p) };
    match aioq::queue(&toep, job, op) {
        Ok(()) => 0,
        Err(job) => match job.decline() {
            Ok(()) => EOPNOTSUPP,
            // The kernel cannot have it while it is lent.
            Err(job) => {
                job.complete(Err(Errno::ECANCELED.get()));
                0
            }
        },
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_aio_cancel(p: *mut c_void, inp: *mut inpcb, job: *mut kaiocb) {
    let id = JobId(job.addr());
    on_toep(p, inp, |t, mut g| aioq::cancel(t, &mut g, id));
}

#[unsafe(no_mangle)]
extern "C" fn toehold_aiotx_hold(owner: *mut c_void, slot: u32) {
    if let Some(p) = NonNull::new(owner) {
        // SAFETY: `owner` is the Side that th_snd_append_pages() was given, alive during its call.
        let side = unsafe { Arc::<Side>::clone_raw(p) };
        side.hold(slot);
        // The mbuf's reference.
        let _ = side.into_raw();
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_aiotx_rele(owner: *mut c_void, slot: u32) {
    if let Some(p) = NonNull::new(owner) {
        // SAFETY: the reference that toehold_aiotx_hold() gave the mbuf, which is being freed.
        let side = unsafe { Arc::<Side>::from_raw(p) };
        side.rele(slot);
    }
}

#[unsafe(no_mangle)]
extern "C" fn toehold_worker(p: *mut c_void) {
    if let Some(p) = NonNull::new(p) {
        // SAFETY: the reference that was given to the task when it was queued.
        let toep = unsafe { Arc::<Toepcb>::from_raw(p) };
        aioq::worker(&toep);
    }
}
