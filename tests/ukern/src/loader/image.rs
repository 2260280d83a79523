//! Laying a module out in low memory and relocating it.

use std::collections::HashMap;

use super::elf::{self, Elf, Section, Symbol};
use crate::kp::{bytes_mut, poke};
use crate::lowmem::{self, PAGE, Perm};
use crate::vnet;

/// Where a section lies.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) addr: usize,
    pub(super) size: usize,
}

/// A module in memory.
pub(super) struct Image {
    pub(super) base: usize,
    pub(super) len: usize,
    pub(super) text: (usize, usize),
    pub(super) sections: Vec<Placed>,
    /// Global symbols other modules may use.
    pub(super) globals: HashMap<String, usize>,
    /// Functions and objects, sorted, for reports.
    pub(super) names: Vec<(usize, String)>,
    vnet: Option<(usize, usize)>,
}

const R_64: u32 = 1;
const R_PC32: u32 = 2;
const R_PLT32: u32 = 4;
const R_32S: u32 = 11;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Text,
    Ro,
    Rw,
    Vnet,
}

fn group(s: &Section) -> Group {
    if s.name == "set_vnet" {
        Group::Vnet
    } else if s.flags & elf::SHF_EXECINSTR != 0 {
        Group::Text
    } else if s.flags & elf::SHF_WRITE != 0 {
        Group::Rw
    } else {
        Group::Ro
    }
}

fn loaded(s: &Section) -> bool {
    s.flags & elf::SHF_ALLOC != 0
        && matches!(
            s.type_,
            elf::SHT_PROGBITS | elf::SHT_NOBITS | elf::SHT_INIT_ARRAY | elf::SHT_X86_64_UNWIND
        )
}

/// Why a file is refused: FreeBSD's errno and words for the console.
pub(super) struct Refused {
    pub(super) errno: i32,
    pub(super) lines: Vec<String>,
}

fn bad(msg: impl Into<String>) -> Refused {
    Refused {
        errno: crate::sys::ENOEXEC as i32,
        lines: vec![msg.into()],
    }
}

struct Layout {
    /// Address of each section, 0 when not loaded.
    addr: Vec<usize>,
    base: usize,
    len: usize,
    bounds: [(usize, usize); 3],
    common: HashMap<usize, usize>,
    vnet: Option<(usize, usize)>,
}

fn layout(e: &Elf<'_>, syms: &[Symbol]) -> Result<Layout, Refused> {
    let mut offs = vec![None; e.sections.len()];
    let mut at = 0;
    let mut bounds = [(0, 0); 3];
    let mut common_offs = HashMap::new();
    for (gi, g) in [Group::Text, Group::Ro, Group::Rw].into_iter().enumerate() {
        at = lowmem::page_up(at);
        let begin = at;
        for (i, s) in e
            .sections
            .iter()
            .enumerate()
            .filter(|(_, s)| loaded(s) && group(s) == g)
        {
            at = at.next_multiple_of(s.align);
            offs[i] = Some(at);
            at += s.size;
        }
        if g == Group::Rw {
            for (i, s) in syms
                .iter()
                .enumerate()
                .filter(|(_, s)| s.shndx == elf::SHN_COMMON)
            {
                at = at.next_multiple_of(s.value.clamp(1, PAGE));
                common_offs.insert(i, at);
                at += s.size;
            }
        }
        bounds[gi] = (begin, at - begin);
    }
    let len = lowmem::page_up(at.max(1));
    let vnet_len: usize = e
        .sections
        .iter()
        .filter(|s| loaded(s) && group(s) == Group::Vnet)
        .map(|s| s.size)
        .sum();
    let vnet = if vnet_len > 0 {
        let v =
            vnet::module_alloc(vnet_len).ok_or_else(|| bad("no room for its vnet variables"))?;
        Some((v, vnet_len))
    } else {
        None
    };
    let Some(base) = lowmem::alloc(len) else {
        return Err(bad("no room in low memory"));
    };
    let addr = e
        .sections
        .iter()
        .enumerate()
        .map(|(i, s)| match (offs[i], vnet) {
            (Some(o), _) => base + o,
            (None, Some((v, _))) if loaded(s) && group(s) == Group::Vnet => v,
            _ => 0,
        })
        .collect();
    let common = common_offs
        .into_iter()
        .map(|(i, o)| (i, base + o))
        .collect();
    Ok(Layout {
        addr,
        base,
        len,
        bounds: bounds.map(|(b, l)| (base + b, l)),
        common,
        vnet,
    })
}

/// `__start_set_x` and `__stop_set_x`: bounds of the section named behind the prefix.
fn set_symbol(e: &Elf<'_>, l: &Layout, name: &str) -> Option<usize> {
    let (set, stop) = match (name.strip_prefix("__start_"), name.strip_prefix("__stop_")) {
        (Some(s), _) => (s, false),
        (_, Some(s)) => (s, true),
        _ => return None,
    };
    let i = e.sections.iter().position(|s| s.name == set && loaded(s))?;
    Some(l.addr[i] + if stop { e.sections[i].size } else { 0 })
}

fn resolve_all(
    e: &Elf<'_>,
    l: &Layout,
    syms: &[Symbol],
    lookup: &dyn Fn(&str) -> Option<usize>,
    file: &str,
) -> Result<Vec<Option<usize>>, Refused> {
    let mut missing = Vec::new();
    let values = syms
        .iter()
        .enumerate()
        .map(|(i, s)| match s.shndx {
            elf::SHN_UNDEF if i == 0 => Some(0),
            elf::SHN_UNDEF => {
                let v = set_symbol(e, l, &s.name).or_else(|| lookup(&s.name));
                if v.is_none() && s.bind != elf::STB_WEAK {
                    missing.push(s.name.clone());
                }
                Some(v.unwrap_or(0))
            }
            elf::SHN_ABS => Some(s.value),
            elf::SHN_COMMON => l.common.get(&i).copied(),
            n => l
                .addr
                .get(usize::from(n))
                .filter(|&&a| a != 0)
                .map(|a| a + s.value),
        })
        .collect();
    if missing.is_empty() {
        return Ok(values);
    }
    missing.sort();
    missing.dedup();
    let mut lines: Vec<_> = missing
        .iter()
        .map(|m| format!("link_elf_obj: symbol {m} undefined"))
        .collect();
    lines.push(format!("linker_load_file: {file} - unsupported file type"));
    Err(Refused {
        errno: crate::sys::ENOEXEC as i32,
        lines,
    })
}

fn relocate(
    e: &Elf<'_>,
    l: &Layout,
    syms: &[Symbol],
    values: &[Option<usize>],
) -> Result<(), Refused> {
    for (i, s) in e.sections.iter().enumerate() {
        let target = s.info;
        let to = l.addr.get(target).copied().unwrap_or(0);
        if s.type_ == elf::SHT_REL && to != 0 {
            return Err(bad(format!("{}: REL relocations on amd64", s.name)));
        }
        if s.type_ != elf::SHT_RELA || to == 0 {
            continue;
        }
        let size = e.sections[target].size;
        for r in e.relas(i).map_err(bad)? {
            let name = || syms.get(r.sym).map_or_else(String::new, |s| s.name.clone());
            let width = if r.type_ == R_64 { 8 } else { 4 };
            if r.offset.checked_add(width).is_none_or(|end| end > size) {
                return Err(bad(format!("{}: relocation outside its section", s.name)));
            }
            let sym = values.get(r.sym).copied().flatten();
            let Some(sym) = sym else {
                return Err(bad(format!(
                    "{}: relocation against {}, which is not loaded",
                    s.name,
                    name()
                )));
            };
            let value = (sym as i64).wrapping_add(r.addend);
            let place = to + r.offset;
            match r.type_ {
                0 => {}
                R_64 => poke(place, value),
                R_PC32 | R_PLT32 => {
                    let d = value.wrapping_sub(place as i64);
                    let d = i32::try_from(d)
                        .map_err(|_| bad(format!("{}: {} is out of reach", s.name, name())))?;
                    poke(place, d);
                }
                R_32S => {
                    let v = i32::try_from(value).map_err(|_| {
                        bad(format!(
                            "{}: {} is not in the kernel's 2 GB",
                            s.name,
                            name()
                        ))
                    })?;
                    poke(place, v);
                }
                t => {
                    return Err(bad(format!(
                        "kldload: unexpected relocation type {t} in {}, symbol {}",
                        s.name,
                        name()
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Loads a file. `lookup` finds the symbols of the kernel and of the modules it depends on; it
/// is asked once the file's own sections lie in place.
pub(super) fn load(
    data: &[u8],
    file: &str,
    lookup: impl FnOnce(&Image) -> Result<Box<dyn Fn(&str) -> Option<usize>>, Refused>,
) -> Result<Image, Refused> {
    let e = Elf::parse(data).map_err(bad)?;
    let syms = e.symbols().map_err(bad)?;
    let l = layout(&e, &syms)?;
    let mut image = Image {
        base: l.base,
        len: l.len,
        text: l.bounds[0],
        sections: Vec::new(),
        globals: HashMap::new(),
        names: Vec::new(),
        vnet: l.vnet,
    };
    let result = fill(&e, &syms, &l, file, lookup, &mut image);
    if let Err(r) = result {
        image.unload();
        return Err(r);
    }
    if let Some((addr, len)) = l.vnet {
        vnet::module_copy(addr, len);
    }
    let [text, ro, _] = l.bounds;
    lowmem::protect(text.0, text.1, Perm::Rx);
    lowmem::protect(ro.0, ro.1, Perm::R);
    Ok(image)
}

fn fill(
    e: &Elf<'_>,
    syms: &[Symbol],
    l: &Layout,
    file: &str,
    lookup: impl FnOnce(&Image) -> Result<Box<dyn Fn(&str) -> Option<usize>>, Refused>,
    image: &mut Image,
) -> Result<(), Refused> {
    for (i, s) in e.sections.iter().enumerate() {
        let addr = l.addr[i];
        if addr == 0 {
            continue;
        }
        let from = e.bytes(i).map_err(bad)?;
        bytes_mut(addr as *mut u8, s.size).fill(0);
        bytes_mut(addr as *mut u8, from.len()).copy_from_slice(from);
        image.sections.push(Placed {
            name: s.name.clone(),
            addr,
            size: s.size,
        });
    }
    // References within the file first: the dependency records must be readable before the
    // symbols of other files can be looked up.
    let own: Vec<Option<usize>> = syms
        .iter()
        .enumerate()
        .map(|(i, s)| match s.shndx {
            elf::SHN_UNDEF => Some(0),
            elf::SHN_ABS => Some(s.value),
            elf::SHN_COMMON => l.common.get(&i).copied(),
            n => l
                .addr
                .get(usize::from(n))
                .filter(|&&a| a != 0)
                .map(|a| a + s.value),
        })
        .collect();
    relocate_own(e, l, syms, &own)?;
    let lookup = lookup(image)?;
    let values = resolve_all(e, l, syms, &lookup, file)?;
    relocate(e, l, syms, &values)?;
    for (s, v) in syms.iter().zip(&values) {
        let Some(v) = *v else { continue };
        if s.shndx == elf::SHN_UNDEF || s.name.is_empty() || s.type_ > 2 {
            continue;
        }
        image.names.push((v, s.name.clone()));
        if s.bind != elf::STB_LOCAL {
            image.globals.insert(s.name.clone(), v);
        }
    }
    image.names.sort();
    Ok(())
}

/// The R_X86_64_64 relocations against the file's own symbols, ahead of the rest.
fn relocate_own(
    e: &Elf<'_>,
    l: &Layout,
    syms: &[Symbol],
    own: &[Option<usize>],
) -> Result<(), Refused> {
    for (i, s) in e
        .sections
        .iter()
        .enumerate()
        .filter(|(_, s)| s.type_ == elf::SHT_RELA)
    {
        let to = l.addr.get(s.info).copied().unwrap_or(0);
        if to == 0 {
            continue;
        }
        let size = e.sections[s.info].size;
        for r in e.relas(i).map_err(bad)? {
            let local = syms.get(r.sym).is_some_and(|s| s.shndx != elf::SHN_UNDEF);
            if r.type_ == R_64
                && local
                && r.offset.checked_add(8).is_some_and(|end| end <= size)
                && let Some(v) = own.get(r.sym).copied().flatten()
            {
                poke(to + r.offset, (v as i64).wrapping_add(r.addend));
            }
        }
    }
    Ok(())
}

impl Image {
    /// The pointers of a linker set.
    pub(super) fn set(&self, name: &str) -> Vec<usize> {
        self.sections
            .iter()
            .filter(|s| s.name == format!("set_{name}"))
            .flat_map(|s| (0..s.size / 8).map(|i| crate::kp::peek(s.addr + 8 * i)))
            .collect()
    }

    /// "symbol+0x12" for an address inside.
    pub(super) fn describe(&self, addr: usize) -> Option<String> {
        if !(self.base..self.base + self.len).contains(&addr) {
            return None;
        }
        let i = self.names.partition_point(|n| n.0 <= addr);
        Some(match i.checked_sub(1).and_then(|i| self.names.get(i)) {
            Some((a, n)) => format!("{n}+{:#x}", addr - a),
            None => format!("+{:#x}", addr - self.base),
        })
    }

    /// Unmaps it; later calls into it fault.
    pub(super) fn unload(&mut self) {
        lowmem::free(self.base, self.len);
        if let Some((addr, len)) = self.vnet.take() {
            vnet::module_free(addr, len);
        }
    }
}
