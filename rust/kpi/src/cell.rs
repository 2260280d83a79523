//! Data under an inpcb's lock, and what it has of the inpcb itself: among others the two I/O
//! locks of the socket, and so_snd as a chain of mbufs that can go.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::inp::{Inp, InpGuard, Locked};
use crate::mbuf::{Mbuf, Unsent};
use crate::sock::Socket;
use crate::sys;

/// What code that runs under the lock uses to reach the inpcb. It exists inside an
/// [`InpCell`] only, where nobody gets at it without the lock.
pub struct Inside {
    inp: Inp,
    /// The receive I/O lock was taken, and not released.
    rcv_io: bool,
    /// The same of the send I/O lock.
    snd_io: bool,
    _not_sync: PhantomData<core::cell::Cell<()>>,
}

impl Inside {
    /// For the cell that guards it.
    pub(crate) fn new(inp: Inp) -> Inside {
        Inside {
            inp,
            rcv_io: false,
            snd_io: false,
            _not_sync: PhantomData,
        }
    }

    /// Proof that the lock is held, for as long as the cell's content is borrowed.
    #[must_use]
    pub fn locked(&self) -> Locked<'_> {
        // SAFETY: the value is reached under the lock only (its type's contract), which is held
        // for as long as it is borrowed.
        unsafe { Locked::assume(self.inp) }
    }

    fn socket(&self) -> Option<Socket<'_>> {
        self.locked().socket()
    }

    /// Take the receive I/O lock, without waiting. False: a reader has it, or we have already.
    /// Where there is no socket any more nobody reads.
    #[must_use]
    pub fn rcv_io_trylock(&mut self) -> bool {
        let Some(so) = self.socket() else {
            return true;
        };
        // SAFETY: live socket.
        let taken = !self.rcv_io && unsafe { sys::th_rcv_io_trylock(so.as_ptr()) };
        self.rcv_io |= taken;
        taken
    }

    /// Release it, if we have it.
    pub fn rcv_io_unlock(&mut self) {
        let held = core::mem::take(&mut self.rcv_io);
        if let Some(so) = self.socket().filter(|_| held) {
            // SAFETY: live socket, whose lock was taken here and not released since.
            unsafe { sys::th_rcv_io_unlock(so.as_ptr()) };
        }
    }

    /// Take the send I/O lock, without waiting. False: a writer has it, or we have already.
    /// Where there is no socket any more nobody writes.
    #[must_use]
    pub fn snd_io_trylock(&mut self) -> bool {
        let Some(so) = self.socket() else {
            return true;
        };
        // SAFETY: live socket.
        let taken = !self.snd_io && unsafe { sys::th_snd_io_trylock(so.as_ptr()) };
        self.snd_io |= taken;
        taken
    }

    /// Release it, if we have it.
    pub fn snd_io_unlock(&mut self) {
        let held = core::mem::take(&mut self.snd_io);
        if let Some(so) = self.socket().filter(|_| held) {
            // SAFETY: live socket, whose lock was taken here and not released since.
            unsafe { sys::th_snd_io_unlock(so.as_ptr()) };
        }
    }

    /// The unsent mbufs, behind the `sent` bytes at the front of so_snd. None leaves it while
    /// they are looked at: what takes mbufs away borrows all of the value.
    #[must_use]
    pub fn snd_unsent(&self, sent: u32) -> Unsent<'_> {
        let mut off = 0;
        let m = self.socket().map_or(core::ptr::null_mut(), |so| {
            // SAFETY: live socket; `off` is written, not kept.
            unsafe { sys::th_snd_next(so.as_ptr(), sent, &mut off) }
        });
        // SAFETY: mbufs of so_snd leave it under the inpcb's lock only, by the functions below
        // or by those of an exclusively borrowed guard: neither can run meanwhile.
        unsafe { Unsent::new(m, off) }
    }

    /// `n` bytes are acknowledged: drop them and wake writers.
    pub fn snd_drop(&mut self, n: u32) {
        if let Some(so) = self.socket() {
            // SAFETY: live socket.
            unsafe { sys::th_snd_drop(so.as_ptr(), n) };
        }
    }

    /// `sbflush` of so_snd.
    pub fn snd_flush(&mut self) {
        if let Some(so) = self.socket() {
            // SAFETY: live socket.
            unsafe { sys::th_snd_flush(so.as_ptr()) };
        }
    }

    /// Take all of so_snd out of the kernel's reach.
    #[must_use]
    pub fn snd_take(&mut self) -> Option<Mbuf> {
        // SAFETY: live socket.
        let m = NonNull::new(unsafe { sys::th_snd_take(self.socket()?.as_ptr()) })?;
        // SAFETY: the chain was handed over just now.
        Some(unsafe { Mbuf::from_raw(m) })
    }

    /// `soisdisconnected`, which empties so_snd.
    pub fn disconnected(&mut self) {
        if let Some(so) = self.socket() {
            // SAFETY: live socket.
            unsafe { sys::th_so_disconnected(so.as_ptr()) };
        }
    }
}

/// Data guarded by the write lock of one inpcb.
pub struct InpCell<T> {
    inp: Inp,
    v: UnsafeCell<T>,
}

// SAFETY: the value is reached under the inpcb's lock only, by one thread at a time.
unsafe impl<T: Send> Send for InpCell<T> {}
// SAFETY: as for Send.
unsafe impl<T: Send> Sync for InpCell<T> {}

impl<T> InpCell<T> {
    /// Data of `inp`. What `make` gets must stay inside the value it returns: it stands for the
    /// lock that guards it.
    pub fn new(inp: Inp, make: impl FnOnce(Inside) -> T) -> InpCell<T> {
        InpCell {
            inp,
            v: UnsafeCell::new(make(Inside::new(inp))),
        }
    }

    /// Which inpcb.
    #[must_use]
    pub fn inp(&self) -> Inp {
        self.inp
    }

    /// The data. `None` if the guard is another inpcb's.
    ///
    /// The guard is borrowed exclusively, so that whatever lets go of the lock or calls back
    /// into the module (`&mut InpGuard` methods) cannot run meanwhile.
    pub fn enter<'g>(&'g self, g: &'g mut InpGuard) -> Option<&'g mut T> {
        if g.inp() != self.inp {
            return None;
        }
        // SAFETY: the lock is held for 'g, by this thread; `&mut` of its guard excludes a second
        // borrow through it; a nested entry's guard exists only while no borrow does (above).
        Some(unsafe { &mut *self.v.get() })
    }

    /// The data, when nobody else can have the cell.
    pub fn get_mut(&mut self) -> &mut T {
        self.v.get_mut()
    }
}
