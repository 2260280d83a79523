//! The C half of a module: compiled for each FreeBSD release against that release's headers.
//!
//! Package `cc` puts the compiler's command together. We start it, since objects shall have
//! names that do not depend on the folder the tree lies in, and what the compiler says shall
//! be part of our message.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::parallel;
use crate::run::{Cmd, Runner};
use crate::sysdir::Source;
use crate::tree::{HEADER_PARTS, Release, Tree, files};

/// How FreeBSD compiles a loadable amd64 module, with warnings as errors.
const FLAGS: [&str; 31] = [
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
    // Those of FreeBSD's kern.mk that the two above leave out.
    "-Wnested-externs",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wpointer-arith",
    "-Wcast-qual",
    "-Wundef",
    "-Werror",
    "-Wno-unused-parameter",
    "-include",
    "opt_global.h",
    "-c",
];

/// Arguments that are the same for every release. `include` are the module's own folders.
fn common(tree: &Tree, include: &[PathBuf]) -> Vec<OsString> {
    let map = format!("-ffile-prefix-map={}=toehold", tree.root.display());
    let mut flags = vec![OsString::from(map)];
    flags.extend(FLAGS.iter().map(OsString::from));
    for dir in include {
        flags.push("-I".into());
        flags.push(dir.into());
    }
    flags
}

/// Arguments of the C compiler for a FreeBSD source tree, but for the files; `generated`
/// holds the headers that a kernel build makes.
pub fn tree_flags(
    tree: &Tree,
    source: &Source,
    generated: &Path,
    include: &[PathBuf],
) -> Vec<OsString> {
    let mut flags = source.flags(generated);
    let map = format!("-ffile-prefix-map={}=sys", source.sysdir.display());
    flags.push(map.into());
    flags.push(format!("-ffile-prefix-map={}=.", generated.display()).into());
    flags.extend(common(tree, include));
    flags
}

/// Arguments of the C compiler for one release's packaged headers, but for the files.
/// `include` are the module's own folders.
pub fn flags(tree: &Tree, release: Release, include: &[PathBuf]) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec![
        format!("--target=x86_64-unknown-freebsd{}.0", release.name).into(),
        format!("-D__FreeBSD_version={}", release.version).into(),
        "-nostdlibinc".into(),
        // No FreeBSD source tree: the shim must not depend on the real adapter's driver.
        "-DTOEHOLD_STANDIN=1".into(),
    ];
    flags.extend(common(tree, include));
    for dir in [tree.at("sys/standin"), tree.opt()] {
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
    let compiler = compiler(flags, out)?;
    let failures: Vec<String> = parallel::each(&sources, |source| {
        let cmd = compiler
            .clone()
            .arg("-o")
            .arg(object(source, out))
            .arg(source);
        match runner.output(&cmd) {
            Ok(done) if done.ok => None,
            Ok(done) => Some(done.stderr),
            Err(message) => Some(message),
        }
    })
    .into_iter()
    .flatten()
    .collect();
    if failures.is_empty() {
        return Ok(sources.iter().map(|source| object(source, out)).collect());
    }
    Err(format!(
        "{} does not compile:\n{}",
        dir.display(),
        failures.join("\n")
    ))
}

/// The compiler with `flags` and no others but `-Wall` and `-Wextra`, which `cc` cannot leave
/// out (they are among ours in any case); what `cc` puts behind ours from `CFLAGS` is for programs
/// and goes. Target and optimisation are in `flags`: those told to `cc` would only give rise
/// to default flags, and its targets have no FreeBSD release.
fn compiler(flags: &[OsString], out: &Path) -> Result<Cmd> {
    const TARGET: &str = "x86_64-unknown-freebsd";
    let mut build = cc::Build::new();
    build
        .compiler("clang-19")
        .target(TARGET)
        .host(TARGET)
        .opt_level(2)
        .out_dir(out)
        .no_default_flags(true)
        .inherit_rustflags(false)
        .warnings(true)
        .extra_warnings(true)
        .cargo_output(false)
        .cargo_metadata(false)
        .cargo_debug(false);
    for flag in flags {
        build.flag(flag);
    }
    let tool = build
        .try_get_compiler()
        .map_err(|e| format!("no compiler for the C halves: {e}"))?;
    let (given, ours) = (tool.args(), flags.len());
    let first = (0..given.len()).rfind(|at| given.get(*at..at + ours) == Some(flags));
    let first = first.ok_or("cc changed the flags of the C halves")?;
    let args = given.get(..first + ours).unwrap_or_default();
    Ok(Cmd::new(tool.path()).args(args))
}

fn object(source: &Path, out: &Path) -> PathBuf {
    let mut name = source.file_stem().unwrap_or_default().to_os_string();
    name.push(".o");
    out.join(name)
}
