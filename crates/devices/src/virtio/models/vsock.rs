//! `vhost-vsock-pci`: in process, where the name's first bearer is a part of the kernel.

use std::path::Path;

use device::{Property, PropertyKind};

use super::{Build, CHOICE_PROPERTIES, RING_PROPERTIES, Tables, Variant, built, function, on_pci};
use crate::catalog::{BuildError, Built, Category, Controls, Model, Request, declare};
use crate::virtio::vsock::{GUEST_CONTEXT_MIN, Vsock};

const PROPERTIES: &[Property] = &[
    declare("guest-cid", PropertyKind::Unsigned(64), None),
    declare("path", PropertyKind::Text, None),
];

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(
        name,
        "sockets between guest and host, by unix sockets under a path",
        Category::Other,
        properties,
        build,
    )
}

pub(super) const MODELS: &[Model] = &[
    model("vhost-vsock-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    model("vhost-vsock-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let properties = request.properties;
    let missing = |property: &str| BuildError::Missing { property: property.to_owned() };
    let context = properties.unsigned("guest-cid").ok_or_else(|| missing("guest-cid"))?;
    if !(GUEST_CONTEXT_MIN..u64::from(u32::MAX)).contains(&context) {
        return Err(request.bad_value("guest-cid", "it must be from 3 to 4294967294"));
    }
    let contexts = &request.surroundings.backends.contexts;
    let name = context.to_string();
    contexts.insert(&name, std::sync::Arc::new(()));
    contexts.claim_named(request.id, "guest-cid", &name)?;
    let path = properties.text("path").ok_or_else(|| {
        let reason = "Property 'path' is required: programs of the host meet the guest at unix \
            sockets there; the kernel's /dev/vhost-vsock is not used";
        BuildError::Other(reason.to_owned())
    })?;
    let vsock = Vsock::new(context, Path::new(path)).map_err(|error| {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text.push_str(&format!(": {source}"));
        }
        request.bad_value("path", text)
    })?;
    Ok(built(&function(request, variant, vsock, None)?, Controls::default()))
}
