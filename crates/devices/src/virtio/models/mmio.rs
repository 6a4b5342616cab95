//! `virtio-blk-device` and others: the same devices behind registers in memory, on boards that have
//! places for them.
//!
//! `-M microvm -device virtio-blk-device,drive=d0 -device virtio-net-device,netdev=n0`

use std::sync::Arc;

use device::{IrqLine, IrqSink, Property};
use memory::AddressSpace;
use parking_lot::Mutex;

use super::{Tables, balloon, blk, console, net, on, rng};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Controls, Isa, Model, OfferedBus, Request,
};
use crate::virtio::VirtioDevice;
use crate::virtio::mmio::{MMIO_BYTES, VirtioMmio};
use crate::virtio::transport::RingOptions;

/// Where the first place lies; the others follow at once.
const BASE: u64 = 0xfeb0_0000;
/// How many there are.
const PLACES: u32 = 8;
/// The I/O APIC's input of the first place; the others follow.
const FIRST_INPUT: u32 = 16;

/// The places of a board.
pub struct MmioPlaces {
    /// Memory as devices see it.
    memory: Arc<AddressSpace>,
    ioapic: Arc<dyn IrqSink>,
    used: Mutex<u32>,
}

impl MmioPlaces {
    /// Empty places, which interrupt here.
    #[must_use]
    pub fn new(memory: Arc<AddressSpace>, ioapic: Arc<dyn IrqSink>) -> Arc<Self> {
        Arc::new(Self { memory, ioapic, used: Mutex::new(0) })
    }

    /// Those that are taken: start, bytes, input of the I/O APIC.
    #[must_use]
    pub fn taken(&self) -> Vec<(u64, u64, u32)> {
        let place =
            |number: u32| (BASE + MMIO_BYTES * u64::from(number), MMIO_BYTES, FIRST_INPUT + number);
        (0..*self.used.lock()).map(place).collect()
    }
}

const RINGS: &[Property] = &[on("indirect_desc"), on("event_idx")];

const fn model(
    name: &'static str,
    description: &'static str,
    category: Category,
    properties: Tables,
    build: super::Build,
) -> Model {
    let bus = BusKind::VirtioMmio;
    Model { name, description, category, bus, offers: None, properties, state_version: 1, build }
}

const fn serial() -> Model {
    Model {
        offers: Some(BusKind::VirtioSerial),
        ..model(
            "virtio-serial-device",
            "serial ports without a UART",
            Category::Input,
            &[RINGS, console::PROPERTIES],
            |request| {
                let console = console::controller_of(request)?;
                let device = Arc::clone(&console) as Arc<dyn VirtioDevice>;
                let bus = OfferedBus::new(BusKind::VirtioSerial, String::new(), console);
                Ok(place(request, device, Controls::default())?.with_bus(bus))
            },
        )
    }
}

/// The rows.
pub(super) const MODELS: &[Model] = &[
    model(
        "virtio-balloon-device",
        "a memory balloon",
        Category::Other,
        &[RINGS, balloon::PROPERTIES],
        |request| {
            let (device, controls) = balloon::device(request);
            place(request, device, controls)
        },
    ),
    model(
        "virtio-blk-device",
        "a virtio disk",
        Category::Storage,
        &[RINGS, blk::PROPERTIES],
        |request| {
            let (device, controls) = blk::device(request)?;
            place(request, device, controls)
        },
    ),
    model(
        "virtio-net-device",
        "a virtio network card",
        Category::Network,
        &[RINGS, net::PROPERTIES],
        |request| {
            let (device, controls) = net::device(request)?;
            place(request, device, controls)
        },
    ),
    model(
        "virtio-rng-device",
        "a source of randomness",
        Category::Other,
        &[RINGS, rng::PROPERTIES],
        |request| place(request, rng::device(request)?, Controls::default()),
    ),
    serial(),
];

/// Puts a device into the next place.
fn place(
    request: &Request<'_>,
    device: Arc<dyn VirtioDevice>,
    controls: Controls,
) -> Result<Built, BuildError> {
    let places: Arc<MmioPlaces> = request.parent()?;
    let number = {
        let mut used = places.used.lock();
        if *used == PLACES {
            return Err(BuildError::Other("No place is free".to_owned()));
        }
        *used += 1;
        *used - 1
    };
    let rings = RingOptions {
        indirect: request.properties.bool("indirect_desc"),
        event_index: request.properties.bool("event_idx"),
    };
    let irq = IrqLine::new(Arc::clone(&places.ioapic), FIRST_INPUT + number);
    let function = VirtioMmio::new(device, Arc::clone(&places.memory), irq, rings);
    let start = BASE + MMIO_BYTES * u64::from(number);
    let memory = vec![(start, MMIO_BYTES, Arc::clone(&function) as _)];
    let isa = Isa { memory, ..Isa::default() };
    Ok(Built::isa(function, isa).with_controls(controls))
}
