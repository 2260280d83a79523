//! CPLs: from the adapter's queue to whom they are for.
//!
//! Context: a thread of the adapter, in the net epoch, no lock held. All CPLs of a connection
//! come through one queue, in order. A CPL that makes no sense ends its own connection and no
//! other; one for nobody is logged.

use kpi::inp::InpGuard;
use kpi::mbuf::Mbuf;
use kpi::mem::Arc;
use toehold_core::conn::{Conn, End, Outcome, Silent};
use toehold_core::errno::Errno;
use toehold_core::os::{Counter, Os};
use wire::{
    AbortReqRss, AbortRplRss, ActEstablish, ActOpenRpl, CloseConRpl, CloseListsrvRpl, Fw4Ack,
    Opcode, PassEstablish, PassOpenRpl, PeerClose, RxData, RxDataDdp, RxDdpComplete, SetTcbRpl,
    WireError,
};

use crate::adapter::{Adapter, Tid};
use crate::kos::Kos;
use crate::toepcb::Toepcb;
use crate::{connect, listen, synqe};

/// Bytes of the longest CPL that is looked at.
pub const MAX_CPL: usize = 64;

/// A CPL. `b` is it, from its opcode on; `m` is the payload's chain, which begins with the CPL
/// again and has `len` bytes in its first mbuf.
pub fn cpl(adapter: &Arc<Adapter>, b: &[u8], len: usize, m: Option<Mbuf>) {
    if adapter.stopped() {
        // Of before: there is nobody any more whom it could be for.
        return;
    }
    if let Err(e) = route(adapter, b, len, m) {
        let op = b.first().copied().unwrap_or(0);
        let what = match e {
            WireError::Truncated { need, .. } => need as u64,
            WireError::Opcode { have, .. } => u64::from(have),
            WireError::Field { value, .. } => value,
        };
        adapter
            .tom
            .log(c"a message makes no sense", u64::from(op), what);
        match wire::tid_of(b)
            .ok()
            .and_then(|tid| adapter.tids.get(tid))
            .as_deref()
        {
            Some(Tid::Toep(t)) => run(t, bad),
            _ => adapter.tom.count(None, Counter::BadCpl as usize, 1),
        }
    }
}

fn route(adapter: &Arc<Adapter>, b: &[u8], len: usize, m: Option<Mbuf>) -> Result<(), WireError> {
    match wire::opcode_of_cpl(b)? {
        Opcode::ActEstablish => connect::established(adapter, &ActEstablish::parse(b)?),
        Opcode::ActOpenRpl => connect::failed(adapter, &ActOpenRpl::parse(b)?),
        Opcode::PassOpenRpl => listen::opened(adapter, &PassOpenRpl::parse(b)?),
        Opcode::CloseListsrvRpl => listen::closed(adapter, &CloseListsrvRpl::parse(b)?),
        Opcode::PassAcceptReq => {
            let m = m.ok_or(WireError::field("mbuf", 0))?;
            synqe::syn(adapter, b, len, m)?;
        }
        Opcode::PassEstablish => synqe::established(adapter, &PassEstablish::parse(b)?),
        Opcode::RxData => {
            let cpl = RxData::parse(b)?;
            let mut m = m.ok_or(WireError::field("mbuf", 0))?;
            m.trim_front(RxData::LEN as u32);
            if m.len() != u32::from(cpl.len) {
                return Err(WireError::field("len", u64::from(cpl.len)));
            }
            to_conn(adapter, cpl.tid, |conn, os| conn.rx_data(os, &cpl, m));
        }
        Opcode::RxDataDdp => {
            let cpl = RxDataDdp::parse(b)?;
            to_conn(adapter, cpl.tid, |conn, os| conn.rx_data_ddp(os, &cpl));
        }
        Opcode::RxDdpComplete => {
            let cpl = RxDdpComplete::parse(b)?;
            to_conn(adapter, cpl.tid, |conn, os| conn.rx_ddp_complete(os, &cpl));
        }
        Opcode::SetTcbRpl => {
            let cpl = SetTcbRpl::parse(b)?;
            match adapter.tids.get(cpl.tid).as_deref() {
                Some(Tid::Silent(w)) => adapter.late(cpl.tid, w, Silent::replied),
                _ => to_conn(adapter, cpl.tid, |conn, os| conn.set_tcb_rpl(os, &cpl)),
            }
        }
        Opcode::Fw4Ack => {
            let cpl = Fw4Ack::parse(b)?;
            match adapter.tids.get(cpl.tid).as_deref() {
                Some(Tid::Synqe(_)) => {} // credits of the FLOWC that precedes an abort
                _ => to_conn(adapter, cpl.tid, |conn, os| conn.fw4_ack(os, &cpl)),
            }
        }
        Opcode::PeerClose => {
            let cpl = PeerClose::parse(b)?;
            to_conn(adapter, cpl.tid, |conn, os| conn.peer_close(os, &cpl));
        }
        Opcode::CloseConRpl => {
            let cpl = CloseConRpl::parse(b)?;
            to_conn(adapter, cpl.tid, |conn, os| conn.close_con_rpl(os, &cpl));
        }
        Opcode::AbortReqRss => {
            let cpl = AbortReqRss::parse(b)?;
            match adapter.tids.get(cpl.tid).as_deref() {
                Some(Tid::Synqe(s)) => synqe::abort_req(adapter, s, &cpl),
                Some(Tid::Silent(owed)) => adapter.answer_abort(&cpl, owed),
                _ => to_conn(adapter, cpl.tid, |conn, os| conn.abort_req(os, &cpl)),
            }
        }
        Opcode::AbortRplRss => {
            let cpl = AbortRplRss::parse(b)?;
            match adapter.tids.get(cpl.tid).as_deref() {
                Some(Tid::Synqe(s)) => synqe::abort_rpl(adapter, s),
                Some(Tid::Silent(w)) => adapter.late(cpl.tid, w, Silent::aborted),
                _ => to_conn(adapter, cpl.tid, |conn, os| conn.abort_rpl(os, &cpl)),
            }
        }
        // The next hop is written asynchronously; requests behind it are in order.
        Opcode::L2tWriteRpl => {}
        op => return Err(WireError::field("opcode", u64::from(op.code()))),
    }
    Ok(())
}

fn to_conn(adapter: &Adapter, tid: u32, f: impl FnOnce(&mut Conn<Kos>, &mut Kos) -> Outcome) {
    match adapter.tids.get(tid).as_deref() {
        Some(Tid::Toep(t)) => run(t, f),
        _ => adapter.tom.log(c"a message for nobody", u64::from(tid), 0),
    }
}

fn run(toep: &Arc<Toepcb>, f: impl FnOnce(&mut Conn<Kos>, &mut Kos) -> Outcome) {
    let _vnet = toep.vnet.enter();
    let mut g: InpGuard = toep.inp().lock();
    let o = Toepcb::run(toep, &mut g, f).unwrap_or_default();
    Toepcb::finish(toep, g, o);
}

/// The connection goes: its adapter said what cannot be.
fn bad(conn: &mut Conn<Kos>, os: &mut Kos) -> Outcome {
    os.count(Counter::BadCpl, 1);
    conn.send_rst(os);
    let end = if os.dropped() {
        End::None
    } else {
        End::Drop(Errno::ECONNABORTED)
    };
    Outcome {
        end,
        ..Outcome::NONE
    }
}
