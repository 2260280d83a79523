//! What every CPL must do, whatever it says.

#![allow(dead_code, reason = "each test binary uses its own part")]

use wire::WireError;

/// What a buffer holds before a message is written to it: a byte left unset shows.
const DIRT: u8 = 0xa5;

/// Bytes of a hex string; blanks are for the reader.
pub(crate) fn hex(s: &str) -> Vec<u8> {
    let d: Vec<u8> = s
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| u8::try_from(d).unwrap())
        .collect();
    assert!(d.len().is_multiple_of(2), "odd hex string");
    d.chunks(2).map(|p| p[0] << 4 | p[1]).collect()
}

/// Small generator of test values (xorshift64*).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// `width` random bits, now and then all zeros or all ones.
    pub(crate) fn bits(&mut self, width: u32) -> u64 {
        let all = u64::MAX >> (64 - width);
        match self.next() >> 60 {
            0 => 0,
            1 => all,
            _ => (self.next() ^ self.next() >> 32) & all,
        }
    }

    pub(crate) fn u8(&mut self, width: u32) -> u8 {
        u8::try_from(self.bits(width)).unwrap()
    }

    pub(crate) fn u16(&mut self, width: u32) -> u16 {
        u16::try_from(self.bits(width)).unwrap()
    }

    pub(crate) fn u32(&mut self, width: u32) -> u32 {
        u32::try_from(self.bits(width)).unwrap()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    pub(crate) fn fill(&mut self, b: &mut [u8]) {
        for x in b {
            *x = (self.next() >> 56) as u8;
        }
    }
}

/// A message as these tests see it: its two directions.
pub(crate) struct Codec<T> {
    pub(crate) parse: fn(&[u8]) -> Result<T, WireError>,
    pub(crate) emit: fn(&T, &mut [u8]) -> Result<(), WireError>,
}

/// `val` and `bytes` are each other's image; nothing beyond `bytes` is written; no
/// shorter buffer is taken; no other opcode is taken at `op`.
pub(crate) fn check_known<T: PartialEq + core::fmt::Debug>(
    c: &Codec<T>,
    val: &T,
    bytes: &[u8],
    op: Option<usize>,
) {
    let mut b = vec![DIRT; bytes.len() + 16];
    (c.emit)(val, &mut b).unwrap();
    let (msg, rest) = b.split_at(bytes.len());
    assert_eq!(msg, bytes, "emitted");
    assert!(rest.iter().all(|x| *x == DIRT), "wrote past the message");
    assert_eq!(&(c.parse)(bytes).unwrap(), val, "parsed");

    for n in 0..bytes.len() {
        let short = WireError::Truncated {
            need: bytes.len(),
            have: n,
        };
        assert_eq!((c.parse)(&bytes[..n]).unwrap_err(), short);
        let mut b = vec![DIRT; n];
        assert_eq!((c.emit)(val, &mut b).unwrap_err(), short);
    }

    if let Some(at) = op {
        for have in (0..=255u8).filter(|o| *o != bytes[at]) {
            let mut b = bytes.to_vec();
            b[at] = have;
            let want = bytes[at];
            assert_eq!((c.parse)(&b).unwrap_err(), WireError::Opcode { want, have });
        }
    }
}

/// Random values survive emit and parse.
pub(crate) fn check_roundtrip<T: PartialEq + core::fmt::Debug>(
    c: &Codec<T>,
    len: usize,
    random: fn(&mut Rng) -> T,
) {
    let mut r = Rng::new(len as u64 ^ 0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let v = random(&mut r);
        let mut b = vec![DIRT; len];
        (c.emit)(&v, &mut b).unwrap_or_else(|e| panic!("{v:?}: {e}"));
        assert_eq!((c.parse)(&b).unwrap(), v);
    }
}

/// Random bytes behind the right opcode (and work-request header) are read or
/// refused, never a panic, and what was read can be written and read again. Wholly
/// random bytes of any length do no harm either.
pub(crate) fn check_random<T: PartialEq + core::fmt::Debug>(
    c: &Codec<T>,
    len: usize,
    body_at: usize,
    example: &T,
) {
    let mut r = Rng::new(len as u64 ^ 0xd1b5_4a32_d192_ed03);
    let mut head = vec![0; len];
    (c.emit)(example, &mut head).unwrap();
    let mut read = 0;
    for _ in 0..2000 {
        let mut b = vec![0; len + 8];
        r.fill(&mut b);
        let _ = (c.parse)(&b);
        let cut = usize::try_from(r.next() >> 40).unwrap() % b.len();
        let _ = (c.parse)(&b[..cut]);

        b[..body_at].copy_from_slice(&head[..body_at]);
        if let Ok(v) = (c.parse)(&b) {
            read += 1;
            let mut again = vec![DIRT; len];
            (c.emit)(&v, &mut again).unwrap();
            assert_eq!((c.parse)(&again).unwrap(), v);
        }
    }
    assert!(
        read > 0,
        "no random body was readable: the test tested nothing"
    );
}
