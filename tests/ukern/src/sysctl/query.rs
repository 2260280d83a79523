//! sysctl(8): reading and setting oids by name, on a kernel thread.

use std::ffi::c_void;
use std::fmt;

use super::{Oid, ROOT, child, children, is_node, list, path};
use crate::kp::{Kp, bytes, bytes_mut, cstr};
use crate::{epoch, locks, sched, sys, vnet};

/// What an oid reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A string.
    Text(String),
    /// Several numbers of 64 bits (counter arrays), or any other bytes.
    Opaque(Vec<u8>),
}

impl Value {
    /// The number; `None` for strings and bytes.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(v) => Some(*v),
            Value::Uint(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// The number as unsigned.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(v) => u64::try_from(*v).ok(),
            Value::Uint(v) => Some(*v),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(v) => write!(f, "{v}"),
            Value::Uint(v) => write!(f, "{v}"),
            Value::Text(s) => f.write_str(s),
            Value::Opaque(b) => {
                let hex: Vec<_> = b.iter().map(|x| format!("{x:02x}")).collect();
                f.write_str(&hex.join(""))
            }
        }
    }
}

fn find(name: &str) -> Option<Kp<Oid>> {
    let mut at = ROOT.addr();
    let mut oid = None;
    for part in name.split('.') {
        let o = child(at, part)?;
        at = children(o);
        oid = Some(o);
    }
    oid
}

unsafe extern "C" fn old(req: *mut sys::sysctl_req, p: *const c_void, len: usize) -> i32 {
    let mut req = Kp::new(req);
    if let Some(mut out) = Kp::opt(req.oldptr.cast::<Vec<u8>>()) {
        out.extend_from_slice(bytes(p.cast(), len));
    }
    req.oldidx += len;
    0
}

unsafe extern "C" fn new(req: *mut sys::sysctl_req, p: *mut c_void, len: usize) -> i32 {
    let mut req = Kp::new(req);
    if req.newptr.is_null() {
        return 0;
    }
    if req.newlen - req.newidx < len {
        return sys::EINVAL as i32;
    }
    let from = bytes((req.newptr as usize + req.newidx) as *const u8, len);
    bytes_mut(p.cast(), len).copy_from_slice(from);
    req.newidx += len;
    0
}

/// Runs the handler; `write` replaces the value.
pub(super) fn run(mut oid: Kp<Oid>, write: Option<&[u8]>) -> Result<Vec<u8>, i32> {
    let Some(handler) = oid.oid_handler else {
        return Err(sys::EINVAL as i32);
    };
    let mut out: Vec<u8> = Vec::new();
    // SAFETY: `struct sysctl_req` is plain C data.
    let mut req: sys::sysctl_req = unsafe { std::mem::zeroed() };
    req.td = sched::current_thread().ptr();
    req.lock = sys::REQ_UNWIRED as i32;
    req.oldptr = (&raw mut out).cast();
    req.oldlen = usize::MAX / 2;
    req.validlen = req.oldlen;
    req.oldfunc = Some(old);
    req.newfunc = Some(new);
    if let Some(w) = write {
        req.newptr = w.as_ptr().cast();
        req.newlen = w.len();
    }
    let mut arg1 = oid.oid_arg1;
    if oid.oid_kind & sys::CTLFLAG_VNET != 0 && !arg1.is_null() {
        let base = Kp::new(vnet::curvnet()).vnet_data_base;
        arg1 = base.wrapping_add(arg1 as usize) as *mut c_void;
    }
    oid.oid_running += 1;
    // SAFETY: the handler the oid was registered with, with its own arguments and a live request.
    let e = unsafe { handler(oid.ptr(), arg1, oid.oid_arg2, &raw mut req) };
    locks::check_none_held("sysctl handler returned");
    epoch::check_none("sysctl handler returned");
    oid.oid_running -= 1;
    if oid.oid_running == 0 {
        sched::wakeup(oid.addr());
    }
    if e == 0 { Ok(out) } else { Err(e) }
}

fn decode(oid: Kp<Oid>, data: Vec<u8>) -> Value {
    let mut w = [0; 8];
    let n = data.len().min(8);
    w[..n].copy_from_slice(&data[..n]);
    let u = u64::from_le_bytes(w);
    match oid.oid_kind & sys::CTLTYPE {
        sys::CTLTYPE_INT | sys::CTLTYPE_S32 if n == 4 => Value::Int(i64::from(u as i32)),
        sys::CTLTYPE_LONG | sys::CTLTYPE_S64 if data.len() == 8 => Value::Int(u as i64),
        sys::CTLTYPE_S16 if n == 2 => Value::Int(i64::from(u as i16)),
        sys::CTLTYPE_S8 if n == 1 => Value::Int(i64::from(u as i8)),
        sys::CTLTYPE_UINT | sys::CTLTYPE_U32 if n == 4 => Value::Uint(u),
        sys::CTLTYPE_ULONG | sys::CTLTYPE_U64 if data.len() == 8 => Value::Uint(u),
        sys::CTLTYPE_U16 | sys::CTLTYPE_U8 => Value::Uint(u),
        sys::CTLTYPE_STRING => {
            let end = data.iter().position(|&b| b == 0).unwrap_or(data.len());
            Value::Text(String::from_utf8_lossy(&data[..end]).into_owned())
        }
        _ => Value::Opaque(data),
    }
}

fn encode(oid: Kp<Oid>, text: &str) -> Result<Vec<u8>, i32> {
    let bad = |_| sys::EINVAL as i32;
    let wide = || text.parse::<i128>().map_err(bad);
    Ok(match oid.oid_kind & sys::CTLTYPE {
        sys::CTLTYPE_STRING => text.as_bytes().to_vec(),
        sys::CTLTYPE_U8 | sys::CTLTYPE_S8 => (wide()? as u8).to_le_bytes().to_vec(),
        sys::CTLTYPE_U16 | sys::CTLTYPE_S16 => (wide()? as u16).to_le_bytes().to_vec(),
        sys::CTLTYPE_INT | sys::CTLTYPE_S32 => {
            text.parse::<i32>().map_err(bad)?.to_le_bytes().to_vec()
        }
        sys::CTLTYPE_UINT | sys::CTLTYPE_U32 => {
            text.parse::<u32>().map_err(bad)?.to_le_bytes().to_vec()
        }
        sys::CTLTYPE_LONG | sys::CTLTYPE_S64 => {
            text.parse::<i64>().map_err(bad)?.to_le_bytes().to_vec()
        }
        sys::CTLTYPE_ULONG | sys::CTLTYPE_U64 => {
            text.parse::<u64>().map_err(bad)?.to_le_bytes().to_vec()
        }
        _ => return Err(sys::EINVAL as i32),
    })
}

pub(super) fn write_text(oid: Kp<Oid>, text: &str) -> Result<(), i32> {
    run(oid, Some(&encode(oid, text)?)).map(|_| ())
}

/// Reads an oid by name: ENOENT when there is none, EISDIR for a node.
pub fn get(name: &str) -> Result<Value, i32> {
    let oid = find(name).ok_or(sys::ENOENT as i32)?;
    if is_node(oid) && oid.oid_handler.is_none() {
        return Err(sys::EISDIR as i32);
    }
    if oid.oid_kind & sys::CTLFLAG_RD == 0 {
        return Err(sys::EPERM as i32);
    }
    Ok(decode(oid, run(oid, None)?))
}

/// Writes an oid by name: EPERM when it is read-only.
pub fn set(name: &str, text: &str) -> Result<(), i32> {
    let oid = find(name).ok_or(sys::ENOENT as i32)?;
    if is_node(oid) {
        return Err(sys::EISDIR as i32);
    }
    if oid.oid_kind & sys::CTLFLAG_WR == 0 {
        return Err(sys::EPERM as i32);
    }
    write_text(oid, text)
}

fn walk(at: usize, out: &mut Vec<(String, Value)>) {
    for o in list(at) {
        if is_node(o) {
            walk(children(o), out);
        } else if o.oid_kind & (sys::CTLFLAG_SKIP | sys::CTLFLAG_RD) == sys::CTLFLAG_RD
            && let Ok(v) = run(o, None)
        {
            out.push((path(o), decode(o, v)));
        }
    }
}

/// Every readable leaf below a name, in order of registration; all of them for "".
#[must_use]
pub fn tree(name: &str) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    if name.is_empty() {
        walk(ROOT.addr(), &mut out);
    } else if let Some(o) = find(name) {
        if is_node(o) {
            walk(children(o), &mut out);
        } else if let Ok(v) = get(name) {
            out.push((cstr(o.oid_name), v));
        }
    }
    out
}
