//! Page sets and pieces of reads (upstream hazards 3, 5, 6, 16; I7).

use super::bench::Bench;
use crate::ddp::{MAX_SPAN, Piece, piece};
use crate::errno::Errno;
use crate::os::{Counter, Os};
use wire::DdpBuf;

#[test]
fn pieces_cover_every_byte_once() {
    for (addr, len, span) in [
        (0x1000u64, 1usize, MAX_SPAN),
        (0x1fff, 2, MAX_SPAN),
        (0x1000, 16 << 20, MAX_SPAN),
        (0x1001, 64 << 20, MAX_SPAN),
        (0x1fff, (16 << 20) - 1, MAX_SPAN),
        (0x1234, 300_000, 0x1_0000),
    ] {
        let mut done = 0;
        while done < len {
            let p = piece(addr, len, done, span);
            assert_eq!(p.start, done, "{addr:#x} {len}");
            assert!(p.len > 0);
            let in_page = (addr + p.start as u64) % 4096;
            assert!(in_page + u64::from(p.len) <= u64::from(span));
            assert!(done == 0 || in_page == 0, "a later piece starts on a page");
            // From anywhere inside it is the same piece.
            for at in [done, done + p.len as usize / 2, done + p.len as usize - 1] {
                assert_eq!(piece(addr, len, at, span), p);
            }
            done += p.len as usize;
        }
        assert_eq!(done, len);
    }
    assert_eq!(piece(0, 5, 0, MAX_SPAN), Piece { start: 0, len: 5 });
}

#[test]
fn a_read_of_40_megabytes_completes_once_and_whole() {
    let mut b = Bench::ddp_on();
    let n = 40 << 20;
    let addr = b.os.mem.alloc(n, 0x7ff, 512);
    let r = b.read_at(addr, n);
    b.settle();
    let mut left = n as u32;
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        b.recv(k, left == 0);
    }
    b.expect(r, n);
    assert_eq!(b.os.completed.len(), 2);
    assert_eq!(b.counter(Counter::CacheMiss), 1 + 3);
    assert!(b.counter(Counter::RxPlacedOctets) > 39 << 20);
    b.finish();
}

#[test]
fn no_read_is_posted_behind_a_piece_that_is_not_the_last() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(17 << 20, 0, 4096);
    let (r0, r1) = (b.read_at(addr, 17 << 20), b.read_new(4096));
    b.settle();
    let valid = [DdpBuf::B0, DdpBuf::B1].map(|i| b.card.tcb.buf_valid(i));
    assert_eq!(valid, [true, false]);
    let mut left = (17u32 << 20) + 4096;
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        b.recv(k, left == 0);
    }
    b.expect(r0, 17 << 20);
    b.expect(r1, 4096);
    b.finish();
}

#[test]
fn a_push_at_the_end_of_a_piece_ends_the_read() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(20 << 20, 0, 4096);
    let r = b.read_at(addr, 20 << 20);
    b.settle();
    let mut left = MAX_SPAN;
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        b.recv(k, left == 0);
    }
    b.expect(r, MAX_SPAN as usize);
    b.finish();
}

#[test]
fn a_bad_second_piece_leaves_the_first_as_a_short_read() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(20 << 20, 0, 4096);
    b.os.mem.unmap(addr + (19 << 20), 4096);
    let r = b.read_at(addr, 20 << 20);
    b.settle();
    let mut left = MAX_SPAN;
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        b.recv(k, false);
    }
    b.expect(r, MAX_SPAN as usize);
    b.finish();
}

#[test]
fn largest_offset_and_length_of_either_buffer() {
    // Upstream arms buffer 1 wrongly from 8 MiB on.
    let mut b = Bench::ddp_on();
    let n = MAX_SPAN as usize;
    let (a0, a1) = (b.os.mem.alloc(n, 0, 4096), b.os.mem.alloc(n, 0, 4096));
    let (r0, r1) = (b.read_at(a0, n), b.read_at(a1, n));
    b.settle();
    for i in [DdpBuf::B0, DdpBuf::B1] {
        assert_eq!(
            (b.card.tcb.buf_offset(i), b.card.tcb.buf_len(i)),
            (0, MAX_SPAN)
        );
    }
    let mut left = 2 * MAX_SPAN;
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        b.recv(k, false);
    }
    b.expect(r0, n);
    b.expect(r1, n);
    b.finish();
}

#[test]
fn another_mapping_at_the_same_address_is_another_buffer() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(8192, 0x10, 1);
    for i in 0..4 {
        let r = b.read_at(addr, 8192);
        b.settle();
        b.recv(8192, false);
        b.expect(r, 8192);
        b.os.mem.remap(addr, 8192);
        assert_eq!(b.counter(Counter::CacheMiss), 2 + i);
    }
    assert_eq!(b.counter(Counter::CacheHit), 0);
    b.finish();
}

#[test]
fn neighbours_of_the_same_shape_are_not_mixed_up() {
    // r323630: the address was not compared.
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(5 * 8192, 0, 1);
    for turn in 0..3 {
        for i in 0..5 {
            let r = b.read_at(addr + i * 8192, 8192);
            b.settle();
            b.recv(8192, false);
            b.expect(r, 8192);
        }
        assert_eq!(b.counter(Counter::CacheHit), turn * 5);
    }
    b.finish();
}

#[test]
fn the_map_changing_while_a_worker_holds_is_no_stale_hit_later() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(8192, 0, 1);
    let r = b.read_at(addr, 8192);
    let w = b.want().unwrap();
    let pages = b.os.hold(&w);
    b.os.mem.touch_map();
    b.ready(w, pages);
    b.settle();
    b.recv(8192, false);
    b.expect(r, 8192);
    let r = b.read_at(addr, 8192);
    b.settle();
    b.recv(8192, false);
    b.expect(r, 8192);
    // The pages were held anew before they were posted; those were found.
    let c = [Counter::CacheMiss, Counter::CacheHit].map(|c| b.counter(c));
    assert_eq!(c, [3, 1]);
    b.finish();
}

#[test]
fn munmap_under_a_posted_buffer_leaves_its_pages_wired() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(8192);
    b.settle();
    let wired = b.os.mem.wired();
    b.os.mem.unmap(r.addr, r.len);
    // The model panics on DMA to a page that is not wired.
    b.recv(8192, false);
    assert_eq!(b.os.result(r.id), Some(Ok(8192)));
    assert_eq!(b.os.mem.wired(), wired);
    b.finish();
}

#[test]
fn contiguous_pages_need_fewer_page_pods() {
    for (run, pods) in [(1, 16), (4, 4), (16, 1), (64, 1)] {
        let mut b = Bench::ddp_on();
        let before = b.counter(Counter::PpodsWritten);
        let addr = b.os.mem.alloc(64 * 4096, 0, run);
        let r = b.read_at(addr, 64 * 4096);
        b.settle();
        assert_eq!(
            b.counter(Counter::PpodsWritten) - before,
            pods,
            "runs of {run}"
        );
        for _ in 0..4 {
            b.recv(16 * 4096, false);
        }
        b.expect(r, 64 * 4096);
        b.finish();
    }
}

#[test]
fn reads_ahead_get_their_pages_early() {
    let mut b = Bench::ddp_on();
    let reads = [(); 6].map(|()| b.read_new(4096));
    b.settle();
    // Two are posted, two more are ready to be.
    assert_eq!(b.counter(Counter::CacheMiss), 1 + 4);
    b.os.kicked = false;
    b.card.recv(4096, false);
    b.deliver();
    assert_eq!(
        b.os.wrs.len(),
        2,
        "page pods and the next buffer, with no worker"
    );
    b.os.kicked = true;
    b.settle();
    for _ in 1..6 {
        b.recv(4096, false);
    }
    for r in reads {
        b.expect(r, 4096);
    }
    b.finish();
}

#[test]
fn the_setting_limits_the_sets_kept() {
    let mut b = Bench::ddp_on();
    b.sh.tun.cache = 9;
    for _ in 0..14 {
        let r = b.read_new(100);
        b.settle();
        b.recv(100, false);
        b.expect(r, 100);
        assert!(b.sh.sets.taken() <= 9);
    }
    assert_eq!(b.sh.sets.taken(), 9);
    b.finish();
}

#[test]
fn the_worker_is_asked_for_once() {
    let mut b = Bench::ddp_on();
    b.read_new(4096);
    assert!(core::mem::take(&mut b.os.kicked));
    b.read_new(4096);
    assert!(!b.os.kicked);
    let w = b.want().unwrap();
    assert!(b.want().is_none(), "one at a time");
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert!(b.os.kicked, "the other read wants pages, too");
    b.finish();
}

#[test]
fn a_ticket_of_another_time_changes_nothing() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    let w = b.want().unwrap();
    let ticket = w.ticket;
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    b.settle();
    // The same ticket once more.
    b.rx.pages_ready(&mut b.sh, &mut b.os, ticket, Err(Errno::EFAULT));
    b.check();
    b.recv(4096, false);
    b.expect(r, 4096);
    b.finish();
}

#[test]
fn the_same_buffer_twice_at_once() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(4096, 0, 1);
    let (r0, r1) = (b.read_at(addr, 4096), b.read_at(addr, 4096));
    b.settle();
    assert_eq!(b.sh.sets.taken(), 2, "the set is shared");
    b.recv(4096, false);
    b.expect(r0, 4096);
    b.recv(100, true);
    b.expect(r1, 100);
    assert_eq!(b.os.slot_users(0) + b.os.slot_users(1), 0);
    b.finish();
}
