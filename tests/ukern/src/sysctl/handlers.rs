//! The stock handlers.

use std::ffi::{c_char, c_void};

use super::Oid;
use crate::kp::{Kp, bytes, bytes_mut, cstr, peek, poke};
use crate::{counter, sched, sys};

type Req = sys::sysctl_req;

fn out(req: Kp<Req>, data: &[u8]) -> i32 {
    match req.oldfunc {
        // SAFETY: the request's own output function, with live data.
        Some(f) => unsafe { f(req.ptr(), data.as_ptr().cast(), data.len()) },
        None => 0,
    }
}

fn input(req: Kp<Req>, to: &mut [u8]) -> i32 {
    match req.newfunc {
        // SAFETY: the request's own input function, with room for the bytes asked for.
        Some(f) => unsafe { f(req.ptr(), to.as_mut_ptr().cast(), to.len()) },
        None => 0,
    }
}

/// A number of `N` bytes at `arg1`, or the constant `arg2` when that is NULL.
fn number<const N: usize>(arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    let mut v = [0_u8; N];
    if arg1.is_null() {
        v.copy_from_slice(&arg2.to_le_bytes()[..N]);
    } else {
        v = peek(arg1 as usize);
    }
    let e = out(req, &v);
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    if arg1.is_null() {
        return sys::EPERM as i32;
    }
    let e = input(req, &mut v);
    if e == 0 {
        poke(arg1 as usize, v);
    }
    e
}

extern "C" fn handle_8(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    number::<1>(arg1, arg2, req)
}
extern "C" fn handle_16(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    number::<2>(arg1, arg2, req)
}
extern "C" fn handle_32(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    number::<4>(arg1, arg2, req)
}
extern "C" fn handle_64(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    number::<8>(arg1, arg2, req)
}

extern "C" fn handle_bool(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    let mut v = [if arg1.is_null() {
        arg2 as u8
    } else {
        peek::<u8>(arg1 as usize)
    }];
    let e = out(req, &v);
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    if arg1.is_null() {
        return sys::EPERM as i32;
    }
    let e = input(req, &mut v);
    if e == 0 {
        poke(arg1 as usize, u8::from(v[0] != 0));
    }
    e
}

extern "C" fn handle_string(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    let text = cstr(arg1.cast::<c_char>());
    let mut data = text.into_bytes();
    data.push(0);
    let e = out(req, &data);
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    let len = req.newlen.saturating_sub(req.newidx);
    let room = usize::try_from(arg2).unwrap_or(0);
    if len >= room {
        return sys::EINVAL as i32;
    }
    let mut new = vec![0; len];
    let e = input(req, &mut new);
    if e == 0 {
        let to = bytes_mut(arg1.cast(), room);
        to[..len].copy_from_slice(&new);
        to[len] = 0;
    }
    e
}

extern "C" fn handle_opaque(_o: *mut Oid, arg1: *mut c_void, arg2: i64, req: Kp<Req>) -> i32 {
    let len = usize::try_from(arg2).unwrap_or(0);
    let e = out(req, bytes(arg1.cast(), len));
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    input(req, bytes_mut(arg1.cast(), len))
}

extern "C" fn handle_counter(_o: *mut Oid, arg1: Kp<usize>, _arg2: i64, req: Kp<Req>) -> i32 {
    let e = out(req, &counter::fetch(*arg1).to_le_bytes());
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    // Any write clears it.
    counter::zero(*arg1);
    0
}

extern "C" fn handle_counter_array(_o: *mut Oid, arg1: Kp<usize>, arg2: i64, req: Kp<Req>) -> i32 {
    let n = usize::try_from(arg2).unwrap_or(0);
    let all: Vec<usize> = (0..n).map(|i| peek(arg1.addr() + 8 * i)).collect();
    let data: Vec<u8> = all
        .iter()
        .flat_map(|&c| counter::fetch(c).to_le_bytes())
        .collect();
    let e = out(req, &data);
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    all.into_iter().for_each(counter::zero);
    0
}

/// An `int` in ticks, shown in milliseconds.
extern "C" fn msec_to_ticks(_o: *mut Oid, arg1: Kp<i32>, _arg2: i64, req: Kp<Req>) -> i32 {
    let mut ticks = arg1;
    let ms = (i64::from(*ticks) * 1000 / sched::HZ) as i32;
    let mut v = ms.to_le_bytes();
    let e = out(req, &v);
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    let e = input(req, &mut v);
    let ms = i32::from_le_bytes(v);
    if e != 0 {
        return e;
    }
    if ms < 0 {
        return sys::EINVAL as i32;
    }
    *ticks = (i64::from(ms) * sched::HZ / 1000) as i32;
    0
}

fn sbt(arg1: Kp<i64>, req: Kp<Req>, unit: i64) -> i32 {
    let mut var = arg1;
    let mut v = ((i128::from(*var) * i128::from(unit)) >> 32).to_le_bytes()[..8].to_vec();
    let e = out(req, &v);
    if e != 0 || req.newptr.is_null() {
        return e;
    }
    let e = input(req, &mut v);
    if e == 0 {
        let n = i64::from_le_bytes(v.try_into().unwrap_or_default());
        *var = ((i128::from(n) << 32) / i128::from(unit)) as i64;
    }
    e
}

extern "C" fn msec_to_sbintime(_o: *mut Oid, arg1: Kp<i64>, _arg2: i64, req: Kp<Req>) -> i32 {
    sbt(arg1, req, 1000)
}
extern "C" fn usec_to_sbintime(_o: *mut Oid, arg1: Kp<i64>, _arg2: i64, req: Kp<Req>) -> i32 {
    sbt(arg1, req, 1_000_000)
}

crate::exports! {
    "sysctl_handle_8" => handle_8,
    "sysctl_handle_16" => handle_16,
    "sysctl_handle_32" => handle_32,
    "sysctl_handle_int" => handle_32,
    "sysctl_handle_64" => handle_64,
    "sysctl_handle_long" => handle_64,
    "sysctl_handle_bool" => handle_bool,
    "sysctl_handle_string" => handle_string,
    "sysctl_handle_opaque" => handle_opaque,
    "sysctl_handle_counter_u64" => handle_counter,
    "sysctl_handle_counter_u64_array" => handle_counter_array,
    "sysctl_msec_to_ticks" => msec_to_ticks,
    "sysctl_msec_to_sbintime" => msec_to_sbintime,
    "sysctl_usec_to_sbintime" => usec_to_sbintime,
}
