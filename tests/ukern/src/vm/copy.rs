//! copyin(9), copyout(9), uiomove(9).

use std::ffi::{c_int, c_void};

use crate::kp::{Kp, bytes, bytes_mut};
use crate::sys;
use crate::vm::{self, PAGE};

/// From the running process's memory into `to`. May sleep. EFAULT may leave `to` partly filled.
pub(crate) fn copyin(uaddr: u64, to: &mut [u8]) -> i32 {
    let mut done = 0;
    let len = to.len();
    let r = vm::access(vm::current(), uaddr, len, false, |addr, n| {
        to[done..done + n].copy_from_slice(bytes(addr as *const u8, n));
        done += n;
    });
    r.map_or_else(|e| e.0, |()| 0)
}

/// From `from` to the running process's memory. May sleep. EFAULT may leave a part written.
pub(crate) fn copyout(from: &[u8], uaddr: u64) -> i32 {
    let mut done = 0;
    let r = vm::access(vm::current(), uaddr, from.len(), true, |addr, n| {
        bytes_mut(addr as *mut u8, n).copy_from_slice(&from[done..done + n]);
        done += n;
    });
    r.map_or_else(|e| e.0, |()| 0)
}

/// Moves `n` bytes between `cp` and the front of `uio`, which advances by what was moved.
fn move_bytes(cp: *mut u8, n: usize, uio: Kp<sys::uio>) -> i32 {
    let mut uio = uio;
    let (mut at, mut left) = (cp, n);
    while left > 0 && uio.uio_resid > 0 {
        let mut iov = Kp::new(uio.uio_iov);
        if iov.iov_len == 0 {
            uio.uio_iov = uio.uio_iov.wrapping_add(1);
            uio.uio_iovcnt -= 1;
            if uio.uio_iovcnt <= 0 {
                break;
            }
            continue;
        }
        let len = left.min(iov.iov_len);
        let base = iov.iov_base as usize;
        let e = match (uio.uio_segflg, uio.uio_rw) {
            (sys::UIO_USERSPACE, sys::UIO_READ) => copyout(bytes(at, len), base as u64),
            (sys::UIO_USERSPACE, _) => copyin(base as u64, bytes_mut(at, len)),
            (sys::UIO_SYSSPACE, sys::UIO_READ) => {
                bytes_mut(base as *mut u8, len).copy_from_slice(bytes(at, len));
                0
            }
            (sys::UIO_SYSSPACE, _) => {
                bytes_mut(at, len).copy_from_slice(bytes(base as *const u8, len));
                0
            }
            _ => 0,
        };
        if e != 0 {
            return e;
        }
        iov.iov_base = (base + len) as *mut c_void;
        iov.iov_len -= len;
        uio.uio_resid -= len as isize;
        uio.uio_offset += len as i64;
        at = at.wrapping_add(len);
        left -= len;
    }
    0
}

/// `uiomove`: `n` bytes between kernel memory at `cp` and `uio`. May sleep for a user `uio`.
pub(crate) fn uiomove(cp: *mut u8, n: usize, uio: Kp<sys::uio>) -> i32 {
    if uio.uio_segflg == sys::UIO_USERSPACE {
        crate::sched::check_may_sleep("uiomove");
    }
    move_bytes(cp, n, uio)
}

mod c {
    use super::*;

    pub(super) extern "C" fn copyin(u: u64, kaddr: *mut u8, len: usize) -> c_int {
        super::copyin(u, bytes_mut(kaddr, len))
    }
    pub(super) extern "C" fn copyout(kaddr: *const u8, u: u64, len: usize) -> c_int {
        super::copyout(bytes(kaddr, len), u)
    }
    pub(super) extern "C" fn uiomove(cp: *mut u8, n: c_int, uio: Kp<sys::uio>) -> c_int {
        super::uiomove(cp, n.max(0) as usize, uio)
    }
    /// Between an array of pages and a `uio`; a user `uio` may sleep.
    pub(super) extern "C" fn uiomove_fromphys(
        ma: *const *mut sys::vm_page,
        offset: u64,
        n: c_int,
        uio: Kp<sys::uio>,
    ) -> c_int {
        let mut off = offset as usize;
        let mut left = n.max(0) as usize;
        while left > 0 && uio.uio_resid > 0 {
            let m: *mut sys::vm_page =
                crate::kp::peek(ma as usize + off / PAGE * size_of::<usize>());
            let page_off = off % PAGE;
            let len = left.min(PAGE - page_off).min(uio.uio_resid as usize);
            let e = move_bytes((crate::phys::pa_of(m) + page_off) as *mut u8, len, uio);
            if e != 0 {
                return e;
            }
            off += len;
            left -= len;
        }
        0
    }
    pub(super) extern "C" fn fueword(u: u64, val: Kp<i64>) -> c_int {
        let mut b = [0; 8];
        if super::copyin(u, &mut b) != 0 {
            return -1;
        }
        let mut val = val;
        *val = i64::from_ne_bytes(b);
        0
    }
    pub(super) extern "C" fn suword(u: u64, val: i64) -> c_int {
        if super::copyout(&val.to_ne_bytes(), u) == 0 {
            0
        } else {
            -1
        }
    }
}

crate::exports! {
    "copyin" => c::copyin,
    "copyout" => c::copyout,
    "uiomove" => c::uiomove,
    "uiomove_fromphys" => c::uiomove_fromphys,
    "fueword" => c::fueword,
    "suword" => c::suword,
}
