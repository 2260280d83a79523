//! Mbufs of unmapped pages (M_EXTPG).

use super::{Epg, ExtFree, Mbuf, epg};
use crate::kp::{Kp, peek};
use crate::lowmem::PAGE;
use crate::sys;

/// `mb_alloc_ext_pgs`: an mbuf with no pages yet.
#[must_use]
pub fn alloc_ext_pgs(how: i32, free: Option<ExtFree>, flags: u32) -> Option<Kp<Mbuf>> {
    let mut m = super::get(how, sys::MT_DATA)?;
    *epg(m) = Epg {
        npgs: 0,
        nrdy: 0,
        hdrlen: 0,
        trllen: 0,
        first_off: 0,
        last_len: 0,
        flags: 0,
        rest: [0; 55],
    };
    m.ext.more = [0; 112];
    m.ext.buf = 0;
    m.ext.arg2 = 0;
    m.ext.arg1 = 0;
    m.ext.size = 0;
    m.ext.cnt = 1;
    m.ext.free = free;
    m.set_ext(0, sys::EXT_FLAG_EMBREF);
    m.data = 0;
    m.set_flags(sys::M_EXT | sys::M_EXTPG | sys::M_RDONLY | flags);
    Some(m)
}

/// The pieces of memory that hold bytes `[off, off + len)` of an mbuf's data, mapped or not:
/// (address, length). Short when the mbuf is.
#[must_use]
pub fn segments(m: Kp<Mbuf>, off: usize, len: usize) -> Vec<(usize, usize)> {
    let len = len.min(m.data_len().saturating_sub(off));
    if !m.has(sys::M_EXTPG) {
        return if len == 0 {
            Vec::new()
        } else {
            vec![(m.data + off, len)]
        };
    }
    let e = epg(m);
    let pa0 = m.addr() + std::mem::offset_of!(Mbuf, ext.buf);
    // After five page addresses come the trailer (64 bytes) and the header (23).
    let trail = pa0 + 5 * 8;
    let hdr = trail + sys::MBUF_PEXT_TRAIL_LEN as usize;
    let npgs = usize::from(e.npgs);
    let mut parts = vec![(hdr, usize::from(e.hdrlen))];
    for i in 0..npgs {
        let first = if i == 0 { usize::from(e.first_off) } else { 0 };
        let n = if i + 1 == npgs {
            usize::from(e.last_len)
        } else {
            PAGE - first
        };
        parts.push((peek::<u64>(pa0 + 8 * i) as usize + first, n));
    }
    parts.push((trail, usize::from(e.trllen)));
    // m_data is an offset here.
    let mut skip = m.data + off;
    let mut left = len;
    let mut out = Vec::new();
    for (at, n) in parts {
        let s = skip.min(n);
        skip -= s;
        let take = (n - s).min(left);
        if take > 0 {
            out.push((at + s, take));
            left -= take;
        }
    }
    out
}
