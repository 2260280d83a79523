//! The Rust half of a module: one archive for every FreeBSD release.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::inputs;
use crate::run::{Cmd, Runner, need};
use crate::tree::Tree;

/// What the kernel's loader and the kernel's way of compiling ask of the code generator.
const FLAGS: [&str; 7] = [
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=yes",
    "-Crelro-level=off",
    "-Cforce-frame-pointers=yes",
    "-Cforce-unwind-tables=no",
    "-Csymbol-mangling-version=v0",
];

const TARGET: &str = "x86_64-unknown-none";

/// One archive to build.
#[derive(Clone, Copy, Debug)]
pub struct Archive {
    /// Cargo package.
    pub package: &'static str,
    /// Its library's name.
    pub lib: &'static str,
    /// Crates of the standard library it may use.
    pub std: &'static str,
}

/// The cargo command that builds `archive` below `out`.
pub fn build_command(tree: &Tree, archive: Archive, out: &Path) -> Cmd {
    let mut flags: Vec<String> = FLAGS.iter().map(|f| (*f).to_owned()).collect();
    // Paths of the build machine would otherwise sit in the panic messages.
    flags.push(format!(
        "--remap-path-prefix={}=toehold",
        tree.root.display()
    ));
    flags.push("--remap-path-prefix=/usr/lib/rustlib/src/rust=rust".into());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    Cmd::new(cargo)
        .dir(&tree.root)
        .env("RUSTC", inputs::kernel_rustc())
        .env("RUSTC_BOOTSTRAP", "1")
        // Encoded, since a folder's name may have a blank in it.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", out)
        .unset("RUSTFLAGS")
        .unset("RUSTC_WRAPPER")
        .unset("RUSTC_WORKSPACE_WRAPPER")
        .unset("RUSTUP_TOOLCHAIN")
        .unset("CARGO_BUILD_TARGET")
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
        ])
        .arg(format!("-Zbuild-std={}", archive.std))
        .args(["--package", archive.package])
}

/// Builds the archive and takes the object of our own code out of it. The compiler's
/// builtins stay behind: what the kernel has (`memcpy`) is the kernel's, and what it has not
/// (128-bit division) must show up as undefined.
///
/// # Errors
/// The build fails, or the archive does not hold exactly one object of ours.
pub fn build(tree: &Tree, runner: &dyn Runner, archive: Archive, dir: &Path) -> Result<PathBuf> {
    let out = tree.target().join("rust-kmod");
    if !runner.show(&build_command(tree, archive, &out))? {
        return Err(format!(
            "the Rust half of {} does not compile",
            archive.package
        ));
    }
    let path = out
        .join(TARGET)
        .join("release")
        .join(format!("lib{}.a", archive.lib));
    extract(runner, &path, archive.lib, dir)
}

/// Takes the one object of crate `lib` out of the archive at `path` into `dir`.
///
/// # Errors
/// As [`build`].
pub fn extract(runner: &dyn Runner, path: &Path, lib: &str, dir: &Path) -> Result<PathBuf> {
    let list = need(
        runner,
        &Cmd::new("llvm-ar-19").arg("t").arg(path),
        "reading an archive",
    )?;
    let members: Vec<&str> = list
        .stdout
        .lines()
        .filter(|m| m.starts_with(&format!("{lib}-")))
        .collect();
    let [member] = members.as_slice() else {
        return Err(format!(
            "{} holds {} objects of {lib}, not one: fat LTO and one codegen unit are needed",
            path.display(),
            members.len()
        ));
    };
    let cmd = Cmd::new("llvm-ar-19")
        .arg("x")
        .arg(path)
        .arg(member)
        .dir(dir);
    need(runner, &cmd, "unpacking an archive")?;
    Ok(dir.join(member))
}
