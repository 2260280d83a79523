//! Work requests taken apart. What parses here makes sense by itself; whether it makes sense for
//! its connection is found when it runs.

use alloc::vec::Vec;

use wire::{Chip, Opcode, WireError, WrOp};

use crate::conn::Payload;
use crate::host::{TxQueue, WrError};

/// FW_FLOWC_WR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowcReq {
    pub(crate) tid: u32,
    pub(crate) iqid: Option<u16>,
    pub(crate) snd_nxt: Option<u32>,
    pub(crate) sndbuf: Option<u32>,
    pub(crate) credits: u16,
}

/// FW_OFLD_TX_DATA_WR.
#[derive(Clone, Debug)]
pub(crate) struct TxDataReq {
    pub(crate) tid: u32,
    pub(crate) len: u64,
    pub(crate) data: Payload,
    pub(crate) credits: u16,
    pub(crate) shove: bool,
    pub(crate) compl: bool,
}

/// A write to a TCB, by itself or in a compound request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetTcb {
    pub(crate) tid: u32,
    pub(crate) update: wire::TcbUpdate,
    /// Queue and cookie of the reply, if one is wanted.
    pub(crate) reply: Option<(u16, u8)>,
}

/// One command of a FW_ULPTX_WR.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UlpCmd {
    SetTcb(SetTcb),
    RxDataAck(wire::RxDataAck),
}

#[derive(Clone, Debug)]
pub(crate) enum Req {
    ActOpen(wire::ActOpenReq),
    PassOpen(wire::PassOpenReq),
    CloseListsrv(wire::CloseListsrvReq),
    PassAcceptRpl(wire::PassAcceptRpl),
    CloseCon(wire::CloseConReq),
    AbortReq(wire::AbortReq),
    AbortRpl(wire::AbortRpl),
    TidRelease(wire::TidRelease),
    RxDataAck(wire::RxDataAck),
    SetTcb(SetTcb),
    GetTcb(wire::GetTcb),
    L2tWrite(wire::L2tWriteReq),
    Flowc(FlowcReq),
    TxData(TxDataReq),
    Ulptx(Vec<UlpCmd>),
    MemWrite { addr: u64, data: Vec<u8> },
}

/// ULP_TX command of adapter memory writes.
const ULP_TX_MEM_WRITE: u8 = 3;

impl Req {
    pub(crate) fn parse(chip: Chip, q: TxQueue, wr: &[u8]) -> Result<Self, WrError> {
        if wr.len() < 16 || wr.len() > wire::MAX_WR_LEN || !wr.len().is_multiple_of(16) {
            return Err(WrError::Length(wr.len()));
        }
        let told = wire::wr_len(wr)?;
        if told != wr.len() {
            return Err(WrError::Length(told));
        }
        let code = wr.first().copied().unwrap_or(0);
        let op = wire::wr_op(wr).map_err(|_| WrError::Opcode(code))?;
        match op {
            WrOp::Tp => Self::parse_tp(chip, wr),
            WrOp::Ulptx => Self::parse_ulptx(wr),
            WrOp::Flowc | WrOp::OfldTxData if matches!(q, TxQueue::Ctrl(_)) => Err(WrError::Queue),
            WrOp::Flowc => Self::parse_flowc(wr),
            WrOp::OfldTxData => Self::parse_tx_data(wr),
        }
    }

    fn parse_tp(chip: Chip, wr: &[u8]) -> Result<Self, WrError> {
        let cpl = wr.get(16..).unwrap_or(&[]);
        let code = cpl.first().copied().unwrap_or(0);
        let op = wire::opcode_of_cpl(cpl).map_err(|_| WrError::Opcode(code))?;
        Ok(match op {
            Opcode::ActOpenReq => Self::ActOpen(wire::ActOpenReq::parse(wr, chip)?),
            Opcode::PassOpenReq => Self::PassOpen(wire::PassOpenReq::parse(wr)?),
            Opcode::CloseListsrvReq => Self::CloseListsrv(wire::CloseListsrvReq::parse(wr)?),
            Opcode::PassAcceptRpl => Self::PassAcceptRpl(wire::PassAcceptRpl::parse(wr, chip)?),
            Opcode::CloseConReq => Self::CloseCon(wire::CloseConReq::parse(wr)?),
            Opcode::AbortReq => Self::AbortReq(wire::AbortReq::parse(wr)?),
            Opcode::AbortRpl => Self::AbortRpl(wire::AbortRpl::parse(wr)?),
            Opcode::TidRelease => Self::TidRelease(wire::TidRelease::parse(wr)?),
            Opcode::RxDataAck => Self::RxDataAck(wire::RxDataAck::parse(wr)?),
            Opcode::SetTcbField => {
                let m = wire::SetTcbField::parse(wr)?;
                let update = wire::TcbUpdate {
                    word: m.word,
                    mask: m.mask,
                    value: m.val,
                };
                let reply = (!m.reply.no_reply).then_some((m.reply.queue, m.cookie));
                Self::SetTcb(SetTcb {
                    tid: m.tid,
                    update,
                    reply,
                })
            }
            Opcode::GetTcb => Self::GetTcb(wire::GetTcb::parse(wr)?),
            Opcode::L2tWriteReq => Self::L2tWrite(wire::L2tWriteReq::parse(wr)?),
            _ => return Err(WrError::Opcode(code)),
        })
    }

    fn parse_ulptx(wr: &[u8]) -> Result<Self, WrError> {
        if wr.get(16) == Some(&ULP_TX_MEM_WRITE) {
            let m = wire::UlpTxMemWrite::parse(wr)?;
            let mut data = alloc::vec![0; m.count * wire::PagePod::LEN];
            for (dst, pod) in data.chunks_exact_mut(wire::PagePod::LEN).zip(&m.pods) {
                pod.emit(dst)?;
            }
            return Ok(Self::MemWrite {
                addr: u64::from(m.addr),
                data,
            });
        }
        let (_, inner) = wire::parse_compound(wr)?;
        let mut cmds = Vec::new();
        for m in inner {
            cmds.push(match m? {
                wire::Inner::SetTcb { tid, update, reply } => {
                    UlpCmd::SetTcb(SetTcb { tid, update, reply })
                }
                wire::Inner::RxDataAck(m) => UlpCmd::RxDataAck(m),
            });
        }
        Ok(Self::Ulptx(cmds))
    }

    fn parse_flowc(wr: &[u8]) -> Result<Self, WrError> {
        let (tid, params) = wire::parse_flowc(wr)?;
        let mut req = FlowcReq {
            tid,
            iqid: None,
            snd_nxt: None,
            sndbuf: None,
            credits: credits(wr),
        };
        for (p, v) in params {
            match p {
                wire::FlowcParam::IqId => {
                    let iq = u16::try_from(v).map_err(|_| field("iqid", v))?;
                    req.iqid = Some(iq);
                }
                wire::FlowcParam::SndNxt => req.snd_nxt = Some(v),
                wire::FlowcParam::SndBuf => req.sndbuf = Some(v),
                _ => {}
            }
        }
        Ok(Self::Flowc(req))
    }

    fn parse_tx_data(wr: &[u8]) -> Result<Self, WrError> {
        let m = wire::OfldTxData::parse(wr)?;
        let body = wr.get(wire::OfldTxData::HDR_LEN..).unwrap_or(&[]);
        let data = if m.immdlen > 0 {
            let n = usize::from(m.immdlen);
            if u32::from(m.immdlen) != m.plen {
                return Err(field("immdlen", u32::from(m.immdlen)).into());
            }
            let have = body.len();
            let imm = body
                .get(..n)
                .ok_or(WireError::Truncated { need: n, have })?;
            Payload::Immediate(imm.to_vec())
        } else {
            let list = wire::Dsgl::parse(body)?;
            let segs: Vec<(u64, u32)> = list.segs().collect();
            let sum: u64 = segs.iter().map(|&(_, len)| u64::from(len)).sum();
            if sum != u64::from(m.plen) {
                return Err(field("plen", m.plen).into());
            }
            Payload::Sgl(segs)
        };
        if m.plen == 0 {
            return Err(field("plen", 0).into());
        }
        Ok(Self::TxData(TxDataReq {
            tid: m.tid,
            len: u64::from(m.plen),
            data,
            credits: credits(wr),
            shove: m.shove,
            compl: m.compl,
        }))
    }

    /// The request takes a DDP buffer from the card.
    pub(crate) fn invalidates(&self) -> bool {
        let takes = |u: &wire::TcbUpdate| {
            let mut probe = wire::Tcb::default();
            let both = wire::DdpBuf::B0.flag(wire::TF_DDP_BUF0_VALID)
                | wire::DdpBuf::B1.flag(wire::TF_DDP_BUF0_VALID);
            probe.set_flags(both | wire::TF_DDP_OFF, both | wire::TF_DDP_OFF);
            probe.set_field(u);
            // Clearing them together with switching DDP on takes nothing.
            probe.ddp_off()
                && (!probe.buf_valid(wire::DdpBuf::B0) || !probe.buf_valid(wire::DdpBuf::B1))
        };
        match self {
            Self::SetTcb(m) => takes(&m.update),
            Self::Ulptx(cmds) => cmds
                .iter()
                .any(|c| matches!(c, UlpCmd::SetTcb(m) if takes(&m.update))),
            _ => false,
        }
    }
}

fn field(name: &'static str, value: u32) -> WireError {
    WireError::field(name, u64::from(value))
}

/// What a work request costs: its length in units of 16 bytes.
fn credits(wr: &[u8]) -> u16 {
    u16::try_from(wr.len().div_ceil(16)).unwrap_or(u16::MAX)
}
