//! Status byte of replies and abort indications (`enum CPL_error`).

use core::fmt;

/// A CPL's status byte. Unknown values are kept as they are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CplStatus(pub u8);

macro_rules! statuses {
    ($($(#[$m:meta])* $c:ident = $v:literal,)*) => {
        impl CplStatus {
            $($(#[$m])* pub const $c: Self = Self($v);)*

            /// The name in `enum CPL_error` without its prefix; `None` if unknown.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($v => Some(stringify!($c)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// Done.
    NONE = 0,
    /// Parity error in the TCAM.
    TCAM_PARITY = 1,
    /// No TCAM entry.
    TCAM_MISS = 2,
    /// No free TCAM entry.
    TCAM_FULL = 3,
    /// Length of a message is wrong.
    BAD_LENGTH = 15,
    /// No usable route.
    BAD_ROUTE = 18,
    /// The peer sent RST.
    CONN_RESET = 20,
    /// The 4-tuple exists, in SYN_RECEIVED.
    CONN_EXIST_SYNRECV = 21,
    /// The 4-tuple exists.
    CONN_EXIST = 22,
    /// No usable L2 entry.
    ARP_MISS = 23,
    /// A SYN came on an established connection.
    BAD_SYN = 24,
    /// SYNs went unanswered.
    CONN_TIMEDOUT = 30,
    /// Retransmissions went unanswered.
    XMIT_TIMEDOUT = 31,
    /// Window probes went unanswered.
    PERSIST_TIMEDOUT = 32,
    /// FIN_WAIT_2 lasted too long.
    FINWAIT2_TIMEDOUT = 33,
    /// Keepalives went unanswered.
    KEEPALIVE_TIMEDOUT = 34,
    /// Advice: retransmissions go unanswered.
    RTX_NEG_ADVICE = 35,
    /// Advice: window probes go unanswered.
    PERSIST_NEG_ADVICE = 36,
    /// Advice: keepalives go unanswered.
    KEEPALV_NEG_ADVICE = 37,
    /// Waits for the L2 entry.
    WAIT_ARP_RPL = 41,
    /// An abort request could not be served: no such connection any more.
    ABORT_FAILED = 42,
    /// Flow control of an iWARP message failed.
    IWARP_FLM = 50,
    /// Contains a read reply.
    CONTAINS_READ_RPL = 60,
    /// Contains a write reply.
    CONTAINS_WRITE_RPL = 61,
}

impl CplStatus {
    /// True for success.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == Self::NONE.0
    }

    /// True if a CPL_ACT_OPEN_RPL with this status holds a tid that must be given
    /// back (`act_open_has_tid`).
    #[must_use]
    pub const fn act_open_has_tid(self) -> bool {
        !matches!(
            self,
            Self::TCAM_PARITY
                | Self::TCAM_MISS
                | Self::TCAM_FULL
                | Self::CONN_EXIST_SYNRECV
                | Self::CONN_EXIST
        )
    }

    /// True if a CPL_ABORT_REQ_RSS with this status only advises that the path looks
    /// bad: the connection lives on and no reply is due.
    #[must_use]
    pub const fn is_neg_advice(self) -> bool {
        matches!(
            self,
            Self::RTX_NEG_ADVICE | Self::PERSIST_NEG_ADVICE | Self::KEEPALV_NEG_ADVICE
        )
    }
}

impl fmt::Debug for CplStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(n) => f.write_str(n),
            None => write!(f, "CplStatus({})", self.0),
        }
    }
}
