//! `Kp`: a pointer as the kernel's C code hands it about.

use std::ops::{Deref, DerefMut};

/// A pointer into kernel memory whose pointee is reached like a reference.
///
/// A kernel trusts the pointers its own code passes; so does this one. What keeps the trust
/// honest is the simulated machine: a null or misaligned pointer is a ukern panic here, an
/// unmapped one faults and [`crate::trap`] turns the fault into a ukern panic, and freed memory is
/// poisoned. Entry points for module code take `Kp<T>` in their C signature where NULL is not allowed.
#[repr(transparent)]
pub struct Kp<T>(*mut T);

impl<T> std::fmt::Debug for Kp<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:p}", self.0)
    }
}

impl<T> Clone for Kp<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Kp<T> {}
impl<T> PartialEq for Kp<T> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}
impl<T> Eq for Kp<T> {}

impl<T> Kp<T> {
    /// From a pointer the kernel interface promises to be valid (or NULL).
    #[must_use]
    #[inline]
    pub fn new(p: *mut T) -> Self {
        Kp(p)
    }

    /// From a pointer to const.
    #[must_use]
    #[inline]
    pub fn from_const(p: *const T) -> Self {
        Kp(p.cast_mut())
    }

    /// `None` for NULL.
    #[must_use]
    #[inline]
    pub fn opt(p: *mut T) -> Option<Self> {
        if p.is_null() { None } else { Some(Kp(p)) }
    }

    /// The bare pointer.
    #[must_use]
    #[inline]
    pub fn ptr(self) -> *mut T {
        self.0
    }

    /// The address as a number.
    #[must_use]
    #[inline]
    pub fn addr(self) -> usize {
        self.0 as usize
    }

    /// Is it NULL?
    #[must_use]
    #[inline]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    #[inline]
    #[track_caller]
    fn check(self) {
        if self.0.is_null() || !self.0.is_aligned() {
            let at = std::panic::Location::caller();
            crate::kpanic!(
                "bad pointer {:p} to {} ({at})",
                self.0,
                std::any::type_name::<T>()
            );
        }
    }
}

impl<T> Deref for Kp<T> {
    type Target = T;
    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        self.check();
        // SAFETY: kernel code's promise, see the type; one host thread, short borrow.
        unsafe { &*self.0 }
    }
}

impl<T> DerefMut for Kp<T> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        self.check();
        // SAFETY: kernel code's promise, see the type; one host thread, short borrow.
        unsafe { &mut *self.0 }
    }
}

/// A zeroed `T` on the host's heap, for C structures of the kernel's own.
///
/// # Safety
/// All zeroes must be a valid `T`, as it is for plain C data.
#[must_use]
pub(crate) unsafe fn zeroed_box<T>() -> Box<T> {
    let mut b = Box::<T>::new_uninit();
    // SAFETY: the box has room for one `T`.
    unsafe { b.as_mut_ptr().write_bytes(0, 1) };
    // SAFETY: zeroes are valid by the caller's promise.
    unsafe { b.assume_init() }
}

/// The bytes `[p, p + len)` of kernel memory.
#[must_use]
#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "kernel pointers are trusted, see `Kp`"
)]
pub fn bytes<'a>(p: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    if p.is_null() {
        crate::kpanic!("null pointer with length {len}");
    }
    // SAFETY: kernel code's promise, see `Kp`.
    unsafe { std::slice::from_raw_parts(p, len) }
}

/// The bytes `[p, p + len)` of kernel memory, writable.
#[must_use]
#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "kernel pointers are trusted, see `Kp`"
)]
pub fn bytes_mut<'a>(p: *mut u8, len: usize) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    if p.is_null() {
        crate::kpanic!("null pointer with length {len}");
    }
    // SAFETY: kernel code's promise, see `Kp`.
    unsafe { std::slice::from_raw_parts_mut(p, len) }
}

/// A C string of the kernel as text; NULL reads "(null)".
#[must_use]
#[expect(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "kernel pointers are trusted, see `Kp`"
)]
pub fn cstr(p: *const std::ffi::c_char) -> String {
    if p.is_null() {
        return "(null)".to_string();
    }
    // SAFETY: kernel code's promise: a NUL ends it.
    let c = unsafe { std::ffi::CStr::from_ptr(p) };
    c.to_string_lossy().into_owned()
}

/// Reads a `T` at an address, of any alignment.
#[must_use]
pub fn peek<T: Copy>(addr: usize) -> T {
    // SAFETY: kernel code's promise, see `Kp`.
    unsafe { std::ptr::read_unaligned(addr as *const T) }
}

/// Writes a `T` at an address, of any alignment.
pub fn poke<T: Copy>(addr: usize, value: T) {
    // SAFETY: kernel code's promise, see `Kp`.
    unsafe { std::ptr::write_unaligned(addr as *mut T, value) }
}
