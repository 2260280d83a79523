//! FreeBSD 15's kernel structures and constants, as bindgen lays them out.
#![allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    unreachable_pub,
    dead_code,
    unnecessary_transmutes,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::missing_safety_doc,
    clippy::ptr_as_ptr,
    clippy::cast_lossless
)]
include!(concat!(env!("OUT_DIR"), "/sys.rs"));
