//! Kernel memory: boxes, slices and counted references, each allocation fallible.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{Error, sys};

/// How an allocation may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Fail rather than wait: any context.
    No,
    /// Sleep until there is memory: no lock held.
    Ok,
}

/// Room for one `T`, all zero. malloc(9) aligns to 16 bytes and more.
fn raw<T>(n: usize, wait: Wait) -> Result<NonNull<T>, Error> {
    const { assert!(align_of::<T>() <= 16, "malloc(9) does not align that far") };
    let size = size_of::<T>().checked_mul(n).ok_or(Error::ENOMEM)?;
    let flags = match wait {
        Wait::No => 0,
        Wait::Ok => sys::TH_WAITOK,
    };
    // SAFETY: th_malloc() takes any size; TH_WAITOK is the caller's promise that it may sleep.
    let p = unsafe { sys::th_malloc(size.max(1), flags) };
    NonNull::new(p.cast()).ok_or(Error::ENOMEM)
}

/// An owned value in kernel memory.
pub struct Box<T>(NonNull<T>, PhantomData<T>);

// SAFETY: a Box owns its value; moving it moves the value.
unsafe impl<T: Send> Send for Box<T> {}
// SAFETY: `&Box<T>` gives `&T` and nothing else.
unsafe impl<T: Sync> Sync for Box<T> {}

impl<T> Box<T> {
    /// Allocate, then let `init` make the value.
    ///
    /// # Errors
    /// ENOMEM; `init` was not called.
    pub fn new(wait: Wait, init: impl FnOnce() -> T) -> Result<Box<T>, Error> {
        let p = raw::<T>(1, wait)?;
        // SAFETY: `p` is fresh memory for one T, suitably aligned.
        unsafe { p.write(init()) };
        Ok(Box(p, PhantomData))
    }
}

impl<T> Deref for Box<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the box owns a valid T until it is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Box<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in deref(), and `&mut self` makes it the only reference.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Box<T> {
    fn drop(&mut self) {
        // SAFETY: the value is valid and never used again.
        unsafe { self.0.drop_in_place() };
        // SAFETY: the memory came from th_malloc() and nothing refers to it any more.
        unsafe { sys::th_free(self.0.as_ptr().cast()) };
    }
}

/// An owned slice of fixed length.
pub struct Slice<T> {
    p: NonNull<T>,
    len: usize,
    _own: PhantomData<T>,
}

// SAFETY: a Slice owns its elements; moving it moves them.
unsafe impl<T: Send> Send for Slice<T> {}
// SAFETY: `&Slice<T>` gives `&[T]` and nothing else.
unsafe impl<T: Sync> Sync for Slice<T> {}

impl<T> Slice<T> {
    /// No elements and no memory.
    #[must_use]
    pub const fn empty() -> Self {
        Slice {
            p: NonNull::dangling(),
            len: 0,
            _own: PhantomData,
        }
    }

    /// `len` elements, each made by `init` from its index.
    ///
    /// # Errors
    /// ENOMEM; `init` was not called.
    pub fn new(len: usize, wait: Wait, mut init: impl FnMut(usize) -> T) -> Result<Self, Error> {
        Self::try_new(len, wait, |i| Ok(init(i)))
    }

    /// `len` elements, each made by `init` from its index, which may fail.
    ///
    /// # Errors
    /// ENOMEM, or what `init` said; the elements made so far are dropped.
    pub fn try_new(
        len: usize,
        wait: Wait,
        mut init: impl FnMut(usize) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let p = raw::<T>(len, wait)?;
        let mut s = Slice {
            p,
            len: 0,
            _own: PhantomData,
        };
        for i in 0..len {
            let v = init(i)?;
            // SAFETY: element `i` lies inside the allocation of `len` elements.
            let at = unsafe { p.add(i) };
            // SAFETY: fresh, aligned memory.
            unsafe { at.write(v) };
            s.len = i + 1;
        }
        Ok(s)
    }
}

impl<T> Deref for Slice<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` valid elements, owned by this value.
        unsafe { core::slice::from_raw_parts(self.p.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Slice<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref(), and `&mut self` makes it the only reference.
        unsafe { core::slice::from_raw_parts_mut(self.p.as_ptr(), self.len) }
    }
}

impl<T> AsRef<[T]> for Slice<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T> AsMut<[T]> for Slice<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T> Drop for Slice<T> {
    fn drop(&mut self) {
        for i in 0..self.len {
            // SAFETY: element `i` lies inside the allocation.
            let at = unsafe { self.p.add(i) };
            // SAFETY: it is valid and never used again.
            unsafe { at.drop_in_place() };
        }
        if self.p == NonNull::dangling() {
            return; // empty()
        }
        // SAFETY: the memory came from th_malloc() and nothing refers to it any more.
        unsafe { sys::th_free(self.p.as_ptr().cast()) };
    }
}

/// What a counted value does when its last reference goes, in whatever context that is.
pub trait Last: Sized {
    /// The count is zero: this is the only handle. Dropping it frees the value; a value that
    /// cannot be torn down in this context hands the handle on to one that can.
    fn last(this: Sole<Self>) {
        drop(this);
    }
}

/// A pointer that C keeps for us and gives back; it is never followed here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie(*mut core::ffi::c_void);

impl Cookie {
    /// Nothing kept.
    pub const NULL: Cookie = Cookie(core::ptr::null_mut());

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(self) -> *mut core::ffi::c_void {
        self.0
    }
}

struct Counted<T> {
    refs: AtomicU32,
    value: T,
}

/// A counted reference, shared between threads.
pub struct Arc<T: Last>(NonNull<Counted<T>>, PhantomData<Counted<T>>);

// SAFETY: the count is atomic, and the value is shared by `&T` only.
unsafe impl<T: Last + Send + Sync> Send for Arc<T> {}
// SAFETY: as for Send.
unsafe impl<T: Last + Send + Sync> Sync for Arc<T> {}

impl<T: Last> Arc<T> {
    /// Allocate, then let `init` make the value.
    ///
    /// # Errors
    /// ENOMEM; `init` was not called.
    pub fn new(wait: Wait, init: impl FnOnce() -> T) -> Result<Arc<T>, Error> {
        let p = raw::<Counted<T>>(1, wait)?;
        // SAFETY: `p` is fresh memory for one Counted<T>, suitably aligned.
        unsafe {
            p.write(Counted {
                refs: AtomicU32::new(1),
                value: init(),
            })
        };
        Ok(Arc(p, PhantomData))
    }

    /// Room for a value that will be made when nothing may fail any more.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn reserve(wait: Wait) -> Result<Room<T>, Error> {
        raw::<Counted<T>>(1, wait).map(|p| Room(p, PhantomData))
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: this reference keeps the allocation alive and the value valid.
        unsafe { self.0.as_ref() }
    }

    /// Give this reference to C as a pointer; [`Arc::from_raw`] takes it back.
    #[must_use = "the reference is C's now"]
    pub fn into_raw(self) -> Cookie {
        let c = self.as_raw();
        core::mem::forget(self);
        c
    }

    /// The pointer that [`Arc::into_raw`] would give; takes and gives no reference.
    #[must_use]
    pub fn as_raw(&self) -> Cookie {
        Cookie(self.0.as_ptr().cast())
    }

    /// Take back a reference given to C.
    ///
    /// # Safety
    /// `p` came from [`Arc::into_raw`] of the same type, and that reference is given up here.
    #[must_use]
    pub unsafe fn from_raw(p: NonNull<core::ffi::c_void>) -> Arc<T> {
        Arc(p.cast(), PhantomData)
    }

    /// Another reference through a pointer that C holds one for.
    ///
    /// # Safety
    /// `p` came from [`Arc::into_raw`] of the same type, and that reference (or another) is
    /// held for the duration of this call.
    #[must_use]
    pub unsafe fn clone_raw(p: NonNull<core::ffi::c_void>) -> Arc<T> {
        // SAFETY: by the caller's promise this is a live reference; it is not consumed.
        let held = core::mem::ManuallyDrop::new(unsafe { Arc::from_raw(p) });
        Arc::clone(&held)
    }
}

impl<T: Last> Clone for Arc<T> {
    fn clone(&self) -> Self {
        // No order is needed: a reference can only be made from a reference.
        self.counted().refs.fetch_add(1, Ordering::Relaxed);
        Arc(self.0, PhantomData)
    }
}

impl<T: Last> Deref for Arc<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T: Last> Drop for Arc<T> {
    fn drop(&mut self) {
        if self.counted().refs.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Sees all that was done through the references that went before.
        core::sync::atomic::fence(Ordering::Acquire);
        T::last(Sole(self.0, PhantomData));
    }
}

/// Room for a counted value; see [`Arc::reserve`].
pub struct Room<T: Last>(NonNull<Counted<T>>, PhantomData<T>);

// SAFETY: memory without a value.
unsafe impl<T: Last> Send for Room<T> {}

impl<T: Last> Room<T> {
    /// Make the value.
    #[must_use]
    pub fn fill(self, init: impl FnOnce() -> T) -> Arc<T> {
        let p = self.0;
        core::mem::forget(self);
        // SAFETY: fresh memory for one Counted<T>, suitably aligned, ours alone.
        unsafe {
            p.write(Counted {
                refs: AtomicU32::new(1),
                value: init(),
            })
        };
        Arc(p, PhantomData)
    }
}

impl<T: Last> Drop for Room<T> {
    fn drop(&mut self) {
        // SAFETY: memory of th_malloc() with no value in it.
        unsafe { sys::th_free(self.0.as_ptr().cast()) };
    }
}

/// The only handle of a counted value.
pub struct Sole<T: Last>(NonNull<Counted<T>>, PhantomData<Counted<T>>);

// SAFETY: a Sole owns its value; moving it moves the value.
unsafe impl<T: Last + Send> Send for Sole<T> {}

impl<T: Last> Sole<T> {
    /// Begin anew with one counted reference.
    #[must_use]
    pub fn revive(self) -> Arc<T> {
        let p = self.0;
        core::mem::forget(self);
        // SAFETY: this was the only handle, so the value is valid and nobody else counts.
        unsafe { p.as_ref() }.refs.store(1, Ordering::Relaxed);
        Arc(p, PhantomData)
    }
}

impl<T: Last> Sole<T> {
    /// The value, to change it.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: the only handle of a valid value, borrowed exclusively.
        unsafe { &mut (*self.0.as_ptr()).value }
    }
}

impl<T: Last> Deref for Sole<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the only handle of a valid value.
        unsafe { &(*self.0.as_ptr()).value }
    }
}

impl<T: Last> Drop for Sole<T> {
    fn drop(&mut self) {
        // SAFETY: the only handle: the value is valid and never used again.
        unsafe { self.0.drop_in_place() };
        // SAFETY: the memory came from th_malloc() and nothing refers to it any more.
        unsafe { sys::th_free(self.0.as_ptr().cast()) };
    }
}

/// What a [`Stack`] can hold: a handle that is one pointer, and whose value has a link.
///
/// # Safety
/// `from_ptr(into_ptr(h))` is `h` again, and `link_at` reaches the link of the value behind a
/// pointer of `into_ptr` that was not turned back.
pub unsafe trait Stackable: Sized {
    /// Give up the handle as a pointer.
    fn into_ptr(self) -> NonNull<core::ffi::c_void>;
    /// Take it back.
    ///
    /// # Safety
    /// `p` came from [`Stackable::into_ptr`], once.
    unsafe fn from_ptr(p: NonNull<core::ffi::c_void>) -> Self;
    /// The link of the value, used by the stack alone.
    ///
    /// # Safety
    /// `p` came from [`Stackable::into_ptr`] and the handle was not taken back.
    unsafe fn link_at<'a>(p: NonNull<core::ffi::c_void>) -> &'a Link;
}

/// Room in a value for being in a [`Stack`].
pub type Link = core::sync::atomic::AtomicPtr<core::ffi::c_void>;

/// Values whose only handle may wait in a [`Stack`].
pub trait Linked {
    /// The link for a stack of [`Sole`] handles.
    fn link(&self) -> &Link;
}

/// Values of which one counted reference may wait in a [`Stack`].
pub trait Waits {
    /// The link for a stack of [`Arc`] references.
    fn wait_link(&self) -> &Link;
}

// SAFETY: a Sole is one pointer; the value lives until the handle is taken back and dropped.
unsafe impl<T: Last + Linked + 'static> Stackable for Sole<T> {
    fn into_ptr(self) -> NonNull<core::ffi::c_void> {
        let p = self.0.cast();
        core::mem::forget(self);
        p
    }
    unsafe fn from_ptr(p: NonNull<core::ffi::c_void>) -> Self {
        Sole(p.cast(), PhantomData)
    }
    unsafe fn link_at<'a>(p: NonNull<core::ffi::c_void>) -> &'a Link {
        // SAFETY: the handle was given up to the stack, so the value is valid.
        unsafe { &(*p.cast::<Counted<T>>().as_ptr()).value }.link()
    }
}

// SAFETY: an Arc is one pointer; the reference given up keeps the value.
unsafe impl<T: Last + Waits + 'static> Stackable for Arc<T> {
    fn into_ptr(self) -> NonNull<core::ffi::c_void> {
        let p = self.0.cast();
        core::mem::forget(self);
        p
    }
    unsafe fn from_ptr(p: NonNull<core::ffi::c_void>) -> Self {
        Arc(p.cast(), PhantomData)
    }
    unsafe fn link_at<'a>(p: NonNull<core::ffi::c_void>) -> &'a Link {
        // SAFETY: the reference was given up to the stack, so the value is valid.
        unsafe { &(*p.cast::<Counted<T>>().as_ptr()).value }.wait_link()
    }
}

/// Handles that wait for a task: pushed in any context, taken as a whole. A value is in a stack
/// at most once; who pushes sees to that.
pub struct Stack<H: Stackable> {
    head: Link,
    _of: PhantomData<H>,
}

impl<H: Stackable> Default for Stack<H> {
    fn default() -> Self {
        Stack {
            head: Link::default(),
            _of: PhantomData,
        }
    }
}

impl<H: Stackable> Stack<H> {
    /// Push.
    pub fn push(&self, h: H) {
        let p = h.into_ptr();
        // SAFETY: just given up, and in no list yet.
        let link = unsafe { H::link_at(p) };
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(
                head,
                p.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(h) => head = h,
            }
        }
    }

    /// Take all, and give each to `f`.
    pub fn drain(&self, mut f: impl FnMut(H)) {
        // Taken whole, so no node can be pushed again behind our back (no ABA).
        let mut at = self.head.swap(core::ptr::null_mut(), Ordering::Acquire);
        while let Some(p) = NonNull::new(at) {
            // SAFETY: every pointer in the list was put there by push().
            at = unsafe { H::link_at(p) }.load(Ordering::Relaxed);
            // SAFETY: and is taken out once.
            f(unsafe { H::from_ptr(p) });
        }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }
}

impl<H: Stackable> Drop for Stack<H> {
    fn drop(&mut self) {
        self.drain(drop);
    }
}
