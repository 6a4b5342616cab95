//! The registers of the modern kind (4.1.4): four parts of a BAR.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use device::{Fields, Io, StateError};
use memory::Doorbells;

use super::{Interrupts, NO_VECTOR};
use crate::virtio::transport::{Core, QueueSetup};

/// Bytes of each part.
pub(super) const PART_BYTES: u64 = 0x1000;
/// Bytes of all parts.
pub(super) const BYTES: u64 = 4 * PART_BYTES;
/// Bytes of the notification part that belong to each queue.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const QUEUE_COUNT: u64 = 0x12;
const STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFFSET: u64 = 0x1e;
const QUEUE_DESCRIPTORS: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const QUEUE_END: u64 = 0x38;

/// A part of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Common,
    Isr,
    Device,
    Notify,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Common, Self::Isr, Self::Device, Self::Notify];

    pub fn offset(self) -> u64 {
        self as u64 * PART_BYTES
    }
}

/// All registers of a function, and the device behind them.
pub(super) struct Registers {
    core: Core,
    interrupts: Arc<Interrupts>,
    device_select: AtomicU32,
    driver_select: AtomicU32,
    queue_select: AtomicU16,
    /// The state was just loaded.
    loaded: AtomicBool,
}

impl Registers {
    pub fn new(core: Core, interrupts: Arc<Interrupts>) -> Self {
        Self {
            core,
            interrupts,
            device_select: AtomicU32::new(0),
            driver_select: AtomicU32::new(0),
            queue_select: AtomicU16::new(0),
            loaded: AtomicBool::new(false),
        }
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    pub fn selected(&self) -> u16 {
        self.queue_select.load(Ordering::Relaxed)
    }

    pub fn select_queue(&self, index: u16) {
        self.queue_select.store(index, Ordering::Relaxed);
    }

    pub fn reset(&self) {
        self.core.reset();
        self.clear();
    }

    /// Saves or loads everything.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut selects = (
            self.device_select.load(Ordering::Relaxed),
            self.driver_select.load(Ordering::Relaxed),
            self.selected(),
        );
        fields.item("selects", &mut selects)?;
        self.device_select.store(selects.0, Ordering::Relaxed);
        self.driver_select.store(selects.1, Ordering::Relaxed);
        self.select_queue(selects.2);
        self.core.transfer(fields)?;
        self.interrupts.transfer(fields)?;
        if fields.is_loading() {
            self.loaded.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The machine goes on: a device that was just loaded looks for what it has missed.
    pub fn resume(&self) {
        if self.loaded.swap(false, Ordering::AcqRel) {
            self.core.notify_all();
        }
    }

    pub fn set_status(&self, status: u8) {
        self.core.set_status(status);
        if status == 0 {
            self.clear();
        }
    }

    fn clear(&self) {
        self.device_select.store(0, Ordering::Relaxed);
        self.driver_select.store(0, Ordering::Relaxed);
        self.select_queue(0);
        self.interrupts.reset();
    }

    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let within = offset % PART_BYTES;
        match offset / PART_BYTES {
            0 => self.read_common(within, size),
            1 if within == 0 => u64::from(self.interrupts.take_reasons()),
            2 => self.core.read_config(within, size),
            _ => 0,
        }
    }

    pub fn write(&self, offset: u64, size: u8, value: u64) {
        let within = offset % PART_BYTES;
        match offset / PART_BYTES {
            0 => self.write_common(within, size, value),
            2 => self.core.write_config(within, size, value),
            3 => self.core.notify((within / u64::from(NOTIFY_MULTIPLIER)) as u16),
            _ => {}
        }
    }

    fn read_common(&self, offset: u64, size: u8) -> u64 {
        let queue = self.core.queue(self.selected());
        let setup = queue.unwrap_or_default();
        match (offset, size) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_select.load(Ordering::Relaxed).into(),
            (DEVICE_FEATURE, 4) => {
                half(self.core.device_features(), self.device_select.load(Ordering::Relaxed))
            }
            (DRIVER_FEATURE_SELECT, 4) => self.driver_select.load(Ordering::Relaxed).into(),
            (DRIVER_FEATURE, 4) => {
                half(self.core.driver_features(), self.driver_select.load(Ordering::Relaxed))
            }
            (CONFIG_VECTOR, 2) => self.interrupts.config_vector().into(),
            (QUEUE_COUNT, 2) => self.core.queue_count().into(),
            (STATUS, 1) => self.core.status().into(),
            (CONFIG_GENERATION, 1) => u64::from(self.core.config_generation() & 0xff),
            (QUEUE_SELECT, 2) => self.selected().into(),
            // A queue that there is not has no entries.
            (QUEUE_SIZE, 2) => setup.layout.size.into(),
            (QUEUE_VECTOR, 2) if queue.is_none() => NO_VECTOR.into(),
            (QUEUE_VECTOR, 2) => self.interrupts.queue_vector(self.selected()).into(),
            (QUEUE_ENABLE, 2) => setup.enabled.into(),
            (QUEUE_NOTIFY_OFFSET, 2) => self.selected().into(),
            (QUEUE_DESCRIPTORS..QUEUE_END, 4 | 8) => {
                let register = offset & !7;
                let mut setup = setup;
                let address = *address(&mut setup, register);
                if size == 8 { address } else { half(address, ((offset & 4) / 4) as u32) }
            }
            _ => 0,
        }
    }

    fn write_common(&self, offset: u64, size: u8, value: u64) {
        match (offset, size) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_select.store(value as u32, Ordering::Relaxed),
            (DRIVER_FEATURE_SELECT, 4) => self.driver_select.store(value as u32, Ordering::Relaxed),
            (DRIVER_FEATURE, 4) => {
                self.core.choose_features(self.driver_select.load(Ordering::Relaxed), value as u32);
            }
            (CONFIG_VECTOR, 2) => self.interrupts.set_config_vector(value as u16),
            (STATUS, 1) => self.set_status(value as u8),
            (QUEUE_SELECT, 2) => self.select_queue(value as u16),
            (QUEUE_VECTOR, 2) => self.interrupts.set_queue_vector(self.selected(), value as u16),
            (QUEUE_SIZE, 2) => {
                self.core.set_up_queue(self.selected(), |setup| setup.layout.size = value as u16);
            }
            // Only a reset takes a queue out of use.
            (QUEUE_ENABLE, 2) if value == 1 => {
                self.core.set_up_queue(self.selected(), |setup| setup.enabled = true);
            }
            (QUEUE_DESCRIPTORS..QUEUE_END, 4 | 8) => {
                self.core.set_up_queue(self.selected(), |setup| {
                    let address = address(setup, offset & !7);
                    *address = match (size, offset & 4) {
                        (8, _) => value,
                        (_, 0) => *address & !u64::from(u32::MAX) | value & u64::from(u32::MAX),
                        _ => *address & u64::from(u32::MAX) | value << 32,
                    };
                });
            }
            _ => {} // read-only and reserved registers ignore writes
        }
    }
}

/// The low or the high half; behind the last there are no more bits.
fn half(value: u64, select: u32) -> u64 {
    match select {
        0 => value & u64::from(u32::MAX),
        1 => value >> 32,
        _ => 0,
    }
}

fn address(setup: &mut QueueSetup, register: u64) -> &mut u64 {
    match register {
        QUEUE_DESCRIPTORS => &mut setup.layout.descriptors,
        QUEUE_DRIVER => &mut setup.layout.driver,
        _ => {
            debug_assert_eq!(register, QUEUE_DEVICE);
            &mut setup.layout.device
        }
    }
}

/// One part as registers behind the BAR.
pub(super) struct Window {
    registers: Arc<Registers>,
    part: Part,
    queues: u64,
}

impl Window {
    pub fn new(registers: &Arc<Registers>, part: Part) -> Self {
        // Asked for now: later, whoever asks may hold locks.
        let queues = u64::from(registers.core().queue_count());
        Self { registers: Arc::clone(registers), part, queues }
    }
}

impl Io for Window {
    fn read(&self, offset: u64, size: u8) -> u64 {
        self.registers.read(self.part.offset() + offset, size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.registers.write(self.part.offset() + offset, size, value);
    }

    fn doorbells(&self) -> Option<Doorbells> {
        let stride = u64::from(NOTIFY_MULTIPLIER);
        (self.part == Part::Notify).then_some(Doorbells { offset: 0, stride, count: self.queues })
    }
}
