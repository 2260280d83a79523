//! Connections that arrive, whatever the kernel's syncache makes of their handshake: by release, by
//! SYN cookies, and with answers that make no socket.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::fault::{self, Plan};
use ukern::net::SyncacheRules;
use ukern::proc::{Child, Errno, Proc, ProcConfig, Prot, SockOpt, addr};
use ukern::sched::SBT_1S;

const RULES: [SyncacheRules; 2] = [SyncacheRules::Fbsd12, SyncacheRules::Fbsd14];
/// Bytes of each transfer.
const LEN: usize = 300_000;

/// A program that accepts `n` connections and hands each to `f`.
fn server(bed: &Bed, n: usize, f: impl Fn(&Proc, i32) + 'static) -> Child<()> {
    let child = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("server"), move |p| {
            let l = p.socket().unwrap();
            p.bind(l, addr(SERVER_IP, 7)).unwrap();
            p.listen(l, 64).unwrap();
            for _ in 0..n {
                let (s, _) = p.accept(l).unwrap();
                assert!(p.is_offloaded(s).unwrap());
                f(p, s);
                p.close(s).unwrap();
            }
            p.close(l).unwrap();
        });
    bed.k.run_until_idle();
    child
}

fn client<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    bed.k.spawn(ProcConfig::vnet(CLIENT).name("client"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        f(p, s)
    })
}

/// Bytes both ways, by aio_read and aio_write.
fn both_ways(p: &Proc, s: i32) {
    let out = p.alloc(&pattern::bytes(1, 0, LEN));
    let w = p.aio_write(s, out, LEN).unwrap();
    let into = p.mmap(LEN, Prot::RW).unwrap();
    let mut at = 0;
    while at < LEN {
        let r = p.aio_read(s, into, LEN - at).unwrap();
        let n = p.aio_wait(r).unwrap();
        assert!(n > 0, "the end after {at} bytes");
        pattern::check(1, at as u64, &p.load_vec(into, n));
        at += n;
    }
    assert_eq!(p.aio_wait(w), Ok(LEN));
}

/// The programs of a bed run to their end, and everything is given back.
fn run(bed: Bed, conns: usize) {
    let s = server(&bed, conns, both_ways);
    let clients: Vec<_> = (0..conns).map(|_| client(&bed, both_ways)).collect();
    clients.into_iter().for_each(Child::join);
    s.join();
    bed.settle();
    assert_eq!(bed.stat("toepcbs"), 0, "connections left");
    assert_eq!(bed.k.syncache_count(), 0);
    bed.down();
}

#[test]
fn a_connection_out_of_a_syn_cookie_is_offloaded() {
    for rules in RULES {
        let bed = Bed::up(300);
        bed.k.syncache_rules(rules);
        bed.k.set_vnet_int(SERVER, "tcp_syncookiesonly", 1).unwrap();
        run(bed, 3);
    }
}

#[test]
fn connections_that_overflow_the_syncache_are_offloaded() {
    for (rules, bucket) in RULES.into_iter().flat_map(|r| [(r, 1), (r, 3)]) {
        let bed = Bed::up(301);
        bed.k.syncache_rules(rules);
        bed.k.syncache_bucket(bucket);
        // So that many handshakes are under way at a time.
        bed.sim("wire_delay", 2_000_000);
        run(bed, 12);
    }
}

/// Nobody hears of the ACK, or the kernel wants it dropped: the connection is reset, the listener
/// stays what it is.
#[test]
fn an_ack_that_the_kernel_drops_resets_the_connection_alone() {
    for rules in RULES {
        let bed = Bed::up(303);
        bed.k.syncache_rules(rules);
        let s = server(&bed, 1, both_ways);
        fault::set("toe_syncache_expand", Plan::Nth(1));
        let c = client(&bed, |p, s| {
            let e = p.recv_bytes(s, 1);
            p.close(s).unwrap();
            e
        });
        assert_eq!(c.join(), Err(Errno::ECONNRESET));
        let listeners = bed.k.netstat();
        let l = listeners.iter().find(|c| c.state == "LISTEN");
        assert!(l.is_some_and(|l| !l.offloaded), "{listeners:?}");
        client(&bed, both_ways).join();
        s.join();
        bed.down();
    }
}

/// A peer that resets its half-open connection, and comes again with the same port.
#[test]
fn a_connection_of_the_same_port_after_a_half_open_one() {
    for (rules, only) in [
        (SyncacheRules::Fbsd12, 0),
        (SyncacheRules::Fbsd14, 0),
        (SyncacheRules::Fbsd14, 1),
    ] {
        let bed = Bed::up(304);
        bed.k.syncache_rules(rules);
        bed.k
            .set_vnet_int(SERVER, "tcp_syncookiesonly", only)
            .unwrap();
        bed.sim("wire_delay", 20_000_000);
        let s = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
            let l = p.socket().unwrap();
            p.bind(l, addr(SERVER_IP, 7)).unwrap();
            p.listen(l, 64).unwrap();
            // Those that the peer gave up may have come so far.
            loop {
                let (s, _) = p.accept(l).unwrap();
                let got = p.recv_exact(s, 5);
                p.close(s).unwrap();
                if got.as_deref() == Ok(b"hello") {
                    break;
                }
            }
        });
        bed.k.run_until_idle();
        let c = bed.k.spawn(ProcConfig::vnet(CLIENT), |p| {
            let open = |p: &Proc| {
                let s = p.socket().unwrap();
                p.setsockopt(s, SockOpt::ReuseAddr(true)).unwrap();
                p.bind(s, addr("10.0.0.1", 4321)).unwrap();
                s
            };
            for _ in 0..3 {
                let s = open(p);
                p.set_nonblock(s, true).unwrap();
                let _ = p.connect(s, addr(SERVER_IP, 7));
                p.sleep(Duration::from_millis(30));
                p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
                p.close(s).unwrap();
                p.sleep(Duration::from_millis(300));
            }
            let s = open(p);
            p.connect(s, addr(SERVER_IP, 7)).unwrap();
            p.send_all(s, b"hello").unwrap();
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        });
        c.join();
        s.join();
        bed.down();
    }
}

/// The driver refuses to answer for a half-open connection that is gone, and the module goes, too.
#[test]
fn unload_with_half_open_connections_of_every_kind() {
    for (rules, only, after) in [
        (SyncacheRules::Fbsd12, 0, 200),
        (SyncacheRules::Fbsd12, 0, 1000),
        (SyncacheRules::Fbsd12, 1, 200),
        (SyncacheRules::Fbsd14, 1, 200),
        (SyncacheRules::Fbsd14, 1, 1000),
    ] {
        let bed = Bed::up(305);
        bed.k.syncache_rules(rules);
        bed.k
            .set_vnet_int(SERVER, "tcp_syncookiesonly", only)
            .unwrap();
        bed.sim("wire_delay", 20_000_000);
        let s = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
            let l = p.socket().unwrap();
            p.bind(l, addr(SERVER_IP, 7)).unwrap();
            p.listen(l, 1).unwrap();
            p.sleep(Duration::from_secs(90));
        });
        bed.k.run_for(SBT_1S);
        let c = bed.k.spawn(ProcConfig::vnet(CLIENT), move |p| {
            let s = p.socket().unwrap();
            p.set_nonblock(s, true).unwrap();
            assert_eq!(p.connect(s, addr(SERVER_IP, 7)), Err(Errno::EINPROGRESS));
            p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
            p.sleep(Duration::from_millis(100));
            p.close(s).unwrap();
            p.sleep(Duration::from_millis(after));
        });
        bed.k.run_for(SBT_1S / 30);
        bed.sim("loss", 1_000_000);
        c.join();
        bed.k.kldunload("toehold").unwrap();
        bed.k.run_for(60 * SBT_1S);
        s.join();
        bed.sim("loss", 0);
        bed.load("toehold");
        bed.down();
    }
}
