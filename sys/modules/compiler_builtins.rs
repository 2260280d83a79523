//! Stands where the compiler looks for its builtins; see rust.mk.

#![feature(compiler_builtins)]
#![compiler_builtins]
#![no_std]
#![allow(internal_features)]
