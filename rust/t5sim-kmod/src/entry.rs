//! Every function the C half calls. Each one turns its arguments into references and calls safe
//! code; contexts and ownership stand in `shim/t5sim/t5sim.h`.

use alloc::boxed::Box;
use core::ffi::{c_char, c_int};
use core::fmt::Write;

use t5sim::{Card, Config, TxQueue};
use toehold_sys::t5sim::{
    T5SIM_FAULT_DDP_OFF, T5SIM_FAULT_DROP, T5SIM_FAULT_FIND, T5SIM_FAULT_RESET,
    T5SIM_FAULT_STALE_TAG0, T5SIM_FAULT_STALE_TAG1, T5SIM_Q_CTRL, T5SIM_Q_OFLD, t5sim_card,
    t5sim_info, ts_sink,
};

use crate::aes;
use crate::conns;
use crate::descs;
use crate::host::Kernel;
use crate::knobs::{self, KNOBS, Refused};
use crate::stats::STATS;
use crate::tcb;
use crate::text::Text;

const ENOENT: c_int = 2;
const EIO: c_int = 5;
const EBUSY: c_int = 16;
const EINVAL: c_int = 22;
/// `T5SIM_NEVER`.
const NEVER: u64 = u64::MAX;
/// Bytes of a page pod in adapter memory.
const PPOD_SIZE: u32 = 64;

/// The card behind a handle.
///
/// # Safety
/// `card` came from `t5sim_card_new`, was not freed, and nobody changes the card meanwhile.
unsafe fn shared<'a>(card: *const t5sim_card) -> &'a Card {
    // SAFETY: the handle is a Card's address, by the caller's contract.
    unsafe { &*card.cast::<Card>() }
}

/// The card behind a handle, to change it.
///
/// # Safety
/// As [`shared`], and nobody reads it meanwhile either.
unsafe fn exclusive<'a>(card: *mut t5sim_card) -> &'a mut Card {
    // SAFETY: the handle is a Card's address, by the caller's contract.
    unsafe { &mut *card.cast::<Card>() }
}

/// Index of a queue, knob or statistic.
fn index(i: u32) -> usize {
    usize::try_from(i).unwrap_or(usize::MAX)
}

/// The number of entries of a table, as C counts them.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

/// Connections of the card, both ends of each counted: some thousand idle ones are measured.
pub(crate) const NTIDS: u32 = 8192;

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_card_new() -> *mut t5sim_card {
    knobs::new_card(Config {
        ntids: NTIDS,
        ..Config::default()
    })
    .map_or(core::ptr::null_mut(), |card| Box::into_raw(card).cast())
}

/// See `t5sim.h`.
///
/// # Safety
/// `card` came from [`t5sim_card_new`] and is not used again.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_free(card: *mut t5sim_card) {
    // SAFETY: the card was made by Box::into_raw, and this is its only other end.
    drop(unsafe { Box::from_raw(card.cast::<Card>()) });
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held; `info` may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_info(card: *const t5sim_card, info: *mut t5sim_info) {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let c = unsafe { shared(card) }.config();
    let described = t5sim_info {
        chip: match c.chip {
            wire::Chip::T4 => 4,
            wire::Chip::T5 => 5,
            wire::Chip::T6 => 6,
        },
        ntids: c.ntids,
        natids: c.natids,
        nstids: c.nstids,
        ddp_start: c.ddp_start,
        ddp_size: c.ppods.saturating_mul(PPOD_SIZE),
        tx_credits: u32::from(c.tx_credits),
        line_rate: u32::try_from(c.line_rate_bps / 1_000_000).unwrap_or(u32::MAX),
        page_shift: c.page_shifts,
        mtus: c.mtus,
        macs: c.macs,
    };
    // SAFETY: info may be written, by this function's contract.
    unsafe { info.write(described) };
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held; `wr` has `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_submit(
    card: *mut t5sim_card,
    now: u64,
    q: u32,
    idx: u32,
    wr: *const u8,
    len: usize,
) -> c_int {
    let queue = match (q, u8::try_from(idx)) {
        (T5SIM_Q_CTRL, Ok(port)) => TxQueue::Ctrl(port),
        (T5SIM_Q_OFLD, Ok(idx)) => TxQueue::Ofld(idx),
        _ => return EINVAL,
    };
    // SAFETY: wr has len bytes, by this function's contract.
    let wr = unsafe { core::slice::from_raw_parts(wr, len) };
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { exclusive(card) };
    match descs::requests(wr, |wr| card.submit(now, queue, wr)) {
        Ok(()) => 0,
        Err(_) => EINVAL,
    }
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held; `sink` is one that `ts_cpl` takes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_advance(
    card: *mut t5sim_card,
    now: u64,
    sink: *mut ts_sink,
) {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { exclusive(card) };
    // SAFETY: sink is valid during this call, and the value ends with it.
    let mut kernel = unsafe { Kernel::new(sink) };
    card.advance(now, &mut kernel);
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_next(card: *const t5sim_card) -> u64 {
    // SAFETY: a live card, and the card lock, by this function's contract.
    unsafe { shared(card) }.next_event().unwrap_or(NEVER)
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_fault(
    card: *mut t5sim_card,
    now: u64,
    fault: u32,
    arg: u32,
) -> c_int {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { exclusive(card) };
    let done = match fault {
        T5SIM_FAULT_RESET => card.link_reset(now, arg),
        T5SIM_FAULT_DDP_OFF => card.ddp_fall_out(arg),
        T5SIM_FAULT_STALE_TAG0 => card.stale_tag(arg, 0),
        T5SIM_FAULT_STALE_TAG1 => card.stale_tag(arg, 1),
        T5SIM_FAULT_DROP => {
            card.drop_segments(arg);
            true
        }
        T5SIM_FAULT_FIND => {
            card.find_lost(now);
            true
        }
        _ => return EINVAL,
    };
    if done { 0 } else { ENOENT }
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_reset(card: *mut t5sim_card, now: u64) {
    // SAFETY: a live card, and the card lock, by this function's contract.
    unsafe { exclusive(card) }.reset(now);
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held; `buf` has `len` bytes that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_check(
    card: *const t5sim_card,
    buf: *mut c_char,
    len: usize,
) -> c_int {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { shared(card) };
    let Err(broken) = card.check() else { return 0 };
    // SAFETY: buf has len bytes, by this function's contract.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
    let mut text = Text::new(buf);
    let _ = write!(text, "{broken}");
    text.terminate();
    EIO
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held; `buf` has `len` bytes that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_conn(
    card: *const t5sim_card,
    n: u32,
    buf: *mut c_char,
    len: usize,
) -> c_int {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { shared(card) };
    // SAFETY: buf has len bytes, by this function's contract.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
    let mut text = Text::new(buf);
    if !conns::write(card, index(n), &mut text) {
        return ENOENT;
    }
    text.terminate();
    0
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held; `to` has `T5SIM_TCB_SIZE` bytes that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_card_tcb(card: *const t5sim_card, tid: u32, to: *mut u8) {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { shared(card) };
    let image = tcb::image(card, tid);
    // SAFETY: that many bytes may be written, by this function's contract, and none of them is
    // on this function's stack.
    unsafe { to.copy_from_nonoverlapping(image.as_ptr(), image.len()) };
}

/// See `t5sim.h`.
///
/// # Safety
/// `enc` has `bits` / 8 bytes, and as many may be written to `dec`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_aes_deckey(dec: *mut u8, enc: *const u8, bits: u32) {
    let mut key = [0; 32];
    let (Some(key), 0) = (key.get_mut(..index(bits / 8)), bits % 8) else {
        return;
    };
    // SAFETY: enc has that many bytes, by this function's contract.
    unsafe { key.as_mut_ptr().copy_from_nonoverlapping(enc, key.len()) };
    if aes::deckey(key) {
        // SAFETY: that many bytes may be written, by this function's contract.
        unsafe { dec.copy_from_nonoverlapping(key.as_ptr(), key.len()) };
    }
}

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_nknobs() -> u32 {
    count(KNOBS.len())
}

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_knob_name(i: u32) -> *const c_char {
    KNOBS
        .get(index(i))
        .map_or(c"".as_ptr(), |k| k.name.as_ptr())
}

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_knob_descr(i: u32) -> *const c_char {
    KNOBS
        .get(index(i))
        .map_or(c"".as_ptr(), |k| k.descr.as_ptr())
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_knob_get(card: *const t5sim_card, i: u32) -> u64 {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { shared(card) };
    KNOBS.get(index(i)).map_or(0, |k| (k.get)(card.config()))
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_knob_set(card: *mut t5sim_card, i: u32, v: u64) -> c_int {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { exclusive(card) };
    match knobs::set(card, index(i), v) {
        Ok(()) => 0,
        Err(Refused::Range) => EINVAL,
        Err(Refused::Busy) => EBUSY,
    }
}

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_nstats() -> u32 {
    count(STATS.len())
}

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_stat_name(i: u32) -> *const c_char {
    STATS
        .get(index(i))
        .map_or(c"".as_ptr(), |s| s.name.as_ptr())
}

/// See `t5sim.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn t5sim_stat_descr(i: u32) -> *const c_char {
    STATS
        .get(index(i))
        .map_or(c"".as_ptr(), |s| s.descr.as_ptr())
}

/// See `t5sim.h`.
///
/// # Safety
/// The card lock is held.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn t5sim_stat_get(card: *const t5sim_card, i: u32) -> u64 {
    // SAFETY: a live card, and the card lock, by this function's contract.
    let card = unsafe { shared(card) };
    STATS.get(index(i)).map_or(0, |s| (s.get)(card.stats()))
}
