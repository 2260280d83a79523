//! Tests of connection life, transmit and open.

pub(crate) mod aio;
mod aio_end;
mod copy;
mod credits;
mod exit;
pub(crate) mod fake;
mod life;
mod open;
mod plain;
mod push;
pub(crate) mod rig;
mod rng;
mod schedule;
mod sgl;
mod stopped;
mod tls;
mod unbuilt;
mod window;
