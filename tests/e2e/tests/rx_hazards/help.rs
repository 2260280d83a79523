//! Two processes and a connection between them.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP, TOE};
use toehold_e2e::pattern;
use ukern::Api;
use ukern::proc::{Child, Proc, ProcConfig, SockOpt, addr};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// Ample time for whatever was begun to come to rest.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// Starts the side that is looked at: `f` gets the accepted socket.
pub(crate) fn reader<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    let child = bed.k.spawn(ProcConfig::vnet(SERVER).name("reader"), |p| {
        let l = p.socket().unwrap();
        p.setsockopt(l, SockOpt::ReuseAddr(true)).unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 4).unwrap();
        let (s, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        assert!(p.is_offloaded(s).unwrap());
        f(p, s)
    });
    bed.k.run_until_idle();
    child
}

/// Starts its peer.
pub(crate) fn peer<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    bed.k.spawn(ProcConfig::vnet(CLIENT).name("peer"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        assert!(p.is_offloaded(s).unwrap());
        f(p, s)
    })
}

/// Both to their ends on a bed of their own, then down with it: nothing may be left.
pub(crate) fn run<R: 'static, S: 'static>(
    seed: u64,
    r: impl FnOnce(&Proc, i32) -> R + 'static,
    s: impl FnOnce(&Proc, i32) -> S + 'static,
) -> (R, S) {
    let bed = Bed::up(seed);
    let both = on(&bed, r, s);
    quiet(bed);
    both
}

/// The same on a bed that is there.
pub(crate) fn on<R: 'static, S: 'static>(
    bed: &Bed,
    r: impl FnOnce(&Proc, i32) -> R + 'static,
    s: impl FnOnce(&Proc, i32) -> S + 'static,
) -> (R, S) {
    let r = reader(bed, r);
    let s = peer(bed, s);
    let s = s.join();
    (r.join(), s)
}

/// No page wired, no pod taken, no connection; then down.
pub(crate) fn quiet(bed: Bed) {
    bed.settle();
    assert_eq!(bed.k.wired_pages(), 0, "pages left wired");
    for gauge in ["wired_pages", "ppods_used", "toepcbs"] {
        assert_eq!(bed.stat(gauge), 0, "{gauge}");
    }
    bed.down();
}

/// A counter of toehold, from inside a program.
pub(crate) fn stat(k: Api, name: &str) -> u64 {
    let v = k.sysctl_get(&format!("{TOE}.stats.{name}"));
    v.ok()
        .and_then(|v| v.as_u64())
        .expect("a counter of toehold")
}

/// Reads plainly to the end of file; every byte is checked. Returns where the stream ended.
pub(crate) fn drain(p: &Proc, s: i32, seed: u64, mut at: u64) -> u64 {
    loop {
        let b = p.recv_bytes(s, 65_536).unwrap();
        if b.is_empty() {
            return at;
        }
        pattern::check(seed, at, &b);
        at += b.len() as u64;
    }
}

/// Checks `n` bytes at `va`; returns where the stream goes on.
pub(crate) fn check(p: &Proc, va: u64, n: usize, seed: u64, at: u64) -> u64 {
    pattern::check(seed, at, &p.load_vec(va, n));
    at + n as u64
}

/// A reader that tells its peer to go on.
pub(crate) fn go(p: &Proc, s: i32) {
    p.send_all(s, b"!").unwrap();
}

/// A peer that waits for that.
pub(crate) fn ready(p: &Proc, s: i32) {
    assert_eq!(p.recv_exact(s, 1).unwrap(), b"!");
}
