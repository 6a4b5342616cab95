//! The host bridge of the `q35` board: Intel 82Q35 MCH. Data sheet: 316966-002.

use std::sync::Arc;

use device::pci::{Bus, Connection, Identity, Layout, PciFunction, PinRouter};
use device::{Device, Fields, StateError};
use memory::AddressSpace;

use crate::pci::{Ecam, INTEL, Pam, SUBSYSTEM, Window};

const EXPRESS_BASE: u16 = 0x60;
const PAM: u16 = 0x90;
const PAM_BYTES: u16 = 7;
const SMRAM: u16 = 0x9d;

const ENABLE: u64 = 1;

/// The PCI side of the bridge: who it is, shadow RAM, and where configuration space is in memory.
pub struct Mch {
    connection: Arc<Connection>,
    pam: Pam,
    /// The configuration space of 256, 128 and 64 buses.
    ecams: [Window; 3],
}

/// Sizes by the length field of the register.
const ECAM_BYTES: [u64; 3] = [256 << 20, 128 << 20, 64 << 20];

impl Mch {
    /// The bridge before this bus.
    pub fn new(pam: Pam, bus: &Arc<Bus>, memory: &Arc<AddressSpace>) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x29c0,
            revision: 0,
            class: 0x060000,
            subsystem: SUBSYSTEM,
        };
        let mut layout = Layout::new(identity);
        let config = layout.config();
        config.allow(EXPRESS_BASE, &[0x07, 0, 0, 0xfc, 0x0f, 0, 0, 0]);
        config.allow(PAM, &[0xff; PAM_BYTES as usize]);
        config.set(SMRAM, &[0x02]);
        config.allow(SMRAM, &[0x78, 0x07]);
        config.allow(0xa0, &[0xff; 12]); // top of memory, for systems to read back
        config.allow(0xac, &[0xff; 4]);
        let window = |bytes| Window::new(memory, "ecam", bytes, Arc::new(Ecam(Arc::clone(bus))));
        let ecams = ECAM_BYTES.map(window);
        Arc::new(Self { connection: layout.build(), pam, ecams })
    }

    fn apply(&self) {
        let registers =
            std::array::from_fn(|at| self.connection.config_read(PAM + at as u16, 1) as u8);
        self.pam.apply(&registers);
        let chosen = self.express();
        for (window, bytes) in self.ecams.iter().zip(ECAM_BYTES) {
            window.place(chosen.filter(|(_, length)| *length == bytes).map(|(start, _)| start));
        }
    }

    /// Where configuration space is in memory, and its bytes, if firmware has placed it.
    #[must_use]
    pub fn express(&self) -> Option<(u64, u64)> {
        let register = u64::from(self.connection.config_read(EXPRESS_BASE, 4))
            | u64::from(self.connection.config_read(EXPRESS_BASE + 4, 4)) << 32;
        let bytes = *ECAM_BYTES.get((register >> 1 & 3) as usize)?;
        let start = register & 0xf_ffff_ffff & !(bytes - 1);
        (register & ENABLE != 0 && start != 0).then_some((start, bytes))
    }

    /// Opens the shadow RAM and places configuration space, as firmware leaves them for a system.
    pub fn set_up(&self, express: u64) {
        (0..PAM_BYTES).for_each(|at| self.connection.config_write(PAM + at, 1, 0x33));
        self.connection.config_write(EXPRESS_BASE + 4, 4, (express >> 32) as u32);
        self.connection.config_write(EXPRESS_BASE, 4, (express | ENABLE) as u32);
        self.apply();
    }
}

impl Device for Mch {
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

impl PciFunction for Mch {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        let end = at + u16::from(size);
        let touches = |register, bytes| at < register + bytes && end > register;
        if touches(PAM, PAM_BYTES) || touches(EXPRESS_BASE, 8) {
            self.apply();
        }
    }
}

/// The board's wiring: slots up to 24 go to the router's inputs E to H, one further each; those of
/// the chipset itself to A to D, by pin.
pub struct Wiring;

/// The first slot of the chipset's own functions.
pub const CHIPSET_SLOTS: u8 = 25;

impl PinRouter for Wiring {
    fn input(&self, slot: u8, pin: u32) -> u32 {
        if slot < CHIPSET_SLOTS { 4 + (u32::from(slot) + pin) % 4 } else { pin % 4 }
    }
}
