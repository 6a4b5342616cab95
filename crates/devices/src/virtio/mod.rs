//! Virtio devices. OASIS "Virtual I/O Device (VIRTIO) Version 1.3".
//!
//! A device ([`VirtioDevice`]) is a folder or a file here that knows no transport; its requests come
//! through [`queue`]s. A transport gives a device registers and interrupts: [`mmio`], [`pci`].

pub mod balloon;
pub mod blk;
pub mod console;
pub mod device;
pub mod fs;
pub mod gpu;
pub mod input;
pub mod mmio;
pub mod models;
pub mod net;
pub mod ninep;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod transport;
pub mod vsock;

pub use device::{Driver, Events, Interrupt, Kind, VirtioDevice};
pub use queue::{Chain, Queue};

#[cfg(test)]
mod guest;
