//! Strings that live as long as the process: names of locks and wait messages.

use std::collections::HashSet;
use std::sync::Mutex;

static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// The one `'static` copy of this text.
#[must_use]
pub fn intern(text: &str) -> &'static str {
    let mut guard = NAMES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let set = guard.get_or_insert_with(HashSet::new);
    if let Some(s) = set.get(text) {
        return s;
    }
    let s: &'static str = Box::leak(text.to_string().into_boxed_str());
    set.insert(s);
    s
}

/// The same for a C string.
#[must_use]
pub fn intern_c(p: *const std::ffi::c_char) -> &'static str {
    intern(&crate::kp::cstr(p))
}
