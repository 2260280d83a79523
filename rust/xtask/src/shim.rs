//! The C half of a module: compiled for each FreeBSD release against that release's headers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::run::{Cmd, Runner};
use crate::tree::{HEADER_PARTS, Release, Tree, files};

/// How FreeBSD compiles a loadable amd64 module, with warnings as errors.
const FLAGS: [&str; 26] = [
    "-nostdlibinc",
    "-ffreestanding",
    "-D_KERNEL",
    "-DKLD_MODULE",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-mmx",
    "-mno-sse",
    "-msoft-float",
    "-fno-pic",
    "-fno-common",
    "-fwrapv",
    "-fno-omit-frame-pointer",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-addrsig",
    "-std=gnu17",
    "-O2",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-include",
    "opt_global.h",
    "-c",
];

/// Arguments of the C compiler for one release, but for the files. `include` are the
/// module's own folders.
pub fn flags(tree: &Tree, release: Release, include: &[PathBuf]) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec![
        format!("--target=x86_64-unknown-freebsd{}.0", release.name).into(),
        format!("-D__FreeBSD_version={}", release.version).into(),
        // No FreeBSD source tree: the shim must not depend on the real adapter's driver.
        "-DTOEHOLD_STANDIN=1".into(),
        OsString::from(format!("-ffile-prefix-map={}=toehold", tree.root.display())),
    ];
    flags.extend(FLAGS.iter().map(OsString::from));
    for dir in include.iter().chain([&tree.at("sys/standin"), &tree.opt()]) {
        flags.push("-I".into());
        flags.push(dir.into());
    }
    let headers = tree.headers(release);
    for dir in HEADER_PARTS
        .iter()
        .map(|p| headers.join(p))
        .chain([tree.ck()])
    {
        flags.push("-isystem".into());
        flags.push(dir.into());
    }
    flags
}

/// Compiles every C file of `dir` into `out`, two or more at a time; returns the objects.
///
/// # Errors
/// There is no file, or some do not compile: then what the compiler said about them.
pub fn compile(
    runner: &dyn Runner,
    dir: &Path,
    flags: &[OsString],
    out: &Path,
) -> Result<Vec<PathBuf>> {
    let sources = files(dir, "c")?;
    if sources.is_empty() {
        return Err(format!("{} holds no C file", dir.display()));
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            let cmd = Cmd::new("clang-19")
                .args(flags)
                .arg("-o")
                .arg(object(source, out))
                .arg(source);
            let said = match runner.output(&cmd) {
                Ok(done) if done.ok => continue,
                Ok(done) => done.stderr,
                Err(message) => message,
            };
            failures
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(said);
        }
    };
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(sources.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if failures.is_empty() {
        return Ok(sources.iter().map(|source| object(source, out)).collect());
    }
    Err(format!(
        "{} does not compile:\n{}",
        dir.display(),
        failures.join("\n")
    ))
}

fn object(source: &Path, out: &Path) -> PathBuf {
    let mut name = source.file_stem().unwrap_or_default().to_os_string();
    name.push(".o");
    out.join(name)
}
