//! The zones, allocation, external storage and its reference counts.

use std::ffi::c_void;

use super::{Ext, ExtFree, HDR, MHLEN, MLEN, Mbuf, PKTDAT, PktHdr};
use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::uma::{self, Hooks};
use crate::{kpanic, sys};

#[derive(Clone, Copy)]
struct Zones {
    mbuf: usize,
    clust: usize,
    jumbop: usize,
    jumbo9: usize,
    jumbo16: usize,
}

static ZONES: Global<Zones> = Global::new("mbuf zones");
pub(super) static ZONE_MBUF: KData = KData::of::<usize>("zone_mbuf");
pub(super) static ZONE_CLUST: KData = KData::of::<usize>("zone_clust");
pub(super) static ZONE_PACK: KData = KData::of::<usize>("zone_pack");
pub(super) static ZONE_JUMBOP: KData = KData::of::<usize>("zone_jumbop");
pub(super) static ZONE_JUMBO9: KData = KData::of::<usize>("zone_jumbo9");
pub(super) static ZONE_JUMBO16: KData = KData::of::<usize>("zone_jumbo16");
pub(super) static ZONE_EXTPGS: KData = KData::of::<usize>("zone_extpgs");

fn z() -> Zones {
    ZONES.with(|z| *z)
}

pub(crate) fn boot() {
    let plain = Hooks::default();
    let with_ctor = Hooks {
        ctor: Some(mbuf_ctor),
        ..plain
    };
    let mbuf = uma::create_builtin(
        "mbuf",
        sys::MSIZE as usize,
        with_ctor,
        sys::MSIZE as usize - 1,
        "mbuf",
    );
    let clust = uma::create_builtin("mbuf_cluster", sys::MCLBYTES as usize, plain, 2047, "mbuf");
    let jumbop = uma::create_builtin(
        "mbuf_jumbo_page",
        sys::MJUMPAGESIZE as usize,
        plain,
        4095,
        "mbuf",
    );
    let jumbo9 = uma::create_builtin(
        "mbuf_jumbo_9k",
        sys::MJUM9BYTES as usize,
        plain,
        511,
        "mbuf",
    );
    let jumbo16 = uma::create_builtin(
        "mbuf_jumbo_16k",
        sys::MJUM16BYTES as usize,
        plain,
        4095,
        "mbuf",
    );
    // An item of the packet zone is an mbuf with a cluster; the zone itself holds nothing.
    let pack = uma::create_redirect("mbuf_packet", pack_alloc, pack_free);
    ZONES.init(Zones {
        mbuf,
        clust,
        jumbop,
        jumbo9,
        jumbo16,
    });
    for (var, zone) in [
        (&ZONE_MBUF, mbuf),
        (&ZONE_CLUST, clust),
        (&ZONE_JUMBOP, jumbop),
        (&ZONE_JUMBO9, jumbo9),
        (&ZONE_JUMBO16, jumbo16),
        (&ZONE_PACK, pack),
        (&ZONE_EXTPGS, mbuf),
    ] {
        *var.get::<usize>() = zone;
    }
}

pub(crate) fn shutdown() {
    ZONES.take();
}

/// Live mbufs and clusters of any size.
#[must_use]
pub fn live() -> (usize, usize) {
    let z = z();
    (
        uma::live(z.mbuf),
        [z.clust, z.jumbop, z.jumbo9, z.jumbo16]
            .iter()
            .map(|&c| uma::live(c))
            .sum(),
    )
}

fn init(mut m: Kp<Mbuf>, type_: u32, flags: u32) {
    m.next = std::ptr::null_mut();
    m.nextpkt = std::ptr::null_mut();
    m.len = 0;
    m.set_type(type_);
    m.set_flags(flags);
    m.data = m.addr()
        + if flags & sys::M_PKTHDR != 0 {
            PKTDAT
        } else {
            HDR
        };
    if flags & sys::M_PKTHDR != 0 {
        m.pkt = PktHdr {
            rcvif: 0,
            leaf: 0,
            tags: 0,
            len: 0,
            flowid: 0,
            csum_flags: 0,
            rest: [0; 7],
        };
    }
}

extern "C" fn mbuf_ctor(mem: *mut c_void, _size: i32, arg: *mut c_void, _how: i32) -> i32 {
    let args: Kp<sys::mb_args> = Kp::new(arg.cast());
    if args.is_null() {
        kpanic!("an mbuf allocated with no arguments");
    }
    let type_ = u32::from(args.type_ as u16);
    // MT_NOINIT asks for an mbuf as it lies; `type` is then only good for statistics.
    if type_ & sys::MT_NOINIT != sys::MT_NOINIT {
        init(Kp::new(mem.cast()), type_, args.flags as u32);
    }
    0
}

fn pack_alloc(arg: *mut c_void, how: i32) -> *mut u8 {
    let z = z();
    let m = uma::alloc(z.mbuf, arg, how);
    if m.is_null() {
        return m;
    }
    let cl = uma::alloc(z.clust, std::ptr::null_mut(), how);
    if cl.is_null() {
        uma::free(z.mbuf, m, std::ptr::null_mut());
        return cl;
    }
    set_cluster(
        Kp::new(m.cast()),
        cl as usize,
        sys::MCLBYTES,
        sys::EXT_PACKET,
    );
    m
}

fn pack_free(item: *mut u8) {
    let z = z();
    let m: Kp<Mbuf> = Kp::new(item.cast());
    uma::free(z.clust, m.ext.buf as *mut u8, std::ptr::null_mut());
    uma::free(z.mbuf, item, std::ptr::null_mut());
}

fn set_cluster(mut m: Kp<Mbuf>, cl: usize, size: u32, type_: u32) {
    m.data = cl;
    let f = m.flags() | sys::M_EXT;
    m.set_flags(f);
    m.ext.buf = cl;
    m.ext.arg2 = 0;
    m.ext.free = None;
    m.ext.arg1 = 0;
    m.ext.size = size;
    m.ext.cnt = 1;
    m.set_ext(type_, sys::EXT_FLAG_EMBREF);
}

fn get_flags(how: i32, type_: u32, flags: u32) -> Option<Kp<Mbuf>> {
    let mut args = sys::mb_args {
        flags: flags as i32,
        type_: type_ as i16,
    };
    Kp::opt(uma::alloc(z().mbuf, (&raw mut args).cast(), how).cast())
}

/// `m_get`: `how` is M_NOWAIT or M_WAITOK.
#[must_use]
pub fn get(how: i32, type_: u32) -> Option<Kp<Mbuf>> {
    get_flags(how, type_, 0)
}

/// `m_gethdr`.
#[must_use]
pub fn gethdr(how: i32, type_: u32) -> Option<Kp<Mbuf>> {
    get_flags(how, type_, sys::M_PKTHDR)
}

/// `m_getcl`.
#[must_use]
pub fn getcl(how: i32, type_: u32, flags: u32) -> Option<Kp<Mbuf>> {
    let mut args = sys::mb_args {
        flags: flags as i32,
        type_: type_ as i16,
    };
    Kp::opt(pack_alloc((&raw mut args).cast(), how).cast())
}

fn cluster_zone(size: usize) -> (usize, u32) {
    let z = z();
    match size as u32 {
        sys::MCLBYTES => (z.clust, sys::EXT_CLUSTER),
        sys::MJUMPAGESIZE => (z.jumbop, sys::EXT_JUMBOP),
        sys::MJUM9BYTES => (z.jumbo9, sys::EXT_JUMBO9),
        sys::MJUM16BYTES => (z.jumbo16, sys::EXT_JUMBO16),
        _ => kpanic!("invalid cluster size {size}"),
    }
}

/// `m_cljget`: a cluster of this size, attached to the mbuf when there is one.
pub(super) fn cljget(m: *mut Mbuf, how: i32, size: usize) -> usize {
    let (zone, type_) = cluster_zone(size);
    let cl = uma::alloc(zone, std::ptr::null_mut(), how) as usize;
    if cl != 0
        && let Some(m) = Kp::opt(m)
    {
        set_cluster(m, cl, size as u32, type_);
    }
    cl
}

/// `m_getjcl`.
pub(super) fn getjcl(how: i32, type_: u32, flags: u32, size: usize) -> Option<Kp<Mbuf>> {
    if size == sys::MCLBYTES as usize {
        return getcl(how, type_, flags);
    }
    let m = get_flags(how, type_, flags)?;
    if cljget(m.ptr(), how, size) == 0 {
        uma::free(z().mbuf, m.ptr().cast(), std::ptr::null_mut());
        return None;
    }
    Some(m)
}

/// `m_get2`: one mbuf with room for `size` bytes, up to a page.
pub(super) fn get2(size: usize, how: i32, type_: u32, flags: u32, max: usize) -> Option<Kp<Mbuf>> {
    let own = if flags & sys::M_PKTHDR != 0 {
        MHLEN
    } else {
        MLEN
    };
    if size <= own {
        return get_flags(how, type_, flags);
    }
    let cl = [
        sys::MCLBYTES,
        sys::MJUMPAGESIZE,
        sys::MJUM9BYTES,
        sys::MJUM16BYTES,
    ]
    .map(|c| c as usize)
    .into_iter()
    .find(|&c| c >= size)?;
    if cl > max {
        return None;
    }
    getjcl(how, type_, flags, cl)
}

/// `m_getm2`: a chain with room for `len` bytes, appended to `m`.
#[must_use]
pub fn getm(m: Option<Kp<Mbuf>>, len: usize, how: i32, type_: u32, flags: u32) -> Option<Kp<Mbuf>> {
    let mut flags = if m.is_some() {
        0
    } else {
        flags & sys::M_PKTHDR
    };
    let mut head: Option<Kp<Mbuf>> = None;
    let mut tail: Option<Kp<Mbuf>> = None;
    let mut left = len;
    while left > 0 || head.is_none() {
        let own = if flags & sys::M_PKTHDR != 0 {
            MHLEN
        } else {
            MLEN
        };
        let got = if left > sys::MCLBYTES as usize {
            getjcl(how, type_, flags, sys::MJUMPAGESIZE as usize)
        } else if left > own {
            getcl(how, type_, flags)
        } else {
            get_flags(how, type_, flags)
        };
        let Some(n) = got else {
            if let Some(h) = head {
                super::freem(h.ptr());
            }
            return None;
        };
        flags = 0;
        left = left.saturating_sub(super::size(n));
        match &mut tail {
            Some(t) => t.next = n.ptr(),
            None => head = Some(n),
        }
        tail = Some(n);
    }
    match m {
        Some(m) => {
            let mut at = m;
            while let Some(n) = Kp::opt(at.next) {
                at = n;
            }
            at.next = head.map_or(std::ptr::null_mut(), Kp::ptr);
            Some(m)
        }
        None => head,
    }
}

/// `m_extadd`: gives the mbuf storage of the caller's.
pub fn ext_add(
    mut m: Kp<Mbuf>,
    buf: usize,
    size: u32,
    free: Option<ExtFree>,
    args: (usize, usize),
    flags: u32,
    type_: u32,
) {
    let f = m.flags() | sys::M_EXT | flags;
    m.set_flags(f);
    m.ext.buf = buf;
    m.data = buf;
    m.ext.size = size;
    m.ext.free = free;
    m.ext.arg1 = args.0;
    m.ext.arg2 = args.1;
    if type_ == sys::EXT_EXTREF {
        m.set_ext(type_, 0);
    } else {
        m.ext.cnt = 1;
        m.set_ext(type_, sys::EXT_FLAG_EMBREF);
    }
}

/// The reference count of the storage, and with EXT_FLAG_EMBREF the mbuf that carries it.
pub(super) fn refcount(m: Kp<Mbuf>) -> Kp<u32> {
    let embedded = m.ext_flags() & sys::EXT_FLAG_EMBREF != 0;
    let at = if embedded {
        m.addr() + std::mem::offset_of!(Mbuf, ext.cnt)
    } else {
        m.ext.cnt
    };
    Kp::new(at as *mut u32)
}

/// The mbuf that carries the count and the free routine.
fn carrier(m: Kp<Mbuf>) -> Kp<Mbuf> {
    if m.ext_flags() & sys::EXT_FLAG_EMBREF != 0 || m.ext_type() == sys::EXT_EXTREF {
        return m;
    }
    Kp::new((m.ext.cnt - std::mem::offset_of!(Mbuf, ext.cnt)) as *mut Mbuf)
}

/// `mb_dupcl`: `n` becomes another reference to the storage of `m`.
pub fn add_ref(mut n: Kp<Mbuf>, m: Kp<Mbuf>) {
    if !m.has(sys::M_EXT) || n.has(sys::M_EXT | sys::M_EXTPG) {
        kpanic!("mb_dupcl with mbufs that do not fit");
    }
    let extref = m.ext_type() == sys::EXT_EXTREF;
    let cnt = refcount(m);
    {
        let mut c = cnt;
        *c += 1;
    }
    let from: &Ext = &m.ext;
    let (buf, arg2, sz, more) = (from.buf, from.arg2, from.size, from.more);
    n.ext.buf = buf;
    n.ext.arg2 = arg2;
    n.ext.size = sz;
    n.ext.more = more;
    n.ext.free = if extref { m.ext.free } else { None };
    n.ext.arg1 = if extref { m.ext.arg1 } else { 0 };
    n.ext.cnt = cnt.addr();
    let (t, f) = (m.ext_type(), m.ext_flags() & !sys::EXT_FLAG_EMBREF);
    n.set_ext(t, f);
    if m.has(sys::M_EXTPG) {
        *super::epg(n) = *super::epg(m);
    }
    let f = n.flags() | sys::M_EXT | (m.flags() & (sys::M_RDONLY | sys::M_EXTPG));
    n.set_flags(f);
}

fn free_mbuf(m: Kp<Mbuf>) {
    uma::free(z().mbuf, m.ptr().cast(), std::ptr::null_mut());
}

/// `mb_unmapped_compress`: an unmapped mbuf of at most MLEN bytes becomes an ordinary one with a
/// copy of them, unless it is shared. True if it did.
pub fn unmapped_compress(m: Kp<Mbuf>) -> bool {
    if m.has(sys::M_PKTHDR) || !m.has(sys::M_EXTPG) || m.data_len() > MLEN {
        kpanic!("mb_unmapped_compress: mbuf {:p}", m.ptr());
    }
    if *refcount(m) != 1 {
        return false;
    }
    let mut bytes = vec![0; m.data_len()];
    super::copydata(m.ptr(), 0, &mut bytes);
    match m.ext.free {
        Some(f) => f(m),
        None => kpanic!("mbuf {:p}: external storage with no free routine", m.ptr()),
    }
    let mut m = m;
    let flags = m.flags() & !(sys::M_EXT | sys::M_RDONLY | sys::M_EXTPG);
    m.set_flags(flags);
    m.data = m.addr() + HDR;
    crate::kp::bytes_mut(m.data as *mut u8, bytes.len()).copy_from_slice(&bytes);
    true
}

/// `mb_free_ext` and `mb_free_extpg`: drops a reference, and the mbuf with it.
pub fn free_ext(m: Kp<Mbuf>) {
    let mut cnt = refcount(m);
    if *cnt == 0 {
        kpanic!(
            "mbuf {:p}: storage freed more often than referenced",
            m.ptr()
        );
    }
    let extref = m.ext_type() == sys::EXT_EXTREF;
    let keeper = carrier(m);
    let freeable = !m.has(sys::M_NOFREE);
    *cnt -= 1;
    if *cnt > 0 {
        // The carrier of a count still in use stays until the last reference goes.
        if (extref || keeper != m) && freeable {
            free_mbuf(m);
        }
        return;
    }
    let z = z();
    let null = std::ptr::null_mut();
    let call_free = |k: Kp<Mbuf>| match k.ext.free {
        Some(f) => f(k),
        None => kpanic!("mbuf {:p}: external storage with no free routine", k.ptr()),
    };
    let mut keeper_gone = false;
    if m.has(sys::M_EXTPG) {
        call_free(keeper);
    } else {
        let buf = m.ext.buf as *mut u8;
        match m.ext_type() {
            sys::EXT_PACKET => {
                pack_free(keeper.ptr().cast());
                keeper_gone = true;
            }
            sys::EXT_CLUSTER => uma::free(z.clust, buf, null),
            sys::EXT_JUMBOP => uma::free(z.jumbop, buf, null),
            sys::EXT_JUMBO9 => uma::free(z.jumbo9, buf, null),
            sys::EXT_JUMBO16 => uma::free(z.jumbo16, buf, null),
            _ => call_free(keeper),
        }
    }
    if keeper != m && !extref && !keeper_gone && !keeper.has(sys::M_NOFREE) {
        free_mbuf(keeper);
    }
    if !(keeper == m && keeper_gone) && freeable {
        free_mbuf(m);
    }
}

/// `m_free`: frees one mbuf and returns the next of its chain.
pub fn free(m: Kp<Mbuf>) -> *mut Mbuf {
    if uma::was_freed(z().mbuf, m.addr()) {
        kpanic!("double free of mbuf {:p}", m.ptr());
    }
    let next = m.next;
    if m.has(sys::M_PKTHDR) && m.has(sys::M_EXTPG) {
        kpanic!(
            "mbuf {:p} has both a packet header and unmapped pages",
            m.ptr()
        );
    }
    if m.has(sys::M_PKTHDR) && m.pkt.tags != 0 {
        kpanic!(
            "mbuf {:p} freed with packet tags, which ukern does not make",
            m.ptr()
        );
    }
    if m.has(sys::M_EXT | sys::M_EXTPG) {
        free_ext(m);
    } else if !m.has(sys::M_NOFREE) {
        free_mbuf(m);
    }
    next
}
