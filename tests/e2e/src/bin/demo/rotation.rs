//! `make demo DEMO=rotation`: reads that rotate over many buffers cost nothing once each buffer
//! has been used.
//!
//! BUFFERS: how many (64 by default). CACHE: page sets a connection keeps (`toe.ddp_cache`); 2 is
//! what t4_tom has. SEED: the schedule.

use toehold_e2e::rotation::{self, Cost};

use crate::number;

/// Page sets that a connection has at most.
const MOST_SETS: i64 = 64;

/// A number for people: none of the event is a plain 0.
fn show(x: f64) -> String {
    if x == 0.0 {
        "0".into()
    } else {
        format!("{x:.2}")
    }
}

fn row(c: &Cost) -> String {
    let placed = c.placed as f64 * 100.0 / c.bytes.max(1) as f64;
    format!(
        "{:>7} {:>6} {:>6} {:>9} {:>10} {:>15} {:>11} {:>8.1}%",
        c.buffers,
        c.cache,
        c.jobs,
        c.bytes / c.jobs.max(1),
        show(c.per_job(c.holds)),
        show(c.per_job(c.pods)),
        show(c.per_job(c.allocs)),
        placed,
    )
}

fn verdict(c: &Cost) -> Result<(), String> {
    if c.cache < c.buffers {
        return Ok(());
    }
    let costs = [
        ("page holds", c.holds),
        ("page pods written", c.pods),
        ("allocations", c.allocs),
    ];
    for (what, n) in costs {
        if n != 0 {
            return Err(format!(
                "{n} {what} in {} reads with {} buffers and room for {}",
                c.jobs, c.buffers, c.cache
            ));
        }
    }
    Ok(())
}

/// A variable's value, if it is in its range.
fn within(name: &str, n: u64, least: i64, most: i64) -> Result<i64, String> {
    i64::try_from(n)
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or(format!("{name}={n} is not from {least} to {most}"))
}

/// The demonstration: its last line.
///
/// # Errors
/// Why it failed.
pub(crate) fn run() -> Result<String, String> {
    let buffers = within("BUFFERS", number("BUFFERS")?.unwrap_or(64), 1, 1024)?;
    let buffers = usize::try_from(buffers).unwrap_or(1);
    let cache = match number("CACHE")? {
        None => None,
        Some(n) => Some(within("CACHE", n, 0, MOST_SETS)?),
    };
    let seed = number("SEED")?.unwrap_or(1);
    println!(
        "One connection, reads of {} bytes outstanding on every buffer, after warm-up.",
        rotation::BUF
    );
    println!();
    println!("buffers  cache  reads bytes/read holds/read pod writes/read allocs/read   placed");
    let mut all = Vec::new();
    for n in [3, 8, buffers] {
        let c = rotation::run(seed, n, cache);
        println!("{}", row(&c));
        all.push(c);
    }
    println!();
    for c in &all {
        verdict(c)?;
    }
    let c = all.last().ok_or("nothing was run")?;
    Ok(format!(
        "buffers={} cache={} holds_per_job={} pod_writes_per_job={} allocs_per_job={}",
        c.buffers,
        c.cache,
        show(c.per_job(c.holds)),
        show(c.per_job(c.pods)),
        show(c.per_job(c.allocs)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        assert_eq!(within("CACHE", 64, 0, 64), Ok(64));
        assert_eq!(within("CACHE", 0, 0, 64), Ok(0));
        for (n, why) in [
            (65, "CACHE=65 is not from 0 to 64"),
            (u64::MAX, "CACHE=18446744073709551615 is not from 0 to 64"),
        ] {
            assert_eq!(within("CACHE", n, 0, 64), Err(why.into()));
        }
        assert_eq!(
            within("BUFFERS", 0, 1, 1024),
            Err("BUFFERS=0 is not from 1 to 1024".into())
        );
    }

    #[test]
    fn a_cost_where_there_is_room_is_a_failure() {
        let c = Cost {
            buffers: 3,
            cache: 64,
            jobs: 10,
            ..Cost::default()
        };
        assert_eq!(verdict(&c), Ok(()));
        for bad in [
            Cost { holds: 1, ..c },
            Cost { pods: 1, ..c },
            Cost { allocs: 1, ..c },
        ] {
            assert!(verdict(&bad).is_err());
            // With less room it is what is to be shown.
            assert_eq!(verdict(&Cost { cache: 2, ..bad }), Ok(()));
        }
    }
}
