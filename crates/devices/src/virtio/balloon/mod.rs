//! A memory balloon: the guest gives memory back to the host. Virtio 1.3, 5.5.
//!
//! `-device virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on`

use std::sync::{Arc, Weak};

use device::{Clock, DeviceEvent, EventSink, Expired, Fields, StateError, Timer, Timers};
use memory::{AddressSpace, PAGE_SIZE};
use parking_lot::Mutex;

use super::device::{Driver, Kind, VirtioDevice};
use super::{Chain, Queue};

const F_STATISTICS: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_REPORTING: u64 = 1 << 5;

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const QUEUE_SIZE: u16 = 128;
/// Where the driver writes how many pages it has given.
const CONFIG_ACTUAL: usize = 4;
/// Page numbers that are read at a time.
const NUMBERS: usize = 1024;
/// Page numbers of a request; Linux sends 256. More would hold the device up for long.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// Tag and value.
const STATISTIC_BYTES: usize = 10;

/// The statistics by their tags.
const STATISTICS: [&str; 10] = [
    "swap-in",
    "swap-out",
    "major-faults",
    "minor-faults",
    "free-memory",
    "total-memory",
    "available-memory",
    "disk-caches",
    "htlb-pgalloc",
    "htlb-pgfail",
];

/// What a balloon is made of.
pub struct BalloonConfig {
    /// For events.
    pub id: String,
    /// Memory of which pages are released.
    pub memory: Arc<AddressSpace>,
    /// The guest's memory with an empty balloon.
    pub ram_bytes: u64,
    /// The guest may take memory back when it has no other.
    pub deflate_on_oom: bool,
    /// The guest reports what it does not use, without being asked.
    pub free_page_reporting: bool,
    /// Told when the size has changed.
    pub events: Arc<dyn EventSink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The balloon.
///
/// Lock order: `state`, then queues; events are sent without it.
pub struct Balloon {
    config: BalloonConfig,
    timer: Timer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    driver: Option<Driver>,
    /// Pages that the guest is asked for, and that it has given.
    wanted: u32,
    actual: u32,
    /// The driver's buffer for statistics, which waits to be asked for.
    asked: Option<Chain>,
    values: [Option<u64>; STATISTICS.len()],
    updated_s: u64,
    polling_s: u64,
    paused: bool,
}

impl State {
    fn queue(&self, index: u16) -> Option<Arc<Queue>> {
        self.driver.as_ref()?.queue(index).cloned()
    }

    /// Queues have no gaps: where reporting is depends on whether there are statistics.
    fn reporting_queue(&self) -> Option<u16> {
        let driver = self.driver.as_ref().filter(|driver| driver.has(F_REPORTING))?;
        Some(2 + u16::from(driver.has(F_STATISTICS)))
    }

    fn statistics_queue(&self) -> Option<u16> {
        self.driver.as_ref().filter(|driver| driver.has(F_STATISTICS)).map(|_| 2)
    }
}

impl Balloon {
    /// A balloon, empty.
    pub fn new(config: BalloonConfig, timers: &Arc<Timers>) -> Arc<Self> {
        Arc::new_cyclic(|balloon: &Weak<Self>| Self {
            config,
            timer: timers.timer(balloon.clone() as Weak<dyn Expired>, 0),
            state: Mutex::default(),
        })
    }

    /// Asks the guest to get by with this much memory.
    pub fn set_target(&self, bytes: u64) {
        let pages = self.config.ram_bytes.saturating_sub(bytes) / PAGE_SIZE;
        let mut state = self.state.lock();
        state.wanted = u32::try_from(pages).unwrap_or(u32::MAX);
        let events = state.driver.as_ref().map(|driver| Arc::clone(&driver.events));
        drop(state);
        if let Some(events) = events {
            events.config_changed();
        }
    }

    /// The memory that the guest has now.
    #[must_use]
    pub fn actual(&self) -> u64 {
        let given = u64::from(self.state.lock().actual) * PAGE_SIZE;
        self.config.ram_bytes.saturating_sub(given)
    }

    /// What the guest said last of its memory, and when in Unix seconds.
    #[must_use]
    pub fn statistics(&self) -> (Vec<(&'static str, u64)>, u64) {
        let state = self.state.lock();
        let known = STATISTICS.iter().zip(&state.values);
        let values = known.filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        (values, state.updated_s)
    }

    /// Asks for statistics every so many seconds; 0 for never.
    pub fn set_polling(&self, seconds: u64) {
        let mut state = self.state.lock();
        state.polling_s = seconds;
        self.arm(&state);
    }

    /// See [`Balloon::set_polling`].
    #[must_use]
    pub fn polling(&self) -> u64 {
        self.state.lock().polling_s
    }

    fn arm(&self, state: &State) {
        let period_ns = state.polling_s.saturating_mul(1_000_000_000);
        let deadline = self.config.clock.now_ns().saturating_add(period_ns);
        self.timer.arm((period_ns > 0).then_some(deadline));
    }

    /// Gives whole pages back to the host. Parts of pages, and what is no RAM, stay.
    fn release(&self, start: u64, bytes: u64) {
        let Some(end) = start.checked_add(bytes) else { return };
        let Some(mut start) = start.checked_next_multiple_of(PAGE_SIZE) else { return };
        let end = end / PAGE_SIZE * PAGE_SIZE;
        let view = self.config.memory.view();
        while start < end {
            let Some(piece) = view.memory_at(start, end - start, true) else { return };
            let whole = piece.length / PAGE_SIZE * PAGE_SIZE;
            if whole == 0 || !piece.ram.release(piece.offset, whole) {
                return;
            }
            self.config.memory.written(start, whole);
            start += whole;
        }
    }

    /// Page numbers, of which neighbours are released together.
    fn inflate(&self, chain: &Chain) {
        let mut reader = chain.reader();
        loop {
            let bytes = reader.to_vec(NUMBERS * 4);
            let numbers = bytes.as_chunks::<4>().0;
            if numbers.is_empty() {
                return;
            }
            let mut pages: Vec<u32> =
                numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            pages.sort_unstable();
            for run in pages.chunk_by(|a, b| b - a <= 1) {
                let (first, last) = (u64::from(run[0]), u64::from(run[run.len() - 1]));
                self.release(first * PAGE_SIZE, (last - first + 1) * PAGE_SIZE);
            }
        }
    }

    fn serve(&self, state: &State, index: u16, serve: impl Fn(&Chain)) {
        let Some(queue) = state.queue(index).filter(|_| !state.paused) else { return };
        while let Some(chain) = queue.pop() {
            if chain.readable_bytes() > REQUEST_BYTES_MAX {
                return queue.break_device();
            }
            serve(&chain);
            queue.push(chain, 0);
        }
    }

    fn take_statistics(&self, state: &mut State) {
        let Some(queue) = state.statistics_queue().and_then(|index| state.queue(index)) else {
            return;
        };
        while let Some(chain) = queue.pop() {
            let mut reader = chain.reader();
            // Each tag counts once, so a huge buffer is no longer work than the queue allows.
            for _ in 0..QUEUE_SIZE {
                let Some(entry) = reader.array::<STATISTIC_BYTES>() else { break };
                let tag = usize::from(u16::from_le_bytes([entry[0], entry[1]]));
                let value = entry.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
                if let Some(known) = state.values.get_mut(tag) {
                    // All ones: the driver has no such figure.
                    *known = value.filter(|value| *value != u64::MAX);
                }
            }
            state.updated_s = self.config.clock.unix_ns() / 1_000_000_000;
            // A driver has one buffer; of a second one the first goes back.
            if let Some(before) = state.asked.replace(chain) {
                queue.push(before, 0);
            }
        }
    }

    fn serve_all(&self) {
        let mut state = self.state.lock();
        self.serve(&state, INFLATE, |chain| self.inflate(chain));
        self.serve(&state, DEFLATE, |_| {});
        if let Some(index) = state.reporting_queue() {
            self.serve(&state, index, |chain| {
                for segment in chain.writable() {
                    self.release(segment.address, u64::from(segment.bytes));
                }
            });
        }
        if !state.paused {
            self.take_statistics(&mut state);
        }
    }
}

impl Expired for Balloon {
    /// Asks for statistics: the driver gets its buffer back and fills it anew.
    fn expired(&self, _token: u32) {
        let mut state = self.state.lock();
        self.arm(&state);
        let queue = state.statistics_queue().and_then(|index| state.queue(index));
        if let (Some(queue), false) = (queue, state.paused)
            && let Some(chain) = state.asked.take()
        {
            queue.push(chain, 0);
        }
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> Kind {
        Kind::Balloon
    }

    fn features(&self) -> u64 {
        let on = |on: bool, feature: u64| if on { feature } else { 0 };
        F_STATISTICS
            | on(self.config.deflate_on_oom, F_DEFLATE_ON_OOM)
            | on(self.config.free_page_reporting, F_REPORTING)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 3 + usize::from(self.config.free_page_reporting)]
    }

    fn config(&self) -> Vec<u8> {
        let state = self.state.lock();
        [state.wanted.to_le_bytes(), state.actual.to_le_bytes()].concat()
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        let changed = {
            let mut state = self.state.lock();
            let mut pages = state.actual.to_le_bytes();
            // Legacy drivers write byte by byte.
            let place = offset.checked_sub(CONFIG_ACTUAL);
            let Some(place) = place.and_then(|at| pages.get_mut(at..at + bytes.len())) else {
                return;
            };
            place.copy_from_slice(bytes);
            let pages = u32::from_le_bytes(pages);
            std::mem::replace(&mut state.actual, pages) != pages
        };
        if changed {
            let event = DeviceEvent::BalloonChanged { bytes: self.actual() };
            self.config.events.event(&self.config.id, event);
        }
    }

    fn activate(&self, driver: Driver) {
        self.state.lock().driver = Some(driver);
        self.serve_all();
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        (state.driver, state.asked) = (None, None);
        // A guest that starts anew has all of its memory again.
        state.actual = 0;
        state.values = Default::default();
    }

    fn notify(&self, _queue: u16) {
        self.serve_all();
    }

    fn set_running(&self, running: bool) {
        self.state.lock().paused = !running;
        if running {
            self.serve_all();
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let State { wanted, actual, values, updated_s, polling_s, .. } = &mut *state;
        fields.item("wanted", wanted)?;
        fields.item("actual", actual)?;
        fields.item("values", values)?;
        fields.item("updated_s", updated_s)?;
        fields.item("polling_s", polling_s)?;
        if fields.is_loading() {
            self.arm(&state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
