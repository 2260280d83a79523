//! The host as the card sees it: physical memory and receive queues, by the C half.

use t5sim::{Dma, DmaFault, Host};
use toehold_sys::t5sim::{ts_cpl, ts_dma_read, ts_dma_write, ts_sink};

/// One call of `t5sim_card_advance`.
pub(crate) struct Kernel {
    /// Where CPLs are gathered.
    sink: *mut ts_sink,
}

impl Kernel {
    /// # Safety
    /// `sink` is what the C half gave to `t5sim_card_advance`, and this value does not outlive
    /// that call.
    pub(crate) unsafe fn new(sink: *mut ts_sink) -> Self {
        Self { sink }
    }
}

impl Dma for Kernel {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), DmaFault> {
        // SAFETY: pointer and length are those of one writable slice; any address may be asked
        // for, one that is not memory is refused.
        let rc = unsafe { ts_dma_read(addr, buf.as_mut_ptr(), buf.len()) };
        if rc == 0 {
            Ok(())
        } else {
            Err(DmaFault {
                addr,
                len: buf.len(),
            })
        }
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), DmaFault> {
        // SAFETY: pointer and length are those of one slice; the address is checked as in read.
        // That the host gave the address to its card for writing is the host's business.
        let rc = unsafe { ts_dma_write(addr, data.as_ptr(), data.len()) };
        if rc == 0 {
            Ok(())
        } else {
            Err(DmaFault {
                addr,
                len: data.len(),
            })
        }
    }
}

impl Host for Kernel {
    fn cpl(&mut self, rxq: u16, cpl: &[u8], payload: &[u8]) {
        let (c, p) = (cpl.as_ptr(), payload.as_ptr());
        // SAFETY: each pointer goes with its slice's length, the bytes are copied in the call;
        // sink is valid by the contract of new.
        unsafe { ts_cpl(self.sink, rxq, c, cpl.len(), p, payload.len()) };
    }
}
