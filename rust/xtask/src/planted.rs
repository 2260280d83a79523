//! `make planted`: brings known faults back, one at a time, in a copy of the tree, and wants
//! the test named with each to fail.
//!
//! A fault is a file `tests/planted/<name>.patch`: a sentence that says what it brings back, a
//! line `Test:` with arguments for `cargo test`, if the modules must be built with it a line
//! `Build: kmod`, then a unified diff (`-p1`).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Cmd, Output, Runner, need};
use crate::tests::{self, Sum};
use crate::tree::{self, RELEASES, Tree};
use crate::{Result, copy, kmod, setup};

/// Seconds that a test may take, with what it must compile.
const LIMIT: &str = "900";

/// A fault to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    /// Name of its file, without the ending.
    pub name: String,
    /// Arguments of `cargo test` that choose the tests which must see it.
    pub test: Vec<String>,
    /// The modules are to be built with it.
    pub kmod: bool,
    /// Its file.
    pub path: PathBuf,
}

impl Planted {
    /// Reads what stands above the diff.
    ///
    /// # Errors
    /// There is no sentence, no test or no diff, or a test's name is missing.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |what: &str| format!("{}: {what}", path.display());
        let diff = |line: &&str| line.starts_with("diff ") || line.starts_with("--- ");
        let head: Vec<&str> = text.lines().take_while(|line| !diff(line)).collect();
        if !text.lines().any(|line| line.starts_with("@@ ")) {
            return Err(wrong("there is no diff"));
        }
        let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
        let fields = ["Test: ", "Build: "];
        let says =
            |line: &&str| !line.trim().is_empty() && !fields.iter().any(|f| line.starts_with(f));
        if !head.iter().any(says) {
            return Err(wrong("no sentence says what it brings back"));
        }
        let test: Vec<String> = field("Test: ")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let package = test.iter().position(|arg| arg == "-p");
        if package.is_none_or(|at| test.len() < at + 3) {
            return Err(wrong("`Test: -p <package> <name>` is missing"));
        }
        let kmod = match field("Build: ") {
            None => false,
            Some("kmod") => true,
            Some(other) => return Err(wrong(&format!("`Build: {other}` is not known"))),
        };
        Ok(Self {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            test,
            kmod,
            path: path.into(),
        })
    }

    /// The command that brings it back in a tree.
    fn patch(&self, tree: &Tree) -> Cmd {
        Cmd::new("patch")
            .args(["-p1", "--batch", "--forward", "--fuzz=0", "--quiet"])
            .args(["--no-backup-if-mismatch", "--reject-file=-", "--input"])
            .arg(&self.path)
            .dir(&tree.root)
    }
}

/// Whether each fault can still be brought back: the code that it changes is as its file says.
///
/// # Errors
/// One cannot, or its file is not in order.
pub fn apply(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    for planted in all(tree)? {
        let tried = planted.patch(tree).arg("--dry-run");
        need(runner, &tried, &format!("planting {}", planted.name))?;
    }
    Ok(())
}

/// All of `tests/planted`, those without modules first.
///
/// # Errors
/// [`Planted::parse`], or a file cannot be read.
pub fn all(tree: &Tree) -> Result<Vec<Planted>> {
    let mut found = tree::files(&tree.at("tests/planted"), "patch")?
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)
                .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            Planted::parse(path, &text)
        })
        .collect::<Result<Vec<Planted>>>()?;
    found.sort_by_key(|p| (p.kmod, p.test.clone()));
    Ok(found)
}

/// What a run of `cargo test` showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No test of that name.
    Nothing,
    /// All passed.
    Passed,
    /// One failed, or took its program down.
    Failed,
    /// None of these: it did not end in time.
    Unended,
}

impl Seen {
    /// Reads it from what was printed.
    pub fn of(out: &Output) -> Self {
        let mut sum = Sum::default();
        out.stdout.lines().for_each(|line| sum.line(line));
        let started = |line: &str| {
            let count = line.strip_prefix("running ")?.split(' ').next()?;
            count.parse::<u64>().ok()
        };
        let ran: u64 = out.stdout.lines().filter_map(started).sum();
        if ran == 0 {
            Seen::Nothing
        } else if out.ok {
            Seen::Passed
        } else if sum.failed > 0 || out.stderr.contains("(signal: ") {
            Seen::Failed
        } else {
            Seen::Unended
        }
    }
}

/// The copy of the tree in which faults are planted.
struct Field<'a> {
    tree: &'a Tree,
    copy: Tree,
    runner: &'a dyn Runner,
}

impl Field<'_> {
    fn restore(&self) -> Result<()> {
        copy::sync(&self.tree.root, &self.copy.root)
    }

    /// Runs the tests of a fault in the copy, with the modules of `modules`.
    fn test(&self, planted: &Planted, modules: &Tree) -> Result<Seen> {
        let command = |build_only: bool| {
            let cmd = tests::cargo_test(&self.copy);
            let cmd = tests::ukern_env(modules, cmd)
                .env("CARGO_TARGET_DIR", self.copy.target())
                .args(build_only.then_some("--no-run"))
                .args(&planted.test);
            limited(cmd)
        };
        need(self.runner, &command(true), "compiling its test")?;
        self.runner
            .output(&command(false))
            .map(|out| Seen::of(&out))
    }

    /// Plants one and wants to see it.
    fn plant(&self, planted: &Planted) -> Result<()> {
        need(self.runner, &planted.patch(&self.copy), "applying it")?;
        let modules = if planted.kmod {
            kmod::packaged(&self.copy, self.runner, &RELEASES)?;
            &self.copy
        } else {
            self.tree
        };
        match self.test(planted, modules)? {
            Seen::Failed => Ok(()),
            Seen::Passed => Err("the fault is back and its test passes".into()),
            Seen::Nothing => Err("there is no test of that name".into()),
            Seen::Unended => Err("its test neither passed nor failed".into()),
        }
    }
}

/// Stops a command that hangs.
fn limited(mut cmd: Cmd) -> Cmd {
    let program = std::mem::replace(&mut cmd.program, "timeout".into());
    let before = ["-k", "10", LIMIT].map(OsString::from);
    cmd.args.splice(0..0, before.into_iter().chain([program]));
    cmd
}

/// Plants every fault; a line for each. The sum counts one that was seen as a test that passed.
///
/// # Errors
/// The copy cannot be made, or a file in `tests/planted` is not in order.
pub fn each(tree: &Tree, runner: &dyn Runner) -> Result<Sum> {
    let copy = Tree {
        root: tree.target().join("planted/tree"),
    };
    let field = Field { tree, copy, runner };
    let all = all(tree)?;
    field.restore()?;
    share_headers(tree, &field.copy)?;
    let mut sum = Sum::default();
    // What passes with nothing planted; one build serves all.
    let sound: Vec<Result<Seen>> = all.iter().map(|p| field.test(p, tree)).collect();
    for (planted, sound) in all.iter().zip(sound) {
        let done = match sound {
            Ok(Seen::Passed) => field.plant(planted),
            Ok(Seen::Nothing) => Err("there is no test of that name".into()),
            Ok(_) => Err("its test fails with nothing planted".into()),
            Err(why) => Err(format!("with nothing planted: {why}")),
        };
        field.restore()?;
        match done {
            Ok(()) => {
                println!("planted {} ... caught", planted.name);
                sum.passed += 1;
            }
            Err(why) => {
                println!("planted {} ... FAILED\n{why}", planted.name);
                sum.failed += 1;
                sum.names.push(format!("planted {}", planted.name));
            }
        }
    }
    Ok(sum)
}

/// The copy is built with the headers of the tree.
fn share_headers(tree: &Tree, copy: &Tree) -> Result<()> {
    let link = copy.target().join("hdr");
    let failed = |e: std::io::Error| format!("cannot create {}: {e}", link.display());
    if !link.exists() {
        fs::create_dir_all(copy.target()).map_err(failed)?;
        std::os::unix::fs::symlink(tree.target().join("hdr"), &link).map_err(failed)?;
    }
    Ok(())
}

/// `make planted`: alone, with all it needs.
///
/// # Errors
/// Setup or the build of the modules fails, or a fault was not seen.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::run(tree, runner)?;
    kmod::packaged(tree, runner, &RELEASES)?;
    let sum = each(tree, runner)?;
    print!("{}", sum.text());
    sum.verdict(true)
}
