//! The syncache: connections between their SYN and the ACK that completes the handshake.
//!
//! | driver callback | locks |
//! |---|---|
//! | tod_syncache_respond, first | none |
//! | tod_syncache_respond, retransmission | "tcp_sc_head" |
//! | tod_syncache_added, _removed | "tcp_sc_head" |
//! | tod_offload_socket | the new pcb, write-locked; the socket has no reference yet |

use std::ffi::c_void;

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::acc::{InpExt, SocketExt, Which, inc_faddr, inc_laddr};
use crate::net::inpcb::{self, Tuple};
use crate::net::{k, listen, m, sockbuf, socket, tcp_subr, tcp_timer, tcp_usrreq, tcp_vars};
use crate::sched::{self, SBT_1S, Sbt, SleepOpts};
use crate::{kpanic, sys, vnet};

static SC_LOCK: KData = KData::of::<sys::mtx>("ukern_tcp_sc_head");

crate::exports_data! { SC_LOCK }

/// SYN|ACKs sent again before an entry is given up.
const REXMT_LIMIT: u32 = 3;

/// What a SYN asked for and what we answered.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    vnet: usize,
    inc: sys::in_conninfo,
    lport: u16,
    tod: usize,
    ctx: usize,
    pub(crate) irs: u32,
    pub(crate) iss: u32,
    pub(crate) wnd: u32,
    pub(crate) peer_mss: u16,
    /// The peer's window scale, and ours; `None` when not negotiated.
    pub(crate) scale: Option<(u8, u8)>,
    /// The peer's timestamp and our offset; `None` when not negotiated.
    pub(crate) ts: Option<(u32, u32)>,
    pub(crate) sack: bool,
    tos: u8,
    rxmits: u32,
    next: Sbt,
}

#[derive(Default)]
struct State {
    all: Vec<Entry>,
}

static STATE: Global<State> = Global::new("syncache");

fn chan() -> usize {
    (&raw const STATE) as usize
}

fn lock() -> *mut sys::mtx {
    SC_LOCK.get::<sys::mtx>().ptr()
}

pub(crate) fn boot() {
    k::mtx_init(lock(), c"tcp_sc_head", 0);
    STATE.init(State::default());
    sched::spawn_kthread("syncache timer", timer);
}

pub(crate) fn shutdown() {
    STATE.take();
}

/// Entries there are now.
pub(crate) fn count() -> usize {
    STATE.with(|s| s.all.len())
}

fn same(e: &Entry, v: usize, inc: &sys::in_conninfo) -> bool {
    e.vnet == v && Tuple::of_inc(&e.inc) == Tuple::of_inc(inc)
}

/// `syncache_add` for a SYN a driver saw. The listener's pcb is read-locked on entry and
/// unlocked on return.
pub(crate) fn add(
    inc: Kp<sys::in_conninfo>,
    to: Kp<sys::tcpopt>,
    th: Kp<sys::tcphdr>,
    inp: Kp<sys::inpcb>,
    tod: *mut sys::toedev,
    ctx: *mut c_void,
    _iptos: u8,
) {
    k::assert_held(inp.lock_rw());
    let so = inp.so();
    if !so.listening() {
        kpanic!("toe_syncache_add: socket is not listening");
    }
    let flags = u32::from(th.th_flags);
    if flags & (sys::TH_RST | sys::TH_ACK | sys::TH_SYN) != sys::TH_SYN {
        kpanic!("toe_syncache_add: TCP flags {flags:#x}");
    }
    let win = so.sol().sol_sbrcv_hiwat.min(65_535);
    let tos = crate::net::acc::uget!(inp.__bindgen_anon_2.inp_ip_tos);
    k::runlock(inp.lock_rw());

    let v = vnet::curvnet();
    let now = sched::now_sbt();
    k::mtx_lock(lock());
    let dup = STATE.with(|s| {
        let e = s.all.iter_mut().find(|e| same(e, v as usize, &inc))?;
        e.ts = match (e.ts, to.to_flags & sys::TOF_TS != 0) {
            (Some((_, off)), true) => Some((to.to_tsval, off)),
            _ => None,
        };
        e.rxmits = 0;
        e.next = now + SBT_1S;
        Some(*e)
    });
    if let Some(e) = dup {
        respond(&e);
        k::mtx_unlock(lock());
        return;
    }
    k::mtx_unlock(lock());

    let rfc1323 = tcp_vars::get(v, &tcp_vars::DO_RFC1323) != 0;
    let e = Entry {
        vnet: v as usize,
        inc: *inc,
        lport: inc.inc_ie.ie_lport,
        tod: tod as usize,
        ctx: ctx as usize,
        irs: th.th_seq,
        iss: tcp_subr::new_isn(),
        wnd: win,
        peer_mss: if to.to_flags & sys::TOF_MSS != 0 {
            to.to_mss
        } else {
            0
        },
        scale: (rfc1323 && to.to_flags & sys::TOF_SCALE != 0)
            .then(|| (to.to_wscale, tcp_usrreq::window_scale())),
        ts: (rfc1323 && to.to_flags & sys::TOF_TS != 0)
            .then(|| (to.to_tsval, sched::random_u64() as u32)),
        sack: to.to_flags & sys::TOF_SACKPERM != 0 && tcp_vars::get(v, &tcp_vars::DO_SACK) != 0,
        tos,
        rxmits: 0,
        next: now + SBT_1S,
    };
    if respond(&e) != 0 {
        return;
    }
    k::mtx_lock(lock());
    STATE.with(|s| s.all.push(e));
    if let Some(t) = Kp::<sys::toedev>::opt(tod) {
        let Some(f) = t.tod_syncache_added else {
            kpanic!("tod_syncache_added is NULL")
        };
        // SAFETY: the driver's method with the context it gave, under the bucket lock.
        unsafe { f(t.ptr(), ctx) };
    }
    k::mtx_unlock(lock());
    sched::wakeup(chan());
}

/// Options of our SYN|ACK.
fn options(e: &Entry) -> Vec<u8> {
    let v = e.vnet as *mut sys::vnet;
    let mss = tcp_subr::mss_for(v, inc_faddr(&e.inc)) as u16;
    let mut o = vec![2, 4];
    o.extend(mss.to_be_bytes());
    if let Some((_, ours)) = e.scale {
        o.extend([1, 3, 3, ours]);
    }
    if e.sack {
        o.extend([1, 1, 4, 2]);
    }
    if let Some((peer, off)) = e.ts {
        let val = k::ticks().wrapping_add(off);
        o.extend([1, 1, 8, 10]);
        o.extend(val.to_be_bytes());
        o.extend(peer.to_be_bytes());
    }
    while o.len() % 4 != 0 {
        o.push(0);
    }
    o
}

/// `syncache_respond`: the SYN|ACK as a packet, given to the driver.
fn respond(e: &Entry) -> i32 {
    let Some(tod) = Kp::<sys::toedev>::opt(e.tod as *mut _) else {
        return 0;
    };
    let opts = options(e);
    let len = 20 + 20 + opts.len();
    let mut pkt = Vec::with_capacity(len);
    // IPv4 header.
    pkt.extend([0x45, e.tos]);
    pkt.extend((len as u16).to_be_bytes());
    pkt.extend([0, 0, 0x40, 0, 64, sys::IPPROTO_TCP as u8, 0, 0]);
    pkt.extend(inc_laddr(&e.inc).to_ne_bytes());
    pkt.extend(inc_faddr(&e.inc).to_ne_bytes());
    // TCP header; ports are in network order already.
    pkt.extend(e.lport.to_ne_bytes());
    pkt.extend(e.inc.inc_ie.ie_fport.to_ne_bytes());
    pkt.extend(e.iss.to_be_bytes());
    pkt.extend(e.irs.wrapping_add(1).to_be_bytes());
    pkt.push((((20 + opts.len()) / 4) << 4) as u8);
    pkt.push((sys::TH_SYN | sys::TH_ACK) as u8);
    pkt.extend((e.wnd as u16).to_be_bytes());
    pkt.extend([0; 4]);
    pkt.extend(&opts);
    let Some(mb) = m::packet(&pkt) else {
        return sys::ENOBUFS as i32;
    };
    let Some(f) = tod.tod_syncache_respond else {
        kpanic!("tod_syncache_respond is NULL")
    };
    // SAFETY: the driver's method with the context it gave; the mbuf is handed over.
    unsafe { f(tod.ptr(), e.ctx as *mut c_void, mb.ptr()) }
}

/// Takes the entry off and tells the driver. Bucket lock held.
fn remove(e: &Entry) {
    STATE.with(|s| s.all.retain(|x| !same(x, e.vnet, &e.inc)));
    if let Some(tod) = Kp::<sys::toedev>::opt(e.tod as *mut _) {
        let Some(f) = tod.tod_syncache_removed else {
            kpanic!("tod_syncache_removed is NULL")
        };
        // SAFETY: the driver's method with the context it gave, under the bucket lock.
        unsafe { f(tod.ptr(), e.ctx as *mut c_void) };
    }
}

/// `syncache_chkrst`: a reset that fits an entry's SYN|ACK ends the entry. The listener's pcb
/// may be locked.
pub(crate) fn reset(inc: Kp<sys::in_conninfo>, th: Kp<sys::tcphdr>) {
    k::assert_net_epoch();
    let v = vnet::curvnet() as usize;
    let flags = u32::from(th.th_flags);
    if flags & sys::TH_RST == 0 {
        kpanic!("syncache_chkrst: TCP flags {flags:#x}");
    }
    k::mtx_lock(lock());
    let e = STATE.with(|s| s.all.iter().find(|e| same(e, v, &inc)).copied());
    if let Some(e) = e.filter(|e| th.th_seq == e.irs.wrapping_add(1)) {
        remove(&e);
    }
    k::mtx_unlock(lock());
}

/// `syncache_expand`: the handshake's last ACK. 0: no such entry or a bad ACK; -1: drop it
/// silently; 1: `*lsop` is the new socket with its pcb write-locked, or NULL for lack of room.
pub(crate) fn expand(
    inc: Kp<sys::in_conninfo>,
    to: Kp<sys::tcpopt>,
    th: Kp<sys::tcphdr>,
    lsop: Kp<*mut sys::socket>,
) -> i32 {
    let mut lsop = lsop;
    let v = vnet::curvnet() as usize;
    let flags = u32::from(th.th_flags);
    if flags & (sys::TH_RST | sys::TH_ACK | sys::TH_SYN) != sys::TH_ACK {
        kpanic!("toe_syncache_expand: TCP flags {flags:#x}");
    }
    k::mtx_lock(lock());
    let Some(e) = STATE.with(|s| s.all.iter().find(|e| same(e, v, &inc)).copied()) else {
        k::mtx_unlock(lock());
        return 0;
    };
    let has_ts = to.to_flags & sys::TOF_TS != 0;
    if let Some((recent, _)) = e.ts {
        let old = has_ts && (to.to_tsval.wrapping_sub(recent) as i32) < 0;
        let tolerate = tcp_vars::get(v as *mut _, &tcp_vars::TOLERATE_MISSING_TS) != 0;
        if old || (!has_ts && !tolerate) {
            k::mtx_unlock(lock());
            return -1;
        }
    }
    remove(&e);
    k::mtx_unlock(lock());
    let seq_off = th.th_seq.wrapping_sub(e.irs);
    let bad_seq =
        seq_off as i32 <= 0 || th.th_seq.wrapping_sub(e.irs.wrapping_add(e.wnd)) as i32 > 0;
    if th.th_ack != e.iss.wrapping_add(1) || bad_seq {
        *lsop = std::ptr::null_mut();
        return 0;
    }
    let child = new_socket(&e, Kp::new(*lsop));
    *lsop = child.map_or(std::ptr::null_mut(), Kp::ptr);
    1
}

/// `syncache_socket`: the connection's socket, in SYN_RECEIVED, its pcb write-locked; it is on
/// the listener's queue of complete connections already.
pub(crate) fn new_socket(e: &Entry, lso: Kp<sys::socket>) -> Option<Kp<sys::socket>> {
    k::assert_net_epoch();
    if !lso.listening() {
        return None;
    }
    let so = listen::clone(lso)?;
    let Some(mut inp) = inpcb::alloc(so) else {
        socket::dealloc(so);
        return None;
    };
    let ltp = lso.inp().tp();
    let mut tp = tcp_subr::new_tcpcb(inp, Some(ltp));
    inp.inp_inc.inc_flags = e.inc.inc_flags;
    inp.set_laddr(inc_laddr(&e.inc));
    inp.inp_inc.inc_ie.ie_lport = e.lport;
    if inpcb::connect(inp, inc_faddr(&e.inc), e.inc.inc_ie.ie_fport) != 0 {
        tcp_subr::discardcb(tp);
        inpcb::free(inp);
        socket::dealloc(so);
        return None;
    }
    tcp_subr::state_change(tp, sys::TCPS_SYN_RECEIVED);
    tcp_subr::rcvseqinit(tp, e.irs);
    tcp_subr::sendseqinit(tp, e.iss);
    tp.snd_wl1 = e.irs;
    tp.snd_max = e.iss.wrapping_add(1);
    tp.snd_nxt = e.iss.wrapping_add(1);
    tp.rcv_up = e.irs.wrapping_add(1);
    tp.rcv_wnd = e.wnd;
    tp.rcv_adv = tp.rcv_adv.wrapping_add(e.wnd);
    tp.last_ack_sent = tp.rcv_nxt;
    tp.t_flags = ltp.t_flags & (sys::TF_LRD | sys::TF_NOPUSH | sys::TF_NODELAY);
    if let Some((peer, ours)) = e.scale {
        tp.t_flags |= sys::TF_REQ_SCALE | sys::TF_RCVD_SCALE;
        tp.snd_scale = peer;
        tp.request_r_scale = ours;
    }
    if let Some((recent, off)) = e.ts {
        tp.t_flags |= sys::TF_REQ_TSTMP | sys::TF_RCVD_TSTMP;
        tp.ts_recent = recent;
        tp.ts_recent_age = k::ticks();
        tp.ts_offset = off;
    }
    if e.sack {
        tp.t_flags |= sys::TF_SACK_PERMIT;
    }
    mss(tp, so, e.peer_mss);
    if let Some(tod) = Kp::<sys::toedev>::opt(e.tod as *mut _) {
        let Some(f) = tod.tod_offload_socket else {
            kpanic!("tod_offload_socket is NULL")
        };
        // SAFETY: the driver's method with the context it gave, the new pcb write-locked.
        unsafe { f(tod.ptr(), e.ctx as *mut c_void, so.ptr()) };
    }
    tcp_timer::activate(tp, sys::TT_KEEP, tcp_usrreq::keepinit(tp));
    if !listen::enqueue(so, sys::SS_ISCONNECTED) {
        tp.t_flags |= sys::TF_SONOTCONN;
    }
    Some(so)
}

/// `tcp_mss`: segment size from what the peer offered, and buffers rounded to it.
fn mss(tp: Kp<sys::tcpcb>, so: Kp<sys::socket>, offer: u16) {
    let mut tp = tp;
    let ours = tcp_subr::mss_for(so.so_vnet, so.inp().faddr());
    let offer = if offer == 0 {
        536
    } else {
        u32::from(offer).max(64)
    };
    let seg = ours.min(offer);
    tp.set_t_maxseg(seg);
    let max = *sockbuf::SB_MAX.get::<u64>();
    for w in [Which::Snd, Which::Rcv] {
        k::mtx_lock(so.sb_mtx(w));
        let hi = u64::from(so.sb(w).sb_hiwat);
        let up = hi.next_multiple_of(u64::from(seg)).min(max);
        if hi > u64::from(seg) && up > hi {
            sockbuf::reserve_locked(so, w, up);
        }
        k::mtx_unlock(so.sb_mtx(w));
    }
}

/// An entry for a connection between two ends of this machine that no driver carries.
pub(crate) fn plain(v: *mut sys::vnet, t: Tuple, irs: u32, peer: Kp<sys::tcpcb>) -> Entry {
    // SAFETY: plain C data.
    let mut inc: sys::in_conninfo = unsafe { std::mem::zeroed() };
    inc.inc_ie.ie_lport = t.lport;
    inc.inc_ie.ie_fport = t.fport;
    inc.inc_ie.ie_dependladdr.id46_addr = crate::net::acc::v4(t.laddr);
    inc.inc_ie.ie_dependfaddr.id46_addr = crate::net::acc::v4(t.faddr);
    Entry {
        vnet: v as usize,
        inc,
        lport: t.lport,
        tod: 0,
        ctx: 0,
        irs,
        iss: tcp_subr::new_isn(),
        wnd: 65_535,
        peer_mss: tcp_subr::mss_for(v, t.faddr) as u16,
        scale: Some((peer.request_r_scale, tcp_usrreq::window_scale())),
        ts: None,
        sack: true,
        tos: 0,
        rxmits: 0,
        next: 0,
    }
}

/// Sends SYN|ACKs again and gives entries up.
fn timer() {
    loop {
        let now = sched::now_sbt();
        let due = STATE.with(|s| s.all.iter().find(|e| e.next <= now).copied());
        let Some(e) = due else {
            let next = STATE.with(|s| s.all.iter().map(|e| e.next).min());
            sched::sleep_on(
                chan(),
                SleepOpts::new("synctmr").timeout(next.map(|at| at - now)),
            );
            continue;
        };
        vnet::with_vnet(e.vnet as *mut sys::vnet, || {
            k::net_epoch(|| {
                k::mtx_lock(lock());
                // Gone meanwhile, or just refreshed?
                let still = STATE.with(|s| {
                    s.all
                        .iter()
                        .any(|x| same(x, e.vnet, &e.inc) && x.next <= now)
                });
                if still && e.rxmits >= REXMT_LIMIT {
                    remove(&e);
                } else if still && respond(&e) != 0 {
                    // 12 goes on with it until the limit.
                    remove(&e);
                } else if still {
                    STATE.with(|s| {
                        if let Some(x) = s.all.iter_mut().find(|x| same(x, e.vnet, &e.inc)) {
                            x.rxmits += 1;
                            x.next = now + (SBT_1S << x.rxmits);
                        }
                    });
                }
                k::mtx_unlock(lock());
            });
        });
    }
}
