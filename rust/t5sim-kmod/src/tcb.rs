//! A TCB as it lies in card memory, for hosts that read it there instead of asking for it.

use t5sim::{Card, TcpState};
use wire::{Tcb, TcbUpdate};

/// Bytes of a TCB, `T5SIM_TCB_SIZE`.
pub(crate) const SIZE: usize = 128;

/// Words that card memory keeps together, the highest first.
const UNIT_WORDS: usize = 4;

/// The image of a connection's TCB; zeros for a tid that has none. Takes no memory.
pub(crate) fn image(card: &Card, tid: u32) -> [u8; SIZE] {
    let mut image = [0; SIZE];
    let Some(tcb) = live(card, tid) else {
        return image;
    };
    let units = image.chunks_exact_mut(UNIT_WORDS * 4);
    for (unit, words) in units.zip(tcb.words.chunks_exact(UNIT_WORDS)) {
        for (bytes, word) in unit.chunks_exact_mut(4).zip(words.iter().rev()) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }
    image
}

/// What the host has written, and over it where the connection stands: state, sequence numbers
/// and windows.
fn live(card: &Card, tid: u32) -> Option<Tcb> {
    let mut tcb = card.tcb(tid)?.clone();
    let c = card.connection(tid)?;
    let mut put = |word: u8, shift: u32, width: u32, v: u32| {
        let ones = (1_u64 << width) - 1;
        tcb.set_field(&TcbUpdate {
            word,
            mask: ones << shift,
            value: (u64::from(v) & ones) << shift,
        });
    };
    // T_STATE, TX_MAX, SND_UNA_RAW, SND_NXT_RAW, RCV_NXT, RCV_WND. The raw ones are distances
    // below the highest sent.
    put(3, 16, 4, tcps(c.state));
    put(9, 0, 32, c.snd_nxt);
    put(10, 0, 28, c.snd_nxt.wrapping_sub(c.snd_una));
    put(10, 28, 28, 0);
    put(16, 10, 32, c.rcv_nxt);
    put(17, 10, 28, c.rcv_wnd);
    Some(tcb)
}

/// FreeBSD's `TCPS_*`.
fn tcps(state: TcpState) -> u32 {
    match state {
        TcpState::Closed | TcpState::Aborting => 0,
        TcpState::SynSent => 2,
        TcpState::SynReceived => 3,
        TcpState::Established => 4,
        TcpState::CloseWait => 5,
        TcpState::FinWait1 => 6,
        TcpState::Closing => 7,
        TcpState::LastAck => 8,
        TcpState::FinWait2 => 9,
        TcpState::TimeWait => 10,
    }
}
