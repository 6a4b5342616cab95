//! Function 0: the way to the ISA bus, and the interrupt router.

use std::sync::Arc;

use device::pci::{Connection, Identity, Layout, PciFunction};
use device::{Device, Fields, StateError};

use crate::pci::{INTEL, PirqRouter, SUBSYSTEM};

const ROUTES: u16 = 0x60;

/// The bridge.
pub struct Isa {
    connection: Arc<Connection>,
    router: Arc<PirqRouter>,
}

impl Isa {
    /// The bridge, which steers this router.
    pub fn new(router: Arc<PirqRouter>) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x7000,
            revision: 0,
            class: 0x060100,
            subsystem: SUBSYSTEM,
        };
        let mut layout = Layout::new(identity);
        layout.multifunction();
        let config = layout.config();
        config.set(device::pci::spec::COMMAND, &[7, 0]);
        config.set(0x4c, &[0x4d]); // recovery times of the bus
        config.allow(0x4c, &[0xff]);
        config.set(0x4e, &[0x03]);
        config.allow(0x4e, &[0xff]);
        config.set(ROUTES, &[0x80; 4]);
        config.allow(ROUTES, &[0x8f; 4]);
        config.set(0x69, &[0x02]);
        config.allow(0x69, &[0xff; 2]);
        Arc::new(Self { connection: layout.build(), router })
    }

    fn apply(&self) {
        let route = |at: usize| match at {
            0..4 => self.connection.config_read(ROUTES + at as u16, 1) as u8,
            _ => 0x80,
        };
        self.router.set_routes(std::array::from_fn(route));
    }
}

impl Device for Isa {
    fn reset(&self) {
        self.connection.reset();
        self.apply();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        if fields.is_loading() {
            self.apply();
        }
        Ok(())
    }
}

impl PciFunction for Isa {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        self.apply();
    }
}
