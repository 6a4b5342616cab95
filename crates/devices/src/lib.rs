//! The chips, a module each, named after the chip.
//!
//! Each is a pure register machine (no bus, no lock, no clock; truth tables beside it) and a thin
//! adapter that gives it ports or memory, interrupt lines and time.

pub mod catalog;
pub mod surroundings;

pub mod debug;
pub mod i8254;
pub mod i8259;
pub mod ioapic;
pub mod lapic;
pub mod mc146818;
pub mod serial;
pub mod virtio;
