//! The serial ATA controller of the ICH9, in AHCI mode. Specification: Serial ATA AHCI 1.3.1; data
//! sheet: Intel 316972-004, chapter 15.
//!
//! `-device ich9-ahci,id=sata1`; the `q35` board has one with the buses `ide.0` to `ide.5`.

mod chip;
mod command;
mod controller;

pub use chip::{Chip, PORTS};
pub use controller::{Ahci, MODELS};
