//! `virtio-rng-pci`.

use std::sync::Arc;

use device::{DefaultValue, Property, PropertyKind};

use super::{
    Build, CHOICE_PROPERTIES, RING_PROPERTIES, Tables, Variant, built, function, number, on_pci,
};
use crate::catalog::{BuildError, Built, Category, Controls, Model, Request, declare};
use crate::virtio::VirtioDevice;
use crate::virtio::rng::{KernelEntropy, Rng, RngLimit};

/// As many bytes as anybody wants.
const UNLIMITED: u64 = i64::MAX as u64;

pub(super) const PROPERTIES: &[Property] = &[
    declare("rng", PropertyKind::Link("rng-backend"), None),
    declare("max-bytes", PropertyKind::Size, Some(DefaultValue::Unsigned(UNLIMITED))),
    number("period", 32, 1 << 16),
];

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(name, "a source of randomness", Category::Other, properties, build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-rng-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    model("virtio-rng-pci-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Transitional)
    }),
    model("virtio-rng-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    Ok(built(&function(request, variant, device(request)?, None)?, Controls::default()))
}

/// The device, apart from where it is plugged in.
pub(super) fn device(request: &Request<'_>) -> Result<Arc<dyn VirtioDevice>, BuildError> {
    let around = request.surroundings;
    let source = around.backends.entropy.share(request.properties, "rng")?;
    let source = source.unwrap_or_else(|| Arc::new(KernelEntropy));
    let bytes = request.properties.unsigned("max-bytes").unwrap_or(UNLIMITED);
    let period = request.properties.unsigned("period").unwrap_or(1 << 16);
    let period_ms = u32::try_from(period).ok().filter(|period| *period > 0);
    let period_ms =
        period_ms.ok_or_else(|| request.bad_value("period", "it must be a positive number"))?;
    let limit = (bytes < UNLIMITED).then_some(RngLimit { bytes, period_ms });
    Ok(Rng::new(source, limit, Arc::clone(&around.clock), &around.timers))
}
