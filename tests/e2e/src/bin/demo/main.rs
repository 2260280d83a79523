//! `make demo`: what the modules do, shown on ukern.
//!
//! DEMO names the demonstration; without it a file is sent. Each has its own variables, named
//! at the head of its file. The last line says `ok` and its numbers, or `FAILED` and why.

mod file;
mod idle;
mod linerate;
mod rotation;

use std::io::Write;
use std::process::ExitCode;

/// Runs one: the numbers of the last line, or why it failed.
type Demo = fn() -> Result<String, String>;

/// The value of a variable that holds a number.
///
/// # Errors
/// It is no number.
fn number(name: &str) -> Result<Option<u64>, String> {
    match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(v) => v
            .parse()
            .map(Some)
            .map_err(|_| format!("{name}={v} is no number")),
    }
}

/// The demonstration of this name, and the word its last line begins with.
fn demo(name: &str) -> Option<(&'static str, Demo)> {
    match name {
        "file" => Some(("demo", file::run)),
        "idle" => Some(("idle", idle::run)),
        "linerate" => Some(("linerate", linerate::run)),
        "rotation" => Some(("rotation", rotation::run)),
        _ => None,
    }
}

fn main() -> ExitCode {
    let name = std::env::var("DEMO").unwrap_or_else(|_| "file".into());
    let (word, r) = match demo(&name) {
        // A panic of the simulated kernel has said all there is to say on stderr.
        Some((word, f)) => (
            word,
            std::panic::catch_unwind(f).unwrap_or_else(|_| Err("the kernel panicked".into())),
        ),
        None => (
            "demo",
            Err(format!("there is no demonstration named {name}")),
        ),
    };
    let mut out = std::io::stdout();
    // Nothing to be done if the reader is gone.
    let _ = match &r {
        Ok(s) => writeln!(out, "{word}: ok {s}"),
        Err(why) => writeln!(out, "{word}: FAILED {why}"),
    };
    if r.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
