//! Parallel ATA: two channels with two drives each, programmed transfers and bus-master DMA.
//! Specifications: ATA/ATAPI-6; Intel 290550-002, 2.5 (bus-master IDE).
//!
//! The `pc` board has one, with the buses `ide.0` and `ide.1`.

mod channel;
mod controller;
mod dma;

pub use channel::IdeChannel;
pub use controller::MODELS;
