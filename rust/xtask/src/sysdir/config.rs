//! A kernel's configuration, read as config(8) reads it: which options are on, what the
//! `opt_*.h` say, and which source files the kernel is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::Result;

const MACHINE: &str = "amd64";

/// Options and devices of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name and value; `None` is an option that is only on.
    pub options: BTreeMap<String, Option<String>>,
    /// Names of devices.
    pub devices: BTreeSet<String>,
    /// Lists of source files it brings besides those of the tree.
    pub files: Vec<PathBuf>,
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Words of one line: blanks part them, double quotes hold them together, `#` ends the line.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let (mut open, mut quoted) = (false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'"') => word.extend(chars.next()),
            '"' => {
                quoted = !quoted;
                open = true;
            }
            '#' if !quoted => break,
            c if c.is_whitespace() && !quoted => {
                if open {
                    all.push(std::mem::take(&mut word));
                }
                open = false;
            }
            c => {
                word.push(c);
                open = true;
            }
        }
    }
    if open {
        all.push(word);
    }
    all
}

/// Lines with those that end in a backslash joined to the next.
fn joined(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        // A comment ends at its line's end, backslash or not.
        match part.trim_end().strip_suffix('\\') {
            Some(start) if !part.trim_start().starts_with('#') => {
                line.push_str(start);
                line.push(' ');
            }
            _ => {
                line.push_str(part);
                lines.push(std::mem::take(&mut line));
            }
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

impl Config {
    /// Reads kernel configuration `name` (such as GENERIC) of the tree, with what every
    /// kernel of the machine has (DEFAULTS) before it, and sets the options of `more` (`NAME`
    /// or `NAME=value`) at the end.
    ///
    /// # Errors
    /// A file cannot be read, or a line is none that config(8) knows.
    pub fn open(sysdir: &Path, name: &str, more: &[String]) -> Result<Self> {
        let dir = sysdir.join(MACHINE).join("conf");
        let mut config = Self::default();
        if dir.join("DEFAULTS").is_file() {
            config.read_file(sysdir, &dir.join("DEFAULTS"), 0)?;
        }
        config.read_file(sysdir, &dir.join(name), 0)?;
        for option in more {
            config.set(option);
        }
        Ok(config)
    }

    /// Sets what the `opt_*.h` of a kernel's build folder say, and takes back what they do not:
    /// which files the kernel is made of follows from them. Of devices they name but few.
    ///
    /// # Errors
    /// The tree's lists of options cannot be read.
    pub fn adopt(&mut self, sysdir: &Path, folder: &Path) -> Result<()> {
        let (known, _) = option_files(sysdir)?;
        let mut texts: BTreeMap<&str, Names> = BTreeMap::new();
        for (name, file) in &known {
            let path = folder.join(file);
            if !path.is_file() {
                continue;
            }
            if !texts.contains_key(file.as_str()) {
                texts.insert(file, defined(&read(&path)?));
            }
            let value = texts.get(file.as_str()).and_then(|text| text.get(name));
            if let Some(device) = name.strip_prefix("DEV_") {
                let device = device.to_lowercase();
                if value.is_some() {
                    self.devices.insert(device);
                } else {
                    self.devices.remove(&device);
                }
            }
            match value {
                Some(value) if value == "1" => self.options.insert(name.clone(), None),
                Some(value) => self.options.insert(name.clone(), Some(value.clone())),
                None => self.options.remove(name),
            };
        }
        Ok(())
    }

    fn set(&mut self, text: &str) {
        for option in text.split(',').filter(|o| !o.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            self.options.insert(name.to_owned(), value);
        }
    }

    fn read_file(&mut self, sysdir: &Path, path: &Path, depth: u32) -> Result<()> {
        if depth > 8 {
            return Err(format!("{} includes itself", path.display()));
        }
        for line in joined(&read(path)?) {
            let words = words(&line);
            let Some((keyword, rest)) = words.split_first() else {
                continue;
            };
            let list = rest.concat();
            let names = || list.split(',').filter(|n| !n.is_empty());
            match keyword.as_str() {
                "options" | "option" => self.set(&list),
                "device" | "devices" => self.devices.extend(names().map(str::to_owned)),
                "nooption" | "nooptions" => {
                    self.options.retain(|o, _| !names().any(|n| n == o));
                }
                "nodevice" | "nodevices" => self.devices.retain(|d| !names().any(|n| n == d)),
                "cpu" => self.set(&list),
                "include" => {
                    let near = path.with_file_name(&list);
                    let next = if near.is_file() {
                        near
                    } else {
                        sysdir.join("conf").join(&list)
                    };
                    self.read_file(sysdir, &next, depth + 1)?;
                }
                "maxusers" => self.set(&format!("MAXUSERS={list}")),
                "files" => self.files.push(path.with_file_name(&list)),
                "machine" | "ident" | "makeoptions" | "makeoption" | "nomakeoptions"
                | "nomakeoption" | "nocpu" | "hints" | "env" | "envvar" | "profile" | "config" => {}
                other => {
                    return Err(format!(
                        "{}: `{other}` is no keyword of a kernel configuration",
                        path.display()
                    ));
                }
            }
        }
        Ok(())
    }

    /// The text of every `opt_*.h` that the tree knows; those without an option are empty.
    ///
    /// # Errors
    /// The tree's lists cannot be read, or an option is in none of them.
    pub fn headers(&self, sysdir: &Path) -> Result<BTreeMap<String, String>> {
        let (known, renamed) = option_files(sysdir)?;
        let mut texts: BTreeMap<String, String> = known
            .values()
            .map(|file| (file.clone(), String::new()))
            .collect();
        let mut define = |file: &str, name: &str, value: Option<&str>| {
            let text = texts.entry(file.to_owned()).or_default();
            text.push_str(&format!("#define {name} {}\n", value.unwrap_or("1")));
        };
        for (name, value) in &self.options {
            let name = renamed.get(name).unwrap_or(name);
            let Some(file) = known.get(name) else {
                return Err(format!(
                    "{name} is no option of {}/conf/options or options.{MACHINE}",
                    sysdir.display()
                ));
            };
            define(file, name, value.as_deref());
        }
        // config(8) always sets this one; 0 lets the kernel size itself.
        if !self.options.contains_key("MAXUSERS")
            && let Some(file) = known.get("MAXUSERS")
        {
            define(file, "MAXUSERS", Some("0"));
        }
        // config(8) turns a device into an option where the lists have one of its name.
        for device in &self.devices {
            let name = format!("DEV_{}", device.to_uppercase());
            if let Some(file) = known.get(&name) {
                define(file, &name, None);
            }
        }
        Ok(texts)
    }

    /// The kernel's source files, relative to the tree's `sys`: those that every kernel has
    /// and those whose options and devices are on.
    ///
    /// # Errors
    /// A list cannot be read.
    pub fn sources(&self, sysdir: &Path) -> Result<Vec<PathBuf>> {
        let mut found = BTreeSet::new();
        let lists = ["conf/files".to_owned(), format!("conf/files.{MACHINE}")];
        for list in lists
            .iter()
            .map(|l| sysdir.join(l))
            .chain(self.files.clone())
        {
            self.read_list(sysdir, &list, 0, &mut found)?;
        }
        Ok(found.into_iter().collect())
    }

    fn read_list(
        &self,
        sysdir: &Path,
        list: &Path,
        depth: u32,
        found: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        if depth > 8 {
            return Err(format!("{} includes itself", list.display()));
        }
        for line in joined(&read(list)?) {
            let words = words(&line);
            match words.as_slice() {
                [keyword, path] if keyword == "include" => {
                    let path = path.trim_start_matches("$S/");
                    self.read_list(sysdir, &sysdir.join(path), depth + 1, found)?;
                }
                [file, when, rest @ ..] => {
                    let on = match when.as_str() {
                        "standard" | "mandatory" => true,
                        "optional" => self.wants(rest),
                        _ => false,
                    };
                    if on {
                        found.insert(PathBuf::from(file));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the condition of an optional file holds: words that must all hold, `|`
    /// between alternatives, `!` in front of one that must not; then come build rules.
    fn wants(&self, condition: &[String]) -> bool {
        const RULES: [&str; 12] = [
            "no-obj",
            "no-implicit-rule",
            "no-ctfconvert",
            "no-depend",
            "before-depend",
            "local",
            "nowerror",
            "obj-prefix",
            "compile-with",
            "dependency",
            "clean",
            "warning",
        ];
        let condition: Vec<&str> = condition
            .iter()
            .map(String::as_str)
            .take_while(|word| !RULES.contains(word))
            .collect();
        condition.split(|word| *word == "|").any(|all| {
            !all.is_empty()
                && all.iter().all(|word| match word.strip_prefix('!') {
                    Some(word) => !self.has(word),
                    None => self.has(word),
                })
        })
    }

    fn has(&self, word: &str) -> bool {
        self.devices.contains(word)
            || self
                .options
                .iter()
                .any(|(name, value)| value.is_none() && name.eq_ignore_ascii_case(word))
    }
}

type Names = BTreeMap<String, String>;

/// Macros of a header that config(8) wrote, and their values.
fn defined(text: &str) -> Names {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("#define")?.trim();
            let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Option to header, and old name to new name, of the tree's lists of options.
fn option_files(sysdir: &Path) -> Result<(Names, Names)> {
    let mut known = Names::new();
    let mut renamed = Names::new();
    for list in ["conf/options".to_owned(), format!("conf/options.{MACHINE}")] {
        for line in read(&sysdir.join(list))?.lines() {
            let words = words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                [] => {}
                [old, "=", new, ..] => {
                    renamed.insert((*old).to_owned(), (*new).to_owned());
                }
                [name, rest @ ..] => {
                    let file = match rest.first() {
                        Some(file) => (*file).to_owned(),
                        None => format!("opt_{}.h", name.to_lowercase()),
                    };
                    known.insert((*name).to_owned(), file);
                }
            }
        }
    }
    Ok((known, renamed))
}
