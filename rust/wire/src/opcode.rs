//! Names of CPLs and work requests, the chip's generation, and the parts of a tid.

use crate::bytes::{bits32, fit, get_u8, get_u32};
use crate::error::WireError;

/// The generation of a Chelsio terminator; some messages are laid out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chip {
    /// Terminator 4.
    T4,
    /// Terminator 5.
    T5,
    /// Terminator 6.
    T6,
}

macro_rules! codes {
    ($(#[$m:meta])* $name:ident, $what:literal { $($(#[$vm:meta])* $v:ident = $c:literal,)* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vm])* $v = $c,)* }

        impl $name {
            /// The byte on the wire.
            #[inline]
            #[must_use]
            pub const fn code(self) -> u8 { self as u8 }
        }

        impl TryFrom<u8> for $name {
            type Error = WireError;

            /// # Errors
            /// `Field` if this crate does not know the code.
            fn try_from(c: u8) -> Result<Self, WireError> {
                match c {
                    $($c => Ok(Self::$v),)*
                    _ => Err(WireError::field($what, u64::from(c))),
                }
            }
        }
    };
}

codes! {
    /// Opcodes of the CPLs this crate reads and writes (t4_msg.h, `CPL_*`).
    Opcode, "opcode" {
        /// CPL_PASS_OPEN_REQ
        PassOpenReq = 0x01,
        /// CPL_PASS_ACCEPT_RPL
        PassAcceptRpl = 0x02,
        /// CPL_ACT_OPEN_REQ
        ActOpenReq = 0x03,
        /// CPL_SET_TCB_FIELD
        SetTcbField = 0x05,
        /// CPL_GET_TCB
        GetTcb = 0x06,
        /// CPL_CLOSE_CON_REQ
        CloseConReq = 0x08,
        /// CPL_CLOSE_LISTSRV_REQ
        CloseListsrvReq = 0x09,
        /// CPL_ABORT_REQ
        AbortReq = 0x0a,
        /// CPL_ABORT_RPL
        AbortRpl = 0x0b,
        /// CPL_TX_DATA
        TxData = 0x0c,
        /// CPL_RX_DATA_ACK
        RxDataAck = 0x0d,
        /// CPL_TX_PKT
        TxPkt = 0x0e,
        /// CPL_L2T_WRITE_REQ
        L2tWriteReq = 0x12,
        /// CPL_BARRIER
        Barrier = 0x18,
        /// CPL_TID_RELEASE
        TidRelease = 0x1a,
        /// CPL_CLOSE_LISTSRV_RPL
        CloseListsrvRpl = 0x20,
        /// CPL_ERROR
        CplError = 0x21,
        /// CPL_GET_TCB_RPL
        GetTcbRpl = 0x22,
        /// CPL_L2T_WRITE_RPL
        L2tWriteRpl = 0x23,
        /// CPL_PASS_OPEN_RPL
        PassOpenRpl = 0x24,
        /// CPL_ACT_OPEN_RPL
        ActOpenRpl = 0x25,
        /// CPL_PEER_CLOSE
        PeerClose = 0x26,
        /// CPL_ABORT_REQ_RSS
        AbortReqRss = 0x2b,
        /// CPL_RX_URG_NOTIFY
        RxUrgNotify = 0x2c,
        /// CPL_ABORT_RPL_RSS
        AbortRplRss = 0x2d,
        /// CPL_CLOSE_CON_RPL
        CloseConRpl = 0x32,
        /// CPL_RX_DATA
        RxData = 0x39,
        /// CPL_SET_TCB_RPL
        SetTcbRpl = 0x3a,
        /// CPL_RX_PKT
        RxPkt = 0x3b,
        /// CPL_RX_DDP_COMPLETE
        RxDdpComplete = 0x3f,
        /// CPL_ACT_ESTABLISH
        ActEstablish = 0x40,
        /// CPL_PASS_ESTABLISH
        PassEstablish = 0x41,
        /// CPL_RX_DATA_DDP
        RxDataDdp = 0x42,
        /// CPL_PASS_ACCEPT_REQ
        PassAcceptReq = 0x44,
        /// CPL_SGE_EGR_UPDATE
        SgeEgrUpdate = 0xa5,
        /// CPL_FW4_MSG
        Fw4Msg = 0xc0,
        /// CPL_FW4_ACK
        Fw4Ack = 0xc3,
        /// CPL_FW6_MSG
        Fw6Msg = 0xe0,
    }
}

codes! {
    /// Opcodes of the firmware work requests this crate reads and writes
    /// (t4fw_interface.h, `FW_*_WR`).
    WrOp, "wr_op" {
        /// FW_ULPTX_WR
        Ulptx = 0x04,
        /// FW_TP_WR
        Tp = 0x05,
        /// FW_FLOWC_WR
        Flowc = 0x0a,
        /// FW_OFLD_TX_DATA_WR
        OfldTxData = 0x0b,
    }
}

/// Opcode of a CPL that starts at `b[0]` (an RSS header, if any, taken off).
///
/// # Errors
/// `Truncated` if `b` is empty, `Field` if the opcode is not one of [`Opcode`].
pub fn opcode_of_cpl(b: &[u8]) -> Result<Opcode, WireError> {
    get_u8(b, 0)?.try_into()
}

/// The tid word's low 24 bits of a CPL that starts at `b[0]`.
///
/// # Errors
/// `Truncated` if there are fewer than 4 bytes.
pub fn tid_of(b: &[u8]) -> Result<u32, WireError> {
    Ok(bits32(get_u32(b, 0)?, 0, 24))
}

/// Opcode of a work request.
///
/// # Errors
/// `Truncated` if `b` is empty, `Field` if the opcode is not one of [`WrOp`].
pub fn wr_op(b: &[u8]) -> Result<WrOp, WireError> {
    get_u8(b, 0)?.try_into()
}

/// Length in bytes of a work request, from `len16` of its header.
///
/// # Errors
/// `Truncated` if there are fewer than 8 bytes.
pub fn wr_len(b: &[u8]) -> Result<usize, WireError> {
    Ok(usize::from(get_u8(b, 7)?) * 16)
}

/// The tid word of a request that has no tid yet (CPL_ACT_OPEN_REQ, CPL_L2T_WRITE_REQ):
/// an index, the cookie of the reply's consumer, and the queue for the reply
/// (t4_msg.h, `TID_TID`, `TID_COOKIE`, `TID_QID`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QidTid {
    /// atid, or another index; 11 bits.
    pub tid: u16,
    /// Which consumer the reply is for; 3 bits.
    pub cookie: u8,
    /// Absolute id of the ingress queue for the reply; 10 bits.
    pub qid: u16,
}

impl QidTid {
    /// The 24 bits of the tid word.
    ///
    /// # Errors
    /// `Field` if a part is too wide.
    pub fn to_bits(self) -> Result<u32, WireError> {
        fit("tid", u64::from(self.tid), 11)?;
        fit("cookie", u64::from(self.cookie), 3)?;
        fit("qid", u64::from(self.qid), 10)?;
        Ok(u32::from(self.qid) << 14 | u32::from(self.cookie) << 11 | u32::from(self.tid))
    }

    /// Splits the 24 bits of the tid word; higher bits are ignored.
    #[must_use]
    pub const fn from_bits(v: u32) -> Self {
        Self {
            tid: bits32(v, 0, 11) as u16,
            cookie: bits32(v, 11, 3) as u8,
            qid: bits32(v, 14, 10) as u16,
        }
    }
}
