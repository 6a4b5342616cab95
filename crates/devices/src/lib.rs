//! The chips, a module each, named after the chip.
//!
//! Each is a pure register machine (no bus, no lock, no clock; truth tables beside it) and a thin
//! adapter that gives it ports or memory, interrupt lines and time.

pub mod catalog;
pub mod surroundings;

pub mod acpi_pm;
pub mod ahci;
pub mod ata;
pub mod cfi01;
pub mod debug;
pub mod e1000;
pub mod fw_cfg;
pub mod hda;
pub mod hpet;
pub mod i440fx;
pub mod i8042;
pub mod i8254;
pub mod i8259;
pub mod ich9;
pub mod ide;
pub mod ioapic;
pub mod lapic;
pub mod mc146818;
pub mod pci;
pub mod piix;
pub mod ps2;
pub mod pvpanic;
pub mod q35;
pub mod serial;
pub mod usb;
pub mod vga;
pub mod virtio;
pub mod vmgenid;
pub mod xhci;
