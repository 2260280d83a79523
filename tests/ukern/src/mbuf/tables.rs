//! The C entry points.

use std::ffi::c_void;

use super::zones::{
    self, ZONE_CLUST, ZONE_EXTPGS, ZONE_JUMBO9, ZONE_JUMBO16, ZONE_JUMBOP, ZONE_MBUF, ZONE_PACK,
};
use super::{ExtFree, Mbuf, chain, pages};
use crate::kp::{Kp, bytes, bytes_mut};
use crate::ksym::KData;
use crate::lowmem::PAGE;
use crate::{kpanic, sys};

fn raw(m: Option<Kp<Mbuf>>) -> *mut Mbuf {
    m.map_or(std::ptr::null_mut(), Kp::ptr)
}

fn n(v: i32) -> usize {
    match usize::try_from(v) {
        Ok(v) => v,
        Err(_) => kpanic!("mbuf routine with the negative count {v}"),
    }
}

extern "C" fn m_freem(m: *mut Mbuf) {
    chain::freem(m);
}
extern "C" fn m_freemp(m: *mut Mbuf) {
    let mut at = m;
    while let Some(p) = Kp::opt(at) {
        at = p.nextpkt;
        chain::freem(p.ptr());
    }
}
extern "C" fn m_free_raw(m: Kp<Mbuf>) {
    crate::uma::free(
        *ZONE_MBUF.get::<usize>(),
        m.ptr().cast(),
        std::ptr::null_mut(),
    );
}
extern "C" fn mb_free_ext(m: Kp<Mbuf>) {
    zones::free_ext(m);
}
extern "C" fn mb_dupcl(to: Kp<Mbuf>, from: Kp<Mbuf>) {
    zones::add_ref(to, from);
}
extern "C" fn mb_alloc_ext_pgs(how: i32, free: Option<ExtFree>, flags: i32) -> *mut Mbuf {
    raw(pages::alloc_ext_pgs(how, free, flags as u32))
}
/// Frees the pages an M_EXTPG mbuf owns (made by mb_alloc_ext_plus_pages).
extern "C" fn mb_free_mext_pgs(_m: Kp<Mbuf>) {
    kpanic!("mb_free_mext_pgs: ukern makes no such mbufs");
}
extern "C" fn m_adj(m: *mut Mbuf, by: i32) {
    chain::adj(m, i64::from(by));
}
extern "C" fn m_append(m: Kp<Mbuf>, len: i32, from: *const u8) -> i32 {
    i32::from(chain::append(m, bytes(from, n(len))))
}
extern "C" fn m_cat(m: Kp<Mbuf>, x: *mut Mbuf) {
    chain::cat(m, x);
}
extern "C" fn m_catpkt(mut m: Kp<Mbuf>, x: Kp<Mbuf>) {
    m.pkt.len += x.pkt.len;
    chain::demote(x.ptr(), true, 0);
    chain::cat(m, x.ptr());
}
extern "C" fn m_clget(m: Kp<Mbuf>, how: i32) -> i32 {
    i32::from(zones::cljget(m.ptr(), how, sys::MCLBYTES as usize) != 0)
}
extern "C" fn m_cljget(m: *mut Mbuf, how: i32, size: i32) -> usize {
    zones::cljget(m, how, n(size))
}
extern "C" fn m_copyback(m: *mut Mbuf, off: i32, len: i32, from: *const u8) {
    chain::copyback(m, n(off), bytes(from, n(len)));
}
extern "C" fn m_copydata(m: *mut Mbuf, off: i32, len: i32, to: *mut u8) {
    chain::copydata(m, n(off), bytes_mut(to, n(len)));
}
extern "C" fn m_copym(m: *mut Mbuf, off: i32, len: i32, how: i32) -> *mut Mbuf {
    chain::copym(m, n(off), n(len), how)
}
extern "C" fn m_copypacket(m: *mut Mbuf, how: i32) -> *mut Mbuf {
    chain::copym(m, 0, sys::M_COPYALL as usize, how)
}
extern "C" fn m_dup(m: *mut Mbuf, how: i32) -> *mut Mbuf {
    chain::dup(m, how)
}
extern "C" fn m_dup_pkthdr(to: Kp<Mbuf>, from: Kp<Mbuf>, _how: i32) -> i32 {
    chain::dup_pkthdr(to, from);
    1
}
extern "C" fn m_move_pkthdr(to: Kp<Mbuf>, from: Kp<Mbuf>) {
    chain::c_move_pkthdr(to, from);
}
extern "C" fn m_demote_pkthdr(mut m: Kp<Mbuf>) {
    let f = m.flags() & !sys::M_PKTHDR;
    m.set_flags(f);
}
extern "C" fn m_demote(m: *mut Mbuf, all: i32, flags: i32) {
    chain::demote(m, all != 0, flags as u32);
}
extern "C" fn m_defrag(m: *mut Mbuf, how: i32) -> *mut Mbuf {
    chain::defrag(m, how)
}
extern "C" fn m_collapse(m: *mut Mbuf, how: i32, max: i32) -> *mut Mbuf {
    chain::collapse(m, how, n(max))
}
extern "C" fn m_extadd(
    m: Kp<Mbuf>,
    buf: usize,
    size: u32,
    free: Option<ExtFree>,
    arg1: usize,
    arg2: usize,
    flags: i32,
    type_: i32,
) {
    zones::ext_add(m, buf, size, free, (arg1, arg2), flags as u32, type_ as u32);
}
extern "C" fn m_fixhdr(m: Kp<Mbuf>) -> u32 {
    chain::fixhdr(m)
}
extern "C" fn m_get2(size: i32, how: i32, type_: i16, flags: i32) -> *mut Mbuf {
    raw(zones::get2(n(size), how, type_ as u32, flags as u32, PAGE))
}
extern "C" fn m_get3(size: i32, how: i32, type_: i16, flags: i32) -> *mut Mbuf {
    raw(zones::get2(
        n(size),
        how,
        type_ as u32,
        flags as u32,
        sys::MJUM16BYTES as usize,
    ))
}
extern "C" fn m_getjcl(how: i32, type_: i16, flags: i32, size: i32) -> *mut Mbuf {
    raw(zones::getjcl(how, type_ as u32, flags as u32, n(size)))
}
extern "C" fn m_getm2(m: *mut Mbuf, len: i32, how: i32, type_: i16, flags: i32) -> *mut Mbuf {
    raw(zones::getm(
        Kp::opt(m),
        n(len),
        how,
        type_ as u32,
        flags as u32,
    ))
}
extern "C" fn m_getptr(m: *mut Mbuf, loc: i32, mut off: Kp<i32>) -> *mut Mbuf {
    match chain::getptr(m, n(loc)) {
        Some((m, o)) => {
            *off = o as i32;
            m
        }
        None => std::ptr::null_mut(),
    }
}
extern "C" fn m_length(m: *mut Mbuf, last: *mut *mut Mbuf) -> u32 {
    let (len, l) = chain::length(m);
    if let Some(mut p) = Kp::opt(last) {
        *p = l;
    }
    len as u32
}
extern "C" fn m_pkthdr_init(m: Kp<Mbuf>, _how: i32) -> i32 {
    let mut m = m;
    m.data = m.addr() + super::PKTDAT;
    chain::clear_pkthdr(m);
    0
}
extern "C" fn m_prepend(m: *mut Mbuf, len: i32, how: i32) -> *mut Mbuf {
    chain::prepend(m, n(len), how)
}
extern "C" fn m_pullup(m: *mut Mbuf, len: i32) -> *mut Mbuf {
    chain::pullup(m, n(len))
}
extern "C" fn m_sanity(m: *mut Mbuf, _sanitize: i32) -> i32 {
    i32::from(chain::sane(m))
}
extern "C" fn m_split(m: *mut Mbuf, len: i32, how: i32) -> *mut Mbuf {
    chain::split(m, n(len), how)
}
extern "C" fn m_apply(
    m: *mut Mbuf,
    off: i32,
    len: i32,
    f: extern "C" fn(*mut c_void, usize, u32) -> i32,
    arg: *mut c_void,
) -> i32 {
    chain::apply(m, n(off), n(len), |at, len| f(arg, at, len as u32))
}
extern "C" fn m_tag_delete_chain(m: Kp<Mbuf>, _t: *mut c_void) {
    if m.pkt.tags != 0 {
        kpanic!("m_tag_delete_chain: ukern makes no packet tags");
    }
}
extern "C" fn m_tag_delete_nonpersistent(m: Kp<Mbuf>) {
    m_tag_delete_chain(m, std::ptr::null_mut());
}

extern "C" fn m_tag_free_default(_t: *mut c_void) {
    kpanic!("m_tag_free: ukern makes no packet tags");
}
extern "C" fn m_snd_tag_destroy(_t: *mut c_void) {
    kpanic!("m_snd_tag_destroy: ukern makes no send tags");
}

/// The probes the inline functions of <sys/mbuf.h> fire; disabled, but their structures are named.
macro_rules! probes {
    ($($var:ident $name:literal),* $(,)?) => {
        $(static $var: KData = KData::of::<sys::sdt_probe>(concat!("sdt_sdt___", $name));)*
        crate::exports_data! {
            ZONE_MBUF, ZONE_CLUST, ZONE_PACK, ZONE_JUMBOP, ZONE_JUMBO9, ZONE_JUMBO16, ZONE_EXTPGS,
            MAX_LINKHDR, MAX_HDR, MAX_PROTOHDR, NMBCLUSTERS, MB_USE_EXT_PGS, $($var),*
        }
    };
}

static MAX_LINKHDR: KData =
    KData::of::<u32>("max_linkhdr").with_init(|p| crate::kp::poke(p as usize, 16_u32));
static MAX_PROTOHDR: KData =
    KData::of::<u32>("max_protohdr").with_init(|p| crate::kp::poke(p as usize, 60_u32));
static MAX_HDR: KData =
    KData::of::<u32>("max_hdr").with_init(|p| crate::kp::poke(p as usize, 76_u32));
static NMBCLUSTERS: KData =
    KData::of::<i32>("nmbclusters").with_init(|p| crate::kp::poke(p as usize, 1_000_000_i32));
static MB_USE_EXT_PGS: KData =
    KData::of::<bool>("mb_use_ext_pgs").with_init(|p| crate::kp::poke(p as usize, true));

probes! {
    P_INIT "m__init", P_GETHDR_RAW "m__gethdr_raw", P_GETHDR "m__gethdr", P_GET_RAW "m__get_raw",
    P_GET "m__get", P_GETCL "m__getcl", P_GETJCL "m__getjcl", P_CLGET "m__clget", P_CLJGET "m__cljget",
    P_CLJSET "m__cljset", P_FREE "m__free", P_FREEM "m__freem", P_FREEMP "m__freemp",
    P_EXTADD "m__extadd",
}

crate::exports! {
    "m_freem" => m_freem,
    "m_freemp" => m_freemp,
    "m_free_raw" => m_free_raw,
    "mb_free_ext" => mb_free_ext,
    "mb_free_extpg" => mb_free_ext,
    "mb_dupcl" => mb_dupcl,
    "mb_alloc_ext_pgs" => mb_alloc_ext_pgs,
    "mb_free_mext_pgs" => mb_free_mext_pgs,
    "m_adj" => m_adj,
    "m_append" => m_append,
    "m_cat" => m_cat,
    "m_catpkt" => m_catpkt,
    "m_clget" => m_clget,
    "m_cljget" => m_cljget,
    "m_copyback" => m_copyback,
    "m_copydata" => m_copydata,
    "m_copym" => m_copym,
    "m_copypacket" => m_copypacket,
    "m_dup" => m_dup,
    "m_dup_pkthdr" => m_dup_pkthdr,
    "m_move_pkthdr" => m_move_pkthdr,
    "m_demote_pkthdr" => m_demote_pkthdr,
    "m_demote" => m_demote,
    "m_defrag" => m_defrag,
    "m_collapse" => m_collapse,
    "m_extadd" => m_extadd,
    "m_fixhdr" => m_fixhdr,
    "m_get2" => m_get2,
    "m_get3" => m_get3,
    "m_getjcl" => m_getjcl,
    "m_getm2" => m_getm2,
    "m_getptr" => m_getptr,
    "m_length" => m_length,
    "m_pkthdr_init" => m_pkthdr_init,
    "m_prepend" => m_prepend,
    "m_pullup" => m_pullup,
    "m_sanity" => m_sanity,
    "m_split" => m_split,
    "m_apply" => m_apply,
    "m_tag_delete_chain" => m_tag_delete_chain,
    "m_tag_delete_nonpersistent" => m_tag_delete_nonpersistent,
    "m_tag_free_default" => m_tag_free_default,
    "m_snd_tag_destroy" => m_snd_tag_destroy,
}
