//! QMP: one JSON object a line, commands with an id, replies, and events in between.

mod client;

pub use client::{Client, Event, Incoming, QmpError};
