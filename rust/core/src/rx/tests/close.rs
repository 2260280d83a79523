//! FIN, RST, half-closed sockets (upstream hazard 10).

use super::bench::Bench;
use crate::done::CardDone;
use crate::errno::Errno;
use crate::os::Os;

const EOF: Option<Result<usize, Errno>> = Some(Ok(0));

#[test]
fn fin_with_reads_posted_and_queued() {
    let mut b = Bench::ddp_on();
    let reads = [(); 4].map(|()| b.read_new(4096));
    b.settle();
    b.card.fin();
    b.settle();
    for r in reads {
        assert_eq!(b.os.result(r.id), EOF);
    }
    assert!(b.os.rcv_shut);
    assert_eq!(b.sh.seq.rcv_nxt, b.card.rcv_nxt, "the FIN counts");
    assert!(b.rx.idle());
    b.finish();
}

#[test]
fn fin_with_reads_queued_and_nothing_posted() {
    // Upstream leaves these hanging: the enable is requested, no indicate ever comes.
    let mut b = Bench::new();
    let r = b.read_new(4096);
    b.card.fin();
    b.deliver();
    assert_eq!(b.os.result(r.id), EOF);
    b.settle();
    b.finish();
}

#[test]
fn fin_before_the_pages_are_held() {
    let mut b = Bench::new();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    let w = b.want().unwrap();
    b.card.fin();
    b.deliver();
    assert_eq!(b.os.result(r1.id), EOF);
    assert!(b.pending(r0), "the worker still looks at it");
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert_eq!(b.os.result(r0.id), EOF);
    b.finish();
}

#[test]
fn fin_with_bytes_in_one_buffer() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.card.recv(100, false);
    b.card.fin();
    b.settle();
    b.expect(r0, 100);
    assert_eq!(b.os.result(r1.id), EOF);
    b.finish();
}

#[test]
fn fin_with_bytes_in_both_buffers() {
    let mut b = Bench::ddp_on();
    let (r0, r1, r2) = (b.read_new(100), b.read_new(4096), b.read_new(10));
    b.settle();
    b.card.recv(150, false);
    // The report of the first was lost with nobody the wiser: the FIN says it all.
    b.card.out.clear();
    b.card.fin();
    b.settle();
    b.expect(r0, 100);
    b.expect(r1, 50);
    assert_eq!(b.os.result(r2.id), EOF);
    b.finish();
}

#[test]
fn fin_behind_data_in_so_rcv() {
    let mut b = Bench::ddp_on();
    b.card.recv(100, false);
    b.card.fin();
    b.deliver();
    assert!(b.os.rcv_shut && b.os.rcv_avail() == 100);
    // Reads go on while there is something to read: all of the stream is counted as copied.
    let r0 = b.read_new(10);
    b.settle();
    b.expect(r0, 10);
    let r1 = b.read_new(200);
    b.settle();
    b.expect(r1, 90);
    // The end of file is the generic path's.
    let job = b.os.job(0x1000, 10);
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err().end();
    b.finish();
}

#[test]
fn fin_behind_data_for_queued_reads() {
    let mut b = Bench::ddp_on();
    b.card.recv(100, false);
    let (r0, r1, r2) = (b.read_new(60), b.read_new(60), b.read_new(60));
    b.card.fin();
    b.settle();
    b.expect(r0, 60);
    b.expect(r1, 40);
    assert_eq!(b.os.result(r2.id), EOF);
    b.finish();
}

#[test]
fn fin_during_a_cancel() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(5, false);
    assert!(b.cancel(r.id));
    b.card.fin();
    b.deliver();
    b.expect(r, 5);
    // The reply comes after all.
    b.settle();
    assert!(b.rx.idle());
    b.finish();
}

#[test]
fn fin_with_skewed_bytes() {
    let mut b = Bench::ddp_on();
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.work();
    b.card.recv(50, false);
    b.exec();
    b.card.recv(60, false);
    b.card.fin();
    b.settle();
    b.expect(r0, 110);
    assert_eq!(b.os.result(r1.id), EOF);
    b.finish();
}

#[test]
fn the_socket_hears_of_the_fin_after_the_data() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(100);
    b.work();
    b.card.recv(50, false);
    b.exec();
    b.card.recv(100, false);
    b.card.fin();
    b.os.deny_mbufs = true;
    b.deliver();
    assert!(!b.os.rcv_shut, "50 bytes are not in so_rcv yet");
    b.os.deny_mbufs = false;
    b.settle_retry();
    b.expect(r, 100);
    assert!(b.os.rcv_shut && b.os.rcv_avail() == 50);
    b.finish();
}

#[test]
fn nothing_is_posted_after_the_fin() {
    let mut b = Bench::ddp_on();
    b.card.fin();
    b.settle();
    let job = b.os.job(0x1000, 10);
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err().end();
    assert!(b.os.wrs.is_empty());
    b.finish();
}

#[test]
fn a_late_report_after_the_fin_is_no_harm() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(10, false);
    b.card.fin();
    b.settle();
    b.expect(r, 10);
    let late = wire::RxDdpComplete {
        report: wire::DdpReport {
            inv: true,
            ..wire::DdpReport::default()
        },
        rcv_nxt: b.sh.seq.rcv_nxt,
        ..wire::RxDdpComplete::default()
    };
    b.rx.rx_ddp_complete(&mut b.sh, &mut b.os, &late).unwrap();
    b.finish();
}

#[test]
fn reset_is_told_once() {
    let mut b = Bench::ddp_on();
    let reads = [(); 5].map(|()| b.read_new(4096));
    b.settle();
    assert!(
        b.rx.fail_all(
            &mut b.sh,
            &mut b.os,
            Some(Errno::ECONNRESET),
            &CardDone::for_test()
        ),
        "so_error is not to be set"
    );
    let first = reads[0].id;
    assert_eq!(b.os.result(first), Some(Err(Errno::ECONNRESET)));
    for r in &reads[1..] {
        assert_eq!(b.os.result(r.id), EOF);
    }
    b.finish();
}

#[test]
fn reset_with_bytes_copied_is_a_short_read() {
    let mut b = Bench::ddp_on();
    b.recv(100, false);
    let (r0, r1) = (b.read_new(4096), b.read_new(4096));
    b.settle();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    b.expect(r0, 100);
    assert_eq!(b.os.result(r1.id), Some(Err(Errno::ECONNRESET)));
    b.finish();
}

#[test]
fn reset_while_a_worker_holds_pages() {
    let mut b = Bench::new();
    let r = b.read_new(4096);
    let w = b.want().unwrap();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    assert!(b.pending(r) && !b.rx.idle());
    let pages = b.os.hold(&w);
    b.ready(w, pages);
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECONNRESET)));
    b.finish();
}

#[test]
fn reset_with_a_reader_inside() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.work();
    b.card.recv(50, false);
    b.exec();
    b.card.recv(60, true);
    b.card.recv(70, true);
    b.os.reader_inside = true;
    b.deliver();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    assert_eq!(b.os.result(r.id), Some(Err(Errno::ECONNRESET)));
    // The reader has it all.
    assert_eq!((b.os.rcv_avail(), b.os.discarded), (180, 0));
    b.finish();
}

#[test]
fn end_of_connection_without_an_error_is_end_of_file() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.rx.fail_all(&mut b.sh, &mut b.os, None, &CardDone::for_test());
    assert_eq!(b.os.result(r.id), EOF);
    b.finish();
}

#[test]
fn messages_after_the_end_are_ignored() {
    let mut b = Bench::ddp_on();
    let r = b.read_new(4096);
    b.settle();
    b.card.recv(100, true);
    b.card.recv(100, true);
    assert!(b.cancel(r.id));
    b.exec();
    b.card.fin();
    b.rx.fail_all(
        &mut b.sh,
        &mut b.os,
        Some(Errno::ECONNRESET),
        &CardDone::for_test(),
    );
    b.deliver();
    assert_eq!(b.os.discarded, 100);
    assert_eq!(b.os.completed.len(), 2);
    b.finish();
}

#[test]
fn shutdown_of_reading_ends_queued_reads() {
    let mut b = Bench::ddp_on();
    b.os.rcv_shut = true;
    let job = b.os.job(0x1000, 10);
    b.rx.aio_read(&mut b.sh, &mut b.os, job).unwrap_err().end();
    b.os.rcv_shut = false;
    let (r0, r1, r2) = (b.read_new(10), b.read_new(10), b.read_new(10));
    b.settle();
    b.os.rcv_shut = true;
    b.recv(20, true);
    b.expect(r0, 10);
    b.expect(r1, 10);
    assert_eq!(b.os.result(r2.id), EOF);
    b.finish();
}

#[test]
fn so_error_goes_to_the_first_read() {
    let mut b = Bench::new();
    b.os.so_error = Some(Errno::EHOSTUNREACH);
    let (r0, r1) = (b.read_new(10), b.read_new(10));
    assert_eq!(b.os.result(r0.id), Some(Err(Errno::EHOSTUNREACH)));
    assert!(b.pending(r1));
    b.finish();
}

#[test]
fn a_dropped_connection_posts_nothing() {
    for stop in [false, true] {
        let mut b = Bench::ddp_on();
        if stop {
            b.rx.stop();
        } else {
            b.os.dropped = true;
        }
        b.read_new(10);
        b.read_new(10);
        b.settle();
        assert_eq!(b.card.arms, 1, "the one of turning DDP on");
        b.finish();
    }
}

#[test]
fn shutdown_of_reading_ends_posted_and_queued_reads() {
    let mut b = Bench::ddp_on();
    let reads = [(); 4].map(|()| b.read_new(4096));
    b.settle();
    b.os.rcv_shut = true;
    b.rx.rcvd(&mut b.sh, &mut b.os);
    b.settle();
    for r in reads {
        assert_eq!(b.os.result(r.id), EOF);
    }
    // What comes later is acknowledged and thrown away.
    b.card.recv(100, false);
    b.deliver();
    assert_eq!((b.os.discarded, b.os.rcv_avail()), (100, 0));
    b.finish();
}
