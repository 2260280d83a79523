//! Gate on the module's metadata (`struct mod_metadata` in `set_modmetadata_set`): what it
//! calls itself and which modules the kernel loads before it.

use std::collections::BTreeSet;

use object::read::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolSection};
use object::{SectionIndex, SymbolIndex};

use super::Spec;
use crate::Result;

const MDT_DEPEND: i32 = 1;
const MDT_MODULE: i32 = 2;
const MDT_VERSION: i32 = 3;

/// A place in the file: a section and an offset in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    section: SectionIndex,
    offset: u64,
}

struct Image<'a> {
    file: object::File<'a>,
}

impl<'a> Image<'a> {
    /// Where the pointer stored at `place` points once relocated.
    fn pointer(&self, place: Place) -> Option<Place> {
        let section = self.file.section_by_index(place.section).ok()?;
        let (_, relocation) = section.relocations().find(|(at, _)| *at == place.offset)?;
        let RelocationTarget::Symbol(SymbolIndex(index)) = relocation.target() else {
            return None;
        };
        let symbol = self.file.symbol_by_index(SymbolIndex(index)).ok()?;
        let SymbolSection::Section(to) = symbol.section() else {
            return None;
        };
        let offset = symbol.address().checked_add_signed(relocation.addend())?;
        Some(Place {
            section: to,
            offset,
        })
    }

    fn bytes(&self, place: Place) -> Option<&'a [u8]> {
        let section = self.file.section_by_index(place.section).ok()?;
        section
            .data()
            .ok()?
            .get(usize::try_from(place.offset).ok()?..)
    }

    fn int(&self, place: Place) -> Option<i32> {
        let bytes = self.bytes(place)?.first_chunk::<4>()?;
        Some(i32::from_le_bytes(*bytes))
    }

    fn string(&self, place: Place) -> Option<String> {
        let bytes = self.bytes(place)?;
        let end = bytes.iter().position(|b| *b == 0)?;
        Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
    }
}

/// The names in a module's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `MODULE_DEPEND`.
    pub depends: BTreeSet<String>,
    /// `DECLARE_MODULE`.
    pub modules: BTreeSet<String>,
    /// `MODULE_VERSION`.
    pub versions: BTreeSet<String>,
}

/// Reads a module's metadata.
///
/// # Errors
/// The bytes are no object file, or an entry of the set does not lead to a name.
pub fn read(bytes: &[u8]) -> Result<Names> {
    let file = object::File::parse(bytes).map_err(|e| format!("not an object file: {e}"))?;
    let image = Image { file };
    let mut names = Names::default();
    for section in image.file.sections() {
        if section.name() != Ok("set_modmetadata_set") {
            continue;
        }
        for offset in (0..section.size()).step_by(8) {
            let (kind, name) = entry(
                &image,
                Place {
                    section: section.index(),
                    offset,
                },
            )
            .ok_or_else(|| format!("metadata: entry at {offset} leads nowhere"))?;
            match kind {
                MDT_DEPEND => names.depends.insert(name),
                MDT_MODULE => names.modules.insert(name),
                MDT_VERSION => names.versions.insert(name),
                _ => false,
            };
        }
    }
    Ok(names)
}

/// Kind and name of the `struct mod_metadata` that the set's slot at `slot` points to:
/// int version, int kind, pointer to data, pointer to the name.
fn entry(image: &Image<'_>, slot: Place) -> Option<(i32, String)> {
    let at = image.pointer(slot)?;
    let field = |by: u64| {
        Some(Place {
            section: at.section,
            offset: at.offset.checked_add(by)?,
        })
    };
    let kind = image.int(field(4)?)?;
    let name = image.string(image.pointer(field(16)?)?)?;
    Some((kind, name))
}

/// Everything wrong with the module's metadata.
///
/// # Errors
/// As [`read`].
pub fn check(bytes: &[u8], spec: &Spec) -> Result<Vec<String>> {
    let names = read(bytes)?;
    let mut faults = Vec::new();
    if !names.modules.contains(&spec.module) {
        faults.push(format!("metadata: no module {} is declared", spec.module));
    }
    for wanted in &spec.versions {
        if !names.versions.contains(wanted) {
            faults.push(format!("metadata: no version of {wanted} is declared"));
        }
    }
    for wanted in &spec.depends {
        if !names.depends.contains(wanted) {
            faults.push(format!("metadata: it does not depend on {wanted}"));
        }
    }
    for name in &spec.forbidden {
        let all = [&names.depends, &names.modules, &names.versions];
        if all.iter().any(|set| set.contains(name)) {
            faults.push(format!(
                "metadata: it names module {name}, which it must not"
            ));
        }
    }
    Ok(faults)
}
