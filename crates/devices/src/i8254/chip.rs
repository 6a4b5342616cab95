//! One counter of the 8254: pure. The caller brings the time.

/// The clock of all three counters: a third of the NTSC colour carrier, as in the first PC.
pub const FREQUENCY_HZ: u64 = 1_193_182;

const NS_PER_S: u128 = 1_000_000_000;

/// One of the three counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    mode: u8,
    access: Access,
    bcd: bool,
    /// What was loaded; 0 counts as the full range.
    reload: u32,
    /// When the counter was loaded or triggered, which all else is computed from.
    start_ns: u64,
    /// False between the control word and the count.
    loaded: bool,
    gate: bool,
    /// The low byte of a count whose high byte is still to come.
    low_written: Option<u8>,
    low_read: bool,
    latched: Option<u16>,
    latched_low_read: bool,
    status: Option<u8>,
}

device::saved!(Channel {
    mode,
    access,
    bcd,
    reload,
    start_ns,
    loaded,
    gate,
    low_written,
    low_read,
    latched,
    latched_low_read,
    status,
} check |channel: &Channel| channel.mode <= 5 && (1..=0x10000).contains(&channel.reload));

/// How a count passes through the 8-bit port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

device::saved_enum!(Access { Low = 0, High = 1, LowThenHigh = 2 });

impl Channel {
    /// A counter after power-on. Channels 0 and 1 have their gate tied high.
    #[must_use]
    pub fn new(gate: bool) -> Self {
        Self {
            mode: 3,
            access: Access::LowThenHigh,
            bcd: false,
            reload: 0x10000,
            start_ns: 0,
            loaded: false,
            gate,
            low_written: None,
            low_read: false,
            latched: None,
            latched_low_read: false,
            status: None,
        }
    }

    /// The control word for this channel (not the read-back command).
    pub fn control(&mut self, word: u8, now_ns: u64) {
        match word >> 4 & 3 {
            0 => self.latch(now_ns),
            access => {
                self.access = match access {
                    1 => Access::Low,
                    2 => Access::High,
                    _ => Access::LowThenHigh,
                };
                self.mode = match word >> 1 & 7 {
                    mode @ 0..=5 => mode,
                    mode => mode - 4, // 6 and 7 are 2 and 3
                };
                self.bcd = word & 1 != 0;
                self.loaded = false;
                self.low_written = None;
                self.low_read = false;
                self.latched = None;
                self.status = None;
            }
        }
    }

    /// The read-back command: holds the count, the status, or both.
    pub fn read_back(&mut self, count: bool, status: bool, now_ns: u64) {
        if count {
            self.latch(now_ns);
        }
        if status && self.status.is_none() {
            let access = match self.access {
                Access::Low => 1,
                Access::High => 2,
                Access::LowThenHigh => 3,
            };
            let output = u8::from(self.output(now_ns)) << 7;
            let null_count = u8::from(!self.loaded) << 6;
            self.status =
                Some(output | null_count | access << 4 | self.mode << 1 | u8::from(self.bcd));
        }
    }

    fn latch(&mut self, now_ns: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.count(now_ns));
            self.latched_low_read = false;
        }
    }

    /// Writes a byte of the count.
    pub fn write(&mut self, value: u8, now_ns: u64) {
        let count = match (self.access, self.low_written.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::LowThenHigh, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::LowThenHigh, None) => {
                self.low_written = Some(value);
                // The first byte stops a one-shot count.
                self.loaded &= self.mode != 0;
                return;
            }
        };
        self.reload = match (self.bcd, count) {
            (false, 0) => 0x10000,
            (false, count) => u32::from(count),
            (true, 0) => 10_000,
            (true, count) => from_bcd(count),
        };
        self.loaded = true;
        if !matches!(self.mode, 1 | 5) {
            self.start_ns = now_ns; // modes 1 and 5 wait for the gate
        }
    }

    /// Reads a byte: held status, held count, or the running count.
    pub fn read(&mut self, now_ns: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let [low, high] = self.latched.unwrap_or_else(|| self.count(now_ns)).to_le_bytes();
        match self.access {
            Access::Low => {
                self.latched = None;
                low
            }
            Access::High => {
                self.latched = None;
                high
            }
            Access::LowThenHigh => {
                let toggle = if self.latched.is_some() {
                    &mut self.latched_low_read
                } else {
                    &mut self.low_read
                };
                let second = *toggle;
                *toggle = !second;
                if !second {
                    return low;
                }
                self.latched = None;
                high
            }
        }
    }

    /// The gate input changes: a rising edge triggers.
    pub fn set_gate(&mut self, gate: bool, now_ns: u64) {
        let rising = gate && !self.gate;
        self.gate = gate;
        if rising && matches!(self.mode, 1 | 2 | 3 | 5) {
            self.start_ns = now_ns;
        }
    }

    /// The gate input.
    #[must_use]
    pub fn gate(&self) -> bool {
        self.gate
    }

    fn ticks(&self, now_ns: u64) -> u64 {
        let passed_ns = u128::from(now_ns.saturating_sub(self.start_ns));
        u64::try_from(passed_ns * u128::from(FREQUENCY_HZ) / NS_PER_S).unwrap_or(u64::MAX)
    }

    /// Whether the count goes on: the gate stops it, except in the modes it triggers.
    fn counts(&self) -> bool {
        self.loaded && (self.gate || matches!(self.mode, 1 | 5))
    }

    /// The counting element as a program would read it.
    fn count(&self, now_ns: u64) -> u16 {
        let reload = u64::from(self.reload);
        let ticks = if self.counts() { self.ticks(now_ns) } else { 0 };
        let value = match self.mode {
            2 => reload - ticks % reload,
            // Mode 3 counts down by two, twice a period.
            3 => (reload - ticks * 2 % reload) & !1,
            _ => reload.wrapping_sub(ticks),
        };
        if self.bcd { to_bcd((value % 10_000) as u16) } else { value as u16 }
    }

    /// The output line.
    #[must_use]
    pub fn output(&self, now_ns: u64) -> bool {
        let reload = u64::from(self.reload);
        let ticks = self.ticks(now_ns);
        match self.mode {
            0 | 1 => self.loaded && self.counts() && ticks >= reload,
            2 => !self.counts() || ticks % reload != reload - 1,
            3 => !self.counts() || ticks % reload < reload.div_ceil(2),
            _ => !(self.loaded && self.counts() && ticks == reload),
        }
    }

    /// When the output next rises, which is when channel 0 interrupts.
    #[must_use]
    pub fn next_rise_ns(&self, now_ns: u64) -> Option<u64> {
        if !self.counts() {
            return None;
        }
        let (reload, ticks) = (u64::from(self.reload), self.ticks(now_ns));
        let next = match self.mode {
            2 | 3 => (ticks / reload + 1).checked_mul(reload)?,
            4 | 5 => Some(reload + 1).filter(|rise| ticks < *rise)?,
            _ => Some(reload).filter(|rise| ticks < *rise)?,
        };
        // Rounded up, so that at that time the tick has happened.
        let after_ns = (u128::from(next) * NS_PER_S).div_ceil(u128::from(FREQUENCY_HZ));
        self.start_ns.checked_add(u64::try_from(after_ns).ok()?)
    }
}

fn from_bcd(value: u16) -> u32 {
    (0..4).rev().fold(0, |sum, digit| sum * 10 + u32::from(value >> (4 * digit) & 15))
}

fn to_bcd(value: u16) -> u16 {
    (0..4).fold(0, |sum, digit| sum | (value / 10_u16.pow(digit) % 10) << (4 * digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(ticks: u64) -> u64 {
        (u128::from(ticks) * NS_PER_S).div_ceil(u128::from(FREQUENCY_HZ)) as u64
    }

    fn programmed(control: u8, count: u16) -> Channel {
        let mut channel = Channel::new(true);
        channel.control(control, 0);
        let [low, high] = count.to_le_bytes();
        channel.write(low, 0);
        channel.write(high, 0);
        channel
    }

    #[test]
    fn outputs_by_mode() {
        // control word, count, ticks, output
        for (control, count, ticks, output) in [
            (0x30, 10, 0, false),
            (0x30, 10, 9, false),
            (0x30, 10, 10, true),
            (0x30, 10, 1000, true),
            (0x34, 10, 8, true),
            (0x34, 10, 9, false),
            (0x34, 10, 10, true),
            (0x36, 10, 4, true),
            (0x36, 10, 5, false),
            (0x36, 10, 10, true),
            (0x38, 10, 10, false),
            (0x38, 10, 11, true),
        ] {
            let channel = programmed(control, count);
            assert_eq!(channel.output(ns(ticks)), output, "{control:#x} after {ticks}");
        }
    }

    #[test]
    fn counts_are_latched_and_read_in_halves() {
        let mut channel = programmed(0x34, 0x1234);
        channel.control(0x00, ns(0x34));
        assert_eq!((channel.read(ns(500)), channel.read(ns(600))), (0x00, 0x12));
        let live = channel.read(ns(0x34));
        assert_eq!((live, channel.read(ns(0x34))), (0x00, 0x12));
    }

    #[test]
    fn the_status_is_read_back_before_the_count() {
        let mut channel = programmed(0x34, 100);
        channel.read_back(true, true, ns(1));
        assert_eq!(channel.read(ns(2)), 0x80 | 0x34);
        assert_eq!((channel.read(ns(2)), channel.read(ns(2))), (99, 0));
    }

    #[test]
    fn a_period_rises_at_its_end() {
        let channel = programmed(0x34, 1000);
        for ticks in [0, 1, 999] {
            assert_eq!(channel.next_rise_ns(ns(ticks)), Some(ns(1000)), "after {ticks}");
        }
        assert_eq!(channel.next_rise_ns(ns(1000)), Some(ns(2000)));
        assert_eq!(programmed(0x30, 5).next_rise_ns(ns(5)), None, "a one-shot has been");
    }

    #[test]
    fn decimal_counts() {
        let mut channel = programmed(0x35, 0x0100);
        channel.control(0x00, ns(1));
        assert_eq!((channel.read(0), channel.read(0)), (0x99, 0x00));
        assert_eq!((from_bcd(0x9999), to_bcd(1234)), (9999, 0x1234));
    }

    #[test]
    fn a_closed_gate_stops_the_count() {
        let mut channel = Channel::new(false);
        channel.control(0xb0, 0);
        channel.write(10, 0);
        channel.write(0, 0);
        assert!(!channel.output(ns(100)));
        assert_eq!(channel.next_rise_ns(ns(100)), None);
    }
}
