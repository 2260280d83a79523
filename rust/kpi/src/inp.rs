//! The inpcb's write lock, what it guards, and the inpcb's life.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::sock::Socket;
use crate::{mem::Cookie, sys, tom::Tom};

/// An inpcb, as the kernel hands it to an entry or a reference keeps it.
///
/// Copying it keeps nothing alive: whoever has one also has an [`InpRef`], a lock, or the
/// kernel's word for the duration of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inp(NonNull<sys::inpcb>);

// SAFETY: a pointer that is used under the inpcb's own lock.
unsafe impl Send for Inp {}
// SAFETY: as for Send.
unsafe impl Sync for Inp {}

impl Inp {
    /// # Safety
    /// `p` is an inpcb that lives as long as the value or a copy of it is used.
    #[must_use]
    pub unsafe fn from_raw(p: NonNull<sys::inpcb>) -> Inp {
        Inp(p)
    }

    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(self) -> *mut sys::inpcb {
        self.0.as_ptr()
    }

    /// Lock it. No lock of ours may be held.
    #[must_use]
    pub fn lock(self) -> InpGuard {
        // SAFETY: a live inpcb (type's contract).
        unsafe { sys::th_inp_wlock(self.as_ptr()) };
        InpGuard {
            inp: self,
            ours: true,
            _not_send: PhantomData,
        }
    }

    /// The network stack instance it belongs to. Constant, no lock.
    #[must_use]
    pub fn vnet(self) -> Vnet {
        // SAFETY: a live inpcb; its vnet never changes.
        Vnet(unsafe { sys::th_inp_vnet(self.as_ptr()) })
    }
}

/// The write lock of an inpcb, held by this thread.
pub struct InpGuard {
    inp: Inp,
    /// Taken by us, so released by us.
    ours: bool,
    _not_send: PhantomData<*mut ()>,
}

impl InpGuard {
    /// The lock as the kernel holds it around a call; not released by us.
    ///
    /// # Safety
    /// This thread holds the write lock of `inp` for as long as the guard lives.
    #[must_use]
    pub unsafe fn assume(inp: Inp) -> InpGuard {
        InpGuard {
            inp,
            ours: false,
            _not_send: PhantomData,
        }
    }

    /// A lock that a function of the shim returned held; released by us.
    ///
    /// # Safety
    /// This thread holds the write lock of `inp`, and nothing else will release it.
    #[must_use]
    pub unsafe fn adopt(inp: Inp) -> InpGuard {
        InpGuard {
            inp,
            ours: true,
            _not_send: PhantomData,
        }
    }

    /// Which inpcb.
    #[must_use]
    pub fn inp(&self) -> Inp {
        self.inp
    }

    /// Proof that the lock is held.
    #[must_use]
    pub fn locked(&self) -> Locked<'_> {
        Locked {
            inp: self.inp,
            _held: PhantomData,
        }
    }

    /// One more reference of the inpcb (`in_pcbref`).
    #[must_use]
    pub fn reference(&self) -> InpRef {
        // SAFETY: the lock is held.
        unsafe { sys::th_inp_ref(self.inp.as_ptr()) };
        InpRef(self.inp)
    }

    /// Give the lock up to a function that releases it by itself.
    pub fn surrender(self) {
        core::mem::forget(self);
    }

    /// The kernel's TIME_WAIT takes over. Lets go of the lock in between, and calls
    /// `toehold_pcb_detach`.
    pub fn tcp_twstart(&mut self) {
        // SAFETY: lock held, in the net epoch; `&mut self`: nothing guarded is borrowed; the
        // caller's InpRef keeps the inpcb.
        unsafe { sys::th_tcp_twstart(self.inp.as_ptr()) };
    }

    /// `tcp_close`. Terms as [`InpGuard::tcp_twstart`].
    pub fn tcp_close(&mut self) {
        // SAFETY: as in tcp_twstart().
        unsafe { sys::th_tcp_close(self.inp.as_ptr()) };
    }

    /// `tcp_drop` with an error. Terms as [`InpGuard::tcp_twstart`].
    pub fn tcp_drop(&mut self, error: i32) {
        // SAFETY: as in tcp_twstart().
        unsafe { sys::th_tcp_drop(self.inp.as_ptr(), error) };
    }

    /// `toe_connect_failed`. Terms as [`InpGuard::tcp_twstart`].
    pub fn connect_failed(&mut self, tom: Tom, error: i32) {
        // SAFETY: as in tcp_twstart(); live adapter handle.
        unsafe { sys::th_connect_failed(tom.as_ptr(), self.inp.as_ptr(), error) };
    }
}

impl Drop for InpGuard {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: locked by this thread, released once.
            unsafe { sys::th_inp_wunlock(self.inp.as_ptr()) };
        }
    }
}

/// A counted reference of an inpcb. To be released under its lock; dropping it takes the lock,
/// which must then not be held.
#[derive(Debug)]
pub struct InpRef(Inp);

impl InpRef {
    /// The inpcb, kept alive by this.
    #[must_use]
    pub fn inp(&self) -> Inp {
        self.0
    }

    /// Release under the lock. The lock goes, too.
    pub fn release(self, g: InpGuard) {
        let inp = self.0;
        core::mem::forget(self);
        // SAFETY: the lock is held and this is our reference.
        let gone = unsafe { sys::th_inp_rele(inp.as_ptr()) };
        if gone {
            g.surrender();
        }
    }
}

impl Drop for InpRef {
    fn drop(&mut self) {
        // SAFETY: the reference keeps the inpcb alive.
        unsafe { sys::th_inp_wlock(self.0.as_ptr()) };
        // SAFETY: lock held, our reference.
        if !unsafe { sys::th_inp_rele(self.0.as_ptr()) } {
            // SAFETY: the inpcb lives on, locked by us above.
            unsafe { sys::th_inp_wunlock(self.0.as_ptr()) };
        }
    }
}

/// Proof that an inpcb's write lock is held; carries the calls that need it.
#[derive(Clone, Copy)]
pub struct Locked<'g> {
    inp: Inp,
    _held: PhantomData<&'g InpGuard>,
}

impl<'g> Locked<'g> {
    /// # Safety
    /// This thread holds the write lock of `inp` for 'g.
    pub(crate) unsafe fn assume(inp: Inp) -> Locked<'g> {
        Locked {
            inp,
            _held: PhantomData,
        }
    }

    /// Which inpcb.
    #[must_use]
    pub fn inp(self) -> Inp {
        self.inp
    }

    /// The socket; `None` once the inpcb has none any more.
    #[must_use]
    pub fn socket(self) -> Option<Socket<'g>> {
        // SAFETY: the lock is held.
        let so = unsafe { sys::th_inp_socket(self.inp.as_ptr()) };
        // SAFETY: the socket belongs to the inpcb while the lock is held, that is for 'g.
        NonNull::new(so).map(|so| unsafe { Socket::from_raw(so) })
    }

    /// INP_DROPPED: the kernel has let go of the connection.
    #[must_use]
    pub fn dropped(self) -> bool {
        // SAFETY: the lock is held.
        unsafe { sys::th_inp_dropped(self.inp.as_ptr()) }
    }

    /// Addresses and ports, network order.
    #[must_use]
    pub fn tuple(self) -> sys::th_tuple {
        let mut t = sys::th_tuple::default();
        // SAFETY: the lock is held; `t` is written, not kept.
        unsafe { sys::th_inp_tuple(self.inp.as_ptr(), &mut t) };
        t
    }

    /// What socket and tcpcb ask of a connection. The inpcb must have its socket.
    #[must_use]
    pub fn options(self) -> sys::th_options {
        let mut o = sys::th_options::default();
        // SAFETY: the lock is held; `o` is written, not kept.
        unsafe { sys::th_inp_options(self.inp.as_ptr(), &mut o) };
        o
    }

    /// The window scale our SYN offers.
    pub fn set_rcv_scale(self, scale: u8) {
        // SAFETY: the lock is held.
        unsafe { sys::th_inp_set_rcv_scale(self.inp.as_ptr(), scale) };
    }

    /// Hook the socket up to the adapter; `toep` becomes `t_toe`.
    pub fn offload(self, tom: Tom, toep: Cookie) {
        // SAFETY: the lock is held; live adapter handle; `toep` is only kept.
        unsafe { sys::th_offload_socket(tom.as_ptr(), self.inp.as_ptr(), toep.as_ptr()) };
    }

    /// Undo it.
    pub fn unoffload(self) {
        // SAFETY: the lock is held.
        unsafe { sys::th_unoffload_socket(self.inp.as_ptr()) };
    }

    /// `t_toe` of a connection of ours.
    #[must_use]
    pub fn toep(self) -> Option<NonNull<core::ffi::c_void>> {
        // SAFETY: the lock is held.
        NonNull::new(unsafe { sys::th_inp_toep(self.inp.as_ptr()) })
    }

    /// The tcpcb becomes ESTABLISHED.
    pub fn make_established(self, e: &sys::th_established) {
        // SAFETY: the lock is held, in the net epoch; `e` is read, not kept.
        unsafe { sys::th_make_established(self.inp.as_ptr(), e) };
    }

    /// Show the sequence state in the tcpcb.
    pub fn tcp_publish(self, rcv_nxt: u32, rcv_wnd: u32, snd_una: u32, snd_nxt: u32) {
        // SAFETY: the lock is held, and the tcpcb is there: we are attached.
        unsafe { sys::th_tcp_publish(self.inp.as_ptr(), rcv_nxt, rcv_wnd, snd_una, snd_nxt) };
    }

    /// `TCPS_*`.
    #[must_use]
    pub fn tcp_state(self) -> u32 {
        // SAFETY: the lock is held, and the tcpcb is there: we are attached.
        unsafe { sys::th_tcp_state(self.inp.as_ptr()) }
    }

    /// `tcp_state_change`.
    pub fn set_tcp_state(self, s: u32) {
        // SAFETY: as in tcp_state().
        unsafe { sys::th_tcp_set_state(self.inp.as_ptr(), s) };
    }

    /// TF_MORETOCOME.
    #[must_use]
    pub fn more_to_come(self) -> bool {
        // SAFETY: as in tcp_state().
        unsafe { sys::th_tcp_more_to_come(self.inp.as_ptr()) }
    }
}

/// A network stack instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vnet(*mut sys::vnet);

// SAFETY: an opaque pointer, given back to the kernel only.
unsafe impl Send for Vnet {}
// SAFETY: as for Send.
unsafe impl Sync for Vnet {}

impl Vnet {
    /// For calls of the shim.
    #[must_use]
    pub fn as_ptr(self) -> *mut sys::vnet {
        self.0
    }

    /// `curvnet` for as long as the value lives (`CURVNET_SET`).
    pub fn enter(self) -> VnetScope {
        // SAFETY: a vnet outlives the inpcbs in it, from one of which it was read.
        VnetScope(unsafe { sys::th_vnet_enter(self.0) }, PhantomData)
    }
}

/// See [`Vnet::enter`].
#[must_use = "curvnet is put back when this goes"]
pub struct VnetScope(*mut sys::vnet, PhantomData<*mut ()>);

impl Drop for VnetScope {
    fn drop(&mut self) {
        // SAFETY: puts back what th_vnet_enter() returned, in the same thread.
        unsafe { sys::th_vnet_leave(self.0) };
    }
}
