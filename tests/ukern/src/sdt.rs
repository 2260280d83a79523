//! SDT probes: a test enables probes of loaded modules and counts how often they fire.
//!
//! A disabled probe is a five-byte nop in the module's text. Enabling it does what dtrace(1M) makes
//! the kernel do: it patches the nop into a jump to the call of `sdt_probe`.

use std::collections::BTreeMap;

use crate::global::Global;
use crate::kp::{Kp, bytes, bytes_mut, cstr};
use crate::lowmem::{self, PAGE, Perm};
use crate::{kpanic, loader, sys};

/// One firing: the probe's name ("provider:module:function:name") and its first five arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Full name.
    pub probe: String,
    /// Arguments as words.
    pub args: [u64; 5],
}

#[derive(Default)]
struct State {
    names: BTreeMap<u32, String>,
    fired: Vec<Firing>,
}

static STATE: Global<State> = Global::new("sdt");

/// The nop of the amd64 headers.
const NOP5: [u8; 5] = [0x66, 0x0f, 0x1f, 0x04, 0x00];

pub(crate) fn boot() {
    STATE.init(State::default());
}

pub(crate) fn shutdown() {
    STATE.take();
}

fn full_name(p: Kp<sys::sdt_probe>) -> String {
    let prov = Kp::opt(p.prov).map_or_else(String::new, |p| cstr(p.name));
    format!("{prov}:{}:{}:{}", cstr(p.mod_), cstr(p.func), cstr(p.name))
}

/// Enables every probe of a loaded file whose full name contains `part`; returns their names.
pub fn enable(file: &str, part: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, len) in loader::sections(file, "set_sdt_tracepoint_set") {
        for i in 0..len / size_of::<sys::sdt_tracepoint>() {
            let t: Kp<sys::sdt_tracepoint> =
                Kp::new((at + i * size_of::<sys::sdt_tracepoint>()) as *mut sys::sdt_tracepoint);
            let mut probe: Kp<sys::sdt_probe> = Kp::new(t.probe);
            let name = full_name(probe);
            if !name.contains(part) {
                continue;
            }
            patch(t.patchpoint as usize, t.target as usize);
            let id = STATE.with(|s| {
                let id = s.names.iter().find(|(_, n)| **n == name).map(|(&id, _)| id);
                let id = id.unwrap_or(s.names.len() as u32 + 1);
                s.names.insert(id, name.clone());
                id
            });
            probe.id = i64::from(id);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn patch(at: usize, to: usize) {
    let old = bytes(at as *const u8, 5);
    if old[0] == 0xe9 {
        return;
    }
    if old != NOP5 {
        kpanic!("the tracepoint at {at:#x} is no nop: {old:02x?}");
    }
    let rel = (to as i64 - (at as i64 + 5)) as i32;
    let page = at & !(PAGE - 1);
    let len = (at + 5 - page).next_multiple_of(PAGE);
    lowmem::protect(page, len, Perm::Rw);
    let code = bytes_mut(at as *mut u8, 5);
    code[0] = 0xe9;
    code[1..].copy_from_slice(&rel.to_le_bytes());
    lowmem::protect(page, len, Perm::Rx);
}

/// Takes what fired since the last call.
#[must_use]
pub fn take() -> Vec<Firing> {
    STATE.with(|s| std::mem::take(&mut s.fired))
}

extern "C" fn sdt_probe(id: u32, a: u64, b: u64, c: u64, d: u64, e: u64) {
    STATE.with(|s| {
        if let Some(name) = s.names.get(&id) {
            let probe = name.clone();
            s.fired.push(Firing {
                probe,
                args: [a, b, c, d, e],
            });
        }
    });
}

crate::exports! {
    "sdt_probe" => sdt_probe,
    "sdt_probe6" => sdt_probe,
}
