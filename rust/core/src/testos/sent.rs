//! What must hold of every work request that a connection hands over, whatever the adapter is.

use wire::{Inner, OfldTxData, TcbUpdate, UlpMode, WrOp};

/// The requests of one connection, looked at in the order in which they are handed over.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    ulp_mode: UlpMode,
}

impl Default for Sent {
    fn default() -> Self {
        Sent {
            ulp_mode: UlpMode::None,
        }
    }
}

impl Sent {
    /// One more request.
    ///
    /// # Panics
    /// If it is not one, as long as its header says, or if payload goes in another mode than
    /// that which the connection has asked for.
    pub fn check(&mut self, wr: &[u8]) {
        let len = wr.len();
        assert!(
            len > 0 && len <= wire::MAX_WR_LEN && len.is_multiple_of(16),
            "work request of {len} bytes"
        );
        let op = wire::wr_op(wr);
        assert!(op.is_ok(), "no work request: {op:?}");
        assert_eq!(wire::wr_len(wr), Ok(len), "{op:?}");
        match op {
            Ok(WrOp::OfldTxData) => {
                let m = OfldTxData::parse(wr).expect("header");
                assert_eq!(m.ulp_mode, self.ulp_mode as u8, "TX_ULP_MODE");
            }
            Ok(WrOp::Ulptx) if asks_for_ddp(wr) => self.ulp_mode = UlpMode::TcpDdp,
            _ => {}
        }
    }
}

/// The request switches the connection to `ULP_MODE_TCPDDP`.
fn asks_for_ddp(wr: &[u8]) -> bool {
    let ddp: TcbUpdate = wire::ulp_mode_tcpddp();
    let to_ddp = |i: Inner| matches!(i, Inner::SetTcb { update, .. } if update == ddp);
    wire::parse_compound(wr).is_ok_and(|(_, mut it)| it.any(|i| i.is_ok_and(to_ddp)))
}
