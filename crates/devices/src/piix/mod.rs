//! The south bridge of the `pc` board: Intel 82371SB (PIIX3), with the power management of the
//! 82371AB (PIIX4). Data sheets: 290550-002, 290562-001.

mod isa;
mod power;

pub use isa::Isa;
pub use power::{COMMANDS, GPE_BASE, GPE_BYTES, Power};
