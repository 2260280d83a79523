//! Scatter/gather list of one transmit work request.

/// Segments that fit a whole 512-byte work request: 16 bytes of header, 16 of the list's head
/// with its first segment, and twenty 24-byte pairs.
pub const MAX_SEGS: usize = 41;
static_assertions::const_assert_eq!(MAX_SEGS, wire::MAX_SGL_SEGS);

/// Physical segments of the payload of one work request, in order. Adjacent runs are merged.
///
/// 668 bytes: lives on the stack of one transmit pass.
#[derive(Clone, Debug)]
pub struct Sgl {
    segs: [(u64, u32); MAX_SEGS],
    used: usize,
    cap: usize,
    len: u32,
}

impl Sgl {
    /// An empty list that takes at most `cap` segments (and never more than [`MAX_SEGS`]).
    #[must_use]
    pub fn new(cap: usize) -> Sgl {
        Sgl {
            segs: [(0, 0); MAX_SEGS],
            used: 0,
            cap: if cap < MAX_SEGS { cap } else { MAX_SEGS },
            len: 0,
        }
    }

    /// Append `len` bytes at physical address `addr`. Returns the bytes taken: all of them, or
    /// 0 if the list is full. A run that continues the last segment takes no new one.
    pub fn push(&mut self, addr: u64, len: u32) -> u32 {
        let Some(total) = self.len.checked_add(len) else {
            return 0;
        };
        if len == 0 {
            return 0;
        }
        if let Some((a, l)) = self.used.checked_sub(1).and_then(|i| self.segs.get_mut(i))
            && a.checked_add(u64::from(*l)) == Some(addr)
        {
            // The sum of all lengths fits u32, so one segment's does.
            *l += len;
            self.len = total;
            return len;
        }
        let room = self.segs.get_mut(..self.cap).unwrap_or_default();
        let Some(seg) = room.get_mut(self.used) else {
            return 0;
        };
        *seg = (addr, len);
        self.used += 1;
        self.len = total;
        len
    }

    /// Leave out the last bytes, back to a multiple of `unit` (a power of two) in memory or to where
    /// the last segment begins: at least one byte, at most `unit`.
    pub fn leave_tail(&mut self, unit: u32) {
        let Some(last) = self.used.checked_sub(1) else {
            return;
        };
        let Some((addr, len)) = self.segs.get_mut(last) else {
            return;
        };
        let unit = u64::from(unit);
        let end = *addr % unit + u64::from(*len);
        let cut = ((end - 1) % unit + 1).min(u64::from(*len)) as u32;
        *len -= cut;
        self.len -= cut;
        if *len == 0 {
            self.used = last;
        }
    }

    /// The segments: (physical address, bytes).
    #[must_use]
    pub fn segs(&self) -> &[(u64, u32)] {
        self.segs.get(..self.used).unwrap_or(&[])
    }

    /// Bytes described.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if nothing is described.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if no further segment fits (a run that continues the last one still may).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used >= self.cap
    }
}
