//! Protocols: where the bytes of an image come from.

mod blkdebug;
pub mod file;
mod http;
mod locks;
mod nbd;
pub mod null;

use crate::error::Result;
use crate::filters;
use crate::node::NodeRef;
use crate::open::OpenMode;
use crate::options::{CreateOptions, OpenOptions, OptionSpec};

/// A protocol driver: one row in [`PROTOCOLS`].
pub struct Protocol {
    /// The driver's name.
    pub name: &'static str,
    /// What stands before the first colon of a name that means this protocol.
    pub prefixes: &'static [&'static str],
    /// Turns a name with such a prefix into options.
    pub parse: fn(&str, &mut OpenOptions) -> Result<()>,
    /// Opens a node.
    pub open: fn(&mut OpenOptions, &OpenMode) -> Result<NodeRef>,
    /// Makes an empty image of a size.
    pub create: Option<fn(&str, &CreateOptions) -> Result<()>>,
    /// What `create` understands.
    pub create_options: &'static [OptionSpec],
}

/// Every protocol. A new one is one row here.
pub const PROTOCOLS: &[Protocol] = &[
    file::PROTOCOL,
    file::HOST_DEVICE,
    file::HOST_CDROM,
    null::NULL_CO,
    null::NULL_AIO,
    blkdebug::PROTOCOL,
    nbd::PROTOCOL,
    http::HTTP,
    http::HTTPS,
    filters::compress::PROTOCOL,
    filters::copy_on_read::PROTOCOL,
    filters::quorum::PROTOCOL,
    filters::throttle::PROTOCOL,
];

/// The protocol of this driver name.
pub fn find(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().find(|protocol| protocol.name == name)
}

/// The protocol that a file name's prefix asks for.
pub fn by_prefix(filename: &str) -> Option<&'static Protocol> {
    let prefix = prefix(filename)?;
    PROTOCOLS.iter().find(|protocol| protocol.prefixes.contains(&prefix))
}

/// What stands before the first colon, if that comes before any slash.
pub fn prefix(filename: &str) -> Option<&str> {
    let end = filename.find([':', '/'])?;
    filename[end..].starts_with(':').then(|| &filename[..end])
}
