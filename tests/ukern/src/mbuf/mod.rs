//! mbuf(9): allocation, reference counts, chains.
//!
//! [`Mbuf`] mirrors `struct mbuf` with its unions flattened; the offsets are checked against the
//! headers below. Mbufs and clusters live in the arena, so the adapter can read and write them.

mod chain;
mod pages;
mod tables;
mod zones;

use crate::kp::{Kp, bytes, bytes_mut};
use crate::{kpanic, sys};

pub use chain::{
    adj, append, cat, copydata, copym, demote, dup, freem, length, prepend, pullup, split,
};
pub use pages::{alloc_ext_pgs, segments};
pub use zones::{
    add_ref, ext_add, free, free_ext, get, getcl, gethdr, getm, live, unmapped_compress,
};

pub(crate) use tables::{data, symbols};
pub(crate) use zones::{boot, shutdown};

/// Free routine of external storage.
pub type ExtFree = extern "C" fn(Kp<Mbuf>);

/// The part of `struct mbuf` both kinds of header overlay.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PktHdr {
    /// `rcvif` or `snd_tag`; for M_EXTPG page counts and offsets.
    pub rcvif: u64,
    /// `leaf_rcvif`.
    pub leaf: u64,
    /// First packet tag.
    pub tags: u64,
    /// Bytes of the packet.
    pub len: i32,
    /// Flow id.
    pub flowid: u32,
    /// Checksum and offload flags.
    pub csum_flags: u32,
    rest: [u32; 7],
}

/// The unmapped-pages view of the same bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Epg {
    /// Number of pages.
    pub npgs: u8,
    /// Pages not ready yet.
    pub nrdy: u8,
    /// Bytes of header in the mbuf.
    pub hdrlen: u8,
    /// Bytes of trailer in the mbuf.
    pub trllen: u8,
    /// Offset of the data in the first page.
    pub first_off: u16,
    /// Bytes in the last page.
    pub last_len: u16,
    /// EPG_FLAG_.
    pub flags: u8,
    rest: [u8; 55],
}

/// `struct m_ext`.
#[repr(C)]
pub struct Ext {
    /// `ext_count` (EXT_FLAG_EMBREF) or `ext_cnt`.
    pub cnt: usize,
    /// Bytes of storage.
    pub size: u32,
    /// Type in the low 8 bits, flags above.
    pub type_flags: u32,
    /// `ext_buf`, `ext_arg2`; or five physical page addresses, trailer and header.
    pub buf: usize,
    /// `ext_arg2`.
    pub arg2: usize,
    more: [u8; 112],
    /// Free routine.
    pub free: Option<ExtFree>,
    /// Its first argument.
    pub arg1: usize,
}

/// `struct mbuf`.
#[repr(C)]
pub struct Mbuf {
    /// Next of the chain.
    pub next: *mut Mbuf,
    /// Next packet.
    pub nextpkt: *mut Mbuf,
    /// The data.
    pub data: usize,
    /// Bytes of data.
    pub len: i32,
    type_flags: u32,
    /// Packet header (M_PKTHDR).
    pub pkt: PktHdr,
    /// External storage (M_EXT).
    pub ext: Ext,
}

const HDR: usize = std::mem::offset_of!(Mbuf, pkt);
const PKTDAT: usize = std::mem::offset_of!(Mbuf, ext);

const _: () = {
    assert!(
        size_of::<Mbuf>() == sys::MSIZE as usize && size_of::<Mbuf>() == size_of::<sys::mbuf>()
    );
    assert!(
        size_of::<PktHdr>() == size_of::<sys::pkthdr>() && size_of::<Epg>() == size_of::<PktHdr>()
    );
    assert!(size_of::<Ext>() == size_of::<sys::m_ext>());
    assert!(std::mem::offset_of!(Mbuf, data) == std::mem::offset_of!(sys::mbuf, m_data));
    assert!(std::mem::offset_of!(Mbuf, len) == std::mem::offset_of!(sys::mbuf, m_len));
    assert!(std::mem::offset_of!(Ext, free) == std::mem::offset_of!(sys::m_ext, ext_free));
    assert!(std::mem::offset_of!(Ext, arg1) == std::mem::offset_of!(sys::m_ext, ext_arg1));
    assert!(std::mem::offset_of!(Ext, size) == std::mem::offset_of!(sys::m_ext, ext_size));
    assert!(std::mem::offset_of!(PktHdr, len) == std::mem::offset_of!(sys::pkthdr, len));
    assert!(
        std::mem::offset_of!(PktHdr, csum_flags) == std::mem::offset_of!(sys::pkthdr, csum_flags)
    );
};

/// Bytes an mbuf holds itself: without and with a packet header.
pub const MLEN: usize = sys::MSIZE as usize - HDR;
/// As [`MLEN`], with a packet header.
pub const MHLEN: usize = sys::MSIZE as usize - PKTDAT;

impl Mbuf {
    /// `m_flags`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.type_flags >> 8
    }
    /// Sets `m_flags`.
    pub fn set_flags(&mut self, f: u32) {
        self.type_flags = (self.type_flags & 0xff) | (f << 8);
    }
    /// `m_type`.
    #[must_use]
    pub fn type_(&self) -> u32 {
        self.type_flags & 0xff
    }
    /// Sets `m_type`.
    pub fn set_type(&mut self, t: u32) {
        self.type_flags = (self.type_flags & !0xff) | (t & 0xff);
    }
    /// Is this flag set?
    #[must_use]
    pub fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }
    /// `ext_type`.
    #[must_use]
    pub fn ext_type(&self) -> u32 {
        self.ext.type_flags & 0xff
    }
    /// `ext_flags`.
    #[must_use]
    pub fn ext_flags(&self) -> u32 {
        self.ext.type_flags >> 8
    }
    fn set_ext(&mut self, type_: u32, flags: u32) {
        self.ext.type_flags = (type_ & 0xff) | (flags << 8);
    }
    /// Bytes of data.
    #[must_use]
    pub fn data_len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(0)
    }
}

/// The same mbuf in the mirror's type.
#[must_use]
pub fn of(m: Kp<sys::mbuf>) -> Kp<Mbuf> {
    Kp::new(m.ptr().cast())
}

/// The page view of an M_EXTPG mbuf.
#[must_use]
pub fn epg(m: Kp<Mbuf>) -> Kp<Epg> {
    Kp::new((m.addr() + HDR) as *mut Epg)
}

/// `M_START`.
fn start(m: Kp<Mbuf>) -> usize {
    if m.has(sys::M_EXT) {
        m.ext.buf
    } else if m.has(sys::M_PKTHDR) {
        m.addr() + PKTDAT
    } else {
        m.addr() + HDR
    }
}

/// `M_SIZE`.
fn size(m: Kp<Mbuf>) -> usize {
    if m.has(sys::M_EXT) {
        m.ext.size as usize
    } else if m.has(sys::M_PKTHDR) {
        MHLEN
    } else {
        MLEN
    }
}

/// `M_WRITABLE`.
fn writable(m: Kp<Mbuf>) -> bool {
    !m.has(sys::M_RDONLY | sys::M_EXTPG) && (!m.has(sys::M_EXT) || *zones::refcount(m) == 1)
}

fn trailing(m: Kp<Mbuf>) -> usize {
    if writable(m) {
        start(m) + size(m) - m.data - m.data_len()
    } else {
        0
    }
}

fn mapped<'a>(m: Kp<Mbuf>) -> &'a mut [u8] {
    if m.has(sys::M_EXTPG) {
        kpanic!(
            "the data of unmapped mbuf {:p} used as if it were mapped",
            m.ptr()
        );
    }
    bytes_mut(m.data as *mut u8, m.data_len())
}

fn mapped_ro<'a>(m: Kp<Mbuf>) -> &'a [u8] {
    bytes(m.data as *const u8, mapped(m).len())
}
