//! malloc(9) in the arena of physical memory, with guards.
//!
//! Behind each allocation lies a red zone that is checked when it is freed. Freed memory is
//! poisoned, waits in a queue before its reuse, and is checked for writes at its reuse and at
//! shutdown. Every allocation is counted on its `struct malloc_type`; what is left at
//! shutdown is a leak.

mod api;
mod types;

use std::collections::{BTreeMap, VecDeque};

use crate::fxhash::FxMap;
use crate::global::Global;
use crate::kp::{Kp, bytes, bytes_mut};
use crate::ksym::KData;
use crate::lowmem::PAGE;
use crate::names::intern_c;
use crate::{fault, kpanic, locks, phys, sched, sys};

pub(crate) use api::symbols;
pub(crate) use types::data;
pub use types::{
    M_DEVBUF, M_IFADDR, M_IFNET, M_IOV, M_MBUF, M_PCB, M_SONAME, M_TASKQUEUE, M_TEMP, M_TOE,
    M_UKERN,
};

/// Usable bytes of the small classes, red zone included.
const CLASSES: [usize; 14] = [
    32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072,
];
/// Bytes carved up for a class at a time.
const SLAB: usize = 16 * PAGE;
/// Least red zone.
const RED: usize = 16;
const RED_BYTE: u8 = 0xfe;
/// What fresh memory reads when M_ZERO was not given.
const FRESH: u8 = 0xa5;
/// What freed memory reads: FreeBSD's 0xdeadc0de, a page of it.
static DEAD: [u8; PAGE] = {
    let one = 0xdead_c0de_u32.to_le_bytes();
    let mut all = [0; PAGE];
    let mut i = 0;
    while i < PAGE {
        all[i] = one[i % 4];
        i += 1;
    }
    all
};
/// Freed chunks a class keeps before it uses one again.
const QUARANTINE: usize = 128;
/// Bytes of freed page runs kept back.
const RUN_QUARANTINE: usize = 8 << 20;
/// Bytes of a freed page run that are poisoned and checked.
const RUN_CHECKED: usize = 64 * PAGE;

const M_NOWAIT: i32 = sys::M_NOWAIT as i32;
const M_WAITOK: i32 = sys::M_WAITOK as i32;
const M_ZERO: i32 = sys::M_ZERO as i32;

#[derive(Clone, Copy)]
struct Alloc {
    size: usize,
    /// Index into CLASSES, or the bytes of a run of pages.
    class: Result<usize, usize>,
    type_: usize,
    name: &'static str,
    /// The how-many-th allocation of this boot.
    seq: u64,
}

#[derive(Default)]
struct Stats {
    name: &'static str,
    live: u64,
    bytes: u64,
    total: u64,
}

#[derive(Default)]
struct Kmem {
    live: FxMap<usize, Alloc>,
    dead: FxMap<usize, Alloc>,
    free: [VecDeque<usize>; CLASSES.len()],
    /// Freed page runs not yet given back, oldest first, and their bytes.
    runs: VecDeque<(usize, usize)>,
    run_bytes: usize,
    types: BTreeMap<usize, Stats>,
    /// Types of [`zalloc`], with their descriptions.
    named: BTreeMap<&'static str, (Box<sys::malloc_type>, std::ffi::CString)>,
    seq: u64,
}

static KMEM: Global<Kmem> = Global::new("kernel malloc");

pub(crate) fn boot() {
    KMEM.init(Kmem::default());
}

pub(crate) fn shutdown() {
    KMEM.take();
}

fn dead_fill(addr: usize, len: usize) {
    for c in bytes_mut(addr as *mut u8, len).chunks_mut(PAGE) {
        c.copy_from_slice(&DEAD[..c.len()]);
    }
}

fn dead_intact(addr: usize, len: usize) -> Option<usize> {
    let all = bytes(addr as *const u8, len);
    let block = all.chunks(PAGE).position(|c| c != &DEAD[..c.len()])? * PAGE;
    all[block..]
        .iter()
        .zip(&DEAD)
        .position(|(a, b)| a != b)
        .map(|i| block + i)
}

fn type_name(type_: usize) -> &'static str {
    if type_ == 0 {
        kpanic!("malloc with a null type");
    }
    let t: Kp<sys::malloc_type> = Kp::new(type_ as *mut _);
    if t.ks_version != u64::from(sys::M_VERSION) {
        kpanic!("malloc with type {type_:#x}, which is no malloc type");
    }
    intern_c(t.ks_shortdesc)
}

/// A chunk of the class: one long in quarantine, or a fresh one.
fn take_chunk(class: usize) -> Option<usize> {
    let csize = CLASSES[class];
    let old = KMEM.with(|k| {
        if k.free[class].len() > QUARANTINE {
            let a = k.free[class].pop_front()?;
            return Some((a, k.dead.remove(&a)));
        }
        None
    });
    if let Some((addr, was)) = old {
        if let Some(was) = was {
            check_dead(addr, &was);
        }
        return Some(addr);
    }
    let slab = phys::alloc_run(SLAB / PAGE)?;
    KMEM.with(|k| {
        // Fresh chunks go in at the front so that they are used before quarantined ones.
        for i in (1..SLAB / csize).rev() {
            k.free[class].push_front(slab + i * csize);
        }
    });
    Some(slab)
}

fn check_dead(addr: usize, was: &Alloc) {
    let len = match was.class {
        Ok(c) => CLASSES[c],
        Err(room) => room.min(RUN_CHECKED),
    };
    if let Some(off) = dead_intact(addr, len) {
        kpanic!(
            "memory modified after free: {addr:#x}({}) of type {} at offset {off} (allocation no. {})",
            was.size,
            was.name,
            was.seq
        );
    }
}

/// Takes the next chunk unless it is fresh and not yet at the front.
fn next_fresh(class: usize) -> Option<usize> {
    KMEM.with(|k| {
        let &a = k.free[class].front()?;
        if k.dead.contains_key(&a) {
            return None;
        }
        k.free[class].pop_front()
    })
}

/// `malloc(size, type, flags)`. NULL only with M_NOWAIT.
#[must_use]
pub fn malloc(size: usize, type_: usize, flags: i32) -> *mut u8 {
    alloc(size, 1, type_, flags, true)
}

/// `inject`: failure injection applies.
fn alloc(size: usize, align: usize, type_: usize, flags: i32, inject: bool) -> *mut u8 {
    let name = type_name(type_);
    if (flags & (M_NOWAIT | M_WAITOK)).count_ones() != 1 {
        kpanic!(
            "malloc of type {name} with flags {flags:#x}: exactly one of M_NOWAIT and M_WAITOK is needed"
        );
    }
    if flags & M_WAITOK != 0 {
        if sched::on_thread() {
            if !sched::may_sleep() {
                sched::check_may_sleep(&format!("malloc(M_WAITOK) of \"{name}\""));
            }
            sched::yield_point();
        }
    } else if inject && fault::hit("malloc") {
        return std::ptr::null_mut();
    }
    let class = if size + RED <= CLASSES[CLASSES.len() - 1] && align <= 16 {
        CLASSES.iter().position(|&c| c >= size + RED)
    } else {
        None
    };
    let (addr, class, room) = match class {
        Some(c) => match next_fresh(c).or_else(|| take_chunk(c)) {
            Some(a) => (a, Ok(c), CLASSES[c]),
            None => (0, Ok(c), 0),
        },
        None => {
            // A page-sized allocation gets a guard page, so that its red zone is never empty.
            let room = (size + RED).next_multiple_of(PAGE);
            let align = align.div_ceil(PAGE).max(1);
            (
                phys::alloc_run_aligned(room / PAGE, align).unwrap_or(0),
                Err(room),
                room,
            )
        }
    };
    if addr == 0 {
        if flags & M_WAITOK != 0 {
            kpanic!("out of kernel memory for {size} bytes of type {name}");
        }
        return std::ptr::null_mut();
    }
    KMEM.with(|k| {
        k.seq += 1;
        k.live.insert(
            addr,
            Alloc {
                size,
                class,
                type_,
                name,
                seq: k.seq,
            },
        );
        let s = k.types.entry(type_).or_default();
        s.name = name;
        s.live += 1;
        s.bytes += size as u64;
        s.total += 1;
    });
    bytes_mut(addr as *mut u8, size).fill(if flags & M_ZERO != 0 { 0 } else { FRESH });
    bytes_mut((addr + size) as *mut u8, red_len(size, room)).fill(RED_BYTE);
    addr as *mut u8
}

/// Red zones of page runs are filled up to one page only.
fn red_len(size: usize, room: usize) -> usize {
    (room - size).min(PAGE)
}

/// `free(addr, type)`; NULL is allowed.
pub fn free(addr: *mut u8, type_: usize) {
    if addr.is_null() {
        return;
    }
    let a = addr as usize;
    let Some(al) = KMEM.with(|k| k.live.get(&a).copied()) else {
        bad_free(a)
    };
    let name = type_name(type_);
    if al.type_ != type_ {
        kpanic!(
            "free({a:#x}) with type {name}, but it was allocated with type {}",
            al.name
        );
    }
    release(a, al);
}

fn bad_free(a: usize) -> ! {
    if let Some(d) = KMEM.with(|k| k.dead.get(&a).copied()) {
        kpanic!(
            "double free of {a:#x}({}), type {} (allocation no. {})",
            d.size,
            d.name,
            d.seq
        );
    }
    let inside = KMEM.with(|k| {
        k.live
            .iter()
            .find(|&(&s, al)| s < a && a < s + al.size)
            .map(|(&s, al)| (s, al.name, al.size))
    });
    match inside {
        Some((s, name, size)) => {
            kpanic!("free({a:#x}), which is inside {s:#x}({size}) of type {name}")
        }
        None => kpanic!("free({a:#x}), which malloc did not return"),
    }
}

fn check_red(a: usize, al: &Alloc) {
    let room = match al.class {
        Ok(c) => CLASSES[c],
        Err(room) => room,
    };
    let red = bytes((a + al.size) as *const u8, red_len(al.size, room));
    if let Some(off) = red.iter().position(|&b| b != RED_BYTE) {
        kpanic!(
            "buffer overrun: byte {} behind {a:#x}({}) of type {} was written (allocation no. {})",
            off,
            al.size,
            al.name,
            al.seq
        );
    }
}

/// Panics when memory about to be freed holds a held lock, an armed callout or a pending task.
pub(crate) fn check_freed(addr: usize, len: usize, what: &dyn Fn() -> String) {
    locks::check_freed(addr, len, what);
    crate::callout::check_freed(addr, len, what);
    crate::taskqueue::check_freed(addr, len, what);
}

fn release(a: usize, al: Alloc) {
    check_red(a, &al);
    let what = || format!("freed memory {a:#x}({}) of type {}", al.size, al.name);
    check_freed(a, al.size, &what);
    KMEM.with(|k| {
        k.live.remove(&a);
        if let Some(s) = k.types.get_mut(&al.type_) {
            s.live -= 1;
            s.bytes -= al.size as u64;
        }
    });
    match al.class {
        Ok(c) => {
            dead_fill(a, CLASSES[c]);
            KMEM.with(|k| {
                k.dead.insert(a, al);
                k.free[c].push_back(a);
            });
        }
        Err(room) => {
            dead_fill(a, room.min(RUN_CHECKED));
            KMEM.with(|k| {
                k.dead.insert(a, al);
                k.runs.push_back((a, room));
                k.run_bytes += room;
            });
            drain_runs();
        }
    }
    sched::yield_point();
}

/// Gives the oldest freed page runs back once enough are held.
fn drain_runs() {
    loop {
        let next = KMEM.with(|k| {
            if k.run_bytes <= RUN_QUARANTINE {
                return None;
            }
            let (a, room) = k.runs.pop_front()?;
            k.run_bytes -= room;
            Some((a, k.dead.remove(&a)))
        });
        let Some((a, was)) = next else { return };
        if let Some(was) = was {
            check_dead(a, &was);
        }
        phys::free_run(a);
    }
}

/// Zeroed memory for a `T`, never NULL. Free it with [`free_obj`].
#[must_use]
pub fn alloc_zeroed<T>(type_: &KData) -> Kp<T> {
    let p = alloc(
        size_of::<T>(),
        align_of::<T>(),
        type_.addr(),
        M_NOWAIT | M_ZERO,
        false,
    );
    if p.is_null() {
        kpanic!("out of kernel memory for a {}", std::any::type_name::<T>());
    }
    Kp::new(p.cast())
}

/// Frees what [`alloc_zeroed`] made.
pub fn free_obj<T>(p: Kp<T>, type_: &KData) {
    free(p.ptr().cast(), type_.addr());
}

/// Zeroed memory accounted to a type that has this name only: for Rust parts of the kernel.
/// NULL only by failure injection (point `zalloc`).
#[must_use]
pub fn zalloc(size: usize, what: &'static str) -> *mut u8 {
    if fault::hit("zalloc") {
        return std::ptr::null_mut();
    }
    let t = KMEM.with(|k| {
        let t = k.named.entry(what).or_insert_with(|| {
            // SAFETY: `struct malloc_type` is plain C data.
            let mut t: Box<sys::malloc_type> = unsafe { crate::kp::zeroed_box() };
            t.ks_version = u64::from(sys::M_VERSION);
            let c = std::ffi::CString::new(what).unwrap_or_default();
            t.ks_shortdesc = c.as_ptr();
            (t, c)
        });
        std::ptr::from_ref(&*t.0) as usize
    });
    let p = alloc(size, 1, t, M_NOWAIT | M_ZERO, false);
    if p.is_null() {
        kpanic!("out of kernel memory for {size} bytes of {what}");
    }
    p
}

/// Frees what [`zalloc`] made; NULL is allowed.
pub fn zfree(p: *mut u8) {
    if p.is_null() {
        return;
    }
    match KMEM.with(|k| k.live.get(&(p as usize)).copied()) {
        Some(al) => release(p as usize, al),
        None => bad_free(p as usize),
    }
}

/// Is the byte range inside one live allocation?
#[must_use]
pub fn is_live(addr: usize) -> bool {
    KMEM.with(|k| k.live.contains_key(&addr))
}

/// What is allocated now, by type: (name, allocations, bytes).
#[must_use]
pub fn usage() -> Vec<(&'static str, u64, u64)> {
    KMEM.with(|k| {
        k.types
            .values()
            .filter(|s| s.live > 0)
            .map(|s| (s.name, s.live, s.bytes))
            .collect()
    })
}

/// What malloc(9) takes for `size` bytes: a power of two up to 2,048, whole pages above.
fn rounded(size: usize) -> usize {
    match size {
        0..=2048 => size.next_power_of_two().max(16),
        _ => size.next_multiple_of(PAGE),
    }
}

impl crate::Api {
    /// Bytes that are allocated now with the malloc types of this description, as asked for and
    /// as FreeBSD's malloc(9) rounds them.
    #[must_use]
    pub fn malloc_bytes(&self, what: &str) -> (u64, u64) {
        KMEM.with(|k| {
            let of = k.live.values().filter(|a| a.name == what);
            of.fold((0, 0), |(asked, taken), a| {
                (asked + a.size as u64, taken + rounded(a.size) as u64)
            })
        })
    }

    /// Successful allocations of the malloc types of this description (`ks_shortdesc`) since
    /// boot, freed or not.
    #[must_use]
    pub fn malloc_calls(&self, what: &str) -> u64 {
        KMEM.with(|k| {
            let of = k.types.values().filter(|s| s.name == what);
            of.map(|s| s.total).sum()
        })
    }
}

/// Checks every red zone and every freed chunk now.
pub fn check_all() {
    let (live, dead) = KMEM.with(|k| {
        let live: Vec<_> = k.live.iter().map(|(&a, &l)| (a, l)).collect();
        let dead: Vec<_> = k.dead.iter().map(|(&a, &d)| (a, d)).collect();
        (live, dead)
    });
    for (a, l) in live {
        check_red(a, &l);
    }
    for (a, d) in dead {
        check_dead(a, &d);
    }
}

/// Leaks, one line each, as of now.
#[must_use]
pub fn leaks() -> Vec<String> {
    KMEM.with(|k| {
        k.types
            .iter()
            .filter(|(_, s)| s.live > 0)
            .map(|(&t, s)| {
                let mut first: Vec<_> = k.live.iter().filter(|(_, a)| a.type_ == t).collect();
                first.sort_by_key(|(_, a)| a.seq);
                let list: Vec<_> = first
                    .iter()
                    .take(4)
                    .map(|(p, a)| format!("no. {} of {} bytes at {p:#x}", a.seq, a.size))
                    .collect();
                format!(
                    "malloc type \"{}\": {} allocations, {} bytes ({})",
                    s.name,
                    s.live,
                    s.bytes,
                    list.join(", ")
                )
            })
            .collect()
    })
}
