//! Debian's archive: sources, signed indexes, packages.

mod archive;
mod package;
mod resolve;
mod signature;
mod sources;

pub use archive::{Archive, Listed, sum};
pub use package::Package;
pub use signature::verified;
pub use sources::Mirror;
