//! SYN cookies: what the entry would hold, in the sequence number of the SYN|ACK.
//!
//! Of what the peer asked for, eight bits are kept: its segment size and its window scale, each
//! rounded down to one of eight, and whether it knows SACK.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::entry::{self, Entry, LIFETIME};
use crate::kp::Kp;
use crate::net::acc::{SocketExt, inc_faddr, inc_laddr};
use crate::net::tcp_usrreq;
use crate::{sched, sys};

/// `tcp_sc_msstab` and `tcp_sc_wstab`.
const MSS: [u16; 8] = [216, 536, 1200, 1360, 1400, 1440, 1452, 1460];
const SCALE: [u8; 8] = [0, 0, 1, 2, 4, 6, 7, 8];

/// The largest of the table that is not above `x`, else the first.
fn index<T: PartialOrd + Copy>(table: [T; 8], x: T) -> u8 {
    table.iter().rposition(|t| *t <= x).unwrap_or(0) as u8
}

/// `syncookie_mac` under the secret of a period.
fn mac(v: usize, inc: &sys::in_conninfo, irs: u32, bits: u8, period: i64) -> u32 {
    let mut h = DefaultHasher::new();
    (inc_faddr(inc), inc_laddr(inc)).hash(&mut h);
    (inc.inc_ie.ie_fport, inc.inc_ie.ie_lport).hash(&mut h);
    (v, irs, bits, period).hash(&mut h);
    h.finish() as u32
}

/// The secret of now: one a lifetime.
fn period() -> i64 {
    sched::now_sbt() / LIFETIME
}

/// `syncookie_generate`: the sequence number to answer with.
pub(super) fn make(e: &Entry) -> u32 {
    let scale = e.scale.map_or(0, |(peer, _)| index(SCALE, peer));
    let period = period();
    let bits =
        index(MSS, e.peer_mss) | scale << 3 | u8::from(e.sack) << 6 | ((period & 1) as u8) << 7;
    let h = mac(e.vnet, &e.inc, e.irs, bits, period);
    h & !0xff | u32::from(bits) ^ h >> 24
}

/// `syncookie_lookup`, `syncookie_expand`: the entry of an ACK that carries a cookie of ours.
pub(super) fn open(
    v: usize,
    inc: &sys::in_conninfo,
    to: Kp<sys::tcpopt>,
    th: Kp<sys::tcphdr>,
    lso: Kp<sys::socket>,
) -> Option<Entry> {
    let (iss, irs) = (th.th_ack.wrapping_sub(1), th.th_seq.wrapping_sub(1));
    let bits = (iss & 0xff ^ iss >> 24) as u8;
    // Two secrets are known: this period's and the one before.
    let now = period();
    let period = now - i64::from((now & 1) as u8 != bits >> 7);
    if mac(v, inc, irs, bits, period) & !0xff != iss & !0xff {
        return None;
    }
    let scale = usize::from(bits >> 3 & 7);
    Some(Entry {
        vnet: v,
        inc: *inc,
        lport: inc.inc_ie.ie_lport,
        tod: 0,
        ctx: 0,
        irs,
        iss,
        wnd: lso.sol().sol_sbrcv_hiwat.min(65_535),
        peer_mss: MSS[usize::from(bits & 7)],
        scale: (scale > 0).then(|| (SCALE[scale], tcp_usrreq::window_scale())),
        ts: (to.to_flags & sys::TOF_TS != 0).then(|| (to.to_tsval, entry::ts_offset(v, inc))),
        sack: bits >> 6 & 1 != 0,
        tos: 0,
        rxmits: 0,
        next: 0,
    })
}
