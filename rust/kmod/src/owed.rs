//! What the adapter owes about a tid that is nobody's any more.
//!
//! Context: any; the messages of one tid come through one queue.

use core::sync::atomic::{AtomicU8, Ordering};

use toehold_core::conn::Silent;

/// CPL_ABORT_RPL_RSS is owed. The other bits count replies.
const ABORT: u8 = 0x80;

/// Messages owed, and the transmit queue of who it was.
pub struct Owed {
    word: AtomicU8,
    txq: u32,
}

impl Owed {
    /// So much.
    pub fn new(s: Silent, txq: u32) -> Owed {
        Owed {
            word: AtomicU8::new(word_of(s)),
            txq,
        }
    }

    /// A message has come. True: `what` says that it was the last.
    pub fn less(&self, what: fn(&mut Silent) -> bool) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let mut s = Silent {
            replies: word & !ABORT,
            abort: word & ABORT != 0,
        };
        let all = what(&mut s);
        self.word.store(word_of(s), Ordering::Release);
        all
    }

    /// The transmit queue.
    pub fn txq(&self) -> u32 {
        self.txq
    }
}

fn word_of(s: Silent) -> u8 {
    s.replies | if s.abort { ABORT } else { 0 }
}
