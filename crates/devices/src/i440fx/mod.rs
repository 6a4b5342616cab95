//! The host bridge of the `pc` board: Intel 82441FX (i440FX). Data sheet: 290549-001.

use std::sync::Arc;

use device::pci::{Connection, Identity, Layout, PciFunction, PinRouter};
use device::{Device, Fields, StateError};

use crate::pci::{INTEL, Pam, SUBSYSTEM};

const PAM: u16 = 0x59;
const PAM_BYTES: u16 = 7;

/// The PCI side of the bridge: who it is, and shadow RAM.
pub struct I440fx {
    connection: Arc<Connection>,
    pam: Pam,
}

impl I440fx {
    /// The bridge over this shadow RAM.
    pub fn new(pam: Pam) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x1237,
            revision: 2,
            class: 0x060000,
            subsystem: SUBSYSTEM,
        };
        let mut layout = Layout::new(identity);
        let config = layout.config();
        config.allow(0x50, &[0xff, 0xff]); // memory and cache timing, which nothing here has
        config.allow(PAM, &[0xff; PAM_BYTES as usize]);
        config.allow(0x60, &[0xff; 8]); // sizes of the memory modules
        config.set(0x72, &[0x02]); // SMRAM is where it always is, and closed
        config.allow(0x72, &[0x78]);
        Arc::new(Self { connection: layout.build(), pam })
    }

    fn apply(&self) {
        let registers =
            std::array::from_fn(|at| self.connection.config_read(PAM + at as u16, 1) as u8);
        self.pam.apply(&registers);
    }

    /// Opens the shadow RAM, as firmware leaves it for a system.
    pub fn open_shadow_ram(&self) {
        (0..PAM_BYTES).for_each(|at| self.connection.config_write(PAM + at, 1, 0x33));
        self.apply();
    }
}

impl Device for I440fx {
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

impl PciFunction for I440fx {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        if at + u16::from(size) > PAM && at < PAM + PAM_BYTES {
            self.apply();
        }
    }
}

/// The board's wiring: pin A of slot 1 is the router's first input, and each slot is one further.
pub struct Wiring;

impl PinRouter for Wiring {
    fn input(&self, slot: u8, pin: u32) -> u32 {
        (u32::from(slot) + pin + 3) % 4
    }
}
