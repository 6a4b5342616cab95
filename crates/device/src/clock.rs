//! Where a device takes the time from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Nanoseconds of the guest's life.
pub trait Clock: Send + Sync {
    /// Nanoseconds since power-on, standing still while the machine is paused.
    fn now_ns(&self) -> u64;

    /// Nanoseconds since 1970 by the host's clock.
    fn unix_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The host's monotonic clock, which can be paused.
#[derive(Debug)]
pub struct HostClock {
    state: Mutex<HostClockState>,
}

#[derive(Debug)]
struct HostClockState {
    /// The guest's time when the clock was last started or paused.
    base_ns: u64,
    /// When it was started; none while paused.
    running_since: Option<Instant>,
}

impl HostClock {
    /// A clock at zero, paused.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Mutex::new(HostClockState { base_ns: 0, running_since: None }) }
    }

    /// Lets the time go on.
    pub fn start(&self) {
        let mut state = self.state.lock();
        state.running_since.get_or_insert_with(Instant::now);
    }

    /// Whether the time goes on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.lock().running_since.is_some()
    }

    /// Moves the time to this point, of a machine whose state comes from elsewhere.
    pub fn set_ns(&self, now_ns: u64) {
        let mut state = self.state.lock();
        state.base_ns = now_ns;
        state.running_since = state.running_since.map(|_| Instant::now());
    }

    /// Holds the time.
    pub fn pause(&self) {
        let mut state = self.state.lock();
        state.base_ns = state.now_ns();
        state.running_since = None;
    }
}

impl HostClockState {
    fn now_ns(&self) -> u64 {
        let running = self.running_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.base_ns.saturating_add(u64::try_from(running.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        self.state.lock().now_ns()
    }
}

/// A clock that stands until it is set, for tests.
#[derive(Default, Debug)]
pub struct StoppedClock {
    now_ns: AtomicU64,
}

impl StoppedClock {
    /// Moves the time to this point.
    pub fn set_ns(&self, now_ns: u64) {
        self.now_ns.store(now_ns, Ordering::Release);
    }
}

impl Clock for StoppedClock {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Acquire)
    }

    fn unix_ns(&self) -> u64 {
        self.now_ns()
    }
}
