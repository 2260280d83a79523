//! FreeBSD's installed kernel headers, from the wheels of the PyPI package `ziglang`.
//!
//! A wheel is fetched once with the ordinary pip, held against its pinned SHA-256, and only
//! the two header folders are taken out of it. Afterwards nothing here needs a network.

use std::fs;
use std::path::{Path, PathBuf};

use crate::inputs;
use crate::run::{Cmd, Runner, need};
use crate::tree::{HEADER_PARTS, Release, Tree};
use crate::{Error, Result};

/// Unpacks argument 1 (the wheel) below argument 2, only the folders named after it.
const UNPACK: &str = "\
import sys, zipfile
base = 'ziglang/lib/libc/include/'
keep = tuple(base + part + '/' for part in sys.argv[3:])
with zipfile.ZipFile(sys.argv[1]) as wheel:
    names = [n for n in wheel.namelist() if n.startswith(keep)]
    if not names:
        sys.exit('no FreeBSD headers in it')
    wheel.extractall(sys.argv[2], names)
";

fn io(what: &str, path: &Path, why: &std::io::Error) -> Error {
    format!("cannot {what} {}: {why}", path.display())
}

/// File name of a release's wheel.
pub fn wheel_name(release: Release) -> String {
    let platform = "manylinux_2_12_x86_64.manylinux2010_x86_64.musllinux_1_1_x86_64";
    format!("ziglang-{}-py3-none-{platform}.whl", release.wheel_version)
}

/// Whether a release's headers are in place and came from the pinned wheel.
pub fn present(tree: &Tree, release: Release) -> bool {
    let dir = tree.headers(release);
    let stamp = fs::read_to_string(dir.join("stamp")).unwrap_or_default();
    stamp.trim() == release.wheel_sha256 && inputs::check_headers(&dir, release).is_ok()
}

/// Puts a release's headers in place, fetching the wheel if it is not there.
///
/// # Errors
/// The wheel cannot be fetched, is not the pinned one, or cannot be unpacked.
pub fn install(runner: &dyn Runner, tree: &Tree, release: Release) -> Result<()> {
    if present(tree, release) {
        return Ok(());
    }
    let wheel = tree.wheels().join(wheel_name(release));
    if wheel.is_file() {
        verify(runner, &wheel, release)?;
    } else {
        fetch(runner, tree, release, &wheel)?;
        if let Err(message) = verify(runner, &wheel, release) {
            // Otherwise a second try would stop at the same bad file.
            let _ = fs::remove_file(&wheel);
            return Err(message);
        }
    }
    unpack(runner, tree, release, &wheel)
}

fn fetch(runner: &dyn Runner, tree: &Tree, release: Release, wheel: &Path) -> Result<()> {
    let dir = tree.wheels();
    fs::create_dir_all(&dir).map_err(|e| io("create", &dir, &e))?;
    println!(
        "fetching FreeBSD {} headers (ziglang {})",
        release.name, release.wheel_version
    );
    let cmd = Cmd::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ])
        .args([
            "--only-binary=:all:",
            "--platform",
            "manylinux_2_12_x86_64",
            "--dest",
        ])
        .arg(&dir)
        .arg(format!("ziglang=={}", release.wheel_version));
    let out = runner.output(&cmd)?;
    if out.ok && wheel.is_file() {
        return Ok(());
    }
    let why = out
        .stderr
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("no wheel came");
    Err(format!(
        "cannot fetch the headers of FreeBSD {} (wheel {} from PyPI): {}; \
         without a network put that file into {}",
        release.name,
        wheel_name(release),
        why.trim(),
        dir.display()
    ))
}

fn verify(runner: &dyn Runner, wheel: &Path, release: Release) -> Result<()> {
    let out = need(
        runner,
        &Cmd::new("sha256sum").arg(wheel),
        "checking a wheel",
    )?;
    let have = out
        .stdout
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .trim_start_matches('\\');
    if have == release.wheel_sha256 {
        return Ok(());
    }
    Err(format!(
        "{} has SHA-256 {have}, not the pinned {}; remove the file and run `make setup`",
        wheel.display(),
        release.wheel_sha256
    ))
}

fn unpack(runner: &dyn Runner, tree: &Tree, release: Release, wheel: &Path) -> Result<()> {
    let dir = tree.headers(release);
    let fresh = dir.with_extension(format!("new{}", std::process::id()));
    let result = unpack_into(runner, release, wheel, &fresh).and_then(|()| replace(&fresh, &dir));
    let _ = fs::remove_dir_all(&fresh);
    result
}

fn unpack_into(runner: &dyn Runner, release: Release, wheel: &Path, fresh: &Path) -> Result<()> {
    fs::create_dir_all(fresh).map_err(|e| io("create", fresh, &e))?;
    let cmd = Cmd::new("python3")
        .args(["-c", UNPACK])
        .arg(wheel)
        .arg(fresh)
        .args(HEADER_PARTS);
    need(runner, &cmd, "unpacking a wheel")?;
    for part in HEADER_PARTS {
        let from = fresh.join("ziglang/lib/libc/include").join(part);
        fs::rename(&from, fresh.join(part)).map_err(|e| io("move", &from, &e))?;
    }
    let _ = fs::remove_dir_all(fresh.join("ziglang"));
    inputs::check_headers(fresh, release)
        .map_err(|e| format!("{} is not usable: {e}", wheel.display()))?;
    let stamp = fresh.join("stamp");
    fs::write(&stamp, format!("{}\n", release.wheel_sha256)).map_err(|e| io("write", &stamp, &e))
}

fn replace(fresh: &Path, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|e| io("remove", dir, &e))?;
    }
    fs::rename(fresh, dir).map_err(|e| io("move", fresh, &e))
}

/// Copies Concurrency Kit's headers out of the host's include folder: pointing a kernel
/// compile at that folder would let the host's libc in too.
///
/// # Errors
/// They are not installed, or cannot be copied.
pub fn install_ck(tree: &Tree, include: &Path) -> Result<()> {
    let to = tree.ck();
    let wanted = ["ck_queue.h", "ck_pr.h", "gcc/x86_64/ck_pr.h"];
    if wanted.iter().all(|file| to.join(file).is_file()) {
        return Ok(());
    }
    for (from, to) in [
        (include.to_path_buf(), to.clone()),
        (include.join("gcc"), to.join("gcc")),
        (include.join("gcc/x86_64"), to.join("gcc/x86_64")),
    ] {
        fs::create_dir_all(&to).map_err(|e| io("create", &to, &e))?;
        for file in ck_headers(&from) {
            let Some(name) = file.file_name() else {
                continue;
            };
            fs::copy(&file, to.join(name)).map_err(|e| io("copy", &file, &e))?;
        }
    }
    match wanted.iter().find(|file| !to.join(file).is_file()) {
        None => Ok(()),
        Some(file) => Err(format!(
            "Concurrency Kit header {} is missing (Debian: libck-dev)",
            include.join(file).display()
        )),
    }
}

fn ck_headers(dir: &Path) -> Vec<PathBuf> {
    let mut files = crate::tree::files(dir, "h").unwrap_or_default();
    files.retain(|f| {
        f.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("ck_"))
    });
    files
}
