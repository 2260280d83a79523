//! Looks at what a build is given before the build starts; each bad input has one message.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::run::{Cmd, Runner};
use crate::tree::{HEADER_PARTS, Release, Tree};
use crate::{Error, Result};

/// Kernel objects are compiled with this `rustc` unless `KRUSTC` names another.
pub const RUSTC: &str = "/usr/bin/rustc";

/// A variable given to make; an empty one counts as not given.
pub fn given(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The compiler of kernel objects.
pub fn kernel_rustc() -> PathBuf {
    given("KRUSTC").map_or_else(|| PathBuf::from(RUSTC), PathBuf::from)
}

/// The version in what `rustc --version` prints.
pub fn rustc_version(printed: &str) -> Option<&str> {
    printed.strip_prefix("rustc ")?.split_whitespace().next()
}

/// Checks that the compiler is there and has the source of its own `core` beside it;
/// another version's source does not compile.
///
/// # Errors
/// No compiler, no source, or two versions.
pub fn check_rustc(runner: &dyn Runner, rustc: &Path) -> Result<()> {
    let shown = rustc.display();
    if !rustc.is_file() {
        return Err(format!(
            "{shown} is missing: kernel objects need rustc with the source of its core; run `make setup`"
        ));
    }
    let ask = |arg: &[&str]| -> Result<String> {
        let out = runner.output(&Cmd::new(rustc).args(arg))?;
        if out.ok {
            Ok(out.stdout.trim().to_owned())
        } else {
            Err(format!(
                "{shown} {} failed: {}",
                arg.join(" "),
                out.stderr.trim()
            ))
        }
    };
    let printed = ask(&["--version"])?;
    let version = rustc_version(&printed)
        .ok_or_else(|| format!("{shown} is no rustc: it calls itself `{}`", first(&printed)))?;
    let sysroot = ask(&["--print", "sysroot"])?;
    check_rust_source(
        &shown.to_string(),
        version,
        &Path::new(&sysroot).join("lib/rustlib/src/rust"),
    )
}

fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Checks that `source` holds the library source of `rustc` version `version`.
///
/// # Errors
/// There is no source, or it is of another version.
pub fn check_rust_source(rustc: &str, version: &str, source: &Path) -> Result<()> {
    if !source.join("library/core/Cargo.toml").is_file() {
        return Err(format!(
            "{rustc} is {version} but the source of its core is missing at {}; run `make setup`",
            source.display()
        ));
    }
    // Debian's source package carries the release's version file, rustup's component does not.
    let Ok(text) = std::fs::read_to_string(source.join("src/version")) else {
        return Ok(());
    };
    let have = text.trim();
    if have == version {
        return Ok(());
    }
    Err(format!(
        "{rustc} is version {version} but the source of core at {} is version {have}; \
         kernel objects need both of one version (Debian: rustc-web and rust-web-src)",
        source.display()
    ))
}

/// A few headers without which a release's folder is not usable.
const PROBES: [&str; 5] = [
    "sys/param.h",
    "sys/mbuf.h",
    "sys/aio.h",
    "netinet/tcp_var.h",
    "netinet/toecore.h",
];

/// Checks that a release's headers are in place.
///
/// # Errors
/// Names the first header that is missing.
pub fn check_headers(dir: &Path, release: Release) -> Result<()> {
    for part in HEADER_PARTS {
        if !dir.join(part).is_dir() {
            return Err(missing_header(release, &dir.join(part)));
        }
    }
    for header in PROBES {
        if !HEADER_PARTS
            .iter()
            .any(|part| dir.join(part).join(header).is_file())
        {
            return Err(missing_header(
                release,
                &dir.join(HEADER_PARTS[1]).join(header),
            ));
        }
    }
    Ok(())
}

fn missing_header(release: Release, path: &Path) -> Error {
    format!(
        "FreeBSD {} header {} is missing; remove {} and run `make setup`",
        release.name,
        path.display(),
        path.ancestors()
            .find(|p| p.ends_with(release.name))
            .unwrap_or(path)
            .display()
    )
}

/// Programs a build calls by name.
pub const TOOLS: [&str; 6] = [
    "clang-19",
    "ld.lld-19",
    "llvm-ar-19",
    "llvm-objcopy-19",
    "llvm-objdump-19",
    "llvm-readelf-19",
];

/// Checks that all of `tools` are on `path`.
///
/// # Errors
/// Names those that are not.
pub fn check_tools(tools: &[&str], path: Option<OsString>) -> Result<()> {
    let path = path.unwrap_or_default();
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|tool| !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("missing: {}; run `make setup`", missing.join(", ")))
}

/// What a FreeBSD source tree must hold for toehold.
const SOURCE: [&str; 3] = ["sys/param.h", "conf/newvers.sh", "dev/cxgbe/adapter.h"];

/// Checks that `sysdir` is the `sys` folder of a FreeBSD source tree; returns its
/// `__FreeBSD_version`.
///
/// # Errors
/// Names the first file that is missing, or says that the version cannot be read.
pub fn check_sysdir(sysdir: &Path) -> Result<u32> {
    for file in SOURCE {
        if !sysdir.join(file).is_file() {
            return Err(format!(
                "SYSDIR={} is not the sys folder of a FreeBSD source tree: {file} is missing",
                sysdir.display()
            ));
        }
    }
    let param = sysdir.join("sys/param.h");
    let text = std::fs::read_to_string(&param)
        .map_err(|e| format!("cannot read {}: {e}", param.display()))?;
    freebsd_version(&text)
        .ok_or_else(|| format!("{} defines no __FreeBSD_version", param.display()))
}

/// `__FreeBSD_version` in the text of `sys/param.h`.
pub fn freebsd_version(text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.strip_prefix("#define")?.split_whitespace();
        (words.next()? == "__FreeBSD_version").then(|| words.next()?.parse().ok())?
    })
}

/// Checks everything a stand-in build for `releases` needs.
///
/// # Errors
/// The first thing that is missing or wrong.
pub fn check_all(runner: &dyn Runner, tree: &Tree, releases: &[Release]) -> Result<()> {
    check_tools(&TOOLS, std::env::var_os("PATH"))?;
    check_rustc(runner, &kernel_rustc())?;
    for release in releases {
        check_headers(&tree.headers(*release), *release)?;
    }
    if !tree.ck().join("ck_queue.h").is_file() {
        return Err(format!(
            "{} is missing; run `make setup`",
            tree.ck().join("ck_queue.h").display()
        ));
    }
    Ok(())
}
