//! Flash memory with the Intel/Sharp extended command set, as UEFI keeps itself and its variables
//! in. Specification: JEDEC JEP137 (command set 0x0001), JESD68 (CFI).
//!
//! `-drive if=pflash,format=raw,file=CODE.fd,readonly=on` and `-drive if=pflash,format=raw,
//! file=VARS.fd`, or `-machine pflash0=NODE,pflash1=NODE`.

mod chip;
mod flash;

pub use chip::{BLOCK_BYTES, Chip, Effect};
pub use flash::{Flash, FlashError};
