//! Autosizing of so_rcv: for a program that takes what comes, and for no other. Bytes that nobody
//! reads make no room for more.

use super::Rx;
use crate::os::Os;

impl<O: Os> Rx<O> {
    /// Bytes have come to so_rcv, which holds `known` now.
    pub(super) fn came(&mut self, os: &O) {
        self.filled |= self.known > os.rcv_hiwat() / 2;
    }

    /// The program got `n` bytes at once. If that is more than half of what so_rcv may hold, or
    /// so_rcv held so much meanwhile, and next to nothing is left, a larger so_rcv would have
    /// let the peer go on.
    pub(super) fn took(&mut self, os: &mut O, n: u32) {
        let hiwat = os.rcv_hiwat();
        if (self.filled || n > hiwat / 2) && os.rcv_held() <= hiwat / 8 {
            self.filled = false;
            os.rcv_grow();
        }
    }
}
