//! The I/O APIC's registers: pure.

/// Interrupt inputs.
pub const PINS: u32 = 24;

const ID: u32 = 0;
const VERSION: u32 = 1;
const ARBITRATION: u32 = 2;
const TABLE: u32 = 0x10;

/// Version 0x20, with the number of the last entry.
const VERSION_VALUE: u32 = 0x20 | (PINS - 1) << 16;

const SENT: u64 = 1 << 12; // read-only: delivery status
const REMOTE: u64 = 1 << 14; // read-only: a level interrupt is being served
/// The entry is level-triggered.
pub const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;

/// The registers. After each change the caller takes messages by [`Chip::take_message`] until there is none.
#[derive(Clone, Debug)]
pub struct Chip {
    id: u32,
    index: u32,
    entries: [u64; PINS as usize],
    /// The pins' levels.
    pins: u32,
    /// Edges that wait to be sent.
    edges: u32,
}

device::saved!(Chip {
    id,
    index,
    entries,
    pins,
    edges,
} check |chip: &Chip| chip.index < 0x100);

impl Default for Chip {
    fn default() -> Self {
        Self { id: 0, index: 0, entries: [MASKED; PINS as usize], pins: 0, edges: 0 }
    }
}

/// The registers, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicView {
    /// Its number.
    pub id: u32,
    /// The chosen register.
    pub index: u32,
    /// The table.
    pub entries: [u64; PINS as usize],
    /// Inputs with a request, a bit each.
    pub requests: u32,
}

impl Chip {
    /// The registers, for people.
    #[must_use]
    pub fn view(&self) -> IoApicView {
        let Self { id, index, entries, pins, edges } = *self;
        let level = |pin: &u32| entries[*pin as usize] & LEVEL != 0;
        let levels = (0..PINS).filter(level).fold(0, |all, pin| all | pins & 1 << pin);
        IoApicView { id, index, entries, requests: edges | levels }
    }

    /// The register that the data window shows.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What an input sends when it is not masked.
    #[must_use]
    pub fn open_entry(&self, pin: u32) -> Option<u64> {
        let entry = self.entries.get(pin as usize)?;
        (entry & MASKED == 0).then_some(*entry)
    }

    /// Chooses the register that the data window shows.
    pub fn set_index(&mut self, index: u32) {
        self.index = index & 0xff;
    }

    /// Reads the chosen register.
    #[must_use]
    pub fn read(&self) -> u32 {
        match self.index {
            ID | ARBITRATION => self.id << 24,
            VERSION => VERSION_VALUE,
            _ => match self.entry() {
                Some((at, 0)) => self.entries[at] as u32,
                Some((at, _)) => (self.entries[at] >> 32) as u32,
                None => 0,
            },
        }
    }

    /// Writes the chosen register.
    pub fn write(&mut self, value: u32) {
        if self.index == ID {
            self.id = value >> 24 & 15;
        }
        let Some((at, half)) = self.entry() else { return };
        let entry = &mut self.entries[at];
        let value = u64::from(value);
        if half == 1 {
            *entry = *entry & 0xffff_ffff | value << 32;
            return;
        }
        let kept = *entry & (!0xffff_ffff | SENT | REMOTE);
        *entry = kept | value & 0x1_ffff & !(SENT | REMOTE);
        if *entry & LEVEL == 0 {
            *entry &= !REMOTE; // software's way to end a level interrupt
        }
    }

    fn entry(&self) -> Option<(usize, u32)> {
        let at = self.index.checked_sub(TABLE)?;
        (at / 2 < PINS).then_some(((at / 2) as usize, at % 2))
    }

    /// A pin changes. The board's lines are active-high; an entry's polarity is what the board's
    /// tables told the system, and wired away.
    pub fn set_pin(&mut self, pin: u32, level: bool) {
        if pin >= PINS {
            return;
        }
        let bit = 1 << pin;
        let rising = level && self.pins & bit == 0;
        self.pins = if level { self.pins | bit } else { self.pins & !bit };
        let entry = self.entries[pin as usize];
        if rising && entry & (LEVEL | MASKED) == 0 {
            self.edges |= bit;
        }
    }

    /// A vector has ended: its level-triggered entries may interrupt again.
    pub fn end(&mut self, vector: u8) {
        for entry in &mut self.entries {
            if *entry as u8 == vector && *entry & LEVEL != 0 {
                *entry &= !REMOTE;
            }
        }
    }

    /// The next entry to be sent.
    pub fn take_message(&mut self) -> Option<u64> {
        for (pin, entry) in self.entries.iter_mut().enumerate() {
            let bit = 1 << pin;
            if *entry & MASKED != 0 {
                continue;
            }
            if *entry & LEVEL != 0 {
                if self.pins & bit != 0 && *entry & REMOTE == 0 {
                    *entry |= REMOTE;
                    return Some(*entry);
                }
            } else if self.edges & bit != 0 {
                self.edges &= !bit;
                return Some(*entry);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_entry(pin: u32, entry: u64) -> Chip {
        let mut chip = Chip::default();
        chip.set_index(TABLE + 2 * pin + 1);
        chip.write((entry >> 32) as u32);
        chip.set_index(TABLE + 2 * pin);
        chip.write(entry as u32);
        chip
    }

    #[test]
    fn an_edge_is_sent_once() {
        let mut chip = with_entry(4, 0x34);
        chip.set_pin(4, true);
        assert_eq!((chip.take_message(), chip.take_message()), (Some(0x34), None));
        chip.set_pin(4, false);
        chip.set_pin(4, true);
        assert_eq!(chip.take_message(), Some(0x34));
    }

    #[test]
    fn a_level_is_sent_again_after_its_end() {
        let mut chip = with_entry(9, 0x59 | LEVEL);
        chip.set_pin(9, true);
        assert_eq!(chip.take_message().map(|entry| entry & 0xff), Some(0x59));
        assert_eq!(chip.take_message(), None);
        chip.end(0x59);
        assert!(chip.take_message().is_some());
        chip.set_pin(9, false);
        chip.end(0x59);
        assert_eq!(chip.take_message(), None);
    }

    #[test]
    fn an_edge_on_a_masked_pin_is_lost() {
        let mut chip = with_entry(4, 0x34 | MASKED);
        chip.set_pin(4, true);
        chip.set_index(TABLE + 8);
        chip.write(0x34);
        assert_eq!(chip.take_message(), None);
    }

    #[test]
    fn the_version_tells_the_entries() {
        let mut chip = Chip::default();
        chip.set_index(VERSION);
        assert_eq!(chip.read() >> 16, 23);
    }
}
