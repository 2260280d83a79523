//! Shortages: each allocation of a short transfer fails once; work requests, page pods and wired
//! pages are refused. Errors are clean, the stream is whole or ends, nothing is left behind, and
//! what was refused is asked for again.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::fault::Plan;
use ukern::proc::{Errno, Poll, Proc, ProcConfig, Prot, SockOpt, Sys, addr};

use crate::help::{SOON, check, drain, go, on, quiet, ready};

const TOTAL: usize = 60_000;
const LEN: usize = 20_000;

/// What may be heard when the kernel is short of something.
const CLEAN: [Errno; 9] = [
    Errno::EPIPE,
    Errno::ENOBUFS,
    Errno::ENOMEM,
    Errno::EAGAIN,
    Errno::ECONNREFUSED,
    Errno::ECONNRESET,
    Errno::ECONNABORTED,
    Errno::ETIMEDOUT,
    Errno::EFAULT,
];

/// Accepts one connection, if it comes, and reads it by aio to its end: bytes, and how it ended.
fn server(p: &Proc, seed: u64) -> Sys<(u64, Sys<()>)> {
    let l = p.socket()?;
    p.setsockopt(l, SockOpt::ReuseAddr(true))?;
    p.bind(l, addr(SERVER_IP, 7))?;
    p.listen(l, 4)?;
    if !p
        .poll(l, Poll::IN, Some(Duration::from_secs(200)))?
        .readable
    {
        return Err(Errno::ETIMEDOUT);
    }
    let (s, _) = p.accept(l)?;
    p.close(l)?;
    let va = p.mmap(3 * 32_768, Prot::RW)?;
    let mut at = 0;
    let submit = |i: u64| {
        Ok((
            va + i % 3 * 32_768,
            p.aio_read(s, va + i % 3 * 32_768, LEN)?,
        ))
    };
    let mut busy = std::collections::VecDeque::new();
    for i in 0..2 {
        busy.push_back(submit(i)?);
    }
    let mut i = 2;
    let mut end = Ok(());
    while let Some((va, cb)) = busy.pop_front() {
        match p.aio_wait(cb) {
            Ok(0) => {}
            Ok(n) => {
                assert!(end.is_ok(), "bytes behind an error");
                at = check(p, va, n, seed, at);
                busy.push_back(submit(i)?);
                i += 1;
            }
            // The job failed, not the stream.
            Err(Errno::EFAULT) => {
                busy.push_back(submit(i)?);
                i += 1;
            }
            Err(e) => end = Err(e),
        }
    }
    p.close(s)?;
    Ok((at, end))
}

/// Sends the stream by aio; how many bytes were taken.
fn client(p: &Proc, seed: u64) -> Sys<usize> {
    let s = p.socket()?;
    p.connect(s, addr(SERVER_IP, 7))?;
    let va = p.alloc(&pattern::bytes(seed, 0, TOTAL));
    let mut done = 0;
    while done < TOTAL {
        let n = LEN.min(TOTAL - done);
        let cb = p.aio_write(s, va + done as u64, n)?;
        match p.aio_wait(cb) {
            Ok(n) => done += n,
            Err(Errno::EFAULT) => {}
            Err(e) => {
                p.close(s)?;
                return Err(e);
            }
        }
    }
    p.close(s)?;
    Ok(done)
}

/// What the card is up to beside.
type Weather = fn(&Bed);

const FAIR: Weather = |_| ();
/// Much is copied, moved and sent again.
const FOUL: Weather = |bed| {
    bed.sim("ddp_off", 300_000);
    bed.sim("loss", 20_000);
    bed.sim("cpl_jitter", 5000);
};

/// A transfer, and what it must have been: whole, or ended by a clean error.
fn transfer(bed: &Bed, seed: u64, what: &str) -> bool {
    let s = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("server"), move |p| {
            server(p, seed)
        });
    bed.k.run_until_idle();
    let c = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("client"), move |p| {
            client(p, seed)
        });
    let (c, s) = (c.join(), s.join());
    let what = format!("{what}: client {c:?}, server {s:?}");
    let whole = matches!((&c, &s), (Ok(_), Ok((_, Ok(())))));
    if let (Ok(n), Ok((at, Ok(())))) = (&c, &s) {
        assert_eq!((*n, *at), (TOTAL, TOTAL as u64), "{what}");
    }
    for e in [c.err(), s.err(), s.ok().and_then(|r| r.1.err())]
        .into_iter()
        .flatten()
    {
        assert!(CLEAN.contains(&e), "{what}");
    }
    whole
}

/// Nothing of it is left.
fn swept(bed: &Bed, what: &str) {
    bed.settle();
    for gauge in ["wired_pages", "ppods_used", "toepcbs"] {
        assert_eq!(bed.stat(gauge), 0, "{gauge} after {what}");
    }
    assert_eq!(bed.k.wired_pages(), 0, "wired after {what}");
}

/// Every call of the service fails in turn. How many there were.
fn each(seed: u64, point: &'static str, weather: Weather) -> u64 {
    let mut bed = Bed::up(seed);
    weather(&bed);
    for nth in 1.. {
        let what = format!("{point} no. {nth}");
        bed.k.fail(point, Plan::Nth(nth));
        let whole = transfer(&bed, seed, &what);
        let hit = bed.k.fail_count(point).1 > 0;
        bed.k.fail(point, Plan::Never);
        assert!(whole || hit, "nothing failed, but the transfer");
        swept(&bed, &what);
        if !hit {
            bed.down();
            return nth - 1;
        }
        if nth.is_multiple_of(25) {
            // What was left by now is found with its cause at hand.
            bed.down();
            bed = Bed::up(seed);
            weather(&bed);
        }
    }
    unreachable!("it ends when no call is left to fail")
}

#[test]
fn each_malloc_fails_once() {
    assert!(each(100, "malloc", FAIR) > 20);
    assert!(each(101, "malloc", FOUL) > 20);
}

#[test]
fn each_mbuf_fails_once() {
    assert!(each(200, "mbuf", FAIR) > 4);
    assert!(each(201, "mbuf", FOUL) > 4);
}

#[test]
fn each_page_fault_fails_once() {
    assert!(each(300, "vm_fault", FAIR) > 4);
}

/// Everything fails now and then. Errors may end a connection; no byte is wrong, nothing is left.
#[test]
fn everything_fails_now_and_then() {
    let mut whole = 0;
    for seed in 400..424 {
        let bed = Bed::up(seed);
        if seed % 2 == 0 {
            FOUL(&bed);
        }
        for (point, n) in [("malloc", 15), ("mbuf", 15), ("vm_fault", 9), ("uma", 30)] {
            bed.k.fail(point, Plan::OneIn(n + seed as u32 % 5));
        }
        bed.sim("wr_fail_nth", 5 + seed as i64 % 9);
        whole += u64::from(transfer(&bed, seed, &format!("seed {seed}")));
        for point in ["malloc", "mbuf", "vm_fault", "uma"] {
            bed.k.fail(point, Plan::Never);
        }
        bed.sim("wr_fail_nth", 0);
        swept(&bed, &format!("seed {seed}"));
        bed.down();
    }
    assert!(whole > 4, "only {whole} transfers came through");
}

/// Every second, third, ... work request cannot be had: whatever is sent is sent again.
#[test]
fn work_requests_fail_all_the_time() {
    for n in 2..14 {
        for (seed, weather) in [(500 + n, FAIR), (520 + n, FOUL)] {
            let bed = Bed::up(seed);
            weather(&bed);
            bed.sim("wr_fail_nth", n as i64);
            // The listener is refused at times, and then the host listens alone.
            let whole = (0..4).any(|_| transfer(&bed, seed, &format!("every {n}th")));
            assert!(
                whole,
                "every {n}th work request failed, and so did every transfer"
            );
            bed.sim("wr_fail_nth", 0);
            swept(&bed, &format!("every {n}th"));
            bed.down();
        }
    }
}

/// One connection has taken all the wired pages it may; another still reads.
#[test]
fn the_budget_of_wired_pages_is_used_up() {
    const HELD: usize = 2049 * 4096;
    let bed = Bed::up(600);
    bed.set("max_wired", 2049);
    bed.set("max_wired_proc", 2049);
    let hog = bed.k.spawn(ProcConfig::vnet(SERVER).name("hog"), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 8)).unwrap();
        p.listen(l, 4).unwrap();
        let (s, _) = p.accept(l).unwrap();
        let va = p.mmap(HELD, Prot::RW).unwrap();
        let cb = p.aio_read(s, va, HELD).unwrap();
        let cb2 = p.aio_read(s, va, HELD).unwrap();
        let n = p.aio_wait(cb).unwrap() + p.aio_wait(cb2).unwrap();
        assert_eq!(n, 5);
    });
    bed.k.run_until_idle();
    let friend = bed.k.spawn(ProcConfig::vnet(CLIENT).name("friend"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 8)).unwrap();
        p.sleep(Duration::from_secs(5));
        p.send_all(s, b"hello").unwrap();
        p.close(s).unwrap();
    });
    on(
        &bed,
        |p, s| {
            p.sleep(SOON);
            let va = p.mmap(1 << 20, Prot::RW).unwrap();
            go(p, s);
            let begin = p.now();
            let mut at = 0;
            while at < 500_000 {
                let cb = p.aio_read(s, va, 100_000).unwrap();
                let n = p.aio_wait(cb).unwrap();
                at = check(p, va, n, 600, at);
            }
            assert!(
                p.now() - begin < Duration::from_secs(4),
                "it waited for the other"
            );
            assert_eq!(drain(p, s, 600, at), 1_000_000);
        },
        |p, s| {
            ready(p, s);
            p.send_all(s, &pattern::bytes(600, 0, 1_000_000)).unwrap();
            p.close(s).unwrap();
        },
    );
    friend.join();
    hog.join();
    quiet(bed);
}
