//! Messages of the Chelsio T4/T5/T6 offload engine, as bytes.
//!
//! Every message is a plain struct of host-endian values with `parse` and `emit`.
//! Both directions exist for every message, because the driver and the simulated
//! adapter stand at opposite ends of it. On the wire all multi-byte fields are
//! big-endian.
//!
//! Requests that travel as a work request of their own are parsed and emitted with
//! the 16-byte FW_TP_WR header and padded to a multiple of 16; a struct's `LEN` is
//! that whole length, `CPL_LEN` the CPL alone. Messages from the adapter start at
//! the CPL's opcode byte; [`RssHeader`] is what comes before it.
//!
//! Layouts: FreeBSD's dev/cxgbe `t4_msg.h`, `t4_tcb.h`, `t4fw_interface.h`.

#![no_std]
#![forbid(unsafe_code)]

pub mod bytes;
pub mod cpl_close;
pub mod cpl_l2t;
pub mod cpl_listen;
pub mod cpl_open;
pub mod cpl_rx;
pub mod cpl_tcb;
pub mod error;
pub mod fw;
pub mod opcode;
pub mod opt;
pub mod ppod;
pub mod rss;
pub mod status;
pub mod tcb;
pub mod ulptx;

pub use cpl_close::{
    AbortCmd, AbortReq, AbortReqRss, AbortRpl, AbortRplRss, CloseConReq, CloseConRpl, PeerClose,
    TidRelease,
};
pub use cpl_l2t::{L2T_VLAN_NONE, L2tWriteReq, L2tWriteRpl};
pub use cpl_listen::{
    CloseListsrvReq, CloseListsrvRpl, ConnPolicy, L2Info, Opt1, PassAcceptReq, PassAcceptRpl,
    PassEstablish, PassOpenReq, PassOpenRpl, SynOptions,
};
pub use cpl_open::{ActEstablish, ActOpenReq, ActOpenRpl};
pub use cpl_rx::{DdpReport, DdpVld, RxData, RxDataAck, RxDataDdp, RxDdpComplete};
pub use cpl_tcb::{GetTcb, GetTcbRpl, ReplyCtrl, SetTcbField, SetTcbRpl};
pub use error::WireError;
pub use fw::*;
pub use opcode::{Chip, Opcode, QidTid, WrOp, opcode_of_cpl, tid_of, wr_len, wr_op};
pub use opt::*;
pub use ppod::*;
pub use rss::RssHeader;
pub use status::CplStatus;
pub use tcb::*;
pub use ulptx::*;
