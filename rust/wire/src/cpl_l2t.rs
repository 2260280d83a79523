//! Writing an entry of the layer-2 table: where a connection's frames go.

use crate::bytes::{
    WR_HDR_LEN, begin_cpl, begin_req, bits32, fit, get_array, get_u8, get_u16, open_cpl, open_req,
    put_array, put_u8, put_u16, round16,
};
use crate::error::WireError;
use crate::opcode::Opcode;
use crate::status::CplStatus;

/// VLAN value for "untagged" (`CPL_L2T_VLAN_NONE`).
pub const L2T_VLAN_NONE: u16 = 0xfff;

/// The tid word both L2T messages carry: index in the low 12 bits, then the
/// synchronous-write flag, then the queue (FreeBSD's t4_l2t.h, `SYNC_WR`, and `TID_QID`).
fn tid_word(idx: u16, sync: bool, qid: u16) -> Result<u32, WireError> {
    fit("l2t_idx", u64::from(idx), 12)?;
    fit("qid", u64::from(qid), 10)?;
    Ok(u32::from(qid) << 14 | u32::from(sync) << 12 | u32::from(idx))
}

/// CPL_L2T_WRITE_REQ: set one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2tWriteReq {
    /// Hardware index of the entry; 12 bits.
    pub l2t_idx: u16,
    /// The write's reply is for the offload driver.
    pub sync: bool,
    /// Ingress queue for the reply; 10 bits.
    pub qid: u16,
    /// Further information; 6 bits.
    pub info: u8,
    /// Port the frames leave by; 2 bits.
    pub port: u8,
    /// Loop frames back.
    pub lpbk: bool,
    /// The address is not resolved: report frames as ARP misses.
    pub arpmiss: bool,
    /// No reply is wanted.
    pub noreply: bool,
    /// VLAN tag with priority, or [`L2T_VLAN_NONE`].
    pub vlan: u16,
    /// Destination MAC address.
    pub dst_mac: [u8; 6],
}

impl L2tWriteReq {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::L2tWriteReq;
    /// Bytes of the CPL alone.
    pub const CPL_LEN: usize = 16;
    /// Bytes of the whole work request.
    pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`], or `Field` if the two places that hold the index disagree.
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
        let p = u32::from(get_u16(c, 4)?);
        let l2t_idx = get_u16(c, 6)?;
        if u32::from(l2t_idx) != bits32(tid, 0, 12) {
            return Err(WireError::field("l2t_idx", u64::from(l2t_idx)));
        }
        Ok(Self {
            l2t_idx,
            sync: tid & 1 << 12 != 0,
            qid: bits32(tid, 14, 10) as u16,
            info: bits32(p, 2, 6) as u8,
            port: bits32(p, 8, 2) as u8,
            lpbk: p & 1 << 10 != 0,
            arpmiss: p & 1 << 11 != 0,
            noreply: p & 1 << 15 != 0,
            vlan: get_u16(c, 8)?,
            dst_mac: get_array(c, 10)?,
        })
    }

    /// Writes the work request, with flow id 0.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let tid = tid_word(self.l2t_idx, self.sync, self.qid)?;
        fit("info", u64::from(self.info), 6)?;
        fit("port", u64::from(self.port), 2)?;
        let c = begin_req(b, Self::OPCODE, tid, 0, Self::CPL_LEN)?;
        let p = u16::from(self.info) << 2
            | u16::from(self.port) << 8
            | u16::from(self.lpbk) << 10
            | u16::from(self.arpmiss) << 11
            | u16::from(self.noreply) << 15;
        put_u16(c, 4, p)?;
        put_u16(c, 6, self.l2t_idx)?;
        put_u16(c, 8, self.vlan)?;
        put_array(c, 10, self.dst_mac)
    }
}

/// CPL_L2T_WRITE_RPL: the entry is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2tWriteRpl {
    /// Hardware index of the entry; 12 bits.
    pub l2t_idx: u16,
    /// The request's flag: the reply is for the offload driver.
    pub sync: bool,
    /// The request's queue.
    pub qid: u16,
    /// Status.
    pub status: CplStatus,
}

impl L2tWriteRpl {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::L2tWriteRpl;
    /// Bytes of the CPL.
    pub const LEN: usize = 8;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Self {
            l2t_idx: bits32(tid, 0, 12) as u16,
            sync: tid & 1 << 12 != 0,
            qid: bits32(tid, 14, 10) as u16,
            status: CplStatus(get_u8(c, 4)?),
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let tid = tid_word(self.l2t_idx, self.sync, self.qid)?;
        let c = begin_cpl(b, Self::OPCODE, tid, Self::LEN)?;
        put_u8(c, 4, self.status.0)
    }
}
