//! Hazard 6: sizes, alignment, protection.

use toehold_core::errno::Errno;

use crate::help::{SEC, buf, bufs, finish, got, pair, post, read, send, sent, wait, write};

const BIG: usize = (20 << 20) + 4_321;

#[test]
fn more_than_16_mib_at_once() {
    let (mut w, a, b) = pair(1);
    let dst = [buf(&mut w, b, BIG)];
    post(&mut w, b, &dst);
    let id = write(&mut w, a, BIG);
    send(&mut w, a, b, &[id], &dst);
    assert_eq!(w.result(a, id), Some(Ok(BIG)));
    assert!(w.card.stats().ddp_bytes > 16 << 20, "{:?}", w.card.stats());
    finish(w, a, b);
}

#[test]
fn more_than_16_mib_filled_by_many_writes() {
    let (mut w, a, b) = pair(2);
    let id = read(&mut w, b, 17 << 20);
    let src = buf(&mut w, a, 1 << 20);
    w.ends[a].os.tcb.more_to_come = true;
    while w.result(b, id).is_none() {
        if !w.bufs.busy(src) {
            w.aio_write(a, src, 0, 1 << 20);
        }
        assert!(w.step(), "{}", w.story());
    }
    assert_eq!(w.result(b, id), Some(Ok(17 << 20)));
    finish(w, a, b);
}

#[test]
fn a_write_larger_than_so_snd() {
    let (mut w, a, b) = pair(3);
    let dst = bufs(&mut w, b, 3, 100_000);
    let id = write(&mut w, a, 3_000_001);
    send(&mut w, a, b, &[id], &dst);
    assert_eq!(w.result(a, id), Some(Ok(3_000_001)));
    finish(w, a, b);
}

#[test]
fn no_bytes() {
    let (mut w, a, b) = pair(4);
    let r = read(&mut w, b, 0);
    let t = write(&mut w, a, 0);
    assert_eq!(wait(&mut w, a, t), Ok(0));
    w.run_for(SEC);
    assert_eq!(w.result(b, r), None, "it waits for data");
    write(&mut w, a, 100);
    assert_eq!(wait(&mut w, b, r), Ok(0));
    let r = read(&mut w, b, 100);
    assert_eq!(wait(&mut w, b, r), Ok(100));
    finish(w, a, b);
}

#[test]
fn odd_addresses_and_lengths() {
    let (mut w, a, b) = pair(5);
    let src = buf(&mut w, a, 100_000);
    let dst = buf(&mut w, b, 100_000);
    for (off, len) in [
        (1, 1),
        (4_095, 2),
        (4_095, 8_193),
        (17, 33_333),
        (1, 99_999),
        (2_048, 2_048),
    ] {
        let r = w.aio_read(b, dst, off, len);
        let t = w.aio_write(a, src, 100_000 - len - off / 2, len);
        let mut n = wait(&mut w, b, r).expect("read");
        assert_eq!(wait(&mut w, a, t), Ok(len));
        while n < len {
            let r = w.aio_read(b, dst, off, len);
            n += wait(&mut w, b, r).expect("read");
        }
    }
    assert_eq!(got(&w, b), sent(&w, a));
    finish(w, a, b);
}

#[test]
fn a_source_that_may_only_be_read() {
    let (mut w, a, b) = pair(6);
    let (host, dst) = (w.ends[a].host, bufs(&mut w, b, 2, 65_536));
    let src = w.bufs.add_constant(host, 65_536, 4, 9);
    let addr = w.bufs.addr(src, 0);
    w.mem.borrow_mut().protect(host, addr, 65_536, false);
    let id = w.aio_write(a, src, 0, 65_536);
    send(&mut w, a, b, &[id], &dst);
    assert_eq!(w.result(a, id), Some(Ok(65_536)));
    finish(w, a, b);
}

#[test]
fn a_target_that_may_only_be_read() {
    let (mut w, a, b) = pair(7);
    w.short.fault = 1; // EFAULT is no surprise
    let (host, dst) = (w.ends[b].host, buf(&mut w, b, 65_536));
    let addr = w.bufs.addr(dst, 0);
    w.mem.borrow_mut().protect(host, addr, 65_536, false);
    let id = w.aio_read(b, dst, 0, 65_536);
    let good = read(&mut w, b, 4_096);
    write(&mut w, a, 4_096);
    assert_eq!(wait(&mut w, b, id), Err(Errno::EFAULT));
    assert_eq!(wait(&mut w, b, good), Ok(4_096));
    finish(w, a, b);
}

#[test]
fn a_hole_in_the_buffer() {
    let (mut w, a, b) = pair(8);
    w.short.fault = 1;
    let host = w.ends[a].host;
    let src = w.bufs.add_constant(host, 12 << 20, 16, 3);
    // The first piece can be held, a later one cannot: a short count, and no byte lost.
    let hole = w.bufs.addr(src, 11 << 20);
    w.mem.borrow_mut().protect(host, hole, 4_096, false);
    let dst = bufs(&mut w, b, 2, 1 << 20);
    let id = w.aio_write(a, src, 0, 12 << 20);
    send(&mut w, a, b, &[id], &dst);
    assert_eq!(w.result(a, id), Some(Ok(12 << 20)), "reading it is allowed");
    let gap = buf(&mut w, b, 20 << 20);
    let host = w.ends[b].host;
    let hole = w.bufs.addr(gap, 18 << 20);
    w.mem.borrow_mut().protect(host, hole, 4_096, false);
    let id = w.aio_read(b, gap, 0, 20 << 20);
    for _ in 0..3 {
        w.aio_write(a, src, 0, 8 << 20);
    }
    let n = wait(&mut w, b, id).expect("short");
    assert!(n > 0 && n < 20 << 20);
    let dst = bufs(&mut w, b, 2, 1 << 20);
    crate::help::drain(&mut w, a, b, &dst);
    crate::help::quiet(&mut w, a);
    crate::help::drain(&mut w, a, b, &dst);
    finish(w, a, b);
}
