//! Remarks for the user of a tool: what an error alone would not tell, such as damage found.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

type Listener = fn(&str);

/// With the program's name.
static LISTENER: OnceLock<(String, Listener)> = OnceLock::new();

/// Sets who hears remarks, and the program's name; the first one stays.
pub fn listen(program: &str, listener: Listener) {
    _ = LISTENER.set((program.to_owned(), listener));
}

/// A number as C prints it with `%#x`: zero has no prefix.
pub(crate) struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}

/// Makes a remark.
pub(crate) fn say(text: &str) {
    if let Some((_, listener)) = LISTENER.get() {
        listener(text);
    }
}

/// Says what went wrong where nobody is left who could be given an error.
pub(crate) fn complain(text: &str) {
    if let Some((program, listener)) = LISTENER.get() {
        listener(&format!("{program}: {text}"));
    }
}

/// Says what a user of fault injection waits for, on the standard output.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed output is the reader's loss.
    _ = writeln!(out, "{text}");
    _ = out.flush();
}
