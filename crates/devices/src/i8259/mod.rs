//! The Intel 8259A programmable interrupt controller, in the PC's pair: ports 0x20 and 0xa0, edge
//! or level by the ELCR at 0x4d0. Data sheet: Intel 231468-003.
//!
//! Every PC board has it; there is no `-device` line for it.

mod chip;
mod pair;
mod spec;

pub use chip::{Chip, PicView};
pub use pair::{Elcr, Pair, PicPorts};
