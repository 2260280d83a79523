//! What the tests of this crate share: bytes from hex, a seeded generator, and the checks every
//! message goes through.

// Each test binary uses its own part.
#![allow(dead_code)]

use wire::WireError;

/// Rounds of a property test.
pub(crate) const ROUNDS: usize = 2000;

/// Bytes from hex digits; white space is passed over.
pub(crate) fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u8> = s
        .bytes()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => panic!("not hex: {}", char::from(c)),
        })
        .collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits");
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

/// Emits a message of `len` bytes over two kinds of garbage: every byte of it must be written,
/// none behind it, and a buffer one byte short must be refused. Returns the bytes.
pub(crate) fn emitted<T>(len: usize, emit: impl Fn(&mut [u8]) -> Result<T, WireError>) -> Vec<u8> {
    const BEHIND: usize = 40;
    let mut whole = [vec![0xa5; len + BEHIND], vec![0x5a; len + BEHIND]];
    for (b, fill) in whole.iter_mut().zip([0xa5, 0x5a]) {
        emit(b).map(drop).expect("a message that fits");
        assert!(
            b[len..].iter().all(|x| *x == fill),
            "written behind its end"
        );
        b.truncate(len);
    }
    for room in 0..len {
        match emit(&mut vec![0; room]).map(drop) {
            Err(WireError::Truncated { need, have }) => assert!(need > have),
            other => panic!("{room} bytes of room for {len}: {other:?}"),
        }
    }
    let [a, b] = whole;
    assert_eq!(a, b, "a byte was left as it was");
    a
}

/// A message cut to any shorter length must be refused as truncated, with a need that is more
/// than what there was.
pub(crate) fn cuts<T>(whole: &[u8], parse: impl Fn(&[u8]) -> Result<T, WireError>) {
    for have in 0..whole.len() {
        match parse(&whole[..have]).map(drop) {
            Err(WireError::Truncated { need, have }) => assert!(need > have),
            other => panic!("{have} of {} bytes: {other:?}", whole.len()),
        }
    }
    assert!(parse(whole).is_ok());
}

/// The name of the field that was refused.
pub(crate) fn refused<T>(r: Result<T, WireError>) -> &'static str {
    match r.map(drop) {
        Err(WireError::Field { name, .. }) => name,
        other => panic!("expected a refused field: {other:?}"),
    }
}

/// xorshift64: the same numbers for the same seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.max(1))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn u32(&mut self) -> u32 {
        (self.u64() >> 24) as u32
    }

    pub(crate) fn u8(&mut self) -> u8 {
        (self.u64() >> 24) as u8
    }

    /// The low `n` bits are random, the rest zero.
    pub(crate) fn bits(&mut self, n: u32) -> u32 {
        self.u32() >> (32 - n)
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u64() >> 63 != 0
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.u64() >> 11) as usize % n
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.u8()).collect()
    }

    /// Changes up to four bytes.
    pub(crate) fn damage(&mut self, b: &mut [u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(b.len());
            b[at] = self.u8();
        }
    }
}
