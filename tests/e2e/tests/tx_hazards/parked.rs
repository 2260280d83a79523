//! Writes that wait for room when the connection ends (upstream hazard 4): each of them ends.

use ukern::proc::{Errno, Shut, SockOpt, Sys};

use crate::help::{
    BIG, LATER, SOON, drain, drain_late, ends as collect, in_progress, reset, run, writes,
};

const LENS: [usize; 3] = [BIG, 5000, 300_000];

fn failed(r: &Sys<usize>) -> bool {
    matches!(r, Err(Errno::ECONNRESET | Errno::EPIPE))
}

#[test]
fn reset_by_the_peer() {
    let (ends, ()) = run(
        200,
        |p, s| {
            let jobs = writes(p, s, 200, &LENS);
            p.sleep(SOON);
            assert!(jobs.iter().all(|cb| in_progress(p, *cb)));
            collect(p, jobs)
        },
        |p, s| {
            p.sleep(LATER);
            reset(p, s);
        },
    );
    assert!(ends[0].is_ok_and(|n| n > 0 && n < BIG), "{ends:?}");
    assert!(failed(&ends[1]) && failed(&ends[2]), "{ends:?}");
}

#[test]
fn timed_out() {
    // The peer's card is gone for good: retransmissions end it.
    let bed = toehold_e2e::bed::Bed::up(201);
    bed.sim("rto", 1_000_000);
    bed.sim("max_rexmt", 4);
    let k = bed.k.api();
    let (ends, _) = crate::help::on(
        &bed,
        move |p, s| {
            let jobs = writes(p, s, 201, &LENS);
            p.sleep(SOON);
            assert!(k.sysctl_set("dev.t5nex.0.sim.loss", "1000000").is_ok());
            let ends = collect(p, jobs);
            assert!(k.sysctl_set("dev.t5nex.0.sim.loss", "0").is_ok());
            ends
        },
        |p, s| {
            // It never hears of it.
            p.sleep(LATER * 50);
            reset(p, s);
        },
    );
    assert!(ends[0].is_ok_and(|n| n > 0 && n < BIG), "{ends:?}");
    assert!(ends[1].is_err() && ends[2].is_err(), "{ends:?}");
    crate::help::quiet(bed);
}

#[test]
fn shutdown_of_the_sending_side() {
    let ((ends, pipes), got) = run(
        202,
        |p, s| {
            let jobs = writes(p, s, 202, &LENS);
            p.sleep(SOON);
            p.shutdown(s, Shut::Wr).unwrap();
            let ends = collect(p, jobs);
            (ends, p.signals(ukern::proc::Signal::Pipe))
        },
        drain_late(202),
    );
    // What was queued is sent before the FIN.
    assert_eq!(ends[0].map(|n| n as u64), Ok(got));
    assert_eq!(ends[1..], [Err(Errno::EPIPE), Err(Errno::EPIPE)]);
    assert_eq!(pipes, 2);
}

#[test]
fn shutdown_with_so_nosigpipe() {
    let ((ends, pipes), _) = run(
        203,
        |p, s| {
            p.setsockopt(s, SockOpt::NoSigpipe(true)).unwrap();
            let jobs = writes(p, s, 203, &LENS);
            p.sleep(SOON);
            p.shutdown(s, Shut::Wr).unwrap();
            let ends = collect(p, jobs);
            (ends, p.signals(ukern::proc::Signal::Pipe))
        },
        drain_late(203),
    );
    assert_eq!(ends[1..], [Err(Errno::EPIPE), Err(Errno::EPIPE)]);
    assert_eq!(pipes, 0);
}

#[test]
fn close_lets_them_finish() {
    // As the generic path does: a job holds its file.
    let (ends, got) = run(
        204,
        |p, s| {
            let jobs = writes(p, s, 204, &LENS);
            p.sleep(SOON);
            p.close(s).unwrap();
            collect(p, jobs)
        },
        drain_late(204),
    );
    assert_eq!(ends, LENS.map(Ok));
    assert_eq!(got, LENS.iter().sum::<usize>() as u64);
}

#[test]
fn half_close_by_the_peer_changes_nothing() {
    let (ends, got) = run(
        205,
        |p, s| {
            let jobs = writes(p, s, 205, &LENS);
            let ends = collect(p, jobs);
            p.close(s).unwrap();
            ends
        },
        |p, s| {
            p.shutdown(s, Shut::Wr).unwrap();
            p.sleep(LATER);
            drain(p, s, 205)
        },
    );
    assert_eq!(ends, LENS.map(Ok));
    assert_eq!(got, LENS.iter().sum::<usize>() as u64);
}

#[test]
fn the_reset_comes_at_any_time() {
    for seed in 210..240 {
        let (ends, got) = run(
            seed,
            move |p, s| {
                let jobs = writes(p, s, seed, &LENS);
                collect(p, jobs)
            },
            move |p, s| {
                p.sleep(SOON / 400 * (seed as u32 - 210) * (seed as u32 - 210));
                let got = p.recv_bytes(s, 50_000).unwrap().len();
                reset(p, s);
                got
            },
        );
        let sent: usize = ends.iter().flatten().sum();
        assert!(sent >= got, "seed {seed}: {ends:?} but {got} came");
        for e in ends.iter().filter(|e| e.is_err()) {
            assert!(failed(e), "seed {seed}: {e:?}");
        }
    }
}
