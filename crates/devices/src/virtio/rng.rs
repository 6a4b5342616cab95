//! A source of randomness for the guest. Virtio 1.3, 5.4.
//!
//! `-object rng-random,id=r0 -device virtio-rng-pci,rng=r0,max-bytes=1024,period=1000`

use std::sync::{Arc, Weak};

use device::{Clock, Entropy, Expired, Fields, StateError, Timer, Timers};
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};

use super::Queue;
use super::device::{Driver, Kind, VirtioDevice};

/// The host kernel's own source.
pub struct KernelEntropy;

impl Entropy for KernelEntropy {
    fn fill(&self, bytes: &mut [u8]) -> usize {
        // It may give fewer when a signal comes; who asked asks again.
        getrandom(bytes, GetRandomFlags::empty()).unwrap_or(0)
    }
}

/// A request is answered with this many bytes at most, whatever it offers.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How much a guest may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngLimit {
    /// Bytes in each period.
    pub bytes: u64,
    /// The period, not zero.
    pub period_ms: u32,
}

/// The device.
///
/// Lock order: `state`, then the queue; `timer` is a leaf.
pub struct Rng {
    source: Arc<dyn Entropy>,
    limit: Option<RngLimit>,
    clock: Arc<dyn Clock>,
    timer: Timer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Option<Arc<Queue>>,
    /// Bytes that may still go out in this period, and when the next one begins.
    quota: u64,
    next_period_ns: u64,
    paused: bool,
}

impl Rng {
    /// A device that draws from `source`.
    pub fn new(
        source: Arc<dyn Entropy>,
        limit: Option<RngLimit>,
        clock: Arc<dyn Clock>,
        timers: &Arc<Timers>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|rng: &Weak<Self>| Self {
            source,
            limit,
            clock,
            timer: timers.timer(rng.clone() as Weak<dyn Expired>, 0),
            state: Mutex::default(),
        })
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        if state.paused {
            return;
        }
        let Some(queue) = state.queue.clone() else { return };
        let mut answered = false;
        loop {
            let quota = self.quota(&mut state);
            if quota == 0 {
                self.timer.arm(Some(state.next_period_ns));
                break;
            }
            let Some(chain) = queue.pop() else { break };
            let room = usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX);
            let mut bytes = vec![0; room.min(quota).min(ANSWER_BYTES_MAX)];
            let filled = self.source.fill(&mut bytes).min(bytes.len());
            chain.writer().write(&bytes[..filled]);
            if self.limit.is_some() {
                state.quota -= filled as u64;
            }
            queue.push_quietly(vec![(chain, filled as u64)]);
            answered = true;
        }
        drop(state);
        if answered {
            queue.signal();
        }
    }

    /// Bytes that may go out now.
    fn quota(&self, state: &mut State) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        let now_ns = self.clock.now_ns();
        if now_ns >= state.next_period_ns {
            state.quota = limit.bytes;
            let period_ns = u64::from(limit.period_ms.max(1)) * 1_000_000;
            state.next_period_ns = now_ns.saturating_add(period_ns);
        }
        usize::try_from(state.quota).unwrap_or(usize::MAX)
    }
}

impl Expired for Rng {
    fn expired(&self, _token: u32) {
        self.serve();
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> Kind {
        Kind::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn activate(&self, driver: Driver) {
        self.state.lock().queue = driver.queue(0).cloned();
        self.serve();
    }

    fn reset(&self) {
        self.state.lock().queue = None;
        self.timer.arm(None);
    }

    fn notify(&self, _queue: u16) {
        self.serve();
    }

    fn set_running(&self, running: bool) {
        self.state.lock().paused = !running;
        if running {
            self.serve();
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let State { quota, next_period_ns, .. } = &mut *state;
        fields.item("quota", quota)?;
        fields.item("next_period_ns", next_period_ns)
    }
}

#[cfg(test)]
mod tests {
    use device::StoppedClock;

    use super::*;
    use crate::virtio::guest::{Guest, Part, hostile};

    /// Not random, so that a test can tell.
    struct Sevens;

    impl Entropy for Sevens {
        fn fill(&self, bytes: &mut [u8]) -> usize {
            bytes.fill(7);
            bytes.len()
        }
    }

    fn rng(limit: Option<RngLimit>) -> (Arc<Rng>, Arc<StoppedClock>, Arc<Timers>) {
        let (clock, timers) = (Arc::new(StoppedClock::default()), Timers::new(|| {}));
        (Rng::new(Arc::new(Sevens), limit, Arc::clone(&clock) as _, &timers), clock, timers)
    }

    #[test]
    fn buffers_are_filled() {
        let mut guest = Guest::ready(rng(None).0, 0);
        assert_eq!(guest.request(0, &[Part::In(64), Part::In(3)]), (vec![7; 67], 67));
    }

    #[test]
    fn a_limit_holds_requests_until_the_next_period() {
        let (rng, clock, timers) = rng(Some(RngLimit { bytes: 100, period_ms: 10 }));
        let mut guest = Guest::ready(rng, 0);
        assert_eq!(guest.request(0, &[Part::In(64)]).1, 64);
        assert_eq!(guest.request(0, &[Part::In(64)]).1, 36);
        guest.put(0, &[Part::In(64)]);
        guest.notify(0);
        assert_eq!((guest.take(0), timers.next_ns()), (None, Some(10_000_000)));
        clock.set_ns(10_000_000);
        timers.run(10_000_000);
        assert_eq!(guest.take(0), Some((2, 64)));
    }

    #[test]
    fn a_hostile_guest_breaks_nothing() {
        for seed in 1..4 {
            hostile(rng(Some(RngLimit { bytes: 1 << 30, period_ms: 1 })).0, 1 << 28, 2000, seed);
        }
    }
}
