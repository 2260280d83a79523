//! Malloc types of the kernel itself.

use crate::kp::Kp;
use crate::ksym::KData;
use crate::sys;

/// A malloc type of the kernel's own, `M_NAME[1]`, with its description filled in.
macro_rules! malloc_type {
    ($(#[$doc:meta])* $var:ident, $sym:literal, $desc:literal) => {
        $(#[$doc])*
        pub static $var: KData = KData::of::<sys::malloc_type>($sym).with_init(|p| {
            let mut t: Kp<sys::malloc_type> = Kp::new(p.cast());
            t.ks_version = u64::from(sys::M_VERSION);
            t.ks_shortdesc = $desc.as_ptr();
        });
    };
}

malloc_type!(
    /// Temporary memory.
    M_TEMP, "M_TEMP", c"temp");
malloc_type!(
    /// Device buffers.
    M_DEVBUF, "M_DEVBUF", c"devbuf");
malloc_type!(
    /// Memory of ukern's own modules that no other type fits.
    M_UKERN, "M_UKERN", c"ukern");
malloc_type!(
    /// Socket addresses.
    M_SONAME, "M_SONAME", c"soname");
malloc_type!(
    /// TOE devices.
    M_TOE, "M_TOE", c"toe");
malloc_type!(
    /// Protocol control blocks.
    M_PCB, "M_PCB", c"pcb");
malloc_type!(
    /// Interface addresses.
    M_IFADDR, "M_IFADDR", c"ifaddr");
malloc_type!(
    /// Interfaces.
    M_IFNET, "M_IFNET", c"ifnet");
malloc_type!(
    /// Taskqueues.
    M_TASKQUEUE, "M_TASKQUEUE", c"taskqueue");
malloc_type!(
    /// Mbuf tags and the like.
    M_MBUF, "M_MBUF", c"mbuf");
malloc_type!(
    /// Large vectors of I/O.
    M_IOV, "M_IOV", c"iov");

crate::exports_data! { M_TEMP, M_DEVBUF, M_UKERN, M_SONAME, M_TOE, M_PCB, M_IFADDR, M_IFNET, M_TASKQUEUE, M_MBUF, M_IOV }
