//! Counters. Everything a test or a person may want to know of a run, for the card and for each
//! connection. A counter only grows.

/// Work requests executed, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "each counts the request of its name")]
pub struct WrCount {
    pub act_open: u64,
    pub pass_open: u64,
    pub close_listsrv: u64,
    pub pass_accept_rpl: u64,
    pub close_con: u64,
    pub abort_req: u64,
    pub abort_rpl: u64,
    pub tid_release: u64,
    pub rx_data_ack: u64,
    pub set_tcb_field: u64,
    pub get_tcb: u64,
    pub l2t_write: u64,
    pub flowc: u64,
    pub tx_data: u64,
    pub ulptx: u64,
    pub mem_write: u64,
}

/// Counters of the whole card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Work requests executed.
    pub wrs: WrCount,
    /// Of those on control queues, the ones on queue 0.
    pub ctrl_first: u64,
    /// ... and on the others. There is no order between control queues.
    pub ctrl_other: u64,
    /// Work requests refused by [`Card::submit`](crate::Card::submit).
    pub wr_refused: u64,
    /// Requests that made no sense when they ran (no such tid, no FLOWC yet, too many credits…).
    /// A correct host leaves this at 0.
    pub host_errors: u64,
    /// What the last of them was.
    pub last_host_error: Option<(&'static str, u32)>,
    /// `CPL_ABORT_RPL` or `CPL_TID_RELEASE` and the like that crossed the end of their connection.
    pub stray: u64,
    /// CPLs handed to the host.
    pub cpls: u64,
    /// Answers lost on their way, see [`Lose`](crate::Lose).
    pub cpls_lost: u64,
    /// Segments given to the wire.
    pub segments: u64,
    /// Segments the wire lost.
    pub wire_dropped: u64,
    /// Segments the wire delivered twice.
    pub wire_duplicated: u64,
    /// Segments the wire delivered late.
    pub wire_reordered: u64,
    /// Connections the wire reset.
    pub wire_resets: u64,
    /// Segments for nobody, answered with RST.
    pub no_connection: u64,
    /// Plain frames carried.
    pub frames: u64,
    /// Plain frames dropped.
    pub frames_dropped: u64,
    /// Payload bytes read from host memory or work requests and sent, first time.
    pub tx_bytes: u64,
    /// Payload bytes sent again.
    pub rexmt_bytes: u64,
    /// Retransmission timeouts and fast retransmits.
    pub rexmts: u64,
    /// Zero-window probes.
    pub probes: u64,
    /// Bytes placed by DDP.
    pub ddp_bytes: u64,
    /// Bytes delivered in `CPL_RX_DATA`.
    pub cpl_bytes: u64,
    /// `CPL_RX_DATA` with `ddp_off` 0: indicates.
    pub indicates: u64,
    /// DDP buffers filled to the end.
    pub ddp_complete: u64,
    /// DDP buffers handed back before they were full (PSH, push timer, flush).
    pub ddp_partial: u64,
    /// Placements refused, by any of the errors of `ddpvld`.
    pub ddp_errors: u64,
    /// Of these: the pod's tag, page size or color is not the buffer's.
    pub tag_mismatch: u64,
    /// Of these: the pod belongs to another tid.
    pub tid_mismatch: u64,
    /// Of these: the pod is not valid.
    pub invalid_pod: u64,
    /// Of these: the tag points outside DDP memory.
    pub invalid_tag: u64,
    /// Of these: the placement passes the end of the pods' length.
    pub over_limit: u64,
    /// Times a connection fell out of DDP.
    pub ddp_off: u64,
    /// Page pods written.
    pub pods_written: u64,
    /// DMA transfers host memory refused.
    pub dma_faults: u64,
    /// Buffers invalidated by the host.
    pub invalidates: u64,
    /// Credits taken by work requests.
    pub credits_taken: u64,
    /// Credits given back in `CPL_FW4_ACK`.
    pub credits_returned: u64,
    /// Credits that went with connections that ended before they were returned.
    pub credits_forfeited: u64,
    /// Connections whose TCB was allocated.
    pub tids_allocated: u64,
    /// Connections whose TCB was freed.
    pub tids_freed: u64,
}

/// Counters of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnStats {
    /// Payload bytes sent, first time.
    pub tx_bytes: u64,
    /// Payload bytes sent again.
    pub rexmt_bytes: u64,
    /// Bytes placed by DDP.
    pub ddp_bytes: u64,
    /// Bytes delivered in `CPL_RX_DATA`.
    pub cpl_bytes: u64,
    /// Placements refused.
    pub ddp_errors: u64,
    /// Credits taken.
    pub credits_taken: u64,
    /// Credits given back.
    pub credits_returned: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Segments received.
    pub segments_in: u64,
}
