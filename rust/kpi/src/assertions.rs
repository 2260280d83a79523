//! What the compiler is held to: who may go to another thread, who may be had twice, and
//! what has the size of the kernel's pointer that it stands for.

use static_assertions::{assert_eq_size, assert_impl_all, assert_not_impl_any};

use crate::aio::{Job, Lent};
use crate::cell::{InpCell, Inside};
use crate::inp::{Inp, InpGuard, InpRef, Locked, Vnet, VnetScope};
use crate::l2::L2;
use crate::mbuf::Mbuf;
use crate::mem::{Box, Slice};
use crate::mtx::{Mutex, MutexGuard};
use crate::pages::Pages;
use crate::sock::Socket;
use crate::sys;
use crate::task::Task;
use crate::tom::{Tom, WrBatch};

/// Data that may move between threads, but be in one only.
type Data = core::cell::Cell<u8>;

// A handle is the pointer that C hands over, and C's null is its None.
assert_eq_size!(Option<Lent>, *mut sys::kaiocb);
assert_eq_size!(Option<Job>, *mut sys::kaiocb);
assert_eq_size!(Option<Inp>, *mut sys::inpcb);
assert_eq_size!(Option<Mbuf>, *mut sys::mbuf);
assert_eq_size!(Option<Task>, *mut sys::th_task);
assert_eq_size!(Option<Tom>, *mut sys::th_tom);
assert_eq_size!(Vnet, *mut sys::vnet);

// The kernel lets any thread have these, and what a lock guards goes with the lock.
assert_impl_all!(Inp: Copy, Send, Sync);
assert_impl_all!(InpRef: Send, Sync);
assert_impl_all!(Vnet: Copy, Send, Sync);
assert_impl_all!(L2: Send, Sync);
assert_impl_all!(Task: Send, Sync);
assert_impl_all!(Tom: Send, Sync);
assert_impl_all!(Mutex<Data>: Send, Sync);
assert_impl_all!(InpCell<Data>: Send, Sync);

// Owned things change threads, and have one owner.
assert_impl_all!(Job: Send);
assert_impl_all!(Mbuf: Send);
assert_impl_all!(Pages: Send);
assert_impl_all!(WrBatch: Send);
assert_impl_all!(Box<Data>: Send);
assert_impl_all!(Slice<Data>: Send);
assert_not_impl_any!(Job: Clone, Copy);
assert_not_impl_any!(Mbuf: Clone, Copy);
assert_not_impl_any!(Pages: Clone, Copy);
assert_not_impl_any!(WrBatch: Clone, Copy);
assert_not_impl_any!(Box<Data>: Clone, Copy);

// A lock is released by the thread that took it, and its proof stays there.
assert_not_impl_any!(InpGuard: Send, Sync, Clone);
assert_not_impl_any!(Locked<'static>: Send, Sync);
// Goes with what the lock guards, and to no other thread while this one holds the lock.
assert_impl_all!(Inside: Send);
assert_not_impl_any!(Inside: Sync);
assert_not_impl_any!(Socket<'static>: Send, Sync);
assert_not_impl_any!(MutexGuard<'static, Data>: Send, Sync, Clone);
assert_not_impl_any!(VnetScope: Send, Sync);
