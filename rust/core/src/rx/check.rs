//! What must hold after every step, for tests.

use super::Rx;
use crate::ddp::Buf;
use crate::os::{Job, Os};
use crate::shared::Shared;

impl<O: Os> Rx<O> {
    /// What must hold after every step (I3, I5).
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, sh: &Shared<O>, os: &O) -> Result<(), &'static str> {
        let mut live = 0;
        for (i, b) in self.bufs.iter().enumerate() {
            let Some(a) = b.armed() else { continue };
            live += 1;
            if os.slot_users(a.slot) == 0 {
                return Err("a buffer's page set has no user");
            }
            if a.job.slot() != Some(a.slot) {
                return Err("a buffer's job has another page set");
            }
            let (Some(key), Some(pods)) = (sh.sets.key(a.slot), sh.sets.pods(a.slot)) else {
                return Err("a buffer's page set is not held, or has no page pods");
            };
            if pods.written != pods.ppods.count() {
                return Err("a buffer was posted before its page pods were written");
            }
            if a.end > key.len || a.off > a.end || a.done() > a.off.max(a.end) {
                return Err("a buffer is armed outside of its page set");
            }
            if matches!(b, Buf::Invalidating(_)) && !*self.asked.at(i) && !self.stopped {
                return Err("no reply is due to an invalidate");
            }
        }
        if live > 0 && self.bufs.at(self.active).is_empty() {
            return Err("the front buffer is empty and the other is not");
        }
        if self.parked.iter().any(Option::is_some)
            && !self
                .bufs
                .iter()
                .any(|b| matches!(b, Buf::Landed(..)) || b.holds_passed())
        {
            return Err("received data is parked for nothing");
        }
        if self.dead && !(self.quiet() || self.orphans().next().is_some()) {
            return Err("reads outlive the connection");
        }
        for slot in self.orphans() {
            if os.slot_users(slot) == 0 || sh.sets.pages(slot).is_none() {
                return Err("pages are let go that the adapter may write to");
            }
        }
        Ok(())
    }
}
