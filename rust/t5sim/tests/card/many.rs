use crate::rig::*;
use t5sim::{Config, Faults};

/// `n` connections that all send both ways at once, then close.
fn crowd(n: u16, bytes: usize, faults: Faults) {
    let mut r = Rig::new(Config {
        seed: u64::from(n),
        ..Config::default()
    });
    r.check_every(64);
    let pairs: Vec<(u32, u32)> = (0..n)
        .map(|i| r.connect_with(&Opts::default(), 6000 + i))
        .collect();
    r.card.set_faults(faults);
    for (i, &(a, b)) in pairs.iter().enumerate() {
        r.send_pattern(a, i as u64, 0, bytes);
        r.send_pattern(b, i as u64 + 1000, 0, bytes / 3);
    }
    for &(a, b) in &pairs {
        r.recv_bytes(b, bytes);
        r.recv_bytes(a, bytes / 3);
    }
    r.idle();
    for (i, &(a, b)) in pairs.iter().enumerate() {
        assert!(
            r.recv[&b].data == pattern(i as u64, 0, bytes),
            "connection {i}"
        );
        assert!(
            r.recv[&a].data == pattern(i as u64 + 1000, 0, bytes / 3),
            "connection {i}"
        );
        assert_eq!(r.flows[&a].avail, r.credits);
        r.close(a);
        r.close(b);
    }
    r.run_while("close", |r| {
        pairs.iter().any(|(a, b)| {
            [a, b]
                .iter()
                .any(|t| !r.recv[t].closed || r.recv[t].fin.is_none())
        })
    });
    for &(a, b) in &pairs {
        r.release(a);
        r.release(b);
    }
    r.idle();
    assert_eq!(r.card.connections().count(), 0);
    let s = r.card.stats();
    assert_eq!(s.host_errors, 0, "{:?}", s.last_host_error);
    assert_eq!(s.tids_freed, 2 * u64::from(n));
}

#[test]
fn sixty_four_connections() {
    crowd(64, 60_000, Faults::default());
}

#[test]
fn sixty_four_connections_on_a_bad_wire() {
    let f = Faults {
        drop_ppm: 10_000,
        dup_ppm: 10_000,
        ..Faults::default()
    };
    crowd(64, 40_000, f);
}

#[test]
fn the_port_is_shared_fairly() {
    let mut r = Rig::new(Config::default());
    r.check_every(64);
    let big = Opts {
        rcv_kb: 1000,
        wscale: 6,
        ..Opts::default()
    };
    let pairs: Vec<(u32, u32)> = (0..4).map(|i| r.connect_with(&big, 6000 + i)).collect();
    for &(a, _) in &pairs {
        r.send_pattern(a, 1, 0, 900_000);
    }
    r.recv_bytes(pairs[0].1, 400_000);
    for &(_, b) in &pairs {
        let n = r.recv[&b].data.len();
        assert!((250_000..600_000).contains(&n), "{n}");
    }
}
