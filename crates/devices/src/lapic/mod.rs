//! The local APIC, one in each processor, and the messages between them: xAPIC at 0xfee00000 and
//! x2APIC by model-specific registers. Manual: Intel SDM volume 3, chapter 11.
//!
//! Every PC board has them; there is no `-device` line for it.

mod chip;
mod complex;
mod spec;

pub use chip::{Chip, Effect};
pub use complex::{
    Apics, EndOfInterrupt, LapicMmio, Message, OutsideApics, Processor, set_current_processor,
};
pub use spec::{BASE, Delivery};
