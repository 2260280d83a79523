//! What a process leaves behind: page sets that it kept for later go with it, though the
//! connection lives on.

use toehold_e2e::bed::Bed;
use toehold_e2e::pattern;
use ukern::proc::{Exit, Proc, Prot, Shut};
use ukern::sched::SBT_1US;

use crate::help::{LATER, SOON, drain, peer, quiet, writer};

/// Bytes of a buffer.
const LEN: usize = 60_000;

/// Reads all that comes, sends as much back, ends when the other side has.
fn echo(p: &Proc, s: i32) -> u64 {
    let mut n = 0;
    loop {
        match p.recv_bytes(s, 65_536) {
            Ok(b) if b.is_empty() => return n,
            Ok(b) => {
                n += b.len() as u64;
                p.send_all(s, &b).unwrap();
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Writes from one buffer and reads into another: each is in the cache then.
fn use_both(p: &Proc, s: i32) {
    let out = p.alloc(&pattern::bytes(1, 0, LEN));
    let back = p.mmap(LEN, Prot::RW).unwrap();
    let w = p.aio_write(s, out, LEN).unwrap();
    let mut at = 0;
    while at < LEN {
        let r = p.aio_read(s, back + at as u64, LEN - at).unwrap();
        at += p.aio_wait(r).unwrap();
    }
    assert_eq!(p.aio_wait(w), Ok(LEN));
    assert_eq!(p.load_vec(back, LEN), pattern::bytes(1, 0, LEN));
}

/// Nothing is wired, one retry after what has just happened, and the connection is there.
fn none_left(bed: &Bed) {
    bed.k.run_for(SBT_1US * 256_000);
    assert_eq!(bed.k.wired_pages(), 0, "pages left wired");
    assert_eq!(bed.stat("wired_pages"), 0);
    assert_eq!(bed.stat("ppods_used"), 0);
    assert_eq!(bed.stat("toepcbs"), 2);
}

#[test]
fn exit_with_a_shared_socket() {
    let bed = Bed::up(340);
    let r = peer(&bed, echo);
    let w = writer(&bed, |p, s| {
        let child = p.fork(move |c| use_both(c, s)).unwrap();
        child.join();
        p.sleep(LATER * 10);
        // It works for the next one.
        use_both(p, s);
        p.shutdown(s, Shut::Wr).unwrap();
        assert_eq!(drain(p, s, 0), 0);
    });
    bed.k.run_for(SBT_1US * 500_000);
    none_left(&bed);
    w.join();
    assert_eq!(r.join(), 2 * LEN as u64);
    quiet(bed);
}

#[test]
fn children_that_share_a_socket() {
    let bed = Bed::up(341);
    let r = peer(&bed, echo);
    let w = writer(&bed, |p, s| {
        for _ in 0..12 {
            p.fork(move |c| use_both(c, s)).unwrap().join();
        }
        p.sleep(LATER * 20);
        p.close(s).unwrap();
    });
    bed.k.run_for(SBT_1US * 1_500_000);
    none_left(&bed);
    w.join();
    assert_eq!(r.join(), 12 * LEN as u64);
    quiet(bed);
}

#[test]
fn exec_keeps_the_socket_alone() {
    let bed = Bed::up(342);
    let r = peer(&bed, echo);
    let w = writer(&bed, |p, s| {
        use_both(p, s);
        p.exec().unwrap();
        p.sleep(LATER * 10);
        use_both(p, s);
        p.close(s).unwrap();
    });
    bed.k.run_for(SBT_1US * 500_000);
    none_left(&bed);
    w.join();
    assert_eq!(r.join(), 2 * LEN as u64);
    quiet(bed);
}

/// The peer holds its end open for long.
fn open_peer(p: &Proc, s: i32) {
    while !p.recv_bytes(s, 65_536).unwrap().is_empty() {}
    p.sleep(LATER * 10);
}

#[test]
fn exit_before_an_open_peer() {
    let bed = Bed::up(343);
    let r = peer(&bed, open_peer);
    let w = writer(&bed, |p, s| {
        let va = p.alloc(&pattern::bytes(1, 0, LEN));
        let cb = p.aio_write(s, va, LEN).unwrap();
        assert_eq!(p.aio_wait(cb), Ok(LEN));
        p.exit(0)
    });
    let end: Exit<()> = w.wait();
    assert_eq!(end, Exit::Code(0));
    none_left(&bed);
    r.join();
    quiet(bed);
}

#[test]
fn exit_with_bytes_that_mbufs_still_refer_to() {
    let bed = Bed::up(344);
    let r = peer(&bed, |p, s| {
        p.sleep(LATER);
        let mut left = LEN;
        while left > 0 {
            left -= p.recv_bytes(s, left).unwrap().len();
        }
        p.sleep(LATER * 20);
        drain(p, s, 0)
    });
    let w = writer(&bed, |p, s| {
        let child = p.fork(move |c| {
            let va = c.alloc(&pattern::bytes(1, 0, LEN));
            c.aio_write(s, va, LEN).unwrap();
            c.sleep(SOON);
        });
        child.unwrap().join();
        p.sleep(LATER * 20);
        p.close(s).unwrap();
    });
    bed.k.run_for(SBT_1US * 700_000);
    none_left(&bed);
    w.join();
    assert_eq!(r.join(), 0);
    quiet(bed);
}

#[test]
fn the_last_close() {
    let bed = Bed::up(345);
    let r = peer(&bed, open_peer);
    let w = writer(&bed, |p, s| {
        let va = p.alloc(&pattern::bytes(1, 0, LEN));
        let cb = p.aio_write(s, va, LEN).unwrap();
        assert_eq!(p.aio_wait(cb), Ok(LEN));
        p.close(s).unwrap();
        p.sleep(LATER * 5);
    });
    bed.k.run_for(SBT_1US * 200_000);
    none_left(&bed);
    w.join();
    r.join();
    quiet(bed);
}
