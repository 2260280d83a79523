//! `sim.stats.*`: the card's counters, by name.

use core::ffi::CStr;

use t5sim::Stats;

/// One counter.
pub(crate) struct Stat {
    pub(crate) name: &'static CStr,
    pub(crate) descr: &'static CStr,
    pub(crate) get: fn(&Stats) -> u64,
}

/// All of them, in the order of [`Stats`].
pub(crate) static STATS: &[Stat] = &[
    Stat { name: c"wr_act_open", descr: c"work requests: act_open", get: |s| s.wrs.act_open },
    Stat { name: c"wr_pass_open", descr: c"work requests: pass_open", get: |s| s.wrs.pass_open },
    Stat { name: c"wr_close_listsrv", descr: c"work requests: close_listsrv", get: |s| s.wrs.close_listsrv },
    Stat { name: c"wr_pass_accept_rpl", descr: c"work requests: pass_accept_rpl", get: |s| s.wrs.pass_accept_rpl },
    Stat { name: c"wr_close_con", descr: c"work requests: close_con", get: |s| s.wrs.close_con },
    Stat { name: c"wr_abort_req", descr: c"work requests: abort_req", get: |s| s.wrs.abort_req },
    Stat { name: c"wr_abort_rpl", descr: c"work requests: abort_rpl", get: |s| s.wrs.abort_rpl },
    Stat { name: c"wr_tid_release", descr: c"work requests: tid_release", get: |s| s.wrs.tid_release },
    Stat { name: c"wr_rx_data_ack", descr: c"work requests: rx_data_ack", get: |s| s.wrs.rx_data_ack },
    Stat { name: c"wr_set_tcb_field", descr: c"work requests: set_tcb_field", get: |s| s.wrs.set_tcb_field },
    Stat { name: c"wr_get_tcb", descr: c"work requests: get_tcb", get: |s| s.wrs.get_tcb },
    Stat { name: c"wr_l2t_write", descr: c"work requests: l2t_write", get: |s| s.wrs.l2t_write },
    Stat { name: c"wr_flowc", descr: c"work requests: flowc", get: |s| s.wrs.flowc },
    Stat { name: c"wr_tx_data", descr: c"work requests: tx_data", get: |s| s.wrs.tx_data },
    Stat { name: c"wr_ulptx", descr: c"work requests: ulptx", get: |s| s.wrs.ulptx },
    Stat { name: c"wr_mem_write", descr: c"work requests: mem_write", get: |s| s.wrs.mem_write },
    Stat { name: c"wr_refused", descr: c"work requests refused by the card", get: |s| s.wr_refused },
    Stat { name: c"host_errors", descr: c"requests that made no sense when they ran (no such tid, no FLOWC yet, too many credits)", get: |s| s.host_errors },
    Stat { name: c"stray", descr: c"what the last of them was", get: |s| s.stray },
    Stat { name: c"cpls", descr: c"CPLs handed to the host", get: |s| s.cpls },
    Stat { name: c"segments", descr: c"segments given to the wire", get: |s| s.segments },
    Stat { name: c"wire_dropped", descr: c"segments the wire lost", get: |s| s.wire_dropped },
    Stat { name: c"wire_duplicated", descr: c"segments the wire delivered twice", get: |s| s.wire_duplicated },
    Stat { name: c"wire_reordered", descr: c"segments the wire delivered late", get: |s| s.wire_reordered },
    Stat { name: c"wire_resets", descr: c"connections the wire reset", get: |s| s.wire_resets },
    Stat { name: c"no_connection", descr: c"segments for nobody, answered with RST", get: |s| s.no_connection },
    Stat { name: c"frames", descr: c"plain frames carried", get: |s| s.frames },
    Stat { name: c"frames_dropped", descr: c"plain frames dropped", get: |s| s.frames_dropped },
    Stat { name: c"tx_bytes", descr: c"payload bytes read from host memory or work requests and sent, first time", get: |s| s.tx_bytes },
    Stat { name: c"rexmt_bytes", descr: c"payload bytes sent again", get: |s| s.rexmt_bytes },
    Stat { name: c"rexmts", descr: c"retransmission timeouts and fast retransmits", get: |s| s.rexmts },
    Stat { name: c"probes", descr: c"zero-window probes", get: |s| s.probes },
    Stat { name: c"ddp_bytes", descr: c"bytes placed by DDP", get: |s| s.ddp_bytes },
    Stat { name: c"cpl_bytes", descr: c"bytes delivered in CPL_RX_DATA", get: |s| s.cpl_bytes },
    Stat { name: c"indicates", descr: c"CPL_RX_DATA with ddp_off 0: indicates", get: |s| s.indicates },
    Stat { name: c"ddp_complete", descr: c"DDP buffers filled to the end", get: |s| s.ddp_complete },
    Stat { name: c"ddp_partial", descr: c"DDP buffers handed back before they were full (PSH, push timer, flush)", get: |s| s.ddp_partial },
    Stat { name: c"ddp_errors", descr: c"placements refused, by any of the errors of ddpvld", get: |s| s.ddp_errors },
    Stat { name: c"tag_mismatch", descr: c"refused placements: the pod's tag, page size or color is not the buffer's", get: |s| s.tag_mismatch },
    Stat { name: c"tid_mismatch", descr: c"refused placements: the pod belongs to another tid", get: |s| s.tid_mismatch },
    Stat { name: c"invalid_pod", descr: c"refused placements: the pod is not valid", get: |s| s.invalid_pod },
    Stat { name: c"invalid_tag", descr: c"refused placements: the tag points outside DDP memory", get: |s| s.invalid_tag },
    Stat { name: c"over_limit", descr: c"refused placements: the placement passes the end of the pods' length", get: |s| s.over_limit },
    Stat { name: c"ddp_off", descr: c"times a connection fell out of DDP", get: |s| s.ddp_off },
    Stat { name: c"pods_written", descr: c"page pods written", get: |s| s.pods_written },
    Stat { name: c"dma_faults", descr: c"DMA transfers host memory refused", get: |s| s.dma_faults },
    Stat { name: c"invalidates", descr: c"buffers invalidated by the host", get: |s| s.invalidates },
    Stat { name: c"credits_taken", descr: c"credits taken by work requests", get: |s| s.credits_taken },
    Stat { name: c"credits_returned", descr: c"credits given back in CPL_FW4_ACK", get: |s| s.credits_returned },
    Stat { name: c"credits_forfeited", descr: c"credits that went with connections that ended before they were returned", get: |s| s.credits_forfeited },
    Stat { name: c"tids_allocated", descr: c"connections whose TCB was allocated", get: |s| s.tids_allocated },
    Stat { name: c"tids_freed", descr: c"connections whose TCB was freed", get: |s| s.tids_freed },
];

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
        let non_zero: Vec<_> =
            STATS.iter().filter(|x| (x.get)(&s) != 0).map(|x| (x.name, (x.get)(&s))).collect();
        assert_eq!(non_zero, [(c"wr_tx_data", 3), (c"tids_freed", 7)]);
    }
}
