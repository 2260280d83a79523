//! What travels: bytes that tell by themselves where they belong.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

use crate::rng::Rng;

/// Bytes after which the pattern repeats: prime, so that no page or piece size divides it.
pub const PERIOD: usize = 1_048_573;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rng = Rng::new(0x7061_7474);
        let mut t: Vec<u8> = Vec::with_capacity(PERIOD + 8);
        while t.len() < PERIOD {
            t.extend_from_slice(&rng.next_u64().to_le_bytes());
        }
        t.truncate(PERIOD);
        t
    })
}

/// Fill `out` with the pattern from place `at` on.
pub fn fill(mut at: u64, mut out: &mut [u8]) {
    let t = table();
    while !out.is_empty() {
        let from = (at % PERIOD as u64) as usize;
        let n = out.len().min(PERIOD - from);
        let (head, rest) = out.split_at_mut(n);
        head.copy_from_slice(&t[from..from + n]);
        at += n as u64;
        out = rest;
    }
}

/// First byte of `got` that is not the pattern's from place `at` on.
pub fn differs(mut at: u64, got: &[u8]) -> Option<usize> {
    let t = table();
    let mut done = 0;
    while done < got.len() {
        let from = (at % PERIOD as u64) as usize;
        let n = (got.len() - done).min(PERIOD - from);
        let (a, b) = (&got[done..done + n], &t[from..from + n]);
        if a != b {
            return a.iter().zip(b).position(|(x, y)| x != y).map(|i| done + i);
        }
        at += n as u64;
        done += n;
    }
    None
}

/// The stream one end has sent: which place of the pattern each stretch of it is.
#[derive(Debug, Default)]
pub struct Stream {
    /// (first byte of the stretch in the stream, place in the pattern)
    stretches: Vec<(u64, u64)>,
    len: u64,
}

/// A stream, as its sender writes it and its receiver checks it.
pub type Shared = Rc<RefCell<Stream>>;

impl Stream {
    /// `n` bytes of the pattern from `place` on are appended.
    pub fn append(&mut self, place: u64, n: u64) {
        if n > 0 {
            self.stretches.push((self.len, place));
            self.len += n;
        }
    }

    /// Bytes sent.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if nothing was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `got` was received as the bytes from `at` on. What is wrong with it, if anything.
    #[must_use]
    pub fn check(&self, at: u64, got: &[u8]) -> Option<String> {
        let end = at + got.len() as u64;
        if end > self.len {
            return Some(format!("bytes {at}..{end} of a stream of {}", self.len));
        }
        let mut pos = at;
        let mut i = self.stretches.partition_point(|s| s.0 <= at).max(1) - 1;
        while pos < end {
            let (start, place) = self.stretches[i];
            let stop = self.stretches.get(i + 1).map_or(self.len, |s| s.0).min(end);
            let (a, b) = ((pos - at) as usize, (stop - at) as usize);
            if let Some(d) = differs(place + (pos - start), &got[a..b]) {
                let d = a + d;
                return Some(format!(
                    "byte {} of the stream (byte {d} of a piece of {} from {at}) is {:#04x}",
                    at + d as u64,
                    got.len(),
                    got[d],
                ));
            }
            pos = stop;
            i += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_byte_is_found() {
        let mut s = Stream::default();
        s.append(100, 50);
        s.append(7_000_000, 5_000);
        let mut b = vec![0; 5_050];
        fill(100, &mut b[..50]);
        fill(7_000_000, &mut b[50..]);
        assert_eq!(s.check(0, &b), None);
        assert_eq!(s.check(10, &b[10..]), None);
        assert_eq!(s.check(60, &b[60..70]), None);
        assert!(s.check(1, &b[..60]).is_some());
        assert!(s.check(0, &[b.clone(), vec![0]].concat()).is_some());
        b[51] ^= 1;
        assert!(s.check(0, &b).is_some_and(|e| e.starts_with("byte 51 ")));
    }
}
