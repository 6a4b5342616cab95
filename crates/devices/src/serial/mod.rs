//! The National Semiconductor PC16550D serial port: COM1 to COM4 of a PC. Data sheet: TL/C/8652.
//!
//! `-serial stdio` gives COM1; `-device isa-serial,chardev=c0` any of them.

mod model;
mod port;
mod spec;
mod uart;

pub use model::{MODELS, place};
pub use port::SerialPort;
pub use uart::Uart;
