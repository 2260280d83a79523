//! Programs on ukern with `t5sim.ko` and `toehold.ko` loaded: what the end-to-end tests, the
//! demonstration and the benchmarks share.

pub mod bed;
pub mod idle;
pub mod pattern;
pub mod rotation;
pub mod transfer;

pub use bed::{Bed, CLIENT, CLIENT_IP, SERVER, SERVER_IP};
