//! What the adapter puts before every CPL it delivers (`struct rss_header`).

use crate::bytes::{fit, fresh, get_u8, get_u16, get_u32, need, put_u8, put_u16, put_u32};
use crate::error::WireError;

/// The 8 bytes before a CPL in an ingress queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssHeader {
    /// The CPL's opcode, once more.
    pub opcode: u8,
    /// Port channel the packet came by; 2 bits.
    pub channel: u8,
    /// A filter matched the packet.
    pub filter_hit: bool,
    /// The hash value is that filter's tid.
    pub filter_tid: bool,
    /// What was hashed (0 nothing, 1 IP, 2 TCP, 3 UDP); 2 bits.
    pub hash_type: u8,
    /// The packet was IPv6.
    pub ipv6: bool,
    /// A copy went to the firmware.
    pub send2fw: bool,
    /// Ingress queue, relative to the function's base.
    pub qid: u16,
    /// RSS hash, or the tid of the filter.
    pub hash_val: u32,
}

impl RssHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// Reads the header at the start of `b`.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn parse(b: &[u8]) -> Result<Self, WireError> {
        let b = need(b, Self::LEN)?;
        let f = get_u8(b, 1)?;
        Ok(Self {
            opcode: get_u8(b, 0)?,
            channel: f & 3,
            filter_hit: f & 1 << 2 != 0,
            filter_tid: f & 1 << 3 != 0,
            hash_type: f >> 4 & 3,
            ipv6: f & 1 << 6 != 0,
            send2fw: f & 1 << 7 != 0,
            qid: get_u16(b, 2)?,
            hash_val: get_u32(b, 4)?,
        })
    }

    /// Writes the header at the start of `b`.
    ///
    /// # Errors
    /// `Truncated`, or `Field` if `channel` or `hash_type` is over 3.
    pub fn emit(&self, b: &mut [u8]) -> Result<(), WireError> {
        fit("channel", u64::from(self.channel), 2)?;
        fit("hash_type", u64::from(self.hash_type), 2)?;
        let b = fresh(b, Self::LEN)?;
        let f = self.channel
            | u8::from(self.filter_hit) << 2
            | u8::from(self.filter_tid) << 3
            | self.hash_type << 4
            | u8::from(self.ipv6) << 6
            | u8::from(self.send2fw) << 7;
        put_u8(b, 0, self.opcode)?;
        put_u8(b, 1, f)?;
        put_u16(b, 2, self.qid)?;
        put_u32(b, 4, self.hash_val)
    }
}
