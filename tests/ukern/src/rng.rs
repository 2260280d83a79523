//! The seeded generator every choice of the kernel comes from.

/// xorshift64*: small, fast, and the same on every host.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed; any value will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // splitmix64, so that seeds 0, 1, 2... start far apart.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Rng((z ^ (z >> 31)) | 1)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`; 0 for `n` = 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// True once in `n` on average; never for `n` = 0.
    pub fn one_in(&mut self, n: u32) -> bool {
        n != 0 && self.below(n as usize) == 0
    }

    /// How many events go by before the next one that strikes, at one in `n` on average.
    pub fn gap(&mut self, n: u32) -> u32 {
        if n == 0 {
            return u32::MAX >> 1;
        }
        // Uniform in [1, 2n]: the mean of the geometric distribution, cheap to draw.
        1 + self.below(2 * n as usize) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn same_seed_same_numbers_other_seed_others() {
        let take = |s| {
            let mut r = Rng::new(s);
            (0..8).map(|_| r.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn one_in_strikes_about_as_often_as_asked() {
        let mut r = Rng::new(1);
        let hits = (0..64_000).filter(|_| r.one_in(64)).count();
        assert!((800..1200).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| !r.one_in(0)));
    }
}
