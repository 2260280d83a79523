//! Processes: start, fork, exit, the boundary between program and kernel.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::global::Global;
use crate::kmem;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::k;
use crate::proc::api::{Exit, ProcConfig, Prot, SigAction, Signal, UserVa, VnetId};
use crate::proc::{Errno, Sys, file, from_sbt, to_sbt};
use crate::sched::{self, Spawn, Tid};
use crate::{Api, kpanic, net, sys, vm};

static M_PROC: KData = KData::of::<sys::malloc_type>("ukern_M_PROC").with_init(|p| {
    let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
    t.ks_version = u64::from(sys::M_VERSION);
    t.ks_shortdesc = c"proc".as_ptr();
});

/// The Rust half of a `struct proc`.
pub(crate) struct State {
    pub(crate) files: file::Table,
    pub(crate) nofile: usize,
    pub(crate) memlock: u64,
    pub(crate) vnet: VnetId,
    pub(crate) tids: Vec<Tid>,
    pub(crate) actions: BTreeMap<i32, SigAction>,
    /// Signals posted so far.
    pub(crate) posted: BTreeMap<i32, u32>,
    /// A caught signal waits for its handler to run.
    pub(crate) caught: bool,
    /// The signal or exit that ends the process.
    pub(crate) fatal: Option<i32>,
    pub(crate) exiting: bool,
    /// Where the next aiocb goes, and the end of its slab.
    pub(crate) cb_next: UserVa,
    pub(crate) cb_end: UserVa,
    /// Scratch mappings for byte-slice calls: (address, length), not in use.
    pub(crate) scratch: Vec<(UserVa, usize)>,
    mmap_base: UserVa,
    api: Api,
}

#[derive(Default)]
struct Table {
    procs: BTreeMap<usize, State>,
    kprocs: Vec<(Tid, usize)>,
    next_pid: i32,
}

static TABLE: Global<Table> = Global::new("processes");

crate::exports_data! { M_PROC, file::M_FILE }

pub(crate) fn boot() {
    TABLE.init(Table {
        next_pid: 100,
        ..Table::default()
    });
}

pub(crate) fn shutdown() {
    TABLE.take();
}

/// Kernel processes that were told to stop end, and give their structures back.
pub(crate) fn quiesce() {
    for p in TABLE.with(|t| std::mem::take(&mut t.kprocs)) {
        sched::join(p.0);
        free_proc(Kp::new(p.1 as *mut sys::proc_));
    }
}

pub(crate) fn leaks() -> Vec<String> {
    TABLE.with(|t| {
        t.procs
            .keys()
            .map(|p| {
                format!(
                    "process {} still runs",
                    Kp::<sys::proc_>::new(*p as *mut _).p_pid
                )
            })
            .collect()
    })
}

/// Is this a program's process (not the kernel's)?
pub(crate) fn is_user(p: Kp<sys::proc_>) -> bool {
    TABLE.with(|t| t.procs.contains_key(&p.addr()))
}

pub(crate) fn with_state<R>(p: Kp<sys::proc_>, f: impl FnOnce(&mut State) -> R) -> R {
    match TABLE.with(|t| t.procs.get_mut(&p.addr()).map(f)) {
        Some(r) => r,
        None => kpanic!("{:#x} is no process of a program", p.addr()),
    }
}

fn alloc_proc(name: &str, vmspace: Kp<sys::vmspace>) -> Kp<sys::proc_> {
    let mut p: Kp<sys::proc_> = kmem::alloc_zeroed(&M_PROC);
    k::mtx_init(&raw mut p.p_mtx, c"process lock", sys::MTX_DUPOK);
    p.p_pid = TABLE.with(|t| {
        t.next_pid += 1;
        t.next_pid
    });
    p.p_ucred = k::crhold(crate::cred0());
    p.p_vmspace = vmspace.ptr();
    p.p_state = sys::PRS_NORMAL;
    for (to, from) in p.p_comm.iter_mut().take(19).zip(name.bytes()) {
        *to = from as std::ffi::c_char;
    }
    p
}

fn free_proc(mut p: Kp<sys::proc_>) {
    if let Some(v) = Kp::opt(p.p_vmspace) {
        p.p_vmspace = std::ptr::null_mut();
        vm::release(v);
    }
    k::crfree(p.p_ucred);
    k::mtx_destroy(&raw mut p.p_mtx);
    kmem::free_obj(p, &M_PROC);
}

/// A process of the kernel, in the kernel's address space. Its structure is freed at shutdown.
pub(crate) fn spawn_kproc(name: &str, main: impl FnOnce() + 'static) {
    vm::acquire(vm::vmspace0());
    let p = alloc_proc(name, vm::vmspace0());
    let how = Spawn {
        proc_: p.ptr(),
        ucred: p.p_ucred,
        ..Spawn::kernel(name)
    };
    let tid = sched::spawn(how, main);
    TABLE.with(|t| t.kprocs.push((tid, p.addr())));
}

/// Thrown at the system-call boundary to leave a program at once.
struct Leave(Exit<()>);

/// What a finished process left.
type Slot<R> = Rc<RefCell<Option<Exit<R>>>>;

/// A process that was started; see [`Child::wait`].
pub struct Child<R> {
    proc_: Kp<sys::proc_>,
    pid: i32,
    tid: Tid,
    slot: Slot<R>,
    api: Api,
}

/// A thread of a process.
pub struct Thread<R> {
    tid: Tid,
    slot: Rc<RefCell<Option<R>>>,
}

/// The system-call interface of a process, given to its program.
pub struct Proc {
    pub(crate) p: Kp<sys::proc_>,
}

impl<R: 'static> Child<R> {
    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Has it ended?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.slot.borrow().is_some() && sched::is_dead(self.tid)
    }

    /// Waits for its end. From a test this runs the kernel.
    ///
    /// # Panics
    /// With what the closure, or the kernel, panicked with.
    #[must_use]
    pub fn wait(self) -> Exit<R> {
        let tid = self.tid;
        if sched::on_thread() {
            sched::join(tid);
        } else {
            self.api.drive_until("a process", || sched::is_dead(tid));
        }
        let left = self.slot.borrow_mut().take();
        left.expect("a process that ended left its status")
    }

    /// As [`Child::wait`] for a closure that must return.
    ///
    /// # Panics
    /// Also when the process was killed or called exit.
    pub fn join(self) -> R {
        let pid = self.pid;
        match self.wait() {
            Exit::Returned(r) => r,
            Exit::Code(c) => panic!("process {pid} called exit({c})"),
            Exit::Signal(s) => panic!("process {pid} was killed by signal {s}"),
        }
    }

    /// kill(2) from outside.
    ///
    /// # Errors
    /// ESRCH when it has ended.
    pub fn kill(&self, sig: Signal) -> Sys<()> {
        if self.is_done() || !is_user(self.proc_) {
            return Err(Errno::ESRCH);
        }
        super::psignal(self.proc_, sig as i32);
        Ok(())
    }
}

impl<R: 'static> Thread<R> {
    /// Waits for the thread and returns its value; `None` when the process ended under it.
    pub fn join(self) -> Option<R> {
        sched::join(self.tid);
        self.slot.borrow_mut().take()
    }
}

/// Runs a program in its process and takes it down afterwards.
fn run<R: 'static>(p: Kp<sys::proc_>, main: impl FnOnce(&Proc) -> R, slot: &Slot<R>) {
    let proc_ = Proc { p };
    let r = catch_unwind(AssertUnwindSafe(|| {
        let r = main(&proc_);
        proc_.boundary();
        r
    }));
    let end = match r {
        Ok(v) => Exit::Returned(v),
        Err(payload) => leave_reason(payload),
    };
    exit1(p);
    *slot.borrow_mut() = Some(end);
}

/// A real panic goes on to the test.
fn leave_reason<R>(payload: Box<dyn Any + Send>) -> Exit<R> {
    match payload.downcast::<Leave>() {
        Ok(l) => match l.0 {
            Exit::Code(c) => Exit::Code(c),
            Exit::Signal(s) => Exit::Signal(s),
            Exit::Returned(()) => Exit::Code(0),
        },
        Err(other) => resume_unwind(other),
    }
}

/// `p_flag` of a process that exits, and of one in execve(2).
const P_WEXIT: i32 = 0x2000;
const P_INEXEC: i32 = 0x0400_0000;

/// exit(2): other threads first, then the handlers of `process_exit`, aio's among them, files,
/// memory.
fn exit1(p: Kp<sys::proc_>) {
    let me = sched::current_tid();
    let others = with_state(p, |s| {
        s.exiting = true;
        s.fatal.get_or_insert(Signal::Kill as i32);
        s.tids
            .iter()
            .copied()
            .filter(|t| *t != me)
            .collect::<Vec<_>>()
    });
    sched::set_signal_pending(me, false);
    for t in &others {
        sched::set_signal_pending(*t, true);
    }
    for t in others {
        sched::join(t);
    }
    let mut mine = p;
    mine.p_flag |= P_WEXIT;
    k::event("process_exit", p.addr());
    for fp in with_state(p, |s| s.files.drain()) {
        file::fdrop(fp);
    }
    let mut td = sched::current_thread();
    td.td_proc = crate::proc0();
    td.td_ucred = crate::cred0();
    TABLE.with(|t| t.procs.remove(&p.addr()));
    free_proc(p);
}

/// Bytes of a slab of aiocbs: room for the requests of a long test, since a new slab moves the
/// map's generation. Pages of it are made as they are used.
pub(crate) const CB_SLAB: usize = 4 << 20;
/// Bytes of the first scratch buffer.
const SCRATCH: usize = 256 << 10;

fn start<R: 'static>(
    p: Kp<sys::proc_>,
    state: State,
    name: &str,
    main: impl FnOnce(&Proc) -> R + 'static,
) -> Child<R> {
    let vnet = net::vnet_by_id(state.vnet);
    let api = state.api;
    TABLE.with(|t| t.procs.insert(p.addr(), state));
    let slot: Slot<R> = Rc::new(RefCell::new(None));
    let out = slot.clone();
    let how = Spawn {
        proc_: p.ptr(),
        ucred: p.p_ucred,
        vnet,
        ..Spawn::kernel(name)
    };
    let tid = sched::spawn(how, move || run(p, main, &out));
    with_state(p, |s| s.tids.push(tid));
    Child {
        proc_: p,
        pid: p.p_pid,
        tid,
        slot,
        api,
    }
}

impl Api {
    /// Starts a process that runs `main`. It runs when the kernel next runs: see [`Child::wait`].
    pub fn spawn<R: 'static>(
        &self,
        cfg: ProcConfig,
        main: impl FnOnce(&Proc) -> R + 'static,
    ) -> Child<R> {
        let space = vm::new_space(cfg.mmap_base);
        let p = alloc_proc(&cfg.name, space);
        let mut state = State {
            files: file::Table::default(),
            nofile: cfg.nofile,
            memlock: cfg.memlock.unwrap_or(u64::MAX),
            vnet: cfg.vnet,
            tids: Vec::new(),
            actions: BTreeMap::from([(Signal::Pipe as i32, cfg.sigpipe)]),
            posted: BTreeMap::new(),
            caught: false,
            fatal: None,
            exiting: false,
            cb_next: 0,
            cb_end: 0,
            scratch: Vec::new(),
            mmap_base: cfg.mmap_base,
            api: *self,
        };
        prepare(space, &mut state);
        start(p, state, &cfg.name, main)
    }
}

/// The mappings every program starts with, so that later calls leave the map alone.
fn prepare(space: Kp<sys::vmspace>, s: &mut State) {
    let cb = vm::mmap_anon(space, None, CB_SLAB, Prot::RW, false).expect("a fresh map has room");
    (s.cb_next, s.cb_end) = (cb, cb + CB_SLAB as u64);
    let scratch =
        vm::mmap_anon(space, None, SCRATCH, Prot::RW, false).expect("a fresh map has room");
    s.scratch = vec![(scratch, SCRATCH)];
}

impl Proc {
    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.p.p_pid
    }

    /// Runs a system call: signals are delivered before and after, no lock may be left held, and
    /// the process comes back in its own address space.
    pub(crate) fn call<R>(&self, f: impl FnOnce() -> R) -> R {
        let space = self.p.p_vmspace;
        let r = self.call_exec(f);
        if self.p.p_vmspace != space {
            kpanic!(
                "process {} is back from a system call in another address space",
                self.p.p_pid
            );
        }
        r
    }

    /// A system call that may give the process a new address space.
    fn call_exec<R>(&self, f: impl FnOnce() -> R) -> R {
        if !std::ptr::eq(sched::current_thread().td_proc, self.p.ptr()) {
            kpanic!("a system call of process {} from outside it", self.p.p_pid);
        }
        self.boundary();
        sched::yield_point();
        let r = f();
        self.boundary();
        r
    }

    /// Between program and kernel.
    pub(crate) fn boundary(&self) {
        crate::locks::check_none_held("system call");
        crate::epoch::check_none("system call");
        let fatal = with_state(self.p, |s| {
            s.caught = false;
            s.fatal
        });
        match fatal {
            Some(sig) => resume_unwind(Box::new(Leave(Exit::Signal(sig)))),
            None => sched::set_signal_pending(sched::current_tid(), false),
        }
    }

    /// exit(2).
    pub fn exit(&self, code: i32) -> ! {
        self.boundary();
        resume_unwind(Box::new(Leave(Exit::Code(code))))
    }

    /// fork(2): `child` runs in a process with the same files and a copy-on-write copy of the memory.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn fork<R: 'static>(&self, child: impl FnOnce(&Proc) -> R + 'static) -> Sys<Child<R>> {
        self.call(|| {
            let space = vm::fork(vm::current())?;
            let p = alloc_proc(&crate::kp::cstr(self.p.p_comm.as_ptr()), space);
            let state = with_state(self.p, |s| State {
                files: s.files.share(),
                nofile: s.nofile,
                memlock: s.memlock,
                vnet: s.vnet,
                tids: Vec::new(),
                actions: s.actions.clone(),
                posted: BTreeMap::new(),
                caught: false,
                fatal: None,
                exiting: false,
                cb_next: s.cb_next,
                cb_end: s.cb_end,
                scratch: s.scratch.clone(),
                mmap_base: s.mmap_base,
                api: s.api,
            });
            Ok(start(p, state, &format!("pid {}", p.p_pid), child))
        })
    }

    /// A further thread of this process.
    ///
    /// # Errors
    /// None so far.
    pub fn thread<R: 'static>(&self, f: impl FnOnce(&Proc) -> R + 'static) -> Sys<Thread<R>> {
        self.call(|| {
            let p = self.p;
            let slot = Rc::new(RefCell::new(None));
            let out = slot.clone();
            let vnet = net::vnet_by_id(with_state(p, |s| s.vnet));
            let name = format!("{} thread", crate::kp::cstr(p.p_comm.as_ptr()));
            let tid = sched::spawn(
                Spawn {
                    proc_: p.ptr(),
                    ucred: p.p_ucred,
                    vnet,
                    ..Spawn::kernel(&name)
                },
                move || {
                    let me = Proc { p };
                    let r = catch_unwind(AssertUnwindSafe(|| f(&me)));
                    match r {
                        Ok(v) => *out.borrow_mut() = Some(v),
                        Err(payload) => {
                            let _: Exit<()> = leave_reason(payload);
                        }
                    }
                    let mut td = sched::current_thread();
                    let tid = sched::current_tid();
                    with_state(p, |s| s.tids.retain(|t| *t != tid));
                    td.td_proc = crate::proc0();
                },
            );
            with_state(p, |s| s.tids.push(tid));
            Ok(Thread { tid, slot })
        })
    }

    /// What execve(2) does to I/O and memory: the handlers of `process_exec` run, aio's among
    /// them, and the address space is replaced. The
    /// program goes on, with none of its mappings.
    ///
    /// # Errors
    /// None so far.
    pub fn exec(&self) -> Sys<()> {
        self.call_exec(|| {
            let mut p = self.p;
            p.p_flag |= P_INEXEC;
            k::event2("process_exec", self.p.addr(), 0);
            let old = Kp::new(p.p_vmspace);
            let base = with_state(p, |s| s.mmap_base);
            let new = vm::new_space(base);
            with_state(p, |s| prepare(new, s));
            p.p_vmspace = new.ptr();
            p.p_flag &= !P_INEXEC;
            vm::release(old);
            Ok(())
        })
    }

    /// kill(2).
    ///
    /// # Errors
    /// ESRCH.
    pub fn kill(&self, pid: i32, sig: Signal) -> Sys<()> {
        self.call(|| {
            let found = TABLE.with(|t| {
                t.procs
                    .keys()
                    .copied()
                    .find(|p| Kp::<sys::proc_>::new(*p as *mut _).p_pid == pid)
            });
            let p = found.ok_or(Errno::ESRCH)?;
            super::psignal(Kp::new(p as *mut _), sig as i32);
            Ok(())
        })
    }

    /// sigaction(2).
    pub fn sigaction(&self, sig: Signal, act: SigAction) {
        self.call(|| with_state(self.p, |s| s.actions.insert(sig as i32, act)));
    }

    /// How often the signal was posted to this process, whatever its disposition.
    #[must_use]
    pub fn signals(&self, sig: Signal) -> u32 {
        self.call(|| {
            with_state(self.p, |s| {
                s.posted.get(&(sig as i32)).copied().unwrap_or(0)
            })
        })
    }

    /// nanosleep(2) in virtual time; a signal ends it early.
    pub fn sleep(&self, d: Duration) {
        self.call(|| {
            let chan = self.p.addr() + 3;
            let opts = sched::SleepOpts::new("nanslp")
                .timeout(Some(to_sbt(d)))
                .catch(true);
            sched::sleep_on(chan, opts);
        });
    }

    /// Virtual time since boot.
    #[must_use]
    pub fn now(&self) -> Duration {
        from_sbt(sched::now_sbt())
    }

    /// sched_yield(2).
    pub fn yield_now(&self) {
        self.call(sched::yield_now);
    }
}
