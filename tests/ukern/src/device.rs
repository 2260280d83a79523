//! `device_t` stand-ins: a name, a unit, and a sysctl context and node, made by a test or by another
//! part of ukern. There is no newbus here.

use std::ffi::{CString, c_char, c_void};

use crate::global::Global;
use crate::kp::Kp;
use crate::{kpanic, sysctl};

struct Device {
    nameunit: CString,
    name: CString,
    unit: i32,
    softc: usize,
    desc: CString,
    /// `struct sysctl_ctx_list` of the device.
    ctx: usize,
    tree: usize,
}

static DEVICES: Global<Vec<Option<Box<Device>>>> = Global::new("devices");
/// Handles are numbers no module can mistake for memory.
const FIRST: usize = 0xde00_0000;

pub(crate) fn boot() {
    DEVICES.init(Vec::new());
}

pub(crate) fn shutdown() {
    DEVICES.take();
}

/// Makes a device with its node `dev.<name>.<unit>`; returns the `device_t`.
///
/// # Panics
/// On a name with a NUL: a mistake of the test.
#[must_use]
pub fn attach(name: &str, unit: i32) -> usize {
    let c = |s: String| CString::new(s).expect("no NUL in a device name");
    let (ctx, tree) = sysctl::device_node(name, unit);
    DEVICES.with(|d| {
        d.push(Some(Box::new(Device {
            nameunit: c(format!("{name}{unit}")),
            name: c(name.to_string()),
            unit,
            softc: 0,
            desc: c(String::new()),
            ctx,
            tree,
        })));
        FIRST + d.len() - 1
    })
}

/// Removes the device and its sysctl tree.
pub fn detach(dev: usize) {
    let d = DEVICES.with(|all| all.get_mut(dev.wrapping_sub(FIRST)).and_then(Option::take));
    match d {
        Some(d) => sysctl::device_node_free(d.ctx),
        None => kpanic!("detach of {dev:#x}, which is no device"),
    }
}

fn with<R>(dev: usize, f: impl FnOnce(&mut Device) -> R) -> R {
    let r = DEVICES.with(|d| {
        d.get_mut(dev.wrapping_sub(FIRST))
            .and_then(Option::as_mut)
            .map(|d| f(d))
    });
    match r {
        Some(r) => r,
        None => kpanic!("{dev:#x} is no device"),
    }
}

/// "t5nex0".
#[must_use]
pub fn nameunit(dev: usize) -> String {
    with(dev, |d| d.nameunit.to_string_lossy().into_owned())
}

extern "C" fn device_get_nameunit(dev: usize) -> *const c_char {
    with(dev, |d| d.nameunit.as_ptr())
}
extern "C" fn device_get_name(dev: usize) -> *const c_char {
    with(dev, |d| d.name.as_ptr())
}
extern "C" fn device_get_unit(dev: usize) -> i32 {
    with(dev, |d| d.unit)
}
extern "C" fn device_get_softc(dev: usize) -> *mut c_void {
    with(dev, |d| d.softc as *mut c_void)
}
extern "C" fn device_set_softc(dev: usize, sc: usize) {
    with(dev, |d| d.softc = sc);
}
extern "C" fn device_get_desc(dev: usize) -> *const c_char {
    with(dev, |d| d.desc.as_ptr())
}
extern "C" fn device_get_sysctl_ctx(dev: usize) -> Kp<c_void> {
    Kp::new(with(dev, |d| d.ctx) as *mut c_void)
}
extern "C" fn device_get_sysctl_tree(dev: usize) -> Kp<c_void> {
    Kp::new(with(dev, |d| d.tree) as *mut c_void)
}
extern "C" fn device_is_attached(dev: usize) -> i32 {
    with(dev, |_| 1)
}

crate::exports! {
    "device_get_nameunit" => device_get_nameunit,
    "device_get_name" => device_get_name,
    "device_get_unit" => device_get_unit,
    "device_get_softc" => device_get_softc,
    "device_set_softc" => device_set_softc,
    "device_get_desc" => device_get_desc,
    "device_get_sysctl_ctx" => device_get_sysctl_ctx,
    "device_get_sysctl_tree" => device_get_sysctl_tree,
    "device_is_attached" => device_is_attached,
}
