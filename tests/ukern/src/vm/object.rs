//! Memory objects: page-sized slots, shadow chains, the life of a user page.
//!
//! An object holds its pages by `VPRC_OBJREF`; held references (DMA, mlock) are wirings in the
//! same `ref_count`. A page that leaves its object while wired lives on as an orphan and is freed
//! by the last unwire, as FreeBSD does.

use std::collections::BTreeMap;

use super::page::{self, Page};

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
}

pub(crate) struct Object {
    refs: u32,
    pages: BTreeMap<u64, Page>,
    backing: Option<(ObjId, u64)>,
    kind: Kind,
    /// OBJ_ONEMAPPING: no page shows at two places, so an unmapped range gives its pages back.
    one_mapping: bool,
}

/// Every object there is.
#[derive(Default)]
pub(crate) struct Objects {
    next: u64,
    all: BTreeMap<ObjId, Object>,
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
        self.all.insert(
            id,
            Object {
                refs: 1,
                pages: BTreeMap::new(),
                backing: None,
                kind,
                one_mapping,
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
            let obj = self.all.remove(&id).expect("live object");
            for page in obj.pages.into_values() {
                page::drop_object_ref(page);
            }
            next = obj.backing.map(|(b, _)| b);
        }
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
                (None, Kind::Shm(_)) => return (at, i),
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
                page::refill(page);
                self.get_mut(at).pages.insert(i, page);
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
        self.get_mut(id).pages.insert(idx, copy);
        Some(copy)
    }

    /// Shrinks or grows a shared-memory object. Pages past the new end leave it, but for wired
    /// ones, which stay and are invalid (`vm_object_page_remove`).
    pub(crate) fn resize(&mut self, id: ObjId, pages: u64) {
        let obj = self.get_mut(id);
        obj.kind = Kind::Shm(pages);
        for (i, page) in obj.pages.split_off(&pages) {
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
                self.get_mut(new).pages.insert(i, copy);
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
