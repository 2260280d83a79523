//! The wire of connections no TOE carries: a thread that moves bytes, FINs and resets between the
//! two ends, with the states and errors tcp_input would give. No packets, no loss. It is the
//! control: the same program runs with and without offload.

use std::collections::{BTreeMap, VecDeque};

use crate::global::Global;
use crate::kp::Kp;
use crate::net::acc::{InpExt, SockbufExt, SocketExt, TcpcbExt, Which};
use crate::net::inpcb::{self, Tuple};
use crate::net::m::{self, MbufExt};
use crate::net::{k, route, sockbuf, socket, syncache, tcp_subr, tcp_timer};
use crate::sched::{self, SBT_1S, SBT_1US, SleepOpts};
use crate::{sys, vnet};

/// Virtual time from one end to the other.
const LATENCY: i64 = 5 * SBT_1US;
/// Most bytes moved at once.
const CHUNK: u32 = 64 * 1024;

#[derive(Clone, Copy)]
struct End {
    tp: usize,
    peer: Option<u64>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Syn(u64),
    Push(u64),
    Rst(u64),
}

#[derive(Default)]
struct State {
    next: u64,
    ends: BTreeMap<u64, End>,
    by_tp: BTreeMap<usize, u64>,
    work: VecDeque<Work>,
}

static STATE: Global<State> = Global::new("tcp pipe");

fn chan() -> usize {
    (&raw const STATE) as usize
}

pub(crate) fn boot() {
    STATE.init(State::default());
    sched::spawn_kthread("tcp wire", run);
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn end_of(tp: Kp<sys::tcpcb>) -> Option<u64> {
    STATE.with(|s| s.by_tp.get(&tp.addr()).copied())
}

fn make_end(tp: Kp<sys::tcpcb>) -> u64 {
    if let Some(id) = end_of(tp) {
        return id;
    }
    STATE.with(|s| {
        s.next += 1;
        s.ends.insert(
            s.next,
            End {
                tp: tp.addr(),
                peer: None,
                closed: false,
            },
        );
        s.by_tp.insert(tp.addr(), s.next);
        s.next
    })
}

fn peer_of(id: u64) -> Option<u64> {
    STATE.with(|s| s.ends.get(&id).and_then(|e| e.peer))
}

fn queue(w: Work) {
    STATE.with(|s| {
        if !s.work.contains(&w) {
            s.work.push_back(w);
        }
    });
    sched::wakeup(chan());
}

/// Output of a connection that is not offloaded. pcb write-locked.
pub(crate) fn output(tp: Kp<sys::tcpcb>) -> i32 {
    match tp.st() {
        sys::TCPS_CLOSED => {
            if let Some(peer) = end_of(tp).and_then(peer_of) {
                queue(Work::Rst(peer));
            }
        }
        sys::TCPS_LISTEN | sys::TCPS_TIME_WAIT => {}
        sys::TCPS_SYN_SENT => queue(Work::Syn(make_end(tp))),
        _ => {
            if let Some(id) = end_of(tp) {
                queue(Work::Push(id));
                // Room in our buffer lets the peer send on.
                if let Some(p) = peer_of(id) {
                    queue(Work::Push(p));
                }
            }
        }
    }
    0
}

/// The connection closed at this end. pcb write-locked.
pub(crate) fn closed(tp: Kp<sys::tcpcb>) {
    STATE.with(|s| {
        if let Some(id) = s.by_tp.get(&tp.addr())
            && let Some(e) = s.ends.get_mut(id)
        {
            e.closed = true;
        }
    });
}

/// The tcpcb goes away.
pub(crate) fn discard(tp: Kp<sys::tcpcb>) {
    STATE.with(|s| {
        if let Some(id) = s.by_tp.remove(&tp.addr()) {
            s.ends.remove(&id);
        }
    });
}

fn run() {
    loop {
        let Some(w) = STATE.with(|s| s.work.pop_front()) else {
            sched::sleep_on(chan(), SleepOpts::new("wire"));
            continue;
        };
        sched::sleep_for(LATENCY, "wire");
        k::net_epoch(|| match w {
            Work::Syn(id) => syn(id),
            Work::Push(id) => push(id),
            Work::Rst(id) => rst(id, None),
        });
    }
}

/// Locks the pcb of an end that still lives and was not dropped.
fn lock(id: u64) -> Option<Kp<sys::inpcb>> {
    let tp = STATE.with(|s| s.ends.get(&id).filter(|e| !e.closed).map(|e| e.tp))?;
    let inp = inpcb::lock_found(Kp::new(tp as *mut sys::inpcb), true)?;
    let alive = STATE.with(|s| s.by_tp.get(&inp.addr()) == Some(&id));
    if !alive || inp.dropped() {
        k::wunlock(inp.lock_rw());
        return None;
    }
    Some(inp)
}

fn in_vnet_of<R>(inp: Kp<sys::inpcb>, f: impl FnOnce() -> R) -> R {
    vnet::with_vnet(inpcb::vnet_of(inp), f)
}

/// A reset arrives: `error` overrides what the state calls for.
fn rst(id: u64, error: Option<u32>) {
    let Some(inp) = lock(id) else { return };
    let tp = inp.tp();
    let mut so = inp.so();
    let e = match tp.st() {
        sys::TCPS_SYN_SENT | sys::TCPS_SYN_RECEIVED => sys::ECONNREFUSED,
        sys::TCPS_ESTABLISHED
        | sys::TCPS_CLOSE_WAIT
        | sys::TCPS_FIN_WAIT_1
        | sys::TCPS_FIN_WAIT_2 => sys::ECONNRESET,
        sys::TCPS_TIME_WAIT => {
            k::wunlock(inp.lock_rw());
            return;
        }
        _ => 0,
    };
    let e = error.unwrap_or(e);
    if e != 0 {
        so.so_error = e as u16;
    }
    let left = in_vnet_of(inp, || tcp_subr::close(tp));
    if left.is_some() {
        k::wunlock(inp.lock_rw());
    }
}

fn syn(id: u64) {
    let Some(inp) = lock(id) else { return };
    let tp = inp.tp();
    if tp.st() != sys::TCPS_SYN_SENT {
        k::wunlock(inp.lock_rw());
        return;
    }
    let t = Tuple::of(inp);
    let v = inpcb::vnet_of(inp);
    let iss = tp.iss;
    k::wunlock(inp.lock_rw());
    // Nobody there: the keep-init timer ends the attempt.
    let Some(ov) = route::owner(v, t.faddr) else {
        return;
    };
    let listener =
        inpcb::find_listener(ov, t.faddr, t.fport).and_then(|l| inpcb::lock_found(l, true));
    let Some(l) = listener else {
        return rst(id, None);
    };
    if l.dropped() || l.tp().st() != sys::TCPS_LISTEN {
        k::wunlock(l.lock_rw());
        return rst(id, None);
    }
    let mirrored = Tuple {
        laddr: t.faddr,
        lport: t.fport,
        faddr: t.laddr,
        fport: t.lport,
    };
    let e = syncache::plain(ov, mirrored, iss, tp);
    let child = vnet::with_vnet(ov, || syncache::new_socket(&e, l.so()));
    k::wunlock(l.lock_rw());
    let Some(cso) = child else {
        // The accept queue is full: the SYN is sent again later.
        sched::spawn_kthread("syn rexmt", move || {
            sched::sleep_for(SBT_1S, "rexmt");
            queue(Work::Syn(id));
        });
        return;
    };
    let cinp = cso.inp();
    let mut ctp = cinp.tp();
    let cid = make_end(ctp);
    STATE.with(|s| {
        if let Some(e) = s.ends.get_mut(&cid) {
            e.peer = Some(id);
        }
        if let Some(e) = s.ends.get_mut(&id) {
            e.peer = Some(cid);
        }
    });
    in_vnet_of(cinp, || {
        tcp_timer::activate(ctp, sys::TT_KEEP, 0);
        tcp_subr::state_change(ctp, sys::TCPS_ESTABLISHED);
        ctp.t_starttime = k::ticks();
        ctp.snd_una = e.iss.wrapping_add(1);
        socket::isconnected(cso);
    });
    k::wunlock(cinp.lock_rw());
    established(id, cid, &e);
}

/// The SYN|ACK reaches the one that connects.
fn established(id: u64, cid: u64, e: &syncache::Entry) {
    let Some(inp) = lock(id) else {
        return rst(cid, Some(sys::ECONNRESET));
    };
    let mut tp = inp.tp();
    if tp.st() != sys::TCPS_SYN_SENT {
        k::wunlock(inp.lock_rw());
        return rst(cid, Some(sys::ECONNRESET));
    }
    in_vnet_of(inp, || {
        tcp_timer::activate(tp, sys::TT_KEEP, 0);
        tcp_subr::rcvseqinit(tp, e.iss);
        let una = tp.iss.wrapping_add(1);
        (tp.snd_una, tp.snd_nxt, tp.snd_max) = (una, una, una);
        tp.set_t_maxseg(tcp_subr::mss_for(inpcb::vnet_of(inp), inp.faddr()));
        tp.t_starttime = k::ticks();
        if tp.t_flags & sys::TF_NEEDFIN != 0 {
            tp.t_flags &= !sys::TF_NEEDFIN;
            tcp_subr::state_change(tp, sys::TCPS_FIN_WAIT_1);
        } else {
            tcp_subr::state_change(tp, sys::TCPS_ESTABLISHED);
        }
        socket::isconnected(inp.so());
    });
    k::wunlock(inp.lock_rw());
    queue(Work::Push(id));
}

/// What one end has to say.
struct Segment {
    data: Vec<u8>,
    fin: bool,
}

/// Room the far end offers; `None` when that end is gone.
fn room(peer: Option<u64>) -> Option<u32> {
    let p = peer?;
    let tp = STATE.with(|s| s.ends.get(&p).filter(|e| !e.closed).map(|e| e.tp))?;
    let inp: Kp<sys::inpcb> = Kp::new(tp as *mut sys::inpcb);
    if inp.dropped() || inp.inp_socket.is_null() {
        return None;
    }
    let so = inp.so();
    if so.rcv().st() & sys::SBS_CANTRCVMORE != 0 {
        return Some(CHUNK);
    }
    Some(so.rcv().space().clamp(0, i64::from(CHUNK)) as u32)
}

fn wants_fin(st: u32) -> bool {
    matches!(
        st,
        sys::TCPS_FIN_WAIT_1 | sys::TCPS_CLOSING | sys::TCPS_LAST_ACK
    )
}

fn push(id: u64) {
    let Some(inp) = lock(id) else { return };
    let tp = inp.tp();
    let so = inp.so();
    let peer = peer_of(id);
    if tp.st() < sys::TCPS_ESTABLISHED {
        k::wunlock(inp.lock_rw());
        return;
    }
    let fin_due = wants_fin(tp.st()) && tp.t_flags & sys::TF_SENTFIN == 0;
    k::mtx_lock(so.sb_mtx(Which::Snd));
    let avail = so.snd().sb_acc;
    let space = room(peer);
    let n = avail.min(space.unwrap_or(0));
    let seg = Segment {
        data: front(so.snd(), n as usize),
        fin: fin_due && n == so.snd().sb_ccc,
    };
    k::mtx_unlock(so.sb_mtx(Which::Snd));
    k::wunlock(inp.lock_rw());
    let nothing = seg.data.is_empty() && !seg.fin;
    let Some(p) = peer.filter(|_| space.is_some()) else {
        // Whoever sends to an end that is no more is reset.
        if avail > 0 || fin_due {
            rst(id, None);
        }
        return;
    };
    if nothing {
        return;
    }
    if !deliver(p, &seg) {
        return rst(id, None);
    }
    acked(id, &seg, avail > n);
}

/// The first `n` bytes of a buffer. Its lock is held.
fn front(sb: Kp<sys::sockbuf>, n: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(n);
    let mut at = Kp::opt(sb.d().sb_mb);
    while let Some(mb) = at {
        let take = (n - out.len()).min(mb.m_len as usize);
        if take == 0 {
            break;
        }
        for (addr, len) in m::pieces(mb, 0, take) {
            out.extend_from_slice(crate::kp::bytes(addr as *const u8, len));
        }
        at = mb.next();
    }
    out
}

/// A segment arrives; false: it is answered with a reset.
fn deliver(id: u64, seg: &Segment) -> bool {
    let Some(inp) = lock(id) else { return false };
    let mut tp = inp.tp();
    let so = inp.so();
    let v = inpcb::vnet_of(inp);
    if !seg.data.is_empty() && tp.t_flags & sys::TF_CLOSED != 0 && tp.st() > sys::TCPS_CLOSE_WAIT {
        // Data for a program that closed: the connection is torn down.
        let left = vnet::with_vnet(v, || tcp_subr::close(tp));
        if left.is_some() {
            k::wunlock(inp.lock_rw());
        }
        return false;
    }
    tp.t_rcvtime = k::ticks();
    tp.rcv_nxt = tp.rcv_nxt.wrapping_add(seg.data.len() as u32);
    vnet::with_vnet(v, || {
        if !seg.data.is_empty() {
            k::mtx_lock(so.sb_mtx(Which::Rcv));
            if so.rcv().st() & sys::SBS_CANTRCVMORE == 0 {
                let mb = m::from_bytes(&seg.data);
                sockbuf::append_stream_locked(so.rcv(), mb);
            }
            socket::sorwakeup_locked(so);
        }
        if !seg.fin {
            k::wunlock(inp.lock_rw());
            return;
        }
        tp.rcv_nxt = tp.rcv_nxt.wrapping_add(1);
        socket::cantrcvmore(so);
        match tp.st() {
            sys::TCPS_SYN_RECEIVED | sys::TCPS_ESTABLISHED => {
                tcp_subr::state_change(tp, sys::TCPS_CLOSE_WAIT)
            }
            sys::TCPS_FIN_WAIT_1 => tcp_subr::state_change(tp, sys::TCPS_CLOSING),
            sys::TCPS_FIN_WAIT_2 => return tcp_subr::twstart(tp),
            _ => {}
        }
        k::wunlock(inp.lock_rw());
    });
    true
}

/// The far end took the segment.
fn acked(id: u64, seg: &Segment, more: bool) {
    let Some(inp) = lock(id) else { return };
    let mut tp = inp.tp();
    let so = inp.so();
    let v = inpcb::vnet_of(inp);
    let n = seg.data.len() as u32;
    vnet::with_vnet(v, || {
        if n > 0 {
            tp.snd_una = tp.snd_una.wrapping_add(n);
            tp.snd_nxt = tp.snd_una;
            tp.snd_max = tp.snd_una;
            k::mtx_lock(so.sb_mtx(Which::Snd));
            let n = n.min(so.snd().sb_ccc);
            sockbuf::drop_locked(so.snd(), n);
            socket::sowwakeup_locked(so);
        }
        if seg.fin {
            tp.t_flags |= sys::TF_SENTFIN;
            match tp.st() {
                sys::TCPS_FIN_WAIT_1 => {
                    tcp_subr::state_change(tp, sys::TCPS_FIN_WAIT_2);
                    if so.rcv().st() & sys::SBS_CANTRCVMORE != 0 {
                        socket::isdisconnected(so);
                        tcp_timer::activate(tp, sys::TT_2MSL, 60 * sched::HZ as u32);
                    }
                }
                sys::TCPS_CLOSING => return tcp_subr::twstart(tp),
                sys::TCPS_LAST_ACK => {
                    if tcp_subr::close(tp).is_some() {
                        k::wunlock(inp.lock_rw());
                    }
                    return;
                }
                _ => {}
            }
        }
        k::wunlock(inp.lock_rw());
    });
    if more || wants_fin(tp_state(id)) {
        queue(Work::Push(id));
    }
}

fn tp_state(id: u64) -> u32 {
    let tp = STATE.with(|s| s.ends.get(&id).filter(|e| !e.closed).map(|e| e.tp));
    let st = tp.map(|t| Kp::<sys::tcpcb>::new(t as *mut _));
    match st {
        // A FIN that went is not due again.
        Some(t) if t.t_flags & sys::TF_SENTFIN == 0 => t.st(),
        _ => sys::TCPS_CLOSED,
    }
}
