//! What kind of machine this is and which packages it lacks.

use std::path::Path;

use crate::Result;
use crate::run::{Cmd, Runner};

/// Debian packages a build needs.
pub const PACKAGES: [&str; 14] = [
    "rustc-web",
    "rust-web-src",
    "clang-19",
    "lld-19",
    "llvm-19",
    "libclang-19-dev",
    "libck-dev",
    "mandoc",
    "universal-ctags",
    "bmake",
    "python3",
    "ca-certificates",
    "make",
    "patch",
];

/// What the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Packages come from apt.
    pub debian: bool,
    /// Packages may be installed.
    pub root: bool,
    /// A FreeBSD system: modules are built from `sys/modules` there.
    pub freebsd: bool,
}

impl Host {
    /// Looks at the machine.
    ///
    /// # Errors
    /// `id` cannot be run.
    pub fn probe(runner: &dyn Runner) -> Result<Self> {
        let id = runner.output(&Cmd::new("id").arg("-u"))?;
        Ok(Self {
            debian: Path::new("/etc/debian_version").is_file(),
            root: id.stdout.trim() == "0",
            freebsd: cfg!(target_os = "freebsd"),
        })
    }
}

/// Those of `packages` that dpkg does not hold as installed.
///
/// # Errors
/// `dpkg-query` cannot be run.
pub fn missing_packages(runner: &dyn Runner, packages: &[&str]) -> Result<Vec<String>> {
    let cmd = Cmd::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\\n"])
        .args(packages);
    // Its exit status only says that some are unknown, which the list says better.
    let out = runner.output(&cmd)?;
    let installed: Vec<&str> = out
        .stdout
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(packages
        .iter()
        .filter(|p| !installed.contains(p))
        .map(|p| (*p).to_owned())
        .collect())
}

/// Installs packages with apt.
///
/// # Errors
/// The machine has no apt or we may not use it (the message then holds the command that
/// would), or apt fails.
pub fn install_packages(runner: &dyn Runner, host: Host, missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !host.root {
        return Err(format!(
            "missing packages: {names}; as root run: apt-get update && apt-get install -y {names}"
        ));
    }
    println!("installing {names}");
    let apt = || {
        Cmd::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("-qq")
    };
    if !runner.show(&apt().arg("update"))? {
        return Err("apt-get update failed; is there a network?".into());
    }
    if !runner.show(
        &apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(missing),
    )? {
        return Err(format!("apt-get could not install: {names}"));
    }
    Ok(())
}
