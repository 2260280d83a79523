//! sglist(9): lists of physical ranges. Virtual and physical addresses are the same here.

use crate::kp::Kp;
use crate::ksym::KData;
use crate::lowmem::PAGE;
use crate::mbuf::{self, Mbuf};
use crate::{kmem, kpanic, phys, sys};

type Sg = sys::sglist;
type Seg = sys::sglist_seg;

static M_SGLIST: KData = KData::of::<sys::malloc_type>("M_SGLIST").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"sglist".as_ptr();
});

crate::exports_data! { M_SGLIST }

const EFBIG: i32 = sys::EFBIG as i32;
const EINVAL: i32 = sys::EINVAL as i32;

fn seg(sg: Kp<Sg>, i: usize) -> Kp<Seg> {
    Kp::new(sg.sg_segs.wrapping_add(i))
}

fn segs(sg: Kp<Sg>) -> Vec<(u64, usize)> {
    (0..usize::from(sg.sg_nseg))
        .map(|i| seg(sg, i))
        .map(|s| (s.ss_paddr, s.ss_len))
        .collect()
}

/// Appends a range, merged with the last one when they touch.
fn push(mut sg: Kp<Sg>, pa: u64, len: usize) -> i32 {
    if len == 0 {
        return 0;
    }
    let n = usize::from(sg.sg_nseg);
    if n > 0 {
        let mut last = seg(sg, n - 1);
        if last.ss_paddr + last.ss_len as u64 == pa {
            last.ss_len += len;
            return 0;
        }
    }
    if sg.sg_nseg == sg.sg_maxseg {
        return EFBIG;
    }
    let mut s = seg(sg, n);
    s.ss_paddr = pa;
    s.ss_len = len;
    sg.sg_nseg += 1;
    0
}

/// Appends all of `parts`, or leaves the list as it was.
fn push_all(mut sg: Kp<Sg>, parts: impl IntoIterator<Item = (u64, usize)>) -> i32 {
    if sg.sg_maxseg == 0 {
        return EINVAL;
    }
    let n = sg.sg_nseg;
    let last_len = if n > 0 {
        seg(sg, usize::from(n) - 1).ss_len
    } else {
        0
    };
    for (pa, len) in parts {
        let e = push(sg, pa, len);
        if e != 0 {
            sg.sg_nseg = n;
            if n > 0 {
                seg(sg, usize::from(n) - 1).ss_len = last_len;
            }
            return e;
        }
    }
    0
}

fn kva_ok(buf: usize, len: usize) {
    if !phys::contains(buf, len) {
        kpanic!("sglist of {buf:#x}({len}), which is not memory the adapter can reach");
    }
}

fn pages(m: Kp<*mut sys::vm_page>, pgoff: usize, len: usize) -> Vec<(u64, usize)> {
    let mut out = Vec::new();
    let (mut off, mut left, mut i) = (pgoff, len, 0);
    while left > 0 {
        let page: *mut sys::vm_page = crate::kp::peek(m.addr() + 8 * i);
        let n = (PAGE - off).min(left);
        out.push((phys::pa_of(page) as u64 + off as u64, n));
        left -= n;
        off = 0;
        i += 1;
    }
    out
}

fn count(parts: impl IntoIterator<Item = (u64, usize)>) -> i32 {
    let mut n = 0;
    let mut end = None;
    for (pa, len) in parts.into_iter().filter(|p| p.1 > 0) {
        if end != Some(pa) {
            n += 1;
        }
        end = Some(pa + len as u64);
    }
    n
}

fn epg(m: Kp<Mbuf>, off: usize, len: usize) -> Vec<(u64, usize)> {
    mbuf::segments(m, off, len)
        .into_iter()
        .map(|(a, n)| (a as u64, n))
        .collect()
}

fn chain(m: *mut Mbuf) -> Vec<(u64, usize)> {
    let mut out = Vec::new();
    let mut at = m;
    while let Some(x) = Kp::opt(at) {
        out.extend(epg(x, 0, x.data_len()));
        at = x.next;
    }
    out
}

extern "C" fn sglist_alloc(nsegs: i32, flags: i32) -> *mut Sg {
    let n = usize::try_from(nsegs).unwrap_or(0);
    let p = kmem::malloc(
        size_of::<Sg>() + n * size_of::<Seg>(),
        M_SGLIST.addr(),
        flags,
    );
    if let Some(mut sg) = Kp::opt(p.cast::<Sg>()) {
        sg.sg_segs = (p as usize + size_of::<Sg>()) as *mut Seg;
        sg.sg_nseg = 0;
        sg.sg_maxseg = n as u16;
        sg.sg_refs = 1;
    }
    p.cast()
}

extern "C" fn sglist_free(sg: *mut Sg) {
    let Some(mut s) = Kp::opt(sg) else { return };
    s.sg_refs -= 1;
    if s.sg_refs == 0 {
        kmem::free(sg.cast(), M_SGLIST.addr());
    }
}

extern "C" fn sglist_append(sg: Kp<Sg>, buf: usize, len: usize) -> i32 {
    kva_ok(buf, len);
    push_all(sg, [(buf as u64, len)])
}
extern "C" fn sglist_append_phys(sg: Kp<Sg>, pa: u64, len: usize) -> i32 {
    push_all(sg, [(pa, len)])
}
extern "C" fn sglist_append_vmpages(
    sg: Kp<Sg>,
    m: Kp<*mut sys::vm_page>,
    pgoff: usize,
    len: usize,
) -> i32 {
    push_all(sg, pages(m, pgoff, len))
}
extern "C" fn sglist_append_mbuf(sg: Kp<Sg>, m: *mut Mbuf) -> i32 {
    push_all(sg, chain(m))
}
extern "C" fn sglist_append_single_mbuf(sg: Kp<Sg>, m: Kp<Mbuf>) -> i32 {
    push_all(sg, epg(m, 0, m.data_len()))
}
extern "C" fn sglist_append_mbuf_epg(sg: Kp<Sg>, m: Kp<Mbuf>, off: usize, len: usize) -> i32 {
    // `off` counts from the start of the pages, not from m_data.
    push_all(sg, epg(m, off.wrapping_sub(m.data), len))
}
extern "C" fn sglist_append_sglist(sg: Kp<Sg>, from: Kp<Sg>, off: usize, len: usize) -> i32 {
    let (mut skip, mut left) = (off, len);
    let mut parts = Vec::new();
    for (pa, n) in segs(from) {
        let s = skip.min(n);
        skip -= s;
        let t = (n - s).min(left);
        left -= t;
        parts.push((pa + s as u64, t));
    }
    if left > 0 {
        return EINVAL;
    }
    push_all(sg, parts)
}
extern "C" fn sglist_build(buf: usize, len: usize, flags: i32) -> *mut Sg {
    kva_ok(buf, len);
    let sg = sglist_alloc(1, flags);
    if let Some(s) = Kp::opt(sg) {
        push(s, buf as u64, len);
    }
    sg
}
extern "C" fn sglist_count(buf: usize, len: usize) -> i32 {
    kva_ok(buf, len);
    i32::from(len > 0)
}
extern "C" fn sglist_count_vmpages(m: Kp<*mut sys::vm_page>, pgoff: usize, len: usize) -> i32 {
    count(pages(m, pgoff, len))
}
extern "C" fn sglist_count_mbuf_epg(m: Kp<Mbuf>, off: usize, len: usize) -> i32 {
    count(epg(m, off.wrapping_sub(m.data), len))
}
extern "C" fn sglist_length(sg: Kp<Sg>) -> usize {
    segs(sg).iter().map(|s| s.1).sum()
}

crate::exports! {
    "sglist_alloc" => sglist_alloc,
    "sglist_free" => sglist_free,
    "sglist_append" => sglist_append,
    "sglist_append_phys" => sglist_append_phys,
    "sglist_append_vmpages" => sglist_append_vmpages,
    "sglist_append_mbuf" => sglist_append_mbuf,
    "sglist_append_single_mbuf" => sglist_append_single_mbuf,
    "sglist_append_mbuf_epg" => sglist_append_mbuf_epg,
    "sglist_append_sglist" => sglist_append_sglist,
    "sglist_build" => sglist_build,
    "sglist_count" => sglist_count,
    "sglist_count_vmpages" => sglist_count_vmpages,
    "sglist_count_mbuf_epg" => sglist_count_mbuf_epg,
    "sglist_length" => sglist_length,
}
