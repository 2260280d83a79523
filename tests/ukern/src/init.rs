//! The kernel's own process, credential and prison.

use crate::global::Global;
use crate::ksym::KData;
use crate::sys;

struct Init {
    proc0: Box<sys::proc_>,
    cred0: Box<sys::ucred>,
    prison0: *mut sys::prison,
}

static INIT: Global<Init> = Global::new("proc0");
static PROC0: KData = KData::of::<sys::proc_>("proc0_unused");
static PRISON0: KData = KData::of::<sys::prison>("prison0");
static THREAD0: KData = KData::of::<usize>("thread0_unused");

crate::exports_data! { PROC0, PRISON0, THREAD0 }

/// Makes them; runs before the scheduler starts.
pub(crate) fn boot() {
    // SAFETY: `struct proc` is plain C data.
    let mut proc0: Box<sys::proc_> = unsafe { crate::kp::zeroed_box() };
    // SAFETY: `struct ucred` is plain C data.
    let mut cred0: Box<sys::ucred> = unsafe { crate::kp::zeroed_box() };
    let prison0 = PRISON0.get::<sys::prison>().ptr();
    cred0.cr_ref = 1 << 20;
    cred0.cr_prison = prison0;
    proc0.p_ucred = &raw mut *cred0;
    for (to, from) in proc0.p_comm.iter_mut().zip(b"kernel") {
        *to = *from as std::ffi::c_char;
    }
    INIT.init(Init {
        proc0,
        cred0,
        prison0,
    });
}

/// Fills in what needs a running kernel.
pub(crate) fn boot_late() {
    INIT.with(|i| crate::Kp::new(i.prison0).pr_vnet = crate::vnet::vnet0());
    crate::locks::mtx_init(
        crate::Kp::new(proc0()).field_mtx(),
        c"process lock".as_ptr(),
        0,
    );
}

pub(crate) fn shutdown() {
    INIT.take();
}

/// `&proc0`.
#[must_use]
pub fn proc0() -> *mut sys::proc_ {
    INIT.with(|i| &raw mut *i.proc0)
}

/// The kernel's credential.
#[must_use]
pub fn cred0() -> *mut sys::ucred {
    INIT.with(|i| &raw mut *i.cred0)
}

/// `&prison0`.
#[must_use]
pub fn prison0() -> *mut sys::prison {
    INIT.with(|i| i.prison0)
}

trait ProcMtx {
    fn field_mtx(self) -> crate::Kp<sys::mtx>;
}
impl ProcMtx for crate::Kp<sys::proc_> {
    fn field_mtx(mut self) -> crate::Kp<sys::mtx> {
        crate::Kp::new(&raw mut self.p_mtx)
    }
}
