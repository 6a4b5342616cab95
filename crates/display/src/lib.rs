//! Screens and keyboards as a remote viewer knows them, and RFB (RFC 6143), the protocol of VNC.
//!
//! [`codec`] is bytes in, messages out, shared by [`server`] and [`viewer`]; only those two touch
//! sockets. What is shown and who takes keys is behind the traits in [`surface`].

pub mod surface;
pub mod sound;
pub mod keys;
pub mod codec;
mod encode;
mod decode;
mod damage;
mod websocket;
mod socket;
pub mod secure;
pub mod server;
pub mod viewer;
