//! The adapter stops and restarts below its connections (FreeBSD 14.2 and later).
//!
//! When [`stop`] is called the base driver's word is that the adapter does no DMA and is about to
//! be reset, that no handler of CPLs runs, and that no work request is taken. So nothing that
//! the adapter was asked for is waited for: every tid, atid and stid is taken back here, and when
//! it restarts nothing of before is left that a message could be mistaken for.

use kpi::mem::Arc;

use crate::adapter::{Adapter, Tid};
use crate::toepcb::Toepcb;
use crate::{connect, listen, synqe};

/// The adapter has stopped. Net epoch, no lock.
pub fn stop(adapter: &Arc<Adapter>) {
    adapter.set_stopped(true);
    listen::park_all(adapter);
    adapter
        .atids
        .each(|atid, _| connect::adapter_stopped(adapter, atid));
    adapter.tids.each(|tid, e| {
        match &*e {
            Tid::Toep(t) => Toepcb::adapter_stopped(t),
            Tid::Synqe(s) => synqe::adapter_stopped(s),
            Tid::Silent(_) => adapter.no_longer_silent(),
            Tid::Releasing => {}
        }
        drop(adapter.tids.take(tid));
    });
}

/// It works again. Net epoch, no lock.
pub fn restart(adapter: &Arc<Adapter>) {
    adapter.set_stopped(false);
    listen::start_again(adapter);
}
