//! libkern: memory and string functions, qsort, random numbers.

use std::ffi::{c_char, c_void};

use crate::kp::{Kp, bytes, bytes_mut, cstr, peek, poke};
use crate::ksym::KData;
use crate::{kpanic, sched};

extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    let (t, f) = (to as usize, from as usize);
    if n != 0 && t < f + n && f < t + n && t != f {
        kpanic!("memcpy of overlapping memory: {t:#x} and {f:#x}, {n} bytes");
    }
    bytes_mut(to, n).copy_from_slice(bytes(from, n));
    to
}

extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if n != 0 {
        if to.is_null() || from.is_null() {
            kpanic!("memmove with a null pointer");
        }
        // SAFETY: kernel code's promise, see `Kp`; overlap is allowed here.
        unsafe { std::ptr::copy(from, to, n) };
    }
    to
}

extern "C" fn memset(to: *mut u8, v: i32, n: usize) -> *mut u8 {
    bytes_mut(to, n).fill(v as u8);
    to
}

extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    match bytes(a, n).cmp(bytes(b, n)) {
        std::cmp::Ordering::Less => -1,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => 1,
    }
}

extern "C" fn memcchr(p: *const u8, c: i32, n: usize) -> *const u8 {
    bytes(p, n)
        .iter()
        .position(|&b| i32::from(b) != c)
        .map_or(std::ptr::null(), |i| (p as usize + i) as *const u8)
}

extern "C" fn memchr(p: *const u8, c: i32, n: usize) -> *const u8 {
    bytes(p, n)
        .iter()
        .position(|&b| b == c as u8)
        .map_or(std::ptr::null(), |i| (p as usize + i) as *const u8)
}

extern "C" fn bcopy(from: *const u8, to: *mut u8, n: usize) {
    memmove(to, from, n);
}

extern "C" fn bzero(to: *mut u8, n: usize) {
    bytes_mut(to, n).fill(0);
}

fn text<'a>(s: *const c_char) -> &'a [u8] {
    if s.is_null() {
        kpanic!("string function with a null pointer");
    }
    // SAFETY: kernel code's promise: a NUL ends it.
    unsafe { std::ffi::CStr::from_ptr(s) }.to_bytes()
}

extern "C" fn strlen(s: *const c_char) -> usize {
    text(s).len()
}

extern "C" fn strnlen(s: *const c_char, n: usize) -> usize {
    (0..n)
        .take_while(|&i| peek::<u8>(s as usize + i) != 0)
        .count()
}

fn compare(a: impl Iterator<Item = u8>, b: impl Iterator<Item = u8>) -> i32 {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (a.next().unwrap_or(0), b.next().unwrap_or(0));
        if x != y || x == 0 {
            return i32::from(x) - i32::from(y);
        }
    }
}

extern "C" fn strcmp(a: *const c_char, b: *const c_char) -> i32 {
    compare(text(a).iter().copied(), text(b).iter().copied())
}

extern "C" fn strncmp(a: *const c_char, b: *const c_char, n: usize) -> i32 {
    let (a, b) = (
        bytes(a.cast(), strnlen(a, n)),
        bytes(b.cast(), strnlen(b, n)),
    );
    compare(a.iter().copied(), b.iter().copied())
}

extern "C" fn strcasecmp(a: *const c_char, b: *const c_char) -> i32 {
    compare(
        text(a).iter().map(u8::to_ascii_lowercase),
        text(b).iter().map(u8::to_ascii_lowercase),
    )
}

extern "C" fn strlcpy(to: *mut u8, from: *const c_char, size: usize) -> usize {
    let f = text(from);
    if size > 0 {
        let n = f.len().min(size - 1);
        bytes_mut(to, n).copy_from_slice(&f[..n]);
        poke(to as usize + n, 0_u8);
    }
    f.len()
}

extern "C" fn strlcat(to: *mut u8, from: *const c_char, size: usize) -> usize {
    let have = strnlen(to.cast(), size);
    if have == size {
        return size + text(from).len();
    }
    have + strlcpy((to as usize + have) as *mut u8, from, size - have)
}

extern "C" fn strcpy(to: *mut u8, from: *const c_char) -> *mut u8 {
    strlcpy(to, from, usize::MAX);
    to
}

extern "C" fn strncpy(to: *mut u8, from: *const c_char, n: usize) -> *mut u8 {
    let len = strnlen(from, n);
    let t = bytes_mut(to, n);
    t[..len].copy_from_slice(bytes(from.cast(), len));
    t[len..].fill(0);
    to
}

extern "C" fn strchr(s: *const c_char, c: i32) -> *const c_char {
    let t = text(s);
    let i = if c as u8 == 0 {
        Some(t.len())
    } else {
        t.iter().position(|&b| b == c as u8)
    };
    i.map_or(std::ptr::null(), |i| (s as usize + i) as *const c_char)
}

extern "C" fn strstr(s: *const c_char, find: *const c_char) -> *const c_char {
    let (t, f) = (text(s), text(find));
    (0..=t.len().saturating_sub(f.len()))
        .find(|&i| t[i..].starts_with(f))
        .map_or(std::ptr::null(), |i| (s as usize + i) as *const c_char)
}

extern "C" fn strtoul(s: *const c_char, end: *mut *const c_char, base: i32) -> u64 {
    let t = cstr(s);
    let trimmed = t.trim_start();
    let (digits, radix) = match (trimmed.strip_prefix("0x"), base) {
        (Some(d), 0 | 16) => (d, 16),
        (_, 0) => (trimmed, 10),
        (_, b) => (trimmed, b as u32),
    };
    let n = digits.chars().take_while(|c| c.is_digit(radix)).count();
    if let Some(mut e) = Kp::opt(end) {
        *e = (s as usize + t.len() - digits.len() + n) as *const c_char;
    }
    u64::from_str_radix(&digits[..n], radix).unwrap_or(if n == 0 { 0 } else { u64::MAX })
}

extern "C" fn qsort(
    base: *mut u8,
    n: usize,
    size: usize,
    cmp: extern "C" fn(*const u8, *const u8) -> i32,
) {
    if n < 2 || size == 0 {
        return;
    }
    let all = bytes_mut(base, n * size);
    let copy = all.to_vec();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| cmp(copy[a * size..].as_ptr(), copy[b * size..].as_ptr()).cmp(&0));
    for (to, from) in all.chunks_mut(size).zip(order) {
        to.copy_from_slice(&copy[from * size..(from + 1) * size]);
    }
}

extern "C" fn arc4random() -> u32 {
    sched::random_u64() as u32
}

extern "C" fn arc4random_uniform(n: u32) -> u32 {
    sched::random_below(n as usize) as u32
}

extern "C" fn arc4rand(to: *mut u8, n: u32, _reseed: i32) {
    for c in bytes_mut(to, n as usize).chunks_mut(8) {
        let r = sched::random_u64().to_le_bytes();
        let len = c.len();
        c.copy_from_slice(&r[..len]);
    }
}

extern "C" fn arc4random_buf(to: *mut u8, n: usize) {
    arc4rand(to, n as u32, 0);
}

/// `priv_check`: everyone may, as root.
extern "C" fn priv_check(_td: *const c_void, _priv: i32) -> i32 {
    0
}

extern "C" fn devctl_notify(
    _sys: *const c_char,
    _sub: *const c_char,
    _type: *const c_char,
    _data: *const c_char,
) {
}

extern "C" fn stack_chk_fail() {
    kpanic!("stack overflow detected; the canary was overwritten");
}

static STACK_CHK_GUARD: KData = KData::of::<[u64; 8]>("__stack_chk_guard")
    .with_init(|p| poke(p as usize, 0x00aa_5512_3456_78ff_u64));
static SDT_ENABLED: KData = KData::of::<bool>("sdt_probes_enabled");
static LOCKSTAT_ENABLED: KData = KData::of::<bool>("lockstat_enabled");
static MP_NCPUS: KData = KData::of::<i32>("mp_ncpus").with_init(|p| poke(p as usize, 1_i32));
static MP_MAXID: KData = KData::of::<u32>("mp_maxid");
static SMP_STARTED: KData = KData::of::<i32>("smp_started").with_init(|p| poke(p as usize, 1_i32));
static COLD: KData = KData::of::<i32>("cold");
static SCHEDULER_STOPPED: KData = KData::of::<bool>("scheduler_stopped");
static BOOTVERBOSE: KData = KData::of::<i32>("bootverbose");
static CC_CPU_FEATURE: KData = KData::of::<u32>("cpu_feature");
static DMPHYS: KData = KData::of::<[u64; 32]>("kva_layout");
static DMAPLIMIT: KData = KData::of::<u64>("dmaplimit").with_init(|p| poke(p as usize, u64::MAX));
static DPCPU_OFF: KData = KData::of::<[usize; 64]>("dpcpu_off");

crate::exports_data! {
    STACK_CHK_GUARD, SDT_ENABLED, LOCKSTAT_ENABLED, MP_NCPUS, MP_MAXID, SMP_STARTED, COLD, SCHEDULER_STOPPED,
    BOOTVERBOSE, CC_CPU_FEATURE, DMPHYS, DMAPLIMIT, DPCPU_OFF
}

crate::exports! {
    "memcpy" => memcpy,
    "memmove" => memmove,
    "memset" => memset,
    "memcmp" => memcmp,
    "memchr" => memchr,
    "memcchr" => memcchr,
    "bcmp" => memcmp,
    "bcopy" => bcopy,
    "bzero" => bzero,
    "explicit_bzero" => bzero,
    "strlen" => strlen,
    "strnlen" => strnlen,
    "strcmp" => strcmp,
    "strncmp" => strncmp,
    "strcasecmp" => strcasecmp,
    "strlcpy" => strlcpy,
    "strlcat" => strlcat,
    "strcpy" => strcpy,
    "strncpy" => strncpy,
    "strchr" => strchr,
    "strstr" => strstr,
    "strtoul" => strtoul,
    "qsort" => qsort,
    "arc4random" => arc4random,
    "arc4random_uniform" => arc4random_uniform,
    "arc4rand" => arc4rand,
    "arc4random_buf" => arc4random_buf,
    "priv_check" => priv_check,
    "devctl_notify" => devctl_notify,
    "__stack_chk_fail" => stack_chk_fail,
}
