//! toehold.ko's Rust half: the state machines of `toehold-core`, brought to the kernel by
//! `kpi`.
//!
//! # Who calls in, and what is locked
//!
//! | context | lock on entry | goes through |
//! |---|---|---|
//! | a CPL: adapter's queue thread | none, net epoch | [`dispatch`] |
//! | toedev methods: any thread | INP | [`toepcb`], [`connect`], [`listen`], [`synqe`] |
//! | aio_read, aio_write: process | none, may sleep | [`aioq`] |
//! | aio_cancel: process | INP (the shim takes it) | [`aioq`] |
//! | an mbuf with user pages is freed: any | unknown | [`toepcb::Side::rele`], atomics only |
//! | worker: soaio process | none, may sleep | [`aioq::worker`] |
//! | retry: taskqueue | none | [`adapter::Adapter::retry`] |
//!
//! Lock order: INP, then a mutex of [`adapter::Adapter`] or [`kpi::l2`], then socket buffers,
//! then aio. No two mutexes of ours are held at once. A connection's state is guarded by its
//! INP lock ([`toepcb::Toepcb::run`]); page-set users are counted by atomics, because mbufs are
//! freed in any context.
//!
//! # Ends
//! A [`toepcb::Toepcb`] has a reference in the tid (or atid) table until the final CPL, one as
//! `t_toe` until the kernel detaches, one for each worker run. The last one puts it in the
//! adapter's graveyard; the retry task, which holds no lock, tears it down once no mbuf refers
//! to its pages.
#![no_std]

pub mod adapter;
pub mod aioq;
pub mod connect;
pub mod dispatch;
mod due;
pub mod egress;
pub mod entry;
pub mod kos;
pub mod listen;
pub mod overdue;
mod owed;
pub mod stop;
pub mod synqe;
pub mod tids;
pub mod toepcb;
pub mod turn;

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    kpi::panic::panic(info)
}
