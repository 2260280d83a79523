//! Resets, exits, cancels, shortages.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{AioCancel, Child, Errno, Proc, ProcConfig, Prot, Shut, SockOpt, addr};

const MS: Duration = Duration::from_millis(1);

/// A server that accepts one connection and hands it to `f`.
fn server<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    let child = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 4).unwrap();
        let (s, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        f(p, s)
    });
    bed.k.run_until_idle();
    child
}

/// A client connected to it.
fn client<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        assert!(p.is_offloaded(s).unwrap());
        f(p, s)
    })
}

fn reset(p: &Proc, fd: i32) {
    p.setsockopt(fd, SockOpt::Linger(Some(0))).unwrap();
    p.close(fd).unwrap();
}

#[test]
fn connection_refused() {
    let bed = Bed::up(200);
    let c = bed.k.spawn(ProcConfig::vnet(CLIENT), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 9))
    });
    assert_eq!(c.join(), Err(Errno::ECONNREFUSED));
    bed.down();
}

#[test]
fn peer_reset_in_the_middle_of_reads() {
    let bed = Bed::up(201);
    let s = server(&bed, |p, s| {
        let a = p.mmap(1 << 20, Prot::RW).unwrap();
        let b = p.mmap(1 << 20, Prot::RW).unwrap();
        let mut got = 0;
        let mut jobs = vec![
            p.aio_read(s, a, 1 << 20).unwrap(),
            p.aio_read(s, b, 1 << 20).unwrap(),
        ];
        let mut errors = Vec::new();
        while let Some(j) = jobs.pop() {
            match p.aio_wait(j) {
                Ok(n) => got += n,
                Err(e) => errors.push(e),
            }
        }
        (got, errors)
    });
    let c = client(&bed, |p, s| {
        p.send_all(s, &pattern::bytes(201, 0, 300_000)).unwrap();
        p.sleep(50 * MS);
        reset(p, s);
    });
    c.join();
    let (got, errors) = s.join();
    assert!(got <= 300_000);
    // The reset is seen once as an error; a job with bytes ends short.
    assert!(errors.iter().all(|e| *e == Errno::ECONNRESET), "{errors:?}");
    assert!(got > 0 || !errors.is_empty());
    bed.down();
}

#[test]
fn peer_reset_in_the_middle_of_writes() {
    let bed = Bed::up(202);
    let s = server(&bed, |p, s| {
        p.sleep(20 * MS);
        reset(p, s);
    });
    let c = client(&bed, |p, s| {
        let va = p.alloc(&pattern::bytes(202, 0, 16 << 20));
        // More than can be outstanding.
        let jobs: Vec<_> = (0..16)
            .map(|i| p.aio_write(s, va + (i << 20), 1 << 20).unwrap())
            .collect();
        jobs.into_iter().map(|j| p.aio_wait(j)).collect::<Vec<_>>()
    });
    s.join();
    let ends = c.join();
    assert!(
        ends.iter().any(Result::is_err),
        "no write heard of the reset: {ends:?}"
    );
    for e in ends.iter().filter_map(|r| r.as_ref().err()) {
        assert!(
            [Errno::ECONNRESET, Errno::EPIPE, Errno::ENOTCONN].contains(e),
            "{e:?}"
        );
    }
    bed.down();
}

#[test]
fn end_of_file_for_reads_that_were_never_posted() {
    let bed = Bed::up(203);
    let s = server(&bed, |p, s| {
        let va = p.mmap(4096, Prot::RW).unwrap();
        let j = p.aio_read(s, va, 4096).unwrap();
        p.aio_wait(j)
    });
    client(&bed, |p, s| p.close(s).unwrap()).join();
    assert_eq!(s.join(), Ok(0));
    bed.down();
}

#[test]
fn reader_that_exits_with_reads_outstanding() {
    let bed = Bed::up(204);
    let s = server(&bed, |p, s| {
        for _ in 0..4 {
            let va = p.mmap(1 << 20, Prot::RW).unwrap();
            let _ = p.aio_read(s, va, 1 << 20).unwrap();
        }
        p.sleep(10 * MS);
        p.exit(3);
    });
    let c = client(&bed, |p, s| {
        let _ = p.send_all(s, &pattern::bytes(204, 0, 100_000));
        p.sleep(100 * MS);
    });
    c.join();
    let _: ukern::proc::Exit<()> = s.wait();
    bed.settle();
    assert_eq!(bed.k.wired_pages(), 0);
    bed.down();
}

#[test]
fn writer_that_exits_with_writes_outstanding() {
    let bed = Bed::up(205);
    let s = server(&bed, |p, s| {
        p.sleep(100 * MS);
        let mut n = 0;
        while let Ok(b) = p.recv_bytes(s, 65536) {
            if b.is_empty() {
                break;
            }
            pattern::check(205, n, &b);
            n += b.len() as u64;
        }
    });
    let c = client(&bed, |p, s| {
        let va = p.alloc(&pattern::bytes(205, 0, 4 << 20));
        for i in 0..4 {
            let _ = p.aio_write(s, va + (i << 20), 1 << 20).unwrap();
        }
        p.sleep(10 * MS);
        p.exit(0);
    });
    let _: ukern::proc::Exit<()> = c.wait();
    s.join();
    bed.settle();
    assert_eq!(bed.k.wired_pages(), 0);
    bed.down();
}

#[test]
fn cancel_of_an_idle_read_loses_nothing() {
    let bed = Bed::up(206);
    let s = server(&bed, |p, s| {
        let va = p.mmap(8192, Prot::RW).unwrap();
        let j = p.aio_read(s, va, 8192).unwrap();
        p.sleep(5 * MS);
        let how = p.aio_cancel(s, Some(j)).unwrap();
        let r = p.aio_wait(j);
        (how, r, p.recv_exact(s, 5000).unwrap())
    });
    let c = client(&bed, |p, s| {
        p.sleep(50 * MS);
        p.send_all(s, &pattern::bytes(206, 0, 5000)).unwrap();
        p.sleep(50 * MS);
    });
    c.join();
    let (_, r, got) = s.join();
    assert_eq!(r, Err(Errno::ECANCELED));
    pattern::check(206, 0, &got);
    bed.down();
}

#[test]
fn cancel_of_posted_reads_tells_the_truth() {
    for seed in 210..230 {
        let bed = Bed::up(seed);
        bed.sim("invalidate_delay", 200_000);
        let s = server(&bed, move |p, s| {
            let buf = 100_000;
            let (a, b) = (
                p.mmap(buf, Prot::RW).unwrap(),
                p.mmap(buf, Prot::RW).unwrap(),
            );
            let mut at = 0u64;
            let mut cancels = 0;
            loop {
                let ja = p.aio_read(s, a, buf).unwrap();
                let jb = p.aio_read(s, b, buf).unwrap();
                p.sleep(Duration::from_micros(seed * 13 % 170));
                if p.aio_cancel(s, None).unwrap() == AioCancel::Canceled {
                    cancels += 1;
                }
                let mut end = false;
                for (va, j) in [(a, ja), (b, jb)] {
                    match p.aio_wait(j) {
                        Ok(0) => end = true,
                        Ok(n) => {
                            assert!(!end);
                            pattern::check(seed, at, &p.load_vec(va, n));
                            at += n as u64;
                        }
                        Err(e) => assert_eq!(e, Errno::ECANCELED),
                    }
                }
                if end {
                    return (at, cancels);
                }
            }
        });
        let c = client(&bed, move |p, s| {
            p.send_all(s, &pattern::bytes(seed, 0, 2_000_000)).unwrap();
            p.close(s).unwrap();
        });
        c.join();
        let (n, _) = s.join();
        assert_eq!(n, 2_000_000, "seed {seed}");
        bed.down();
    }
}

#[test]
fn cancel_of_writes_tells_the_truth() {
    for seed in 230..240 {
        let bed = Bed::up(seed);
        let s = server(&bed, move |p, s| {
            p.sleep(20 * MS);
            let mut n = 0;
            loop {
                let b = p.recv_bytes(s, 65536).unwrap();
                if b.is_empty() {
                    return n;
                }
                pattern::check(seed, n, &b);
                n += b.len() as u64;
            }
        });
        let c = client(&bed, move |p, s| {
            let va = p.alloc(&pattern::bytes(seed, 0, 8 << 20));
            // The second is queued behind the first, and cancelled.
            let first = p.aio_write(s, va, 4 << 20).unwrap();
            let second = p.aio_write(s, va + (4 << 20), 4 << 20).unwrap();
            p.sleep(Duration::from_micros(seed * 97 % 3000));
            let _ = p.aio_cancel(s, Some(second)).unwrap();
            let mut sent = 0;
            let r2 = p.aio_wait(second);
            match p.aio_wait(first) {
                Ok(n) => sent += n,
                Err(e) => panic!("first: {e:?}"),
            }
            match r2 {
                Ok(n) => sent += n,
                Err(e) => assert_eq!(e, Errno::ECANCELED),
            }
            p.close(s).unwrap();
            sent as u64
        });
        let sent = c.join();
        assert_eq!(s.join(), sent, "seed {seed}");
        bed.down();
    }
}

#[test]
fn close_with_reads_outstanding_ends_them() {
    let bed = Bed::up(240);
    let s = server(&bed, |p, s| {
        let va = p.mmap(65536, Prot::RW).unwrap();
        let j = p.aio_read(s, va, 65536).unwrap();
        p.sleep(MS);
        p.aio_cancel(s, None).unwrap();
        p.close(s).unwrap();
        p.aio_wait(j)
    });
    client(&bed, |p, s| {
        p.sleep(20 * MS);
        p.close(s).unwrap();
    })
    .join();
    assert_eq!(s.join(), Err(Errno::ECANCELED));
    bed.down();
}

#[test]
fn half_close_still_receives() {
    let bed = Bed::up(241);
    let s = server(&bed, |p, s| {
        let got = p.recv_exact(s, 100_000).unwrap();
        assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        p.send_all(s, &got).unwrap();
        p.close(s).unwrap();
    });
    let c = client(&bed, |p, s| {
        p.send_all(s, &pattern::bytes(241, 0, 100_000)).unwrap();
        p.shutdown(s, Shut::Wr).unwrap();
        let got = p.recv_exact(s, 100_000).unwrap();
        pattern::check(241, 0, &got);
        p.recv_bytes(s, 1).unwrap()
    });
    assert_eq!(c.join(), b"");
    s.join();
    bed.down();
}

#[test]
fn reads_into_memory_that_cannot_be_written() {
    let bed = Bed::up(242);
    let s = server(&bed, |p, s| {
        let ro = p.mmap(4096, Prot::R).unwrap();
        let j = p.aio_read(s, ro, 4096).unwrap();
        let bad = p.aio_wait(j);
        let none = p.aio_read(s, 0x1000, 4096).unwrap();
        let none = p.aio_wait(none);
        (bad, none, p.recv_exact(s, 100).unwrap())
    });
    let c = client(&bed, |p, s| {
        p.send_all(s, &pattern::bytes(242, 0, 100)).unwrap();
        p.sleep(50 * MS);
    });
    c.join();
    let (bad, none, got) = s.join();
    assert_eq!(bad, Err(Errno::EFAULT));
    assert_eq!(none, Err(Errno::EFAULT));
    pattern::check(242, 0, &got);
    bed.down();
}

#[test]
fn writes_from_read_only_memory_work() {
    let bed = Bed::up(243);
    let s = server(&bed, |p, s| p.recv_exact(s, 50_000).unwrap());
    let c = client(&bed, |p, s| {
        let va = p.alloc(&pattern::bytes(243, 0, 50_000));
        p.mprotect(va, 53_248, Prot::R).unwrap();
        let j = p.aio_write(s, va, 50_000).unwrap();
        p.aio_wait(j)
    });
    assert_eq!(c.join(), Ok(50_000));
    pattern::check(243, 0, &s.join());
    assert!(bed.stat("tx_aio_octets") == 50_000);
    bed.down();
}

#[test]
fn plain_and_aio_mixed_keep_the_stream_in_order() {
    let bed = Bed::up(244);
    let s = server(&bed, |p, s| {
        let va = p.mmap(65536, Prot::RW).unwrap();
        let mut at = 0;
        for i in 0.. {
            let got = if i % 2 == 0 {
                p.recv_bytes(s, 10_000).unwrap()
            } else {
                let j = p.aio_read(s, va, 30_000).unwrap();
                let n = p.aio_wait(j).unwrap();
                p.load_vec(va, n)
            };
            if got.is_empty() {
                return at;
            }
            pattern::check(244, at, &got);
            at += got.len() as u64;
        }
        unreachable!()
    });
    let c = client(&bed, |p, s| {
        let data = pattern::bytes(244, 0, 1_000_000);
        let va = p.alloc(&data);
        for (i, off) in (0..1_000_000).step_by(50_000).enumerate() {
            if i % 2 == 0 {
                p.send_all(s, &data[off..off + 50_000]).unwrap();
            } else {
                let j = p.aio_write(s, va + off as u64, 50_000).unwrap();
                assert_eq!(p.aio_wait(j), Ok(50_000));
            }
        }
        p.close(s).unwrap();
    });
    c.join();
    assert_eq!(s.join(), 1_000_000);
    bed.down();
}

#[test]
fn sixty_four_connections_at_once() {
    let bed = Bed::up(245);
    const N: u64 = 64;
    let s = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 128).unwrap();
        let fds: Vec<i32> = (0..N).map(|_| p.accept(l).unwrap().0).collect();
        let jobs: Vec<_> = fds
            .iter()
            .map(|s| {
                let va = p.mmap(40_960, Prot::RW).unwrap();
                (*s, va, p.aio_read(*s, va, 40_960).unwrap())
            })
            .collect();
        let mut sum = 0;
        for (s, va, j) in jobs {
            let n = p.aio_wait(j).unwrap();
            let head = p.load_vec(va, n.min(1));
            let seed = 2450 + u64::from(head[0]);
            let mut got = p.load_vec(va, n);
            got.extend(p.recv_exact(s, 200_001 - n).unwrap());
            pattern::check(seed, 0, &got[1..]);
            sum += got.len();
            p.close(s).unwrap();
        }
        sum
    });
    bed.k.run_until_idle();
    let clients: Vec<_> = (0..N)
        .map(|i| {
            client(&bed, move |p, s| {
                let mut data = vec![i as u8];
                data.extend(pattern::bytes(2450 + i, 0, 200_000));
                let va = p.alloc(&data);
                let j = p.aio_write(s, va, data.len()).unwrap();
                assert_eq!(p.aio_wait(j), Ok(200_001));
                p.close(s).unwrap();
            })
        })
        .collect();
    for c in clients {
        c.join();
    }
    assert_eq!(s.join(), 64 * 200_001);
    bed.down();
}

#[test]
fn out_of_page_pods_falls_back_to_copying() {
    // More posted bytes than the adapter has page pods for: 16384 pods of four pages.
    const N: u64 = 24;
    const HAVE: usize = 18;
    const BUF: usize = 15 << 20;
    let bed = Bed::up(246);
    bed.set("max_wired", 200_000);
    bed.set("max_wired_proc", 200_000);
    let s = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 16).unwrap();
        let fds: Vec<i32> = (0..N).map(|_| p.accept(l).unwrap().0).collect();
        let mut jobs = vec![];
        for (i, s) in fds.iter().enumerate() {
            if i == HAVE {
                p.sleep(200 * MS);
            }
            let va = p.mmap(BUF, Prot::RW).unwrap();
            // Every second page first, so that no two neighbours are neighbours in memory.
            for from in [0, 4096] {
                for off in (from..BUF as u64).step_by(8192) {
                    p.store(va + off, &[1]).unwrap();
                }
            }
            jobs.push((va, p.aio_read(*s, va, BUF).unwrap()));
        }
        // Those that have no pods get their data first.
        p.sleep(200 * MS);
        for part in [&fds[HAVE..], &fds[..HAVE]] {
            for s in part {
                p.send_all(*s, b"!").unwrap();
            }
            p.sleep(500 * MS);
        }
        let mut at = vec![];
        for (va, j) in jobs {
            let n = p.aio_wait(j).unwrap();
            pattern::check(246, 0, &p.load_vec(va, n));
            at.push(n as u64);
        }
        for (s, at) in fds.iter().zip(at) {
            let rest = p.recv_exact(*s, 100_000 - at as usize).unwrap();
            pattern::check(246, at, &rest);
            assert_eq!(at as usize + rest.len(), 100_000);
        }
    });
    bed.k.run_until_idle();
    let clients: Vec<_> = (0..N)
        .map(|_| {
            client(&bed, |p, s| {
                p.recv_exact(s, 1).unwrap();
                p.send_all(s, &pattern::bytes(246, 0, 100_000)).unwrap();
                p.close(s).unwrap();
            })
        })
        .collect();
    for c in clients {
        c.join();
    }
    s.join();
    assert!(
        bed.stat("no_ppods") > 0,
        "the adapter never ran out of page pods"
    );
    assert!(
        bed.stat("rx_copied_no_ppods") > 0,
        "nothing was counted as copied for want of pods"
    );
    bed.settle();
    assert_eq!(bed.stat("ppods_used"), 0);
    bed.down();
}

#[test]
fn a_shortage_of_work_requests_ends_by_itself() {
    for seed in 250..256 {
        let bed = Bed::up(seed);
        bed.sim("wr_fail_nth", 7 + seed as i64 % 5);
        let s = server(&bed, move |p, s| {
            let va = p.mmap(65536, Prot::RW).unwrap();
            let mut at = 0;
            loop {
                let j = p.aio_read(s, va, 65536).unwrap();
                let n = p.aio_wait(j).unwrap();
                if n == 0 {
                    return at;
                }
                pattern::check(seed, at, &p.load_vec(va, n));
                at += n as u64;
            }
        });
        let c = client(&bed, move |p, s| {
            let va = p.alloc(&pattern::bytes(seed, 0, 1 << 20));
            let j = p.aio_write(s, va, 1 << 20).unwrap();
            assert_eq!(p.aio_wait(j), Ok(1 << 20));
            p.close(s).unwrap();
        });
        c.join();
        assert_eq!(s.join(), 1 << 20, "seed {seed}");
        assert!(bed.stat("no_wr") > 0, "seed {seed}: nothing failed");
        bed.sim("wr_fail_nth", 0);
        bed.down();
    }
}
