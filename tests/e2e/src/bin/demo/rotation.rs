//! `make demo DEMO=rotation`.

/// Runs it.
///
/// # Errors
/// Why it failed.
pub(crate) fn run() -> Result<String, String> {
    Err("not there yet".into())
}
