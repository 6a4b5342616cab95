//! Configuration space as memory: 1 MiB a bus. PCI Express Base, 7.2.2.

use std::sync::Arc;

use device::Io;
use device::pci::{Address, Bus};

/// The memory-mapped configuration space of a root bus.
pub struct Ecam(pub Arc<Bus>);

fn target(offset: u64) -> (u8, Address, u16) {
    ((offset >> 20) as u8, Address::from_number((offset >> 12) as u8), offset as u16 & 0xfff)
}

impl Io for Ecam {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let (bus, function, register) = target(offset);
        let read = |register| u64::from(self.0.config_read(bus, function, register, size.min(4)));
        match size {
            8 => read(register) | read(register | 4) << 32,
            _ => read(register),
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let (bus, function, register) = target(offset);
        self.0.config_write(bus, function, register, size.min(4), value as u32);
        if size == 8 {
            self.0.config_write(bus, function, register | 4, 4, (value >> 32) as u32);
        }
    }
}
