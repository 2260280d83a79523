//! `make generated`: the files in `sys/modules` that a build on FreeBSD cannot make for
//! itself, having neither cargo nor bindgen: declarations of the C halves, and the names and
//! checksums of the registry's crates that get into the modules. `make check` holds them
//! against their origin.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::json::{Reader, Value};
use crate::run::{Cmd, Runner, need};
use crate::tree::Tree;
use crate::{Result, kmod};

/// Contract header below `shim`, and the module of `toehold-sys` made from it.
const CONTRACTS: [(&str, &str); 2] = [("toehold.h", "toehold"), ("t5sim/t5sim.h", "t5sim")];

/// Crates of the registry that get into the modules.
const CRATES: [&str; 3] = ["bitflags", "spin", "static_assertions"];

/// One file, where it goes and what must be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the top folder.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// Whether rustfmt laid it out: then another version's layout is as good.
    pub formatted: bool,
}

/// Writes the files.
///
/// # Errors
/// Cargo fails, or a file cannot be written.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    for file in all(tree, runner)? {
        let path = tree.at(&file.path);
        let folder = path.parent().unwrap_or(&tree.root);
        fs::create_dir_all(folder)
            .map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
        if stale(tree, &file) {
            fs::write(&path, &file.text)
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            println!("{}", file.path.display());
        }
    }
    Ok(())
}

/// Says which files are not what [`run`] would write.
///
/// # Errors
/// There are some, or cargo fails.
pub fn check(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    let old: Vec<String> = all(tree, runner)?
        .iter()
        .filter(|file| stale(tree, file))
        .map(|file| file.path.display().to_string())
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} not current; run `make generated`",
        old.join(", ")
    ))
}

/// Whether the file on disk differs from what it should be.
pub fn stale(tree: &Tree, file: &File) -> bool {
    let Ok(text) = fs::read_to_string(tree.at(&file.path)) else {
        return true;
    };
    if file.formatted {
        plain(&text) != plain(&file.text)
    } else {
        text != file.text
    }
}

fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && *c != ',')
        .collect()
}

fn all(tree: &Tree, runner: &dyn Runner) -> Result<Vec<File>> {
    let mut files = bindings(tree, runner)?;
    files.push(File {
        path: "sys/modules/distinfo".into(),
        text: distinfo(&archives(tree, runner)?),
        formatted: false,
    });
    Ok(files)
}

fn cargo(tree: &Tree) -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    Cmd::new(cargo).dir(&tree.root)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Declarations as the build script of `toehold-sys` makes them. The head of each file
/// names the header's checksum, which the build on FreeBSD compares.
fn bindings(tree: &Tree, runner: &dyn Runner) -> Result<Vec<File>> {
    let cmd = cargo(tree).args(["check", "--locked", "--package", "toehold-sys"]);
    let cmd = cmd.arg("--message-format=json");
    let out = need(runner, &cmd, "making declarations of the C halves")?;
    let dir = out_dir(&out.stdout).ok_or("cargo did not say where toehold-sys put its files")?;
    let mut files = Vec::new();
    kmod::in_scratch(tree, |scratch| {
        for (header, module) in CONTRACTS {
            let copy = scratch.join(format!("{module}.rs"));
            let text = read(&dir.join(format!("{module}.rs")))?;
            fs::write(&copy, text).map_err(|e| format!("cannot write {}: {e}", copy.display()))?;
            let cmd = Cmd::new("rustfmt").args(["--edition", "2024"]).arg(&copy);
            need(runner, &cmd, "formatting declarations")?;
            let sum = checksum(runner, &tree.at("shim").join(header))?;
            let body = read(&copy)?;
            files.push(File {
                path: format!("sys/modules/bindings/{module}.rs").into(),
                text: format!(
                    "// Made by `make generated` from shim/{header}: cksum {sum}\n\n{body}"
                ),
                formatted: true,
            });
        }
        Ok(())
    })?;
    Ok(files)
}

/// What `cksum < path` prints: checksum and size.
fn checksum(runner: &dyn Runner, path: &Path) -> Result<String> {
    let out = need(runner, &Cmd::new("cksum").arg(path), "checking a header")?;
    let words: Vec<&str> = out.stdout.split_whitespace().take(2).collect();
    Ok(words.join(" "))
}

/// The build script's folder in what cargo printed, one JSON object to a line.
pub fn out_dir(printed: &str) -> Option<PathBuf> {
    printed.lines().find_map(|line| {
        let said = Reader::new(line).value().ok()?;
        let package = said.text("package_id")?;
        // Before 1.77 cargo wrote "name version (path)".
        let ours = package.contains("toehold-sys@") || package.starts_with("toehold-sys ");
        (said.text("reason")? == "build-script-executed" && ours)
            .then(|| said.text("out_dir").map(PathBuf::from))?
    })
}

/// The packed source of one crate, as the registry sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Its file, which cargo keeps.
    pub path: PathBuf,
    /// Name of the file.
    pub name: String,
    /// SHA-256 of the file, as `Cargo.lock` has it.
    pub sum: String,
    /// Bytes of the file.
    pub size: u64,
}

/// The text of `sys/modules/distinfo`, in the form of FreeBSD's ports.
pub fn distinfo(archives: &[Archive]) -> String {
    archives
        .iter()
        .map(|a| {
            let (name, sum, size) = (&a.name, &a.sum, a.size);
            format!("SHA256 ({name}) = {sum}\nSIZE ({name}) = {size}\n")
        })
        .collect()
}

/// A package's version and checksum in the text of `Cargo.lock`.
pub fn locked<'a>(lock: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let wanted = format!("name = \"{name}\"");
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.lines().any(|line| line == wanted))?;
    let field = |key: &str| {
        entry
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_suffix('"'))
    };
    Some((field("version = \"")?, field("checksum = \"")?))
}

/// Archives of the registry's crates that get into the modules; cargo downloads those it
/// does not have.
///
/// # Errors
/// Cargo fails, or it has another crate than `Cargo.lock` says, or keeps no archive of it.
pub fn archives(tree: &Tree, runner: &dyn Runner) -> Result<Vec<Archive>> {
    let cmd = cargo(tree).args(["metadata", "--locked", "--format-version", "1"]);
    let out = need(runner, &cmd, "asking cargo for its crates")?;
    let said = Reader::new(&out.stdout).value()?;
    let Some(Value::List(packages)) = said.get("packages") else {
        return Err("cargo metadata lists no packages".into());
    };
    let lock = read(&tree.at("Cargo.lock"))?;
    CRATES
        .iter()
        .map(|name| {
            let (version, sum) =
                locked(&lock, name).ok_or_else(|| format!("no crate {name} in Cargo.lock"))?;
            let package = packages
                .iter()
                .find(|p| p.text("name") == Some(name) && p.text("version") == Some(version));
            let manifest = package.and_then(|p| p.text("manifest_path"));
            let manifest = manifest.ok_or_else(|| format!("cargo has no {name} {version}"))?;
            archive(Path::new(manifest), format!("{name}-{version}.crate"), sum)
        })
        .collect()
}

/// Cargo unpacks `registry/cache/<index>/<name>` to `registry/src/<index>/<folder>`, and says
/// where the latter's manifest is.
fn archive(manifest: &Path, name: String, sum: &str) -> Result<Archive> {
    let index = manifest.ancestors().nth(2).unwrap_or(manifest);
    let cache = index.ancestors().nth(2).unwrap_or(index).join("cache");
    let path = cache
        .join(index.file_name().unwrap_or_default())
        .join(&name);
    let size = fs::metadata(&path)
        .map_err(|e| {
            format!(
                "cargo keeps no {}: {e}; remove {} and run `cargo fetch`",
                path.display(),
                manifest.parent().unwrap_or(manifest).display()
            )
        })?
        .len();
    Ok(Archive {
        path,
        name,
        sum: sum.to_owned(),
        size,
    })
}
