//! The rows of the catalog: virtio devices on PCI.

mod balloon;
mod blk;
mod console;
mod fs;
mod gpu;
mod input;
mod mmio;
mod net;
mod ninep;
mod rng;
mod vsock;

use std::sync::Arc;

pub use mmio::MmioPlaces;

use device::pci::Layout;
use device::{DefaultValue, Property, PropertyKind};

use super::pci::{PciOptions, VirtioPci, class, transitional_id};
use super::transport::RingOptions;
use super::{Kind, VirtioDevice};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Controls, Model, PciPlace, Request, declare,
};

/// Disks.
pub const BLK: &[Model] = blk::MODELS;
/// Network cards.
pub const NET: &[Model] = net::MODELS;
/// Sources of randomness.
pub const RNG: &[Model] = rng::MODELS;
/// Serial ports.
pub const CONSOLE: &[Model] = console::MODELS;
/// Memory balloons.
pub const BALLOON: &[Model] = balloon::MODELS;
/// Keyboards, mice, tablets.
pub const INPUT: &[Model] = input::MODELS;
/// Graphics cards.
pub const GPU: &[Model] = gpu::MODELS;
/// All that can be behind registers in memory.
pub const MMIO: &[Model] = mmio::MODELS;
/// Shared folders of other processes.
pub const FS: &[Model] = fs::MODELS;
/// Shared folders.
pub const NINEP: &[Model] = ninep::MODELS;
/// Sockets to the host.
pub const VSOCK: &[Model] = vsock::MODELS;

/// Makes a device of a row.
type Build = fn(&Request<'_>) -> Result<Built, BuildError>;
/// The properties of a row, in parts.
type Tables = &'static [&'static [Property]];

/// The row of a device on PCI that offers no bus.
const fn on_pci(
    name: &'static str,
    description: &'static str,
    category: Category,
    properties: Tables,
    build: Build,
) -> Model {
    Model {
        name,
        description,
        category,
        bus: BusKind::Pci,
        offers: None,
        properties,
        state_version: 1,
        build,
    }
}

/// To which drivers a device shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// As properties and the bus say.
    Chosen,
    /// To all.
    Transitional,
    /// To modern ones.
    NonTransitional,
}

/// What every device with rings has.
const RING_PROPERTIES: &[Property] = &[
    declare("indirect_desc", PropertyKind::Bool, Some(DefaultValue::Bool(true))),
    declare("event_idx", PropertyKind::Bool, Some(DefaultValue::Bool(true))),
    declare("packed", PropertyKind::Bool, Some(DefaultValue::Bool(false))),
    declare("iommu_platform", PropertyKind::Bool, Some(DefaultValue::Bool(false))),
    declare("vectors", PropertyKind::Unsigned(32), None),
];

/// What those have that leave the choice of drivers open.
const CHOICE_PROPERTIES: &[Property] = &[
    declare("disable-legacy", PropertyKind::Auto, None),
    declare("disable-modern", PropertyKind::Bool, Some(DefaultValue::Bool(false))),
];

/// A switch that is on unless it is switched off.
const fn on(name: &'static str) -> Property {
    declare(name, PropertyKind::Bool, Some(DefaultValue::Bool(true)))
}

/// A switch that is off unless it is switched on.
const fn off(name: &'static str) -> Property {
    declare(name, PropertyKind::Bool, Some(DefaultValue::Bool(false)))
}

/// A number with a default.
const fn number(name: &'static str, bits: u32, default: u64) -> Property {
    declare(name, PropertyKind::Unsigned(bits), Some(DefaultValue::Unsigned(default)))
}

/// A queue's size as it was asked for.
fn queue_size(request: &Request<'_>, property: &str) -> Result<u16, BuildError> {
    let asked = request.properties.unsigned(property).unwrap_or(256);
    match u16::try_from(asked) {
        Ok(size @ 2..=1024) if size.is_power_of_two() => Ok(size),
        _ => Err(request.bad_value(property, "it must be a power of two from 2 to 1024")),
    }
}

/// Puts a device behind PCI registers.
fn function(
    request: &Request<'_>,
    variant: Variant,
    device: Arc<dyn VirtioDevice>,
    rom: Option<&str>,
) -> Result<Arc<VirtioPci>, BuildError> {
    class_function(request, variant, class(device.kind()), device, rom)
}

fn class_function(
    request: &Request<'_>,
    variant: Variant,
    class: u32,
    device: Arc<dyn VirtioDevice>,
    rom: Option<&str>,
) -> Result<Arc<VirtioPci>, BuildError> {
    finished_function(request, variant, class, device, |layout| request.rom(layout, rom))
}

fn finished_function(
    request: &Request<'_>,
    variant: Variant,
    class: u32,
    device: Arc<dyn VirtioDevice>,
    finish: impl FnOnce(&mut Layout) -> Result<(), BuildError>,
) -> Result<Arc<VirtioPci>, BuildError> {
    let properties = request.properties;
    for (name, reason) in
        [("packed", "packed rings are not supported"), ("iommu_platform", "there is no IOMMU")]
    {
        if properties.bool(name) {
            return Err(request.bad_value(name, reason));
        }
    }
    let express = request.pci_place == PciPlace::ExpressPort;
    let has_legacy = transitional_id(device.kind()).is_some();
    let (legacy, modern) = match variant {
        Variant::Transitional => (true, true),
        Variant::NonTransitional => (false, true),
        Variant::Chosen => {
            let disabled = properties.auto("disable-legacy");
            (has_legacy && !disabled.unwrap_or(express), !properties.bool("disable-modern"))
        }
    };
    if !legacy && !modern {
        let reason = "the device would be neither modern nor legacy";
        return Err(request.bad_value("disable-modern", reason));
    }
    let vectors = match properties.unsigned("vectors") {
        // All ports of a controller share one, or drivers would ask for one for each of 64 queues.
        None if device.kind() == Kind::Console => 2,
        // One for each queue and one for the configuration.
        None => device.queue_sizes().len() as u16 + 1,
        Some(vectors) => u16::try_from(vectors)
            .ok()
            .filter(|vectors| *vectors <= device::pci::VECTORS_MAX)
            .ok_or_else(|| request.bad_value("vectors", "there are 2048 at most"))?,
    };
    let rings = RingOptions {
        indirect: properties.bool("indirect_desc"),
        event_index: properties.bool("event_idx"),
    };
    let options = PciOptions { modern, legacy, vectors, class, express, rings };
    VirtioPci::new(device, &options, finish)
}

/// A function that offers nothing more than these controls.
fn built(function: &Arc<VirtioPci>, controls: Controls) -> Built {
    Built::pci(function).with_controls(controls)
}

#[cfg(test)]
mod tests;
