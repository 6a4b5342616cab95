//! The protocol between a host and the agent in its guest.
//!
//! A session is one connection: the host sends a [`Request`], then both send frames until one of
//! them closes. There is no version to negotiate: whoever does not know a request says so, and a
//! field that is not known is ignored.

mod frame;
mod message;

pub use frame::{Frame, FrameError, FrameKind, PAYLOAD_BYTES_MAX, read_frame, write_frame};
pub use message::{
    Entry, Exec, Exit, Export, Failure, Get, Info, Listening, Memory, Mount, Put, Request, Size,
    Usage,
};

/// The port on which the agent listens.
pub const PORT: u32 = 1024;
