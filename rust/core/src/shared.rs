//! What both directions of a connection touch.

use wire::UlpMode;

use crate::os::{Os, SeqState};
use crate::pageset::PageSets;
pub use crate::wr::Wrs;

/// Who the connection is on the adapter. Constant once established.
#[derive(Clone, Copy, Debug)]
pub struct ConnId {
    /// Chip generation.
    pub chip: wire::Chip,
    /// Connection identifier.
    pub tid: u32,
    /// Physical function, for FLOWC.
    pub pf: u8,
    /// Transmit channel.
    pub channel: u8,
    /// Port.
    pub port: u8,
    /// Absolute id of the ingress queue that gets the connection's CPLs.
    pub rxq: u16,
}

/// Settings read when they matter; copies of the adapter's sysctls.
#[derive(Clone, Copy, Debug)]
pub struct Tunables {
    /// `toe.ddp` (`rx_zcopy`).
    pub ddp: bool,
    /// `toe.tx_zcopy`.
    pub tx_zcopy: bool,
    /// `toe.tx_zcopy_min`: shorter writes are copied.
    pub tx_zcopy_min: u32,
    /// Page sets kept per connection.
    pub cache: u16,
}

/// State common to receive and transmit.
pub struct Shared<O: Os> {
    /// Identity.
    pub id: ConnId,
    /// Sequence numbers and windows.
    pub seq: SeqState,
    /// Page sets of both directions.
    pub sets: PageSets<O>,
    /// Settings.
    pub tun: Tunables,
    /// What payload to send is marked with: DDP from the request for it on, and for good, as
    /// `params.ulp_mode` of FreeBSD's t4_tom from 14 on (set_ddp_ulp_mode).
    pub ulp_mode: UlpMode,
    /// Work requests.
    pub wrs: Wrs,
}
