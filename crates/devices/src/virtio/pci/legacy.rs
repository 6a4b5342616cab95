//! The registers of legacy drivers (4.1.4.10): ports, with a queue's place as a page number.

use std::sync::Arc;

use device::Io;

use super::modern::Registers;
use crate::virtio::device::feature;
use crate::virtio::queue::Layout;
use crate::virtio::transport::QueueSetup;

const DEVICE_FEATURES: u64 = 0;
const DRIVER_FEATURES: u64 = 4;
const QUEUE_PAGE: u64 = 8;
const QUEUE_SIZE: u64 = 12;
const QUEUE_SELECT: u64 = 14;
const QUEUE_NOTIFY: u64 = 16;
const STATUS: u64 = 18;
const ISR: u64 = 19;
const CONFIG_VECTOR: u64 = 20;
const QUEUE_VECTOR: u64 = 22;
/// The configuration starts here, or behind the vectors when messages are on.
const CONFIG: u64 = 20;
/// See above.
pub(super) const CONFIG_BEHIND_VECTORS: u64 = 24;

/// Queues lie on pages, and the device's ring on one of its own.
const PAGE_BYTES: u64 = 4096;

/// The ports.
pub(super) struct LegacyRegisters {
    registers: Arc<Registers>,
}

impl LegacyRegisters {
    pub fn new(registers: &Arc<Registers>) -> Self {
        Self { registers: Arc::clone(registers) }
    }

    fn config_start(&self) -> u64 {
        if self.registers.interrupts().uses_vectors() { CONFIG_BEHIND_VECTORS } else { CONFIG }
    }

    fn set_page(&self, page: u32) {
        if page == 0 {
            // The only way that a legacy driver has to take its queues back.
            return self.registers.reset();
        }
        let selected = self.registers.selected();
        self.registers.core().set_up_queue(selected, |setup| {
            setup.layout = layout(setup, u64::from(page) * PAGE_BYTES);
            setup.enabled = true;
        });
    }
}

/// Everything behind the descriptors, the device's ring on the next page.
fn layout(setup: &QueueSetup, base: u64) -> Layout {
    let size = setup.size_max;
    let driver = base + u64::from(size) * 16;
    let driver_end = driver + 6 + u64::from(size) * 2;
    let device = driver_end.next_multiple_of(PAGE_BYTES);
    Layout { size, descriptors: base, driver, device }
}

impl Io for LegacyRegisters {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let (core, interrupts) = (self.registers.core(), self.registers.interrupts());
        let config = self.config_start();
        if offset >= config {
            return core.read_config(offset - config, size);
        }
        let selected = self.registers.selected();
        let queue = core.queue(selected).unwrap_or_default();
        match (offset, size) {
            (DEVICE_FEATURES, 4) => {
                let offered = core.device_features() | feature::ANY_LAYOUT;
                offered & u64::from(u32::MAX)
            }
            (DRIVER_FEATURES, 4) => core.driver_features() & u64::from(u32::MAX),
            (QUEUE_PAGE, 4) if queue.enabled => queue.layout.descriptors / PAGE_BYTES,
            (QUEUE_SIZE, 2) => queue.size_max.into(),
            (QUEUE_SELECT, 2) => selected.into(),
            (STATUS, 1) => core.status().into(),
            (ISR, 1) => interrupts.take_reasons().into(),
            (CONFIG_VECTOR, 2) => interrupts.config_vector().into(),
            (QUEUE_VECTOR, 2) => interrupts.queue_vector(selected).into(),
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let (core, interrupts) = (self.registers.core(), self.registers.interrupts());
        let config = self.config_start();
        if offset >= config {
            return core.write_config(offset - config, size, value);
        }
        match (offset, size) {
            (DRIVER_FEATURES, 4) => core.choose_features(0, value as u32),
            (QUEUE_PAGE, 4) => self.set_page(value as u32),
            (QUEUE_SELECT, 2) => self.registers.select_queue(value as u16),
            (QUEUE_NOTIFY, 2) => core.notify(value as u16),
            (STATUS, 1) => self.registers.set_status(value as u8),
            (CONFIG_VECTOR, 2) => interrupts.set_config_vector(value as u16),
            (QUEUE_VECTOR, 2) => {
                interrupts.set_queue_vector(self.registers.selected(), value as u16);
            }
            _ => {} // read-only and reserved registers ignore writes
        }
    }
}
