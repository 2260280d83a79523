//! Opening: active and passive opens, listeners, the L2 table.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Nanos;
use crate::card::Card;
use crate::conn::{Conn, SynOpts, TcpState, Tuple};
use crate::event::Timer;
use crate::tcp::{Segment, flags};
use wire::CplStatus;

/// A listener, by stid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) ip: u32,
    pub(crate) port: u16,
    pub(crate) rxq: u16,
}

/// What is left of a connection closed by both ends: it answers a FIN that comes again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) serial: u64,
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
}

/// SYNs and SYN-ACKs are tried no more often than this.
const SYN_TRIES: u8 = 6;

impl Card {
    /// CPL_ACT_OPEN_REQ. The tid is allocated now and named by whichever answer comes.
    pub(crate) fn act_open(&mut self, now: Nanos, m: &wire::ActOpenReq) {
        let Ok(atid) = m.atid.to_bits() else {
            self.host_error("ACT_OPEN_REQ with a wide atid", 0);
            return;
        };
        let rxq = m.atid.qid;
        let opt0 = wire::Opt0::from_bits(m.opt0);
        let opt2 = wire::Opt2::from_bits(m.opt2, self.cfg.chip);
        let port = opt0.tx_chan;
        if port >= self.cfg.ports {
            self.host_error("ACT_OPEN_REQ for no channel", u32::from(port));
            self.act_open_rpl(now, rxq, atid, 0, CplStatus::BAD_ROUTE);
            return;
        }
        if u32::from(m.atid.tid) >= self.cfg.natids || self.atids.contains_key(&atid) {
            self.host_error("ACT_OPEN_REQ with an atid in use or out of range", atid);
            self.act_open_rpl(now, rxq, atid, 0, CplStatus::CONN_EXIST);
            return;
        }
        let tuple = Tuple {
            local_ip: m.local_ip,
            local_port: m.local_port,
            peer_ip: m.peer_ip,
            peer_port: m.peer_port,
        };
        if self.by_tuple.contains_key(&(port, tuple)) {
            self.act_open_rpl(now, rxq, atid, 0, CplStatus::CONN_EXIST);
            return;
        }
        let Some(mut c) = self.new_conn(port, tuple, TcpState::SynSent) else {
            self.act_open_rpl(now, rxq, atid, 0, CplStatus::TCAM_FULL);
            return;
        };
        self.timewait.remove(&(port, tuple));
        self.atids.insert(atid, c.tid);
        c.atid = Some(atid);
        c.rxq = if opt2.rss_queue_valid {
            opt2.rss_queue
        } else {
            rxq
        };
        c.fw_rxq = c.rxq;
        c.iss = self.pick_iss(opt2.iss_valid, m.iss);
        self.apply_options(&mut c, &opt0, &opt2, None);
        c.l2_lost = self.lost_in_l2(port, opt0.l2t_idx);
        self.send_syn(now, &mut c);
        self.put(c);
    }

    /// An L2 entry the host has written decides where frames go; with none, the wire has only
    /// one other end.
    fn lost_in_l2(&self, port: u8, idx: u16) -> bool {
        let there = self.cfg.macs.get(usize::from(Self::far_end(port)));
        self.l2t.get(&idx).is_some_and(|mac| Some(mac) != there)
    }

    fn pick_iss(&mut self, valid: bool, iss: u32) -> u32 {
        if valid {
            iss
        } else {
            self.cfg
                .iss_base
                .wrapping_add(u32_of(self.rng.next() & 0x00ff_ffff))
        }
    }

    /// A TCB, or `None` if all tids are in use. Not inlined: the connection is built on the
    /// stack, and a kernel's is small.
    #[inline(never)]
    fn new_conn(&mut self, port: u8, tuple: Tuple, state: TcpState) -> Option<Box<Conn>> {
        let tid = self.free_tids.pop_front()?;
        self.serial += 1;
        self.stats.tids_allocated += 1;
        self.by_tuple.insert((port, tuple), tid);
        Some(Box::new(Conn::new(tid, self.serial, port, tuple, state)))
    }

    /// Takes over the host's options. `offer` is the peer's SYN when there is one already.
    fn apply_options(
        &mut self,
        c: &mut Conn,
        opt0: &wire::Opt0,
        opt2: &wire::Opt2,
        offer: Option<SynOpts>,
    ) {
        let mtu = self
            .cfg
            .mtus
            .get(usize::from(opt0.mss_idx))
            .copied()
            .unwrap_or(1500);
        c.mss_idx = opt0.mss_idx;
        c.wscale = opt0.wnd_scale;
        c.rcv_wnd = i64::from(opt0.rcv_bufsiz) << 10;
        c.opts = SynOpts {
            mss: mtu.saturating_sub(40),
            wscale: opt2.wnd_scale_en.then_some(opt0.wnd_scale),
            sack: opt2.sack_en,
            tstamp: opt2.tstamps_en,
            ecn: opt2.ecn,
        };
        if let Some(offer) = offer {
            self.agree(c, offer);
        }
        let t = &mut c.tcb;
        t.set_field(&wire::TcbUpdate {
            word: wire::W_ULP_TYPE,
            mask: 0xf,
            value: u64::from(opt0.ulp_mode),
        });
        let mut flags = 0;
        if opt2.rx_fc_ddp {
            flags |= wire::TF_RX_FLOW_CONTROL_DDP;
        }
        if opt2.rx_coalesce != 0 {
            flags |= wire::TF_RCV_COALESCE_ENABLE;
        }
        if opt0.nagle {
            flags |= wire::TF_NAGLE;
        }
        t.set_field(&wire::TcbUpdate {
            word: wire::W_T_FLAGS,
            mask: flags,
            value: flags,
        });
        t.set_flags(wire::TF_DDP_OFF, wire::TF_DDP_OFF);
    }

    /// Keeps of our options what the peer's SYN offers too.
    fn agree(&self, c: &mut Conn, offer: SynOpts) {
        c.mss_idx = Conn::fit_mss(&self.cfg, c.mss_idx, offer.mss);
        c.wscale_on = c.opts.wscale.is_some() && offer.wscale.is_some();
        c.peer_wscale = if c.wscale_on {
            offer.wscale.unwrap_or(0)
        } else {
            0
        };
        c.opts.sack &= offer.sack;
        c.opts.tstamp &= offer.tstamp;
        if !c.wscale_on {
            c.opts.wscale = None;
        }
    }

    fn send_syn(&mut self, now: Nanos, c: &mut Conn) {
        let passive = c.state == TcpState::SynReceived;
        let fl = if passive {
            flags::SYN | flags::ACK
        } else {
            flags::SYN
        };
        let mut seg = self.segment_of(c, fl);
        seg.seq = c.iss;
        // The window of a SYN is never scaled.
        seg.wnd = c.window().min(65_535);
        if passive {
            c.rcv_adv = c.rcv_nxt.wrapping_add(seg.wnd);
        }
        seg.opts = c.opts;
        self.arm_rexmt(now, c);
        // To a station that is not there: only the timer will end this.
        if !c.l2_lost {
            self.transmit(now, c.port, seg);
        }
    }

    pub(crate) fn resend_syn(&mut self, now: Nanos, c: &mut Conn) {
        c.tries = c.tries.saturating_add(1);
        if c.tries <= SYN_TRIES.min(self.cfg.max_rexmt) {
            self.stats.rexmts += 1;
            self.send_syn(now, c);
        } else if c.state == TcpState::SynSent {
            self.act_open_failed(now, c, CplStatus::CONN_TIMEDOUT);
        } else {
            self.give_up(now, c, CplStatus::CONN_TIMEDOUT);
        }
    }

    /// A segment for a connection in SYN_SENT.
    pub(crate) fn syn_sent(&mut self, now: Nanos, c: &mut Conn, seg: &Segment) {
        let ours = seg.has(flags::ACK) && seg.ack == c.iss.wrapping_add(1);
        if seg.has(flags::RST) {
            if ours {
                self.act_open_failed(now, c, CplStatus::CONN_RESET);
            }
            return;
        }
        if seg.has(flags::ACK) && !ours {
            self.answer_rst(now, seg);
            return;
        }
        if !seg.has(flags::SYN) || !ours {
            // Also a SYN that crosses ours: the chip does not open simultaneously.
            return;
        }
        self.agree(c, seg.opts);
        c.irs = seg.seq;
        c.rcv_nxt = seg.seq.wrapping_add(1);
        c.rcv_adv = c.rcv_nxt;
        c.snd_wnd = u64::from(seg.wnd);
        c.snd_wl1 = seg.seq;
        c.tries = 0;
        c.set_timer(Timer::Rexmt, None);
        c.state = TcpState::Established;
        self.send_ack(now, c);
        let atid = c.atid.take().unwrap_or(0);
        self.atids.remove(&atid);
        let msg = wire::ActEstablish {
            tid: c.tid,
            atid: wire::QidTid::from_bits(atid),
            tos: 0,
            mac_idx: u16::from(c.port),
            tcp_opt: tcp_opt(c).to_bits(),
            snd_isn: c.iss.wrapping_add(1),
            rcv_isn: c.irs.wrapping_add(1),
        };
        self.cpl(now, c.rxq, wire::ActEstablish::LEN, |b| msg.emit(b));
    }

    fn act_open_failed(&mut self, now: Nanos, c: &mut Conn, status: CplStatus) {
        let atid = c.atid.take().unwrap_or(0);
        self.atids.remove(&atid);
        c.state = TcpState::Closed;
        c.set_timer(Timer::Rexmt, None);
        self.unhash(c);
        let rxq = wire::QidTid::from_bits(atid).qid;
        self.act_open_rpl(now, rxq, atid, c.tid, status);
    }

    fn act_open_rpl(&mut self, now: Nanos, rxq: u16, atid: u32, tid: u32, status: CplStatus) {
        let msg = wire::ActOpenRpl {
            tid,
            atid: wire::QidTid::from_bits(atid),
            status,
        };
        self.cpl(now, rxq, wire::ActOpenRpl::LEN, |b| msg.emit(b));
    }

    /// CPL_PASS_OPEN_REQ. The reply and the SYNs go to opt1's queue.
    pub(crate) fn pass_open(&mut self, now: Nanos, m: &wire::PassOpenReq) {
        // Without SYN_RSS_ENABLE the chip would use a queue of the port's; the model has queue 0.
        let rxq = wire::cpl_listen::Opt1::from_bits(m.opt1)
            .syn_rss_queue
            .unwrap_or(0);
        let full = self.listeners.len() >= usize::try_from(self.cfg.nstids).unwrap_or(0);
        let taken = self.listeners.contains_key(&m.stid);
        let status = match (taken, full) {
            (true, _) => CplStatus::CONN_EXIST,
            (false, true) => CplStatus::TCAM_FULL,
            (false, false) => CplStatus::NONE,
        };
        if taken {
            self.host_error("PASS_OPEN_REQ with an stid in use", m.stid);
        }
        if status.is_ok() {
            let l = Listener {
                ip: m.local_ip,
                port: m.local_port,
                rxq,
            };
            self.listeners.insert(m.stid, l);
        }
        let msg = wire::PassOpenRpl {
            stid: m.stid,
            status,
        };
        self.cpl(now, rxq, wire::PassOpenRpl::LEN, |b| msg.emit(b));
    }

    /// CPL_CLOSE_LISTSRV_REQ. What is half open on the listener stays; the host closes it.
    pub(crate) fn close_listsrv(&mut self, now: Nanos, m: &wire::CloseListsrvReq) {
        let status = if self.listeners.remove(&m.stid).is_some() {
            CplStatus::NONE
        } else {
            self.host_error("CLOSE_LISTSRV_REQ for no listener", m.stid);
            CplStatus::TCAM_MISS
        };
        if m.no_reply {
            return;
        }
        let msg = wire::CloseListsrvRpl {
            stid: m.stid,
            status,
        };
        self.cpl(now, m.queue, wire::CloseListsrvRpl::LEN, |b| msg.emit(b));
    }

    /// A segment for no connection: a SYN for a listener, a FIN that comes again, or an answer
    /// with RST.
    pub(crate) fn orphan(&mut self, now: Nanos, seg: Segment) {
        let key = (seg.port, seg.tuple);
        if seg.has(flags::SYN) && seg.flags & (flags::ACK | flags::RST) == 0 {
            let t = seg.tuple;
            let found = self
                .listeners
                .iter()
                .find(|(_, l)| l.port == t.local_port && (l.ip == 0 || l.ip == t.local_ip))
                .map(|(stid, l)| (*stid, *l));
            if let Some((stid, l)) = found {
                self.timewait.remove(&key);
                self.syn_arrived(now, &seg, stid, l);
                return;
            }
        } else if let Some(tw) = self.timewait.get(&key).copied() {
            // A bare ACK is answered by nobody: the other end may be gone just so, too.
            if !seg.has(flags::RST) && (seg.has(flags::FIN) || seg.counts_as_data()) {
                let mut ack = Segment::bare(0, seg.tuple.reversed(), flags::ACK);
                ack.seq = tw.snd_nxt;
                ack.ack = tw.rcv_nxt;
                self.transmit(now, seg.port, ack);
            }
            return;
        }
        self.answer_rst(now, &seg);
    }

    fn syn_arrived(&mut self, now: Nanos, seg: &Segment, stid: u32, l: Listener) {
        // With no tid left the SYN is dropped; it comes again.
        let Some(mut c) = self.new_conn(seg.port, seg.tuple, TcpState::SynReceived) else {
            return;
        };
        c.stid = Some(stid);
        c.rxq = l.rxq;
        c.fw_rxq = l.rxq;
        c.irs = seg.seq;
        c.rcv_nxt = seg.seq.wrapping_add(1);
        c.rcv_adv = c.rcv_nxt;
        c.snd_wnd = u64::from(seg.wnd);
        c.snd_wl1 = seg.seq;
        c.opts = seg.opts;
        let headers = self.syn_headers(seg);
        let msg = wire::PassAcceptReq {
            tid: c.tid,
            len: u16::try_from(headers.len()).unwrap_or(0),
            eth_hdr_len: ETH,
            ip_hdr_len: u16::from(IP),
            tcp_hdr_len: u8::try_from(headers.len())
                .unwrap_or(0)
                .saturating_sub(ETH + IP),
            rx_chan: seg.port,
            vlan: 0xfff,
            l2info: wire::L2Info {
                mac_idx: u16::from(seg.port),
                xact_match: true,
                intf: seg.port,
            },
            stid,
            tos: 0,
            tcpopt: wire::SynOptions {
                mss: seg.opts.mss,
                wsf: seg.opts.wscale.unwrap_or(NO_WSCALE),
                tstamp: seg.opts.tstamp,
                sack: seg.opts.sack,
                ecn: seg.opts.ecn,
                unknown: false,
            },
        };
        let chip = self.cfg.chip;
        self.put(c);
        let n = wire::PassAcceptReq::LEN;
        self.cpl_with(now, l.rxq, n, headers, 0, 0, |b| msg.emit(b, chip));
    }

    /// The SYN's Ethernet, IPv4 and TCP headers, as they came in.
    fn syn_headers(&self, seg: &Segment) -> Vec<u8> {
        let mac = |p: u8| {
            self.cfg
                .macs
                .get(usize::from(p))
                .copied()
                .unwrap_or_default()
        };
        let mut opts = alloc::vec![2, 4];
        opts.extend_from_slice(&seg.opts.mss.to_be_bytes());
        if let Some(ws) = seg.opts.wscale {
            opts.extend_from_slice(&[1, 3, 3, ws]);
        }
        if seg.opts.tstamp {
            opts.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        if seg.opts.sack {
            opts.extend_from_slice(&[1, 1, 4, 2]);
        }
        let t = seg.tuple;
        let tcp_len = 20 + opts.len();
        let mut h = Vec::with_capacity(usize::from(ETH + IP) + tcp_len);
        h.extend_from_slice(&mac(seg.port));
        h.extend_from_slice(&mac(Self::far_end(seg.port)));
        h.extend_from_slice(&[0x08, 0x00]);
        let ip_len = u16::try_from(20 + tcp_len).unwrap_or(0).to_be_bytes();
        let mut ip = [0_u8; 20];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&ip_len);
        ip[6] = 0x40;
        ip[8] = 64;
        ip[9] = 6;
        ip[12..16].copy_from_slice(&t.peer_ip.to_be_bytes());
        ip[16..20].copy_from_slice(&t.local_ip.to_be_bytes());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        h.extend_from_slice(&ip);
        h.extend_from_slice(&t.peer_port.to_be_bytes());
        h.extend_from_slice(&t.local_port.to_be_bytes());
        h.extend_from_slice(&seg.seq.to_be_bytes());
        h.extend_from_slice(&[0; 4]);
        h.push(u8::try_from(tcp_len / 4).unwrap_or(0) << 4);
        h.push(flags::SYN);
        h.extend_from_slice(&u16::try_from(seg.wnd).unwrap_or(u16::MAX).to_be_bytes());
        h.extend_from_slice(&[0; 4]);
        h.extend_from_slice(&opts);
        h
    }

    /// CPL_PASS_ACCEPT_RPL: the host takes the connection; the SYN-ACK goes out.
    pub(crate) fn pass_accept_rpl(&mut self, now: Nanos, m: &wire::PassAcceptRpl) {
        let Some(mut c) = self.take(m.tid) else {
            self.host_error("PASS_ACCEPT_RPL for no connection", m.tid);
            return;
        };
        if c.state == TcpState::Closed && c.stid.is_some() && !c.accepted {
            // The peer reset it before the host had made up its mind.
            c.accepted = true;
            self.abort_to_host(now, &mut c, CplStatus::CONN_RESET);
        } else if c.state != TcpState::SynReceived || c.accepted {
            self.host_error("PASS_ACCEPT_RPL for a connection not half open", m.tid);
        } else {
            let opt0 = wire::Opt0::from_bits(m.opt0);
            let opt2 = wire::Opt2::from_bits(m.opt2, self.cfg.chip);
            c.accepted = true;
            if opt2.rss_queue_valid {
                c.rxq = opt2.rss_queue;
                c.fw_rxq = c.rxq;
            }
            c.iss = self.pick_iss(opt2.iss_valid, m.iss);
            let offer = c.opts;
            self.apply_options(&mut c, &opt0, &opt2, Some(offer));
            c.l2_lost = self.lost_in_l2(c.port, opt0.l2t_idx);
            self.send_syn(now, &mut c);
        }
        self.put(c);
    }

    /// A segment for a connection in SYN_RECEIVED. True if it established the connection and
    /// should be looked at again as any segment of it.
    pub(crate) fn syn_received(&mut self, now: Nanos, c: &mut Conn, seg: &Segment) -> bool {
        if seg.has(flags::RST) {
            if seg.seq != c.rcv_nxt {
                return false;
            }
            if c.accepted {
                self.peer_reset(now, c, CplStatus::CONN_RESET);
            } else {
                // The host is told when it accepts; if it refuses there is nothing to tell.
                c.state = TcpState::Closed;
                self.unhash(c);
            }
            return false;
        }
        if seg.has(flags::SYN) {
            if c.accepted && seg.seq == c.irs {
                self.send_syn(now, c);
            }
            return false;
        }
        if !c.accepted || !seg.has(flags::ACK) || seg.ack != c.iss.wrapping_add(1) {
            return false;
        }
        c.snd_wnd = u64::from(seg.wnd);
        c.snd_wl1 = seg.seq;
        c.tries = 0;
        c.set_timer(Timer::Rexmt, None);
        c.state = TcpState::Established;
        let msg = wire::PassEstablish {
            tid: c.tid,
            stid: c.stid.unwrap_or(0),
            tos: 0,
            mac_idx: u16::from(c.port),
            tcp_opt: tcp_opt(c).to_bits(),
            snd_isn: c.iss.wrapping_add(1),
            rcv_isn: c.irs.wrapping_add(1),
        };
        self.cpl(now, c.rxq, wire::PassEstablish::LEN, |b| msg.emit(b));
        true
    }

    /// CPL_L2T_WRITE_REQ.
    pub(crate) fn l2t_write(&mut self, now: Nanos, m: &wire::L2tWriteReq) {
        self.l2t.insert(m.l2t_idx, m.dst_mac);
        if m.noreply {
            return;
        }
        let msg = wire::L2tWriteRpl {
            l2t_idx: m.l2t_idx,
            sync: m.sync,
            qid: m.qid,
            status: CplStatus::NONE,
        };
        self.cpl(now, m.qid, wire::L2tWriteRpl::LEN, |b| msg.emit(b));
    }

    /// Remembers a closed connection's numbers after its tid is gone, until many others have
    /// closed after it or its addresses are used again.
    pub(crate) fn enter_time_wait(&mut self, c: &Conn) {
        self.serial += 1;
        let key = (c.port, c.tuple);
        let tw = TimeWait {
            serial: self.serial,
            snd_nxt: c.snd_nxt(),
            rcv_nxt: c.rcv_nxt,
        };
        self.timewait.insert(key, tw);
        self.timewait_order.push_back((key, tw.serial));
        if self.timewait_order.len() > TIME_WAITS {
            let Some((key, serial)) = self.timewait_order.pop_front() else {
                return;
            };
            if self.timewait.get(&key).is_some_and(|t| t.serial == serial) {
                self.timewait.remove(&key);
            }
        }
    }
}

/// Closed connections remembered.
const TIME_WAITS: usize = 1024;

/// Ethernet and IPv4 header lengths.
const ETH: u8 = 14;
const IP: u8 = 20;

fn tcp_opt(c: &Conn) -> wire::TcpOpt {
    wire::TcpOpt {
        wscale_ok: c.wscale_on,
        sack: c.opts.sack,
        tstamp: c.opts.tstamp,
        snd_wscale: c.peer_wscale,
        mss_idx: c.mss_idx,
    }
}

fn u32_of(v: u64) -> u32 {
    u32::try_from(v).unwrap_or(0)
}

/// Internet checksum of an even number of bytes.
fn checksum(b: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for w in b.chunks_exact(2) {
        sum += u32::from(w[0]) << 8 | u32::from(w[1]);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// What the chip reports as window scale of a SYN that has none.
const NO_WSCALE: u8 = 0xff;
