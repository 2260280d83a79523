//! What a CPL's status (`enum CPL_error`) means to the kernel.

use wire::CplStatus;

use crate::errno::Errno;
use crate::os::TcpState;

/// What a connection in state `state` reports when CPL_ABORT_REQ_RSS brings `status`.
#[must_use]
pub fn abort_errno(state: TcpState, status: CplStatus) -> Errno {
    match status {
        CplStatus::BAD_SYN | CplStatus::CONN_RESET => {
            if state == TcpState::CloseWait {
                Errno::EPIPE
            } else {
                Errno::ECONNRESET
            }
        }
        CplStatus::XMIT_TIMEDOUT
        | CplStatus::PERSIST_TIMEDOUT
        | CplStatus::FINWAIT2_TIMEDOUT
        | CplStatus::KEEPALIVE_TIMEDOUT => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}

/// What a failed active open (CPL_ACT_OPEN_RPL) means. EAGAIN: the adapter cannot, the software
/// stack may.
#[must_use]
pub const fn act_open_errno(status: CplStatus) -> Errno {
    match status {
        CplStatus::CONN_RESET => Errno::ECONNREFUSED,
        CplStatus::ARP_MISS => Errno::EHOSTUNREACH,
        CplStatus::CONN_TIMEDOUT => Errno::ETIMEDOUT,
        CplStatus::TCAM_FULL | CplStatus::CONN_EXIST => Errno::EAGAIN,
        _ => Errno::EIO,
    }
}
