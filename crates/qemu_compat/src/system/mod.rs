//! `qemu-system-*`: its command line.

pub mod character;
pub mod config_file;
pub mod options;
pub mod processors;
pub mod values;
