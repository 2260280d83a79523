//! Address spaces: maps, objects, faults, held pages.
//!
//! Each process has a real `struct vmspace`, whose `vm_map.timestamp` and `vm_refcnt` modules
//! read; the entries behind it are in [`map`] and the pages in [`object`]. Programs reach their
//! memory only through [`access`]: by what the space's [`pmap`] has, else by a fault, which checks
//! protection and copies on write.
//!
//! | simpler here than there | FreeBSD |
//! |---|---|
//! | a shadow chain is never collapsed; the last user of an anonymous object writes to it without a shadow | `vm_object_collapse`, `vm_object_shadow` |
//! | no superpages: each page has its own entry, so none is promoted or demoted | `pmap_promote_pde`, `pmap_demote_pde` |
//! | nothing is paged out, no entry of a pmap goes by itself | `vm_pageout_scan`, `vm_swapout_map_deactivate_pages` |
//! | a file is written back in one step, so no page is busy meanwhile and no store falls into it | `vm_object_page_clean`, `vnode_pager_undirty_pages` |
//! | msync of a part looks at single pages; the object counts as clean only when all of it was | `vm_object_sync` |
//! | cleanliness is `generation` and `cleangeneration`, as from 13 on; 12 has OBJ_MIGHTBEDIRTY, set and cleared at the same places | `vm_object_set_writeable_dirty` |
//! | memory of a file is whole pages | `vnode_pager_setsize`, which zeroes the rest of the last page |
//! | no `minherit`, no `madvise`, no guard entries, no stack that grows | `vm_map_inherit`, `vm_map_madvise`, `vm_map_growstack` |

mod copy;
mod file;
mod hold;
mod map;
mod object;
mod page;
mod pmap;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::global::Global;
use crate::kmem;
use crate::kp::Kp;
use crate::ksym::{Export, KData};
use crate::proc::{Errno, Prot, Sys};
use crate::{kpanic, locks, sched, sys};

pub(crate) use copy::{copyin, copyout, uiomove};
pub(crate) use file::FileId;
pub(crate) use object::{Kind, ObjId};
pub use page::PAGE;

use map::Map;
use object::Objects;

#[derive(Default)]
struct Vm {
    maps: BTreeMap<usize, Map>,
    objs: Objects,
}

static VM: Global<Vm> = Global::new("address spaces");
static VMSPACE0: Global<Kp<sys::vmspace>> = Global::new("vmspace0");

static M_VMSPACE: KData = KData::of::<sys::malloc_type>("ukern_M_VMSPACE").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"vmspace".as_ptr();
});
/// `physmem`: pages of physical memory.
static PHYSMEM: KData = KData::of::<i64>("physmem")
    .with_init(|p| crate::kp::poke(p as usize, (1_i64 << 30) / PAGE as i64));

pub(crate) fn exports() -> Vec<&'static [Export]> {
    vec![hold::symbols(), copy::symbols()]
}

pub(crate) fn data() -> Vec<&'static [&'static KData]> {
    static OWN: &[&KData] = &[&M_VMSPACE, &PHYSMEM];
    vec![OWN]
}

pub(crate) fn boot() {
    page::boot();
    VM.init(Vm::default());
    VMSPACE0.init(new_space(PAGE as u64));
    let mut p0 = Kp::new(crate::proc0());
    p0.p_vmspace = vmspace0().ptr();
}

pub(crate) fn quiesce() {
    release(vmspace0());
    VMSPACE0.take();
}

/// The kernel processes' own address space.
pub(crate) fn vmspace0() -> Kp<sys::vmspace> {
    VMSPACE0.with(|v| *v)
}

pub(crate) fn shutdown() {
    VM.take();
    VMSPACE0.take();
    page::shutdown();
}

/// What is left, one line per kind.
pub(crate) fn leaks() -> Vec<String> {
    let mut out = Vec::new();
    let (spaces, objs) = VM.with(|v| (v.maps.len(), v.objs.count()));
    if spaces > 0 {
        out.push(format!(
            "{spaces} address spaces (vmspace_free missing, or a process still runs)"
        ));
    }
    if objs > 0 {
        out.push(format!("{objs} memory objects"));
    }
    if page::held() > 0 {
        out.push(format!("{} wired pages", page::held()));
    }
    let frames = crate::phys::frames_in_use();
    if frames > 0 {
        out.push(format!("{frames} user page frames"));
    }
    out
}

/// Pages wired by drivers.
pub(crate) fn wired_pages() -> usize {
    page::held()
}

/// A fresh, empty address space with one reference.
pub(crate) fn new_space(base: u64) -> Kp<sys::vmspace> {
    let mut vm: Kp<sys::vmspace> = kmem::alloc_zeroed(&M_VMSPACE);
    vm.vm_refcnt = 1;
    let mut m = Kp::new(&raw mut vm.vm_map);
    // header.end is the lowest, header.start the highest address.
    m.header.end = map::MIN_USER;
    m.header.start = map::MAX_USER;
    m.timestamp = 1;
    locks::sx_init(lock_of(vm), c"vm map (user)".as_ptr(), sys::SX_DUPOK);
    VM.with(|v| v.maps.insert(vm.addr(), Map::new(base)));
    vm
}

/// The vmspace around a `vm_map_t`.
fn space_of_map(m: Kp<sys::vm_map>) -> Kp<sys::vmspace> {
    Kp::new(m.ptr().cast())
}
const _: () = assert!(std::mem::offset_of!(sys::vmspace, vm_map) == 0);

/// Runs `f` on the map of a space and publishes the generation it leaves.
fn with_map<R>(space: Kp<sys::vmspace>, f: impl FnOnce(&mut Map, &mut Objects) -> R) -> R {
    let mut vm = space;
    let (r, ts) = match VM.with(|v| {
        let map = v.maps.get_mut(&space.addr())?;
        let r = f(map, &mut v.objs);
        Some((r, map.timestamp))
    }) {
        Some(x) => x,
        None => kpanic!("{:#x} is no vmspace", space.addr()),
    };
    vm.vm_map.timestamp = ts;
    r
}

fn lock_of(space: Kp<sys::vmspace>) -> Kp<sys::sx> {
    let mut space = space;
    Kp::new((&raw mut space.vm_map.__bindgen_anon_1).cast())
}

/// `vm_map_lock_read`: waits for who changes the map.
fn lock_read(space: Kp<sys::vmspace>) {
    locks::sx_slock(lock_of(space));
}

/// `vm_map_unlock_read`.
fn unlock_read(space: Kp<sys::vmspace>) {
    locks::sx_sunlock(lock_of(space));
}

/// Runs `f` under the map's write lock. The timestamp has moved before anything has changed, and
/// whoever takes no lock may look in between.
fn change<R>(space: Kp<sys::vmspace>, f: impl FnOnce(&mut Map, &mut Objects) -> R) -> R {
    let lock = sched::on_thread().then(|| lock_of(space));
    if let Some(l) = lock {
        locks::sx_xlock(l);
    }
    with_map(space, |m, _| m.bump());
    if lock.is_some() {
        sched::yield_point();
    }
    let r = with_map(space, f);
    if let Some(l) = lock {
        locks::sx_xunlock(l);
    }
    r
}

/// `vmspace_acquire_ref` and the like.
pub(crate) fn acquire(mut vm: Kp<sys::vmspace>) {
    if vm.vm_refcnt == 0 {
        kpanic!("reference on a dead vmspace");
    }
    vm.vm_refcnt += 1;
}

/// `vmspace_free`: may sleep.
pub(crate) fn release(mut vm: Kp<sys::vmspace>) {
    if vm.vm_refcnt == 0 {
        kpanic!("vmspace_free: no references left");
    }
    vm.vm_refcnt -= 1;
    if vm.vm_refcnt > 0 {
        return;
    }
    with_map(vm, Map::clear);
    VM.with(|v| v.maps.remove(&vm.addr()));
    locks::sx_destroy(lock_of(vm));
    kmem::free_obj(vm, &M_VMSPACE);
}

/// The child's space for fork(2).
pub(crate) fn fork(parent: Kp<sys::vmspace>) -> Sys<Kp<sys::vmspace>> {
    let child_map = change(parent, Map::fork)?;
    let mut vm = new_space(PAGE as u64);
    vm.vm_map.timestamp = child_map.timestamp;
    VM.with(|v| v.maps.insert(vm.addr(), child_map));
    Ok(vm)
}

/// `MAP_ANON` mapping.
pub(crate) fn mmap_anon(
    vm: Kp<sys::vmspace>,
    at: Option<u64>,
    len: usize,
    prot: Prot,
    shared: bool,
) -> Sys<u64> {
    change(vm, |m, o| m.mmap_anon(o, at, len as u64, prot, shared))
}

/// Mapping of a shared-memory object; private ones copy on write.
pub(crate) fn mmap_object(
    vm: Kp<sys::vmspace>,
    obj: ObjId,
    off: usize,
    len: usize,
    prot: Prot,
    shared: bool,
) -> Sys<u64> {
    if !off.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    change(vm, |m, o| {
        o.share(obj);
        m.insert(
            o,
            None,
            len as u64,
            prot,
            obj,
            (off / PAGE) as u64,
            !shared,
            shared,
        )
    })
}

pub(crate) fn munmap(vm: Kp<sys::vmspace>, va: u64, len: usize) -> Sys<()> {
    change(vm, |m, o| m.munmap(o, va, len as u64))
}

pub(crate) fn mprotect(vm: Kp<sys::vmspace>, va: u64, len: usize, prot: Prot) -> Sys<()> {
    change(vm, |m, o| m.mprotect(o, va, len as u64, prot))
}

pub(crate) fn mlock(vm: Kp<sys::vmspace>, va: u64, len: usize, limit: u64) -> Sys<()> {
    change(vm, |m, o| m.mlock(o, va, len as u64, limit))
}

pub(crate) fn munlock(vm: Kp<sys::vmspace>, va: u64, len: usize) -> Sys<()> {
    change(vm, |m, o| m.munlock(o, va, len as u64))
}

pub(crate) fn timestamp(vm: Kp<sys::vmspace>) -> u32 {
    vm.vm_map.timestamp
}

pub(crate) fn shm_create(pages: u64) -> ObjId {
    VM.with(|v| v.objs.create(Kind::Shm(pages)))
}

pub(crate) fn shm_resize(obj: ObjId, pages: u64) {
    VM.with(|v| v.objs.resize(obj, pages, pmaps(&mut v.maps)));
}

fn pmaps(maps: &mut BTreeMap<usize, Map>) -> impl Iterator<Item = &mut pmap::Pmap> {
    maps.values_mut().map(|m| &mut m.pmap)
}

pub(crate) fn file_create(pages: u64) -> FileId {
    VM.with(|v| v.objs.file_create(pages))
}

pub(crate) fn file_close(f: FileId) {
    if VM.is_set() {
        VM.with(|v| v.objs.file_close(f));
    }
}

/// fsync(2), or the syncer's turn.
pub(crate) fn file_sync(f: FileId) {
    VM.with(|v| v.objs.file_sync(f, pmaps(&mut v.maps)));
}

/// Reclaim the vnode. False: it is mapped.
pub(crate) fn file_recycle(f: FileId) -> bool {
    VM.with(|v| v.objs.file_recycle(f))
}

/// All bytes, as read(2) has them.
pub(crate) fn file_read(f: FileId) -> Vec<u8> {
    VM.with(|v| v.objs.file_read(f))
}

/// ftruncate(2).
pub(crate) fn file_resize(f: FileId, pages: u64) {
    VM.with(|v| v.objs.file_resize(f, pages, pmaps(&mut v.maps)));
}

/// Mapping of a file; private ones copy on write.
pub(crate) fn mmap_file(
    vm: Kp<sys::vmspace>,
    file: FileId,
    len: usize,
    prot: Prot,
    shared: bool,
) -> Sys<u64> {
    change(vm, |m, o| {
        let obj = o.file_object(file);
        m.insert(o, None, len as u64, prot, obj, 0, !shared, shared)
    })
}

pub(crate) fn shm_release(obj: ObjId) {
    // At the very end of a test the kernel may be gone before the handle.
    if VM.is_set() {
        VM.with(|v| v.objs.release(obj));
    }
}

/// The page at `va` for an access; faults it in.
pub(crate) fn fault(vm: Kp<sys::vmspace>, va: u64, write: bool) -> Sys<page::Page> {
    if !sched::on_thread() {
        return with_map(vm, |m, o| m.fault(o, va, write));
    }
    lock_read(vm);
    let r = with_map(vm, |m, o| m.fault(o, va, write));
    unlock_read(vm);
    r
}

/// Walks `[va, va + len)` page by page: `f` gets the kernel address and length of each piece.
/// May sleep between pages unless nothing needs faulting.
///
/// # Errors
/// EFAULT at the first byte that cannot be accessed; earlier pieces were handed out.
pub(crate) fn access(
    vm: Kp<sys::vmspace>,
    va: u64,
    len: usize,
    write: bool,
    mut f: impl FnMut(usize, usize),
) -> Sys<()> {
    let mut at = va;
    let mut left = len;
    while left > 0 {
        let off = (at % PAGE as u64) as usize;
        let n = left.min(PAGE - off);
        if !(map::MIN_USER..map::MAX_USER).contains(&at) {
            return Err(Errno::EFAULT);
        }
        let page = match resident(vm, at, write) {
            Some(p) => p,
            None => {
                if no_faulting() {
                    return Err(Errno::EFAULT);
                }
                if sched::on_thread() {
                    sched::check_may_sleep("page fault");
                    sched::yield_point();
                }
                fault(vm, at, write)?
            }
        };
        if write {
            page::dirty(page);
        }
        f(page.phys_addr as usize + off, n);
        at += n as u64;
        left -= n;
    }
    Ok(())
}

fn resident(vm: Kp<sys::vmspace>, va: u64, write: bool) -> Option<page::Page> {
    with_map(vm, |m, _| m.resident(va, write))
}

/// `TDP_NOFAULTING` is set on the running thread.
fn no_faulting() -> bool {
    sched::current_thread().td_pflags as u32 & sys::TDP_NOFAULTING != 0
}

/// The running thread's address space.
pub(crate) fn current() -> Kp<sys::vmspace> {
    let td = sched::current_thread();
    Kp::new(Kp::new(td.td_proc).p_vmspace)
}

/// Does the page under `va` count as dirty? For tests: nothing is brought in.
pub(crate) fn page_dirty(vm: Kp<sys::vmspace>, va: u64) -> Option<bool> {
    resident(vm, va, false).map(page::is_dirty)
}

/// msync(2): writes back what file pages of a range are dirty. Pages that have no file only
/// count as clean, as if they had been swapped out and in.
pub(crate) fn clean(vm: Kp<sys::vmspace>, va: u64, len: usize) {
    let mut at = va & !(PAGE as u64 - 1);
    while at < va + len as u64 {
        let found = with_map(vm, |m, _| m.lookup(at).map(|(s, e)| (e.obj, e.off, s)));
        if let Some((obj, off, start)) = found {
            let i = off + (at - start) / PAGE as u64;
            VM.with(|v| v.objs.clean(obj, i..i + 1, pmaps(&mut v.maps)));
        }
        match resident(vm, at, false) {
            Some(mut p) if !page::of_file(p) => p.dirty = 0,
            _ => {}
        }
        at += PAGE as u64;
    }
}

/// Physical address behind `va`, for tests: nothing is brought in.
pub(crate) fn phys_of(vm: Kp<sys::vmspace>, va: u64) -> Option<u64> {
    resident(vm, va, false).map(|p| p.phys_addr + va % PAGE as u64)
}
