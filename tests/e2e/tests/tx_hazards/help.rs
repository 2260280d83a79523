//! Two processes and a connection between them: one writes, its peer reads or does not.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{AioCb, Child, Errno, Proc, ProcConfig, SigAction, SockOpt, Sys, addr};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// Ample time for whatever was begun to come to rest.
pub(crate) const SOON: Duration = Duration::from_millis(20);
/// Longer than a peer sits on its hands.
pub(crate) const LATER: Duration = Duration::from_millis(100);
/// More than can be outstanding on any connection.
pub(crate) const BIG: usize = 12 << 20;

/// Starts the peer: `f` gets the accepted socket, with a small receive buffer.
pub(crate) fn peer<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    let child = bed.k.spawn(ProcConfig::vnet(SERVER).name("peer"), |p| {
        let l = p.socket().unwrap();
        p.setsockopt(l, SockOpt::ReuseAddr(true)).unwrap();
        p.setsockopt(l, SockOpt::RcvBuf(64 << 10)).unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 4).unwrap();
        let (s, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        f(p, s)
    });
    bed.k.run_until_idle();
    child
}

/// Starts the side that is looked at. SIGPIPE is counted.
pub(crate) fn writer<R: 'static>(bed: &Bed, f: impl FnOnce(&Proc, i32) -> R + 'static) -> Child<R> {
    let config = ProcConfig::vnet(CLIENT)
        .name("writer")
        .sigpipe(SigAction::Catch);
    bed.k.spawn(config, |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        assert!(p.is_offloaded(s).unwrap());
        f(p, s)
    })
}

/// Both to their ends on a bed of their own, then down with it: nothing may be left.
pub(crate) fn run<W: 'static, R: 'static>(
    seed: u64,
    w: impl FnOnce(&Proc, i32) -> W + 'static,
    r: impl FnOnce(&Proc, i32) -> R + 'static,
) -> (W, R) {
    let bed = Bed::up(seed);
    let both = on(&bed, w, r);
    quiet(bed);
    both
}

/// The same on a bed that is there.
pub(crate) fn on<W: 'static, R: 'static>(
    bed: &Bed,
    w: impl FnOnce(&Proc, i32) -> W + 'static,
    r: impl FnOnce(&Proc, i32) -> R + 'static,
) -> (W, R) {
    let r = peer(bed, r);
    let w = writer(bed, w);
    let w = w.join();
    (w, r.join())
}

/// No page wired, no connection; then down.
pub(crate) fn quiet(bed: Bed) {
    bed.settle();
    assert_eq!(bed.k.wired_pages(), 0, "pages left wired");
    for gauge in ["wired_pages", "toepcbs"] {
        assert_eq!(bed.stat(gauge), 0, "{gauge}");
    }
    bed.down();
}

/// Reads to the end of the stream, each byte checked; a reset ends it, too. Returns how many.
pub(crate) fn drain(p: &Proc, s: i32, seed: u64) -> u64 {
    drain_from(p, s, seed, 0)
}

/// The same, not from the beginning of the pattern.
pub(crate) fn drain_from(p: &Proc, s: i32, seed: u64, mut at: u64) -> u64 {
    loop {
        match p.recv_bytes(s, 65_536) {
            Ok(b) if b.is_empty() => return at,
            Ok(b) => {
                pattern::check(seed, at, &b);
                at += b.len() as u64;
            }
            Err(Errno::ECONNRESET) => return at,
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Sits for a while, then [`drain`]s.
pub(crate) fn drain_late(seed: u64) -> impl FnOnce(&Proc, i32) -> u64 {
    move |p, s| {
        p.sleep(LATER);
        drain(p, s, seed)
    }
}

/// RST instead of FIN.
pub(crate) fn reset(p: &Proc, s: i32) {
    p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
    p.close(s).unwrap();
}

/// Write jobs of `lens` bytes each, in the pattern's order from its start.
pub(crate) fn writes(p: &Proc, s: i32, seed: u64, lens: &[usize]) -> Vec<AioCb> {
    let mut at = 0;
    lens.iter()
        .map(|len| {
            let va = p.alloc(&pattern::bytes(seed, at, *len));
            at += *len as u64;
            p.aio_write(s, va, *len).unwrap()
        })
        .collect()
}

/// How they end.
pub(crate) fn ends(p: &Proc, jobs: Vec<AioCb>) -> Vec<Sys<usize>> {
    jobs.into_iter().map(|cb| p.aio_wait(cb)).collect()
}

pub(crate) fn in_progress(p: &Proc, cb: AioCb) -> bool {
    p.aio_error(cb) == Ok(Errno::EINPROGRESS.0)
}
