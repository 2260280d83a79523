//! `make demo`: a file through both modules on ukern.

use std::ffi::OsString;

use crate::run::{Cmd, Runner};
use crate::tree::Tree;
use crate::{Result, kmod, setup, tests};

/// Variables of make that the demonstration understands.
pub const VARIABLES: [&str; 8] = [
    "FILE", "DEMO", "SEED", "OFFSET", "SIZE", "BUFFERS", "CACHE", "CONNS",
];

/// Runs it.
///
/// # Errors
/// Setup or the build fails, or the demonstration does.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    // One release is enough, and the first run then fetches and builds half.
    let release = [tests::UKERN];
    setup::releases(tree, runner, &release)?;
    println!("building toehold.ko and t5sim.ko");
    kmod::packaged(tree, runner, &release)?;
    println!("building the kernel in user space and the demonstration");
    let given = |name: &str| crate::inputs::given(name);
    if runner.show(&command(tree, &given))? {
        Ok(())
    } else {
        Err("the demonstration failed".into())
    }
}

/// The command, with the variables that `given` knows; an empty one is taken away, so that
/// the demonstration sees either a value or nothing.
pub fn command(tree: &Tree, given: &dyn Fn(&str) -> Option<OsString>) -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut cmd = Cmd::new(cargo).dir(&tree.root).args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "toehold-e2e",
        "--bin",
        "demo",
    ]);
    for name in VARIABLES {
        cmd = match given(name) {
            Some(value) => cmd.env(name, value),
            None => cmd.unset(name),
        };
    }
    tests::ukern_env(tree, cmd)
}
