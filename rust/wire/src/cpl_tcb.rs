//! Reading and writing a connection's TCB in the adapter.

use crate::bytes::{
    WR_HDR_LEN, begin_cpl, begin_req, fit, get_u8, get_u16, get_u64, open_cpl, open_req, put_u8,
    put_u16, put_u64, round16,
};
use crate::error::WireError;
use crate::opcode::Opcode;
use crate::status::CplStatus;

/// The `reply_ctrl` half word of [`SetTcbField`] and [`GetTcb`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyCtrl {
    /// Ingress queue for the reply; 10 bits.
    pub queue: u16,
    /// Channel for the reply.
    pub chan: bool,
    /// No reply is wanted.
    pub no_reply: bool,
}

impl ReplyCtrl {
    /// The reply goes to `queue`.
    #[must_use]
    pub const fn reply_to(queue: u16) -> Self {
        Self {
            queue,
            chan: false,
            no_reply: false,
        }
    }

    /// No reply. `queue` is named all the same: FreeBSD's t4_tom does so up to 12.x, and leaves
    /// it 0 from 14 on in what travels inside a ULP_TX request (mk_set_tcb_field_ulp).
    #[must_use]
    pub const fn silent(queue: u16) -> Self {
        Self {
            queue,
            chan: false,
            no_reply: true,
        }
    }

    /// The bits on the wire.
    ///
    /// # Errors
    /// `Field` if the queue is too wide.
    pub fn to_bits(self) -> Result<u16, WireError> {
        fit("queue", u64::from(self.queue), 10)?;
        Ok(self.queue | u16::from(self.chan) << 14 | u16::from(self.no_reply) << 15)
    }

    /// Splits the bits on the wire.
    #[must_use]
    pub const fn from_bits(v: u16) -> Self {
        Self {
            queue: v & 0x3ff,
            chan: v & 1 << 14 != 0,
            no_reply: v & 1 << 15 != 0,
        }
    }
}

/// CPL_SET_TCB_FIELD: change the bits of `mask` in the 64-bit window of the TCB that
/// starts at 32-bit word `word`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetTcbField {
    /// Connection.
    pub tid: u32,
    /// Whether and where [`SetTcbRpl`] goes.
    pub reply: ReplyCtrl,
    /// TCB word; 5 bits.
    pub word: u8,
    /// Comes back in the reply; 3 bits.
    pub cookie: u8,
    /// Bits to change.
    pub mask: u64,
    /// Their new values.
    pub val: u64,
}

impl SetTcbField {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::SetTcbField;
    /// Bytes of the CPL alone (`struct cpl_set_tcb_field_core`).
    pub const CPL_LEN: usize = 24;
    /// Bytes of the whole work request.
    pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`], or `Field` if unused bits of the word and cookie are set.
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
        Self::get_body(c, tid)
    }

    /// Writes the work request.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let c = begin_req(b, Self::OPCODE, self.tid, self.tid, Self::CPL_LEN)?;
        self.put_body(c)
    }

    /// Reads the CPL alone, as a ULP_TX packet carries it.
    ///
    /// # Errors
    /// As [`open_cpl`], or `Field` if unused bits of the word and cookie are set.
    pub fn parse_core(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::CPL_LEN)?;
        Self::get_body(c, tid)
    }

    /// Writes the CPL alone, for a ULP_TX packet.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit_core(&self, b: &mut [u8]) -> Result<(), WireError> {
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::CPL_LEN)?;
        self.put_body(c)
    }

    fn get_body(c: &[u8], tid: u32) -> Result<Self, WireError> {
        let wc = get_u16(c, 6)?;
        fit("word_cookie", u64::from(wc), 8)?;
        Ok(Self {
            tid,
            reply: ReplyCtrl::from_bits(get_u16(c, 4)?),
            word: (wc & 0x1f) as u8,
            cookie: (wc >> 5 & 7) as u8,
            mask: get_u64(c, 8)?,
            val: get_u64(c, 16)?,
        })
    }

    fn put_body(&self, c: &mut [u8]) -> Result<(), WireError> {
        let wc = word_cookie(self.word, self.cookie)?;
        put_u16(c, 4, self.reply.to_bits()?)?;
        put_u16(c, 6, u16::from(wc))?;
        put_u64(c, 8, self.mask)?;
        put_u64(c, 16, self.val)
    }
}

/// Word in the low 5 bits, cookie in the high 3.
fn word_cookie(word: u8, cookie: u8) -> Result<u8, WireError> {
    fit("word", u64::from(word), 5)?;
    fit("cookie", u64::from(cookie), 3)?;
    Ok(cookie << 5 | word)
}

/// CPL_SET_TCB_RPL: the TCB was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetTcbRpl {
    /// Connection.
    pub tid: u32,
    /// The request's TCB word.
    pub word: u8,
    /// The request's cookie.
    pub cookie: u8,
    /// Status.
    pub status: CplStatus,
    /// The 64-bit window as it was before the change.
    pub oldval: u64,
}

impl SetTcbRpl {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::SetTcbRpl;
    /// Bytes of the CPL.
    pub const LEN: usize = 16;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        let wc = get_u8(c, 6)?;
        Ok(Self {
            tid,
            word: wc & 0x1f,
            cookie: wc >> 5,
            status: CplStatus(get_u8(c, 7)?),
            oldval: get_u64(c, 8)?,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let wc = word_cookie(self.word, self.cookie)?;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u8(c, 6, wc)?;
        put_u8(c, 7, self.status.0)?;
        put_u64(c, 8, self.oldval)
    }
}

/// CPL_GET_TCB: read the whole TCB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetTcb {
    /// Connection.
    pub tid: u32,
    /// Where [`GetTcbRpl`] goes.
    pub reply: ReplyCtrl,
    /// Comes back in the reply.
    pub cookie: u8,
}

impl GetTcb {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::GetTcb;
    /// Bytes of the CPL alone.
    pub const CPL_LEN: usize = 8;
    /// Bytes of the whole work request.
    pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
        Ok(Self {
            tid,
            reply: ReplyCtrl::from_bits(get_u16(c, 4)?),
            cookie: get_u8(c, 7)?,
        })
    }

    /// Writes the work request.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let reply = self.reply.to_bits()?;
        let c = begin_req(b, Self::OPCODE, self.tid, self.tid, Self::CPL_LEN)?;
        put_u16(c, 4, reply)?;
        put_u8(c, 7, self.cookie)
    }
}

/// CPL_GET_TCB_RPL: the TCB's bytes come after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetTcbRpl {
    /// Connection.
    pub tid: u32,
    /// The request's cookie.
    pub cookie: u8,
    /// Status.
    pub status: CplStatus,
    /// Bytes of TCB that follow.
    pub len: u16,
}

impl GetTcbRpl {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::GetTcbRpl;
    /// Bytes of the CPL without the TCB.
    pub const LEN: usize = 8;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Self {
            tid,
            cookie: get_u8(c, 4)?,
            status: CplStatus(get_u8(c, 5)?),
            len: get_u16(c, 6)?,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if the tid is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u8(c, 4, self.cookie)?;
        put_u8(c, 5, self.status.0)?;
        put_u16(c, 6, self.len)
    }
}
