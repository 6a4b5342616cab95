//! Remarks for the user of a tool: what an error alone would not tell, such as damage found.

use std::sync::OnceLock;

static LISTENER: OnceLock<fn(&str)> = OnceLock::new();

/// Sets who hears remarks; the first one stays.
pub fn listen(listener: fn(&str)) {
    _ = LISTENER.set(listener);
}

/// Makes a remark.
pub(crate) fn say(text: &str) {
    if let Some(listener) = LISTENER.get() {
        listener(text);
    }
}
