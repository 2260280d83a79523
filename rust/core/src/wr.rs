//! Work requests of a connection: built, sent, counted.
//!
//! A request is built in memory of its own, and then reaches the queue whole or not at all: room
//! once taken in a queue cannot be given back, and the adapter would execute whatever lies in it.
//! The copy takes the place of zeroing that room.
//!
//! What cannot be built (a number that does not fit its field) could not be built the next time
//! either. It is remembered, and the connection ends with its next message or its next retry,
//! whichever comes first ([`crate::conn::Conn::retry`]). Meanwhile the request counts as not sent.

use wire::WireError;

use crate::os::{Counter, Os, Queue};

/// Why a work request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotSent {
    /// None could be had now.
    NoWr,
    /// It cannot be built.
    Unbuilt,
}

/// What of a connection's work requests is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wrs {
    /// Why one could not be built, until the connection is told.
    unbuilt: Option<WireError>,
    /// One could not, ever.
    failed: bool,
}

impl Wrs {
    /// Build a work request in `buf`, which is as long as the request, send and count it.
    ///
    /// # Errors
    /// Nothing was sent: the shortage is counted, or the reason kept, and then a retry is asked for.
    pub(crate) fn send<O: Os>(
        &mut self,
        os: &mut O,
        q: Queue,
        buf: &mut [u8],
        build: impl FnOnce(&mut [u8]) -> Result<(), WireError>,
    ) -> Result<(), NotSent> {
        if let Err(e) = build(buf) {
            if !self.failed {
                self.failed = true;
                self.unbuilt = Some(e);
                os.count(Counter::BadWr, 1);
                os.retry_later();
            }
            return Err(NotSent::Unbuilt);
        }
        match os.send_wr(q, buf) {
            Ok(()) => {
                os.count(Counter::Wrs, 1);
                Ok(())
            }
            Err(crate::os::NoWr) => {
                os.count(Counter::NoWr, 1);
                Err(NotSent::NoWr)
            }
        }
    }

    /// Why a request could not be built: said once.
    pub(crate) fn take_unbuilt(&mut self) -> Option<WireError> {
        self.unbuilt.take()
    }
}
