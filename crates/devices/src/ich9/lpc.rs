//! Function 0 of slot 31: the way to the old devices, the interrupt router, power management.

use std::sync::Arc;

use device::pci::{Connection, Identity, Layout, PciFunction};
use device::{Device, Fields, StateError};
use memory::AddressSpace;

use super::registers::{BYTES, ChipsetRegisters, SmiPorts};
use crate::acpi_pm::{AcpiPm, Commands, FixedPorts, GpePorts};
use crate::pci::{INTEL, PirqRouter, SUBSYSTEM, Window};

const PM_BASE: u16 = 0x40;
const ACPI_CONTROL: u16 = 0x44;
const ROUTES_A: u16 = 0x60;
const ROUTES_E: u16 = 0x68;
const CHIPSET_BASE: u16 = 0xf0;

/// The commands that the tables name for this bridge.
pub const COMMANDS: Commands = Commands { enable: 0x02, disable: 0x03 };
/// General-purpose events behind the power management base.
pub const GPE_OFFSET: u64 = 0x20;
/// Their ports.
pub const GPE_BYTES: u64 = 16;
const SMI_OFFSET: u64 = 0x30;

/// The bridge.
pub struct Lpc {
    connection: Arc<Connection>,
    router: Arc<PirqRouter>,
    chipset: Arc<ChipsetRegisters>,
    fixed: Window,
    gpe: Window,
    smi: Window,
    own: Window,
}

impl Lpc {
    /// The bridge, which steers this router and places this hardware.
    pub fn new(
        router: Arc<PirqRouter>,
        pm: &Arc<AcpiPm>,
        memory: &Arc<AddressSpace>,
        ports: &Arc<AddressSpace>,
    ) -> Arc<Self> {
        let identity = Identity {
            vendor: INTEL,
            device: 0x2918,
            revision: 2,
            class: 0x060100,
            subsystem: SUBSYSTEM,
        };
        let mut layout = Layout::new(identity);
        layout.multifunction();
        let config = layout.config();
        config.set(device::pci::spec::COMMAND, &[7, 0]);
        config.set(PM_BASE, &[1]);
        config.allow(PM_BASE, &[0x80, 0xff]);
        config.allow(ACPI_CONTROL, &[0x87]);
        for routes in [ROUTES_A, ROUTES_E] {
            config.set(routes, &[0x80; 4]);
            config.allow(routes, &[0x8f; 4]);
        }
        config.allow(0x80, &[0xff; 0x10]); // which old addresses are decoded
        config.allow(0xa0, &[0xff; 0x10]); // general power management
        config.allow(0xd8, &[0xff; 6]);
        config.allow(CHIPSET_BASE, &[1, 0xc0, 0xff, 0xff]);
        let chipset = Arc::new(ChipsetRegisters::default());
        let fixed = Arc::new(FixedPorts(Arc::clone(pm)));
        let gpe = Arc::new(GpePorts(Arc::clone(pm), GPE_BYTES));
        Arc::new(Self {
            fixed: Window::new(ports, "acpi-pm", 16, fixed),
            gpe: Window::new(ports, "acpi-gpe", GPE_BYTES, gpe),
            smi: Window::new(ports, "ich9-smi", 8, Arc::new(SmiPorts)),
            own: Window::new(memory, "ich9-chipset", BYTES as u64, Arc::clone(&chipset) as _),
            connection: layout.build(),
            router,
            chipset,
        })
    }

    fn apply(&self) {
        let read = |at, size| self.connection.config_read(at, size);
        let base = u64::from(read(PM_BASE, 2) & 0xff80);
        let on = read(ACPI_CONTROL, 1) & 0x80 != 0 && base != 0;
        for (window, offset) in [(&self.fixed, 0), (&self.gpe, GPE_OFFSET), (&self.smi, SMI_OFFSET)]
        {
            window.place(on.then_some(base + offset));
        }
        let own = read(CHIPSET_BASE, 4);
        let start = u64::from(own & 0xffff_c000);
        self.own.place((own & 1 != 0 && start != 0).then_some(start));
        let route = |at: usize| {
            let register = if at < 4 { ROUTES_A } else { ROUTES_E };
            read(register + at as u16 % 4, 1) as u8
        };
        self.router.set_routes(std::array::from_fn(route));
    }

    /// Places the registers, as firmware does.
    pub fn set_up(&self, base: u16) {
        self.config_write(PM_BASE, 2, u32::from(base));
        self.config_write(ACPI_CONTROL, 1, 0x80);
    }
}

impl Device for Lpc {
    fn reset(&self) {
        self.connection.reset();
        self.chipset.reset();
        self.apply();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        self.chipset.transfer(fields)?;
        if fields.is_loading() {
            self.apply();
        }
        Ok(())
    }
}

impl PciFunction for Lpc {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        self.apply();
    }
}
