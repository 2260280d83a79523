//! ULP_TX: scatter lists, writes to adapter memory, and several CPLs in one work request.

use static_assertions::const_assert_eq;

use crate::Chip;
use crate::bytes::{
    FLOWID_BITS, WR_HDR_LEN, bits32, fit, fit32, get_u32, get_u64, need, put_array, put_u32,
    put_u64, round16,
};
use crate::cpl_rx::RxDataAck;
use crate::cpl_tcb::{ReplyCtrl, SetTcbField};
use crate::error::WireError;
use crate::opcode::{Opcode, WrOp, opcode_of_cpl};
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
/// Of the ULP_TX_MEM_WRITE command: ORDER on T4, IMM from T5 on. Every write here wants it.
const MEMIO_ORDER_OR_IMM: u32 = 1 << 23;
/// Most segments the count field of a scatter list holds.
const MAX_NSGE: usize = 0xffff;

/// Bytes of a scatter list of `n` segments, not rounded; 0 for no segment.
#[must_use]
pub const fn dsgl_len(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    let more = n - 1;
    16 + 24 * (more / 2) + 16 * (more % 2)
}

const_assert_eq!(dsgl_len(MAX_SGL_SEGS), MAX_WR_LEN - WR_HDR_LEN);

/// Write a scatter list of `(address, length)` segments at the start of `out`; returns its
/// length in bytes ([`dsgl_len`]), every one of which is written. If `out` goes on to the next
/// multiple of 16, so that a work request can end there, that padding is zeroed too.
///
/// # Errors
/// `Truncated` if it does not fit, `Field` for an empty list or one of over 65535 segments.
pub fn emit_dsgl(segs: &[(u64, u32)], out: &mut [u8]) -> Result<usize, WireError> {
    let n = segs.len();
    let len = dsgl_len(n);
    let have = out.len();
    let short = WireError::Truncated { need: len, have };
    let (Some((&(addr0, len0), rest)), true) = (segs.split_first(), n <= MAX_NSGE) else {
        return Err(WireError::field("nsge", n as u64));
    };
    // Lists are multiples of 8: the padding is those 8 bytes or none.
    if !len.is_multiple_of(16)
        && let Some(pad) = out.get_mut(len..).and_then(|b| b.first_chunk_mut::<8>())
    {
        *pad = [0; 8];
    }
    let out = out.get_mut(..len).ok_or(short)?;
    let (head, tail) = out.split_first_chunk_mut::<16>().ok_or(short)?;
    *head = dsgl_head(n as u32, len0, addr0);
    let (pairs, single) = rest.as_chunks::<2>();
    let (to_pairs, to_single) = tail.as_chunks_mut::<24>();
    for (to, [(a0, l0), (a1, l1)]) in to_pairs.iter_mut().zip(pairs) {
        let (lens, addrs) = to.split_at_mut(8);
        put_u64(lens, 0, u64::from(*l0) << 32 | u64::from(*l1))?;
        put_u64(addrs, 0, *a0)?;
        put_u64(addrs, 8, *a1)?;
    }
    if let [(addr, len)] = single {
        // The second length is there, and 0; the second address is not.
        put_u64(to_single, 0, u64::from(*len) << 32)?;
        put_u64(to_single, 8, *addr)?;
    }
    Ok(len)
}

/// `struct ulptx_sgl`: command and count, first length, first address.
const fn dsgl_head(n: u32, len0: u32, addr0: u64) -> [u8; 16] {
    let hi = (((SC_DSGL << 24) | n) as u128) << 96 | (len0 as u128) << 64;
    (hi | addr0 as u128).to_be_bytes()
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
            return Err(WireError::Opcode {
                want: SC_DSGL as u8,
                have: (cmd >> 24) as u8,
            });
        }
        let n = (cmd & 0xffff) as usize;
        if n == 0 {
            return Err(WireError::field("nsge", 0));
        }
        Ok(Dsgl {
            b: need(b, dsgl_len(n))?,
            n,
        })
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

/// Header of a FW_ULPTX_WR of `len` bytes. Its flow id is 0: replies find their connection by
/// the tid in the CPL.
fn put_ulptx_hdr(b: &mut [u8], len: usize, atomic: bool) -> Result<(), WireError> {
    if len < WR_HDR_LEN {
        return Err(WireError::Truncated {
            need: WR_HDR_LEN,
            have: len,
        });
    }
    let len16 = len / 16;
    if !len.is_multiple_of(16) || len16 > 0xff {
        return Err(WireError::field("len", len as u64));
    }
    put_u32(
        b,
        0,
        u32::from(WrOp::Ulptx.code()) << 24 | u32::from(atomic) << 23,
    )?;
    put_u32(b, 4, len16 as u32)?;
    put_u64(b, 8, 0)
}

/// Is the request atomic, and the commands behind its header.
fn get_ulptx_hdr(b: &[u8]) -> Result<(bool, &[u8]), WireError> {
    let hi = get_u32(b, 0)?;
    let (want, have) = (WrOp::Ulptx.code(), (hi >> 24) as u8);
    if have != want {
        return Err(WireError::Opcode { want, have });
    }
    let len16 = bits32(get_u32(b, 4)?, 0, 8);
    let b = need(b, len16 as usize * 16)?;
    match b.get(WR_HDR_LEN..) {
        Some(cmds) => Ok((hi >> 23 & 1 != 0, cmds)),
        None => Err(WireError::field("len16", u64::from(len16))),
    }
}

/// A ULP_TX_MEM_WRITE work request with page pods as immediate data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UlpTxMemWrite {
    /// Byte address in adapter memory; a multiple of 32.
    pub addr: u32,
    /// The pods; those from `count` on are not sent.
    pub pods: [PagePod; MAX_IMM_PPODS],
    /// How many of them, 1 to 4.
    pub count: usize,
}

impl UlpTxMemWrite {
    /// Bytes before the pods: work-request header, command, and header of the immediate data.
    const HEAD_LEN: usize = WR_HDR_LEN + 16 + 8;

    /// Bytes of the work request that writes `n` pods.
    #[must_use]
    pub const fn len(n: usize) -> usize {
        round16(Self::HEAD_LEN + n * PagePod::LEN)
    }

    /// Write the whole work request; returns its length.
    ///
    /// # Errors
    /// `Field` for a bad count or address or a wide tid, `Truncated` if it does not fit.
    pub fn emit(&self, chip: Chip, b: &mut [u8]) -> Result<usize, WireError> {
        let pods = match self.pods.get(..self.count) {
            Some(p) if !p.is_empty() => p,
            _ => return Err(WireError::field("ppods", self.count as u64)),
        };
        if self.addr & 31 != 0 {
            return Err(WireError::field("addr", u64::from(self.addr)));
        }
        // One bit means ORDER on T4 and IMM later: both are wanted.
        let flags = match chip {
            Chip::T4 | Chip::T5 | Chip::T6 => MEMIO_ORDER_OR_IMM,
        };
        let len = Self::len(self.count);
        let have = b.len();
        let short = WireError::Truncated { need: len, have };
        let b = b.get_mut(..len).ok_or(short)?;
        let (head, body) = b
            .split_first_chunk_mut::<{ Self::HEAD_LEN }>()
            .ok_or(short)?;
        let data = self.count * PagePod::LEN;
        put_ulptx_hdr(head, len, false)?;
        put_u32(head, 16, ULP_TX_MEM_WRITE << 24 | flags)?;
        put_u32(head, 20, ((len - WR_HDR_LEN) / 16) as u32)?;
        put_u32(head, 24, (data / 32) as u32)?;
        put_u32(head, 28, self.addr >> 5)?;
        put_u32(head, 32, SC_IMM << 24)?;
        put_u32(head, 36, data as u32)?;
        let (dst, pad) = body.as_chunks_mut::<{ PagePod::LEN }>();
        for (dst, pod) in dst.iter_mut().zip(pods) {
            pod.put(dst)?;
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
            return Err(WireError::Opcode {
                want: ULP_TX_MEM_WRITE as u8,
                have: (w >> 24) as u8,
            });
        }
        if w & MEMIO_ORDER_OR_IMM == 0 {
            return Err(WireError::field("cmd", u64::from(w)));
        }
        let len16 = get_u32(cmd, 4)?;
        if len16 as usize != cmd.len() / 16 {
            return Err(WireError::field("len16", u64::from(len16)));
        }
        let data = bits32(get_u32(cmd, 8)?, 0, 5) as usize * 32;
        let addr = bits32(get_u32(cmd, 12)?, 0, 27) << 5;
        if get_u32(cmd, 16)? >> 24 != SC_IMM {
            return Err(WireError::field("sc", u64::from(get_u32(cmd, 16)?)));
        }
        let imm = get_u32(cmd, 20)?;
        let count = data / PagePod::LEN;
        let whole = data.is_multiple_of(PagePod::LEN) && (1..=MAX_IMM_PPODS).contains(&count);
        if imm as usize != data || !whole {
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

/// Bytes of `struct ulp_txpkt` and `struct ulptx_idata`, which come before a wrapped CPL.
const WRAP_LEN: usize = 16;
/// Bytes of a wrapped SET_TCB_FIELD: both headers, the CPL's 24 bytes, an 8-byte no-op.
const SET_TCB_LEN: usize = 48;
/// Bytes of a wrapped RX_DATA_ACK, of 8 bytes.
const RX_DATA_ACK_LEN: usize = 32;
const_assert_eq!(SET_TCB_LEN, WRAP_LEN + SetTcbField::CPL_LEN + NOOP.len());
const_assert_eq!(RX_DATA_ACK_LEN, WRAP_LEN + RxDataAck::CPL_LEN + NOOP.len());

/// Commands end on 16 bytes; this fills the last 8.
const NOOP: [u8; 8] = ((SC_NOOP as u64) << 56).to_be_bytes();

/// Packet for TP of `whole` bytes with a CPL of `cpl` bytes as immediate data.
const fn wrap_head(whole: usize, cpl: usize) -> [u8; WRAP_LEN] {
    let pkt = ((ULP_TX_PKT as u128) << 120) | ((whole as u128 / 16) << 64);
    (pkt | (SC_IMM as u128) << 56 | cpl as u128).to_be_bytes()
}

/// Builds a FW_ULPTX_WR out of TCB updates and receive acknowledgements that the adapter
/// executes in one go.
///
/// ```
/// # use wire::ulptx::{Compound, Inner};
/// let mut buf = [0; Compound::len(1, 1)];
/// let mut c = Compound::begin(&mut buf, true, 7, 300).unwrap();
/// c.set_tcb(&wire::tcb::ddp_on(), None).unwrap();
/// c.rx_modulate().unwrap();
/// c.finish().unwrap();
/// assert_eq!(wire::ulptx::parse_compound(&buf).unwrap().1.count(), 2);
/// ```
pub struct Compound<'a> {
    rest: &'a mut [u8],
    tid: u32,
    rxq: u16,
}

impl<'a> Compound<'a> {
    /// Bytes of a request with that many inner messages.
    #[must_use]
    pub const fn len(set_tcbs: usize, rx_data_acks: usize) -> usize {
        WR_HDR_LEN + SET_TCB_LEN * set_tcbs + RX_DATA_ACK_LEN * rx_data_acks
    }

    /// Start a request that fills `b` exactly ([`Compound::len`]). It is whole only once that
    /// many messages were added. `rxq` is the connection's ingress queue, by its absolute id:
    /// each TCB update names it, whether a reply is wanted or not ([`ReplyCtrl::silent`]).
    ///
    /// # Errors
    /// `Truncated` if there is no room for the header, `Field` for a tid of more than 20 bits,
    /// a queue of more than 10, or a buffer that cannot be a work request: no multiple of 16,
    /// or over 4080 bytes.
    pub fn begin(
        b: &'a mut [u8],
        atomic: bool,
        tid: u32,
        rxq: u16,
    ) -> Result<Compound<'a>, WireError> {
        fit32("tid", tid, FLOWID_BITS)?;
        ReplyCtrl::silent(rxq).to_bits()?;
        let len = b.len();
        put_ulptx_hdr(b, len, atomic)?;
        Ok(Compound {
            rest: b.get_mut(WR_HDR_LEN..).unwrap_or_default(),
            tid,
            rxq,
        })
    }

    /// The next `N` bytes.
    fn claim<const N: usize>(&mut self) -> Result<&'a mut [u8; N], WireError> {
        let rest = core::mem::take(&mut self.rest);
        let have = rest.len();
        if have < N {
            self.rest = rest;
            return Err(WireError::Truncated { need: N, have });
        }
        let (m, rest) = rest.split_at_mut(N);
        self.rest = rest;
        m.try_into().or(Err(WireError::Truncated { need: N, have }))
    }

    /// Add a TCB update. With a cookie the adapter answers SET_TCB_RPL, which carries it.
    ///
    /// # Errors
    /// `Truncated` if the request is full, `Field` for a word or cookie that is too wide: nothing
    /// is added then.
    pub fn set_tcb(&mut self, u: &TcbUpdate, cookie: Option<u8>) -> Result<(), WireError> {
        const HEAD: [u8; WRAP_LEN] = wrap_head(SET_TCB_LEN, SetTcbField::CPL_LEN);
        let (reply, cookie) = match cookie {
            Some(cookie) => (ReplyCtrl::reply_to(self.rxq), cookie),
            None => (ReplyCtrl::silent(self.rxq), 0),
        };
        let mut cpl = [0; SetTcbField::CPL_LEN];
        let TcbUpdate {
            word,
            mask,
            value: val,
        } = *u;
        SetTcbField {
            tid: self.tid,
            reply,
            word,
            cookie,
            mask,
            val,
        }
        .emit_core(&mut cpl)?;
        let m = self.claim::<SET_TCB_LEN>()?;
        put_array(m, 0, HEAD)?;
        put_array(m, WRAP_LEN, cpl)?;
        put_array(m, WRAP_LEN + SetTcbField::CPL_LEN, NOOP)
    }

    /// Add a receive acknowledgement that returns no credits but speeds up delivery.
    ///
    /// # Errors
    /// `Truncated` if the request is full.
    pub fn rx_modulate(&mut self) -> Result<(), WireError> {
        const HEAD: [u8; WRAP_LEN] = wrap_head(RX_DATA_ACK_LEN, RxDataAck::CPL_LEN);
        let mut cpl = [0; RxDataAck::CPL_LEN];
        RxDataAck {
            tid: self.tid,
            modulate_rx: true,
            ..RxDataAck::default()
        }
        .emit_core(&mut cpl)?;
        let m = self.claim::<RX_DATA_ACK_LEN>()?;
        put_array(m, 0, HEAD)?;
        put_array(m, WRAP_LEN, cpl)?;
        put_array(m, WRAP_LEN + RxDataAck::CPL_LEN, NOOP)
    }

    /// Check that the request is whole.
    ///
    /// # Errors
    /// `Field` with the number of bytes that no message fills.
    pub fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(WireError::field("unfilled", n as u64)),
        }
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

/// The message at the start of `b`, and the bytes it takes.
fn next_inner(b: &[u8]) -> Result<(Inner, usize), WireError> {
    let cmd = get_u32(b, 0)?;
    if cmd >> 24 != ULP_TX_PKT {
        return Err(WireError::Opcode {
            want: ULP_TX_PKT as u8,
            have: (cmd >> 24) as u8,
        });
    }
    let len16 = get_u32(b, 4)?;
    let whole = fit("len16", u64::from(len16), 8)? as usize * 16;
    let m = need(b, whole)?;
    let Some(imm) = m.get(WRAP_LEN..) else {
        return Err(WireError::field("len16", u64::from(len16)));
    };
    let sc = get_u32(m, 8)?;
    if sc >> 24 != SC_IMM {
        return Err(WireError::field("sc", u64::from(sc)));
    }
    let cpl_len = get_u32(m, 12)?;
    let cpl = need(imm, cpl_len as usize)?;
    let (want, inner) = match opcode_of_cpl(cpl)? {
        Opcode::SetTcbField => {
            let m = SetTcbField::parse_core(cpl)?;
            let update = TcbUpdate {
                word: m.word,
                mask: m.mask,
                value: m.val,
            };
            let reply = (!m.reply.no_reply).then_some((m.reply.queue, m.cookie));
            (
                SetTcbField::CPL_LEN,
                Inner::SetTcb {
                    tid: m.tid,
                    update,
                    reply,
                },
            )
        }
        Opcode::RxDataAck => (
            RxDataAck::CPL_LEN,
            Inner::RxDataAck(RxDataAck::parse_core(cpl)?),
        ),
        other => {
            let want = Opcode::SetTcbField.code();
            return Err(WireError::Opcode {
                want,
                have: other.code(),
            });
        }
    };
    if cpl.len() != want {
        return Err(WireError::field("immdlen", u64::from(cpl_len)));
    }
    Ok((inner, whole))
}
