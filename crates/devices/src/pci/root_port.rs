//! A PCI Express root port: a bridge on the root bus with one slot below.
//!
//! `-device pcie-root-port,port=16,chassis=1,id=pci.1,bus=pcie.0,addr=0x2`

use std::sync::Arc;

use device::pci::{
    Address, Bus, Connection, ExpressKind, Identity, Layout, PciFunction, Place, spec,
};
use device::{DefaultValue, Device, Fields, Power, Property, PropertyKind, StateError};

use super::RED_HAT;
use super::bridge::{BridgeWindows, PciBridge};
use crate::catalog::{BuildError, Built, BusKind, Category, Model, OfferedBus, Request, declare};

const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;
const LINK_STATUS: u16 = 0x12;

const ATTENTION: u16 = 1;
const PRESENCE_CHANGED: u16 = 1 << 3;
const LINK_CHANGED: u16 = 1 << 8;
const PRESENT: u16 = 1 << 6;
const LINK_ACTIVE: u16 = 1 << 13;
const POWER_OFF: u16 = 1 << 10;
const POWER_LIGHT: u16 = 3 << 8;
const POWER_LIGHT_OFF: u16 = 3 << 8;
const INTERRUPT: u16 = 1 << 5;
/// Attention, power fault, latch, presence, command completed, link.
const EVENTS: u16 = 0x11f;

/// The port.
pub struct RootPort {
    connection: Arc<Connection>,
    below: Arc<Bus>,
    /// Where the express capability is.
    express: u16,
    hotplug: bool,
    power: Arc<dyn Power>,
}

impl RootPort {
    fn half(&self, at: u16) -> u16 {
        self.connection.config_read(self.express + at, 2) as u16
    }

    fn put(&self, at: u16, value: u16) {
        let at = self.express + at;
        self.connection.with_config(|config| config.put(at, &value.to_le_bytes()));
    }

    /// Brings slot and link status in line with what is in the slot.
    pub fn presence_changed(&self, by_plugging: bool) {
        let present = self.below.function(Address::slot(0)).is_some();
        let mut status = self.half(SLOT_STATUS) & !PRESENT;
        let mut link = self.half(LINK_STATUS) & !LINK_ACTIVE;
        if present {
            status |= PRESENT;
            link |= LINK_ACTIVE;
        }
        if by_plugging && self.hotplug {
            status |= PRESENCE_CHANGED | LINK_CHANGED;
        }
        self.put(SLOT_STATUS, status);
        self.put(LINK_STATUS, link);
        self.interrupt();
    }

    /// Asks the system to let go of what is in the slot, as a person who presses its button.
    fn press_attention(&self) {
        self.put(SLOT_STATUS, self.half(SLOT_STATUS) | ATTENTION);
        self.interrupt();
    }

    fn interrupt(&self) {
        let control = self.half(SLOT_CONTROL);
        let pending = control & INTERRUPT != 0 && self.half(SLOT_STATUS) & control & EVENTS != 0;
        self.connection.interrupt(pending);
    }
}

impl Device for RootPort {
    fn reset(&self) {
        self.connection.reset();
        self.presence_changed(false);
        self.below.remap();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        if fields.is_loading() {
            self.below.remap();
        }
        Ok(())
    }
}

impl PciFunction for RootPort {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn config_write(&self, at: u16, size: u8, value: u32) {
        self.connection.config_write(at, size, value);
        PciBridge::follow(&self.connection, &self.below, at, size);
        let end = at.saturating_add(u16::from(size));
        let slot = self.express + SLOT_CONTROL;
        if !self.hotplug || end <= slot || at >= slot + 4 {
            return;
        }
        let control = self.half(SLOT_CONTROL);
        if at < slot + 2 {
            // Commands take no time here. The light that goes out together with the power is how
            // a system says that it has let go.
            self.put(SLOT_STATUS, self.half(SLOT_STATUS) | 1 << 4);
            let off = control & POWER_LIGHT == POWER_LIGHT_OFF && control & POWER_OFF != 0;
            if off && self.below.unplug(Address::slot(0)).is_some() {
                self.presence_changed(true);
                self.power.unplugged();
            }
        }
        self.interrupt();
    }

    fn plugged(&self, place: &Place) {
        self.below.connect(place.clone(), Arc::new(BridgeWindows(Arc::clone(&self.connection))));
        self.presence_changed(false);
    }

    fn secondary(&self) -> Option<&Arc<Bus>> {
        Some(&self.below)
    }

    fn child_plugged(&self) {
        self.presence_changed(true);
    }

    fn ask_to_unplug_child(&self) -> bool {
        if self.hotplug {
            self.press_attention();
        }
        self.hotplug
    }
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let identity = Identity {
        vendor: RED_HAT,
        device: 0x000c,
        revision: 0,
        class: 0x060400,
        subsystem: (0, 0),
    };
    let port = request.properties.unsigned("port").unwrap_or(0) as u8;
    let slot = request.properties.unsigned("slot").unwrap_or(0) as u8;
    let hotplug = request.properties.auto("hotplug").unwrap_or(true);
    let mut layout = Layout::bridge(identity);
    layout.interrupt_pin(1);
    let express = layout.express(ExpressKind::RootPort { number: port, hotplug });
    let config = layout.config();
    // The slot has a number of its own beside the link's.
    let slots = config.word(express + 0x14) & 0x7_ffff | u32::from(slot) << 19;
    config.set(express + 0x14, &slots.to_le_bytes());
    config.allow_clearing(express + SLOT_STATUS, &EVENTS.to_le_bytes());
    layout.capability(spec::CAPABILITY_SUBSYSTEM, None, &[0, 0, 0x36, 0x1b, 0, 0], &[]);
    layout.msix(None, 1, 0, 0, 0x800);
    let connection = layout.build();
    let root = request.surroundings.pci.as_ref().ok_or(BuildError::NoBus)?;
    let below = Bus::below_bridge(Arc::clone(root), true);
    let power = Arc::clone(&request.surroundings.power);
    let port = RootPort { connection, below: Arc::clone(&below), express, hotplug, power };
    let port = Arc::new(port);
    Ok(Built::pci(&port).with_bus(OfferedBus::pci(below, request.id.to_owned())))
}

const PROPERTIES: &[Property] = &[
    declare("port", PropertyKind::Unsigned(8), Some(DefaultValue::Unsigned(0))),
    declare("chassis", PropertyKind::Unsigned(8), Some(DefaultValue::Unsigned(0))),
    declare("slot", PropertyKind::Unsigned(16), Some(DefaultValue::Unsigned(0))),
    declare("hotplug", PropertyKind::Bool, Some(DefaultValue::Bool(true))),
];

/// The port's row.
pub const MODELS: &[Model] = &[Model {
    name: "pcie-root-port",
    description: "PCI Express Root Port",
    category: Category::Controller,
    bus: BusKind::Pci,
    offers: Some(BusKind::Pci),
    properties: &[PROPERTIES],
    state_version: 1,
    build,
}];
