//! How commands end when they do not succeed.

use block::Error;

/// A command's end: an exit code, or a failure to print.
pub type Outcome = Result<u8, Failure>;

/// A failure with its texts.
#[derive(Debug)]
pub struct Failure {
    text: String,
    /// What standard output shows behind it.
    after: String,
    hint_help: bool,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// With exit code 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), after: String::new(), hint_help: false, code: 1 }
    }

    /// A senseless command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { hint_help: true, ..Self::new(text) }
    }

    /// With another exit code.
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// With a line on standard output: the last thing in a pipe, whenever it was said.
    pub fn with_last_words(self, line: &str) -> Self {
        Self { after: format!("{line}\n"), ..self }
    }

    /// With `prefix` in front, instead of the file name that stands there.
    pub fn with_prefix(mut self, prefix: &str, filename: &str) -> Self {
        let own = if filename.is_empty() { String::new() } else { format!("{filename}: ") };
        let text = self.text.strip_prefix(&own).unwrap_or(&self.text);
        self.text = format!("{prefix}{text}");
        self
    }

    /// Prints it the way scripts look for.
    pub fn print(&self, tool: &str, command: &str) {
        if self.text.is_empty() {
            return;
        }
        eprintln!("{tool}: {}", self.text);
        if self.hint_help {
            eprintln!("Try '{tool} {command} --help' for more info");
        }
        print!("{}", self.after);
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.to_string())
    }
}
