//! `make check`: formatting, lints, gates, manual pages.

use std::ffi::OsString;

use crate::gate;
use crate::generated;
use crate::host::{self, Host};
use crate::kmod::{self, MODULES};
use crate::run::{Cmd, Runner};
use crate::sysdir::Given;
use crate::tree::{RELEASES, Tree};
use crate::{Result, circles, native, planted, setup, standin};

/// Crates that run on the host.
const HOST: [&str; 7] = [
    "toehold-wire",
    "toehold-core",
    "t5sim",
    "xtask",
    "ukern",
    "toehold-sim",
    "toehold-e2e",
];

/// Crates that run in the kernel.
const KERNEL: [&str; 4] = ["toehold-sys", "toehold-kpi", "toehold-kmod", "t5sim-kmod"];

/// What rustdoc is told: the crates are documented for those who work on them, private items
/// too, so that public ones may refer to those.
const DOC: &str = "--deny warnings --allow rustdoc::private_intra_doc_links";

fn cargo(tree: &Tree) -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    Cmd::new(cargo).dir(&tree.root)
}

fn packages(names: &[&str]) -> Vec<String> {
    names
        .iter()
        .flat_map(|name| ["--package".to_owned(), (*name).to_owned()])
        .collect()
}

/// `make fmt`: formats every crate.
///
/// # Errors
/// rustfmt is missing or fails.
pub fn fmt(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    lint_tools(tree, runner)?;
    step(runner, "formatting", &cargo(tree).args(["fmt", "--all"]))
}

/// Installs clippy and rustfmt where cargo has none.
fn lint_tools(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    let mut missing = Vec::new();
    for (command, package) in [("clippy", "rust-web-clippy"), ("fmt", "rustfmt-web")] {
        if !runner.output(&cargo(tree).args([command, "--version"]))?.ok {
            missing.push(package.to_owned());
        }
    }
    let host = Host::probe(runner)?;
    if !missing.is_empty() && !host.debian {
        return Err(format!(
            "cargo lacks {} (Debian's names)",
            missing.join(" ")
        ));
    }
    host::install_packages(runner, host, &missing)
}

fn step(runner: &dyn Runner, what: &str, cmd: &Cmd) -> Result<()> {
    println!("{what}");
    if runner.show(cmd)? {
        Ok(())
    } else {
        Err(format!("{what} failed: {}", cmd.line()))
    }
}

/// Runs everything.
///
/// # Errors
/// The first step that fails.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::run(tree, runner)?;
    lint_tools(tree, runner)?;
    step(
        runner,
        "formatting",
        &cargo(tree).args(["fmt", "--all", "--check"]),
    )?;
    println!("files that import each other");
    circles::check(tree)?;
    println!("faults that can be planted");
    planted::apply(tree, runner)?;
    let clippy = || cargo(tree).args(["clippy", "--quiet"]);
    let deny = ["--", "--deny", "warnings"];
    let host = clippy()
        .arg("--all-targets")
        .args(packages(&HOST))
        .args(deny);
    step(runner, "lints of the host crates", &host)?;
    // The kernel crates bring their own panic handler, hence the profile that aborts.
    let kernel = clippy()
        .args(["--release", "--lib"])
        .args(packages(&KERNEL))
        .args(deny);
    step(runner, "lints of the kernel crates", &kernel)?;
    // As for the lints.
    for (what, names, profile) in [
        ("documentation of the host crates", &HOST[..], "dev"),
        ("documentation of the kernel crates", &KERNEL[..], "release"),
    ] {
        let doc = cargo(tree)
            .env("RUSTDOCFLAGS", DOC)
            .args([
                "doc",
                "--quiet",
                "--no-deps",
                "--lib",
                "--document-private-items",
            ])
            .args(["--profile", profile])
            .args(packages(names));
        step(runner, what, &doc)?;
    }
    kmod::packaged(tree, runner, &RELEASES)?;
    gates(tree, runner)?;
    println!("bindings and checksums that sys/modules keeps");
    generated::check(tree, runner)?;
    println!("the build on FreeBSD, as far as it goes here");
    native::run(tree, runner)?;
    if let Some(given) = Given::read()? {
        println!("sys/standin");
        standin::run(tree, runner)?;
        println!("modules for the source tree");
        kmod::source_tree(tree, runner, &given)?;
    }
    manual(tree, runner)
}

/// Runs the gates over the modules as they lie in `target/kmod`.
///
/// # Errors
/// A module is missing or fails a gate.
pub fn gates(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    for release in RELEASES {
        for module in MODULES {
            let path = tree.modules(release).join(format!("{}.ko", module.name));
            gate::check_file(runner, &path, &kmod::spec(tree, module)?)
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn manual(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    let dir = tree.at("man");
    if !dir.is_dir() {
        return Ok(());
    }
    let mut pages = crate::tree::files(&dir, "4")?;
    pages.extend(crate::tree::files(&dir, "9")?);
    if pages.is_empty() {
        return Ok(());
    }
    step(
        runner,
        "manual pages",
        &Cmd::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .args(pages),
    )
}
