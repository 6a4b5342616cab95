//! Configuration mechanism #1: an address at port 0xcf8, data at 0xcfc. PCI Local Bus 3.0, 3.2.2.3.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use device::pci::{Address, Bus};
use device::{Fields, Io, StateError, ones};

const ENABLE: u32 = 1 << 31;
const DATA: u64 = 4;

/// Ports 0xcf8 to 0xcff. The address is only taken whole; a single byte at 0xcf9 is another
/// register of the chipset, that of reset.
pub struct ConfigPorts {
    bus: Arc<Bus>,
    reset: Arc<dyn Io>,
    address: AtomicU32,
}

impl ConfigPorts {
    /// The ports before this root bus, with this reset register.
    #[must_use]
    pub fn new(bus: Arc<Bus>, reset: Arc<dyn Io>) -> Self {
        Self { bus, reset, address: AtomicU32::new(0) }
    }

    /// Bus, function and register of a data access, if the address register is on.
    fn target(&self, offset: u64) -> Option<(u8, Address, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        let register = address as u16 & 0xfc | offset as u16 & 3;
        let function = Address::from_number((address >> 8) as u8);
        (address & ENABLE != 0).then_some(((address >> 16) as u8, function, register))
    }

    /// Saves or loads the address.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut address = self.address.load(Ordering::Relaxed);
        fields.item("address", &mut address)?;
        self.address.store(address, Ordering::Relaxed);
        Ok(())
    }

    /// As after power-on.
    pub fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
    }
}

impl Io for ConfigPorts {
    fn read(&self, offset: u64, size: u8) -> u64 {
        match (offset, size) {
            (1, 1) => self.reset.read(0, 1),
            (0, 4) => u64::from(self.address.load(Ordering::Relaxed)),
            (DATA.., 1 | 2 | 4) => match self.target(offset) {
                Some((bus, function, register)) => {
                    u64::from(self.bus.config_read(bus, function, register, size))
                }
                None => ones(size),
            },
            _ => ones(size),
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        match (offset, size) {
            (1, 1) => self.reset.write(0, 1, value),
            (0, 4) => self.address.store(value as u32 & !0x7f00_0003, Ordering::Relaxed),
            (DATA.., 1 | 2 | 4) => {
                if let Some((bus, function, register)) = self.target(offset) {
                    self.bus.config_write(bus, function, register, size, value as u32);
                }
            }
            _ => {}
        }
    }
}
