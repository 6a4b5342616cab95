//! What all transports have in common: the status, the features, the set-up of queues (2.1-2.4, 3).

use std::sync::Arc;

use device::{Fields, StateError};
use memory::AddressSpace;
use parking_lot::{Mutex, RwLock};

use super::device::{Driver, Events, Interrupt, VirtioDevice, feature};
use super::queue::{Layout, Position, Queue, RingFeatures};

/// Bits of the status.
pub mod status {
    /// The driver is done with the set-up.
    pub const DRIVER_OK: u8 = 4;
    /// The features are chosen.
    pub const FEATURES_OK: u8 = 8;
    /// The device wants to be reset.
    pub const NEEDS_RESET: u8 = 64;
}

/// What can be chosen about the rings of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Offer tables of descriptors.
    pub indirect: bool,
    /// Offer notification by index.
    pub event_index: bool,
}

/// The set-up of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueSetup {
    /// The most entries.
    pub size_max: u16,
    /// Where it lies.
    pub layout: Layout,
    /// The driver uses it.
    pub enabled: bool,
}

/// A device behind any transport. The transport translates register accesses into these calls.
///
/// Lock order: `life`, then `state`; the device is called with `life` at most.
pub struct Core {
    device: Arc<dyn VirtioDevice>,
    /// None while the transport is plugged in nowhere.
    memory: RwLock<Option<Arc<AddressSpace>>>,
    interrupt: Arc<dyn Interrupt>,
    options: RingOptions,
    /// Held over activation and reset, which must not meet.
    life: Mutex<()>,
    state: Mutex<State>,
}

/// What is saved of a driver's set-up.
#[derive(Default)]
struct Saved {
    status: u8,
    features: u64,
    needs_reset: bool,
    places: Vec<(u16, u64, u64, u64)>,
    enabled: Vec<bool>,
    positions: Vec<Option<Position>>,
    config: Vec<u8>,
    config_generation: u32,
}

device::saved!(Saved {
    status,
    features,
    needs_reset,
    places,
    enabled,
    positions,
    config,
    config_generation,
});

struct State {
    status: u8,
    driver_features: u64,
    queues: Vec<QueueSetup>,
    events: Arc<Events>,
    active: Vec<Arc<Queue>>,
    /// The configuration as last looked at, and how often it differed.
    config: Vec<u8>,
    config_generation: u32,
}

impl Core {
    /// A device after power-on.
    #[must_use]
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        interrupt: Arc<dyn Interrupt>,
        options: RingOptions,
    ) -> Self {
        let state = State {
            status: 0,
            driver_features: 0,
            queues: setups(&*device),
            events: Events::new(Arc::clone(&interrupt)),
            active: Vec::new(),
            config: Vec::new(),
            config_generation: 0,
        };
        let (memory, life) = (RwLock::new(None), Mutex::new(()));
        Self { device, memory, interrupt, options, life, state: Mutex::new(state) }
    }

    /// The guest's memory as the transport reaches it.
    pub fn set_memory(&self, memory: Arc<AddressSpace>) {
        *self.memory.write() = Some(memory);
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.device
    }

    /// All features that are offered to a driver of the modern kind.
    #[must_use]
    pub fn device_features(&self) -> u64 {
        let RingOptions { indirect, event_index } = self.options;
        let ring = [(indirect, feature::INDIRECT), (event_index, feature::EVENT_INDEX)];
        let ring = ring.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum::<u64>();
        self.device.features() | ring | feature::VERSION_1
    }

    /// What the driver has chosen so far.
    #[must_use]
    pub fn driver_features(&self) -> u64 {
        self.state.lock().driver_features
    }

    /// The driver chooses 32 features. Not after it has said that it is done with choosing.
    pub fn choose_features(&self, half: u32, value: u32) {
        let mut state = self.state.lock();
        if half > 1 || state.status & (status::FEATURES_OK | status::DRIVER_OK) != 0 {
            return;
        }
        let shift = 32 * half;
        let kept = state.driver_features & !(u64::from(u32::MAX) << shift);
        state.driver_features = kept | u64::from(value) << shift;
    }

    /// The status as the driver sees it.
    #[must_use]
    pub fn status(&self) -> u8 {
        let state = self.state.lock();
        let needs_reset = state.events.needs_reset() && state.status & status::DRIVER_OK != 0;
        state.status | if needs_reset { status::NEEDS_RESET } else { 0 }
    }

    /// The driver writes the status: bits are added, or all are taken away, which is a reset.
    pub fn set_status(&self, value: u8) {
        if value == 0 {
            return self.reset();
        }
        let _life = self.life.lock();
        let offered = self.device_features();
        let mut state = self.state.lock();
        let mut value = value & !status::NEEDS_RESET | state.status;
        let chooses = value & status::FEATURES_OK != 0 && state.status & status::FEATURES_OK == 0;
        let features = state.driver_features;
        if chooses && (features & !offered != 0 || features & feature::VERSION_1 == 0) {
            value &= !status::FEATURES_OK;
        }
        let starts = value & status::DRIVER_OK != 0 && state.status & status::DRIVER_OK == 0;
        state.status = value;
        if starts {
            let driver = self.start(&mut state);
            drop(state);
            self.device.activate(driver);
        }
    }

    fn start(&self, state: &mut State) -> Driver {
        let mut features = state.driver_features & self.device_features();
        // A driver that never said so is a legacy one: it has not heard of FEATURES_OK.
        if state.status & status::FEATURES_OK == 0 {
            features &= !feature::VERSION_1;
        }
        let rings = RingFeatures {
            indirect: features & feature::INDIRECT != 0,
            event_index: features & feature::EVENT_INDEX != 0,
        };
        let memory = self.memory.read().clone();
        if memory.is_none() {
            state.events.broken();
        }
        let queue = |(index, setup): (usize, &QueueSetup)| {
            let memory = memory.as_ref().filter(|_| setup.enabled)?;
            Some(Queue::new(index as u16, setup.layout, rings, memory, &state.events))
        };
        let queues: Vec<_> = state.queues.iter().enumerate().map(queue).collect();
        state.active = queues.iter().flatten().cloned().collect();
        Driver { features, queues, events: Arc::clone(&state.events) }
    }

    /// Back to power-on.
    pub fn reset(&self) {
        let _life = self.life.lock();
        let mut state = self.state.lock();
        for queue in state.active.drain(..) {
            queue.stop();
        }
        state.status = 0;
        state.driver_features = 0;
        state.queues = setups(&*self.device);
        // A new one, so that a late complaint of an old queue changes nothing.
        state.events = Events::new(Arc::clone(&self.interrupt));
        drop(state);
        self.device.reset();
    }

    /// Saves or loads what the driver has set up and where its queues stand, then the device's own.
    /// A loaded device looks at all its queues when the machine goes on.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let _life = self.life.lock();
        let mut saved = self.saved();
        fields.item("queues", &mut saved)?;
        if fields.is_loading() {
            self.restore(saved)?;
        }
        self.device.transfer(fields)
    }

    fn saved(&self) -> Saved {
        let state = self.state.lock();
        let places = state.queues.iter().map(|setup| {
            let Layout { size, descriptors, driver, device } = setup.layout;
            (size, descriptors, driver, device)
        });
        let at = |index| state.active.iter().find(|queue| usize::from(queue.index()) == index);
        Saved {
            status: state.status,
            features: state.driver_features,
            needs_reset: state.events.needs_reset(),
            places: places.collect(),
            enabled: state.queues.iter().map(|setup| setup.enabled).collect(),
            positions: (0..state.queues.len()).map(|index| at(index)?.saved()).collect(),
            config: state.config.clone(),
            config_generation: state.config_generation,
        }
    }

    fn restore(&self, saved: Saved) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let count = state.queues.len();
        if [saved.places.len(), saved.enabled.len(), saved.positions.len()] != [count; 3] {
            return Err(StateError::bad("the device has another number of queues"));
        }
        let mut queues = setups(&*self.device);
        for (setup, ((size, descriptors, driver, device), enabled)) in
            queues.iter_mut().zip(saved.places.into_iter().zip(saved.enabled))
        {
            if !(1..=setup.size_max).contains(&size) {
                return Err(StateError::bad("a queue is larger than it can be"));
            }
            setup.layout = Layout { size, descriptors, driver, device };
            setup.enabled = enabled;
        }
        state.active.drain(..).for_each(|queue| queue.stop());
        state.events = Events::new(Arc::clone(&self.interrupt));
        (state.status, state.driver_features) = (saved.status, saved.features);
        state.queues = queues;
        (state.config, state.config_generation) = (saved.config, saved.config_generation);
        drop(state);
        self.device.reset();
        let mut state = self.state.lock();
        if state.status & status::DRIVER_OK == 0 {
            return Ok(());
        }
        if saved.needs_reset {
            state.events.was_broken();
        }
        let driver = self.start(&mut state);
        for (queue, position) in driver.queues.iter().zip(saved.positions) {
            match (queue, position) {
                (Some(queue), Some(position)) => queue.restore(position),
                (Some(queue), None) => queue.stop(),
                (None, _) => {}
            }
        }
        drop(state);
        self.device.activate(driver);
        Ok(())
    }

    /// Has the device look at all its queues.
    pub fn notify_all(&self) {
        (0..self.queue_count()).for_each(|index| self.notify(index));
    }

    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        self.state.lock().queues.len() as u16
    }

    /// The set-up of a queue, if there is one of that number.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<QueueSetup> {
        self.state.lock().queues.get(usize::from(index)).copied()
    }

    /// The driver sets a queue up. Not while the device works, and not with more entries than
    /// there may be.
    pub fn set_up_queue(&self, index: u16, change: impl FnOnce(&mut QueueSetup)) {
        let mut state = self.state.lock();
        if state.status & status::DRIVER_OK != 0 {
            return;
        }
        if let Some(setup) = state.queues.get_mut(usize::from(index)) {
            let mut changed = *setup;
            change(&mut changed);
            if (1..=setup.size_max).contains(&changed.layout.size) {
                *setup = changed;
            }
        }
    }

    /// The driver notifies a queue.
    pub fn notify(&self, index: u16) {
        let state = self.state.lock();
        let works = state.status & status::DRIVER_OK != 0 && !state.events.needs_reset();
        let exists = state.queues.get(usize::from(index)).is_some_and(|queue| queue.enabled);
        drop(state);
        if works && exists {
            self.device.notify(index);
        }
    }

    /// Reads the configuration space; ones behind its end.
    #[must_use]
    pub fn read_config(&self, offset: u64, size: u8) -> u64 {
        let config = self.device.config();
        let mut bytes = [0xff; 8];
        for (at, byte) in bytes.iter_mut().enumerate().take(usize::from(size.min(8))) {
            let place = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(at));
            if let Some(value) = place.and_then(|place| config.get(place)) {
                *byte = *value;
            }
        }
        u64::from_le_bytes(bytes) & device::ones(size)
    }

    /// Writes the configuration space; nothing beyond its end.
    pub fn write_config(&self, offset: u64, size: u8, value: u64) {
        let bytes = value.to_le_bytes();
        let size = usize::from(size.min(8));
        let length = self.device.config().len();
        if let Ok(offset) = usize::try_from(offset)
            && offset.checked_add(size).is_some_and(|end| end <= length)
        {
            self.device.write_config(offset, &bytes[..size]);
        }
    }

    /// Changes whenever the configuration has changed between two looks.
    #[must_use]
    pub fn config_generation(&self) -> u32 {
        let config = self.device.config();
        let mut state = self.state.lock();
        if state.config != config {
            state.config = config;
            state.config_generation = state.config_generation.wrapping_add(1);
        }
        state.config_generation
    }
}

fn setups(device: &dyn VirtioDevice) -> Vec<QueueSetup> {
    let setup = |size| QueueSetup {
        size_max: size,
        layout: Layout { size, ..Layout::default() },
        enabled: false,
    };
    device.queue_sizes().into_iter().map(setup).collect()
}
