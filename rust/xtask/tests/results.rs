//! The last line of `make test`, and what `make demo` hands on.

use std::ffi::OsString;

use xtask::demo;
use xtask::tests::Sum;
use xtask::tree::Tree;

fn sum(lines: &[&str]) -> Sum {
    let mut sum = Sum::default();
    lines.iter().for_each(|line| sum.line(line));
    sum
}

#[test]
fn results_of_all_programs_are_added() {
    let all = sum(&[
        "running 3 tests",
        "test a ... ok",
        "test b::c ... FAILED",
        "test d - should panic ... FAILED",
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s",
        "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.99s",
    ]);
    assert_eq!(
        all.text(),
        "failed: b::c\nfailed: d - should panic\n15 passed, 2 failed\n"
    );
    assert_eq!(all.programs, 2);
    assert!(all.verdict(false).is_err());
}

#[test]
fn the_verdict_needs_tests_no_failure_and_cargos_consent() {
    let good = sum(&["test result: ok. 1 passed; 0 failed; 0 ignored"]);
    assert_eq!(good.verdict(true), Ok(()));
    let said = good.verdict(false).expect_err("a program died");
    assert!(said.contains("did not compile or did not finish"), "{said}");
    assert_eq!(sum(&[]).verdict(true), Err("no test ran".into()));
    let failed = sum(&["test result: FAILED. 5 passed; 1 failed; 0 ignored"]);
    assert_eq!(failed.verdict(true), Err("some tests failed".into()));
}

#[test]
fn the_demonstration_gets_what_was_given_and_nothing_empty() {
    let tree = Tree {
        root: "/src".into(),
    };
    let given = |name: &str| (name == "FILE").then(|| OsString::from("a file"));
    let cmd = demo::command(&tree, &given);
    let value = |name: &str| {
        cmd.env
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .expect("set")
    };
    assert_eq!(value("FILE"), Some("a file".into()));
    assert_eq!(value("SEED"), None);
    assert_eq!(value("TOEHOLD_KMOD"), Some("/src/target/kmod/15".into()));
    assert_eq!(value("TOEHOLD_HEADERS"), Some("/src/target/hdr/15".into()));
    assert!(cmd.line().ends_with("--package toehold-e2e --bin demo"));
}
