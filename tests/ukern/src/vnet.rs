//! Network stack instances: `struct vnet` and the memory of their variables.
//!
//! `V_x` is `*(curvnet->vnet_data_base + &vnet_entry_x)`. `&vnet_entry_x` is an address in a
//! template region of low memory; each instance has a copy of the region.

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::{kpanic, lowmem, sched, sys};

/// Room for the `set_vnet` sections of modules.
const MODULES: usize = 64 << 10;

struct Instance {
    vnet: Box<sys::vnet>,
    _data: Vec<u64>,
}

struct State {
    start: usize,
    len: usize,
    next_module: usize,
    /// Freed module ranges: (offset, len).
    free: Vec<(usize, usize)>,
    all: Vec<Instance>,
    sysinits: Vec<usize>,
    sysuninits: Vec<usize>,
}

static STATE: Global<State> = Global::new("vnets");
static VNET0: KData = KData::of::<usize>("vnet0");
static VNET_SXLOCK: KData = KData::of::<sys::sx>("vnet_sxlock");
static VNET_RWLOCK: KData = KData::of::<sys::rwlock>("vnet_rwlock");
static VNET_HEAD: KData = KData::of::<usize>("vnet_head");

crate::exports_data! { VNET0, VNET_SXLOCK, VNET_RWLOCK, VNET_HEAD }

/// Makes the template region with `kernel` bytes for the kernel's own variables.
pub(crate) fn boot_template(kernel: usize) -> usize {
    let kernel = kernel.next_multiple_of(64);
    let len = kernel + MODULES;
    let start = lowmem::alloc(len).expect("room for vnet variables");
    STATE.init(State {
        start,
        len,
        next_module: kernel,
        free: Vec::new(),
        all: Vec::new(),
        sysinits: Vec::new(),
        sysuninits: Vec::new(),
    });
    start
}

/// Makes `vnet0`.
pub(crate) fn boot() {
    crate::locks::sx_init(VNET_SXLOCK.get(), c"vnet_sxlock".as_ptr(), 0);
    crate::locks::rw_init(VNET_RWLOCK.get(), c"vnet_rwlock".as_ptr(), 0);
    *VNET0.get::<usize>() = alloc() as usize;
}

pub(crate) fn shutdown() {
    STATE.take();
}

/// A new instance with the template's values; the VNET_SYSINITs of loaded modules run in it.
#[must_use]
pub fn alloc() -> *mut sys::vnet {
    let (vnet, inits) = STATE.with(|s| {
        let mut data = vec![0_u64; s.len.div_ceil(8)];
        let template = crate::kp::bytes(s.start as *const u8, s.len);
        crate::kp::bytes_mut(data.as_mut_ptr().cast(), s.len).copy_from_slice(template);
        // SAFETY: `struct vnet` is plain C data.
        let mut vnet: Box<sys::vnet> = unsafe { crate::kp::zeroed_box() };
        vnet.vnet_magic_n = sys::VNET_MAGIC_N;
        vnet.vnet_state = sys::SI_SUB_VNET_DONE;
        vnet.vnet_data_mem = data.as_mut_ptr().cast();
        vnet.vnet_data_base = (data.as_ptr() as usize).wrapping_sub(s.start);
        let p: *mut sys::vnet = &raw mut *vnet;
        vnet.vnet_le.le_next = *VNET_HEAD.get::<usize>() as *mut sys::vnet;
        s.all.push(Instance { vnet, _data: data });
        (p, s.sysinits.clone())
    });
    *VNET_HEAD.get::<usize>() = vnet as usize;
    for i in inits {
        run_in(vnet, i);
    }
    vnet
}

/// `vnet0`, the base system's instance.
#[must_use]
pub fn vnet0() -> *mut sys::vnet {
    *VNET0.get::<usize>() as *mut sys::vnet
}

/// Every instance, `vnet0` first.
#[must_use]
pub fn all() -> Vec<*mut sys::vnet> {
    STATE.with(|s| {
        s.all
            .iter()
            .map(|i| std::ptr::from_ref(&*i.vnet).cast_mut())
            .collect()
    })
}

/// The running thread's instance.
#[must_use]
pub fn curvnet() -> *mut sys::vnet {
    sched::current_thread().td_vnet
}

/// Runs `f` with `curvnet` set, as between CURVNET_SET and CURVNET_RESTORE.
pub fn with_vnet<R>(vnet: *mut sys::vnet, f: impl FnOnce() -> R) -> R {
    let mut td = sched::current_thread();
    let saved = std::mem::replace(&mut td.td_vnet, vnet);
    let r = f();
    td.td_vnet = saved;
    r
}

/// The variable of a given instance.
#[must_use]
pub fn var_of<T>(vnet: *mut sys::vnet, d: &KData) -> Kp<T> {
    let v = Kp::new(vnet);
    if v.is_null() || v.vnet_magic_n != sys::VNET_MAGIC_N {
        kpanic!("V_{}: no such vnet {vnet:p}", d.name());
    }
    Kp::new(v.vnet_data_base.wrapping_add(d.addr()) as *mut T)
}

/// The variable of `curvnet`, what `V_x` means. Panics when the thread is in no instance.
#[must_use]
pub fn var<T>(d: &KData) -> Kp<T> {
    let v = curvnet();
    if v.is_null() {
        kpanic!("{} used with curvnet not set", d.name());
    }
    var_of(v, d)
}

/// Room in the template for a module's `set_vnet` section; `None` when it is used up.
pub(crate) fn module_alloc(len: usize) -> Option<usize> {
    let len = len.next_multiple_of(64);
    STATE.with(|s| {
        if let Some(i) = s.free.iter().position(|f| f.1 >= len) {
            let (off, _) = s.free.swap_remove(i);
            return Some(s.start + off);
        }
        if s.next_module + len > s.len {
            return None;
        }
        let off = s.next_module;
        s.next_module += len;
        Some(s.start + off)
    })
}

/// Copies a module's initial values into every instance.
pub(crate) fn module_copy(addr: usize, len: usize) {
    let from = crate::kp::bytes(addr as *const u8, len);
    for v in all() {
        let to = Kp::new(v).vnet_data_base.wrapping_add(addr);
        crate::kp::bytes_mut(to as *mut u8, len).copy_from_slice(from);
    }
}

pub(crate) fn module_free(addr: usize, len: usize) {
    STATE.with(|s| s.free.push((addr - s.start, len.next_multiple_of(64))));
}

fn run_in(vnet: *mut sys::vnet, init: usize) {
    let i: Kp<sys::vnet_sysinit> = Kp::new(init as *mut _);
    let (func, arg) = (i.func, i.arg);
    if let Some(func) = func {
        with_vnet(vnet, || {
            // SAFETY: a function the module registered, with the argument it gave.
            unsafe { func(arg) }
        });
    }
}

extern "C" fn vnet_register_sysinit(arg: usize) {
    STATE.with(|s| s.sysinits.push(arg));
    for v in all() {
        run_in(v, arg);
    }
}

extern "C" fn vnet_deregister_sysinit(arg: usize) {
    STATE.with(|s| s.sysinits.retain(|&x| x != arg));
}

extern "C" fn vnet_register_sysuninit(arg: usize) {
    STATE.with(|s| s.sysuninits.push(arg));
}

extern "C" fn vnet_deregister_sysuninit(arg: usize) {
    for v in all() {
        run_in(v, arg);
    }
    STATE.with(|s| s.sysuninits.retain(|&x| x != arg));
}

crate::exports! {
    "vnet_register_sysinit" => vnet_register_sysinit,
    "vnet_deregister_sysinit" => vnet_deregister_sysinit,
    "vnet_register_sysuninit" => vnet_register_sysuninit,
    "vnet_deregister_sysuninit" => vnet_deregister_sysuninit,
}
