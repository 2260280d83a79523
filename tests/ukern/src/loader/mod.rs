//! kld(4): loading and unloading modules, their dependencies, SYSINITs and module events.

mod elf;
mod image;

use std::ffi::c_void;
use std::path::Path;

use crate::global::Global;
use crate::kp::{Kp, cstr};
use crate::{callout, console, epoch, kpanic, ksym, locks, sched, sys, sysctl, taskqueue, vnet};
use image::{Image, Refused};

struct Module {
    name: String,
    handler: sys::modeventhand_t,
    priv_: *mut c_void,
    handle: usize,
}

struct File {
    name: String,
    image: Image,
    modules: Vec<Module>,
    /// Names and versions it provides.
    versions: Vec<(String, i32)>,
    /// Files it depends on, by name.
    deps: Vec<String>,
    /// Its SYSINITs ran.
    linked: bool,
    sysinits: usize,
    busy: bool,
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    next_handle: usize,
    /// Base and length of files unloaded in this boot, for reports.
    gone: Vec<(usize, usize, String)>,
}

static STATE: Global<State> = Global::new("kld");

/// Modules that are part of the kernel, with their versions.
const BUILTIN: &[(&str, i32)] = &[
    ("kernel", VERSION),
    ("toecore", 1),
    ("netlink", 1),
    ("ether", 1),
    ("pci", 1),
];
const VERSION: i32 = 1_500_068;

pub(crate) fn boot() {
    STATE.init(State {
        next_handle: 0x0d0d_0000,
        ..State::default()
    });
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn errno(e: u32) -> i32 {
    e as i32
}

fn with_file<R>(name: &str, f: impl FnOnce(&mut File) -> R) -> Option<R> {
    STATE.with(|s| s.files.iter_mut().find(|x| x.name == name).map(f))
}

/// The file that provides a module of this name within the version bounds.
fn provider(name: &str, min: i32, max: i32) -> Option<Option<String>> {
    let fits = |v: i32| min <= v && v <= max;
    if BUILTIN.iter().any(|&(n, v)| n == name && fits(v)) {
        return Some(None);
    }
    STATE.with(|s| {
        s.files
            .iter()
            .find(|f| f.versions.iter().any(|(n, v)| n == name && fits(*v)))
            .map(|f| Some(f.name.clone()))
    })
}

/// The MODULE_DEPENDs of an image: files it depends on, or ENOENT.
fn dependencies(image: &Image, file: &str) -> Result<Vec<String>, Refused> {
    let mut deps = Vec::new();
    for m in metadata(image, sys::MDT_DEPEND) {
        let name = cstr(m.md_cval);
        let own = metadata(image, sys::MDT_VERSION)
            .iter()
            .any(|v| cstr(v.md_cval) == name);
        if own {
            continue;
        }
        let d: Kp<sys::mod_depend> = Kp::new(m.md_data.cast_mut().cast());
        match provider(&name, d.md_ver_minimum, d.md_ver_maximum) {
            Some(Some(f)) => deps.push(f),
            Some(None) => {}
            None => {
                return Err(Refused {
                    errno: errno(sys::ENOENT),
                    lines: vec![format!(
                        "KLD {file}: depends on {name} - not available or version mismatch"
                    )],
                });
            }
        }
    }
    deps.sort();
    deps.dedup();
    Ok(deps)
}

fn metadata(image: &Image, kind: u32) -> Vec<Kp<sys::mod_metadata>> {
    image
        .set("modmetadata_set")
        .into_iter()
        .map(|a| Kp::new(a as *mut sys::mod_metadata))
        .filter(|m: &Kp<sys::mod_metadata>| m.md_type as u32 == kind)
        .collect()
}

/// `kldload(2)` with the file's bytes. On a kernel thread. Errors are FreeBSD's: ENOENT for a missing
/// dependency, EEXIST, ENOEXEC for everything the file itself is to blame for.
pub(crate) fn load(file: &str, data: &[u8]) -> Result<(), i32> {
    if with_file(file, |_| ()).is_some() {
        return Err(errno(sys::EEXIST));
    }
    let mut deps = Vec::new();
    let loaded = image::load(data, file, |image| {
        deps = dependencies(image, file)?;
        let from: Vec<String> = deps.clone();
        Ok(Box::new(move |sym: &str| {
            ksym::lookup(sym).or_else(|| {
                from.iter()
                    .find_map(|f| with_file(f, |f| f.image.globals.get(sym).copied()).flatten())
            })
        }))
    });
    let image = match loaded {
        Ok(i) => i,
        Err(r) => {
            for l in r.lines {
                console::write(&format!("{l}\n"));
            }
            return Err(r.errno);
        }
    };
    let versions: Vec<(String, i32)> = metadata(&image, sys::MDT_VERSION)
        .iter()
        .map(|m| {
            (
                cstr(m.md_cval),
                Kp::new(m.md_data.cast_mut().cast::<sys::mod_version>()).mv_version,
            )
        })
        .collect();
    if let Some((n, _)) = versions
        .iter()
        .find(|(n, _)| provider(n, i32::MIN, i32::MAX).is_some())
    {
        console::write(&format!("module {n} already present!\n"));
        let mut image = image;
        image.unload();
        return Err(errno(sys::EEXIST));
    }
    let mut modules = Vec::new();
    for m in metadata(&image, sys::MDT_MODULE) {
        let d: Kp<sys::moduledata> = Kp::new(m.md_data.cast_mut().cast());
        let handle = STATE.with(|s| {
            s.next_handle += 16;
            s.next_handle
        });
        modules.push(Module {
            name: cstr(d.name),
            handler: d.evhand,
            priv_: d.priv_,
            handle,
        });
    }
    let expected = modules.len();
    let sysctls = image.set("sysctl_set");
    let inits = ordered(&image, "sysinit_set", false);
    STATE.with(|s| {
        s.files.push(File {
            name: file.to_string(),
            image,
            modules,
            versions,
            deps,
            linked: true,
            sysinits: inits.len(),
            busy: true,
        });
    });
    for o in sysctls {
        sysctl::register(Kp::new(o as *mut sys::sysctl_oid));
    }
    run_inits(&inits, "SYSINIT");
    let left = with_file(file, |f| {
        f.busy = false;
        f.modules.len()
    });
    if expected > 0 && left == Some(0) {
        finish_unload(file);
        return Err(errno(sys::ENOEXEC));
    }
    Ok(())
}

/// The entries of a SYSINIT set in running order.
fn ordered(image: &Image, set: &str, reverse: bool) -> Vec<usize> {
    let mut v = image.set(set);
    let key = |a: &usize| {
        let s: Kp<sys::sysinit> = Kp::new(*a as *mut _);
        (s.subsystem, s.order)
    };
    v.sort_by_key(key);
    if reverse {
        v.reverse();
    }
    v
}

fn run_inits(list: &[usize], what: &str) {
    for &a in list {
        let s: Kp<sys::sysinit> = Kp::new(a as *mut _);
        if s.subsystem == sys::SI_SUB_DUMMY {
            continue;
        }
        if let Some(f) = s.func {
            let udata = s.udata;
            vnet::with_vnet(vnet::vnet0(), || {
                // SAFETY: the function of the SYSINIT, with its own argument.
                unsafe { f(udata) }
            });
        }
        locks::check_none_held(what);
        epoch::check_none(what);
    }
}

fn event(m: (sys::modeventhand_t, *mut c_void, usize), what: sys::modeventtype) -> i32 {
    let Some(h) = m.0 else {
        return errno(sys::EOPNOTSUPP);
    };
    // The real kernel holds Giant here; what matters is that the handler may sleep.
    let e = vnet::with_vnet(vnet::vnet0(), || {
        // SAFETY: the module's own event handler, with its handle and private pointer.
        unsafe { h(m.2 as *mut sys::module, what as i32, m.1) }
    });
    locks::check_none_held("module event handler returned");
    epoch::check_none("module event handler returned");
    e
}

/// `module_register_init`: MOD_LOAD of the module whose data this is.
extern "C" fn module_register_init(data: Kp<sys::moduledata>) {
    let name = cstr(data.name);
    let m = STATE.with(|s| {
        s.files
            .iter()
            .flat_map(|f| &f.modules)
            .find(|m| m.name == name)
            .map(|m| (m.handler, m.priv_, m.handle))
    });
    let Some(m) = m else {
        kpanic!("module_register_init: module {name} not found")
    };
    let e = event(m, sys::MOD_LOAD);
    if e != 0 {
        event(m, sys::MOD_UNLOAD);
        STATE.with(|s| {
            for f in &mut s.files {
                f.modules.retain(|x| x.handle != m.2);
            }
        });
        console::write(&format!(
            "module_register_init: MOD_LOAD ({name}, {:p}, {:p}) error {e}\n",
            data.ptr(),
            m.1
        ));
    }
}

/// `kldunload(2)` by file or module name. On a kernel thread.
pub(crate) fn unload(name: &str) -> Result<(), i32> {
    let Some(file) = file_of(name) else {
        return Err(errno(sys::ENOENT));
    };
    let used = STATE.with(|s| s.files.iter().any(|f| f.deps.contains(&file)));
    let busy = with_file(&file, |f| std::mem::replace(&mut f.busy, true)).unwrap_or(true);
    if busy {
        return Err(errno(sys::EBUSY));
    }
    let done = |e: i32| {
        with_file(&file, |f| f.busy = false);
        Err(e)
    };
    if used {
        return done(errno(sys::EBUSY));
    }
    let modules: Vec<_> = with_file(&file, |f| {
        f.modules
            .iter()
            .map(|m| (m.handler, m.priv_, m.handle))
            .collect()
    })
    .unwrap_or_default();
    for &m in &modules {
        let e = event(m, sys::MOD_QUIESCE);
        if e != 0 && e != errno(sys::EOPNOTSUPP) && e != errno(sys::EINVAL) {
            return done(e);
        }
    }
    for &m in &modules {
        let e = event(m, sys::MOD_UNLOAD);
        if e != 0 {
            return done(e);
        }
        with_file(&file, |f| f.modules.retain(|x| x.handle != m.2));
    }
    finish_unload(&file);
    Ok(())
}

/// Sysctls, SYSUNINITs, checks, unmapping.
fn finish_unload(file: &str) {
    let (oids, uninits, linked) = with_file(file, |f| {
        (
            f.image.set("sysctl_set"),
            ordered(&f.image, "sysuninit_set", true),
            f.linked,
        )
    })
    .unwrap_or_default();
    for &o in oids.iter().rev() {
        sysctl::unregister(Kp::new(o as *mut sys::sysctl_oid));
    }
    if linked {
        run_inits(&uninits, "SYSUNINIT");
    }
    let (base, len) = with_file(file, |f| (f.image.base, f.image.len)).unwrap_or_default();
    let what = format!("{file} unloaded");
    sysctl::check_gone(base, len, &what);
    callout::check_code_gone(base, len, &what);
    taskqueue::check_code_gone(base, len, &what);
    epoch::check_code_gone(base, len, &what);
    crate::eventhandler::check_code_gone(base, len, &what);
    sched::check_code_gone(base, len, &what);
    locks::check_freed(base, len, &|| format!("memory of {what}"));
    STATE.with(|s| {
        if let Some(i) = s.files.iter().position(|f| f.name == file) {
            let mut f = s.files.remove(i);
            f.image.unload();
            s.gone.push((base, len, f.name));
        }
    });
}

fn file_of(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".ko").unwrap_or(name);
    STATE.with(|s| {
        s.files
            .iter()
            .find(|f| {
                f.name == name
                    || f.name == format!("{stem}.ko")
                    || f.versions.iter().any(|v| v.0 == stem)
            })
            .map(|f| f.name.clone())
    })
}

/// `kldstat(8)`: names of loaded files in order.
#[must_use]
pub fn loaded() -> Vec<String> {
    STATE.with(|s| s.files.iter().map(|f| f.name.clone()).collect())
}

/// SYSINITs a loaded file ran, for tests of the loader.
#[must_use]
pub fn sysinit_count(file: &str) -> usize {
    with_file(file, |f| f.sysinits).unwrap_or(0)
}

/// Address of a global symbol of a loaded module.
#[must_use]
pub fn symbol(file: &str, name: &str) -> Option<usize> {
    with_file(&file_of(file)?, |f| f.image.globals.get(name).copied())?
}

/// Address and size of the sections of this name in a loaded file.
pub(crate) fn sections(file: &str, name: &str) -> Vec<(usize, usize)> {
    let Some(file) = file_of(file) else {
        return Vec::new();
    };
    with_file(&file, |f| {
        f.image
            .sections
            .iter()
            .filter(|s| s.name == name)
            .map(|s| (s.addr, s.size))
            .collect()
    })
    .unwrap_or_default()
}

/// "toehold.ko: function+0x10" for an address in a module, loaded or gone.
#[must_use]
pub fn describe(addr: usize) -> Option<String> {
    if !STATE.is_set() {
        return None;
    }
    STATE.with(|s| {
        s.files
            .iter()
            .find_map(|f| f.image.describe(addr).map(|d| format!("{}: {d}", f.name)))
            .or_else(|| {
                s.gone
                    .iter()
                    .find(|g| (g.0..g.0 + g.1).contains(&addr))
                    .map(|g| format!("{} (unloaded): +{:#x}", g.2, addr - g.0))
            })
    })
}

/// Is the address in the text of a loaded module?
#[must_use]
pub fn in_text(addr: usize) -> bool {
    STATE.is_set()
        && STATE.with(|s| {
            s.files
                .iter()
                .any(|f| (f.image.text.0..f.image.text.0 + f.image.text.1).contains(&addr))
        })
}

/// Name and bytes of a file on the host.
pub(crate) fn read(path: &Path) -> Result<(String, Vec<u8>), i32> {
    let name = path
        .file_name()
        .ok_or(errno(sys::ENOENT))?
        .to_string_lossy()
        .into_owned();
    let data = std::fs::read(path).map_err(|_| errno(sys::ENOENT))?;
    Ok((name, data))
}

/// Modules still loaded at shutdown.
#[must_use]
pub fn leaks() -> Vec<String> {
    loaded()
        .into_iter()
        .map(|f| format!("{f} is still loaded"))
        .collect()
}

crate::exports! {
    "module_register_init" => module_register_init,
}
