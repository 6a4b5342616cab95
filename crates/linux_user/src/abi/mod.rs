//! Architectures, one file each: registers, numbers, signal frames.

pub mod arm64;
pub mod i386;
pub mod riscv64;
pub mod x86_64;
