//! Faults of code running on the simulated kernel, turned into ukern panics.
//!
//! A wild access in a module, or in Rust code that was given a wild pointer, raises a signal on
//! the host. The handler notes what happened and resumes at [`landing`] on an emergency stack; the
//! thread that faulted is then left for good, as in any ukern panic.

use std::cell::Cell;
use std::sync::Once;

use crate::coro::Stack;
use crate::global::Global;
use crate::{kpanic, loader, sched};

const SIGNALS: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
];

struct Noted {
    signal: Cell<i32>,
    addr: Cell<usize>,
    ip: Cell<usize>,
    /// Stack pointer at the fault; 0 when there was none.
    sp: Cell<usize>,
    stack_top: Cell<usize>,
    thread: Cell<libc::pthread_t>,
}
// SAFETY: written by the one host thread that runs a kernel, and read by it.
unsafe impl Sync for Noted {}

static NOTED: Noted = Noted {
    signal: Cell::new(0),
    addr: Cell::new(0),
    ip: Cell::new(0),
    sp: Cell::new(0),
    stack_top: Cell::new(0),
    thread: Cell::new(0),
};

/// The stack the handler runs on and the one the landing runs on.
static STACKS: Global<(Stack, Stack)> = Global::new("trap stacks");

struct Old(std::cell::UnsafeCell<[Option<libc::sigaction>; 32]>);
// SAFETY: written once under `Once`, read by handlers afterwards.
unsafe impl Sync for Old {}
static OLD: Old = Old(std::cell::UnsafeCell::new([None; 32]));

fn this_thread() -> libc::pthread_t {
    // SAFETY: always allowed.
    unsafe { libc::pthread_self() }
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, ctx: *mut libc::c_void) {
    let ours =
        NOTED.stack_top.get() != 0 && NOTED.thread.get() == this_thread() && sched::on_thread();
    if !ours || NOTED.signal.get() != 0 {
        // Not the kernel's: hand it to whoever was there before, by re-running with that handler.
        restore(signal);
        return;
    }
    NOTED.signal.set(signal);
    // SAFETY: the kernel of the host passes a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: these signals carry an address.
    let addr = unsafe { info.si_addr() };
    NOTED.addr.set(addr as usize);
    let ctx: *mut libc::ucontext_t = ctx.cast();
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context.
    let ctx = unsafe { &mut *ctx };
    let regs = &mut ctx.uc_mcontext.gregs;
    NOTED.ip.set(regs[libc::REG_RIP as usize] as usize);
    NOTED.sp.set(regs[libc::REG_RSP as usize] as usize);
    regs[libc::REG_RIP as usize] = landing as *const () as i64;
    // As if called: the stack is 8 off a multiple of 16.
    regs[libc::REG_RSP as usize] = (NOTED.stack_top.get() - 8) as i64;
    regs[libc::REG_RBP as usize] = 0;
}

fn restore(signal: i32) {
    // SAFETY: written once before any handler could run.
    let old = unsafe { &*OLD.0.get() };
    if let Some(Some(old)) = old.get(signal as usize) {
        // SAFETY: an action sigaction itself returned.
        unsafe { libc::sigaction(signal, old, std::ptr::null_mut()) };
    }
}

extern "C" fn landing() -> ! {
    let (signal, addr, ip) = (NOTED.signal.get(), NOTED.addr.get(), NOTED.ip.get());
    NOTED.signal.set(0);
    sched::reset_no_preempt();
    crate::global::reset_all();
    let at = loader::describe(ip).unwrap_or_else(|| format!("ukern code {ip:#x}"));
    let what = loader::describe(addr).map_or_else(|| describe_data(addr), |d| format!(" ({d})"));
    let me = sched::current();
    match signal {
        libc::SIGSEGV | libc::SIGBUS if me.stack_guards(addr) => {
            kpanic!("kernel stack overflow in {at}")
        }
        libc::SIGSEGV | libc::SIGBUS => kpanic!("page fault: address {addr:#x}{what}, in {at}"),
        libc::SIGILL => kpanic!("illegal instruction (a panic of module code ends so) in {at}"),
        libc::SIGFPE => kpanic!("divide error in {at}"),
        _ => kpanic!("breakpoint in {at}"),
    }
}

/// The stack pointer of the code that faulted, while its panic is being reported.
pub(crate) fn fault_sp() -> Option<usize> {
    Some(NOTED.sp.get()).filter(|&sp| sp != 0)
}

fn describe_data(addr: usize) -> String {
    const POISONS: [u64; 3] = [
        0xdead_c0de_dead_c0de,
        0xdfdf_dfdf_dfdf_dfdf,
        0xa5a5_a5a5_a5a5_a5a5,
    ];
    if addr == 0
        || POISONS
            .iter()
            .any(|&p| (addr as u64).abs_diff(p) < 0x1_0000)
    {
        // Non-canonical addresses are reported as 0.
        return " (or a poisoned pointer: freed or fresh memory)".to_string();
    }
    if addr < 0x1_0000 {
        return " (null pointer)".to_string();
    }
    String::new()
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for s in SIGNALS {
            // SAFETY: all zeroes is a valid sigaction.
            let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: as above.
            let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
            new.sa_sigaction = handler as *const () as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            // SAFETY: a handler that only writes its own cells and the context.
            unsafe { libc::sigaction(s, &raw const new, &raw mut old) };
            // SAFETY: under `Once`, before handlers read it.
            let all = unsafe { &mut *OLD.0.get() };
            all[s as usize] = Some(old);
        }
    });
}

/// Gives the booting host thread a signal stack.
pub(crate) fn boot() {
    install();
    let (sig, land) = (Stack::new(), Stack::new());
    let ss = libc::stack_t {
        ss_sp: (sig.top() - Stack::SIZE) as *mut libc::c_void,
        ss_flags: 0,
        ss_size: Stack::SIZE,
    };
    // SAFETY: memory that stays until `shutdown` takes the signal stack away again.
    let rc = unsafe { libc::sigaltstack(&raw const ss, std::ptr::null_mut()) };
    assert_eq!(rc, 0, "sigaltstack");
    NOTED.signal.set(0);
    NOTED.sp.set(0);
    NOTED.thread.set(this_thread());
    NOTED.stack_top.set(land.top());
    STACKS.init((sig, land));
}

/// Undoes [`boot`].
pub(crate) fn shutdown() {
    NOTED.stack_top.set(0);
    let ss = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: turns the alternate stack off; no handler is running.
    unsafe { libc::sigaltstack(&raw const ss, std::ptr::null_mut()) };
    STACKS.take();
}
