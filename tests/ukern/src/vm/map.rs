//! Address maps: entries, protection, copy-on-write, the map's generation.
//!
//! `vm_map.timestamp` moves when the map's write lock is taken, before the change: for mmap,
//! munmap, mprotect, fork, mlock, and for the fault that gives a copy-on-write entry its shadow
//! object. Later write faults of that entry copy pages and move nothing.

use std::collections::BTreeMap;

use super::object::{Kind, ObjId, Objects};
use super::page::{self, PAGE, Page};
use super::pmap::Pmap;
use crate::proc::{Errno, Prot, Sys};

/// One map entry; its key in the map is its start address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) end: u64,
    pub(crate) prot: Prot,
    pub(crate) obj: ObjId,
    /// Page offset of the entry's start in the object.
    pub(crate) off: u64,
    /// MAP_ENTRY_NEEDS_COPY: a write makes a shadow object first.
    pub(crate) needs_copy: bool,
    /// Inherited shared by fork.
    pub(crate) shared: bool,
    /// mlock(2)ed.
    pub(crate) wired: bool,
}

/// The Rust half of a `struct vm_map`.
pub(crate) struct Map {
    entries: BTreeMap<u64, Entry>,
    next_va: u64,
    /// How often the map's write lock was taken; mirrored into `vm_map.timestamp`.
    pub(crate) timestamp: u32,
    /// Bytes under mlock(2), for RLIMIT_MEMLOCK.
    pub(crate) locked: u64,
    pub(crate) pmap: Pmap,
}

/// Lowest and highest user address.
pub(crate) const MIN_USER: u64 = PAGE as u64;
pub(crate) const MAX_USER: u64 = 0x7fff_ffff_f000;

fn round(len: u64) -> Option<u64> {
    len.checked_add(PAGE as u64 - 1)
        .map(|l| l & !(PAGE as u64 - 1))
}

fn pages(len: u64) -> u64 {
    len / PAGE as u64
}

impl Map {
    pub(crate) fn new(base: u64) -> Map {
        Map {
            entries: BTreeMap::new(),
            next_va: base,
            timestamp: 1,
            locked: 0,
            pmap: Pmap::default(),
        }
    }

    /// Checks and page-aligns a user range.
    pub(crate) fn range(va: u64, len: u64) -> Option<(u64, u64)> {
        let start = va & !(PAGE as u64 - 1);
        let end = round(va.checked_add(len)?)?;
        (start >= MIN_USER && end <= MAX_USER && start <= end).then_some((start, end))
    }

    /// The write lock is taken: what follows is a change.
    pub(super) fn bump(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(1);
    }

    /// Splits the entry that covers `va` so that one starts there.
    fn clip(&mut self, objs: &mut Objects, va: u64) {
        let Some((&start, entry)) = self.entries.range_mut(..va).next_back() else {
            return;
        };
        if entry.end <= va {
            return;
        }
        let mut tail = *entry;
        entry.end = va;
        tail.off += pages(va - start);
        objs.acquire(tail.obj);
        self.entries.insert(va, tail);
    }

    fn clip_range(&mut self, objs: &mut Objects, start: u64, end: u64) -> Vec<u64> {
        self.clip(objs, start);
        self.clip(objs, end);
        self.entries.range(start..end).map(|(k, _)| *k).collect()
    }

    /// Every page of the range is mapped.
    fn covered(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        while at < end {
            match self.lookup(at) {
                Some((_, e)) => at = e.end,
                None => return false,
            }
        }
        true
    }

    pub(crate) fn lookup(&self, va: u64) -> Option<(u64, &Entry)> {
        let (&start, e) = self.entries.range(..=va).next_back()?;
        (va < e.end).then_some((start, e))
    }

    /// Maps `obj` (its reference moves to the entry). `at`: MAP_FIXED address, replacing what is
    /// there.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn insert(
        &mut self,
        objs: &mut Objects,
        at: Option<u64>,
        len: u64,
        prot: Prot,
        obj: ObjId,
        off: u64,
        private_copy: bool,
        shared: bool,
    ) -> Sys<u64> {
        let fail = |objs: &mut Objects| {
            objs.release(obj);
            Err(Errno::EINVAL)
        };
        let Some(len) = round(len).filter(|l| *l > 0) else {
            return fail(objs);
        };
        let va = match at {
            Some(va) if !va.is_multiple_of(PAGE as u64) => return fail(objs),
            Some(va) => va,
            None => self.next_va,
        };
        if Map::range(va, len).is_none() {
            return fail(objs);
        }
        match at {
            Some(_) => self.remove_range(objs, va, va + len),
            // A guard page keeps neighbours apart, so an overrun faults.
            None => self.next_va = va + len + PAGE as u64,
        }
        let e = Entry {
            end: va + len,
            prot,
            obj,
            off,
            needs_copy: private_copy,
            shared,
            wired: false,
        };
        self.entries.insert(va, e);
        Ok(va)
    }

    fn unwire_entry(&mut self, objs: &mut Objects, start: u64, e: Entry) {
        if !e.wired {
            return;
        }
        self.locked -= e.end - start;
        for i in 0..pages(e.end - start) {
            if let Some(f) = objs.lookup(e.obj, e.off + i) {
                page::unwire_user(f.page);
            }
        }
    }

    fn remove_range(&mut self, objs: &mut Objects, start: u64, end: u64) {
        for k in self.clip_range(objs, start, end) {
            let e = self.entries.remove(&k).expect("clipped entry");
            self.unwire_entry(objs, k, e);
            self.pmap.remove(k..e.end);
            objs.discard(e.obj, e.off, pages(e.end - k));
            objs.release(e.obj);
        }
    }

    pub(crate) fn munmap(&mut self, objs: &mut Objects, va: u64, len: u64) -> Sys<()> {
        if !va.is_multiple_of(PAGE as u64) || len == 0 {
            return Err(Errno::EINVAL);
        }
        let (start, end) = Map::range(va, len).ok_or(Errno::EINVAL)?;
        self.remove_range(objs, start, end);
        Ok(())
    }

    pub(crate) fn mprotect(
        &mut self,
        objs: &mut Objects,
        va: u64,
        len: u64,
        prot: Prot,
    ) -> Sys<()> {
        if !va.is_multiple_of(PAGE as u64) {
            return Err(Errno::EINVAL);
        }
        let (start, end) = Map::range(va, len).ok_or(Errno::EINVAL)?;
        if !self.covered(start, end) {
            return Err(Errno::ENOMEM);
        }
        for k in self.clip_range(objs, start, end) {
            let e = self.entries.get_mut(&k).expect("clipped entry");
            e.prot = prot;
            self.pmap.protect(k..e.end, prot);
        }
        Ok(())
    }

    /// mlock(2) of whole pages: faults everything in and wires it.
    pub(crate) fn mlock(&mut self, objs: &mut Objects, va: u64, len: u64, limit: u64) -> Sys<()> {
        let (start, end) = Map::range(va, len).ok_or(Errno::EINVAL)?;
        if !self.covered(start, end) {
            return Err(Errno::ENOMEM);
        }
        if self.locked + (end - start) > limit {
            return Err(Errno::ENOMEM);
        }
        for k in self.clip_range(objs, start, end) {
            let e = self.entries[&k];
            if e.wired {
                continue;
            }
            for i in 0..pages(e.end - k) {
                let write = e.prot.write;
                let p = self
                    .fault(objs, k + i * PAGE as u64, write)
                    .map_err(|_| Errno::ENOMEM)?;
                page::wire_user(p);
            }
            self.entries.get_mut(&k).expect("clipped entry").wired = true;
            self.locked += e.end - k;
        }
        Ok(())
    }

    pub(crate) fn munlock(&mut self, objs: &mut Objects, va: u64, len: u64) -> Sys<()> {
        let (start, end) = Map::range(va, len).ok_or(Errno::EINVAL)?;
        if !self.covered(start, end) {
            return Err(Errno::ENOMEM);
        }
        for k in self.clip_range(objs, start, end) {
            let e = self.entries[&k];
            self.unwire_entry(objs, k, e);
            self.entries.get_mut(&k).expect("clipped entry").wired = false;
        }
        Ok(())
    }

    /// The page for an access by the program (or by a hold on its behalf).
    ///
    /// # Errors
    /// EFAULT: nothing mapped, protection, or past the end of the object.
    pub(crate) fn fault(&mut self, objs: &mut Objects, va: u64, write: bool) -> Sys<Page> {
        let (start, e) = self.lookup(va).map(|(s, e)| (s, *e)).ok_or(Errno::EFAULT)?;
        if (write && !e.prot.write) || (!write && !e.prot.read) {
            return Err(Errno::EFAULT);
        }
        let mut e = e;
        if write && e.needs_copy {
            // vm_map_lookup upgrades the lock for this, which moves the generation.
            self.bump();
            (e.obj, e.off) = objs.shadow(e.obj, e.off);
            e.needs_copy = false;
            self.entries.insert(start, e);
        }
        let idx = e.off + pages(va - start);
        let page = objs.fault(e.obj, idx, write).ok_or(Errno::EFAULT)?;
        if write {
            page::dirty(page);
        }
        // The front object's own page is entered for stores, too, if these are allowed.
        let own = objs.lookup(e.obj, idx).is_some_and(|f| f.own);
        let writable = e.prot.write && !e.needs_copy && own;
        if writable {
            objs.entered_writable(e.obj);
        }
        self.pmap.enter(va & !(PAGE as u64 - 1), page, writable);
        Ok(page)
    }

    /// The page that the MMU finds for an access, with no fault.
    pub(crate) fn resident(&self, va: u64, write: bool) -> Option<Page> {
        let pte = self.pmap.get(va)?;
        (pte.write || !write).then_some(pte.page)
    }

    /// The child's map after fork(2).
    pub(crate) fn fork(&mut self, objs: &mut Objects) -> Sys<Map> {
        let mut child = Map::new(self.next_va);
        for (&start, e) in &mut self.entries {
            let mut c = *e;
            c.wired = false;
            if e.shared {
                objs.share(e.obj);
            } else if e.wired {
                // Wired pages must stay where they are, so the child gets its copy at once.
                let n = pages(e.end - start);
                let Some(copy) = objs.copy_out(e.obj, e.off, n) else {
                    child.clear(objs);
                    return Err(Errno::ENOMEM);
                };
                (c.obj, c.off, c.needs_copy) = (copy, 0, false);
            } else {
                objs.share(e.obj);
                e.needs_copy = true;
                c.needs_copy = true;
                self.pmap.protect(start..e.end, Prot::R);
            }
            child.entries.insert(start, c);
        }
        Ok(child)
    }

    /// Drops everything (exit, exec).
    pub(crate) fn clear(&mut self, objs: &mut Objects) {
        self.bump();
        self.pmap = Pmap::default();
        for (k, e) in std::mem::take(&mut self.entries) {
            self.unwire_entry(objs, k, e);
            objs.release(e.obj);
        }
    }

    /// A fresh anonymous object, mapped.
    pub(crate) fn mmap_anon(
        &mut self,
        objs: &mut Objects,
        at: Option<u64>,
        len: u64,
        prot: Prot,
        shared: bool,
    ) -> Sys<u64> {
        let obj = objs.create(Kind::Anon);
        self.insert(objs, at, len, prot, obj, 0, false, shared)
    }
}
