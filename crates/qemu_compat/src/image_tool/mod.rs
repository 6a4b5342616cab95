//! qemu-img: its command lines and its output texts.

pub mod arguments;
pub mod commands;
pub mod text;
