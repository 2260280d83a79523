//! `make demo DEMO=rotation`: reads that rotate over many buffers cost nothing once each buffer
//! has been used.
//!
//! BUFFERS: how many (64 by default). CACHE: page sets a connection keeps (`toe.ddp_cache`); 2 is
//! what t4_tom has. SEED: the schedule.

use toehold_e2e::rotation::{self, Cost};

use crate::number;

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
    for (what, n) in [("page holds", c.holds), ("page pods written", c.pods)] {
        if n != 0 {
            return Err(format!(
                "{n} {what} in {} reads with {} buffers and room for {}",
                c.jobs, c.buffers, c.cache
            ));
        }
    }
    Ok(())
}

/// The demonstration: its last line.
///
/// # Errors
/// Why it failed.
pub(crate) fn run() -> Result<String, String> {
    let n = number("BUFFERS")?.unwrap_or(64);
    let buffers = usize::try_from(n).ok().filter(|n| (1..=1024).contains(n));
    let buffers = buffers.ok_or(format!("BUFFERS={n} is not from 1 to 1024"))?;
    let cache = match number("CACHE")? {
        None => None,
        Some(n) => Some(i64::try_from(n).map_err(|_| format!("CACHE={n} is too large"))?),
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
