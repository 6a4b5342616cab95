//! Where long work is, on standard error: a line that is drawn again on a terminal, else a line for
//! each phase, of those that last.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use guests::Progress;

/// Between two drawings of the line.
const PAUSE: Duration = Duration::from_millis(80);

/// A phase that is over sooner needs no line in a log.
const PHASE: Duration = Duration::from_millis(500);

/// The line.
pub struct Line {
    on_terminal: bool,
    began: Instant,
    drawn: Option<Instant>,
    step: String,
    /// When the step has begun, until a log has a line of it.
    unsaid: Option<Instant>,
}

impl Line {
    pub fn new() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
            began: Instant::now(),
            drawn: None,
            step: String::new(),
            unsaid: None,
        }
    }

    fn draw(&mut self, more: &str) {
        if self.on_terminal {
            let seconds = self.began.elapsed().as_secs_f64();
            let mut errors = io::stderr().lock();
            _ = write!(errors, "\r\x1b[K{:4.1}s  {}{more}", seconds, self.step);
            _ = errors.flush();
            self.drawn = Some(Instant::now());
        } else if self.unsaid.is_some_and(|began| began.elapsed() >= PHASE) {
            self.unsaid = None;
            _ = writeln!(
                io::stderr(),
                "{:4.1}s  {}",
                self.began.elapsed().as_secs_f64(),
                self.step
            );
        }
    }

    /// Time goes on.
    pub fn tick(&mut self, more: &str) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            self.draw(more);
        }
    }
}

impl Drop for Line {
    /// The line goes away again.
    fn drop(&mut self) {
        if self.drawn.is_some() {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Progress for Line {
    fn step(&mut self, what: &str) {
        self.draw("");
        self.step = what.to_owned();
        self.unsaid = Some(Instant::now());
        self.draw("");
    }

    fn bytes(&mut self, done: u64, total: Option<u64>) {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let more = match total {
            Some(total) => format!("  {:.1} of {:.1} MiB", mebibytes(done), mebibytes(total)),
            None => format!("  {:.1} MiB", mebibytes(done)),
        };
        self.tick(&more);
    }
}
