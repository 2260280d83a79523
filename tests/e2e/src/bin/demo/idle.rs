//! `make demo DEMO=idle`: memory of offloaded connections that do nothing.
//!
//! CONNS: how many (4,096 by default); both ends are on the adapter, so half as many pairs.
//! SEED: the schedule.

use toehold_e2e::idle::{self, Cost};

use crate::number;

/// Connections, unless CONNS says otherwise.
const CONNS: u64 = 4096;
/// Bytes that an idle connection may take, each piece rounded up as malloc(9) does.
const MOST: u64 = 2048;

fn row(what: &str, c: &Cost) {
    println!(
        "{what:>24} {:>7} {:>14} {:>14}",
        c.conns,
        c.asked / c.conns.max(1),
        c.taken / c.conns.max(1),
    );
}

/// Runs it.
///
/// # Errors
/// An idle connection takes more than it may.
pub(crate) fn run() -> Result<String, String> {
    let conns = number("CONNS")?.unwrap_or(CONNS);
    if !(2..=65_536).contains(&conns) {
        return Err(format!("CONNS={conns} is not from 2 to 65536"));
    }
    let pairs = usize::try_from(conns.div_ceil(2)).map_err(|e| e.to_string())?;
    let (never, after) = idle::measure(number("SEED")?.unwrap_or(1), pairs)?;
    println!(
        "{:>24} {:>7} {:>14} {:>14}",
        "connections", "", "bytes asked", "as malloc(9)"
    );
    row("idle since they opened", &never);
    row("idle after one aio each", &after);
    let each = never.taken.div_ceil(never.conns.max(1));
    if each > MOST {
        return Err(format!(
            "{each} bytes are allocated for an idle connection, over {MOST}"
        ));
    }
    Ok(format!("conns={} bytes_per_conn={each}", never.conns))
}
