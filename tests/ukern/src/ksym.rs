//! The kernel's symbol table: what a module may import.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::global::Global;
use crate::kp::Kp;
use crate::lowmem;

/// One exported function: the C name and the `extern "C"` function behind it.
#[derive(Clone, Copy)]
pub struct Export {
    /// The C symbol.
    pub name: &'static str,
    /// Address of the function.
    pub func: *const (),
}

// SAFETY: a function's address is the same for every thread.
unsafe impl Sync for Export {}

/// A table of exports: `exports! { "malloc" => malloc, "free" => free }` makes the
/// `pub(crate) fn symbols() -> &'static [Export]` which `lib.rs` collects from every module.
#[macro_export]
macro_rules! exports {
    ($($name:literal => $func:path),* $(,)?) => {
        pub(crate) fn symbols() -> &'static [$crate::ksym::Export] {
            static TABLE: &[$crate::ksym::Export] =
                &[$($crate::ksym::Export { name: $name, func: $func as *const () }),*];
            TABLE
        }
    };
}

/// One exported variable. It lives in low memory, anew in each boot.
///
/// `static TICKS: KData = KData::of::<i32>("ticks");` and then `*TICKS.get::<i32>()`. Every
/// `KData` must be listed in its module's `data()`.
pub struct KData {
    name: &'static str,
    size: usize,
    align: usize,
    vnet: bool,
    init: Option<fn(*mut u8)>,
    addr: AtomicUsize,
}

impl KData {
    /// A zeroed variable of type `T`.
    #[must_use]
    pub const fn of<T>(name: &'static str) -> Self {
        KData {
            name,
            size: size_of::<T>(),
            align: align_of::<T>(),
            vnet: false,
            init: None,
            addr: AtomicUsize::new(0),
        }
    }

    /// A zeroed variable per network stack; `name` starts with `vnet_entry_`.
    #[must_use]
    pub const fn vnet<T>(name: &'static str) -> Self {
        let mut d = Self::of::<T>(name);
        d.vnet = true;
        d
    }

    /// Runs `init` on the fresh, zeroed variable in each boot (for a vnet variable: on the template).
    #[must_use]
    pub const fn with_init(mut self, init: fn(*mut u8)) -> Self {
        self.init = Some(init);
        self
    }

    /// The C symbol.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Address in this boot; for a vnet variable that of the template, which is what
    /// `&vnet_entry_x` means in C.
    ///
    /// # Panics
    /// When it was never listed in a `data()` table.
    #[must_use]
    #[inline]
    pub fn addr(&self) -> usize {
        let a = self.addr.load(Ordering::Relaxed);
        assert!(a != 0, "ukern: {} is in no data() table", self.name);
        a
    }

    /// The variable; the type must be the one it was made with.
    #[must_use]
    #[inline]
    pub fn get<T>(&self) -> Kp<T> {
        debug_assert_eq!(size_of::<T>(), self.size, "{}", self.name);
        Kp::new(self.addr() as *mut T)
    }
}

/// A table of exported variables: `exports_data! { TICKS, HZ }` makes the `data()` which `lib.rs`
/// collects from every module.
#[macro_export]
macro_rules! exports_data {
    ($($var:path),* $(,)?) => {
        pub(crate) fn data() -> &'static [&'static $crate::ksym::KData] {
            static TABLE: &[&$crate::ksym::KData] = &[$(&$var),*];
            TABLE
        }
    };
}

/// Bytes of one jump stub.
const STUB: usize = 32;

struct Symtab {
    addr: HashMap<&'static str, usize>,
}

static SYMTAB: Global<Symtab> = Global::new("symbol table");

/// The countdown the stubs decrement, in low memory next to them; see [`crate::sched::yield_point`].
static COUNTDOWN: KData = KData::of::<i32>("ukern_countdown");
static SLOW_PATH: KData = KData::of::<usize>("ukern_slow_path");

/// The preemption countdown: a yield is due when it turns negative.
#[must_use]
#[inline]
pub(crate) fn countdown() -> Kp<i32> {
    COUNTDOWN.get()
}

/// Saves every register a call may carry arguments in, and lets the scheduler look.
#[unsafe(naked)]
extern "C" fn stub_slow_path() {
    std::arch::naked_asm!(
        "push rax", "push rdi", "push rsi", "push rdx", "push rcx",
        "push r8", "push r9", "push r10", "push r11",
        "sub rsp, 8",
        "call {yield_now}",
        "add rsp, 8",
        "pop r11", "pop r10", "pop r9", "pop r8",
        "pop rcx", "pop rdx", "pop rsi", "pop rdi", "pop rax",
        "ret",
        yield_now = sym crate::sched::preempt_slow,
    )
}

fn rel32(from_next: usize, to: usize) -> [u8; 4] {
    let d = to as i64 - from_next as i64;
    i32::try_from(d)
        .expect("low memory spans less than 2 GB")
        .to_le_bytes()
}

fn write_stub(at: usize, target: usize) {
    let mut code = Vec::with_capacity(STUB);
    code.extend([0xff, 0x0d]); // dec dword [rip + countdown]
    code.extend(rel32(at + 6, COUNTDOWN.addr()));
    code.extend([0x79, 0x06]); // jns over the next instruction
    code.extend([0xff, 0x15]); // call [rip + slow path]
    code.extend(rel32(at + 14, SLOW_PATH.addr()));
    code.extend([0xff, 0x25]); // jmp [rip + target below]
    code.extend(rel32(at + 20, at + 24));
    code.extend([0xcc; 4]);
    code.extend((target as u64).to_le_bytes());
    crate::kp::bytes_mut(at as *mut u8, STUB).copy_from_slice(&code);
}

/// Places every variable and makes a stub for every function.
pub(crate) fn boot(exports: &[&[Export]], data: &[&[&KData]]) {
    let mut addr: HashMap<&'static str, usize> = HashMap::new();
    let own: &[&KData] = &[&COUNTDOWN, &SLOW_PATH];
    let all = || data.iter().copied().chain([own]).flatten().copied();

    let mut place = |vnet: bool, base: Option<usize>| -> usize {
        let mut off = 0_usize;
        for d in all().filter(|d| d.vnet == vnet) {
            off = off.next_multiple_of(d.align.max(16));
            if let Some(base) = base {
                d.addr.store(base + off, Ordering::Relaxed);
                if let Some(init) = d.init {
                    init((base + off) as *mut u8);
                }
                assert!(
                    addr.insert(d.name, base + off).is_none(),
                    "ukern: {} exported twice",
                    d.name
                );
            }
            // A gap behind each variable keeps a stray index off the next one.
            off += d.size + 16;
        }
        off
    };
    let plain = place(false, None);
    let base = lowmem::alloc(plain).expect("room for kernel data");
    place(false, Some(base));
    let per_vnet = place(true, None);
    let template = crate::vnet::boot_template(per_vnet);
    place(true, Some(template));

    // <sys/pcpu.h> and <net/vnet.h> make every module name the bounds of the kernel's own sets.
    addr.insert("__start_set_vnet", template);
    addr.insert("__stop_set_vnet", template + per_vnet);
    addr.insert("__start_set_pcpu", base);
    addr.insert("__stop_set_pcpu", base);

    *SLOW_PATH.get::<usize>() = stub_slow_path as *const () as usize;
    let funcs = || exports.iter().copied().flatten();
    let text_len = funcs().count() * STUB;
    let text = lowmem::alloc(text_len).expect("room for stubs");
    for (i, e) in funcs().enumerate() {
        let at = text + i * STUB;
        write_stub(at, e.func as usize);
        assert!(
            addr.insert(e.name, at).is_none(),
            "ukern: {} exported twice",
            e.name
        );
    }
    lowmem::protect(text, text_len, lowmem::Perm::Rx);
    SYMTAB.init(Symtab { addr });
}

/// The low address of an exported symbol.
#[must_use]
pub fn lookup(name: &str) -> Option<usize> {
    SYMTAB.with(|s| s.addr.get(name).copied())
}

/// The name of the exported symbol at or below this low address, for reports.
#[must_use]
pub fn describe(addr: usize) -> Option<String> {
    SYMTAB.with(|s| {
        s.addr
            .iter()
            .find(|&(_, &a)| a <= addr && addr < a + STUB)
            .map(|(n, _)| (*n).to_string())
    })
}
