//! kthread(9) and kproc(9).

use std::ffi::{c_char, c_void};

use crate::kp::Kp;
use crate::printf::{self, VaList};
use crate::sched::{self, Spawn};
use crate::sys;

type Main = extern "C" fn(*mut c_void);

fn start(func: Main, arg: *mut c_void, name: &str, proc_: *mut sys::proc_) -> *mut sys::thread {
    let arg = arg as usize;
    let how = Spawn {
        proc_,
        entry: func as *const () as usize,
        ..Spawn::kernel(name)
    };
    let tid = sched::spawn(how, move || {
        func(arg as *mut c_void);
        // Returning from the main function is the same as kthread_exit.
    });
    sched::thread_of(tid).map_or(std::ptr::null_mut(), Kp::ptr)
}

extern "C" fn vkthread_add(
    func: Main,
    arg: *mut c_void,
    proc_: *mut sys::proc_,
    newtd: *mut *mut sys::thread,
    ap: Kp<VaList>,
) -> i32 {
    let mut ap = ap;
    // Fixed arguments five to seven: flags, pages, and the format.
    ap.word();
    ap.word();
    let fmt = ap.word() as *const c_char;
    let name = printf::to_string(fmt, &mut ap);
    let td = start(func, arg, &name, proc_);
    if let Some(mut p) = Kp::opt(newtd) {
        *p = td;
    }
    0
}

// The list starts behind the fourth argument, so that it reaches the fixed ones on the stack too.
crate::variadic!(fn kthread_add, vkthread_add, fixed 4, list in "r8");

extern "C" fn kproc_named(
    func: Main,
    arg: *mut c_void,
    newpp: *mut *mut sys::proc_,
    ap: Kp<VaList>,
) -> i32 {
    let mut ap = ap;
    ap.word();
    ap.word();
    let fmt = ap.word() as *const c_char;
    let name = printf::to_string(fmt, &mut ap);
    start(func, arg, &name, std::ptr::null_mut());
    if let Some(mut p) = Kp::opt(newpp) {
        *p = crate::proc0();
    }
    0
}
crate::variadic!(fn kproc_create, kproc_named, fixed 3, list in "rcx");

extern "C" fn kthread_exit() -> ! {
    sched::exit_thread()
}

extern "C" fn kproc_exit(_code: i32) -> ! {
    sched::exit_thread()
}

extern "C" fn kern_yield(_prio: i32) {
    sched::check_may_sleep("kern_yield");
    sched::yield_now();
}

extern "C" fn maybe_yield() {
    sched::yield_point();
}

crate::exports! {
    "kthread_add" => kthread_add,
    "kproc_create" => kproc_create,
    "kthread_exit" => kthread_exit,
    "kproc_exit" => kproc_exit,
    "kern_yield" => kern_yield,
    "maybe_yield" => maybe_yield,
}
