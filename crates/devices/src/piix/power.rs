//! Function 3: power management.

use std::sync::Arc;

use device::pci::{Connection, Identity, Layout, PciFunction};
use device::{Device, Fields, StateError};
use memory::AddressSpace;

use crate::acpi_pm::{AcpiPm, Commands, FixedPorts};
use crate::pci::{INTEL, SUBSYSTEM, Window};

const BASE: u16 = 0x40;
const APM_CONTROL: u16 = 0x5b;
const CONTROL: u16 = 0x80;

/// The commands that the tables name for this bridge.
pub const COMMANDS: Commands = Commands { enable: 0xf1, disable: 0xf0 };
/// General-purpose events have their own place, which no register moves.
pub const GPE_BASE: u64 = 0xafe0;
/// Their ports.
pub const GPE_BYTES: u64 = 4;

/// Where the registers lie, in the bridge's configuration space.
pub struct Power {
    connection: Arc<Connection>,
    registers: Window,
}

impl Power {
    /// Power management before this hardware.
    pub fn new(pm: &Arc<AcpiPm>, ports: &Arc<AddressSpace>) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x7113,
            revision: 3,
            class: 0x068000,
            subsystem: SUBSYSTEM,
        };
        let mut layout = Layout::new(identity);
        layout.interrupt_pin(1);
        let config = layout.config();
        config.set(BASE, &[1]);
        config.allow(BASE, &[0xc0, 0xff]);
        config.allow(CONTROL, &[1]);
        config.set(0x90, &[1]);
        config.allow(0x90, &[0xf0, 0xff, 0, 0]);
        config.set(0xd2, &[0x09]);
        // Firmware that finds this set leaves system management mode alone: there is none.
        config.set(APM_CONTROL, &[0x02]);
        config.set(0x67, &[0x98]); // both serial ports are decoded
        let io = Arc::new(FixedPorts(Arc::clone(pm)));
        let registers = Window::new(ports, "acpi-pm", 16, io);
        Arc::new(Self { connection: layout.build(), registers })
    }

    fn apply(&self) {
        let base = self.connection.config_read(BASE, 2) & 0xffc0;
        let on = self.connection.config_read(CONTROL, 1) & 1 != 0 && base != 0;
        self.registers.place(on.then_some(u64::from(base)));
    }

    /// Places the registers, as firmware does.
    pub fn set_up(&self, base: u16) {
        self.config_write(BASE, 2, u32::from(base));
        self.config_write(CONTROL, 1, 1);
    }
}

impl Device for Power {
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

impl PciFunction for Power {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        self.apply();
    }
}
