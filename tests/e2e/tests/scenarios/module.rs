//! The module as its administrator sees it. There is no control: lo0 knows nothing of it.

use toehold_e2e::bed::{TOE, kmod};
use toehold_e2e::pattern;
use ukern::proc::Prot;

use crate::world::{Path, SOON, World, check_at, ended, read_to_end};

/// EBUSY under a connection, which is none the worse.
#[test]
fn unload_refused() {
    let w = World::up(Path::Toe, 90);
    let k = w.bed.k.api();
    w.run(
        move |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 65_536).unwrap();
            p.sleep(SOON);
            assert_eq!(k.kldunload("toehold"), Err(ukern::proc::Errno::EBUSY.0));
            p.send_all(s, b"!").unwrap();
            let at = check_at(p, va, ended(p, cb).unwrap(), 90, 0);
            assert_eq!(read_to_end(p, s, 90, at), 50_000);
        },
        |p, s| {
            p.recv_exact(s, 1).unwrap();
            p.send_all(s, &pattern::bytes(90, 0, 50_000)).unwrap();
            p.close(s).unwrap();
        },
    );
    w.down();
}

/// With no connection it goes, and comes again.
#[test]
fn unload_allowed() {
    let w = World::up(Path::Toe, 91);
    let k = w.bed.k.api();
    for seed in 0..3 {
        let (n, ()) = w.run(
            move |p, s| read_to_end(p, s, seed, 0),
            move |p, s| {
                p.send_all(s, &pattern::bytes(seed, 0, 50_000)).unwrap();
                p.close(s).unwrap();
            },
        );
        assert_eq!(n, 50_000);
        w.bed.settle();
        k.kldunload("toehold").unwrap();
        assert!(
            k.sysctl_get(&format!("{TOE}.stats.wrs")).is_err(),
            "counters without the module"
        );
        k.kldload(kmod("toehold")).unwrap();
        w.bed.ports(false);
        w.bed.ports(true);
    }
    w.down();
}

/// Variables that can be set, with a second value each can have.
const KNOBS: [(&str, i64); 9] = [
    ("ddp", 0),
    ("tx_zcopy", 0),
    ("tx_zcopy_min", 16_384),
    ("sndbuf", 131_072),
    ("rx_coalesce", 0),
    ("cong_algorithm", 2),
    ("tx_align", 0),
    ("ddp_cache", 16),
    ("max_wired", 65_536),
];

const COUNTERS: [&str; 33] = [
    "rx_aio_ddp_jobs",
    "rx_aio_ddp_octets",
    "rx_moved_octets",
    "rx_copied_before_ddp",
    "rx_copied_no_buffer",
    "rx_copied_no_ppods",
    "rx_copied_ddp_off",
    "rx_plain_octets",
    "rx_short",
    "tx_aio_jobs",
    "tx_aio_octets",
    "tx_copied_octets",
    "tx_plain_octets",
    "cache_hits",
    "cache_misses",
    "cache_evictions",
    "wired_pages",
    "wired_pages_max",
    "ppods_used",
    "ppods_used_max",
    "ppods_written",
    "ppod_wrs",
    "toepcbs",
    "toepcbs_max",
    "wrs",
    "no_ppods",
    "no_wr",
    "cancel_clean",
    "cancel_short",
    "bad_cpls",
    "bad_wrs",
    "listen_rejects",
    "l2_failures",
];

#[test]
fn sysctls_present() {
    let w = World::up(Path::Toe, 92);
    for (name, _) in KNOBS {
        assert!(
            w.bed.k.sysctl_get(&format!("{TOE}.{name}")).is_ok(),
            "{name}"
        );
    }
    for name in COUNTERS {
        let _ = w.bed.stat(name);
        let full = format!("{TOE}.stats.{name}");
        assert!(
            w.bed.k.sysctl_set(&full, 1).is_err(),
            "{name} can be written"
        );
    }
    w.down();
}

#[test]
fn sysctls_writable() {
    let w = World::up(Path::Toe, 93);
    for (name, v) in KNOBS {
        let full = format!("{TOE}.{name}");
        let get = || {
            let v = w.bed.k.sysctl_get(&full).unwrap();
            v.as_i64().or(v.as_u64().map(|v| v as i64)).unwrap()
        };
        let was = get();
        w.bed.k.sysctl_set(&full, v).unwrap();
        assert_eq!(get(), v, "{name}");
        w.bed.k.sysctl_set(&full, was).unwrap();
        assert_eq!(get(), was, "{name}");
    }
    w.down();
}

/// With zero copy on every octet is accounted for as such; with it off, none.
#[test]
fn counters_move() {
    const LEN: usize = 1 << 20;
    const WHY: [&str; 5] = [
        "rx_aio_ddp_octets",
        "rx_moved_octets",
        "rx_copied_before_ddp",
        "rx_copied_no_buffer",
        "rx_copied_ddp_off",
    ];
    let w = World::up(Path::Toe, 94);
    for on in [1, 0] {
        w.bed.set("ddp", on);
        w.bed.set("tx_zcopy", on);
        let before = w.bed.stats();
        w.run(
            |p, s| {
                let va = p.mmap(65_536, Prot::RW).unwrap();
                let mut at = 0;
                loop {
                    let cb = p.aio_read(s, va, 65_536).unwrap();
                    match ended(p, cb).unwrap() {
                        0 => break,
                        n => at = check_at(p, va, n, 94, at),
                    }
                }
                assert_eq!(at, LEN as u64);
            },
            |p, s| {
                let va = p.alloc(&pattern::bytes(94, 0, LEN));
                let cb = p.aio_write(s, va, LEN).unwrap();
                assert_eq!(ended(p, cb), Ok(LEN));
                p.close(s).unwrap();
            },
        );
        let grown = |name: &str| w.bed.stat(name) - before[name];
        let claimed: u64 = WHY.iter().map(|n| grown(n)).sum();
        let len = LEN as u64;
        let (zero_copy, plain) = if on == 1 { (len, 0) } else { (0, len) };
        assert_eq!((claimed, grown("rx_plain_octets")), (zero_copy, plain));
        assert_eq!(
            (grown("tx_aio_octets"), grown("tx_plain_octets")),
            (zero_copy, plain)
        );
        assert_eq!(grown("rx_aio_ddp_octets") > 0, on == 1);
        assert_eq!(grown("rx_aio_ddp_jobs") > 0, on == 1);
        assert_eq!(grown("tx_aio_jobs"), on as u64);
        assert!(grown("wrs") > 0);
    }
    w.down();
}
