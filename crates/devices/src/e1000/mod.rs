//! The Intel 82540EM gigabit Ethernet controller. Manual: "PCI/PCI-X Family of Gigabit Ethernet
//! Controllers Software Developer's Manual", 317453.
//!
//! `-netdev user,id=n0 -device e1000,netdev=n0,mac=52:54:00:12:34:56`

mod card;
mod chip;
mod eeprom;
mod frame;
mod spec;

pub use card::MODELS;
