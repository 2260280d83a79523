//! Why a message was refused.

use core::fmt;

use crate::opcode::Opcode;

/// The reason a message could not be parsed or emitted.
///
/// Nothing in this crate panics on foreign bytes; every doubt ends here. The
/// caller closes the one connection concerned (or drops the message) and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The buffer is shorter than the message. Both are in bytes.
    Truncated {
        /// Bytes the message takes.
        need: usize,
        /// Bytes the caller gave.
        have: usize,
    },
    /// The opcode byte (of the CPL, or of the work request) is not this message's.
    Opcode {
        /// The opcode of the message asked for.
        want: u8,
        /// The opcode found.
        have: u8,
    },
    /// A field has a value it cannot have: too wide for its bits when emitted,
    /// or meaningless when parsed.
    Field {
        /// The field's name, as in the message's struct.
        name: &'static str,
        /// The value refused.
        value: u64,
    },
}

impl WireError {
    /// A field out of range; shorthand for the variant.
    #[must_use]
    pub const fn field(name: &'static str, value: u64) -> Self {
        Self::Field { name, value }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { need, have } => write!(f, "message of {need} bytes cut to {have}"),
            Self::Opcode { want, have } => {
                write!(f, "opcode {have:#04x}, expected {want:#04x}")?;
                match Opcode::try_from(want) {
                    Ok(op) => write!(f, " ({op:?})"),
                    Err(_) => Ok(()),
                }
            }
            Self::Field { name, value } => write!(f, "field {name} cannot be {value:#x}"),
        }
    }
}

impl core::error::Error for WireError {}
