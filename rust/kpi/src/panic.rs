//! How Rust panics in the kernel: `panic(9)` with the message and its place.

use core::fmt::Write;
use core::panic::PanicInfo;

/// As much of the message as fits; no heap, little stack.
struct Line {
    buf: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let room = self.buf.get_mut(self.len..).unwrap_or(&mut []);
        let n = s.len().min(room.len());
        if let (Some(dst), Some(src)) = (room.get_mut(..n), s.as_bytes().get(..n)) {
            dst.copy_from_slice(src);
        }
        self.len += n;
        Ok(())
    }
}

/// Body of the panic handler.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line {
        buf: [0; 256],
        len: 0,
    };
    // Writing to `line` cannot fail.
    let _ = write!(line, "{info}");
    // SAFETY: the first `len` bytes of `buf` are written, and th_panic() takes a length.
    unsafe { crate::sys::th_panic(line.buf.as_ptr().cast(), line.len) }
}
