//! `virtio-gpu-pci`.

use std::sync::{Arc, Weak};

use device::{DefaultValue, Property, PropertyKind, SIDE_MAX, Screen};

use super::{RING_PROPERTIES, Variant, built, function, number, on};
use crate::catalog::{BuildError, Built, BusKind, Category, Controls, Model, Request, declare};
use crate::virtio::VirtioDevice;
use crate::virtio::gpu::{Gpu, GpuConfig};

const PROPERTIES: &[Property] = &[
    number("xres", 32, 1280),
    number("yres", 32, 800),
    on("edid"),
    declare("max_hostmem", PropertyKind::Size, Some(DefaultValue::Unsigned(256 << 20))),
];

pub(super) const MODELS: &[Model] = &[Model {
    name: "virtio-gpu-pci",
    description: "a graphics card",
    category: Category::Display,
    bus: BusKind::Pci,
    offers: None,
    properties: &[RING_PROPERTIES, PROPERTIES],
    build,
}];

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let side = |name| {
        let asked = request.properties.unsigned(name).and_then(|side| u32::try_from(side).ok());
        let side = asked.filter(|side| (1..=SIDE_MAX).contains(side));
        side.ok_or_else(|| request.bad_value(name, format!("it must be from 1 to {SIDE_MAX}")))
    };
    let gpu = Gpu::new(GpuConfig {
        size: (side("xres")?, side("yres")?),
        edid: request.properties.bool("edid"),
        memory_bytes_max: request.properties.unsigned("max_hostmem").unwrap_or(256 << 20),
    });
    let device = Arc::clone(&gpu) as Arc<dyn VirtioDevice>;
    let function = function(request, Variant::NonTransitional, device, None)?;
    let weak: Weak<Gpu> = Arc::downgrade(&gpu);
    request.surroundings.screens.add(request.id, weak as Weak<dyn Screen>);
    Ok(built(&function, Controls::default()))
}
