//! Virtqueues: how a driver hands requests to a device and gets them back. Virtio 1.3, 2.6 to 2.8.
//!
//! Everything in a ring is the guest's and may change at any moment: it is read once, checked, and
//! used from the copy. A driver that breaks the rules finds its device asking for a reset; nothing
//! more is taken from or put into that queue.

mod chain;
mod split;
mod walk;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use memory::{AddressSpace, FlatView, Ram};
use parking_lot::Mutex;

use super::device::Events;
use split::Split;
use walk::{Broken, Walk};

pub use chain::{Chain, Cursor, Segment};

/// The most entries of a queue, by the specification.
pub const QUEUE_SIZE_MAX: u16 = 32768;

/// Where a driver has put a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u16,
    /// The descriptors.
    pub descriptors: u64,
    /// What the driver writes.
    pub driver: u64,
    /// What the device writes.
    pub device: u64,
}

/// What driver and device agreed on that concerns the rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// Descriptors may name tables of descriptors.
    pub indirect: bool,
    /// Notifications by index instead of by flag.
    pub event_index: bool,
}

/// A part of a ring, as found in memory.
struct Area {
    ram: Arc<Ram>,
    offset: u64,
}

/// A queue of a device that is at work.
///
/// Lock order: `state` is a leaf, interrupts go out without it.
pub struct Queue {
    index: u16,
    layout: Layout,
    features: RingFeatures,
    memory: Arc<AddressSpace>,
    events: Arc<Events>,
    state: Mutex<State>,
}

struct State {
    view: Arc<FlatView>,
    generation: u64,
    /// None after the driver broke the rules, or when the device was reset.
    ring: Option<Split>,
    /// Requests that the device has taken and not given back, in their order.
    taken: Vec<u16>,
    /// Those that an earlier process of the machine had taken.
    again: VecDeque<u16>,
}

/// Where a queue stands, beside what lies in the guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub next_available: u16,
    pub next_used: u16,
    pub signalled: u16,
    pub taken: Vec<u16>,
}

device::saved!(Position { next_available, next_used, signalled, taken });

impl Queue {
    /// A queue at its beginning. One that does not lie in memory breaks the device.
    #[must_use]
    pub fn new(
        index: u16,
        layout: Layout,
        features: RingFeatures,
        memory: &Arc<AddressSpace>,
        events: &Arc<Events>,
    ) -> Arc<Self> {
        // In this order, or a change between the two would go unnoticed.
        let generation = memory.generation();
        let view = memory.view();
        let ring = Split::new(&layout, &view).ok();
        if ring.is_none() {
            events.broken();
        }
        Arc::new(Self {
            index,
            layout,
            features,
            memory: Arc::clone(memory),
            events: Arc::clone(events),
            state: Mutex::new(State {
                view,
                generation,
                ring,
                taken: Vec::new(),
                again: VecDeque::new(),
            }),
        })
    }

    /// Its place among the queues of its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its entries.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Takes the next request. After `None` the driver notifies when there is another.
    #[must_use]
    pub fn pop(&self) -> Option<Chain> {
        let mut state = self.state.lock();
        match self.try_pop(&mut state) {
            Ok(chain) => chain,
            Err(Broken) => {
                state.ring = None;
                drop(state);
                self.events.broken();
                None
            }
        }
    }

    fn try_pop(&self, state: &mut State) -> Result<Option<Chain>, Broken> {
        if state.generation != self.memory.generation()
            && let Some(ring) = &mut state.ring
        {
            state.generation = self.memory.generation();
            state.view = self.memory.view();
            ring.relocate(&self.layout, &state.view)?;
        }
        let Some(ring) = &mut state.ring else { return Ok(None) };
        let walk = Walk { view: &state.view, indirect: self.features.indirect };
        let mut segments = Vec::new();
        let next = match state.again.pop_front() {
            Some(head) => Some(ring.pop_again(&walk, head, &mut segments)?),
            None => ring.pop(&walk, self.features.event_index, &mut segments)?,
        };
        state.taken.extend(next.map(|(token, _)| token.id));
        Ok(next.map(|(token, readable)| Chain {
            token,
            view: Arc::clone(&state.view),
            segments,
            readable,
        }))
    }

    /// Gives a request back, of whose writable bytes the first `written` hold the answer, and
    /// interrupts the driver if it wants that.
    pub fn push(&self, chain: Chain, written: u64) {
        self.push_all(vec![(chain, written)]);
    }

    /// Gives several requests back, which the driver sees all at once or not at all.
    pub fn push_all(&self, chains: Vec<(Chain, u64)>) {
        self.push_quietly(chains);
        self.signal();
    }

    /// Gives requests back without an interrupt; [`Queue::signal`] follows when there are no more.
    pub fn push_quietly(&self, chains: Vec<(Chain, u64)>) {
        for (chain, written) in &chains {
            for segment in chain.written(*written) {
                self.memory.written(segment.address, u64::from(segment.bytes));
            }
        }
        let used = chains
            .into_iter()
            .map(|(chain, written)| (chain.token, u32::try_from(written).unwrap_or(u32::MAX)));
        let used: Vec<_> = used.collect();
        let State { ring, taken, .. } = &mut *self.state.lock();
        if let Some(ring) = ring {
            ring.push(&used);
        }
        for (token, _) in used {
            if let Some(at) = taken.iter().position(|head| *head == token.id) {
                taken.remove(at);
            }
        }
    }

    /// Interrupts the driver if it wants that for what was given back since the last time.
    pub fn signal(&self) {
        let mut state = self.state.lock();
        let wants =
            state.ring.as_mut().is_some_and(|ring| ring.wants_interrupt(self.features.event_index));
        drop(state);
        if wants {
            self.events.used(self.index);
        }
    }

    /// A request makes no sense: the driver is to reset the device.
    pub fn break_device(&self) {
        self.stop();
        self.events.broken();
    }

    /// The device was reset: nothing moves any more.
    pub fn stop(&self) {
        self.state.lock().ring = None;
    }

    /// Where it stands; none when it no longer works.
    pub(super) fn saved(&self) -> Option<Position> {
        let state = self.state.lock();
        let mut position = state.ring.as_ref()?.saved();
        position.taken = state.taken.clone();
        Some(position)
    }

    /// Goes on from there. Requests that were taken and not given back come again, first.
    pub(super) fn restore(&self, position: Position) {
        let mut state = self.state.lock();
        if let Some(ring) = &mut state.ring {
            ring.restore(&position);
        }
        let size = usize::from(self.layout.size);
        state.again = position.taken.into_iter().take(size).collect();
    }

    /// Whether the queue still works.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state.lock().ring.is_some()
    }

    /// How many requests were taken, in 16 bits.
    #[must_use]
    pub fn position(&self) -> u16 {
        self.state.lock().ring.as_ref().map_or(0, Split::position)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "queue {} {:?}", self.index, self.layout)
    }
}

#[cfg(test)]
mod tests;
