//! Setup on machines that exist only in this file: what it would install and fetch, and
//! what it says when that fails.

mod common;

use std::path::Path;
use std::sync::Mutex;

use common::Bench;
use xtask::host::{self, Host, PACKAGES};
use xtask::run::{Cmd, Output, Real, Runner};
use xtask::tree::{HEADER_PARTS, RELEASES, Release, Tree};
use xtask::{Result, headers, setup};

const ROOT: Host = Host {
    debian: true,
    root: true,
    freebsd: false,
};

/// A machine: what it has, what the network brings, and all that was run on it.
struct Machine {
    installed: Mutex<Vec<String>>,
    network: bool,
    /// Contents of the wheel that pip brings.
    wheel: &'static str,
    ran: Mutex<Vec<String>>,
}

impl Machine {
    fn new(installed: &[&str], network: bool) -> Self {
        Self {
            installed: Mutex::new(installed.iter().map(|p| (*p).to_owned()).collect()),
            network,
            wheel: "pinned",
            ran: Mutex::default(),
        }
    }

    fn ran(&self, what: &str) -> bool {
        self.ran
            .lock()
            .expect("lock")
            .iter()
            .any(|line| line.starts_with(what))
    }

    fn has(&self, package: &str) -> bool {
        self.installed
            .lock()
            .expect("lock")
            .iter()
            .any(|p| p == package)
    }

    fn pip(&self, args: &[String]) -> Output {
        if args.iter().any(|a| a == "--version") {
            return Output {
                ok: self.has("python3-pip"),
                ..Output::default()
            };
        }
        if !self.network {
            let stderr = "ERROR: noise\nERROR: No matching distribution found\n".into();
            return Output {
                stderr,
                ..Output::default()
            };
        }
        let dest = args
            .iter()
            .skip_while(|a| *a != "--dest")
            .nth(1)
            .expect("--dest");
        let release = RELEASES
            .iter()
            .find(|r| args.contains(&format!("ziglang=={}", r.wheel_version)))
            .expect("a release");
        std::fs::write(
            Path::new(dest).join(headers::wheel_name(*release)),
            self.wheel,
        )
        .expect("wheel");
        Output {
            ok: true,
            ..Output::default()
        }
    }

    fn run(&self, cmd: &Cmd) -> Output {
        self.ran.lock().expect("lock").push(cmd.line());
        let args: Vec<String> = cmd
            .args
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let ok = Output {
            ok: true,
            ..Output::default()
        };
        match cmd.program.to_string_lossy().as_ref() {
            "dpkg-query" => {
                let known = args.iter().filter(|a| self.has(a));
                let stdout = known.map(|p| format!("{p} installed\n")).collect();
                Output {
                    stdout,
                    ..Output::default()
                }
            }
            "apt-get" if !self.network => Output::default(),
            "apt-get" if args.iter().any(|a| a == "install") => {
                let new = args
                    .iter()
                    .filter(|a| !a.starts_with('-') && *a != "install")
                    .cloned();
                self.installed.lock().expect("lock").extend(new);
                ok
            }
            "apt-get" => ok,
            "sha256sum" => {
                let path = args.first().expect("a file");
                let release = RELEASES
                    .iter()
                    .find(|r| path.ends_with(&headers::wheel_name(**r)))
                    .expect("a wheel");
                let text = std::fs::read_to_string(path).expect("wheel");
                let sum = if text == "pinned" {
                    release.wheel_sha256
                } else {
                    "0bad"
                };
                Output {
                    stdout: format!("{sum}  {path}\n"),
                    ..ok
                }
            }
            "python3" if args.first().is_some_and(|a| a == "-c") => {
                let into = Path::new(args.get(3).expect("a folder"));
                for part in HEADER_PARTS {
                    lay_headers(&into.join("ziglang/lib/libc/include").join(part));
                }
                ok
            }
            "python3" => self.pip(&args),
            other => panic!("setup ran {other}"),
        }
    }
}

impl Runner for Machine {
    fn output(&self, cmd: &Cmd) -> Result<Output> {
        Ok(self.run(cmd))
    }

    fn show(&self, cmd: &Cmd) -> Result<bool> {
        Ok(self.run(cmd).ok)
    }

    fn lines(&self, _: &Cmd, _: &mut dyn FnMut(&str)) -> Result<bool> {
        panic!("setup needs no lines")
    }
}

fn lay_headers(dir: &Path) {
    for header in [
        "sys/param.h",
        "sys/mbuf.h",
        "sys/aio.h",
        "netinet/tcp_var.h",
        "netinet/toecore.h",
    ] {
        let path = dir.join(header);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, "").expect("header");
    }
}

/// A tree with nothing built and an include folder with Concurrency Kit.
fn place() -> (Bench, Tree) {
    let bench = Bench::new();
    for name in [
        "ck_queue.h",
        "ck_pr.h",
        "stdio.h",
        "gcc/ck_cc.h",
        "gcc/x86_64/ck_pr.h",
    ] {
        bench.file(&format!("include/{name}"), "");
    }
    let tree = Tree {
        root: bench.dir.join("tree"),
    };
    (bench, tree)
}

fn install(bench: &Bench, tree: &Tree, machine: &Machine, host: Host) -> Result<()> {
    setup::install(tree, machine, &RELEASES, host, &bench.dir.join("include"))
}

#[test]
fn a_bare_machine_gets_everything_and_a_second_run_nothing() {
    let (bench, tree) = place();
    let machine = Machine::new(&["make"], true);
    assert_eq!(install(&bench, &tree, &machine, ROOT), Ok(()));
    for package in PACKAGES.iter().chain(&["python3-pip"]) {
        assert!(machine.has(package), "{package}");
    }
    for release in RELEASES {
        assert!(headers::present(&tree, release));
        assert!(!tree.headers(release).join("ziglang").exists());
    }
    assert!(tree.ck().join("gcc/x86_64/ck_pr.h").is_file());
    assert!(
        !tree.ck().join("stdio.h").exists(),
        "the host's libc stays out"
    );

    let offline = Machine::new(&PACKAGES, false);
    assert_eq!(install(&bench, &tree, &offline, ROOT), Ok(()));
    assert!(!offline.ran("apt-get") && !offline.ran("python3"));
}

#[test]
fn one_release_needs_one_wheel() {
    let (bench, tree) = place();
    let machine = Machine::new(&PACKAGES, true);
    let include = bench.dir.join("include");
    let [other, wanted] = RELEASES;
    let done = setup::install(&tree, &machine, &[wanted], ROOT, &include);
    assert_eq!(done, Ok(()));
    assert!(headers::present(&tree, wanted));
    assert!(!headers::present(&tree, other));
    let offline = Machine::new(&PACKAGES, false);
    let again = setup::install(&tree, &offline, &[wanted], ROOT, &include);
    assert_eq!(again, Ok(()));
}

#[test]
fn only_what_is_missing_is_installed() {
    let (bench, tree) = place();
    let machine = Machine::new(&PACKAGES[1..], true);
    assert_eq!(install(&bench, &tree, &machine, ROOT), Ok(()));
    assert!(machine.ran("apt-get -qq update"));
    assert!(machine.ran("apt-get -qq install -y --no-install-recommends rustc-web"));
    assert!(!machine.ran("apt-get -qq install -y --no-install-recommends rustc-web rust-web-src"));
}

#[test]
fn without_root_the_message_holds_the_command() {
    let (bench, tree) = place();
    let machine = Machine::new(&PACKAGES[2..], true);
    let said = install(
        &bench,
        &tree,
        &machine,
        Host {
            root: false,
            ..ROOT
        },
    )
    .expect_err("no root");
    assert_eq!(
        said,
        "missing packages: rustc-web rust-web-src; as root run: \
         apt-get update && apt-get install -y rustc-web rust-web-src"
    );
    assert!(!machine.ran("apt-get"));
}

#[test]
fn apt_without_a_network_is_said() {
    let missing = ["lld-19".to_owned()];
    let said = host::install_packages(&Machine::new(&[], false), ROOT, &missing);
    assert_eq!(
        said,
        Err("apt-get update failed; is there a network?".into())
    );
}

#[test]
fn freebsd_is_sent_to_its_own_build() {
    let (bench, tree) = place();
    let freebsd = Host {
        debian: false,
        root: true,
        freebsd: true,
    };
    let said = install(&bench, &tree, &Machine::new(&[], true), freebsd).expect_err("FreeBSD");
    assert!(said.contains("sys/modules"), "{said}");
}

#[test]
fn a_wheel_that_cannot_be_fetched_is_named_with_pips_last_word() {
    let (bench, tree) = place();
    let mut installed = PACKAGES.to_vec();
    installed.push("python3-pip");
    let said = install(&bench, &tree, &Machine::new(&installed, false), ROOT).expect_err("offline");
    let release = RELEASES[0];
    assert!(
        said.starts_with("cannot fetch the headers of FreeBSD 14"),
        "{said}"
    );
    assert!(said.contains(&headers::wheel_name(release)), "{said}");
    assert!(
        said.contains("ERROR: No matching distribution found"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_wheel_with_another_hash_is_refused_and_a_fetched_one_removed() {
    let (_bench, tree) = place();
    let release = RELEASES[0];
    let mut machine = Machine::new(&[], true);
    machine.wheel = "tampered";
    let said = headers::install(&machine, &tree, release).expect_err("fetched");
    assert!(said.contains("has SHA-256 0bad, not the pinned"), "{said}");
    let path = tree.wheels().join(headers::wheel_name(release));
    assert!(!path.exists());

    std::fs::write(&path, "tampered").expect("wheel");
    let said = headers::install(&machine, &tree, release).expect_err("placed by hand");
    assert!(said.contains("remove the file"), "{said}");
    assert!(path.exists(), "what a person put there is theirs to remove");
    assert!(!tree.headers(release).exists());
}

#[test]
fn a_wheel_that_lies_there_needs_no_network() {
    let (_bench, tree) = place();
    for release in RELEASES {
        let path = tree.wheels().join(headers::wheel_name(release));
        std::fs::create_dir_all(tree.wheels()).expect("folder");
        std::fs::write(path, "pinned").expect("wheel");
        let offline = Machine::new(&[], false);
        assert_eq!(headers::install(&offline, &tree, release), Ok(()));
    }
}

#[test]
fn headers_that_lost_a_file_are_put_back() {
    let (_bench, tree) = place();
    let release = RELEASES[1];
    let machine = Machine::new(&[], true);
    assert_eq!(headers::install(&machine, &tree, release), Ok(()));
    for part in HEADER_PARTS {
        std::fs::remove_file(tree.headers(release).join(part).join("sys/mbuf.h")).expect("remove");
    }
    let said = xtask::inputs::check_headers(&tree.headers(release), release).expect_err("lost");
    assert!(
        said.contains("FreeBSD 15 header") && said.contains("sys/mbuf.h is missing"),
        "{said}"
    );
    assert!(said.ends_with("and run `make setup`"), "{said}");
    assert_eq!(headers::install(&machine, &tree, release), Ok(()));
    assert_eq!(
        xtask::inputs::check_headers(&tree.headers(release), release),
        Ok(())
    );
}

#[test]
fn a_missing_concurrency_kit_is_said() {
    let (bench, tree) = place();
    let empty = bench.dir.join("empty");
    std::fs::create_dir(&empty).expect("folder");
    let said = headers::install_ck(&tree, &empty).expect_err("none");
    assert!(said.contains("libck-dev"), "{said}");
}

#[test]
fn a_wheel_of_something_else_is_refused_by_the_real_unpacker() {
    let (bench, tree) = place();
    let wheel = bench.dir.join("w.py");
    let make = "import sys, zipfile\nzipfile.ZipFile(sys.argv[1], 'w').writestr('a', 'b')";
    let cmd = Cmd::new("python3").args(["-c", make]).arg(&wheel);
    assert!(Real.output(&cmd).expect("python3").ok);
    let release = Release {
        wheel_sha256: leak(&sha256(&wheel)),
        ..RELEASES[0]
    };
    std::fs::create_dir_all(tree.wheels()).expect("folder");
    std::fs::rename(&wheel, tree.wheels().join(headers::wheel_name(release))).expect("move");
    let said = headers::install(&Real, &tree, release).expect_err("no headers");
    assert!(said.contains("no FreeBSD headers in it"), "{said}");
    assert!(!tree.headers(release).exists());
}

fn sha256(path: &Path) -> String {
    let out = Real
        .output(&Cmd::new("sha256sum").arg(path))
        .expect("sha256sum");
    out.stdout
        .split_whitespace()
        .next()
        .expect("a sum")
        .to_owned()
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
