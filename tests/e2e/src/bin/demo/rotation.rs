//! `make demo DEMO=rotation`: reads and writes that rotate over many buffers cost nothing once each
//! buffer has been used, but a look at the page table per page of a write.
//!
//! BUFFERS: how many (64 by default). CACHE: page sets a connection keeps (`toe.ddp_cache`); 2 is
//! what t4_tom has. SEED: the schedule.

use toehold_e2e::rotation::{self, Cost, Way};

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

fn row(way: Way, c: &Cost) -> String {
    let placed = c.placed as f64 * 100.0 / c.bytes.max(1) as f64;
    format!(
        "{:>6} {:>7} {:>6} {:>6} {:>9} {:>9} {:>14} {:>10} {:>12} {:>8.1}%",
        match way {
            Way::Reads => "read",
            Way::Writes => "write",
        },
        c.buffers,
        c.cache,
        c.jobs,
        c.bytes / c.jobs.max(1),
        show(c.per_job(c.holds)),
        show(c.per_job(c.pods)),
        show(c.per_job(c.allocs)),
        show(c.lookups_per_page()),
        placed,
    )
}

fn verdict(way: Way, c: &Cost) -> Result<(), String> {
    if way.room(c.cache) < c.buffers {
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
                "{n} {what} in {} jobs with {} buffers and room for {}",
                c.jobs, c.buffers, c.cache
            ));
        }
    }
    if c.lookups_per_page() > 1.0 {
        return Err(format!(
            "the page table is asked {:.2} times per page with {} buffers and room for {}",
            c.lookups_per_page(),
            c.buffers,
            c.cache
        ));
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
        "One connection, reads or writes of {} bytes outstanding on every buffer, after warm-up.",
        rotation::BUF
    );
    println!();
    println!(
        "   job buffers  cache   jobs bytes/job holds/job pod writes/job allocs/job lookups/page uncopied"
    );
    let mut all = Vec::new();
    for way in [Way::Reads, Way::Writes] {
        for n in [3, 8, buffers] {
            // As many as there are sets is meant to fit.
            let sets = usize::try_from(cache.unwrap_or(MOST_SETS)).unwrap_or(0);
            let n = if n <= sets {
                n.min(way.room(sets).max(1))
            } else {
                n
            };
            let c = rotation::run(way, seed, n, cache);
            println!("{}", row(way, &c));
            all.push((way, c));
        }
    }
    println!();
    for (way, c) in &all {
        verdict(*way, c)?;
    }
    let (_, c) = all.first().ok_or("nothing was run")?;
    Ok(format!(
        "buffers={buffers} cache={} holds_per_job={} pod_writes_per_job={} allocs_per_job={} lookups_per_page={}",
        c.cache,
        show(most(&all, |c| c.per_job(c.holds))),
        show(most(&all, |c| c.per_job(c.pods))),
        show(most(&all, |c| c.per_job(c.allocs))),
        show(most(&all, Cost::lookups_per_page)),
    ))
}

/// The more costly of the last run of reads and the last one of writes, those over the most buffers.
fn most(all: &[(Way, Cost)], rate: impl Fn(&Cost) -> f64) -> f64 {
    let last = |way| all.iter().rfind(|(w, _)| *w == way);
    let two = [last(Way::Reads), last(Way::Writes)];
    two.iter()
        .flatten()
        .map(|(_, c)| rate(c))
        .fold(0.0, f64::max)
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
            lookups: 160,
            ..Cost::default()
        };
        assert_eq!(verdict(Way::Reads, &c), Ok(()));
        assert_eq!(verdict(Way::Writes, &c), Ok(()));
        for bad in [
            Cost { holds: 1, ..c },
            Cost { pods: 1, ..c },
            Cost { allocs: 1, ..c },
            Cost { lookups: 161, ..c },
        ] {
            assert!(verdict(Way::Reads, &bad).is_err());
            // With less room it is what is to be shown.
            let less = Cost { cache: 2, ..bad };
            assert_eq!(verdict(Way::Reads, &less), Ok(()));
            // Writes leave four sets to reads.
            let six = Cost { cache: 6, ..bad };
            assert!(verdict(Way::Reads, &six).is_err());
            assert_eq!(verdict(Way::Writes, &six), Ok(()));
        }
    }
}
