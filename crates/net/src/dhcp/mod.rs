//! DHCP: the codecs and a server, without sockets.
//!
//! The user-mode stack and the daemon's networks use the same [`server::Server`].

pub mod message;
pub mod options;
pub mod server;
pub mod v6;

pub use message::{Kind, Message};
pub use server::{Lease, Server, Settings, StaticHost};

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;
