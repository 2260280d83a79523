//! Budgets of wired pages: of the adapter, of a process, RLIMIT_MEMLOCK; and memory that runs
//! short. Reads that have no budget are copied.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{Proc, ProcConfig, Prot, addr};

use crate::help::{SOON, check, drain, go, on, peer, quiet, reader, ready, stat};

/// A sender of `n` bytes, when it is told to.
fn sender(seed: u64, n: usize) -> impl FnOnce(&Proc, i32) {
    move |p, s| {
        ready(p, s);
        p.send_all(s, &pattern::bytes(seed, 0, n)).unwrap();
        let _ = p.recv_bytes(s, 1);
        p.close(s).unwrap();
    }
}

/// Reads `total` bytes, `depth` jobs of `len` at a time, into the same buffers over and over.
fn receive(p: &Proc, s: i32, seed: u64, len: usize, depth: usize, total: u64) {
    let room = len.next_multiple_of(4096);
    let va = p.mmap(depth * room, Prot::RW).unwrap();
    let submit = |i: usize| {
        let va = va + (i % depth * room) as u64;
        (va, p.aio_read(s, va, len).unwrap())
    };
    let mut busy: std::collections::VecDeque<_> = (0..depth).map(submit).collect();
    let mut at = 0;
    let mut i = depth;
    while at < total {
        let (va, cb) = busy.pop_front().unwrap();
        let n = p.aio_wait(cb).unwrap();
        assert!(n > 0, "end of file at {at} of {total}");
        at = check(p, va, n, seed, at);
        busy.push_back(submit(i));
        i += 1;
    }
    assert_eq!(at, total);
    let _ = p.aio_cancel(s, None).unwrap();
    for (_, cb) in busy {
        let _ = p.aio_wait(cb);
    }
}

/// The vm_lowmem event takes what is only kept, and nothing that is posted.
#[test]
fn memory_runs_short_between_reads() {
    let bed = Bed::up(1000);
    let k = bed.k.api();
    on(
        &bed,
        move |p, s| {
            let va = p.mmap(8 * 16_384, Prot::RW).unwrap();
            for i in 0..8 {
                let cb = p.aio_read(s, va + i * 16_384, 16_384).unwrap();
                p.sleep(SOON);
                assert_eq!(
                    p.aio_cancel(s, Some(cb)),
                    Ok(ukern::proc::AioCancel::NotCanceled)
                );
                let _ = p.aio_wait(cb);
            }
            let posted = p.aio_read(s, va, 16_384).unwrap();
            p.sleep(SOON);
            assert_eq!(stat(k, "wired_pages"), 8 * 4);
            let evicted = stat(k, "cache_evictions");
            k.vm_lowmem();
            p.sleep(SOON);
            assert_eq!(stat(k, "wired_pages"), 4, "idle sets are released");
            assert_eq!(stat(k, "cache_evictions") - evicted, 7);
            go(p, s);
            let n = p.aio_wait(posted).unwrap();
            let at = check(p, va, n, 1000, 0);
            k.vm_lowmem();
            p.sleep(SOON);
            assert_eq!(stat(k, "wired_pages"), 0);
            let cb = p.aio_read(s, va, 16_384).unwrap();
            let n = p.aio_wait(cb).unwrap();
            let at = check(p, va, n, 1000, at);
            // The peer waits for one byte more.
            go(p, s);
            assert_eq!(drain(p, s, 1000, at), 60_000);
        },
        sender(1000, 60_000),
    );
    quiet(bed);
}

/// Memory runs short again and again while data is placed.
#[test]
fn memory_runs_short_under_load() {
    for seed in 1010..1018 {
        let bed = Bed::up(seed);
        let k = bed.k.api();
        let short = bed
            .k
            .spawn(ProcConfig::vnet(CLIENT).name("pager"), move |p| {
                for i in 0..60 {
                    p.sleep(Duration::from_micros(200 + i * seed % 97));
                    k.vm_lowmem();
                }
            });
        on(
            &bed,
            move |p, s| {
                go(p, s);
                receive(p, s, seed, 20_000, 6, 2_000_000);
                go(p, s);
            },
            sender(seed, 2_000_000),
        );
        short.join();
        assert!(bed.stat("rx_aio_ddp_octets") > 0);
        quiet(bed);
    }
}

/// The event may come when nothing is there, and while the module goes.
#[test]
fn memory_runs_short_with_nothing_to_give() {
    let bed = Bed::up(1020);
    bed.k.vm_lowmem();
    bed.k.vm_lowmem();
    bed.k.kldunload("toehold").unwrap();
    bed.k.vm_lowmem();
    bed.k.kldunload("t5sim").unwrap();
    bed.k.shutdown();
}

/// `conns` readers at once in one process each, or all in one.
fn crowd(bed: &Bed, conns: u64, len: usize, depth: usize, total: usize) {
    let jobs: Vec<_> = (0..conns)
        .map(|i| {
            let r = reader(bed, move |p, s| {
                go(p, s);
                receive(p, s, i, len, depth, total as u64);
                go(p, s);
            });
            let c = peer(bed, sender(i, total));
            // The listener is gone once it has its connection.
            bed.k.run_for(ukern::sched::SBT_1S / 1000);
            (r, c)
        })
        .collect();
    for (r, c) in jobs {
        r.join();
        c.join();
    }
}

/// Many connections prepare reads at the same moment: no more is wired than the budget says, but
/// for the pages of one copy per connection.
#[test]
fn the_adapters_budget_is_never_passed() {
    const CONNS: u64 = 8;
    for budget in [0, 1, 40, 200] {
        let bed = Bed::up(1030 + budget);
        bed.set("max_wired", budget as i64);
        bed.set("max_wired_proc", budget as i64);
        crowd(&bed, CONNS, 60_000, 4, 500_000);
        let copied = bed.stat("rx_copied_no_budget");
        let placed = bed.stat("rx_aio_ddp_octets");
        let most = bed.stat("wired_pages_max");
        let brief = if copied > 0 { CONNS * 17 } else { 0 };
        assert!(most <= budget + brief, "{most} pages of {budget}");
        assert!(budget > 1 || copied > 0, "budget {budget}: none copied");
        assert!(
            budget < 40 || placed > 0,
            "budget {budget}: nothing was placed"
        );
        quiet(bed);
    }
}

/// Two connections of `cfg`'s process, one with a read that nothing comes for; octets placed and
/// copied for want of a budget.
fn two(bed: &Bed, cfg: ProcConfig, hog: usize) -> (u64, u64) {
    let count = |n| bed.stat(n);
    let before = (count("rx_aio_ddp_octets"), count("rx_copied_no_budget"));
    let server = bed.k.spawn(cfg, move |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 9)).unwrap();
        p.listen(l, 4).unwrap();
        let (idle, _) = p.accept(l).unwrap();
        let (s, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        let va = p.mmap(hog, Prot::RW).unwrap();
        let cb = p.aio_read(idle, va, hog).unwrap();
        p.sleep(SOON);
        go(p, s);
        receive(p, s, 7, 20_000, 2, 400_000);
        go(p, s);
        let _ = p.aio_cancel(idle, Some(cb)).unwrap();
        let _ = p.aio_wait(cb);
    });
    bed.k.run_until_idle();
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        let idle = p.socket().unwrap();
        p.connect(idle, addr(SERVER_IP, 9)).unwrap();
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 9)).unwrap();
        sender(7, 400_000)(p, s);
    });
    server.join();
    client.join();
    bed.settle();
    (
        count("rx_aio_ddp_octets") - before.0,
        count("rx_copied_no_budget") - before.1,
    )
}

/// Memory is one: what another adapter's connection holds is in the way of this one's.
#[test]
fn the_budget_is_that_of_all_adapters() {
    let bed = Bed::cards(ukern::Config::seed(1041), 2);
    let other = |name: &str, v: u64| {
        let name = format!("dev.t5nex.1.toe.{name}");
        let r = bed.k.sysctl_set(&name, v.to_string());
        assert!(r.is_ok(), "{name}: {r:?}");
    };
    other("ddp", 1);
    bed.k
        .ifconfig("cxl2", "198.51.100.1/24", CLIENT, true)
        .expect("ifconfig cxl2");
    bed.k
        .ifconfig("cxl3", "198.51.100.2/24", SERVER, true)
        .expect("ifconfig cxl3");
    // 10 pages of the idle connection leave 2.
    for (budget, copies) in [(12, true), (40, false)] {
        for name in ["max_wired", "max_wired_proc"] {
            bed.set(name, budget);
            other(name, budget as u64);
        }
        // Two processes, so that only what they have in common is short.
        let held = || {
            bed.k
                .sysctl_get("dev.t5nex.1.toe.stats.wired_pages")
                .ok()
                .and_then(|v| v.as_u64())
        };
        let hog = bed.k.spawn(process(), |p| {
            let l = p.socket().unwrap();
            p.bind(l, addr("198.51.100.2", 10)).unwrap();
            p.listen(l, 1).unwrap();
            let (s, _) = p.accept(l).unwrap();
            p.close(l).unwrap();
            let va = p.mmap(40_000, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 40_000).unwrap();
            // Until the peer is gone.
            assert_eq!(p.aio_wait(cb), Ok(0));
            p.close(s).unwrap();
        });
        bed.k.run_until_idle();
        let idle = bed.k.spawn(ProcConfig::vnet(CLIENT).name("idle"), |p| {
            let s = p.socket().unwrap();
            p.connect(s, addr("198.51.100.2", 10)).unwrap();
            p.sleep(Duration::from_secs(30));
            p.close(s).unwrap();
        });
        bed.k.run_for(ukern::sched::SBT_1S);
        assert_eq!(held(), Some(10));
        let before = (
            bed.stat("rx_aio_ddp_octets"),
            bed.stat("rx_copied_no_budget"),
        );
        crowd(&bed, 1, 20_000, 2, 400_000);
        let placed = bed.stat("rx_aio_ddp_octets") - before.0;
        let copied = bed.stat("rx_copied_no_budget") - before.1;
        assert_eq!(held(), Some(10));
        if copies {
            assert!(placed == 0 && copied > 300_000, "{placed} {copied}");
        } else {
            assert!(placed > 300_000 && copied == 0, "{placed} {copied}");
        }
        hog.join();
        idle.join();
        bed.settle();
    }
    quiet(bed);
}

fn process() -> ProcConfig {
    ProcConfig::vnet(SERVER).name("server")
}

/// A process that has used up its budget on one connection is copied for on the other; another
/// process is not.
#[test]
fn a_process_has_a_budget() {
    let bed = Bed::up(1040);
    // 10 pages of the idle connection leave 2.
    bed.set("max_wired_proc", 12);
    let (placed, copied) = two(&bed, process(), 40_000);
    assert_eq!(placed, 0);
    assert!(copied > 300_000, "{copied}");
    bed.set("max_wired_proc", 40);
    let (placed, copied) = two(&bed, process(), 40_000);
    assert!(placed > 300_000 && copied == 0, "{placed} {copied}");
    // 0: half of the adapter's.
    bed.set("max_wired_proc", 0);
    bed.set("max_wired", 24);
    let (placed, copied) = two(&bed, process(), 40_000);
    assert!(placed == 0 && copied > 300_000, "{placed} {copied}");
    bed.set("max_wired", 100_000);
    // The idle connection is another process's.
    bed.set("max_wired_proc", 12);
    let hog = bed.k.spawn(process(), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 10)).unwrap();
        p.listen(l, 4).unwrap();
        let (s, _) = p.accept(l).unwrap();
        let va = p.mmap(40_000, Prot::RW).unwrap();
        let cb = p.aio_read(s, va, 40_000).unwrap();
        assert_eq!(p.aio_wait(cb), Ok(0));
    });
    bed.k.run_until_idle();
    let friend = bed.k.spawn(ProcConfig::vnet(CLIENT), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 10)).unwrap();
        p.sleep(Duration::from_secs(3));
        p.close(s).unwrap();
    });
    bed.k.run_for(ukern::sched::SBT_1S / 10);
    let (placed, copied) = two(&bed, process(), 100);
    assert!(placed > 100_000, "{placed} {copied}");
    friend.join();
    hog.join();
    quiet(bed);
}

/// Keeps two buffers of four pages cached on an idle connection while `work` goes on, and reads
/// into them again: how many of the two had to be wired anew.
fn bystander(bed: &Bed, work: impl FnOnce(&Bed)) -> u64 {
    let k = bed.k.api();
    let r = reader(bed, move |p, s| {
        let va = p.mmap(32_768, Prot::RW).unwrap();
        let mut misses = 0;
        let mut at = 0;
        for turn in 0..2 {
            let before = stat(k, "cache_misses");
            let jobs = [va, va + 16_384].map(|va| (va, p.aio_read(s, va, 16_384).unwrap()));
            p.sleep(SOON);
            misses = stat(k, "cache_misses") - before;
            go(p, s);
            for (va, cb) in jobs {
                let n = p.aio_wait(cb).unwrap();
                at = check(p, va, n, 5, at);
            }
            if turn == 0 {
                p.sleep(Duration::from_secs(2));
            }
        }
        go(p, s);
        misses
    });
    let c = peer(bed, |p, s| {
        for i in 0..2 {
            ready(p, s);
            p.send_all(s, &pattern::bytes(5, i * 32_768, 32_768))
                .unwrap();
        }
        ready(p, s);
        p.close(s).unwrap();
    });
    bed.k.run_for(ukern::sched::SBT_1S / 2);
    work(bed);
    c.join();
    r.join()
}

/// A process at its limit makes its own idle connections give way, and no other process's.
#[test]
fn a_process_at_its_limit_leaves_others_their_buffers() {
    let bed = Bed::up(1045);
    bed.set("max_wired_proc", 12);
    let again = bystander(&bed, |bed| {
        let (_, copied) = two(bed, process(), 40_000);
        assert!(copied > 300_000, "{copied}");
    });
    assert_eq!(again, 0, "the bystander's buffers were taken");
    // The adapter's limit is everybody's.
    bed.set("max_wired", 20);
    bed.set("max_wired_proc", 20);
    let again = bystander(&bed, |bed| {
        two(bed, process(), 40_000);
    });
    assert!(again > 0, "the bystander kept what others needed");
    quiet(bed);
}

/// `toe.memlock`: RLIMIT_MEMLOCK counts what is wired here, and bytes that do not fit are copied.
#[test]
fn rlimit_memlock_counts_if_asked() {
    let bed = Bed::up(1050);
    let small = || process().memlock(8 * 4096);
    let (placed, copied) = two(&bed, small(), 30_000);
    assert!(placed > 300_000 && copied == 0, "{placed} {copied}");
    bed.set("memlock", 1);
    let (placed, copied) = two(&bed, small(), 30_000);
    assert!(placed == 0 && copied > 300_000, "{placed} {copied}");
    let (placed, copied) = two(&bed, process().memlock(40 * 4096), 30_000);
    assert!(placed > 300_000 && copied == 0, "{placed} {copied}");
    let (placed, copied) = two(&bed, process(), 30_000);
    assert!(placed > 300_000 && copied == 0, "{placed} {copied}");
    quiet(bed);
}

/// A write goes on, however little the process may have.
#[test]
fn writes_go_on_without_a_budget_of_the_process() {
    let bed = Bed::up(1060);
    bed.set("max_wired_proc", 1);
    on(
        &bed,
        |p, s| assert_eq!(drain(p, s, 1060, 0), 1_000_000),
        |p, s| {
            let va = p.alloc(&pattern::bytes(1060, 0, 1_000_000));
            let cb = p.aio_write(s, va, 1_000_000).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(1_000_000));
            p.close(s).unwrap();
        },
    );
    quiet(bed);
}

/// Page pods in all and their longest free run are shown.
#[test]
fn page_pods_are_accounted_for() {
    let bed = Bed::up(1070);
    let k = bed.k.api();
    let total = bed.stat("ppods_total");
    assert!(total > 0 && bed.stat("ppods_largest") == total);
    on(
        &bed,
        move |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let a = p.aio_read(s, va, 65_536).unwrap();
            p.sleep(SOON);
            let used = stat(k, "ppods_used");
            assert!(used > 0);
            assert_eq!(stat(k, "ppods_largest"), total - used);
            go(p, s);
            let at = p.aio_wait(a).unwrap();
            go(p, s);
            drain(p, s, 1070, at as u64);
        },
        sender(1070, 100_000),
    );
    bed.settle();
    assert_eq!(bed.stat("ppods_largest"), total);
    quiet(bed);
}
