//! mbufs as the socket layer sees them.

use crate::kp::{Kp, bytes, bytes_mut};
use crate::net::acc::{at, uget};
use crate::sys;

type Hdr = sys::mbuf__bindgen_ty_3__bindgen_ty_1__bindgen_ty_1;
type EpgInfo = sys::mbuf__bindgen_ty_3__bindgen_ty_1__bindgen_ty_1__bindgen_ty_1;

/// Where `m_dat`, `m_ext` lie.
const DAT: usize = std::mem::offset_of!(sys::mbuf, __bindgen_anon_3);
const EXT: usize = DAT + size_of::<Hdr>();

pub(crate) trait MbufExt: Copy {
    fn next(self) -> Option<Kp<sys::mbuf>>;
    fn set_next(self, n: Option<Kp<sys::mbuf>>);
    fn nextpkt(self) -> Kp<sys::mbuf>;
    fn fl(self) -> u32;
    fn kind(self) -> u32;
    fn ext(self) -> Kp<sys::m_ext>;
    fn epg(self) -> Kp<EpgInfo>;
    fn pkthdr(self) -> Kp<sys::pkthdr>;
    fn extpg(self) -> bool {
        self.fl() & sys::M_EXTPG != 0
    }
    fn not_ready(self) -> bool {
        self.fl() & sys::M_PROTO1 != 0
    }
    /// Bytes of memory a socket buffer charges for it.
    fn footprint(self) -> u32;
}

impl MbufExt for Kp<sys::mbuf> {
    fn next(self) -> Option<Kp<sys::mbuf>> {
        Kp::opt(uget!(self.__bindgen_anon_1.m_next))
    }
    fn set_next(mut self, n: Option<Kp<sys::mbuf>>) {
        self.__bindgen_anon_1.m_next = n.map_or(std::ptr::null_mut(), Kp::ptr);
    }
    fn nextpkt(self) -> Kp<sys::mbuf> {
        Kp::new(uget!(self.__bindgen_anon_2.m_nextpkt))
    }
    fn fl(self) -> u32 {
        self.m_flags()
    }
    fn kind(self) -> u32 {
        self.m_type()
    }
    fn ext(self) -> Kp<sys::m_ext> {
        Kp::new((self.addr() + EXT) as *mut sys::m_ext)
    }
    fn epg(self) -> Kp<EpgInfo> {
        Kp::new((self.addr() + DAT) as *mut EpgInfo)
    }
    fn pkthdr(self) -> Kp<sys::pkthdr> {
        Kp::new((self.addr() + DAT) as *mut sys::pkthdr)
    }
    fn footprint(self) -> u32 {
        let ext = if self.fl() & sys::M_EXT != 0 { self.ext().ext_size } else { 0 };
        sys::MSIZE + ext
    }
}

/// `M_WRITABLE`.
pub(crate) fn writable(m: Kp<sys::mbuf>) -> bool {
    if m.fl() & (sys::M_RDONLY | sys::M_EXTPG) != 0 {
        return false;
    }
    if m.fl() & sys::M_EXT == 0 {
        return true;
    }
    let e = m.ext();
    if e.ext_flags() & sys::EXT_FLAG_EMBREF != 0 {
        uget!(e.__bindgen_anon_1.ext_count) == 1
    } else {
        *Kp::new(uget!(e.__bindgen_anon_1.ext_cnt)) == 1
    }
}

/// `M_START` and `M_SIZE`: the storage of an mapped mbuf.
fn storage(m: Kp<sys::mbuf>) -> (usize, usize) {
    if m.fl() & sys::M_EXT != 0 {
        let e = m.ext();
        (uget!(e.__bindgen_anon_2.__bindgen_anon_1.ext_buf) as usize, e.ext_size as usize)
    } else if m.fl() & sys::M_PKTHDR != 0 {
        (m.addr() + EXT, sys::MSIZE as usize - EXT)
    } else {
        (m.addr() + DAT, sys::MSIZE as usize - DAT)
    }
}

/// `M_TRAILINGSPACE`.
pub(crate) fn trailing_space(m: Kp<sys::mbuf>) -> usize {
    if !writable(m) {
        return 0;
    }
    let (start, size) = storage(m);
    (start + size).saturating_sub(m.m_data as usize + m.m_len as usize)
}

/// The bytes of a mapped mbuf.
pub(crate) fn data<'a>(m: Kp<sys::mbuf>) -> &'a [u8] {
    assert!(!m.extpg(), "ukern: M_EXTPG mbuf read as a mapped one");
    bytes(m.m_data.cast(), m.m_len as usize)
}

/// Copies `from` behind the data; `m_len` is the caller's to move.
pub(crate) fn write_behind(m: Kp<sys::mbuf>, from: &[u8]) {
    assert!(from.len() <= trailing_space(m), "ukern: mbuf overrun");
    bytes_mut(m.m_data.wrapping_add(m.m_len as usize).cast(), from.len()).copy_from_slice(from);
}

/// The pieces of memory, in order, that hold bytes `[off, off + len)` of one mbuf: (address, len).
pub(crate) fn pieces(m: Kp<sys::mbuf>, off: usize, len: usize) -> Vec<(usize, usize)> {
    assert!(off + len <= m.m_len as usize, "ukern: past the end of an mbuf");
    if !m.extpg() {
        return vec![(m.m_data as usize + off, len)];
    }
    // m_data is the offset into the unmapped payload: header, pages, trailer.
    let e = m.epg();
    let mut at = m.m_data as usize + off;
    let mut left = len;
    let mut out = Vec::new();
    let ext = m.ext();
    let pg = uget!(ext.__bindgen_anon_2.__bindgen_anon_2);
    let mut take = |start: usize, size: usize| {
        if at >= size {
            at -= size;
        } else if left > 0 {
            let n = (size - at).min(left);
            out.push((start + at, n));
            at = 0;
            left -= n;
        }
    };
    let ext_addr = m.ext().addr() + std::mem::offset_of!(sys::m_ext, __bindgen_anon_2);
    let hdr_off = std::mem::offset_of!(sys::m_ext__bindgen_ty_2__bindgen_ty_2, extpg_hdr);
    let trail_off = std::mem::offset_of!(sys::m_ext__bindgen_ty_2__bindgen_ty_2, extpg_trail);
    take(ext_addr + hdr_off, usize::from(e.m_epg_hdrlen));
    let n = usize::from(e.m_epg_npgs);
    for i in 0..n {
        let first = if i == 0 { usize::from(e.m_epg_1st_off) } else { 0 };
        let size = if i + 1 == n { usize::from(e.m_epg_last_len) } else { super::super::vm::PAGE - first };
        let pa = pg.extpg_pa.get(i).copied().unwrap_or(0) as usize;
        take(pa + first, size);
    }
    take(ext_addr + trail_off, usize::from(e.m_epg_trllen));
    assert!(left == 0, "ukern: M_EXTPG mbuf shorter than its m_len");
    out
}

/// Total bytes of a chain (`m_length`).
pub(crate) fn chain_len(m: Kp<sys::mbuf>) -> usize {
    let mut n = 0;
    let mut at = Some(m);
    while let Some(m) = at {
        n += m.m_len as usize;
        at = m.next();
    }
    n
}

/// Offset of a field, for C-visible assertions.
pub(crate) fn dat_addr(m: Kp<sys::mbuf>) -> usize {
    at!(m, __bindgen_anon_3) as usize
}
