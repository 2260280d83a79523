//! The kernel's part of a passive open.

use core::ptr::NonNull;

use crate::inp::{Inp, InpGuard, Vnet};
use crate::l2::L2;
use crate::mbuf::Mbuf;
use crate::mem::Cookie;
use crate::{Error, check, sys, tom::Tom};

/// May this SYN be offloaded? The headers named in `s` must lie in the first mbuf. In the net
/// epoch, curvnet set, no lock.
///
/// # Errors
/// ENOENT: drop it. EOPNOTSUPP: the host stack may have it.
pub fn check_syn(
    tom: Tom,
    s: &sys::th_syn,
    m: &Mbuf,
    vnet: Vnet,
) -> Result<(sys::th_vi, L2), Error> {
    let mut vi = sys::th_vi::default();
    let mut l2 = core::ptr::null_mut();
    // SAFETY: live handle, owned chain; the results are written, not kept.
    check(unsafe {
        sys::th_syn_check(tom.as_ptr(), s, m.as_ptr(), vnet.as_ptr(), &mut vi, &mut l2)
    })?;
    let e = NonNull::new(l2).ok_or(Error::ENOMEM)?;
    // SAFETY: th_syn_check() said 0 and so gave a use of the entry.
    Ok((vi, unsafe { L2::adopt(tom, e) }))
}

/// Put the SYN in the syncache. Releases the listener's lock.
pub fn syncache_add(tom: Tom, s: &sys::th_syn, m: &Mbuf, listener: InpGuard, synqe: Cookie) {
    let inp = listener.inp();
    listener.surrender();
    // SAFETY: live handle, owned chain; the lock is held and released by the call; `synqe` is
    // kept under toehold_synqe_added()'s reference only.
    unsafe { sys::th_syncache_add(tom.as_ptr(), s, m.as_ptr(), inp.as_ptr(), synqe.as_ptr()) };
}

/// What the kernel chose for its SYN|ACK, and where the SYN's headers are.
#[derive(Clone, Copy, Debug)]
pub struct Expand {
    /// Offset of the IP header in the SYN's mbuf.
    pub l3_off: u32,
    /// Offset of the TCP header.
    pub tcp_off: u32,
    /// Our initial sequence number.
    pub iss: u32,
    /// The peer's.
    pub irs: u32,
    /// The timestamp we sent, if timestamps are in use.
    pub ts: Option<u32>,
}

/// The handshake is done: make the socket. Returns the new connection, locked.
pub fn syncache_expand(
    tom: Tom,
    syn: &Mbuf,
    e: &Expand,
    listener: &mut InpGuard,
    synqe: Cookie,
) -> Option<InpGuard> {
    // SAFETY: live handle, owned chain, the listener's lock is held, net epoch.
    let inp = unsafe {
        sys::th_syncache_expand(
            tom.as_ptr(),
            syn.as_ptr(),
            e.l3_off,
            e.tcp_off,
            e.iss,
            e.irs,
            e.ts.is_some(),
            e.ts.unwrap_or(0),
            listener.inp().as_ptr(),
            synqe.as_ptr(),
        )
    };
    let inp = NonNull::new(inp)?;
    // SAFETY: a live inpcb, locked.
    let inp = unsafe { Inp::from_raw(inp) };
    // SAFETY: returned write locked, for us to unlock.
    Some(unsafe { InpGuard::adopt(inp) })
}

/// The syncache shall not wait for the answer to this SYN any longer. In the net epoch, curvnet
/// set; the listener may be locked.
pub fn syncache_forget(syn: &Mbuf, l3_off: u32, tcp_off: u32, irs: u32) {
    // SAFETY: owned chain, looked at during the call only.
    unsafe { sys::th_syncache_forget(syn.as_ptr(), l3_off, tcp_off, irs) };
}

/// The host stack shall have the SYN.
pub fn to_host(tom: Tom, port: u32, m: Mbuf) {
    // SAFETY: live handle; the chain is handed over.
    unsafe { sys::th_syn_to_host(tom.as_ptr(), port, m.into_raw()) };
}
