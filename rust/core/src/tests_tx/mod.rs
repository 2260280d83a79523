//! Tests of connection life, transmit and open.

mod credits;
mod fake;
mod life;
mod open;
mod rig;
mod rng;
mod sgl;
