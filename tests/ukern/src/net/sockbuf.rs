//! Socket buffers: a stream of mbufs with its accounting (uipc_sockbuf.c).
//!
//! Every function ending in `_locked`, and every one that says so, needs the buffer's mutex
//! (SOCK_RECVBUF_LOCK or SOCK_SENDBUF_LOCK). The mutex is asserted, also for module callers.

use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::acc::{SockbufExt, SocketExt, Which, at};
use crate::net::k;
use crate::net::m::{self, MbufExt};
use crate::{kpanic, sys};

/// `sb_max`: most bytes one buffer may hold (kern.ipc.maxsockbuf).
pub(crate) static SB_MAX: KData =
    KData::of::<u64>("sb_max").with_init(|p| crate::kp::poke(p as usize, u64::from(sys::SB_MAX)));

crate::exports_data! { SB_MAX }

/// How many times the byte limit of mbuf memory a buffer may take (kern.ipc.sockbuf_waste_factor).
const EFFICIENCY: u64 = 8;

/// `sb_max` less the room mbuf headers take.
fn sb_max_adj() -> u64 {
    let max = *SB_MAX.get::<u64>();
    let (msize, cl) = (u64::from(sys::MSIZE), u64::from(sys::MCLBYTES));
    max * cl / (msize + cl)
}

fn owner_mtx(sb: Kp<sys::sockbuf>) -> *mut sys::mtx {
    sb.d().sb_mtx
}

#[track_caller]
fn assert_locked(sb: Kp<sys::sockbuf>) {
    k::mtx_assert_owned(owner_mtx(sb));
}

/// `sbreserve_locked_limit`: sets the high-water mark to `cc` bytes; false when that is too much.
pub(crate) fn reserve_locked(so: Kp<sys::socket>, which: Which, cc: u64) -> bool {
    let mut sb = so.sb(which);
    k::mtx_assert_owned(so.sb_mtx(which));
    if cc > sb_max_adj() {
        return false;
    }
    sb.sb_hiwat = cc as u32;
    sb.sb_mbmax = (cc * EFFICIENCY).min(*SB_MAX.get::<u64>()) as u32;
    if sb.sb_lowat > sb.sb_hiwat {
        sb.sb_lowat = sb.sb_hiwat;
    }
    true
}

/// Counts an mbuf in (`sballoc`). Buffer lock held.
pub(crate) fn alloc(mut sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>) {
    sb.sb_ccc += m.m_len as u32;
    if sb.d().sb_fnrdy.is_null() {
        if m.not_ready() {
            sb.d().sb_fnrdy = m.ptr();
        } else {
            sb.sb_acc += m.m_len as u32;
        }
    }
    sb.sb_mbcnt += m.footprint();
}

/// Counts an mbuf out (`sbfree`). Buffer lock held.
pub(crate) fn free(mut sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>) {
    let len = m.m_len as u32;
    if sb.sb_ccc < len {
        kpanic!("sbfree: sb_ccc {} below mbuf of {len}", sb.sb_ccc);
    }
    sb.sb_ccc -= len;
    if std::ptr::eq(sb.d().sb_fnrdy, m.ptr()) {
        // What stood behind the first unready mbuf becomes available, up to the next such.
        let mut at = m.next();
        while let Some(n) = at {
            if n.not_ready() {
                break;
            }
            sb.sb_acc += n.m_len as u32;
            at = n.next();
        }
        sb.d().sb_fnrdy = at.map_or(std::ptr::null_mut(), Kp::ptr);
    } else {
        if sb.sb_acc < len {
            kpanic!("sbfree: sb_acc {} below mbuf of {len}", sb.sb_acc);
        }
        sb.sb_acc -= len;
    }
    sb.sb_mbcnt -= m.footprint();
    let mut d = sb.d();
    if std::ptr::eq(d.sb_sndptr, m.ptr()) {
        d.sb_sndptr = std::ptr::null_mut();
        d.sb_sndptroff = 0;
    }
    if d.sb_sndptroff != 0 {
        d.sb_sndptroff = d.sb_sndptroff.saturating_sub(len);
    }
}

fn empty_fixup(sb: Kp<sys::sockbuf>) {
    let mut d = sb.d();
    if d.sb_mb.is_null() {
        d.sb_mbtail = std::ptr::null_mut();
        d.sb_lastrecord = std::ptr::null_mut();
    }
}

/// Appends a chain behind `n` (the present tail, or none), merging small mbufs into room left
/// over and copying short unmapped ones, as `sbcompress` does. Buffer lock held.
fn compress(sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>, tail: Option<Kp<sys::mbuf>>) {
    let mut at = Some(m);
    let mut tail = tail;
    while let Some(m) = at {
        let next = m.next();
        if m.m_len == 0 {
            m::free(m);
            at = next;
            continue;
        }
        if let Some(mut n) = tail
            && sb.flags() & sys::SB_NOCOALESCE == 0
            && !n.extpg()
            && !m.not_ready()
            && !n.not_ready()
            && m.m_len as u32 <= sys::MCLBYTES / 4
            && m.b().type_() == n.b().type_()
            && m::writable(n)
            && m.m_len as usize <= m::trailing_space(n)
        {
            m::write_behind(n, &m::bytes_of(m));
            n.m_len += m.m_len;
            let mut s = sb;
            s.sb_ccc += m.m_len as u32;
            if s.d().sb_fnrdy.is_null() {
                s.sb_acc += m.m_len as u32;
            }
            m::free(m);
            at = next;
            continue;
        }
        if m.extpg() && !m.not_ready() && m.m_len as usize <= crate::mbuf::MLEN {
            crate::mbuf::unmapped_compress(m.b());
        }
        let mut d = sb.d();
        match tail {
            Some(n) => n.set_next(Some(m)),
            None => d.sb_mb = m.ptr(),
        }
        d.sb_mbtail = m.ptr();
        alloc(sb, m);
        m.set_next(None);
        tail = Some(m);
        at = next;
    }
}

/// `sbappendstream_locked`.
pub(crate) fn append_stream_locked(sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>) {
    assert_locked(sb);
    if !m.b().nextpkt.is_null() {
        kpanic!("sbappendstream: m_nextpkt set");
    }
    let mut d = sb.d();
    if !std::ptr::eq(d.sb_mb, d.sb_lastrecord) {
        kpanic!("sbappendstream: sb_mb is not sb_lastrecord");
    }
    compress(sb, m, Kp::opt(d.sb_mbtail));
    d.sb_lastrecord = d.sb_mb;
    check(sb);
}

/// `sbappendstream`: takes the buffer's lock.
pub(crate) fn append_stream(sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>) {
    let mtx = owner_mtx(sb);
    k::mtx_lock(mtx);
    append_stream_locked(sb, m);
    k::mtx_unlock(mtx);
}

/// Takes `len` bytes off the front (`sbcut_internal`); returns the chain cut off.
fn cut(mut sb: Kp<sys::sockbuf>, len: u32) -> Option<Kp<sys::mbuf>> {
    if len > sb.sb_ccc {
        kpanic!("sbdrop: {len} bytes of {}", sb.sb_ccc);
    }
    let mut left = len as i32;
    let mut at = Kp::opt(sb.d().sb_mb);
    let mut gone: Option<Kp<sys::mbuf>> = None;
    let mut gone_tail: Option<Kp<sys::mbuf>> = None;
    let mut move_over = |m: Kp<sys::mbuf>| {
        m.set_next(None);
        match gone_tail {
            Some(t) => t.set_next(Some(m)),
            None => gone = Some(m),
        }
        gone_tail = Some(m);
    };
    while left > 0 {
        let Some(mut m) = at else {
            kpanic!("sbdrop: {left} bytes past the last mbuf")
        };
        if m.m_len > left {
            m.m_data = m.m_data.wrapping_add(left as usize);
            m.m_len -= left;
            sb.sb_ccc -= left as u32;
            if !std::ptr::eq(sb.d().sb_fnrdy, m.ptr()) {
                sb.sb_acc -= left as u32;
            }
            let mut d = sb.d();
            if d.sb_sndptroff != 0 {
                d.sb_sndptroff = d.sb_sndptroff.saturating_sub(left as u32);
            }
            break;
        }
        left -= m.m_len;
        free(sb, m);
        at = m.next();
        move_over(m);
    }
    // Empty mbufs at the new front go with it.
    while let Some(m) = at {
        if m.m_len != 0 {
            break;
        }
        free(sb, m);
        at = m.next();
        move_over(m);
    }
    let mut d = sb.d();
    let front = at.map_or(std::ptr::null_mut(), Kp::ptr);
    d.sb_mb = front;
    d.sb_lastrecord = front;
    empty_fixup(sb);
    check(sb);
    gone
}

/// `sbdrop_locked`: drops `len` bytes off the front. mbufs are freed with the lock held, so a
/// driver's free routine runs under it, as on FreeBSD.
pub(crate) fn drop_locked(sb: Kp<sys::sockbuf>, len: u32) {
    assert_locked(sb);
    if let Some(m) = cut(sb, len) {
        m::freem(m);
    }
}

/// `sbcut_locked`.
pub(crate) fn cut_locked(sb: Kp<sys::sockbuf>, len: u32) -> Option<Kp<sys::mbuf>> {
    assert_locked(sb);
    cut(sb, len)
}

/// `sbflush_locked`: drops everything, ready or not.
pub(crate) fn flush_locked(sb: Kp<sys::sockbuf>) {
    assert_locked(sb);
    if !sb.d().sb_mb.is_null()
        && let Some(m) = cut(sb, sb.sb_ccc)
    {
        m::freem(m);
    }
    if sb.sb_ccc != 0 || !sb.d().sb_mb.is_null() || sb.sb_mbcnt != 0 {
        kpanic!(
            "sbflush: ccc {} mb {:p} mbcnt {}",
            sb.sb_ccc,
            sb.d().sb_mb,
            sb.sb_mbcnt
        );
    }
}

/// `sbrelease_locked`: flushes and gives the reservation back, so the marks read 0.
pub(crate) fn release_locked(so: Kp<sys::socket>, which: Which) {
    let mut sb = so.sb(which);
    flush_locked(sb);
    sb.sb_hiwat = 0;
    sb.sb_mbmax = 0;
}

/// Walks the chain and compares it with the counts: what SOCKBUF_DEBUG would do. Of long chains
/// only some are walked, or large buffers would cost quadratic time.
fn check(sb: Kp<sys::sockbuf>) {
    let long = sb.sb_mbcnt > 64 * sys::MCLBYTES;
    if long && (sb.sb_ccc ^ (sb.sb_ccc >> 8)) & 15 != 0 {
        return;
    }
    let (mut cc, mut mbcnt) = (0_u32, 0_u32);
    let mut last: *mut sys::mbuf = std::ptr::null_mut();
    let mut at = Kp::opt(sb.d().sb_mb);
    while let Some(m) = at {
        cc += m.m_len as u32;
        mbcnt += m.footprint();
        last = m.ptr();
        at = m.next();
    }
    let d = sb.d();
    if cc != sb.sb_ccc
        || mbcnt != sb.sb_mbcnt
        || !std::ptr::eq(last, d.sb_mbtail)
        || sb.sb_acc > sb.sb_ccc
    {
        kpanic!(
            "sockbuf {:#x}: chain has {cc} bytes in {mbcnt}, tail {last:p}; counted ccc {} acc {} mbcnt {} tail {:p}",
            sb.addr(),
            sb.sb_ccc,
            sb.sb_acc,
            sb.sb_mbcnt,
            d.sb_mbtail
        );
    }
}

/// The mbuf that holds byte `off`, and the offset in it (`sbsndmbuf`).
fn find(sb: Kp<sys::sockbuf>, off: u32) -> (*mut sys::mbuf, u32) {
    let mut off = off;
    let mut at = Kp::opt(sb.d().sb_mb);
    while let Some(m) = at {
        if off < m.m_len as u32 {
            return (m.ptr(), off);
        }
        off -= m.m_len as u32;
        match m.next() {
            None if off == 0 => return (m.ptr(), m.m_len as u32),
            n => at = n,
        }
    }
    (std::ptr::null_mut(), 0)
}

/// `sbsndptr_adv`: the send pointer moves `len` bytes on from `mb`.
fn sndptr_adv(sb: Kp<sys::sockbuf>, mb: Kp<sys::mbuf>, len: u32) {
    assert_locked(sb);
    let mut d = sb.d();
    let mut len = len;
    let mut at = if d.sb_sndptr.is_null() {
        d.sb_sndptr = d.sb_mb;
        d.sb_sndptroff = 0;
        Kp::opt(d.sb_mb)
    } else {
        Some(mb)
    };
    while let Some(m) = at {
        if len == 0 {
            return;
        }
        if len < m.m_len as u32 {
            return;
        }
        len -= m.m_len as u32;
        match m.next() {
            Some(n) => {
                d.sb_sndptroff += m.m_len as u32;
                d.sb_sndptr = n.ptr();
                at = Some(n);
            }
            None => return,
        }
    }
    if len > 0 {
        kpanic!("sbsndptr_adv: {len} bytes past the chain");
    }
}

/// Sleeps until the buffer changes (`sbwait`). Lock held on entry and return.
///
/// Returns 0, EWOULDBLOCK after `sb_timeo`, or EINTR.
pub(crate) fn wait(so: Kp<sys::socket>, which: Which) -> i32 {
    let sb = so.sb(which);
    k::mtx_assert_owned(so.sb_mtx(which));
    sb.set_flags(sys::SB_WAIT, 0);
    let timeo = (sb.sb_timeo != 0).then_some(sb.sb_timeo);
    k::msleep(sb.acc_chan(), so.sb_mtx(which), true, "sbwait", timeo)
}

/// `soiolock`: 0, EWOULDBLOCK without SBL_WAIT, EINTR, or ENOTCONN on a socket that listens.
pub(crate) fn io_lock(so: Kp<sys::socket>, which: Which, flags: u32) -> i32 {
    io_lock_sx(so, so.io_sx(which), flags)
}

fn io_lock_sx(so: Kp<sys::socket>, sx: *mut sys::sx, flags: u32) -> i32 {
    if flags & !(sys::SBL_VALID) != 0 {
        kpanic!("soiolock: flags {flags:#x}");
    }
    if flags & sys::SBL_WAIT == 0 {
        if !k::sx_try_xlock(sx) {
            return sys::EWOULDBLOCK as i32;
        }
    } else if flags & sys::SBL_NOINTR != 0 {
        k::sx_xlock(sx);
    } else {
        let e = k::sx_xlock_sig(sx);
        if e != 0 {
            return e;
        }
    }
    if so.listening() {
        k::sx_xunlock(sx);
        return sys::ENOTCONN as i32;
    }
    0
}

/// `soiounlock`.
pub(crate) fn io_unlock(so: Kp<sys::socket>, which: Which) {
    k::sx_xunlock(so.io_sx(which));
}

/// Initial state of one buffer of a fresh socket.
pub(crate) fn init(
    so: Kp<sys::socket>,
    which: Which,
    task: unsafe extern "C" fn(*mut std::ffi::c_void, i32),
) {
    let mut sb = so.sb(which);
    sb.d().sb_mtx = so.sb_mtx(which);
    sb.sb_sel = match which {
        Which::Rcv => at!(so, so_rdsel),
        Which::Snd => at!(so, so_wrsel),
    };
    sb.aioq().init();
    sb.sb_aiotask.ta_func = Some(task);
    sb.sb_aiotask.ta_context = so.ptr().cast();
}

mod c {
    //! The names modules link against.
    use super::*;
    use std::ffi::{c_int, c_void};

    pub(super) extern "C" fn sbappendstream(sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>, _flags: c_int) {
        append_stream(sb, m);
    }
    pub(super) extern "C" fn sbappendstream_locked(
        sb: Kp<sys::sockbuf>,
        m: Kp<sys::mbuf>,
        _flags: c_int,
    ) {
        append_stream_locked(sb, m);
    }
    pub(super) extern "C" fn sbdrop(sb: Kp<sys::sockbuf>, len: c_int) {
        let mtx = owner_mtx(sb);
        k::mtx_lock(mtx);
        drop_locked(sb, len as u32);
        k::mtx_unlock(mtx);
    }
    pub(super) extern "C" fn sbdrop_locked(sb: Kp<sys::sockbuf>, len: c_int) {
        drop_locked(sb, len as u32);
    }
    pub(super) extern "C" fn sbcut_locked(sb: Kp<sys::sockbuf>, len: c_int) -> *mut sys::mbuf {
        cut_locked(sb, len as u32).map_or(std::ptr::null_mut(), Kp::ptr)
    }
    pub(super) extern "C" fn sbflush(sb: Kp<sys::sockbuf>) {
        let mtx = owner_mtx(sb);
        k::mtx_lock(mtx);
        flush_locked(sb);
        k::mtx_unlock(mtx);
    }
    pub(super) extern "C" fn sbflush_locked(sb: Kp<sys::sockbuf>) {
        flush_locked(sb);
    }
    pub(super) extern "C" fn sbreserve_locked(
        so: Kp<sys::socket>,
        which: u32,
        cc: u64,
        _td: *mut c_void,
    ) -> bool {
        reserve_locked(so, from_c(which), cc)
    }
    pub(super) extern "C" fn sbsndptr_adv(sb: Kp<sys::sockbuf>, mb: Kp<sys::mbuf>, len: u32) {
        sndptr_adv(sb, mb, len);
    }
    pub(super) extern "C" fn sbsndmbuf(
        sb: Kp<sys::sockbuf>,
        off: u32,
        moff: Kp<u32>,
    ) -> *mut sys::mbuf {
        let (m, o) = find(sb, off);
        let mut moff = moff;
        *moff = o;
        m
    }
    pub(super) extern "C" fn soiolock(
        so: Kp<sys::socket>,
        sx: *mut sys::sx,
        flags: c_int,
    ) -> c_int {
        io_lock_sx(so, sx, flags as u32)
    }
    pub(super) extern "C" fn soiounlock(sx: *mut sys::sx) {
        k::sx_xunlock(sx);
    }
    pub(super) extern "C" fn sbwait(so: Kp<sys::socket>, which: u32) -> c_int {
        wait(so, from_c(which))
    }
    pub(super) extern "C" fn sballoc(sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>) {
        alloc(sb, m);
    }
    pub(super) extern "C" fn sbfree(sb: Kp<sys::sockbuf>, m: Kp<sys::mbuf>) {
        free(sb, m);
    }
}

/// From C's `sb_which`.
pub(crate) fn from_c(which: u32) -> Which {
    match which {
        0 => Which::Rcv,
        1 => Which::Snd,
        other => kpanic!("sb_which {other}"),
    }
}

crate::exports! {
    "sbappendstream" => c::sbappendstream,
    "sbappendstream_locked" => c::sbappendstream_locked,
    "sbdrop" => c::sbdrop,
    "sbdrop_locked" => c::sbdrop_locked,
    "sbcut_locked" => c::sbcut_locked,
    "sbflush" => c::sbflush,
    "sbflush_locked" => c::sbflush_locked,
    "sbreserve_locked" => c::sbreserve_locked,
    "sbsndptr_adv" => c::sbsndptr_adv,
    "sbsndmbuf" => c::sbsndmbuf,
    "sbwait" => c::sbwait,
    "sballoc" => c::sballoc,
    "sbfree" => c::sbfree,
    "soiolock" => c::soiolock,
    "soiounlock" => c::soiounlock,
}
