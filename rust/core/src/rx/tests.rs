//! Receive: the state machine against a small model of the adapter's DDP.

use std::vec::Vec;

mod autosize;
mod badcpl;
mod basic;
mod bench;
mod brief;
mod cancel;
mod card;
mod close;
mod corners;
mod credits;
mod fallout;
mod mend;
mod order;
mod pages;
mod reader;
mod schedule;
mod shortage;
mod tls;

/// Byte of the test stream at sequence number `seq`.
fn byte(seq: u32) -> u8 {
    (seq.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// `n` bytes of the stream from `seq` on.
fn stream(seq: u32, n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| byte(seq.wrapping_add(i))).collect()
}
