//! Sending work requests, counted.

use crate::os::{Counter, NoWr, Os, Queue};

/// Send a work request and count it, or count the shortage. Terms as [`Os::send_wr`].
///
/// # Errors
/// [`NoWr`]: nothing was sent.
pub(crate) fn send<O: Os>(
    os: &mut O,
    q: Queue,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Result<(), NoWr> {
    let r = os.send_wr(q, len, fill);
    os.count(
        if r.is_ok() {
            Counter::Wrs
        } else {
            Counter::NoWr
        },
        1,
    );
    r
}
