//! `vhost-user-fs-pci`.

use std::sync::Arc;

use device::{Property, PropertyKind};

use super::{RING_PROPERTIES, Variant, built, function, number, on_pci, queue_size};
use crate::catalog::{BuildError, Built, Category, Controls, Model, Request, declare};
use crate::virtio::fs::{Fs, FsConfig, QUEUES_MAX, TAG_BYTES_MAX};

const PROPERTIES: &[Property] = &[
    declare("chardev", PropertyKind::Stream, None),
    declare("tag", PropertyKind::Text, None),
    number("num-request-queues", 16, 1),
    number("queue-size", 16, 128),
];

pub(super) const MODELS: &[Model] = &[on_pci(
    "vhost-user-fs-pci",
    "a folder that another process shares",
    Category::Storage,
    &[RING_PROPERTIES, PROPERTIES],
    build,
)];

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let properties = request.properties;
    let around = request.surroundings;
    let other = |reason: &str| BuildError::Other(reason.to_owned());
    let stream = around.backends.streams.claim(request.id, properties, "chardev")?;
    let stream = stream.ok_or_else(|| other("missing chardev"))?;
    let tag = properties.text("tag").ok_or_else(|| other("missing tag property"))?;
    match tag.len() {
        0 => return Err(other("tag property cannot be empty")),
        bytes if bytes > TAG_BYTES_MAX => {
            let reason = format!("tag property must be {TAG_BYTES_MAX} bytes or less");
            return Err(BuildError::Other(reason));
        }
        _ => {}
    }
    let queues = properties.unsigned("num-request-queues").unwrap_or(1);
    if queues == 0 {
        return Err(other("num-request-queues property must be larger than 0"));
    }
    let queues = u16::try_from(queues).ok().filter(|queues| *queues <= QUEUES_MAX);
    let most = format!("there are {QUEUES_MAX} at most");
    let queues = queues.ok_or_else(|| request.bad_value("num-request-queues", most))?;
    let queue_size = queue_size(request, "queue-size")?;
    let socket = stream.take_socket();
    let socket = socket.ok_or_else(|| {
        request.bad_value("chardev", "it is not a unix socket that is connected to a back end")
    })?;
    let memory = Arc::clone(&around.memory);
    let fs = Fs::new(FsConfig { tag: tag.to_owned(), socket, queues, queue_size, memory });
    let fs = fs.map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        request.bad_value("chardev", format!("{error}{}", source.unwrap_or_default()))
    })?;
    Ok(built(&function(request, Variant::NonTransitional, fs, None)?, Controls::default()))
}
