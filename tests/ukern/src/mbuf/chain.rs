//! Operations on chains.

use super::{
    MHLEN, MLEN, Mbuf, PKTDAT, PktHdr, epg, mapped, mapped_ro, segments, size, start, trailing,
    zones,
};
use crate::kp::{Kp, bytes, bytes_mut};
use crate::{kpanic, sys};

const ALL: usize = sys::M_COPYALL as usize;
const NOWAIT: i32 = sys::M_NOWAIT as i32;

/// The mbufs of a chain.
pub(super) fn iter(m: *mut Mbuf) -> impl Iterator<Item = Kp<Mbuf>> {
    std::iter::successors(Kp::opt(m), |m| Kp::opt(m.next))
}

/// `m_freem`: frees a chain; NULL is allowed.
pub fn freem(m: *mut Mbuf) {
    let mut at = m;
    while let Some(m) = Kp::opt(at) {
        at = zones::free(m);
    }
}

/// `m_length`: total bytes and the last mbuf.
#[must_use]
pub fn length(m: *mut Mbuf) -> (usize, *mut Mbuf) {
    iter(m).fold((0, std::ptr::null_mut()), |(n, _), m| {
        (n + m.data_len(), m.ptr())
    })
}

/// `m_copydata`: `to.len()` bytes from `off` on. Panics when the chain is shorter.
pub fn copydata(m: *mut Mbuf, off: usize, to: &mut [u8]) {
    let (mut off, mut done) = (off, 0);
    for m in iter(m) {
        if done == to.len() {
            break;
        }
        let len = m.data_len();
        if off >= len {
            off -= len;
            continue;
        }
        for (at, n) in segments(m, off, to.len() - done) {
            to[done..done + n].copy_from_slice(bytes(at as *const u8, n));
            done += n;
        }
        off = 0;
    }
    if done != to.len() {
        kpanic!("m_copydata: {} bytes wanted, {done} there", to.len());
    }
}

/// `m_apply`: calls `f` on each piece of `[off, off + len)` until it returns non-zero.
pub(super) fn apply(
    m: *mut Mbuf,
    off: usize,
    len: usize,
    mut f: impl FnMut(usize, usize) -> i32,
) -> i32 {
    let (mut off, mut left) = (off, len);
    for m in iter(m) {
        if left == 0 {
            break;
        }
        let have = m.data_len();
        if off >= have {
            off -= have;
            continue;
        }
        for (at, n) in segments(m, off, left) {
            let r = f(at, n);
            if r != 0 {
                return r;
            }
            left -= n;
        }
        off = 0;
    }
    if left != 0 {
        kpanic!("m_apply past the end of the chain");
    }
    0
}

/// `m_copyback`: writes at `off`, extending the chain as needed and possible.
pub(super) fn copyback(m: *mut Mbuf, off: usize, from: &[u8]) {
    let Some(head) = Kp::opt(m) else { return };
    let (mut off, mut from) = (off, from);
    let mut at = head;
    loop {
        let len = at.data_len();
        if off < len && !from.is_empty() {
            let n = (len - off).min(from.len());
            mapped(at)[off..off + n].copy_from_slice(&from[..n]);
            from = &from[n..];
            off = 0;
        } else {
            off -= len.min(off);
        }
        if off == 0 && from.is_empty() {
            break;
        }
        match Kp::opt(at.next) {
            Some(n) => at = n,
            None => {
                let zeros = off;
                let Some(n) = zones::getm(None, zeros + from.len(), NOWAIT, at.type_(), 0) else {
                    break;
                };
                let mut data = vec![0; zeros];
                data.extend_from_slice(from);
                fill(n, &data);
                at.next = n.ptr();
                break;
            }
        }
    }
    fix_len(head);
}

/// Lays bytes into an empty chain with room for them.
fn fill(m: Kp<Mbuf>, data: &[u8]) {
    let mut data = data;
    for mut m in iter(m.ptr()) {
        let n = size(m).min(data.len());
        m.len = n as i32;
        mapped(m).copy_from_slice(&data[..n]);
        data = &data[n..];
    }
}

fn fix_len(mut head: Kp<Mbuf>) {
    if head.has(sys::M_PKTHDR) {
        let total = length(head.ptr()).0 as i32;
        head.pkt.len = head.pkt.len.max(total);
    }
}

/// `m_append`: adds bytes at the end; false when memory ran out (what fitted stays).
pub fn append(mut m: Kp<Mbuf>, data: &[u8]) -> bool {
    let mut last: Kp<Mbuf> = Kp::new(length(m.ptr()).1);
    let n = trailing(last).min(data.len());
    bytes_mut((last.data + last.data_len()) as *mut u8, n).copy_from_slice(&data[..n]);
    last.len += n as i32;
    let mut rest = &data[n..];
    while !rest.is_empty() {
        let Some(mut x) = zones::get(NOWAIT, m.type_()) else {
            break;
        };
        let n = MLEN.min(rest.len());
        x.len = n as i32;
        mapped(x).copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        last.next = x.ptr();
        last = x;
    }
    if m.has(sys::M_PKTHDR) {
        m.pkt.len += (data.len() - rest.len()) as i32;
    }
    rest.is_empty()
}

/// `m_cat`: `n` goes behind `m`; small pieces are copied.
pub fn cat(m: Kp<Mbuf>, n: *mut Mbuf) {
    let mut last: Kp<Mbuf> = Kp::new(length(m.ptr()).1);
    let mut n = n;
    while let Some(x) = Kp::opt(n) {
        let len = x.data_len();
        if x.has(sys::M_EXTPG) || last.has(sys::M_EXTPG) || trailing(last) < len {
            last.next = n;
            return;
        }
        bytes_mut((last.data + last.data_len()) as *mut u8, len).copy_from_slice(mapped_ro(x));
        last.len += len as i32;
        n = zones::free(x);
    }
}

/// `m_adj`: trims from the front, or with a negative count from the back.
pub fn adj(m: *mut Mbuf, by: i64) {
    let Some(mut head) = Kp::opt(m) else { return };
    let total = length(m).0;
    let cut = usize::try_from(by.unsigned_abs())
        .unwrap_or(usize::MAX)
        .min(total);
    if by >= 0 {
        let mut left = cut;
        for mut m in iter(head.ptr()) {
            let n = m.data_len().min(left);
            m.data += n;
            m.len -= n as i32;
            left -= n;
            if left == 0 {
                break;
            }
        }
    } else {
        let mut keep = total - cut;
        for mut m in iter(head.ptr()) {
            let n = m.data_len().min(keep);
            m.len = n as i32;
            keep -= n;
        }
    }
    if head.has(sys::M_PKTHDR) {
        head.pkt.len -= cut as i32;
    }
}

fn move_pkthdr(mut to: Kp<Mbuf>, mut from: Kp<Mbuf>) {
    let f = (from.flags() & sys::M_COPYFLAGS) | (to.flags() & (sys::M_EXT | sys::M_EXTPG));
    to.set_flags(f);
    if !to.has(sys::M_EXT) {
        to.data = to.addr() + PKTDAT;
    }
    to.pkt = from.pkt;
    from.pkt.tags = 0;
    let f = from.flags() & !sys::M_PKTHDR;
    from.set_flags(f);
}

pub(super) fn c_move_pkthdr(to: Kp<Mbuf>, from: Kp<Mbuf>) {
    move_pkthdr(to, from);
}

/// `m_dup_pkthdr`; tags are not made here, so there is nothing that can fail.
pub(super) fn dup_pkthdr(mut to: Kp<Mbuf>, from: Kp<Mbuf>) {
    let f = (from.flags() & sys::M_COPYFLAGS & !sys::M_RDONLY)
        | (to.flags() & (sys::M_EXT | sys::M_EXTPG | sys::M_RDONLY));
    to.set_flags(f);
    if !to.has(sys::M_EXT) {
        to.data = to.addr() + PKTDAT;
    }
    to.pkt = from.pkt;
    to.pkt.tags = 0;
}

/// `m_pullup`: the first `len` bytes contiguous in the first mbuf. NULL (chain freed) on failure.
pub fn pullup(m: *mut Mbuf, len: usize) -> *mut Mbuf {
    let head: Kp<Mbuf> = Kp::new(m);
    if head.data_len() >= len && !head.has(sys::M_EXTPG) {
        return m;
    }
    if len > MHLEN || length(m).0 < len {
        freem(m);
        return std::ptr::null_mut();
    }
    let Some(mut n) = zones::get(NOWAIT, head.type_()) else {
        freem(m);
        return std::ptr::null_mut();
    };
    if head.has(sys::M_PKTHDR) {
        move_pkthdr(n, head);
    }
    let pktlen = if n.has(sys::M_PKTHDR) { n.pkt.len } else { 0 };
    n.len = len as i32;
    copydata(m, 0, mapped(n));
    adj(m, len as i64);
    let mut rest = m;
    while let Some(r) = Kp::opt(rest)
        && r.len == 0
    {
        rest = zones::free(r);
    }
    n.next = rest;
    if n.has(sys::M_PKTHDR) {
        n.pkt.len = pktlen;
    }
    n.ptr()
}

/// `m_prepend`: `len` bytes of room in front. NULL (chain freed) on failure.
pub fn prepend(m: *mut Mbuf, len: usize, how: i32) -> *mut Mbuf {
    let head: Kp<Mbuf> = Kp::new(m);
    let got = zones::get(how, head.type_());
    let Some(mut n) = got else {
        freem(m);
        return std::ptr::null_mut();
    };
    if head.has(sys::M_PKTHDR) {
        move_pkthdr(n, head);
    }
    if len > size(n) {
        kpanic!("m_prepend of {len} bytes");
    }
    n.data = start(n) + (size(n) - len) / 8 * 8;
    n.next = m;
    n.len = len as i32;
    n.ptr()
}

/// `m_copym`: `len` bytes (M_COPYALL for the rest) from `off`; storage is shared.
pub fn copym(m: *mut Mbuf, off: usize, len: usize, how: i32) -> *mut Mbuf {
    let head: Kp<Mbuf> = Kp::new(m);
    let with_hdr = off == 0 && head.has(sys::M_PKTHDR);
    let (mut skip, mut left) = (off, len);
    let mut first: *mut Mbuf = std::ptr::null_mut();
    let mut last: Option<Kp<Mbuf>> = None;
    for m in iter(m) {
        if left == 0 {
            break;
        }
        let have = m.data_len();
        if skip >= have && have > 0 {
            skip -= have;
            continue;
        }
        let n = (have - skip).min(left);
        let got = if with_hdr && last.is_none() {
            zones::gethdr(how, m.type_())
        } else {
            zones::get(how, m.type_())
        };
        let Some(mut x) = got else {
            freem(first);
            return std::ptr::null_mut();
        };
        if with_hdr && last.is_none() {
            dup_pkthdr(x, m);
            x.pkt.len = if len == ALL { m.pkt.len } else { len as i32 };
        }
        x.len = n as i32;
        if m.has(sys::M_EXT) {
            zones::add_ref(x, m);
            x.data = m.data + skip;
        } else {
            mapped(x).copy_from_slice(&mapped(m)[skip..skip + n]);
        }
        if left != ALL {
            left -= n;
        }
        skip = 0;
        match &mut last {
            Some(l) => l.next = x.ptr(),
            None => first = x.ptr(),
        }
        last = Some(x);
    }
    if left != 0 && left != ALL {
        kpanic!("m_copym past the end of the chain");
    }
    first
}

/// `m_dup`: a copy that shares nothing.
pub fn dup(m: *mut Mbuf, how: i32) -> *mut Mbuf {
    let head: Kp<Mbuf> = Kp::new(m);
    let n = length(m).0;
    let Some(x) = zones::getm(None, n, how, head.type_(), head.flags() & sys::M_PKTHDR) else {
        return std::ptr::null_mut();
    };
    if head.has(sys::M_PKTHDR) {
        dup_pkthdr(x, head);
    }
    let mut buf = vec![0; n];
    copydata(m, 0, &mut buf);
    fill(x, &buf);
    x.ptr()
}

/// `m_split`: the chain is cut behind `len` bytes; returns the second part, NULL on failure.
pub fn split(m: *mut Mbuf, len: usize, how: i32) -> *mut Mbuf {
    let mut head: Kp<Mbuf> = Kp::new(m);
    let total = length(m).0;
    if len > total {
        return std::ptr::null_mut();
    }
    let tail = copym(m, len, total - len, how);
    if tail.is_null() && total > len {
        return tail;
    }
    let hdr_len = if head.has(sys::M_PKTHDR) {
        head.pkt.len
    } else {
        0
    };
    adj(m, -((total - len) as i64));
    // Mbufs emptied by the cut go.
    let mut keep = head;
    let mut seen = keep.data_len();
    while seen < len {
        keep = Kp::new(keep.next);
        seen += keep.data_len();
    }
    let rest = std::mem::replace(&mut keep.next, std::ptr::null_mut());
    freem(rest);
    if head.has(sys::M_PKTHDR) {
        head.pkt.len = hdr_len - (total - len) as i32;
    }
    tail
}

/// `m_demote`: clears packet headers (of all but the first unless `all`) and all flags but `flags`.
pub fn demote(m: *mut Mbuf, all: bool, flags: u32) {
    let skip = usize::from(!all);
    for mut m in iter(m).skip(skip) {
        if m.has(sys::M_PKTHDR) && m.pkt.tags != 0 {
            kpanic!("m_demote of an mbuf with packet tags");
        }
        let f = m.flags() & (sys::M_EXT | sys::M_RDONLY | sys::M_NOFREE | sys::M_EXTPG | flags);
        m.set_flags(f);
    }
}

/// `m_getptr`: the mbuf and the offset in it of byte `loc`.
pub(super) fn getptr(m: *mut Mbuf, loc: usize) -> Option<(*mut Mbuf, usize)> {
    let mut loc = loc;
    for m in iter(m) {
        if loc < m.data_len() || (loc == m.data_len() && m.next.is_null()) {
            return Some((m.ptr(), loc));
        }
        loc -= m.data_len();
    }
    None
}

/// `m_fixhdr`: sets the packet length from the chain.
pub(super) fn fixhdr(mut m: Kp<Mbuf>) -> u32 {
    let n = length(m.ptr()).0;
    m.pkt.len = n as i32;
    n as u32
}

/// `m_defrag`: the same bytes in as few clusters as will do; the old chain is freed.
pub(super) fn defrag(m: *mut Mbuf, how: i32) -> *mut Mbuf {
    let n = dup(m, how);
    if !n.is_null() {
        freem(m);
    }
    n
}

/// `m_collapse`: at most `max` mbufs.
pub(super) fn collapse(m: *mut Mbuf, how: i32, max: usize) -> *mut Mbuf {
    if iter(m).count() <= max {
        return m;
    }
    let n = dup(m, how);
    if n.is_null() || iter(n).count() > max {
        freem(n);
        return std::ptr::null_mut();
    }
    freem(m);
    n
}

pub(super) fn clear_pkthdr(mut m: Kp<Mbuf>) {
    m.pkt = PktHdr {
        rcvif: 0,
        leaf: 0,
        tags: 0,
        len: 0,
        flowid: 0,
        csum_flags: 0,
        rest: [0; 7],
    };
}

/// `m_sanity`: counts and pointers of each mbuf make sense.
pub(super) fn sane(m: *mut Mbuf) -> bool {
    iter(m).all(|m| {
        if m.has(sys::M_EXTPG) {
            return usize::from(epg(m).npgs) <= 5;
        }
        m.len >= 0 && m.data >= start(m) && m.data + m.data_len() <= start(m) + size(m)
    })
}
