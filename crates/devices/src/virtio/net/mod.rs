//! A network card. Virtio 1.3, 5.1.
//!
//! `-netdev user,id=n0 -device virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56`

mod control;
mod filter;
mod header;
mod receive;
mod spec;
mod transmit;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use ::net::{Backend, Capabilities, Card};
use device::{EventSink, Fields, StateError};
use parking_lot::Mutex;

pub use filter::{Address, Filter};

use super::Queue;
use super::device::{Driver, Events, Kind, VirtioDevice, feature};
use receive::Receiver;
use transmit::Transmitter;

/// The most pairs of queues that are offered.
pub const PAIRS_MAX: u16 = 256;
/// Entries of the queue for orders.
const CONTROL_QUEUE_SIZE: u16 = 64;

/// What a card is made of.
pub struct NetConfig {
    /// For events.
    pub id: String,
    /// What it is plugged into.
    pub backend: Arc<dyn Backend>,
    /// Its address.
    pub address: Address,
    /// Pairs of queues, 1 to [`PAIRS_MAX`].
    pub pairs: u16,
    /// Entries of receive queues, a power of two.
    pub receive_queue_size: u16,
    /// Entries of transmit queues, a power of two.
    pub transmit_queue_size: u16,
    /// The MTU that the guest is told, if any.
    pub mtu: Option<u16>,
    /// What may be offered of what the back end can.
    pub offloads: Capabilities,
    /// Offer that a frame fills several buffers.
    pub merge_buffers: bool,
    /// Offer the queue for orders.
    pub control: bool,
    /// Told when the guest changes what it lets in.
    pub events: Arc<dyn EventSink>,
}

/// The card.
///
/// Lock order: a transmitter, then (through the back end) a receiver, then `state`; the back end
/// is called with a transmitter's lock at most.
pub struct Net {
    config: NetConfig,
    offered: u64,
    receivers: Vec<Mutex<Receiver>>,
    transmitters: Vec<Mutex<Transmitter>>,
    state: Mutex<State>,
}

struct State {
    filter: Filter,
    filter_told: bool,
    control: Option<Arc<Queue>>,
    events: Option<Arc<Events>>,
    /// Pairs of queues in use.
    pairs: u16,
    features: u64,
    /// What the guest may send and be sent now.
    granted: Capabilities,
    /// The link as somebody outside has set it, and as the back end sees it.
    plugged: bool,
    carrier: bool,
    paused: bool,
}

impl Net {
    /// A card, plugged into its back end.
    #[must_use]
    pub fn new(config: NetConfig) -> Arc<Self> {
        let pairs = config.pairs.clamp(1, PAIRS_MAX);
        let state = State {
            filter: Filter::new(config.address),
            filter_told: false,
            control: None,
            events: None,
            pairs: 1,
            features: 0,
            granted: Capabilities::default(),
            plugged: true,
            carrier: config.backend.link(),
            paused: false,
        };
        let card = Arc::new(Self {
            offered: offer(&config),
            receivers: (0..pairs).map(|_| Mutex::default()).collect(),
            transmitters: (0..pairs).map(|_| Mutex::default()).collect(),
            state: Mutex::new(state),
            config,
        });
        let weak: Weak<Self> = Arc::downgrade(&card);
        card.config.backend.attach(weak);
        card
    }

    /// Plugs the cable in or out, as the guest sees it.
    pub fn set_plugged(&self, plugged: bool) {
        self.change_link(|state| state.plugged = plugged);
    }

    /// What the guest lets in. Its next change is told again.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let mut state = self.state.lock();
        state.filter_told = false;
        state.filter.clone()
    }

    /// The same for whoever does not answer the change by asking.
    #[must_use]
    pub fn filter_quietly(&self) -> Filter {
        self.state.lock().filter.clone()
    }

    /// What it is plugged into.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.config.backend
    }

    fn change_link(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let before = state.link();
        change(&mut state);
        let events = state.events.clone().filter(|_| state.link() != before);
        drop(state);
        if let Some(events) = events {
            events.config_changed();
        }
    }

    fn pairs_max(&self) -> u16 {
        self.receivers.len() as u16
    }

    /// Something may be received again.
    fn resume(&self) {
        if self.receivers.iter().any(|receiver| receiver.lock().stop_waiting()) {
            self.config.backend.room();
        }
    }
}

impl State {
    fn link(&self) -> bool {
        self.plugged && self.carrier
    }
}

/// The features that are offered for this configuration.
fn offer(config: &NetConfig) -> u64 {
    let on = |on: bool, features: u64| if on { features } else { 0 };
    let capabilities = config.offloads.and(config.backend.capabilities());
    let offloads = header::features(capabilities);
    let control = spec::F_CTRL_VQ
        | spec::F_CTRL_RX
        | spec::F_CTRL_VLAN
        | spec::F_CTRL_RX_EXTRA
        | spec::F_CTRL_MAC_ADDR
        | on(config.pairs > 1, spec::F_MQ);
    spec::F_MAC
        | spec::F_STATUS
        | (offloads & !spec::F_CTRL_GUEST_OFFLOADS)
        | on(config.control, control | offloads & spec::F_CTRL_GUEST_OFFLOADS)
        | on(config.merge_buffers, spec::F_MRG_RXBUF)
        | on(config.mtu.is_some(), spec::F_MTU)
}

impl VirtioDevice for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        self.offered
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let pair = [self.config.receive_queue_size, self.config.transmit_queue_size];
        let mut sizes = pair.repeat(usize::from(self.pairs_max()));
        if self.config.control {
            sizes.push(CONTROL_QUEUE_SIZE);
        }
        sizes
    }

    fn config(&self) -> Vec<u8> {
        let state = self.state.lock();
        let mut config = state.filter.address.to_vec();
        config.extend(if state.link() { spec::S_LINK_UP } else { 0 }.to_le_bytes());
        config.extend(self.pairs_max().to_le_bytes());
        config.extend(self.config.mtu.unwrap_or(0).to_le_bytes());
        config
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.state.lock();
        // Drivers of the modern kind send an order instead.
        let legacy = state.features & feature::VERSION_1 == 0;
        if let Some(address) = state.filter.address.get_mut(offset..offset + bytes.len())
            && legacy
        {
            address.copy_from_slice(bytes);
        }
    }

    fn activate(&self, driver: Driver) {
        let granted = header::granted(driver.features);
        let control = self.pairs_max() * 2;
        {
            let mut state = self.state.lock();
            state.features = driver.features;
            state.granted = granted;
            // Without the feature for several pairs the orders come right behind the first.
            let control = if driver.has(spec::F_MQ) { control } else { 2 };
            state.control = driver.queue(control).filter(|_| driver.has(spec::F_CTRL_VQ)).cloned();
            if driver.has(spec::F_CTRL_VLAN) {
                state.filter.vlans = Some(Box::new([0; 64]));
            }
            state.events = Some(Arc::clone(&driver.events));
        }
        let several = driver.has(spec::F_MQ);
        for (index, receiver) in self.receivers.iter().enumerate() {
            let used = index == 0 || several;
            let queue = driver.queue(index as u16 * 2).filter(|_| used).cloned();
            receiver.lock().start(queue, driver.features);
        }
        for (index, transmitter) in self.transmitters.iter().enumerate() {
            let used = index == 0 || several;
            let queue = driver.queue(index as u16 * 2 + 1).filter(|_| used).cloned();
            transmitter.lock().start(queue, driver.features, granted);
        }
        self.config.backend.set_guest_offload(granted);
        self.config.backend.room();
        (0..self.transmitters.len()).for_each(|index| self.transmit(index));
    }

    fn reset(&self) {
        for receiver in &self.receivers {
            *receiver.lock() = Receiver::default();
        }
        for transmitter in &self.transmitters {
            *transmitter.lock() = Transmitter::default();
        }
        {
            let mut state = self.state.lock();
            state.filter = Filter::new(self.config.address);
            (state.control, state.events) = (None, None);
            (state.pairs, state.features) = (1, 0);
            state.granted = Capabilities::default();
        }
        self.config.backend.set_guest_offload(Capabilities::default());
    }

    fn notify(&self, queue: u16) {
        let several = self.state.lock().features & spec::F_MQ != 0;
        let control = if several { self.pairs_max() * 2 } else { 2 };
        if queue == control {
            self.control();
        } else if queue.is_multiple_of(2) {
            let receiver = self.receivers.get(usize::from(queue / 2));
            if receiver.is_some_and(|receiver| receiver.lock().stop_waiting()) {
                self.config.backend.room();
            }
        } else {
            self.transmit(usize::from(queue / 2));
        }
    }

    fn set_running(&self, running: bool) {
        self.state.lock().paused = !running;
        if running {
            self.resume();
            (0..self.transmitters.len()).for_each(|index| self.transmit(index));
        } else {
            // Whoever is within gets out: a receiver's and a transmitter's lock are held meanwhile.
            self.receivers.iter().for_each(|receiver| drop(receiver.lock()));
            self.transmitters.iter().for_each(|transmitter| drop(transmitter.lock()));
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let mut filter = state.filter.clone();
        let mut pairs = state.pairs;
        let mut plugged = state.plugged;
        fields.item("filter", &mut filter)?;
        fields.item("pairs", &mut pairs)?;
        fields.item("plugged", &mut plugged)?;
        let mut vlans = filter.vlans.take().map_or(Vec::new(), |vlans| vlans.to_vec());
        fields.item("vlans", &mut vlans)?;
        fields.check(matches!(vlans.len(), 0 | 64), "vlans")?;
        filter.vlans = <[u64; 64]>::try_from(vlans).ok().map(Box::new);
        fields.check((1..=self.pairs_max()).contains(&pairs), "pairs")?;
        if fields.is_loading() {
            (state.filter, state.pairs, state.plugged) = (filter, pairs, plugged);
        }
        Ok(())
    }
}

impl Card for Net {
    fn receive(&self, frame: &[u8], offload: ::net::Offload) -> bool {
        self.receive_frame(frame, offload)
    }

    fn set_link(&self, up: bool) {
        self.change_link(|state| state.carrier = up);
    }
}
