//! Where a connection stands, as far as its end goes.

use bitflags::bitflags;

bitflags! {
    /// Where the connection stands.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Flags: u16 {
        /// ESTABLISH has come.
        const ESTABLISHED = 1 << 0;
        /// The peer's FIN has come.
        const PEER_FIN = 1 << 1;
        /// Our FIN is acknowledged (CPL_CLOSE_CON_RPL).
        const FIN_ACKED = 1 << 2;
        /// An abort is in progress, whoever began it (TPF_ABORT_SHUTDOWN).
        const ABORT = 1 << 3;
        /// CPL_ABORT_REQ is still to be sent.
        const REQ_OWED = 1 << 4;
        /// CPL_ABORT_REQ was sent, CPL_ABORT_RPL_RSS is to come.
        const REQ_SENT = 1 << 5;
        /// CPL_ABORT_RPL is still to be sent.
        const RPL_OWED = 1 << 6;
        /// The abort is over once the CPL_ABORT_RPL owed is sent.
        const LAST = 1 << 7;
        /// The final CPL has come: the tid is done, but for replies to CPL_SET_TCB_FIELD.
        const FINAL = 1 << 8;
        /// The kernel has let go of the tcpcb.
        const DETACHED = 1 << 9;
        /// The adapter did not answer in time: no job waits any more, but what the adapter may
        /// touch is kept until the last word comes.
        const SILENT = 1 << 10;
        /// The connection is over without all the answers that are due: its tid is not given back.
        const TID_KEPT = 1 << 11;
        /// The adapter was asked whether it still answers (`Conn::overdue`).
        const PROBED = 1 << 12;
        /// It said that the peer has all, and has said nothing else since; or it could not be asked.
        const MISSING = 1 << 13;
        /// The connection is among those counted as kept (`Os::orphaned`).
        const COUNTED = 1 << 14;
    }
}
