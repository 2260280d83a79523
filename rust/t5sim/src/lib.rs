//! A simulated T5 with its TCP offload firmware: work requests in, CPL messages and DMA out.
//!
//! The model is sans I/O. Time is a number the caller passes in ([`Nanos`]); host memory and the
//! receive queues are reached through the [`Host`] trait the caller passes to [`Card::advance`].
//! The same seed and the same calls give the same run, byte for byte.
//!
//! Two ports are wired to each other, so a connection opened out of one port ends at a listener
//! on the other and both ends are TCBs of the same card. The payload of a transmit work request is
//! read from host memory when a segment leaves, and again when it is sent again: the card keeps
//! addresses, not bytes, until the peer has acknowledged them.
//!
//! What the messages mean is taken from what FreeBSD's driver expects of the card
//! (`dev/cxgbe/tom`, `common/t4_msg.h`, `common/t4_tcb.h`). Where the hardware's behaviour is not
//! public the choice made here is said beside the code that makes it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod card;
mod check;
mod close;
mod config;
mod conn;
mod ddp;
mod event;
mod fault;
mod host;
mod open;
mod ppod;
mod request;
mod rng;
mod rx;
mod stats;
mod tcp;
mod tx;
mod wire_link;

pub use card::{Card, ConnInfo};
pub use check::Broken;
pub use config::{Config, ConfigError, Faults, Lose};
pub use conn::TcpState;
pub use ddp::{BufInfo, DdpInfo};
pub use host::{Dma, DmaFault, Host, TxQueue, WrError};
pub use stats::{ConnStats, Stats, WrCount};

/// Virtual time in nanoseconds. The card never looks at a clock; it only compares these.
pub type Nanos = u64;
