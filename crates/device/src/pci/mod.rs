//! PCI: what a function is, and the bus it is plugged into. Specifications: PCI Local Bus 3.0,
//! PCI-to-PCI Bridge 1.2, PCI Express Base.
//!
//! **How to write a PCI device.** Declare the parts with a [`Layout`] (identity, BARs with what
//! stands behind them as `memory::Owner`, interrupt pin, MSI or MSI-X, capabilities, ROM);
//! [`Layout::build`] gives the [`Connection`], which the device keeps in an `Arc`. It implements
//! configuration space whole: sizing, mapping, masks, reset, interrupt routing. The device then
//!
//! - drives [`Connection::set_irq`] (pin), or [`Connection::notify`] (MSI-X or MSI vector; false
//!   means neither is on: use the pin), or [`Connection::interrupt`] for one that has a single
//!   interrupt;
//! - reads and writes guest memory through [`Connection::dma`], which is none until the guest has
//!   made it a bus master;
//! - implements [`PciFunction`]: `connection` and [`crate::Device::reset`] (which calls
//!   [`Connection::reset`]); `config_read` and `config_write` only where configuration registers
//!   do more than hold bits (call the connection's, then act).
//!
//! A device's registers as an `Io` must be there before the `Connection` is: let the `Io` own the
//! register machine (`Arc<Mutex<Chip>>`) and hold the connection in a `OnceLock<Arc<Connection>>`,
//! or build with `Arc::new_cyclic` and a `Weak`.
//!
//! The board plugs the device in with [`Bus::plug`] and out with [`Bus::unplug`]; the device is
//! told by [`PciFunction::plugged`] where it is.

mod bus;
mod config;
mod connection;
mod layout;
mod msi;
pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::Device;

pub use bus::{Address, Aperture, Bus, PinRouter, Place, PlugError, Root};
pub use config::{BarKind, CONVENTIONAL_BYTES, ConfigSpace, EXPRESS_BYTES};
pub use connection::Connection;
pub use layout::{ExpressKind, Identity, Layout};
pub use msi::{MsiSink, VECTORS_MAX};

/// A function in a slot of a PCI bus.
///
/// Called from vCPU threads (configuration cycles) and the main loop (plugging, reset), several at
/// once, without any lock of this crate held.
pub trait PciFunction: Device {
    /// Its registers.
    fn connection(&self) -> &Connection;

    /// A configuration read of 1, 2 or 4 bytes.
    fn config_read(&self, at: u16, size: u8) -> u32 {
        self.connection().config_read(at, size)
    }

    /// A configuration write of 1, 2 or 4 bytes.
    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection().config_write(at, size, value);
    }

    /// It was just plugged in here.
    fn plugged(&self, place: &Place) {
        _ = place;
    }

    /// Something was plugged into the bus below.
    fn child_plugged(&self) {}

    /// The system is to let go of what is plugged in below. False: there is no way to ask.
    fn ask_to_unplug_child(&self) -> bool {
        false
    }

    /// The bus below, of a bridge.
    fn secondary(&self) -> Option<&Arc<Bus>> {
        None
    }
}
