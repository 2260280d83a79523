//! State machines of an offloaded connection.
//!
//! `no_std`, no heap, no `unsafe`. Everything the machines need of the kernel comes through
//! [`os::Os`]; everything the adapter says arrives as a message of the `wire` crate.
//!
//! **Locking.** One lock guards a [`conn::Conn`]: the write lock of its inpcb. Every method of
//! [`conn::Conn`] is called with that lock held and none sleeps. What may sleep (faulting in and
//! holding user pages) is asked for with [`conn::Conn::want_pages`], done by the caller with no
//! lock held, and handed back with [`conn::Conn::pages_ready`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "testos"))]
extern crate std;

pub mod aiotx;
pub mod conn;
pub mod ddp;
pub(crate) mod done;
pub mod egress;
pub mod errno;
pub mod fault;
pub(crate) mod flags;
mod lifecycle;
pub mod open;
pub mod os;
mod overdue;
pub mod pageset;
pub mod ppod;
pub mod rx;
pub mod sgl;
pub mod shared;
pub(crate) mod since;
pub mod status;
pub mod tx;
pub mod txcredits;
pub(crate) mod wr;

#[cfg(any(test, feature = "testos"))]
pub mod testos;
#[cfg(test)]
mod tests_tx;
