//! Tests of connection life, transmit and open.

mod aio;
mod aio_end;
mod copy;
mod credits;
mod exit;
mod fake;
mod life;
mod open;
mod plain;
mod rig;
mod rng;
mod schedule;
mod sgl;
mod window;
