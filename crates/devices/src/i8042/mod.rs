//! The keyboard controller (Intel 8042) at ports 0x60 and 0x64, with a PS/2 keyboard and mouse.
//! Documentation: IBM PS/2 Hardware Interface Technical Reference, keyboard and auxiliary device
//! controller.
//!
//! Part of every board (`-machine i8042=off` leaves it out).

mod chip;
mod ports;

pub use chip::{Chip, Effect};
pub use ports::I8042;
