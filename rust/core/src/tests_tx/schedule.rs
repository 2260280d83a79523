//! Seeded schedules of everything transmit does.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::fake::{FJob, Wr};
use super::rig::{Rig, tun};
use super::rng::{Rng, seeds};
use crate::errno::Errno;
use crate::os::Counter;
use crate::shared::Tunables;

/// Seeded schedules of everything at once; I1, I2, I3, I5, I8 after each step.
#[test]
fn any_schedule() {
    seeds(400, |seed| schedule(&mut Rng::new(seed)));
}

/// Pages come for a piece of a job that the cache has served meanwhile: the job is past it, and would
/// have stood there for ever with a page set that is none of its own.
#[test]
fn pages_come_for_a_piece_that_is_done() {
    schedule(&mut Rng::new(0x5416_c12d_7c7a_b400)).unwrap();
}

fn schedule(g: &mut Rng) -> Result<(), String> {
    let mut r = Rig::with_credits(g.range(16, 255) as u16);
    r.os.hiwat = g.range(3000, 300_000) as u32;
    r.os.lowat = g.range(1, 4096) as u32;
    r.os.auto_max = if g.one_in(2) { 1 << 20 } else { 0 };
    r.os.nonblocking = g.one_in(4);
    if g.one_in(2) {
        let wnd = g.range(1, 300_000) as u32;
        r.window(wnd, wnd + g.below(1 << 20) as u32);
    }
    let cache = if g.one_in(2) {
        g.range(1, 16) as u16
    } else {
        16
    };
    r.conn.set_tunables(Tunables {
        cache,
        tx_zcopy_min: [0, 0, 3000, 66_000][g.below(4) as usize],
        ..tun()
    });
    let mut jobs: Vec<usize> = Vec::new();
    let mut declined = 0;
    let mut next = 1;
    let mut late = 0;
    let steps = g.range(20, 300);
    for step in 0..steps {
        match g.below(40) {
            0..8 => {
                let addr = 0x40_0000 * g.range(1, 12) + if g.one_in(2) { 0 } else { g.below(5000) };
                let len = match g.below(4) {
                    0 => g.range(1, 100),
                    1 => g.range(1, 5000),
                    2 => g.range(1, 70_000),
                    _ => g.range(1, 900_000),
                };
                // Mostly the same lengths, so that the cache hits.
                let len = if g.one_in(2) { 65_536 } else { len };
                if g.one_in(30) {
                    r.os.cancelled.insert(next);
                }
                let job = FJob::new(next, addr, len as usize);
                r.os.generic = g.one_in(30);
                let done = if g.one_in(8) {
                    r.conn.aio_writev(&mut r.os, job)
                } else {
                    r.conn.aio_write(&mut r.os, job)
                };
                if done.is_ok() {
                    jobs.push(next);
                } else {
                    declined += 1;
                }
                next += 1;
            }
            8..12 if !r.os.dropped && !r.os.snd_shut => {
                r.os.append(g.range(1, 9000) as u32, true);
                r.os.more_to_come = g.one_in(5);
                r.conn.output(&mut r.os);
            }
            12..18 => {
                if r.pending.is_none() {
                    r.pending = r.conn.want_pages(&mut r.os);
                } else {
                    let err = g.one_in(12).then_some(Errno::EFAULT);
                    r.work_end(err);
                }
            }
            18..26 => r.ack(g.range(1, 6) as usize),
            26..29 if !jobs.is_empty() => {
                let id = jobs[g.below(jobs.len() as u64) as usize];
                if g.one_in(4) {
                    r.os.leaving.insert(id);
                }
                r.conn.cancel(&mut r.os, crate::os::JobId(id));
            }
            29 => r.os.no_wr = g.below(4) as u32,
            30 => r.os.no_mbuf = g.below(4) as u32,
            31 => r.os.io_busy = !r.os.io_busy,
            32 => r.os.budget = [3, 20, 100, u32::MAX, u32::MAX][g.below(5) as usize],
            33 | 34 => {
                let o = r.conn.retry(&mut r.os);
                follow(&mut r, o)?;
            }
            35 => r.os.remap(),
            36 => {
                r.os.nonblocking = !r.os.nonblocking;
            }
            37 if step > steps / 2 && late == 0 => {
                late = g.range(1, 4);
                match late {
                    1 if !r.os.dropped => r.shutdown(),
                    2 => r.abort_req(20),
                    3 if !r.os.dropped => r.drop_now(),
                    _ => r.abort_req(35),
                }
            }
            _ => {}
        }
        r.try_check().map_err(|e| format!("step {step}: {e}"))?;
    }
    // Shortages end; everything comes to rest.
    r.os.no_wr = 0;
    r.os.no_mbuf = 0;
    r.os.io_busy = false;
    r.os.budget = u32::MAX;
    for _ in 0..100_000 {
        let o = r.conn.retry(&mut r.os);
        follow(&mut r, o)?;
        while r.pending.is_some() || r.work_begin() {
            r.work_end(None);
        }
        let aborting = r.count(|w| matches!(w, Wr::AbortReq { .. })) > 0;
        if aborting || r.os.outstanding() == 0 {
            break;
        }
        r.ack(g.range(1, 4) as usize);
    }
    r.try_check()?;
    if r.finals == 0 {
        if r.count(|w| matches!(w, Wr::AbortReq { .. })) > 0 {
            r.abort_rpl();
        } else if r.os.jobs_open() > 0 {
            return Err(format!(
                "{} jobs never end: {}",
                r.os.jobs_open(),
                r.conn.tx.writes.story(&r.os)
            ));
        } else {
            if !r.os.snd_shut {
                r.shutdown();
            }
            r.close_con_rpl();
            r.peer_close();
        }
    }
    r.try_check()?;
    if r.os.ended.len() != jobs.len() || jobs.len() + declined != next - 1 {
        return Err(format!("{} jobs, {} ends", jobs.len(), r.os.ended.len()));
    }
    if r.finals != 1 {
        return Err("no final CPL".into());
    }
    if r.os.counter(Counter::BadCpl) != 0 {
        return Err("bad CPL".into());
    }
    r.nothing_left();
    Ok(())
}

fn follow(r: &mut Rig, o: crate::conn::Outcome) -> Result<(), String> {
    r.follow(o);
    r.try_check()
}
