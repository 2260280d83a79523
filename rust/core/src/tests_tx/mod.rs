//! Tests of connection life, transmit and open.

mod aio;
mod aio_end;
mod credits;
mod fake;
mod life;
mod open;
mod plain;
mod rig;
mod rng;
mod schedule;
mod sgl;
mod window;
