//! Every CPL of `cpl_*.rs` against bytes worked out by hand from t4_msg.h, against its
//! own inverse, and against rubbish.

mod cpl_common;

use cpl_common::{Codec, Rng, check_known, check_random, check_roundtrip, hex};
use wire::*;

const TID: u32 = 0x000a_1234;
/// 0x15 << 14 | 4 << 11 | 0x123 = 0x056123
const ATID: QidTid = QidTid {
    tid: 0x123,
    cookie: 4,
    qid: 0x15,
};

fn qid_tid(r: &mut Rng) -> QidTid {
    QidTid {
        tid: r.u16(11),
        cookie: r.u8(3),
        qid: r.u16(10),
    }
}

fn report(r: &mut Rng) -> DdpReport {
    DdpReport {
        offset: r.u32(24),
        dack_mode: r.u8(2),
        buf_idx: r.u8(1),
        urg: r.flag(),
        psh: r.flag(),
        buf_complete: r.flag(),
        buf_timed_out: r.flag(),
        inv: r.flag(),
    }
}

fn reply_ctrl(r: &mut Rng) -> ReplyCtrl {
    ReplyCtrl {
        queue: r.u16(10),
        chan: r.flag(),
        no_reply: r.flag(),
    }
}

fn status(r: &mut Rng) -> CplStatus {
    CplStatus(r.u8(8))
}

/// Four tests of one message: known bytes, roundtrip, rubbish, and each field's
/// overflow. `$op` is the offset of the opcode, `$body` that of the first free byte.
macro_rules! message {
    ($name:ident: $t:ty, op $op:expr, body $body:expr,
     parse $parse:expr, emit $emit:expr,
     known $val:expr => $hex:expr,
     random $random:expr) => {
        mod $name {
            use super::*;

            fn codec() -> Codec<$t> {
                Codec {
                    parse: $parse,
                    emit: $emit,
                }
            }

            #[test]
            fn known_bytes() {
                check_known(&codec(), &$val, &hex($hex), Some($op));
            }

            #[test]
            fn roundtrip() {
                check_roundtrip(&codec(), hex($hex).len(), $random);
            }

            #[test]
            fn rubbish() {
                check_random(&codec(), hex($hex).len(), $body, &$val);
            }
        }
    };
}

/// A CPL from the adapter.
macro_rules! from_card {
    ($name:ident: $t:ident, known $val:expr => $hex:expr, random $random:expr) => {
        message! { $name: $t, op 0, body 1, parse $t::parse, emit $t::emit,
        known $val => $hex, random $random }

        static_assertions::const_assert!($t::LEN.is_multiple_of(4));
    };
}

/// A request to the adapter, in its work request. The tid word is kept where the
/// message holds it elsewhere too.
macro_rules! to_card {
    ($name:ident: $t:ident, known $val:expr => $hex:expr, random $random:expr) => {
        message! { $name: $t, op 16, body 20, parse $t::parse, emit $t::emit,
        known $val => $hex, random $random }
    };
}

// --- open ---

fn act_open_req(r: &mut Rng) -> ActOpenReq {
    ActOpenReq {
        atid: qid_tid(r),
        local_port: r.u16(16),
        peer_port: r.u16(16),
        local_ip: r.u32(32),
        peer_ip: r.u32(32),
        opt0: r.bits(64),
        iss: r.u32(32),
        opt2: r.u32(32),
        filter_tuple: r.bits(40),
        opt3: r.u32(32),
    }
}

const ACT_OPEN: ActOpenReq = ActOpenReq {
    atid: ATID,
    local_port: 0x1234,
    peer_port: 0x5678,
    local_ip: 0x0a00_0001,
    peer_ip: 0x0a00_0002,
    opt0: 0x1122_3344_5566_7788,
    iss: 0xdead_beef,
    opt2: 0x8000_0402,
    filter_tuple: 0x12_3456_789a,
    opt3: 0xcafe_0001,
};

message! { act_open_req_t4: ActOpenReq, op 16, body 20,
    parse |b| ActOpenReq::parse(b, Chip::T4), emit |m, b| m.emit(b, Chip::T4),
    known ActOpenReq { iss: 0, opt3: 0, filter_tuple: 0x3456_789a, ..ACT_OPEN } =>
        "05000020 00000003 0000000000000000
         03056123 1234 5678 0a000001 0a000002 1122334455667788 3456789a 80000402",
    random |r| ActOpenReq { iss: 0, opt3: 0, filter_tuple: r.bits(32), ..act_open_req(r) }
}

message! { act_open_req_t5: ActOpenReq, op 16, body 20,
    parse |b| ActOpenReq::parse(b, Chip::T5), emit |m, b| m.emit(b, Chip::T5),
    known ActOpenReq { opt3: 0, ..ACT_OPEN } =>
        "05000028 00000004 0000000000000000
         03056123 1234 5678 0a000001 0a000002 1122334455667788 deadbeef 80000402
         123456789a 000000  0000000000000000",
    random |r| ActOpenReq { opt3: 0, ..act_open_req(r) }
}

message! { act_open_req_t6: ActOpenReq, op 16, body 20,
    parse |b| ActOpenReq::parse(b, Chip::T6), emit |m, b| m.emit(b, Chip::T6),
    known ACT_OPEN =>
        "05000030 00000004 0000000000000000
         03056123 1234 5678 0a000001 0a000002 1122334455667788 deadbeef 80000402
         123456789a 000000  00000000 cafe0001",
    random act_open_req
}

from_card! { act_open_rpl: ActOpenRpl,
    known ActOpenRpl { tid: TID, atid: ATID, status: CplStatus::CONN_RESET } =>
        "250a1234 056123 14",
    random |r| ActOpenRpl { tid: r.u32(24), atid: qid_tid(r), status: status(r) }
}

from_card! { act_establish: ActEstablish,
    known ActEstablish { tid: TID, atid: ATID, tos: 0x10, mac_idx: 7, tcp_opt: 0x8be0,
        snd_isn: 0x1111_1112, rcv_isn: 0x2222_2223 } =>
        "400a1234 00000000 10 056123 0007 8be0 11111112 22222223",
    random |r| ActEstablish { tid: r.u32(24), atid: qid_tid(r), tos: r.u8(8), mac_idx: r.u16(16),
        tcp_opt: r.u16(16), snd_isn: r.u32(32), rcv_isn: r.u32(32) }
}

// --- listen ---

to_card! { pass_open_req: PassOpenReq,
    known PassOpenReq { stid: 0x77, local_port: 80, peer_port: 0, local_ip: 0x0a00_0001,
        peer_ip: 0, opt0: 0x1122_3344_5566_7788, opt1: 0x40_0055 } =>
        "05000020 00000003 0000000000000000
         01000077 0050 0000 0a000001 00000000 1122334455667788 0000000000400055",
    random |r| PassOpenReq { stid: r.u32(24), local_port: r.u16(16), peer_port: r.u16(16),
        local_ip: r.u32(32), peer_ip: r.u32(32), opt0: r.bits(64), opt1: r.bits(64) }
}

from_card! { pass_open_rpl: PassOpenRpl,
    known PassOpenRpl { stid: 0x77, status: CplStatus::TCAM_FULL } => "24000077 000000 03",
    random |r| PassOpenRpl { stid: r.u32(24), status: status(r) }
}

to_card! { close_listsrv_req: CloseListsrvReq,
    known CloseListsrvReq { stid: 0x77, queue: 0x15, ipv6: true, no_reply: false } =>
        "05000008 00000002 0000000000000000  09000077 4015 0000  0000000000000000",
    random |r| CloseListsrvReq { stid: r.u32(24), queue: r.u16(10), ipv6: r.flag(),
        no_reply: r.flag() }
}

from_card! { close_listsrv_rpl: CloseListsrvRpl,
    known CloseListsrvRpl { stid: 0x77, status: CplStatus::NONE } => "20000077 00000000",
    random |r| CloseListsrvRpl { stid: r.u32(24), status: status(r) }
}

fn pass_accept_req(r: &mut Rng) -> PassAcceptReq {
    PassAcceptReq {
        tid: r.u32(24),
        len: r.u16(16),
        rx_chan: r.u8(4),
        eth_hdr_len: r.u8(6),
        ip_hdr_len: r.u16(10),
        tcp_hdr_len: r.u8(6),
        vlan: r.u16(16),
        l2info: L2Info {
            mac_idx: r.u16(9),
            xact_match: r.flag(),
            intf: r.u8(4),
        },
        tos: r.u8(8),
        stid: r.u32(24),
        tcpopt: SynOptions {
            mss: r.u16(16),
            wsf: r.u8(8),
            tstamp: r.flag(),
            sack: r.flag(),
            ecn: r.flag(),
            unknown: r.flag(),
        },
    }
}

const SYN: PassAcceptReq = PassAcceptReq {
    tid: TID,
    len: 66,
    rx_chan: 2,
    eth_hdr_len: 14,
    ip_hdr_len: 20,
    tcp_hdr_len: 32,
    vlan: 100,
    l2info: L2Info {
        mac_idx: 0x123,
        xact_match: true,
        intf: 3,
    },
    tos: 8,
    stid: 0x77,
    tcpopt: SynOptions {
        mss: 1460,
        wsf: 7,
        tstamp: true,
        sack: true,
        ecn: false,
        unknown: false,
    },
};

// 14 << 26 | 20 << 16 | 32 << 10 | 2
message! { pass_accept_req_t5: PassAcceptReq, op 0, body 1,
    parse |b| PassAcceptReq::parse(b, Chip::T5), emit |m, b| m.emit(b, Chip::T5),
    known SYN =>
        "440a1234 0000 0042 38148002 0064 3323 08 000077 05b4 07 c0",
    random pass_accept_req
}

// 14 << 24 | 20 << 14 | 32 << 8 | 2
message! { pass_accept_req_t6: PassAcceptReq, op 0, body 1,
    parse |b| PassAcceptReq::parse(b, Chip::T6), emit |m, b| m.emit(b, Chip::T6),
    known SYN =>
        "440a1234 0000 0042 0e052002 0064 3323 08 000077 05b4 07 c0",
    random |r| PassAcceptReq { eth_hdr_len: r.u8(8), ..pass_accept_req(r) }
}

const ACCEPT: PassAcceptRpl = PassAcceptRpl {
    tid: TID,
    opt2: 0x8000_0402,
    opt0: 0x1122_3344_5566_7788,
    iss: 0xdead_beef,
    opt3: 0xcafe_0001,
};

fn pass_accept_rpl(r: &mut Rng) -> PassAcceptRpl {
    PassAcceptRpl {
        tid: r.u32(20),
        opt2: r.u32(32),
        opt0: r.bits(64),
        iss: r.u32(32),
        opt3: r.u32(32),
    }
}

message! { pass_accept_rpl_t4: PassAcceptRpl, op 16, body 20,
    parse |b| PassAcceptRpl::parse(b, Chip::T4), emit |m, b| m.emit(b, Chip::T4),
    known PassAcceptRpl { iss: 0, opt3: 0, ..ACCEPT } =>
        "05000010 0a123402 0000000000000000  020a1234 80000402 1122334455667788",
    random |r| PassAcceptRpl { iss: 0, opt3: 0, ..pass_accept_rpl(r) }
}

message! { pass_accept_rpl_t5: PassAcceptRpl, op 16, body 20,
    parse |b| PassAcceptRpl::parse(b, Chip::T5), emit |m, b| m.emit(b, Chip::T5),
    known PassAcceptRpl { opt3: 0, ..ACCEPT } =>
        "05000018 0a123403 0000000000000000  020a1234 80000402 1122334455667788
         deadbeef 00000000  0000000000000000",
    random |r| PassAcceptRpl { opt3: 0, ..pass_accept_rpl(r) }
}

message! { pass_accept_rpl_t6: PassAcceptRpl, op 16, body 20,
    parse |b| PassAcceptRpl::parse(b, Chip::T6), emit |m, b| m.emit(b, Chip::T6),
    known ACCEPT =>
        "05000018 0a123403 0000000000000000  020a1234 80000402 1122334455667788
         deadbeef cafe0001  0000000000000000",
    random pass_accept_rpl
}

from_card! { pass_establish: PassEstablish,
    known PassEstablish { tid: TID, stid: 0x77, tos: 8, mac_idx: 7, tcp_opt: 0x8be0,
        snd_isn: 0x1111_1112, rcv_isn: 0x2222_2223 } =>
        "410a1234 00000000 08 000077 0007 8be0 11111112 22222223",
    random |r| PassEstablish { tid: r.u32(24), stid: r.u32(24), tos: r.u8(8), mac_idx: r.u16(16),
        tcp_opt: r.u16(16), snd_isn: r.u32(32), rcv_isn: r.u32(32) }
}

// --- close ---

to_card! { tid_release: TidRelease,
    known TidRelease { tid: TID } =>
        "05000008 0a123402 0000000000000000  1a0a1234 00000000  0000000000000000",
    random |r| TidRelease { tid: r.u32(20) }
}

to_card! { close_con_req: CloseConReq,
    known CloseConReq { tid: TID } =>
        "05000008 0a123402 0000000000000000  080a1234 00000000  0000000000000000",
    random |r| CloseConReq { tid: r.u32(20) }
}

from_card! { close_con_rpl: CloseConRpl,
    known CloseConRpl { tid: TID, status: CplStatus::NONE, snd_nxt: 0x1111_1112,
        rcv_nxt: 0x2222_2223 } => "320a1234 00000000 11111112 22222223",
    random |r| CloseConRpl { tid: r.u32(24), status: status(r), snd_nxt: r.u32(32),
        rcv_nxt: r.u32(32) }
}

from_card! { peer_close: PeerClose,
    known PeerClose { tid: TID, rcv_nxt: 0x2222_2223 } => "260a1234 22222223",
    random |r| PeerClose { tid: r.u32(24), rcv_nxt: r.u32(32) }
}

to_card! { abort_req: AbortReq,
    known AbortReq { tid: TID, rsvd0: 0x1122_3344, rsvd1: 1, cmd: AbortCmd::SEND_RST } =>
        "05000010 0a123402 0000000000000000  0a0a1234 11223344 01 00 000000000000",
    random |r| AbortReq { tid: r.u32(20), rsvd0: r.u32(32), rsvd1: r.u8(8),
        cmd: AbortCmd(r.u8(8)) }
}

to_card! { abort_rpl: AbortRpl,
    known AbortRpl { tid: TID, rsvd0: 0, rsvd1: 0, cmd: AbortCmd::NO_RST } =>
        "05000010 0a123402 0000000000000000  0b0a1234 00000000 00 01 000000000000",
    random |r| AbortRpl { tid: r.u32(20), rsvd0: r.u32(32), rsvd1: r.u8(8),
        cmd: AbortCmd(r.u8(8)) }
}

from_card! { abort_req_rss: AbortReqRss,
    known AbortReqRss { tid: TID, srqidx: 5, status: CplStatus::RTX_NEG_ADVICE } =>
        "2b0a1234 000005 23",
    random |r| AbortReqRss { tid: r.u32(24), srqidx: r.u32(24), status: status(r) }
}

from_card! { abort_rpl_rss: AbortRplRss,
    known AbortRplRss { tid: TID, srqidx: 0, status: CplStatus::ABORT_FAILED } =>
        "2d0a1234 000000 2a",
    random |r| AbortRplRss { tid: r.u32(24), srqidx: r.u32(24), status: status(r) }
}

// --- rx ---

from_card! { rx_data: RxData,
    known RxData { tid: TID, len: 1448, seq: 0x1122_3344, urg: 0, dack_mode: 1, psh: true,
        heartbeat: false, ddp_off: true, status: CplStatus::NONE } =>
        "390a1234 0000 05a8 11223344 0000 15 00",
    random |r| RxData { tid: r.u32(24), len: r.u16(16), seq: r.u32(32), urg: r.u16(16),
        dack_mode: r.u8(2), psh: r.flag(), heartbeat: r.flag(), ddp_off: r.flag(),
        status: status(r) }
}

fn rx_data_ack(r: &mut Rng) -> RxDataAck {
    RxDataAck {
        tid: r.u32(20),
        credits: r.u32(26),
        modulate_tx: r.flag(),
        modulate_rx: r.flag(),
        force_ack: r.flag(),
        dack_mode: r.u8(2),
        dack_change: r.flag(),
    }
}

// 1 << 31 | 1 << 29 | 1 << 27 | 0x10000
const CREDITS: RxDataAck = RxDataAck {
    tid: TID,
    credits: 0x1_0000,
    modulate_tx: false,
    modulate_rx: true,
    force_ack: false,
    dack_mode: 1,
    dack_change: true,
};

to_card! { rx_data_ack_wr: RxDataAck,
    known CREDITS =>
        "05000008 0a123402 0000000000000000  0d0a1234 a8010000  0000000000000000",
    random rx_data_ack
}

message! { rx_data_ack_core: RxDataAck, op 0, body 1,
    parse RxDataAck::parse_core, emit RxDataAck::emit_core,
    known CREDITS => "0d0a1234 a8010000",
    random rx_data_ack
}

/// 1 << 31 | 1 << 29 | 1 << 28 | 1 << 26 | 1 << 24 | 0x123456
const REPORT: DdpReport = DdpReport {
    offset: 0x12_3456,
    dack_mode: 1,
    buf_idx: 1,
    urg: false,
    psh: true,
    buf_complete: true,
    buf_timed_out: false,
    inv: true,
};

from_card! { rx_data_ddp: RxDataDdp,
    known RxDataDdp { tid: TID, urg: 0, len: 0x2000, seq: 0x1122_3344, report: REPORT,
        ulp_crc: 0x0102_0304, ddpvld: DdpVld::COLOR_ERR.with_ulp_mode(DdpVld::ULP_TCPDDP) } =>
        "420a1234 0000 2000 11223344 b5123456 01020304 52000000",
    random |r| RxDataDdp { tid: r.u32(24), urg: r.u16(16), len: r.u16(16), seq: r.u32(32),
        report: report(r), ulp_crc: r.u32(32), ddpvld: DdpVld(r.u32(32)) }
}

from_card! { rx_ddp_complete: RxDdpComplete,
    known RxDdpComplete { tid: TID, report: REPORT, rcv_nxt: 0x1122_3344 } =>
        "3f0a1234 b5123456 11223344 00000000",
    random |r| RxDdpComplete { tid: r.u32(24), report: report(r), rcv_nxt: r.u32(32) }
}

// --- TCB ---

fn set_tcb_field(r: &mut Rng) -> SetTcbField {
    SetTcbField {
        tid: r.u32(20),
        reply: reply_ctrl(r),
        word: r.u8(5),
        cookie: r.u8(3),
        mask: r.bits(64),
        val: r.bits(64),
    }
}

// word 30, cookie 2: 2 << 5 | 30 = 0x5e
const SET_TCB: SetTcbField = SetTcbField {
    tid: TID,
    reply: ReplyCtrl::reply_to(0x15),
    word: 30,
    cookie: 2,
    mask: 0xffff_ffff,
    val: 0x1122_3344,
};

/// Bits 8 to 15 of the word and cookie must be zero, so most rubbish is refused there:
/// the body starts after them.
mod set_tcb_field_wr {
    use super::*;

    const HEX: &str = "05000018 0a123403 0000000000000000
        050a1234 0015 005e 00000000ffffffff 0000000011223344  0000000000000000";

    fn codec() -> Codec<SetTcbField> {
        Codec {
            parse: SetTcbField::parse,
            emit: SetTcbField::emit,
        }
    }

    #[test]
    fn known_bytes() {
        check_known(&codec(), &SET_TCB, &hex(HEX), Some(16));
    }

    #[test]
    fn roundtrip() {
        check_roundtrip(&codec(), SetTcbField::LEN, set_tcb_field);
    }

    #[test]
    fn rubbish() {
        check_random(&codec(), SetTcbField::LEN, 24, &SET_TCB);
    }

    #[test]
    fn unused_bits_are_refused() {
        let mut b = hex(HEX);
        b[22] = 1;
        let e = WireError::Field {
            name: "word_cookie",
            value: 0x15e,
        };
        assert_eq!(SetTcbField::parse(&b), Err(e));
    }
}

message! { set_tcb_field_core: SetTcbField, op 0, body 7,
    parse SetTcbField::parse_core, emit SetTcbField::emit_core,
    known SetTcbField { reply: ReplyCtrl::silent(0x15), cookie: 0, ..SET_TCB } =>
        "050a1234 8015 001e 00000000ffffffff 0000000011223344",
    random set_tcb_field
}

from_card! { set_tcb_rpl: SetTcbRpl,
    known SetTcbRpl { tid: TID, word: 30, cookie: 2, status: CplStatus::NONE,
        oldval: 0x1122_3344_5566_7788 } => "3a0a1234 0000 5e 00 1122334455667788",
    random |r| SetTcbRpl { tid: r.u32(24), word: r.u8(5), cookie: r.u8(3), status: status(r),
        oldval: r.bits(64) }
}

to_card! { get_tcb: GetTcb,
    known GetTcb { tid: TID, reply: ReplyCtrl { queue: 0x15, chan: true, no_reply: false },
        cookie: 0xff } =>
        "05000008 0a123402 0000000000000000  060a1234 4015 00 ff  0000000000000000",
    random |r| GetTcb { tid: r.u32(20), reply: reply_ctrl(r), cookie: r.u8(8) }
}

from_card! { get_tcb_rpl: GetTcbRpl,
    known GetTcbRpl { tid: TID, cookie: 0xff, status: CplStatus::NONE, len: 128 } =>
        "220a1234 ff 00 0080",
    random |r| GetTcbRpl { tid: r.u32(24), cookie: r.u8(8), status: status(r), len: r.u16(16) }
}

// --- L2T ---

// 0x15 << 14 | 1 << 12 | 0x123 = 0x055123; 1 << 15 | 1 << 8 | 5 << 2 = 0x8114. The index
// stands in two places that must agree, so the rubbish starts behind them.
message! { l2t_write_req: L2tWriteReq, op 16, body 24,
    parse L2tWriteReq::parse, emit L2tWriteReq::emit,
    known L2tWriteReq { l2t_idx: 0x123, sync: true, qid: 0x15, info: 5, port: 1, lpbk: false,
        arpmiss: false, noreply: true, vlan: L2T_VLAN_NONE, dst_mac: [2, 3, 4, 5, 6, 7] } =>
        "05000010 00000002 0000000000000000  12055123 8114 0123 0fff 020304050607",
    random |r| L2tWriteReq { l2t_idx: r.u16(12), sync: r.flag(), qid: r.u16(10), info: r.u8(6),
        port: r.u8(2), lpbk: r.flag(), arpmiss: r.flag(), noreply: r.flag(), vlan: r.u16(16),
        dst_mac: [r.u8(8), r.u8(8), r.u8(8), r.u8(8), r.u8(8), r.u8(8)] }
}

from_card! { l2t_write_rpl: L2tWriteRpl,
    known L2tWriteRpl { l2t_idx: 0x123, sync: true, qid: 0x15, status: CplStatus::NONE } =>
        "23055123 00 000000",
    random |r| L2tWriteRpl { l2t_idx: r.u16(12), sync: r.flag(), qid: r.u16(10),
        status: status(r) }
}

// --- before the CPL ---

mod rss_header {
    use super::*;

    const CODEC: Codec<RssHeader> = Codec {
        parse: RssHeader::parse,
        emit: RssHeader::emit,
    };
    /// 1 | 1 << 2 | 2 << 4 | 1 << 6 = 0x65
    const VAL: RssHeader = RssHeader {
        opcode: 0x39,
        channel: 1,
        filter_hit: true,
        filter_tid: false,
        hash_type: 2,
        ipv6: true,
        send2fw: false,
        qid: 0x15,
        hash_val: 0x0102_0304,
    };

    #[test]
    fn known_bytes() {
        check_known(&CODEC, &VAL, &hex("39 65 0015 01020304"), None);
    }

    #[test]
    fn roundtrip() {
        check_roundtrip(&CODEC, RssHeader::LEN, |r| RssHeader {
            opcode: r.u8(8),
            channel: r.u8(2),
            filter_hit: r.flag(),
            filter_tid: r.flag(),
            hash_type: r.u8(2),
            ipv6: r.flag(),
            send2fw: r.flag(),
            qid: r.u16(16),
            hash_val: r.u32(32),
        });
    }

    #[test]
    fn rubbish() {
        check_random(&CODEC, RssHeader::LEN, 0, &VAL);
    }
}
