//! What the card needs of the machine it sits in, and how the host hands it work.

use core::fmt;

/// A DMA that host memory refused: the address is outside memory, or the IOMMU says no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaFault {
    /// Bus address of the first byte of the refused transfer.
    pub addr: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// Host memory as the card's DMA engine sees it.
pub trait Dma {
    /// Copies `buf.len()` bytes from bus address `addr`.
    ///
    /// # Errors
    /// [`DmaFault`] if any byte of the range is not memory; nothing may be assumed of `buf` then.
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), DmaFault>;

    /// Copies `data` to bus address `addr`.
    ///
    /// # Errors
    /// [`DmaFault`] if any byte of the range is not memory; nothing may be written then.
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), DmaFault>;
}

/// The host: its memory, its receive queues, its plain network interfaces.
///
/// All methods are called from inside [`Card::advance`](crate::Card::advance) and must not call
/// the card; a driver that answers a CPL at once queues the answer and submits it afterwards.
pub trait Host: Dma {
    /// One CPL for the ingress queue with absolute id `rxq`. `cpl` starts at the opcode byte
    /// (after the `rss_header`); `payload` holds what follows the CPL: the stream bytes of
    /// `CPL_RX_DATA`, the SYN's headers of `CPL_PASS_ACCEPT_REQ`, the TCB of `CPL_GET_TCB_RPL`;
    /// otherwise it is empty.
    fn cpl(&mut self, rxq: u16, cpl: &[u8], payload: &[u8]);

    /// A frame of plain traffic that arrived at `port`.
    fn frame(&mut self, port: u8, frame: &[u8]) {
        let _ = (port, frame);
    }
}

/// The egress queue a work request was put on. Requests of one queue run in order; there is no
/// order between queues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TxQueue {
    /// Control queue of a port (`sge.ctrlq[port]`).
    Ctrl(u8),
    /// Offload transmit queue (`sge.ofld_txq[idx]`).
    Ofld(u8),
}

/// Why a work request was refused when it was submitted. Nothing of it has run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrError {
    /// Longer than the 512 bytes a work request may have, or not a multiple of 16.
    Length(usize),
    /// The header's opcode, or the CPL's or ULP_TX command's inside, is one the card does not know.
    Opcode(u8),
    /// The bytes do not parse.
    Malformed(wire::WireError),
    /// A request for a connection on a queue that cannot carry it (data on a control queue).
    Queue,
}

impl fmt::Display for WrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(f, "work request of {n} bytes"),
            Self::Opcode(op) => write!(f, "work request opcode {op:#04x} not known"),
            Self::Malformed(e) => write!(f, "malformed work request: {e:?}"),
            Self::Queue => write!(f, "work request on the wrong kind of queue"),
        }
    }
}

impl core::error::Error for WrError {}

impl From<wire::WireError> for WrError {
    fn from(e: wire::WireError) -> Self {
        Self::Malformed(e)
    }
}
