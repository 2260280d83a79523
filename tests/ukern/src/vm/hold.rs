//! Holding user pages for DMA, and the rest of the vm interface modules use.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kp::{Kp, peek, poke};
use crate::vm::map::{MAX_USER, MIN_USER};
use crate::vm::{self, PAGE, page};
use crate::{kpanic, phys, sched, sys};

/// From <vm/vm.h>, where it carries a cast.
const VM_PROT_WRITE: u8 = 2;

/// Calls of pmap_extract(9) since the process began.
static EXTRACTS: AtomicU64 = AtomicU64::new(0);

impl crate::Api {
    /// Calls of pmap_extract(9), each a walk of a page table under the pmap's lock. Only the
    /// difference of two values means something.
    #[must_use]
    pub fn pmap_extracts(&self) -> u64 {
        EXTRACTS.load(Ordering::Relaxed)
    }
}

/// `vm_fault_hold_pages`: wires the pages under `[addr, addr + len)`, faulting in what is not
/// there with `prot`. Returns 0 with the count, or an errno with nothing wired. May sleep.
fn hold_pages(
    map: Kp<sys::vm_map>,
    addr: u64,
    len: u64,
    prot: u8,
    ma: *mut *mut sys::vm_page,
    max: c_int,
) -> Result<c_int, i32> {
    let fail = Err(sys::EFAULT as i32);
    if len == 0 {
        return Ok(0);
    }
    sched::check_may_sleep("vm_fault_quick_hold_pages");
    let mask = PAGE as u64 - 1;
    let start = addr & !mask;
    let Some(end) = addr
        .checked_add(len)
        .and_then(|e| e.checked_add(mask))
        .map(|e| e & !mask)
    else {
        return fail;
    };
    if end < start || start < MIN_USER || end > MAX_USER {
        return fail;
    }
    let n = ((end - start) / PAGE as u64) as usize;
    if n > max.max(0) as usize {
        kpanic!("vm_fault_quick_hold_pages: count {n} > max_count {max}");
    }
    let space = vm::space_of_map(map);
    let write = prot & VM_PROT_WRITE != 0;
    for i in 0..n {
        let va = start + (i * PAGE) as u64;
        let found = match vm::resident(space, va, write) {
            Some(p) => Some(p),
            None => {
                // A fault sleeps; other threads run and may change the map.
                sched::yield_point();
                if vm::no_faulting() || crate::fault::hit("vm_fault") {
                    None
                } else {
                    vm::fault(space, va, write).ok()
                }
            }
        };
        let Some(p) = found else {
            for j in 0..i {
                page::unwire(Kp::new(peek(ma as usize + j * size_of::<usize>())));
            }
            return fail;
        };
        page::wire(p);
        if write {
            page::dirty(p);
        }
        poke(ma as usize + i * size_of::<usize>(), p.ptr());
    }
    Ok(n as c_int)
}

mod c {
    use super::*;

    pub(super) extern "C" fn vm_fault_quick_hold_pages(
        map: Kp<sys::vm_map>,
        addr: u64,
        len: u64,
        prot: u8,
        ma: *mut *mut sys::vm_page,
        max: c_int,
    ) -> c_int {
        hold_pages(map, addr, len, prot, ma, max).unwrap_or(-1)
    }
    pub(super) extern "C" fn vm_fault_hold_pages(
        map: Kp<sys::vm_map>,
        addr: u64,
        len: u64,
        prot: u8,
        ma: *mut *mut sys::vm_page,
        max: c_int,
        count: Kp<c_int>,
    ) -> c_int {
        let mut count = count;
        match hold_pages(map, addr, len, prot, ma, max) {
            Ok(n) => {
                *count = n;
                0
            }
            Err(e) => e,
        }
    }
    pub(super) extern "C" fn vm_page_wire(p: Kp<sys::vm_page>) {
        page::wire(p);
    }
    pub(super) extern "C" fn vm_page_unwire(p: Kp<sys::vm_page>, queue: u8) {
        if u32::from(queue) >= sys::PQ_COUNT && u32::from(queue) != sys::PQ_NONE {
            kpanic!("vm_page_unwire: queue {queue}");
        }
        page::unwire(p);
    }
    pub(super) extern "C" fn vm_page_unwire_noq(p: Kp<sys::vm_page>) -> bool {
        page::unwire(p);
        true
    }
    /// From 13 on a hold is a wiring.
    pub(super) extern "C" fn vm_page_unhold_pages(ma: *mut *mut sys::vm_page, count: c_int) {
        for i in 0..count.max(0) as usize {
            page::unwire(Kp::new(peek(ma as usize + i * size_of::<usize>())));
        }
    }
    pub(super) extern "C" fn vm_page_dirty_kbi(p: Kp<sys::vm_page>) {
        page::dirty(p);
    }
    pub(super) extern "C" fn phys_to_vm_page(pa: u64) -> *mut sys::vm_page {
        phys::page_of(pa as usize)
    }
    /// Kernel memory is mapped at its physical address; so is user memory for kernel readers.
    pub(super) extern "C" fn pmap_kextract(va: u64) -> u64 {
        if !phys::contains(va as usize, 1) {
            kpanic!("pmap_kextract({va:#x}): not physical memory");
        }
        va
    }
    /// The physical address that the pmap has for `va`, or 0.
    pub(super) extern "C" fn pmap_extract(pmap: Kp<sys::pmap>, va: u64) -> u64 {
        EXTRACTS.fetch_add(1, Ordering::Relaxed);
        let space = Kp::new((pmap.addr() - std::mem::offset_of!(sys::vmspace, vm_pmap)) as *mut _);
        vm::phys_of(space, va).unwrap_or(0)
    }
    pub(super) extern "C" fn vm_map_lock_read(m: Kp<sys::vm_map>) {
        vm::lock_read(vm::space_of_map(m));
    }
    pub(super) extern "C" fn vm_map_unlock_read(m: Kp<sys::vm_map>) {
        vm::unlock_read(vm::space_of_map(m));
    }
    pub(super) extern "C" fn vmspace_free(v: Kp<sys::vmspace>) {
        sched::check_may_sleep("vmspace_free");
        vm::release(v);
    }
    pub(super) extern "C" fn vmspace_acquire_ref(p: Kp<sys::proc_>) -> *mut sys::vmspace {
        let Some(v) = Kp::opt(p.p_vmspace) else {
            return std::ptr::null_mut();
        };
        vm::acquire(v);
        v.ptr()
    }
    pub(super) extern "C" fn vm_map_max_kbi(m: Kp<sys::vm_map>) -> u64 {
        m.header.start
    }
    pub(super) extern "C" fn vm_map_min_kbi(m: Kp<sys::vm_map>) -> u64 {
        m.header.end
    }
    pub(super) extern "C" fn vm_fault_disable_pagefaults() -> c_int {
        let mut td = sched::current_thread();
        let old = td.td_pflags;
        td.td_pflags |= sys::TDP_NOFAULTING as c_int;
        // What curthread_pflags_set returns: the bits that were set before, and all others.
        old | !(sys::TDP_NOFAULTING as c_int)
    }
    pub(super) extern "C" fn vm_fault_enable_pagefaults(save: c_int) {
        let mut td = sched::current_thread();
        td.td_pflags &= save;
    }
}

crate::exports! {
    "vm_fault_quick_hold_pages" => c::vm_fault_quick_hold_pages,
    "vm_fault_hold_pages" => c::vm_fault_hold_pages,
    "vm_page_wire" => c::vm_page_wire,
    "vm_page_unwire" => c::vm_page_unwire,
    "vm_page_unwire_noq" => c::vm_page_unwire_noq,
    "vm_page_unhold_pages" => c::vm_page_unhold_pages,
    "vm_page_dirty_KBI" => c::vm_page_dirty_kbi,
    "PHYS_TO_VM_PAGE" => c::phys_to_vm_page,
    "pmap_kextract" => c::pmap_kextract,
    "_vm_map_lock_read" => c::vm_map_lock_read,
    "_vm_map_unlock_read" => c::vm_map_unlock_read,
    "pmap_extract" => c::pmap_extract,
    "vmspace_free" => c::vmspace_free,
    "vmspace_acquire_ref" => c::vmspace_acquire_ref,
    "vm_map_max_KBI" => c::vm_map_max_kbi,
    "vm_map_min_KBI" => c::vm_map_min_kbi,
    "vm_fault_disable_pagefaults" => c::vm_fault_disable_pagefaults,
    "vm_fault_enable_pagefaults" => c::vm_fault_enable_pagefaults,
}
