//! QEMU's interfaces and nothing else: how options are written, what the tools print, the monitor's
//! protocol, the emulator's command line.
//!
//! No sockets, no files, no processes: bytes and descriptions in, values and arguments out.

pub mod options;
pub mod json;
pub mod image_tool;
pub mod qmp;
pub mod emit;
pub mod system;
