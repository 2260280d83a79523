//! Option words of the open messages: `opt0`, `opt2`, and the TCP options the adapter
//! reports with an established connection.

use crate::Chip;

/// Upper-layer protocol mode of a connection (`ULP_MODE_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum UlpMode {
    /// Plain TCP.
    None = 0,
    /// Direct data placement.
    TcpDdp = 5,
}

/// `opt0`: 64 bits of ACT_OPEN_REQ, PASS_OPEN_REQ and PASS_ACCEPT_RPL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opt0 {
    /// Channel to transmit on, 2 bits.
    pub tx_chan: u8,
    /// Connections of this listener are not offloaded: its SYNs go to the host as packets.
    pub non_offload: bool,
    /// `ULP_MODE_*`, 4 bits.
    pub ulp_mode: u8,
    /// Initial receive window in KiB, 10 bits.
    pub rcv_bufsiz: u16,
    /// Differentiated services code point, 6 bits.
    pub dscp: u8,
    /// Source MAC selector (SMT index), 8 bits.
    pub smac_sel: u8,
    /// L2 table index, 12 bits.
    pub l2t_idx: u16,
    /// Skip the TCAM: set on every offloaded open.
    pub tcam_bypass: bool,
    /// Nagle's algorithm.
    pub nagle: bool,
    /// Receive window scale, 4 bits.
    pub wnd_scale: u8,
    /// Keepalive probes.
    pub keep_alive: bool,
    /// Index in the MTU table, 4 bits.
    pub mss_idx: u8,
}

const fn bits(v: u64, shift: u32, width: u32) -> u64 {
    (v & ((1 << width) - 1)) << shift
}

const fn field(v: u64, shift: u32, width: u32) -> u64 {
    (v >> shift) & ((1 << width) - 1)
}

impl Opt0 {
    /// Largest `rcv_bufsiz`.
    pub const MAX_RCV_BUFSIZ: u16 = 0x3ff;

    /// The word, in host order. Values wider than their field are cut.
    #[must_use]
    pub const fn to_bits(&self) -> u64 {
        bits(self.tx_chan as u64, 2, 2)
            | bits(self.non_offload as u64, 7, 1)
            | bits(self.ulp_mode as u64, 8, 4)
            | bits(self.rcv_bufsiz as u64, 12, 10)
            | bits(self.dscp as u64, 22, 6)
            | bits(self.smac_sel as u64, 28, 8)
            | bits(self.l2t_idx as u64, 36, 12)
            | bits(self.tcam_bypass as u64, 48, 1)
            | bits(self.nagle as u64, 49, 1)
            | bits(self.wnd_scale as u64, 50, 4)
            | bits(self.keep_alive as u64, 54, 1)
            | bits(self.mss_idx as u64, 60, 4)
    }

    /// Take the word apart.
    #[must_use]
    pub const fn from_bits(v: u64) -> Opt0 {
        Opt0 {
            tx_chan: field(v, 2, 2) as u8,
            non_offload: field(v, 7, 1) != 0,
            ulp_mode: field(v, 8, 4) as u8,
            rcv_bufsiz: field(v, 12, 10) as u16,
            dscp: field(v, 22, 6) as u8,
            smac_sel: field(v, 28, 8) as u8,
            l2t_idx: field(v, 36, 12) as u16,
            tcam_bypass: field(v, 48, 1) != 0,
            nagle: field(v, 49, 1) != 0,
            wnd_scale: field(v, 50, 4) as u8,
            keep_alive: field(v, 54, 1) != 0,
            mss_idx: field(v, 60, 4) as u8,
        }
    }
}

/// `opt2`: 32 bits of ACT_OPEN_REQ and PASS_ACCEPT_RPL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opt2 {
    /// Absolute id of the ingress queue that gets the connection's CPLs, 10 bits.
    pub rss_queue: u16,
    /// `rss_queue` counts.
    pub rss_queue_valid: bool,
    /// Coalesce received data, 2 bits; 3 is on.
    pub rx_coalesce: u8,
    /// Congestion control, 2 bits.
    pub cong_cntrl: u8,
    /// Transmit pacing class, 2 bits.
    pub pace: u8,
    /// Nothing received is charged against the receive window.
    pub rx_fc_disable: bool,
    /// Bytes placed by DDP are not charged against the receive window.
    pub rx_fc_ddp: bool,
    /// Modulation queue of the transmit channel, 3 bits.
    pub tx_queue: u8,
    /// Receive channel.
    pub rx_channel: bool,
    /// Explicit congestion notification.
    pub ecn: bool,
    /// Window scaling.
    pub wnd_scale_en: bool,
    /// Timestamps.
    pub tstamps_en: bool,
    /// Selective acknowledgements.
    pub sack_en: bool,
    /// T5 and later: the ISS stands in the message.
    pub iss_valid: bool,
}

impl Opt2 {
    /// The word, in host order, with the chip's valid bits set.
    #[must_use]
    pub const fn to_bits(&self, chip: Chip) -> u32 {
        let valid = match chip {
            // RX_COALESCE, CONG_CNTRL, PACE and RX_FC have a valid bit each; T5 took bit 18 for
            // the ISS and has one bit for all four.
            Chip::T4 => (1 << 11) | (1 << 18) | (1 << 19) | (1 << 22),
            Chip::T5 | Chip::T6 => (1 << 31) | ((self.iss_valid as u64) << 18),
        };
        (valid
            | bits(self.rss_queue as u64, 0, 10)
            | bits(self.rss_queue_valid as u64, 10, 1)
            | bits(self.rx_coalesce as u64, 12, 2)
            | bits(self.cong_cntrl as u64, 14, 2)
            | bits(self.pace as u64, 16, 2)
            | bits(self.rx_fc_disable as u64, 20, 1)
            | bits(self.rx_fc_ddp as u64, 21, 1)
            | bits(self.tx_queue as u64, 23, 3)
            | bits(self.rx_channel as u64, 26, 1)
            | bits(self.ecn as u64, 27, 1)
            | bits(self.wnd_scale_en as u64, 28, 1)
            | bits(self.tstamps_en as u64, 29, 1)
            | bits(self.sack_en as u64, 30, 1)) as u32
    }

    /// Take the word apart.
    #[must_use]
    pub const fn from_bits(v: u32, chip: Chip) -> Opt2 {
        let v = v as u64;
        Opt2 {
            rss_queue: field(v, 0, 10) as u16,
            rss_queue_valid: field(v, 10, 1) != 0,
            rx_coalesce: field(v, 12, 2) as u8,
            cong_cntrl: field(v, 14, 2) as u8,
            pace: field(v, 16, 2) as u8,
            rx_fc_disable: field(v, 20, 1) != 0,
            rx_fc_ddp: field(v, 21, 1) != 0,
            tx_queue: field(v, 23, 3) as u8,
            rx_channel: field(v, 26, 1) != 0,
            ecn: field(v, 27, 1) != 0,
            wnd_scale_en: field(v, 28, 1) != 0,
            tstamps_en: field(v, 29, 1) != 0,
            sack_en: field(v, 30, 1) != 0,
            iss_valid: match chip {
                Chip::T4 => false,
                Chip::T5 | Chip::T6 => field(v, 18, 1) != 0,
            },
        }
    }
}

/// `tcp_opt` of ACT_ESTABLISH and PASS_ESTABLISH: what both ends agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpOpt {
    /// Window scaling is in use.
    pub wscale_ok: bool,
    /// Selective acknowledgements are in use.
    pub sack: bool,
    /// Timestamps are in use.
    pub tstamp: bool,
    /// Scale of the peer's window, 4 bits.
    pub snd_wscale: u8,
    /// Index in the MTU table that bounds the segments we send, 4 bits.
    pub mss_idx: u8,
}

impl TcpOpt {
    /// The half word, in host order.
    #[must_use]
    pub const fn to_bits(&self) -> u16 {
        (bits(self.wscale_ok as u64, 5, 1)
            | bits(self.sack as u64, 6, 1)
            | bits(self.tstamp as u64, 7, 1)
            | bits(self.snd_wscale as u64, 8, 4)
            | bits(self.mss_idx as u64, 12, 4)) as u16
    }

    /// Take the half word apart.
    #[must_use]
    pub const fn from_bits(v: u16) -> TcpOpt {
        let v = v as u64;
        TcpOpt {
            wscale_ok: field(v, 5, 1) != 0,
            sack: field(v, 6, 1) != 0,
            tstamp: field(v, 7, 1) != 0,
            snd_wscale: field(v, 8, 4) as u8,
            mss_idx: field(v, 12, 4) as u8,
        }
    }
}
