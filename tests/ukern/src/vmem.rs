//! vmem(9): arenas of numbers.

use std::collections::BTreeMap;
use std::ffi::c_char;

use crate::global::Global;
use crate::kp::Kp;
use crate::names::intern_c;
use crate::{fault, kpanic, sched, sys};

struct Arena {
    name: &'static str,
    quantum: usize,
    /// Free and used spans: start to length.
    free: BTreeMap<usize, usize>,
    used: BTreeMap<usize, usize>,
    size: usize,
}

struct State {
    arenas: BTreeMap<usize, Arena>,
    next: usize,
}

static STATE: Global<State> = Global::new("vmem");

pub(crate) fn boot() {
    STATE.init(State {
        arenas: BTreeMap::new(),
        next: 0x0303_0000,
    });
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn with<R>(vm: usize, f: impl FnOnce(&mut Arena) -> R) -> R {
    match STATE.with(|s| s.arenas.get_mut(&vm).map(f)) {
        Some(r) => r,
        None => kpanic!("{vm:#x} is no vmem arena (destroyed?)"),
    }
}

/// Arenas nobody destroyed.
#[must_use]
pub(crate) fn leaks() -> Vec<String> {
    STATE.with(|s| {
        s.arenas
            .values()
            .map(|a| format!("vmem arena \"{}\"", a.name))
            .collect()
    })
}

fn add_span(a: &mut Arena, start: usize, len: usize) {
    let (mut s, mut l) = (start, len);
    if let Some((&ps, &pl)) = a.free.range(..start).next_back()
        && ps + pl == start
    {
        a.free.remove(&ps);
        (s, l) = (ps, pl + len);
    }
    if let Some(&nl) = a.free.get(&(start + len)) {
        a.free.remove(&(start + len));
        l += nl;
    }
    a.free.insert(s, l);
}

extern "C" fn vmem_create(
    name: *const c_char,
    base: usize,
    size: usize,
    quantum: usize,
    _qmax: usize,
    flags: i32,
) -> usize {
    if flags as u32 & sys::M_WAITOK != 0 {
        sched::check_may_sleep("vmem_create");
    } else if fault::hit("vmem") {
        return 0;
    }
    if !quantum.is_power_of_two() {
        kpanic!("vmem_create with quantum {quantum}");
    }
    STATE.with(|s| {
        s.next += 16;
        let mut free = BTreeMap::new();
        if size > 0 {
            free.insert(base, size);
        }
        s.arenas.insert(
            s.next,
            Arena {
                name: intern_c(name),
                quantum,
                free,
                used: BTreeMap::new(),
                size,
            },
        );
        s.next
    })
}

extern "C" fn vmem_destroy(vm: usize) {
    let used = with(vm, |a| (a.used.len(), a.name));
    if used.0 != 0 {
        kpanic!(
            "vmem_destroy of \"{}\" with {} spans allocated",
            used.1,
            used.0
        );
    }
    STATE.with(|s| s.arenas.remove(&vm));
}

extern "C" fn vmem_add(vm: usize, addr: usize, size: usize, _flags: i32) -> i32 {
    with(vm, |a| {
        a.size += size;
        add_span(a, addr, size);
    });
    0
}

/// Constraints of `vmem_xalloc`.
struct Want {
    size: usize,
    align: usize,
    phase: usize,
    nocross: usize,
    min: usize,
    max: usize,
    best: bool,
}

fn place(start: usize, len: usize, w: &Want) -> Option<usize> {
    let lo = start.max(w.min);
    let align = w.align.max(1);
    let mut at = lo.saturating_sub(w.phase).next_multiple_of(align) + w.phase;
    if at < lo {
        at += align;
    }
    if w.nocross != 0 && (at / w.nocross) != ((at + w.size - 1) / w.nocross) {
        at = at.next_multiple_of(w.nocross);
        at = at.saturating_sub(w.phase).next_multiple_of(align) + w.phase;
    }
    let end = at.checked_add(w.size)?;
    (end <= start + len && at <= w.max && end - 1 <= w.max).then_some(at)
}

fn take(vm: usize, w: &Want, flags: i32, mut out: Kp<usize>) -> i32 {
    if flags as u32 & sys::M_WAITOK == 0 && fault::hit("vmem") {
        return sys::ENOMEM as i32;
    }
    if w.size == 0 {
        kpanic!("vmem_alloc of 0");
    }
    loop {
        let got = with(vm, |a| {
            let w = Want {
                size: w.size.next_multiple_of(a.quantum),
                align: w.align.max(a.quantum),
                ..*w
            };
            let fits = a
                .free
                .iter()
                .filter_map(|(&s, &l)| place(s, l, &w).map(|at| (l, s, at)));
            let (l, s, at) = if w.best {
                fits.min()?
            } else {
                {
                    let mut f = fits;
                    f.next()?
                }
            };
            a.free.remove(&s);
            if at > s {
                a.free.insert(s, at - s);
            }
            if at + w.size < s + l {
                a.free.insert(at + w.size, s + l - at - w.size);
            }
            a.used.insert(at, w.size);
            Some(at)
        });
        match got {
            Some(at) => {
                *out = at;
                return 0;
            }
            None if flags as u32 & sys::M_WAITOK == 0 => return sys::ENOMEM as i32,
            None => {
                sched::sleep_on(vm, sched::SleepOpts::new("vmem"));
            }
        }
    }
}

extern "C" fn vmem_alloc(vm: usize, size: usize, flags: i32, out: Kp<usize>) -> i32 {
    let best = flags as u32 & sys::M_BESTFIT != 0;
    let w = Want {
        size,
        align: 0,
        phase: 0,
        nocross: 0,
        min: 0,
        max: usize::MAX,
        best,
    };
    take(vm, &w, flags, out)
}

extern "C" fn vmem_xalloc(
    vm: usize,
    size: usize,
    align: usize,
    phase: usize,
    nocross: usize,
    min: usize,
    max: usize,
    flags: i32,
    out: Kp<usize>,
) -> i32 {
    let best = flags as u32 & sys::M_BESTFIT != 0;
    take(
        vm,
        &Want {
            size,
            align,
            phase,
            nocross,
            min,
            max,
            best,
        },
        flags,
        out,
    )
}

extern "C" fn vmem_free(vm: usize, addr: usize, size: usize) {
    let ok = with(vm, |a| {
        let len = size.next_multiple_of(a.quantum);
        if a.used.get(&addr) != Some(&len) {
            return false;
        }
        a.used.remove(&addr);
        add_span(a, addr, len);
        true
    });
    if !ok {
        kpanic!(
            "vmem_free of {addr:#x}({size}) in \"{}\", which is not allocated so",
            with(vm, |a| a.name)
        );
    }
    sched::wakeup(vm);
}

extern "C" fn vmem_size(vm: usize, what: i32) -> usize {
    with(vm, |a| {
        let used: usize = a.used.values().sum();
        match what as u32 {
            sys::VMEM_ALLOC => used,
            sys::VMEM_FREE => a.size - used,
            sys::VMEM_MAXFREE => a.free.values().copied().max().unwrap_or(0),
            _ => a.size,
        }
    })
}

extern "C" fn vmem_roundup_size(vm: usize, size: usize) -> usize {
    with(vm, |a| size.next_multiple_of(a.quantum))
}

crate::exports! {
    "vmem_create" => vmem_create,
    "vmem_destroy" => vmem_destroy,
    "vmem_add" => vmem_add,
    "vmem_alloc" => vmem_alloc,
    "vmem_xalloc" => vmem_xalloc,
    "vmem_free" => vmem_free,
    "vmem_xfree" => vmem_free,
    "vmem_size" => vmem_size,
    "vmem_roundup_size" => vmem_roundup_size,
}
