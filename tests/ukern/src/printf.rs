//! The kernel's printf: the format language, and the variadic C functions on top of it.

use std::ffi::c_char;

use crate::kp::{Kp, bytes, bytes_mut, cstr, peek};
use crate::ksym::KData;
use crate::{console, kpanic, sys};

/// `__va_list_tag` of the System V ABI.
#[repr(C)]
pub struct VaList {
    gp_offset: u32,
    fp_offset: u32,
    overflow: usize,
    reg_save: usize,
}

impl VaList {
    /// The next argument that travels in an integer register.
    pub fn word(&mut self) -> u64 {
        if self.gp_offset < 48 {
            let v = peek(self.reg_save + self.gp_offset as usize);
            self.gp_offset += 8;
            return v;
        }
        let v = peek(self.overflow);
        self.overflow += 8;
        v
    }
}

#[derive(Default, Clone)]
struct Spec {
    left: bool,
    zero: bool,
    sharp: bool,
    plus: bool,
    space: bool,
    width: usize,
    prec: Option<usize>,
    /// Bytes of the argument: 1, 2, 4, 8.
    size: u32,
}

fn pad(out: &mut Vec<u8>, s: &Spec, sign: &str, body: &str) {
    let len = sign.len() + body.len();
    let fill = s.width.saturating_sub(len);
    if s.left {
        out.extend(sign.bytes());
        out.extend(body.bytes());
        out.extend(std::iter::repeat_n(b' ', fill));
    } else if s.zero {
        out.extend(sign.bytes());
        out.extend(std::iter::repeat_n(b'0', fill));
        out.extend(body.bytes());
    } else {
        out.extend(std::iter::repeat_n(b' ', fill));
        out.extend(sign.bytes());
        out.extend(body.bytes());
    }
}

fn digits(v: u64, radix: u32, upper: bool, prec: Option<usize>) -> String {
    let mut s = match radix {
        8 => format!("{v:o}"),
        16 if upper => format!("{v:X}"),
        16 => format!("{v:x}"),
        _ => v.to_string(),
    };
    if let Some(p) = prec {
        while s.len() < p {
            s.insert(0, '0');
        }
    }
    s
}

fn unsigned(v: u64, size: u32) -> u64 {
    match size {
        1 => u64::from(v as u8),
        2 => u64::from(v as u16),
        4 => u64::from(v as u32),
        _ => v,
    }
}

fn signed(v: u64, size: u32) -> i64 {
    match size {
        1 => i64::from(v as i8),
        2 => i64::from(v as i16),
        4 => i64::from(v as i32),
        _ => v as i64,
    }
}

/// `%b`: a number and the names of its bits.
fn bits(out: &mut Vec<u8>, v: u64, names: &[u8]) {
    let Some((&radix, mut rest)) = names.split_first() else {
        return;
    };
    out.extend(digits(v, u32::from(radix), false, None).bytes());
    if v == 0 {
        return;
    }
    let mut first = true;
    while let Some((&bit, tail)) = rest.split_first() {
        let n = tail.iter().position(|&c| c <= b' ').unwrap_or(tail.len());
        if v & 1_u64
            .checked_shl(u32::from(bit).saturating_sub(1))
            .unwrap_or(0)
            != 0
        {
            out.push(if first { b'<' } else { b',' });
            first = false;
            out.extend(&tail[..n]);
        }
        rest = &tail[n..];
    }
    if !first {
        out.push(b'>');
    }
}

/// Formats as kvprintf does.
#[must_use]
pub fn format(fmt: &[u8], ap: &mut VaList) -> Vec<u8> {
    let mut out = Vec::new();
    let mut it = fmt.iter().copied().peekable();
    while let Some(c) = it.next() {
        if c != b'%' {
            out.push(c);
            continue;
        }
        let mut s = Spec {
            size: 4,
            ..Spec::default()
        };
        let mut dot = false;
        loop {
            let Some(c) = it.next() else {
                return out;
            };
            match c {
                b'%' => {
                    out.push(b'%');
                    break;
                }
                b'-' => s.left = true,
                b'+' => s.plus = true,
                b' ' => s.space = true,
                b'#' => s.sharp = true,
                b'.' => {
                    dot = true;
                    s.prec = Some(0);
                }
                b'0' if !dot && s.width == 0 => s.zero = true,
                b'0'..=b'9' => {
                    let d = usize::from(c - b'0');
                    if dot {
                        s.prec = Some(s.prec.unwrap_or(0) * 10 + d);
                    } else {
                        s.width = s.width * 10 + d;
                    }
                }
                b'*' => {
                    let n = ap.word() as i32;
                    if dot {
                        s.prec = usize::try_from(n).ok();
                    } else {
                        s.left |= n < 0;
                        s.width = n.unsigned_abs() as usize;
                    }
                }
                b'h' => s.size = if s.size == 2 { 1 } else { 2 },
                b'l' | b'q' | b'j' | b'z' | b't' => s.size = 8,
                b'd' | b'i' => {
                    let v = signed(ap.word(), s.size);
                    let sign = if v < 0 {
                        "-"
                    } else if s.plus {
                        "+"
                    } else if s.space {
                        " "
                    } else {
                        ""
                    };
                    pad(
                        &mut out,
                        &s,
                        sign,
                        &digits(v.unsigned_abs(), 10, false, s.prec),
                    );
                    break;
                }
                b'u' | b'o' | b'x' | b'X' | b'y' => {
                    let v = unsigned(ap.word(), s.size);
                    let radix = match c {
                        b'u' => 10,
                        b'o' => 8,
                        _ => 16,
                    };
                    let prefix = match (s.sharp && v != 0, c) {
                        (true, b'x' | b'X') => "0x",
                        (true, b'o') => "0",
                        _ => "",
                    };
                    pad(&mut out, &s, prefix, &digits(v, radix, c == b'X', s.prec));
                    break;
                }
                b'p' => {
                    let v = ap.word();
                    pad(&mut out, &s, "0x", &digits(v, 16, false, None));
                    break;
                }
                b'c' => {
                    out.push(ap.word() as u8);
                    break;
                }
                b's' => {
                    let p = ap.word() as *const c_char;
                    // A precision bounds what may be read.
                    let text = match s.prec {
                        Some(n) if !p.is_null() => {
                            let len = (0..n)
                                .take_while(|&i| peek::<u8>(p as usize + i) != 0)
                                .count();
                            String::from_utf8_lossy(bytes(p.cast(), len)).into_owned()
                        }
                        _ => cstr(p),
                    };
                    s.zero = false;
                    pad(&mut out, &s, "", &text);
                    break;
                }
                b'b' => {
                    let v = unsigned(ap.word(), s.size);
                    let names = cstr_bytes(ap.word() as *const c_char);
                    bits(&mut out, v, names);
                    break;
                }
                b'D' => {
                    let p = ap.word() as *const u8;
                    let sep = cstr(ap.word() as *const c_char);
                    let n = if s.width == 0 { 16 } else { s.width };
                    let hex: Vec<_> = bytes(p, n).iter().map(|b| format!("{b:02x}")).collect();
                    out.extend(hex.join(&sep).bytes());
                    break;
                }
                other => {
                    out.extend([b'%', other]);
                    break;
                }
            }
        }
    }
    out
}

fn cstr_bytes<'a>(p: *const c_char) -> &'a [u8] {
    if p.is_null() {
        return b"(null)";
    }
    // SAFETY: kernel code's promise: a NUL ends it.
    unsafe { std::ffi::CStr::from_ptr(p) }.to_bytes()
}

/// A C format and its arguments as text.
#[must_use]
pub fn to_string(fmt: *const c_char, ap: &mut VaList) -> String {
    String::from_utf8_lossy(&format(cstr_bytes(fmt), ap)).into_owned()
}

fn emit(buf: *mut u8, size: usize, s: &[u8]) -> i32 {
    if size > 0 {
        let n = s.len().min(size - 1);
        let to = bytes_mut(buf, n + 1);
        to[..n].copy_from_slice(&s[..n]);
        to[n] = 0;
    }
    s.len() as i32
}

/// Makes a variadic C function whose body gets its fixed arguments and a `&mut VaList`: spills the
/// argument registers and builds the list, as a C compiler would.
#[macro_export]
macro_rules! variadic {
    ($vis:vis fn $name:ident, $target:path, fixed $n:literal, list in $reg:literal) => {
        #[unsafe(naked)]
        $vis extern "C" fn $name() {
            std::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "sub rsp, 80",
                "mov [rsp + 24], rdi",
                "mov [rsp + 32], rsi",
                "mov [rsp + 40], rdx",
                "mov [rsp + 48], rcx",
                "mov [rsp + 56], r8",
                "mov [rsp + 64], r9",
                concat!("mov dword ptr [rsp], 8 * ", $n),
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rbp + 16]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 24]",
                "mov [rsp + 16], rax",
                concat!("mov ", $reg, ", rsp"),
                "call {target}",
                "leave",
                "ret",
                target = sym $target,
            )
        }
    };
}

extern "C" fn vprintf(fmt: *const c_char, mut ap: Kp<VaList>) -> i32 {
    let s = to_string(fmt, &mut ap);
    console::write(&s);
    s.len() as i32
}

extern "C" fn vlog(_level: i32, fmt: *const c_char, mut ap: Kp<VaList>) {
    console::write(&to_string(fmt, &mut ap));
}

extern "C" fn vsnprintf(buf: *mut u8, size: usize, fmt: *const c_char, mut ap: Kp<VaList>) -> i32 {
    let s = format(cstr_bytes(fmt), &mut ap);
    emit(buf, size, &s)
}

extern "C" fn vsprintf(buf: *mut u8, fmt: *const c_char, mut ap: Kp<VaList>) -> i32 {
    let s = format(cstr_bytes(fmt), &mut ap);
    emit(buf, s.len() + 1, &s)
}

extern "C" fn vpanic(fmt: *const c_char, mut ap: Kp<VaList>) -> ! {
    let s = to_string(fmt, &mut ap);
    kpanic!("panic: {s}")
}

extern "C" fn vdevice_printf(dev: usize, fmt: *const c_char, mut ap: Kp<VaList>) -> i32 {
    let s = format!(
        "{}: {}",
        crate::device::nameunit(dev),
        to_string(fmt, &mut ap)
    );
    console::write(&s);
    s.len() as i32
}

extern "C" fn vif_printf(ifp: Kp<sys::ifnet>, fmt: *const c_char, mut ap: Kp<VaList>) -> i32 {
    let s = format!(
        "{}: {}",
        cstr(ifp.if_xname.as_ptr()),
        to_string(fmt, &mut ap)
    );
    console::write(&s);
    s.len() as i32
}

variadic!(fn printf, vprintf, fixed 1, list in "rsi");
variadic!(fn log, vlog, fixed 2, list in "rdx");
variadic!(fn snprintf, vsnprintf, fixed 3, list in "rcx");
variadic!(fn sprintf, vsprintf, fixed 2, list in "rdx");
variadic!(fn panic, vpanic, fixed 1, list in "rsi");
variadic!(fn kassert_panic, vpanic, fixed 1, list in "rsi");
variadic!(fn device_printf, vdevice_printf, fixed 2, list in "rdx");
variadic!(fn if_printf, vif_printf, fixed 2, list in "rdx");

static PANICSTR: KData = KData::of::<usize>("panicstr");

crate::exports_data! { PANICSTR }

crate::exports! {
    "printf" => printf,
    "vprintf" => vprintf,
    "uprintf" => printf,
    "log" => log,
    "vlog" => vlog,
    "snprintf" => snprintf,
    "vsnprintf" => vsnprintf,
    "sprintf" => sprintf,
    "vsprintf" => vsprintf,
    "panic" => panic,
    "vpanic" => vpanic,
    "kassert_panic" => kassert_panic,
    "device_printf" => device_printf,
    "if_printf" => if_printf,
}
