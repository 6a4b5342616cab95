//! `virtio-serial-pci`, and on its bus `virtserialport` and `virtconsole`.

use std::sync::Arc;

use device::{Device, Fields, NullStream, Property, PropertyKind, StateError};

use super::{CHOICE_PROPERTIES, RING_PROPERTIES, Variant, built, function, number};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Child, Controls, Model, OfferedBus, Request, declare,
};
use crate::virtio::VirtioDevice;
use crate::virtio::console::{Console, PORTS_MAX, Port, PortConfig, PortError};

pub(super) const PROPERTIES: &[Property] = &[number("max_ports", 32, PORTS_MAX as u64)];

const PORT_PROPERTIES: &[Property] = &[
    declare("chardev", PropertyKind::Stream, None),
    declare("name", PropertyKind::Text, None),
    declare("nr", PropertyKind::Unsigned(32), None),
];

const fn controller(
    name: &'static str,
    properties: &'static [&'static [Property]],
    build: fn(&Request<'_>) -> Result<Built, BuildError>,
) -> Model {
    Model {
        name,
        description: "serial ports without a UART",
        category: Category::Input,
        bus: BusKind::Pci,
        offers: Some(BusKind::VirtioSerial),
        properties,
        state_version: 1,
        build,
    }
}

const fn port(
    name: &'static str,
    description: &'static str,
    build: fn(&Request<'_>) -> Result<Built, BuildError>,
) -> Model {
    Model {
        name,
        description,
        category: Category::Input,
        bus: BusKind::VirtioSerial,
        offers: None,
        properties: &[PORT_PROPERTIES],
        state_version: 1,
        build,
    }
}

pub(super) const MODELS: &[Model] = &[
    controller("virtio-serial-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    controller("virtio-serial-pci-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Transitional)
    }),
    controller("virtio-serial-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
    port("virtserialport", "a port between programs", |request| build_port(request, false)),
    port("virtconsole", "a terminal", |request| build_port(request, true)),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let console = controller_of(request)?;
    let device = Arc::clone(&console) as Arc<dyn VirtioDevice>;
    let function = function(request, variant, device, None)?;
    let bus = OfferedBus::new(BusKind::VirtioSerial, String::new(), console);
    Ok(built(&function, Controls::default()).with_bus(bus))
}

/// The controller, apart from where it is plugged in.
pub(super) fn controller_of(request: &Request<'_>) -> Result<Arc<Console>, BuildError> {
    let asked = request.properties.unsigned("max_ports").unwrap_or(PORTS_MAX.into());
    let ports = u32::try_from(asked).ok().filter(|ports| (1..=PORTS_MAX).contains(ports));
    let ports = ports.ok_or_else(|| request.bad_value("max_ports", "there are 1 to 31"))?;
    Ok(Console::new(ports))
}

/// A port with the controller it is on.
struct PortDevice {
    controller: Arc<Console>,
    port: Arc<Port>,
}

impl Device for PortDevice {
    /// With its controller.
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // with its controller
        Ok(())
    }
}

impl Child for PortDevice {
    fn unplug(&self) {
        self.controller.remove(self.port.number());
    }
}

fn build_port(request: &Request<'_>, is_console: bool) -> Result<Built, BuildError> {
    let controller = request.parent::<Console>()?;
    let properties = request.properties;
    let number = properties.unsigned("nr").map(u32::try_from).transpose();
    let number = number.map_err(|_| request.bad_value("nr", "it has 32 bits"))?;
    let streams = &request.surroundings.backends.streams;
    let stream = streams.claim(request.id, properties, "chardev")?;
    let config = PortConfig {
        id: request.id.to_owned(),
        number,
        is_console,
        name: properties.text("name").unwrap_or_default().to_owned(),
        stream: stream.unwrap_or_else(|| Arc::new(NullStream)),
        events: Arc::clone(&request.surroundings.events),
    };
    let port = controller.add(config).map_err(|error| match error {
        PortError::Full => BuildError::Other(error.to_string()),
        _ => request.bad_value("nr", error.to_string()),
    })?;
    Ok(Built::child(&Arc::new(PortDevice { controller, port })))
}
