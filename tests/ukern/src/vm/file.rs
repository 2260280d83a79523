//! Files: what is on the disk, the object that holds the pages of it, writing back.

use std::collections::BTreeMap;

use super::object::{Kind, ObjId, Objects};
use super::page::PAGE;
use super::pmap::Pmap;

/// Handle of a file in [`Objects`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FileId(pub(super) u64);

/// One file: its vnode and its inode.
pub(crate) struct File {
    /// In pages.
    pub(super) size: u64,
    /// What was written back; the rest is zeros.
    pub(super) disk: BTreeMap<u64, Vec<u8>>,
    /// The vnode's object, once mapped.
    obj: Option<ObjId>,
    /// A program has it open, or a test does.
    open: bool,
}

impl Objects {
    pub(super) fn file_create(&mut self, size: u64) -> FileId {
        let id = FileId(self.files.last_key_value().map_or(1, |(f, _)| f.0 + 1));
        let file = File {
            size,
            disk: BTreeMap::new(),
            obj: None,
            open: true,
        };
        self.files.insert(id, file);
        id
    }

    fn file(&mut self, id: FileId) -> &mut File {
        self.files.get_mut(&id).expect("a file that is open")
    }

    /// The object for one more mapping, with a reference.
    pub(super) fn file_object(&mut self, id: FileId) -> ObjId {
        match self.file(id).obj {
            Some(obj) => {
                self.share(obj);
                obj
            }
            None => {
                let obj = self.create(Kind::File(id));
                self.file(id).obj = Some(obj);
                obj
            }
        }
    }

    /// fsync(2), or the syncer.
    pub(super) fn file_sync<'a>(&mut self, id: FileId, pmaps: impl Iterator<Item = &'a mut Pmap>) {
        if let Some(obj) = self.file(id).obj {
            let size = self.file(id).size;
            self.clean(obj, 0..size, pmaps);
        }
    }

    /// The vnode is reclaimed, as when the file system is unmounted: its pages go, and what the
    /// object does not know to be dirty goes with them (`vm_object_terminate`). False: it is
    /// mapped.
    pub(super) fn file_recycle(&mut self, id: FileId) -> bool {
        let Some(obj) = self.file(id).obj else {
            return true;
        };
        if self.refs(obj) > 0 {
            return false;
        }
        self.file_sync(id, std::iter::empty());
        self.file(id).obj = None;
        self.remove(obj);
        true
    }

    /// The last mapping of a file's object has gone.
    pub(super) fn file_unmapped(&mut self, id: FileId) {
        if !self.file(id).open {
            self.file_recycle(id);
            self.files.remove(&id);
        }
    }

    /// read(2): from the resident pages, else from the disk.
    pub(super) fn file_read(&mut self, id: FileId) -> Vec<u8> {
        let (size, obj) = (self.file(id).size, self.file(id).obj);
        let mut out = Vec::new();
        for i in 0..size {
            let page = obj.and_then(|o| self.peek(o, i));
            let page = page.or_else(|| self.file(id).disk.get(&i).cloned());
            out.extend(page.unwrap_or_else(|| vec![0; PAGE]));
        }
        out
    }

    /// ftruncate(2), to so many pages.
    pub(super) fn file_resize<'a>(
        &mut self,
        id: FileId,
        pages: u64,
        pmaps: impl Iterator<Item = &'a mut Pmap>,
    ) {
        match self.file(id).obj {
            Some(obj) => self.resize(obj, pages, pmaps),
            None => {
                let file = self.file(id);
                file.size = pages;
                file.disk.split_off(&pages);
            }
        }
    }

    /// The last handle is closed.
    pub(super) fn file_close(&mut self, id: FileId) {
        self.file(id).open = false;
        if self.file_recycle(id) {
            self.files.remove(&id);
        }
    }
}
