//! The PCI transport (4.1): modern, transitional and legacy.
//!
//! `-device virtio-blk-pci,drive=d0,disable-legacy=on,vectors=3`

mod interrupt;
mod legacy;
mod modern;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use device::pci::{BarKind, Connection, ExpressKind, Identity, Layout, PciFunction, Place, spec};
use device::{Device, Fields, StateError};
use memory::Owner;

use super::device::{Interrupt, Kind, VirtioDevice};
use super::transport::{Core, RingOptions};
use interrupt::{Interrupts, NO_VECTOR};
use legacy::LegacyRegisters;
use modern::{Part, Registers};

/// The maker of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// The board's number of modern functions.
const SUBSYSTEM: u16 = 0x1100;
/// Modern devices are numbered from here by their types.
const MODERN_BASE: u16 = 0x1040;

const LEGACY_BAR: u8 = 0;
const MSIX_BAR: u8 = 1;
const MODERN_BAR: u8 = 4;

/// Kinds of capabilities.
const CAPABILITY_COMMON: u8 = 1;
const CAPABILITY_NOTIFY: u8 = 2;
const CAPABILITY_ISR: u8 = 3;
const CAPABILITY_DEVICE: u8 = 4;
const CAPABILITY_WINDOW: u8 = 5;

/// How a device appears on the bus.
#[derive(Clone, Copy, Debug)]
pub struct PciOptions {
    /// Drivers of the modern kind find it.
    pub modern: bool,
    /// Legacy drivers find it.
    pub legacy: bool,
    /// Vectors of the MSI-X table; 0 for no table.
    pub vectors: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// The slot belongs to a PCI Express port.
    pub express: bool,
    /// What is offered about the rings.
    pub rings: RingOptions,
}

/// The number of a device among transitional ones, for those that existed in legacy times.
#[must_use]
pub fn transitional_id(kind: Kind) -> Option<u16> {
    Some(match kind {
        Kind::Net => 0x1000,
        Kind::Block => 0x1001,
        Kind::Balloon => 0x1002,
        Kind::Console => 0x1003,
        Kind::Entropy => 0x1005,
        Kind::NineP => 0x1009,
        Kind::Gpu | Kind::Input | Kind::Vsock | Kind::Fs => return None,
    })
}

/// The class that a type of device has unless somebody says otherwise.
#[must_use]
pub fn class(kind: Kind) -> u32 {
    match kind {
        Kind::Net => 0x02_0000,
        Kind::Block => 0x01_0000,
        Kind::Console | Kind::Vsock => 0x07_8000,
        Kind::NineP => 0x00_0200,
        Kind::Fs => 0x01_8000,
        Kind::Gpu => 0x03_8000,
        Kind::Input => 0x09_8000,
        Kind::Balloon | Kind::Entropy => 0x00_ff00,
    }
}

/// A device in a slot of a PCI bus.
pub struct VirtioPci {
    registers: Arc<Registers>,
    connection: Arc<Connection>,
    /// Where the window capability lies, if there is one.
    window: Option<u16>,
}

impl VirtioPci {
    /// A function with a device behind it. Without a legacy number, or with both kinds refused,
    /// it is modern. `finish` adds to the layout what is not virtio's: a ROM.
    pub fn new<E>(
        device: Arc<dyn VirtioDevice>,
        options: &PciOptions,
        finish: impl FnOnce(&mut Layout) -> Result<(), E>,
    ) -> Result<Arc<Self>, E> {
        let kind = device.kind();
        let legacy_id = transitional_id(kind).filter(|_| options.legacy);
        let modern = options.modern || legacy_id.is_none();
        let identity = Identity {
            vendor: VENDOR,
            device: legacy_id.unwrap_or(MODERN_BASE + kind as u16),
            revision: u8::from(legacy_id.is_none()),
            class: options.class,
            subsystem: (VENDOR, if legacy_id.is_some() { kind as u16 } else { SUBSYSTEM }),
        };
        let queues = device.queue_sizes().len();
        let interrupts = Arc::new(Interrupts::new(queues));
        let config_bytes = device.config().len() as u64;
        let core = Core::new(device, Arc::clone(&interrupts) as Arc<dyn Interrupt>, options.rings);
        let registers = Arc::new(Registers::new(core, interrupts));

        let mut layout = Layout::new(identity);
        layout.interrupt_pin(1);
        finish(&mut layout)?;
        if legacy_id.is_some() {
            let bytes = legacy::CONFIG_BEHIND_VECTORS + config_bytes;
            let ports = Arc::new(LegacyRegisters::new(&registers));
            layout.bar(LEGACY_BAR, BarKind::Io, bytes, Owner::Io(ports));
        }
        if options.vectors > 0 {
            layout.msix(None, options.vectors, MSIX_BAR, 0, 0x800.max(options.vectors as u32 * 16));
        }
        let window = modern.then(|| add_modern(&mut layout, &registers));
        if options.express {
            layout.express(ExpressKind::Endpoint);
        }
        let connection = layout.build();
        registers.interrupts().connect(&connection);
        Ok(Arc::new(Self { registers, connection, window }))
    }

    /// The device behind it.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        self.registers.core().device()
    }

    /// The access that the window capability describes now: place in the registers and size.
    fn window_access(&self, window: u16) -> Option<(u64, u8)> {
        let read = |at: u16, size| self.connection.config_read(window + at, size);
        let (bar, offset, bytes) = (read(4, 1), u64::from(read(8, 4)), read(12, 4));
        let fits = bar == u32::from(MODERN_BAR)
            && matches!(bytes, 1 | 2 | 4)
            && offset.is_multiple_of(u64::from(bytes))
            && offset < modern::BYTES;
        fits.then_some((offset, bytes as u8))
    }
}

/// Adds the registers of the modern kind; where the window capability is.
fn add_modern(layout: &mut Layout, registers: &Arc<Registers>) -> u16 {
    layout.bar_space(MODERN_BAR, BarKind::Prefetchable64, modern::BYTES);
    for part in Part::ALL {
        let owner = Owner::Io(Arc::new(modern::Window::new(registers, part)));
        layout.piece(MODERN_BAR, part.offset(), modern::PART_BYTES, owner);
    }
    for (kind, part) in [
        (CAPABILITY_COMMON, Part::Common),
        (CAPABILITY_ISR, Part::Isr),
        (CAPABILITY_DEVICE, Part::Device),
    ] {
        let body = capability(kind, 16, part.offset() as u32);
        layout.capability(spec::CAPABILITY_VENDOR, None, &body, &[]);
    }
    let mut body = capability(CAPABILITY_NOTIFY, 20, Part::Notify.offset() as u32).to_vec();
    body.extend(modern::NOTIFY_MULTIPLIER.to_le_bytes());
    layout.capability(spec::CAPABILITY_VENDOR, None, &body, &[]);
    // The window is aimed by the driver: BAR, offset, length, and then the data.
    let mut body = [0; 18];
    body[..2].copy_from_slice(&[20, CAPABILITY_WINDOW]);
    let mut mask = [0xff; 18];
    mask[..2].fill(0);
    mask[3..6].fill(0);
    layout.capability(spec::CAPABILITY_VENDOR, None, &body, &mask)
}

fn capability(kind: u8, length: u8, offset: u32) -> [u8; 14] {
    let mut body = [0; 14];
    body[..3].copy_from_slice(&[length, kind, MODERN_BAR]);
    body[6..10].copy_from_slice(&offset.to_le_bytes());
    body[10..].copy_from_slice(&(modern::PART_BYTES as u32).to_le_bytes());
    body
}

impl Device for VirtioPci {
    fn reset(&self) {
        self.registers.reset();
        self.connection.reset();
    }

    fn set_running(&self, running: bool) {
        self.device().set_running(running);
        if running {
            self.registers.resume();
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        self.registers.transfer(fields)
    }
}

impl PciFunction for VirtioPci {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_read(&self, at: u16, size: u8) -> u32 {
        if let Some(window) = self.window.filter(|window| at == window + 16)
            && let Some((offset, bytes)) = self.window_access(window)
            && bytes == size
        {
            return self.registers.read(offset, bytes) as u32;
        }
        self.connection.config_read(at, size)
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        if let Some(window) = self.window.filter(|window| at == window + 16)
            && let Some((offset, bytes)) = self.window_access(window)
            && bytes == size
        {
            self.registers.write(offset, bytes, u64::from(value));
        }
    }

    fn plugged(&self, place: &Place) {
        self.registers.core().set_memory(Arc::clone(&place.root().dma));
    }
}
