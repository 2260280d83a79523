//! Load, unload, refuse.

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP, TOE, kmod};
use ukern::Config;
use ukern::proc::{Errno, ProcConfig, Prot, SockOpt, addr};

#[test]
fn hundred_loads_leave_nothing_behind() {
    let k = ukern::boot(Config::seed(1));
    let before = k.leaks();
    for _ in 0..100 {
        k.kldload(kmod("t5sim")).unwrap();
        k.kldload(kmod("toehold")).unwrap();
        k.kldunload("toehold").unwrap();
        k.kldunload("t5sim").unwrap();
    }
    assert_eq!(k.leaks(), before);
    k.shutdown();
}

#[test]
fn hundred_activations_leave_nothing_behind() {
    let bed = Bed::up(2);
    bed.ports(false);
    for _ in 0..100 {
        bed.ports(true);
        bed.k.kldunload("toehold").unwrap();
        bed.k.kldload(kmod("toehold")).unwrap();
    }
    bed.down();
}

#[test]
fn toehold_needs_an_adapter_module() {
    let k = ukern::boot(Config::seed(3));
    assert!(k.kldload(kmod("toehold")).is_err());
    k.shutdown();
}

#[test]
fn the_adapter_module_stays_while_toehold_is_loaded() {
    let bed = Bed::up(4);
    assert!(bed.k.kldunload("t5sim").is_err());
    bed.down();
}

#[test]
fn unload_is_refused_while_a_connection_lives() {
    let bed = Bed::up(5);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 1).unwrap();
        let (s, _) = p.accept(l).unwrap();
        assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
    });
    bed.k.run_until_idle();
    let (tx, rx) = (
        std::rc::Rc::new(std::cell::Cell::new(false)),
        std::rc::Rc::new(()),
    );
    let up = tx.clone();
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT), move |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        up.set(true);
        p.sleep(std::time::Duration::from_secs(5));
        drop(rx);
    });
    bed.k.run_for(ukern::sched::SBT_1S);
    assert!(tx.get(), "not connected after a second");
    assert!(
        bed.k.kldunload("toehold").is_err(),
        "unloaded under a live connection"
    );
    // ... and it still works.
    client.join();
    server.join();
    bed.down();
}

#[test]
fn unload_closes_listeners() {
    let bed = Bed::up(6);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 1).unwrap();
        p.sleep(std::time::Duration::from_secs(5));
    });
    bed.k.run_for(ukern::sched::SBT_1S);
    bed.k.kldunload("toehold").unwrap();
    server.join();
    bed.k.kldload(kmod("toehold")).unwrap();
    bed.down();
}

/// Some time after a peer has sent a SYN and was never heard of again, the module is unloaded.
/// `adapter`: that still waits for the peer by then, and not the syncache alone.
/// `deaf`: it does not answer the reset.
fn unload_half_open(seed: u64, after: std::time::Duration, adapter: bool, deaf: bool) {
    let bed = Bed::up(seed);
    bed.sim("wire_delay", 20_000_000);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 1).unwrap();
        p.sleep(std::time::Duration::from_secs(90));
    });
    bed.k.run_for(ukern::sched::SBT_1S);
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT), move |p| {
        let s = p.socket().unwrap();
        p.set_nonblock(s, true).unwrap();
        assert_eq!(p.connect(s, addr(SERVER_IP, 7)), Err(Errno::EINPROGRESS));
        p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
        p.sleep(std::time::Duration::from_millis(100));
        p.close(s).unwrap();
        p.sleep(after);
    });
    let half_open = |bed: &Bed| {
        let conns = bed.k.sysctl_get("dev.t5nex.0.sim.conns").unwrap();
        format!("{conns:?}").contains("SynReceived")
    };
    while !half_open(&bed) {
        bed.k.run_for(ukern::sched::SBT_1S / 1000);
    }
    // The SYN|ACK is under way; the peer's ACK will not arrive.
    bed.k.run_for(ukern::sched::SBT_1S / 100);
    bed.sim("loss", 1_000_000);
    client.join();
    assert_eq!(half_open(&bed), adapter);
    if deaf {
        bed.set("answer_timeout", 5);
        bed.sim("lose_abort_rpl", 1_000_000);
        assert_eq!(bed.k.kldunload("toehold"), Err(Errno::EBUSY.0));
        bed.k.run_for(10 * ukern::sched::SBT_1S);
    }
    bed.k.kldunload("toehold").unwrap();
    if deaf {
        // The tid is taken for good, and t5sim loaded anew has all.
        bed.k.run_for(60 * ukern::sched::SBT_1S);
        server.join();
        return;
    }
    bed.k.run_for(60 * ukern::sched::SBT_1S);
    server.join();
    bed.sim("loss", 0);
    bed.k.kldload(kmod("toehold")).unwrap();
    bed.down();
}

/// The adapter's half-open connection is reset, and the syncache's goes with it.
#[test]
fn unload_while_the_adapter_waits_for_the_last_ack() {
    unload_half_open(9, std::time::Duration::from_millis(200), true, false);
}

/// It does not answer the reset: that is waited for, but not for ever.
#[test]
fn unload_with_a_half_open_connection_and_no_answer() {
    unload_half_open(12, std::time::Duration::from_millis(200), true, true);
}

/// The adapter has given up: the syncache does not wait longer, and no timer of it calls into a
/// module that is gone.
#[test]
fn unload_after_the_adapter_gave_up_a_half_open_connection() {
    unload_half_open(11, std::time::Duration::from_secs(1), false, false);
}

/// Sockets of AF_INET6 have IPv4 connections, too, and keep their own protocol.
#[test]
fn dual_stack_sockets_stay_what_they_are() {
    const AF_INET6: u32 = 28;
    let bed = Bed::up(10);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket6().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 1).unwrap();
        let (s, _) = p.accept(l).unwrap();
        assert!(p.is_offloaded(s).unwrap());
        let family = p.peer_family(s).unwrap();
        assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        family
    });
    bed.k.run_until_idle();
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT), |p| {
        let s = p.socket6().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        assert!(p.is_offloaded(s).unwrap());
        p.peer_family(s).unwrap()
    });
    assert_eq!(client.join(), AF_INET6, "of a socket that connected");
    assert_eq!(server.join(), AF_INET6, "of an accepted socket");
    bed.down();
}

#[test]
fn sysctls_are_there_with_upstreams_defaults() {
    let bed = Bed::up(7);
    let get = |n: &str| bed.k.sysctl_get(&format!("{TOE}.{n}")).unwrap().as_i64();
    bed.set("ddp", 0);
    assert_eq!(get("rx_zcopy"), Some(0), "rx_zcopy is ddp by another name");
    bed.set("rx_zcopy", 1);
    assert_eq!(get("ddp"), Some(1));
    for (name, v) in [
        ("cong_algorithm", -1),
        ("sndbuf", -1),
        ("rx_coalesce", -1),
        ("tx_align", -1),
    ] {
        assert_eq!(get(name), Some(v), "{name}");
    }
    assert_eq!(get("ddp_cache"), Some(64));
    assert!(
        bed.k.sysctl_set(&format!("{TOE}.stats.wrs"), "1").is_err(),
        "a counter was written"
    );
    bed.down();
}

#[test]
fn statistics_go_with_the_module() {
    let bed = Bed::up(8);
    assert!(bed.k.sysctl_get(&format!("{TOE}.stats.wrs")).is_ok());
    bed.k.kldunload("toehold").unwrap();
    assert!(bed.k.sysctl_get(&format!("{TOE}.stats.wrs")).is_err());
    assert!(
        bed.k.sysctl_get(&format!("{TOE}.ddp")).is_ok(),
        "the base driver's node went, too"
    );
    bed.k.kldload(kmod("toehold")).unwrap();
    bed.down();
}

/// The counters of connections by who opened them; those of all are their sum.
#[test]
fn counters_by_class() {
    let bed = Bed::up(9);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER).name("reader"), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 1).unwrap();
        let (s, _) = p.accept(l).unwrap();
        let va = p.mmap(65_536, Prot::RW).unwrap();
        let mut got = 0;
        while got < 1_000_000 {
            let cb = p.aio_read(s, va, 65_536).unwrap();
            got += p.aio_wait(cb).unwrap();
        }
        p.close(s).unwrap();
        p.close(l).unwrap();
    });
    bed.k.run_until_idle();
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT).name("writer"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        let va = p.mmap(1_000_000, Prot::RW).unwrap();
        let cb = p.aio_write(s, va, 1_000_000).unwrap();
        assert_eq!(p.aio_wait(cb), Ok(1_000_000));
        p.close(s).unwrap();
    });
    client.join();
    server.join();
    bed.settle();
    let all = bed.stats();
    assert_eq!(all["active.tx_aio_octets"], 1_000_000);
    assert_eq!(all["active.rx_aio_ddp_jobs"], 0);
    assert_eq!(all["passive.tx_aio_jobs"], 0);
    assert!(all["passive.rx_aio_ddp_octets"] > 0);
    let mut counters = 0;
    for (name, n) in &all {
        if let Some(name) = name.strip_prefix("active.") {
            assert_eq!(all[name], n + all[&format!("passive.{name}")], "{name}");
            counters += 1;
        }
    }
    assert_eq!(counters, 28);
    bed.down();
}
