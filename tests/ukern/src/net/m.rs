//! mbufs as the socket layer sees them, over [`crate::mbuf`].

use crate::kp::{Kp, bytes_mut};
use crate::mbuf::{self, Mbuf};
use crate::{kpanic, sys, vm};

const NOWAIT: i32 = sys::M_NOWAIT as i32;
const WAITOK: i32 = sys::M_WAITOK as i32;

pub(crate) trait MbufExt: Copy {
    fn b(self) -> Kp<Mbuf>;
    fn next(self) -> Option<Kp<sys::mbuf>>;
    fn set_next(self, n: Option<Kp<sys::mbuf>>);
    fn extpg(self) -> bool;
    /// M_NOTREADY, a protocol flag of socket buffers.
    fn not_ready(self) -> bool;
    /// Bytes of memory a socket buffer charges for it.
    fn footprint(self) -> u32;
}

impl MbufExt for Kp<sys::mbuf> {
    fn b(self) -> Kp<Mbuf> {
        mbuf::of(self)
    }
    fn next(self) -> Option<Kp<sys::mbuf>> {
        Kp::opt(self.b().next.cast())
    }
    fn set_next(self, n: Option<Kp<sys::mbuf>>) {
        self.b().next = n.map_or(std::ptr::null_mut(), |n| n.ptr().cast());
    }
    fn extpg(self) -> bool {
        self.b().has(sys::M_EXTPG)
    }
    fn not_ready(self) -> bool {
        self.b().has(sys::M_PROTO1)
    }
    fn footprint(self) -> u32 {
        let m = self.b();
        sys::MSIZE + if m.has(sys::M_EXT) { m.ext.size } else { 0 }
    }
}

fn sys_mbuf(m: Kp<Mbuf>) -> Kp<sys::mbuf> {
    Kp::new(m.ptr().cast())
}

/// `m_free`.
pub(crate) fn free(m: Kp<sys::mbuf>) {
    mbuf::free(m.b());
}

/// `m_freem`.
pub(crate) fn freem(m: Kp<sys::mbuf>) {
    mbuf::freem(m.b().ptr());
}

/// `M_WRITABLE`.
pub(crate) fn writable(m: Kp<sys::mbuf>) -> bool {
    let b = m.b();
    if b.has(sys::M_RDONLY | sys::M_EXTPG) {
        return false;
    }
    if !b.has(sys::M_EXT) {
        return true;
    }
    let count = if b.ext_flags() & sys::EXT_FLAG_EMBREF != 0 {
        b.ext.cnt as u32
    } else {
        crate::kp::peek(b.ext.cnt)
    };
    count == 1
}

/// Where the storage of a mapped mbuf ends.
fn storage_end(b: Kp<Mbuf>) -> usize {
    if b.has(sys::M_EXT) {
        b.ext.buf + b.ext.size as usize
    } else {
        b.addr() + sys::MSIZE as usize
    }
}

/// `M_TRAILINGSPACE`.
pub(crate) fn trailing_space(m: Kp<sys::mbuf>) -> usize {
    if !writable(m) {
        return 0;
    }
    storage_end(m.b()).saturating_sub(m.b().data + m.b().data_len())
}

/// A copy of the bytes of one mbuf, mapped or not.
pub(crate) fn bytes_of(m: Kp<sys::mbuf>) -> Vec<u8> {
    let mut out = vec![0; m.b().data_len()];
    mbuf::copydata(m.b().ptr(), 0, &mut out);
    out
}

/// Copies `from` behind the data; `m_len` is the caller's to move.
pub(crate) fn write_behind(m: Kp<sys::mbuf>, from: &[u8]) {
    if from.len() > trailing_space(m) {
        kpanic!(
            "mbuf overrun: {} bytes into {}",
            from.len(),
            trailing_space(m)
        );
    }
    bytes_mut((m.b().data + m.b().data_len()) as *mut u8, from.len()).copy_from_slice(from);
}

/// The pieces of memory that hold bytes `[off, off + len)` of one mbuf: (address, length).
pub(crate) fn pieces(m: Kp<sys::mbuf>, off: usize, len: usize) -> Vec<(usize, usize)> {
    mbuf::segments(m.b(), off, len)
}

/// Total bytes of a chain.
pub(crate) fn chain_len(m: Kp<sys::mbuf>) -> usize {
    mbuf::length(m.b().ptr()).0
}

/// Fills a chain with room enough, mbuf by mbuf.
fn fill(head: Kp<Mbuf>, len: usize, mut f: impl FnMut(usize, usize) -> i32) -> i32 {
    let mut left = len;
    let mut at = Some(sys_mbuf(head));
    while let Some(m) = at {
        let n = left.min(trailing_space(m));
        if n > 0 {
            let e = f(m.b().data, n);
            if e != 0 {
                return e;
            }
        }
        m.b().len = n as i32;
        left -= n;
        at = m.next();
    }
    0
}

/// `m_uiotombuf`: up to `max` bytes of `uio` as a chain; may sleep. `None`: a fault.
pub(crate) fn from_uio(uio: Kp<sys::uio>, max: usize) -> Option<Kp<sys::mbuf>> {
    let len = max.min(uio.uio_resid.max(0) as usize);
    let head = mbuf::getm(None, len, WAITOK, sys::MT_DATA, 0)?;
    let e = fill(head, len, |addr, n| vm::uiomove(addr as *mut u8, n, uio));
    if e != 0 {
        mbuf::freem(head.ptr());
        return None;
    }
    Some(sys_mbuf(head))
}

/// A chain with these bytes. It always succeeds: the far end of a wire has no say in our memory.
pub(crate) fn from_bytes(data: &[u8]) -> Kp<sys::mbuf> {
    let head = loop {
        if let Some(h) = mbuf::getm(None, data.len(), NOWAIT, sys::MT_DATA, 0) {
            break h;
        }
    };
    let mut done = 0;
    fill(head, data.len(), |addr, n| {
        bytes_mut(addr as *mut u8, n).copy_from_slice(&data[done..done + n]);
        done += n;
        0
    });
    sys_mbuf(head)
}

/// One mbuf with a packet header and these bytes (at most MHLEN); `None`: no mbufs.
pub(crate) fn packet(data: &[u8]) -> Option<Kp<sys::mbuf>> {
    let mut h = mbuf::gethdr(NOWAIT, sys::MT_DATA)?;
    let m = sys_mbuf(h);
    write_behind(m, data);
    h.len = data.len() as i32;
    h.pkt.len = data.len() as i32;
    Some(m)
}
