//! `make native`: the Makefiles of `sys/modules`, which are for FreeBSD, as far as they go
//! here. bmake reads them with a few lines in place of FreeBSD's `bsd.kmod.mk`; the rules of
//! `rust.mk` then run with our compiler, and what they make, linked to the C half for
//! packaged headers, must pass the gates that the module built by cargo passes. Source of the
//! registry's crates is unpacked by the rules from the archives that cargo keeps.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kmod::{self, MODULES, Module};
use crate::run::{Cmd, Runner, need};
use crate::tree::Tree;
use crate::{Result, generated, inputs, setup};

/// Stands for FreeBSD's `bsd.init.mk`.
const INIT_MK: &str = ".MAIN: all\n";

/// Stands for FreeBSD's `bsd.kmod.mk`: objects of the sources, a file for the module.
const KMOD_MK: &str = "\
OBJS+=\t${SRCS:M*.c:R:S/$/.o/g}
all: ${KMOD}.ko
${KMOD}.ko: ${OBJS}
.SUFFIXES: .c .o
.c.o:
\t${CC} ${CFLAGS} -c ${.IMPSRC}
clean:
\trm -f ${CLEANFILES} ${OBJS} ${KMOD}.ko
";

/// Makes the folder that bmake takes its `bsd.*.mk` from, and a folder that passes for a
/// kernel's source tree and build folder; both below `dir`.
///
/// # Errors
/// A file cannot be written.
pub fn stand_ins(dir: &Path) -> Result<()> {
    for (name, text) in [
        ("mk/sys.mk", "CC?=\tcc\n"),
        ("mk/bsd.init.mk", INIT_MK),
        ("mk/bsd.kmod.mk", KMOD_MK),
        ("mk/bsd.subdir.mk", "all:\n"),
        ("sys/dev/cxgbe/adapter.h", ""),
        ("sys/sys/param.h", "#define __FreeBSD_version 1500068\n"),
        ("kernel/opt_global.h", ""),
    ] {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        fs::create_dir_all(folder)
            .map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
        fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}

/// bmake in the folder of a module's Makefile, with objects in `objects` and the files of
/// [`stand_ins`] in `stand_ins`.
pub fn bmake(tree: &Tree, name: &str, stand_ins: &Path, objects: &Path) -> Cmd {
    let define = |variable: &str, value: PathBuf| format!("{variable}={}", value.display());
    Cmd::new("bmake")
        .arg("-m")
        .arg(stand_ins.join("mk"))
        .arg("-C")
        .arg(tree.at("sys/modules").join(name))
        .arg(define("SYSDIR", stand_ins.join("sys")))
        .arg(define("KERNBUILDDIR", stand_ins.join("kernel")))
        .arg(define("CRATES", stand_ins.join("crates")))
        .arg(define("RUSTC", inputs::kernel_rustc()))
        .env("MAKEOBJDIR", objects)
        .unset("MAKEFLAGS")
        .unset("MFLAGS")
}

/// Runs it for both modules.
///
/// # Errors
/// bmake fails, or what it makes does not pass the gates.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::run(tree, runner)?;
    inputs::check_tools(&["bmake"], std::env::var_os("PATH"))?;
    let objects = tree.target().join("native");
    stand_ins(&objects)?;
    crates(tree, runner, &objects)?;
    for module in MODULES {
        let made = object(tree, runner, module, &objects)?;
        kmod::with_rust_object(tree, runner, module, &made, &objects)
            .map_err(|e| format!("{}.ko of rust.mk: {e}", module.name))?;
    }
    Ok(())
}

/// Lets the rules unpack the registry's crates from the archives that cargo keeps.
fn crates(tree: &Tree, runner: &dyn Runner, objects: &Path) -> Result<()> {
    let dir = objects.join("crates");
    fs::create_dir_all(&dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
    for archive in generated::archives(tree, runner)? {
        let to = dir.join(&archive.name);
        fs::copy(&archive.path, &to).map_err(|e| format!("cannot write {}: {e}", to.display()))?;
    }
    let cmd = bmake(tree, ".", objects, objects).arg("fetch");
    need(runner, &cmd, "unpacking crates of the registry").map(drop)
}

/// Lets the rules make a module's Rust object.
fn object(tree: &Tree, runner: &dyn Runner, module: Module, objects: &Path) -> Result<PathBuf> {
    let name = format!("{}_rust.o", module.archive.lib);
    let cmd = bmake(tree, module.name, objects, objects).args(["-s", &name]);
    if runner.show(&cmd)? {
        Ok(objects.join(name))
    } else {
        Err(format!("bmake failed in sys/modules/{}", module.name))
    }
}
