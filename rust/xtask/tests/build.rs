//! The steps of a build refuse what they are given when it is not usable.

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use common::Bench;
use xtask::archive;
use xtask::inputs;
use xtask::module;
use xtask::run::{Cmd, Output, Real, Runner, need};
use xtask::shim;
use xtask::tree::{RELEASES, Tree};

#[test]
fn sysdir_that_is_no_tree_is_refused_naming_the_missing_file() {
    let bench = Bench::new();
    let said = inputs::check_sysdir(&bench.dir).expect_err("empty folder");
    assert!(
        said.ends_with("is not the sys folder of a FreeBSD source tree: sys/param.h is missing"),
        "{said}"
    );
    bench.file(
        "sys/param.h",
        "#define __FreeBSD_version 1500068\t/* Master */\n",
    );
    bench.file("conf/newvers.sh", "");
    let said = inputs::check_sysdir(&bench.dir).expect_err("no cxgbe");
    assert!(said.contains("dev/cxgbe/adapter.h is missing"), "{said}");
    bench.file("dev/cxgbe/adapter.h", "");
    assert_eq!(inputs::check_sysdir(&bench.dir), Ok(1_500_068));
    bench.file("sys/param.h", "");
    let said = inputs::check_sysdir(&bench.dir).expect_err("no version");
    assert!(said.contains("defines no __FreeBSD_version"), "{said}");
}

#[test]
fn rustc_and_its_source_must_be_of_one_version() {
    let bench = Bench::new();
    let said = inputs::check_rust_source("rustc", "1.96.0", &bench.dir).expect_err("no source");
    assert!(said.contains("the source of its core is missing"), "{said}");
    bench.file("library/core/Cargo.toml", "");
    bench.file("src/version", "1.95.0\n");
    let said =
        inputs::check_rust_source("rustc", "1.96.0", &bench.dir).expect_err("another version");
    assert!(
        said.contains("rustc is version 1.96.0 but the source"),
        "{said}"
    );
    assert!(said.contains("is version 1.95.0"), "{said}");
    bench.file("src/version", "1.96.0\n");
    assert_eq!(
        inputs::check_rust_source("rustc", "1.96.0", &bench.dir),
        Ok(())
    );
}

#[test]
fn what_is_no_rustc_is_refused() {
    let bench = Bench::new();
    let said = inputs::check_rustc(&Real, &bench.dir.join("rustc")).expect_err("no file");
    assert!(said.contains("is missing"), "{said}");
    let said = inputs::check_rustc(&Real, Path::new("/bin/ls")).expect_err("another program");
    assert!(said.contains("is no rustc"), "{said}");
}

#[test]
fn missing_tools_are_named() {
    let bench = Bench::new();
    bench.file("clang-19", "");
    let path = Some(bench.dir.clone().into_os_string());
    let said = inputs::check_tools(&["clang-19", "ld.lld-19", "llvm-ar-19"], path.clone());
    assert_eq!(
        said,
        Err("missing: ld.lld-19, llvm-ar-19; run `make setup`".into())
    );
    assert_eq!(inputs::check_tools(&["clang-19"], path), Ok(()));
}

#[test]
fn c_that_does_not_compile_is_shown() {
    let bench = Bench::new();
    let said = shim::compile(&Real, &bench.dir, &[], &bench.dir).expect_err("no file");
    assert!(said.contains("holds no C file"), "{said}");
    bench.file("good.c", "int x;");
    bench.file("bad.c", "int y = nonesuch;");
    let flags = ["-c".into(), "--target=x86_64-unknown-freebsd15.0".into()];
    let said = shim::compile(&Real, &bench.dir, &flags, &bench.dir).expect_err("bad.c");
    assert!(said.contains("nonesuch"), "{said}");
    fs::remove_file(bench.dir.join("bad.c")).expect("remove");
    let objects = shim::compile(&Real, &bench.dir, &flags, &bench.dir).expect("good.c");
    assert_eq!(objects, [bench.dir.join("good.o")]);
}

#[test]
fn the_c_halves_are_compiled_with_our_flags_alone() {
    let bench = Bench::new();
    bench.file("a.c", "int x;");
    let flags: Vec<OsString> = vec!["-c".into(), "--target=x86_64-unknown-freebsd15.0".into()];
    // A process of its own, for CFLAGS must be in the environment.
    if std::env::var_os("CFLAGS").is_none() {
        let test = std::env::current_exe().expect("test program");
        let name = "the_c_halves_are_compiled_with_our_flags_alone";
        let again = Cmd::new(test)
            .arg(name)
            .env("CFLAGS", "-fstack-protector-all");
        need(&Real, &again, "the test with CFLAGS").expect("CFLAGS are not ours");
        return;
    }
    let seen = Seen::default();
    shim::compile(&seen, &bench.dir, &flags, &bench.dir).expect("compiles");
    let args = seen.0.into_inner().expect("args");
    let file = |name: &str| bench.dir.join(name).into_os_string();
    let rest = [flags, vec!["-o".into(), file("a.o"), file("a.c")]].concat();
    let warnings = ["-Wall", "-Wextra"].map(OsString::from);
    assert_eq!(args, [warnings.as_slice(), &rest].concat());
}

/// Keeps the arguments of the last program.
#[derive(Default)]
struct Seen(Mutex<Vec<OsString>>);

impl Runner for Seen {
    fn output(&self, cmd: &Cmd) -> xtask::Result<Output> {
        self.0.lock().expect("args").clone_from(&cmd.args);
        Real.output(cmd)
    }
    fn show(&self, cmd: &Cmd) -> xtask::Result<bool> {
        Real.show(cmd)
    }
    fn lines(&self, cmd: &Cmd, each: &mut dyn FnMut(&str)) -> xtask::Result<bool> {
        Real.lines(cmd, each)
    }
}

#[test]
fn warnings_of_the_shim_are_errors_and_unused_parameters_are_not_warnings() {
    let tree = Tree::find().expect("tree");
    let flags = shim::flags(&tree, RELEASES[1], &[]);
    let bench = Bench::new();
    bench.file(
        "a.c",
        "int th_f(int unused); int th_f(int unused) { return 1; }",
    );
    shim::compile(&Real, &bench.dir, &flags, &bench.dir).expect("compiles");
    bench.file(
        "a.c",
        "int th_f(void); int th_f(void) { int unused; return 1; }",
    );
    let said = shim::compile(&Real, &bench.dir, &flags, &bench.dir).expect_err("a warning");
    assert!(said.contains("-Werror,-Wunused-variable"), "{said}");
}

#[test]
fn kernel_headers_of_both_releases_compile() {
    let tree = Tree::find().expect("tree");
    for release in RELEASES {
        let bench = Bench::new();
        bench.file(
            "a.c",
            &format!(
                "#include <sys/param.h>\n#include <sys/systm.h>\n#include <sys/socket.h>\n\
                 #include <sys/socketvar.h>\n#include <net/if.h>\n#include <net/vnet.h>\n\
                 #include <netinet/in.h>\n#include <netinet/in_pcb.h>\n#include <netinet/tcp.h>\n\
                 #include <netinet/tcp_var.h>\n#include <netinet/toecore.h>\n\
                 CTASSERT(__FreeBSD_version == {});\n",
                release.version
            ),
        );
        let flags = shim::flags(&tree, release, &[]);
        shim::compile(&Real, &bench.dir, &flags, &bench.dir).expect("compiles");
    }
}

#[test]
fn an_archive_without_one_object_of_ours_is_refused() {
    let bench = Bench::new();
    for name in ["lib-a", "lib-b", "core-1"] {
        bench.object(name, "int x;", &[]);
    }
    let archive = |name: &str, members: &[&str]| {
        let path = bench.dir.join(name);
        let files = members.iter().map(|m| bench.dir.join(m));
        need(
            &Real,
            &Cmd::new("llvm-ar-19").arg("rcs").arg(&path).args(files),
            "ar",
        )
        .expect("ar");
        path
    };
    let out = bench.dir.join("out");
    fs::create_dir(&out).expect("folder");
    let two = archive("two.a", &["lib-a.o", "lib-b.o", "core-1.o"]);
    let said = archive::extract(&Real, &two, "lib", &out).expect_err("two objects");
    assert!(said.contains("holds 2 objects of lib, not one"), "{said}");
    let one = archive("one.a", &["lib-a.o", "core-1.o"]);
    let object = archive::extract(&Real, &one, "lib", &out).expect("one object");
    assert_eq!(object, out.join("lib-a.o"));
    assert!(object.is_file() && !out.join("core-1.o").exists());
}

#[test]
fn a_link_that_fails_is_shown() {
    let bench = Bench::new();
    let first = bench.object("first", "int twice;", &[]);
    let second = bench.object("second", "int twice;", &[]);
    let out = bench.dir.join("m.ko");
    let said = module::link(&Real, &[first, second], &[], &bench.dir, &out).expect_err("twice");
    assert!(
        said.contains("linking failed") && said.contains("twice"),
        "{said}"
    );
    assert!(!out.exists());
}

#[test]
fn lists_have_comments_and_a_missing_one_is_named() {
    let bench = Bench::new();
    let text = "# imports\nmalloc\n\n  free # of malloc(9)\nold\tuntil 14\nnew since 14\n";
    let list = bench.file("list", text);
    let names = |v| module::read_list(&list, v).expect("list").join(" ");
    assert_eq!(names(13), "malloc free old");
    assert_eq!(names(14), "malloc free new");
    let said = module::read_list(&bench.dir.join("none"), 0).expect_err("no file");
    assert!(said.contains("cannot read the list"), "{said}");
    let odd = bench.file("odd", "malloc from 14\n");
    let said = module::read_list(&odd, 0).expect_err("an unknown word");
    assert!(said.contains("malloc from 14"), "{said}");
}
