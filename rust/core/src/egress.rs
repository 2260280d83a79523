//! Which egress queue of the adapter a work request goes to: the one definition, for the module
//! and for the simulation alike.
//!
//! The adapter has a control queue for each port, and runs the requests of one queue in order;
//! between queues there is no order. What changes hands between connections must not be reached
//! by what its last owner had queued: page pods, which any connection may be given next, and
//! tids. So every control request of an adapter goes to one control queue, whatever the port of
//! its connection, and what was queued earlier has run when the next owner's request does.
//!
//! The queue's own port does not matter to such requests: adapter memory is that of all ports,
//! and for a tid the TCB says the channel. FreeBSD's iw_cxgbe writes the memory regions of all
//! ports' connections through control queue 0 (iw_cxgbe/mem.c), as t4_filter.c does with TCBs
//! and CPL_TID_RELEASE, and t4_tom with CPL_PASS_ACCEPT_RPL (tom/t4_listen.c). That queue exists
//! on each adapter, also if port ids have gaps.
//!
//! What it costs: ports share the queue's lock, which is held while a request of 64 to 256
//! bytes is built, and its 1024 descriptors. Payload does not pass here.

use crate::os::Queue;

/// Index of the control queue that all control requests of an adapter go to (`sge.ctrlq[0]`).
pub const CTRL_QUEUE: u32 = 0;

/// An egress queue of the adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Egress {
    /// `sge.ctrlq[_]`.
    Ctrl(u32),
    /// `sge.ofld_txq[_]`.
    Ofld(u32),
}

impl Queue {
    /// The adapter's queue for a request of this kind, of a connection whose offload transmit
    /// queue is number `txq`.
    #[must_use]
    pub const fn egress(self, txq: u32) -> Egress {
        match self {
            Queue::Ctrl => Egress::Ctrl(CTRL_QUEUE),
            Queue::Ofld => Egress::Ofld(txq),
        }
    }
}
