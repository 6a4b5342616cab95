//! QEMU's interfaces and nothing else: how options are written, what tools print.

pub mod image_tool;
pub mod json;
pub mod options;
