//! Seeded schedules. `SEED=0x… cargo test -p toehold-sim replay` replays one; `RUNS=n` and
//! `FROM=seed` choose others than the default ones.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use toehold_sim::schedule::{Tally, run};

/// Schedules of a default run, and the time after which no further one is begun.
const RUNS: u64 = 3_000;
const BUDGET: Duration = Duration::from_secs(50);

fn number(name: &str) -> Option<u64> {
    let v = std::env::var(name).ok()?;
    let n = match v.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => v.parse(),
    };
    Some(n.unwrap_or_else(|_| panic!("{name}={v} is no number")))
}

fn guarded(seed: u64) -> Option<Tally> {
    catch_unwind(|| run(seed)).ok()
}

#[test]
fn schedules() {
    let from = number("FROM").unwrap_or(0);
    let runs = number("RUNS").unwrap_or(RUNS);
    let forced = number("RUNS").is_some();
    let next = AtomicU64::new(0);
    let sum = Mutex::new((Tally::default(), 0u64));
    let bad = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= runs || !forced && began.elapsed() > BUDGET {
                        return;
                    }
                    if bad.lock().unwrap().len() >= 8 {
                        return;
                    }
                    match guarded(from + i) {
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
        "failed; replay with SEED={:#x} cargo test -p toehold-sim replay (all: {bad:x?})",
        bad[0]
    );
    assert!(n >= 1_000.min(runs), "only {n} schedules in {BUDGET:?}");
    assert!(
        t.placed > 0 && t.cancels > 0 && t.broken > 0 && t.whole > 0,
        "{t:?}"
    );
}

#[test]
fn replay() {
    if let Some(seed) = number("SEED") {
        eprintln!("{:?}", run(seed));
    }
}
