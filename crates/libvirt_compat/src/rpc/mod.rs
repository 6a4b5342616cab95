//! The wire protocol: frames around XDR payloads, and one table that names every procedure.

pub mod frame;
pub mod xdr;
pub mod types;
pub mod procedures;
pub mod client;

pub use frame::{Frame, FrameDecoder, FrameError, Header, Kind, Status};
pub use procedures::{Access, PROCEDURES, Priority, Procedure, Standing, find};
pub use xdr::{Reader, Xdr, XdrError};

/// The program of nearly everything.
pub const PROGRAM_REMOTE: u32 = 0x2000_8086;
/// Monitor commands and agent commands of QEMU domains.
pub const PROGRAM_QEMU: u32 = 0x2000_8087;
/// Containers; known so that it can be refused by name.
pub const PROGRAM_LXC: u32 = 0x0006_8000;
/// PING and PONG.
pub const PROGRAM_KEEPALIVE: u32 = 0x6b65_6570;
/// Every program has this version.
pub const PROGRAM_VERSION: u32 = 1;

/// Keepalive's question.
pub const KEEPALIVE_PING: u32 = 1;
/// Keepalive's answer.
pub const KEEPALIVE_PONG: u32 = 2;

/// Stream packets carry at most this many bytes of data: libvirt's legacy payload limit.
pub const STREAM_BYTES_MAX: usize = 262_120;
