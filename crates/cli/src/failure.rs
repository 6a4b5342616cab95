//! Errors as people see them: what failed, why, what to do.

use std::error::Error;
use std::io::{self, IsTerminal};

/// The command line cannot be understood.
pub const USAGE: u8 = 1;
/// The command failed.
pub const FAILED: u8 = 2;
/// The daemon failed.
pub const DAEMON: u8 = 3;
/// It took too long.
pub const TIMEOUT: u8 = 5;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// What failed.
    pub what: String,
    /// What is behind it, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// A failure without causes.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), hint: None, code: FAILED }
    }

    /// With what is behind it.
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.causes.push(error.to_string());
        let mut source = error.source();
        while let Some(inner) = source {
            self.causes.push(inner.to_string());
            source = inner.source();
        }
        self
    }

    /// With what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another exit code.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Prints it to standard error.
    pub fn print(&self) {
        let (red, plain) =
            if io::stderr().is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        eprintln!("{red}error{plain}: {}", self.what);
        for cause in &self.causes {
            eprintln!("  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            eprintln!("  hint: {hint}");
        }
    }
}

impl From<guests::GuestError> for Failure {
    fn from(error: guests::GuestError) -> Self {
        let failure = Self::new("The image cannot be had").because(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<libvirt_compat::Error> for Failure {
    fn from(error: libvirt_compat::Error) -> Self {
        Self::new("The daemon refused").because(&error)
    }
}
