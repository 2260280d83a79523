//! A TLS session of the kernel's takes so_snd over: from then on no byte of a write job goes there
//! as it is.

use super::aio::{ADDR, ended, sent};
use super::rig::Rig;
use crate::errno::Errno;

/// One job in so_snd, one half, one not begun.
fn three() -> Rig {
    let mut r = Rig::with_credits(255);
    r.os.hiwat = 100_000;
    for id in 1..=3 {
        r.aio(id, ADDR + 0x100_0000 * id as u64, 70_000);
    }
    r.work();
    assert_eq!(r.os.used(), 100_000);
    r
}

#[test]
fn no_write_is_claimed() {
    let mut r = Rig::up();
    r.os.tls = true;
    r.conn.tls(&mut r.os);
    assert!(!r.aio(1, ADDR, 10_000));
    assert_eq!(r.os.used(), 0);
    r.check();
}

#[test]
fn what_was_queued_before_ends() {
    let mut r = three();
    r.os.tls = true;
    r.conn.tls(&mut r.os);
    r.check();
    assert_eq!(r.os.used(), 100_000);
    assert_eq!(ended(&r, 3), Some(Err(Errno::EOPNOTSUPP)));
    r.ack_all();
    // These bytes were in so_snd when the session began.
    assert_eq!(sent(&r), 100_000);
    assert_eq!(ended(&r, 1), Some(Ok(70_000)));
    assert_eq!(ended(&r, 2), Some(Ok(30_000)));
}

/// The kernel marks so_snd before it tells anybody.
#[test]
fn nothing_is_appended_before_the_connection_is_told() {
    let mut r = three();
    r.os.tls = true;
    r.ack(1);
    r.ack_all();
    assert_eq!(sent(&r), 100_000);
    assert_eq!(ended(&r, 3), Some(Err(Errno::EOPNOTSUPP)));
}

/// A worker comes back with pages, or with a copy, for a job that must not use them.
#[test]
fn a_worker_comes_back_too_late() {
    for len in [100, 70_000] {
        let mut r = Rig::up();
        r.aio(1, ADDR, len);
        if !r.work_begin() {
            continue;
        }
        r.os.tls = true;
        r.conn.tls(&mut r.os);
        r.work_end(None);
        assert_eq!(r.os.used(), 0);
        assert_eq!(ended(&r, 1), Some(Err(Errno::EOPNOTSUPP)));
        r.check();
    }
}
