//! The macros of the stand-in headers: what they come to there, as numbers where they are
//! numbers and as tokens where they are not.

use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSection, ObjectSymbol};

use super::compiler::Compiler;
use crate::Result;

/// A macro with something in it; include guards have nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macro {
    /// Its name.
    pub name: String,
    /// Number of its parameters; `None` if it takes no brackets.
    pub params: Option<usize>,
    /// The header.
    pub file: PathBuf,
    /// Its line there.
    pub line: u64,
}

/// One use of a macro that may be a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Place of the macro in its list.
    pub of: usize,
    /// The call.
    pub text: String,
}

/// Arguments that macros of bit-fields are tried with: low bits, high bits, all bits.
const SAMPLES: [&str; 5] = ["1U", "2U", "0x55U", "0xffffU", "0x80000001U"];

impl Macro {
    /// The macro called with `args` in turn.
    fn call(&self, arg: impl Fn(usize) -> String) -> String {
        match self.params {
            None => self.name.clone(),
            Some(n) => {
                let args: Vec<String> = (0..n).map(arg).collect();
                format!("{}({})", self.name, args.join(", "))
            }
        }
    }

    /// Calls whose values are compared.
    pub fn uses(&self) -> Vec<String> {
        let rounds = if self.params.unwrap_or(0) == 0 {
            1
        } else {
            SAMPLES.len()
        };
        let sample = |i: usize| SAMPLES.get(i % SAMPLES.len()).copied().unwrap_or("1U");
        (0..rounds)
            .map(|round| self.call(|i| sample(round + 2 * i).to_owned()))
            .collect()
    }

    /// A call with arguments that mean nothing, to see what it expands to.
    pub fn blank(&self) -> String {
        self.call(|i| format!("th_arg{i}"))
    }
}

/// Macros defined in files below `dir`, in what `clang -E -dD` printed; a macro that is
/// undefined again is none.
pub fn read(text: &str, dir: &Path) -> Vec<Macro> {
    let mut found: Vec<Macro> = Vec::new();
    let mut file = PathBuf::new();
    let mut line = 0;
    for said in text.lines() {
        if let Some((number, path)) = marker(said) {
            file = super::tidy(path);
            line = number;
            continue;
        }
        if let Some(rest) = said.strip_prefix("#undef ") {
            found.retain(|m| m.name != rest.trim());
        } else if let Some(rest) = said.strip_prefix("#define ")
            && file.starts_with(dir)
            && let Some((name, params)) = definition(rest)
        {
            found.retain(|m| m.name != name);
            found.push(Macro {
                name,
                params,
                file: file.clone(),
                line,
            });
        }
        line += 1;
    }
    found
}

/// A line such as `# 12 "a/b.h" 1`.
fn marker(line: &str) -> Option<(u64, &str)> {
    let (number, rest) = line.strip_prefix("# ")?.split_once(" \"")?;
    let (path, _) = rest.split_once('"')?;
    Some((number.parse().ok()?, path))
}

fn definition(text: &str) -> Option<(String, Option<usize>)> {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    let (params, body) = match rest.strip_prefix('(') {
        Some(rest) => {
            let (params, body) = rest.split_once(')')?;
            let count = params.split(',').filter(|p| !p.trim().is_empty()).count();
            (Some(count), body)
        }
        None => (None, rest),
    };
    (!body.trim().is_empty()).then(|| (name.to_owned(), params))
}

/// The values of those uses that are numbers under the compiler's headers; `None` for one
/// that is not. `prologue` includes the headers.
///
/// # Errors
/// The compiler fails on what it had no complaint about before.
pub fn values(compiler: &Compiler<'_>, prologue: &str, uses: &[Use]) -> Result<Vec<Option<u64>>> {
    let line = |u: &Use| format!("\t(unsigned long long)({}),\n", u.text);
    let source = |good: &dyn Fn(usize) -> bool| {
        let mut text = format!("{prologue}const unsigned long long th_values[] = {{\n");
        for (i, u) in uses.iter().enumerate() {
            text.push_str(&if good(i) {
                line(u)
            } else {
                "\t0,\n".to_owned()
            });
        }
        text + "\t0\n};\n"
    };
    let first = prologue.lines().count() + 2;
    let bad: Vec<usize> = compiler
        .errors(&source(&|_| true))?
        .into_iter()
        .filter_map(|error| error.line.checked_sub(first))
        .collect();
    let bytes = compiler.object(&source(&|i| !bad.contains(&i)))?;
    let numbers = table(&bytes, "th_values")?;
    Ok((0..uses.len())
        .map(|i| numbers.get(i).copied().filter(|_| !bad.contains(&i)))
        .collect())
}

/// The 64-bit numbers at a symbol.
fn table(bytes: &[u8], name: &str) -> Result<Vec<u64>> {
    let file = object::File::parse(bytes).map_err(|e| format!("not an object file: {e}"))?;
    let data = || {
        let symbol = file.symbols().find(|s| s.name() == Ok(name))?;
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        let from = usize::try_from(symbol.address()).ok()?;
        let size = usize::try_from(symbol.size()).ok()?;
        section.data().ok()?.get(from..from.checked_add(size)?)
    };
    let data = data().ok_or_else(|| format!("the compiler left no {name}"))?;
    Ok(data
        .chunks_exact(8)
        .filter_map(|eight| Some(u64::from_le_bytes(*eight.first_chunk::<8>()?)))
        .collect())
}

/// What each macro expands to under the compiler's headers, without blanks and brackets;
/// `None` if it is not defined there.
///
/// # Errors
/// The preprocessor fails.
pub fn expansions(
    compiler: &Compiler<'_>,
    prologue: &str,
    macros: &[&Macro],
) -> Result<Vec<Option<String>>> {
    let mut source = prologue.to_owned();
    for (i, m) in macros.iter().enumerate() {
        source.push_str(&format!(
            "#ifdef {}\nth_expansion_{i} {} th_end\n#endif\n",
            m.name,
            m.blank()
        ));
    }
    let text = compiler.preprocess(&source)?;
    Ok((0..macros.len())
        .map(|i| {
            let (_, rest) = text.split_once(&format!("\nth_expansion_{i} "))?;
            let (body, _) = rest.split_once("th_end")?;
            Some(
                body.chars()
                    .filter(|c| !c.is_whitespace() && !"()".contains(*c))
                    .collect(),
            )
        })
        .collect())
}
