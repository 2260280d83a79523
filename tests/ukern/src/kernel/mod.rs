//! Boot, the test's handle on the kernel, and shutdown.

mod parts;
mod tables;

use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kp::{Kp, poke};
use crate::ksym::{self, KData};
use crate::sched::{self, SBT_1S, SBT_1US, Sbt, Stop};
use crate::sysctl::{self, Value};
use crate::{
    console, device, epoch, fault, init, kmem, loader, locks, lowmem, panic, phys, sys, vnet,
};

/// How to boot.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides the schedule and every other choice.
    pub seed: u64,
    /// A preemption point gives way once in so many; 0 for never.
    pub preempt: u32,
    /// Virtual time a switch of threads costs.
    pub switch_cost: Sbt,
    /// Copies the console to stderr.
    pub echo: bool,
    /// Page frames for programs.
    pub user_frames: usize,
    /// Virtual time after which a call such as [`Api::exec`] that has not ended counts as hung.
    pub hang: Sbt,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 1,
            preempt: 64,
            switch_cost: SBT_1US,
            echo: false,
            user_frames: 1 << 18,
            hang: 7200 * SBT_1S,
        }
    }
}

impl Config {
    /// Defaults with this seed.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Config {
            seed,
            ..Config::default()
        }
    }

    /// Another probability of preemption: one in `n`.
    #[must_use]
    pub fn preempt(mut self, n: u32) -> Self {
        self.preempt = n;
        self
    }
}

static BOOTED: Mutex<()> = Mutex::new(());
static PCPU: KData = KData::of::<sys::pcpu>("ukern_pcpu0");
static PCPU_PTR: KData = KData::of::<usize>("__pcpu");
static HANG: crate::global::Global<Sbt> = crate::global::Global::new("hang limit");

crate::exports_data! { PCPU, PCPU_PTR }

/// Address of the one `struct pcpu`.
pub(crate) fn pcpu_addr() -> usize {
    PCPU.addr()
}

/// A running kernel. Dropping it without [`Kernel::shutdown`] switches the machine off unchecked.
pub struct Kernel {
    _one: MutexGuard<'static, ()>,
    off: bool,
    // Everything of a kernel stays on the host thread that booted it.
    _here: std::marker::PhantomData<*const ()>,
}

/// What a test, or a closure running on the kernel, can ask of the kernel.
#[derive(Clone, Copy)]
pub struct Api {
    _here: std::marker::PhantomData<*const ()>,
}

const API: Api = Api {
    _here: std::marker::PhantomData,
};

impl Deref for Kernel {
    type Target = Api;
    fn deref(&self) -> &Api {
        &API
    }
}

/// What is left at the end. Empty lists are what a test wants.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// One line per kind of thing still allocated.
    pub leaks: Vec<String>,
    /// Virtual time the kernel ran.
    pub uptime: Sbt,
    /// Switches of threads.
    pub switches: u64,
    /// Hash over the schedule: equal for equal seeds.
    pub trace: u64,
}

fn set_gs(base: usize) {
    // SAFETY: this thread's %gs is free for use on Linux x86-64: glibc and std use %fs.
    let rc = unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1001, base) };
    assert_eq!(rc, 0, "arch_prctl(ARCH_SET_GS)");
}

/// Boots a kernel; waits while another one exists in this process.
#[must_use]
pub fn boot(config: Config) -> Kernel {
    let one = BOOTED.lock().unwrap_or_else(PoisonError::into_inner);
    panic::boot(config.seed);
    crate::trap::boot();
    fault::boot(config.seed);
    console::boot(config.echo);
    lowmem::boot();
    phys::boot(config.user_frames);
    ksym::boot(&tables::exports(), &tables::data());
    let mut pcpu: Kp<sys::pcpu> = PCPU.get();
    pcpu.pc_prvspace = pcpu.ptr();
    poke(PCPU_PTR.addr(), pcpu.addr());
    set_gs(pcpu.addr());
    init::boot();
    sched::boot(config.seed, config.preempt, config.switch_cost, pcpu.ptr());
    pcpu.pc_idlethread = pcpu.pc_curthread;
    HANG.init(config.hang);
    locks::boot();
    kmem::boot();
    device::boot();
    epoch::boot();
    vnet::boot();
    init::boot_late();
    tables::boot();
    let k = Kernel {
        _one: one,
        off: false,
        _here: std::marker::PhantomData,
    };
    k.run_until_idle();
    sched::mark_builtin();
    k
}

/// Switches the machine off; every part forgets its state.
fn power_off() {
    crate::trap::shutdown();
    tables::shutdown();
    sched::shutdown();
    device::shutdown();
    epoch::shutdown();
    vnet::shutdown();
    locks::shutdown();
    init::shutdown();
    kmem::shutdown();
    phys::shutdown();
    fault::shutdown();
    console::shutdown();
    panic::shutdown();
    set_gs(0);
}

/// Raises what happened on a thread in the test.
fn deliver() {
    if let Some(report) = panic::report() {
        std::panic::panic_any(report);
    }
    if let Some((name, payload)) = sched::take_panic() {
        eprintln!(
            "ukern: thread \"{name}\" panicked (seed {:#x})",
            panic::seed()
        );
        std::panic::resume_unwind(payload);
    }
}

/// Why the driver came back with its condition unmet.
fn stuck() -> &'static str {
    if sched::has_timer() {
        "hung: too much virtual time passed"
    } else {
        "deadlock: nothing can run"
    }
}

impl Api {
    /// Runs `f` on a kernel thread and waits for it, the clock moving as needed. Called from a kernel
    /// thread it just calls `f`.
    ///
    /// # Panics
    /// With the report when the kernel panics, when nothing can run any more (a deadlock), or when
    /// it takes longer than [`Config::hang`] of virtual time.
    pub fn exec<R: 'static>(&self, f: impl FnOnce() -> R + 'static) -> R {
        if sched::on_thread() {
            return f();
        }
        let slot = std::rc::Rc::new(std::cell::RefCell::new(None));
        let out = slot.clone();
        let tid = sched::spawn_kthread("main", move || {
            let r = f();
            *out.borrow_mut() = Some(r);
        });
        self.drive_until("main", || sched::is_dead(tid));
        let r = slot.borrow_mut().take();
        r.expect("a thread that ended left its value")
    }

    /// Runs threads until `done`, which is asked again after whatever ends a thread or calls
    /// [`sched::kick_driver`]. `what` names the wait in reports.
    ///
    /// # Panics
    /// As [`Api::exec`].
    pub fn drive_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let limit = sched::now_sbt().saturating_add(HANG.with(|h| *h));
        let mut ok = false;
        let stop = sched::drive(limit, || {
            ok = done();
            ok
        });
        deliver();
        if stop == Stop::Idle && !ok && !done() {
            crate::kpanic!("{} (waiting for {what})", stuck());
        }
    }

    /// Runs threads until none can run without the clock moving on.
    pub fn run_until_idle(&self) {
        if sched::on_thread() {
            while sched::any_runnable() {
                sched::yield_now();
            }
            return;
        }
        sched::drive(sched::now_sbt(), || false);
        deliver();
    }

    /// Lets this much virtual time pass.
    pub fn run_for(&self, d: Sbt) {
        if sched::on_thread() {
            sched::sleep_for(d, "run_for");
            return;
        }
        let end = sched::now_sbt() + d;
        sched::drive(end, || false);
        deliver();
        let left = end - sched::now_sbt();
        sched::spend(left);
    }

    /// Runs `f`, which is expected to panic the kernel, and returns the report. The kernel is of no
    /// further use but to be dropped.
    ///
    /// # Panics
    /// When the kernel did not panic.
    pub fn expect_panic<R: 'static>(&self, f: impl FnOnce() -> R + 'static) -> String {
        panic::set_quiet(true);
        let tid = sched::spawn_kthread("doomed", move || {
            f();
        });
        let limit = sched::now_sbt().saturating_add(HANG.with(|h| *h));
        sched::drive(limit, || sched::is_dead(tid));
        panic::set_quiet(false);
        if let Some(r) = panic::report() {
            return r;
        }
        deliver();
        assert!(!sched::is_dead(tid), "the kernel did not panic");
        panic::record(format_args!("{}", stuck()))
    }

    /// `kldload(8)` of a file on the host. Errors are FreeBSD's numbers, the reasons on the console.
    pub fn kldload(&self, path: impl AsRef<Path>) -> Result<(), i32> {
        let (name, data) = loader::read(path.as_ref())?;
        self.exec(move || loader::load(&name, &data))
    }

    /// `kldunload(8)` by file or module name.
    pub fn kldunload(&self, name: &str) -> Result<(), i32> {
        let name = name.to_string();
        self.exec(move || loader::unload(&name))
    }

    /// Reads a sysctl by name, as root in the base network stack.
    pub fn sysctl_get(&self, name: &str) -> Result<Value, i32> {
        let name = name.to_string();
        self.exec(move || vnet::with_vnet(vnet::vnet0(), || sysctl::get(&name)))
    }

    /// Writes a sysctl by name.
    pub fn sysctl_set(&self, name: &str, value: impl ToString) -> Result<(), i32> {
        let (name, value) = (name.to_string(), value.to_string());
        self.exec(move || vnet::with_vnet(vnet::vnet0(), || sysctl::set(&name, &value)))
    }

    /// Every readable leaf below a name.
    #[must_use]
    pub fn sysctl_tree(&self, name: &str) -> Vec<(String, Value)> {
        let name = name.to_string();
        self.exec(move || vnet::with_vnet(vnet::vnet0(), || sysctl::tree(&name)))
    }

    /// `kenv name=value`, for tunables of modules loaded later.
    pub fn kenv(&self, name: &str, value: &str) {
        sysctl::setenv(name, value);
    }

    /// Enables the SDT probes of a loaded file whose full name contains `part`; returns their names.
    pub fn probes(&self, file: &str, part: &str) -> Vec<String> {
        crate::sdt::enable(file, part)
    }

    /// What enabled probes fired since the last call.
    #[must_use]
    pub fn fired(&self) -> Vec<crate::sdt::Firing> {
        crate::sdt::take()
    }

    /// Calls a function of a loaded module by name, with up to four words.
    ///
    /// # Panics
    /// When there is no such function: a mistake of the test.
    pub fn call(&self, file: &str, func: &str, args: [u64; 4]) -> u64 {
        let f = loader::symbol(file, func).unwrap_or_else(|| panic!("{file} exports no {func}"));
        self.exec(move || {
            // SAFETY: a C function of the module; surplus integer arguments are harmless in this ABI.
            let f: extern "C" fn(u64, u64, u64, u64) -> u64 = unsafe { std::mem::transmute(f) };
            f(args[0], args[1], args[2], args[3])
        })
    }

    /// Every line printed since boot.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        console::lines()
    }

    /// Sets when a service fails; see [`fault::hit`] for the names.
    pub fn fail(&self, point: &'static str, plan: fault::Plan) {
        fault::set(point, plan);
    }

    /// Calls and failures of a point since its plan was set.
    #[must_use]
    pub fn fail_count(&self, point: &'static str) -> (u64, u64) {
        fault::count(point)
    }

    /// Tasks handed to soaiod since boot (`soaio_enqueue`).
    #[must_use]
    pub fn soaio_tasks(&self) -> u64 {
        crate::aio::soaio_queued()
    }

    /// Virtual time since boot.
    #[must_use]
    pub fn uptime(&self) -> Sbt {
        sched::now_sbt()
    }

    /// Everything still allocated, one line per kind.
    #[must_use]
    pub fn leaks(&self) -> Vec<String> {
        let mut all = kmem::leaks();
        all.extend(tables::leaks());
        all
    }
}

impl Kernel {
    /// The same handle for closures.
    #[must_use]
    pub fn api(&self) -> Api {
        API
    }

    /// Ends the kernel: settles what runs, checks memory, and fails on anything left allocated.
    ///
    /// # Panics
    /// On leaks, overruns and writes to freed memory.
    pub fn shutdown(self) -> Report {
        let seed = panic::seed();
        let r = self.shutdown_report();
        assert!(
            r.leaks.is_empty(),
            "left at shutdown (seed {seed:#x}):\n{}",
            r.leaks.join("\n")
        );
        r
    }

    /// As [`Kernel::shutdown`], but reports leaks instead of failing.
    pub fn shutdown_report(mut self) -> Report {
        tables::quiesce(&self);
        self.run_until_idle();
        if panic::pending() {
            deliver();
        }
        kmem::check_all();
        tables::check();
        let (switches, trace) = sched::trace();
        let report = Report {
            leaks: self.leaks(),
            uptime: sched::now_sbt(),
            switches,
            trace,
        };
        self.off = true;
        power_off();
        report
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if !self.off {
            power_off();
        }
    }
}
