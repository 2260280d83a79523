//! Memory below 2 GB: jump stubs, the kernel's data symbols, and modules.
//!
//! Modules are compiled with `-mcmodel=kernel`, whose R_X86_64_32S and PC32 relocations reach
//! only the same 2 GB. The region is reserved once per process; a boot starts it afresh.
//! Addresses are not handed out twice in one boot, so a call into an unloaded module faults.

use std::sync::OnceLock;

use crate::global::Global;

/// Bytes reserved.
const SIZE: usize = 1 << 30;
/// Bytes of a page.
pub const PAGE: usize = 4096;

struct Low {
    next: usize,
    end: usize,
}

static LOW: Global<Low> = Global::new("low memory");

/// Rounds up to whole pages.
#[must_use]
pub fn page_up(n: usize) -> usize {
    n.next_multiple_of(PAGE)
}

fn reserve() -> usize {
    static BASE: OnceLock<usize> = OnceLock::new();
    *BASE.get_or_init(|| {
        let mut hint = 0x1000_0000_usize;
        while hint + SIZE < 0x7fff_0000 {
            // SAFETY: FIXED_NOREPLACE never touches an existing mapping.
            let p = unsafe {
                libc::mmap(
                    hint as *mut libc::c_void,
                    SIZE,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE
                        | libc::MAP_ANONYMOUS
                        | libc::MAP_NORESERVE
                        | libc::MAP_FIXED_NOREPLACE,
                    -1,
                    0,
                )
            };
            if p as usize == hint {
                return hint;
            }
            hint += 0x0100_0000;
        }
        panic!("ukern: no free gigabyte below 2 GB of address space");
    })
}

/// What memory may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Perm {
    /// No access.
    None,
    /// Loads only.
    R,
    /// Loads and stores.
    Rw,
    /// Loads and execution.
    Rx,
}

/// Sets the protection of whole pages.
pub fn protect(addr: usize, len: usize, perm: Perm) {
    let prot = match perm {
        Perm::None => libc::PROT_NONE,
        Perm::R => libc::PROT_READ,
        Perm::Rw => libc::PROT_READ | libc::PROT_WRITE,
        Perm::Rx => libc::PROT_READ | libc::PROT_EXEC,
    };
    // SAFETY: the range lies in the region this file reserved; callers own their part of it.
    let rc = unsafe { libc::mprotect(addr as *mut libc::c_void, page_up(len), prot) };
    assert_eq!(rc, 0, "mprotect of {addr:#x}+{len:#x}");
}

/// Starts the region afresh.
pub(crate) fn boot() {
    let base = reserve();
    // SAFETY: replaces our own reservation by an empty one; nothing of an older kernel runs.
    let p = unsafe {
        libc::mmap(
            base as *mut libc::c_void,
            SIZE,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    assert_eq!(p as usize, base, "remapping low memory");
    LOW.init(Low {
        next: base,
        end: base + SIZE,
    });
}

/// Zeroed, writable whole pages with an unmapped page behind them; `None` when the region is used up.
#[must_use]
pub fn alloc(len: usize) -> Option<usize> {
    let len = page_up(len.max(1));
    let addr = LOW.with(|l| {
        if l.next + len + PAGE > l.end {
            return None;
        }
        let a = l.next;
        l.next += len + PAGE;
        Some(a)
    })?;
    protect(addr, len, Perm::Rw);
    Some(addr)
}

/// Gives pages back; any later access faults.
pub fn free(addr: usize, len: usize) {
    protect(addr, len, Perm::None);
    // SAFETY: the pages are the caller's and now unreachable.
    unsafe { libc::madvise(addr as *mut libc::c_void, page_up(len), libc::MADV_DONTNEED) };
}
