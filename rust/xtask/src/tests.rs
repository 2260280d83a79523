//! `make test`: setup, modules, then every test and every planted fault, with one line of sum at
//! the end.

use std::ffi::OsString;

use crate::run::{Cmd, Runner};
use crate::tree::{RELEASES, Release, Tree};
use crate::{Result, kmod, planted, setup};

/// Crates with tests that run on the host.
const PACKAGES: [&str; 8] = [
    "toehold-wire",
    "toehold-core",
    "t5sim",
    "xtask",
    "ukern",
    "toehold-sim",
    "t5sim-kmod",
    "toehold-e2e",
];

/// Counts over all test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Test programs that reported.
    pub programs: u64,
    /// Names of those that failed.
    pub names: Vec<String>,
}

impl Sum {
    /// Adds a line of a test program's output, if it is its result or a test's that failed.
    pub fn line(&mut self, line: &str) {
        let test = line.strip_prefix("test ");
        if let Some(name) = test.and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.names.push(name.to_owned());
        }
        let Some(rest) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| -> u64 {
            rest.split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.programs += 1;
    }

    /// Adds what another run came to.
    pub fn add(&mut self, other: Sum) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.programs += other.programs;
        self.names.extend(other.names);
    }

    /// What is printed last: what failed, a line each, then the counts.
    pub fn text(&self) -> String {
        let failed = self.names.iter().map(|name| format!("failed: {name}\n"));
        let counts = format!("{} passed, {} failed\n", self.passed, self.failed);
        failed.chain([counts]).collect()
    }

    /// What the sum and cargo's own verdict come to.
    ///
    /// # Errors
    /// A test failed, none ran, or a test program did not compile or died.
    pub fn verdict(&self, cargo_ok: bool) -> Result<()> {
        if self.failed > 0 {
            return Err("some tests failed".into());
        }
        if !cargo_ok {
            return Err("a test program did not compile or did not finish".into());
        }
        if self.passed == 0 {
            return Err("no test ran".into());
        }
        Ok(())
    }
}

/// The release whose headers and modules ukern uses.
pub const UKERN: Release = RELEASES[1];

/// Points a program at the headers and modules that ukern uses.
pub fn ukern_env(tree: &Tree, cmd: Cmd) -> Cmd {
    cmd.env("TOEHOLD_HEADERS", tree.headers(UKERN))
        .env("TOEHOLD_KMOD", tree.modules(UKERN))
}

/// `cargo test` in a tree, with the variables of make that were given.
pub fn cargo_test(tree: &Tree) -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut cmd = Cmd::new(cargo)
        .dir(&tree.root)
        .args(["test", "--no-fail-fast"]);
    // make passes its variables on whether they are set or not; empty is not set.
    for name in crate::demo::VARIABLES {
        if crate::inputs::given(name).is_none() {
            cmd = cmd.unset(name);
        }
    }
    cmd
}

/// Runs everything.
///
/// # Errors
/// Setup or the build of the modules fails, or [`Sum::verdict`].
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::run(tree, runner)?;
    kmod::packaged(tree, runner, &RELEASES)?;
    let mut cmd = cargo_test(tree);
    for package in PACKAGES {
        cmd = cmd.args(["--package", package]);
    }
    let mut sum = Sum::default();
    let ok = runner.lines(&ukern_env(tree, cmd), &mut |line| {
        println!("{line}");
        sum.line(line);
    })?;
    sum.add(planted::each(tree, runner)?);
    print!("{}", sum.text());
    sum.verdict(ok)
}
