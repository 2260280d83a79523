//! `make kmod`: both modules, for FreeBSD 14 and 15 from packaged headers or for the source
//! tree that SYSDIR names, then the gates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{self, Archive};
use crate::gate::{self, Spec};
use crate::host::Host;
use crate::run::Runner;
use crate::sysdir::symbols::{Finder, Provider};
use crate::sysdir::{Given, Source, generate};
use crate::tree::{RELEASES, Release, Tree};
use crate::{Result, inputs, module, setup, shim};

/// What a module calls itself and which others it needs.
#[derive(Clone, Copy, Debug)]
pub struct Ties {
    /// Module it declares.
    pub name: &'static str,
    /// Names it registers a version under, its own and those it stands for.
    pub versions: &'static [&'static str],
    /// List of the names that stay global, if there are any.
    pub exports: Option<&'static str>,
    /// Modules it must depend on.
    pub depends: &'static [&'static str],
    /// Modules it must not depend on or pose as.
    pub forbidden: &'static [&'static str],
}

/// A module to build.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Name of its file.
    pub name: &'static str,
    /// Its Rust half.
    pub archive: Archive,
    /// Folder of its C half.
    pub shim: &'static str,
    /// Folders of headers, first to last.
    pub include: &'static [&'static str],
    /// List of the names it may leave undefined, built from packaged headers.
    pub imports: &'static str,
    /// Built from packaged headers: for the simulated adapter alone.
    pub packaged: Ties,
    /// Built for a source tree: for the real adapter, or in its place.
    pub real: Ties,
    /// `__FreeBSD_version` of the source trees it can be built for: from, and below.
    pub versions: (u32, u32),
    /// Who may define its undefined names, built for a source tree.
    pub providers: &'static [Provider],
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
        imports: "shim/imports-toehold.txt",
        packaged: Ties {
            name: "toehold",
            versions: &["toehold", "t4_tom"],
            exports: None,
            depends: &["toecore", "t5sim"],
            forbidden: &["t4nex"],
        },
        real: Ties {
            name: "toehold",
            versions: &["toehold", "t4_tom"],
            exports: None,
            depends: &["toecore", "t4nex"],
            forbidden: &["t5sim"],
        },
        versions: (1_201_000, u32::MAX),
        providers: &[Provider::Kernel, Provider::Toecore, Provider::Cxgbe],
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
        imports: "shim/t5sim/imports.txt",
        packaged: Ties {
            name: "t5sim",
            versions: &["t5sim"],
            exports: Some("shim/t5sim/exports.txt"),
            depends: &[],
            forbidden: &["t4nex"],
        },
        real: Ties {
            name: "t4nex",
            versions: &["t4nex", "t5nex", "cxl"],
            exports: Some("shim/t5sim/exports-t4nex.txt"),
            depends: &[],
            forbidden: &["toehold"],
        },
        versions: (1_201_000, u32::MAX),
        providers: &[Provider::Kernel],
        alloc: true,
    },
];

/// Builds everything and runs the gates.
///
/// # Errors
/// The first input, compile, link or gate that fails.
pub fn run(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::refuse_freebsd(Host::probe(runner)?)?;
    match Given::read()? {
        Some(given) => source_tree(tree, runner, &given),
        None => packaged(tree, runner, &RELEASES),
    }
}

/// Builds for some releases of the packaged headers.
///
/// # Errors
/// As [`run`].
pub fn packaged(tree: &Tree, runner: &dyn Runner, releases: &[Release]) -> Result<()> {
    inputs::check_all(runner, tree, releases)?;
    in_scratch(tree, |scratch| {
        for module in MODULES {
            let own = scratch.join(module.name);
            create(&own)?;
            let rust = archive::build(tree, runner, module.archive, &own)?;
            let spec = spec(tree, module)?;
            for &release in releases {
                let build = Build {
                    tree,
                    runner,
                    module,
                    exports: &spec.exports,
                    scratch: &own.join(release.name),
                    out: &tree.modules(release),
                };
                let flags = shim::flags(tree, release, &includes(tree, module));
                build
                    .run(&flags, &rust, |path| gate::check_file(runner, path, &spec))
                    .map_err(|e| format!("{}.ko for FreeBSD {}: {e}", module.name, release.name))?;
            }
        }
        Ok(())
    })
}

/// Links a module's Rust object that something else than cargo made, with the C half for the
/// newest packaged headers, into `out`, and runs the gates.
///
/// # Errors
/// As [`run`].
pub fn with_rust_object(
    tree: &Tree,
    runner: &dyn Runner,
    module: Module,
    rust: &Path,
    out: &Path,
) -> Result<()> {
    let [.., release] = RELEASES;
    let spec = spec(tree, module)?;
    let flags = shim::flags(tree, release, &includes(tree, module));
    in_scratch(tree, |scratch| {
        let build = Build {
            tree,
            runner,
            module,
            exports: &spec.exports,
            scratch,
            out,
        };
        build.run(&flags, rust, |path| gate::check_file(runner, path, &spec))
    })
}

/// Builds for a FreeBSD source tree, into `target/kmod/<release>`.
///
/// # Errors
/// As [`run`].
pub fn source_tree(tree: &Tree, runner: &dyn Runner, given: &Given) -> Result<()> {
    inputs::check_tools(&inputs::TOOLS, std::env::var_os("PATH"))?;
    inputs::check_rustc(runner, &inputs::kernel_rustc())?;
    let source = Source::open(given)?;
    in_scratch(tree, |scratch| {
        let generated = made_headers(runner, &source, scratch)?;
        let places = scratch.join("symbols");
        create(&places)?;
        let mut finder = Finder::new(runner, &source, &generated, &places)?;
        let mut of_driver = BTreeSet::new();
        for module in modules_for(&source) {
            let own = scratch.join(module.name);
            create(&own)?;
            let rust = archive::build(tree, runner, module.archive, &own)?;
            let flags = shim::tree_flags(tree, &source, &generated, &includes(tree, module));
            let spec = spec_of(tree, module, module.real, source.version)?;
            let build = Build {
                tree,
                runner,
                module,
                exports: &spec.exports,
                scratch: &own.join("shim"),
                out: &out_folder(tree, &source),
            };
            build
                .run(&flags, &rust, |path| {
                    if module.real.exports.is_some() {
                        stands_in(&spec.exports, &of_driver)?;
                    }
                    let found = check_for_tree(runner, &mut finder, module, spec.clone(), path)?;
                    let driver = |(_, who): &(_, Provider)| *who == Provider::Cxgbe;
                    of_driver.extend(found.into_iter().filter(driver).map(|(name, _)| name));
                    Ok(())
                })
                .map_err(|e| format!("{}.ko for FreeBSD {}: {e}", module.name, source.release))?;
        }
        Ok(())
    })
}

/// The modules that can be built for the tree; says which are left out.
fn modules_for(source: &Source) -> Vec<Module> {
    let (build, leave): (Vec<Module>, Vec<Module>) = MODULES
        .into_iter()
        .partition(|module| (module.versions.0..module.versions.1).contains(&source.version));
    for module in leave {
        println!(
            "{}.ko is not for source trees of FreeBSD {}: left out",
            module.name, source.release
        );
    }
    build
}

/// Whether the module that stands in for the base driver shows all that toehold takes of it.
fn stands_in(exports: &[String], of_driver: &BTreeSet<String>) -> Result<()> {
    let lacking: Vec<&str> = of_driver
        .iter()
        .filter(|name| !exports.contains(name))
        .map(String::as_str)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(format!(
        "toehold.ko takes from if_cxgbe what it does not export: {}",
        lacking.join(", ")
    ))
}

/// `make symbols SYSDIR=`: says of each module built for the tree who defines what it
/// leaves undefined.
///
/// # Errors
/// No tree is given, a module is not built, or a name is defined by nobody.
pub fn symbols(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    let given = Given::read()?.ok_or("symbols are looked up in a source tree: give SYSDIR")?;
    let source = Source::open(&given)?;
    in_scratch(tree, |scratch| {
        let generated = made_headers(runner, &source, scratch)?;
        let places = scratch.join("symbols");
        create(&places)?;
        let mut finder = Finder::new(runner, &source, &generated, &places)?;
        let mut faults = Vec::new();
        for module in modules_for(&source) {
            let path = out_folder(tree, &source).join(format!("{}.ko", module.name));
            let found = gate::look_up(&path, &mut finder, module.providers)?;
            let by = |p: &Provider| found.found.values().filter(|who| *who == p).count();
            let counts: Vec<String> = module
                .providers
                .iter()
                .map(|p| format!("{} {}", by(p), p.name()))
                .collect();
            println!("{}.ko: {}", module.name, counts.join(", "));
            for (name, why) in found.missing {
                faults.push(format!("{}.ko: {name}: {why}", module.name));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(format!(
            "symbols that nobody defines:\n  {}",
            faults.join("\n  ")
        ))
    })
}

/// Where modules for a source tree are put.
pub fn out_folder(tree: &Tree, source: &Source) -> PathBuf {
    tree.target().join("kmod").join(&source.release)
}

fn made_headers(runner: &dyn Runner, source: &Source, scratch: &Path) -> Result<PathBuf> {
    let generated = scratch.join("headers");
    create(&generated)?;
    generate::headers(runner, source, &generated)?;
    Ok(generated)
}

/// Compiles the C halves and nothing else: a quick look while working on them.
///
/// # Errors
/// A file that does not compile.
pub fn shim_only(tree: &Tree, runner: &dyn Runner) -> Result<()> {
    setup::refuse_freebsd(Host::probe(runner)?)?;
    let given = Given::read()?;
    in_scratch(tree, |scratch| {
        let compile = |module: Module, name: &str, flags: &[std::ffi::OsString]| {
            let out = scratch.join(module.name).join(name);
            create(&out)?;
            shim::compile(runner, &tree.at(module.shim), flags, &out).map(drop)
        };
        let Some(given) = given else {
            inputs::check_all(runner, tree, &RELEASES)?;
            for module in MODULES {
                for release in RELEASES {
                    let flags = shim::flags(tree, release, &includes(tree, module));
                    compile(module, release.name, &flags)?;
                }
            }
            return Ok(());
        };
        let source = Source::open(&given)?;
        let generated = made_headers(runner, &source, scratch)?;
        for module in modules_for(&source) {
            let flags = shim::tree_flags(tree, &source, &generated, &includes(tree, module));
            compile(module, "tree", &flags)?;
        }
        Ok(())
    })
}

/// Gives `work` a folder of this run's own and removes it afterwards: two builds at once
/// do not write the same files.
///
/// # Errors
/// The folder cannot be made, or `work` fails.
pub fn in_scratch(tree: &Tree, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
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

fn includes(tree: &Tree, module: Module) -> Vec<PathBuf> {
    module.include.iter().map(|dir| tree.at(dir)).collect()
}

/// One module for one release or tree.
struct Build<'a> {
    tree: &'a Tree,
    runner: &'a dyn Runner,
    module: Module,
    exports: &'a [String],
    scratch: &'a Path,
    out: &'a Path,
}

impl Build<'_> {
    /// Compiles the C half, links it to the Rust half and lets `gate` look at the result.
    fn run(
        &self,
        flags: &[std::ffi::OsString],
        rust: &Path,
        gate: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        create(self.scratch)?;
        create(self.out)?;
        let shim = self.tree.at(self.module.shim);
        let mut objects = shim::compile(self.runner, &shim, flags, self.scratch)?;
        objects.push(rust.into());
        let name = format!("{}.ko", self.module.name);
        let built = self.scratch.join(&name);
        module::link(self.runner, &objects, self.exports, self.scratch, &built)?;
        gate(&built)?;
        // Renamed into place, so that nobody ever loads half a module or one that failed.
        let out = self.out.join(&name);
        fs::rename(&built, &out).map_err(|e| format!("cannot write {}: {e}", out.display()))?;
        let shown = out.strip_prefix(&self.tree.root).unwrap_or(&out);
        println!("{}", shown.display());
        Ok(())
    }
}

fn check_for_tree(
    runner: &dyn Runner,
    finder: &mut Finder<'_>,
    module: Module,
    mut spec: Spec,
    path: &Path,
) -> Result<BTreeMap<String, Provider>> {
    let found = gate::look_up(path, finder, module.providers)?;
    spec.imports = found.found.keys().cloned().collect();
    spec.imports_list = "what it may depend on".into();
    let gates = gate::check_file(runner, path, &spec);
    if found.missing.is_empty() {
        return gates.map(|()| found.found);
    }
    let reasons: Vec<String> = found
        .missing
        .iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    let gates = gates.err().unwrap_or_default();
    Err(format!("{gates}\nof these:\n  {}", reasons.join("\n  ")))
}

/// What the gates hold a module built from packaged headers against.
///
/// # Errors
/// A list cannot be read.
pub fn spec(tree: &Tree, module: Module) -> Result<Spec> {
    // Lists for packaged builds do not depend on the release.
    spec_of(tree, module, module.packaged, 0)
}

fn spec_of(tree: &Tree, module: Module, ties: Ties, version: u32) -> Result<Spec> {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Ok(Spec {
        module: ties.name.into(),
        versions: own(ties.versions),
        exports: match ties.exports {
            Some(list) => module::read_list(&tree.at(list), version)?,
            None => Vec::new(),
        },
        imports: module::read_list(&tree.at(module.imports), version)?,
        imports_list: module.imports.into(),
        depends: own(ties.depends),
        forbidden: own(ties.forbidden),
        alloc: module.alloc,
    })
}
