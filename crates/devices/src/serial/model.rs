//! `-device isa-serial,chardev=NAME[,index=N]`

use std::sync::Arc;

use device::{Device, Io, Properties, Property, PropertyKind};

use super::SerialPort;
use crate::catalog::{BuildError, Built, BusKind, Category, Isa, Model, Request, declare};

/// Where COM1 to COM4 are: the first port and the interrupt.
pub const PLACES: [(u64, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
const PORTS: u64 = 8;

const PROPERTIES: &[Property] = &[
    declare("chardev", PropertyKind::Stream, None),
    declare("index", PropertyKind::Unsigned(32), None),
    declare("iobase", PropertyKind::Unsigned(32), None),
    declare("irq", PropertyKind::Unsigned(32), None),
];

/// The first port and the interrupt: those of the port's number where nothing else is set. `None`:
/// there is no such number.
#[must_use]
pub fn place(properties: &Properties) -> Option<(u64, u32)> {
    let index = properties.unsigned("index").unwrap_or(0);
    let usual = usize::try_from(index).ok().and_then(|index| PLACES.get(index));
    let (port, irq) = usual?;
    let irq = properties.unsigned("irq").map_or(*irq, |irq| irq as u32);
    Some((properties.unsigned("iobase").unwrap_or(*port), irq))
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let place = place(request.properties);
    let (port, irq) = place.ok_or_else(|| {
        BuildError::Other("Max. supported number of ISA serial ports is 4.".to_owned())
    })?;
    if irq > 15 {
        return Err(request.bad_value("irq", "there are 16 interrupts"));
    }
    let backends = &request.surroundings.backends;
    let stream = backends.streams.claim(request.id, request.properties, "chardev")?;
    let stream = stream.ok_or(BuildError::Missing { property: "chardev".to_owned() })?;
    let serial = SerialPort::new(request.surroundings.isa_irq(irq), stream);
    let ports = vec![(port, PORTS, Arc::clone(&serial) as Arc<dyn Io>)];
    let isa = Isa { ports, irq: Some(irq), ..Isa::default() };
    Ok(Built::isa(serial as Arc<dyn Device>, isa))
}

/// The row.
pub const MODELS: &[Model] = &[Model {
    name: "isa-serial",
    description: "",
    category: Category::Input,
    bus: BusKind::Isa,
    offers: None,
    properties: &[PROPERTIES],
    state_version: 1,
    build,
}];
