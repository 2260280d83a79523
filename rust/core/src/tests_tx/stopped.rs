//! The adapter stops: nothing of it is waited for.

use super::aio::{ADDR, ended};
use super::rig::Rig;
use crate::conn::{End, Outcome};
use crate::errno::Errno;

impl Rig {
    fn stop(&mut self) {
        self.os.stop_reading();
        let o = self.conn.adapter_stopped(&mut self.os);
        self.follow(o);
    }
}

#[test]
fn jobs_and_socket_hear_of_it() {
    let mut r = Rig::up();
    // One in flight, one whose pages are being held, one behind it.
    assert!(r.aio(1, ADDR, 10_000));
    r.work();
    assert!(r.aio(2, ADDR + 0x10_0000, 10_000));
    assert!(r.work_begin());
    assert!(r.aio(3, ADDR + 0x20_0000, 10_000));
    let sent = r.os.wrs.len();
    r.stop();
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.finals, 1);
    assert_eq!(r.os.wrs.len(), sent, "no work request is taken");
    assert_eq!(
        ended(&r, 1),
        Some(Ok(10_000)),
        "it was in so_snd, as of write(2)"
    );
    assert_eq!(ended(&r, 3), Some(Err(Errno::ECONNABORTED)));
    assert_eq!(ended(&r, 2), None, "somebody reads its process's memory");
    r.work_end(None);
    assert_eq!(ended(&r, 2), Some(Err(Errno::ECONNABORTED)));
    r.nothing_left();
}

#[test]
fn an_abort_under_way_is_over() {
    // Ours, sent; ours, not even sent; the peer's, not answered.
    for (no_wr, by_peer) in [(0, false), (99, false), (99, true)] {
        let mut r = Rig::up();
        assert!(r.aio(1, ADDR, 10_000));
        r.work();
        r.os.no_wr = no_wr;
        if by_peer {
            r.abort_req(20);
        } else {
            r.conn.send_rst(&mut r.os);
            r.drop_now();
        }
        let told = r.ends.len();
        assert_eq!(r.finals, 0);
        r.stop();
        assert_eq!((r.ends.len(), r.finals), (told, 1));
        r.retry();
        assert_eq!(r.finals, 1);
        r.nothing_left();
    }
}

#[test]
fn once_is_enough() {
    let mut r = Rig::up();
    r.write(3000);
    r.stop();
    assert_eq!(r.conn.adapter_stopped(&mut r.os), Outcome::NONE);
    r.nothing_left();
    let mut r = Rig::fresh();
    assert_eq!(r.conn.adapter_stopped(&mut r.os), Outcome::NONE);
}

#[test]
fn closing_on_both_sides_is_cut_short() {
    let mut r = Rig::up();
    r.write(3000);
    r.shutdown();
    r.peer_close();
    r.stop();
    assert_eq!(r.ends, [End::Drop(Errno::ECONNABORTED)]);
    assert_eq!(r.finals, 1);
    r.nothing_left();
}
