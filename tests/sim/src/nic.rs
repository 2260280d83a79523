//! The host as the card reaches it: memory by DMA, queues of CPLs.

use std::collections::{BTreeMap, VecDeque};

use t5sim::{Dma, DmaFault, Host};

use crate::mem;

/// A CPL that waits in its queue.
#[derive(Clone, Debug)]
pub struct Cpl {
    /// From the opcode on.
    pub bytes: Vec<u8>,
    /// What follows it.
    pub payload: Vec<u8>,
}

/// What the card touches.
#[derive(Debug)]
pub struct Nic {
    /// Memory.
    pub mem: mem::Shared,
    /// Queues, by absolute id.
    pub queues: BTreeMap<u16, VecDeque<Cpl>>,
}

impl Dma for Nic {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), DmaFault> {
        let mut m = self.mem.borrow_mut();
        if !m.dma(addr, buf.len(), false) {
            let len = buf.len();
            return Err(DmaFault { addr, len });
        }
        m.read(addr, buf);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), DmaFault> {
        let mut m = self.mem.borrow_mut();
        if !m.dma(addr, data.len(), true) {
            let len = data.len();
            return Err(DmaFault { addr, len });
        }
        m.write(addr, data);
        Ok(())
    }
}

impl Host for Nic {
    fn cpl(&mut self, rxq: u16, cpl: &[u8], payload: &[u8]) {
        self.queues.entry(rxq).or_default().push_back(Cpl {
            bytes: cpl.to_vec(),
            payload: payload.to_vec(),
        });
    }
}
