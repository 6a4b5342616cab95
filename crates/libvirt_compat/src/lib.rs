//! libvirt's contract, and nothing else: what its clients send and expect to read.
//!
//! - [`rpc`]: frames, XDR, the table of procedures, both sides' codecs;
//! - [`error`]: error codes with the texts that scripts match;
//! - [`xml`]: the document tree, bounded on the way in, laid out as libvirt lays it out;
//! - [`domain`]: the order and the defaults of domain documents;
//! - [`event`]: what a daemon tells its clients unasked.
//!
//! No sockets, no files, no clock: bytes in, values out. The same code serves the daemon, our own
//! clients, the tests and the fuzzer.

pub mod rpc;
pub mod error;
pub mod event;
pub mod uuid;
pub mod constants;
pub mod keys;
pub mod xml;
pub mod domain;

pub use error::{Code, Error, Origin, Result};
pub use uuid::Uuid;
