//! `sim.*`: what can be changed of a card.

use alloc::boxed::Box;
use core::ffi::CStr;

use t5sim::{Card, Config};

use crate::text::c_str;

/// A number that is too large for its field.
pub(crate) struct TooLarge;

/// One knob.
pub(crate) struct Knob {
    pub(crate) name: &'static CStr,
    pub(crate) descr: &'static CStr,
    pub(crate) get: fn(&Config) -> u64,
    set: fn(&mut Config, u64) -> Result<(), TooLarge>,
}

macro_rules! knobs {
    ($($name:ident = $($field:ident).+, $descr:literal;)*) => {
        &[$(Knob {
            name: c_str(concat!(stringify!($name), "\0")),
            descr: c_str(concat!($descr, "\0")),
            get: |c| u64::from(c.$($field).+),
            set: |c, v| {
                c.$($field).+ = v.try_into().map_err(|_| TooLarge)?;
                Ok(())
            },
        },)*]
    };
}

/// All of them. Times are ns, rates parts per million.
pub(crate) static KNOBS: &[Knob] = knobs! {
    seed = seed, "seed of all that is random";
    line_rate = line_rate_bps, "bits per second of a port";
    wire_delay = wire_delay, "propagation delay of the wire, ns";
    ack_delay = ack_delay, "longest time an acknowledgement is held back, ns";
    host_delay = host_delay, "from an event in the card to its CPL, ns";
    wr_delay = wr_delay, "from the doorbell to a work request's execution, ns";
    credit_delay = credit_delay, "longest time credits stay unreported, ns";
    seg_min = seg_min, "shortest segment, bytes";
    seg_max = seg_max, "longest segment, bytes";
    rto = rto, "retransmission timeout, ns";
    max_rexmt = max_rexmt, "tries before a connection is given up";
    indicate_hold = indicate_hold, "wait for a DDP buffer before data is indicated, ns";
    indicate_size = indicate_size, "most bytes of one indicate, 0: no limit";
    push_timer = push_timer, "DDP push timer, ns, 0: none";
    loss = faults.drop_ppm, "segments the wire loses, ppm";
    dup = faults.dup_ppm, "segments the wire delivers twice, ppm";
    reorder = faults.reorder_ppm, "segments the wire holds back, ppm";
    reorder_delay = faults.reorder_delay, "for how long, ns";
    reset = faults.reset_ppm, "segments after which the wire resets, ppm";
    invalidate_delay = faults.invalidate_delay, "before an invalidate takes effect, ns";
    set_tcb_rpl_delay = faults.set_tcb_rpl_delay, "extra time before a SET_TCB_RPL, ns";
    ddp_off = faults.ddp_off_ppm, "segments that end DDP, ppm";
    retransmit_delay = faults.retransmit_delay, "extra time before a retransmission, ns";
    wr_jitter = faults.wr_jitter, "random extra latency of a work request, ns";
    cpl_jitter = faults.cpl_jitter, "random extra latency of a CPL, ns";
    abort_delay = faults.abort_delay, "before an abort takes effect, ns";
    lose_set_tcb_rpl = faults.lose.set_tcb_rpl_ppm, "SET_TCB_RPLs not given, ppm";
    lose_abort_rpl = faults.lose.abort_rpl_ppm, "ABORT_RPLs not given, ppm";
    lose_close_con_rpl = faults.lose.close_con_rpl_ppm, "CLOSE_CON_RPLs not given, ppm";
    lose_fw4_ack = faults.lose.fw4_ack_ppm, "FW4_ACKs not given, ppm";
};

/// Why a knob stays as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// No such value.
    Range,
    /// The card has connections, listeners or work under way.
    Busy,
}

/// Changes knob number `i`. Faults change at once. Anything else makes a new card of the same
/// kind, with counters at zero, and needs one that has nothing to lose.
pub(crate) fn set(card: &mut Card, i: usize, v: u64) -> Result<(), Refused> {
    let knob = KNOBS.get(i).ok_or(Refused::Range)?;
    let old = card.config();
    let mut cfg = old.clone();
    (knob.set)(&mut cfg, v).map_err(|TooLarge| Refused::Range)?;
    if (knob.get)(old) == v {
        return Ok(());
    }
    if cfg.faults != old.faults {
        card.set_faults(cfg.faults);
        return Ok(());
    }
    let mut fresh = new_card(cfg).ok_or(Refused::Range)?;
    if !idle(card) {
        return Err(Refused::Busy);
    }
    core::mem::swap(card, &mut fresh);
    Ok(())
}

/// A card on the heap; a function of its own, for a kernel stack is small.
#[inline(never)]
pub(crate) fn new_card(cfg: Config) -> Option<Box<Card>> {
    Card::new(cfg).ok().map(Box::new)
}

fn idle(card: &Card) -> bool {
    let wrs = &card.stats().wrs;
    card.next_event().is_none()
        && card.connections().next().is_none()
        && wrs.pass_open == wrs.close_listsrv
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn index(name: &CStr) -> usize {
        KNOBS.iter().position(|k| k.name == name).unwrap()
    }

    #[test]
    fn each_knob_sets_what_it_gets() {
        let names: BTreeSet<_> = KNOBS.iter().map(|k| k.name).collect();
        assert_eq!(names.len(), KNOBS.len());
        let mut c = Config::default();
        for (i, k) in KNOBS.iter().enumerate() {
            let v = 100 + i as u64;
            assert!((k.set)(&mut c, v).is_ok());
            assert_eq!((k.get)(&c), v, "{:?}", k.name);
        }
        // None of them overwrote another.
        for (i, k) in KNOBS.iter().enumerate() {
            assert_eq!((k.get)(&c), 100 + i as u64, "{:?}", k.name);
        }
    }

    #[test]
    fn out_of_range_changes_nothing() {
        let mut card = Card::new(Config::default()).unwrap();
        let (seg, rate) = (index(c"seg_max"), index(c"line_rate"));
        assert_eq!(set(&mut card, seg, 9000), Ok(()));
        assert_eq!(card.config().seg_max, 9000);
        assert_eq!(set(&mut card, seg, 1 << 40), Err(Refused::Range));
        assert_eq!(set(&mut card, seg, 0), Err(Refused::Range));
        assert_eq!(set(&mut card, rate, 5), Err(Refused::Range));
        assert_eq!(set(&mut card, KNOBS.len(), 1), Err(Refused::Range));
        assert_eq!(card.config().seg_max, 9000);
        assert_eq!(card.config().line_rate_bps, Config::default().line_rate_bps);
    }

    #[test]
    fn a_card_at_work_only_takes_faults() {
        let mut card = Card::new(Config::default()).unwrap();
        card.frame_in(0, 0, &[0; 60]);
        assert!(card.next_event().is_some());
        assert_eq!(set(&mut card, index(c"rto"), 7_000_000), Err(Refused::Busy));
        assert_eq!(set(&mut card, index(c"rto"), Config::default().rto), Ok(()));
        assert_eq!(set(&mut card, index(c"loss"), 1000), Ok(()));
        assert_eq!(card.config().faults.drop_ppm, 1000);
        assert!(card.next_event().is_some());
    }
}
