//! Tunables: the kernel environment, as loader.conf(5) and kenv(1) fill it.

use std::collections::BTreeMap;
use std::ffi::c_char;

use super::{Oid, path, query};
use crate::global::Global;
use crate::kp::{Kp, bytes_mut, cstr, poke};

static ENV: Global<BTreeMap<String, String>> = Global::new("kernel environment");

pub(super) fn boot() {
    ENV.init(BTreeMap::new());
}

pub(super) fn shutdown() {
    ENV.take();
}

/// `kenv name=value`: takes effect when a tunable of that name appears.
pub fn setenv(name: &str, value: &str) {
    ENV.with(|e| e.insert(name.to_string(), value.to_string()));
}

fn getenv(name: &str) -> Option<String> {
    ENV.with(|e| e.get(name).cloned())
}

/// Sets a CTLFLAG_TUN oid from the environment.
pub(super) fn load(oid: Kp<Oid>) {
    let name = path(oid);
    if let Some(v) = getenv(&name)
        && let Err(e) = query::write_text(oid, &v)
    {
        crate::console::write(&format!("Setting sysctl {name} failed: {e}\n"));
    }
}

/// `struct tunable_int` and its like: a path and a variable.
#[repr(C)]
struct Tunable {
    path: *const c_char,
    var: usize,
    size: i32,
}

fn parse(path: *const c_char) -> Option<i128> {
    let text = getenv(&cstr(path))?;
    let (text, unit) = match text.chars().last()?.to_ascii_lowercase() {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text.as_str(), 1),
    };
    text.parse::<i128>().ok().map(|v| v * unit)
}

fn fetch(path: *const c_char, var: usize, size: usize) -> i32 {
    match (parse(path), size) {
        (Some(v), 1) => poke(var, u8::from(v != 0)),
        (Some(v), 4) => poke(var, v as i32),
        (Some(v), _) => poke(var, v as i64),
        (None, _) => return 0,
    }
    1
}

extern "C" fn tunable_bool_init(t: Kp<Tunable>) {
    fetch(t.path, t.var, 1);
}
extern "C" fn tunable_int_init(t: Kp<Tunable>) {
    fetch(t.path, t.var, 4);
}
extern "C" fn tunable_64_init(t: Kp<Tunable>) {
    fetch(t.path, t.var, 8);
}
extern "C" fn tunable_str_init(t: Kp<Tunable>) {
    getenv_string(t.path, t.var as *mut u8, t.size);
}
extern "C" fn getenv_bool(path: *const c_char, var: usize) -> i32 {
    fetch(path, var, 1)
}
extern "C" fn getenv_int(path: *const c_char, var: usize) -> i32 {
    fetch(path, var, 4)
}
extern "C" fn getenv_64(path: *const c_char, var: usize) -> i32 {
    fetch(path, var, 8)
}
extern "C" fn getenv_string(path: *const c_char, to: *mut u8, size: i32) -> i32 {
    let Some(text) = getenv(&cstr(path)) else {
        return 0;
    };
    let Ok(size) = usize::try_from(size) else {
        return 0;
    };
    if size == 0 {
        return 0;
    }
    let n = text.len().min(size - 1);
    let to = bytes_mut(to, size);
    to[..n].copy_from_slice(&text.as_bytes()[..n]);
    to[n] = 0;
    1
}
crate::exports! {
    "tunable_bool_init" => tunable_bool_init,
    "tunable_int_init" => tunable_int_init,
    "tunable_long_init" => tunable_64_init,
    "tunable_ulong_init" => tunable_64_init,
    "tunable_int64_init" => tunable_64_init,
    "tunable_uint64_init" => tunable_64_init,
    "tunable_quad_init" => tunable_64_init,
    "tunable_str_init" => tunable_str_init,
    "getenv_bool" => getenv_bool,
    "getenv_int" => getenv_int,
    "getenv_long" => getenv_64,
    "getenv_ulong" => getenv_64,
    "getenv_quad" => getenv_64,
    "getenv_int64" => getenv_64,
    "getenv_uint64" => getenv_64,
    "getenv_string" => getenv_string,
}
