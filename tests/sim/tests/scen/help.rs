//! What the scenarios share.

use toehold_sim::buf::BufId;
use toehold_sim::world::{EndConf, World};

pub(crate) const SEC: u64 = 1_000_000_000;

/// A card with no fault, one connection with default ends.
pub(crate) fn pair(seed: u64) -> (World, usize, usize) {
    pair_with(
        t5sim::Config::default(),
        seed,
        EndConf::default(),
        EndConf::default(),
    )
}

pub(crate) fn pair_with(
    cfg: t5sim::Config,
    seed: u64,
    a: EndConf,
    b: EndConf,
) -> (World, usize, usize) {
    let mut w = World::new(cfg, seed);
    let (a, b) = w.open(0, a, b);
    (w, a, b)
}

/// Buffers of the process at end `e`.
pub(crate) fn bufs(w: &mut World, e: usize, n: usize, size: usize) -> Vec<BufId> {
    let host = w.ends[e].host;
    (0..n)
        .map(|i| w.bufs.add(host, size, 1 << (i % 5)))
        .collect()
}

/// A read of all of every buffer that no job uses.
pub(crate) fn post(w: &mut World, e: usize, bufs: &[BufId]) {
    for &b in bufs {
        if !w.bufs.busy(b) {
            w.aio_read(e, b, 0, w.bufs.size(b));
        }
    }
}

/// Bytes a reader has, that it was told of.
pub(crate) fn got(w: &World, e: usize) -> u64 {
    w.ends[e].os.book.borrow().next
}

/// Bytes an end has put in its stream.
pub(crate) fn sent(w: &World, e: usize) -> u64 {
    w.ends[e].os.sends.borrow().len()
}

/// Runs until `f` has what `e` has sent, reading into `bufs`.
pub(crate) fn drain(w: &mut World, e: usize, f: usize, bufs: &[BufId]) {
    let end = w.now + 20 * SEC;
    while got(w, f) < sent(w, e) {
        post(w, f, bufs);
        assert!(w.step() && w.now < end, "drain\n{}", w.story());
    }
}

/// Cancels what is left, closes both ends and looks that nothing is left.
pub(crate) fn finish(w: &mut World, a: usize, b: usize) {
    for e in [a, b] {
        for id in w.jobs(e) {
            w.cancel(e, id);
        }
    }
    w.run_until("cancels", 20 * SEC, |w| {
        w.jobs(a).is_empty() && w.jobs(b).is_empty()
    });
    w.close(a);
    w.close(b);
    w.run_dry();
    w.check_empty();
}
