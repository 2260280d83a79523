//! core's choice of egress queue, as the shim takes it.

use kpi::tom::WrQueue;
use toehold_core::egress::{CTRL_QUEUE, Egress};
use toehold_core::os::Queue;

/// Where every control request goes: opens, listeners, next hops, TCBs, page pods, tids.
pub const CTRL: WrQueue = WrQueue::Ctrl(CTRL_QUEUE);

/// Where a request of a connection goes whose transmit queue is `txq`.
pub fn queue(q: Queue, txq: u32) -> WrQueue {
    match q.egress(txq) {
        Egress::Ctrl(i) => WrQueue::Ctrl(i),
        Egress::Ofld(i) => WrQueue::Ofld(i),
    }
}
