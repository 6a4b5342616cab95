//! `virtio-9p-pci`.

use std::sync::Arc;

use device::{Property, PropertyKind};

use super::{Build, CHOICE_PROPERTIES, RING_PROPERTIES, Tables, Variant, built, function, on_pci};
use crate::catalog::{BuildError, Built, Category, Controls, Model, Request, declare};
use crate::virtio::ninep::{NineP, TAG_BYTES_MAX};

const PROPERTIES: &[Property] =
    &[declare("mount_tag", PropertyKind::Text, None), declare("fsdev", PropertyKind::Text, None)];

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(name, "a folder of the host", Category::Storage, properties, build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-9p-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    model("virtio-9p-pci-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Transitional)
    }),
    model("virtio-9p-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let shares = &request.surroundings.backends.shares;
    let name = request.properties.text("fsdev");
    // A share may be shown by several devices.
    let share = name.and_then(|name| shares.get(name)).ok_or_else(|| {
        let name = name.unwrap_or("NULL");
        BuildError::Other(format!("9pfs device couldn't find fsdev with the id = {name}"))
    })?;
    let tag = request.properties.text("mount_tag").ok_or_else(|| {
        let name = name.unwrap_or_default();
        BuildError::Other(format!("fsdev with id {name} needs mount_tag arguments"))
    })?;
    if tag.len() > TAG_BYTES_MAX {
        let reason = format!(
            "mount tag '{tag}' ({} bytes) is longer than maximum ({TAG_BYTES_MAX} bytes)",
            tag.len()
        );
        return Err(BuildError::Other(reason));
    }
    let device = NineP::new(Arc::clone(&share), tag);
    Ok(built(&function(request, variant, device, None)?, Controls::default()))
}
