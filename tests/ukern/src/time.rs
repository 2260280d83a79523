//! Clock variables and functions.

use crate::ksym::KData;
use crate::sched::{self, HZ, SBT_1S, SBT_1US, Sbt};
use crate::sys;

static TICKS: KData = KData::of::<i32>("ticks");
static TICKSL: KData = KData::of::<i64>("ticksl");
static TIME_UPTIME: KData = KData::of::<i64>("time_uptime");
static TIME_SECOND: KData = KData::of::<i64>("time_second");
static HZ_VAR: KData = KData::of::<i32>("hz").with_init(|p| crate::kp::poke(p as usize, HZ as i32));
static TICK: KData =
    KData::of::<i32>("tick").with_init(|p| crate::kp::poke(p as usize, (1_000_000 / HZ) as i32));
static TICK_SBT: KData =
    KData::of::<i64>("tick_sbt").with_init(|p| crate::kp::poke(p as usize, SBT_1S / HZ));
static TC_TICK_SBT: KData =
    KData::of::<i64>("tc_tick_sbt").with_init(|p| crate::kp::poke(p as usize, SBT_1S / HZ));
static SBT_TICKTHRESHOLD: KData = KData::of::<i64>("sbt_tickthreshold");
static BOOTTIME: i64 = 1_700_000_000;

crate::exports_data! { TICKS, TICKSL, TIME_UPTIME, TIME_SECOND, HZ_VAR, TICK, TICK_SBT, TC_TICK_SBT, SBT_TICKTHRESHOLD }

/// Called by the scheduler when the clock has passed a tick.
pub(crate) fn set_ticks(ticks: i64, now: Sbt) {
    // The real counter starts near its wrap to flush out wrong comparisons; so does this one.
    let t = ticks.wrapping_add(i64::from(i32::MAX) - 10 * 60 * HZ);
    *TICKS.get::<i32>() = t as i32;
    *TICKSL.get::<i64>() = t;
    *TIME_UPTIME.get::<i64>() = now >> 32;
    *TIME_SECOND.get::<i64>() = BOOTTIME + (now >> 32);
}

/// `ticks` as C code reads it.
#[must_use]
pub fn ticks() -> i32 {
    *TICKS.get::<i32>()
}

/// Ticks to virtual time; 0 means no limit, as in msleep.
#[must_use]
pub fn ticks_to_sbt(ticks: i32) -> Option<Sbt> {
    if ticks == 0 {
        None
    } else {
        Some(i64::from(ticks) * (SBT_1S / HZ))
    }
}

extern "C" fn sbinuptime() -> Sbt {
    // Reading the clock takes time, so a loop that polls it ends.
    sched::spend(SBT_1US / 16);
    sched::now_sbt()
}

extern "C" fn getsbinuptime() -> Sbt {
    let tick = SBT_1S / HZ;
    sched::now_sbt() / tick * tick
}

extern "C" fn delay(us: i32) {
    sched::spend(i64::from(us.max(0)) * SBT_1US);
    sched::yield_point();
}

fn timeval(sbt: Sbt, secs: i64) -> sys::timeval {
    let frac = sbt & (SBT_1S - 1);
    sys::timeval {
        tv_sec: secs + (sbt >> 32),
        tv_usec: ((i128::from(frac) * 1_000_000) >> 32) as i64,
    }
}

extern "C" fn microuptime(tv: crate::Kp<sys::timeval>) {
    let mut tv = tv;
    *tv = timeval(sched::now_sbt(), 0);
}

extern "C" fn getmicrouptime(tv: crate::Kp<sys::timeval>) {
    let mut tv = tv;
    *tv = timeval(getsbinuptime(), 0);
}

extern "C" fn microtime(tv: crate::Kp<sys::timeval>) {
    let mut tv = tv;
    *tv = timeval(sched::now_sbt(), BOOTTIME);
}

/// At most `maxpps` true answers a second; `lasttime` and `curpps` are the caller's.
extern "C" fn ppsratecheck(
    lasttime: crate::Kp<sys::timeval>,
    curpps: crate::Kp<i32>,
    maxpps: i32,
) -> i32 {
    let (mut last, mut cur) = (lasttime, curpps);
    let now = timeval(sched::now_sbt(), 0);
    if last.tv_sec == 0 && last.tv_usec == 0 || now.tv_sec != last.tv_sec {
        *last = now;
        *cur = 1;
        return i32::from(maxpps != 0);
    }
    *cur = cur.saturating_add(1);
    i32::from(maxpps < 0 || *cur <= maxpps)
}

/// True when `mininterval` has passed since `lasttime`, which is then set to now.
extern "C" fn ratecheck(
    lasttime: crate::Kp<sys::timeval>,
    mininterval: crate::Kp<sys::timeval>,
) -> i32 {
    let mut last = lasttime;
    let now = timeval(sched::now_sbt(), 0);
    let us = |t: &sys::timeval| t.tv_sec * 1_000_000 + t.tv_usec;
    if us(&last) == 0 || us(&now) - us(&last) >= us(&mininterval) {
        *last = now;
        return 1;
    }
    0
}

extern "C" fn binuptime(bt: crate::Kp<sys::bintime>) {
    let mut bt = bt;
    let now = sched::now_sbt();
    bt.sec = now >> 32;
    bt.frac = ((now & (SBT_1S - 1)) as u64) << 32;
}

crate::exports! {
    "sbinuptime" => sbinuptime,
    "binuptime" => binuptime,
    "getsbinuptime" => getsbinuptime,
    "DELAY" => delay,
    "microuptime" => microuptime,
    "getmicrouptime" => getmicrouptime,
    "microtime" => microtime,
    "getmicrotime" => microtime,
    "ppsratecheck" => ppsratecheck,
    "eventratecheck" => ppsratecheck,
    "ratecheck" => ratecheck,
}
