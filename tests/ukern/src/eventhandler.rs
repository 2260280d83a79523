//! eventhandler(9), on the real structures, for EVENTHANDLER_INVOKE walks them inline.

use std::ffi::{CString, c_char, c_void};

use crate::global::Global;
use crate::kp::{Kp, cstr};
use crate::ksym::KData;
use crate::{kmem, kpanic, locks, sched, sys};

type List = sys::eventhandler_list;
type Entry = sys::eventhandler_entry;

/// The typed entry behind the common part: EVENTHANDLER_INVOKE reads the function here.
#[repr(C)]
struct Full {
    ee: Entry,
    func: usize,
}

struct Named {
    name: CString,
    list: Box<List>,
}

static LISTS: Global<Vec<Named>> = Global::new("event handlers");
static M_EVENTHANDLER: KData = KData::of::<sys::malloc_type>("M_EVENTHANDLER").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"eventhandler".as_ptr();
});

crate::exports_data! { M_EVENTHANDLER }

pub(crate) fn boot() {
    LISTS.init(Vec::new());
}

pub(crate) fn shutdown() {
    LISTS.take();
}

fn find(name: &str) -> Option<Kp<List>> {
    LISTS.with(|l| {
        l.iter_mut()
            .find(|n| n.name.to_bytes() == name.as_bytes())
            .map(|n| Kp::new(&raw mut *n.list))
    })
}

fn find_or_create(name: &str) -> Kp<List> {
    if let Some(l) = find(name) {
        return l;
    }
    // SAFETY: `struct eventhandler_list` is plain C data.
    let mut list: Box<List> = unsafe { crate::kp::zeroed_box() };
    list.el_entries.tqh_last = &raw mut list.el_entries.tqh_first;
    let name = CString::new(name).unwrap_or_default();
    list.el_name = name.as_ptr().cast_mut();
    let l = Kp::new(&raw mut *list);
    // Every list has a lock of its own type: handlers of one event may fire another.
    let lock_name = crate::names::intern(&format!("eventhandler {}\0", name.to_string_lossy()));
    LISTS.with(|all| all.push(Named { name, list }));
    let mut lm = l;
    locks::mtx_init(Kp::new(&raw mut lm.el_lock), lock_name.as_ptr().cast(), 0);
    l
}

fn lock(mut l: Kp<List>) -> Kp<sys::mtx> {
    Kp::new(&raw mut l.el_lock)
}

fn entries(l: Kp<List>) -> Vec<Kp<Entry>> {
    let mut out = Vec::new();
    let mut at = l.el_entries.tqh_first;
    while let Some(e) = Kp::opt(at) {
        at = e.ee_link.tqe_next;
        out.push(e);
    }
    out
}

/// Registers a handler by the address of its function; returns the tag.
pub fn register(
    list: *mut List,
    name: &str,
    func: usize,
    arg: *mut c_void,
    prio: i32,
) -> Kp<Entry> {
    let l = Kp::opt(list).unwrap_or_else(|| find_or_create(name));
    let mut full: Kp<Full> = kmem::alloc_zeroed(&M_EVENTHANDLER);
    full.func = func;
    full.ee.ee_priority = prio;
    full.ee.ee_arg = arg;
    let mut e: Kp<Entry> = Kp::new(full.ptr().cast());
    locks::mtx_lock(lock(l));
    let before = entries(l)
        .into_iter()
        .find(|x| x.ee_priority != -1 && x.ee_priority > prio);
    let mut l2 = l;
    match before {
        Some(mut b) => {
            e.ee_link.tqe_prev = b.ee_link.tqe_prev;
            e.ee_link.tqe_next = b.ptr();
            *Kp::new(b.ee_link.tqe_prev) = e.ptr();
            b.ee_link.tqe_prev = &raw mut e.ee_link.tqe_next;
        }
        None => {
            e.ee_link.tqe_prev = l2.el_entries.tqh_last;
            *Kp::new(l2.el_entries.tqh_last) = e.ptr();
            l2.el_entries.tqh_last = &raw mut e.ee_link.tqe_next;
        }
    }
    locks::mtx_unlock(lock(l));
    e
}

fn remove(mut l: Kp<List>, e: Kp<Entry>) {
    match Kp::opt(e.ee_link.tqe_next) {
        Some(mut n) => n.ee_link.tqe_prev = e.ee_link.tqe_prev,
        None => l.el_entries.tqh_last = e.ee_link.tqe_prev,
    }
    *Kp::new(e.ee_link.tqe_prev) = e.ee_link.tqe_next;
    kmem::free_obj(Kp::new(e.ptr().cast::<Full>()), &M_EVENTHANDLER);
}

/// The list comes locked, as EVENTHANDLER_DEREGISTER gets it from `eventhandler_find_list`, and goes unlocked.
fn deregister(l: Kp<List>, tag: *mut Entry, wait: bool) {
    if !locks::mtx_owned(lock(l)) {
        kpanic!(
            "eventhandler_deregister of \"{}\" without the list's lock",
            cstr(l.el_name)
        );
    }
    let all = entries(l);
    let mine: Vec<_> = match Kp::opt(tag) {
        Some(t) if all.contains(&t) => vec![t],
        Some(t) => kpanic!(
            "eventhandler_deregister of {:p}, which is not on \"{}\"",
            t.ptr(),
            cstr(l.el_name)
        ),
        None => all,
    };
    for mut e in mine {
        if l.el_runcount == 0 {
            remove(l, e);
        } else {
            // Somebody walks the list: marked dead, pruned by the last walker.
            e.ee_priority = -1;
        }
    }
    if wait {
        while running(l) {
            let m = lock(l);
            locks::msleep(l.addr(), m.ptr().cast(), 0, "evhrm", None);
        }
    }
    locks::mtx_unlock(lock(l));
}

fn running(l: Kp<List>) -> bool {
    l.el_runcount > 0
}

/// Removes a handler by event and tag, from Rust.
pub fn remove_handler(name: &str, tag: Kp<Entry>) {
    if let Some(l) = find(name) {
        locks::mtx_lock(lock(l));
        deregister(l, tag.ptr(), true);
    }
}

/// Runs the handlers of an event from Rust; `call` gets each function and its argument.
pub fn invoke(name: &str, mut call: impl FnMut(usize, *mut c_void)) {
    let Some(mut l) = find(name) else { return };
    locks::mtx_lock(lock(l));
    l.el_runcount += 1;
    let mut at = l.el_entries.tqh_first;
    while let Some(e) = Kp::opt(at) {
        if e.ee_priority != -1 {
            locks::mtx_unlock(lock(l));
            call(Kp::new(e.ptr().cast::<Full>()).func, e.ee_arg);
            locks::mtx_lock(lock(l));
        }
        at = e.ee_link.tqe_next;
    }
    l.el_runcount -= 1;
    if l.el_runcount == 0 {
        prune(l);
    }
    locks::mtx_unlock(lock(l));
}

fn prune(l: Kp<List>) {
    let dead: Vec<_> = entries(l)
        .into_iter()
        .filter(|e| e.ee_priority == -1)
        .collect();
    if dead.is_empty() {
        return;
    }
    for e in dead {
        remove(l, e);
    }
    sched::wakeup(l.addr());
}

/// Panics when a handler in code that is about to go is still registered.
pub(crate) fn check_code_gone(addr: usize, len: usize, what: &str) {
    let lists: Vec<Kp<List>> =
        LISTS.with(|l| l.iter_mut().map(|n| Kp::new(&raw mut *n.list)).collect());
    for l in lists {
        for e in entries(l) {
            let f = Kp::new(e.ptr().cast::<Full>()).func;
            if (addr..addr + len).contains(&f) {
                kpanic!(
                    "{what} with a handler of event \"{}\" still registered",
                    cstr(l.el_name)
                );
            }
        }
    }
}

extern "C" fn c_register(
    list: *mut List,
    name: *const c_char,
    func: usize,
    arg: *mut c_void,
    prio: i32,
) -> Kp<Entry> {
    if prio < 0 {
        kpanic!("eventhandler_register with priority {prio}");
    }
    register(list, &cstr(name), func, arg, prio)
}

extern "C" fn c_deregister(list: Kp<List>, tag: *mut Entry) {
    sched::check_may_sleep_but("eventhandler_deregister", lock(list).addr());
    deregister(list, tag, true);
}

extern "C" fn c_deregister_nowait(list: Kp<List>, tag: *mut Entry) {
    deregister(list, tag, false);
}

/// Returns the list locked, or NULL.
extern "C" fn c_find_list(name: *const c_char) -> *mut List {
    match find(&cstr(name)) {
        Some(l) => {
            locks::mtx_lock(lock(l));
            l.ptr()
        }
        None => std::ptr::null_mut(),
    }
}

extern "C" fn c_prune(list: Kp<List>) {
    prune(list);
}

extern "C" fn c_create_list(name: *const c_char) -> Kp<List> {
    find_or_create(&cstr(name))
}

crate::exports! {
    "eventhandler_register" => c_register,
    "eventhandler_deregister" => c_deregister,
    "eventhandler_deregister_nowait" => c_deregister_nowait,
    "eventhandler_find_list" => c_find_list,
    "eventhandler_prune_list" => c_prune,
    "eventhandler_create_list" => c_create_list,
}
