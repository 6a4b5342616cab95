//! Booting a kernel without firmware: the 64-bit entry of Linux's x86 boot protocol, and PVH's.
//!
//! Documentation: Linux, Documentation/arch/x86/boot.rst and zero-page.rst.

mod linux;
mod pvh;

pub use linux::{BootError, Kernel, Placed, memory_map};
