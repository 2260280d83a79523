//! Points in time, in few bytes: a connection has several.

use core::num::NonZeroU32;

/// Milliseconds of uptime ([`crate::os::Os::now_ms`]), modulo 2^32: good for the past 49 days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Since(NonZeroU32);

impl Since {
    /// Now.
    pub(crate) fn new(now: u64) -> Since {
        // One millisecond of 2^32 is taken for its neighbour.
        Since(NonZeroU32::new(now as u32).unwrap_or(NonZeroU32::MIN))
    }

    /// When that was, seen from `now`.
    pub(crate) fn when(self, now: u64) -> u64 {
        let ago = (now as u32).wrapping_sub(self.0.get());
        // It may be that neighbour.
        let ago = if ago == u32::MAX { 0 } else { ago };
        now.saturating_sub(u64::from(ago))
    }
}

#[cfg(test)]
mod tests {
    use super::Since;

    #[test]
    fn the_past_is_told_over_the_wrap() {
        for at in [1, 7, 0xffff_fff0, 0x1_0000_0005, 0x7_ffff_ffff] {
            for later in [0, 1, 30_000, 0xfff_ffff] {
                assert_eq!(Since::new(at).when(at + later), at);
            }
        }
        assert_eq!(Since::new(1 << 32).when(1 << 32), 1 << 32);
        assert_eq!(Since::new(1 << 32).when((1 << 32) + 9), (1 << 32) + 1);
    }
}
