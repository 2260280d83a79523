//! A FreeBSD 15 kernel in user space. It loads the very `.ko` files of the project on Linux,
//! resolves their symbols against its own kernel interface, and runs programs written as closures.
//!
//! ```no_run
//! let k = ukern::boot(ukern::Config::seed(7));
//! k.kldload("t5sim.ko").unwrap();
//! k.run_until_idle();
//! for (name, value) in k.sysctl_tree("dev") {
//!     println!("{name}: {value}");
//! }
//! k.kldunload("t5sim").unwrap();
//! k.shutdown(); // fails the test on leaks
//! ```
//!
//! One kernel exists at a time in a process: [`boot`] waits for the one before. Everything runs on
//! the host thread that booted, so a seed fixes the whole run. What the kernel checks as it goes
//! (use after free, leaks, lock order, sleeping where one must not) ends in a ukern panic, which
//! reaches the test as a Rust panic with a report.
//!
//! For authors of kernel parts: functions for modules are `extern "C"`, listed with
//! [`exports!`]; variables are [`ksym::KData`]; kernel-wide state is a [`global::Global`]; C pointers
//! are [`Kp`]; a failed check is [`kpanic!`]. A part that is added lists its tables in
//! `kernel/tables.rs`.

pub mod aio;
pub mod net;
pub mod proc;
pub mod sys;
pub mod vm;

pub mod callout;
mod clib;
pub mod console;
mod coro;
pub mod counter;
pub mod device;
pub mod epoch;
pub mod eventhandler;
pub mod fault;
pub mod fxhash;
pub mod global;
mod init;
mod kernel;
pub mod kmem;
pub mod kp;
pub mod ksym;
mod kthread;
pub mod loader;
pub mod locks;
pub mod lowmem;
pub mod mbuf;
pub mod names;
pub mod panic;
pub mod phys;
pub mod printf;
pub mod rng;
pub mod sched;
pub mod sdt;
mod sglist;
pub mod sysctl;
pub mod taskqueue;
pub mod time;
mod trap;
pub mod uma;
mod vmem;
pub mod vnet;

pub use init::{cred0, prison0, proc0};
pub use kernel::{Api, Config, Kernel, Report, boot};
pub use kp::Kp;
