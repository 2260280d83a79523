//! A scratch folder and the compiler, for modules made to pass or to fail.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use xtask::gate::Spec;
use xtask::module;
use xtask::run::{Cmd, Real, need};

/// A folder of its own, removed in the end.
pub(crate) struct Bench {
    pub(crate) dir: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Bench {
    pub(crate) fn new() -> Self {
        let unique = format!(
            "bench-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        fs::create_dir_all(&dir).expect("scratch folder");
        Self { dir }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(&path, text).expect("file");
        path
    }

    /// A file that may be run. Another process puts it there: what this one has open for writing,
    /// its other threads' children inherit for a moment, and nothing that is can be run (ETXTBSY).
    pub(crate) fn program(&self, name: &str, text: &str) {
        let from = self.file(&format!("{name}.text"), text);
        let to = from.with_extension("");
        let mut install = std::process::Command::new("install");
        let done = install.args(["-m", "755"]).args([&from, &to]).status();
        assert!(done.expect("install").success());
    }

    /// Compiles `source` (C) with the module's usual flags and `extra`.
    pub(crate) fn object(&self, name: &str, source: &str, extra: &[&str]) -> PathBuf {
        let file = self.file(&format!("{name}.c"), source);
        let out = self.dir.join(format!("{name}.o"));
        let cmd = Cmd::new("clang-19")
            .args([
                "--target=x86_64-unknown-freebsd15.0",
                "-ffreestanding",
                "-nostdlibinc",
                "-O2",
            ])
            .args([
                "-mcmodel=kernel",
                "-fno-pic",
                "-fno-asynchronous-unwind-tables",
                "-c",
            ])
            .args(extra)
            .arg("-o")
            .arg(&out)
            .arg(file);
        need(&Real, &cmd, "compiling a test").expect("compile");
        out
    }

    /// Links the module `m.ko` of `source`, keeping `exports` global.
    pub(crate) fn module(&self, source: &str, extra: &[&str], exports: &[&str]) -> PathBuf {
        let object = self.object("m", source, extra);
        let out = self.dir.join("m.ko");
        let exports: Vec<String> = exports.iter().map(|e| (*e).to_owned()).collect();
        module::link(&Real, &[object], &exports, &self.dir, &out).expect("link");
        out
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What FreeBSD's `DECLARE_MODULE`, `MODULE_VERSION` and `MODULE_DEPEND` leave in an object.
pub(crate) const METADATA: &str = r#"
struct mod_metadata { int version; int type; const void *data; const char *cval; };
#define MD(sym, t, s) \
    static struct mod_metadata sym = { 1, t, &sym, s }; \
    __attribute__((section("set_modmetadata_set"), used)) \
    static void const * const set_##sym = &sym
#define MODULE(name)   MD(mod_##name, 2, #name); MD(ver_##name, 3, #name)
#define DEPEND(name)   MD(dep_##name, 1, #name)
"#;

/// A module with nothing wrong.
pub(crate) fn good() -> String {
    format!("{METADATA}MODULE(toehold); DEPEND(toecore); DEPEND(t5sim);\n{BODY}")
}

const BODY: &str = r#"
extern int helper(int);
extern int value;
static int table[4] = { 1, 2, 3, 4 };
int th_entry(int i) { return helper(i) + value + table[i & 3]; }
int (*th_pointer)(int) = th_entry;
"#;

pub(crate) fn spec() -> Spec {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    Spec {
        module: "toehold".into(),
        versions: vec!["toehold".into()],
        exports: Vec::new(),
        imports: own(&["helper", "value"]),
        imports_list: "shim/imports-toehold.txt".into(),
        depends: own(&["toecore", "t5sim"]),
        forbidden: own(&["t4nex"]),
        alloc: false,
    }
}
