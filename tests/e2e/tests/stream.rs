//! Streams of many shapes, bit for bit, with the copies accounted for.

use std::sync::Arc;

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use toehold_e2e::transfer::{self, Shape};

/// A transfer of `n` bytes; returns (placed, copied) of the receiver.
#[track_caller]
fn transfer(seed: u64, n: usize, shape: Shape) -> (u64, u64) {
    let bed = Bed::up(seed);
    let r = check(&bed, seed, n, shape);
    bed.settle();
    assert_eq!(bed.stat("wired_pages"), 0, "seed {seed}: pages left wired");
    assert_eq!(bed.k.wired_pages(), 0, "seed {seed}: pages left wired");
    bed.down();
    r
}

#[track_caller]
fn check(bed: &Bed, seed: u64, n: usize, shape: Shape) -> (u64, u64) {
    let before = bed.stats();
    let o = transfer::run(bed, Arc::new(pattern::bytes(seed, 0, n)), shape);
    assert_eq!(o.rx.bytes, n as u64, "seed {seed}");
    assert_eq!(o.rx.sha256, o.tx.sha256, "seed {seed}");
    let grown = |name: &str| bed.stat(name) - before.get(name).copied().unwrap_or(0);
    let copied: u64 = ["before_ddp", "no_buffer", "no_ppods", "ddp_off"]
        .iter()
        .map(|c| grown(&format!("rx_copied_{c}")))
        .sum();
    let placed = grown("rx_aio_ddp_octets") + grown("rx_moved_octets");
    assert_eq!(
        placed + copied,
        n as u64,
        "seed {seed}: octets unaccounted for"
    );
    assert_eq!(
        grown("tx_aio_octets"),
        n as u64,
        "seed {seed}: not all sent from pages"
    );
    assert_eq!(
        grown("tx_copied_octets") + grown("tx_plain_octets"),
        0,
        "seed {seed}"
    );
    (placed, copied)
}

#[test]
fn nothing() {
    assert_eq!(transfer(10, 0, Shape::default()), (0, 0));
}

#[test]
fn one_byte() {
    transfer(11, 1, Shape::default());
}

#[test]
fn one_page_less_one() {
    transfer(12, 4095, Shape::default());
}

#[test]
fn one_page() {
    transfer(13, 4096, Shape::default());
}

#[test]
fn one_page_and_one() {
    transfer(14, 4097, Shape::default());
}

#[test]
fn a_buffer_exactly() {
    transfer(15, 256 << 10, Shape::default());
}

#[test]
fn eight_megabytes_are_mostly_placed() {
    let (placed, copied) = transfer(16, 8 << 20, Shape::default());
    assert!(placed > copied * 20, "{placed} placed, {copied} copied");
}

#[test]
fn odd_offsets() {
    for (i, offset) in [1, 7, 63, 511, 2049, 4095].into_iter().enumerate() {
        let shape = Shape {
            offset,
            ..Shape::default()
        };
        transfer(20 + i as u64, (1 << 20) + 13, shape);
    }
}

#[test]
fn odd_buffer_sizes() {
    for (i, buf) in [1, 13, 1000, 4095, 4097, 65_521].into_iter().enumerate() {
        let shape = Shape {
            buf,
            offset: i * 5,
            ..Shape::default()
        };
        transfer(30 + i as u64, (buf * 40).min(1 << 20) + i, shape);
    }
}

#[test]
fn one_buffer_at_a_time() {
    let shape = Shape {
        tx_depth: 1,
        rx_depth: 1,
        ..Shape::default()
    };
    transfer(40, 2 << 20, shape);
}

#[test]
fn many_buffers() {
    let shape = Shape {
        buf: 32 << 10,
        tx_depth: 16,
        rx_depth: 16,
        ..Shape::default()
    };
    transfer(41, 4 << 20, shape);
}

#[test]
fn more_buffers_than_the_cache_holds() {
    let bed = Bed::up(42);
    bed.set("ddp_cache", 8);
    let shape = Shape {
        buf: 16 << 10,
        tx_depth: 24,
        rx_depth: 24,
        ..Shape::default()
    };
    check(&bed, 42, 4 << 20, shape);
    assert!(bed.stat("cache_evictions") > 0);
    bed.down();
}

#[test]
fn a_read_of_more_than_16_megabytes() {
    let shape = Shape {
        buf: 20 << 20,
        tx_depth: 1,
        rx_depth: 1,
        offset: 5,
        ..Shape::default()
    };
    transfer(43, (40 << 20) + 3, shape);
}

#[test]
fn ping_pong_wires_nothing_after_warm_up() {
    let bed = Bed::up(44);
    let n = 16 << 20;
    check(
        &bed,
        44,
        n,
        Shape {
            tx_depth: 2,
            ..Shape::default()
        },
    );
    // Two buffers on either side: one miss each, everything else from the cache.
    assert_eq!(bed.stat("cache_misses"), 4);
    assert!(bed.stat("cache_hits") >= 2 * (n as u64 / (256 << 10)) - 4);
    bed.down();
}

#[test]
fn streams_one_after_the_other() {
    let bed = Bed::up(45);
    for i in 0..5 {
        check(
            &bed,
            450 + i,
            300_000,
            Shape {
                port: 6000 + i as u16,
                ..Shape::default()
            },
        );
    }
    bed.settle();
    assert_eq!(bed.stat("toepcbs"), 0);
    bed.down();
}

#[test]
fn a_lossy_wire() {
    let bed = Bed::up(46);
    bed.sim("loss", 5000);
    bed.sim("dup", 2000);
    bed.sim("reorder", 5000);
    let o = transfer::run(
        &bed,
        Arc::new(pattern::bytes(46, 0, 4 << 20)),
        Shape::default(),
    );
    assert_eq!(o.rx.sha256, o.tx.sha256);
    bed.down();
}

#[test]
fn falling_out_of_ddp_now_and_then() {
    let bed = Bed::up(47);
    bed.sim("ddp_off", 20_000);
    let o = transfer::run(
        &bed,
        Arc::new(pattern::bytes(47, 0, 4 << 20)),
        Shape::default(),
    );
    assert_eq!(o.rx.sha256, o.tx.sha256);
    bed.down();
}

#[test]
fn with_zero_copy_switched_off_everything_is_copied() {
    let bed = Bed::up(48);
    bed.set("ddp", 0);
    bed.set("tx_zcopy", 0);
    let o = transfer::run(
        &bed,
        Arc::new(pattern::bytes(48, 0, 1 << 20)),
        Shape::default(),
    );
    assert_eq!(o.rx.sha256, o.tx.sha256);
    assert_eq!(bed.stat("rx_aio_ddp_octets"), 0);
    assert_eq!(bed.stat("tx_aio_octets"), 0);
    assert_eq!(bed.stat("rx_plain_octets"), 1 << 20);
    bed.down();
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let bed = Bed::up(seed);
        let _ = check(&bed, seed, 2 << 20, Shape::default());
        let stats = bed.stats();
        (stats, bed.down().trace)
    };
    assert_eq!(run(49), run(49));
}

#[test]
fn many_seeds() {
    for seed in 100..140 {
        let shape = Shape {
            buf: 1 + (seed as usize * 7919) % 100_000,
            tx_depth: 1 + seed as usize % 5,
            rx_depth: 1 + seed as usize % 4,
            offset: (seed as usize * 331) % 4096,
            ..Shape::default()
        };
        transfer(seed, 200_000 + seed as usize, shape);
    }
}
