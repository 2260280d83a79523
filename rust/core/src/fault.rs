//! What is wrong with a message of the adapter.

/// The adapter said what cannot be. The one connection it was said about is closed
/// ([`crate::os::Counter::BadCpl`]); nothing else is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadCpl(
    /// What was wrong, for the log.
    pub &'static str,
);
