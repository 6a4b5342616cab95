//! The controller's registers: pure.

/// Ports of an ICH9.
pub const PORTS: usize = 6;

/// Interrupt status of a port: a register FIS has come.
pub const DEVICE_TO_HOST: u32 = 1;
/// A set-up FIS of a programmed transfer.
pub const PROGRAMMED_SETUP: u32 = 1 << 1;
/// Queued commands are done.
pub const SET_BITS: u32 = 1 << 3;
/// What is plugged in has changed.
const CONNECT_CHANGE: u32 = 1 << 6;
const READY_CHANGE: u32 = 1 << 22;
/// The device has reported an error.
pub const TASK_FILE_ERROR: u32 = 1 << 30;
/// Guest memory could not be accessed.
pub const HOST_BUS_ERROR: u32 = 1 << 29;

const CAPABILITIES: u32 = 1 << 31 | 1 << 30 | 1 << 20 | 1 << 18 | 31 << 8 | (PORTS as u32 - 1);
const VERSION: u32 = 0x0001_0300;
const GLOBAL_RESET: u32 = 1;
const GLOBAL_INTERRUPTS: u32 = 1 << 1;
const GLOBAL_AHCI: u32 = 1 << 31;

const START: u32 = 1;
const CLEAR_BUSY: u32 = 1 << 3;
const RECEIVE: u32 = 1 << 4;
const RECEIVES: u32 = 1 << 14;
const RUNS: u32 = 1 << 15;
const COMMAND_WRITABLE: u32 = 0xf300_0017 & !(1 << 25);

/// The link is up, at the first speed.
const LINK_UP: u32 = 0x113;
/// Nobody answers.
const NOBODY: u32 = 0x7f;

/// A port's registers.
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// Where the list of commands is.
    pub list: u64,
    /// Where received FISes go.
    pub received: u64,
    /// What has happened.
    pub status: u32,
    enable: u32,
    command: u32,
    /// Status in the lower byte, error in the next.
    pub task: u32,
    /// What kind of drive is there.
    pub signature: u32,
    link: u32,
    control: u32,
    error: u32,
    /// Queued commands.
    pub active: u32,
    /// Issued commands.
    pub issued: u32,
    /// What is plugged in: none, or its signature.
    present: Option<u32>,
}

device::saved!(Port {
    list,
    received,
    status,
    enable,
    command,
    task,
    signature,
    link,
    control,
    error,
    active,
    issued,
});

/// What a write asks of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Commands wait.
    Issued,
}

/// The registers.
#[derive(Clone, Debug, Default)]
pub struct Chip {
    control: u32,
    /// The ports.
    pub ports: [Port; PORTS],
}

device::saved!(Chip { control, ports });

impl Chip {
    /// As after power-on, with the same drives.
    pub fn reset(&mut self) {
        self.control = 0;
        for port in &mut self.ports {
            *port = Port { present: port.present, ..Port::default() };
            port.reset_link();
        }
    }

    /// What is plugged into a port: none, or its signature.
    pub fn set_present(&mut self, port: usize, present: Option<u32>) {
        let port = &mut self.ports[port];
        port.present = present;
        port.reset_link();
        port.status |= CONNECT_CHANGE | READY_CHANGE;
        port.error |= 1 << 26 | 1 << 16;
    }

    /// Ports with something to say.
    fn pending(&self) -> u32 {
        let bit = |(at, port): (usize, &Port)| u32::from(port.status & port.enable != 0) << at;
        self.ports.iter().enumerate().map(bit).sum()
    }

    /// Whether the controller interrupts.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.control & GLOBAL_INTERRUPTS != 0 && self.pending() != 0
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        if let Some(at) = offset.checked_sub(0x100) {
            return self.ports.get((at / 0x80) as usize).map_or(0, |port| port.read(at % 0x80));
        }
        match offset {
            0x00 => CAPABILITIES,
            0x04 => self.control | GLOBAL_AHCI,
            0x08 => self.pending(),
            0x0c => (1 << PORTS) - 1,
            0x10 => VERSION,
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) -> Effect {
        if let Some(at) = offset.checked_sub(0x100) {
            let port = self.ports.get_mut((at / 0x80) as usize);
            return port.map_or(Effect::None, |port| port.write(at % 0x80, value));
        }
        if offset == 4 {
            if value & GLOBAL_RESET != 0 {
                self.reset();
            } else {
                self.control = value & GLOBAL_INTERRUPTS;
            }
        }
        Effect::None
    }
}

impl Port {
    /// The drive says anew what it is.
    pub fn reset_link(&mut self) {
        (self.active, self.issued) = (0, 0);
        match self.present {
            Some(signature) => {
                let packet = signature >> 16 == 0xeb14;
                (self.link, self.signature) = (LINK_UP, signature);
                self.task = 0x100 | if packet { 0 } else { 0x50 };
            }
            None => (self.link, self.signature, self.task) = (0, u32::MAX, NOBODY),
        }
    }

    /// Whether commands are taken.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.command & START != 0
    }

    /// Whether FISes may be written.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.command & RECEIVE != 0
    }

    fn read(&self, at: u64) -> u32 {
        match at {
            0x00 => self.list as u32,
            0x04 => (self.list >> 32) as u32,
            0x08 => self.received as u32,
            0x0c => (self.received >> 32) as u32,
            0x10 => self.status,
            0x14 => self.enable,
            0x18 => {
                let running = if self.runs() { RUNS } else { 0 };
                self.command | running | if self.receives() { RECEIVES } else { 0 }
            }
            0x20 => self.task,
            0x24 => self.signature,
            0x28 => self.link,
            0x2c => self.control,
            0x30 => self.error,
            0x34 => self.active,
            0x38 => self.issued,
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, value: u32) -> Effect {
        let low = |now: u64, mask: u32| now & !0xffff_ffff | u64::from(value & mask);
        let high = |now: u64| now & 0xffff_ffff | u64::from(value) << 32;
        match at {
            0x00 => self.list = low(self.list, !0x3ff),
            0x04 => self.list = high(self.list),
            0x08 => self.received = low(self.received, !0xff),
            0x0c => self.received = high(self.received),
            0x10 => self.status &= !value,
            0x14 => self.enable = value & 0xfdc0_00ff,
            0x18 => {
                self.command = value & COMMAND_WRITABLE;
                if value & CLEAR_BUSY != 0 {
                    self.task &= !0x88;
                }
                if value & START == 0 {
                    (self.active, self.issued) = (0, 0);
                }
                return Effect::Issued;
            }
            0x2c => {
                // The link comes up again when the reset is taken back.
                let (before, now) = (self.control & 15, value & 15);
                self.control = value & 0xfff;
                if before == 1 && now == 0 {
                    self.reset_link();
                    self.error |= 1 << 26;
                }
                if now == 4 {
                    (self.link, self.task) = (4, NOBODY);
                }
            }
            0x30 => self.error &= !value,
            0x34 if self.runs() => self.active |= value,
            0x38 if self.runs() => {
                self.issued |= value;
                return Effect::Issued;
            }
            _ => {}
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_only_by_a_port_that_runs() {
        let mut chip = Chip::default();
        assert_eq!(chip.write(0x138, 1), Effect::None);
        assert_eq!(chip.read(0x138), 0);
        chip.write(0x118, START | RECEIVE);
        assert_eq!(chip.write(0x138, 5), Effect::Issued);
        assert_eq!((chip.read(0x138), chip.read(0x118)), (5, 0xc011));
        chip.write(0x118, 0);
        assert_eq!(chip.read(0x138), 0);
    }

    #[test]
    fn an_interrupt_takes_three_enables() {
        let mut chip = Chip::default();
        chip.ports[2].status = DEVICE_TO_HOST;
        assert!(!chip.interrupts());
        chip.write(0x214, 1);
        assert_eq!((chip.interrupts(), chip.read(8)), (false, 4));
        chip.write(4, GLOBAL_INTERRUPTS);
        assert!(chip.interrupts());
        chip.write(0x210, 1);
        assert!(!chip.interrupts());
    }

    #[test]
    fn a_link_reset_shows_the_signature() {
        let mut chip = Chip::default();
        chip.set_present(1, Some(0xeb14_0101));
        chip.write(0x1ac, 1);
        chip.write(0x1ac, 0);
        assert_eq!((chip.read(0x1a4), chip.read(0x1a8)), (0xeb14_0101, LINK_UP));
        assert_eq!(chip.read(0x128), 0, "nobody is on port 0");
    }
}
