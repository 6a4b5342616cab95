//! The Motorola MC146818 real-time clock with the PC's CMOS memory: ports 0x70 and 0x71, IRQ 8.
//! Data sheet: Motorola ADI-856.
//!
//! Every PC board has it; `-rtc base=utc|localtime|DATE` sets its time.

mod calendar;
mod chip;
mod ports;

pub use calendar::Date;
pub use chip::{CMOS_BYTES, Rtc};
pub use ports::Cmos;
