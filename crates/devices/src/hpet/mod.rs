//! The high precision event timer at 0xfed00000. Specification: IA-PC HPET 1.0a.
//!
//! Part of every board (`-machine hpet=off` leaves it out).

mod chip;
mod registers;

pub use chip::{Chip, TIMERS};
pub use registers::{Hpet, LegacyGate};

/// Where its registers lie.
pub const BASE: u64 = 0xfed0_0000;
/// How many bytes they take.
pub const BYTES: u64 = 0x400;
