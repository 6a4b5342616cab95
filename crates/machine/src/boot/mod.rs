//! Booting a Linux kernel without firmware: the 64-bit entry of the x86 boot protocol.
//!
//! Documentation: Linux, Documentation/arch/x86/boot.rst and zero-page.rst.

mod linux;

pub use linux::{BootError, Kernel, Placed, memory_map};
