//! Transmit credits of one connection.
//!
//! The firmware counts work requests in units of 16 bytes and gives the units back, in order
//! and by whole work requests, with CPL_FW4_ACK. A ring keeps what each of them carried
//! (`struct ofld_tx_sdesc`).

/// Payload bytes one work request may carry at most: the ring packs them into 26 bits.
pub const MAX_PLEN: u32 = (1 << 26) - 1;
/// Credits of the longest work request (512 bytes).
pub const MAX_WR_CREDITS: u8 = 32;
static_assertions::const_assert_eq!(MAX_WR_CREDITS as usize * 16, wire::MAX_WR_LEN);
/// Credits of the shortest that carries payload: its header and one byte.
pub const MIN_TX_CREDITS: u16 = 2;
/// Credits kept aside for one CPL_ABORT_REQ.
pub const ABORT_CREDITS: u16 = 2;
/// Entries of the ring. CPL_FW4_ACK gives credits in a byte, so a connection has at most 255.
pub const RING: usize = 128;

/// The adapter gave back what it had not been given, or part of a work request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadCredits;

/// Credits and the ring of unacknowledged work requests. `R` has [`RING`] words, in memory of
/// their own or not.
#[derive(Clone, Debug)]
pub struct TxCredits<R> {
    /// plen << 6 | credits, oldest at `cidx`.
    ring: R,
    cidx: u8,
    used: u8,
    total: u16,
    avail: u16,
    /// Credits of work requests since the last that asked for a completion.
    nocompl: u16,
    /// Payload bytes of the same.
    plen_nocompl: u32,
    /// Payload bytes in the ring.
    plen: u32,
}

impl<R: AsRef<[u32]> + AsMut<[u32]>> TxCredits<R> {
    /// None, until the firmware grants some.
    pub fn new(ring: R) -> TxCredits<R> {
        TxCredits {
            ring,
            cidx: 0,
            used: 0,
            total: 0,
            avail: 0,
            nocompl: 0,
            plen_nocompl: 0,
            plen: 0,
        }
    }

    /// `wr_cred` is what the firmware grants a connection (`params.ofldq_wr_cred`); one abort's
    /// worth is set aside. Nothing was taken yet.
    pub fn grant(&mut self, wr_cred: u16) {
        self.total = wr_cred.min(255).saturating_sub(ABORT_CREDITS);
        self.avail = self.total;
    }

    /// Credits free now.
    #[must_use]
    pub fn avail(&self) -> u16 {
        self.avail
    }

    /// Credits when nothing is outstanding.
    #[must_use]
    pub fn total(&self) -> u16 {
        self.total
    }

    /// Payload bytes handed over and not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.plen
    }

    /// Work requests outstanding.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        usize::from(self.used)
    }

    /// True if a work request of `credits` can be sent.
    #[must_use]
    pub fn can_take(&self, credits: u8) -> bool {
        u16::from(credits) <= self.avail && usize::from(self.used) < RING
    }

    /// True if the bookkeeping asks for a completion with a work request of this size: credits
    /// are down to 3/8 and a sixteenth of them went out with no completion asked for.
    #[must_use]
    pub fn wants_compl(&self, credits: u8) -> bool {
        let left = u32::from(self.avail.saturating_sub(u16::from(credits)));
        let quiet = u32::from(self.nocompl) + u32::from(credits);
        let total = u32::from(self.total);
        left * 8 <= total * 3 && quiet * 16 >= total
    }

    /// A completion was asked for and has not come.
    #[must_use]
    pub fn completion_due(&self) -> bool {
        self.total - self.avail > self.nocompl
    }

    /// More than half of the credits are out, and some will come back by themselves.
    #[must_use]
    pub fn scarce(&self) -> bool {
        self.avail < self.total / 2 && self.completion_due()
    }

    /// Payload bytes that went out since a completion was last asked for.
    #[must_use]
    pub fn plen_nocompl(&self) -> u32 {
        self.plen_nocompl
    }

    /// Account for a work request that was sent.
    ///
    /// # Errors
    /// There is no room ([`TxCredits::can_take`] says so before), or a size is out of range.
    pub fn take(&mut self, credits: u8, plen: u32, compl: bool) -> Result<(), BadCredits> {
        if credits == 0 || credits > MAX_WR_CREDITS || plen > MAX_PLEN || !self.can_take(credits) {
            return Err(BadCredits);
        }
        let at = (usize::from(self.cidx) + usize::from(self.used)) % RING;
        let slot = self.ring.as_mut().get_mut(at).ok_or(BadCredits)?;
        *slot = plen << 6 | u32::from(credits);
        self.used += 1;
        self.avail -= u16::from(credits);
        self.plen = self.plen.wrapping_add(plen);
        if compl {
            self.nocompl = 0;
            self.plen_nocompl = 0;
        } else {
            self.nocompl += u16::from(credits);
            self.plen_nocompl = self.plen_nocompl.saturating_add(plen);
        }
        Ok(())
    }

    /// `credits` came back (CPL_FW4_ACK). Returns the payload bytes they stood for.
    ///
    /// # Errors
    /// More than was outstanding, or part of a work request: nothing is changed then.
    pub fn give_back(&mut self, credits: u8) -> Result<u32, BadCredits> {
        let (mut left, mut n, mut plen) = (credits, 0u8, 0u32);
        while left > 0 {
            if n >= self.used {
                return Err(BadCredits);
            }
            let at = (usize::from(self.cidx) + usize::from(n)) % RING;
            let d = *self.ring.as_ref().get(at).ok_or(BadCredits)?;
            left = left.checked_sub((d & 63) as u8).ok_or(BadCredits)?;
            plen = plen.wrapping_add(d >> 6);
            n += 1;
        }
        self.cidx = ((usize::from(self.cidx) + usize::from(n)) % RING) as u8;
        self.used -= n;
        self.avail += u16::from(credits);
        self.plen = self.plen.wrapping_sub(plen);
        // The firmware also returns credits unasked: what is back cannot be waiting.
        self.nocompl = self.nocompl.min(self.total - self.avail);
        self.plen_nocompl = self.plen_nocompl.min(self.plen);
        Ok(plen)
    }

    /// Forget what is outstanding: everything is acknowledged or given up. Returns its payload.
    pub fn forget(&mut self) -> u32 {
        let plen = self.plen;
        self.avail = self.total;
        (self.cidx, self.used) = (0, 0);
        (self.nocompl, self.plen_nocompl, self.plen) = (0, 0, 0);
        plen
    }

    /// Credits and payload are conserved.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check(&self) -> Result<(), &'static str> {
        let (mut credits, mut plen) = (0u32, 0u32);
        for n in 0..usize::from(self.used) {
            let d = self.ring.as_ref().get((usize::from(self.cidx) + n) % RING);
            let d = *d.ok_or("txsd ring index")?;
            credits += d & 63;
            plen = plen.wrapping_add(d >> 6);
        }
        if u32::from(self.avail) + credits != u32::from(self.total) {
            return Err("tx credits are not conserved");
        }
        if plen != self.plen {
            return Err("payload of the txsd ring does not add up");
        }
        if u32::from(self.nocompl) > credits {
            return Err("more credits without completion than outstanding");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> TxCredits<[u32; RING]> {
        let mut c = TxCredits::new([0; RING]);
        c.grant(40);
        assert_eq!(c.take(5, 1000, false), Ok(()));
        assert_eq!(c.check(), Ok(()));
        c
    }

    #[test]
    fn the_check_sees_what_does_not_add_up() {
        let mut c = some();
        c.avail += 1;
        assert_eq!(c.check(), Err("tx credits are not conserved"));
        let mut c = some();
        c.plen += 1;
        assert_eq!(c.check(), Err("payload of the txsd ring does not add up"));
        let mut c = some();
        c.nocompl = 6;
        assert_eq!(
            c.check(),
            Err("more credits without completion than outstanding")
        );
    }
}
