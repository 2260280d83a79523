//! Reading ET_REL files. Every offset from the file is checked: a test may feed it anything.

/// A section header.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) type_: u32,
    pub(super) flags: u64,
    pub(super) offset: usize,
    pub(super) size: usize,
    pub(super) link: usize,
    pub(super) info: usize,
    pub(super) align: usize,
}

/// A symbol.
#[derive(Clone, Debug)]
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) bind: u8,
    pub(super) type_: u8,
    pub(super) shndx: u16,
    pub(super) value: usize,
    pub(super) size: usize,
}

/// A relocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rela {
    pub(super) offset: usize,
    pub(super) sym: usize,
    pub(super) type_: u32,
    pub(super) addend: i64,
}

pub(super) const SHT_PROGBITS: u32 = 1;
pub(super) const SHT_SYMTAB: u32 = 2;
pub(super) const SHT_RELA: u32 = 4;
pub(super) const SHT_NOBITS: u32 = 8;
pub(super) const SHT_REL: u32 = 9;
pub(super) const SHT_INIT_ARRAY: u32 = 14;
pub(super) const SHT_X86_64_UNWIND: u32 = 0x7000_0001;
pub(super) const SHF_WRITE: u64 = 1;
pub(super) const SHF_ALLOC: u64 = 2;
pub(super) const SHF_EXECINSTR: u64 = 4;
pub(super) const SHN_UNDEF: u16 = 0;
pub(super) const SHN_ABS: u16 = 0xfff1;
pub(super) const SHN_COMMON: u16 = 0xfff2;
pub(super) const STB_LOCAL: u8 = 0;
pub(super) const STB_WEAK: u8 = 2;

/// A parsed file.
pub(super) struct Elf<'a> {
    data: &'a [u8],
    pub(super) sections: Vec<Section>,
}

fn num<const N: usize>(d: &[u8], at: usize) -> Result<u64, String> {
    let b = at
        .checked_add(N)
        .and_then(|e| d.get(at..e))
        .ok_or("truncated file")?;
    let mut w = [0; 8];
    w[..N].copy_from_slice(b);
    Ok(u64::from_le_bytes(w))
}

fn text(d: &[u8], at: usize) -> Result<String, String> {
    let rest = d.get(at..).ok_or("string outside its table")?;
    let end = rest
        .iter()
        .position(|&b| b == 0)
        .ok_or("unterminated string")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

impl<'a> Elf<'a> {
    /// Checks the header and reads the section headers.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, String> {
        if data.get(..4) != Some(b"\x7fELF") {
            return Err("not an ELF file".into());
        }
        let class = num::<1>(data, 4)?;
        let kind = num::<2>(data, 16)?;
        let machine = num::<2>(data, 18)?;
        if class != 2 || machine != 62 {
            return Err("not for amd64".into());
        }
        if kind != 1 {
            return Err(format!("ELF type {kind}, not a relocatable object"));
        }
        let shoff = num::<8>(data, 40)? as usize;
        let shentsize = num::<2>(data, 58)? as usize;
        let shnum = num::<2>(data, 60)? as usize;
        let shstrndx = num::<2>(data, 62)? as usize;
        if shentsize != 64 {
            return Err("odd section header size".into());
        }
        let at = |i: usize| {
            shoff
                .checked_add(i * 64)
                .ok_or("section headers out of range")
        };
        let mut sections = Vec::with_capacity(shnum);
        let mut names = Vec::with_capacity(shnum);
        for i in 0..shnum {
            let h = at(i)?;
            names.push(num::<4>(data, h)? as usize);
            let s = Section {
                name: String::new(),
                type_: num::<4>(data, h + 4)? as u32,
                flags: num::<8>(data, h + 8)?,
                offset: num::<8>(data, h + 24)? as usize,
                size: num::<8>(data, h + 32)? as usize,
                link: num::<4>(data, h + 40)? as usize,
                info: num::<4>(data, h + 44)? as usize,
                align: (num::<8>(data, h + 48)? as usize).max(1),
            };
            if !s.align.is_power_of_two() || s.align > 4096 {
                return Err(format!("section {i} wants alignment {}", s.align));
            }
            sections.push(s);
        }
        let mut elf = Elf { data, sections };
        let strtab = elf.bytes(shstrndx)?.to_vec();
        for (s, n) in elf.sections.iter_mut().zip(names) {
            s.name = text(&strtab, n)?;
        }
        Ok(elf)
    }

    /// The bytes of a section in the file; none for SHT_NOBITS.
    pub(super) fn bytes(&self, i: usize) -> Result<&'a [u8], String> {
        let s = self.sections.get(i).ok_or("no such section")?;
        if s.type_ == SHT_NOBITS {
            return Ok(&[]);
        }
        let end = s.offset.checked_add(s.size).ok_or("section out of range")?;
        self.data
            .get(s.offset..end)
            .ok_or_else(|| format!("section {} is outside the file", s.name))
    }

    /// The symbols of the one symbol table.
    pub(super) fn symbols(&self) -> Result<Vec<Symbol>, String> {
        let i = self
            .sections
            .iter()
            .position(|s| s.type_ == SHT_SYMTAB)
            .ok_or("no symbol table")?;
        let tab = self.bytes(i)?;
        let strings = self.bytes(self.sections[i].link)?;
        (0..tab.len() / 24)
            .map(|i| {
                let at = i * 24;
                let info = num::<1>(tab, at + 4)? as u8;
                Ok(Symbol {
                    name: text(strings, num::<4>(tab, at)? as usize)?,
                    bind: info >> 4,
                    type_: info & 15,
                    shndx: num::<2>(tab, at + 6)? as u16,
                    value: num::<8>(tab, at + 8)? as usize,
                    size: num::<8>(tab, at + 16)? as usize,
                })
            })
            .collect()
    }

    /// The relocations of section `i` (a SHT_RELA section).
    pub(super) fn relas(&self, i: usize) -> Result<Vec<Rela>, String> {
        let d = self.bytes(i)?;
        (0..d.len() / 24)
            .map(|i| {
                let info = num::<8>(d, i * 24 + 8)?;
                Ok(Rela {
                    offset: num::<8>(d, i * 24)? as usize,
                    sym: (info >> 32) as usize,
                    type_: info as u32,
                    addend: num::<8>(d, i * 24 + 16)? as i64,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Elf, SHT_RELA};
    use crate::rng::Rng;

    /// The least file that parses: a header, a null section, a string table, a symbol table.
    fn least() -> Vec<u8> {
        let mut d = vec![0; 64 + 4 * 64 + 64];
        let put = |d: &mut Vec<u8>, at: usize, v: &[u8]| d[at..at + v.len()].copy_from_slice(v);
        put(&mut d, 0, b"\x7fELF\x02\x01\x01");
        put(&mut d, 16, &[1, 0, 62, 0]);
        put(&mut d, 40, &64_u64.to_le_bytes());
        put(&mut d, 58, &[64, 0, 4, 0, 1, 0]);
        let sec = |i: usize| 64 + i * 64;
        let text = 64 + 4 * 64;
        put(&mut d, text, b"\0.x\0f\0");
        for (i, type_, off, size) in [
            (1, 3_u32, text, 8_u64),
            (2, 2, text + 8, 48),
            (3, 4, text + 8, 24),
        ] {
            put(&mut d, sec(i), &1_u32.to_le_bytes());
            put(&mut d, sec(i) + 4, &type_.to_le_bytes());
            put(&mut d, sec(i) + 24, &(off as u64).to_le_bytes());
            put(&mut d, sec(i) + 32, &size.to_le_bytes());
            put(&mut d, sec(i) + 40, &1_u32.to_le_bytes());
        }
        d
    }

    fn everything(d: &[u8]) -> Result<usize, String> {
        let e = Elf::parse(d)?;
        let mut n = e.symbols()?.len();
        for i in 0..e.sections.len() {
            n += e.bytes(i)?.len();
            if e.sections[i].type_ == SHT_RELA {
                n += e.relas(i)?.len();
            }
        }
        Ok(n)
    }

    #[test]
    fn the_least_file_parses() {
        assert_eq!(everything(&least()), Ok(2 + 8 + 48 + 24 + 1));
    }

    #[test]
    fn no_damage_gets_past_the_checks_or_panics() {
        let good = least();
        let mut rng = Rng::new(3);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut d = good.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(d.len());
                d[at] = rng.next_u64() as u8;
            }
            d.truncate(if rng.one_in(4) {
                rng.below(d.len())
            } else {
                d.len()
            });
            refused += usize::from(everything(&d).is_err());
        }
        assert!(refused > 5000, "{refused}");
    }
}
