//! `make kmod`: both modules for every release, then the gates.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{self, Archive};
use crate::gate::{self, Spec};
use crate::host::Host;
use crate::run::Runner;
use crate::tree::{RELEASES, Release, Tree};
use crate::{Result, inputs, module, setup, shim};

/// A module to build.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Name of the module and of its file.
    pub name: &'static str,
    /// Its Rust half.
    pub archive: Archive,
    /// Folder of its C half.
    pub shim: &'static str,
    /// Folders of headers, first to last.
    pub include: &'static [&'static str],
    /// List of the names that stay global, if there are any.
    pub exports: Option<&'static str>,
    /// List of the names it may leave undefined.
    pub imports: &'static str,
    /// Modules it must depend on.
    pub depends: &'static [&'static str],
    /// Modules it must not depend on or pose as.
    pub forbidden: &'static [&'static str],
    /// Whether it may hold code of the `alloc` crate.
    pub alloc: bool,
}

/// The two modules.
pub const MODULES: [Module; 2] = [
    Module {
        name: "toehold",
        archive: Archive {
            package: "toehold-kmod",
            lib: "toehold_kmod",
            std: "core",
        },
        shim: "shim",
        include: &["shim"],
        exports: None,
        imports: "shim/imports-toehold.txt",
        depends: &["toecore", "t5sim"],
        forbidden: &["t4nex"],
        alloc: false,
    },
    Module {
        name: "t5sim",
        archive: Archive {
            package: "t5sim-kmod",
            lib: "t5sim_kmod",
            std: "core,alloc",
        },
        shim: "shim/t5sim",
        include: &["shim/t5sim", "shim"],
        exports: Some("shim/t5sim/exports.txt"),
        imports: "shim/t5sim/imports.txt",
        depends: &[],
        forbidden: &["t4nex"],
        alloc: true,
    },
];

/// Says why a build against a real FreeBSD tree or kernel is refused.
///
/// # Errors
/// `sysdir` or `kernbuilddir` is given.
pub fn refuse_tree(sysdir: Option<&Path>, kernbuilddir: Option<&Path>) -> Result<()> {
    let supported = "leave it out to build for FreeBSD 14 and 15 with t5sim from packaged headers";
    if let Some(dir) = sysdir {
        let version = inputs::check_sysdir(dir)?;
        return Err(format!(
            "SYSDIR={} is a FreeBSD source tree (__FreeBSD_version {version}), \
             but building against one is not supported yet; {supported}",
            dir.display()
        ));
    }
    match kernbuilddir {
        Some(dir) => Err(format!(
            "KERNBUILDDIR={} is given, but building for one kernel is not supported yet; {supported}",
            dir.display()
        )),
        None => Ok(()),
    }
}

/// Builds everything and runs the gates.
///
/// # Errors
/// The first input, compile, link or gate that fails.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    check_inputs(tree, runner)?;
    in_scratch(tree, |scratch| {
        MODULES
            .iter()
            .try_for_each(|module| build(tree, runner, *module, scratch))
    })
}

/// Compiles the C halves and nothing else: a quick look while working on them.
///
/// # Errors
/// A file that does not compile.
pub fn shim_only(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    check_inputs(tree, runner)?;
    in_scratch(tree, |scratch| {
        for module in MODULES {
            for release in RELEASES {
                let out = scratch.join(module.name).join(release.name);
                compile_shim(tree, runner, module, release, &out)?;
            }
        }
        Ok(())
    })
}

fn check_inputs(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::refuse_freebsd(Host::probe(runner)?)?;
    let sysdir = inputs::given("SYSDIR").map(PathBuf::from);
    let kernbuilddir = inputs::given("KERNBUILDDIR").map(PathBuf::from);
    refuse_tree(sysdir.as_deref(), kernbuilddir.as_deref())?;
    inputs::check_all(runner, tree)
}

/// Gives `work` a folder of this run's own and removes it afterwards: two builds at once
/// do not write the same files.
fn in_scratch(tree: &Tree, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let scratch = tree
        .target()
        .join("kmod")
        .join(format!("scratch-{}", std::process::id()));
    let done = create(&scratch).and_then(|()| work(&scratch));
    let _ = fs::remove_dir_all(&scratch);
    done
}

fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))
}

/// Builds one module for every release, in `scratch`.
fn build(tree: &Tree, runner: &dyn Runner, module: Module, scratch: &Path) -> Result<()> {
    let own = scratch.join(module.name);
    create(&own)?;
    let rust = archive::build(tree, runner, module.archive, &own)?;
    for release in RELEASES {
        let out = tree.modules(release).join(format!("{}.ko", module.name));
        create(&tree.modules(release))?;
        build_release(
            tree,
            runner,
            module,
            release,
            &rust,
            &own.join(release.name),
            &out,
        )
        .map_err(|e| format!("{}.ko for FreeBSD {}: {e}", module.name, release.name))?;
        println!("{}", out.strip_prefix(&tree.root).unwrap_or(&out).display());
    }
    Ok(())
}

fn build_release(
    tree: &Tree,
    runner: &dyn Runner,
    module: Module,
    release: Release,
    rust: &Path,
    scratch: &Path,
    out: &Path,
) -> Result<()> {
    let mut objects = compile_shim(tree, runner, module, release, scratch)?;
    objects.push(rust.into());
    let built = scratch.join(format!("{}.ko", module.name));
    let spec = spec(tree, module)?;
    module::link(runner, &objects, &spec.exports, scratch, &built)?;
    gate::check_file(runner, &built, &spec)?;
    // Renamed into place, so that nobody ever loads half a module or one that failed.
    fs::rename(&built, out).map_err(|e| format!("cannot write {}: {e}", out.display()))
}

fn compile_shim(
    tree: &Tree,
    runner: &dyn Runner,
    module: Module,
    release: Release,
    out: &Path,
) -> Result<Vec<PathBuf>> {
    create(out)?;
    let include: Vec<PathBuf> = module.include.iter().map(|dir| tree.at(dir)).collect();
    let flags = shim::flags(tree, release, &include);
    shim::compile(runner, &tree.at(module.shim), &flags, out)
}

fn exports(tree: &Tree, module: Module) -> Result<Vec<String>> {
    module
        .exports
        .map_or(Ok(Vec::new()), |list| module::read_list(&tree.at(list)))
}

/// What the gates hold a module against.
///
/// # Errors
/// A list cannot be read.
pub fn spec(tree: &Tree, module: Module) -> Result<Spec> {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Ok(Spec {
        module: module.name.into(),
        exports: exports(tree, module)?,
        imports: module::read_list(&tree.at(module.imports))?,
        imports_list: module.imports.into(),
        depends: own(module.depends),
        forbidden: own(module.forbidden),
        alloc: module.alloc,
    })
}
