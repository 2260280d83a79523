//! Reads that keep no page set: vectored ones, and those the budgets have no room for.

use std::vec::Vec;

use super::bench::{Bench, Read};
use super::stream;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::{Counter, Job};

/// A vectored read.
struct Vectored {
    read: Read,
    iov: Vec<(u64, usize)>,
}

impl Bench {
    /// Submit a vectored read into new buffers, the last of them lowest in memory.
    fn readv(&mut self, lens: &[usize]) -> Vectored {
        let mut iov: Vec<_> = lens
            .iter()
            .rev()
            .map(|n| (self.os.mem.alloc(*n, 0x321, 1), *n))
            .collect();
        iov.reverse();
        let job = self.os.vectored(&iov);
        let read = Read {
            id: job.id(),
            addr: 0,
            len: job.len(),
        };
        self.rx.aio_read(&mut self.sh, &mut self.os, job).unwrap();
        self.check();
        Vectored { read, iov }
    }

    /// The next `n` bytes of the stream are its.
    fn expectv(&mut self, v: &Vectored, n: usize) {
        assert_eq!(self.os.result(v.read.id), Some(Ok(n)), "{:?}", v.read);
        let mut have = Vec::new();
        for (addr, len) in &v.iov {
            have.extend(self.os.mem.user_read(*addr, *len));
        }
        assert!(have[..n] == stream(self.pos, n)[..], "bytes differ");
        assert!(have[n..].iter().all(|b| *b == 0xee), "more than {n} bytes");
        self.pos = self.pos.wrapping_add(n as u32);
    }
}

#[test]
fn a_vectored_read_is_copied_in_its_turn() {
    let mut b = Bench::ddp_on();
    let r0 = b.read_new(5000);
    let v = b.readv(&[100, 1, 70_000, 4096]);
    let r1 = b.read_new(3000);
    b.settle();
    b.recv(5000, false);
    b.expect(r0, 5000);
    for _ in 0..7 {
        assert!(b.pending(v.read));
        b.recv(10_000, false);
        if b.os.result(v.read.id).is_some() {
            break;
        }
    }
    b.expectv(&v, 10_000);
    b.recv(3000, true);
    b.expect(r1, 3000);
    assert_eq!(b.counter(Counter::RxCopiedVectored), 10_000);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 8000);
    b.finish();
}

#[test]
fn every_piece_of_a_vectored_read_is_filled() {
    let mut b = Bench::new();
    b.recv(60_000, true);
    let v = b.readv(&[4096, 1, 30_000, 8191, 17, 20_000]);
    let r = b.read_new(100);
    b.settle();
    b.expectv(&v, 60_000);
    assert_eq!(b.counter(Counter::RxCopiedVectored), 60_000);
    assert_eq!(b.counter(Counter::RxCopiedBeforeDdp), 0);
    assert!(b.pending(r));
    b.recv(100, true);
    b.expect(r, 100);
    b.finish();
}

#[test]
fn a_vectored_read_full_before_so_rcv_is_empty() {
    let mut b = Bench::ddp_on();
    b.recv(5000, false);
    let v = b.readv(&[1000, 1000]);
    let w = b.readv(&[1000, 5000]);
    b.settle();
    b.expectv(&v, 2000);
    b.expectv(&w, 3000);
    b.finish();
}

#[test]
fn posted_reads_go_first_and_later_ones_wait() {
    let mut b = Bench::ddp_on();
    let v = b.readv(&[10, 10]);
    let r = b.read_new(4096);
    b.settle();
    assert_eq!(b.card.arms, 1, "nothing is posted before a vectored read");
    b.recv(4116, true);
    b.expectv(&v, 20);
    b.expect(r, 4096);
    b.finish();
}

#[test]
fn a_vectored_read_waiting_gets_end_of_file_and_errors() {
    let mut b = Bench::ddp_on();
    let v = b.readv(&[10, 10]);
    b.os.so_error = Some(Errno::ETIMEDOUT);
    b.settle();
    b.retry();
    assert_eq!(b.os.result(v.read.id), Some(Err(Errno::ETIMEDOUT)));
    let v = b.readv(&[10, 10]);
    b.card.fin();
    b.settle();
    b.expectv(&v, 0);
    b.finish();
}

#[test]
fn a_vectored_read_is_cancelled() {
    let mut b = Bench::ddp_on();
    let v = b.readv(&[10, 10]);
    b.settle();
    assert!(b.cancel(v.read.id));
    assert_eq!(b.os.result(v.read.id), Some(Err(Errno::ECANCELED)));
    // While its pages are being held: it ends when the worker lets go.
    b.recv(5, false);
    let v = b.readv(&[10, 10]);
    let w = b.want().unwrap();
    assert!(!w.ticket.charged());
    assert!(b.cancel(v.read.id) && b.pending(v.read));
    assert!(b.cancel(v.read.id), "again is no harm");
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert_eq!(b.os.result(v.read.id), Some(Err(Errno::ECANCELED)));
    let v = b.readv(&[10, 10]);
    b.settle();
    b.expectv(&v, 5);
    b.finish();
}

#[test]
fn memory_that_is_not_there_ends_a_vectored_read() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let bad = b.os.mem.alloc(8192, 0, 1);
    b.os.mem.unmap(bad, 8192);
    let good = b.os.mem.alloc(50, 0, 1);
    let job = b.os.vectored(&[(bad, 50), (good, 50)]);
    let first = job.id();
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap();
    // The other way round, the bytes that were copied are what it gets.
    let job = b.os.vectored(&[(good, 50), (bad, 50)]);
    let second = job.id();
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap();
    b.settle();
    assert_eq!(b.os.result(first), Some(Err(Errno::EFAULT)));
    assert_eq!(b.os.result(second), Some(Ok(50)));
    b.expect_bytes(good, 50);
    let v = b.readv(&[20, 50]);
    b.settle();
    b.expectv(&v, 50);
    b.finish();
}

#[test]
fn memory_that_is_short_is_asked_for_again_later() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let v = b.readv(&[60, 60]);
    let w = b.want().unwrap();
    b.ready(w, Err(Errno::ENOMEM));
    assert!(b.os.retry && b.want().is_none(), "not before the retry");
    b.settle_retry();
    b.expectv(&v, 100);
    b.finish();
}

#[test]
fn a_busy_reader_delays_a_vectored_read() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    b.os.reader_inside = true;
    let v = b.readv(&[60, 60]);
    b.settle();
    assert!(b.os.retry && b.pending(v.read));
    // It took some.
    assert_eq!(b.os.plain_read(30).len(), 30);
    b.pos = b.pos.wrapping_add(30);
    b.os.reader_inside = false;
    b.settle_retry();
    b.expectv(&v, 70);
    b.finish();
}

#[test]
fn a_reader_that_took_everything_leaves_a_vectored_read_waiting() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let v = b.readv(&[60, 60]);
    let w = b.want().unwrap();
    assert_eq!(b.os.plain_read(100).len(), 100);
    b.pos = b.pos.wrapping_add(100);
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert!(b.pending(v.read));
    b.recv(7, true);
    b.expectv(&v, 7);
    b.finish();
}

#[test]
fn a_map_that_changes_during_the_hold_is_looked_at_again() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let v = b.readv(&[60, 60]);
    let w = b.want().unwrap();
    let pages = b.os.hold(&w);
    b.os.mem.remap(v.iov[0].0, 60);
    b.ready(w, pages);
    assert!(b.pending(v.read));
    b.settle();
    // The pages of a new mapping have other bytes around.
    assert_eq!(b.os.result(v.read.id), Some(Ok(100)));
    b.expect_bytes(v.iov[0].0, 60);
    b.expect_bytes(v.iov[1].0, 40);
    b.finish();
}

#[test]
fn the_connection_goes_during_the_hold() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let v = b.readv(&[60, 60]);
    let w = b.want().unwrap();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    assert!(b.pending(v.read) && !b.rx.idle());
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert_eq!(b.os.result(v.read.id), Some(Err(Errno::ECONNRESET)));
    b.finish();
}

#[test]
fn reads_of_the_generic_path_are_not_overtaken() {
    let mut b = Bench::ddp_on();
    b.os.rcv_generic = true;
    let job = b.os.job(0x1000, 100);
    let job = b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err();
    job.end();
    b.os.rcv_generic = false;
    let r = b.read_new(100);
    // What is in the generic path now came later.
    b.os.rcv_generic = true;
    let s = b.read_new(100);
    b.settle();
    b.recv(200, true);
    b.expect(r, 100);
    b.expect(s, 100);
    b.finish();
}

#[test]
fn without_any_budget_reads_are_copied() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 0;
    let (r, s) = (b.read_new(100_000), b.read_new(500));
    b.settle();
    let mut left = 100_000;
    while left > 0 {
        let n = left.min(9000);
        left -= n;
        b.recv(n, false);
        assert_eq!(b.os.mem.wired(), 0, "nothing stays wired");
    }
    b.expect(r, 100_000);
    b.recv(100, true);
    b.expect(s, 100);
    assert_eq!(b.counter(Counter::RxCopiedNoBudget), 100_100);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 0);
    b.finish();
}

#[test]
fn a_budget_that_comes_back_is_used_for_the_rest() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 0;
    let r = b.read_new(100_000);
    b.settle();
    b.recv(10_000, false);
    b.os.page_budget = 1000;
    b.settle_retry();
    b.recv(90_000, false);
    b.expect(r, 100_000);
    assert_eq!(b.counter(Counter::RxCopiedNoBudget), 10_000);
    assert_eq!(b.counter(Counter::RxPlacedOctets), 90_000);
    b.finish();
}

#[test]
fn a_set_that_turns_up_during_the_hold_is_used() {
    let mut b = Bench::ddp_on();
    b.os.page_budget = 0;
    let r = b.read_new(8192);
    b.settle();
    b.card.recv(100, false);
    b.exec();
    b.deliver();
    let w = b.want().unwrap();
    assert!(!w.ticket.charged());
    let pages = b.os.hold(&w);
    assert!(b.want().is_none(), "one at a time");
    b.os.page_budget = 1000;
    b.retry();
    b.ready(w, pages);
    b.settle_retry();
    b.recv(8092, false);
    b.expect(r, 8192);
    b.finish();
}

#[test]
fn a_cancel_that_finds_the_buffer_full_is_late() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(4096, false);
    assert!(b.cancel(r.id));
    b.settle();
    b.expect(r, 4096);
    assert_eq!(b.counter(Counter::CancelLate), 1);
    assert_eq!(b.counter(Counter::CancelShort), 0);
    b.finish();
}

/// What came before the posted buffer is the posted read's, not the vectored one's behind it.
#[test]
fn bytes_of_a_posted_read_are_not_for_the_vectored_one_behind_it() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.os.kicked = false;
    while b.work() {}
    b.card.recv(20, false);
    b.exec();
    let v = b.readv(&[100, 100]);
    b.settle();
    assert!(b.pending(r) && b.pending(v.read));
    b.recv(4096, true);
    b.expect(r, 4096);
    b.settle_retry();
    b.expectv(&v, 20);
    b.finish();
}

#[test]
fn pages_of_one_copy_are_marked_dirty() {
    let mut b = Bench::ddp_on();
    b.recv(100, true);
    let v = b.readv(&[60, 60]);
    assert!(!b.os.mem.is_dirty(v.iov[0].0));
    b.settle();
    b.expectv(&v, 100);
    assert!(b.os.mem.is_dirty(v.iov[0].0) && b.os.mem.is_dirty(v.iov[1].0));
    b.finish();
}
