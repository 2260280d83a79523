//! clang, asked about C that includes one or the other set of headers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::run::{Cmd, Output, Runner, need};

/// clang with one set of headers.
pub struct Compiler<'a> {
    /// Who starts it.
    pub runner: &'a dyn Runner,
    /// Its arguments.
    pub flags: Vec<OsString>,
    /// A folder for its input and output.
    pub scratch: PathBuf,
}

/// One complaint of clang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Line of our file.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl Compiler<'_> {
    fn cmd(&self, source: &str, mode: &[&str]) -> Result<(Cmd, PathBuf)> {
        let path = self.scratch.join("check.c");
        std::fs::write(&path, source)
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let cmd = Cmd::new("clang-19")
            .args(self.flags.iter().filter(|f| *f != "-c" && *f != "-Werror"))
            .args(["-w", "-ferror-limit=0", "-fno-caret-diagnostics"])
            .args(mode);
        Ok((cmd.arg(&path), path))
    }

    /// What clang says about `source`, as to its lines.
    ///
    /// # Errors
    /// A header does not compile at all.
    pub fn errors(&self, source: &str) -> Result<Vec<Complaint>> {
        let (cmd, path) = self.cmd(source, &["-fsyntax-only"])?;
        let out = self.runner.output(&cmd)?;
        complaints(&out, &path)
    }

    pub(super) fn object(&self, source: &str) -> Result<Vec<u8>> {
        let object = self.scratch.join("check.o");
        let (cmd, _) = self.cmd(source, &["-c", "-o"])?;
        // The source comes last, so its place is -o's.
        let mut cmd = cmd;
        let at = cmd.args.len().saturating_sub(1);
        cmd.args.insert(at, object.clone().into());
        need(self.runner, &cmd, "compiling the stand-in's macros")?;
        std::fs::read(&object).map_err(|e| format!("cannot read {}: {e}", object.display()))
    }

    pub(super) fn preprocess(&self, source: &str) -> Result<String> {
        let (cmd, _) = self.cmd(source, &["-E", "-P"])?;
        Ok(need(self.runner, &cmd, "expanding the stand-in's macros")?.stdout)
    }

    pub(super) fn output(&self, source: &str, mode: &[&str]) -> Result<String> {
        let (cmd, _) = self.cmd(source, mode)?;
        Ok(need(self.runner, &cmd, "reading the stand-in")?.stdout)
    }
}

/// The errors in clang's output that are about `path`; one about another file is a failure.
fn complaints(out: &Output, path: &Path) -> Result<Vec<Complaint>> {
    let shown = path.display().to_string();
    let mut all = Vec::new();
    for line in out.stderr.lines() {
        let Some((place, text)) = line
            .split_once(": error: ")
            .or_else(|| line.split_once(": fatal error: "))
        else {
            continue;
        };
        let number = place
            .strip_prefix(&shown)
            .and_then(|rest| rest.trim_start_matches(':').split(':').next()?.parse().ok());
        match number {
            Some(line) if !text.ends_with("file not found") => all.push(Complaint {
                line,
                text: text.to_owned(),
            }),
            _ => return Err(format!("the headers do not compile: {line}")),
        }
    }
    if all.is_empty() && !out.ok {
        return Err(format!("clang failed: {}", out.stderr.trim()));
    }
    Ok(all)
}
