//! A program's memory: mappings, and access to them through the simulated MMU.

use std::rc::Rc;

use crate::kp::{Kp, bytes, bytes_mut};
use crate::proc::process::{Proc, with_state};
use crate::proc::{Prot, Sys, UserVa};
use crate::{Api, sys, vm};

struct Shm(vm::ObjId);

impl Drop for Shm {
    fn drop(&mut self) {
        vm::shm_release(self.0);
    }
}

/// A shared-memory object, as from `shm_open(SHM_ANON)`.
#[derive(Clone)]
pub struct ShmObject(Rc<Shm>);

impl ShmObject {
    /// ftruncate(2): pages past the new length leave the object, also under live mappings.
    pub fn truncate(&self, len: usize) {
        vm::shm_resize(self.0.0, len.div_ceil(vm::PAGE) as u64);
    }
}

struct Vnode(vm::FileId);

impl Drop for Vnode {
    fn drop(&mut self) {
        vm::file_close(self.0);
    }
}

/// A file of a file system that writes back when told to. It goes before its kernel does.
#[derive(Clone)]
pub struct File(Rc<Vnode>);

impl File {
    /// fsync(2), or the syncer: writes back the dirty pages, unless the object says that there
    /// are none.
    pub fn sync(&self) {
        vm::file_sync(self.0.0);
    }

    /// The vnode is recycled, as by an unmount: pages that nobody knew to be dirty are lost.
    /// False while it is mapped.
    #[must_use]
    pub fn recycle(&self) -> bool {
        vm::file_recycle(self.0.0)
    }

    /// All bytes, as read(2) finds them.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        vm::file_read(self.0.0)
    }

    /// ftruncate(2): pages past the new length go, also under live mappings.
    pub fn truncate(&self, len: usize) {
        vm::file_resize(self.0.0, len.div_ceil(vm::PAGE) as u64);
    }
}

impl Api {
    /// A file of `len` zeros.
    #[must_use]
    pub fn file(&self, len: usize) -> File {
        File(Rc::new(Vnode(vm::file_create(
            len.div_ceil(vm::PAGE) as u64
        ))))
    }

    /// A shared-memory object of `len` bytes, zeroed.
    #[must_use]
    pub fn shm(&self, len: usize) -> ShmObject {
        ShmObject(Rc::new(Shm(vm::shm_create(len.div_ceil(vm::PAGE) as u64))))
    }

    /// Pages wired by drivers now.
    #[must_use]
    pub fn wired_pages(&self) -> usize {
        vm::wired_pages()
    }
}

fn space(p: &Proc) -> Kp<sys::vmspace> {
    Kp::new(p.p.p_vmspace)
}

/// mlock(2) for a process, under its RLIMIT_MEMLOCK.
pub(crate) fn mlock(p: Kp<sys::proc_>, va: u64, len: usize) -> Sys<()> {
    let limit = with_state(p, |s| s.memlock);
    vm::mlock(Kp::new(p.p_vmspace), va, len, limit)
}

/// `RLIM_INFINITY`.
const RLIM_INFINITY: u64 = i64::MAX as u64;

mod c {
    use super::*;

    /// `lim_cur` of a thread's process: RLIMIT_MEMLOCK and RLIMIT_NOFILE; no other limit is set.
    pub(super) extern "C" fn lim_cur(td: Kp<sys::thread>, which: i32) -> u64 {
        lim_cur_proc(Kp::new(td.td_proc), which)
    }
    pub(super) extern "C" fn lim_cur_proc(p: Kp<sys::proc_>, which: i32) -> u64 {
        if !crate::proc::process::is_user(p) {
            return RLIM_INFINITY;
        }
        with_state(p, |s| match which as u32 {
            sys::RLIMIT_MEMLOCK => s.memlock.min(RLIM_INFINITY),
            sys::RLIMIT_NOFILE => s.nofile as u64,
            _ => RLIM_INFINITY,
        })
    }
}

crate::exports! {
    "lim_cur" => c::lim_cur,
    "lim_cur_proc" => c::lim_cur_proc,
}

impl Proc {
    /// Anonymous private mapping; never next to another mapping.
    ///
    /// # Errors
    /// EINVAL for length 0.
    pub fn mmap(&self, len: usize, prot: Prot) -> Sys<UserVa> {
        self.call(|| vm::mmap_anon(space(self), None, len, prot, false))
    }

    /// Anonymous mapping that fork(2) shares.
    ///
    /// # Errors
    /// EINVAL for length 0.
    pub fn mmap_shared(&self, len: usize, prot: Prot) -> Sys<UserVa> {
        self.call(|| vm::mmap_anon(space(self), None, len, prot, true))
    }

    /// MAP_FIXED: replaces what is mapped there.
    ///
    /// # Errors
    /// EINVAL for a misaligned or impossible range.
    pub fn mmap_fixed(&self, va: UserVa, len: usize, prot: Prot) -> Sys<UserVa> {
        self.call(|| vm::mmap_anon(space(self), Some(va), len, prot, false))
    }

    /// Maps a shared-memory object; a private mapping copies on write.
    ///
    /// # Errors
    /// EINVAL for a misaligned offset or length 0.
    pub fn mmap_object(
        &self,
        obj: &ShmObject,
        off: usize,
        len: usize,
        prot: Prot,
        shared: bool,
    ) -> Sys<UserVa> {
        self.call(|| vm::mmap_object(space(self), obj.0.0, off, len, prot, shared))
    }

    /// Maps a file from its start; a private mapping copies on write.
    ///
    /// # Errors
    /// EINVAL for length 0.
    pub fn mmap_file(&self, file: &File, len: usize, prot: Prot, shared: bool) -> Sys<UserVa> {
        self.call(|| vm::mmap_file(space(self), file.0.0, len, prot, shared))
    }

    /// munmap(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn munmap(&self, va: UserVa, len: usize) -> Sys<()> {
        self.call(|| vm::munmap(space(self), va, len))
    }

    /// mprotect(2).
    ///
    /// # Errors
    /// EINVAL, ENOMEM where nothing is mapped.
    pub fn mprotect(&self, va: UserVa, len: usize, prot: Prot) -> Sys<()> {
        self.call(|| vm::mprotect(space(self), va, len, prot))
    }

    /// mlock(2).
    ///
    /// # Errors
    /// ENOMEM over RLIMIT_MEMLOCK or where nothing is mapped.
    pub fn mlock(&self, va: UserVa, len: usize) -> Sys<()> {
        self.call(|| mlock(self.p, va, len))
    }

    /// munlock(2).
    ///
    /// # Errors
    /// ENOMEM where nothing is mapped.
    pub fn munlock(&self, va: UserVa, len: usize) -> Sys<()> {
        self.call(|| vm::munlock(space(self), va, len))
    }

    /// msync(2).
    pub fn msync(&self, va: UserVa, len: usize) {
        self.call(|| vm::clean(space(self), va, len));
    }

    /// The generation of the map (`vm_map.timestamp`).
    #[must_use]
    pub fn map_timestamp(&self) -> u32 {
        vm::timestamp(space(self))
    }

    /// Is the page at `va` dirty? `None` when it is not resident.
    #[must_use]
    pub fn page_dirty(&self, va: UserVa) -> Option<bool> {
        vm::page_dirty(space(self), va)
    }

    /// Physical address behind `va`; `None` when it is not resident.
    #[must_use]
    pub fn phys_of(&self, va: UserVa) -> Option<u64> {
        vm::phys_of(space(self), va)
    }

    /// Loads from the program's memory, as its instructions would.
    ///
    /// # Errors
    /// EFAULT where the program would get SIGSEGV.
    pub fn load(&self, va: UserVa, buf: &mut [u8]) -> Sys<()> {
        let mut done = 0;
        vm::access(space(self), va, buf.len(), false, |addr, n| {
            buf[done..done + n].copy_from_slice(bytes(addr as *const u8, n));
            done += n;
        })
    }

    /// Stores to the program's memory, as its instructions would.
    ///
    /// # Errors
    /// EFAULT where the program would get SIGSEGV.
    pub fn store(&self, va: UserVa, data: &[u8]) -> Sys<()> {
        let mut done = 0;
        vm::access(space(self), va, data.len(), true, |addr, n| {
            bytes_mut(addr as *mut u8, n).copy_from_slice(&data[done..done + n]);
            done += n;
        })
    }

    /// `len` bytes at `va`.
    ///
    /// # Panics
    /// On a fault.
    #[must_use]
    pub fn load_vec(&self, va: UserVa, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        self.load(va, &mut buf).expect("readable memory");
        buf
    }

    /// Stores `len` times `byte`.
    ///
    /// # Errors
    /// EFAULT.
    pub fn fill(&self, va: UserVa, len: usize, byte: u8) -> Sys<()> {
        vm::access(space(self), va, len, true, |addr, n| {
            bytes_mut(addr as *mut u8, n).fill(byte)
        })
    }

    /// A fresh mapping that holds `data`.
    ///
    /// # Panics
    /// When there is no memory.
    #[must_use]
    pub fn alloc(&self, data: &[u8]) -> UserVa {
        let va = self.mmap(data.len().max(1), Prot::RW).expect("memory");
        self.store(va, data).expect("a fresh mapping is writable");
        va
    }

    /// A scratch buffer of at least `len` bytes from the ones set aside, or a new one.
    pub(crate) fn scratch(&self, len: usize) -> (UserVa, usize) {
        let old = with_state(self.p, |s| {
            let i = s.scratch.iter().position(|b| b.1 >= len)?;
            Some(s.scratch.swap_remove(i))
        });
        old.unwrap_or_else(|| {
            let len = len.next_multiple_of(vm::PAGE);
            (self.mmap(len, Prot::RW).expect("scratch memory"), len)
        })
    }

    pub(crate) fn scratch_back(&self, b: (UserVa, usize)) {
        with_state(self.p, |s| s.scratch.push(b));
    }
}
