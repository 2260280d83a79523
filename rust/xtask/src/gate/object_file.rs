//! Gates on the object file: its type, its relocations and its symbols.

use std::collections::{BTreeMap, BTreeSet};

use object::elf;
use object::read::{Object, ObjectSection, ObjectSymbol, RelocationFlags, SectionFlags};
use object::{Architecture, ObjectKind};

use super::Spec;
use crate::Result;

/// Relocations that FreeBSD's amd64 loader applies and our compilers may emit.
const RELOCATIONS: [u32; 4] = [
    elf::R_X86_64_64,
    elf::R_X86_64_PC32,
    elf::R_X86_64_PLT32,
    elf::R_X86_64_32S,
];

/// Bounds of linker sets, which the kernel's linker fills in itself.
pub(crate) const SET_BOUNDS: [&str; 2] = ["__start_set_", "__stop_set_"];

/// Everything wrong with the file's type, relocations and symbols.
///
/// # Errors
/// The bytes are no object file at all.
pub fn check(bytes: &[u8], spec: &Spec) -> Result<Vec<String>> {
    let file = object::File::parse(bytes).map_err(|e| format!("not an object file: {e}"))?;
    if file.architecture() != Architecture::X86_64 || file.kind() != ObjectKind::Relocatable {
        return Ok(vec![format!(
            "type: {:?} for {:?}, not a relocatable x86-64 file",
            file.kind(),
            file.architecture()
        )]);
    }
    let mut faults = relocations(&file);
    faults.extend(symbols(&file, spec));
    Ok(faults)
}

/// Whether the kernel's loader loads a section.
pub(super) fn loaded<'a>(section: &impl ObjectSection<'a>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(elf::SHF_ALLOC) != 0)
}

fn relocations(file: &object::File<'_>) -> Vec<String> {
    let mut found: BTreeMap<(u32, String), usize> = BTreeMap::new();
    for section in file.sections().filter(loaded) {
        for (_, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else {
                continue;
            };
            if !RELOCATIONS.contains(&r_type) {
                let name = section.name().unwrap_or("?").to_owned();
                *found.entry((r_type, name)).or_default() += 1;
            }
        }
    }
    found
        .into_iter()
        .map(|((kind, section), count)| {
            let name = relocation_name(kind);
            format!(
                "relocation: {count} of type {name} in {section}, which the kernel does not apply"
            )
        })
        .collect()
}

fn relocation_name(kind: u32) -> String {
    match kind {
        elf::R_X86_64_GOTPCREL => "R_X86_64_GOTPCREL".into(),
        elf::R_X86_64_GOTPCRELX => "R_X86_64_GOTPCRELX".into(),
        elf::R_X86_64_REX_GOTPCRELX => "R_X86_64_REX_GOTPCRELX".into(),
        elf::R_X86_64_32 => "R_X86_64_32".into(),
        other => other.to_string(),
    }
}

fn symbols(file: &object::File<'_>, spec: &Spec) -> Vec<String> {
    let mut undefined = BTreeSet::new();
    let mut global = BTreeSet::new();
    let mut heap = BTreeSet::new();
    for symbol in file.symbols() {
        let Ok(name) = symbol.name() else { continue };
        if name.is_empty() {
            continue;
        }
        if symbol.is_undefined() {
            undefined.insert(name);
        } else if symbol.is_global() {
            global.insert(name);
        }
        if !spec.alloc && of_alloc(name) {
            heap.insert(name);
        }
    }
    let listed = |list: &[String], name: &str| list.iter().any(|l| l == name);
    let mut faults = Vec::new();
    for name in undefined {
        let bound = SET_BOUNDS.iter().any(|prefix| name.starts_with(prefix));
        if !bound && !listed(&spec.imports, name) {
            faults.push(format!(
                "import: {name} is undefined and not in {}",
                spec.imports_list
            ));
        }
    }
    for name in &global {
        if !listed(&spec.exports, name) {
            faults.push(format!("export: {name} is global and should not be"));
        }
    }
    for name in &spec.exports {
        if !global.contains(name.as_str()) {
            faults.push(format!(
                "export: {name} should be global and is not defined"
            ));
        }
    }
    for name in heap {
        faults.push(format!("alloc: {name} comes from the alloc crate"));
    }
    faults
}

/// Whether a mangled name (v0) is of crate `alloc` or of the allocator's own entries.
fn of_alloc(name: &str) -> bool {
    let entry = [
        "__rust_alloc",
        "__rust_realloc",
        "__rust_dealloc",
        "__rg_",
        "__rdl_",
    ];
    name.contains("_5alloc") || entry.iter().any(|e| name.contains(e))
}
