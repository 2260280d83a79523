//! `t5sim.ko`'s Rust half: the card model of crate `t5sim`, with its DMA, its receive queues and
//! its heap supplied by the C half (`shim/t5sim/`).
//!
//! The C half serialises all calls for one card with an sx lock, so there is no lock in here.
//! Nearly every call may sleep for memory. The contract is `shim/t5sim/t5sim.h`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod aes;
mod conns;
mod descs;
mod entry;
mod heap;
mod host;
mod knobs;
mod stats;
mod tcb;
mod text;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

/// Says what happened with panic(9): the card's state can no longer be trusted.
#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::fmt::Write;

    let mut buf = [0; 256];
    let mut text = text::Text::new(&mut buf);
    let _ = write!(text, "{info}");
    let text = text.bytes();
    // SAFETY: the pointer and the length are those of one slice, which outlives the call.
    unsafe { toehold_sys::t5sim::ts_panic(text.as_ptr(), text.len()) }
}
