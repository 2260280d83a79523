//! The Makefiles for FreeBSD: bmake reads them, what they would run is what a kernel object
//! needs, and each thing that is missing is said.

mod common;

use common::Bench;
use xtask::native;
use xtask::run::{Cmd, Output, Real, Runner};
use xtask::tree::Tree;

/// Crates that `sys/modules/distinfo` names, each with its version.
fn archives(tree: &Tree) -> Vec<String> {
    let text = std::fs::read_to_string(tree.at("sys/modules/distinfo")).expect("distinfo");
    text.lines()
        .filter_map(|line| line.strip_prefix("SHA256 (")?.split_once(".crate"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// bmake in a module's folder, with nothing built yet.
struct Place {
    bench: Bench,
    tree: Tree,
}

impl Place {
    fn new() -> Self {
        let bench = Bench::new();
        native::stand_ins(&bench.dir).expect("files");
        // A compiler that answers what it is asked and cannot compile.
        let rustc = "#!/bin/sh\ncase $1 in\n--version) echo 'rustc 1.96.0 (abc 2026-01-01)';;\n\
                     *) exit 1;;\nesac\n";
        bench.program("rustc", rustc);
        bench.file("library/core/src/lib.rs", "");
        let tree = Tree::find().expect("tree");
        for name in archives(&tree) {
            bench.file(&format!("crates/{name}/src/lib.rs"), "");
        }
        Self { bench, tree }
    }

    fn bmake(&self, module: &str, args: &[&str]) -> Output {
        let objects = self.bench.dir.join("obj");
        std::fs::create_dir_all(&objects).expect("folder");
        let path = |name: &str| self.bench.dir.join(name).display().to_string();
        let cmd: Cmd = native::bmake(&self.tree, module, &self.bench.dir, &objects)
            .arg(format!("RUSTC={}", path("rustc")))
            .arg(format!("RUST_SRC={}", path("library")))
            .args(args);
        Real.output(&cmd).expect("bmake")
    }

    #[track_caller]
    fn refused(&self, args: &[&str], wanted: &str) {
        let out = self.bmake("toehold", args);
        assert!(!out.ok, "{out:?}");
        let said = format!("{}{}", out.stdout, out.stderr);
        assert!(said.contains(wanted), "wanted `{wanted}` in: {said}");
    }
}

#[test]
fn every_makefile_is_read() {
    let place = Place::new();
    for (module, object) in [
        ("toehold", "toehold_kmod_rust.o"),
        ("t5sim", "t5sim_kmod_rust.o"),
    ] {
        let out = place.bmake(
            module,
            &["-V", "${KMOD}", "-V", "${RUST_OBJ}", "-V", "${OBJS}"],
        );
        assert!(out.ok, "{out:?}");
        let lines: Vec<&str> = out.stdout.lines().collect();
        assert_eq!(lines.get(..2), Some([module, object].as_slice()));
        let objects = lines.get(2).copied().unwrap_or_default();
        assert!(
            objects.contains(object) && objects.contains("module.o"),
            "{objects}"
        );
    }
    let out = place.bmake(".", &["-V", "${SUBDIR}"]);
    assert_eq!(out.stdout.trim(), "toehold t5sim");
}

#[test]
fn t5sim_shows_what_a_toe_driver_needs_and_toehold_nothing() {
    let place = Place::new();
    let list = place.tree.at("shim/t5sim/exports-t4nex.txt");
    for version in [1_201_000, 1_402_000, 1_500_068] {
        let param = format!("#define __FreeBSD_version {version}\t/* Master */\n");
        place.bench.file("sys/sys/param.h", &param);
        let out = place.bmake("t5sim", &["-V", "${EXPORT_SYMS}"]);
        let names: Vec<&str> = out.stdout.split_whitespace().collect();
        let wanted = xtask::module::read_list(&list, version);
        assert_eq!(names, wanted.expect("list"), "{version}");
    }
    assert_eq!(
        place.bmake("toehold", &["-V", "EXPORT_SYMS"]).stdout.trim(),
        ""
    );
}

#[test]
fn the_module_is_made_by_rustc_alone_for_the_kernel() {
    let place = Place::new();
    for module in ["toehold", "t5sim"] {
        let out = place.bmake(module, &["-n", "all"]);
        assert!(out.ok, "{out:?}");
        let runs: Vec<&str> = out
            .stdout
            .lines()
            .filter(|l| l.contains("--crate-name"))
            .collect();
        let (first, last) = (runs.first().expect("core"), runs.last().expect("module"));
        assert!(first.contains("--crate-name core "), "{first}");
        assert!(
            last.contains(&format!("--crate-name {module}_kmod ")),
            "{last}"
        );
        assert!(last.contains("-Clto=fat"), "{last}");
        for run in &runs {
            for flag in [
                "--target x86_64-unknown-none",
                "-Crelocation-model=static",
                "-Ccode-model=kernel",
                "-Cno-redzone=yes",
                "-Coverflow-checks=on",
                "-Cpanic=abort",
            ] {
                assert!(run.contains(flag), "{flag} in {run}");
            }
        }
        for word in ["cargo", "http", "bindgen ", "TOEHOLD_STANDIN"] {
            assert!(!out.stdout.contains(word), "{word} in {}", out.stdout);
        }
        let heap = runs.iter().any(|run| run.contains("--crate-name alloc "));
        assert_eq!(heap, module == "t5sim", "toehold.ko has no heap");
    }
}

#[test]
fn what_is_missing_is_said() {
    let place = Place::new();
    place.refused(&["RUSTC=/nonexistent/rustc"], "does not run; install Rust");
    place.refused(
        &["RUST_SRC=/nonexistent"],
        "no source of core in /nonexistent",
    );
    place.refused(&["CRATES=/nonexistent"], "in /nonexistent; run make -C");
    place.refused(
        &["CRATES=crates"],
        "CRATES=crates is not a path from the root",
    );
    place.refused(
        &["SYSDIR=/nonexistent"],
        "SYSDIR=/nonexistent is not the sys folder",
    );
    place
        .bench
        .program("old", "#!/bin/sh\necho 'rustc 1.63.0'\n");
    let old = format!("RUSTC={}", place.bench.dir.join("old").display());
    place.refused(&[&old], "rustc 1.63.0 is too old, 1.88 or newer is needed");
    assert!(
        place.bmake("toehold", &["clean", &old]).ok,
        "cleaning needs no compiler"
    );
}

#[test]
fn options_are_those_of_the_running_kernel_unless_a_build_folder_is_given() {
    let place = Place::new();
    let dir = &place.bench.dir;
    std::fs::create_dir_all(dir.join("sys/amd64/conf")).expect("folder");
    place.bench.program("bin/sysctl", "#!/bin/sh\necho MINE\n");
    let config = "#!/bin/sh\n[ \"$1 $3\" = '-d MINE' ] && echo > \"$2/opt_global.h\"\n";
    place.bench.program("bin/config", config);
    let path = format!("{}:/usr/bin:/bin", dir.join("bin").display());
    let bmake = |more: &[&str]| {
        let cmd = native::bmake(&place.tree, "toehold", dir, &dir.join("obj"));
        let mut cmd = cmd.env("PATH", &path).args(["-V", "${KERNBUILDDIR}"]);
        cmd.args
            .retain(|arg| !arg.to_string_lossy().starts_with("KERNBUILDDIR="));
        let own = ["RUSTC", "RUST_SRC"].map(|name| {
            let file = if name == "RUSTC" { "rustc" } else { "library" };
            format!("{name}={}", dir.join(file).display())
        });
        Real.output(&cmd.args(own).args(more)).expect("bmake")
    };
    std::fs::create_dir_all(dir.join("obj")).expect("folder");
    let out = bmake(&[]);
    assert!(out.ok, "{out:?}");
    let made = dir.join("obj/kernel-MINE");
    assert_eq!(out.stdout.trim(), made.display().to_string());
    assert!(made.join("opt_global.h").is_file());
    let given = format!("KERNBUILDDIR={}", dir.join("kernel").display());
    let out = bmake(&[&given]);
    assert_eq!(out.stdout.trim(), dir.join("kernel").display().to_string());
    let out = bmake(&["KERNCONF=OTHER"]);
    let said = format!("{}{}", out.stdout, out.stderr);
    assert!(
        !out.ok && said.contains("made no options of OTHER"),
        "{said}"
    );
}

#[test]
fn declarations_of_another_header_are_refused() {
    let mut place = Place::new();
    let made = |place: &Place| place.bmake("toehold", &["bindings-toehold.ok"]);
    let root = place.bench.dir.join("copy");
    for dir in [
        "sys/modules/bindings",
        "sys/modules/toehold",
        "shim/t5sim",
        "rust",
    ] {
        std::fs::create_dir_all(root.join(dir)).expect("folder");
    }
    let copy = |name: &str| {
        std::fs::copy(place.tree.at(name), root.join(name)).expect("copy");
    };
    for name in [
        "sys/modules/rust.mk",
        "sys/modules/kernel.mk",
        "sys/modules/crates.mk",
        "sys/modules/distinfo",
        "sys/modules/toehold/Makefile",
        "shim/module.c",
    ] {
        copy(name);
    }
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).expect("file");
    write("shim/toehold.h", "int x;\n");
    write("shim/t5sim/t5sim.h", "");
    // `cksum` of the header above.
    let sum = Real
        .output(&Cmd::new("cksum").arg(root.join("shim/toehold.h")))
        .expect("cksum")
        .stdout;
    let sum: Vec<&str> = sum.split_whitespace().take(2).collect();
    let head = format!("// Made from shim/toehold.h: cksum {}\n", sum.join(" "));
    write("sys/modules/bindings/toehold.rs", &head);
    place.tree = Tree { root: root.clone() };
    let out = made(&place);
    assert!(out.ok, "{out:?}");
    std::fs::remove_file(place.bench.dir.join("obj/bindings-toehold.ok")).expect("stamp");
    write("shim/toehold.h", "int y;\n");
    let out = made(&place);
    assert!(!out.ok, "{out:?}");
    let wanted = "bindings/toehold.rs is not of this shim/toehold.h; run make generated";
    assert!(out.stderr.contains(wanted), "{}", out.stderr);
}
