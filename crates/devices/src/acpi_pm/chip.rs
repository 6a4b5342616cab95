//! The registers: pure.

const TIMER_STATUS: u16 = 1;
const POWER_BUTTON: u16 = 1 << 8;
const ENABLED: u16 = 1; // SCI_EN: events interrupt, the machine is in ACPI mode
const SLEEP: u16 = 1 << 13;
const KIND: u16 = 7 << 10;

/// What a write asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// S5.
    PowerOff,
}

/// Events, control, general-purpose events.
#[derive(Clone, Debug, Default)]
pub struct Chip {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u64,
    gpe_enable: u64,
}

device::saved!(Chip { status, enable, control, gpe_status, gpe_enable });

impl Chip {
    /// The level of the system control interrupt.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.status & self.enable & !TIMER_STATUS != 0 || self.gpe_status & self.gpe_enable != 0
    }

    /// See [`super::AcpiPm::press_power_button`].
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// A general-purpose event has come.
    pub fn raise(&mut self, event: u8) {
        self.gpe_status |= 1_u64.checked_shl(u32::from(event)).unwrap_or(0);
    }

    /// Switches ACPI mode.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.control = self.control & !ENABLED | u16::from(enabled);
    }

    /// The eight bytes of status, enable and control.
    #[must_use]
    pub fn fixed(&self) -> u64 {
        u64::from(self.status) | u64::from(self.enable) << 16 | u64::from(self.control) << 32
    }

    /// Writes 1, 2 or 4 bytes of them.
    pub fn write_fixed(&mut self, offset: u64, size: u8, value: u64) -> Effect {
        let mut effect = Effect::None;
        for (index, byte) in (0..u64::from(size)).zip(value.to_le_bytes()) {
            let byte16 = u16::from(byte);
            match offset + index {
                0 => self.status &= !byte16, // ones clear
                1 => self.status &= !(byte16 << 8),
                2 => self.enable = self.enable & 0xff00 | byte16,
                3 => self.enable = self.enable & 0xff | byte16 << 8,
                4 => {
                    let kept = self.control & (0xff00 | ENABLED);
                    self.control = kept | byte16 & !ENABLED;
                }
                5 => {
                    let high = byte16 << 8;
                    self.control = self.control & 0xff | high & !SLEEP;
                    // The only sleep the tables offer is S5, whose kind is 0.
                    if high & SLEEP != 0 && high & KIND == 0 {
                        effect = Effect::PowerOff;
                    }
                }
                _ => {}
            }
        }
        effect
    }

    /// A byte of the general-purpose block of `length` bytes: status, then enable.
    #[must_use]
    pub fn gpe(&self, at: u64, length: u64) -> u8 {
        let half = length / 2;
        match at {
            at if at < half => (self.gpe_status >> (8 * at.min(7))) as u8,
            at if at < length => (self.gpe_enable >> (8 * (at - half).min(7))) as u8,
            _ => 0,
        }
    }

    /// Writes a byte of it.
    pub fn write_gpe(&mut self, at: u64, length: u64, value: u8) {
        let half = length / 2;
        let place = |at: u64| u64::from(value) << (8 * at.min(7));
        if at < half {
            self.gpe_status &= !place(at);
        } else if at < length {
            let at = at - half;
            self.gpe_enable = self.gpe_enable & !(0xff << (8 * at.min(7))) | place(at);
        }
    }
}
