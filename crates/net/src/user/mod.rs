//! The user-mode network: a router, its services and a way out, without any privileges.
//!
//! [`UserNet`] is the back end. Its thread owns an [`engine::Engine`], which speaks all
//! protocols and knows no sockets, and the host's sockets.

pub mod config;
pub mod engine;
mod forward;
mod inbox;
mod limit;
mod run;
mod sockets;
mod stack;
mod token;

pub use limit::raise_descriptor_limit;

pub use config::{Config, ForwardTarget, GuestForward, Ipv4Config, Ipv6Config};
pub use forward::{HostEnd, HostForward};
pub use stack::{Connection, ConnectionKind, UserNet};
