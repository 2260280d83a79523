//! Work requests that cannot be built: nothing of them goes out, and their connection ends.

use super::fake::{FJob, Wr};
use super::rig::{Rig, id, init};
use crate::conn::{End, EstablishInit};
use crate::errno::Errno;
use crate::os::Counter;
use crate::shared::ConnId;

/// A connection that the adapter calls so.
fn up_as(id: ConnId) -> Rig {
    let mut r = Rig::fresh();
    let init = EstablishInit { id, ..init(66) };
    let o = r.conn.established(&mut r.os, &init);
    r.follow(o);
    r
}

#[test]
fn a_reply_queue_past_the_field_ends_the_connection() {
    // A TCB update has 10 bits for the queue of its reply.
    let mut r = up_as(ConnId { rxq: 0x400, ..id() });
    r.os.wrs.clear();
    let job = FJob::new(1, 0x10_0000, 8192);
    assert!(r.conn.aio_read(&mut r.os, job).is_ok());
    r.work();
    assert_eq!(r.os.wrs, []);
    assert_eq!(r.os.counter(Counter::BadWr), 1);
    assert!(r.os.retries > 0 && r.ends.is_empty());
    r.retry();
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.os.complaints.last(), Some(&(r.conn.id().tid, "queue")));
    assert!(matches!(r.os.wrs[..], [Wr::AbortReq { .. }]));
    r.retry();
    assert_eq!((r.finals, r.os.counter(Counter::BadWr)), (0, 1));
    r.abort_rpl();
    assert_eq!(r.finals, 1);
    assert_eq!(r.os.ended.get(&1), Some(&Err(Errno::ECONNABORTED)));
    r.nothing_left();
}

#[test]
fn a_message_in_between_ends_it_too() {
    let mut r = up_as(ConnId { rxq: 0x400, ..id() });
    let job = FJob::new(1, 0x10_0000, 8192);
    assert!(r.conn.aio_read(&mut r.os, job).is_ok());
    r.work();
    r.ack(1);
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
}

#[test]
fn a_tid_past_the_field_leaves_nobody_to_answer() {
    let mut r = up_as(ConnId {
        tid: 1 << 20,
        ..id()
    });
    r.write(1000);
    assert_eq!(r.os.counter(Counter::BadWr), 1);
    r.retry();
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.finals, 0);
    r.retry();
    assert_eq!((r.finals, r.os.counter(Counter::BadWr)), (1, 1));
    assert_eq!(r.os.wrs, []);
    r.nothing_left();
}
