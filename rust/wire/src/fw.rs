//! Firmware work requests of a connection's transmit queue, and the firmware's credits.

use crate::bytes::{
    FLOWID_BITS, begin_cpl, bits32, fit32, fresh, get_u8, get_u32, need, open_cpl, put_u8, put_u32,
    round16,
};
use crate::error::WireError;
use crate::opcode::{Opcode, WrOp};
use crate::ulptx::emit_dsgl;

/// What a FLOWC tells the firmware about a flow (`FW_FLOWC_MNEM_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FlowcParam {
    /// Physical function in bits 15:8, virtual function in 7:0.
    PfnVfn = 0,
    /// Transmit channel.
    Ch = 1,
    /// Port.
    Port = 2,
    /// Ingress queue for the firmware's messages.
    IqId = 3,
    /// Next sequence number to send.
    SndNxt = 4,
    /// Next sequence number expected.
    RcvNxt = 5,
    /// Bytes the adapter may buffer for sending.
    SndBuf = 6,
    /// Largest segment.
    Mss = 7,
    /// Most payload of one work request.
    TxDataPlenMax = 8,
    /// TCP state.
    TcpState = 9,
    /// State of an Ethernet offload flow.
    EoState = 10,
    /// Traffic scheduling class.
    SchedClass = 11,
    /// DCB priority.
    DcbPrio = 12,
    /// Scale of the peer's window.
    SndScale = 13,
    /// Scale of our window.
    RcvScale = 14,
    /// `ULP_MODE_*`.
    UlpMode = 15,
}

impl FlowcParam {
    const ALL: [FlowcParam; 16] = [
        FlowcParam::PfnVfn,
        FlowcParam::Ch,
        FlowcParam::Port,
        FlowcParam::IqId,
        FlowcParam::SndNxt,
        FlowcParam::RcvNxt,
        FlowcParam::SndBuf,
        FlowcParam::Mss,
        FlowcParam::TxDataPlenMax,
        FlowcParam::TcpState,
        FlowcParam::EoState,
        FlowcParam::SchedClass,
        FlowcParam::DcbPrio,
        FlowcParam::SndScale,
        FlowcParam::RcvScale,
        FlowcParam::UlpMode,
    ];

    /// From the mnemonic's number.
    #[must_use]
    pub fn from_code(c: u8) -> Option<FlowcParam> {
        Self::ALL.get(usize::from(c)).copied()
    }
}

/// FW_FLOWC_WR: the first work request of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flowc<'a> {
    /// Connection.
    pub tid: u32,
    /// Parameters, in order.
    pub params: &'a [(FlowcParam, u32)],
}

impl Flowc<'_> {
    /// Bytes of a FLOWC with `n` parameters; also 16 times the credits it takes.
    #[must_use]
    pub const fn len(n: usize) -> usize {
        round16(8 + 8 * n)
    }

    /// Write the whole work request; returns its length.
    ///
    /// # Errors
    /// `Field` for too many parameters or a wide tid, `Truncated` if it does not fit.
    pub fn emit(&self, b: &mut [u8]) -> Result<usize, WireError> {
        let n = self.params.len();
        if n > FlowcParam::ALL.len() {
            return Err(WireError::field("nparams", n as u64));
        }
        let len = Self::len(n);
        let b = fresh(b, len)?;
        put_u32(b, 0, u32::from(WrOp::Flowc.code()) << 24 | n as u32)?;
        put_u32(
            b,
            4,
            fit32("flowid", self.tid, FLOWID_BITS)? << 8 | (len / 16) as u32,
        )?;
        for (i, (p, v)) in self.params.iter().enumerate() {
            put_u8(b, 8 + 8 * i, *p as u8)?;
            put_u32(b, 12 + 8 * i, *v)?;
        }
        Ok(len)
    }
}

/// A FLOWC as received: its tid, and each parameter. Unknown mnemonics are passed over.
///
/// # Errors
/// `Opcode` if it is another request, `Truncated` if it is not all there, `Field` if its length
/// and the number of parameters disagree.
pub fn parse_flowc(
    b: &[u8],
) -> Result<(u32, impl Iterator<Item = (FlowcParam, u32)> + '_), WireError> {
    let hi = get_u32(b, 0)?;
    let (want, have) = (WrOp::Flowc.code(), (hi >> 24) as u8);
    if have != want {
        return Err(WireError::Opcode { want, have });
    }
    let n = bits32(hi, 0, 8) as usize;
    let mid = get_u32(b, 4)?;
    let b = need(b, Flowc::len(n))?;
    if bits32(mid, 0, 8) as usize * 16 != Flowc::len(n) {
        return Err(WireError::field("len16", u64::from(bits32(mid, 0, 8))));
    }
    let params = (0..n).filter_map(move |i| {
        let p = FlowcParam::from_code(get_u8(b, 8 + 8 * i).ok()?)?;
        Some((p, get_u32(b, 12 + 8 * i).ok()?))
    });
    Ok((bits32(mid, 8, FLOWID_BITS), params))
}

/// Header of FW_OFLD_TX_DATA_WR. The payload follows: immediate bytes, or a scatter list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OfldTxData {
    /// Connection.
    pub tid: u32,
    /// Payload bytes of the request.
    pub plen: u32,
    /// Immediate payload bytes behind the header; 0: a scatter list follows.
    pub immdlen: u8,
    /// Whole work request in bytes, rounded up to 16; at most 4080.
    pub len: usize,
    /// Ask for a CPL_FW4_ACK once the payload of this request is acknowledged.
    pub compl: bool,
    /// Nothing follows for now: send without waiting.
    pub shove: bool,
    /// `ULP_MODE_*` of the data, 3 bits.
    pub ulp_mode: u8,
    /// How the payload is cut in segments.
    pub align: TxAlign,
}

/// How the adapter cuts the payload of a work request in segments (`toe.tx_align`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TxAlign {
    /// As it likes.
    #[default]
    Any,
    /// LSODISABLE: for less than two segments.
    NoLso,
    /// ALIGNPLD: whole segments, for two or more.
    Whole,
    /// ALIGNPLD and ALIGNPLDSHOVE: what is left over goes at once, too, although Nagle's algorithm
    /// is on.
    WholeShove,
}

impl TxAlign {
    const ALL: [TxAlign; 4] = [
        TxAlign::Any,
        TxAlign::NoLso,
        TxAlign::Whole,
        TxAlign::WholeShove,
    ];

    const fn bits(self) -> u32 {
        match self {
            TxAlign::Any => 0,
            TxAlign::NoLso => LSO_DISABLE,
            TxAlign::Whole => ALIGN_PLD,
            TxAlign::WholeShove => ALIGN_PLD | ALIGN_PLD_SHOVE,
        }
    }
}

const ULP_MODE_SHIFT: u32 = 10;
const ULP_MODE_BITS: u32 = 3;
const TX_SHOVE: u32 = 1 << 14;
const LSO_DISABLE: u32 = 1 << 31;
const ALIGN_PLD: u32 = 1 << 30;
const ALIGN_PLD_SHOVE: u32 = 1 << 29;
const WR_COMPL: u32 = 1 << 21;

impl OfldTxData {
    /// Bytes of the header.
    pub const HDR_LEN: usize = 16;
    /// Most immediate payload that makes sense: header and payload in one 64-byte descriptor.
    pub const MAX_IMM: usize = 48;

    /// Write the header.
    ///
    /// # Errors
    /// `Field` for a value that does not fit or a length that cannot be, `Truncated` if there is
    /// no room.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let len16 = self.len / 16;
        if !self.len.is_multiple_of(16) || len16 > 0xff || !self.holds_imm() {
            return Err(WireError::field("len", self.len as u64));
        }
        let tid = fit32("flowid", self.tid, FLOWID_BITS)?;
        let ulp_mode = fit32("ulp_mode", u32::from(self.ulp_mode), ULP_MODE_BITS)?;
        let compl = if self.compl { WR_COMPL } else { 0 };
        let shove = if self.shove { TX_SHOVE } else { 0 };
        let align = self.align.bits();
        let b = fresh(b, Self::HDR_LEN)?;
        put_u32(
            b,
            0,
            u32::from(WrOp::OfldTxData.code()) << 24 | compl | u32::from(self.immdlen),
        )?;
        put_u32(b, 4, tid << 8 | len16 as u32)?;
        put_u32(b, 8, self.plen)?;
        put_u32(b, 12, ulp_mode << ULP_MODE_SHIFT | shove | align)
    }

    /// Write the whole request with immediate data.
    ///
    /// # Errors
    /// As [`OfldTxData::emit`], or `Field` if the request is not as long as its header says.
    pub fn emit_imm(&self, data: &[u8], b: &mut [u8]) -> Result<(), WireError> {
        self.emit(b)?;
        let body = b.get_mut(Self::HDR_LEN..self.len).unwrap_or_default();
        if data.len() != usize::from(self.immdlen) || body.len() < data.len() {
            return Err(WireError::field("immdlen", data.len() as u64));
        }
        let (to, pad) = body.split_at_mut(data.len());
        to.copy_from_slice(data);
        pad.fill(0);
        Ok(())
    }

    /// Write the whole request with a scatter list.
    ///
    /// # Errors
    /// As [`OfldTxData::emit`] and [`emit_dsgl`], or `Field` if the request is not as long as its
    /// header says.
    pub fn emit_dsgl(&self, segs: &[(u64, u32)], b: &mut [u8]) -> Result<(), WireError> {
        self.emit(b)?;
        let body = b.get_mut(Self::HDR_LEN..self.len).unwrap_or_default();
        let len = emit_dsgl(segs, body)?;
        if round16(len) == body.len() {
            Ok(())
        } else {
            Err(WireError::field("len", self.len as u64))
        }
    }

    /// The request has room for its header and immediate data.
    fn holds_imm(&self) -> bool {
        self.len >= Self::HDR_LEN + usize::from(self.immdlen)
    }

    /// Read the header.
    ///
    /// # Errors
    /// `Opcode` if it is another request, `Truncated` if the request is not all there, `Field` if
    /// its length does not hold header and immediate data, or its alignment makes no sense.
    pub fn parse(b: &[u8]) -> Result<OfldTxData, WireError> {
        let hi = get_u32(b, 0)?;
        let (want, have) = (WrOp::OfldTxData.code(), (hi >> 24) as u8);
        if have != want {
            return Err(WireError::Opcode { want, have });
        }
        let mid = get_u32(b, 4)?;
        let len = bits32(mid, 0, 8) as usize * 16;
        need(b, len)?;
        let flags = get_u32(b, 12)?;
        let align = flags & (LSO_DISABLE | ALIGN_PLD | ALIGN_PLD_SHOVE);
        let known = TxAlign::ALL.into_iter().find(|a| a.bits() == align);
        let m = OfldTxData {
            tid: bits32(mid, 8, FLOWID_BITS),
            plen: get_u32(b, 8)?,
            immdlen: hi as u8,
            len,
            compl: hi & WR_COMPL != 0,
            shove: flags & TX_SHOVE != 0,
            ulp_mode: bits32(flags, ULP_MODE_SHIFT, ULP_MODE_BITS) as u8,
            align: known.ok_or(WireError::field("align", u64::from(align)))?,
        };
        if m.holds_imm() {
            Ok(m)
        } else {
            Err(WireError::field("len", len as u64))
        }
    }
}

/// CPL_FW4_ACK: the firmware gives credits back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fw4Ack {
    /// Connection.
    pub tid: u32,
    /// Credits given back, of 16 bytes of work request each.
    pub credits: u8,
    /// `snd_nxt` and `snd_una` count.
    pub seq_vld: bool,
    /// Next sequence number the adapter sends.
    pub snd_nxt: u32,
    /// First byte the peer has not acknowledged.
    pub snd_una: u32,
}

impl Fw4Ack {
    /// Opcode.
    pub const OPCODE: Opcode = Opcode::Fw4Ack;
    /// Bytes.
    pub const LEN: usize = 24;

    /// Read the message.
    ///
    /// # Errors
    /// `Opcode` if it is another, `Truncated` if it is short.
    pub fn parse(b: &[u8]) -> Result<Fw4Ack, WireError> {
        let (b, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Fw4Ack {
            tid,
            credits: get_u8(b, 4)?,
            seq_vld: get_u8(b, 7)? & 1 != 0,
            snd_nxt: get_u32(b, 8)?,
            snd_una: get_u32(b, 12)?,
        })
    }

    /// Write the message.
    ///
    /// # Errors
    /// `Field` for a wide tid, `Truncated` if there is no room.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let b = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u8(b, 4, self.credits)?;
        put_u8(b, 7, u8::from(self.seq_vld))?;
        put_u32(b, 8, self.snd_nxt)?;
        put_u32(b, 12, self.snd_una)
    }
}
