//! The card as a driver sees it: work requests in, CPLs and DMA out.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

mod rig;

mod close;
mod ddp;
mod faults;
mod malformed;
mod many;
mod open;
mod perf;
mod rx;
mod silent;
mod tx;
