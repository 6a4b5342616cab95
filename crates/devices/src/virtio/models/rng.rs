//! `virtio-rng-pci`.

use std::sync::Arc;

use device::{DefaultValue, Entropy, Property, PropertyKind};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{CHOICE_PROPERTIES, RING_PROPERTIES, Variant, built, function, number};
use crate::catalog::{BuildError, Built, BusKind, Category, Controls, Model, Request, declare};
use crate::virtio::rng::{Rng, RngLimit};

/// As many bytes as anybody wants.
const UNLIMITED: u64 = i64::MAX as u64;

const PROPERTIES: &[Property] = &[
    declare("rng", PropertyKind::Link("rng-backend"), None),
    declare("max-bytes", PropertyKind::Size, Some(DefaultValue::Unsigned(UNLIMITED))),
    number("period", 32, 1 << 16),
];

const fn model(
    name: &'static str,
    properties: &'static [&'static [Property]],
    build: fn(&Request<'_>) -> Result<Built, BuildError>,
) -> Model {
    Model {
        name,
        description: "a source of randomness",
        category: Category::Other,
        bus: BusKind::Pci,
        offers: None,
        properties,
        build,
    }
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

/// The host kernel's own source, for a device that names none.
struct Kernel;

impl Entropy for Kernel {
    fn fill(&self, bytes: &mut [u8]) -> usize {
        // It may give fewer when a signal comes; the guest asks again.
        getrandom(bytes, GetRandomFlags::empty()).unwrap_or(0)
    }
}

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let around = request.surroundings;
    let source = around.backends.entropy.share(request.properties, "rng")?;
    let source = source.unwrap_or_else(|| Arc::new(Kernel));
    let bytes = request.properties.unsigned("max-bytes").unwrap_or(UNLIMITED);
    let period = request.properties.unsigned("period").unwrap_or(1 << 16);
    let period_ms = u32::try_from(period).ok().filter(|period| *period > 0);
    let period_ms =
        period_ms.ok_or_else(|| request.bad_value("period", "it must be a positive number"))?;
    let limit = (bytes < UNLIMITED).then_some(RngLimit { bytes, period_ms });
    let rng = Rng::new(source, limit, Arc::clone(&around.clock), &around.timers);
    Ok(built(&function(request, variant, rng, None)?, Controls::default()))
}
