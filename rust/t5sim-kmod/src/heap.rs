//! The heap: malloc(9), which sleeps until there is memory. The C half never calls Rust under a
//! mutex.

#[cfg(not(test))]
mod global {
    use core::alloc::{GlobalAlloc, Layout};

    use toehold_sys::t5sim::{ts_alloc, ts_free};

    struct Malloc;

    // SAFETY: ts_alloc gives a block of that size and alignment that nobody else has, ts_free
    // takes it back; neither unwinds.
    unsafe impl GlobalAlloc for Malloc {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: an alignment is a power of 2; the caller may sleep, as the crate says.
            unsafe { ts_alloc(layout.size(), layout.align(), 0) }.cast()
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as in alloc.
            unsafe { ts_alloc(layout.size(), layout.align(), 1) }.cast()
        }

        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: the caller got ptr from alloc with this very layout.
            unsafe { ts_free(ptr.cast(), layout.size(), layout.align()) };
        }
    }

    #[global_allocator]
    static MALLOC: Malloc = Malloc;
}
