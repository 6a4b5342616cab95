//! What a virtio device is, without any transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::{Fields, StateError};

use super::queue::Queue;

/// The types of devices, as the specification numbers them (5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A network card.
    Net = 1,
    /// A disk.
    Block = 2,
    /// Serial ports.
    Console = 3,
    /// A source of randomness.
    Entropy = 4,
    /// Takes memory from the guest and gives it back.
    Balloon = 5,
    /// A shared folder.
    NineP = 9,
    /// A graphics card.
    Gpu = 16,
    /// A keyboard, mouse or tablet.
    Input = 18,
    /// Sockets to the host.
    Vsock = 19,
    /// A shared folder by FUSE.
    Fs = 26,
}

/// Feature bits that concern rings and transports (6.1). Devices offer none of them.
pub mod feature {
    /// A legacy driver that frames requests as it likes.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Descriptors may name tables of descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// Notifications by index.
    pub const EVENT_INDEX: u64 = 1 << 29;
    /// Not a legacy driver.
    pub const VERSION_1: u64 = 1 << 32;
}

/// A device: a disk, a network card, a console.
///
/// A transport calls all methods, without any lock that [`Events`] or [`Queue`] take. `activate`
/// and `reset` are never called at the same time; the others may be called at any time, from any
/// thread, also after a reset.
pub trait VirtioDevice: Send + Sync {
    /// Its type.
    fn kind(&self) -> Kind;

    /// The features of this type of device that are offered.
    fn features(&self) -> u64;

    /// The most entries of each queue, powers of two; their number is the number of queues.
    fn queue_sizes(&self) -> Vec<u16>;

    /// The configuration space as it is now.
    fn config(&self) -> Vec<u8>;

    /// The driver writes to the configuration space.
    fn write_config(&self, offset: usize, bytes: &[u8]) {
        _ = (offset, bytes);
    }

    /// The driver is ready.
    fn activate(&self, driver: Driver);

    /// Back to the state after power-on. When this returns the device touches no guest memory.
    fn reset(&self);

    /// The driver says that a queue has something new.
    fn notify(&self, queue: u16);

    /// The machine goes on, or is about to stand still: then the device finishes what it has begun
    /// and begins nothing new. No vCPU runs.
    fn set_running(&self, running: bool) {
        _ = running;
    }

    /// Saves or loads what the device knows beside its configuration and its queues. A loaded one
    /// was just reset, and activated if it was active. Requests that it has taken and not given
    /// back come again. A device that does not know how blocks saving.
    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields;
        Err(StateError::unsupported())
    }
}

/// A driver that is ready: what was agreed on, and the queues.
#[derive(Clone, Debug)]
pub struct Driver {
    /// The features that both sides want.
    pub features: u64,
    /// The queues by their numbers; none where the driver uses none.
    pub queues: Vec<Option<Arc<Queue>>>,
    /// The way to the driver.
    pub events: Arc<Events>,
}

impl Driver {
    /// Whether a feature was agreed on.
    #[must_use]
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// A queue that the driver uses.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<&Arc<Queue>> {
        self.queues.get(usize::from(index))?.as_ref()
    }
}

/// The transport's way to interrupt the driver. A leaf: it never calls back.
pub trait Interrupt: Send + Sync {
    /// A queue has answers.
    fn queue(&self, index: u16);

    /// The configuration or the status has changed.
    fn config(&self);
}

/// A device's way to its driver.
pub struct Events {
    interrupt: Arc<dyn Interrupt>,
    needs_reset: AtomicBool,
}

impl Events {
    /// All is well until somebody says otherwise.
    #[must_use]
    pub fn new(interrupt: Arc<dyn Interrupt>) -> Arc<Self> {
        Arc::new(Self { interrupt, needs_reset: AtomicBool::new(false) })
    }

    /// The configuration has changed.
    pub fn config_changed(&self) {
        self.interrupt.config();
    }

    /// The driver has broken the rules: it is to reset the device.
    pub fn broken(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.interrupt.config();
        }
    }

    /// The driver broke the rules before the state was saved; it was told then.
    pub(super) fn was_broken(&self) {
        self.needs_reset.store(true, Ordering::Release);
    }

    /// Whether the driver is to reset the device.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn used(&self, queue: u16) {
        self.interrupt.queue(queue);
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "events, needs reset: {}", self.needs_reset())
    }
}
