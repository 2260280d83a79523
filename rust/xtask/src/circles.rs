//! A check of `make check`: no two files of a crate import each other, but for those listed
//! in `circles.txt` beside the manifest, which may only lose lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::tree::Tree;

/// Folders of the crates that are held to it.
const CRATES: [&str; 10] = [
    "rust/core",
    "rust/kmod",
    "rust/kpi",
    "rust/t5sim",
    "rust/t5sim-kmod",
    "rust/wire",
    "rust/xtask",
    "sys",
    "tests/e2e",
    "tests/sim",
];

/// The list of circles that there still are.
const LIST: &str = "rust/xtask/circles.txt";

/// Holds every crate to it.
///
/// # Errors
/// Names each circle that is not in the list, and each line of the list that is none any more.
pub fn check(tree: &Tree) -> Result<()> {
    let mut found = BTreeSet::new();
    for dir in CRATES {
        let files = sources(&tree.at(dir).join("src"))?;
        found.extend(
            of(&files)
                .into_iter()
                .map(|(a, b)| format!("{dir} {a} {b}")),
        );
    }
    let list = tree.at(LIST);
    let text =
        fs::read_to_string(&list).map_err(|e| format!("cannot read {}: {e}", list.display()))?;
    compare(&found, &text)
}

/// Holds the circles that there are against the text of the list.
///
/// # Errors
/// They differ.
pub fn compare(found: &BTreeSet<String>, list: &str) -> Result<()> {
    let listed: BTreeSet<String> = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let new = found
        .difference(&listed)
        .map(|c| format!("\n  {c}: these import each other"));
    let gone = listed
        .difference(found)
        .map(|c| format!("\n  {c}: no circle now, take it out of {LIST}"));
    let said: String = new.chain(gone).collect();
    if said.is_empty() {
        Ok(())
    } else {
        Err(format!("circles of files:{said}"))
    }
}

/// The files below `dir` but those of tests, by module (`a::b`, the crate's root is empty).
fn sources(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        let entries =
            fs::read_dir(&path).map_err(|e| format!("cannot list {}: {e}", path.display()))?;
        for entry in entries.flatten() {
            let below = folder.join(entry.file_name());
            let name = below.file_stem().unwrap_or_default().to_string_lossy();
            if matches!(&*name, "main" | "bin" | "tests") || name.ends_with("_tests") {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(below);
            } else if below.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(entry.path())
                    .map_err(|e| format!("cannot read {}: {e}", entry.path().display()))?;
                files.insert(module(&below), text);
            }
        }
    }
    Ok(files)
}

/// The module of a file below `src`.
fn module(file: &Path) -> String {
    let parts: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    let root = |last: &&String| matches!(last.as_str(), "lib" | "mod");
    let end = parts.len() - usize::from(parts.last().as_ref().is_some_and(root));
    parts.get(..end).unwrap_or_default().join("::")
}

/// Pairs of modules that import each other, of the texts by module.
pub fn of(files: &BTreeMap<String, String>) -> BTreeSet<(String, String)> {
    let imports: BTreeSet<(&str, String)> = files
        .iter()
        .flat_map(|(module, text)| {
            let used = paths(text)
                .into_iter()
                .filter_map(|path| target(files, module, &path));
            used.filter(|used| used != module)
                .map(|used| (module.as_str(), used))
                .collect::<Vec<_>>()
        })
        .collect();
    let shown = |name: &str| {
        if name.is_empty() {
            "(root)".to_owned()
        } else {
            name.to_owned()
        }
    };
    imports
        .iter()
        .filter(|(from, to)| {
            *from < to.as_str() && imports.contains(&(to.as_str(), (*from).to_owned()))
        })
        .map(|(from, to)| (shown(from), shown(to)))
        .collect()
}

/// The file that a path leads to, seen from `module`: the longest start of it that is one.
fn target(files: &BTreeMap<String, String>, module: &str, path: &[String]) -> Option<String> {
    let mut at: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut rest = path.iter().map(String::as_str).peekable();
    match rest.peek().copied()? {
        "crate" => {
            rest.next();
            at.clear();
        }
        "self" => drop(rest.next()),
        "super" => {
            while rest.next_if_eq(&"super").is_some() {
                at.pop();
            }
        }
        child => {
            let own = [at.as_slice(), &[child]].concat().join("::");
            files.get(&own)?;
        }
    }
    for part in rest {
        at.push(part);
        if !files.contains_key(&at.join("::")) {
            at.pop();
            break;
        }
    }
    Some(at.join("::"))
}

/// Every path of two or more names in the text, and every path of its `use` items but those
/// that only show a name again (`pub use`).
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let tokens = tokens(text);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let shown = at > 0 && matches!(tokens.get(at - 1).map(String::as_str), Some("pub" | ")"));
        let mut read = Vec::new();
        if token == "use" {
            at = item(&tokens, at + 1, &[], &mut read);
            if !shown {
                found.append(&mut read);
            }
        } else if name(token) && tokens.get(at + 1).is_some_and(|next| next == "::") {
            at = item(&tokens, at, &[], &mut read);
            found.append(&mut read);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path or group of paths that starts at `at`, below `start`; returns what follows.
fn item(tokens: &[String], mut at: usize, start: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = start.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => at += 1,
            "{" if tokens
                .get(at.wrapping_sub(1))
                .is_some_and(|t| t == "::" || t == "use") =>
            {
                at += 1;
                while tokens.get(at).is_some_and(|t| t != "}") {
                    let next = item(tokens, at, &path, found);
                    at = next.max(at + 1);
                }
                return at + 1;
            }
            word if name(word)
                && (path.len() == start.len() || tokens.get(at - 1).is_some_and(|t| t == "::")) =>
            {
                path.push(token.clone());
                at += 1;
            }
            _ => break,
        }
    }
    found.push(path);
    at
}

fn name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single characters of a Rust text; comments and strings are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut rest = line.split("//").next().unwrap_or_default();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len())
            } else if first == '"' {
                rest[1..].find('"').map_or(rest.len(), |end| end + 2)
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            if !token.trim().is_empty() && first != '"' {
                found.push(token.to_owned());
            }
            rest = after;
        }
    }
    found
}
