//! What of the adapter a receive test needs: TCB, page pods, placement, reports.
//!
//! Work requests are executed and messages made only when the test says so; the order of each
//! is kept, as the adapter keeps it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::vec::Vec;

use wire::{
    DdpBuf, DdpReport, DdpVld, Inner, PagePod, RxData, RxDataAck, RxDataDdp, RxDdpComplete,
    SetTcbField, SetTcbRpl, Tcb, TcbUpdate, UlpTxMemWrite, WrOp,
};

use super::stream;
use crate::os::Queue;
use crate::ppod::Geometry;
use crate::testos::Mem;

/// A message on its way to the host.
#[derive(Clone, Debug)]
pub(super) enum Cpl {
    Data(RxData, Vec<u8>),
    Ddp(RxDataDdp),
    Complete(RxDdpComplete),
    Rpl(SetTcbRpl),
    /// CPL_PEER_CLOSE with its rcv_nxt.
    Fin(u32),
}

pub(super) struct Card {
    pub(super) tcb: Tcb,
    pub(super) pods: BTreeMap<u32, PagePod>,
    geometry: Geometry,
    mem: Rc<Mem>,
    tid: u32,
    /// Next sequence number from the peer.
    pub(super) rcv_nxt: u32,
    /// Window: bytes that may still come outside of DDP.
    pub(super) wnd: u32,
    /// Messages to the host, oldest first.
    pub(super) out: VecDeque<Cpl>,
    /// Octets placed.
    pub(super) placed: u64,
    /// Requests executed, by kind.
    pub(super) pod_wrs: u32,
    pub(super) arms: u32,
    pub(super) modulates: u32,
}

impl Card {
    pub(super) fn new(mem: Rc<Mem>, geometry: Geometry, tid: u32, rcv_nxt: u32, wnd: u32) -> Card {
        let mut tcb = Tcb::default();
        tcb.set_flags(wire::TF_DDP_OFF, wire::TF_DDP_OFF);
        tcb.set_field(&TcbUpdate {
            word: wire::W_T_FLAGS,
            mask: wire::TF_RCV_COALESCE_ENABLE,
            value: wire::TF_RCV_COALESCE_ENABLE,
        });
        Card {
            tcb,
            pods: BTreeMap::new(),
            geometry,
            mem,
            tid,
            rcv_nxt,
            wnd,
            out: VecDeque::new(),
            placed: 0,
            pod_wrs: 0,
            arms: 0,
            modulates: 0,
        }
    }

    /// Execute one work request.
    pub(super) fn exec(&mut self, q: Queue, wr: &[u8]) {
        assert_eq!(q, Queue::Ctrl);
        match wire::wr_op(wr).expect("work request") {
            WrOp::Ulptx => self.exec_ulptx(wr),
            WrOp::Tp => self.exec_tp(wr),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn exec_ulptx(&mut self, wr: &[u8]) {
        if let Ok(m) = UlpTxMemWrite::parse(wr) {
            self.pod_wrs += 1;
            for (i, pod) in m.pods.iter().take(m.count).enumerate() {
                let addr = m.addr + 64 * i as u32;
                assert!(
                    (0x10_0000..0x10_0000 + self.geometry.ppods() * 64).contains(&addr),
                    "page pod at {addr:#x}"
                );
                self.pods.insert(addr, *pod);
            }
            return;
        }
        let (atomic, inner) = wire::parse_compound(wr).expect("compound");
        assert!(atomic, "TCB updates of a buffer must be atomic");
        let inner: Vec<Inner> = inner.collect::<Result<_, _>>().expect("inner");
        for i in inner {
            match i {
                Inner::SetTcb { tid, update, reply } => {
                    assert_eq!(tid, self.tid);
                    let valid = DdpBuf::B0.flag(wire::TF_DDP_BUF0_VALID)
                        | DdpBuf::B1.flag(wire::TF_DDP_BUF0_VALID);
                    if update.word == wire::W_RX_DDP_FLAGS && update.value & valid != 0 {
                        self.arms += 1;
                    }
                    let cookie = reply.map(|(q, c)| {
                        assert_eq!(q, 77, "reply to the wrong queue");
                        c
                    });
                    self.set_tcb(&update, cookie);
                }
                Inner::RxDataAck(a) => {
                    assert!(a.modulate_rx);
                    assert_eq!(a.credits, 0);
                    self.modulates += 1;
                }
            }
        }
    }

    fn exec_tp(&mut self, wr: &[u8]) {
        if let Ok(a) = RxDataAck::parse(wr) {
            assert_eq!(a.tid, self.tid);
            self.wnd += a.credits;
            return;
        }
        let f = SetTcbField::parse(wr).expect("SET_TCB_FIELD");
        assert_eq!(
            (f.tid, f.reply.queue, f.reply.no_reply),
            (self.tid, 77, false)
        );
        let u = TcbUpdate {
            word: f.word,
            mask: f.mask,
            value: f.val,
        };
        self.set_tcb(&u, Some(f.cookie));
    }

    fn set_tcb(&mut self, u: &TcbUpdate, cookie: Option<u8>) {
        let oldval = self.tcb.set_field(u);
        if let Some(cookie) = cookie {
            self.out.push_back(Cpl::Rpl(SetTcbRpl {
                tid: self.tid,
                word: u.word,
                cookie,
                oldval,
                ..SetTcbRpl::default()
            }));
        }
    }

    /// The peer sends `n` bytes, the last with PSH if `psh`. Bytes are placed as far as valid
    /// buffers go; the rest goes to the host.
    pub(super) fn recv(&mut self, n: u32, psh: bool) {
        let mut left = n;
        while left > 0 {
            let buf = self.tcb.active_buf();
            if self.tcb.ddp_off() || !self.tcb.buf_valid(buf) {
                let k = left.min(16 << 10);
                left -= k;
                self.indicate(k, psh && left == 0);
                continue;
            }
            let off = self.tcb.buf_offset(buf);
            let room = self.tcb.buf_len(buf) - off;
            let k = left.min(room).min(16 << 10);
            left -= k;
            self.place(buf, off, k);
            let full = k == room;
            let push = psh && left == 0 && !self.tcb.push_disable(buf);
            if full || push || (left == 0 && self.tcb.buf_flush(buf)) {
                self.report(buf, k, full, psh && left == 0);
            }
        }
    }

    /// Bytes go to the host.
    fn indicate(&mut self, k: u32, psh: bool) {
        self.wnd = self.wnd.checked_sub(k).expect("peer overran the window");
        let cpl = RxData {
            tid: self.tid,
            len: k as u16,
            seq: self.rcv_nxt,
            psh,
            ddp_off: self.tcb.ddp_off(),
            ..RxData::default()
        };
        self.out
            .push_back(Cpl::Data(cpl, stream(self.rcv_nxt, k as usize)));
        self.rcv_nxt = self.rcv_nxt.wrapping_add(k);
    }

    /// Bytes that came before DDP was on, which the adapter tells only now.
    pub(super) fn held_back(&mut self, k: u32) {
        self.indicate(k, false);
        if let Some(Cpl::Data(cpl, _)) = self.out.back_mut() {
            cpl.ddp_off = true;
        }
    }

    fn place(&mut self, buf: DdpBuf, off: u32, k: u32) {
        let tag = wire::PpodTag(self.tcb.buf_tag(buf));
        let shift = self.geometry.page_shifts()[usize::from(tag.pgsz())];
        let first = 0x10_0000 + tag.offset(self.geometry.tag_mask());
        let data = stream(self.rcv_nxt, k as usize);
        let pod0 = *self.pods.get(&first).expect("tag of no page pod");
        assert!(off + k <= pod0.len, "outside of the buffer");
        let mut i = 0;
        while i < data.len() {
            let at = u64::from(pod0.offset) + u64::from(off) + i as u64;
            let page = at >> shift;
            let addr = first + 64 * (page / 4) as u32;
            let pod = self.pods.get(&addr).expect("buffer runs out of page pods");
            assert!(pod.valid, "page pod is not valid");
            assert_eq!(pod.tid, self.tid, "page pod of another connection");
            assert_eq!(pod.tag, tag.0, "page pod of another buffer");
            assert_eq!((pod.len, pod.offset), (pod0.len, pod0.offset));
            let base = pod.addrs[(page % 4) as usize];
            assert!(base != 0, "no page address");
            let in_page = at & ((1 << shift) - 1);
            let n = ((1u64 << shift) - in_page).min((data.len() - i) as u64) as usize;
            self.mem.dma_write(base + in_page, &data[i..i + n]);
            i += n;
        }
        self.placed += u64::from(k);
        self.rcv_nxt = self.rcv_nxt.wrapping_add(k);
        self.tcb.set_buf_offset(buf, off + k);
    }

    fn invalidate(&mut self, buf: DdpBuf) {
        self.tcb.set_flags(buf.flag(wire::TF_DDP_BUF0_VALID), 0);
        self.tcb.set_active_buf(buf.other());
    }

    /// The active buffer is done; the last placement was `k` bytes.
    fn report(&mut self, buf: DdpBuf, k: u32, full: bool, psh: bool) {
        self.invalidate(buf);
        self.out.push_back(Cpl::Ddp(RxDataDdp {
            tid: self.tid,
            len: k as u16,
            seq: self.rcv_nxt.wrapping_sub(k),
            report: DdpReport {
                offset: self.tcb.buf_offset(buf) - k,
                buf_idx: buf.index() as u8,
                psh,
                buf_complete: full,
                inv: true,
                ..DdpReport::default()
            },
            ddpvld: DdpVld(0).with_ulp_mode(DdpVld::ULP_TCPDDP),
            ..RxDataDdp::default()
        }));
    }

    /// The push timer of the active buffer runs out: it is completed with what it has.
    pub(super) fn time_out(&mut self) {
        let buf = self.tcb.active_buf();
        if self.tcb.ddp_off() || !self.tcb.buf_valid(buf) {
            return;
        }
        self.invalidate(buf);
        self.out.push_back(Cpl::Complete(RxDdpComplete {
            tid: self.tid,
            report: DdpReport {
                offset: self.tcb.buf_offset(buf),
                buf_idx: buf.index() as u8,
                buf_timed_out: true,
                inv: true,
                ..DdpReport::default()
            },
            rcv_nxt: self.rcv_nxt,
        }));
    }

    /// The adapter falls out of DDP; the host learns it with the next data.
    pub(super) fn fall_out(&mut self) {
        self.tcb.set_flags(wire::TF_DDP_OFF, wire::TF_DDP_OFF);
    }

    /// The peer's FIN.
    pub(super) fn fin(&mut self) {
        self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        self.out.push_back(Cpl::Fin(self.rcv_nxt));
        self.fall_out();
    }
}
