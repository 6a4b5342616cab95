//! Interrupts over PCI: a vector for each purpose, or the pin.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use device::pci::Connection;
use device::{Fields, StateError};
use parking_lot::Mutex;

use crate::virtio::device::Interrupt;

/// No interrupt.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// A queue has answers.
const USED: u8 = 1;
/// The configuration or the status has changed.
const CHANGED: u8 = 2;

/// Where interrupts of a function go. Lock order: `reasons`, then the connection's.
pub(super) struct Interrupts {
    /// Weak, for the connection owns the registers, which own this.
    connection: OnceLock<Weak<Connection>>,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
    /// Why the pin is up; reading them takes it down.
    reasons: Mutex<u8>,
}

impl Interrupts {
    pub fn new(queues: usize) -> Self {
        Self {
            connection: OnceLock::new(),
            config: AtomicU16::new(NO_VECTOR),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            reasons: Mutex::new(0),
        }
    }

    pub fn connect(&self, connection: &Arc<Connection>) {
        _ = self.connection.set(Arc::downgrade(connection));
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.get()?.upgrade()
    }

    /// Whether messages are on.
    pub fn uses_vectors(&self) -> bool {
        self.connection().is_some_and(|connection| connection.uses_msix())
    }

    pub fn config_vector(&self) -> u16 {
        self.config.load(Ordering::Relaxed)
    }

    pub fn queue_vector(&self, queue: u16) -> u16 {
        self.queues.get(usize::from(queue)).map_or(NO_VECTOR, |cell| cell.load(Ordering::Relaxed))
    }

    /// A vector that there is not reads back as none, by which the driver learns of it.
    fn checked(&self, vector: u16) -> u16 {
        let vectors = self.connection().map_or(0, |connection| connection.msix_vectors());
        if vector < vectors { vector } else { NO_VECTOR }
    }

    pub fn set_config_vector(&self, vector: u16) {
        self.config.store(self.checked(vector), Ordering::Relaxed);
    }

    pub fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(cell) = self.queues.get(usize::from(queue)) {
            cell.store(self.checked(vector), Ordering::Relaxed);
        }
    }

    /// Reads the reasons, which takes the pin down.
    pub fn take_reasons(&self) -> u8 {
        let mut reasons = self.reasons.lock();
        if let Some(connection) = self.connection().filter(|_| *reasons != 0) {
            connection.set_irq(false);
        }
        std::mem::take(&mut *reasons)
    }

    pub fn reset(&self) {
        self.config.store(NO_VECTOR, Ordering::Relaxed);
        self.queues.iter().for_each(|cell| cell.store(NO_VECTOR, Ordering::Relaxed));
        self.take_reasons();
    }

    /// Saves or loads the vectors and the reasons; the pin is driven by the connection's state.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut config = self.config_vector();
        fields.item("config_vector", &mut config)?;
        self.set_config_vector(config);
        let mut vectors: Vec<u16> =
            self.queues.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        fields.item("queue_vectors", &mut vectors)?;
        for (queue, vector) in (0..).zip(vectors) {
            self.set_queue_vector(queue, vector);
        }
        fields.locked("reasons", &self.reasons)
    }

    fn raise(&self, reason: u8, vector: u16) {
        let Some(connection) = self.connection() else { return };
        if connection.uses_msix() {
            if vector != NO_VECTOR {
                connection.notify(vector);
            }
            return;
        }
        let mut reasons = self.reasons.lock();
        *reasons |= reason;
        connection.set_irq(true);
    }
}

impl Interrupt for Interrupts {
    fn queue(&self, index: u16) {
        self.raise(USED, self.queue_vector(index));
    }

    fn config(&self) {
        self.raise(CHANGED, self.config_vector());
    }
}
