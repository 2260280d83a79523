//! Payload whose every byte says where in the stream it belongs.

/// Byte of the stream at `off`, under a seed.
#[must_use]
pub fn byte(seed: u64, off: u64) -> u8 {
    // A multiplicative hash of the 8-byte block, then the byte of it: cheap, and no period that
    // a page, a segment or a pod has.
    let block = (off / 8)
        .wrapping_add(seed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (block ^ (block >> 29)).to_le_bytes()[(off % 8) as usize]
}

/// `len` bytes of the stream from `off` on.
#[must_use]
pub fn bytes(seed: u64, off: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| byte(seed, off + i)).collect()
}

/// Compare with the stream; tells the first byte that differs.
///
/// # Panics
/// If a byte differs.
pub fn check(seed: u64, off: u64, got: &[u8]) {
    for (i, b) in got.iter().enumerate() {
        let at = off + i as u64;
        let want = byte(seed, at);
        assert!(
            *b == want,
            "stream byte {at}: got {b:#04x}, want {want:#04x}"
        );
    }
}
