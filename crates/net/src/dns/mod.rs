//! DNS: names, messages and a forwarder, without sockets.

pub mod forwarder;
pub mod message;
pub mod name;
pub mod resolv;

pub use forwarder::Forwarder;
pub use message::Message;

/// Where servers listen.
pub const PORT: u16 = 53;
