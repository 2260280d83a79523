//! uma(9): zones of equal items, with the checks of a debugging kernel.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{c_char, c_void};

use crate::fxhash::FxSet;
use crate::global::Global;
use crate::kp::{bytes, bytes_mut};
use crate::lowmem::PAGE;
use crate::names::intern_c;
use crate::{fault, kpanic, phys, sched, sys};

const DEAD: u8 = 0xdf;
static DEAD_BLOCK: [u8; 512] = [DEAD; 512];
/// Freed items a zone keeps before it uses one again.
const QUARANTINE: usize = 64;

type Ctor = extern "C" fn(*mut c_void, i32, *mut c_void, i32) -> i32;
type Dtor = extern "C" fn(*mut c_void, i32, *mut c_void);
type Init = extern "C" fn(*mut c_void, i32, i32) -> i32;
type Fini = extern "C" fn(*mut c_void, i32);

/// Constructor and so on of a zone.
#[derive(Clone, Copy, Default)]
pub struct Hooks {
    /// Runs at each allocation.
    pub ctor: Option<Ctor>,
    /// Runs at each free.
    pub dtor: Option<Dtor>,
    /// Runs once for each new item.
    pub init: Option<Init>,
    /// Runs when the zone goes away.
    pub fini: Option<Fini>,
}

/// Allocation and free of a zone that has no items of its own.
#[derive(Clone, Copy)]
struct Redirect {
    alloc: fn(*mut c_void, i32) -> *mut u8,
    free: fn(*mut u8),
}

struct Zone {
    redirect: Option<Redirect>,
    name: &'static str,
    size: usize,
    stride: usize,
    hooks: Hooks,
    /// Free items keep their content (init, or no touching): else they are poisoned.
    keep: bool,
    zero: bool,
    max: usize,
    point: &'static str,
    builtin: bool,
    free: VecDeque<usize>,
    /// Items in `free` which were in use before.
    used_before: FxSet<usize>,
    live: FxSet<usize>,
    slabs: Vec<(usize, usize)>,
    total: u64,
}

struct State {
    zones: BTreeMap<usize, Zone>,
    /// Zones destroyed with items allocated.
    lost: Vec<String>,
    next_handle: usize,
}

static STATE: Global<State> = Global::new("uma");

pub(crate) fn boot() {
    STATE.init(State {
        zones: BTreeMap::new(),
        lost: Vec::new(),
        next_handle: 0x0203_0000,
    });
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn with<R>(z: usize, f: impl FnOnce(&mut Zone) -> R) -> R {
    match STATE.with(|s| s.zones.get_mut(&z).map(f)) {
        Some(r) => r,
        None => kpanic!("{z:#x} is no uma zone (destroyed?)"),
    }
}

/// Makes a zone; `align` is a mask as UMA_ALIGN_PTR. `point` is the failure injection point.
pub fn create(
    name: &'static str,
    size: usize,
    hooks: Hooks,
    align: usize,
    flags: u32,
    point: &'static str,
) -> usize {
    let stride = size.max(8).next_multiple_of((align + 1).max(8));
    STATE.with(|s| {
        s.next_handle += 16;
        s.zones.insert(
            s.next_handle,
            Zone {
                redirect: None,
                name,
                size,
                stride,
                hooks,
                keep: hooks.init.is_some()
                    || flags & (sys::UMA_ZONE_NOTOUCH | sys::UMA_ZONE_NOFREE) != 0,
                zero: flags & sys::UMA_ZONE_ZINIT != 0,
                max: usize::MAX,
                point,
                builtin: false,
                free: VecDeque::new(),
                used_before: FxSet::default(),
                live: FxSet::default(),
                slabs: Vec::new(),
                total: 0,
            },
        );
        s.next_handle
    })
}

/// The kernel's own zone: outlives modules, is no leak itself.
pub fn create_builtin(
    name: &'static str,
    size: usize,
    hooks: Hooks,
    align: usize,
    point: &'static str,
) -> usize {
    let z = create(name, size, hooks, align, 0, point);
    with(z, |z| z.builtin = true);
    z
}

/// A zone whose items come from other zones, such as mbufs with a cluster.
pub(crate) fn create_redirect(
    name: &'static str,
    alloc: fn(*mut c_void, i32) -> *mut u8,
    free: fn(*mut u8),
) -> usize {
    let z = create_builtin(name, 8, Hooks::default(), 7, "uma");
    with(z, |z| z.redirect = Some(Redirect { alloc, free }));
    z
}

fn grow(z: usize) -> bool {
    let (stride, size, init, zero) = with(z, |z| (z.stride, z.size, z.hooks.init, z.zero));
    let pages = if stride >= PAGE {
        stride.div_ceil(PAGE)
    } else {
        4
    };
    let Some(slab) = phys::alloc_run(pages) else {
        return false;
    };
    let n = (pages * PAGE / stride).max(1);
    for i in 0..n {
        let item = slab + i * stride;
        bytes_mut(item as *mut u8, stride).fill(if zero { 0 } else { DEAD });
        if let Some(init) = init {
            init(item as *mut c_void, size as i32, sys::M_NOWAIT as i32);
        }
    }
    with(z, |z| {
        z.slabs.push((slab, n));
        for i in (0..n).rev() {
            z.free.push_front(slab + i * stride);
        }
    });
    true
}

/// `uma_zalloc_arg`. NULL only with M_NOWAIT.
#[must_use]
pub fn alloc(z: usize, arg: *mut c_void, flags: i32) -> *mut u8 {
    if let Some(r) = with(z, |z| z.redirect) {
        return (r.alloc)(arg, flags);
    }
    let wait = flags as u32 & sys::M_WAITOK != 0;
    if wait && sched::on_thread() {
        if !sched::may_sleep() {
            let name = with(z, |z| z.name);
            sched::check_may_sleep(&format!("uma_zalloc(M_WAITOK) of \"{name}\""));
        }
        sched::yield_point();
    }
    let (full, point) = with(z, |z| (z.live.len() >= z.max, z.point));
    if !wait && (full || fault::hit(point)) {
        return std::ptr::null_mut();
    }
    while wait && with(z, |z| z.live.len() >= z.max) {
        sched::sleep_on(z, sched::SleepOpts::new("zonelimit"));
    }
    let item = loop {
        let got = with(z, |z| {
            let &a = z.free.front()?;
            if z.used_before.contains(&a) && z.free.len() <= QUARANTINE {
                return None;
            }
            z.free.pop_front();
            let before = z.used_before.remove(&a);
            z.live.insert(a);
            z.total += 1;
            Some((a, before && !z.keep))
        });
        match got {
            Some((a, check)) => {
                if check {
                    check_dead(z, a);
                }
                break a;
            }
            None if grow(z) => {}
            None if wait => kpanic!("out of memory for zone {}", with(z, |z| z.name)),
            None => return std::ptr::null_mut(),
        }
    };
    let (size, zero, keep, ctor) = with(z, |z| (z.size, z.zero, z.keep, z.hooks.ctor));
    if flags as u32 & sys::M_ZERO != 0 || (zero && !keep) {
        bytes_mut(item as *mut u8, size).fill(0);
    }
    if let Some(ctor) = ctor
        && ctor(item as *mut c_void, size as i32, arg, flags) != 0
    {
        release(z, item);
        return std::ptr::null_mut();
    }
    item as *mut u8
}

fn check_dead(z: usize, a: usize) {
    let (size, name) = with(z, |z| (z.size, z.name));
    let item = bytes(a as *const u8, size);
    // Comparing blocks is memcmp; looking at single bytes is for the report.
    if item
        .chunks(DEAD_BLOCK.len())
        .all(|c| c == &DEAD_BLOCK[..c.len()])
    {
        return;
    }
    if let Some(off) = item.iter().position(|&b| b != DEAD) {
        kpanic!("memory modified after free: item {a:#x} of zone {name} at offset {off}");
    }
}

/// `uma_zfree_arg`; NULL is allowed.
pub fn free(z: usize, item: *mut u8, arg: *mut c_void) {
    if item.is_null() {
        return;
    }
    if let Some(r) = with(z, |z| z.redirect) {
        return (r.free)(item);
    }
    let a = item as usize;
    let (live, name, size, dtor) = with(z, |z| (z.live.contains(&a), z.name, z.size, z.hooks.dtor));
    if !live {
        if with(z, |z| z.used_before.contains(&a)) {
            kpanic!("double free of {a:#x} to zone {name}");
        }
        kpanic!("free of {a:#x} to zone {name}, which did not allocate it");
    }
    if let Some(dtor) = dtor {
        dtor(item.cast(), size as i32, arg);
    }
    crate::kmem::check_freed(a, size, &|| format!("freed item {a:#x} of zone {name}"));
    release(z, a);
}

fn release(z: usize, a: usize) {
    let wake = with(z, |z| {
        z.live.remove(&a);
        z.free.push_back(a);
        z.used_before.insert(a);
        if !z.keep {
            bytes_mut(a as *mut u8, z.size).fill(DEAD);
        }
        z.max != usize::MAX
    });
    if wake {
        sched::wakeup(z);
    }
}

/// Destroys the zone; items still allocated make a leak.
pub fn destroy(z: usize) {
    let Some(zone) = STATE.with(|s| s.zones.remove(&z)) else {
        kpanic!("{z:#x} is no uma zone (destroyed twice?)")
    };
    if !zone.live.is_empty() {
        crate::console::write(&format!(
            "Freed UMA keg ({}) was not empty ({} items).  Lost {} pages of memory.\n",
            zone.name,
            zone.live.len(),
            zone.slabs.len()
        ));
        STATE.with(|s| {
            s.lost.push(format!(
                "zone \"{}\": destroyed with {} items allocated",
                zone.name,
                zone.live.len()
            ));
        });
        return;
    }
    if let Some(fini) = zone.hooks.fini {
        for &(slab, n) in &zone.slabs {
            for i in 0..n {
                fini((slab + i * zone.stride) as *mut c_void, zone.size as i32);
            }
        }
    }
    for (slab, _) in zone.slabs {
        phys::free_run(slab);
    }
}

/// Items allocated from a zone now.
#[must_use]
pub fn live(z: usize) -> usize {
    with(z, |z| z.live.len())
}

/// Is this a live item of the zone?
#[must_use]
pub fn is_live(z: usize, item: usize) -> bool {
    with(z, |z| z.live.contains(&item))
}

/// Is this an item of the zone that was in use and is free now?
#[must_use]
pub fn was_freed(z: usize, item: usize) -> bool {
    with(z, |z| z.used_before.contains(&item))
}

/// Leaks, one line per zone.
#[must_use]
pub fn leaks() -> Vec<String> {
    STATE.with(|s| {
        let mut all = s.lost.clone();
        for z in s.zones.values() {
            if !z.live.is_empty() {
                all.push(format!("zone \"{}\": {} items", z.name, z.live.len()));
            } else if !z.builtin {
                all.push(format!("zone \"{}\" itself", z.name));
            }
        }
        all
    })
}

/// Checks the poison of every free item.
pub fn check_all() {
    let all: Vec<(usize, Vec<usize>)> = STATE.with(|s| {
        s.zones
            .iter()
            .filter(|(_, z)| !z.keep)
            .map(|(&h, z)| (h, z.used_before.iter().copied().collect()))
            .collect()
    });
    for (z, items) in all {
        for a in items {
            check_dead(z, a);
        }
    }
}

extern "C" fn uma_zcreate(
    name: *const c_char,
    size: usize,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    init: Option<Init>,
    fini: Option<Fini>,
    align: i32,
    flags: u32,
) -> usize {
    create(
        intern_c(name),
        size,
        Hooks {
            ctor,
            dtor,
            init,
            fini,
        },
        align as usize,
        flags,
        "uma",
    )
}

extern "C" fn uma_zdestroy(z: usize) {
    destroy(z);
}

extern "C" fn uma_zalloc_arg(z: usize, arg: *mut c_void, flags: i32) -> *mut u8 {
    alloc(z, arg, flags)
}

extern "C" fn uma_zfree_arg(z: usize, item: *mut u8, arg: *mut c_void) {
    free(z, item, arg);
}

extern "C" fn uma_zone_set_max(z: usize, max: i32) -> i32 {
    with(z, |z| z.max = usize::try_from(max).unwrap_or(usize::MAX));
    max
}

extern "C" fn uma_zone_get_cur(z: usize) -> i32 {
    live(z) as i32
}

extern "C" fn uma_prealloc(z: usize, items: i32) {
    while with(z, |z| z.free.len()) < items.max(0) as usize && grow(z) {}
}

extern "C" fn uma_get_cache_align_mask() -> u32 {
    63
}

extern "C" fn uma_reclaim(_req: i32) {}

crate::exports! {
    "uma_zcreate" => uma_zcreate,
    "uma_zdestroy" => uma_zdestroy,
    "uma_zalloc_arg" => uma_zalloc_arg,
    "uma_zfree_arg" => uma_zfree_arg,
    "uma_zone_set_max" => uma_zone_set_max,
    "uma_zone_get_cur" => uma_zone_get_cur,
    "uma_prealloc" => uma_prealloc,
    "uma_get_cache_align_mask" => uma_get_cache_align_mask,
    "uma_reclaim" => uma_reclaim,
}
