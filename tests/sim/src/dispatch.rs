//! CPLs, from their queue to whom they are for.

use wire::{
    AbortReqRss, AbortRplRss, ActEstablish, CloseConRpl, Fw4Ack, Opcode, PassAcceptReq,
    PassEstablish, PeerClose, RxData, RxDataDdp, RxDdpComplete, SetTcbRpl,
};

use toehold_core::conn::{Conn, Outcome, Silent};

use crate::os::SimOs;
use crate::world::{Tid, World};

impl World {
    pub(crate) fn dispatch(&mut self, rxq: u16, b: &[u8], payload: Vec<u8>) {
        let op = wire::opcode_of_cpl(b).expect("an opcode");
        let chip = self.card.config().chip;
        match op {
            Opcode::PassOpenRpl => {
                let cpl = wire::PassOpenRpl::parse(b).expect("parses");
                assert!(cpl.status.is_ok(), "listener refused");
                self.listening.push(cpl.stid as u16);
            }
            Opcode::ActEstablish => {
                self.act_established(&ActEstablish::parse(b).expect("parses"));
            }
            Opcode::PassAcceptReq => {
                let whole = [b, &payload].concat();
                self.syn(&PassAcceptReq::parse(&whole, chip).expect("parses"));
            }
            Opcode::PassEstablish => {
                self.pass_established(&PassEstablish::parse(b).expect("parses"));
            }
            Opcode::RxData => {
                let cpl = RxData::parse(b).expect("parses");
                assert_eq!(usize::from(cpl.len), payload.len());
                self.deliver(rxq, op, cpl.tid, |c, os| c.rx_data(os, &cpl, payload));
            }
            Opcode::RxDataDdp => {
                let cpl = RxDataDdp::parse(b).expect("parses");
                self.deliver(rxq, op, cpl.tid, |c, os| c.rx_data_ddp(os, &cpl));
            }
            Opcode::RxDdpComplete => {
                let cpl = RxDdpComplete::parse(b).expect("parses");
                self.deliver(rxq, op, cpl.tid, |c, os| c.rx_ddp_complete(os, &cpl));
            }
            Opcode::SetTcbRpl => {
                let cpl = SetTcbRpl::parse(b).expect("parses");
                if let Some(Tid::Silent(..)) = self.tids.get(&cpl.tid) {
                    return self.late(cpl.tid, Silent::replied);
                }
                self.deliver(rxq, op, cpl.tid, |c, os| c.set_tcb_rpl(os, &cpl));
            }
            Opcode::Fw4Ack => {
                let cpl = Fw4Ack::parse(b).expect("parses");
                self.deliver(rxq, op, cpl.tid, |c, os| c.fw4_ack(os, &cpl));
            }
            Opcode::PeerClose => {
                let cpl = PeerClose::parse(b).expect("parses");
                self.deliver(rxq, op, cpl.tid, |c, os| c.peer_close(os, &cpl));
            }
            Opcode::CloseConRpl => {
                let cpl = CloseConRpl::parse(b).expect("parses");
                self.deliver(rxq, op, cpl.tid, |c, os| c.close_con_rpl(os, &cpl));
            }
            Opcode::AbortReqRss => {
                let cpl = AbortReqRss::parse(b).expect("parses");
                if let Some(Tid::Silent(_, e)) = self.tids.get(&cpl.tid) {
                    return self.answer_abort(*e, &cpl);
                }
                self.deliver(rxq, op, cpl.tid, |c, os| c.abort_req(os, &cpl));
            }
            Opcode::AbortRplRss => {
                let cpl = AbortRplRss::parse(b).expect("parses");
                if let Some(Tid::Silent(..)) = self.tids.get(&cpl.tid) {
                    return self.late(cpl.tid, Silent::aborted);
                }
                self.deliver(rxq, op, cpl.tid, |c, os| c.abort_rpl(os, &cpl));
            }
            op => panic!("{op:?} was not to come"),
        }
    }

    fn deliver(
        &mut self,
        rxq: u16,
        op: Opcode,
        tid: u32,
        f: impl FnOnce(&mut Conn<SimOs>, &mut SimOs) -> Outcome,
    ) {
        let Some(Tid::End(e)) = self.tids.get(&tid) else {
            // As the module, which knows nobody of that tid.
            if self.strays || matches!(self.tids.get(&tid), Some(Tid::Silent(..))) {
                return;
            }
            panic!("{op:?} for tid {tid}, which is nobody's");
        };
        let e = *e;
        assert_eq!(self.ends[e].rxq, rxq, "{op:?} in another queue");
        let o = self.say(e, f);
        self.finish(e, o);
    }
}
