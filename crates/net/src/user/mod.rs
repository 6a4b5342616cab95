//! The user-mode network: a router, its services and a way out, without any privileges.

pub mod config;
pub mod engine;

pub use config::{Config, ForwardTarget, GuestForward, Ipv4Config, Ipv6Config};
