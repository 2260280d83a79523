//! Page pods: how the adapter knows the pages of a buffer.
//!
//! A pod holds the addresses of four pages and, so that a placement that crosses into the next
//! pod needs only one read, the first address of that next pod. A DDP tag names the first pod
//! of a buffer by its byte offset in the adapter's page-pod region.

use static_assertions::const_assert_eq;

use crate::bytes::{TID_BITS, fit32, get_u64, need};
use crate::error::WireError;

/// Pages whose addresses belong to one pod; the fifth address is the next pod's first.
pub const PPOD_PAGES: usize = 4;
/// Addresses in a pod.
pub const PPOD_ADDRS: usize = PPOD_PAGES + 1;

/// A DDP tag: which of the four page sizes, and where the first pod is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PpodTag(pub u32);

impl PpodTag {
    const PGSZ_SHIFT: u32 = 30;
    /// Bits of the tag that hold an offset (multiple of 64 bytes).
    pub const OFFSET_MASK: u32 = 0x3fff_ffc0;

    /// Tag of the pods at byte `offset` (a multiple of 64) of the region, page size `pgsz`
    /// (index 0 to 3). Bits outside their fields are cut.
    #[must_use]
    pub const fn new(pgsz: u8, offset: u32) -> PpodTag {
        PpodTag(((pgsz as u32 & 3) << Self::PGSZ_SHIFT) | (offset & Self::OFFSET_MASK))
    }

    /// Index of the page size.
    #[must_use]
    pub const fn pgsz(self) -> u8 {
        (self.0 >> Self::PGSZ_SHIFT) as u8
    }

    /// Byte offset of the first pod in the region, under the adapter's tag mask.
    #[must_use]
    pub const fn offset(self, mask: u32) -> u32 {
        self.0 & mask & Self::OFFSET_MASK
    }
}

/// Tag mask of a region of `size` bytes (ULP_RX_TDDP_TAGMASK): as many bits as `size` itself
/// has. If `size` is a power of 2 that is one bit more than offsets need; a tag with that bit
/// set names no pod.
#[must_use]
pub const fn tag_mask(size: u32) -> u32 {
    if size == 0 {
        return 0;
    }
    let ones = u32::MAX >> size.leading_zeros();
    ones & PpodTag::OFFSET_MASK
}

/// One page pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PagePod {
    /// The adapter may use it.
    pub valid: bool,
    /// Connection it belongs to, 24 bits.
    pub tid: u32,
    /// Page size, tag and color: the low 32 bits of the first word.
    pub tag: u32,
    /// Bytes of the buffer.
    pub len: u32,
    /// Offset of the buffer's first byte in its first page.
    pub offset: u32,
    /// Physical addresses; 0 where there is no page.
    pub addrs: [u64; PPOD_ADDRS],
}

impl PagePod {
    /// Bytes of a pod.
    pub const LEN: usize = 64;

    /// Write the pod. Every byte of `LEN` is written.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if `b` is shorter than a pod, `Field` for a tid of more than 24
    /// bits.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let have = b.len();
        match b.first_chunk_mut() {
            Some(out) => self.put(out),
            None => Err(WireError::Truncated {
                need: Self::LEN,
                have,
            }),
        }
    }

    pub(crate) fn put(&self, out: &mut [u8; Self::LEN]) -> Result<(), WireError> {
        let tid = fit32("tid", self.tid, TID_BITS)?;
        let first = (u64::from(self.valid) << 56) | (u64::from(tid) << 32) | u64::from(self.tag);
        let second = (u64::from(self.len) << 32) | u64::from(self.offset);
        let [a0, a1, a2, a3, next] = self.addrs;
        let words = [first, second, 0, a0, a1, a2, a3, next];
        for (dst, w) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *dst = w.to_be_bytes();
        }
        Ok(())
    }

    /// Read a pod.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if `b` is shorter than a pod.
    pub fn parse(b: &[u8]) -> Result<PagePod, WireError> {
        need(b, Self::LEN)?;
        let first = get_u64(b, 0)?;
        let second = get_u64(b, 8)?;
        let mut addrs = [0; PPOD_ADDRS];
        for (i, a) in addrs.iter_mut().enumerate() {
            *a = get_u64(b, 24 + 8 * i)?;
        }
        Ok(PagePod {
            valid: first >> 56 & 1 != 0,
            tid: (first >> 32) as u32 & 0x00ff_ffff,
            tag: first as u32,
            len: (second >> 32) as u32,
            offset: second as u32,
            addrs,
        })
    }
}

const_assert_eq!(PagePod::LEN, 24 + size_of::<[u64; PPOD_ADDRS]>());
