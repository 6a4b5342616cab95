//! Remarks for the user of a tool: what an error alone would not tell, such as damage found.

use std::io::Write;
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

/// Says what a user of fault injection waits for, on the standard output.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed output is the reader's loss.
    _ = writeln!(out, "{text}");
    _ = out.flush();
}
