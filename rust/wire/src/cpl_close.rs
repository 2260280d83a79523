//! The end of a connection: orderly, by reset, and the tid given back.

use crate::bytes::{
    WR_HDR_LEN, begin_cpl, begin_req, bits32, fit32, get_u8, get_u32, open_cpl, open_req, put_u8,
    put_u32, round16,
};
use crate::error::WireError;
use crate::opcode::Opcode;
use crate::status::CplStatus;

/// A request of nothing but its opcode word: 8 bytes, the last 4 unused.
macro_rules! bare_req {
    ($(#[$m:meta])* $name:ident) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// Connection.
            pub tid: u32,
        }

        impl $name {
            /// Opcode of the CPL.
            pub const OPCODE: Opcode = Opcode::$name;
            /// Bytes of the CPL alone.
            pub const CPL_LEN: usize = 8;
            /// Bytes of the whole work request.
            pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

            /// Reads the work request.
            ///
            /// # Errors
            /// As [`open_req`].
            pub fn parse(b: &[u8]) -> Result<Self, WireError> {
                let (_, tid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
                Ok(Self { tid })
            }

            /// Writes the work request.
            ///
            /// # Errors
            /// `Truncated`, or `Field` if the tid is too wide.
            pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
                begin_req(b, Self::OPCODE, self.tid, self.tid, Self::CPL_LEN).map(|_| ())
            }
        }
    };
}

bare_req! {
    /// CPL_CLOSE_CON_REQ: send FIN after what is queued. Answered by [`CloseConRpl`].
    CloseConReq
}

bare_req! {
    /// CPL_TID_RELEASE: the driver is done with a tid. No answer.
    TidRelease
}

/// CPL_CLOSE_CON_RPL: our FIN was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseConRpl {
    /// Connection.
    pub tid: u32,
    /// Status.
    pub status: CplStatus,
    /// Next sequence number to send.
    pub snd_nxt: u32,
    /// Next sequence number expected.
    pub rcv_nxt: u32,
}

impl CloseConRpl {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::CloseConRpl;
    /// Bytes of the CPL.
    pub const LEN: usize = 16;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Self {
            tid,
            status: CplStatus(get_u8(c, 7)?),
            snd_nxt: get_u32(c, 8)?,
            rcv_nxt: get_u32(c, 12)?,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if the tid is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u8(c, 7, self.status.0)?;
        put_u32(c, 8, self.snd_nxt)?;
        put_u32(c, 12, self.rcv_nxt)
    }
}

/// CPL_PEER_CLOSE: the peer's FIN came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerClose {
    /// Connection.
    pub tid: u32,
    /// Next sequence number expected: after the FIN.
    pub rcv_nxt: u32,
}

impl PeerClose {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::PeerClose;
    /// Bytes of the CPL.
    pub const LEN: usize = 8;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        Ok(Self {
            tid,
            rcv_nxt: get_u32(c, 4)?,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if the tid is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u32(c, 4, self.rcv_nxt)
    }
}

/// The command byte of [`AbortReq`] and [`AbortRpl`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortCmd(pub u8);

impl AbortCmd {
    /// Send RST to the peer (`CPL_ABORT_SEND_RST`).
    pub const SEND_RST: Self = Self(0);
    /// Send nothing (`CPL_ABORT_NO_RST`).
    pub const NO_RST: Self = Self(1);

    /// True if no RST goes to the peer.
    #[must_use]
    pub const fn no_rst(self) -> bool {
        self.0 & 1 != 0
    }

    /// T6: true if the request follows a CPL_CLOSE_CON_REQ.
    #[must_use]
    pub const fn after_close(self) -> bool {
        self.0 & 2 != 0
    }
}

/// An abort message to the adapter: request and reply look alike.
macro_rules! abort_msg {
    ($(#[$m:meta])* $name:ident) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// Connection.
            pub tid: u32,
            /// The word after the opcode, reserved in t4_msg.h. The FreeBSD driver
            /// puts the next sequence number to send there in a request, 0 in a reply.
            pub rsvd0: u32,
            /// The byte before the command, reserved in t4_msg.h. The FreeBSD driver
            /// sets it to 1 in a request if no payload was handed over yet.
            pub rsvd1: u8,
            /// Whether the peer gets an RST.
            pub cmd: AbortCmd,
        }

        impl $name {
            /// Opcode of the CPL.
            pub const OPCODE: Opcode = Opcode::$name;
            /// Bytes of the CPL alone.
            pub const CPL_LEN: usize = 16;
            /// Bytes of the whole work request.
            pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

            /// Reads the work request.
            ///
            /// # Errors
            /// As [`open_req`].
            pub fn parse(b: &[u8]) -> Result<Self, WireError> {
                let (c, tid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
                Ok(Self {
                    tid,
                    rsvd0: get_u32(c, 4)?,
                    rsvd1: get_u8(c, 8)?,
                    cmd: AbortCmd(get_u8(c, 9)?),
                })
            }

            /// Writes the work request.
            ///
            /// # Errors
            /// `Truncated`, or `Field` if the tid is too wide.
            pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
                let c = begin_req(b, Self::OPCODE, self.tid, self.tid, Self::CPL_LEN)?;
                put_u32(c, 4, self.rsvd0)?;
                put_u8(c, 8, self.rsvd1)?;
                put_u8(c, 9, self.cmd.0)
            }
        }
    };
}

abort_msg! {
    /// CPL_ABORT_REQ: drop the connection. Answered by [`AbortRplRss`].
    AbortReq
}

abort_msg! {
    /// CPL_ABORT_RPL: answer to [`AbortReqRss`], unless that is negative advice.
    AbortRpl
}

/// An abort message from the adapter: indication and reply look alike.
macro_rules! abort_rss {
    ($(#[$m:meta])* $name:ident) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// Connection.
            pub tid: u32,
            /// T6: index of the shared receive queue, 24 bits. Reserved before.
            pub srqidx: u32,
            /// Why, or how it went.
            pub status: CplStatus,
        }

        impl $name {
            /// Opcode of the CPL.
            pub const OPCODE: Opcode = Opcode::$name;
            /// Bytes of the CPL.
            pub const LEN: usize = 8;

            /// Reads the CPL.
            ///
            /// # Errors
            /// As [`open_cpl`].
            pub fn parse(b: &[u8]) -> Result<Self, WireError> {
                let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
                let v = get_u32(c, 4)?;
                Ok(Self {
                    tid,
                    srqidx: bits32(v, 8, 24),
                    status: CplStatus(bits32(v, 0, 8) as u8),
                })
            }

            /// Writes the CPL.
            ///
            /// # Errors
            /// `Truncated`, or `Field` if a field is too wide.
            pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
                let srqidx = fit32("srqidx", self.srqidx, 24)?;
                let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
                put_u32(c, 4, srqidx << 8 | u32::from(self.status.0))
            }
        }
    };
}

abort_rss! {
    /// CPL_ABORT_REQ_RSS: the connection was reset or timed out, or
    /// ([`CplStatus::is_neg_advice`]) looks as if it will be.
    AbortReqRss
}

abort_rss! {
    /// CPL_ABORT_RPL_RSS: our [`AbortReq`] is done.
    AbortRplRss
}
