//! **The one place that says "the card is done with this buffer"** (I3).
//!
//! Pages that the adapter was given ([`crate::ddp::AtCard`]) come back only for a [`CardDone`], and a
//! `CardDone` is made here only, out of the adapter's own word:
//!
//! | word | about |
//! |---|---|
//! | a report (CPL_RX_DATA_DDP, CPL_RX_DDP_COMPLETE) that says the buffer is invalid | that buffer |
//! | the reply, without a failure, to the buffer's invalidation (CPL_SET_TCB_RPL) | that buffer |
//! | the peer's FIN (CPL_PEER_CLOSE): nothing comes behind it | all buffers posted |
//! | credits of the work requests that carried the bytes (CPL_FW4_ACK), or the peer's acknowledgement of our FIN (CPL_CLOSE_CON_RPL) | bytes sent |
//! | the last word about the connection: both FINs, the reply to our abort, or an abort of the adapter's that was answered | everything |
//! | the base driver's, that the adapter has stopped and does no DMA ([`crate::conn::Conn::adapter_stopped`]) | everything |
//!
//! If no word comes, [`crate::ddp::AtCard::orphan`] lets the job go without its pages: these stay held.

use crate::flags::Flags;

/// The adapter has said that it touches the pages in question no more.
#[derive(Debug)]
#[must_use = "it is what gives pages back"]
pub(crate) struct CardDone(());

impl CardDone {
    /// The buffer of a report came back, if the report says so.
    pub(crate) fn reported(report: &wire::DdpReport) -> Option<CardDone> {
        report.inv.then_some(CardDone(()))
    }

    /// The buffer was taken back, if the reply says so.
    pub(crate) fn taken_back(rpl: &wire::SetTcbRpl) -> Option<CardDone> {
        (rpl.status == wire::CplStatus(0)).then_some(CardDone(()))
    }

    /// The peer's FIN: no byte is placed any more.
    pub(crate) fn fin(_: &wire::PeerClose) -> CardDone {
        CardDone(())
    }

    /// The bytes of `plen` in work requests whose credits came back are read no more.
    pub(crate) fn acked(_: &wire::Fw4Ack) -> CardDone {
        CardDone(())
    }

    /// The peer has acknowledged our FIN, and so every byte before it.
    pub(crate) fn fin_acked(_: &wire::CloseConRpl) -> CardDone {
        CardDone(())
    }

    /// The last word about a connection that stands so, if it was said.
    pub(crate) fn last(flags: Flags) -> Option<CardDone> {
        let closed = flags.contains(Flags::PEER_FIN | Flags::FIN_ACKED);
        let unanswered = flags.intersects(Flags::REQ_OWED | Flags::REQ_SENT | Flags::RPL_OWED);
        let aborted = flags.contains(Flags::LAST) && !unanswered;
        (aborted || (closed && !flags.contains(Flags::ABORT))).then_some(CardDone(()))
    }

    /// For tests of a part, which have no whole connection.
    #[cfg(test)]
    pub(crate) fn for_test() -> CardDone {
        CardDone(())
    }
}
