//! core's connections at both ends of a simulated adapter, in one process and virtual time.
//!
//! A [`world::World`] is one [`t5sim::Card`] whose two ports are wired to each other, with a host
//! at each: memory, sockets and the parts of FreeBSD's TCP that call the driver. The driver is
//! `toehold_core`. Everything that has no fixed order (interrupts, workers, retries, programs) is
//! drawn from a seed, so a run can be repeated. After each step the invariants of the design
//! (I1 to I9) are checked as far as they can be seen.
#![forbid(unsafe_code)]

pub mod buf;
pub mod dispatch;
pub mod job;
pub mod kernel;
pub mod mem;
pub mod nic;
pub mod open;
pub mod os;
mod overdue;
pub mod pattern;
pub mod program;
mod rest;
pub mod rng;
pub mod schedule;
pub mod sock;
pub mod user;
pub mod world;
