//! Seeded schedules. `SEED=0x… cargo test -p toehold-sim replay` replays one, `MIX=0x…` one of
//! `writers`; `RUNS=n` and `FROM=seed` choose others than the default ones.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use toehold_sim::schedule::{Tally, run, writers};

/// Schedules of a default run.
const RUNS: u64 = 3_000;
/// Mixes of writers of a default run.
const MIXES: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    let v = std::env::var(name).ok()?;
    let n = match v.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => v.parse(),
    };
    Some(n.unwrap_or_else(|_| panic!("{name}={v} is no number")))
}

/// Run the seeds on two threads: the sum.
fn many(runs: u64, name: &str, f: fn(u64) -> Tally) -> Tally {
    let from = number("FROM").unwrap_or(0);
    let runs = number("RUNS").unwrap_or(runs);
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Tally::default());
    let bad = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= runs || bad.lock().unwrap().len() >= 8 {
                        return;
                    }
                    match catch_unwind(|| f(from + i)).ok() {
                        Some(t) => sum.lock().unwrap().add(&t),
                        None => bad.lock().unwrap().push(from + i),
                    }
                }
            });
        }
    });
    let t = *sum.lock().unwrap();
    eprintln!("{runs} schedules in {:?}: {t:?}", began.elapsed());
    let bad = bad.into_inner().unwrap();
    assert!(
        bad.is_empty(),
        "failed; replay with {name}={:#x} cargo test -p toehold-sim replay (all: {bad:x?})",
        bad[0]
    );
    t
}

#[test]
fn schedules() {
    let t = many(RUNS, "SEED", run);
    assert!(
        t.placed > 0 && t.cancels > 0 && t.broken > 0 && t.whole > 0,
        "{t:?}"
    );
}

/// aio_write, aio_writev, write(2), sendfile(2), cancels and resets: the stream at the peer is
/// what the results promised.
#[test]
fn mixes_of_writers() {
    let t = many(MIXES, "MIX", writers);
    assert!(
        t.held > 0 && t.copied > 0 && t.cancels > 0 && t.broken > 0 && t.whole > 0,
        "{t:?}"
    );
}

#[test]
fn replay() {
    if let Some(seed) = number("SEED") {
        eprintln!("{:?}", run(seed));
    }
    if let Some(seed) = number("MIX") {
        eprintln!("{:?}", writers(seed));
    }
}
