//! The south bridge of the `q35` board: Intel ICH9. Data sheet: 316972-004.

mod lpc;
mod registers;

pub use lpc::{COMMANDS, GPE_BYTES, GPE_OFFSET, Lpc};
