//! `sim.stats.*`: the card's counters, by name.

use core::ffi::CStr;

use t5sim::Stats;

use crate::text::c_str;

/// One counter.
pub(crate) struct Stat {
    pub(crate) name: &'static CStr,
    pub(crate) descr: &'static CStr,
    pub(crate) get: fn(&Stats) -> u64,
}

macro_rules! stats {
    ($($name:ident = $($field:ident).+, $descr:literal;)*) => {
        &[$(Stat {
            name: c_str(concat!(stringify!($name), "\0")),
            descr: c_str(concat!($descr, "\0")),
            get: |s| s.$($field).+,
        },)*]
    };
}

/// All of them, in the order of [`Stats`].
pub(crate) static STATS: &[Stat] = stats! {
    wr_act_open = wrs.act_open, "work requests executed, act_open";
    wr_pass_open = wrs.pass_open, "work requests executed, pass_open";
    wr_close_listsrv = wrs.close_listsrv, "work requests executed, close_listsrv";
    wr_pass_accept_rpl = wrs.pass_accept_rpl, "work requests executed, pass_accept_rpl";
    wr_close_con = wrs.close_con, "work requests executed, close_con";
    wr_abort_req = wrs.abort_req, "work requests executed, abort_req";
    wr_abort_rpl = wrs.abort_rpl, "work requests executed, abort_rpl";
    wr_tid_release = wrs.tid_release, "work requests executed, tid_release";
    wr_rx_data_ack = wrs.rx_data_ack, "work requests executed, rx_data_ack";
    wr_set_tcb_field = wrs.set_tcb_field, "work requests executed, set_tcb_field";
    wr_get_tcb = wrs.get_tcb, "work requests executed, get_tcb";
    wr_l2t_write = wrs.l2t_write, "work requests executed, l2t_write";
    wr_flowc = wrs.flowc, "work requests executed, flowc";
    wr_tx_data = wrs.tx_data, "work requests executed, tx_data";
    wr_ulptx = wrs.ulptx, "work requests executed, ulptx";
    wr_mem_write = wrs.mem_write, "work requests executed, mem_write";
    ctrl_first = ctrl_first, "work requests executed on control queue 0";
    ctrl_other = ctrl_other, "work requests executed on the other control queues";
    wr_refused = wr_refused, "work requests refused by the card";
    host_errors = host_errors, "requests that made no sense when they ran (no such tid, no FLOWC yet, too many credits)";
    cpls_lost = cpls_lost, "answers that the host never got";
    stray = stray, "replies and the like that crossed the end of their connection";
    cpls = cpls, "CPLs handed to the host";
    segments = segments, "segments given to the wire";
    wire_dropped = wire_dropped, "segments the wire lost";
    wire_duplicated = wire_duplicated, "segments the wire delivered twice";
    wire_reordered = wire_reordered, "segments the wire delivered late";
    wire_resets = wire_resets, "connections the wire reset";
    no_connection = no_connection, "segments for nobody, answered with RST";
    frames = frames, "plain frames carried";
    frames_dropped = frames_dropped, "plain frames dropped";
    tx_bytes = tx_bytes, "payload bytes read from host memory or work requests and sent, first time";
    rexmt_bytes = rexmt_bytes, "payload bytes sent again";
    rexmts = rexmts, "retransmission timeouts and fast retransmits";
    probes = probes, "zero-window probes";
    ddp_bytes = ddp_bytes, "bytes placed by DDP";
    cpl_bytes = cpl_bytes, "bytes delivered in CPL_RX_DATA";
    indicates = indicates, "CPL_RX_DATA with ddp_off 0: indicates";
    ddp_complete = ddp_complete, "DDP buffers filled to the end";
    ddp_partial = ddp_partial, "DDP buffers handed back before they were full (PSH, push timer, flush)";
    ddp_errors = ddp_errors, "placements refused, by any of the errors of ddpvld";
    tag_mismatch = tag_mismatch, "refused placements: the pod's tag, page size or color is not the buffer's";
    tid_mismatch = tid_mismatch, "refused placements: the pod belongs to another tid";
    invalid_pod = invalid_pod, "refused placements: the pod is not valid";
    invalid_tag = invalid_tag, "refused placements: the tag points outside DDP memory";
    over_limit = over_limit, "refused placements: the placement passes the end of the pods' length";
    ddp_off = ddp_off, "times a connection fell out of DDP";
    pods_written = pods_written, "page pods written";
    dma_faults = dma_faults, "DMA transfers host memory refused";
    invalidates = invalidates, "buffers invalidated by the host";
    credits_taken = credits_taken, "credits taken by work requests";
    credits_returned = credits_returned, "credits given back in CPL_FW4_ACK";
    credits_forfeited = credits_forfeited, "credits that went with connections that ended before they were returned";
    tids_allocated = tids_allocated, "connections whose TCB was allocated";
    tids_freed = tids_freed, "connections whose TCB was freed";
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_read_different_counters() {
        let names: BTreeSet<_> = STATS.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), STATS.len());
        let mut s = Stats::default();
        s.wrs.tx_data = 3;
        s.tids_freed = 7;
        let non_zero: Vec<_> = STATS
            .iter()
            .filter(|x| (x.get)(&s) != 0)
            .map(|x| (x.name, (x.get)(&s)))
            .collect();
        assert_eq!(non_zero, [(c"wr_tx_data", 3), (c"tids_freed", 7)]);
    }
}
