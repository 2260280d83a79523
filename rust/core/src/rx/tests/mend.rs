//! Memory that changes under reads: the program finds the bytes where it looks.

use super::bench::Bench;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::Counter;

const N: usize = 20_000;

/// Two reads are posted, two are queued; all of their memory is mapped anew.
#[test]
fn another_mapping_under_posted_and_queued_reads() {
    let mut b = Bench::ddp_on();
    let reads = [(); 4].map(|()| b.read_new(N));
    b.settle();
    for r in reads {
        b.os.mem.remap(r.addr, r.len);
    }
    b.recv(4 * N as u32, false);
    for r in reads {
        b.expect(r, N);
    }
    b.finish();
}

#[test]
fn some_pages_only() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(5 * 4096);
    b.settle();
    b.os.mem.remap(r.addr + 4096, 4096);
    b.os.mem.remap(r.addr + 3 * 4096, 1);
    b.recv(r.len as u32, false);
    b.expect(r, r.len);
    b.finish();
}

/// What lies beside the buffer in its first and last page is the program's.
#[test]
fn nothing_beside_the_buffer_is_written() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(3 * 4096, 0, 1) + 0x321;
    let r = b.read_at(addr, 5000);
    b.settle();
    b.os.mem.remap(addr, 5000);
    b.os.mem.user_write(addr - 0x321, &[0x11; 0x321]);
    b.os.mem.user_write(addr + 5000, &[0x22; 1000]);
    b.recv(5000, false);
    b.expect(r, 5000);
    assert!(
        b.os.mem
            .user_read(addr - 0x321, 0x321)
            .iter()
            .all(|x| *x == 0x11)
    );
    assert!(
        b.os.mem
            .user_read(addr + 5000, 1000)
            .iter()
            .all(|x| *x == 0x22)
    );
    b.finish();
}

/// Bytes are not more than the count says: a short read leaves the rest of the pages alone.
#[test]
fn a_short_read_copies_what_it_got() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.os.mem.user_write(r.addr, &[0x33; N]);
    b.recv(6000, true);
    b.expect(r, 6000);
    let rest = b.os.mem.user_read(r.addr + 6000, N - 6000);
    assert!(rest.iter().all(|x| *x == 0x33));
    b.finish();
}

#[test]
fn the_memory_is_gone() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    let next = b.read_new(N);
    b.settle();
    b.os.mem.unmap(r.addr, r.len);
    b.recv(2 * N as u32, false);
    assert_eq!(b.os.result(r.id), Some(Ok(N)));
    b.pos = b.pos.wrapping_add(N as u32);
    b.expect(next, N);
    b.finish();
}

/// Some of it: what is there gets its bytes.
#[test]
fn part_of_the_memory_is_gone() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(5 * 4096, 0, 1);
    let r = b.read_at(addr, 5 * 4096);
    b.settle();
    b.os.mem.remap(addr, r.len);
    b.os.mem.unmap(addr + 4096, 4096);
    b.recv(r.len as u32, false);
    assert_eq!(b.os.result(r.id), Some(Ok(r.len)));
    b.expect_bytes(addr, 4096);
    b.pos = b.pos.wrapping_add(4096);
    b.expect_bytes(addr + 2 * 4096, 3 * 4096);
    b.finish();
}

/// A read longer than what is held at once: its pieces are seen to one by one.
#[test]
fn a_read_in_pieces() {
    let mut b = Bench::ddp_on();
    let n = (17 << 20) + 5000;
    let r = b.read_new(n);
    b.settle();
    let mut left = n as u32;
    while left > 0 {
        let k = left.min(64 << 10);
        left -= k;
        if left % (5 << 20) < 64 << 10 {
            // What has come stays where it is; the map only says that it may not.
            b.os.mem.touch_map();
        }
        b.recv(k, false);
    }
    b.expect(r, n);
    b.finish();
}

/// The map changes while the worker looks: it looks again.
#[test]
fn a_change_while_bytes_are_copied() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.card.recv(N as u32, false);
    while b.deliver_one().unwrap() {}
    assert!(b.pending(r));
    let mut changes = 0;
    while let Some(w) = b.want() {
        let pages = b.os.hold(&w);
        if w.write && changes < 3 {
            b.os.mem.remap(r.addr, r.len);
            changes += 1;
        }
        b.ready(w, pages);
    }
    assert_eq!(changes, 3);
    b.expect(r, N);
    b.finish();
}

/// Reads end in order, also when only the first has to be seen to.
#[test]
fn reads_end_in_order() {
    let mut b = Bench::ddp_on();
    let first = b.read_new(N);
    b.settle();
    b.os.mem.touch_map();
    let second = b.read_new(N);
    b.settle();
    b.card.recv(2 * N as u32, false);
    while b.exec_one() || b.deliver_one().unwrap() {}
    assert!(b.pending(first) && b.pending(second));
    // The pages are the same still: one look is enough.
    let w = b.want().unwrap();
    assert!(!w.write);
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert!(b.want().is_none());
    b.expect(first, N);
    b.expect(second, N);
    b.finish();
}

#[test]
fn cancelled_while_it_is_seen_to() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.card.recv(N as u32, false);
    while b.deliver_one().unwrap() {}
    let w = b.want().unwrap();
    assert!(b.cancel(r.id), "it is here");
    assert!(b.pending(r), "the worker looks at it");
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    while b.work() {}
    b.expect(r, N);
    assert_eq!(b.counter(Counter::CancelClean), 1, "the one of ddp_on()");
    b.finish();
}

#[test]
fn the_connection_goes_while_it_is_seen_to() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    let posted = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.card.recv(N as u32, false);
    while b.deliver_one().unwrap() {}
    let w = b.want().unwrap();
    let (rx, sh, os) = (&mut b.rx, &mut b.sh, &mut b.os);
    rx.fail_all(sh, os, Some(Errno::ECONNRESET), &CardDone::for_test());
    assert_eq!(b.os.result(posted.id), Some(Err(Errno::ECONNRESET)));
    assert!(b.pending(r) && !b.rx.idle());
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    while b.work() {}
    b.expect(r, N);
    b.finish();
}

#[test]
fn memory_is_short_meanwhile() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.card.recv(N as u32, false);
    while b.deliver_one().unwrap() {}
    let w = b.want().unwrap();
    b.ready(w, Err(Errno::ENOMEM));
    assert!(b.want().is_none() && b.pending(r));
    b.settle_retry();
    b.expect(r, N);
    b.finish();
}

/// A truncation takes the pages away and leaves the generation as it is.
#[test]
fn a_truncated_object_is_not_found_in_the_cache() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(N, 0x40, 1);
    for turn in 0..3 {
        let r = b.read_at(addr, N);
        b.settle();
        b.recv(N as u32, false);
        b.expect(r, N);
        assert_eq!(b.counter(Counter::CacheMiss), 2 + turn);
        b.os.mem.truncate(addr, N);
    }
    assert_eq!(b.counter(Counter::CacheHit), 0);
    b.finish();
}

/// Another thread changes the map all the time, and none of the buffer's pages.
#[test]
fn a_map_that_keeps_changing_holds_nobody_up() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.card.recv(N as u32, false);
    while b.deliver_one().unwrap() {}
    let mut looks = 0;
    while let Some(w) = b.want() {
        let pages = b.os.hold(&w);
        b.os.mem.touch_map();
        b.ready(w, pages);
        looks += 1;
        assert!(looks < 3, "one look for reading, one for writing");
    }
    b.expect(r, N);
    b.finish();
}

/// A program that has other pages each time it is looked at gets no more than its share.
#[test]
fn pages_that_keep_changing_are_given_up() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(N);
    b.settle();
    b.os.mem.remap(r.addr, r.len);
    b.card.recv(N as u32, false);
    while b.deliver_one().unwrap() {}
    let mut looks = 0;
    while let Some(w) = b.want() {
        let pages = b.os.hold(&w);
        b.os.mem.remap(r.addr, r.len);
        b.ready(w, pages);
        looks += 1;
        assert!(looks < 32, "it goes on for ever");
    }
    assert_eq!(b.os.result(r.id), Some(Ok(N)));
    b.pos = b.pos.wrapping_add(N as u32);
    b.finish();
}

/// The file is written back while the read is posted, or while its pages are cached.
#[test]
fn bytes_in_a_mapped_file_are_seen_by_who_writes_it_back() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(N, 0, 1);
    b.os.mem.map_file(addr, N);
    for when_posted in [true, false, true] {
        if !when_posted {
            b.os.mem.sync(addr, N);
        }
        let r = b.read_at(addr, N);
        b.settle();
        if when_posted {
            b.os.mem.sync(addr, N);
        }
        b.recv(N as u32, false);
        b.expect(r, N);
        assert!(b.os.mem.reaches_file(addr, N));
    }
    b.finish();
}

/// The bytes went to pages that the program cannot see: it is told.
#[test]
fn truncated_under_a_posted_read() {
    let mut b = Bench::ddp_on();
    let (r, next) = (b.read_new(5 * 4096), b.read_new(N));
    b.settle();
    b.os.mem.truncate(r.addr + 2 * 4096, 3 * 4096);
    b.recv((5 * 4096 + N) as u32, false);
    assert_eq!(b.os.result(r.id), Some(Err(Errno::EFAULT)));
    b.pos = b.pos.wrapping_add(5 * 4096);
    b.expect(next, N);
    b.finish();
}

/// What a short read got lies before the pages that went.
#[test]
fn truncated_behind_what_came() {
    let mut b = Bench::ddp_on();
    let addr = b.os.mem.alloc(5 * 4096, 0, 1);
    let r = b.read_at(addr, 5 * 4096);
    b.settle();
    b.os.mem.truncate(r.addr + 2 * 4096, 3 * 4096);
    b.recv(2 * 4096, true);
    b.expect(r, 2 * 4096);
    b.finish();
}

/// A read longer than what is held at once loses its first piece.
#[test]
fn truncated_under_a_read_in_pieces() {
    let mut b = Bench::ddp_on();
    let n = (17 << 20) + 5000;
    let r = b.read_new(n);
    b.settle();
    b.os.mem.truncate(r.addr, 4096);
    let mut left = n as u32;
    while left > 0 && b.pending(r) {
        let k = left.min(64 << 10);
        left -= k;
        b.card.recv(k, false);
        b.settle();
    }
    assert_eq!(b.os.result(r.id), Some(Err(Errno::EFAULT)));
    let rest = b.os.plain_read(usize::MAX);
    assert!(!rest.is_empty() || left > 0);
    b.finish();
}
