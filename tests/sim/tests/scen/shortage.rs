//! Hazard 7: nothing is to be had, for a while. Everything goes on when it is over.

use toehold_core::errno::Errno;
use toehold_core::os::Counter;
use toehold_sim::os::Short;
use toehold_sim::world::{EndConf, World};

use crate::help::{MS, SEC, bufs, finish, pair, pair_with, post, read, send, wait, write};

/// Everything of a kind is refused for 10 ms, in the middle of a transfer.
fn drought(short: Short) -> World {
    let (mut w, a, b) = pair(9);
    w.short = short;
    let dst = bufs(&mut w, b, 3, 64 << 10);
    let src = bufs(&mut w, a, 3, 200_000);
    post(&mut w, b, &dst);
    let mut ids: Vec<_> = src.iter().map(|&s| w.aio_write(a, s, 0, 200_000)).collect();
    w.run_for(30_000);
    w.ends[a].os.short = short;
    w.ends[b].os.short = short;
    let end = w.now + 10 * MS;
    while w.now < end && w.step() {
        post(&mut w, b, &dst);
    }
    w.ends[a].os.short = Short::default();
    w.ends[b].os.short = Short::default();
    ids.retain(|&id| w.result(a, id).is_none());
    send(&mut w, a, b, &ids, &dst);
    for id in ids {
        assert_eq!(w.result(a, id), Some(Ok(200_000)));
    }
    finish(w, a, b);
    pair(1).0
}

#[test]
fn of_work_requests() {
    drought(Short {
        wr: 1000,
        ..Short::default()
    });
}

#[test]
fn of_page_pods() {
    drought(Short {
        ppods: 1000,
        ..Short::default()
    });
}

#[test]
fn of_mbufs() {
    drought(Short {
        mbuf: 1000,
        ..Short::default()
    });
}

#[test]
fn of_budget() {
    drought(Short {
        charge: 1000,
        ..Short::default()
    });
}

#[test]
fn of_the_locks() {
    drought(Short {
        io: 1000,
        ..Short::default()
    });
}

#[test]
fn of_everything_half_of_the_time() {
    drought(Short {
        wr: 500,
        ppods: 500,
        mbuf: 500,
        charge: 500,
        io: 500,
        ..Short::default()
    });
}

#[test]
fn pods_that_another_connection_has() {
    let cfg = t5sim::Config {
        ppods: 16,
        ..t5sim::Config::default()
    };
    let (mut w, a, b) = pair_with(cfg, 10, EndConf::default(), EndConf::default());
    let (c, d) = w.open(0, EndConf::default(), EndConf::default());
    // Both pairs' readers want most of the pods there are.
    let mut scattered = |e: usize| -> Vec<_> {
        let host = w.ends[e].host;
        (0..3).map(|_| w.bufs.add(host, 128 << 10, 1)).collect()
    };
    let (x, y) = (scattered(b), scattered(d));
    post(&mut w, b, &x);
    w.run_for(MS);
    post(&mut w, d, &y);
    for _ in 0..4 {
        let p = write(&mut w, a, 100_000);
        let q = write(&mut w, c, 100_000);
        send(&mut w, a, b, &[p], &x);
        send(&mut w, c, d, &[q], &y);
    }
    let no = w.ends[b].os.counter(Counter::NoPpods) + w.ends[d].os.counter(Counter::NoPpods);
    assert!(no > 0, "there was no shortage");
    for e in [b, d] {
        for id in w.jobs(e) {
            w.cancel(e, id);
        }
    }
    w.run_until("cancels", SEC, |w| {
        w.jobs(b).is_empty() && w.jobs(d).is_empty()
    });
    w.close(c);
    w.close(d);
    finish(w, a, b);
}

#[test]
fn a_budget_of_one_buffer() {
    let (mut w, a, b) = pair(11);
    for p in [0, 1] {
        w.mem.borrow_mut().set_budget(p, 20);
    }
    let dst = bufs(&mut w, b, 3, 64 << 10);
    let src = bufs(&mut w, a, 3, 64 << 10);
    for _ in 0..4 {
        post(&mut w, b, &dst);
        let ids: Vec<_> = src
            .iter()
            .map(|&s| w.aio_write(a, s, 0, 64 << 10))
            .collect();
        send(&mut w, a, b, &ids, &dst);
    }
    finish(w, a, b);
}

#[test]
fn of_memory_while_pages_are_held() {
    let (mut w, a, b) = pair(12);
    w.short.nomem = 1;
    w.ends[b].os.short.nomem = 1000;
    let id = read(&mut w, b, 8192);
    write(&mut w, a, 8192);
    w.run_for(5 * MS);
    assert_eq!(w.result(b, id), None, "it waits for memory");
    w.ends[b].os.short.nomem = 0;
    assert_eq!(wait(&mut w, b, id), Ok(8192));
    finish(w, a, b);
}

#[test]
fn of_pages_that_are_not_there() {
    let (mut w, a, b) = pair(13);
    w.short.fault = 1;
    w.ends[b].os.short.fault = 1000;
    let id = read(&mut w, b, 8192);
    assert_eq!(wait(&mut w, b, id), Err(Errno::EFAULT));
    w.ends[b].os.short.fault = 0;
    let id = read(&mut w, b, 8192);
    write(&mut w, a, 8192);
    assert_eq!(wait(&mut w, b, id), Ok(8192));
    finish(w, a, b);
}

#[test]
fn of_work_requests_while_closing() {
    for reset in [false, true] {
        let (mut w, a, b) = pair(14);
        crate::help::posted(&mut w, b, 2, 8192);
        write(&mut w, a, 100);
        w.run_for(20_000);
        for e in [a, b] {
            w.ends[e].os.short.wr = 1000;
        }
        if reset {
            w.reset(a);
        } else {
            w.shutdown_wr(a);
        }
        w.run_for(5 * MS);
        for e in [a, b] {
            w.ends[e].os.short.wr = 0;
        }
        finish(w, a, b);
    }
}
