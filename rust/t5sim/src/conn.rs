//! One offloaded connection: what the card keeps of it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::event::Timer;
use crate::rx::Chunk;
use crate::stats::ConnStats;
use crate::{Nanos, config::Config};

/// Where a connection stands, seen from the card. The names are TCP's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// No longer a connection; the tid waits for the host's `CPL_TID_RELEASE`.
    Closed,
    /// SYN sent.
    SynSent,
    /// SYN received and passed to the host, or answered with SYN-ACK.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// The peer has sent its FIN.
    CloseWait,
    /// Our FIN is sent or queued.
    FinWait1,
    /// Both FINs are out, neither end knows that ours arrived.
    Closing,
    /// The peer closed first; our FIN is sent or queued.
    LastAck,
    /// Our FIN is acknowledged, the peer's has not come.
    FinWait2,
    /// Both FINs exchanged and acknowledged.
    TimeWait,
    /// The card has told the host of a reset and waits for `CPL_ABORT_RPL`.
    Aborting,
}

impl TcpState {
    /// Segments of data and acknowledgements have a meaning in this state.
    pub(crate) fn synchronised(self) -> bool {
        !matches!(
            self,
            Self::Closed | Self::SynSent | Self::SynReceived | Self::Aborting
        )
    }

    /// The host may still queue data and receive it.
    pub(crate) fn can_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// TCPS_* of FreeBSD, which is also what the TCB holds in `T_STATE`.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Closed | Self::Aborting => 0,
            Self::SynSent => 2,
            Self::SynReceived => 3,
            Self::Established => 4,
            Self::CloseWait => 5,
            Self::FinWait1 => 6,
            Self::Closing => 7,
            Self::LastAck => 8,
            Self::FinWait2 => 9,
            Self::TimeWait => 10,
        }
    }
}

/// Addresses and ports, from the point of view of one end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tuple {
    pub(crate) local_ip: u32,
    pub(crate) local_port: u16,
    pub(crate) peer_ip: u32,
    pub(crate) peer_port: u16,
}

impl Tuple {
    pub(crate) fn reversed(self) -> Self {
        Self {
            local_ip: self.peer_ip,
            local_port: self.peer_port,
            peer_ip: self.local_ip,
            peer_port: self.local_port,
        }
    }
}

/// Where the bytes of a transmit work request are.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// None: the request only takes its place (and credits) in the flow.
    None,
    /// In the request itself.
    Immediate(Vec<u8>),
    /// In host memory, as (bus address, length).
    Sgl(Vec<(u64, u32)>),
}

/// A work request of a flow that has not been acknowledged in full.
#[derive(Clone, Debug)]
pub(crate) struct TxWr {
    /// Stream offset of its first byte; stream offset 0 is `iss + 1`.
    pub(crate) start: u64,
    /// Bytes of stream in it.
    pub(crate) len: u64,
    pub(crate) data: Payload,
    /// Length in units of 16 bytes.
    pub(crate) credits: u16,
    pub(crate) shove: bool,
    pub(crate) compl: bool,
}

impl TxWr {
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Options of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SynOpts {
    pub(crate) mss: u16,
    pub(crate) wscale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) tstamp: bool,
    pub(crate) ecn: bool,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) tid: u32,
    /// Serial number of this use of the tid.
    pub(crate) born: u64,
    pub(crate) port: u8,
    pub(crate) tuple: Tuple,
    pub(crate) state: TcpState,
    /// The atid as the host wrote it, queue and cookie bits included.
    pub(crate) atid: Option<u32>,
    pub(crate) stid: Option<u32>,
    /// Queue for CPLs of the data path (opt2 RSS_QUEUE).
    pub(crate) rxq: u16,
    /// Queue for `CPL_FW4_ACK` (FLOWC IQID).
    pub(crate) fw_rxq: u16,
    pub(crate) flowc: bool,
    /// The host has released the tid; it goes when nothing more is owed.
    pub(crate) released: bool,
    /// `CPL_PASS_ACCEPT_RPL` has come.
    pub(crate) accepted: bool,
    /// The L2 entry names a station that is not at the other end of the wire.
    pub(crate) l2_lost: bool,

    // Send side. Offsets are 64-bit stream offsets; sequence number = iss + 1 + offset.
    pub(crate) iss: u32,
    pub(crate) una: u64,
    pub(crate) nxt: u64,
    /// Highest offset ever sent.
    pub(crate) max: u64,
    /// End of what the host has queued.
    pub(crate) end: u64,
    /// Most bytes sent and not acknowledged (FLOWC SNDBUF).
    pub(crate) sndbuf: u64,
    pub(crate) snd_wnd: u64,
    /// Sequence number of the segment `snd_wnd` was taken from.
    pub(crate) snd_wl1: u32,
    pub(crate) txq: VecDeque<TxWr>,
    /// The host wants no more sent; the FIN's place is stream offset `end`.
    pub(crate) fin_queued: bool,
    pub(crate) in_ring: bool,
    /// The probe timer fired: one byte may pass a closed window.
    pub(crate) probe: bool,
    pub(crate) dupacks: u8,
    /// Fast retransmit is off until this offset is acknowledged.
    pub(crate) recover: u64,
    pub(crate) tries: u8,
    pub(crate) credits_out: u16,
    /// Credits of retired work requests, one entry each, oldest first.
    pub(crate) unreported: VecDeque<u16>,

    // Receive side.
    pub(crate) irs: u32,
    pub(crate) rcv_nxt: u32,
    /// Room in the host's socket buffer, by the host's own account: opt0 and RX_DATA_ACK add,
    /// delivered bytes take.
    pub(crate) rcv_wnd: i64,
    /// Right edge last promised to the peer.
    pub(crate) rcv_adv: u32,
    pub(crate) wscale: u8,
    pub(crate) peer_wscale: u8,
    pub(crate) wscale_on: bool,
    pub(crate) mss_idx: u8,
    pub(crate) opts: SynOpts,
    pub(crate) unacked: u32,
    pub(crate) held: VecDeque<Chunk>,
    pub(crate) held_bytes: u32,
    /// The peer's FIN has come (and `rcv_nxt` counts it).
    pub(crate) fin_rcvd: bool,
    /// `CPL_ABORT_RPL` is owed by the host.
    pub(crate) abort_rpl_due: bool,

    // DDP.
    pub(crate) tcb: wire::Tcb,
    /// Bytes placed into each buffer since it was armed.
    pub(crate) placed: [u32; 2],
    /// Buffer the push timer runs for.
    pub(crate) push_buf: Option<wire::DdpBuf>,
    /// The next in-order bytes throw the connection out of DDP.
    pub(crate) fall_out: bool,

    pub(crate) timers: [Option<Nanos>; Timer::COUNT],
    pub(crate) stats: ConnStats,
}

impl Conn {
    pub(crate) fn new(tid: u32, born: u64, port: u8, tuple: Tuple, state: TcpState) -> Self {
        Self {
            tid,
            born,
            port,
            tuple,
            state,
            atid: None,
            stid: None,
            rxq: 0,
            fw_rxq: 0,
            flowc: false,
            released: false,
            accepted: false,
            l2_lost: false,
            iss: 0,
            una: 0,
            nxt: 0,
            max: 0,
            end: 0,
            sndbuf: u64::MAX,
            snd_wnd: 0,
            snd_wl1: 0,
            txq: VecDeque::new(),
            fin_queued: false,
            in_ring: false,
            probe: false,
            dupacks: 0,
            recover: 0,
            tries: 0,
            credits_out: 0,
            unreported: VecDeque::new(),
            irs: 0,
            rcv_nxt: 0,
            rcv_wnd: 0,
            rcv_adv: 0,
            wscale: 0,
            peer_wscale: 0,
            wscale_on: false,
            mss_idx: 0,
            opts: SynOpts::default(),
            unacked: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            fin_rcvd: false,
            abort_rpl_due: false,
            tcb: wire::Tcb::default(),
            placed: [0; 2],
            push_buf: None,
            fall_out: false,
            timers: [None; Timer::COUNT],
            stats: ConnStats::default(),
        }
    }

    /// Sequence number of a stream offset. It wraps every 4 GiB, as on the wire.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "modulo 2^32 is what is meant"
    )]
    pub(crate) fn seq_of(&self, off: u64) -> u32 {
        self.iss.wrapping_add(1).wrapping_add(off as u32)
    }

    /// The stream offset a sequence number near `una` means; `None` if it is before `una` .
    pub(crate) fn off_of(&self, seq: u32) -> Option<u64> {
        let ahead = seq.wrapping_sub(self.seq_of(self.una));
        (ahead < 1 << 31).then(|| self.una + u64::from(ahead))
    }

    /// Everything there is to send, the FIN counted as one.
    pub(crate) fn total(&self) -> u64 {
        self.end.saturating_add(u64::from(self.fin_queued))
    }

    pub(crate) fn fin_acked(&self) -> bool {
        self.fin_queued && self.una > self.end
    }

    /// Something was sent and is not acknowledged.
    pub(crate) fn outstanding(&self) -> bool {
        self.una < self.max
    }

    /// Next sequence number to send as the host is told it: past everything sent, FIN included.
    pub(crate) fn snd_nxt(&self) -> u32 {
        self.seq_of(self.max)
    }

    /// What the host has been given or will be with the CPLs on their way: `rcv_nxt` without
    /// what is held in the card.
    pub(crate) fn delivered_nxt(&self) -> u32 {
        self.rcv_nxt.wrapping_sub(self.held_bytes)
    }

    /// Bytes of receive window to offer now, in what the window field can express.
    pub(crate) fn window(&self) -> u32 {
        let room = self
            .rcv_wnd
            .saturating_sub(i64::from(self.held_bytes))
            .max(0);
        let scale = if self.wscale_on {
            self.wscale.min(14)
        } else {
            0
        };
        let max = 65_535_i64 << scale;
        let room = room.min(max);
        u32::try_from((room >> scale) << scale).unwrap_or(u32::MAX)
    }

    /// The TCB with the fields the card itself keeps filled in (t4_tcb.h).
    pub(crate) fn live_tcb(&self) -> wire::Tcb {
        let mut t = self.tcb.clone();
        let mut put = |word: u8, shift: u32, width: u32, v: u64| {
            let ones = (1_u64 << width) - 1;
            let (mask, value) = (ones << shift, (v & ones) << shift);
            t.set_field(&wire::TcbUpdate { word, mask, value });
        };
        put(3, 16, 4, u64::from(self.state.code()));
        put(3, 24, 4, u64::from(self.mss_idx));
        put(3, 28, 4, u64::from(self.peer_wscale));
        put(4, 0, 4, u64::from(self.wscale));
        // Send sequence numbers are kept as distances below the highest sent.
        put(9, 0, 32, u64::from(self.snd_nxt()));
        put(10, 0, 28, self.max.saturating_sub(self.una));
        put(10, 28, 28, self.max.saturating_sub(self.nxt));
        put(16, 10, 32, u64::from(self.rcv_nxt));
        put(17, 10, 28, u64::from(self.window()));
        t
    }

    pub(crate) fn timer(&self, t: Timer) -> Option<Nanos> {
        self.timers.get(t.idx()).copied().flatten()
    }

    pub(crate) fn set_timer(&mut self, t: Timer, at: Option<Nanos>) {
        if let Some(slot) = self.timers.get_mut(t.idx()) {
            *slot = at;
        }
    }

    /// The largest MSS index of `cfg` whose MSS is no more than `mss`, at most `idx`.
    pub(crate) fn fit_mss(cfg: &Config, idx: u8, mss: u16) -> u8 {
        let mut best = 0;
        for (i, mtu) in (0_u8..).zip(cfg.mtus.iter()) {
            if i <= idx && mtu.saturating_sub(40) <= mss {
                best = i;
            }
        }
        best
    }
}

/// `a` is after `b` in sequence space.
pub(crate) fn seq_gt(a: u32, b: u32) -> bool {
    let d = a.wrapping_sub(b);
    d != 0 && d < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn() -> Conn {
        let t = Tuple {
            local_ip: 1,
            local_port: 2,
            peer_ip: 3,
            peer_port: 4,
        };
        Conn::new(0, 0, 0, t, TcpState::Established)
    }

    #[test]
    fn sequence_space_wraps() {
        let mut c = conn();
        c.iss = 0xffff_fff0;
        c.una = 10;
        assert_eq!(c.seq_of(10), 0xffff_fffb);
        assert_eq!(c.off_of(5), Some(20));
        assert_eq!(c.off_of(0xffff_fffa), None);
        c.una = (1 << 32) + 20;
        assert_eq!(c.off_of(c.seq_of((1 << 32) + 21)), Some((1 << 32) + 21));
        assert!(seq_gt(3, 0xffff_ff00) && !seq_gt(0xffff_ff00, 3) && !seq_gt(7, 7));
    }

    #[test]
    fn window_is_what_the_field_can_say() {
        let mut c = conn();
        c.rcv_wnd = 300_001;
        assert_eq!(c.window(), 65_535);
        c.wscale_on = true;
        c.wscale = 4;
        assert_eq!(c.window(), 300_000);
        c.held_bytes = 300_001;
        assert_eq!(c.window(), 0);
        c.rcv_wnd = -5;
        assert_eq!(c.window(), 0);
    }

    #[test]
    fn mss_fits_both_ends() {
        let cfg = Config::default();
        assert_eq!(Conn::fit_mss(&cfg, 14, 1460), 8);
        assert_eq!(Conn::fit_mss(&cfg, 6, 1460), 6);
        assert_eq!(Conn::fit_mss(&cfg, 14, 8960), 14);
    }
}
