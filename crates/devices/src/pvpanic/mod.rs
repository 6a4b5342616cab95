//! A port, or a PCI function, by which the guest's kernel says that it has panicked.
//! Documentation: the interface's specification, "PVPANIC Device".
//!
//! `-device pvpanic` (port 0x505), `-device pvpanic-pci`

use std::sync::Arc;

use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{
    DefaultValue, Device, DeviceEvent, EventSink, Fields, Io, Property, PropertyKind, StateError,
    ones,
};
use memory::Owner;

use crate::catalog::{BuildError, Built, BusKind, Category, Isa, Model, Request, declare};
use crate::pci::{RED_HAT, SUBSYSTEM};

const PANICKED: u64 = 1;
const CRASH_LOADED: u64 = 2;

/// The register: its value says which events it takes.
struct Register {
    id: String,
    takes: u64,
    events: Arc<dyn EventSink>,
}

impl Io for Register {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        ones(size) & !0xff | self.takes
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        let value = value & self.takes;
        if value & PANICKED != 0 {
            self.events.event(&self.id, DeviceEvent::Panicked);
        } else if value & CRASH_LOADED != 0 {
            self.events.event(&self.id, DeviceEvent::CrashLoaded);
        }
    }
}

impl Device for Register {
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // there is nothing to know
        Ok(())
    }
}

fn register(request: &Request<'_>) -> Arc<Register> {
    let takes = request.properties.unsigned("events").unwrap_or(PANICKED | CRASH_LOADED);
    Arc::new(Register {
        id: request.id.to_owned(),
        takes: takes & (PANICKED | CRASH_LOADED),
        events: Arc::clone(&request.surroundings.events),
    })
}

fn build_isa(request: &Request<'_>) -> Result<Built, BuildError> {
    let register = register(request);
    let port = request.properties.unsigned("ioport").unwrap_or(0x505);
    let ports = vec![(port, 1, Arc::clone(&register) as Arc<dyn Io>)];
    Ok(Built::isa(register, Isa { ports, ..Isa::default() }))
}

struct Function(Arc<Connection>);

impl Device for Function {
    fn reset(&self) {
        self.0.reset();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // there is nothing to know
        Ok(())
    }
}

impl PciFunction for Function {
    fn connection(&self) -> &Connection {
        &self.0
    }
}

fn build_pci(request: &Request<'_>) -> Result<Built, BuildError> {
    let identity = Identity {
        vendor: RED_HAT,
        device: 0x0011,
        revision: 1,
        class: 0x088000,
        subsystem: SUBSYSTEM,
    };
    let mut layout = Layout::new(identity);
    layout.bar(0, BarKind::Memory32, 2, Owner::Io(register(request)));
    Ok(Built::pci(&Arc::new(Function(layout.build()))))
}

const EVENTS: &[Property] =
    &[declare("events", PropertyKind::Unsigned(8), Some(DefaultValue::Unsigned(3)))];
const PORT: &[Property] =
    &[declare("ioport", PropertyKind::Unsigned(16), Some(DefaultValue::Unsigned(0x505)))];

/// The rows.
pub const MODELS: &[Model] = &[
    Model {
        name: "pvpanic",
        description: "",
        category: Category::Other,
        bus: BusKind::Isa,
        offers: None,
        properties: &[EVENTS, PORT],
        state_version: 1,
        build: build_isa,
    },
    Model {
        name: "pvpanic-pci",
        description: "",
        category: Category::Other,
        bus: BusKind::Pci,
        offers: None,
        properties: &[EVENTS],
        state_version: 1,
        build: build_pci,
    },
];

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<DeviceEvent>>);

    impl EventSink for Heard {
        fn event(&self, id: &str, event: DeviceEvent) {
            assert_eq!(id, "panic0");
            self.0.lock().push(event);
        }
    }

    #[test]
    fn what_is_written_is_told_as_far_as_it_is_announced() {
        let heard = Arc::new(Heard::default());
        let events = Arc::clone(&heard) as Arc<dyn EventSink>;
        let register = Register { id: "panic0".to_owned(), takes: 3, events };
        assert_eq!(register.read(0, 1), 3);
        [0, 4, 1, 2, 3].iter().for_each(|value| register.write(0, 1, *value));
        let expected = [DeviceEvent::Panicked, DeviceEvent::CrashLoaded, DeviceEvent::Panicked];
        assert_eq!(*heard.0.lock(), expected);
    }
}
