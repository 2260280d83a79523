//! What the syncache holds, and the one bucket it lies in.

use std::collections::BTreeMap;

use crate::global::Global;
use crate::kp::Kp;
use crate::ksym::KData;
use crate::net::inpcb::Tuple;
use crate::net::{k, tcp_vars};
use crate::sched::{self, SBT_1S, Sbt};
use crate::{kpanic, sys};

static SC_LOCK: KData = KData::of::<sys::mtx>("ukern_tcp_sc_head");

crate::exports_data! { SC_LOCK }

/// Entries there may be: 512 buckets of 30, as FreeBSD has them.
pub const BUCKET: usize = 512 * 30;
/// SYNCOOKIE_LIFETIME, and TCP_SYNCACHE_PAUSE_TIME.
pub(super) const LIFETIME: Sbt = 15 * SBT_1S;
/// TCP_SYNCACHE_MAX_BACKOFF.
const MAX_BACKOFF: u32 = 6;

/// The release whose syncache this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rules {
    /// 12.1 and 12.2.
    Fbsd12,
    /// 14 and 15.
    #[default]
    Fbsd14,
}

/// What a SYN asked for and what we answered.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(super) vnet: usize,
    pub(super) inc: sys::in_conninfo,
    pub(super) lport: u16,
    pub(super) tod: usize,
    pub(super) ctx: usize,
    pub(crate) irs: u32,
    pub(crate) iss: u32,
    pub(crate) wnd: u32,
    pub(crate) peer_mss: u16,
    /// The peer's window scale, and ours; `None` when not negotiated.
    pub(crate) scale: Option<(u8, u8)>,
    /// The peer's timestamp and our offset; `None` when not negotiated.
    pub(crate) ts: Option<(u32, u32)>,
    pub(crate) sack: bool,
    pub(super) tos: u8,
    pub(super) rxmits: u32,
    pub(super) next: Sbt,
}

/// A pause of a stack's syncache: cookies alone until then.
#[derive(Clone, Copy, Default)]
struct Pause {
    until: Sbt,
    backoff: u32,
}

/// All of it.
#[derive(Default)]
pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) bucket: usize,
    /// The oldest first.
    pub(super) all: Vec<Entry>,
    /// `sch_last_overflow`.
    last_overflow: Option<Sbt>,
    pauses: BTreeMap<usize, Pause>,
    /// `tcp_new_ts_offset`: the same for the same connection.
    ts_offsets: BTreeMap<(usize, Tuple), u32>,
}

static STATE: Global<State> = Global::new("syncache");

/// Runs `f` on it.
pub(super) fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    STATE.with(f)
}

/// What the timer sleeps on.
pub(super) fn chan() -> usize {
    (&raw const STATE) as usize
}

pub(super) fn lock() {
    k::mtx_lock(SC_LOCK.get::<sys::mtx>().ptr());
}

pub(super) fn unlock() {
    k::mtx_unlock(SC_LOCK.get::<sys::mtx>().ptr());
}

pub(super) fn boot() {
    k::mtx_init(SC_LOCK.get::<sys::mtx>().ptr(), c"tcp_sc_head", 0);
    STATE.init(State {
        bucket: BUCKET,
        ..State::default()
    });
}

pub(crate) fn shutdown() {
    STATE.take();
}

/// Entries there are now.
pub(crate) fn count() -> usize {
    with(|s| s.all.len())
}

/// It is the release's syncache.
pub(super) fn is(r: Rules) -> bool {
    with(|s| s.rules == r)
}

/// Is this the connection's entry?
pub(super) fn same(e: &Entry, v: usize, inc: &sys::in_conninfo) -> bool {
    e.vnet == v && Tuple::of_inc(&e.inc) == Tuple::of_inc(inc)
}

/// `syncache_lookup`.
pub(super) fn find(v: usize, inc: &sys::in_conninfo) -> Option<Entry> {
    with(|s| s.all.iter().find(|e| same(e, v, inc)).copied())
}

/// The timestamp offset of a connection.
pub(super) fn ts_offset(v: usize, inc: &sys::in_conninfo) -> u32 {
    let key = (v, Tuple::of_inc(inc));
    let old = with(|s| s.ts_offsets.get(&key).copied());
    old.unwrap_or_else(|| {
        let new = sched::random_u64() as u32;
        with(|s| s.ts_offsets.insert(key, new));
        new
    })
}

/// `V_tcp_syncookies`.
pub(super) fn cookies(v: usize) -> bool {
    tcp_vars::get(v as *mut _, &tcp_vars::SYNCOOKIES) != 0
}

/// `V_tcp_syncookiesonly`.
pub(super) fn only(v: usize) -> bool {
    tcp_vars::get(v as *mut _, &tcp_vars::SYNCOOKIESONLY) != 0
}

fn paused(v: usize) -> bool {
    let until = with(|s| s.pauses.get(&v).map_or(0, |p| p.until));
    sched::now_sbt() < until
}

/// `syncache_cookiesonly`: entries are neither made nor looked at.
pub(super) fn cookies_only(v: usize) -> bool {
    is(Rules::Fbsd14) && (only(v) || cookies(v) && paused(v))
}

/// Cookies are worth a look: one may have been sent instead of an entry.
pub(super) fn overflowed(now: Sbt) -> bool {
    with(|s| s.last_overflow.is_some_and(|at| now - at <= LIFETIME))
}

/// `syncache_pause`.
fn pause(v: usize, now: Sbt) {
    if !cookies(v) || paused(v) {
        return;
    }
    with(|s| {
        let p = s.pauses.entry(v).or_default();
        let mut delta = LIFETIME << p.backoff;
        if p.until != 0 && p.until + delta > now {
            if p.backoff < MAX_BACKOFF {
                delta <<= 1;
                p.backoff += 1;
            }
        } else {
            (delta, p.backoff) = (LIFETIME, 0);
        }
        p.until = now + delta;
    });
}

/// The entry's stack makes do with cookies: its entries go when their timer comes.
pub(super) fn given_up(e: &Entry) -> bool {
    is(Rules::Fbsd14) && cookies(e.vnet) && paused(e.vnet)
}

/// `syncache_insert`. Takes the bucket lock.
pub(super) fn insert(e: Entry) {
    lock();
    let oldest = with(|s| {
        let full = s.all.len() >= s.bucket;
        s.all.first().copied().filter(|_| full)
    });
    if let Some(old) = oldest {
        if is(Rules::Fbsd14) {
            pause(e.vnet, sched::now_sbt());
        }
        with(|s| s.last_overflow = Some(sched::now_sbt()));
        remove(&old);
    }
    with(|s| s.all.push(e));
    if let Some(t) = Kp::<sys::toedev>::opt(e.tod as *mut _) {
        let Some(f) = t.tod_syncache_added else {
            kpanic!("tod_syncache_added is NULL")
        };
        // SAFETY: the driver's method with the context it gave, under the bucket lock.
        unsafe { f(t.ptr(), e.ctx as *mut _) };
    }
    unlock();
    sched::wakeup(chan());
}

/// `syncache_drop`: takes the entry off and tells the driver. Bucket lock held.
pub(super) fn remove(e: &Entry) {
    with(|s| s.all.retain(|x| !same(x, e.vnet, &e.inc)));
    if let Some(tod) = Kp::<sys::toedev>::opt(e.tod as *mut _) {
        let Some(f) = tod.tod_syncache_removed else {
            kpanic!("tod_syncache_removed is NULL")
        };
        // SAFETY: the driver's method with the context it gave, under the bucket lock.
        unsafe { f(tod.ptr(), e.ctx as *mut _) };
    }
}

/// Changes the entry where it lies.
pub(super) fn update(e: &Entry, f: impl FnOnce(&mut Entry)) {
    with(|s| {
        if let Some(x) = s.all.iter_mut().find(|x| same(x, e.vnet, &e.inc)) {
            f(x);
        }
    });
}
