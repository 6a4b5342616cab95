//! The gdb remote protocol, from the side of what is debugged. Sans-IO: a [`Session`] takes bytes
//! and stops, gives bytes to send, and asks a [`Target`], which may be a program or a machine.
//!
//! Protocol: "Debugging with GDB", appendix E.

mod description;
mod packet;
mod session;
mod target;

pub use description::{Description, Feature, Register};
pub use session::Session;
pub use target::{Action, Resume, Stop, Target, ThreadId, WatchKind};
