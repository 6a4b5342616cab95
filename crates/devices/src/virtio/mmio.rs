//! The memory-mapped transport (4.2, version 2).
//!
//! `-device virtio-blk-device,drive=d0` plugs a device into the next one of a board's slots; Linux
//! finds it by the device tree, ACPI (`LNRO0005`) or `virtio_mmio.device=SIZE@BASE:IRQ`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use device::{Device, Fields, Io, IrqLine, StateError};
use memory::AddressSpace;
use parking_lot::Mutex;

use super::device::{Interrupt, VirtioDevice};
use super::transport::{Core, QueueSetup, RingOptions};

/// The size of a slot.
pub const MMIO_BYTES: u64 = 0x200;

const MAGIC: u64 = 0x7472_6976; // "virt"
const VENDOR: u64 = 0x554d_4551; // drivers show it and do nothing else with it

const MAGIC_VALUE: u64 = 0x00;
const VERSION: u64 = 0x04;
const DEVICE_ID: u64 = 0x08;
const VENDOR_ID: u64 = 0x0c;
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SELECT: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SELECT: u64 = 0x24;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const STATUS: u64 = 0x70;
const QUEUE_DESCRIPTORS_LOW: u64 = 0x80;
const QUEUE_DESCRIPTORS_HIGH: u64 = 0x84;
const QUEUE_DRIVER_LOW: u64 = 0x90;
const QUEUE_DRIVER_HIGH: u64 = 0x94;
const QUEUE_DEVICE_LOW: u64 = 0xa0;
const QUEUE_DEVICE_HIGH: u64 = 0xa4;
const SHARED_MEMORY_LENGTH_LOW: u64 = 0xb0;
const SHARED_MEMORY_BASE_HIGH: u64 = 0xbc;
const CONFIG_GENERATION: u64 = 0xfc;
const CONFIG: u64 = 0x100;

/// A queue has answers.
const USED: u32 = 1;
/// The configuration or the status has changed.
const CHANGED: u32 = 2;

/// The interrupt line and why it is up.
struct Line {
    irq: IrqLine,
    /// Also the lock under which the line is driven.
    reasons: Mutex<u32>,
}

impl Line {
    fn change(&self, change: impl FnOnce(u32) -> u32) {
        let mut reasons = self.reasons.lock();
        *reasons = change(*reasons);
        self.irq.set_level(*reasons != 0);
    }
}

impl Interrupt for Line {
    fn queue(&self, _index: u16) {
        self.change(|reasons| reasons | USED);
    }

    fn config(&self) {
        self.change(|reasons| reasons | CHANGED);
    }
}

/// A slot with a device in it.
pub struct VirtioMmio {
    core: Core,
    line: Arc<Line>,
    device_select: AtomicU32,
    driver_select: AtomicU32,
    queue_select: AtomicU32,
    /// The state was just loaded.
    loaded: AtomicBool,
}

impl VirtioMmio {
    /// Puts a device into a slot.
    #[must_use]
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        memory: Arc<AddressSpace>,
        irq: IrqLine,
        options: RingOptions,
    ) -> Arc<Self> {
        let line = Arc::new(Line { irq, reasons: Mutex::new(0) });
        let interrupt = Arc::clone(&line) as Arc<dyn Interrupt>;
        let core = Core::new(device, interrupt, options);
        core.set_memory(memory);
        Arc::new(Self {
            core,
            line,
            device_select: AtomicU32::new(0),
            driver_select: AtomicU32::new(0),
            queue_select: AtomicU32::new(0),
            loaded: AtomicBool::new(false),
        })
    }

    fn selected(&self) -> u16 {
        u16::try_from(self.queue_select.load(Ordering::Relaxed)).unwrap_or(u16::MAX)
    }

    fn queue(&self) -> QueueSetup {
        self.core.queue(self.selected()).unwrap_or_default()
    }

    fn set_address(&self, value: u32, high: bool, field: fn(&mut QueueSetup) -> &mut u64) {
        self.core.set_up_queue(self.selected(), |setup| {
            let address = field(setup);
            *address = if high {
                *address & u64::from(u32::MAX) | u64::from(value) << 32
            } else {
                *address & !u64::from(u32::MAX) | u64::from(value)
            };
        });
    }

    fn write_queue(&self, offset: u64, value: u32) {
        match offset {
            QUEUE_SIZE => self.core.set_up_queue(self.selected(), |setup| {
                setup.layout.size = u16::try_from(value).unwrap_or(0);
            }),
            QUEUE_READY => {
                self.core.set_up_queue(self.selected(), |setup| setup.enabled = value & 1 != 0);
            }
            QUEUE_DESCRIPTORS_LOW | QUEUE_DESCRIPTORS_HIGH => {
                self.set_address(value, offset == QUEUE_DESCRIPTORS_HIGH, |setup| {
                    &mut setup.layout.descriptors
                });
            }
            QUEUE_DRIVER_LOW | QUEUE_DRIVER_HIGH => {
                self.set_address(value, offset == QUEUE_DRIVER_HIGH, |setup| {
                    &mut setup.layout.driver
                });
            }
            QUEUE_DEVICE_LOW | QUEUE_DEVICE_HIGH => {
                self.set_address(value, offset == QUEUE_DEVICE_HIGH, |setup| {
                    &mut setup.layout.device
                });
            }
            _ => {} // read-only and reserved registers ignore writes
        }
    }

    fn clear(&self) {
        for select in [&self.device_select, &self.driver_select, &self.queue_select] {
            select.store(0, Ordering::Relaxed);
        }
        self.line.change(|_| 0);
    }
}

impl Io for VirtioMmio {
    fn read(&self, offset: u64, size: u8) -> u64 {
        if offset >= CONFIG {
            return self.core.read_config(offset - CONFIG, size);
        }
        if size != 4 {
            return 0;
        }
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => 2,
            DEVICE_ID => self.core.device().kind() as u64,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => match self.device_select.load(Ordering::Relaxed) {
                0 => self.core.device_features() & u64::from(u32::MAX),
                1 => self.core.device_features() >> 32,
                _ => 0,
            },
            QUEUE_SIZE_MAX => u64::from(self.queue().size_max),
            QUEUE_READY => u64::from(self.queue().enabled),
            INTERRUPT_STATUS => u64::from(*self.line.reasons.lock()),
            STATUS => u64::from(self.core.status()),
            // No device here has shared memory: a length of all ones says so.
            SHARED_MEMORY_LENGTH_LOW..=SHARED_MEMORY_BASE_HIGH => u64::from(u32::MAX),
            CONFIG_GENERATION => u64::from(self.core.config_generation()),
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        if offset >= CONFIG {
            return self.core.write_config(offset - CONFIG, size, value);
        }
        if size != 4 {
            return;
        }
        let value = value as u32;
        match offset {
            DEVICE_FEATURES_SELECT => self.device_select.store(value, Ordering::Relaxed),
            DRIVER_FEATURES => {
                self.core.choose_features(self.driver_select.load(Ordering::Relaxed), value);
            }
            DRIVER_FEATURES_SELECT => self.driver_select.store(value, Ordering::Relaxed),
            QUEUE_SELECT => self.queue_select.store(value, Ordering::Relaxed),
            QUEUE_NOTIFY => {
                if let Ok(index) = u16::try_from(value) {
                    self.core.notify(index);
                }
            }
            INTERRUPT_ACKNOWLEDGE => self.line.change(|reasons| reasons & !value),
            STATUS => {
                self.core.set_status(value as u8);
                if value as u8 == 0 {
                    self.clear();
                }
            }
            _ => self.write_queue(offset, value),
        }
    }
}

impl Device for VirtioMmio {
    fn reset(&self) {
        self.core.reset();
        self.clear();
    }

    fn set_running(&self, running: bool) {
        self.core.device().set_running(running);
        if running && self.loaded.swap(false, Ordering::AcqRel) {
            self.core.notify_all();
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        for (name, select) in [
            ("device_select", &self.device_select),
            ("driver_select", &self.driver_select),
            ("queue_select", &self.queue_select),
        ] {
            let mut value = select.load(Ordering::Relaxed);
            fields.item(name, &mut value)?;
            select.store(value, Ordering::Relaxed);
        }
        self.core.transfer(fields)?;
        self.loaded.store(fields.is_loading(), Ordering::Release);
        fields.locked("reasons", &self.line.reasons)
    }
}
