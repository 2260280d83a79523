//! Sends SYN|ACKs again and gives entries up.

use super::answer::respond;
use super::entry::{self, Entry, Rules};
use crate::net::k;
use crate::sched::{self, SBT_1S, Sbt, SleepOpts};
use crate::{sys, vnet};

/// SYN|ACKs sent again before an entry is given up.
const REXMT_LIMIT: u32 = 3;

/// `syncache_timer`, for ever.
pub(super) fn run() {
    loop {
        let now = sched::now_sbt();
        let due = entry::with(|s| s.all.iter().find(|e| e.next <= now).copied());
        let Some(e) = due else {
            let next = entry::with(|s| s.all.iter().map(|e| e.next).min());
            sched::sleep_on(
                entry::chan(),
                SleepOpts::new("synctmr").timeout(next.map(|at| at - now)),
            );
            continue;
        };
        vnet::with_vnet(e.vnet as *mut sys::vnet, || {
            k::net_epoch(|| {
                entry::lock();
                // Gone meanwhile, or just refreshed?
                let here = entry::find(e.vnet, &e.inc).filter(|e| e.next <= now);
                if let Some(e) = here {
                    fire(&e, now);
                }
                entry::unlock();
            });
        });
    }
}

/// An entry's time has come. Bucket lock held.
fn fire(e: &Entry, now: Sbt) {
    if entry::given_up(e) {
        // All entries of the bucket go at once.
        let all = entry::with(|s| s.all.clone());
        all.iter()
            .filter(|x| x.vnet == e.vnet)
            .for_each(entry::remove);
    } else if e.rxmits >= REXMT_LIMIT || respond(e) != 0 && entry::is(Rules::Fbsd14) {
        entry::remove(e);
    } else {
        entry::update(e, |x| {
            x.rxmits += 1;
            x.next = now + (SBT_1S << x.rxmits);
        });
    }
}
