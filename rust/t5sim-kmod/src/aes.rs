//! The key schedule of AES (FIPS 197, section 5.2), for the key that the card wants for
//! decryption: where the schedule of the encryption key ends.

/// Most words of a key.
const MAX_WORDS: usize = 8;

/// FIPS 197, section 5.1.1: the inverse in GF(2^8), then an affine map.
const SBOX: [u8; 256] = sbox();

const fn sbox() -> [u8; 256] {
    let mut table = [0; 256];
    // p runs through all that are not 0 by powers of 3, q is its inverse.
    let (mut p, mut q) = (1_u8, 1_u8);
    loop {
        p = p ^ p << 1 ^ if p & 0x80 != 0 { 0x1b } else { 0 };
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        if q & 0x80 != 0 {
            q ^= 0x09;
        }
        let turns = q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4);
        table[p as usize] = q ^ turns ^ 0x63;
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
}

fn sub_word(w: u32) -> u32 {
    u32::from_be_bytes(
        w.to_be_bytes()
            .map(|b| SBOX.get(usize::from(b)).copied().unwrap_or(0)),
    )
}

/// Turns the key of 16, 24 or 32 bytes at its place into the last words of its schedule, the
/// last one first. `false`, and nothing is changed, for another length.
pub(crate) fn deckey(key: &mut [u8]) -> bool {
    let n = match key.len() {
        16 => 4,
        24 => 6,
        32 => MAX_WORDS,
        _ => return false,
    };
    // The last `n` words so far: word i stands at i % n.
    let mut last = [0_u32; MAX_WORDS];
    for (word, bytes) in last.iter_mut().zip(key.chunks_exact(4)) {
        *word = bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    let Some(last) = last.get_mut(..n) else {
        return false;
    };
    let rounds = n + 6;
    let mut before = last.last().copied().unwrap_or(0);
    let mut rcon = 1_u8;
    for i in n..4 * (rounds + 1) {
        if i % n == 0 {
            before = sub_word(before.rotate_left(8)) ^ u32::from(rcon) << 24;
            rcon = rcon << 1 ^ if rcon & 0x80 != 0 { 0x1b } else { 0 };
        } else if n > 6 && i % n == 4 {
            before = sub_word(before);
        }
        if let Some(word) = last.get_mut(i % n) {
            *word ^= before;
            before = *word;
        }
    }
    // Word 4 * (rounds + 1) would come next; the one before it goes first.
    let end = 4 * (rounds + 1);
    for (back, bytes) in (1..).zip(key.chunks_exact_mut(4)) {
        let word = last.get((end - back) % n).copied().unwrap_or(0);
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(s: &str) -> Vec<u8> {
        let digits: Vec<u8> = s
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|d| d as u8)
            .collect();
        digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
    }

    /// FIPS 197, appendix A: key, and the last words of its schedule from first to last.
    #[test]
    fn the_schedules_of_the_standard() {
        for (key, end) in [
            (
                "2b7e1516 28aed2a6 abf71588 09cf4f3c",
                "d014f9a8 c9ee2589 e13f0cc8 b6630ca6",
            ),
            (
                "8e73b0f7 da0e6452 c810f32b 809079e5 62f8ead2 522c6b7b",
                "e98ba06f 448c773c 8ecc7204 01002202",
            ),
            (
                "603deb10 15ca71be 2b73aef0 857d7781 1f352c07 3b6108d7 2d9810a3 0914dff4",
                "fe4890d1 e6188d0b 046df344 706c631e",
            ),
        ] {
            let mut k = hex(key);
            assert!(deckey(&mut k));
            let words: Vec<&[u8]> = k.chunks(4).take(4).collect();
            let wanted = hex(end);
            let wanted: Vec<&[u8]> = wanted.chunks(4).rev().collect();
            assert_eq!(words, wanted, "{key}");
        }
    }

    /// Run backwards, the schedule leads from its end to the key.
    #[test]
    fn the_whole_key_comes_back() {
        for n in [4, 6, 8] {
            let key: Vec<u8> = (0..n * 4).map(|i: usize| (i * 37 + n) as u8).collect();
            let mut end = key.clone();
            assert!(deckey(&mut end));
            let total = 4 * (n + 7);
            let mut w: Vec<u32> = vec![0; total];
            for (i, c) in end.chunks(4).enumerate() {
                w[total - 1 - i] = u32::from_be_bytes(c.try_into().unwrap());
            }
            for i in (n..total).rev() {
                let mut t = w[i - 1];
                if i % n == 0 {
                    let mut rcon = 1_u32;
                    for _ in 1..i / n {
                        rcon = rcon << 1 ^ if rcon & 0x80 != 0 { 0x11b } else { 0 };
                    }
                    t = sub_word(t.rotate_left(8)) ^ rcon << 24;
                } else if n > 6 && i % n == 4 {
                    t = sub_word(t);
                }
                w[i - n] = w[i] ^ t;
            }
            let back: Vec<u8> = w[..n].iter().flat_map(|w| w.to_be_bytes()).collect();
            assert_eq!(back, key, "{n} words");
        }
    }

    #[test]
    fn other_lengths_are_left_alone() {
        for len in [0, 15, 17, 20, 33] {
            let mut k = vec![7; len];
            assert!(!deckey(&mut k));
            assert_eq!(k, vec![7; len]);
        }
    }
}
