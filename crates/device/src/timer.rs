//! Timers: devices arm them, the main loop rings them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// What happens when a timer rings.
pub trait Expired: Send + Sync {
    /// Called from the main loop, with no lock held. `token` is the one the timer was made with.
    /// The timer is no longer armed; a periodic device arms it again.
    fn expired(&self, token: u32);
}

/// All timers of a machine, in the order of their deadlines.
///
/// Lock order: `state` is a leaf; callbacks and the waker run without it.
pub struct Timers {
    state: Mutex<State>,
    /// Called when the earliest deadline has moved nearer, so that the main loop sleeps shorter.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Deadline and number of the armed timers.
    armed: BTreeSet<(u64, usize)>,
    timers: Vec<Slot>,
}

struct Slot {
    deadline_ns: Option<u64>,
    /// The device, which owns the timer and not the other way round.
    device: Weak<dyn Expired>,
    token: u32,
}

impl Timers {
    /// No timers yet. `wake` interrupts the main loop's sleep.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), wake: Box::new(wake) })
    }

    /// A timer that is not armed. `token` tells a device's timers apart.
    pub fn timer(self: &Arc<Self>, device: Weak<dyn Expired>, token: u32) -> Timer {
        let mut state = self.state.lock();
        state.timers.push(Slot { deadline_ns: None, device, token });
        Timer { timers: Some(Arc::clone(self)), number: state.timers.len() - 1 }
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.state.lock().armed.first().map(|(deadline_ns, _)| *deadline_ns)
    }

    /// Rings every timer whose deadline has come, earliest first. A timer that its own callback
    /// arms in the past rings at the next call, so a device cannot hold the main loop.
    pub fn run(&self, now_ns: u64) {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock();
            while let Some((_, number)) = state.armed.first().copied().filter(|at| at.0 <= now_ns) {
                state.disarm(number);
                let Slot { device, token, .. } = &state.timers[number];
                due.push((device.clone(), *token));
            }
        }
        for (device, token) in due {
            if let Some(device) = device.upgrade() {
                device.expired(token);
            }
        }
    }

    fn arm(&self, number: usize, deadline_ns: Option<u64>) {
        let nearer = {
            let mut state = self.state.lock();
            if state.timers[number].deadline_ns == deadline_ns {
                return;
            }
            let before = state.armed.first().map(|(deadline_ns, _)| *deadline_ns);
            state.disarm(number);
            state.timers[number].deadline_ns = deadline_ns;
            state.armed.extend(deadline_ns.map(|deadline_ns| (deadline_ns, number)));
            deadline_ns.is_some_and(|deadline| before.is_none_or(|before| deadline < before))
        };
        if nearer {
            (self.wake)();
        }
    }
}

impl State {
    fn disarm(&mut self, number: usize) {
        if let Some(deadline_ns) = self.timers[number].deadline_ns.take() {
            self.armed.remove(&(deadline_ns, number));
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(&self.state.lock().armed).finish()
    }
}

/// One timer of a device.
#[derive(Debug)]
pub struct Timer {
    timers: Option<Arc<Timers>>,
    number: usize,
}

impl Timer {
    /// A timer that never rings, for tests of devices whose time is not under test.
    #[must_use]
    pub fn silent() -> Self {
        Self { timers: None, number: 0 }
    }

    /// Rings once at this time, instead of any time set before; none disarms.
    pub fn arm(&self, deadline_ns: Option<u64>) {
        if let Some(timers) = &self.timers {
            timers.arm(self.number, deadline_ns);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.arm(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Rung(Mutex<Vec<u32>>);

    impl Expired for Rung {
        fn expired(&self, token: u32) {
            self.0.lock().push(token);
        }
    }

    #[test]
    fn timers_ring_once_in_the_order_of_their_deadlines() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let timers = Timers::new({
            let wakes = Arc::clone(&wakes);
            move || _ = wakes.fetch_add(1, Ordering::Relaxed)
        });
        let device = Arc::new(Rung::default());
        let weak = Arc::downgrade(&device) as Weak<dyn Expired>;
        let [a, b, c] = [1, 2, 3].map(|token| timers.timer(weak.clone(), token));
        a.arm(Some(30));
        b.arm(Some(10));
        c.arm(Some(20));
        c.arm(Some(40));
        assert_eq!((timers.next_ns(), wakes.load(Ordering::Relaxed)), (Some(10), 2));

        timers.run(30);
        timers.run(30);
        assert_eq!(*device.0.lock(), [2, 1]);

        drop(c);
        timers.run(u64::MAX);
        assert_eq!((*device.0.lock()).len(), 2, "a dropped timer is silent");
    }
}
