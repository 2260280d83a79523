//! The headers of a kernel that lie in no source tree: interfaces made by the tree's own awk
//! scripts, options as config(8) writes them, links to the machine's headers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Source;
use crate::Result;
use crate::run::{Cmd, Runner, need};

/// Interfaces whose headers the modules' files include, by way of cxgbe's.
const INTERFACES: [&str; 3] = ["kern/device_if.m", "kern/bus_if.m", "dev/pci/pci_if.m"];

/// Link and folder of the tree; one that a tree lacks is not made.
const LINKS: [(&str, &str); 3] = [
    ("machine", "amd64/include"),
    ("x86", "x86/include"),
    ("i386", "i386/include"),
];

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// Makes everything in `dir`, which must exist.
///
/// # Errors
/// The tree lacks a script or a source of these headers, or awk fails.
pub fn headers(runner: &dyn Runner, source: &Source, dir: &Path) -> Result<()> {
    for (name, to) in LINKS {
        let to = source.at(to);
        if to.is_dir() {
            link(&to, &dir.join(name))?;
        }
    }
    for interface in INTERFACES {
        let made = object_interface(runner, source, &source.at(interface), "-h", dir)?;
        if !made.is_file() {
            return Err(format!("{interface} gave no {}", made.display()));
        }
    }
    for part in ["-h", "-p", "-q"] {
        let cmd = awk(source, "tools/vnode_if.awk")
            .arg(source.at("kern/vnode_if.src"))
            .arg(part)
            .dir(dir);
        need(runner, &cmd, "generating vnode_if.h")?;
    }
    for (name, text) in options(source)? {
        write(&dir.join(name), &text)?;
    }
    Ok(())
}

fn link(to: &Path, at: &Path) -> Result<()> {
    let _ = fs::remove_file(at);
    std::os::unix::fs::symlink(to, at).map_err(|e| format!("cannot link {}: {e}", at.display()))
}

fn awk(source: &Source, script: &str) -> Cmd {
    Cmd::new("awk").arg("-f").arg(source.at(script))
}

/// Runs makeobjops.awk over an interface (`*_if.m`): `-h` makes the header, `-c` the C file.
///
/// # Errors
/// awk fails.
pub fn object_interface(
    runner: &dyn Runner,
    source: &Source,
    interface: &Path,
    part: &str,
    dir: &Path,
) -> Result<PathBuf> {
    let cmd = awk(source, "tools/makeobjops.awk")
        .arg(interface)
        .arg(part)
        .dir(dir);
    need(runner, &cmd, "generating an interface")?;
    let stem = interface.file_stem().unwrap_or_default();
    Ok(dir.join(stem).with_extension(part.trim_start_matches('-')))
}

/// Name and text of every `opt_*.h`: of the configuration, and over them the build folder's.
fn options(source: &Source) -> Result<BTreeMap<String, String>> {
    let Some(kernel) = &source.kernbuilddir else {
        return source.config.headers(&source.sysdir);
    };
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for path in crate::tree::files(kernel, "h")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("opt_") {
            let text = fs::read_to_string(&path)
                .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            all.insert(name.into_owned(), text);
        }
    }
    Ok(all)
}

/// What only the kernel's own files need, for [`super::symbols`]: all interfaces of the
/// files of the kernel, and the offsets that assembler uses.
///
/// # Errors
/// awk, the compiler or the tree's scripts fail.
pub fn for_kernel_files(runner: &dyn Runner, source: &Source, dir: &Path) -> Result<()> {
    let mut interfaces = Vec::new();
    find_interfaces(&source.sysdir, 0, &mut interfaces);
    for interface in interfaces {
        object_interface(runner, source, &interface, "-h", dir)?;
    }
    assembler_offsets(runner, source, dir)
}

/// Folders with interfaces lie at most this deep.
const DEPTH: u32 = 6;

fn find_interfaces(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.filter_map(std::result::Result::ok) {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if depth < DEPTH {
                find_interfaces(&path, depth + 1, found);
            }
        } else if name.to_string_lossy().ends_with("_if.m") {
            found.push(path);
        }
    }
}

/// Makes `assym.inc`: the tree's script reads the numbers off an object.
fn assembler_offsets(runner: &dyn Runner, source: &Source, dir: &Path) -> Result<()> {
    let file = source.at("amd64/amd64/genassym.c");
    let object = dir.join("genassym.o");
    let cmd = Cmd::new("clang-19")
        .args(super::symbols::kernel_flags(source, dir))
        // The numbers are sizes of common symbols.
        .args(["-fcommon", "-o"])
        .arg(&object)
        .arg(&file);
    need(runner, &cmd, "compiling the tree's offsets")?;
    let cmd = Cmd::new("sh")
        .arg(source.at("kern/genassym.sh"))
        .arg(&object)
        .env("NM", "llvm-nm-19")
        .env("AWK", "awk");
    let out = need(runner, &cmd, "reading the tree's offsets")?;
    write(&dir.join("assym.inc"), &out.stdout)
}
