//! What the scenarios share.

use toehold_core::os::JobId;
use toehold_sim::buf::BufId;
use toehold_sim::job::Ended;
use toehold_sim::world::{EndConf, World};

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
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

/// A card that hands partly filled buffers back only when it must.
pub(crate) fn patient() -> t5sim::Config {
    t5sim::Config {
        push_timer: 50 * MS,
        ..t5sim::Config::default()
    }
}

/// A buffer of the process at end `e`.
pub(crate) fn buf(w: &mut World, e: usize, size: usize) -> BufId {
    let host = w.ends[e].host;
    w.bufs.add(host, size, 3)
}

/// Buffers of the process at end `e`, in physical runs of several lengths.
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

/// A read of `len` bytes into a new buffer.
pub(crate) fn read(w: &mut World, e: usize, len: usize) -> JobId {
    let b = buf(w, e, len.max(1));
    w.aio_read(e, b, 0, len)
}

/// A write of `len` bytes from a new buffer.
pub(crate) fn write(w: &mut World, e: usize, len: usize) -> JobId {
    let b = buf(w, e, len.max(1));
    w.aio_write(e, b, 0, len)
}

/// Reads posted and DDP on: as after a while of use.
pub(crate) fn posted(w: &mut World, e: usize, n: usize, len: usize) -> Vec<JobId> {
    let ids: Vec<_> = (0..n).map(|_| read(w, e, len)).collect();
    let tid = w.ends[e].tid.expect("open");
    w.run_until("posted", SEC, |w| {
        let c = w.card.connection(tid).expect("open");
        c.ddp.bufs.iter().filter(|b| b.valid).count() == n.min(2)
    });
    ids
}

/// Bytes a reader has, that it was told of.
pub(crate) fn got(w: &World, e: usize) -> u64 {
    w.ends[e].os.book.borrow().next
}

/// Bytes an end has put in its stream.
pub(crate) fn sent(w: &World, e: usize) -> u64 {
    w.ends[e].os.sends.borrow().len()
}

/// Bytes of a connection that its card has placed.
pub(crate) fn placed(w: &World, e: usize) -> u64 {
    let c = w.ends[e].tid.and_then(|t| w.card.connection(t));
    c.map_or(0, |c| c.stats.ddp_bytes)
}

/// Runs until `f` has what `e` has sent, reading into `bufs`.
pub(crate) fn drain(w: &mut World, e: usize, f: usize, bufs: &[BufId]) {
    let end = w.now + 20 * SEC;
    while got(w, f) < sent(w, e) {
        post(w, f, bufs);
        assert!(w.step() && w.now < end, "drain\n{}", w.story());
    }
}

/// Runs until every write has ended, `f` reading into `bufs`; then until it has all.
pub(crate) fn send(w: &mut World, e: usize, f: usize, ids: &[JobId], bufs: &[BufId]) {
    let end = w.now + 60 * SEC;
    while ids.iter().any(|&id| w.result(e, id).is_none()) {
        post(w, f, bufs);
        assert!(w.step() && w.now < end, "send\n{}", w.story());
    }
    drain(w, e, f, bufs);
}

/// Steps until a job has ended.
pub(crate) fn wait(w: &mut World, e: usize, id: JobId) -> Ended {
    w.run_until("a job", 20 * SEC, |w| w.result(e, id).is_some());
    w.result(e, id).expect("just looked")
}

/// Steps until all jobs of an end have ended.
pub(crate) fn quiet(w: &mut World, e: usize) {
    w.run_until("jobs", 20 * SEC, |w| w.jobs(e).is_empty());
}

/// Cancels what is left, closes both ends and looks that nothing is left.
pub(crate) fn finish(mut w: World, a: usize, b: usize) {
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
