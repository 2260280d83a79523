//! Received payload: in the stream, placed by DDP, and the credits given back.

use crate::bytes::{
    WR_HDR_LEN, begin_cpl, begin_req, bits32, fit, fit32, get_u8, get_u16, get_u32, open_cpl,
    open_req, put_u8, put_u16, put_u32, round16,
};
use crate::error::WireError;
use crate::opcode::Opcode;
use crate::status::CplStatus;

/// CPL_RX_DATA: payload in the free-list buffers that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxData {
    /// Connection.
    pub tid: u32,
    /// Payload bytes.
    pub len: u16,
    /// Sequence number of the first payload byte.
    pub seq: u32,
    /// Offset of the urgent pointer.
    pub urg: u16,
    /// Delayed-ACK mode in force; 2 bits.
    pub dack_mode: u8,
    /// The segment had PSH.
    pub psh: bool,
    /// A sign of life rather than data.
    pub heartbeat: bool,
    /// DDP is off for the connection.
    pub ddp_off: bool,
    /// Status.
    pub status: CplStatus,
}

impl RxData {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::RxData;
    /// Bytes of the CPL; the payload comes after.
    pub const LEN: usize = 16;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        let f = get_u8(c, 14)?;
        Ok(Self {
            tid,
            len: get_u16(c, 6)?,
            seq: get_u32(c, 8)?,
            urg: get_u16(c, 12)?,
            dack_mode: f & 3,
            psh: f & 1 << 2 != 0,
            heartbeat: f & 1 << 3 != 0,
            ddp_off: f & 1 << 4 != 0,
            status: CplStatus(get_u8(c, 15)?),
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        fit("dack_mode", u64::from(self.dack_mode), 2)?;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u16(c, 6, self.len)?;
        put_u32(c, 8, self.seq)?;
        put_u16(c, 12, self.urg)?;
        let f = self.dack_mode
            | u8::from(self.psh) << 2
            | u8::from(self.heartbeat) << 3
            | u8::from(self.ddp_off) << 4;
        put_u8(c, 14, f)?;
        put_u8(c, 15, self.status.0)
    }
}

/// CPL_RX_DATA_ACK: give receive credits back, or change how ACKs are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxDataAck {
    /// Connection.
    pub tid: u32,
    /// Bytes by which the receive window opens; 26 bits.
    pub credits: u32,
    /// Modulate the transmit side.
    pub modulate_tx: bool,
    /// Modulate the receive side: makes the engine look again at held-back data.
    pub modulate_rx: bool,
    /// Send an ACK now.
    pub force_ack: bool,
    /// New delayed-ACK mode, if `dack_change`; 2 bits.
    pub dack_mode: u8,
    /// `dack_mode` counts.
    pub dack_change: bool,
}

impl RxDataAck {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::RxDataAck;
    /// Bytes of the CPL alone (`struct cpl_rx_data_ack_core`).
    pub const CPL_LEN: usize = 8;
    /// Bytes of the whole work request.
    pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
        Ok(Self::from_word(tid, get_u32(c, 4)?))
    }

    /// Writes the work request.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let v = self.to_word()?;
        let c = begin_req(b, Self::OPCODE, self.tid, self.tid, Self::CPL_LEN)?;
        put_u32(c, 4, v)
    }

    /// Reads the CPL alone, as a ULP_TX packet carries it.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse_core(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::CPL_LEN)?;
        Ok(Self::from_word(tid, get_u32(c, 4)?))
    }

    /// Writes the CPL alone, for a ULP_TX packet.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit_core(&self, b: &mut [u8]) -> Result<(), WireError> {
        let v = self.to_word()?;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::CPL_LEN)?;
        put_u32(c, 4, v)
    }

    /// Splits the `credit_dack` word of connection `tid`.
    #[must_use]
    pub const fn from_word(tid: u32, v: u32) -> Self {
        Self {
            tid,
            credits: bits32(v, 0, 26),
            modulate_tx: v & 1 << 26 != 0,
            modulate_rx: v & 1 << 27 != 0,
            force_ack: v & 1 << 28 != 0,
            dack_mode: bits32(v, 29, 2) as u8,
            dack_change: v & 1 << 31 != 0,
        }
    }

    /// The `credit_dack` word.
    ///
    /// # Errors
    /// `Field` if a field is too wide.
    pub fn to_word(&self) -> Result<u32, WireError> {
        let credits = fit32("credits", self.credits, 26)?;
        fit("dack_mode", u64::from(self.dack_mode), 2)?;
        Ok(credits
            | u32::from(self.modulate_tx) << 26
            | u32::from(self.modulate_rx) << 27
            | u32::from(self.force_ack) << 28
            | u32::from(self.dack_mode) << 29
            | u32::from(self.dack_change) << 31)
    }
}

/// The `ddp_report` word of [`RxDataDdp`] and [`RxDdpComplete`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DdpReport {
    /// Offset in the buffer, 24 bits: in [`RxDataDdp`] where the last placement
    /// started, in [`RxDdpComplete`] where it ended.
    pub offset: u32,
    /// Delayed-ACK mode in force; 2 bits.
    pub dack_mode: u8,
    /// Which buffer: 0 or 1.
    pub buf_idx: u8,
    /// An urgent pointer came.
    pub urg: bool,
    /// A segment with PSH ended the placement.
    pub psh: bool,
    /// The buffer is done with: full, flushed or indicated.
    pub buf_complete: bool,
    /// The buffer's timer ran out.
    pub buf_timed_out: bool,
    /// The buffer is invalid now.
    pub inv: bool,
}

impl DdpReport {
    /// Largest offset the word can hold.
    pub const MAX_OFFSET: u32 = (1 << 24) - 1;

    /// The word's bits.
    ///
    /// # Errors
    /// `Field` if a field is too wide.
    pub fn to_bits(self) -> Result<u32, WireError> {
        let offset = fit32("offset", self.offset, 24)?;
        fit("dack_mode", u64::from(self.dack_mode), 2)?;
        fit("buf_idx", u64::from(self.buf_idx), 1)?;
        Ok(offset
            | u32::from(self.dack_mode) << 24
            | u32::from(self.buf_idx) << 26
            | u32::from(self.urg) << 27
            | u32::from(self.psh) << 28
            | u32::from(self.buf_complete) << 29
            | u32::from(self.buf_timed_out) << 30
            | u32::from(self.inv) << 31)
    }

    /// Splits the word.
    #[must_use]
    pub const fn from_bits(v: u32) -> Self {
        Self {
            offset: bits32(v, 0, 24),
            dack_mode: bits32(v, 24, 2) as u8,
            buf_idx: bits32(v, 26, 1) as u8,
            urg: v & 1 << 27 != 0,
            psh: v & 1 << 28 != 0,
            buf_complete: v & 1 << 29 != 0,
            buf_timed_out: v & 1 << 30 != 0,
            inv: v & 1 << 31 != 0,
        }
    }
}

/// The `ddpvld` word of [`RxDataDdp`]: what the placement engine found wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DdpVld(pub u32);

impl DdpVld {
    /// The page pod's own tag differs from the buffer's.
    pub const PPOD_MISMATCH: Self = Self(1 << 15);
    /// The message is one PDU.
    pub const PDU: Self = Self(1 << 16);
    /// Below the pod region's lower limit.
    pub const LLIMIT_ERR: Self = Self(1 << 17);
    /// Parity error in the page pod.
    pub const PPOD_PARITY_ERR: Self = Self(1 << 18);
    /// Padding error.
    pub const PADDING_ERR: Self = Self(1 << 19);
    /// Header CRC error.
    pub const HDRCRC_ERR: Self = Self(1 << 20);
    /// Data CRC error.
    pub const DATACRC_ERR: Self = Self(1 << 21);
    /// The buffer's tag is not valid.
    pub const INVALID_TAG: Self = Self(1 << 22);
    /// Above the pod region's upper limit.
    pub const ULIMIT_ERR: Self = Self(1 << 23);
    /// Outside the buffer.
    pub const OFFSET_ERR: Self = Self(1 << 24);
    /// The tag's color differs.
    pub const COLOR_ERR: Self = Self(1 << 25);
    /// The page pod belongs to another tid.
    pub const TID_MISMATCH: Self = Self(1 << 26);
    /// The page pod is not valid.
    pub const INVALID_PPOD: Self = Self(1 << 27);
    /// Every bit that means the payload is not where it should be.
    pub const ANY_ERR: Self = Self(
        Self::PPOD_MISMATCH.0
            | Self::LLIMIT_ERR.0
            | Self::PPOD_PARITY_ERR.0
            | Self::PADDING_ERR.0
            | Self::HDRCRC_ERR.0
            | Self::DATACRC_ERR.0
            | Self::INVALID_TAG.0
            | Self::ULIMIT_ERR.0
            | Self::OFFSET_ERR.0
            | Self::COLOR_ERR.0
            | Self::TID_MISMATCH.0
            | Self::INVALID_PPOD.0,
    );
    /// ULP mode of TCP DDP (`ULP_MODE_TCPDDP`), as [`Self::ulp_mode`] returns it.
    pub const ULP_TCPDDP: u8 = 5;

    /// The error bits alone; zero if all is well.
    #[must_use]
    pub const fn errors(self) -> Self {
        Self(self.0 & Self::ANY_ERR.0)
    }

    /// True if any error bit is set.
    #[must_use]
    pub const fn has_error(self) -> bool {
        self.errors().0 != 0
    }

    /// True if every bit of `o` is set.
    #[must_use]
    pub const fn contains(self, o: Self) -> bool {
        self.0 & o.0 == o.0
    }

    /// The connection's ULP mode; 4 bits.
    #[must_use]
    pub const fn ulp_mode(self) -> u8 {
        bits32(self.0, 28, 4) as u8
    }

    /// The word with its ULP mode set to the low 4 bits of `mode`.
    #[must_use]
    pub const fn with_ulp_mode(self, mode: u8) -> Self {
        Self(self.0 & 0x0fff_ffff | (mode as u32 & 0xf) << 28)
    }
}

impl core::ops::BitOr for DdpVld {
    type Output = Self;

    fn bitor(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }
}

/// CPL_RX_DATA_DDP: payload was placed, and the indication carries a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxDataDdp {
    /// Connection.
    pub tid: u32,
    /// Offset of the urgent pointer.
    pub urg: u16,
    /// Bytes of the last placement this CPL stands for.
    pub len: u16,
    /// Sequence number where that placement starts: all that came since the last
    /// report is `seq + len - rcv_nxt` bytes.
    pub seq: u32,
    /// Which buffer, and what became of it.
    pub report: DdpReport,
    /// CRCs of protocols over TCP; nothing for plain DDP.
    pub ulp_crc: u32,
    /// Errors and ULP mode.
    pub ddpvld: DdpVld,
}

impl RxDataDdp {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::RxDataDdp;
    /// Bytes of the CPL.
    pub const LEN: usize = 24;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Self {
            tid,
            urg: get_u16(c, 4)?,
            len: get_u16(c, 6)?,
            seq: get_u32(c, 8)?,
            report: DdpReport::from_bits(get_u32(c, 12)?),
            ulp_crc: get_u32(c, 16)?,
            ddpvld: DdpVld(get_u32(c, 20)?),
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let report = self.report.to_bits()?;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u16(c, 4, self.urg)?;
        put_u16(c, 6, self.len)?;
        put_u32(c, 8, self.seq)?;
        put_u32(c, 12, report)?;
        put_u32(c, 16, self.ulp_crc)?;
        put_u32(c, 20, self.ddpvld.0)
    }
}

/// CPL_RX_DDP_COMPLETE: a buffer was completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxDdpComplete {
    /// Connection.
    pub tid: u32,
    /// Which buffer, and how it ended. `offset` is the end of the data here.
    pub report: DdpReport,
    /// Next sequence number expected.
    pub rcv_nxt: u32,
}

impl RxDdpComplete {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::RxDdpComplete;
    /// Bytes of the CPL.
    pub const LEN: usize = 16;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Self {
            tid,
            report: DdpReport::from_bits(get_u32(c, 4)?),
            rcv_nxt: get_u32(c, 8)?,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let report = self.report.to_bits()?;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u32(c, 4, report)?;
        put_u32(c, 8, self.rcv_nxt)
    }
}
