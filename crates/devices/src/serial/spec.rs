//! The registers as the data sheet numbers them.

pub const DATA: u64 = 0; // the divisor's low byte while LCR_DIVISOR is set
pub const INTERRUPT_ENABLE: u64 = 1; // the divisor's high byte while LCR_DIVISOR is set
pub const INTERRUPT_IDENTIFY: u64 = 2; // written, it is the FIFO control
pub const LINE_CONTROL: u64 = 3;
pub const MODEM_CONTROL: u64 = 4;
pub const LINE_STATUS: u64 = 5;
pub const MODEM_STATUS: u64 = 6;
pub const SCRATCH: u64 = 7;

pub const IER_RECEIVED: u8 = 0x01;
pub const IER_EMPTY: u8 = 0x02;
pub const IER_LINE: u8 = 0x04;
pub const IER_MODEM: u8 = 0x08;

pub const IIR_NONE: u8 = 0x01;
pub const IIR_MODEM: u8 = 0x00;
pub const IIR_EMPTY: u8 = 0x02;
pub const IIR_RECEIVED: u8 = 0x04;
pub const IIR_LINE: u8 = 0x06;
pub const IIR_TIMEOUT: u8 = 0x0c;
pub const IIR_FIFOS: u8 = 0xc0;

pub const FCR_ENABLE: u8 = 0x01;
pub const FCR_CLEAR_RECEIVED: u8 = 0x02;

pub const LCR_DIVISOR: u8 = 0x80;

pub const MCR_OUT2: u8 = 0x08; // gates the interrupt line on a PC
pub const MCR_LOOPBACK: u8 = 0x10;

pub const LSR_RECEIVED: u8 = 0x01;
pub const LSR_OVERRUN: u8 = 0x02;
pub const LSR_BREAK: u8 = 0x10;
pub const LSR_HOLDING_EMPTY: u8 = 0x20;
pub const LSR_EMPTY: u8 = 0x40;

pub const MSR_CLEAR_TO_SEND: u8 = 0x10;
pub const MSR_SET_READY: u8 = 0x20;
pub const MSR_RING: u8 = 0x40;
pub const MSR_CARRIER: u8 = 0x80;

/// Bytes the receiving FIFO holds.
pub const FIFO_BYTES: usize = 16;
