//! Cells for the kernel's own state.
//!
//! Everything of a booted kernel runs on one host thread (see [`crate::sched`]), and
//! [`crate::boot`] holds a process-wide lock for as long as a kernel exists. So a `static` with
//! interior mutability is enough, and no lock of the host is ever held across a switch.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells marked in use in an earlier generation are free: their user was abandoned.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// The running code was abandoned in the middle of something: every cell counts as free again.
pub(crate) fn reset_all() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// A kernel-wide variable: empty before `boot`, emptied again by `shutdown`.
pub struct Global<T> {
    value: UnsafeCell<Option<T>>,
    /// In use since this generation; 0 when free.
    busy: Cell<u64>,
    name: &'static str,
}

// SAFETY: only the host thread that holds the boot lock reaches a kernel's state.
unsafe impl<T> Sync for Global<T> {}

impl<T> Global<T> {
    /// An empty cell; `name` shows in messages.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Global {
            value: UnsafeCell::new(None),
            busy: Cell::new(0),
            name,
        }
    }

    /// Puts a value in, dropping an old one.
    pub fn init(&self, value: T) {
        self.busy.set(0);
        // SAFETY: one host thread, and no `with` is active: boot and shutdown run on the driver.
        let slot = unsafe { &mut *self.value.get() };
        *slot = Some(value);
    }

    /// Takes the value out.
    pub fn take(&self) -> Option<T> {
        self.busy.set(0);
        // SAFETY: as in `init`.
        let slot = unsafe { &mut *self.value.get() };
        slot.take()
    }

    /// Is there a value?
    pub fn is_set(&self) -> bool {
        // SAFETY: one host thread; only the discriminant is read.
        let slot = unsafe { &*self.value.get() };
        slot.is_some()
    }

    /// Runs `f` on the value. `f` must neither switch threads nor come back to this cell.
    ///
    /// # Panics
    /// When the kernel is not booted, or on re-entry: a mistake inside ukern.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let now = GENERATION.load(Ordering::Relaxed);
        assert!(
            self.busy.replace(now) != now,
            "ukern: {} is in use",
            self.name
        );
        // SAFETY: `busy` keeps this the only reference; one host thread.
        let slot = unsafe { &mut *self.value.get() };
        let Some(value) = slot.as_mut() else {
            self.busy.set(0);
            panic!("ukern: {} used with no kernel booted", self.name);
        };
        let ret = f(value);
        self.busy.set(0);
        ret
    }
}
