//! Memory objects: page-sized slots, shadow chains, the life of a user page.
//!
//! An object holds its pages by `VPRC_OBJREF`; held references (DMA, mlock) are wirings in the
//! same `ref_count`. A page that leaves its object while wired lives on as an orphan and is freed
//! by the last unwire, as FreeBSD does.
//!
//! Each has a `struct vm_object`, to which its pages point; modules read its type and flags. The
//! pages of a file know by `generation` and `cleangeneration` whether any of them may be dirty:
//! [`Objects::clean`] passes an object by where these agree, whatever its pages say.

use std::collections::BTreeMap;

use super::file::{File, FileId};
use super::page::{self, Page};
use super::pmap::Pmap;
use crate::sys;

/// Handle of an object in [`Objects`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ObjId(u64);

/// What backs slots that no page fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Zero fill; the end of a private chain.
    Anon,
    /// A shared-memory object of so many pages: beyond its size an access faults.
    Shm(u64),
    /// The pages of a file, which has the size and what was written back.
    File(FileId),
}

pub(crate) struct Object {
    refs: u32,
    pages: BTreeMap<u64, Page>,
    backing: Option<(ObjId, u64)>,
    kind: Kind,
    /// OBJ_ONEMAPPING: no page shows at two places, so an unmapped range gives its pages back.
    one_mapping: bool,
    /// Not from malloc(9), which may switch to another thread.
    vm: Box<sys::vm_object>,
}

impl Object {
    /// Take a page in, in place of one that is there.
    fn put(&mut self, idx: u64, mut page: Page) {
        page.object = &raw mut *self.vm;
        page.pindex = idx;
        self.pages.insert(idx, page);
    }

    /// `vm_object_set_writeable_dirty`: stores to its pages pass from now on.
    fn set_writeable_dirty(&mut self) {
        if matches!(self.kind, Kind::File(_)) {
            self.vm.generation += 1;
        }
    }

    /// `vm_object_mightbedirty`.
    fn might_be_dirty(&self) -> bool {
        self.vm.generation != self.vm.cleangeneration
    }
}

/// Every object there is.
#[derive(Default)]
pub(crate) struct Objects {
    next: u64,
    all: BTreeMap<ObjId, Object>,
    pub(super) files: BTreeMap<FileId, File>,
}

/// A page found for an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) page: Page,
    /// It lies in the object asked, not behind it.
    pub(crate) own: bool,
}

impl Objects {
    fn get(&self, id: ObjId) -> &Object {
        self.all.get(&id).expect("live object")
    }

    fn get_mut(&mut self, id: ObjId) -> &mut Object {
        self.all.get_mut(&id).expect("live object")
    }

    /// A new object with one reference.
    pub(crate) fn create(&mut self, kind: Kind) -> ObjId {
        self.next += 1;
        let id = ObjId(self.next);
        let one_mapping = kind == Kind::Anon;
        // SAFETY: `struct vm_object` is plain C data.
        let mut vm: Box<sys::vm_object> = Box::new(unsafe { std::mem::zeroed() });
        vm.type_ = match kind {
            Kind::Anon => sys::OBJT_SWAP,
            Kind::Shm(_) => sys::OBJT_FIRST_DYN,
            Kind::File(_) => sys::OBJT_VNODE,
        } as u8;
        if !matches!(kind, Kind::File(_)) {
            vm.flags = sys::OBJ_SWAP;
        }
        (vm.generation, vm.cleangeneration) = (1, 1);
        self.all.insert(
            id,
            Object {
                refs: 1,
                pages: BTreeMap::new(),
                backing: None,
                kind,
                one_mapping,
                vm,
            },
        );
        id
    }

    /// A reference from another map.
    pub(crate) fn share(&mut self, id: ObjId) {
        let obj = self.get_mut(id);
        obj.refs += 1;
        obj.one_mapping = false;
    }

    pub(crate) fn acquire(&mut self, id: ObjId) {
        self.get_mut(id).refs += 1;
    }

    /// Drops a reference; the last one frees the pages and the object behind.
    pub(crate) fn release(&mut self, id: ObjId) {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            let obj = self.get_mut(id);
            obj.refs -= 1;
            if obj.refs > 0 {
                return;
            }
            if let Kind::File(file) = self.get(id).kind {
                // Its vnode keeps the pages until it is recycled.
                self.file_unmapped(file);
                return;
            }
            next = self.remove(id);
        }
    }

    /// The object ends: what was behind it.
    pub(super) fn remove(&mut self, id: ObjId) -> Option<ObjId> {
        let obj = self.all.remove(&id).expect("live object");
        for page in obj.pages.into_values() {
            page::drop_object_ref(page);
        }
        obj.backing.map(|(b, _)| b)
    }

    /// Puts a shadow in front of `id` at page offset `off`: the caller's reference moves to the
    /// shadow. Where nobody else references a plain object it is its own shadow.
    pub(crate) fn shadow(&mut self, id: ObjId, off: u64) -> (ObjId, u64) {
        let obj = self.get(id);
        if obj.refs == 1 && obj.kind == Kind::Anon {
            return (id, off);
        }
        let new = self.create(Kind::Anon);
        self.get_mut(new).backing = Some((id, off));
        (new, 0)
    }

    /// The page that shows at `idx`, if any is resident.
    pub(crate) fn lookup(&self, id: ObjId, idx: u64) -> Option<Found> {
        let (mut at, mut i, mut own) = (id, idx, true);
        loop {
            let obj = self.get(at);
            if let Some(&page) = obj.pages.get(&i) {
                return page::is_valid(page).then_some(Found { page, own });
            }
            let (next, off) = obj.backing?;
            (at, i, own) = (next, i + off, false);
        }
    }

    /// True where an access at `idx` would fall past the end of a shared-memory object.
    fn past_end(&self, id: ObjId, idx: u64) -> bool {
        let (mut at, mut i) = (id, idx);
        loop {
            let obj = self.get(at);
            match (obj.backing, obj.kind) {
                (Some((next, off)), _) => (at, i) = (next, i + off),
                (None, Kind::Shm(size)) => return i >= size,
                (None, Kind::File(f)) => return self.files.get(&f).is_none_or(|f| i >= f.size),
                (None, Kind::Anon) => return false,
            }
        }
    }

    /// Where a fresh page of the chain belongs: the shared object at its end, else the front.
    fn zero_fill_slot(&self, id: ObjId, idx: u64) -> (ObjId, u64) {
        let (mut at, mut i) = (id, idx);
        loop {
            let obj = self.get(at);
            match (obj.backing, obj.kind) {
                (Some((next, off)), _) => (at, i) = (next, i + off),
                (None, Kind::Shm(_) | Kind::File(_)) => return (at, i),
                (None, Kind::Anon) => return (id, idx),
            }
        }
    }

    /// The page for an access, brought in or copied as needed. `None`: past the end, or no
    /// free frame.
    pub(crate) fn fault(&mut self, id: ObjId, idx: u64, write: bool) -> Option<Page> {
        if self.past_end(id, idx) {
            return None;
        }
        let found = match self.lookup(id, idx) {
            Some(f) => f,
            None => {
                let (at, i) = self.zero_fill_slot(id, idx);
                let page = match self.get(at).pages.get(&i) {
                    Some(&invalid) => invalid,
                    None => page::alloc_user()?,
                };
                page::refill(page, self.backed(at, i));
                self.get_mut(at).put(i, page);
                Found {
                    page,
                    own: at == id,
                }
            }
        };
        if found.own || !write {
            return Some(found.page);
        }
        let copy = page::alloc_user()?;
        page::copy(copy, found.page);
        self.get_mut(id).put(idx, copy);
        Some(copy)
    }

    /// What a pager brings to a page that is not there.
    fn backed(&self, id: ObjId, idx: u64) -> Option<&[u8]> {
        match self.get(id).kind {
            Kind::File(f) => self.files.get(&f)?.disk.get(&idx).map(Vec::as_slice),
            _ => None,
        }
    }

    /// A fault gives the right to store to this object's own page.
    pub(crate) fn entered_writable(&mut self, id: ObjId) {
        self.get_mut(id).set_writeable_dirty();
    }

    /// `vm_object_page_clean` for pages from `first` to before `end`: no store passes until the
    /// next fault, and dirty pages go to the file. Nothing happens to an object that says of
    /// itself that it is clean.
    pub(super) fn clean<'a>(
        &mut self,
        id: ObjId,
        range: std::ops::Range<u64>,
        pmaps: impl Iterator<Item = &'a mut Pmap>,
    ) {
        let mut pmaps: Vec<_> = pmaps.collect();
        let obj = self.all.get_mut(&id).expect("live object");
        let Kind::File(file) = obj.kind else { return };
        if !obj.might_be_dirty() {
            return;
        }
        let file = self.files.get_mut(&file).expect("file");
        let all = range.start == 0 && range.end >= file.size;
        for (i, page) in obj.pages.range_mut(range) {
            if !page::is_valid(*page) {
                continue;
            }
            pmaps.iter_mut().for_each(|m| m.forbid_stores(*page));
            if page.dirty != 0 {
                page.dirty = 0;
                file.disk.insert(*i, page::bytes_of(*page).to_vec());
            }
        }
        if all {
            obj.vm.cleangeneration = obj.vm.generation;
        }
    }

    /// Bytes of a page of a file's object, if it is resident.
    pub(super) fn peek(&self, id: ObjId, idx: u64) -> Option<Vec<u8>> {
        let page = *self.get(id).pages.get(&idx)?;
        page::is_valid(page).then(|| page::bytes_of(page).to_vec())
    }

    pub(super) fn refs(&self, id: ObjId) -> u32 {
        self.get(id).refs
    }

    /// Shrinks or grows a shared-memory object. Pages past the new end leave it, but for wired
    /// ones, which stay and are invalid (`vm_object_page_remove`). They are mapped nowhere then.
    pub(crate) fn resize<'a>(
        &mut self,
        id: ObjId,
        pages: u64,
        pmaps: impl Iterator<Item = &'a mut Pmap>,
    ) {
        let mut pmaps: Vec<_> = pmaps.collect();
        let obj = self.all.get_mut(&id).expect("live object");
        match &mut obj.kind {
            Kind::File(f) => {
                let file = self.files.get_mut(f).expect("file");
                file.size = pages;
                file.disk.split_off(&pages);
            }
            kind => *kind = Kind::Shm(pages),
        }
        for (i, page) in obj.pages.split_off(&pages) {
            pmaps.iter_mut().for_each(|m| m.forget(page));
            if page::wirings(page) > 0 {
                page::invalidate(page);
                obj.pages.insert(i, page);
            } else {
                page::drop_object_ref(page);
            }
        }
    }

    /// A private, eager copy of `n` pages from `off`: what fork does with wired entries.
    pub(crate) fn copy_out(&mut self, id: ObjId, off: u64, n: u64) -> Option<ObjId> {
        let new = self.create(Kind::Anon);
        for i in 0..n {
            if let Some(f) = self.lookup(id, off + i) {
                let Some(copy) = page::alloc_user() else {
                    self.release(new);
                    return None;
                };
                page::copy(copy, f.page);
                self.get_mut(new).put(i, copy);
            }
        }
        Some(new)
    }

    /// Drops the object's own pages in a range (munmap of part of an unshared object).
    pub(crate) fn discard(&mut self, id: ObjId, off: u64, n: u64) {
        let obj = self.get_mut(id);
        if !obj.one_mapping {
            return;
        }
        let gone: Vec<u64> = obj.pages.range(off..off + n).map(|(k, _)| *k).collect();
        for k in gone {
            if let Some(page) = obj.pages.remove(&k) {
                page::drop_object_ref(page);
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }
}
