//! What a card is made of, and what may go wrong with it.

use core::fmt;

use crate::Nanos;

/// How often and how the card and the wire misbehave. Rates are parts per million, drawn from the
/// card's seed. [`Faults::default`] is no fault at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Segments the wire loses.
    pub drop_ppm: u32,
    /// Segments the wire delivers twice.
    pub dup_ppm: u32,
    /// Segments held back by `reorder_delay`, so that later ones overtake them.
    pub reorder_ppm: u32,
    /// How long a held-back segment is late, ns.
    pub reorder_delay: Nanos,
    /// Segments after which the wire resets the connection (both ends see an RST).
    pub reset_ppm: u32,
    /// Time between a DDP buffer's invalidate reaching the card and its taking effect, ns.
    /// Bytes that arrive meanwhile are still placed.
    pub invalidate_delay: Nanos,
    /// Extra time before a `CPL_SET_TCB_RPL` is delivered, ns. CPLs of the queue behind it wait.
    pub set_tcb_rpl_delay: Nanos,
    /// In-order segments that throw a connection out of DDP.
    pub ddp_off_ppm: u32,
    /// In-order segments that find no DDP buffer and are indicated at once, without
    /// `indicate_hold`: an indicate can then cross a buffer the host is posting.
    pub indicate_ppm: u32,
    /// Extra time before anything is sent again after a loss, ns: how long the host must keep
    /// pages that were sent but not acknowledged.
    pub retransmit_delay: Nanos,
    /// Random extra latency of every work request, 0 ..= this, ns.
    pub wr_jitter: Nanos,
    /// Random extra latency of every CPL, 0 ..= this, ns. Order within a queue is kept.
    pub cpl_jitter: Nanos,
    /// Answers the card does not give.
    pub lose: Lose,
    /// Time between a `CPL_ABORT_REQ` reaching the card and its taking effect, ns: bytes are placed
    /// and fetched meanwhile.
    pub abort_delay: Nanos,
}

/// Answers that the card makes and the host never gets, by kind. Rates are parts per million.
/// [`crate::Card::find_lost`] delivers them after all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lose {
    /// `CPL_SET_TCB_RPL`.
    pub set_tcb_rpl_ppm: u32,
    /// `CPL_ABORT_RPL_RSS`.
    pub abort_rpl_ppm: u32,
    /// `CPL_CLOSE_CON_RPL`.
    pub close_con_rpl_ppm: u32,
    /// `CPL_FW4_ACK`.
    pub fw4_ack_ppm: u32,
}

impl Lose {
    /// Nothing is lost.
    pub const NONE: Lose = Lose {
        set_tcb_rpl_ppm: 0,
        abort_rpl_ppm: 0,
        close_con_rpl_ppm: 0,
        fw4_ack_ppm: 0,
    };

    /// The rate at which this message is lost.
    pub(crate) fn rate(&self, cpl: &[u8]) -> u32 {
        match wire::opcode_of_cpl(cpl) {
            Ok(wire::Opcode::SetTcbRpl) => self.set_tcb_rpl_ppm,
            Ok(wire::Opcode::AbortRplRss) => self.abort_rpl_ppm,
            Ok(wire::Opcode::CloseConRpl) => self.close_con_rpl_ppm,
            Ok(wire::Opcode::Fw4Ack) => self.fw4_ack_ppm,
            _ => 0,
        }
    }
}

/// A card and its surroundings. Start from [`Config::default`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Which message layouts the host uses.
    pub chip: wire::Chip,
    /// Ports, 2: wired to each other.
    pub ports: u8,
    /// Connections (TCBs). Tids are `0 .. ntids`.
    pub ntids: u32,
    /// Active opens under way at once. Atids are `0 .. natids`.
    pub natids: u32,
    /// Listeners at once. The host chooses the stid, any 24-bit value.
    pub nstids: u32,
    /// Page pods in DDP memory.
    pub ppods: u32,
    /// Byte address of the first page pod in adapter memory (`vres.ddp.start`), a multiple of 64.
    pub ddp_start: u32,
    /// log2 of the four DDP page sizes (`ULP_RX_TDDP_PSZ`), ascending.
    pub page_shifts: [u8; 4],
    /// Seed of everything random.
    pub seed: u64,
    /// Bits per second of each port, each way.
    pub line_rate_bps: u64,
    /// Propagation delay of the wire, ns.
    pub wire_delay: Nanos,
    /// Longest time an acknowledgement is held back, ns.
    pub ack_delay: Nanos,
    /// Time from an event in the card to its CPL in host memory, ns.
    pub host_delay: Nanos,
    /// Time from the doorbell to the execution of a work request, ns.
    pub wr_delay: Nanos,
    /// Segment sizes, bytes: each segment's length is drawn from `seg_min ..= seg_max` and then
    /// cut to what is queued and what the peer's window takes. One of the model's segments stands
    /// for a TSO burst that the receiver coalesced.
    pub seg_min: u32,
    /// See `seg_min`. At most 65535.
    pub seg_max: u32,
    /// Work-request credits of a connection, in units of 16 bytes (`params.ofldq_wr_cred`).
    pub tx_credits: u16,
    /// Whether `CPL_CLOSE_CON_REQ`, `CPL_ABORT_REQ` and `CPL_ABORT_RPL` take credits and give them
    /// back. FreeBSD's driver counts none for them, so the default is no.
    pub close_credits: bool,
    /// Longest time credits of acknowledged work requests stay unreported, ns.
    pub credit_delay: Nanos,
    /// Retransmission timeout, ns. It doubles at each try.
    pub rto: Nanos,
    /// Tries before a connection is given up (`CPL_ERR_XMIT_TIMEDOUT`), SYNs included.
    pub max_rexmt: u8,
    /// How long data waits in the card for the host to post a DDP buffer before it is delivered
    /// as an "indicate" (`CPL_RX_DATA` with `ddp_off` 0), ns.
    pub indicate_hold: Nanos,
    /// Most bytes of one indicate, a single CPL then; the rest waits another `indicate_hold`. 0:
    /// no limit, a CPL for each segment.
    pub indicate_size: u32,
    /// The DDP push timer, ns: how long after a PSH a partly filled buffer is handed back. 0: at
    /// once, with the placement's own `CPL_RX_DATA_DDP`; otherwise by `CPL_RX_DDP_COMPLETE`.
    pub push_timer: Nanos,
    /// Offset of the lowest sequence number the card picks itself (T4, or opt2 without `T5_ISS`).
    pub iss_base: u32,
    /// `params.mtus`, ascending. An MSS index points in here.
    pub mtus: [u16; 16],
    /// Ethernet address of each port.
    pub macs: [[u8; 6]; 2],
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            chip: wire::Chip::T5,
            ports: 2,
            ntids: 1024,
            natids: 256,
            nstids: 64,
            ppods: 16384,
            ddp_start: 0,
            page_shifts: [12, 14, 16, 18],
            seed: 1,
            line_rate_bps: 40_000_000_000,
            wire_delay: 2_000,
            ack_delay: 10_000,
            host_delay: 5_000,
            wr_delay: 1_000,
            seg_min: 1_460,
            seg_max: 16_384,
            tx_credits: 128,
            close_credits: false,
            credit_delay: 20_000,
            rto: 5_000_000,
            max_rexmt: 12,
            indicate_hold: 500_000,
            indicate_size: 0,
            push_timer: 0,
            iss_base: 0x1000_0000,
            mtus: [
                88, 256, 512, 576, 808, 1024, 1280, 1488, 1500, 2002, 2048, 4096, 4352, 8192, 9000,
                9600,
            ],
            macs: [
                [0x00, 0x07, 0x43, 0, 0, 0x10],
                [0x00, 0x07, 0x43, 0, 0, 0x11],
            ],
            faults: Faults::default(),
        }
    }
}

/// A [`Config`] that describes no card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The field at fault.
    pub field: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "card configuration: {} out of range", self.field)
    }
}

impl core::error::Error for ConfigError {}

/// Largest number of page pods: a tag has 24 bits of pod index, less the "invalid" bit above.
const MAX_PPODS: u32 = 1 << 23;

impl Config {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let need = |ok: bool, field| {
            if ok {
                Ok(())
            } else {
                Err(ConfigError { field })
            }
        };
        need(self.ports == 2, "ports")?;
        need(self.ntids > 0 && self.ntids <= 1 << 20, "ntids")?;
        need(self.natids > 0 && self.natids <= 1 << 11, "natids")?;
        need(self.nstids > 0 && self.nstids <= 1 << 16, "nstids")?;
        need(self.ppods <= MAX_PPODS, "ppods")?;
        need(
            self.ddp_start.is_multiple_of(64)
                && self
                    .ppods
                    .checked_mul(64)
                    .and_then(|n| n.checked_add(self.ddp_start))
                    .is_some(),
            "ddp_start",
        )?;
        let ascend = self.page_shifts.windows(2).all(|w| w[0] < w[1]);
        let first = self.page_shifts[0];
        let last = self.page_shifts[3];
        need(ascend && first >= 12 && last <= 27, "page_shifts")?;
        need(self.line_rate_bps >= 1_000_000, "line_rate_bps")?;
        need(self.seg_min > 0 && self.seg_min <= self.seg_max, "seg_min")?;
        need(self.seg_max <= 65_535, "seg_max")?;
        // A flow must fit its FLOWC (6) and one largest work request (32).
        need(self.tx_credits >= 38, "tx_credits")?;
        need(self.rto > 0, "rto")?;
        need(self.max_rexmt > 0 && self.max_rexmt <= 32, "max_rexmt")?;
        let mtus = self.mtus[0] > 40 && self.mtus.windows(2).all(|w| w[0] <= w[1]);
        need(mtus, "mtus")
    }
}
