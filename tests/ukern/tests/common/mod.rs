//! Scratch modules: small C files compiled as kernel modules are.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ukern::{Config, Kernel};

/// What every scratch module starts with.
const PRELUDE: &str = r#"
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/module.h>
#include <sys/malloc.h>
#include <sys/lock.h>
#include <sys/mutex.h>
#include <sys/rwlock.h>
#include <sys/sx.h>
#include <sys/condvar.h>
#include <sys/proc.h>
#include <sys/kthread.h>
#include <sys/counter.h>
#include <sys/callout.h>
#include <sys/epoch.h>
#include <sys/eventhandler.h>
#include <sys/mbuf.h>
#include <sys/sdt.h>
#include <sys/sglist.h>
#include <sys/sysctl.h>
#include <sys/taskqueue.h>
#include <sys/vmem.h>
#include <vm/vm.h>
#include <vm/uma.h>
#include <net/vnet.h>
MALLOC_DEFINE(M_SCRATCH, "scratch", "scratch module");
"#;

/// A module with no work at load and unload.
#[allow(dead_code)]
pub(crate) const IDLE: &str = r#"
static int ev(module_t m, int what, void *arg) { return (what == MOD_QUIESCE ? EOPNOTSUPP : 0); }
static moduledata_t md = { "NAME", ev, NULL };
DECLARE_MODULE(NAME, md, SI_SUB_PSEUDO, SI_ORDER_ANY);
MODULE_VERSION(NAME, 1);
"#;

fn run(cmd: &mut Command) {
    let out = cmd.output().expect("run the compiler");
    assert!(
        out.status.success(),
        "{cmd:?}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Compiles `source` (behind the prelude) into `<name>.ko` and returns its path.
pub(crate) fn module(name: &str, source: &str) -> PathBuf {
    module_with(name, source, &[])
}

/// As [`module`], with flags that override the usual ones. The same source is compiled once.
pub(crate) fn module_with(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let text = format!("{PRELUDE}\n#line 1 \"{name}.c\"\n{source}");
    let mut h = DefaultHasher::new();
    (&text, flags, env!("UKERN_HDR")).hash(&mut h);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = root.join(format!("scratch-{:016x}", h.finish()));
    let ko = done.join(format!("{name}.ko"));
    if !ko.exists() {
        // Made aside and moved into place, for other threads and processes may be at it too.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = root.join(format!(
            "making-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&dir).expect("scratch directory");
        compile(&dir, name, &text, flags);
        if fs::rename(&dir, &done).is_err() {
            assert!(ko.exists(), "cannot move {} into place", dir.display());
            let _ = fs::remove_dir_all(&dir);
        }
    }
    ko
}

fn compile(dir: &Path, name: &str, text: &str, flags: &[&str]) {
    let c = dir.join(format!("{name}.c"));
    fs::write(&c, text).expect("write the source");
    let o = dir.join(format!("{name}.o"));
    let hdr = env!("UKERN_HDR");
    run(Command::new("clang-19")
        .args([
            "--target=x86_64-unknown-freebsd15.0",
            "-nostdlibinc",
            "-ffreestanding",
            "-O1",
            "-g0",
        ])
        .args(["-D_KERNEL", "-DKLD_MODULE", "-D__FreeBSD_version=1500068"])
        .args([
            "-DINVARIANTS",
            "-DINVARIANT_SUPPORT",
            "-mcmodel=kernel",
            "-mno-red-zone",
        ])
        .args([
            "-mno-mmx",
            "-mno-sse",
            "-msoft-float",
            "-fno-pic",
            "-std=gnu17",
        ])
        .args([
            "-fno-stack-protector",
            "-fno-asynchronous-unwind-tables",
            "-Wno-everything",
        ])
        .args([
            "-include",
            "opt_global.h",
            &format!("-I{}", env!("UKERN_OPT")),
        ])
        .args(["-isystem", &format!("{hdr}/x86_64-freebsd-none")])
        .args([
            "-isystem",
            &format!("{hdr}/generic-freebsd"),
            "-isystem",
            env!("UKERN_CK"),
        ])
        .args(flags)
        .arg("-c")
        .arg(&c)
        .arg("-o")
        .arg(&o));
    let ko = dir.join(format!("{name}.ko"));
    run(Command::new("ld.lld-19")
        .args(["-m", "elf_x86_64_fbsd", "-r", "-o"])
        .arg(&ko)
        .arg(&o));
}

/// A module that is `source` plus an event handler with no work.
#[allow(dead_code)]
pub(crate) fn idle_module(name: &str, source: &str) -> PathBuf {
    module(name, &format!("{source}\n{}", IDLE.replace("NAME", name)))
}

/// A kernel with this module loaded.
#[allow(dead_code)]
pub(crate) fn boot_with(name: &str, source: &str) -> Kernel {
    let ko = idle_module(name, source);
    let k = ukern::boot(Config::default());
    let r = k.kldload(&ko);
    assert_eq!(r, Ok(()), "{:?}", k.console());
    k
}

/// Runs function `func` of a scratch module and returns the report of the panic it must cause.
#[allow(dead_code)]
pub(crate) fn panic_of(source: &str, func: &str) -> String {
    let k = boot_with("scratch", source);
    let api = k.api();
    let func = func.to_string();
    let report = k.expect_panic(move || api.call("scratch.ko", &func, [0; 4]));
    drop(k);
    report
}
