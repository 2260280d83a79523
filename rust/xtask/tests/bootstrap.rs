//! The script in front of cargo, on a PATH where nothing is real.

mod common;

use common::Bench;
use xtask::run::{Cmd, Output, Real, Runner};
use xtask::tree::Tree;

/// Runs the script with only `programs` (name, body) to be found, besides sed.
fn bootstrap(programs: &[(&str, &str)]) -> (Bench, Output) {
    let bench = Bench::new();
    for (name, body) in programs.iter().chain(&[("sed", "exec /bin/sed \"$@\"")]) {
        bench.program(&format!("bin/{name}"), &format!("#!/bin/sh\n{body}\n"));
    }
    let script = Tree::find().expect("tree").at("rust/xtask/bootstrap.sh");
    let path = bench.dir.join("bin");
    let out = Real
        .output(&Cmd::new("/bin/sh").arg(script).env("PATH", path))
        .expect("sh");
    (bench, out)
}

#[test]
fn a_new_cargo_is_enough() {
    let (_bench, out) = bootstrap(&[("cargo", "echo 'cargo 1.96.0 (abc 2026-01-01)'")]);
    assert!(
        out.ok && out.stdout.is_empty() && out.stderr.is_empty(),
        "{out:?}"
    );
}

#[test]
fn an_old_cargo_is_refused() {
    let (_bench, out) = bootstrap(&[("cargo", "echo 'cargo 1.66.0'")]);
    assert!(!out.ok);
    assert!(
        out.stderr
            .contains("cargo 1.66.0 is too old: Rust 1.88 or newer"),
        "{}",
        out.stderr
    );
    assert_eq!(out.stderr.lines().count(), 1);
}

#[test]
fn without_cargo_and_root_the_message_holds_the_command() {
    let (_bench, out) = bootstrap(&[("id", "echo 1000")]);
    assert!(!out.ok);
    let wanted = "as root run: apt-get update && apt-get install -y cargo-web rustc-web";
    assert!(out.stderr.contains(wanted), "{}", out.stderr);
    assert_eq!(out.stderr.lines().count(), 1);
}

#[test]
fn without_a_network_apt_is_named() {
    let (_bench, out) = bootstrap(&[("id", "echo 0"), ("apt-get", "exit 100")]);
    assert!(!out.ok);
    assert!(
        out.stderr.contains("apt-get update failed"),
        "{}",
        out.stderr
    );
}

#[test]
fn root_gets_cargo_from_apt() {
    let apt = r#"here=${0%/*}
case " $* " in
*" install "*" cargo-web rustc-web "*)
	printf '#!/bin/sh\necho cargo 1.96.0\n' > "$here/cargo"
	/bin/chmod 755 "$here/cargo";;
esac"#;
    let (bench, out) = bootstrap(&[("id", "echo 0"), ("apt-get", apt)]);
    assert!(out.ok, "{out:?}");
    assert!(bench.dir.join("bin/cargo").is_file());
}
