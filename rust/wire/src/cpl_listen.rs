//! Passive open: the listener, the SYN that came for it, the answer, the connection.

use crate::bytes::{
    WR_HDR_LEN, begin_cpl, begin_req, bits32, bits64, fit, fit32, get_u8, get_u16, get_u32,
    get_u64, open_cpl, open_req, put_u8, put_u16, put_u32, put_u64, round16,
};
use crate::cpl_open::{ActEstablish, Established};
use crate::error::WireError;
use crate::opcode::{Chip, Opcode};
use crate::status::CplStatus;

/// What the adapter does with a SYN for a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnPolicy {
    /// Accept by itself.
    Auto = 0,
    /// Ask by [`PassAcceptReq`].
    #[default]
    Ask = 1,
    /// Let filters decide.
    Filter = 2,
    /// Refuse.
    Deny = 3,
}

/// Typed view of the option 1 word of [`PassOpenReq`]: the parts an offload driver sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opt1 {
    /// What happens to SYNs.
    pub conn_policy: ConnPolicy,
    /// Ingress queue for [`PassAcceptReq`], 10 bits; `None` leaves it to RSS.
    pub syn_rss_queue: Option<u16>,
}

impl Opt1 {
    /// The word.
    ///
    /// # Errors
    /// `Field` if the queue is too wide.
    pub fn to_bits(self) -> Result<u64, WireError> {
        let rss = match self.syn_rss_queue {
            Some(q) => fit("syn_rss_queue", u64::from(q), 10)? << 2 | 1,
            None => 0,
        };
        Ok(u64::from(self.conn_policy as u8) << 22 | rss)
    }

    /// Reads the word; bits this view does not know are dropped.
    #[must_use]
    pub const fn from_bits(v: u64) -> Self {
        Self {
            conn_policy: match bits64(v, 22, 2) {
                0 => ConnPolicy::Auto,
                1 => ConnPolicy::Ask,
                2 => ConnPolicy::Filter,
                _ => ConnPolicy::Deny,
            },
            syn_rss_queue: if v & 1 == 1 {
                Some(bits64(v, 2, 10) as u16)
            } else {
                None
            },
        }
    }
}

/// CPL_PASS_OPEN_REQ: listen on an IPv4 address and port. Answered by [`PassOpenRpl`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassOpenReq {
    /// Listener's server tid.
    pub stid: u32,
    /// TCP port, host-endian.
    pub local_port: u16,
    /// Peer's port, 0 for any.
    pub peer_port: u16,
    /// IPv4 address, host-endian; 0 for any.
    pub local_ip: u32,
    /// Peer's address, 0 for any.
    pub peer_ip: u32,
    /// Option 0 word; see [`crate::opt`].
    pub opt0: u64,
    /// Option 1 word; see [`Opt1`].
    pub opt1: u64,
}

impl PassOpenReq {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::PassOpenReq;
    /// Bytes of the CPL alone.
    pub const CPL_LEN: usize = 32;
    /// Bytes of the whole work request.
    pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, stid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
        Ok(Self {
            stid,
            local_port: get_u16(c, 4)?,
            peer_port: get_u16(c, 6)?,
            local_ip: get_u32(c, 8)?,
            peer_ip: get_u32(c, 12)?,
            opt0: get_u64(c, 16)?,
            opt1: get_u64(c, 24)?,
        })
    }

    /// Writes the work request, with flow id 0.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if the stid is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        let c = begin_req(b, Self::OPCODE, self.stid, 0, Self::CPL_LEN)?;
        put_u16(c, 4, self.local_port)?;
        put_u16(c, 6, self.peer_port)?;
        put_u32(c, 8, self.local_ip)?;
        put_u32(c, 12, self.peer_ip)?;
        put_u64(c, 16, self.opt0)?;
        put_u64(c, 24, self.opt1)
    }
}

/// CPL_CLOSE_LISTSRV_REQ: stop listening. Answered by [`CloseListsrvRpl`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseListsrvReq {
    /// Listener's server tid.
    pub stid: u32,
    /// Ingress queue for the reply; 10 bits.
    pub queue: u16,
    /// The listener is an IPv6 one (two TCAM entries).
    pub ipv6: bool,
    /// No reply is wanted.
    pub no_reply: bool,
}

impl CloseListsrvReq {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::CloseListsrvReq;
    /// Bytes of the CPL alone.
    pub const CPL_LEN: usize = 8;
    /// Bytes of the whole work request.
    pub const LEN: usize = round16(WR_HDR_LEN + Self::CPL_LEN);

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (c, stid) = open_req(b, Self::OPCODE, Self::CPL_LEN)?;
        let v = get_u16(c, 4)?;
        Ok(Self {
            stid,
            queue: v & 0x3ff,
            ipv6: v & 1 << 14 != 0,
            no_reply: v & 1 << 15 != 0,
        })
    }

    /// Writes the work request, with flow id 0.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        fit("queue", u64::from(self.queue), 10)?;
        let c = begin_req(b, Self::OPCODE, self.stid, 0, Self::CPL_LEN)?;
        put_u16(
            c,
            4,
            self.queue | u16::from(self.ipv6) << 14 | u16::from(self.no_reply) << 15,
        )
    }
}

/// A reply about a listener: server tid and status.
macro_rules! listen_rpl {
    ($(#[$m:meta])* $name:ident) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// Listener's server tid.
            pub stid: u32,
            /// How it went.
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
                let (c, stid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
                Ok(Self { stid, status: CplStatus(get_u8(c, 7)?) })
            }

            /// Writes the CPL.
            ///
            /// # Errors
            /// `Truncated`, or `Field` if the stid is too wide.
            pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
                let c = begin_cpl(b, Self::OPCODE, self.stid, Self::LEN)?;
                put_u8(c, 7, self.status.0)
            }
        }
    };
}

listen_rpl! {
    /// CPL_PASS_OPEN_RPL: the listener is up, or refused.
    PassOpenRpl
}

listen_rpl! {
    /// CPL_CLOSE_LISTSRV_RPL: the listener is gone.
    CloseListsrvRpl
}

/// TCP options of a SYN (`struct tcp_options`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size the peer offers, in bytes; 0 if it gave none.
    pub mss: u16,
    /// Window scale; see [`Self::wscale`].
    pub wsf: u8,
    /// Timestamps offered.
    pub tstamp: bool,
    /// SACK offered.
    pub sack: bool,
    /// ECN offered.
    pub ecn: bool,
    /// An option the adapter does not know; such a SYN is not offloaded.
    pub unknown: bool,
}

impl SynOptions {
    /// The shift offered. The FreeBSD driver takes 1 to 14 as an offer and anything
    /// else as none.
    #[must_use]
    pub const fn wscale(&self) -> Option<u8> {
        match self.wsf {
            1..=14 => Some(self.wsf),
            _ => None,
        }
    }
}

/// How a SYN's frame reached the adapter (`l2info` of [`PassAcceptReq`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2Info {
    /// Index of the MAC address matched; 9 bits.
    pub mac_idx: u16,
    /// The match was exact.
    pub xact_match: bool,
    /// Port; 4 bits.
    pub intf: u8,
}

/// CPL_PASS_ACCEPT_REQ: a SYN for a listener; the frame's headers come after the CPL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassAcceptReq {
    /// tid of the connection that would be.
    pub tid: u32,
    /// Bytes of headers that follow.
    pub len: u16,
    /// Channel the SYN came by; 4 bits.
    pub rx_chan: u8,
    /// Bytes of Ethernet header: 6 bits, on T6 8 bits.
    pub eth_hdr_len: u8,
    /// Bytes of IP header; 10 bits.
    pub ip_hdr_len: u16,
    /// Bytes of TCP header; 6 bits.
    pub tcp_hdr_len: u8,
    /// VLAN tag.
    pub vlan: u16,
    /// Port and MAC match.
    pub l2info: L2Info,
    /// IP type of service.
    pub tos: u8,
    /// Listener's server tid.
    pub stid: u32,
    /// Options of the SYN.
    pub tcpopt: SynOptions,
}

/// Bit positions of the TCP, IP and Ethernet header lengths, and the last one's width.
const fn hdr_shifts(chip: Chip) -> (u32, u32, u32, u32) {
    match chip {
        Chip::T4 | Chip::T5 => (10, 16, 26, 6),
        Chip::T6 => (8, 14, 24, 8),
    }
}

impl PassAcceptReq {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::PassAcceptReq;
    /// Bytes of the CPL without the headers that follow.
    pub const LEN: usize = 24;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8], chip: Chip) -> Result<Self, WireError> {
        let (c, tid) = open_cpl(b, Self::OPCODE, Self::LEN)?;
        let (tcp, ip, eth, eth_width) = hdr_shifts(chip);
        let h = get_u32(c, 8)?;
        let l2 = u32::from(get_u16(c, 14)?);
        let id = get_u32(c, 16)?;
        let o = get_u8(c, 23)?;
        Ok(Self {
            tid,
            len: get_u16(c, 6)?,
            rx_chan: bits32(h, 0, 4) as u8,
            eth_hdr_len: bits32(h, eth, eth_width) as u8,
            ip_hdr_len: bits32(h, ip, 10) as u16,
            tcp_hdr_len: bits32(h, tcp, 6) as u8,
            vlan: get_u16(c, 12)?,
            l2info: L2Info {
                mac_idx: bits32(l2, 0, 9) as u16,
                xact_match: l2 & 1 << 9 != 0,
                intf: bits32(l2, 12, 4) as u8,
            },
            tos: bits32(id, 24, 8) as u8,
            stid: bits32(id, 0, 24),
            tcpopt: SynOptions {
                mss: get_u16(c, 20)?,
                wsf: get_u8(c, 22)?,
                tstamp: o & 1 << 7 != 0,
                sack: o & 1 << 6 != 0,
                ecn: o & 1 << 5 != 0,
                unknown: o & 1 << 4 != 0,
            },
        })
    }

    /// Writes the CPL; the caller adds the headers behind it.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide for the chip.
    pub fn emit(&self, b: &mut [u8], chip: Chip) -> Result<(), WireError> {
        let (tcp, ip, eth, eth_width) = hdr_shifts(chip);
        let h = fit32("rx_chan", u32::from(self.rx_chan), 4)?
            | fit32("tcp_hdr_len", u32::from(self.tcp_hdr_len), 6)? << tcp
            | fit32("ip_hdr_len", u32::from(self.ip_hdr_len), 10)? << ip
            | fit32("eth_hdr_len", u32::from(self.eth_hdr_len), eth_width)? << eth;
        let l2 = &self.l2info;
        fit("mac_idx", u64::from(l2.mac_idx), 9)?;
        fit("intf", u64::from(l2.intf), 4)?;
        let l2 = l2.mac_idx | u16::from(l2.xact_match) << 9 | u16::from(l2.intf) << 12;
        let stid = fit32("stid", self.stid, 24)?;
        let o = &self.tcpopt;
        let flags = u8::from(o.tstamp) << 7
            | u8::from(o.sack) << 6
            | u8::from(o.ecn) << 5
            | u8::from(o.unknown) << 4;
        let c = begin_cpl(b, Self::OPCODE, self.tid, Self::LEN)?;
        put_u16(c, 6, self.len)?;
        put_u32(c, 8, h)?;
        put_u16(c, 12, self.vlan)?;
        put_u16(c, 14, l2)?;
        put_u32(c, 16, u32::from(self.tos) << 24 | stid)?;
        put_u16(c, 20, o.mss)?;
        put_u8(c, 22, o.wsf)?;
        put_u8(c, 23, flags)
    }
}

/// CPL_PASS_ACCEPT_RPL: what to do about a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassAcceptRpl {
    /// tid of [`PassAcceptReq`].
    pub tid: u32,
    /// Option 2 word; see [`crate::opt`].
    pub opt2: u32,
    /// Option 0 word; its accept mode says accept or reject.
    pub opt0: u64,
    /// Initial send sequence number. T5 and T6; not sent on T4.
    pub iss: u32,
    /// Option 3 word. T6; not sent before.
    pub opt3: u32,
}

impl PassAcceptRpl {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::PassAcceptRpl;

    /// Bytes of the CPL without the work-request header.
    #[must_use]
    pub const fn cpl_len(chip: Chip) -> usize {
        match chip {
            Chip::T4 => 16,
            Chip::T5 | Chip::T6 => 24,
        }
    }

    /// Bytes of the whole work request.
    #[must_use]
    pub const fn len(chip: Chip) -> usize {
        round16(WR_HDR_LEN + Self::cpl_len(chip))
    }

    /// Reads the work request.
    ///
    /// # Errors
    /// As [`open_req`].
    pub fn parse(b: &[u8], chip: Chip) -> Result<Self, WireError> {
        let (c, tid) = open_req(b, Self::OPCODE, Self::cpl_len(chip))?;
        let mut m = Self {
            tid,
            opt2: get_u32(c, 4)?,
            opt0: get_u64(c, 8)?,
            ..Self::default()
        };
        if chip != Chip::T4 {
            m.iss = get_u32(c, 16)?;
        }
        if chip == Chip::T6 {
            m.opt3 = get_u32(c, 20)?;
        }
        Ok(m)
    }

    /// Writes the work request.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if the tid is too wide.
    pub fn emit(&self, b: &mut [u8], chip: Chip) -> Result<(), WireError> {
        let c = begin_req(b, Self::OPCODE, self.tid, self.tid, Self::cpl_len(chip))?;
        put_u32(c, 4, self.opt2)?;
        put_u64(c, 8, self.opt0)?;
        if chip != Chip::T4 {
            put_u32(c, 16, self.iss)?;
        }
        if chip == Chip::T6 {
            put_u32(c, 20, self.opt3)?;
        }
        Ok(())
    }
}

/// CPL_PASS_ESTABLISH: an accepted connection is established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassEstablish {
    /// Connection.
    pub tid: u32,
    /// Listener's server tid.
    pub stid: u32,
    /// IP type of service.
    pub tos: u8,
    /// Index of the MAC address the packet matched.
    pub mac_idx: u16,
    /// What the SYNs agreed on; see [`crate::opt`].
    pub tcp_opt: u16,
    /// First byte to send: initial send sequence number plus 1.
    pub snd_isn: u32,
    /// First byte to receive: the peer's initial sequence number plus 1.
    pub rcv_isn: u32,
}

impl PassEstablish {
    /// Opcode of the CPL.
    pub const OPCODE: Opcode = Opcode::PassEstablish;
    /// Bytes of the CPL.
    pub const LEN: usize = ActEstablish::LEN;

    /// Reads the CPL.
    ///
    /// # Errors
    /// As [`open_cpl`].
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let (tid, e) = Established::parse(b, Self::OPCODE)?;
        Ok(Self {
            tid,
            stid: e.id,
            tos: e.tos,
            mac_idx: e.mac_idx,
            tcp_opt: e.tcp_opt,
            snd_isn: e.snd_isn,
            rcv_isn: e.rcv_isn,
        })
    }

    /// Writes the CPL.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if a field is too wide.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        Established {
            id: self.stid,
            tos: self.tos,
            mac_idx: self.mac_idx,
            tcp_opt: self.tcp_opt,
            snd_isn: self.snd_isn,
            rcv_isn: self.rcv_isn,
        }
        .emit(b, Self::OPCODE, self.tid)
    }
}
