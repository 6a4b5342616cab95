//! `-p`: percentages for scripts, a bar for people.

use std::io::{IsTerminal, Write, stdout};

use parking_lot::Mutex;

/// The bar's width in characters.
const BAR_WIDTH: usize = 40;

/// Progress of one command. Prints nothing unless it was asked for.
pub struct Progress {
    shown: bool,
    terminal: bool,
    /// The last percentage printed.
    last: Mutex<f64>,
}

impl Progress {
    /// Begins at 0 %.
    pub fn new(shown: bool) -> Self {
        let progress = Self { shown, terminal: stdout().is_terminal(), last: Mutex::new(-1.0) };
        progress.set(0, 1);
        progress
    }

    /// Shows how much is done, if it is at least a percent more.
    pub fn set(&self, done: u64, total: u64) {
        if !self.shown {
            return;
        }
        let percent = if total == 0 { 100.0 } else { done as f64 * 100.0 / total as f64 };
        let mut last = self.last.lock();
        if percent < *last + 1.0 && !(percent >= 100.0 && *last < 100.0) && *last >= 0.0 {
            return;
        }
        *last = percent;
        self.print(percent);
    }

    fn print(&self, percent: f64) {
        let mut out = stdout().lock();
        // A closed pipe is no reason to stop copying.
        _ = if self.terminal {
            let full = (percent / 100.0 * BAR_WIDTH as f64) as usize;
            let bar = "#".repeat(full) + &".".repeat(BAR_WIDTH - full.min(BAR_WIDTH));
            write!(out, "    [{bar}] ({percent:.2}/100%)\r")
        } else {
            write!(out, "    ({percent:.2}/100%)\r")
        };
        _ = out.flush();
    }

    /// Ends the line.
    pub fn end(&self, complete: bool) {
        if self.shown {
            if complete {
                self.print(100.0);
            }
            println!();
        }
    }
}
