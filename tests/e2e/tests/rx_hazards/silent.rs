//! An adapter that does not answer: programs end in time, what it may still write to stays held, and
//! the module stays until it is known to be done.

use std::time::Duration;

use toehold_e2e::bed::{Bed, TOE};
use toehold_e2e::pattern;
use ukern::proc::{AioCancel, Errno, Prot};
use ukern::sched::SBT_1S;

use crate::help::{SOON, check, on, peer, quiet, reader};

/// A bed whose adapter is waited for one second a step.
fn bed(seed: u64) -> Bed {
    let bed = Bed::up(seed);
    bed.set("answer_timeout", 1);
    bed
}

fn deaf(bed: &Bed, ppm: i64) {
    for what in ["set_tcb_rpl", "abort_rpl"] {
        bed.sim(&format!("lose_{what}"), ppm);
    }
}

/// What the adapter may write to, in pages: counted, wired, and the module stays for it.
fn held(bed: &Bed, pages: u64) {
    for gauge in ["orphaned_pages", "wired_pages"] {
        assert_eq!(bed.stat(gauge), pages, "{gauge}");
    }
    assert_eq!(bed.stat("orphans"), 1);
    assert_eq!(bed.k.kldunload("toehold"), Err(Errno::EBUSY.0));
    let said = format!("is done with 1 connections and {pages} pages of programs");
    let lines = bed.k.console();
    assert!(lines.iter().any(|l| l.contains(&said)), "{lines:?}");
    // Nor does it go by itself, or for want of memory.
    bed.k.run_for(100 * SBT_1S);
    assert_eq!(bed.k.wired_pages() as u64, pages);
}

/// The adapter answers after all.
fn found(bed: Bed) {
    deaf(&bed, 0);
    bed.sim("find_lost", 1);
    bed.k.run_for(SBT_1S);
    for gauge in ["orphaned_pages", "orphans"] {
        assert_eq!(bed.stat(gauge), 0, "{gauge}");
        assert!(bed.stat(&format!("{gauge}_max")) > 0, "{gauge}");
    }
    quiet(bed);
}

#[test]
fn unload_with_orphaned_pages() {
    let bed = bed(80);
    let r = reader(&bed, |p, s| {
        let va = p.mmap(65_536, Prot::RW).unwrap();
        let cb = p.aio_read(s, va, 65_536).unwrap();
        p.sleep(2 * SOON);
        assert_eq!(p.aio_cancel(s, Some(cb)), Ok(AioCancel::NotCanceled));
        // Two steps: the buffer is asked back, the connection is reset.
        let began = p.now();
        assert_eq!(p.aio_wait(cb), Err(Errno::EIO));
        let took = p.now() - began;
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
    let s = peer(&bed, |p, s| {
        p.sleep(Duration::from_secs(5));
        let _ = p.close(s);
    });
    bed.k.run_for(SBT_1S / 50);
    deaf(&bed, 1_000_000);
    r.join();
    s.join();
    held(&bed, 16);
    found(bed);
}

/// exit(2) cancels and waits for all jobs.
#[test]
fn a_process_exits_all_the_same() {
    let bed = bed(81);
    let r = reader(&bed, |p, s| {
        let va = p.mmap(65_536, Prot::RW).unwrap();
        p.aio_read(s, va, 65_536).unwrap();
        p.sleep(2 * SOON);
    });
    let s = peer(&bed, |p, s| {
        p.sleep(Duration::from_secs(5));
        let _ = p.close(s);
    });
    bed.k.run_for(SBT_1S / 50);
    deaf(&bed, 1_000_000);
    r.join();
    s.join();
    held(&bed, 16);
    found(bed);
}

/// Nothing of programs is at stake: the module may go, though tids stay taken.
#[test]
fn unload_with_a_tid_that_is_nobodys() {
    let bed = bed(82);
    bed.sim("lose_abort_rpl", 1_000_000);
    let seed = 82;
    on(
        &bed,
        move |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 65_536).unwrap();
            let n = p.aio_wait(cb).unwrap();
            check(p, va, n, seed, 0);
            p.setsockopt(s, ukern::proc::SockOpt::Linger(Some(0)))
                .unwrap();
            p.close(s).unwrap();
        },
        move |p, s| {
            p.send_all(s, &pattern::bytes(seed, 0, 3000)).unwrap();
            p.sleep(SOON);
            let _ = p.close(s);
        },
    );
    assert_eq!(
        bed.k.kldunload("toehold"),
        Err(Errno::EBUSY.0),
        "it may yet answer"
    );
    bed.k.run_for(90 * SBT_1S);
    for gauge in ["orphaned_pages", "orphans", "wired_pages", "toepcbs"] {
        assert_eq!(bed.stat(gauge), 0, "{gauge}");
    }
    assert!(bed.k.sysctl_get(&format!("{TOE}.answer_timeout")).is_ok());
    bed.k.kldunload("toehold").unwrap();
}
