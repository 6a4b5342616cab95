//! The 16550A's registers: pure.
//!
//! Transmission takes no time: a byte written is a byte sent, so the transmitter is always empty.
//! A guest that paces itself by the baud rate runs faster, which none minds.

use std::collections::VecDeque;

use super::spec;

/// The registers and the receiving FIFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    /// The inputs that changed since the modem status was last read.
    modem_changes: u8,
    /// The modem status's inputs: the other end is ready, or looped back.
    modem_inputs: u8,
    scratch: u8,
    divisor: u16,
    fifos: bool,
    /// How many received bytes raise the interrupt.
    trigger: usize,
    received: VecDeque<u8>,
    /// Overrun and break, until the line status is read.
    line_errors: u8,
    /// The transmitter's interrupt: set when it empties, cleared when it is seen.
    empty_pending: bool,
    /// Below the trigger, but waited long enough.
    timed_out: bool,
}

device::saved!(Uart {
    interrupt_enable,
    line_control,
    modem_control,
    modem_changes,
    modem_inputs,
    scratch,
    divisor,
    fifos,
    trigger,
    received,
    line_errors,
    empty_pending,
    timed_out,
} check |uart: &Uart| (1..=14).contains(&uart.trigger) && uart.received.len() <= 16);

const CONNECTED: u8 = spec::MSR_CLEAR_TO_SEND | spec::MSR_SET_READY | spec::MSR_CARRIER;

impl Default for Uart {
    fn default() -> Self {
        Self {
            interrupt_enable: 0,
            line_control: 0,
            modem_control: spec::MCR_OUT2,
            modem_changes: 0,
            modem_inputs: CONNECTED,
            scratch: 0,
            divisor: 12, // 9,600 baud
            fifos: false,
            trigger: 1,
            received: VecDeque::new(),
            line_errors: 0,
            empty_pending: false,
            timed_out: false,
        }
    }
}

impl Uart {
    /// Reads a register.
    pub fn read(&mut self, register: u64) -> u8 {
        let divisor = self.line_control & spec::LCR_DIVISOR != 0;
        match register {
            spec::DATA if divisor => self.divisor.to_le_bytes()[0],
            spec::DATA => {
                self.timed_out = false;
                self.received.pop_front().unwrap_or(0)
            }
            spec::INTERRUPT_ENABLE if divisor => self.divisor.to_le_bytes()[1],
            spec::INTERRUPT_ENABLE => self.interrupt_enable,
            spec::INTERRUPT_IDENTIFY => {
                let reason = self.reason();
                // Seeing the transmitter's interrupt is its acknowledgement.
                self.empty_pending &= reason != spec::IIR_EMPTY;
                reason | if self.fifos { spec::IIR_FIFOS } else { 0 }
            }
            spec::LINE_CONTROL => self.line_control,
            spec::MODEM_CONTROL => self.modem_control,
            spec::LINE_STATUS => self.line_status(),
            spec::MODEM_STATUS => self.modem_inputs | std::mem::take(&mut self.modem_changes),
            _ => self.scratch,
        }
    }

    fn line_status(&mut self) -> u8 {
        let received = if self.received.is_empty() { 0 } else { spec::LSR_RECEIVED };
        let errors = std::mem::take(&mut self.line_errors);
        spec::LSR_HOLDING_EMPTY | spec::LSR_EMPTY | received | errors
    }

    /// Writes a register. Returns the byte that goes out, if one does.
    pub fn write(&mut self, register: u64, value: u8) -> Option<u8> {
        let divisor = self.line_control & spec::LCR_DIVISOR != 0;
        match register {
            spec::DATA if divisor => self.divisor = self.divisor & 0xff00 | u16::from(value),
            spec::DATA => {
                self.empty_pending = true;
                if self.modem_control & spec::MCR_LOOPBACK == 0 {
                    return Some(value);
                }
                self.receive(value);
            }
            spec::INTERRUPT_ENABLE if divisor => {
                self.divisor = self.divisor & 0x00ff | u16::from(value) << 8;
            }
            spec::INTERRUPT_ENABLE => {
                let newly = value & !self.interrupt_enable;
                // Enabling it with an empty transmitter interrupts at once; drivers probe that.
                self.empty_pending |= newly & spec::IER_EMPTY != 0;
                self.interrupt_enable = value & 0x0f;
            }
            spec::INTERRUPT_IDENTIFY => self.control_fifos(value),
            spec::LINE_CONTROL => self.line_control = value,
            spec::MODEM_CONTROL => self.control_modem(value & 0x1f),
            spec::SCRATCH => self.scratch = value,
            _ => {} // the status registers are read-only
        }
        None
    }

    fn control_fifos(&mut self, value: u8) {
        let fifos = value & spec::FCR_ENABLE != 0;
        if fifos != self.fifos || value & spec::FCR_CLEAR_RECEIVED != 0 {
            self.received.clear();
            self.timed_out = false;
        }
        self.fifos = fifos;
        self.trigger = match (fifos, value >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        };
    }

    /// Looped back, the modem's inputs are its own outputs.
    fn control_modem(&mut self, value: u8) {
        self.modem_control = value;
        let inputs = if value & spec::MCR_LOOPBACK == 0 {
            CONNECTED
        } else {
            let wire = |output: u8, input: u8| if value & output != 0 { input } else { 0 };
            wire(0x01, spec::MSR_SET_READY)
                | wire(0x02, spec::MSR_CLEAR_TO_SEND)
                | wire(0x04, spec::MSR_RING)
                | wire(0x08, spec::MSR_CARRIER)
        };
        let changed = (inputs ^ self.modem_inputs) >> 4;
        // The ring indicator reports only its falling edge.
        let rising_ring = inputs & spec::MSR_RING & !self.modem_inputs;
        self.modem_changes |= changed & !(rising_ring >> 4);
        self.modem_inputs = inputs;
    }

    /// How many more bytes the receiver takes without losing one.
    #[must_use]
    pub fn room(&self) -> usize {
        let capacity = if self.fifos { spec::FIFO_BYTES } else { 1 };
        capacity.saturating_sub(self.received.len())
    }

    /// A byte comes in. Without room it is lost and the line status says so.
    pub fn receive(&mut self, byte: u8) {
        if self.room() == 0 {
            self.line_errors |= spec::LSR_OVERRUN;
            return;
        }
        self.received.push_back(byte);
        // Input comes in bursts: nothing more is on its way, so nobody waits for four characters.
        self.timed_out = self.fifos;
    }

    /// The other end holds the line: a break comes in.
    pub fn receive_break(&mut self) {
        self.receive(0);
        self.line_errors |= spec::LSR_BREAK;
    }

    /// The interrupt with the highest priority.
    fn reason(&self) -> u8 {
        let enabled = |bit: u8| self.interrupt_enable & bit != 0;
        if enabled(spec::IER_LINE) && self.line_errors != 0 {
            spec::IIR_LINE
        } else if enabled(spec::IER_RECEIVED) && self.received.len() >= self.trigger {
            spec::IIR_RECEIVED
        } else if enabled(spec::IER_RECEIVED) && self.timed_out && !self.received.is_empty() {
            spec::IIR_TIMEOUT
        } else if enabled(spec::IER_EMPTY) && self.empty_pending {
            spec::IIR_EMPTY
        } else if enabled(spec::IER_MODEM) && self.modem_changes != 0 {
            spec::IIR_MODEM
        } else {
            spec::IIR_NONE
        }
    }

    /// The interrupt line.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.reason() != spec::IIR_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_out_at_once_and_the_transmitter_is_empty_again() {
        let mut uart = Uart::default();
        assert_eq!(uart.write(spec::DATA, b'x'), Some(b'x'));
        assert_eq!(uart.read(spec::LINE_STATUS), 0x60);
    }

    #[test]
    fn the_divisor_hides_behind_its_latch() {
        let mut uart = Uart::default();
        uart.write(spec::LINE_CONTROL, 0x83);
        assert_eq!(uart.write(spec::DATA, 0x01), None);
        uart.write(spec::INTERRUPT_ENABLE, 0x02);
        assert_eq!((uart.read(spec::DATA), uart.read(spec::INTERRUPT_ENABLE)), (0x01, 0x02));
        uart.write(spec::LINE_CONTROL, 0x03);
        assert_eq!(uart.read(spec::INTERRUPT_ENABLE), 0);
    }

    #[test]
    fn interrupts_by_priority() {
        // enabled, break, bytes, expected reason
        for (enabled, breaks, bytes, reason) in [
            (0x0f, true, 1, spec::IIR_LINE),
            (0x0b, true, 1, spec::IIR_TIMEOUT),
            (0x0f, false, 14, spec::IIR_RECEIVED),
            (0x0f, false, 1, spec::IIR_TIMEOUT),
            (0x02, false, 1, spec::IIR_EMPTY),
            (0x00, true, 14, spec::IIR_NONE),
        ] {
            let mut uart = Uart::default();
            uart.write(spec::INTERRUPT_IDENTIFY, 0xc1);
            uart.write(spec::INTERRUPT_ENABLE, enabled);
            if breaks {
                uart.receive_break();
            } else {
                (0..bytes).for_each(|byte| uart.receive(byte));
            }
            assert_eq!(uart.read(spec::INTERRUPT_IDENTIFY) & 0x0f, reason, "{enabled:#x} {bytes}");
        }
    }

    #[test]
    fn the_transmitter_interrupt_is_acknowledged_by_seeing_it() {
        let mut uart = Uart::default();
        uart.write(spec::INTERRUPT_ENABLE, spec::IER_EMPTY);
        assert!(uart.irq());
        assert_eq!(uart.read(spec::INTERRUPT_IDENTIFY), spec::IIR_EMPTY);
        assert!(!uart.irq());
        uart.write(spec::DATA, 0);
        assert!(uart.irq());
    }

    #[test]
    fn a_full_fifo_reports_an_overrun_once() {
        let mut uart = Uart::default();
        uart.write(spec::INTERRUPT_IDENTIFY, 1);
        (0..17).for_each(|byte| uart.receive(byte));
        assert_eq!((uart.room(), uart.read(spec::LINE_STATUS)), (0, 0x63));
        assert_eq!(uart.read(spec::LINE_STATUS), 0x61);
        let received: Vec<u8> = (0..16).map(|_| uart.read(spec::DATA)).collect();
        assert_eq!(received, (0..16).collect::<Vec<u8>>());
        assert_eq!(uart.read(spec::LINE_STATUS), 0x60);
    }

    #[test]
    fn loopback_connects_the_port_to_itself() {
        let mut uart = Uart::default();
        uart.write(spec::MODEM_CONTROL, spec::MCR_LOOPBACK | 0x0a);
        assert_eq!(uart.read(spec::MODEM_STATUS) & 0xf0, 0x90);
        assert_eq!(uart.write(spec::DATA, 0x5a), None);
        assert_eq!(uart.read(spec::DATA), 0x5a);
    }
}
