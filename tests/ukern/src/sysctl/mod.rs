//! sysctl(9): the tree of real `struct sysctl_oid`s, contexts, and registration.
//!
//! A list of children is known by the address of its `struct sysctl_oid_list`; the red-black links in
//! the oids are not used, for nothing but the kernel follows them.

mod handlers;
mod query;
mod tunable;

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use crate::global::Global;
use crate::kp::{Kp, bytes_mut, cstr};
use crate::ksym::{Export, KData};
use crate::sched::{self, SleepOpts};
use crate::{console, kmem, kpanic, sys};

pub use query::{Value, get, set, tree};
pub use tunable::setenv;

type Oid = sys::sysctl_oid;
type Handler =
    Option<unsafe extern "C" fn(*mut Oid, *mut c_void, i64, *mut sys::sysctl_req) -> i32>;

#[derive(Default)]
struct Tree {
    /// Children by the address of the list, in order of registration.
    lists: BTreeMap<usize, Vec<usize>>,
    next_number: i32,
}

static TREE: Global<Tree> = Global::new("sysctl tree");
static ROOT: KData = KData::of::<usize>("sysctl__children");
static M_SYSCTLOID: KData = KData::of::<sys::malloc_type>("M_SYSCTLOID").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"sysctloid".as_ptr();
});

/// Static nodes of the kernel that modules hang oids on: the symbol, the path.
macro_rules! nodes {
    ($($var:ident $sym:literal $path:literal),* $(,)?) => {
        $(static $var: KData = KData::of::<Oid>(concat!("sysctl__", $sym));)*
        crate::exports_data! { ROOT, M_SYSCTLOID, $($var),* }
        static NODES: &[(&KData, &str)] = &[$((&$var, $path)),*];
    };
}

nodes! {
    N_SYSCTL "_sysctl" "sysctl", N_KERN "_kern" "kern", N_VM "_vm" "vm", N_VFS "_vfs" "vfs", N_NET "_net" "net",
    N_DEBUG "_debug" "debug", N_HW "_hw" "hw", N_MACHDEP "_machdep" "machdep", N_DEV "_dev" "dev",
    N_SECURITY "_security" "security", N_COMPAT "_compat" "compat",
    N_KERN_IPC "_kern_ipc" "kern.ipc", N_KERN_FEATURES "_kern_features" "kern.features",
    N_NET_INET "_net_inet" "net.inet", N_NET_INET_IP "_net_inet_ip" "net.inet.ip",
    N_NET_INET_TCP "_net_inet_tcp" "net.inet.tcp", N_NET_INET6 "_net_inet6" "net.inet6",
    N_NET_LINK "_net_link" "net.link", N_VFS_AIO "_vfs_aio" "vfs.aio",
}

pub(crate) fn symbols() -> [&'static [Export]; 3] {
    [
        c_symbols::symbols(),
        handlers::symbols(),
        tunable::symbols(),
    ]
}

pub(crate) fn boot() {
    TREE.init(Tree {
        lists: BTreeMap::new(),
        next_number: sys::CTL_AUTO_START as i32,
    });
    tunable::boot();
    for &(var, path) in NODES {
        let mut oid: Kp<Oid> = var.get();
        let (parent, name) = match path.rsplit_once('.') {
            Some((p, n)) => (find_node(p), n),
            None => (ROOT.addr(), path),
        };
        oid.oid_parent = parent as *mut sys::sysctl_oid_list;
        oid.oid_number = -1;
        oid.oid_kind = sys::CTLTYPE_NODE | sys::CTLFLAG_RW;
        oid.oid_name = crate::names::intern(&format!("{name}\0")).as_ptr().cast();
        oid.oid_fmt = c"N".as_ptr();
        register(oid);
    }
}

pub(crate) fn shutdown() {
    TREE.take();
    tunable::shutdown();
}

fn find_node(path: &str) -> usize {
    let found = NODES.iter().find(|n| n.1 == path);
    found.map_or(ROOT.addr(), |n| children(n.0.get()))
}

/// The list of an oid's children, as SYSCTL_CHILDREN.
pub(crate) fn children(oid: Kp<Oid>) -> usize {
    oid.addr() + std::mem::offset_of!(Oid, oid_children)
}

fn list(of: usize) -> Vec<Kp<Oid>> {
    TREE.with(|t| {
        t.lists
            .get(&of)
            .map(|l| l.iter().map(|&a| Kp::new(a as *mut Oid)).collect())
            .unwrap_or_default()
    })
}

fn child(of: usize, name: &str) -> Option<Kp<Oid>> {
    list(of).into_iter().find(|o| cstr(o.oid_name) == name)
}

fn is_node(oid: Kp<Oid>) -> bool {
    oid.oid_kind & sys::CTLTYPE == sys::CTLTYPE_NODE
}

/// The full name of a registered oid.
pub(crate) fn path(oid: Kp<Oid>) -> String {
    let mut name = cstr(oid.oid_name);
    let mut parent = oid.oid_parent as usize;
    while parent != ROOT.addr() && parent != 0 {
        let p: Kp<Oid> = Kp::new((parent - std::mem::offset_of!(Oid, oid_children)) as *mut Oid);
        name = format!("{}.{name}", cstr(p.oid_name));
        parent = p.oid_parent as usize;
    }
    name
}

/// `sysctl_register_oid`: panics on a second oid of the same name with another meaning.
pub(crate) fn register(mut oid: Kp<Oid>) {
    let parent = oid.oid_parent as usize;
    let name = cstr(oid.oid_name);
    if let Some(mut old) = child(parent, &name) {
        if is_node(old) && is_node(oid) {
            old.oid_refcnt += 1;
        } else {
            console::write(&format!("can't re-use a leaf ({})!\n", path(old)));
        }
        return;
    }
    let number = TREE.with(|t| {
        t.next_number += 1;
        t.lists.entry(parent).or_default().push(oid.addr());
        t.next_number
    });
    if oid.oid_number == -1 {
        oid.oid_number = number;
    }
    oid.oid_refcnt += 1;
    if oid.oid_kind & sys::CTLFLAG_TUN != 0
        && oid.oid_kind & sys::CTLFLAG_NOFETCH == 0
        && !is_node(oid)
    {
        tunable::load(oid);
    }
}

/// `sysctl_unregister_oid`: waits for handlers that run.
pub(crate) fn unregister(mut oid: Kp<Oid>) {
    let parent = oid.oid_parent as usize;
    let found = TREE.with(|t| {
        let l = t.lists.get_mut(&parent)?;
        let i = l.iter().position(|&a| a == oid.addr())?;
        l.remove(i);
        if l.is_empty() {
            t.lists.remove(&parent);
        }
        Some(())
    });
    if found.is_none() {
        console::write(&format!(
            "sysctl oid \"{}\" is not registered\n",
            cstr(oid.oid_name)
        ));
        return;
    }
    oid.oid_refcnt -= 1;
    oid.oid_kind |= sys::CTLFLAG_DYING;
    while running(oid) {
        sched::sleep_on(oid.addr(), SleepOpts::new("oidrm"));
    }
}

fn running(oid: Kp<Oid>) -> bool {
    oid.oid_running > 0
}

fn dup(s: *const c_char) -> *mut c_char {
    let text = cstr(s);
    let p = kmem::malloc(
        text.len() + 1,
        M_SYSCTLOID.addr(),
        (sys::M_WAITOK | sys::M_ZERO) as i32,
    );
    bytes_mut(p, text.len()).copy_from_slice(text.as_bytes());
    p.cast()
}

fn free_str(p: *const c_char) {
    kmem::free(p.cast_mut().cast(), M_SYSCTLOID.addr());
}

fn ctx_push(mut ctx: Kp<sys::sysctl_ctx_list>, oid: Kp<Oid>) -> Kp<sys::sysctl_ctx_entry> {
    let mut e: Kp<sys::sysctl_ctx_entry> = kmem::alloc_zeroed(&M_SYSCTLOID);
    e.entry = oid.ptr();
    // TAILQ_INSERT_HEAD, so that freeing runs from the newest to the oldest.
    e.link.tqe_next = ctx.tqh_first;
    let link = e.addr() + std::mem::offset_of!(sys::sysctl_ctx_entry, link);
    if let Some(mut first) = Kp::opt(ctx.tqh_first) {
        first.link.tqe_prev = link as *mut *mut sys::sysctl_ctx_entry;
    } else {
        ctx.tqh_last = link as *mut *mut sys::sysctl_ctx_entry;
    }
    ctx.tqh_first = e.ptr();
    e.link.tqe_prev = &raw mut ctx.tqh_first;
    e
}

/// `sysctl_ctx_init`.
pub(crate) fn ctx_init(mut ctx: Kp<sys::sysctl_ctx_list>) {
    ctx.tqh_first = std::ptr::null_mut();
    ctx.tqh_last = &raw mut ctx.tqh_first;
}

/// `sysctl_ctx_free`: EBUSY when an oid has children of others'.
pub(crate) fn ctx_free(mut ctx: Kp<sys::sysctl_ctx_list>) -> i32 {
    let mut entries = Vec::new();
    let mut at = ctx.tqh_first;
    while let Some(e) = Kp::opt(at) {
        at = e.link.tqe_next;
        entries.push(e);
    }
    let oids: Vec<usize> = entries.iter().map(|e| e.entry as usize).collect();
    for &e in &entries {
        let oid: Kp<Oid> = Kp::new(e.entry);
        let foreign = oid.oid_refcnt == 1
            && list(children(oid))
                .iter()
                .any(|c| !oids.contains(&c.addr()));
        if foreign {
            return sys::EBUSY as i32;
        }
    }
    for e in entries {
        let err = remove(Kp::new(e.entry), true, false);
        if err != 0 {
            kpanic!(
                "sysctl_ctx_free: cannot remove {} ({err})",
                cstr(Kp::new(e.entry).oid_name)
            );
        }
        kmem::free_obj(e, &M_SYSCTLOID);
    }
    ctx_init(ctx);
    ctx.tqh_first = std::ptr::null_mut();
    0
}

/// What `sysctl_add_oid` is told.
pub(crate) struct NewOid {
    pub(crate) parent: usize,
    pub(crate) number: i32,
    pub(crate) name: *const c_char,
    pub(crate) kind: u32,
    pub(crate) arg1: *mut c_void,
    pub(crate) arg2: i64,
    pub(crate) handler: Handler,
    pub(crate) fmt: *const c_char,
    pub(crate) descr: *const c_char,
}

/// `sysctl_add_oid`; NULL when the name is taken by a leaf.
pub(crate) fn add(ctx: *mut sys::sysctl_ctx_list, n: &NewOid) -> *mut Oid {
    if n.parent == 0 {
        kpanic!("sysctl_add_oid(\"{}\") with no parent", cstr(n.name));
    }
    let name = cstr(n.name);
    if let Some(mut old) = child(n.parent, &name) {
        if !is_node(old) || n.kind & sys::CTLTYPE != sys::CTLTYPE_NODE {
            console::write(&format!("can't re-use a leaf ({})!\n", path(old)));
            return std::ptr::null_mut();
        }
        old.oid_refcnt += 1;
        if let Some(c) = Kp::opt(ctx) {
            ctx_push(c, old);
        }
        return old.ptr();
    }
    let mut oid: Kp<Oid> = kmem::alloc_zeroed(&M_SYSCTLOID);
    oid.oid_parent = n.parent as *mut sys::sysctl_oid_list;
    oid.oid_number = n.number;
    oid.oid_kind = sys::CTLFLAG_DYN | n.kind;
    oid.oid_arg1 = n.arg1;
    oid.oid_arg2 = n.arg2;
    oid.oid_name = dup(n.name);
    oid.oid_handler = n.handler;
    oid.oid_fmt = n.fmt;
    oid.oid_descr = if n.descr.is_null() {
        std::ptr::null()
    } else {
        dup(n.descr)
    };
    register(oid);
    if let Some(c) = Kp::opt(ctx) {
        ctx_push(c, oid);
    }
    oid.ptr()
}

/// `sysctl_remove_oid`.
pub(crate) fn remove(mut oid: Kp<Oid>, del: bool, recurse: bool) -> i32 {
    if oid.oid_kind & sys::CTLFLAG_DYN == 0 {
        console::write("Warning: can't remove non-dynamic nodes!\n");
        return sys::EINVAL as i32;
    }
    if is_node(oid) && oid.oid_refcnt == 1 {
        for c in list(children(oid)) {
            if !recurse {
                console::write(&format!(
                    "Warning: failed attempt to remove oid {} with child {}\n",
                    cstr(oid.oid_name),
                    cstr(c.oid_name)
                ));
                return sys::ENOTEMPTY as i32;
            }
            let e = remove(c, del, recurse);
            if e != 0 {
                return e;
            }
        }
    }
    if oid.oid_refcnt > 1 {
        oid.oid_refcnt -= 1;
        return 0;
    }
    unregister(oid);
    if del {
        free_str(oid.oid_name);
        free_str(oid.oid_descr);
        kmem::free_obj(oid, &M_SYSCTLOID);
    }
    0
}

/// Panics when an oid, its handler or its variable lies in memory that is about to go.
pub(crate) fn check_gone(addr: usize, len: usize, what: &str) {
    let range = addr..addr + len;
    let all: Vec<usize> = TREE.with(|t| t.lists.values().flatten().copied().collect());
    for a in all {
        let o: Kp<Oid> = Kp::new(a as *mut Oid);
        let h = o.oid_handler.map_or(0, |h| h as usize);
        if range.contains(&a) || range.contains(&h) || range.contains(&(o.oid_arg1 as usize)) {
            kpanic!("{what} with sysctl {} still there", path(o));
        }
    }
}

/// The node `dev.<name>.<unit>` and its context, for a device.
pub(crate) fn device_node(name: &str, unit: i32) -> (usize, usize) {
    let ctx: Kp<sys::sysctl_ctx_list> = kmem::alloc_zeroed(&M_SYSCTLOID);
    ctx_init(ctx);
    let node = |parent: usize, name: &str| {
        let c = std::ffi::CString::new(name).unwrap_or_default();
        add(
            ctx.ptr(),
            &NewOid {
                parent,
                number: -1,
                name: c.as_ptr(),
                kind: sys::CTLTYPE_NODE | sys::CTLFLAG_RD,
                arg1: std::ptr::null_mut(),
                arg2: 0,
                handler: None,
                fmt: c"N".as_ptr(),
                descr: std::ptr::null(),
            },
        )
    };
    let class = node(children(N_DEV.get()), name);
    let tree = node(children(Kp::new(class)), &unit.to_string());
    (ctx.addr(), tree as usize)
}

pub(crate) fn device_node_free(ctx: usize) {
    let c: Kp<sys::sysctl_ctx_list> = Kp::new(ctx as *mut _);
    if ctx_free(c) != 0 {
        kpanic!("a device goes with foreign oids in its sysctl tree");
    }
    kmem::free_obj(c, &M_SYSCTLOID);
}

mod c_symbols {
    use super::{
        Handler, Kp, M_SYSCTLOID, NewOid, Oid, add, c_char, c_void, child, children, cstr,
        ctx_free, ctx_init, ctx_push, kmem, register, remove, sys, unregister,
    };

    extern "C" fn sysctl_add_oid(
        ctx: *mut sys::sysctl_ctx_list,
        parent: usize,
        number: i32,
        name: *const c_char,
        kind: i32,
        arg1: *mut c_void,
        arg2: i64,
        handler: Handler,
        fmt: *const c_char,
        descr: *const c_char,
        _label: *const c_char,
    ) -> *mut Oid {
        add(
            ctx,
            &NewOid {
                parent,
                number,
                name,
                kind: kind as u32,
                arg1,
                arg2,
                handler,
                fmt,
                descr,
            },
        )
    }
    extern "C" fn sysctl_remove_oid(oid: Kp<Oid>, del: i32, recurse: i32) -> i32 {
        remove(oid, del != 0, recurse != 0)
    }
    extern "C" fn sysctl_remove_name(
        parent: Kp<Oid>,
        name: *const c_char,
        del: i32,
        recurse: i32,
    ) -> i32 {
        match child(children(parent), &cstr(name)) {
            Some(c) => remove(c, del != 0, recurse != 0),
            None => sys::ENOENT as i32,
        }
    }
    extern "C" fn sysctl_register_oid(oid: Kp<Oid>) {
        register(oid);
    }
    extern "C" fn sysctl_unregister_oid(oid: Kp<Oid>) {
        unregister(oid);
    }
    extern "C" fn sysctl_ctx_init(ctx: Kp<sys::sysctl_ctx_list>) -> i32 {
        ctx_init(ctx);
        0
    }
    extern "C" fn sysctl_ctx_free(ctx: Kp<sys::sysctl_ctx_list>) -> i32 {
        ctx_free(ctx)
    }
    extern "C" fn sysctl_ctx_entry_add(
        ctx: Kp<sys::sysctl_ctx_list>,
        oid: Kp<Oid>,
    ) -> Kp<sys::sysctl_ctx_entry> {
        ctx_push(ctx, oid)
    }
    extern "C" fn sysctl_ctx_entry_find(
        ctx: Kp<sys::sysctl_ctx_list>,
        oid: *mut Oid,
    ) -> *mut sys::sysctl_ctx_entry {
        let mut at = ctx.tqh_first;
        while let Some(e) = Kp::opt(at) {
            if e.entry == oid {
                return at;
            }
            at = e.link.tqe_next;
        }
        std::ptr::null_mut()
    }
    extern "C" fn sysctl_ctx_entry_del(ctx: Kp<sys::sysctl_ctx_list>, oid: *mut Oid) -> i32 {
        let Some(e) = Kp::opt(sysctl_ctx_entry_find(ctx, oid)) else {
            return sys::ENOENT as i32;
        };
        let mut ctx = ctx;
        match Kp::opt(e.link.tqe_next) {
            Some(mut n) => n.link.tqe_prev = e.link.tqe_prev,
            None => ctx.tqh_last = e.link.tqe_prev,
        }
        *Kp::new(e.link.tqe_prev) = e.link.tqe_next;
        kmem::free_obj(e, &M_SYSCTLOID);
        0
    }
    extern "C" fn sysctl_wire_old_buffer(_req: *mut sys::sysctl_req, _len: usize) -> i32 {
        0
    }

    crate::exports! {
        "sysctl_add_oid" => sysctl_add_oid,
        "sysctl_remove_oid" => sysctl_remove_oid,
        "sysctl_remove_name" => sysctl_remove_name,
        "sysctl_register_oid" => sysctl_register_oid,
        "sysctl_unregister_oid" => sysctl_unregister_oid,
        "sysctl_ctx_init" => sysctl_ctx_init,
        "sysctl_ctx_free" => sysctl_ctx_free,
        "sysctl_ctx_entry_add" => sysctl_ctx_entry_add,
        "sysctl_ctx_entry_find" => sysctl_ctx_entry_find,
        "sysctl_ctx_entry_del" => sysctl_ctx_entry_del,
        "sysctl_wire_old_buffer" => sysctl_wire_old_buffer,
    }
}
