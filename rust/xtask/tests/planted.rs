//! Faults that are planted: what a file of them must say, what counts as seen, and the copy of
//! the tree they are planted in.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use common::Bench;
use xtask::copy::sync;
use xtask::planted::{self, Planted, Seen};
use xtask::run::{Cmd, Output, Real, Runner};
use xtask::tree::Tree;

const GOOD: &str = "\
A byte is lost: the first.
Test: -p some a::name --exact
Build: kmod
--- a/file
+++ b/file
@@ -1 +1 @@
-kept
+lost
";

fn parse(text: &str) -> Result<Planted, String> {
    Planted::parse(Path::new("tests/planted/a-byte.patch"), text)
}

#[test]
fn a_fault_names_its_test() {
    let planted = parse(GOOD).expect("in order");
    assert_eq!(planted.name, "a-byte");
    assert_eq!(planted.test, ["-p", "some", "a::name", "--exact"]);
    assert!(planted.kmod);
    let plain = parse(&GOOD.replace("Build: kmod\n", "")).expect("in order");
    assert!(!plain.kmod);
}

#[test]
fn what_is_not_in_order_is_refused() {
    for (from, to, why) in [
        ("A byte is lost: the first.\n", "", "no sentence"),
        ("Test: -p some a::name --exact\n", "", "`Test:"),
        (" a::name --exact", "", "`Test:"),
        ("-p some", "some", "`Test:"),
        ("@@ -1 +1 @@\n", "", "no diff"),
        ("Build: kmod", "Build: world", "`Build: world`"),
    ] {
        let said = parse(&GOOD.replace(from, to)).expect_err(why);
        assert!(said.contains(why), "{said}");
        assert!(said.contains("a-byte.patch"), "{said}");
    }
}

fn seen(ok: bool, stdout: &str, stderr: &str) -> Seen {
    Seen::of(&Output {
        ok,
        stdout: stdout.into(),
        stderr: stderr.into(),
    })
}

#[test]
fn only_a_test_that_ran_and_failed_has_seen_it() {
    let none = "running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored\n";
    let good = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";
    let bad = "running 2 tests\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n";
    assert_eq!(seen(true, none, ""), Seen::Nothing);
    assert_eq!(seen(true, &format!("{none}{good}"), ""), Seen::Passed);
    assert_eq!(seen(false, &format!("{none}{bad}"), ""), Seen::Failed);
    let died = "process didn't exit successfully: `a` (signal: 6, SIGABRT: process abort signal)";
    assert_eq!(seen(false, "running 1 test\n", died), Seen::Failed);
    assert_eq!(seen(false, "running 1 test\n", ""), Seen::Unended);
    assert_eq!(seen(false, "", died), Seen::Nothing);
}

#[test]
fn a_copy_follows_its_tree_and_leaves_alone_what_is_the_same() {
    let bench = Bench::new();
    for (name, text) in [
        ("from/same", "1"),
        ("from/dir/changed", "2"),
        ("from/new/file", "3"),
        ("from/target/built", "-"),
        ("to/same", "1"),
        ("to/dir/changed", "old"),
        ("to/dir/gone", "-"),
        ("to/new", "a file where a folder comes"),
        ("to/target/kept", "-"),
    ] {
        bench.file(name, text);
    }
    let (from, to) = (bench.dir.join("from"), bench.dir.join("to"));
    let time = || {
        to.join("same")
            .metadata()
            .and_then(|m| m.modified())
            .expect("time")
    };
    let before = time();
    sync(&from, &to).expect("sync");
    let text = |name: &str| std::fs::read_to_string(to.join(name)).ok();
    assert_eq!(text("dir/changed").as_deref(), Some("2"));
    assert_eq!(text("new/file").as_deref(), Some("3"));
    assert_eq!(text("dir/gone"), None);
    assert_eq!(text("target/built"), None);
    assert_eq!(text("target/kept").as_deref(), Some("-"));
    assert_eq!(time(), before);
}

/// A machine whose `cargo test` passes while the file says what it should, or always.
struct Cargo {
    blind: bool,
    tests: u32,
    compiled: AtomicU32,
}

impl Runner for Cargo {
    fn output(&self, cmd: &Cmd) -> xtask::Result<Output> {
        if cmd.program == "patch" {
            return Real.output(cmd);
        }
        assert!(cmd.line().starts_with("timeout -k 10 "), "{}", cmd.line());
        if cmd.args.iter().any(|arg| arg == "--no-run") {
            self.compiled.fetch_add(1, Ordering::Relaxed);
            return Ok(Output {
                ok: true,
                ..Output::default()
            });
        }
        let dir = cmd.dir.clone().expect("in the copy");
        let text = std::fs::read_to_string(dir.join("file")).expect("file");
        let ok = self.blind || text == "kept\n";
        let result = if ok {
            "ok. 1 passed; 0"
        } else {
            "FAILED. 0 passed; 1"
        };
        let stdout = format!(
            "running {} tests\ntest result: {result} failed;\n",
            self.tests
        );
        Ok(Output {
            ok,
            stdout,
            stderr: String::new(),
        })
    }

    fn show(&self, _: &Cmd) -> xtask::Result<bool> {
        Err("nothing is built here".into())
    }

    fn lines(&self, _: &Cmd, _: &mut dyn FnMut(&str)) -> xtask::Result<bool> {
        Err("nothing is streamed here".into())
    }
}

/// Plants the good fault in a tree whose file has `text`: caught, and not.
fn plant(text: &str, blind: bool, tests: u32) -> (u64, u64) {
    let bench = Bench::new();
    bench.file("file", text);
    bench.file("tests/planted/a.patch", &GOOD.replace("Build: kmod\n", ""));
    let tree = Tree {
        root: bench.dir.clone(),
    };
    let cargo = Cargo {
        blind,
        tests,
        compiled: AtomicU32::new(0),
    };
    let sum = planted::each(&tree, &cargo).expect("in order");
    assert!(cargo.compiled.load(Ordering::Relaxed) > 0);
    let copy = std::fs::read_to_string(bench.dir.join("target/planted/tree/file"));
    assert_eq!(copy.expect("copy"), text, "nothing stays planted");
    assert_eq!(
        std::fs::read_to_string(bench.dir.join("file")).expect("file"),
        text
    );
    (sum.passed, sum.failed)
}

#[test]
fn a_fault_is_planted_seen_and_taken_out_again() {
    assert_eq!(plant("kept\n", false, 1), (1, 0));
}

#[test]
fn a_fault_that_no_test_sees_fails_the_run() {
    assert_eq!(
        plant("kept\n", true, 1),
        (0, 1),
        "the test passes all the same"
    );
    assert_eq!(plant("kept\n", false, 0), (0, 1), "no test of that name");
    assert_eq!(
        plant("moved\n", true, 1),
        (0, 1),
        "the patch does not apply"
    );
    assert_eq!(
        plant("moved\n", false, 1),
        (0, 1),
        "the test fails with nothing planted"
    );
}

#[test]
fn a_fault_whose_code_has_moved_on_is_told_by_name() {
    let bench = Bench::new();
    bench.file("file", "kept\n");
    bench.file("tests/planted/a.patch", GOOD);
    let tree = Tree {
        root: bench.dir.clone(),
    };
    assert_eq!(planted::apply(&tree, &Real), Ok(()));
    bench.file("file", "moved\n");
    let said = planted::apply(&tree, &Real).expect_err("another line stands there");
    assert!(said.contains("planting a failed"), "{said}");
}
