//! Requests that run beside the commands (`aio_read` and its like).
//!
//! They end before the next command begins, so that a list of commands always does the same; only
//! while breakpoints are set may one be under way when the next command comes.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Done;

/// How long a request may take until it counts as held up behind a stopped one.
const PATIENCE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_micros(200);

#[derive(Default)]
pub struct Background {
    running: Vec<JoinHandle<()>>,
    /// Breakpoints have been set, so requests may stop.
    may_stop: bool,
}

impl Background {
    /// From now on requests may be held up.
    pub fn breakpoints_are_set(&mut self) {
        self.may_stop = true;
    }

    /// Begins a request.
    pub fn begin(&mut self, request: impl FnOnce() -> Done + Send + 'static) -> Done {
        if !self.may_stop {
            return request();
        }
        let thread = thread::spawn(move || {
            _ = request(); // what went wrong has been printed
        });
        let since = Instant::now();
        while !thread.is_finished() && since.elapsed() < PATIENCE {
            thread::sleep(POLL);
        }
        self.running.push(thread);
        Ok(())
    }

    /// Waits for all requests.
    pub fn finish(&mut self) {
        for thread in self.running.drain(..) {
            _ = thread.join(); // a panic has printed itself
        }
    }
}
