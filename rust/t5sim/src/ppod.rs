//! Page-pod memory, and finding where in host memory a byte of a DDP buffer goes.
//!
//! A buffer's tag names its first pod. The pods of a buffer follow each other; each holds four
//! page addresses and, as a fifth, the first address of the next pod, which is used when one
//! placement runs from a pod's last page into the next.

use alloc::vec::Vec;

/// Bytes of a page pod.
pub(crate) const POD: usize = 64;
/// Pages per pod, the repeated fifth address not counted.
const PAGES: u64 = 4;

/// Why a placement is refused: the error bits of `ddpvld`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PodError {
    /// The tag points outside DDP memory.
    InvalidTag,
    /// The pod is not valid.
    InvalidPod,
    /// The pod belongs to another connection.
    Tid,
    /// The pod's tag or page size is not the buffer's.
    Mismatch,
    /// The pod's color is not the buffer's.
    Color,
    /// The placement passes the length in the pod.
    Limit,
}

/// A stretch of host memory a placement writes: bus address and length.
pub(crate) type Stretch = (u64, usize);

#[derive(Debug)]
pub(crate) struct PodMemory {
    mem: Vec<u8>,
    start: u32,
    shifts: [u8; 4],
}

/// One placement: `len` bytes at `offset` of the buffer `tag` of connection `tid`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) tid: u32,
    pub(crate) tag: u32,
    pub(crate) offset: u32,
    pub(crate) len: usize,
}

impl PodMemory {
    pub(crate) fn new(pods: u32, start: u32, shifts: [u8; 4]) -> Self {
        let bytes = usize::try_from(pods).unwrap_or(0) * POD;
        Self {
            mem: alloc::vec![0; bytes],
            start,
            shifts,
        }
    }

    /// Writes `data` at adapter address `addr` (bytes). Returns the number of whole pods touched,
    /// or `None`, with nothing written, if any byte lies outside DDP memory.
    pub(crate) fn write(&mut self, addr: u64, data: &[u8]) -> Option<u64> {
        let off = usize::try_from(addr.checked_sub(u64::from(self.start))?).ok()?;
        let dst = self.mem.get_mut(off..off.checked_add(data.len())?)?;
        dst.copy_from_slice(data);
        u64::try_from(data.len() / POD).ok()
    }

    /// The pod at `index`, parsed and checked to be the `place`'s.
    fn pod(&self, index: u64, place: &Place) -> Result<wire::PagePod, PodError> {
        let index = usize::try_from(index).map_err(|_| PodError::InvalidTag)?;
        let from = index.checked_mul(POD).ok_or(PodError::InvalidTag)?;
        let bytes = self.mem.get(from..from + POD).ok_or(PodError::InvalidTag)?;
        let pod = wire::PagePod::parse(bytes).map_err(|_| PodError::InvalidPod)?;
        if !pod.valid {
            return Err(PodError::InvalidPod);
        }
        if pod.tid != place.tid {
            return Err(PodError::Tid);
        }
        if pod.tag & !COLOR != place.tag & !COLOR {
            return Err(PodError::Mismatch);
        }
        if pod.tag & COLOR != place.tag & COLOR {
            return Err(PodError::Color);
        }
        Ok(pod)
    }

    /// Looks `place` up and appends where its bytes go to `out`.
    pub(crate) fn resolve(&self, place: &Place, out: &mut Vec<Stretch>) -> Result<(), PodError> {
        let first = u64::from((place.tag & OFFSET) >> 6);
        let pgsz = usize::try_from(place.tag >> 30).map_err(|_| PodError::InvalidTag)?;
        let shift = *self.shifts.get(pgsz).ok_or(PodError::InvalidTag)?;
        let page = 1_u64 << shift;
        let mut pod = self.pod(first, place)?;
        let len = u64::try_from(place.len).map_err(|_| PodError::Limit)?;
        let end = u64::from(place.offset).saturating_add(len);
        if end > u64::from(pod.len) {
            return Err(PodError::Limit);
        }
        let mut at = u64::from(pod.offset) + u64::from(place.offset);
        let mut left = len;
        let mut pod_no = 0;
        let mut slot = 0;
        let mut fresh = true;
        while left > 0 {
            let page_no = at >> shift;
            if fresh {
                pod_no = page_no / PAGES;
                slot = page_no % PAGES;
                if pod_no > 0 {
                    pod = self.pod(first + pod_no, place)?;
                }
                fresh = false;
            }
            // Past the fifth address of a pod the next pod is fetched; its entry 0 is the page
            // the fifth address already named.
            if slot > PAGES {
                pod_no += 1;
                slot = 1;
                pod = self.pod(first + pod_no, place)?;
            }
            let base = usize::try_from(slot)
                .ok()
                .and_then(|s| pod.addrs.get(s))
                .copied()
                .ok_or(PodError::InvalidPod)?;
            let in_page = at & (page - 1);
            let n = left.min(page - in_page);
            let Ok(take) = usize::try_from(n) else {
                return Err(PodError::Limit);
            };
            let addr = base.wrapping_add(in_page);
            match out.last_mut() {
                // Neighbouring pages go out in one DMA.
                Some((a, l)) if a.checked_add(*l as u64) == Some(addr) => *l += take,
                _ => out.push((addr, take)),
            }
            at += n;
            left -= n;
            slot += 1;
        }
        Ok(())
    }
}

/// Color bits of a tag.
const COLOR: u32 = 0x3f;
/// Byte offset of the first pod in DDP memory, within a tag.
const OFFSET: u32 = 0x3fff_ffc0;
