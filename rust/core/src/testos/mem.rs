//! Physical and user memory of tests.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::errno::Errno;
use crate::os::Pages;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

#[derive(Debug)]
struct Frame {
    data: Box<[u8; PAGE as usize]>,
    wired: u32,
    dirty: bool,
    /// Kernel memory: always there.
    kernel: bool,
    mapped: bool,
    /// Taken away by a truncation.
    gone: bool,
    /// A file's page.
    file: bool,
    /// What was written to it since it was written back will be: a fault for writing was seen.
    tracked: bool,
}

/// Physical memory, and one address space that maps some of it.
#[derive(Debug)]
pub struct Mem {
    frames: RefCell<HashMap<u64, Frame>>,
    map: RefCell<HashMap<u64, (u64, bool)>>,
    generation: Cell<u32>,
    next_phys: Cell<u64>,
    next_va: Cell<u64>,
}

impl Mem {
    pub(super) fn new() -> Mem {
        Mem {
            frames: RefCell::default(),
            map: RefCell::default(),
            generation: Cell::new(1),
            next_phys: Cell::new(0x1_0000_0000),
            next_va: Cell::new(0x80_0000_0000),
        }
    }

    fn new_frame(&self, kernel: bool, gap: bool) -> u64 {
        let phys = self.next_phys.get() + if gap { 3 * PAGE } else { 0 };
        self.next_phys.set(phys + PAGE);
        self.frames.borrow_mut().insert(
            phys,
            Frame {
                data: Box::new([0xee; PAGE as usize]),
                wired: 0,
                dirty: false,
                kernel,
                mapped: !kernel,
                gone: false,
                file: false,
                tracked: false,
            },
        );
        phys
    }

    /// A new user buffer of `len` bytes, `in_page` bytes into its first page; every byte is
    /// 0xee. Physical pages come in runs of `run` contiguous ones.
    pub fn alloc(&self, len: usize, in_page: u64, run: usize) -> u64 {
        let va = self.next_va.get();
        let pages = (in_page + len as u64).div_ceil(PAGE).max(1);
        self.next_va.set(va + (pages + 16) * PAGE);
        for i in 0..pages {
            let phys = self.new_frame(false, (i as usize).is_multiple_of(run.max(1)));
            self.map.borrow_mut().insert(va + i * PAGE, (phys, true));
        }
        va + in_page
    }

    /// Map other pages at the same addresses (munmap, mmap): the old ones live on as long as
    /// they are wired.
    pub fn remap(&self, addr: u64, len: usize) {
        for va in pages_at(addr, len as u64) {
            let phys = self.new_frame(false, true);
            let old = self.map.borrow_mut().insert(va, (phys, true));
            self.unmapped(old);
        }
        self.generation.set(self.generation.get() + 1);
    }

    /// The object behind a buffer is truncated and grown again: other pages show, and the
    /// generation stays.
    pub fn truncate(&self, addr: u64, len: usize) {
        for va in pages_at(addr, len as u64) {
            let phys = self.new_frame(false, true);
            let old = self.map.borrow_mut().insert(va, (phys, true));
            if let Some((p, _)) = old
                && let Some(f) = self.frames.borrow_mut().get_mut(&p)
            {
                f.gone = true;
            }
            self.unmapped(old);
        }
    }

    /// A store beside the buffer, in an entry that has its shadow object: the page is copied,
    /// and the generation stays.
    pub fn copy_on_write(&self, addr: u64, len: usize) {
        for va in pages_at(addr, len as u64) {
            let data = self.user_read(va, PAGE as usize);
            let phys = self.new_frame(false, true);
            let old = self.map.borrow_mut().insert(va, (phys, true));
            self.unmapped(old);
            self.user_write(va, &data);
        }
    }

    /// The buffer is in a mapped file.
    pub fn map_file(&self, addr: u64, len: usize) {
        self.each_frame(addr, len, |f| f.file = true);
    }

    /// fsync(2).
    pub fn sync(&self, addr: u64, len: usize) {
        self.each_frame(addr, len, |f| (f.dirty, f.tracked) = (false, false));
    }

    /// Whether what was placed in the buffer reaches the file.
    pub fn reaches_file(&self, addr: u64, len: usize) -> bool {
        let mut all = true;
        self.each_frame(addr, len, |f| all &= f.dirty && f.tracked);
        all
    }

    fn each_frame(&self, addr: u64, len: usize, mut f: impl FnMut(&mut Frame)) {
        let map = self.map.borrow();
        let mut frames = self.frames.borrow_mut();
        for va in pages_at(addr, len as u64) {
            let frame = map.get(&va).and_then(|(p, _)| frames.get_mut(p));
            f(frame.expect("mapped"));
        }
    }

    /// munmap.
    pub fn unmap(&self, addr: u64, len: usize) {
        for va in pages_at(addr, len as u64) {
            let old = self.map.borrow_mut().remove(&va);
            self.unmapped(old);
        }
        self.generation.set(self.generation.get() + 1);
    }

    /// A page neither mapped nor wired is free.
    fn unmapped(&self, old: Option<(u64, bool)>) {
        let Some((phys, _)) = old else { return };
        let mut frames = self.frames.borrow_mut();
        if let Some(f) = frames.get_mut(&phys) {
            f.mapped = false;
            if f.wired == 0 {
                frames.remove(&phys);
            }
        }
    }

    /// mprotect.
    pub fn protect(&self, addr: u64, len: usize, writable: bool) {
        for va in pages_at(addr, len as u64) {
            if let Some((_, w)) = self.map.borrow_mut().get_mut(&va) {
                *w = writable;
            }
        }
        self.generation.set(self.generation.get() + 1);
    }

    /// The map's timestamp.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Any change of the map.
    pub fn touch_map(&self) {
        self.generation.set(self.generation.get() + 1);
    }

    /// Pages wired now, each counted once.
    pub fn wired(&self) -> usize {
        self.frames
            .borrow()
            .values()
            .filter(|f| f.wired > 0)
            .count()
    }

    /// Hold the pages of a user buffer.
    pub(super) fn hold(
        mem: &Rc<Mem>,
        addr: u64,
        len: u32,
        write: bool,
    ) -> Result<TestPages, Errno> {
        let map = mem.map.borrow();
        let mut phys = Vec::new();
        for va in pages_at(addr, u64::from(len)) {
            match map.get(&va) {
                Some((p, w)) if *w || !write => phys.push(*p),
                _ => return Err(Errno::EFAULT),
            }
        }
        let mut frames = mem.frames.borrow_mut();
        for p in &phys {
            if let Some(f) = frames.get_mut(p) {
                f.wired += 1;
                f.tracked |= write;
            }
        }
        Ok(TestPages {
            first: addr - addr % PAGE,
            phys,
            mem: Rc::clone(mem),
        })
    }

    /// Copy to new kernel pages; (physical address, bytes) of each.
    pub(super) fn kernel_copy(&self, data: &[u8]) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        for chunk in data.chunks(PAGE as usize) {
            let phys = self.new_frame(true, false);
            self.put(phys, chunk);
            out.push((phys, chunk.len() as u32));
        }
        out
    }

    /// A program reads its memory.
    pub fn user_read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut out = std::vec![0; len];
        self.user_each(addr, len, |phys, range| self.get(phys, &mut out[range]));
        out
    }

    /// A program writes its memory.
    pub fn user_write(&self, addr: u64, data: &[u8]) {
        self.user_each(addr, data.len(), |phys, range| self.put(phys, &data[range]));
    }

    fn user_each(&self, addr: u64, len: usize, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
        let mut at = 0;
        while at < len {
            let va = addr + at as u64;
            let n = ((PAGE - va % PAGE) as usize).min(len - at);
            let (phys, _) = *self
                .map
                .borrow()
                .get(&(va - va % PAGE))
                .expect("not mapped");
            f(phys + va % PAGE, at..at + n);
            at += n;
        }
    }

    fn put(&self, phys: u64, data: &[u8]) {
        let mut frames = self.frames.borrow_mut();
        let f = frames.get_mut(&(phys - phys % PAGE)).expect("no such page");
        let o = (phys % PAGE) as usize;
        f.data[o..o + data.len()].copy_from_slice(data);
    }

    fn get(&self, phys: u64, out: &mut [u8]) {
        let frames = self.frames.borrow();
        let f = frames.get(&(phys - phys % PAGE)).expect("no such page");
        let o = (phys % PAGE) as usize;
        out.copy_from_slice(&f.data[o..o + out.len()]);
    }

    fn each_phys(phys: u64, len: usize, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
        let mut at = 0;
        while at < len {
            let p = phys + at as u64;
            let n = ((PAGE - p % PAGE) as usize).min(len - at);
            f(p, at..at + n);
            at += n;
        }
    }

    /// The kernel reads at a physical address.
    pub fn read(&self, phys: u64, out: &mut [u8]) {
        Mem::each_phys(phys, out.len(), |p, r| self.get(p, &mut out[r]));
    }

    fn assert_wired(&self, phys: u64) {
        let frames = self.frames.borrow();
        let f = frames.get(&(phys - phys % PAGE)).expect("DMA to no page");
        assert!(
            f.kernel || f.wired > 0,
            "DMA to {phys:#x}, which is not wired"
        );
    }

    /// The adapter writes: every page must be wired (I3).
    pub fn dma_write(&self, phys: u64, data: &[u8]) {
        Mem::each_phys(phys, data.len(), |p, r| {
            self.assert_wired(p);
            self.put(p, &data[r]);
        });
    }

    /// The adapter reads: every page must be wired (I3).
    pub fn dma_read(&self, phys: u64, out: &mut [u8]) {
        Mem::each_phys(phys, out.len(), |p, r| {
            self.assert_wired(p);
            self.get(p, &mut out[r]);
        });
    }

    /// Whether the page a user address is mapped to was marked dirty.
    pub fn is_dirty(&self, addr: u64) -> bool {
        let map = self.map.borrow();
        let frames = self.frames.borrow();
        map.get(&(addr - addr % PAGE))
            .and_then(|(p, _)| frames.get(p))
            .is_some_and(|f| f.dirty)
    }
}

fn pages_at(addr: u64, len: u64) -> impl Iterator<Item = u64> {
    let first = addr - addr % PAGE;
    (0..(addr % PAGE + len).div_ceil(PAGE)).map(move |i| first + i * PAGE)
}

/// Held pages.
#[derive(Debug)]
pub struct TestPages {
    first: u64,
    phys: Vec<u64>,
    mem: Rc<Mem>,
}

impl TestPages {
    fn each(&self, off: u32, len: usize, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
        let mut at = 0;
        while at < len {
            let here = off as usize + at;
            let n = (PAGE as usize - here % PAGE as usize).min(len - at);
            let page = self
                .phys
                .get(here / PAGE as usize)
                .expect("outside of the held pages");
            f(page + here as u64 % PAGE, at..at + n);
            at += n;
        }
    }

    /// Write bytes, `off` from the start of the first page.
    pub fn write(&self, off: u32, data: &[u8]) {
        self.each(off, data.len(), |p, r| self.mem.put(p, &data[r]));
    }

    /// Read bytes.
    pub fn read(&self, off: u32, len: u32) -> Vec<u8> {
        let mut out = std::vec![0; len as usize];
        self.each(off, len as usize, |p, r| self.mem.get(p, &mut out[r]));
        out
    }
}

impl Pages for TestPages {
    fn intact(&self, n: usize) -> bool {
        let frames = self.mem.frames.borrow();
        let there = |p| frames.get(p).is_some_and(|f| !f.gone);
        self.phys.iter().take(n).all(there)
    }
    fn shown(&self) -> bool {
        let map = self.mem.map.borrow();
        let mut at = (self.first..).step_by(PAGE as usize).zip(&self.phys);
        at.all(|(va, p)| map.get(&va).is_some_and(|m| m.0 == *p))
    }
    fn of_file(&self) -> bool {
        let frames = self.mem.frames.borrow();
        let file = |p| frames.get(p).is_some_and(|f| f.file);
        self.phys.iter().any(file)
    }
    fn count(&self) -> usize {
        self.phys.len()
    }
    fn phys(&self, i: usize) -> u64 {
        self.phys.get(i).copied().unwrap_or(0)
    }
    fn dirty(&mut self) {
        let mut frames = self.mem.frames.borrow_mut();
        for p in &self.phys {
            if let Some(f) = frames.get_mut(p) {
                f.dirty = true;
            }
        }
    }
}

impl Drop for TestPages {
    fn drop(&mut self) {
        let mut frames = self.mem.frames.borrow_mut();
        for p in &self.phys {
            if let Some(f) = frames.get_mut(p) {
                f.wired = f.wired.checked_sub(1).expect("unwired twice");
                if f.wired == 0 && !f.mapped {
                    frames.remove(p);
                }
            }
        }
    }
}
