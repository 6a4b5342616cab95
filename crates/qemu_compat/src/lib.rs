//! QEMU's contracts, and nothing else: the monitor's protocol and the command line.
//!
//! No sockets, no files, no processes: bytes and descriptions in, values and arguments out.

pub mod qmp;
pub mod emit;
