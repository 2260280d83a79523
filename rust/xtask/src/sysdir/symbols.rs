//! Which of a module's undefined symbols the tree's kernel, or a module it depends on,
//! defines. A name that nobody defines would only show when the module is loaded.
//!
//! ctags and a look at macro calls say which files may define a name; what counts is the
//! symbol table of those files, compiled with the options of the kernel in question. So a
//! definition under an option that is off, or a `static` one, is none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSymbol};

use super::{Source, generate};
use crate::parallel;
use crate::run::{Cmd, Runner, need};
use crate::{Result, inputs};

/// Who defines symbols: the kernel itself or a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// The kernel; depended on by every module.
    Kernel,
    /// Module toecore.
    Toecore,
    /// Module t4nex, if_cxgbe.ko.
    Cxgbe,
}

impl Provider {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Toecore => "toecore",
            Self::Cxgbe => "if_cxgbe",
        }
    }

    /// A module's Makefile, and the folder its sources lie in or below.
    fn module(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Kernel => None,
            Self::Toecore => Some(("modules/toecore/Makefile", "netinet")),
            Self::Cxgbe => Some(("modules/cxgbe/if_cxgbe/Makefile", "dev/cxgbe")),
        }
    }
}

/// How the kernel's own files are compiled here: only the names in them matter.
pub fn kernel_flags(source: &Source, generated: &Path) -> Vec<OsString> {
    let mut flags = source.flags(generated);
    flags.extend(
        [
            "-ffreestanding",
            "-D_KERNEL",
            // Spares the inline functions that need offsets of struct thread beforehand.
            "-DGENOFFSET",
            "-include",
            "opt_global.h",
            "-mcmodel=kernel",
            "-mno-red-zone",
            "-mno-mmx",
            "-mno-sse",
            "-msoft-float",
            "-fno-pic",
            "-fno-common",
            "-fms-extensions",
            "-fno-asynchronous-unwind-tables",
            "-std=gnu17",
            "-O1",
            "-w",
            // Old trees break rules that are errors by now.
            "-Wno-everything",
            "-ferror-limit=1",
            "-c",
        ]
        .map(OsString::from),
    );
    flags
}

/// What became of the names that were looked for.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Name and who defines it.
    pub found: BTreeMap<String, Provider>,
    /// Name, and why files that might define it were not counted.
    pub missing: BTreeMap<String, String>,
}

/// A source file that may define something.
#[derive(Clone, Debug)]
struct File {
    provider: Provider,
    path: PathBuf,
}

/// Compiled files by path: their global symbols, or what the compiler said.
type Compiled = BTreeMap<PathBuf, std::result::Result<BTreeSet<String>, String>>;

/// Looks for definitions in one tree.
pub struct Finder<'a> {
    runner: &'a dyn Runner,
    source: &'a Source,
    generated: PathBuf,
    scratch: PathBuf,
    files: Vec<File>,
    /// Name and the places in `files` that ctags found it in, and whether it is static there.
    tags: BTreeMap<String, BTreeMap<usize, bool>>,
    compiled: Compiled,
}

impl<'a> Finder<'a> {
    /// Lists and scans the tree's files. `scratch` is an empty folder; `generated` holds
    /// what [`generate::headers`] made, and gets more.
    ///
    /// # Errors
    /// ctags is missing, or a list of the tree cannot be read.
    pub fn new(
        runner: &'a dyn Runner,
        source: &'a Source,
        generated: &Path,
        scratch: &Path,
    ) -> Result<Self> {
        inputs::check_tools(&["ctags"], std::env::var_os("PATH"))?;
        generate::for_kernel_files(runner, source, generated)?;
        let mut finder = Self {
            runner,
            source,
            generated: generated.into(),
            scratch: scratch.into(),
            files: Vec::new(),
            tags: BTreeMap::new(),
            compiled: BTreeMap::new(),
        };
        for provider in [Provider::Kernel, Provider::Toecore, Provider::Cxgbe] {
            for path in finder.sources(provider)? {
                finder.files.push(File { provider, path });
            }
        }
        finder.scan()?;
        Ok(finder)
    }

    /// C and assembler files of a provider, interfaces turned into C.
    fn sources(&self, provider: Provider) -> Result<Vec<PathBuf>> {
        let listed: Vec<PathBuf> = match provider.module() {
            None => {
                let all = self.source.config.sources(&self.source.sysdir)?;
                all.iter().map(|path| self.source.at(path)).collect()
            }
            Some((makefile, dir)) => {
                let names = makefile_sources(&self.source.at(makefile))?;
                let mut found = Vec::new();
                files_named(&self.source.at(dir), &names, &mut found);
                found
            }
        };
        let mut files = Vec::new();
        for path in listed.into_iter().filter(|path| path.is_file()) {
            match path.extension().and_then(|e| e.to_str()) {
                Some("c" | "S" | "s") => files.push(path),
                Some("m") => files.push(generate::object_interface(
                    self.runner,
                    self.source,
                    &path,
                    "-c",
                    &self.scratch,
                )?),
                _ => {}
            }
        }
        Ok(files)
    }

    fn scan(&mut self) -> Result<()> {
        let list = self.scratch.join("files");
        let paths: Vec<String> = self
            .files
            .iter()
            .filter(|f| !is_assembler(&f.path))
            .map(|f| f.path.display().to_string())
            .collect();
        std::fs::write(&list, paths.join("\n") + "\n")
            .map_err(|e| format!("cannot write {}: {e}", list.display()))?;
        let cmd = Cmd::new("ctags")
            .args(["--options=NONE", "--languages=C", "--kinds-C=fv"])
            .args(["--sort=no", "-x", "--_xformat=%N\t%f\t%F", "-L"])
            .arg(&list);
        let out = need(self.runner, &cmd, "scanning the tree")?;
        let places: BTreeMap<&Path, usize> = self
            .files
            .iter()
            .enumerate()
            .map(|(place, file)| (file.path.as_path(), place))
            .collect();
        for line in out.stdout.lines() {
            let mut fields = line.splitn(3, '\t');
            let (Some(name), Some(scope), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if let Some(place) = places.get(Path::new(path)) {
                let all = self.tags.entry(name.to_owned()).or_default();
                let hidden = all.entry(*place).or_insert(true);
                *hidden &= scope == "file";
            }
        }
        Ok(())
    }

    /// Who among `providers` defines each of `names`.
    pub fn find(&mut self, names: &BTreeSet<String>, providers: &[Provider]) -> Report {
        let mut report = Report::default();
        let mut candidates: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for name in names {
            let places = self.tags.get(name).into_iter().flatten();
            let shown = places.filter(|(_, hidden)| !**hidden);
            candidates.insert(name, shown.map(|(place, _)| *place).collect());
        }
        self.settle(&candidates, providers, &mut report);
        for likely in [true, false] {
            let open: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|name| !report.found.contains_key(*name))
                .collect();
            for (name, places) in self.mentions(&open, likely) {
                candidates.entry(name).or_default().extend(places);
            }
            candidates.retain(|name, _| !report.found.contains_key(*name));
            self.settle(&candidates, providers, &mut report);
        }
        for (name, places) in candidates {
            if !report.found.contains_key(name) {
                let why = self.why_not(name, &places, providers);
                report.missing.insert(name.to_owned(), why);
            }
        }
        report
    }

    /// Enters the names that candidates define, compiling as few of them as it takes.
    fn settle(
        &mut self,
        candidates: &BTreeMap<&str, BTreeSet<usize>>,
        providers: &[Provider],
        report: &mut Report,
    ) {
        loop {
            let mut wanted = BTreeSet::new();
            for (name, places) in candidates {
                if report.found.contains_key(*name) {
                    continue;
                }
                let files = places
                    .iter()
                    .filter_map(|place| Some((*place, self.files.get(*place)?)))
                    .filter(|(_, file)| providers.contains(&file.provider));
                let mut left = 2;
                for (place, file) in files {
                    match self.compiled.get(&file.path) {
                        Some(Ok(symbols)) if symbols.contains(*name) => {
                            report.found.insert((*name).to_owned(), file.provider);
                            break;
                        }
                        Some(_) => {}
                        None if left > 0 => {
                            wanted.insert(place);
                            left -= 1;
                        }
                        None => break,
                    }
                }
            }
            if wanted.is_empty() {
                return;
            }
            let wanted: Vec<(usize, &File)> = wanted
                .into_iter()
                .filter_map(|place| Some((place, self.files.get(place)?)))
                .collect();
            let made = parallel::each(&wanted, |(place, file)| self.globals(*place, file));
            let paths: Vec<PathBuf> = wanted.iter().map(|(_, f)| f.path.clone()).collect();
            self.compiled.extend(paths.into_iter().zip(made));
        }
    }

    /// The global symbols a file defines, or why it does not compile.
    fn globals(&self, place: usize, file: &File) -> std::result::Result<BTreeSet<String>, String> {
        let folder = file.path.parent().unwrap_or(Path::new("."));
        let mut cmd = Cmd::new("clang-19")
            .args(kernel_flags(self.source, &self.generated))
            .arg("-I")
            .arg(folder);
        if file.provider != Provider::Kernel {
            cmd = cmd.arg("-DKLD_MODULE");
        }
        if is_assembler(&file.path) {
            let cmd = cmd.args(["-x", "assembler-with-cpp", "-DLOCORE", "-E"]);
            let text = self.compile(&cmd.arg(&file.path))?;
            return Ok(labels(&text));
        }
        let object = self.scratch.join(format!("{place}.o"));
        self.compile(&cmd.arg("-o").arg(&object).arg(&file.path))?;
        let bytes = std::fs::read(&object).map_err(|e| e.to_string())?;
        let _ = std::fs::remove_file(&object);
        defined(&bytes)
    }

    /// What a compiler prints, or its first complaint.
    fn compile(&self, cmd: &Cmd) -> std::result::Result<String, String> {
        let out = self.runner.output(cmd)?;
        if out.ok {
            return Ok(out.stdout);
        }
        let error = out.stderr.lines().find(|line| line.contains("error"));
        Err(error.unwrap_or("it does not compile").trim().to_owned())
    }

    /// For names that ctags does not know: files in which a macro call at a line's start may
    /// make them (`VNET_DEFINE(int, x)` makes vnet_entry_x), those in which a line begins as a
    /// function's definition does in style(9), and assembler that has the word.
    /// With `likely` only those where the macro begins as the name does, or has all of it: the
    /// end of a name may be a word that occurs everywhere.
    fn mentions<'n>(&self, names: &[&'n str], likely: bool) -> BTreeMap<&'n str, BTreeSet<usize>> {
        let mut found: BTreeMap<&'n str, BTreeSet<usize>> = BTreeMap::new();
        // Every end of a name that a macro may have put something before.
        let mut ends: BTreeMap<&'n str, Vec<&'n str>> = BTreeMap::new();
        for name in names {
            ends.entry(name).or_default().push(name);
            for (at, _) in name.match_indices('_') {
                if let Some(end) = name.get(at + 1..).filter(|end| !end.is_empty()) {
                    ends.entry(end).or_default().push(name);
                }
            }
        }
        if ends.is_empty() {
            return found;
        }
        for (place, file) in self.files.iter().enumerate() {
            let Ok(bytes) = std::fs::read(&file.path) else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            let assembler = is_assembler(&file.path);
            for line in text.lines() {
                let defined = definition(line);
                for name in ends.get(defined).into_iter().flatten() {
                    if *name == defined {
                        found.entry(name).or_default().insert(place);
                    }
                }
                if !assembler && !macro_call(line) {
                    continue;
                }
                for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                    for name in ends.get(word).into_iter().flatten() {
                        if !likely || word == *name || akin(line, name) {
                            found.entry(name).or_default().insert(place);
                        }
                    }
                }
            }
        }
        found
    }

    fn why_not(&self, name: &str, places: &BTreeSet<usize>, providers: &[Provider]) -> String {
        let tagged = self.tags.get(name).cloned().unwrap_or_default();
        let mut reasons = Vec::new();
        let places = places.iter().filter(|p| tagged.contains_key(p));
        for place in places.chain(tagged.keys()).collect::<BTreeSet<_>>() {
            let Some(file) = self.files.get(*place) else {
                continue;
            };
            let shown = file.path.strip_prefix(&self.source.sysdir);
            let shown = shown.unwrap_or(&file.path).display();
            reasons.push(match self.compiled.get(&file.path) {
                _ if !providers.contains(&file.provider) => {
                    format!(
                        "{shown} is in {}, which it does not depend on",
                        file.provider.name()
                    )
                }
                Some(Err(said)) => format!("{shown} does not compile here: {said}"),
                Some(Ok(_)) => format!("in {shown} it is static, or an option it needs is off"),
                None => format!("in {shown} it is static"),
            });
        }
        if reasons.is_empty() {
            "no file of the kernel configuration defines it".into()
        } else {
            reasons.join("; ")
        }
    }
}

/// Whether a line begins with a call of a macro by its looks: capitals and a bracket. Within
/// functions such lines are indented, and define nothing.
fn macro_call(line: &str) -> bool {
    let name: &str = line
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default();
    let rest = line.get(name.len()..).unwrap_or_default();
    name.len() > 2
        && !name.bytes().any(|b| b.is_ascii_lowercase())
        && name.bytes().any(|b| b.is_ascii_uppercase())
        && rest.trim_start().starts_with('(')
}

/// The name of the function that a line begins to define as style(9) has it, perhaps in
/// brackets against a macro of that name; empty if it does not look so.
fn definition(line: &str) -> &str {
    let line = line.strip_prefix('(').unwrap_or(line);
    let end = line.find(['(', ')']).unwrap_or_default();
    line.get(..end).unwrap_or_default()
}

/// Whether two names begin with the same word, in whatever letters: SYSCTL_NODE makes names
/// that begin with sysctl.
fn akin(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(|name| name.split('_').find(|word| !word.is_empty()));
    a.zip(b).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

fn is_assembler(path: &Path) -> bool {
    path.extension().is_some_and(|e| e != "c")
}

/// Global labels of preprocessed assembler: it is read, not assembled, as old trees have
/// instructions that today's assembler refuses.
fn labels(text: &str) -> BTreeSet<String> {
    let mut global = BTreeSet::new();
    let mut placed = BTreeSet::new();
    for statement in text.lines().flat_map(|line| line.split(';')) {
        let mut words = statement.split_whitespace();
        match (words.next(), words.next()) {
            (Some(".globl" | ".global"), Some(name)) => drop(global.insert(name.to_owned())),
            // The name may be set to an address instead of standing before one.
            (Some(name), Some(equals)) if equals.starts_with('=') => {
                placed.insert(name.to_owned());
            }
            (Some(word), _) => {
                if let Some((name, _)) = word.split_once(':') {
                    placed.insert(name.to_owned());
                }
            }
            _ => {}
        }
    }
    global.intersection(&placed).cloned().collect()
}

/// Global symbols that an object defines.
fn defined(bytes: &[u8]) -> Result<BTreeSet<String>> {
    let file = object::File::parse(bytes).map_err(|e| format!("not an object file: {e}"))?;
    Ok(file
        .symbols()
        .filter(|s| s.is_global() && !s.is_undefined())
        .filter_map(|s| s.name().ok().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect())
}

/// Names that an object leaves undefined, but for the bounds of linker sets, which the
/// kernel's linker makes.
///
/// # Errors
/// The bytes are no object file.
pub fn undefined(bytes: &[u8]) -> Result<BTreeSet<String>> {
    let file = object::File::parse(bytes).map_err(|e| format!("not an object file: {e}"))?;
    Ok(file
        .symbols()
        .filter(ObjectSymbol::is_undefined)
        .filter_map(|s| s.name().ok().map(str::to_owned))
        .filter(|name| {
            let bound = crate::gate::object_file::SET_BOUNDS
                .iter()
                .any(|prefix| name.starts_with(prefix));
            !name.is_empty() && !bound
        })
        .collect())
}

/// Names of the C files in a module's Makefile (`SRCS=` and `SRCS+=`).
fn makefile_sources(path: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let text = text.replace("\\\n", " ");
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("SRCS") else {
            continue;
        };
        let Some((_, list)) = rest.split_once('=') else {
            continue;
        };
        let list = list.split('#').next().unwrap_or_default();
        for file in list.split_whitespace().filter(|f| f.ends_with(".c")) {
            names.insert(file.to_owned());
            // Made from an interface.
            if let Some(stem) = file.strip_suffix("_if.c") {
                names.insert(format!("{stem}_if.m"));
            }
        }
    }
    if names.is_empty() {
        return Err(format!("{} names no C file", path.display()));
    }
    Ok(names)
}

/// Files of those names in a folder and below; a name that occurs twice is taken twice.
fn files_named(dir: &Path, names: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut entries: Vec<_> = entries.filter_map(std::result::Result::ok).collect();
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            files_named(&path, names, found);
        } else if names.contains(&*entry.file_name().to_string_lossy()) {
            found.push(path);
        }
    }
}
