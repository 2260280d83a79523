//! One program's trouble delays no other's, and no reader waits for a push that nobody sends.

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{AioCancel, Errno, Proc, ProcConfig, Prot, SockOpt, addr};

use crate::help::{BIG, MS, SOON, drain_late, ends, in_progress, on, quiet, run, writes};

/// A program cancels a write that is in flight, to a peer that does not read, so that only time
/// shows what becomes of it. Another's shortage is over after some milliseconds all the same.
#[test]
fn a_shortage_is_looked_at_in_its_own_time() {
    let bed = Bed::up(700);
    let k = bed.k.api();
    let wr_fail = move |n: &str| {
        let r = k.sysctl_set("dev.t5nex.0.sim.wr_fail_nth", n);
        assert!(r.is_ok());
    };
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = p.socket().unwrap();
        p.setsockopt(l, SockOpt::RcvBuf(64 << 10)).unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 4).unwrap();
        let (deaf, _) = p.accept(l).unwrap();
        let (s, _) = p.accept(l).unwrap();
        while !p.recv_bytes(s, 65_536).unwrap().is_empty() {}
        while !p.recv_bytes(deaf, 65_536).unwrap().is_empty() {}
    });
    bed.k.run_until_idle();
    let troubled = bed.k.spawn(ProcConfig::vnet(CLIENT).name("troubled"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        let jobs = writes(p, s, 700, &[200_000; 4]);
        p.sleep(SOON);
        assert!(in_progress(p, jobs[0]));
        let sent = p.aio_cancel(s, Some(jobs[0]));
        assert_eq!(sent, Ok(AioCancel::NotCanceled));
        // Until the other program is done.
        p.sleep(MS * 9000);
        p.close(s).unwrap();
        ends(p, jobs)
    });
    bed.k.run_for(ukern::sched::SBT_1S);
    let other = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("other"), move |p| {
            let s = p.socket().unwrap();
            p.connect(s, addr(SERVER_IP, 7)).unwrap();
            let va = p.alloc(&pattern::bytes(701, 0, 10_000));
            let mut worst = 0;
            for round in 0..16 {
                p.sleep(MS * 37);
                wr_fail("1");
                let cb = p.aio_write(s, va, 10_000).unwrap();
                p.sleep(MS * (1 + round % 3));
                wr_fail("0");
                let mut waited = 0;
                while in_progress(p, cb) {
                    p.sleep(MS);
                    waited += 1;
                }
                assert_eq!(p.aio_wait(cb), Ok(10_000));
                worst = worst.max(waited);
            }
            p.close(s).unwrap();
            worst
        });
    let worst = other.join();
    assert!(worst <= 10, "{worst} ms after the shortage");
    let ends = troubled.join();
    assert_eq!(ends, [Ok(200_000); 4]);
    server.join();
    quiet(bed);
}

/// The last write cannot be sent; the peer's read, which has room left, ends with what came.
#[test]
fn a_write_that_fails_leaves_a_push_behind() {
    const N: usize = 6 << 20;
    let (ends, ()) = run(
        710,
        |p, s| {
            let va = p.alloc(&pattern::bytes(710, 0, N));
            let nowhere = p.mmap(8192, Prot::RW).unwrap();
            let first = p.aio_write(s, va, N).unwrap();
            p.munmap(nowhere, 8192).unwrap();
            let second = p.aio_write(s, nowhere, 5000).unwrap();
            let r = (p.aio_wait(first), p.aio_wait(second));
            // The connection stays open until the peer has all.
            assert_eq!(p.recv_exact(s, 1).unwrap(), b"!");
            p.close(s).unwrap();
            r
        },
        |p, s| {
            // No multiple of it is N.
            const ROOM: usize = (1 << 20) + 12_345;
            let va = p.mmap(ROOM, Prot::RW).unwrap();
            let mut at = 0;
            while at < N {
                let cb = p.aio_read(s, va, ROOM).unwrap();
                let n = p.aio_wait(cb).unwrap();
                assert!(n > 0);
                pattern::check(710, at as u64, &p.load_vec(va, n));
                at += n;
            }
            p.send_all(s, b"!").unwrap();
        },
    );
    assert_eq!(ends, (Ok(N), Err(Errno::EFAULT)));
}

/// A write that is copied is copied by the thread that submits it: nobody is woken for it. Once in a
/// while what it waited for comes when that thread has gone on, and a worker goes on with it.
#[test]
fn copied_writes_wake_no_worker() {
    let bed = Bed::up(720);
    bed.set("tx_zcopy_min", 8192);
    let k = bed.k.api();
    let (tasks, got) = on(
        &bed,
        move |p, s| {
            let va = p.alloc(&pattern::bytes(720, 0, 4096));
            let before = k.soaio_tasks();
            for _ in 0..200 {
                let cb = p.aio_write(s, va, 4096).unwrap();
                assert_eq!(p.aio_wait(cb), Ok(4096));
            }
            let tasks = k.soaio_tasks() - before;
            p.close(s).unwrap();
            tasks
        },
        count,
    );
    assert_eq!(got, 200 * 4096);
    assert!(tasks <= 2, "{tasks} workers woken for 200 copied writes");
    quiet(bed);
}

/// Reads to the end; returns how much.
fn count(p: &Proc, s: i32) -> usize {
    let mut n = 0;
    loop {
        let b = p.recv_bytes(s, 65_536).unwrap();
        if b.is_empty() {
            return n;
        }
        n += b.len();
    }
}

/// To a peer that does not read: each non-blocking write that finds room has ended when it was
/// submitted, as in the generic path.
#[test]
fn nonblocking_writes_end_when_they_are_submitted() {
    let ((sent, shorts), got) = run(
        730,
        |p, s| {
            p.set_nonblock(s, true).unwrap();
            let va = p.alloc(&pattern::bytes(730, 0, BIG));
            let (mut at, mut shorts) = (0, 0);
            loop {
                let cb = p.aio_write(s, va + at as u64, 300_000).unwrap();
                if in_progress(p, cb) {
                    // No room at all.
                    assert_eq!(p.aio_cancel(s, Some(cb)), Ok(AioCancel::Canceled));
                    assert_eq!(p.aio_wait(cb), Err(Errno::ECANCELED));
                    break;
                }
                let n = p.aio_wait(cb).unwrap();
                assert!(n > 0);
                shorts += usize::from(n < 300_000);
                at += n;
            }
            p.close(s).unwrap();
            (at, shorts)
        },
        drain_late(730),
    );
    assert!(shorts > 0);
    assert_eq!(sent as u64, got);
}
