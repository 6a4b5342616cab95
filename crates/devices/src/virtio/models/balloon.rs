//! `virtio-balloon-pci`.

use std::sync::Arc;

use device::Property;

use super::{
    Build, CHOICE_PROPERTIES, RING_PROPERTIES, Tables, Variant, built, function, off, on_pci,
};
use crate::catalog::{self, BuildError, Built, Category, Controls, Model, Request};
use crate::virtio::VirtioDevice;
use crate::virtio::balloon::{Balloon, BalloonConfig};

pub(super) const PROPERTIES: &[Property] = &[off("deflate-on-oom"), off("free-page-reporting")];

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(name, "a memory balloon", Category::Other, properties, build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-balloon-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    model("virtio-balloon-pci-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Transitional)
    }),
    model("virtio-balloon-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let (device, controls) = device(request);
    Ok(built(&function(request, variant, device, None)?, controls))
}

/// The device, apart from where it is plugged in.
pub(super) fn device(request: &Request<'_>) -> (Arc<dyn VirtioDevice>, Controls) {
    let around = request.surroundings;
    let config = BalloonConfig {
        id: request.id.to_owned(),
        memory: Arc::clone(&around.memory),
        ram_bytes: around.ram_bytes,
        deflate_on_oom: request.properties.bool("deflate-on-oom"),
        free_page_reporting: request.properties.bool("free-page-reporting"),
        events: Arc::clone(&around.events),
        clock: Arc::clone(&around.clock),
    };
    let device = Balloon::new(config, &around.timers);
    let balloon = Some(Arc::clone(&device) as Arc<dyn catalog::Balloon>);
    (device, Controls { balloon, ..Controls::default() })
}

impl catalog::Balloon for Balloon {
    fn set_target(&self, bytes: u64) {
        Balloon::set_target(self, bytes);
    }

    fn actual(&self) -> u64 {
        Balloon::actual(self)
    }

    fn statistics(&self) -> (Vec<(&'static str, u64)>, u64) {
        Balloon::statistics(self)
    }

    fn set_polling(&self, seconds: u64) {
        Balloon::set_polling(self, seconds);
    }

    fn polling(&self) -> u64 {
        Balloon::polling(self)
    }
}
