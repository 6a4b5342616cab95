//! A PCI-to-PCI bridge to a conventional bus. Specification: PCI-to-PCI Bridge Architecture 1.2.
//!
//! `-device pci-bridge,id=pci.1,chassis_nr=1` on a conventional bus, `-device
//! pcie-pci-bridge,id=pci.1` in an express slot.

use std::sync::Arc;

use device::pci::{
    Aperture, Bus, Connection, ExpressKind, Identity, Layout, PciFunction, Place, spec,
};
use device::{DefaultValue, Device, Fields, Property, PropertyKind, StateError};

use super::{RED_HAT, SUBSYSTEM};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Model, OfferedBus, PciPlace, Request, declare,
};

/// The windows of a bridge, as its registers say.
pub struct BridgeWindows(pub Arc<Connection>);

impl Aperture for BridgeWindows {
    fn admits(&self, io: bool, first: u64, last: u64) -> bool {
        self.0.with_config(|config| {
            let command = config.half(spec::COMMAND);
            let control = config.half(spec::BRIDGE_CONTROL);
            let inside = |low: u64, high: u64| low <= first && last <= high && low <= high;
            let vga = control & spec::CONTROL_VGA != 0;
            if io {
                let (base, limit) =
                    (config.byte(spec::IO_WINDOW), config.byte(spec::IO_WINDOW + 1));
                let low = u64::from(base & 0xf0) << 8
                    | u64::from(config.half(spec::IO_WINDOW_UPPER)) << 16;
                let high = u64::from(limit & 0xf0) << 8
                    | 0xfff
                    | u64::from(config.half(spec::IO_WINDOW_UPPER + 2)) << 16;
                let vga = vga && (0x3b0..=0x3df).contains(&first);
                return command & spec::COMMAND_IO != 0 && (vga || inside(low, high));
            }
            if command & spec::COMMAND_MEMORY == 0 {
                return false;
            }
            let end = |at: u16| u64::from(config.half(at) & 0xfff0) << 16;
            let upper = |at: u16| u64::from(config.word(at)) << 32;
            let memory = inside(end(spec::MEMORY_WINDOW), end(spec::MEMORY_WINDOW + 2) | 0xf_ffff);
            let prefetchable = inside(
                end(spec::PREFETCHABLE_WINDOW) | upper(spec::PREFETCHABLE_UPPER),
                end(spec::PREFETCHABLE_WINDOW + 2) | upper(spec::PREFETCHABLE_UPPER + 4) | 0xf_ffff,
            );
            memory || prefetchable || (vga && (0xa_0000..0xc_0000).contains(&first))
        })
    }
}

/// A bridge with a conventional bus below.
pub struct PciBridge {
    connection: Arc<Connection>,
    below: Arc<Bus>,
}

impl PciBridge {
    /// Registers that may open, close or reset the way down.
    pub(super) fn follow(connection: &Connection, below: &Bus, at: u16, size: u8) {
        let end = at.saturating_add(u16::from(size));
        let touches = |register: u16, bytes: u16| at < register + bytes && end > register;
        if touches(spec::COMMAND, 2)
            || touches(spec::IO_WINDOW, 2)
            || touches(spec::MEMORY_WINDOW, 0x14)
            || touches(spec::BRIDGE_CONTROL, 2)
        {
            below.remap();
        }
        if touches(spec::BRIDGE_CONTROL, 2)
            && connection.config_read(spec::BRIDGE_CONTROL, 2) as u16 & spec::CONTROL_RESET != 0
        {
            below.reset();
        }
    }
}

impl Device for PciBridge {
    fn reset(&self) {
        self.connection.reset();
        self.below.remap();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        if fields.is_loading() {
            self.below.remap();
        }
        Ok(())
    }
}

impl PciFunction for PciBridge {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        Self::follow(&self.connection, &self.below, at, size);
    }

    fn plugged(&self, place: &Place) {
        self.below.connect(place.clone(), Arc::new(BridgeWindows(Arc::clone(&self.connection))));
    }

    fn secondary(&self) -> Option<&Arc<Bus>> {
        Some(&self.below)
    }
}

fn build(request: &Request<'_>, express: bool) -> Result<Built, BuildError> {
    let device = if express { 0x000e } else { 0x0001 };
    let identity =
        Identity { vendor: RED_HAT, device, revision: 0, class: 0x060400, subsystem: (0, 0) };
    let mut layout = Layout::bridge(identity);
    if express {
        if request.pci_place == PciPlace::Conventional {
            return Err(BuildError::Other("The bridge needs a PCI Express bus".to_owned()));
        }
        layout.express(ExpressKind::BridgeToPci);
    } else {
        // Slot numbers: none of its own to show, chassis number.
        let chassis = request.properties.unsigned("chassis_nr").unwrap_or(0);
        if !(1..=255).contains(&chassis) {
            return Err(request.bad_value("chassis_nr", "a chassis has a number from 1 to 255"));
        }
        layout.capability(0x04, None, &[0, chassis as u8], &[]);
    }
    let (vendor, number) = SUBSYSTEM;
    let mut body = vec![0, 0];
    body.extend([vendor, number].map(u16::to_le_bytes).concat());
    layout.capability(spec::CAPABILITY_SUBSYSTEM, None, &body, &[]);
    let connection = layout.build();
    let root = request.surroundings.pci.as_ref().ok_or(BuildError::NoBus)?;
    let below = Bus::below_bridge(Arc::clone(root), false);
    let bridge = Arc::new(PciBridge { connection, below: Arc::clone(&below) });
    Ok(Built::pci(&bridge).with_bus(OfferedBus::pci(below, request.id.to_owned())))
}

const PROPERTIES: &[Property] =
    &[declare("chassis_nr", PropertyKind::Unsigned(8), Some(DefaultValue::Unsigned(0)))];

/// The bridges' rows.
pub const MODELS: &[Model] = &[
    Model {
        name: "pci-bridge",
        description: "Standard PCI Bridge",
        category: Category::Controller,
        bus: BusKind::Pci,
        offers: Some(BusKind::Pci),
        properties: &[PROPERTIES],
        state_version: 1,
        build: |request| build(request, false),
    },
    Model {
        name: "pcie-pci-bridge",
        description: "",
        category: Category::Controller,
        bus: BusKind::Pci,
        offers: Some(BusKind::Pci),
        properties: &[],
        state_version: 1,
        build: |request| build(request, true),
    },
];
