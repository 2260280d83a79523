//! Memory of both hosts: physical pages, the address spaces of two processes, what is wired.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use toehold_core::errno::Errno;
use toehold_core::os::Pages;

use crate::rng::Rng;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bus address of the first page.
const BASE: u64 = 0x1_0000_0000;
/// What a page that was given back is filled with.
const POISON: u8 = 0xdb;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Free,
    User,
    Kernel,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    wired: u32,
    mapped: bool,
    /// Marked dirty since the program last wrote all of it.
    dirty: bool,
}

/// One process.
#[derive(Debug)]
struct Space {
    /// Page number to frame and writability.
    map: BTreeMap<u64, (u32, bool)>,
    generation: u32,
    next_va: u64,
    /// Pages wired for it, those of several sets counted several times (I6).
    wired: u32,
    /// Charged to the budget and not wired yet.
    charged: u32,
    budget: u32,
}

/// All memory.
#[derive(Debug)]
pub struct Mem {
    data: Vec<u8>,
    frames: Vec<Frame>,
    free: Vec<u32>,
    spaces: [Space; 2],
    rng: Rng,
    /// What the adapter did that it must not.
    pub wrong: Option<String>,
}

/// Memory, shared by all that have a part in it.
pub type Shared = Rc<RefCell<Mem>>;

fn phys(frame: u32) -> u64 {
    BASE + u64::from(frame) * PAGE as u64
}

impl Mem {
    /// Empty address spaces.
    #[must_use]
    pub fn new(rng: Rng) -> Shared {
        let space = || Space {
            map: BTreeMap::new(),
            generation: 1,
            next_va: 0x20_0000_0000,
            wired: 0,
            charged: 0,
            budget: u32::MAX,
        };
        Rc::new(RefCell::new(Mem {
            data: Vec::new(),
            frames: Vec::new(),
            free: Vec::new(),
            spaces: [space(), space()],
            rng,
            wrong: None,
        }))
    }

    fn grow(&mut self, pages: usize) -> u32 {
        let first = self.frames.len();
        self.frames.resize(
            first + pages,
            Frame {
                kind: Kind::Free,
                wired: 0,
                mapped: false,
                dirty: false,
            },
        );
        for _ in 0..pages {
            self.data.extend_from_slice(&[POISON; PAGE]);
        }
        first as u32
    }

    /// `n` frames in a row, at a multiple of `n` if `n` is a power of two.
    fn take_run(&mut self, n: usize, kind: Kind) -> u32 {
        let first = if n == 1 {
            // Single pages come from anywhere.
            while self.free.len() < 64 {
                let gap = self.grow(1);
                self.free.push(gap);
            }
            let i = self.rng.range(0, self.free.len() as u64 - 1) as usize;
            self.free.swap_remove(i)
        } else {
            let align = n.next_power_of_two();
            while !self.frames.len().is_multiple_of(align) {
                let gap = self.grow(1);
                self.free.push(gap);
            }
            self.grow(n)
        };
        for f in first..first + n as u32 {
            self.frames[f as usize] = Frame {
                kind,
                wired: 0,
                mapped: kind == Kind::User,
                dirty: false,
            };
        }
        first
    }

    fn give(&mut self, frame: u32) {
        let f = &mut self.frames[frame as usize];
        assert!(
            f.kind != Kind::Free && f.wired == 0,
            "page {frame} given back"
        );
        f.kind = Kind::Free;
        let at = frame as usize * PAGE;
        self.data[at..at + PAGE].fill(POISON);
        self.free.push(frame);
    }

    /// A page of the kernel's.
    pub fn kernel_page(&mut self) -> u64 {
        phys(self.take_run(1, Kind::Kernel))
    }

    /// Give it back.
    pub fn kernel_free(&mut self, pa: u64) {
        let f = self.frame_of(pa).expect("a kernel page");
        assert_eq!(self.frames[f as usize].kind, Kind::Kernel);
        self.give(f);
    }

    fn frame_of(&self, pa: u64) -> Option<u32> {
        let f = u32::try_from(pa.checked_sub(BASE)? / PAGE as u64).ok()?;
        ((f as usize) < self.frames.len()).then_some(f)
    }

    /// Map `len` bytes for process `p`, physically in runs of `run` pages. Returns the address.
    pub fn map(&mut self, p: usize, len: usize, run: usize) -> u64 {
        let pages = len.div_ceil(PAGE).max(1);
        let va = self.spaces[p].next_va;
        self.spaces[p].next_va += ((pages + 17) * PAGE) as u64;
        self.map_at(p, va, pages, run);
        va
    }

    fn map_at(&mut self, p: usize, va: u64, pages: usize, run: usize) {
        let mut i = 0;
        while i < pages {
            let n = run.clamp(1, pages - i);
            let first = self.take_run(n, Kind::User);
            for k in 0..n {
                let page = va / PAGE as u64 + (i + k) as u64;
                self.spaces[p].map.insert(page, (first + k as u32, true));
            }
            i += n;
        }
        self.spaces[p].generation += 1;
    }

    /// munmap, and mmap of other memory at the same address.
    pub fn remap(&mut self, p: usize, va: u64, len: usize, run: usize) {
        self.unmap(p, va, len);
        self.map_at(p, va, len.div_ceil(PAGE), run);
    }

    /// munmap. What is wired lives on until it is not.
    pub fn unmap(&mut self, p: usize, va: u64, len: usize) {
        for page in pages_at(va, len) {
            let Some((f, _)) = self.spaces[p].map.remove(&page) else {
                continue;
            };
            self.frames[f as usize].mapped = false;
            if self.frames[f as usize].wired == 0 {
                self.give(f);
            }
        }
        self.spaces[p].generation += 1;
    }

    /// mprotect.
    pub fn protect(&mut self, p: usize, va: u64, len: usize, writable: bool) {
        for page in pages_at(va, len) {
            if let Some(m) = self.spaces[p].map.get_mut(&page) {
                m.1 = writable;
            }
        }
        self.spaces[p].generation += 1;
    }

    /// The map's timestamp.
    #[must_use]
    pub fn generation(&self, p: usize) -> u32 {
        self.spaces[p].generation
    }

    /// Something else in the address space changed.
    pub fn touch(&mut self, p: usize) {
        self.spaces[p].generation += 1;
    }

    fn each(&self, p: usize, va: u64, len: usize) -> Vec<(usize, usize, usize)> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < len {
            let here = va + at as u64;
            let off = (here % PAGE as u64) as usize;
            let n = (PAGE - off).min(len - at);
            let (f, _) = self.spaces[p].map[&(here / PAGE as u64)];
            out.push((f as usize * PAGE + off, at, n));
            at += n;
        }
        out
    }

    /// A program reads its memory.
    #[must_use]
    pub fn user_read(&self, p: usize, va: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for (at, o, n) in self.each(p, va, len) {
            out[o..o + n].copy_from_slice(&self.data[at..at + n]);
        }
        out
    }

    /// A program writes its memory.
    pub fn user_write(&mut self, p: usize, va: u64, bytes: &[u8]) {
        for (at, o, n) in self.each(p, va, bytes.len()) {
            self.data[at..at + n].copy_from_slice(&bytes[o..o + n]);
        }
    }

    /// A program fills its memory.
    pub fn user_fill(&mut self, p: usize, va: u64, len: usize, with: u8) {
        for (at, _, n) in self.each(p, va, len) {
            self.data[at..at + n].fill(with);
            self.frames[at / PAGE].dirty = false;
        }
    }

    /// Was every page marked dirty since it was filled?
    #[must_use]
    pub fn user_dirty(&self, p: usize, va: u64, len: usize) -> bool {
        let pages = self.each(p, va, len);
        pages.iter().all(|&(at, ..)| self.frames[at / PAGE].dirty)
    }

    /// Is all of it still filled so?
    #[must_use]
    pub fn user_is(&self, p: usize, va: u64, len: usize, with: u8) -> bool {
        let full = [with; PAGE];
        self.each(p, va, len)
            .iter()
            .all(|&(at, _, n)| self.data[at..at + n] == full[..n])
    }

    /// The kernel reads at a bus address, within a page.
    pub fn read(&self, pa: u64, out: &mut [u8]) {
        let at = usize::try_from(pa - BASE).expect("an address");
        out.copy_from_slice(&self.data[at..at + out.len()]);
    }

    /// The kernel writes at a bus address.
    pub fn write(&mut self, pa: u64, bytes: &[u8]) {
        let at = usize::try_from(pa - BASE).expect("an address");
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The adapter is about to touch memory: may it (I3)?
    pub fn dma(&mut self, pa: u64, len: usize, write: bool) -> bool {
        let mut page = pa - pa % PAGE as u64;
        let what = if write { "written to" } else { "read" };
        while page < pa + len as u64 {
            let why = match self.frame_of(page).map(|f| self.frames[f as usize]) {
                None => "which is not memory",
                Some(f) => match f.kind {
                    Kind::Free => "which is free",
                    Kind::Kernel if write => "which is the kernel's",
                    Kind::User if f.wired == 0 => "which is not wired",
                    _ => "",
                },
            };
            if !why.is_empty() {
                self.wrong
                    .get_or_insert_with(|| format!("page {page:#x} {what} by the adapter, {why}"));
                return false;
            }
            page += PAGE as u64;
        }
        true
    }

    /// How many pages process `p` may have wired. Pages wired already stay so.
    pub fn set_budget(&mut self, p: usize, pages: u32) {
        self.spaces[p].budget = pages;
    }

    /// May `n` more be wired? Charges them; [`hold`] makes good of it, or gives it back.
    pub fn charge(&mut self, p: usize, n: u32) -> bool {
        let s = &mut self.spaces[p];
        let sum = u64::from(s.wired) + u64::from(s.charged) + u64::from(n);
        let ok = sum <= u64::from(s.budget);
        if ok {
            s.charged += n;
        }
        ok
    }

    /// Pages wired for process `p`, and charged.
    #[must_use]
    pub fn wired(&self, p: usize) -> (u32, u32) {
        (self.spaces[p].wired, self.spaces[p].charged)
    }

    /// Frames wired in all.
    #[must_use]
    pub fn frames_wired(&self) -> usize {
        self.frames.iter().filter(|f| f.wired > 0).count()
    }

    /// Pages of the kernel's.
    #[must_use]
    pub fn kernel_pages(&self) -> usize {
        let k = |f: &&Frame| f.kind == Kind::Kernel;
        self.frames.iter().filter(k).count()
    }
}

fn pages_at(va: u64, len: usize) -> impl Iterator<Item = u64> {
    let p = PAGE as u64;
    va / p..(va + len as u64).div_ceil(p)
}

/// What a worker does with no lock held: fault in and wire. `deny`: say no instead.
///
/// # Errors
/// EFAULT if a page is not mapped, or not writable when it must be; `deny`.
pub fn hold(
    mem: &Shared,
    p: usize,
    va: u64,
    len: u32,
    write: bool,
    deny: Option<Errno>,
) -> Result<SimPages, Errno> {
    let mut m = mem.borrow_mut();
    let want: Vec<u64> = pages_at(va, len as usize).collect();
    let s = &mut m.spaces[p];
    // Pages that are only looked at are not charged.
    s.charged -= s.charged.min(want.len() as u32);
    if let Some(e) = deny {
        return Err(e);
    }
    let mut frames = Vec::new();
    for page in want {
        match s.map.get(&page) {
            Some((f, writable)) if *writable || !write => frames.push(*f),
            _ => return Err(Errno::EFAULT),
        }
    }
    s.wired += frames.len() as u32;
    for f in &frames {
        m.frames[*f as usize].wired += 1;
    }
    drop(m);
    Ok(SimPages {
        p,
        first: va / PAGE as u64,
        frames,
        mem: Rc::clone(mem),
    })
}

/// Held pages.
#[derive(Debug)]
pub struct SimPages {
    p: usize,
    /// Page number of the first.
    first: u64,
    frames: Vec<u32>,
    mem: Shared,
}

impl SimPages {
    fn each(&self, off: u32, len: usize) -> Vec<(u64, usize, usize)> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < len {
            let here = off as usize + at;
            let n = (PAGE - here % PAGE).min(len - at);
            let f = self
                .frames
                .get(here / PAGE)
                .expect("outside of the held pages");
            out.push((phys(*f) + (here % PAGE) as u64, at, n));
            at += n;
        }
        out
    }

    /// Write bytes, `off` from the start of the first page.
    pub fn write(&self, off: u32, bytes: &[u8]) {
        for (pa, o, n) in self.each(off, bytes.len()) {
            self.mem.borrow_mut().write(pa, &bytes[o..o + n]);
        }
    }

    /// Read bytes.
    #[must_use]
    pub fn read(&self, off: u32, len: u32) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        for (pa, o, n) in self.each(off, len as usize) {
            self.mem.borrow().read(pa, &mut out[o..o + n]);
        }
        out
    }

    /// (bus address, bytes) of a range, page by page.
    #[must_use]
    pub fn runs(&self, off: u32, len: u32) -> Vec<(u64, u32)> {
        let runs = self.each(off, len as usize);
        runs.into_iter().map(|(pa, _, n)| (pa, n as u32)).collect()
    }
}

impl Pages for SimPages {
    fn count(&self) -> usize {
        self.frames.len()
    }
    fn phys(&self, i: usize) -> u64 {
        self.frames.get(i).map_or(0, |f| phys(*f))
    }
    fn dirty(&mut self) {
        let mut m = self.mem.borrow_mut();
        for f in &self.frames {
            m.frames[*f as usize].dirty = true;
        }
    }
    fn intact(&self, n: usize) -> bool {
        let m = self.mem.borrow();
        let mut first = self.frames.iter().take(n);
        first.all(|f| m.frames[*f as usize].mapped)
    }
    fn shown(&self) -> bool {
        let m = self.mem.borrow();
        let map = &m.spaces[self.p].map;
        let mut at = (self.first..).zip(&self.frames);
        at.all(|(va, f)| map.get(&va).is_some_and(|m| m.0 == *f))
    }
    fn of_file(&self) -> bool {
        false
    }
}

impl Drop for SimPages {
    fn drop(&mut self) {
        let mut m = self.mem.borrow_mut();
        m.spaces[self.p].wired -= self.frames.len() as u32;
        for f in &self.frames {
            let fr = &mut m.frames[*f as usize];
            fr.wired = fr.wired.checked_sub(1).expect("unwired twice");
            if fr.wired == 0 && !fr.mapped {
                m.give(*f);
            }
        }
    }
}
