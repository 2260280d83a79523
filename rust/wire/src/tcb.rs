//! The TCB: 32 words of connection state in adapter memory, and the updates DDP needs.
//!
//! A SET_TCB_FIELD names a word and gives a 64-bit mask and value: it changes that word and the
//! next (of which it holds the upper 32 bits). A reply carries the 64 bits as they were before.

/// ULP type.
pub const W_ULP_TYPE: u8 = 0;
/// Flags of the connection: Nagle, flow control, coalescing.
pub const W_T_FLAGS: u8 = 1;
/// Word of TX_MAX, the highest sequence number sent. The next begins with SND_UNA_RAW: how far below
/// it the oldest unacknowledged byte is, in 28 bits.
pub const W_TX_MAX: u8 = 9;
/// DDP buffer 0: offset in bits 23:0, length in bits 47:24.
pub const W_RX_DDP_BUF0: u8 = 26;
/// DDP flags; in the word pair at 27 they are bits 16 to 39.
pub const W_RX_DDP_FLAGS: u8 = 27;
/// DDP buffer 1: offset in bits 31:8, length in bits 55:32.
pub const W_RX_DDP_BUF1: u8 = 28;
/// DDP tag of buffer 0; buffer 1's is the next word.
pub const W_RX_DDP_BUF0_TAG: u8 = 30;

/// Largest offset or length of a DDP buffer.
pub const MAX_DDP_LEN: u32 = 0x00ff_ffff;

/// `T_FLAGS`: Nagle's algorithm.
pub const TF_NAGLE: u64 = 1 << 7;
/// `T_FLAGS`: DDP'd bytes are not charged against the receive window.
pub const TF_RX_FLOW_CONTROL_DDP: u64 = 1 << 9;
/// `T_FLAGS`: coalesce received segments.
pub const TF_RCV_COALESCE_ENABLE: u64 = 1 << 29;

/// DDP flags: indicate that data left DDP.
pub const TF_DDP_INDICATE_OUT: u64 = 1 << 16;
/// DDP flags: the buffer being filled.
pub const TF_DDP_ACTIVE_BUF: u64 = 1 << 17;
/// DDP flags: DDP is off.
pub const TF_DDP_OFF: u64 = 1 << 18;
/// DDP flags: buffer 0 may be filled; buffer 1's bit is 8 up, as are the four that follow.
pub const TF_DDP_BUF0_VALID: u64 = 1 << 24;
/// DDP flags: tell the host of data that meets an invalid buffer.
pub const TF_DDP_BUF0_INDICATE: u64 = 1 << 25;
/// DDP flags: complete the buffer at once with what it has.
pub const TF_DDP_BUF0_FLUSH: u64 = 1 << 26;
/// DDP flags: PSHF_ENABLE. FreeBSD sets it, with PSH_NO_INVALIDATE, for buffers of its own that
/// collect a stream, and clears it for a program's buffer.
pub const TF_DDP_PSHF_ENABLE_0: u64 = 1 << 27;
/// DDP flags: PSH does not complete the buffer.
pub const TF_DDP_PUSH_DISABLE_0: u64 = 1 << 28;
/// DDP flags: PSH reports, but leaves the buffer valid.
pub const TF_DDP_PSH_NO_INVALIDATE0: u64 = 1 << 29;

/// Bits between a flag of buffer 0 and the same of buffer 1.
const BUF1_SHIFT: u32 = 8;

/// One of the two DDP buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DdpBuf {
    /// Buffer 0.
    B0,
    /// Buffer 1.
    B1,
}

impl DdpBuf {
    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            DdpBuf::B0 => 0,
            DdpBuf::B1 => 1,
        }
    }

    /// From an index; anything but 0 is buffer 1.
    #[must_use]
    pub const fn from_index(i: usize) -> DdpBuf {
        if i == 0 { DdpBuf::B0 } else { DdpBuf::B1 }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> DdpBuf {
        match self {
            DdpBuf::B0 => DdpBuf::B1,
            DdpBuf::B1 => DdpBuf::B0,
        }
    }

    /// A flag of buffer 0 as this buffer has it.
    #[must_use]
    pub const fn flag(self, of_buf0: u64) -> u64 {
        match self {
            DdpBuf::B0 => of_buf0,
            DdpBuf::B1 => of_buf0 << BUF1_SHIFT,
        }
    }
}

/// One change of a TCB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcbUpdate {
    /// First word.
    pub word: u8,
    /// Bits that change.
    pub mask: u64,
    /// What they become.
    pub value: u64,
}

/// Switch the connection to `ULP_MODE_TCPDDP`.
#[must_use]
pub const fn ulp_mode_tcpddp() -> TcbUpdate {
    TcbUpdate {
        word: W_ULP_TYPE,
        mask: 0xf,
        value: crate::opt::UlpMode::TcpDdp as u64,
    }
}

/// DDP'd bytes are not charged against the receive window any more.
#[must_use]
pub const fn rx_flow_control_ddp() -> TcbUpdate {
    TcbUpdate {
        word: W_T_FLAGS,
        mask: TF_RX_FLOW_CONTROL_DDP,
        value: TF_RX_FLOW_CONTROL_DDP,
    }
}

/// Turn DDP on with no buffer valid and both indicating.
#[must_use]
pub const fn ddp_on() -> TcbUpdate {
    let indicate = TF_DDP_BUF0_INDICATE | DdpBuf::B1.flag(TF_DDP_BUF0_INDICATE);
    let valid = TF_DDP_BUF0_VALID | DdpBuf::B1.flag(TF_DDP_BUF0_VALID);
    TcbUpdate {
        word: W_RX_DDP_FLAGS,
        mask: TF_DDP_OFF | TF_DDP_INDICATE_OUT | indicate | valid,
        value: indicate,
    }
}

/// Switch receive coalescing off.
#[must_use]
pub const fn coalesce_off() -> TcbUpdate {
    TcbUpdate {
        word: W_T_FLAGS,
        mask: TF_RCV_COALESCE_ENABLE,
        value: 0,
    }
}

/// Nagle's algorithm on or off.
#[must_use]
pub const fn nagle(on: bool) -> TcbUpdate {
    TcbUpdate {
        word: W_T_FLAGS,
        mask: TF_NAGLE,
        value: if on { TF_NAGLE } else { 0 },
    }
}

/// Clear the overlay words 26 to 31 (three updates) before the first use of DDP: they may hold
/// another mode's state. All become zero but DDP_OFF: DDP stays off until [`ddp_on`].
#[must_use]
pub const fn ddp_clear() -> [TcbUpdate; 3] {
    [
        // The flags word is the upper half of the pair.
        TcbUpdate {
            word: 26,
            mask: u64::MAX,
            value: TF_DDP_OFF << 32,
        },
        TcbUpdate {
            word: 28,
            mask: u64::MAX,
            value: 0,
        },
        TcbUpdate {
            word: 30,
            mask: u64::MAX,
            value: 0,
        },
    ]
}

/// The three updates that post a buffer: tag, offset and length, flags.
///
/// `offset` is where the next byte goes, `len` the end of the buffer, both counted from its
/// first byte. With `only` the buffer becomes the active one. `flush` completes it as soon as
/// anything was placed.
#[must_use]
pub const fn arm(
    buf: DdpBuf,
    tag: u32,
    offset: u32,
    len: u32,
    only: bool,
    flush: bool,
) -> [TcbUpdate; 3] {
    let (off, len) = ((offset & MAX_DDP_LEN) as u64, (len & MAX_DDP_LEN) as u64);
    let place = match buf {
        DdpBuf::B0 => TcbUpdate {
            word: W_RX_DDP_BUF0,
            mask: 0x0000_ffff_ffff_ffff,
            value: off | (len << 24),
        },
        DdpBuf::B1 => TcbUpdate {
            word: W_RX_DDP_BUF1,
            mask: 0x00ff_ffff_ffff_ff00,
            value: (off << 8) | (len << 32),
        },
    };
    let mut mask = buf.flag(
        TF_DDP_BUF0_VALID
            | TF_DDP_BUF0_FLUSH
            | TF_DDP_PSHF_ENABLE_0
            | TF_DDP_PUSH_DISABLE_0
            | TF_DDP_PSH_NO_INVALIDATE0,
    );
    let mut value = buf.flag(TF_DDP_BUF0_VALID);
    if flush {
        value |= buf.flag(TF_DDP_BUF0_FLUSH);
    }
    if only {
        mask |= TF_DDP_ACTIVE_BUF;
        if matches!(buf, DdpBuf::B1) {
            value |= TF_DDP_ACTIVE_BUF;
        }
    }
    [
        TcbUpdate {
            word: W_RX_DDP_BUF0_TAG + buf.index() as u8,
            mask: 0xffff_ffff,
            value: tag as u64,
        },
        place,
        TcbUpdate {
            word: W_RX_DDP_FLAGS,
            mask,
            value,
        },
    ]
}

/// Take a buffer away from the adapter. The word is chosen so that the reply's old value holds
/// the offset the adapter had reached: see [`reached`].
#[must_use]
pub const fn invalidate(buf: DdpBuf) -> TcbUpdate {
    match buf {
        // Word 26: the flags word is the upper half of the pair.
        DdpBuf::B0 => TcbUpdate {
            word: W_RX_DDP_BUF0,
            mask: TF_DDP_BUF0_VALID << 32,
            value: 0,
        },
        DdpBuf::B1 => TcbUpdate {
            word: W_RX_DDP_FLAGS,
            mask: DdpBuf::B1.flag(TF_DDP_BUF0_VALID),
            value: 0,
        },
    }
}

/// The oldest sequence number that the peer has not acknowledged, out of the words from
/// [`W_TX_MAX`] on.
#[must_use]
pub const fn snd_una(oldval: u64) -> u32 {
    let below = (oldval >> 32) as u32 & 0x0fff_ffff;
    (oldval as u32).wrapping_sub(below)
}

/// What the reply to [`invalidate`] says: the offset the buffer had reached, and whether it was
/// still valid (if not, it was completed by data and that message is on its way or was here).
#[must_use]
pub const fn reached(buf: DdpBuf, oldval: u64) -> (u32, bool) {
    match buf {
        DdpBuf::B0 => (
            (oldval & MAX_DDP_LEN as u64) as u32,
            oldval & (TF_DDP_BUF0_VALID << 32) != 0,
        ),
        DdpBuf::B1 => (
            (oldval >> 40) as u32 & MAX_DDP_LEN,
            oldval & DdpBuf::B1.flag(TF_DDP_BUF0_VALID) != 0,
        ),
    }
}

/// A whole TCB, as the adapter holds it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tcb {
    /// The words.
    pub words: [u32; 32],
}

impl Tcb {
    fn pair(&self, word: u8) -> u64 {
        let w = usize::from(word & 31);
        let lo = self.words.get(w).copied().unwrap_or(0);
        let hi = self.words.get(w + 1).copied().unwrap_or(0);
        u64::from(lo) | (u64::from(hi) << 32)
    }

    fn set_pair(&mut self, word: u8, v: u64) {
        let w = usize::from(word & 31);
        if let Some(lo) = self.words.get_mut(w) {
            *lo = v as u32;
        }
        if let Some(hi) = self.words.get_mut(w + 1) {
            *hi = (v >> 32) as u32;
        }
    }

    /// Apply an update; returns the 64 bits as they were.
    pub fn set_field(&mut self, u: &TcbUpdate) -> u64 {
        let old = self.pair(u.word);
        self.set_pair(u.word, (old & !u.mask) | (u.value & u.mask));
        old
    }

    fn flags(&self) -> u64 {
        self.pair(W_RX_DDP_FLAGS)
    }

    /// Set or clear bits of the DDP flags.
    pub fn set_flags(&mut self, mask: u64, value: u64) {
        self.set_field(&TcbUpdate {
            word: W_RX_DDP_FLAGS,
            mask,
            value,
        });
    }

    /// `ULP_MODE_*` of the connection.
    #[must_use]
    pub fn ulp_type(&self) -> u8 {
        (self.words[0] & 0xf) as u8
    }

    /// Receive coalescing is on.
    #[must_use]
    pub fn rcv_coalesce(&self) -> bool {
        self.pair(W_T_FLAGS) & TF_RCV_COALESCE_ENABLE != 0
    }

    /// DDP'd bytes are not charged against the window.
    #[must_use]
    pub fn rx_fc_ddp(&self) -> bool {
        self.pair(W_T_FLAGS) & TF_RX_FLOW_CONTROL_DDP != 0
    }

    /// DDP is off.
    #[must_use]
    pub fn ddp_off(&self) -> bool {
        self.flags() & TF_DDP_OFF != 0
    }

    /// The buffer being filled.
    #[must_use]
    pub fn active_buf(&self) -> DdpBuf {
        if self.flags() & TF_DDP_ACTIVE_BUF != 0 {
            DdpBuf::B1
        } else {
            DdpBuf::B0
        }
    }

    /// Make `buf` the one being filled.
    pub fn set_active_buf(&mut self, buf: DdpBuf) {
        let v = if matches!(buf, DdpBuf::B1) {
            TF_DDP_ACTIVE_BUF
        } else {
            0
        };
        self.set_flags(TF_DDP_ACTIVE_BUF, v);
    }

    /// The buffer may be filled.
    #[must_use]
    pub fn buf_valid(&self, buf: DdpBuf) -> bool {
        self.flags() & buf.flag(TF_DDP_BUF0_VALID) != 0
    }

    /// The buffer is completed as soon as it holds anything.
    #[must_use]
    pub fn buf_flush(&self, buf: DdpBuf) -> bool {
        self.flags() & buf.flag(TF_DDP_BUF0_FLUSH) != 0
    }

    /// Data that meets the invalid buffer is indicated to the host.
    #[must_use]
    pub fn buf_indicate(&self, buf: DdpBuf) -> bool {
        self.flags() & buf.flag(TF_DDP_BUF0_INDICATE) != 0
    }

    /// PSH does not complete the buffer.
    #[must_use]
    pub fn push_disable(&self, buf: DdpBuf) -> bool {
        self.flags() & buf.flag(TF_DDP_PUSH_DISABLE_0) != 0
    }

    /// PSH reports, but leaves the buffer valid.
    #[must_use]
    pub fn psh_no_invalidate(&self, buf: DdpBuf) -> bool {
        self.flags() & buf.flag(TF_DDP_PSH_NO_INVALIDATE0) != 0
    }

    /// Where the next byte of the buffer goes.
    #[must_use]
    pub fn buf_offset(&self, buf: DdpBuf) -> u32 {
        match buf {
            DdpBuf::B0 => self.pair(W_RX_DDP_BUF0) as u32 & MAX_DDP_LEN,
            DdpBuf::B1 => (self.pair(W_RX_DDP_BUF1) >> 8) as u32 & MAX_DDP_LEN,
        }
    }

    /// The end of the buffer.
    #[must_use]
    pub fn buf_len(&self, buf: DdpBuf) -> u32 {
        match buf {
            DdpBuf::B0 => (self.pair(W_RX_DDP_BUF0) >> 24) as u32 & MAX_DDP_LEN,
            DdpBuf::B1 => (self.pair(W_RX_DDP_BUF1) >> 32) as u32 & MAX_DDP_LEN,
        }
    }

    /// Record how far the buffer is filled.
    pub fn set_buf_offset(&mut self, buf: DdpBuf, off: u32) {
        let off = u64::from(off & MAX_DDP_LEN);
        let u = match buf {
            DdpBuf::B0 => TcbUpdate {
                word: W_RX_DDP_BUF0,
                mask: u64::from(MAX_DDP_LEN),
                value: off,
            },
            DdpBuf::B1 => TcbUpdate {
                word: W_RX_DDP_BUF1,
                mask: u64::from(MAX_DDP_LEN) << 8,
                value: off << 8,
            },
        };
        self.set_field(&u);
    }

    /// DDP tag of the buffer.
    #[must_use]
    pub fn buf_tag(&self, buf: DdpBuf) -> u32 {
        self.pair(W_RX_DDP_BUF0_TAG + buf.index() as u8) as u32
    }
}
