//! User pages: the `struct vm_page` side of a frame.
//!
//! `ref_count` is what FreeBSD's is: `VPRC_OBJREF` while an object holds the page, plus one per
//! wiring. The frame goes back when both are gone.

use crate::global::Global;
use crate::kp::{Kp, bytes, bytes_mut};
use crate::{kpanic, phys, sys};

/// Bytes of a page.
pub const PAGE: usize = crate::lowmem::PAGE;

pub(crate) type Page = Kp<sys::vm_page>;

const OBJREF: u32 = sys::VPRC_OBJREF;
/// `VM_PAGE_BITS_ALL`.
const DIRTY_ALL: u8 = 0xff;

/// References taken by vm_fault_quick_hold_pages and vm_page_wire, not by mlock(2).
static HELD: Global<usize> = Global::new("held pages");

pub(crate) fn boot() {
    HELD.init(0);
}

pub(crate) fn shutdown() {
    HELD.take();
}

/// Wirings by drivers there are now.
pub(crate) fn held() -> usize {
    HELD.with(|h| *h)
}

/// A page for an object, poisoned; `None` when memory is used up.
pub(crate) fn alloc_user() -> Option<Page> {
    let pa = phys::alloc_frame(false)?;
    let mut p = Kp::new(phys::page_of(pa));
    p.ref_count = OBJREF;
    p.valid = DIRTY_ALL;
    Some(p)
}

pub(crate) fn bytes_of<'a>(p: Page) -> &'a [u8] {
    mem(p)
}

fn mem<'a>(p: Page) -> &'a mut [u8] {
    bytes_mut(p.phys_addr as *mut u8, PAGE)
}

pub(crate) fn zero(p: Page) {
    mem(p).fill(0);
}

pub(crate) fn copy(to: Page, from: Page) {
    mem(to).copy_from_slice(bytes(from.phys_addr as *const u8, PAGE));
}

/// `vm_page_dirty`, with the assertion an INVARIANTS kernel makes.
pub(crate) fn dirty(mut p: Page) {
    if !is_valid(p) {
        kpanic!("vm_page_dirty: page {:#x} is invalid", p.phys_addr);
    }
    p.dirty = DIRTY_ALL;
}

/// `vm_page_all_valid`.
pub(crate) fn is_valid(p: Page) -> bool {
    p.valid == DIRTY_ALL
}

/// What a truncation does to a wired page: its contents are void, and it stays.
pub(crate) fn invalidate(mut p: Page) {
    (p.valid, p.dirty) = (0, 0);
}

/// The fault on an invalid page: what backs it, or zeros.
pub(crate) fn refill(mut p: Page, from: Option<&[u8]>) {
    match from {
        Some(b) => mem(p).copy_from_slice(b),
        None => zero(p),
    }
    p.valid = DIRTY_ALL;
}

/// It lies in the object of a file.
pub(crate) fn of_file(p: Page) -> bool {
    Kp::opt(p.object).is_some_and(|o| u32::from(o.type_) == sys::OBJT_VNODE)
}

pub(crate) fn is_dirty(p: Page) -> bool {
    p.dirty == DIRTY_ALL
}

pub(crate) fn wirings(p: Page) -> u32 {
    p.ref_count & !(OBJREF | sys::VPRC_BLOCKED)
}

fn release_if_unused(p: Page) {
    if p.ref_count == 0 {
        phys::free_frame(p.phys_addr as usize);
    }
}

/// The object lets go; a wired page becomes an orphan.
pub(crate) fn drop_object_ref(mut p: Page) {
    if p.ref_count & OBJREF == 0 {
        kpanic!("page {:#x} has no object reference", p.phys_addr);
    }
    p.ref_count &= !OBJREF;
    p.object = std::ptr::null_mut();
    release_if_unused(p);
}

/// mlock's wiring.
pub(crate) fn wire_user(mut p: Page) {
    p.ref_count += 1;
}

/// Undoes [`wire_user`].
pub(crate) fn unwire_user(mut p: Page) {
    if wirings(p) == 0 {
        kpanic!("page {:#x} unwired too often", p.phys_addr);
    }
    p.ref_count -= 1;
    release_if_unused(p);
}

fn check_user(p: Page, what: &str) {
    if p.is_null() {
        kpanic!("{what}: null page");
    }
    if !phys::frame_in_use(phys::pa_of(p.ptr())) {
        kpanic!("{what}: page {:#x} is free", p.phys_addr);
    }
}

/// `vm_page_wire`.
pub(crate) fn wire(mut p: Page) {
    check_user(p, "vm_page_wire");
    p.ref_count += 1;
    HELD.with(|h| *h += 1);
}

/// `vm_page_unwire`.
pub(crate) fn unwire(mut p: Page) {
    check_user(p, "vm_page_unwire");
    if wirings(p) == 0 {
        kpanic!("vm_page_unwire: page {:#x} is not wired", p.phys_addr);
    }
    p.ref_count -= 1;
    if HELD.with(|h| h.checked_sub(1).map(|n| *h = n)).is_none() {
        kpanic!("vm_page_unwire of a wiring mlock(2) made");
    }
    release_if_unused(p);
}
