//! Active open: the request, its refusal, its success.

use crate::bytes::{
    WR_HDR_LEN, begin_cpl, begin_req, bits32, bits64, fit, fit32, get_u16, get_u32, get_u64,
    open_cpl, open_req, put_u16, put_u32, put_u64, round16,
};
use crate::error::WireError;
use crate::opcode::{Chip, Opcode, QidTid};
use crate::status::CplStatus;

/// CPL_ACT_OPEN_REQ: connect an IPv4 socket.
///
/// Answered by [`ActEstablish`] or [`ActOpenRpl`]. Addresses and ports are host-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActOpenReq {
    /// atid, reply cookie and the queue that gets the reply.
    pub atid: QidTid,
    /// Local TCP port.
    pub local_port: u16,
    /// Peer's TCP port.
    pub peer_port: u16,
    /// Local IPv4 address.
    pub local_ip: u32,
    /// Peer's IPv4 address.
    pub peer_ip: u32,
    /// Option 0 word; see [`crate::opt`].
    pub opt0: u64,
    /// Initial send sequence number. T5 and T6; not sent on T4.
    pub iss: u32,
    /// Option 2 word; see [`crate::opt`].
    pub opt2: u32,
    /// Filter tuple of the hash region: 32 bits on T4, 40 from T5 on.
    pub filter_tuple: u64,
    /// Option 3 word. T6; not sent before.
    pub opt3: u32,
}

impl ActOpenReq {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::ActOpenReq;

    /// Bytes of the CPL without the work-request header.
    #[must_use]
    pub const fn cpl_len(chip: Chip) -> usize {
        match chip {
            Chip::T4 => 32,
            Chip::T5 => 40,
            Chip::T6 => 48,
        }
    }

    /// Bytes of the whole work request.
    #[must_use]
    pub const fn len(chip: Chip) -> usize {
        round16(WR_HDR_LEN + Self::cpl_len(chip))
    }

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`].
    pub fn parse(b: &[u8], chip: Chip) -> Result<Self, WireError> {
        let (c, tid) = open_req(b, Self::OPCODE, Self::cpl_len(chip))?;
        let mut m = Self {
            atid: QidTid::from_bits(tid),
            local_port: get_u16(c, 4)?,
            peer_port: get_u16(c, 6)?,
            local_ip: get_u32(c, 8)?,
            peer_ip: get_u32(c, 12)?,
            opt0: get_u64(c, 16)?,
            opt2: get_u32(c, 28)?,
            ..Self::default()
        };
        if chip == Chip::T4 {
            m.filter_tuple = u64::from(get_u32(c, 24)?);
        } else {
            m.iss = get_u32(c, 24)?;
            m.filter_tuple = bits64(get_u64(c, 32)?, 24, 40);
        }
        if chip == Chip::T6 {
            m.opt3 = get_u32(c, 44)?;
        }
        Ok(m)
    }

    /// Writes the work request, with flow id 0 as the connection has no tid yet.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8], chip: Chip) -> Result<(), WireError> {
        let tid = self.atid.to_bits()?;
        let width = if chip == Chip::T4 { 32 } else { 40 };
        let tuple = fit("filter_tuple", self.filter_tuple, width)?;
        let c = begin_req(b, Self::OPCODE, tid, 0, Self::cpl_len(chip))?;
        put_u16(c, 4, self.local_port)?;
        put_u16(c, 6, self.peer_port)?;
        put_u32(c, 8, self.local_ip)?;
        put_u32(c, 12, self.peer_ip)?;
        put_u64(c, 16, self.opt0)?;
        put_u32(c, 28, self.opt2)?;
        if chip == Chip::T4 {
            // Fits: checked against 32 bits above.
            put_u32(c, 24, tuple as u32)?;
        } else {
            put_u32(c, 24, self.iss)?;
            put_u64(c, 32, tuple << 24)?;
        }
        if chip == Chip::T6 {
            put_u32(c, 44, self.opt3)?;
        }
        Ok(())
    }
}

/// CPL_ACT_OPEN_RPL: an active open failed, or waits (negative advice).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActOpenRpl {
    /// The tid, if [`CplStatus::act_open_has_tid`].
    pub tid: u32,
    /// The request's atid, cookie and queue.
    pub atid: QidTid,
    /// Why.
    pub status: CplStatus,
}

impl ActOpenRpl {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::ActOpenRpl;
    /// Bytes of the CPL.
    pub const LEN: usize = 8;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        let v = get_u32(c, 4)?;
        Ok(Self {
            tid,
            atid: QidTid::from_bits(bits32(v, 8, 24)),
            status: CplStatus(bits32(v, 0, 8) as u8),
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let atid = self.atid.to_bits()?;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u32(c, 4, atid << 8 | u32::from(self.status.0))
    }
}

/// CPL_ACT_ESTABLISH: an active open succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActEstablish {
    /// The connection's tid from now on.
    pub tid: u32,
    /// The request's atid, cookie and queue.
    pub atid: QidTid,
    /// IP type of service.
    pub tos: u8,
    /// Index of the MAC address the packet matched.
    pub mac_idx: u16,
    /// What the SYNs agreed on; see [`crate::opt`].
    pub tcp_opt: u16,
    /// First byte to send: initial send sequence number plus 1.
    pub snd_isn: u32,
    /// First byte to receive: the peer's initial sequence number plus 1.
    pub rcv_isn: u32,
}

impl ActEstablish {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::ActEstablish;
    /// Bytes of the CPL.
    pub const LEN: usize = 24;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (tid, e) = Established::parse(b, Self::OPCODE)?;
        Ok(Self {
            tid,
            atid: QidTid::from_bits(e.id),
            tos: e.tos,
            mac_idx: e.mac_idx,
            tcp_opt: e.tcp_opt,
            snd_isn: e.snd_isn,
            rcv_isn: e.rcv_isn,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        Established {
            id: self.atid.to_bits()?,
            tos: self.tos,
            mac_idx: self.mac_idx,
            tcp_opt: self.tcp_opt,
            snd_isn: self.snd_isn,
            rcv_isn: self.rcv_isn,
        }
        .emit(b, Self::OPCODE, self.tid)
    }
}

/// The body CPL_ACT_ESTABLISH and CPL_PASS_ESTABLISH have in common.
pub(crate) struct Established {
    /// atid word or stid, 24 bits.
    pub(crate) id: u32,
    pub(crate) tos: u8,
    pub(crate) mac_idx: u16,
    pub(crate) tcp_opt: u16,
    pub(crate) snd_isn: u32,
    pub(crate) rcv_isn: u32,
}

impl Established {
    pub(crate) fn parse(b: &[u8], op: Opcode) -> Result<(u32, Self), WireError> {
        let (c, tid) = open_cpl(b, op, ActEstablish::LEN)?;
        let v = get_u32(c, 8)?;
        let e = Self {
            id: bits32(v, 0, 24),
            tos: bits32(v, 24, 8) as u8,
            mac_idx: get_u16(c, 12)?,
            tcp_opt: get_u16(c, 14)?,
            snd_isn: get_u32(c, 16)?,
            rcv_isn: get_u32(c, 20)?,
        };
        Ok((tid, e))
    }

    pub(crate) fn emit(&self, b: &mut [u8], op: Opcode, tid: u32) -> Result<(), WireError> {
        let id = fit32("stid", self.id, 24)?;
        let c = begin_cpl(b, op, tid, ActEstablish::LEN)?;
        put_u32(c, 8, u32::from(self.tos) << 24 | id)?;
        put_u16(c, 12, self.mac_idx)?;
        put_u16(c, 14, self.tcp_opt)?;
        put_u32(c, 16, self.snd_isn)?;
        put_u32(c, 20, self.rcv_isn)
    }
}
