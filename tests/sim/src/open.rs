//! Opening connections by the real exchange of CPLs.

use std::rc::Rc;

use toehold_core::conn::{Conn, EstablishInit};
use toehold_core::open::{
    Agreed, CongAlgo, ConnParams, FourTuple, Link, PeerSyn, Wish, act_open_req, pass_accept_rpl,
};
use toehold_core::os::Queue;
use toehold_core::pageset::{PageSets, Slot};
use toehold_core::shared::ConnId;
use toehold_core::tx::TxParams;
use toehold_core::txcredits::RING;
use wire::{ActEstablish, ActOpenReq, Opt0, PassAcceptReq, PassAcceptRpl, PassEstablish, QidTid};

use crate::os::SimOs;
use crate::world::{End, EndConf, Tid, World, egress};

/// A connection being opened: by atid, which is also the number of its listener.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    active: usize,
    conf: EndConf,
}

fn ip(host: usize) -> u32 {
    0x0a00_0001 + host as u32
}

fn port(atid: u16) -> u16 {
    5000 + atid
}

impl World {
    fn rxq(host: usize, atid: u16) -> u16 {
        // Several connections to a queue, two queues to a host.
        16 + host as u16 * 2 + atid % 2
    }

    fn link(&self, host: usize, rxq: u16) -> Link {
        Link {
            chip: self.card.config().chip,
            l2t_idx: 0,
            smt_idx: host as u8,
            tx_chan: host as u8,
            tx_modq: host as u8,
            rxq,
        }
    }

    fn wish(conf: &EndConf) -> Wish {
        Wish {
            mss: 8960,
            rcv_space: conf.rcv,
            sb_max: 8 << 20,
            wscale: true,
            tstamp: false,
            sack: true,
            ecn: false,
            nodelay: false,
            keepalive: false,
            cong: CongAlgo::NewReno,
            rx_coalesce: true,
            sndbuf: -1,
            snd_autosize: conf.auto_max > 0,
            snd_hiwat: conf.snd,
        }
    }

    fn new_end(&mut self, host: usize, atid: u16, conf: &EndConf, params: ConnParams) -> usize {
        let rxq = World::rxq(host, atid);
        let id = ConnId {
            chip: self.card.config().chip,
            tid: 0,
            pf: 4,
            channel: host as u8,
            port: host as u8,
            rxq,
        };
        let slots = usize::from(conf.tun.cache).max(toehold_core::pageset::MIN_SLOTS);
        let rng = self.rng.fork();
        let mut os = SimOs::new(host, &self.mem, &self.pods, slots, conf.rcv, conf.snd, rng);
        os.sock.nonblocking = conf.nonblocking;
        os.sock.rcv.lowat = conf.rcv_lowat;
        os.sock.rcv.auto_max = conf.auto_max;
        os.sock.snd.auto_max = conf.auto_max;
        os.short = self.short;
        let sets = (0..slots).map(|_| Slot::default()).collect();
        self.ends.push(End {
            conn: Conn::new(id, conf.tun, PageSets::new(sets), [0; RING]),
            os,
            params,
            tun: conf.tun,
            tid: None,
            peer: usize::MAX,
            hears: Rc::default(),
            host,
            rxq,
            txq: host as u8,
            snd_isn: 0,
            up: false,
            over: false,
            broken: None,
            eof: false,
            results: Default::default(),
            writer: None,
            reader: None,
            unread: 0,
            promised: 0,
            files: 0,
            generic: Default::default(),
            task_queued: false,
            retry_due: false,
            chains: 0,
            pumping: false,
            due: None,
        });
        self.ends.len() - 1
    }

    /// Open a connection from `host` to the other, actively as `a`, passively as `b`. Returns
    /// both ends' numbers, active first, when both are up.
    pub fn open(&mut self, host: usize, a: EndConf, b: EndConf) -> (usize, usize) {
        let atid = self.ends.len() as u16 / 2;
        self.listen(host ^ 1, atid);
        self.run_until("listen", 60_000_000_000, |w| w.listening.contains(&atid));
        self.connect(host, atid, &a, b);
        let first = self.ends.len() - 1;
        self.run_until("open", 60_000_000_000, |w| {
            w.ends.len() == first + 2 && w.ends[first].up && w.ends[first + 1].up
        });
        let (e, f) = (first, first + 1);
        self.ends[e].peer = f;
        self.ends[f].peer = e;
        self.ends[e].hears = Rc::clone(&self.ends[f].os.sends);
        self.ends[f].hears = Rc::clone(&self.ends[e].os.sends);
        (e, f)
    }

    fn listen(&mut self, host: usize, atid: u16) {
        let opt1 = wire::Opt1 {
            conn_policy: wire::ConnPolicy::Ask,
            syn_rss_queue: Some(World::rxq(host, atid)),
        };
        let opt0 = Opt0 {
            tx_chan: host as u8,
            ..Opt0::default()
        };
        let req = wire::PassOpenReq {
            stid: u32::from(atid),
            local_port: port(atid),
            peer_port: 0,
            local_ip: ip(host),
            peer_ip: 0,
            opt0: opt0.to_bits(),
            opt1: opt1.to_bits().expect("fits"),
        };
        let mut b = [0; wire::PassOpenReq::LEN];
        req.emit(&mut b).expect("fits");
        self.submit(egress(Queue::Ctrl, host as u8), &b);
    }

    fn connect(&mut self, host: usize, atid: u16, a: &EndConf, b: EndConf) {
        let params = ConnParams::active(&World::wish(a), &self.card.config().mtus);
        let e = self.new_end(host, atid, a, params);
        self.pending.insert(atid, Pending { active: e, conf: b });
        let rxq = self.ends[e].rxq;
        let who = FourTuple {
            local_ip: ip(host),
            local_port: 40_000 + atid,
            peer_ip: ip(host ^ 1),
            peer_port: port(atid),
        };
        let id = QidTid {
            tid: atid,
            cookie: 4,
            qid: rxq,
        };
        let req = act_open_req(&params, &self.link(host, rxq), id, &who, a.iss, 0);
        let chip = self.card.config().chip;
        let mut wr = vec![0; ActOpenReq::len(chip)];
        req.emit(&mut wr, chip).expect("fits");
        self.submit(egress(Queue::Ctrl, host as u8), &wr);
    }

    pub(crate) fn act_established(&mut self, cpl: &ActEstablish) {
        let p = self.pending[&cpl.atid.tid];
        self.established(p.active, cpl.tid, cpl.snd_isn, cpl.rcv_isn, cpl.tcp_opt);
    }

    pub(crate) fn syn(&mut self, cpl: &PassAcceptReq) {
        let atid = cpl.stid as u16;
        let conf = self.pending[&atid].conf;
        let host = self.ends[self.pending[&atid].active].host ^ 1;
        let syn = PeerSyn {
            tstamp: cpl.tcpopt.tstamp,
            sack: cpl.tcpopt.sack,
            wscale: cpl.tcpopt.wscale(),
            ecn: cpl.tcpopt.ecn,
        };
        let mtus = self.card.config().mtus;
        let params = ConnParams::passive(&World::wish(&conf), &mtus, &syn);
        let link = self.link(host, World::rxq(host, atid));
        let rpl = pass_accept_rpl(&params, &link, cpl.tid, conf.iss);
        let chip = self.card.config().chip;
        let mut wr = vec![0; PassAcceptRpl::len(chip)];
        rpl.emit(&mut wr, chip).expect("fits");
        self.tids.insert(cpl.tid, Tid::Half(atid, params));
        self.submit(egress(Queue::Ctrl, host as u8), &wr);
    }

    pub(crate) fn pass_established(&mut self, cpl: &PassEstablish) {
        let Some(Tid::Half(atid, params)) = self.tids.remove(&cpl.tid) else {
            panic!("PASS_ESTABLISH for tid {}", cpl.tid);
        };
        let conf = self.pending[&atid].conf;
        let host = self.ends[self.pending[&atid].active].host ^ 1;
        let e = self.new_end(host, atid, &conf, params);
        self.established(e, cpl.tid, cpl.snd_isn, cpl.rcv_isn, cpl.tcp_opt);
    }

    fn established(&mut self, e: usize, tid: u32, snd_isn: u32, rcv_isn: u32, opt: u16) {
        let mtus = self.card.config().mtus;
        let agreed = Agreed::new(wire::TcpOpt::from_bits(opt), &mtus);
        let params = self.ends[e].params;
        let init = EstablishInit {
            id: ConnId {
                tid,
                ..*self.ends[e].conn.id()
            },
            snd_isn,
            rcv_isn,
            rcv_wnd: params.rcv_wnd(),
            wr_credits: self.card.config().tx_credits,
            tx: TxParams {
                sndbuf: params.sndbuf,
                wnd: params.snd_wnd,
                emss: agreed.emss,
                tx_align: self.rng.one_in(2),
                nagle: params.nagle,
            },
        };
        self.tids.insert(tid, Tid::End(e));
        let end = &mut self.ends[e];
        end.tid = Some(tid);
        end.snd_isn = snd_isn;
        end.up = true;
        let o = self.say(e, |conn, os| conn.established(os, &init));
        self.finish(e, o);
    }
}
