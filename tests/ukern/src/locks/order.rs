//! The order of lock types, learnt as locks are taken, and the register of initialised locks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::c_char;

use super::{Class, Place};
use crate::fxhash::FxSet;
use crate::global::Global;
use crate::kp::{Kp, cstr};
use crate::{kpanic, sched, sys};

#[derive(Default)]
struct Order {
    ids: HashMap<String, u32>,
    names: Vec<&'static str>,
    /// Types taken while holding this one.
    after: Vec<Vec<u32>>,
    edges: FxSet<(u32, u32)>,
    /// Where an edge was first seen.
    seen: HashMap<(u32, u32), String>,
    /// Initialised locks: address to type.
    live: BTreeMap<usize, u32>,
}

static ORDER: Global<Order> = Global::new("lock order");

pub(crate) fn boot() {
    ORDER.init(Order::default());
}

pub(crate) fn shutdown() {
    ORDER.take();
}

/// The mark an enrolled lock carries in `lo_witness`.
fn mark(id: u32) -> *mut sys::witness {
    // Odd, so never mistaken for a pointer.
    ((id as usize) << 1 | 1) as *mut sys::witness
}

pub(super) fn type_of(lo: Kp<sys::lock_object>) -> u32 {
    (lo.lo_witness as usize >> 1) as u32
}

pub(super) fn is_enrolled(lo: Kp<sys::lock_object>) -> bool {
    let w = lo.lo_witness as usize;
    w & 1 == 1 && ORDER.with(|o| (w >> 1) < o.names.len())
}

pub(super) fn name(id: u32) -> String {
    ORDER.with(|o| {
        o.names
            .get(id as usize)
            .map_or_else(|| format!("type {id}"), |s| (*s).to_string())
    })
}

pub(super) fn wmesg(lo: Kp<sys::lock_object>) -> &'static str {
    ORDER.with(|o| o.names.get(type_of(lo) as usize).copied().unwrap_or("lock"))
}

/// Gives the lock the number of its type.
pub(super) fn enroll(mut lo: Kp<sys::lock_object>, type_: *const c_char) {
    let text = cstr(type_);
    let id = ORDER.with(|o| {
        let id = match o.ids.get(&text) {
            Some(&id) => id,
            None => {
                let id = o.names.len() as u32;
                o.names.push(crate::names::intern(&text));
                o.after.push(Vec::new());
                o.ids.insert(text, id);
                id
            }
        };
        o.live.insert(lo.addr(), id);
        id
    });
    lo.lo_witness = mark(id);
}

pub(super) fn retire(addr: usize) {
    ORDER.with(|o| o.live.remove(&addr));
}

pub(super) fn is_live(addr: usize) -> bool {
    ORDER.with(|o| o.live.contains_key(&addr))
}

/// Memory goes away: locks in it must not be held, and are forgotten.
pub(super) fn forget_range(addr: usize, len: usize, what: &dyn Fn() -> String) {
    let inside: Vec<usize> = ORDER.with(|o| {
        if o.live.is_empty() {
            Vec::new()
        } else {
            o.live.range(addr..addr + len).map(|(&a, _)| a).collect()
        }
    });
    for a in inside {
        if let Some((tid, h)) = sched::holder_of(a) {
            kpanic!(
                "{} contains a held lock: {h} by {}",
                what(),
                sched::thread_name(tid)
            );
        }
        retire(a);
    }
}

fn reaches(after: &[Vec<u32>], from: u32, to: u32) -> Option<Vec<u32>> {
    let mut seen = HashSet::new();
    let mut path = vec![(from, 0_usize)];
    while let Some(&mut (node, ref mut i)) = path.last_mut() {
        if node == to {
            return Some(path.iter().map(|p| p.0).collect());
        }
        let next = after.get(node as usize).and_then(|a| a.get(*i)).copied();
        *i += 1;
        match next {
            Some(n) if seen.insert(n) => path.push((n, 0)),
            Some(_) => {}
            None => {
                path.pop();
            }
        }
    }
    None
}

/// Checks the acquisition against every lock held, and learns from it.
pub(super) fn check(lo: Kp<sys::lock_object>, class: Class, opts: u32, place: Place) {
    let me = sched::current();
    if me.held.is_empty() || lo.lo_flags & sys::LO_WITNESS == 0 {
        return;
    }
    let new = type_of(lo);
    for h in &me.held {
        if h.addr == lo.addr() {
            continue;
        }
        if h.class == Class::Spin && class != Class::Spin {
            kpanic!(
                "acquiring {} \"{}\" @ {place} while holding {h}",
                class.name(),
                name(new)
            );
        }
        if h.type_ == new {
            if (lo.lo_flags & sys::LO_DUPOK) == 0 && (opts & sys::LOP_DUPOK) == 0 {
                kpanic!(
                    "acquiring duplicate lock of same type \"{}\" @ {place} while holding {h}",
                    name(new)
                );
            }
            continue;
        }
        let edge = (h.type_, new);
        let reversal = ORDER.with(|o| {
            if o.edges.contains(&edge) {
                return None;
            }
            if let Some(path) = reaches(&o.after, new, h.type_) {
                let mut text = String::new();
                for w in path.windows(2) {
                    let (a, b) = (w[0], w[1]);
                    let at = o.seen.get(&(a, b)).cloned().unwrap_or_default();
                    text += &format!(
                        "  \"{}\" then \"{}\" {at}\n",
                        o.names[a as usize], o.names[b as usize]
                    );
                }
                return Some(text);
            }
            o.edges.insert(edge);
            o.after[edge.0 as usize].push(edge.1);
            o.seen.insert(
                edge,
                format!("first at {} then {place}, thread {}", h.place, me.name),
            );
            None
        });
        if let Some(path) = reversal {
            kpanic!(
                "lock order reversal: acquiring \"{}\" @ {place} while holding {h}\nthe other order:\n{path}",
                name(new)
            );
        }
    }
}
