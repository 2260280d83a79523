//! The work requests of DDP: enable, page pods, arm, invalidate. All go to the control queue,
//! whose order is what makes them safe: pods are there before the buffer that uses them.

use wire::{Compound, DdpBuf, PagePod, PpodTag, ReplyCtrl, SetTcbField, UlpTxMemWrite};

use super::{COOKIE_DDP0, page_count};
use crate::os::{Counter, Os, Queue};
use crate::pageset::SetPods;
use crate::ppod::{self, PPODS_PER_WR};
use crate::shared::Shared;
use crate::wr::NotSent;

/// Write what is not written yet of a set's page pods.
///
/// # Errors
/// `pods.written` says how far it went; call again.
pub(crate) fn write_ppods<O: Os>(sh: &mut Shared<O>, os: &mut O, slot: u16) -> Result<(), NotSent> {
    let geo = os.geometry();
    let (chip, tid) = (sh.id.chip, sh.id.tid);
    let Shared { sets, wrs, .. } = sh;
    let Some((key, pages, Some(pods))) = sets.pods_mut(slot) else {
        return Ok(());
    };
    let shift = shift_of(&geo, pods);
    let tag = tag_of(pods);
    let offset = super::page_off(key.addr, 0);
    while pods.written < pods.ppods.count() {
        let n = (pods.ppods.count() - pods.written).min(PPODS_PER_WR);
        let count = usize::try_from(n).unwrap_or(0);
        let addr = geo.addr(&pods.ppods, pods.written);
        let first = pods.written;
        let len = key.len;
        let mut buf = [0; UlpTxMemWrite::len(wire::MAX_IMM_PPODS)];
        let buf = buf.get_mut(..UlpTxMemWrite::len(count)).unwrap_or_default();
        wrs.send(os, Queue::Ctrl, buf, |b| {
            let mut m = UlpTxMemWrite {
                addr,
                pods: Default::default(),
                count,
            };
            for (i, p) in (first..).zip(m.pods.iter_mut().take(count)) {
                *p = PagePod {
                    valid: true,
                    tid,
                    tag,
                    len,
                    offset,
                    addrs: ppod::pod_addrs(pages, shift, i),
                };
            }
            m.emit(chip, b).map(drop)
        })?;
        pods.written += n;
        os.count(Counter::PpodWrs, 1);
        os.count(Counter::PpodsWritten, u64::from(n));
    }
    Ok(())
}

/// Take page pods for a set, in the largest page size that fits it.
pub(crate) fn take_ppods<O: Os>(sh: &mut Shared<O>, os: &mut O, slot: u16) -> bool {
    let shifts = os.geometry().page_shifts();
    let Some(pages) = sh.sets.pages(slot) else {
        return false;
    };
    let size_idx = ppod::choose_size(pages, shifts);
    let shift = shifts.get(usize::from(size_idx)).copied().unwrap_or(12);
    let n = ppod::ppods_for(page_count(pages), shift);
    let mut ppods = os.ppod_alloc(n);
    if ppods.is_none() && sh.sets.shed_ppods(os) > 0 {
        ppods = os.ppod_alloc(n);
    }
    match (ppods, sh.sets.pods_mut(slot)) {
        (Some(ppods), Some((_, _, pods))) => {
            *pods = Some(SetPods {
                ppods,
                size_idx,
                written: 0,
            });
            true
        }
        (Some(ppods), None) => {
            os.ppod_free(ppods);
            false
        }
        (None, _) => {
            os.count(Counter::NoPpods, 1);
            false
        }
    }
}

/// Turn DDP on with no buffer valid, coalescing off; the reply to the second (cookie
/// [`COOKIE_DDP0`], word [`wire::W_T_FLAGS`]) says that it is on.
pub(crate) fn enable<O: Os>(sh: &mut Shared<O>, os: &mut O) -> Result<(), NotSent> {
    let (tid, rxq) = (sh.id.tid, sh.id.rxq);
    // The connection was opened as plain TCP, and words 26 to 31 may hold another mode's state.
    let mut buf = [0; Compound::len(7, 0)];
    sh.wrs.send(os, Queue::Ctrl, &mut buf, |b| {
        let mut c = Compound::begin(b, true, tid, rxq)?;
        for u in &wire::ddp_clear() {
            c.set_tcb(u, None)?;
        }
        c.set_tcb(&wire::ulp_mode_tcpddp(), None)?;
        c.set_tcb(&wire::rx_flow_control_ddp(), None)?;
        c.set_tcb(&wire::ddp_on(), None)?;
        c.set_tcb(&wire::coalesce_off(), Some(COOKIE_DDP0))?;
        c.finish()
    })
}

/// What a buffer is armed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) buf: DdpBuf,
    /// First byte goes here.
    pub(crate) off: u32,
    /// End of the buffer.
    pub(crate) end: u32,
    /// No other buffer is posted: make this the active one.
    pub(crate) only: bool,
    /// Complete it with the first bytes (non-blocking socket).
    pub(crate) flush: bool,
}

/// Post a buffer: tag, place, flags and a nudge, in one atomic request.
pub(crate) fn arm<O: Os>(sh: &mut Shared<O>, os: &mut O, slot: u16, a: Arm) -> Result<(), NotSent> {
    let (tid, rxq) = (sh.id.tid, sh.id.rxq);
    let tag = sh.sets.pods(slot).map_or(0, tag_of);
    let updates = wire::arm(a.buf, tag, a.off, a.end, a.only, a.flush);
    let mut buf = [0; Compound::len(3, 1)];
    sh.wrs.send(os, Queue::Ctrl, &mut buf, |b| {
        let mut c = Compound::begin(b, true, tid, rxq)?;
        for u in &updates {
            c.set_tcb(u, None)?;
        }
        c.rx_modulate()?;
        c.finish()
    })
}

/// Take a buffer back. The reply's old value tells how far it was filled. With `next` the other
/// buffer becomes the active one in the same write.
pub(crate) fn invalidate<O: Os>(
    sh: &mut Shared<O>,
    os: &mut O,
    buf: DdpBuf,
    next: bool,
) -> Result<(), NotSent> {
    let mut u = wire::invalidate(buf);
    if next {
        // The flags word is the upper half of the pair at word 26 and the lower of that at 27.
        let bit = match buf {
            DdpBuf::B0 => wire::TF_DDP_ACTIVE_BUF << 32,
            DdpBuf::B1 => wire::TF_DDP_ACTIVE_BUF,
        };
        u.mask |= bit;
        if buf.other() == DdpBuf::B1 {
            u.value |= bit;
        }
    }
    let (tid, rxq) = (sh.id.tid, sh.id.rxq);
    let cookie = match buf {
        DdpBuf::B0 => COOKIE_DDP0,
        DdpBuf::B1 => super::COOKIE_DDP1,
    };
    let req = SetTcbField {
        tid,
        reply: ReplyCtrl::reply_to(rxq),
        word: u.word,
        cookie,
        mask: u.mask,
        val: u.value,
    };
    let mut buf = [0; SetTcbField::LEN];
    sh.wrs.send(os, Queue::Ctrl, &mut buf, |b| req.emit(b))
}

/// DDP tag of a reservation: page size and byte offset in the region, color 0.
pub(crate) fn tag_of(pods: &SetPods) -> u32 {
    let offset = pods.ppods.first().wrapping_mul(ppod::PPOD_SIZE);
    PpodTag::new(pods.size_idx, offset).0
}

fn shift_of(geo: &ppod::Geometry, pods: &SetPods) -> u8 {
    let shifts = geo.page_shifts();
    shifts
        .get(usize::from(pods.size_idx))
        .copied()
        .unwrap_or(12)
}
