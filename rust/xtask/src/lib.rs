//! What `make` calls: it brings the tools onto the machine, builds the two kernel modules,
//! looks the result over, and runs the tests and the demonstration.
//!
//! Everything that decides something is a function of its inputs, so that the tests can
//! show each refusal; only [`run::Real`] starts programs.

pub mod archive;
pub mod check;
pub mod circles;
pub mod copy;
pub mod demo;
pub mod gate;
pub mod generated;
pub mod headers;
pub mod host;
pub mod inputs;
pub mod json;
pub mod kmod;
pub mod module;
pub mod native;
pub mod parallel;
pub mod planted;
pub mod run;
pub mod setup;
pub mod shim;
pub mod standin;
pub mod sysdir;
pub mod tests;
pub mod tree;

/// What went wrong, in one message fit for a terminal.
pub type Error = String;
/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
