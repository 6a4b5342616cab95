//! Guest memory: what stands behind a guest-physical address or a port number.
//!
//! A [`Ram`] block is host memory that the guest sees. An [`AddressSpace`] puts RAM, ROM and
//! device registers ([`Io`]) at addresses, with priorities, so that a board can lay windows over
//! each other and switch them at run time (PAM, SMRAM, flash, PCI base addresses). Whoever runs
//! guest code looks at its flat view, in which every address has one owner.

mod dirty;
mod flat;
mod ram;
mod space;

pub use dirty::DirtyBitmap;
pub use flat::{FlatRange, FlatView, Owner, Piece};
pub use ram::{Ram, RamError};
pub use space::{AddressSpace, Listener, Region, RegionId};

/// The granularity of translation and of dirty tracking.
pub const PAGE_SIZE: u64 = 4096;

/// Device registers behind memory addresses or ports.
///
/// Called from any vCPU thread, several at once: an implementation locks its own state. `size` is
/// 1, 2, 4 or 8 bytes and the access lies within the region. The guest chooses every argument, so
/// any value must be handled; what the hardware leaves undefined reads as ones and ignores writes.
pub trait Io: Send + Sync {
    /// Reads `size` bytes at `offset` from the region's start, little-endian, in the low bits.
    fn read(&self, offset: u64, size: u8) -> u64;

    /// Writes the low `size` bytes of `value` at `offset` from the region's start.
    fn write(&self, offset: u64, size: u8, value: u64);

    /// Registers that only say that they were written. An accelerator may take their writes without
    /// stopping the guest, several as one, and carry them out a little later, as a write of zero.
    fn doorbells(&self) -> Option<Doorbells> {
        None
    }
}

/// A row of registers, each the same distance from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbells {
    /// The first one's offset.
    pub offset: u64,
    /// From one to the next.
    pub stride: u64,
    /// How many.
    pub count: u64,
}

/// All ones in `size` bytes: what an empty bus reads as.
#[must_use]
pub fn ones(size: u8) -> u64 {
    debug_assert!((1..=8).contains(&size));
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}
