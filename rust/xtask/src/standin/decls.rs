//! The declarations of the stand-in headers, out of clang's syntax tree.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::json::{Reader, Value};

/// One declaration that FreeBSD's headers must have too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decl {
    /// For messages: "struct adapter, member pf".
    pub what: String,
    /// What it says.
    pub kind: Kind,
    /// The header.
    pub file: PathBuf,
    /// Its line there.
    pub line: u64,
}

/// What a declaration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A struct or union with members ("struct adapter").
    Record(String),
    /// A member: "struct adapter", "tids.ntids" and its type.
    Member(String, String, String),
    /// A bit-field: as a member, and its width.
    Bits(String, String, u32),
    /// A constant of an enum and its value.
    Constant(String, i128),
    /// A type's name and what it stands for.
    Typedef(String, String),
    /// A function or variable and its type.
    Symbol(String, String),
}

/// A node of the tree with its place.
struct Node<'a> {
    value: &'a Value,
    file: String,
    line: u64,
    inner: Vec<Node<'a>>,
}

impl Node<'_> {
    fn text(&self, key: &str) -> &str {
        self.value.text(key).unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.text("kind")
    }

    fn name(&self) -> &str {
        self.text("name")
    }

    fn c_type(&self) -> &str {
        self.value
            .get("type")
            .and_then(|t| t.text("qualType"))
            .unwrap_or_default()
    }

    fn is(&self, key: &str) -> bool {
        self.text(key) == "true"
    }
}

/// The place told last; clang leaves out a file or line that did not change.
#[derive(Default)]
struct Place {
    file: String,
    line: u64,
}

impl Place {
    /// Takes in a `loc`, `begin` or `end`; returns where that is, the place of use for what
    /// a macro made.
    fn enter(&mut self, location: &Value) {
        for part in ["spellingLoc", "expansionLoc"] {
            if let Some(inner) = location.get(part) {
                self.enter(inner);
            }
        }
        if let Some(file) = location.text("file") {
            self.file = super::tidy(file).display().to_string();
        }
        if let Some(line) = location.text("line").and_then(|l| l.parse().ok()) {
            self.line = line;
        }
    }

    fn node<'a>(&mut self, value: &'a Value) -> Node<'a> {
        let mut node = Node {
            value,
            file: String::new(),
            line: 0,
            inner: Vec::new(),
        };
        let Value::Object(pairs) = value else {
            return node;
        };
        for (key, part) in pairs {
            match (key.as_str(), part) {
                ("loc", _) => {
                    self.enter(part);
                    node.file.clone_from(&self.file);
                    node.line = self.line;
                }
                ("range", _) => {
                    for end in ["begin", "end"] {
                        if let Some(end) = part.get(end) {
                            self.enter(end);
                        }
                    }
                }
                ("inner", Value::List(all)) => {
                    for inner in all {
                        let inner = self.node(inner);
                        node.inner.push(inner);
                    }
                }
                _ => {}
            }
        }
        node
    }
}

/// Every declaration of a file below `dir` in the tree that clang printed.
///
/// # Errors
/// The text is no syntax tree.
pub fn read(json: &str, dir: &Path) -> Result<Vec<Decl>> {
    let mut place = Place::default();
    let mut found = Vec::new();
    Reader::new(json).object(&mut |reader, key| {
        if key != "inner" {
            let value = reader.value()?;
            if key == "loc" {
                place.enter(&value);
            }
            return Ok(());
        }
        reader.list(&mut |reader| {
            let value = reader.value()?;
            let node = place.node(&value);
            if Path::new(&node.file).starts_with(dir) {
                top(&node, &mut found);
            }
            Ok(())
        })
    })?;
    Ok(found)
}

fn top(node: &Node<'_>, found: &mut Vec<Decl>) {
    let mut add = |what: String, kind: Kind| {
        found.push(Decl {
            what,
            kind,
            file: PathBuf::from(&node.file),
            line: node.line,
        });
    };
    let name = node.name();
    let c_type = node.c_type().to_owned();
    // Where a builtin is used first, clang declares it.
    if node.is("isImplicit") || name.starts_with("__builtin_") {
        return;
    }
    match node.kind() {
        "RecordDecl" if node.is("completeDefinition") && !name.is_empty() => {
            let record = format!("{} {name}", node.text("tagUsed"));
            add(record.clone(), Kind::Record(record.clone()));
            members(node, &record, "", found);
        }
        "EnumDecl" => constants(node, found),
        "TypedefDecl" => add(
            format!("type {name}"),
            Kind::Typedef(name.to_owned(), c_type),
        ),
        "FunctionDecl" => add(
            format!("function {name}"),
            Kind::Symbol(name.to_owned(), c_type),
        ),
        "VarDecl" => add(
            format!("variable {name}"),
            Kind::Symbol(name.to_owned(), c_type),
        ),
        _ => {}
    }
}

fn constants(node: &Node<'_>, found: &mut Vec<Decl>) {
    let mut next = 0;
    for constant in node.inner.iter().filter(|n| n.kind() == "EnumConstantDecl") {
        let said = constant
            .inner
            .iter()
            .find_map(|n| n.value.text("value")?.parse::<i128>().ok());
        let value = said.unwrap_or(next);
        next = value + 1;
        found.push(Decl {
            what: format!("constant {}", constant.name()),
            kind: Kind::Constant(constant.name().to_owned(), value),
            file: PathBuf::from(&constant.file),
            line: constant.line,
        });
    }
}

/// Members of a record; those of a record without a name, as queue macros make them, are
/// members of the member.
fn members(node: &Node<'_>, record: &str, path: &str, found: &mut Vec<Decl>) {
    let mut unnamed: Option<&Node<'_>> = None;
    for inner in &node.inner {
        match inner.kind() {
            "RecordDecl" if inner.name().is_empty() => unnamed = Some(inner),
            "RecordDecl" if inner.is("completeDefinition") => top(inner, found),
            "FieldDecl" => {
                let name = inner.name();
                // A record within, whose members are as if they were the outer one's.
                let below = if name.is_empty() {
                    path.to_owned()
                } else {
                    format!("{path}{name}")
                };
                let c_type = inner.c_type();
                if let Some(record_of) = unnamed.take().filter(|_| c_type.contains("(unnamed")) {
                    let dot = if name.is_empty() { "" } else { "." };
                    members(record_of, record, &format!("{below}{dot}"), found);
                    continue;
                }
                let kind = if inner.is("isBitfield") {
                    Kind::Bits(record.to_owned(), below.clone(), width(inner))
                } else {
                    Kind::Member(record.to_owned(), below.clone(), c_type.to_owned())
                };
                found.push(Decl {
                    what: format!("{record}, member {below}"),
                    kind,
                    file: PathBuf::from(&inner.file),
                    line: inner.line,
                });
            }
            _ => {}
        }
    }
}

fn width(field: &Node<'_>) -> u32 {
    field
        .inner
        .iter()
        .find_map(|n| n.value.text("value")?.parse().ok())
        .unwrap_or(0)
}
