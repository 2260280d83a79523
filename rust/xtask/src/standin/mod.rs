//! `make check-standin SYSDIR=`: the stand-in headers (`sys/standin`) say nothing that a
//! FreeBSD tree's own headers do not say.
//!
//! What the stand-in declares is read with clang. From it comes a C file that includes the
//! tree's headers and asserts, one declaration to a line, that names, types, values and
//! prototypes are the same; what clang complains about is a difference. Offsets and members
//! that the stand-in leaves out do not matter. A declaration on a line with a comment that
//! starts with `t5sim` is the simulated adapter's own and is not asked for.

pub mod compiler;
pub mod decls;
pub mod macros;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::run::Runner;
use crate::sysdir::{Given, Source, generate};
use crate::tree::Tree;
use crate::{Result, kmod, shim};
use compiler::{Compiler, Complaint};
use decls::{Decl, Kind};
use macros::{Macro, Use};

/// What is compared.
pub struct Check<'a> {
    /// The folder of the stand-in headers.
    pub dir: PathBuf,
    /// What to include, in order, ahead of all headers below `dir`.
    pub first: &'a [&'a str],
    /// clang with the stand-in's headers.
    pub standin: Compiler<'a>,
    /// clang with the tree's.
    pub real: Compiler<'a>,
}

/// What a check looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Declarations that were asserted.
    pub declarations: usize,
    /// Macros whose values were.
    pub values: usize,
    /// Macros whose expansions were compared.
    pub expansions: usize,
    /// Declarations and macros of t5sim's own, left out.
    pub own: usize,
}

/// Macros by what can be compared of them.
struct Kinds<'m> {
    /// Uses of those that are numbers, with their values.
    values: Vec<(Use, u64)>,
    /// Those that are not: their text is all there is.
    texts: Vec<&'m Macro>,
}

impl Check<'_> {
    /// Compares; the differences, and how much was looked at.
    ///
    /// # Errors
    /// One of the two sets of headers does not compile.
    pub fn run(&self) -> Result<(Vec<String>, Count)> {
        let headers = headers_below(&self.dir)?;
        let prologue = self.prologue(&headers);
        let mut own = Own::default();
        let json = self
            .standin
            .output(&prologue, &["-fsyntax-only", "-Xclang", "-ast-dump=json"])?;
        let mut count = Count::default();
        let mut decls = Vec::new();
        for decl in decls::read(&json, &self.dir)? {
            if own.has(&decl.file, decl.line)? {
                count.own += 1;
            } else {
                decls.push(decl);
            }
        }
        let mut macros = Vec::new();
        for one in macros::read(&self.standin.output(&prologue, &["-E", "-dD"])?, &self.dir) {
            if own.has(&one.file, one.line)? {
                count.own += 1;
            } else {
                macros.push(one);
            }
        }
        if decls.is_empty() && macros.is_empty() {
            return Err(format!("{} declares nothing", self.dir.display()));
        }
        count.declarations = decls.len();
        let mut faults = self.missing(&headers)?;
        if faults.is_empty() {
            faults = self.declarations(&prologue, &decls)?;
            let kinds = self.kinds(&prologue, &macros)?;
            count.values = macros.len() - kinds.texts.len();
            count.expansions = kinds.texts.len();
            faults.extend(self.values(&prologue, &macros, &kinds.values)?);
            faults.extend(self.expansions(&prologue, &kinds.texts)?);
        }
        Ok((faults, count))
    }

    fn prologue(&self, headers: &[String]) -> String {
        let mut text = String::new();
        for header in self
            .first
            .iter()
            .copied()
            .chain(headers.iter().map(String::as_str))
        {
            text.push_str(&format!("#include <{header}>\n"));
        }
        text
    }

    /// Headers of the stand-in that the tree does not have.
    fn missing(&self, headers: &[String]) -> Result<Vec<String>> {
        let mut source = String::new();
        for header in headers {
            source.push_str(&format!(
                "#if !__has_include(<{header}>)\n#error no such header\n#endif\n"
            ));
        }
        let said = self.real.errors(&source)?;
        let of = |c: &Complaint| headers.get(c.line.checked_sub(2)? / 3);
        Ok(said
            .iter()
            .filter_map(of)
            .map(|header| format!("{header}: the tree has no such header"))
            .collect())
    }

    fn declarations(&self, prologue: &str, decls: &[Decl]) -> Result<Vec<String>> {
        let mut source = format!("{prologue}{ASSERTIONS}");
        let first = source.lines().count() + 1;
        for decl in decls {
            source.push_str(&assertion(&decl.kind));
            source.push('\n');
        }
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for said in self.real.errors(&source)? {
            let decl = said.line.checked_sub(first).and_then(|i| decls.get(i));
            let Some(decl) = decl else {
                return Err(format!("line {} of the check: {}", said.line, said.text));
            };
            if seen.insert(said.line) {
                faults.push(format!("{}: {}", self.place(decl), plain(&said.text)));
            }
        }
        Ok(faults)
    }

    fn place(&self, decl: &Decl) -> String {
        let file = decl.file.strip_prefix(&self.dir).unwrap_or(&decl.file);
        let stated = match &decl.kind {
            Kind::Record(_) => String::new(),
            Kind::Member(_, _, t) | Kind::Typedef(_, t) | Kind::Symbol(_, t) => {
                format!(" (here {t})")
            }
            Kind::Bits(_, _, width) => format!(" (here {width} bits)"),
            Kind::Constant(_, value) => format!(" (here {value})"),
        };
        format!("{}:{}: {}{stated}", file.display(), decl.line, decl.what)
    }

    /// Tells macros that are numbers under the stand-in's headers from those that are not.
    fn kinds<'m>(&self, prologue: &str, macros: &'m [Macro]) -> Result<Kinds<'m>> {
        let uses: Vec<Use> = macros
            .iter()
            .enumerate()
            .flat_map(|(of, m)| m.uses().into_iter().map(move |text| Use { of, text }))
            .collect();
        let values = macros::values(&self.standin, prologue, &uses)?;
        let not: BTreeSet<usize> = uses
            .iter()
            .zip(&values)
            .filter(|(_, value)| value.is_none())
            .map(|(u, _)| u.of)
            .collect();
        let values = uses
            .into_iter()
            .zip(values)
            .filter(|(u, _)| !not.contains(&u.of))
            .filter_map(|(u, value)| Some((u, value?)))
            .collect();
        let texts = not.iter().filter_map(|of| macros.get(*of)).collect();
        Ok(Kinds { values, texts })
    }

    fn values(
        &self,
        prologue: &str,
        macros: &[Macro],
        values: &[(Use, u64)],
    ) -> Result<Vec<String>> {
        let uses: Vec<Use> = values.iter().map(|(u, _)| u.clone()).collect();
        let there = macros::values(&self.real, prologue, &uses)?;
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for ((u, here), there) in values.iter().zip(there) {
            if there == Some(*here) || !seen.insert(u.of) {
                continue;
            }
            let Some(m) = macros.get(u.of) else { continue };
            let there = there.map_or_else(|| "nothing".to_owned(), |v| format!("{v:#x}"));
            faults.push(format!(
                "{}: macro {} is {here:#x} here and {there} in the tree",
                self.line(&m.file, m.line),
                u.text
            ));
        }
        Ok(faults)
    }

    fn expansions(&self, prologue: &str, macros: &[&Macro]) -> Result<Vec<String>> {
        let here = macros::expansions(&self.standin, prologue, macros)?;
        let there = macros::expansions(&self.real, prologue, macros)?;
        let mut faults = Vec::new();
        for ((m, here), there) in macros.iter().zip(here).zip(there) {
            if here != there {
                let say = |t: Option<String>| t.unwrap_or_else(|| "not defined".into());
                faults.push(format!(
                    "{}: macro {} expands to `{}` here and `{}` in the tree",
                    self.line(&m.file, m.line),
                    m.name,
                    say(here),
                    say(there)
                ));
            }
        }
        Ok(faults)
    }

    fn line(&self, file: &Path, line: u64) -> String {
        let file = file.strip_prefix(&self.dir).unwrap_or(file);
        format!("{}:{line}", file.display())
    }
}

/// `th_member` makes a pointer of the right type out of nothing to name a member.
const ASSERTIONS: &str = "\
#define th_same(a, b) _Static_assert(__builtin_types_compatible_p(__typeof__(a), __typeof__(b)), \"another type\")
#define th_member(s, m) (((s *)0)->m)
#define th_value(v, n) _Static_assert((__int128)(v) == (__int128)(n), \"another value\")
#define th_bits(s, m, n) _Static_assert(((s){ .m = (1ULL << (n)) - 1 }).m == (1ULL << (n)) - 1 && ((s){ .m = 1ULL << (n) }).m == 0, \"another width\")
";

fn assertion(kind: &Kind) -> String {
    match kind {
        Kind::Record(record) => {
            format!("_Static_assert(sizeof({record}) > 0, \"no such type\");")
        }
        Kind::Member(record, path, c_type) => {
            format!("th_same(th_member({record}, {path}), {c_type});")
        }
        Kind::Bits(record, path, width) => format!("th_bits({record}, {path}, {width});"),
        Kind::Constant(name, value) => format!("th_value({name}, {value});"),
        Kind::Typedef(name, c_type) | Kind::Symbol(name, c_type) => {
            format!("th_same({name}, {c_type});")
        }
    }
}

/// clang's message without what every failed assertion has.
fn plain(text: &str) -> String {
    match text.rsplit_once("requirement '").map(|(_, rest)| rest) {
        Some(rest) => {
            let reason = rest.rsplit_once("': ").map_or(rest, |(_, reason)| reason);
            format!("{} in the tree", reason.trim_matches('"'))
        }
        None => text
            .trim_start_matches("static assertion failed: ")
            .to_owned(),
    }
}

/// Lines that carry the mark of t5sim's own declarations.
#[derive(Default)]
struct Own {
    files: std::collections::BTreeMap<PathBuf, Vec<String>>,
}

impl Own {
    fn has(&mut self, file: &Path, line: u64) -> Result<bool> {
        if !self.files.contains_key(file) {
            let text = std::fs::read_to_string(file)
                .map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            let lines = text.lines().map(str::to_owned).collect();
            self.files.insert(file.to_path_buf(), lines);
        }
        let at = usize::try_from(line).unwrap_or(0).checked_sub(1);
        let text = at.and_then(|at| self.files.get(file)?.get(at));
        Ok(text.is_some_and(|text| text.contains("/* t5sim")))
    }
}

/// A path as clang writes it, without the `..` of includes.
fn tidy(path: &str) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in Path::new(path).components() {
        if part == std::path::Component::ParentDir {
            tidied.pop();
        } else {
            tidied.push(part);
        }
    }
    tidied
}

/// Names of the headers below `dir`, relative to it.
fn headers_below(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join("dev")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
        for entry in entries.filter_map(std::result::Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "h")
                && let Ok(name) = path.strip_prefix(dir)
            {
                found.push(name.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What must come ahead of the tree's headers: they do not all include what they need.
const FIRST: [&str; 8] = [
    "opt_inet.h",
    "opt_inet6.h",
    "sys/param.h",
    "sys/systm.h",
    "sys/mbuf.h",
    "sys/socket.h",
    "sys/module.h",
    "dev/cxgbe/common/common.h",
];

/// The option headers of the stand-in are those of FreeBSD 14 and later.
const OPTIONS_SINCE: u32 = 1_400_000;

/// Options that the stand-in's headers in `dir` set and a kernel's own do not, or otherwise.
///
/// # Errors
/// A header cannot be read.
pub fn options(dir: &Path, kernel: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in crate::tree::files(dir, "h")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let theirs = kernel.get(&*name).map(String::as_str).unwrap_or_default();
        for line in text.lines().filter(|line| line.starts_with("#define ")) {
            // Not the guards, which have no value.
            if line.split_whitespace().count() > 2 && !theirs.lines().any(|l| l == line) {
                faults.push(format!("opt/{name}: the kernel's does not say `{line}`"));
            }
        }
    }
    Ok(faults)
}

/// Runs it on the tree that SYSDIR names.
///
/// # Errors
/// No tree is given, it is not usable, or the list of differences.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    let given =
        Given::read()?.ok_or("the stand-in is checked against a source tree: give SYSDIR")?;
    crate::inputs::check_tools(&["clang-19"], std::env::var_os("PATH"))?;
    let source = Source::open(&given)?;
    kmod::in_scratch(tree, |scratch| {
        generate::headers(runner, &source, scratch)?;
        let dir = tree.at("sys/standin");
        let real = shim::tree_flags(tree, &source, scratch, &[]);
        let standin = shim::tree_flags(tree, &source, scratch, std::slice::from_ref(&dir));
        let compiler = |flags| Compiler {
            runner,
            flags,
            scratch: scratch.to_path_buf(),
        };
        let check = Check {
            dir,
            first: &FIRST,
            standin: compiler(standin),
            real: compiler(real),
        };
        let (mut faults, count) = check.run()?;
        if source.version >= OPTIONS_SINCE {
            let headers = source.config.headers(&source.sysdir)?;
            faults.extend(options(&tree.opt(), &headers)?);
        }
        if faults.is_empty() {
            println!(
                "sys/standin is FreeBSD {}'s: {} declarations, {} macros by value, {} by \
                 their text; {} of t5sim's own",
                source.release, count.declarations, count.values, count.expansions, count.own
            );
            return Ok(());
        }
        Err(format!(
            "sys/standin is not FreeBSD {}'s in {} places:\n  {}",
            source.release,
            faults.len(),
            faults.join("\n  ")
        ))
    })
}
