//! Seeded numbers, and the loop that names the seed of a failing case.

/// xorshift64*.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// In `lo..=hi`.
    pub(crate) fn range(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi - lo + 1)
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Run `f` for `count` seeds (or as many as TOEHOLD_SEEDS says, or the one in TOEHOLD_SEED). `f` returns what went wrong.
pub(crate) fn seeds(count: u64, f: impl Fn(u64) -> Result<(), std::string::String>) {
    if let Ok(s) = std::env::var("TOEHOLD_SEED") {
        let s = u64::from_str_radix(s.trim_start_matches("0x"), 16).expect("seed in hex");
        f(s).unwrap();
        return;
    }
    let more = std::env::var("TOEHOLD_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    for n in 0..more.unwrap_or(count) {
        let seed = Rng::new(n + 1).next();
        let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(seed)));
        match r {
            Ok(Ok(())) => {}
            Ok(Err(e)) => panic!("TOEHOLD_SEED={seed:#x}: {e}"),
            Err(p) => {
                std::eprintln!("TOEHOLD_SEED={seed:#x}");
                std::panic::resume_unwind(p);
            }
        }
    }
}
