//! What every part of the kernel contributes: exported functions, exported variables, and the steps
//! of boot and shutdown.

use super::parts;
use crate::ksym::{Export, KData};

/// The exported functions of all parts.
pub(super) fn exports() -> Vec<&'static [Export]> {
    let mut all: Vec<&'static [Export]> = vec![
        crate::callout::symbols(),
        crate::clib::symbols(),
        crate::counter::symbols(),
        crate::device::symbols(),
        crate::epoch::symbols(),
        crate::eventhandler::symbols(),
        crate::kmem::symbols(),
        crate::kthread::symbols(),
        crate::loader::symbols(),
        crate::mbuf::symbols(),
        crate::printf::symbols(),
        crate::sdt::symbols(),
        crate::sglist::symbols(),
        crate::taskqueue::symbols(),
        crate::time::symbols(),
        crate::uma::symbols(),
        crate::vmem::symbols(),
        crate::vnet::symbols(),
    ];
    all.extend(crate::locks::symbols());
    all.extend(crate::sysctl::symbols());
    all.extend(parts::exports());
    all
}

/// The exported variables of all parts.
pub(super) fn data() -> Vec<&'static [&'static KData]> {
    let mut all = vec![
        crate::clib::data(),
        crate::epoch::data(),
        crate::eventhandler::data(),
        crate::init::data(),
        super::data(),
        crate::kmem::data(),
        crate::locks::data(),
        crate::mbuf::data(),
        crate::printf::data(),
        crate::sysctl::data(),
        crate::sglist::data(),
        crate::taskqueue::data(),
        crate::time::data(),
        crate::vnet::data(),
    ];
    all.extend(parts::data());
    all
}

/// Boot steps of parts beyond the core, in order.
pub(super) fn boot() {
    crate::uma::boot();
    crate::eventhandler::boot();
    crate::sdt::boot();
    crate::vmem::boot();
    crate::loader::boot();
    crate::counter::boot();
    crate::mbuf::boot();
    crate::callout::boot();
    crate::taskqueue::boot();
    crate::sysctl::boot();
    parts::boot();
}

/// Before the last settling of a shutdown: parts stop what would go on for ever.
pub(super) fn quiesce(k: &super::Kernel) {
    k.exec(parts::quiesce);
}

/// Checks of parts at shutdown; each may panic.
pub(super) fn check() {
    crate::uma::check_all();
}

/// What parts still hold.
pub(super) fn leaks() -> Vec<String> {
    let mut all = crate::uma::leaks();
    all.extend(crate::loader::leaks());
    all.extend(
        crate::sched::live_threads()
            .into_iter()
            .map(|(tid, n)| format!("thread \"{n}\" ({tid}) still lives")),
    );
    all.extend(crate::vmem::leaks());
    all.extend(crate::taskqueue::leaks());
    all.extend(parts::leaks());
    all
}

/// Forgets the state of parts, last booted first.
pub(super) fn shutdown() {
    parts::shutdown();
    crate::sysctl::shutdown();
    crate::taskqueue::shutdown();
    crate::callout::shutdown();
    crate::mbuf::shutdown();
    crate::counter::shutdown();
    crate::loader::shutdown();
    crate::vmem::shutdown();
    crate::sdt::shutdown();
    crate::eventhandler::shutdown();
    crate::uma::shutdown();
}
