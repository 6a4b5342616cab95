//! The Intel 8254 programmable interval timer: ports 0x40 to 0x43, and the PC's port 0x61 that
//! gates channel 2 and shows its output. Data sheet: Intel 231164-005.
//!
//! Every PC board has it; there is no `-device` line for it.

mod chip;
mod ports;

pub use chip::{Channel, FREQUENCY_HZ};
pub use ports::{Pit, Port61};
