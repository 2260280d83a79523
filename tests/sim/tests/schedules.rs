//! Seeded schedules. `SEED=0x… cargo test -p toehold-sim replay` replays one, `MIX=0x…` one of
//! `writers`; `RUNS=n` and `FROM=seed` choose others than the default ones.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use toehold_sim::schedule::{Tally, run, writers};

/// Schedules of a default run, and the time after which no further one is begun.
const RUNS: u64 = 3_000;
const BUDGET: Duration = Duration::from_secs(50);
/// The same for mixes of writers.
const MIXES: u64 = 1_000;
const MIX_BUDGET: Duration = Duration::from_secs(20);

fn number(name: &str) -> Option<u64> {
    let v = std::env::var(name).ok()?;
    let n = match v.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => v.parse(),
    };
    Some(n.unwrap_or_else(|_| panic!("{name}={v} is no number")))
}

/// Run the seeds on two threads: the sum, and how many there were.
fn many(runs: u64, budget: Duration, name: &str, f: fn(u64) -> Tally) -> (Tally, u64) {
    let from = number("FROM").unwrap_or(0);
    let forced = number("RUNS");
    let runs = forced.unwrap_or(runs);
    let next = AtomicU64::new(0);
    let sum = Mutex::new((Tally::default(), 0u64));
    let bad = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= runs || forced.is_none() && began.elapsed() > budget {
                        return;
                    }
                    if bad.lock().unwrap().len() >= 8 {
                        return;
                    }
                    match catch_unwind(|| f(from + i)).ok() {
                        Some(t) => {
                            let mut sum = sum.lock().unwrap();
                            sum.0.add(&t);
                            sum.1 += 1;
                        }
                        None => bad.lock().unwrap().push(from + i),
                    }
                }
            });
        }
    });
    let (t, n) = *sum.lock().unwrap();
    eprintln!("{n} schedules in {:?}: {t:?}", began.elapsed());
    let bad = bad.into_inner().unwrap();
    assert!(
        bad.is_empty(),
        "failed; replay with {name}={:#x} cargo test -p toehold-sim replay (all: {bad:x?})",
        bad[0]
    );
    (t, n)
}

#[test]
fn schedules() {
    let (t, n) = many(RUNS, BUDGET, "SEED", run);
    assert!(
        n >= 1_000.min(number("RUNS").unwrap_or(RUNS)),
        "only {n} schedules in {BUDGET:?}"
    );
    assert!(
        t.placed > 0 && t.cancels > 0 && t.broken > 0 && t.whole > 0,
        "{t:?}"
    );
}

/// aio_write, aio_writev, write(2), sendfile(2), cancels and resets: the stream at the peer is
/// what the results promised.
#[test]
fn mixes_of_writers() {
    let (t, n) = many(MIXES, MIX_BUDGET, "MIX", writers);
    assert!(n >= 200.min(number("RUNS").unwrap_or(MIXES)), "only {n}");
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
