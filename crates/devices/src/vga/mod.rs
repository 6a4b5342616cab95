//! The standard graphics card: VGA with the Bochs extensions, in text and graphics modes.
//! Documentation: IBM PS/2 Hardware Interface Technical Reference, video subsystem; Bochs VBE
//! display interface, "Standard VGA" specification of the emulator we replace.
//!
//! `-device VGA` (or `-vga std`), `-device bochs-display` without the old registers, `-device
//! secondary-vga` for another screen.
//!
//! For cards that are VGA besides something else (virtio-vga): a [`Vga`] over the card's video
//! memory, its [`Vga::declare`] for a PCI layout, and [`Vga`] as a `Screen` while it is the one that
//! is shown.

mod chip;
mod adapter;
mod dispi;
mod planes;
mod render;

pub use adapter::{MODELS, Vga};
pub use chip::Chip;
