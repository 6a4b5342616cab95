//! The network block device protocol: fixed newstyle handshake, simple and structured replies,
//! block status. Numbers are those of the protocol's description.

pub mod server;
mod wire;

pub use wire::*;
