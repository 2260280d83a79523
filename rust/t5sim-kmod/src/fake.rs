//! A C half for tests: physical memory is an array of two pages, CPLs land in a list.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ffi::c_void;

use toehold_sys::t5sim::ts_sink;

/// Bytes of "physical memory"; addresses start at [`BASE`].
pub(crate) const SIZE: usize = 8192;
pub(crate) const BASE: u64 = 0x1000;

/// A CPL as it was delivered: queue, CPL, payload.
pub(crate) type Cpl = (u16, Vec<u8>, Vec<u8>);

thread_local! {
    pub(crate) static MEMORY: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
    pub(crate) static CPLS: RefCell<Vec<Cpl>> = const { RefCell::new(Vec::new()) };
}

fn range(pa: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let from = usize::try_from(pa.checked_sub(BASE)?).ok()?;
    let to = from.checked_add(len)?;
    (to <= SIZE).then_some(from..to)
}

/// # Safety
/// As `shim/t5sim/t5sim.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn ts_dma_read(pa: u64, buf: *mut u8, len: usize) -> i32 {
    let Some(r) = range(pa, len) else { return 14 };
    MEMORY.with_borrow(|m| {
        // SAFETY: the caller's buffer has len bytes; the range lies in the array.
        unsafe { buf.copy_from_nonoverlapping(m[r].as_ptr(), len) };
    });
    0
}

/// # Safety
/// As `shim/t5sim/t5sim.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn ts_dma_write(pa: u64, buf: *const u8, len: usize) -> i32 {
    let Some(r) = range(pa, len) else { return 14 };
    MEMORY.with_borrow_mut(|m| {
        // SAFETY: the caller's buffer has len bytes; the range lies in the array.
        unsafe { buf.copy_to_nonoverlapping(m[r].as_mut_ptr(), len) };
    });
    0
}

/// # Safety
/// As `shim/t5sim/t5sim.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn ts_cpl(
    _: *mut ts_sink,
    rxq: u16,
    cpl: *const u8,
    len: usize,
    payload: *const u8,
    plen: usize,
) {
    // SAFETY: the caller gives len bytes.
    let cpl = unsafe { std::slice::from_raw_parts(cpl, len) };
    // SAFETY: the caller gives plen bytes.
    let payload = unsafe { std::slice::from_raw_parts(payload, plen) };
    CPLS.with_borrow_mut(|c| c.push((rxq, cpl.to_vec(), payload.to_vec())));
}

/// # Safety
/// As `shim/t5sim/t5sim.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn ts_alloc(size: usize, align: usize, zero: i32) -> *mut c_void {
    let layout = Layout::from_size_align(size.max(1), align).unwrap();
    let p = if zero != 0 {
        // SAFETY: the size is not 0.
        unsafe { alloc_zeroed(layout) }
    } else {
        // SAFETY: the size is not 0.
        unsafe { alloc(layout) }
    };
    p.cast()
}

/// # Safety
/// As `shim/t5sim/t5sim.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn ts_free(p: *mut c_void, size: usize, align: usize) {
    let layout = Layout::from_size_align(size.max(1), align).unwrap();
    // SAFETY: the caller got p from ts_alloc with this layout.
    unsafe { dealloc(p.cast(), layout) };
}
