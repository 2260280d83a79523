//! ULP_TX: scatter lists, writes to adapter memory, and several CPLs in one work request.

use crate::Chip;
use crate::bytes::{
    FLOWID_BITS, bits32, fit32, get_u16, get_u32, get_u64, need, put_u32, put_u64, round16,
};
use crate::cpl_rx::RxDataAck;
use crate::error::WireError;
use crate::opcode::{Opcode, WrOp};
use crate::ppod::PagePod;
use crate::tcb::TcbUpdate;

/// Bytes of the largest work request.
pub const MAX_WR_LEN: usize = 512;
/// Segments that fit behind an OFLD_TX_DATA header in the largest work request.
pub const MAX_SGL_SEGS: usize = 41;
/// Page pods that one ULP_TX_MEM_WRITE carries as immediate data.
pub const MAX_IMM_PPODS: usize = 4;

const ULP_TX_MEM_WRITE: u32 = 3;
const ULP_TX_PKT: u32 = 4;
const SC_NOOP: u32 = 0x80;
const SC_IMM: u32 = 0x81;
const SC_DSGL: u32 = 0x82;

/// Bytes of a scatter list of `n` segments, not rounded; 0 for no segment.
#[must_use]
pub const fn dsgl_len(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    let more = n - 1;
    16 + 24 * (more / 2) + 16 * (more % 2)
}

const _: () = assert!(dsgl_len(MAX_SGL_SEGS) == MAX_WR_LEN - 16);

/// Write a scatter list of `(address, length)` segments at the start of `out`; returns its
/// length in bytes ([`dsgl_len`]).
///
/// # Errors
/// `Truncated` if it does not fit, `Field` for an empty list.
pub fn emit_dsgl(segs: &[(u64, u32)], out: &mut [u8]) -> Result<usize, WireError> {
    let Some((&(addr0, len0), rest)) = segs.split_first() else {
        return Err(WireError::field("nsge", 0));
    };
    let len = dsgl_len(segs.len());
    let have = out.len();
    let out = out.get_mut(..len).ok_or(WireError::Truncated { need: len, have })?;
    put_u32(out, 0, SC_DSGL << 24 | (segs.len() as u32 & 0xffff))?;
    put_u32(out, 4, len0)?;
    put_u64(out, 8, addr0)?;
    let mut at = 16;
    for pair in rest.chunks(2) {
        // Lengths of both, then addresses; a lone segment leaves out the second address.
        let (a, b) = (pair.first().copied().unwrap_or((0, 0)), pair.get(1).copied());
        put_u32(out, at, a.1)?;
        put_u32(out, at + 4, b.map_or(0, |b| b.1))?;
        put_u64(out, at + 8, a.0)?;
        if let Some(b) = b {
            put_u64(out, at + 16, b.0)?;
            at += 24;
        }
    }
    Ok(len)
}

/// A scatter list as found in a work request.
#[derive(Clone, Copy, Debug)]
pub struct Dsgl<'a> {
    b: &'a [u8],
    n: usize,
}

impl<'a> Dsgl<'a> {
    /// Open the list at the start of `b`.
    ///
    /// # Errors
    /// `Opcode` if it is no scatter list, `Field` if it has no segment, `Truncated` if it is
    /// not all there.
    pub fn parse(b: &'a [u8]) -> Result<Dsgl<'a>, WireError> {
        let cmd = get_u32(b, 0)?;
        if cmd >> 24 != SC_DSGL {
            return Err(WireError::Opcode { want: SC_DSGL as u8, have: (cmd >> 24) as u8 });
        }
        let n = (cmd & 0xffff) as usize;
        if n == 0 {
            return Err(WireError::field("nsge", 0));
        }
        Ok(Dsgl { b: need(b, dsgl_len(n))?, n })
    }

    /// How many segments.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.n
    }

    /// The segments, as `(address, length)`.
    pub fn segs(&self) -> impl Iterator<Item = (u64, u32)> + 'a {
        let (b, n) = (self.b, self.n);
        (0..n).map_while(move |i| {
            let (len_at, addr_at) = if i == 0 {
                (4, 8)
            } else {
                let pair = 16 + 24 * ((i - 1) / 2);
                let second = (i - 1) % 2;
                (pair + 4 * second, pair + 8 + 8 * second)
            };
            Some((get_u64(b, addr_at).ok()?, get_u32(b, len_at).ok()?))
        })
    }
}

/// Header of a FW_ULPTX_WR of `len` bytes.
fn put_ulptx_hdr(b: &mut [u8], len: usize, atomic: bool, tid: u32) -> Result<(), WireError> {
    let tid = fit32("flowid", tid, FLOWID_BITS)?;
    put_u32(b, 0, u32::from(WrOp::Ulptx.code()) << 24 | u32::from(atomic) << 23)?;
    put_u32(b, 4, tid << 8 | (len / 16) as u32)?;
    put_u64(b, 8, 0)
}

fn get_ulptx_hdr(b: &[u8]) -> Result<(bool, &[u8]), WireError> {
    let hi = get_u32(b, 0)?;
    let (want, have) = (WrOp::Ulptx.code(), (hi >> 24) as u8);
    if have != want {
        return Err(WireError::Opcode { want, have });
    }
    let len = bits32(get_u32(b, 4)?, 0, 8) as usize * 16;
    let b = need(b, len)?;
    Ok((hi >> 23 & 1 != 0, b.get(16..).unwrap_or(&[])))
}

/// A ULP_TX_MEM_WRITE work request with page pods as immediate data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UlpTxMemWrite {
    /// Byte address in adapter memory; a multiple of 32.
    pub addr: u32,
    /// The pods.
    pub pods: [PagePod; MAX_IMM_PPODS],
    /// How many of them, 1 to 4.
    pub count: usize,
}

impl UlpTxMemWrite {
    /// Bytes of the work request that writes `n` pods.
    #[must_use]
    pub const fn len(n: usize) -> usize {
        round16(16 + 16 + 8 + n * PagePod::LEN)
    }

    /// Write the whole work request; returns its length.
    ///
    /// # Errors
    /// `Field` for a bad count or address, `Truncated` if it does not fit.
    pub fn emit(&self, chip: Chip, b: &mut [u8]) -> Result<usize, WireError> {
        let pods = match self.pods.get(..self.count) {
            Some(p) if !p.is_empty() => p,
            _ => return Err(WireError::field("ppods", self.count as u64)),
        };
        if self.addr & 31 != 0 {
            return Err(WireError::field("addr", u64::from(self.addr)));
        }
        let len = Self::len(self.count);
        let have = b.len();
        let b = b.get_mut(..len).ok_or(WireError::Truncated { need: len, have })?;
        put_ulptx_hdr(b, len, false, 0)?;
        // Bit 23 is ORDER on T4 and IMM from T5 on: wanted in both.
        let _ = chip;
        put_u32(b, 16, ULP_TX_MEM_WRITE << 24 | 1 << 23)?;
        put_u32(b, 20, ((len - 16) / 16) as u32)?;
        let data = self.count * PagePod::LEN;
        put_u32(b, 24, (data / 32) as u32)?;
        put_u32(b, 28, self.addr >> 5)?;
        put_u32(b, 32, SC_IMM << 24)?;
        put_u32(b, 36, data as u32)?;
        let (body, pad) = b.get_mut(40..).unwrap_or(&mut []).split_at_mut(data);
        for (dst, pod) in body.chunks_exact_mut(PagePod::LEN).zip(pods) {
            pod.emit(dst)?;
        }
        pad.fill(0);
        Ok(len)
    }

    /// Take a work request apart.
    ///
    /// # Errors
    /// `Opcode` if it is another request, `Field` or `Truncated` if its lengths disagree.
    pub fn parse(b: &[u8]) -> Result<UlpTxMemWrite, WireError> {
        let (_, cmd) = get_ulptx_hdr(b)?;
        let w = get_u32(cmd, 0)?;
        if w >> 24 != ULP_TX_MEM_WRITE {
            return Err(WireError::Opcode { want: ULP_TX_MEM_WRITE as u8, have: (w >> 24) as u8 });
        }
        let data = bits32(get_u32(cmd, 8)?, 0, 5) as usize * 32;
        let addr = bits32(get_u32(cmd, 12)?, 0, 27) << 5;
        if get_u32(cmd, 16)? >> 24 != SC_IMM {
            return Err(WireError::field("sc", u64::from(get_u32(cmd, 16)?)));
        }
        let imm = get_u32(cmd, 20)?;
        let count = data / PagePod::LEN;
        if imm as usize != data
            || data % PagePod::LEN != 0
            || count == 0
            || count > MAX_IMM_PPODS
        {
            return Err(WireError::field("dlen", u64::from(imm)));
        }
        let body = need(cmd.get(24..).unwrap_or(&[]), data)?;
        let mut pods = [PagePod::default(); MAX_IMM_PPODS];
        for (pod, src) in pods.iter_mut().zip(body.chunks_exact(PagePod::LEN)) {
            *pod = PagePod::parse(src)?;
        }
        Ok(UlpTxMemWrite { addr, pods, count })
    }
}

/// Bytes of a wrapped SET_TCB_FIELD: command, header, the CPL's 24 bytes, padding.
const SET_TCB_LEN: usize = 48;
/// Bytes of a wrapped RX_DATA_ACK.
const RX_DATA_ACK_LEN: usize = 32;

/// Builds a FW_ULPTX_WR out of TCB updates and receive acknowledgements that the adapter
/// executes in one go.
///
/// ```
/// # use wire::ulptx::{Compound, Inner};
/// let mut buf = [0; Compound::len(1, 1)];
/// let mut c = Compound::begin(&mut buf, true, 7).unwrap();
/// c.set_tcb(&wire::tcb::ddp_on(), None).unwrap();
/// c.rx_modulate().unwrap();
/// assert_eq!(wire::ulptx::parse_compound(&buf).unwrap().1.count(), 2);
/// ```
pub struct Compound<'a> {
    b: &'a mut [u8],
    at: usize,
    tid: u32,
}

impl<'a> Compound<'a> {
    /// Bytes of a request with that many inner messages.
    #[must_use]
    pub const fn len(set_tcbs: usize, rx_data_acks: usize) -> usize {
        16 + SET_TCB_LEN * set_tcbs + RX_DATA_ACK_LEN * rx_data_acks
    }

    /// Start a request that fills `b` exactly ([`Compound::len`]).
    ///
    /// # Errors
    /// `Truncated` if there is no room for the header, `Field` for a tid of more than 20 bits.
    pub fn begin(b: &'a mut [u8], atomic: bool, tid: u32) -> Result<Compound<'a>, WireError> {
        fit32("tid", tid, FLOWID_BITS)?;
        let len = b.len();
        put_ulptx_hdr(b, len, atomic, 0)?;
        Ok(Compound { b, at: 16, tid })
    }

    fn wrap(&mut self, whole: usize, cpl: usize) -> Result<&mut [u8], WireError> {
        let (at, have) = (self.at, self.b.len());
        let end = at + whole;
        let m = self.b.get_mut(at..end).ok_or(WireError::Truncated { need: end, have })?;
        self.at = end;
        put_u32(m, 0, ULP_TX_PKT << 24)?;
        put_u32(m, 4, (whole / 16) as u32)?;
        put_u32(m, 8, SC_IMM << 24)?;
        put_u32(m, 12, cpl as u32)?;
        if let Some(pad) = m.get_mut(16 + cpl..).filter(|p| !p.is_empty()) {
            put_u32(pad, 0, SC_NOOP << 24)?;
            put_u32(pad, 4, 0)?;
        }
        m.get_mut(16..16 + cpl).ok_or(WireError::Truncated { need: end, have })
    }

    /// Add a TCB update. With `reply` (queue, cookie) the adapter answers SET_TCB_RPL.
    ///
    /// # Errors
    /// `Truncated` if the request is full.
    pub fn set_tcb(&mut self, u: &TcbUpdate, reply: Option<(u16, u8)>) -> Result<(), WireError> {
        let tid = self.tid;
        let m = self.wrap(SET_TCB_LEN, 24)?;
        put_u32(m, 0, u32::from(Opcode::SetTcbField.code()) << 24 | tid)?;
        let (queue, cookie, no_reply) = match reply {
            Some((q, c)) => (q & 0x3ff, c & 7, 0),
            None => (0, 0, 1u16),
        };
        put_u32(
            m,
            4,
            u32::from(no_reply << 15 | queue) << 16 | u32::from(cookie) << 5 | u32::from(u.word & 31),
        )?;
        put_u64(m, 8, u.mask)?;
        put_u64(m, 16, u.value)
    }

    /// Add a receive acknowledgement that returns no credits but speeds up delivery.
    ///
    /// # Errors
    /// `Truncated` if the request is full.
    pub fn rx_modulate(&mut self) -> Result<(), WireError> {
        let tid = self.tid;
        let m = self.wrap(RX_DATA_ACK_LEN, 8)?;
        put_u32(m, 0, u32::from(Opcode::RxDataAck.code()) << 24 | tid)?;
        put_u32(m, 4, 1 << 27)
    }
}

/// A message found inside a compound request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inner {
    /// A TCB update of connection `tid`.
    SetTcb {
        /// Connection.
        tid: u32,
        /// The change.
        update: TcbUpdate,
        /// Queue and cookie of the reply that is wanted.
        reply: Option<(u16, u8)>,
    },
    /// Receive credits.
    RxDataAck(RxDataAck),
}

/// Open a FW_ULPTX_WR of wrapped CPLs: is it atomic, and what is in it. A message that makes no
/// sense ends the iteration with its error.
///
/// # Errors
/// `Opcode` if it is another work request, `Truncated` if it is not all there.
pub fn parse_compound(
    b: &[u8],
) -> Result<(bool, impl Iterator<Item = Result<Inner, WireError>> + '_), WireError> {
    let (atomic, mut rest) = get_ulptx_hdr(b)?;
    let mut failed = false;
    let it = core::iter::from_fn(move || {
        if failed || rest.is_empty() {
            return None;
        }
        let r = next_inner(rest);
        match r {
            Ok((inner, len)) => {
                rest = rest.get(len..).unwrap_or(&[]);
                Some(Ok(inner))
            }
            Err(e) => {
                failed = true;
                Some(Err(e))
            }
        }
    });
    Ok((atomic, it))
}

fn next_inner(b: &[u8]) -> Result<(Inner, usize), WireError> {
    let cmd = get_u32(b, 0)?;
    if cmd >> 24 != ULP_TX_PKT {
        return Err(WireError::Opcode { want: ULP_TX_PKT as u8, have: (cmd >> 24) as u8 });
    }
    let whole = get_u32(b, 4)? as usize * 16;
    if whole == 0 {
        return Err(WireError::field("len16", 0));
    }
    let m = need(b, whole)?;
    if get_u32(m, 8)? >> 24 != SC_IMM {
        return Err(WireError::field("sc", u64::from(get_u32(m, 8)?)));
    }
    let cpl = need(m.get(16..).unwrap_or(&[]), get_u32(m, 12)? as usize)?;
    let ot = get_u32(cpl, 0)?;
    let (op, tid) = ((ot >> 24) as u8, ot & 0x00ff_ffff);
    let inner = if op == Opcode::SetTcbField.code() {
        let reply_ctrl = get_u16(cpl, 4)?;
        let wc = get_u16(cpl, 6)?;
        Inner::SetTcb {
            tid,
            update: TcbUpdate {
                word: (wc & 31) as u8,
                mask: get_u64(cpl, 8)?,
                value: get_u64(cpl, 16)?,
            },
            reply: (reply_ctrl >> 15 == 0)
                .then_some((reply_ctrl & 0x3ff, (wc >> 5 & 7) as u8)),
        }
    } else if op == Opcode::RxDataAck.code() {
        Inner::RxDataAck(RxDataAck::from_word(tid, get_u32(cpl, 4)?))
    } else {
        return Err(WireError::Opcode { want: Opcode::SetTcbField.code(), have: op });
    };
    Ok((inner, whole))
}
