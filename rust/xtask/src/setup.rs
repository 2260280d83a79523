//! `make setup`: puts the tools and headers of a build onto a Debian machine.
//! A second run finds everything and needs no network.

use std::path::Path;

use crate::host::{self, Host};
use crate::run::{Cmd, Runner};
use crate::tree::{RELEASES, Release, Tree};
use crate::{Result, headers, inputs};

/// Runs it on this machine.
///
/// # Errors
/// Something is missing and cannot be installed.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    releases(tree, runner, &RELEASES)
}

/// Runs it with the headers of some releases only.
///
/// # Errors
/// As [`run`].
pub fn releases(tree: &Tree, runner: &dyn Runner, releases: &[Release]) -> Result<()> {
    let host = Host::probe(runner)?;
    install(tree, runner, releases, host, Path::new("/usr/include"))?;
    inputs::check_all(runner, tree, releases)
}

/// Installs what is missing on a machine of kind `host`; `include` is its include folder.
///
/// # Errors
/// As [`run`].
pub fn install(
    tree: &Tree,
    runner: &dyn Runner,
    releases: &[Release],
    host: Host,
    include: &Path,
) -> Result<()> {
    refuse_freebsd(host)?;
    if host.debian {
        let missing = host::missing_packages(runner, &host::PACKAGES)?;
        host::install_packages(runner, host, &missing)?;
    } else {
        inputs::check_tools(&inputs::TOOLS, std::env::var_os("PATH")).map_err(|missing| {
            format!(
                "{missing} installs packages on Debian only; \
                 on this system install what Debian calls: {}",
                host::PACKAGES.join(" ")
            )
        })?;
    }
    let pip = || runner.output(&Cmd::new("python3").args(["-m", "pip", "--version"]));
    let fetching = releases.iter().any(|r| {
        !headers::present(tree, *r) && !tree.wheels().join(headers::wheel_name(*r)).is_file()
    });
    if fetching && host.debian && !pip()?.ok {
        host::install_packages(runner, host, &["python3-pip".to_owned()])?;
    }
    for release in releases {
        headers::install(runner, tree, *release)?;
    }
    headers::install_ck(tree, include)
}

/// On FreeBSD the modules are not cross-built.
///
/// # Errors
/// Always there.
pub fn refuse_freebsd(host: Host) -> Result<()> {
    if host.freebsd {
        return Err(
            "on FreeBSD the modules build from sys/modules with the system's own make: \
             `make -C sys/modules`; this command is for Debian 12"
                .into(),
        );
    }
    Ok(())
}
