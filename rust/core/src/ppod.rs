//! Page pods: where they live in the adapter's memory, and what a buffer's pods say.
//!
//! A page pod (`struct pagepod`, 64 bytes) tells the adapter four pages of a buffer and the
//! first of the next pod. The region of pods is described by [`Geometry`]; runs of pods are
//! handed out by [`Region`] as [`Ppods`].

use static_assertions::{const_assert, const_assert_eq};

use crate::os::Pages;

mod region;

pub use region::{Node, Region};

/// FreeBSD's page on amd64; held pages are counted in these.
pub const PAGE: u64 = 4096;

/// Bytes of one page pod.
pub const PPOD_SIZE: u32 = 64;

/// Pages described by one pod.
pub const PPOD_PAGES: u32 = 4;

/// Pods written by one work request: 256 bytes of immediate data.
pub const PPODS_PER_WR: u32 = 4;

const_assert_eq!(PPOD_SIZE as usize, wire::PagePod::LEN);
const_assert_eq!(PPOD_PAGES as usize, wire::PPOD_PAGES);
const_assert!((PPODS_PER_WR * PPOD_SIZE) as usize <= wire::MAX_WR_LEN);

/// Bits of a DDP tag that hold the pod's index (V_PPOD_TAG: 24 bits from bit 6 on).
const TAG_BITS: u32 = 24;

/// Layout of the adapter's page-pod memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    start: u32,
    ppods: u32,
    page_shifts: [u8; 4],
}

impl Geometry {
    /// `start` and `size` are bytes of adapter memory (`vres.ddp`); `page_shifts` come from
    /// ULP_RX_TDDP_PSZ. `None` if they make no sense: sizes that do not ascend (the choice of a
    /// size needs that), the smallest not a multiple of a host page, a region not aligned to 64
    /// bytes, empty, or one that leaves no tag to be invalid.
    #[must_use]
    pub fn new(start: u32, size: u32, page_shifts: [u8; 4]) -> Option<Geometry> {
        let ascending = page_shifts.windows(2).all(|w| w.first() < w.last());
        let first = page_shifts.first().is_some_and(|s| *s >= 12);
        let last = page_shifts.last().is_some_and(|s| *s <= 27);
        let ppods = size / PPOD_SIZE;
        // The tag mask has one bit above the region's size, and an alias bit above that.
        let fits = ppods > 0 && u32::BITS - ppods.leading_zeros() < TAG_BITS;
        let aligned = start.is_multiple_of(PPOD_SIZE) && start.checked_add(size).is_some();
        (ascending && first && last && fits && aligned).then_some(Geometry {
            start,
            ppods,
            page_shifts,
        })
    }

    /// Page pods in the region.
    #[must_use]
    pub fn ppods(&self) -> u32 {
        self.ppods
    }

    /// The four page sizes, as powers of two.
    #[must_use]
    pub fn page_shifts(&self) -> [u8; 4] {
        self.page_shifts
    }

    /// Value for ULP_RX_TDDP_TAGMASK: which bits of a tag select the pod. One bit more than the
    /// region needs, so that a tag of zeros and that bit is never valid.
    #[must_use]
    pub fn tag_mask(&self) -> u32 {
        let size = self.ppods.saturating_mul(PPOD_SIZE);
        let bits = u32::BITS - size.leading_zeros();
        (u32::MAX >> (u32::BITS - bits)) & !(PPOD_SIZE - 1)
    }

    /// Adapter memory address of pod number `i` of a reservation; bytes, 64-byte aligned.
    #[must_use]
    pub fn addr(&self, p: &Ppods, i: u32) -> u32 {
        self.start
            .wrapping_add(p.first.wrapping_add(i).wrapping_mul(PPOD_SIZE))
    }
}

/// A run of page pods, owned: not copied, given back once by [`Region::free`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "page pods not given back are lost"]
pub struct Ppods {
    first: u32,
    n: u32,
}

impl Ppods {
    /// Number of the first pod in the region.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.n
    }
}

/// Number of pods for `pages` host pages in adapter pages of `1 << shift` bytes.
#[must_use]
pub fn ppods_for(pages: u32, shift: u8) -> u32 {
    let per = per_page(shift);
    pages.div_ceil(per).div_ceil(PPOD_PAGES)
}

/// Host pages in one adapter page.
fn per_page(shift: u8) -> u32 {
    1u32 << u32::from(shift.saturating_sub(12)).min(31)
}

/// The largest of the adapter's page sizes that describes the pages: every adapter page but the
/// last must be physically contiguous throughout, and so must what there is of the last (the
/// buffer's length keeps the adapter off the rest). Index 0 (host pages) always does.
#[must_use]
pub fn choose_size<P: Pages>(pages: &P, shifts: [u8; 4]) -> u8 {
    let n = u32::try_from(pages.count()).unwrap_or(u32::MAX);
    // Largest power of two (in pages) that divides the position of every break in contiguity.
    let mut brk: u32 = 0;
    let mut prev = pages.phys(0);
    for i in 1..pages.count() {
        let here = pages.phys(i);
        if prev.wrapping_add(PAGE) != here {
            brk |= u32::try_from(i).unwrap_or(1);
            if brk & 1 != 0 {
                break;
            }
        }
        prev = here;
    }
    let mut best = 0u8;
    for (idx, shift) in (0u8..).zip(shifts) {
        let per = per_page(shift);
        let divides = brk.is_multiple_of(per);
        // A size that one smaller serves with as few pods gains nothing.
        let gains = shifts
            .get(usize::from(best))
            .is_some_and(|b| ppods_for(n, shift) < ppods_for(n, *b));
        if divides && gains {
            best = idx;
        }
    }
    best
}

/// The five page addresses of pod `i` of a buffer; 0 beyond its end.
#[must_use]
pub fn pod_addrs<P: Pages>(pages: &P, shift: u8, i: u32) -> [u64; 5] {
    let per = per_page(shift);
    let mut page = u64::from(i) * u64::from(PPOD_PAGES) * u64::from(per);
    core::array::from_fn(|_| {
        let at = usize::try_from(page).unwrap_or(usize::MAX);
        page += u64::from(per);
        if at < pages.count() {
            pages.phys(at)
        } else {
            0
        }
    })
}

#[cfg(test)]
mod tests;
