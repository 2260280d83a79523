//! Checked access to big-endian fields, and the header of CPL work requests.
//!
//! Every getter and putter takes a byte offset from the start of the slice and
//! answers [`WireError::Truncated`] rather than reach past its end.

use crate::error::WireError;
use crate::opcode::{Opcode, WrOp};

/// Bytes of a work-request header (`struct work_request_hdr`).
pub const WR_HDR_LEN: usize = 16;
/// Bits of a tid in a CPL's opcode word.
pub const TID_BITS: u32 = 24;
/// Bits of a flow id in a work-request header.
pub const FLOWID_BITS: u32 = 20;

const fn short(need: usize, have: usize) -> WireError {
    WireError::Truncated { need, have }
}

/// `N` bytes at `off`.
///
/// # Errors
/// `Truncated` if the slice ends before `off + N`.
#[inline]
pub fn get_array<const N: usize>(b: &[u8], off: usize) -> Result<[u8; N], WireError> {
    let end = off.saturating_add(N);
    b.get(off..end)
        .and_then(|s| <[u8; N]>::try_from(s).ok())
        .ok_or(short(end, b.len()))
}

/// Stores `N` bytes at `off`.
///
/// # Errors
/// `Truncated` if the slice ends before `off + N`.
#[inline]
pub fn put_array<const N: usize>(b: &mut [u8], off: usize, v: [u8; N]) -> Result<(), WireError> {
    let end = off.saturating_add(N);
    let have = b.len();
    match b.get_mut(off..end) {
        Some(s) => {
            s.copy_from_slice(&v);
            Ok(())
        }
        None => Err(short(end, have)),
    }
}

macro_rules! ints {
    ($($t:ty, $get:ident, $put:ident;)*) => {$(
        #[doc = concat!("Big-endian `", stringify!($t), "` at byte `off`.")]
        ///
        /// # Errors
        /// `Truncated` if the slice ends before the field does.
        #[inline]
        pub fn $get(b: &[u8], off: usize) -> Result<$t, WireError> {
            get_array(b, off).map(<$t>::from_be_bytes)
        }

        #[doc = concat!("Stores a big-endian `", stringify!($t), "` at byte `off`.")]
        ///
        /// # Errors
        /// `Truncated` if the slice ends before the field does.
        #[inline]
        pub fn $put(b: &mut [u8], off: usize, v: $t) -> Result<(), WireError> {
            put_array(b, off, v.to_be_bytes())
        }
    )*};
}

ints! {
    u8, get_u8, put_u8;
    u16, get_u16, put_u16;
    u32, get_u32, put_u32;
    u64, get_u64, put_u64;
}

/// The first `len` bytes of `b`.
///
/// # Errors
/// `Truncated` if there are fewer.
#[inline]
pub fn need(b: &[u8], len: usize) -> Result<&[u8], WireError> {
    b.get(..len).ok_or(short(len, b.len()))
}

/// The first `len` bytes of `b`, set to zero: a message is built on these, so
/// that a byte no field covers goes out as zero and not as what lay there before.
///
/// # Errors
/// `Truncated` if there are fewer.
#[inline]
pub fn fresh(b: &mut [u8], len: usize) -> Result<&mut [u8], WireError> {
    let have = b.len();
    let s = b.get_mut(..len).ok_or(short(len, have))?;
    s.fill(0);
    Ok(s)
}

/// `v`, if it fits in `width` bits (1 to 64).
///
/// # Errors
/// `Field` with `name` if it does not.
#[inline]
pub fn fit(name: &'static str, v: u64, width: u32) -> Result<u64, WireError> {
    let over = match v.checked_shr(width) {
        Some(high) => high != 0,
        None => false,
    };
    if over {
        Err(WireError::field(name, v))
    } else {
        Ok(v)
    }
}

/// [`fit`] for a 32-bit value.
///
/// # Errors
/// `Field` with `name` if `v` is wider than `width` bits.
#[inline]
pub fn fit32(name: &'static str, v: u32, width: u32) -> Result<u32, WireError> {
    fit(name, u64::from(v), width).map(|_| v)
}

/// The `width` bits of `v` from bit `shift` up; zero if they lie outside.
#[inline]
#[must_use]
pub const fn bits32(v: u32, shift: u32, width: u32) -> u32 {
    let v = match v.checked_shr(shift) {
        Some(v) => v,
        None => 0,
    };
    match 1u32.checked_shl(width) {
        Some(top) => v & (top - 1),
        None => v,
    }
}

/// [`bits32`] for a 64-bit word.
#[inline]
#[must_use]
pub const fn bits64(v: u64, shift: u32, width: u32) -> u64 {
    let v = match v.checked_shr(shift) {
        Some(v) => v,
        None => 0,
    };
    match 1u64.checked_shl(width) {
        Some(top) => v & (top - 1),
        None => v,
    }
}

/// Writes the opcode word of a CPL (`OPCODE_TID`) at `off`.
///
/// # Errors
/// `Field` if `tid` has more than 24 bits, `Truncated` if there is no room.
pub fn put_ot(b: &mut [u8], off: usize, op: Opcode, tid: u32) -> Result<(), WireError> {
    let tid = fit32("tid", tid, TID_BITS)?;
    put_u32(b, off, u32::from(op.code()) << TID_BITS | tid)
}

/// Checks the opcode of the CPL at `off` and returns its tid.
///
/// # Errors
/// `Opcode` if it is another CPL, `Truncated` if the word is not all there.
pub fn get_ot(b: &[u8], off: usize, want: Opcode) -> Result<u32, WireError> {
    let w = get_u32(b, off)?;
    let have = (w >> TID_BITS) as u8;
    if have == want.code() {
        Ok(bits32(w, 0, TID_BITS))
    } else {
        Err(WireError::Opcode {
            want: want.code(),
            have,
        })
    }
}

/// `n` rounded up to a multiple of 16, the unit of work-request lengths.
#[inline]
#[must_use]
pub const fn round16(n: usize) -> usize {
    n.saturating_add(15) & !15
}

/// Writes the FW_TP_WR header of a work request that holds one CPL.
///
/// `flowid` is the tid the firmware files the request under (0 for requests that
/// belong to no connection); `total_len` is header plus CPL in bytes, before
/// rounding up. Source: FreeBSD's `INIT_TP_WR`, `fw_wr_hdr` in t4fw_interface.h.
///
/// # Errors
/// `Field` if `flowid` is wider than 20 bits or the CPL longer than 255 bytes,
/// `Truncated` if there is no room for the header.
pub fn put_tp_wr(b: &mut [u8], flowid: u32, total_len: usize) -> Result<(), WireError> {
    let imm = total_len
        .checked_sub(WR_HDR_LEN)
        .and_then(|n| u8::try_from(n).ok())
        .ok_or(WireError::field("immdlen", total_len as u64))?;
    let flowid = fit32("flowid", flowid, FLOWID_BITS)?;
    // At most (16 + 255) / 16, so the narrowing is exact.
    let len16 = (round16(total_len) / 16) as u32;
    put_u32(b, 0, u32::from(WrOp::Tp.code()) << 24 | u32::from(imm))?;
    put_u32(b, 4, flowid << 8 | len16)?;
    put_u64(b, 8, 0)
}

/// Checks the FW_TP_WR header of a work request that holds one CPL of
/// `total_len - 16` bytes, and returns its flow id.
///
/// # Errors
/// `Truncated` if `b` is shorter than the request rounded up to 16 bytes,
/// `Opcode` if it is another work request, `Field` if its lengths disagree with
/// the CPL's.
pub fn get_tp_wr(b: &[u8], total_len: usize) -> Result<u32, WireError> {
    let b = need(b, round16(total_len))?;
    let hi = get_u32(b, 0)?;
    let have = (hi >> 24) as u8;
    let want = WrOp::Tp.code();
    if have != want {
        return Err(WireError::Opcode { want, have });
    }
    let imm = bits32(hi, 0, 8);
    if usize::try_from(imm).ok() != total_len.checked_sub(WR_HDR_LEN) {
        return Err(WireError::field("immdlen", u64::from(imm)));
    }
    let mid = get_u32(b, 4)?;
    let len16 = bits32(mid, 0, 8);
    if usize::try_from(len16).ok() != Some(round16(total_len) / 16) {
        return Err(WireError::field("len16", u64::from(len16)));
    }
    Ok(bits32(mid, 8, FLOWID_BITS))
}

/// Starts a request: zeroes it, writes the FW_TP_WR header and the CPL's opcode
/// word. Returns the CPL part, whose offsets count from its opcode byte.
///
/// `cpl_len` is in bytes; the whole takes `round16(16 + cpl_len)`.
///
/// # Errors
/// As [`put_tp_wr`] and [`put_ot`].
pub fn begin_req(
    b: &mut [u8],
    op: Opcode,
    tid: u32,
    flowid: u32,
    cpl_len: usize,
) -> Result<&mut [u8], WireError> {
    let total = WR_HDR_LEN.saturating_add(cpl_len);
    let b = fresh(b, round16(total))?;
    put_tp_wr(b, flowid, total)?;
    put_ot(b, WR_HDR_LEN, op, tid)?;
    let have = b.len();
    b.get_mut(WR_HDR_LEN..total).ok_or(short(total, have))
}

/// Opens a request written by [`begin_req`]: the CPL part and its tid.
///
/// # Errors
/// As [`get_tp_wr`] and [`get_ot`].
pub fn open_req(b: &[u8], op: Opcode, cpl_len: usize) -> Result<(&[u8], u32), WireError> {
    let total = WR_HDR_LEN.saturating_add(cpl_len);
    get_tp_wr(b, total)?;
    let c = b.get(WR_HDR_LEN..total).ok_or(short(total, b.len()))?;
    let tid = get_ot(c, 0, op)?;
    Ok((c, tid))
}

/// Starts a CPL that travels without a work-request header: zeroes it and writes
/// its opcode word.
///
/// # Errors
/// `Truncated` if `b` is shorter than `len`, `Field` if the tid is too wide.
pub fn begin_cpl(b: &mut [u8], op: Opcode, tid: u32, len: usize) -> Result<&mut [u8], WireError> {
    let b = fresh(b, len)?;
    put_ot(b, 0, op, tid)?;
    Ok(b)
}

/// Opens a CPL without a work-request header: its bytes and its tid.
///
/// # Errors
/// `Truncated` if `b` is shorter than `len`, `Opcode` if it is another CPL.
pub fn open_cpl(b: &[u8], op: Opcode, len: usize) -> Result<(&[u8], u32), WireError> {
    let b = need(b, len)?;
    let tid = get_ot(b, 0, op)?;
    Ok((b, tid))
}
