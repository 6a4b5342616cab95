//! QMP: one JSON object a line, commands with an id, replies, and events in between.

mod client;
pub mod schema;
pub mod server;

pub use client::{Client, Event, Incoming, QmpError};
