//! Safe wrappers over toehold's C shim (`shim/toehold.h`).
//!
//! All `unsafe` of the module is here and in `kmod/src/entry.rs`. Contexts and locks stand in
//! the header above each function; here they become types:
//!
//! - [`inp::InpGuard`] is the write lock of an inpcb, and [`inp::Locked`] the proof that it is
//!   held, on which everything hangs that the header marks "INP".
//! - [`cell::InpCell`] holds data that this lock guards.
//! - Owned things release themselves: [`mbuf::Mbuf`], [`pages::Pages`], [`mem::Box`],
//!   [`mem::Arc`], [`inp::InpRef`]. A [`aio::Job`] is completed, never dropped.
//!
//! # What is trusted
//! The kernel calls the module's entries with live pointers, as the header says for each.
#![no_std]

pub mod aio;
mod assertions;
pub mod cell;
pub mod inp;
pub mod l2;
pub mod mbuf;
pub mod mem;
pub mod mtx;
pub mod pages;
pub mod panic;
pub mod sock;
pub mod syn;
pub mod task;
pub mod tom;

pub use toehold_sys::toehold as sys;

/// An errno of the kernel, not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub i32);

impl Error {
    /// No such file or directory: what was named is not there.
    pub const ENOENT: Error = Error(2);
    /// Device not configured.
    pub const ENXIO: Error = Error(6);
    /// Cannot allocate memory.
    pub const ENOMEM: Error = Error(12);
    /// Bad address.
    pub const EFAULT: Error = Error(14);
    /// Invalid argument.
    pub const EINVAL: Error = Error(22);
    /// Operation not supported.
    pub const EOPNOTSUPP: Error = Error(45);
    /// Software caused connection abort.
    pub const ECONNABORTED: Error = Error(53);
}

/// 0 is success, anything else an errno.
///
/// # Errors
/// The errno.
pub fn check(rc: i32) -> Result<(), Error> {
    if rc == 0 { Ok(()) } else { Err(Error(rc)) }
}
