//! Between the guest's queues and those of the back end.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ::net::vhost_user::{
    Buffer, FrontEnd, Lie, MemoryRegion, Queue as BackQueue, SharedMemory, VhostUserError,
};

use memory::{AddressSpace, Owner, Ram};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::virtio::device::Driver;
use crate::virtio::queue::Segment;
use crate::virtio::{Chain, Queue};

/// Entries of a ring of the back end: a request takes one for each page.
const RING_SIZE: u16 = 1024;
/// How long a pause waits for requests that are under way.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection, and what is under way.
pub struct Link {
    shared: Arc<Shared>,
}

/// Lock order: `front`, then `state`, then the guest's queues.
struct Shared {
    front: Mutex<FrontEnd>,
    memory: Arc<AddressSpace>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    driver: Option<Driver>,
    pairs: Vec<Pair>,
    regions: Vec<Region>,
    paused: bool,
    /// Ends the thread of these queues.
    end: Option<Arc<OwnedFd>>,
    thread: Option<JoinHandle<()>>,
}

/// A queue of the guest and the back end's queue behind it.
struct Pair {
    guest: Arc<Queue>,
    back: BackQueue,
    /// Requests under way, by their heads in the back end's ring.
    chains: HashMap<u16, Chain>,
    /// One that has found no room.
    waits: Option<Chain>,
}

/// RAM that the back end sees.
struct Region {
    ram: Arc<Ram>,
    /// In the guest's addresses.
    start: u64,
    bytes: u64,
    /// In the RAM.
    offset: u64,
}

impl Region {
    fn holds(&self, segment: &Segment) -> bool {
        segment
            .address
            .checked_sub(self.start)
            .and_then(|from| from.checked_add(u64::from(segment.bytes)))
            .is_some_and(|end| end <= self.bytes)
    }
}

impl Link {
    pub fn new(front: FrontEnd, memory: Arc<AddressSpace>) -> Self {
        let (front, state) = (Mutex::new(front), Mutex::default());
        Self { shared: Arc::new(Shared { front, memory, state }) }
    }

    pub fn start(&self, driver: Driver) {
        let events = Arc::clone(&driver.events);
        if self.try_start(driver).is_err() {
            // The guest hears that its folder is not there; the reason is the back end's to tell.
            events.broken();
        }
    }

    fn try_start(&self, driver: Driver) -> Result<(), VhostUserError> {
        let host = |action| move |source| VhostUserError::Host { action, source };
        let mut front = self.shared.front.lock();
        let regions = main_memory(&self.shared.memory);
        let queues: Vec<_> = driver.queues.iter().map_while(Clone::clone).collect();
        let sizes = vec![RING_SIZE; queues.len()];
        let bytes = FrontEnd::ring_bytes(&sizes).next_multiple_of(4096);
        let rings = SharedMemory::new("hostel-rings", bytes).map_err(host("share memory"))?;
        let told: Vec<_> = regions
            .iter()
            .map(|region| MemoryRegion {
                file: region.ram.as_fd(),
                offset: region.offset,
                bytes: region.bytes,
                guest_address: region.start,
            })
            .collect();
        let backs = front.start(driver.features, &told, &Arc::new(rings), &sizes)?;
        let pair = |(guest, back)| Pair { guest, back, chains: HashMap::new(), waits: None };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let end = eventfd(0, flags).map_err(|error| host("make an event")(error.into()))?;
        let end = Arc::new(end);
        let socket = front.socket().try_clone_to_owned().map_err(host("share a socket"))?;
        let mut state = self.shared.state.lock();
        state.pairs = queues.into_iter().zip(backs).map(pair).collect();
        state.regions = regions;
        state.driver = Some(driver);
        state.end = Some(Arc::clone(&end));
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("vhost-user-fs".to_owned());
        let thread = thread.spawn(move || shared.run(&end, &socket));
        state.thread = Some(thread.map_err(host("start a thread"))?);
        state.forward_all();
        Ok(())
    }

    /// Lets go of everything; when this returns the back end touches no guest memory.
    pub fn stop(&self) {
        let mut front = self.shared.front.lock();
        let (queues, thread) = {
            let mut state = self.shared.state.lock();
            if let Some(end) = state.end.take() {
                _ = rustix::io::write(&*end, &1_u64.to_ne_bytes());
            }
            (state.pairs.len(), state.thread.take())
        };
        if queues > 0 {
            // One that does not answer has gone.
            _ = front.stop(queues as u32);
        }
        if let Some(thread) = thread {
            _ = thread.join();
        }
        let mut state = self.shared.state.lock();
        *state = State { paused: state.paused, ..State::default() };
    }

    /// The guest has put something into a queue.
    pub fn forward(&self, queue: usize) {
        let mut state = self.shared.state.lock();
        state.forward(queue);
    }

    pub fn set_running(&self, running: bool) {
        let mut state = self.shared.state.lock();
        state.paused = !running;
        if running {
            return state.forward_all();
        }
        let until = Instant::now() + PAUSE;
        while state.pairs.iter().any(|pair| !pair.chains.is_empty()) && Instant::now() < until {
            // The thread carries back what the back end finishes.
            parking_lot::MutexGuard::unlocked(&mut state, || {
                thread::sleep(Duration::from_millis(1));
            });
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The guest's main memory in as few pieces as there are, holes included: what lies in holes belongs
/// to the same block and is nobody else's.
fn main_memory(memory: &AddressSpace) -> Vec<Region> {
    let view = memory.view();
    let Some(Owner::Ram(main)) = view.find(0).map(|range| range.owner.clone()) else {
        return Vec::new();
    };
    let mut regions: Vec<Region> = Vec::new();
    for range in view.ranges() {
        let Owner::Ram(ram) = &range.owner else { continue };
        if !Arc::ptr_eq(ram, &main) {
            continue;
        }
        let shift = range.start.wrapping_sub(range.offset);
        let known =
            regions.iter_mut().find(|region| region.start.wrapping_sub(region.offset) == shift);
        match known {
            Some(region) => region.bytes = range.last() + 1 - region.start,
            None => regions.push(Region {
                ram: Arc::clone(ram),
                start: range.start,
                bytes: range.length,
                offset: range.offset,
            }),
        }
    }
    regions
}

impl State {
    fn forward_all(&mut self) {
        (0..self.pairs.len()).for_each(|queue| self.forward(queue));
    }

    /// Hands what the guest has put into a queue to the back end.
    fn forward(&mut self, queue: usize) {
        if self.paused {
            return;
        }
        let Self { pairs, regions, .. } = self;
        let Some(pair) = pairs.get_mut(queue) else { return };
        let mut news = false;
        while let Some(chain) = pair.waits.take().or_else(|| pair.guest.pop()) {
            let readable = chain.readable().iter().map(|segment| (segment, false));
            let all = readable.chain(chain.writable().iter().map(|segment| (segment, true)));
            let inside = |segment: &Segment| regions.iter().any(|region| region.holds(segment));
            let buffers: Vec<Buffer> = all
                .filter(|(segment, _)| inside(segment))
                .map(|(segment, writable)| Buffer {
                    address: segment.address,
                    bytes: segment.bytes,
                    writable,
                })
                .collect();
            let count = chain.readable().len() + chain.writable().len();
            if buffers.len() != count || count == 0 || count > usize::from(RING_SIZE) {
                // Memory that the back end does not see, or more than it can be told.
                pair.guest.break_device();
                return;
            }
            match pair.back.ring.add(&buffers) {
                Some(head) => {
                    pair.chains.insert(head, chain);
                    news = true;
                }
                None => {
                    pair.waits = Some(chain);
                    break;
                }
            }
        }
        if news {
            pair.back.kick();
        }
    }

    /// Hands what the back end is done with to the guest. False when it says what cannot be.
    fn back(&mut self, queue: usize) -> bool {
        let Self { pairs, regions, .. } = self;
        let pair = &mut pairs[queue];
        let mut done = Vec::new();
        loop {
            match pair.back.ring.take() {
                Ok(None) => break,
                Err(Lie) => return false,
                Ok(Some(used)) => {
                    let Some(chain) = pair.chains.remove(&used.head) else { return false };
                    let written = u64::from(used.bytes).min(chain.writable_bytes());
                    mark_written(regions, &chain);
                    done.push((chain, written));
                }
            }
        }
        if !done.is_empty() {
            pair.guest.push_all(done);
        }
        self.forward(queue); // what has found no room before
        true
    }
}

/// Another process has written: a copy of the memory that is being made elsewhere is to hear of it.
fn mark_written(regions: &[Region], chain: &Chain) {
    for segment in chain.writable() {
        if let Some(region) = regions.iter().find(|region| region.holds(segment)) {
            let offset = segment.address - region.start + region.offset;
            region.ram.dirty().mark(offset, u64::from(segment.bytes));
        }
    }
}

impl Shared {
    /// Waits for what the back end has done, until the end.
    fn run(&self, end: &OwnedFd, socket: &OwnedFd) {
        let events: Vec<_> = {
            let state = self.state.lock();
            state.pairs.iter().map(|pair| pair.back.events.clone()).collect()
        };
        loop {
            let mut polled = vec![
                PollFd::new(end, PollFlags::IN),
                // Without flags there is still word of a hang-up.
                PollFd::new(socket, PollFlags::empty()),
            ];
            polled.extend(
                events.iter().map(|event| PollFd::from_borrowed_fd(event.called(), PollFlags::IN)),
            );
            _ = poll(&mut polled, None);
            let flags: Vec<_> = polled.iter().map(PollFd::revents).collect();
            if !flags[0].is_empty() {
                return;
            }
            let mut state = self.state.lock();
            let mut good = flags[1].is_empty();
            for (queue, flags) in flags[2..].iter().enumerate() {
                if !flags.is_empty() {
                    events[queue].heard();
                    good &= state.back(queue);
                }
            }
            if !good {
                if let Some(driver) = &state.driver {
                    driver.events.broken();
                }
                return;
            }
        }
    }
}
