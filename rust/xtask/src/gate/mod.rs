//! The gates: what a finished module must and must not hold. The kernel's loader would find
//! some of it, at load time and one by one; the rest it would never find.

pub mod code;
pub mod metadata;
pub mod object_file;

use std::path::Path;

use crate::Result;
use crate::run::{Cmd, Runner, need};
use crate::sysdir::symbols::{self, Finder, Provider, Report};

/// What one module is held against.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Module it must declare.
    pub module: String,
    /// Names it must register a version under: another with one of them is not loaded.
    pub versions: Vec<String>,
    /// Names that may be global.
    pub exports: Vec<String>,
    /// Names that may be undefined.
    pub imports: Vec<String>,
    /// The file `imports` comes from, for messages.
    pub imports_list: String,
    /// Modules it must depend on.
    pub depends: Vec<String>,
    /// Modules it must neither depend on nor pose as.
    pub forbidden: Vec<String>,
    /// Whether it may hold code of the `alloc` crate.
    pub alloc: bool,
}

/// Looks the undefined names of the module at `path` up in a source tree.
///
/// # Errors
/// The file cannot be read.
pub fn look_up(path: &Path, finder: &mut Finder<'_>, providers: &[Provider]) -> Result<Report> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let names = symbols::undefined(&bytes)?;
    Ok(finder.find(&names, providers))
}

/// Runs every gate over the module at `path`.
///
/// # Errors
/// The file cannot be read, or the list of everything that is wrong with it.
pub fn check_file(runner: &dyn Runner, path: &Path, spec: &Spec) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let mut faults = object_file::check(&bytes, spec)?;
    faults.extend(metadata::check(&bytes, spec)?);
    let cmd = Cmd::new("llvm-objdump-19")
        .args(["--disassemble", "--no-show-raw-insn"])
        .arg(path);
    let listing = need(runner, &cmd, "disassembling")?;
    faults.extend(code::check(&listing.stdout));
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("gates failed:\n  {}", faults.join("\n  ")))
}
