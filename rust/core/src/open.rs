//! How a connection is opened: what goes into opt0 and opt2, actively and passively.
//!
//! Pure functions: no lock, no side effect. The module gathers what the socket, the tcpcb and
//! the adapter say ([`Wish`], [`Link`]); the words come out here.

use crate::aiotx::MAX_WND;
use wire::{ActOpenReq, Chip, Opt0, Opt2, QidTid, TcpOpt};

/// Least receive window asked for, bytes, and what so_rcv may hold at least: with the largest
/// window scale the window field cannot say less.
pub const MIN_RCV_WND: u32 = 4096;
/// Largest receive window a tid can have, bytes.
pub const MAX_RCV_WND: u32 = (1 << 27) - 1;
/// Send buffer of the adapter while so_snd sizes itself, bytes.
pub const AUTO_SNDBUF: u32 = 256 * 1024;
/// IPv4 and TCP headers without options.
const IP_TCP_HDR: u16 = 40;
/// Timestamp option with its padding (`TCPOLEN_TSTAMP_APPA`).
const TSTAMP_LEN: u16 = 12;

/// Congestion control the adapter knows (`CONG_ALG_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CongAlgo {
    /// Reno.
    Reno = 0,
    /// Tahoe.
    Tahoe = 1,
    /// NewReno; stands for all the adapter does not know.
    NewReno = 2,
    /// HighSpeed.
    HighSpeed = 3,
}

impl CongAlgo {
    /// From the name of the host's algorithm (`struct cc_algo::name`), or, if `forced` is not
    /// negative, from `toe.cong_algorithm`.
    #[must_use]
    pub fn choose(forced: i32, name: &[u8]) -> CongAlgo {
        match forced {
            0 => return CongAlgo::Reno,
            1 => return CongAlgo::Tahoe,
            3 => return CongAlgo::HighSpeed,
            2 | 4.. => return CongAlgo::NewReno,
            _ => {}
        }
        let known: [(&[u8], CongAlgo); 3] = [
            (b"reno", CongAlgo::Reno),
            (b"tahoe", CongAlgo::Tahoe),
            (b"highspeed", CongAlgo::HighSpeed),
        ];
        let hit = known.iter().find(|(n, _)| name.eq_ignore_ascii_case(n));
        hit.map_or(CongAlgo::NewReno, |(_, a)| *a)
    }
}

/// What socket and tcpcb ask for. For a passive open: the listener's.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// MSS to announce (`tcp_mssopt`), bytes.
    pub mss: u16,
    /// Active: `sbspace` of so_rcv. Passive: `sol_sbrcv_hiwat`.
    pub rcv_space: u32,
    /// `sb_max`.
    pub sb_max: u64,
    /// Window scaling is wanted (TF_REQ_SCALE; passive: `tcp_do_rfc1323`).
    pub wscale: bool,
    /// Timestamps are wanted (TF_REQ_TSTMP; passive: `tcp_do_rfc1323`).
    pub tstamp: bool,
    /// Selective acknowledgements are wanted.
    pub sack: bool,
    /// Explicit congestion notification is wanted.
    pub ecn: bool,
    /// TF_NODELAY.
    pub nodelay: bool,
    /// SO_KEEPALIVE or `tcp_always_keepalive`.
    pub keepalive: bool,
    /// Congestion control.
    pub cong: CongAlgo,
    /// `toe.rx_coalesce` is not 0.
    pub rx_coalesce: bool,
    /// `toe.sndbuf`, -1 for the default.
    pub sndbuf: i32,
    /// so_snd sizes itself (SB_AUTOSIZE and `tcp_do_autosndbuf`).
    pub snd_autosize: bool,
    /// High-water mark of so_snd.
    pub snd_hiwat: u32,
}

/// TCP options of a peer's SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PeerSyn {
    /// Timestamps.
    pub tstamp: bool,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Window scale; `None` if the option is missing.
    pub wscale: Option<u8>,
    /// Asks for ECN.
    pub ecn: bool,
}

/// How the adapter reaches the peer, and where its messages go.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Chip.
    pub chip: Chip,
    /// L2 table index of the next hop.
    pub l2t_idx: u16,
    /// Source MAC index (SMT).
    pub smt_idx: u8,
    /// Transmit channel.
    pub tx_chan: u8,
    /// Modulation queue of the channel (`tp.tx_modq`).
    pub tx_modq: u8,
    /// Absolute id of the ingress queue.
    pub rxq: u16,
}

/// Parameters of a connection (`struct conn_params`), fixed when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnParams {
    /// Index in the MTU table.
    pub mtu_idx: u8,
    /// Scale of our window.
    pub wscale: u8,
    /// Initial window in KB, at most 1023; the rest follows by CPL_RX_DATA_ACK.
    pub opt0_bufsize: u16,
    /// Timestamps.
    pub tstamp: bool,
    /// Selective acknowledgements.
    pub sack: bool,
    /// ECN.
    pub ecn: bool,
    /// Nagle's algorithm.
    pub nagle: bool,
    /// Keepalive.
    pub keepalive: bool,
    /// Congestion control.
    pub cong: CongAlgo,
    /// Coalesce received data.
    pub rx_coalesce: bool,
    /// Adapter's send buffer, bytes: the most that may ever be outstanding, because the firmware
    /// is told once.
    pub sndbuf: u32,
    /// What write jobs may have outstanding at first, bytes.
    pub snd_wnd: u32,
}

/// Index of the largest MTU that does not exceed `mss` with its headers; 0 if all do.
#[must_use]
pub fn mtu_idx(mtus: &[u16; 16], mss: u16) -> u8 {
    let mtu = mss.saturating_add(IP_TCP_HDR);
    let fit = mtus.iter().skip(1).take_while(|m| **m <= mtu).count();
    fit as u8
}

/// Scale of our window: enough to describe the largest buffer a socket may have.
#[must_use]
pub fn rcv_wscale(sb_max: u64) -> u8 {
    let space = sb_max.min(u64::from(MAX_RCV_WND));
    (0..14u8).find(|s| 65535u64 << s >= space).unwrap_or(14)
}

impl ConnParams {
    /// For an active open.
    #[must_use]
    pub fn active(w: &Wish, mtus: &[u16; 16]) -> ConnParams {
        let wnd = w.rcv_space.clamp(MIN_RCV_WND, MAX_RCV_WND);
        let set = u32::try_from(w.sndbuf).ok().filter(|n| *n > 0);
        let own = if w.snd_autosize {
            AUTO_SNDBUF
        } else {
            w.snd_hiwat
        };
        ConnParams {
            mtu_idx: mtu_idx(mtus, w.mss),
            wscale: if w.wscale { rcv_wscale(w.sb_max) } else { 0 },
            opt0_bufsize: (wnd >> 10).min(u32::from(Opt0::MAX_RCV_BUFSIZ)) as u16,
            tstamp: w.tstamp,
            sack: w.sack,
            ecn: w.ecn,
            nagle: !w.nodelay,
            keepalive: w.keepalive,
            cong: w.cong,
            rx_coalesce: w.rx_coalesce,
            sndbuf: set.unwrap_or(MAX_WND.max(own)),
            snd_wnd: set.unwrap_or(own),
        }
    }

    /// For a passive open: what we want and the peer offers.
    #[must_use]
    pub fn passive(w: &Wish, mtus: &[u16; 16], syn: &PeerSyn) -> ConnParams {
        let scale = w.wscale && syn.wscale.is_some_and(|s| s < 15);
        ConnParams {
            wscale: if scale { rcv_wscale(w.sb_max) } else { 0 },
            tstamp: w.tstamp && syn.tstamp,
            sack: w.sack && syn.sack,
            ecn: w.ecn && syn.ecn,
            ..ConnParams::active(w, mtus)
        }
    }

    /// Bytes of the receive window that go with the open.
    #[must_use]
    pub fn rcv_wnd(&self) -> u32 {
        u32::from(self.opt0_bufsize) << 10
    }

    /// opt0. The ULP mode is none; the first aio_read turns DDP on.
    #[must_use]
    pub fn opt0(&self, l: &Link) -> Opt0 {
        Opt0 {
            tcam_bypass: true,
            wnd_scale: self.wscale,
            mss_idx: self.mtu_idx,
            ulp_mode: wire::UlpMode::None as u8,
            rcv_bufsiz: self.opt0_bufsize,
            l2t_idx: l.l2t_idx,
            smac_sel: l.smt_idx,
            tx_chan: l.tx_chan,
            keep_alive: self.keepalive,
            nagle: self.nagle,
            ..Opt0::default()
        }
    }

    /// opt2.
    #[must_use]
    pub fn opt2(&self, l: &Link) -> Opt2 {
        Opt2 {
            rss_queue: l.rxq,
            rss_queue_valid: true,
            rx_coalesce: if self.rx_coalesce { 3 } else { 0 },
            cong_cntrl: self.cong as u8,
            tx_queue: l.tx_modq,
            ecn: self.ecn,
            wnd_scale_en: self.wscale > 0,
            tstamps_en: self.tstamp,
            sack_en: self.sack,
            iss_valid: l.chip != Chip::T4,
            ..Opt2::default()
        }
    }
}

/// Addresses and ports of an IPv4 connection, host-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FourTuple {
    /// Our address.
    pub local_ip: u32,
    /// Our port.
    pub local_port: u16,
    /// The peer's address.
    pub peer_ip: u32,
    /// The peer's port.
    pub peer_port: u16,
}

/// CPL_ACT_OPEN_REQ. `ntuple` is [`Ntuple::pack`]'s.
#[must_use]
pub fn act_open_req(
    p: &ConnParams,
    l: &Link,
    atid: QidTid,
    who: &FourTuple,
    iss: u32,
    ntuple: u64,
) -> ActOpenReq {
    ActOpenReq {
        atid,
        local_port: who.local_port,
        peer_port: who.peer_port,
        local_ip: who.local_ip,
        peer_ip: who.peer_ip,
        opt0: p.opt0(l).to_bits(),
        iss,
        opt2: p.opt2(l).to_bits(l.chip),
        filter_tuple: ntuple,
        opt3: 0,
    }
}

/// CPL_PASS_ACCEPT_RPL that sends the SYN/ACK.
#[must_use]
pub fn pass_accept_rpl(p: &ConnParams, l: &Link, tid: u32, iss: u32) -> wire::PassAcceptRpl {
    wire::PassAcceptRpl {
        tid,
        opt0: p.opt0(l).to_bits(),
        opt2: p.opt2(l).to_bits(l.chip),
        iss,
        ..wire::PassAcceptRpl::default()
    }
}

/// Where the fields lie in the compressed filter tuple (`tp.*_shift`); `None`: not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ntuple {
    /// VLAN tag with its valid bit.
    pub vlan_shift: Option<u8>,
    /// Physical port.
    pub port_shift: Option<u8>,
    /// IP protocol.
    pub protocol_shift: Option<u8>,
    /// VNIC id: only if it means that (F_VNIC in `tp.ingress_config`).
    pub vnic_shift: Option<u8>,
}

impl Ntuple {
    /// The tuple of a TCP connection. `vlan`: 12-bit tag, `None` without; `port`: of the L2
    /// entry; `vnic`: valid bit, PF and VF as FT_VNID_ID packs them.
    #[must_use]
    pub fn pack(&self, vlan: Option<u16>, port: u8, vnic: u32) -> u64 {
        const TCP: u64 = 6;
        const VLAN_VLD: u64 = 1 << 16;
        let at = |shift: Option<u8>, v: u64| match shift {
            Some(s) => v.checked_shl(u32::from(s)).unwrap_or(0),
            None => 0,
        };
        at(self.vlan_shift, vlan.map_or(0, |v| VLAN_VLD | u64::from(v)))
            | at(self.port_shift, u64::from(port))
            | at(self.protocol_shift, TCP)
            | at(self.vnic_shift, u64::from(vnic))
    }
}

/// What both ends agreed on (`tcp_opt` of the ESTABLISH CPLs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// `t_maxseg`: MSS without headers.
    pub maxseg: u16,
    /// Payload of a full segment: without the timestamp option, too.
    pub emss: u16,
    /// Timestamps are in use.
    pub tstamp: bool,
    /// Selective acknowledgements are in use.
    pub sack: bool,
    /// Windows are scaled; by how much the peer's is.
    pub snd_scale: Option<u8>,
}

impl Agreed {
    /// Read the options with the adapter's MTU table.
    #[must_use]
    pub fn new(opt: TcpOpt, mtus: &[u16; 16]) -> Agreed {
        let mtu = mtus.get(usize::from(opt.mss_idx)).copied().unwrap_or(0);
        let maxseg = mtu.saturating_sub(IP_TCP_HDR).max(1);
        let emss = if opt.tstamp {
            maxseg.saturating_sub(TSTAMP_LEN).max(1)
        } else {
            maxseg
        };
        Agreed {
            maxseg,
            emss,
            tstamp: opt.tstamp,
            sack: opt.sack,
            snd_scale: opt.wscale_ok.then_some(opt.snd_wscale),
        }
    }
}
