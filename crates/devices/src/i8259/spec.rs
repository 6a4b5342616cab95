//! The command words as the data sheet numbers them.

pub const ICW1: u8 = 0x10; // set in a write to port 0: initialisation begins
pub const ICW1_NEEDS_ICW4: u8 = 0x01;
pub const ICW1_SINGLE: u8 = 0x02;
pub const ICW4_AUTO_EOI: u8 = 0x02;
pub const ICW4_FULLY_NESTED: u8 = 0x10; // special fully nested mode
pub const OCW3: u8 = 0x08; // clear in OCW2
pub const OCW3_POLL: u8 = 0x04;
pub const OCW3_READ: u8 = 0x02; // the low bit then chooses ISR or IRR
pub const OCW3_SPECIAL_MASK: u8 = 0x40; // the next bit sets or clears the mode
/// The interrupt that is reported when the one that was asked for has gone.
pub const SPURIOUS: u8 = 7;
