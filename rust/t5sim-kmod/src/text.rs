//! Text in a fixed buffer; what does not fit is cut.

use core::ffi::CStr;
use core::fmt;

/// A literal with its NUL as C wants it. Fails to compile where it is used in a constant.
pub(crate) const fn c_str(s: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(s.as_bytes()) {
        Ok(s) => s,
        Err(_) => panic!("no NUL at the end, or one before it"),
    }
}

pub(crate) struct Text<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    pub(crate) fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or(&[])
    }

    /// Ends the text with a NUL, in place of its last byte if the buffer is full.
    pub(crate) fn terminate(self) {
        let at = self.len.min(self.buf.len().saturating_sub(1));
        if let Some(b) = self.buf.get_mut(at) {
            *b = 0;
        }
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.buf.get_mut(self.len..).unwrap_or(&mut []);
        let n = room.len().min(s.len());
        for (to, from) in room.iter_mut().zip(s.bytes()) {
            *to = from;
        }
        self.len += n;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn cut_and_terminated() {
        let mut buf = [0xff; 6];
        let mut t = Text::new(&mut buf);
        let n = 12;
        write!(t, "{n}-abcdef").unwrap();
        assert_eq!(t.bytes(), b"12-abc");
        t.terminate();
        assert_eq!(&buf, b"12-ab\0");
        let mut t = Text::new(&mut buf);
        t.write_str("x").unwrap();
        t.terminate();
        assert_eq!(&buf[..2], b"x\0");
        Text::new(&mut []).terminate();
    }
}
