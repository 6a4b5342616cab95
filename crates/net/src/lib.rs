//! Network back ends: what a network card is plugged into.
//!
//! [`cable`] is the contract between a card and its back end; everything else implements it or
//! speaks a protocol for those that do.

pub mod cable;
pub mod dhcp;
pub mod dns;
pub mod dump;
pub mod error;
pub mod hub;
pub mod packet;
pub mod socket;
pub mod tap;
mod unix;
pub mod user;
pub mod vhost_user;

pub use cable::{Backend, Capabilities, Card, Offload, Segmentation};
pub use error::{Error, Result};
