//! The adapter stops and restarts below its connections (`dev.t5nex.0.sim.stopped`).

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{Errno, Proc, ProcConfig, Prot, addr};
use ukern::sched::SBT_1S;

const PORT: u16 = 7;
const LEN: usize = 256 << 10;

fn listen(p: &Proc) -> i32 {
    let l = p.socket().unwrap();
    p.bind(l, addr(SERVER_IP, PORT)).unwrap();
    p.listen(l, 8).unwrap();
    l
}

fn connect(p: &Proc) -> i32 {
    let s = p.socket().unwrap();
    p.connect(s, addr(SERVER_IP, PORT)).unwrap();
    s
}

/// Nothing of a connection is left in toehold or on the adapter.
fn nothing_left(bed: &Bed) {
    for gauge in ["toepcbs", "wired_pages", "ppods_used"] {
        assert_eq!(bed.stat(gauge), 0, "{gauge}");
    }
    assert_eq!(bed.sim_stat("l2t_size"), bed.sim_stat("l2t_free"));
    assert_eq!(bed.sim_stat("stats.wr_while_stopped"), 0);
}

/// A stream that is checked, over a new connection, which is offloaded at both ends.
fn transfer(bed: &Bed, seed: u64) {
    let server = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("new server"), move |p| {
            let l = listen(p);
            let (s, _) = p.accept(l).unwrap();
            assert!(p.is_offloaded(s).unwrap());
            let va = p.mmap(LEN, Prot::RW).unwrap();
            let mut at = 0;
            while at < LEN as u64 {
                let cb = p.aio_read(s, va, LEN).unwrap();
                let n = p.aio_wait(cb).unwrap();
                assert_ne!(n, 0);
                pattern::check(seed, at, &p.load_vec(va, n));
                at += n as u64;
            }
            p.close(s).unwrap();
            p.close(l).unwrap();
        });
    bed.k.run_for(SBT_1S / 10);
    let client = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("new client"), move |p| {
            let s = connect(p);
            assert!(p.is_offloaded(s).unwrap());
            let va = p.mmap(LEN, Prot::RW).unwrap();
            p.store(va, &pattern::bytes(seed, 0, LEN)).unwrap();
            let cb = p.aio_write(s, va, LEN).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(LEN));
            p.close(s).unwrap();
        });
    client.join();
    server.join();
}

/// Reads that are posted and queued: the first hears why, as of a reset, and none waits.
#[test]
fn reads_end() {
    let bed = Bed::up(400);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = listen(p);
        let (s, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        let va = p.mmap(4 * LEN, Prot::RW).unwrap();
        let jobs: Vec<_> = (0..4)
            .map(|i| p.aio_read(s, va + (i * LEN) as u64, LEN).unwrap())
            .collect();
        let got: Vec<_> = jobs.into_iter().map(|cb| p.aio_wait(cb)).collect();
        assert_eq!(got, [Err(Errno::ECONNABORTED), Ok(0), Ok(0), Ok(0)]);
        p.close(s).unwrap();
    });
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        p.sleep(Duration::from_millis(10));
        let s = connect(p);
        p.sleep(Duration::from_millis(100));
        assert_eq!(p.recv_bytes(s, 1), Err(Errno::ECONNABORTED));
        p.close(s).unwrap();
    });
    bed.k.run_for(SBT_1S);
    assert_ne!(bed.stat("ppods_used"), 0, "the reads are posted");
    bed.sim("stopped", 1);
    server.join();
    client.join();
    bed.k.run_for(SBT_1S);
    nothing_left(&bed);
    bed.sim("stopped", 0);
    transfer(&bed, 2);
    bed.down();
}

/// Writes whose pages the adapter was reading.
#[test]
fn writes_end() {
    let bed = Bed::up(401);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = listen(p);
        let (s, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        p.sleep(Duration::from_secs(3));
        p.close(s).unwrap();
    });
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        p.sleep(Duration::from_millis(10));
        let s = connect(p);
        let len = 16 << 20;
        let va = p.mmap(len, Prot::RW).unwrap();
        let jobs = [0, 1].map(|_| p.aio_write(s, va, len).unwrap());
        for cb in jobs {
            let r = p.aio_wait(cb);
            assert!(
                matches!(r, Ok(n) if n < len) || r == Err(Errno::ECONNABORTED),
                "{r:?}"
            );
        }
        p.close(s).unwrap();
    });
    bed.k.run_for(SBT_1S);
    assert_ne!(bed.stat("wired_pages"), 0);
    bed.sim("stopped", 1);
    client.join();
    server.join();
    bed.k.run_for(SBT_1S);
    nothing_left(&bed);
    bed.sim("stopped", 0);
    transfer(&bed, 3);
    bed.down();
}

/// A listener is there again after the restart; one that was closed meanwhile is not, and one
/// that was made meanwhile is.
#[test]
fn listeners_come_back() {
    let bed = Bed::up(402);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = listen(p);
        let other = p.socket().unwrap();
        p.bind(other, addr(SERVER_IP, 8)).unwrap();
        p.listen(other, 8).unwrap();
        p.sleep(Duration::from_secs(2));
        // Stopped.
        p.close(other).unwrap();
        let new = p.socket().unwrap();
        p.bind(new, addr(SERVER_IP, 9)).unwrap();
        p.listen(new, 8).unwrap();
        for l in [l, new] {
            let (s, _) = p.accept(l).unwrap();
            assert!(p.is_offloaded(s).unwrap());
            assert_eq!(p.recv_exact(s, 5).unwrap(), b"hello");
            p.close(s).unwrap();
        }
    });
    bed.k.run_for(SBT_1S);
    bed.sim("stopped", 1);
    bed.k.run_for(SBT_1S * 3);
    bed.sim("stopped", 0);
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        for port in [PORT, 9] {
            let s = p.socket().unwrap();
            p.connect(s, addr(SERVER_IP, port)).unwrap();
            assert!(p.is_offloaded(s).unwrap());
            p.send_all(s, b"hello").unwrap();
            assert!(p.recv_bytes(s, 1).unwrap().is_empty());
            p.close(s).unwrap();
        }
    });
    client.join();
    server.join();
    bed.down();
}

/// Opens that wait for a next hop, and for a peer: the kernel's own stack has them, and no
/// request of theirs goes out after the restart.
#[test]
fn opens_are_the_kernels() {
    let bed = Bed::up(403);
    let ends = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        let s = p.socket().unwrap();
        let e = p.connect(s, addr("10.0.0.77", PORT));
        assert!(e.is_err(), "{e:?}");
        p.close(s).unwrap();
    });
    bed.k.run_for(SBT_1S / 2);
    assert_eq!(bed.stat("toepcbs"), 1);
    bed.sim("stopped", 1);
    bed.k.run_for(SBT_1S / 2);
    nothing_left(&bed);
    bed.sim("stopped", 0);
    ends.join();
    transfer(&bed, 4);
    bed.down();
}

/// Stopped for good: both modules unload, and what was open is closed.
#[test]
fn unload_while_stopped() {
    let bed = Bed::up(404);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("server"), |p| {
        let l = listen(p);
        let (s, _) = p.accept(l).unwrap();
        assert_eq!(p.recv_bytes(s, 1), Err(Errno::ECONNABORTED));
    });
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        p.sleep(Duration::from_millis(10));
        let s = connect(p);
        assert_eq!(p.recv_bytes(s, 1), Err(Errno::ECONNABORTED));
    });
    bed.k.run_for(SBT_1S);
    bed.sim("stopped", 1);
    bed.sim("stopped", 1);
    client.join();
    server.join();
    bed.k.run_for(SBT_1S);
    nothing_left(&bed);
    bed.down();
}

/// Again and again, in the middle of whatever goes on: both ends read and write, and open anew
/// when they are cut off.
#[test]
fn a_hundred_times_under_load() {
    let bed = Bed::up(405);
    let rounds = 100;
    let server = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("server"), move |p| {
            let l = listen(p);
            let va = p.mmap(LEN, Prot::RW).unwrap();
            loop {
                let (s, _) = p.accept(l).unwrap();
                let mut at = 0;
                loop {
                    let jobs = [0, 1].map(|_| p.aio_read(s, va, LEN));
                    let got = jobs.map(|cb| p.aio_wait(cb?));
                    at += got.iter().flatten().sum::<usize>();
                    if got.iter().any(|r| r.is_err() || *r == Ok(0)) {
                        break;
                    }
                }
                p.close(s).unwrap();
                if at == 4 {
                    // The last word.
                    break;
                }
            }
        });
    let client = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("client"), move |p| {
            let va = p.mmap(LEN, Prot::RW).unwrap();
            let mut cut = 0;
            while cut < rounds {
                let s = p.socket().unwrap();
                // Opened while the adapter is stopped it is the kernel's, and outlives that.
                if p.connect(s, addr(SERVER_IP, PORT)).is_err() || !p.is_offloaded(s).unwrap() {
                    p.close(s).unwrap();
                    p.sleep(Duration::from_millis(20));
                    continue;
                }
                loop {
                    let jobs = [0, 1].map(|_| p.aio_write(s, va, LEN));
                    if jobs.map(|cb| p.aio_wait(cb?)) != [Ok(LEN), Ok(LEN)] {
                        break;
                    }
                }
                cut += 1;
                p.close(s).unwrap();
            }
            p.sleep(Duration::from_secs(5));
            let s = connect(p);
            p.send_all(s, b"over").unwrap();
            p.close(s).unwrap();
        });
    let mut stops = 0;
    while !client.is_done() && stops < 3 * rounds {
        bed.k.run_for(SBT_1S / 1000 * (20 + stops * 7 % 61));
        bed.sim("stopped", 1);
        bed.k.run_for(SBT_1S / 1000 * (stops * 5 % 11));
        bed.sim("stopped", 0);
        stops += 1;
        if stops == rounds + 20 {
            break;
        }
    }
    client.join();
    server.join();
    bed.settle();
    nothing_left(&bed);
    transfer(&bed, 5);
    bed.down();
}
