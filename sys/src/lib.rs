//! Raw declarations of the contracts between the C shims and Rust: `shim/toehold.h` and
//! `shim/t5sim/t5sim.h`. Contexts, locks and ownership stand in those headers, above each
//! prototype; nothing here is safe to call without having read them.
//!
//! Sizes and offsets of every structure are asserted at compile time.

#![no_std]

/// Names whose spelling is C's.
macro_rules! contract {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            non_camel_case_types,
            non_snake_case,
            non_upper_case_globals,
            unreachable_pub,
            clippy::all,
            clippy::ptr_as_ptr,
            clippy::cast_lossless,
            clippy::undocumented_unsafe_blocks,
            clippy::multiple_unsafe_ops_per_block,
            clippy::missing_safety_doc,
            reason = "generated from C"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

contract! {
    /// `shim/toehold.h`: `th_*` is C called by Rust, `toehold_*` is Rust called by C.
    toehold
}

contract! {
    /// `shim/t5sim/t5sim.h`: `ts_*` is C called by Rust, `t5sim_*` is Rust called by C.
    t5sim
}
