//! `virtio-blk-pci`.

use std::sync::Arc;

use device::{DefaultValue, Property, PropertyKind};

use super::{
    Build, CHOICE_PROPERTIES, RING_PROPERTIES, Tables, Variant, built, function, number, off, on,
    on_pci,
};
use crate::catalog::{
    BuildError, Built, Category, Controls, DriveControl, Model, Request, declare,
};
use crate::virtio::VirtioDevice;
use crate::virtio::blk::{Blk, BlkConfig, ErrorPolicy};

const POLICIES: &[&str] = &["report", "ignore", "enospc", "stop", "auto"];

pub(super) const PROPERTIES: &[Property] = &[
    declare("drive", PropertyKind::Drive, None),
    declare("serial", PropertyKind::Text, None),
    number("logical_block_size", 32, 512),
    number("physical_block_size", 32, 512),
    number("min_io_size", 32, 0),
    number("opt_io_size", 32, 0),
    number("num-queues", 16, 1),
    number("queue-size", 16, 256),
    on("discard"),
    on("write-zeroes"),
    declare("write-cache", PropertyKind::Auto, None),
    off("share-rw"),
    declare("rerror", PropertyKind::Choice(POLICIES), Some(DefaultValue::Text("auto"))),
    declare("werror", PropertyKind::Choice(POLICIES), Some(DefaultValue::Text("auto"))),
    declare("bootindex", PropertyKind::BootIndex, None),
];

const fn model(name: &'static str, properties: Tables, build: Build) -> Model {
    on_pci(name, "a virtio disk", Category::Storage, properties, build)
}

pub(super) const MODELS: &[Model] = &[
    model("virtio-blk-pci", &[CHOICE_PROPERTIES, RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Chosen)
    }),
    model("virtio-blk-pci-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::Transitional)
    }),
    model("virtio-blk-pci-non-transitional", &[RING_PROPERTIES, PROPERTIES], |request| {
        build(request, Variant::NonTransitional)
    }),
];

fn build(request: &Request<'_>, variant: Variant) -> Result<Built, BuildError> {
    let (device, controls) = device(request)?;
    Ok(built(&function(request, variant, device, None)?, controls))
}

/// The device, apart from where it is plugged in.
pub(super) fn device(
    request: &Request<'_>,
) -> Result<(Arc<dyn VirtioDevice>, Controls), BuildError> {
    let disk = Blk::new(config(request)?);
    let drive = Some(Arc::clone(&disk) as Arc<dyn DriveControl>);
    Ok((disk, Controls { drive, ..Controls::default() }))
}

fn config(request: &Request<'_>) -> Result<BlkConfig, BuildError> {
    let properties = request.properties;
    let [logical_block_bytes, physical_block_bytes] = block_sizes(request)?;
    let queues = match properties.unsigned("num-queues").map(u16::try_from) {
        Some(Ok(queues @ 1..=256)) => queues,
        _ => return Err(request.bad_value("num-queues", "there are 1 to 256")),
    };
    let queue_size = super::queue_size(request, "queue-size")?;
    let serial = properties.text("serial").unwrap_or_default().to_owned();
    let drives = &request.surroundings.backends.drives;
    let node = if properties.bool("share-rw") {
        drives.share(properties, "drive")?
    } else {
        drives.claim(request.id, properties, "drive")?
    };
    let node = node.ok_or_else(|| BuildError::Missing { property: "drive".to_owned() })?;
    let bytes = |name| properties.unsigned(name).and_then(|bytes| u32::try_from(bytes).ok());
    Ok(BlkConfig {
        id: request.id.to_owned(),
        read_only: !node.writable(),
        node,
        serial,
        logical_block_bytes,
        physical_block_bytes,
        io_bytes: (bytes("min_io_size").unwrap_or(0), bytes("opt_io_size").unwrap_or(0)),
        queues,
        queue_size,
        discard: properties.bool("discard"),
        write_zeroes: properties.bool("write-zeroes"),
        write_cache: properties.auto("write-cache") != Some(false),
        on_read_error: policy(properties.text("rerror"), ErrorPolicy::Report),
        on_write_error: policy(properties.text("werror"), ErrorPolicy::StopWhenFull),
        events: Arc::clone(&request.surroundings.events),
    })
}

fn block_sizes(request: &Request<'_>) -> Result<[u32; 2], BuildError> {
    let mut sizes = [512; 2];
    for (size, name) in sizes.iter_mut().zip(["logical_block_size", "physical_block_size"]) {
        let asked = request.properties.unsigned(name).unwrap_or(512);
        *size = u32::try_from(asked)
            .ok()
            .filter(|size| size.is_power_of_two() && (512..=2 << 20).contains(size))
            .ok_or_else(|| {
                request.bad_value(name, "it must be a power of two from 512 to 2 MiB")
            })?;
    }
    if sizes[0] > sizes[1] {
        let reason = "it must not be larger than physical_block_size";
        return Err(request.bad_value("logical_block_size", reason));
    }
    Ok(sizes)
}

fn policy(name: Option<&str>, automatic: ErrorPolicy) -> ErrorPolicy {
    match name {
        Some("report") => ErrorPolicy::Report,
        Some("ignore") => ErrorPolicy::Ignore,
        Some("stop") => ErrorPolicy::Stop,
        Some("enospc") => ErrorPolicy::StopWhenFull,
        _ => automatic,
    }
}

impl DriveControl for Blk {
    fn resized(&self) {
        Blk::resized(self);
    }
}
