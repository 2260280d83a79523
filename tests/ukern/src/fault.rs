//! Failure injection: which of the kernel's fallible services fail, and when.

use std::collections::BTreeMap;

use crate::global::Global;
use crate::rng::Rng;

/// When a service fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Plan {
    /// Never.
    #[default]
    Never,
    /// At the n-th call from now, counted from 1, and only then.
    Nth(u64),
    /// At every call from the n-th on.
    From(u64),
    /// Once in n calls, by the seed.
    OneIn(u32),
}

#[derive(Default)]
struct Point {
    plan: Plan,
    calls: u64,
    failed: u64,
}

struct State {
    points: BTreeMap<&'static str, Point>,
    rng: Rng,
}

static STATE: Global<State> = Global::new("failure injection");

pub(crate) fn boot(seed: u64) {
    STATE.init(State {
        points: BTreeMap::new(),
        rng: Rng::new(seed ^ 0xfa11),
    });
}

pub(crate) fn shutdown() {
    STATE.take();
}

/// Asked by a service at each call that may fail: should this one?
///
/// Points: `malloc` (M_NOWAIT malloc), `uma` (M_NOWAIT uma_zalloc), `mbuf` (M_NOWAIT mbufs and
/// clusters), `vmem`, `pages`, `toe_syncache_expand` (an ACK to be dropped: -1), and whatever other
/// modules name.
pub fn hit(point: &'static str) -> bool {
    STATE.with(|s| {
        let p = s.points.entry(point).or_default();
        p.calls += 1;
        let fail = match p.plan {
            Plan::Never => false,
            Plan::Nth(n) => p.calls == n,
            Plan::From(n) => p.calls >= n,
            Plan::OneIn(n) => s.rng.one_in(n),
        };
        p.failed += u64::from(fail);
        fail
    })
}

/// Sets a plan and starts counting calls from zero.
pub fn set(point: &'static str, plan: Plan) {
    STATE.with(|s| {
        s.points.insert(
            point,
            Point {
                plan,
                ..Point::default()
            },
        );
    });
}

/// Calls and failures of a point since its plan was set.
#[must_use]
pub fn count(point: &'static str) -> (u64, u64) {
    STATE.with(|s| s.points.get(point).map_or((0, 0), |p| (p.calls, p.failed)))
}
