//! From objects to a module file: link, then make local what nobody outside needs.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::run::{Cmd, Runner, need};

/// Gathers the many sections of a compile into the few a module has; sets of the linker
/// (`set_sysinit_set` and the like) keep their names, the kernel finds them by name.
const SCRIPT: &str = "\
SECTIONS {
    .text : { *(.text .text.*) }
    .rodata : { *(.rodata .rodata.*) }
    .data : { *(.data .data.*) }
    .bss : { *(.bss .bss.*) }
    /DISCARD/ : {
        *(.comment .comment.*)
        *(.llvmbc) *(.llvmcmd) *(.llvm_addrsig)
        *(.eh_frame) *(.note.*) *(.debug*)
    }
}
";

/// Never a symbol of ours: an empty list would mean that every symbol stays global.
const NOBODY: &str = "toehold-keeps-no-symbol-of-this-name";

/// Links `objects` into the module at `out`; of the symbols it defines only `exports`
/// stay global, as kmod.mk does with EXPORT_SYMS. `scratch` is a folder for files in between.
///
/// # Errors
/// The linker or objcopy fails.
pub fn link(
    runner: &dyn Runner,
    objects: &[PathBuf],
    exports: &[String],
    scratch: &Path,
    out: &Path,
) -> Result<()> {
    let script = scratch.join("module.ld");
    write(&script, SCRIPT)?;
    let keep = scratch.join("exports");
    write(&keep, &format!("{NOBODY}\n{}\n", exports.join("\n")))?;
    let joined = scratch.join("joined.o");
    let ld = Cmd::new("ld.lld-19")
        .args(["-m", "elf_x86_64_fbsd", "-r", "-T"])
        .arg(&script)
        .arg("-o")
        .arg(&joined)
        .args(objects);
    need(runner, &ld, "linking")?;
    let mut keep_option = std::ffi::OsString::from("--keep-global-symbols=");
    keep_option.push(&keep);
    let objcopy = Cmd::new("llvm-objcopy-19")
        .arg(keep_option)
        .arg(&joined)
        .arg(out);
    need(runner, &objcopy, "localising symbols").map(drop)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// Names of a list file that hold for a tree of this `__FreeBSD_version`: one per line,
/// perhaps followed by `since` or `until` (exclusive) and a version; `#` starts a comment.
///
/// # Errors
/// The file cannot be read, or a line of it.
pub fn read_list(path: &Path, version: u32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read the list {}: {e}", path.display()))?;
    let mut names = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, holds) = match words.as_slice() {
            [] => continue,
            [name] => (name, true),
            [name, "since", v] => (name, v.parse().is_ok_and(|v: u32| version >= v)),
            [name, "until", v] => (name, v.parse().is_ok_and(|v: u32| version < v)),
            _ => return Err(format!("{}: cannot read \"{line}\"", path.display())),
        };
        if holds {
            names.push((*name).to_owned());
        }
    }
    Ok(names)
}
