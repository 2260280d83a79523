//! counter(9). A counter is what `zpcpu_add` on amd64 wants: an offset from the pcpu.

use crate::global::Global;
use crate::kp::{Kp, peek, poke};
use crate::uma::{self, Hooks};
use crate::{kernel, kpanic};

static ZONE: Global<usize> = Global::new("counters");

pub(crate) fn boot() {
    ZONE.init(uma::create_builtin(
        "64 pcpu",
        8,
        Hooks::default(),
        7,
        "counter",
    ));
}

pub(crate) fn shutdown() {
    ZONE.take();
}

fn zone() -> usize {
    ZONE.with(|z| *z)
}

fn slot(c: usize) -> usize {
    let a = c.wrapping_add(kernel::pcpu_addr());
    if !uma::is_live(zone(), a) {
        kpanic!("{c:#x} is no counter (freed?)");
    }
    a
}

/// `counter_u64_alloc`: never fails with M_WAITOK; 0 with M_NOWAIT under failure injection.
#[must_use]
pub fn alloc(flags: i32) -> usize {
    let p = uma::alloc(zone(), std::ptr::null_mut(), flags) as usize;
    if p == 0 {
        return 0;
    }
    poke(p, 0_u64);
    p.wrapping_sub(kernel::pcpu_addr())
}

/// `counter_u64_free`; 0 is allowed.
pub fn free(c: usize) {
    if c != 0 {
        uma::free(zone(), slot(c) as *mut u8, std::ptr::null_mut());
    }
}

/// `counter_u64_fetch`.
#[must_use]
pub fn fetch(c: usize) -> u64 {
    peek(slot(c))
}

/// `counter_u64_zero`.
pub fn zero(c: usize) {
    poke(slot(c), 0_u64);
}

/// `counter_u64_add`.
pub fn add(c: usize, n: u64) {
    let s = slot(c);
    poke(s, peek::<u64>(s).wrapping_add(n));
}

extern "C" fn counter_u64_alloc(flags: i32) -> usize {
    alloc(flags)
}
extern "C" fn counter_u64_free(c: usize) {
    free(c);
}
extern "C" fn counter_u64_fetch(c: usize) -> u64 {
    fetch(c)
}
extern "C" fn counter_u64_zero(c: usize) {
    zero(c);
}
extern "C" fn counter_u64_sysinit(mut var: Kp<usize>) {
    *var = alloc(crate::sys::M_WAITOK as i32);
}
extern "C" fn counter_u64_sysuninit(mut var: Kp<usize>) {
    free(*var);
    *var = 0;
}

crate::exports! {
    "counter_u64_alloc" => counter_u64_alloc,
    "counter_u64_free" => counter_u64_free,
    "counter_u64_fetch" => counter_u64_fetch,
    "counter_u64_zero" => counter_u64_zero,
    "counter_u64_sysinit" => counter_u64_sysinit,
    "counter_u64_sysuninit" => counter_u64_sysuninit,
}
