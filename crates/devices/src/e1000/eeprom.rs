//! The EEPROM, read word by word or bit by bit over its three wires (Microwire, 93C46).

const WORDS: usize = 64;
/// All words together give this.
const SUM: u16 = 0xbaba;

const CLOCK: u32 = 1;
const SELECT: u32 = 2;
const DATA_IN: u32 = 4;
const DATA_OUT: u32 = 8;
const WRITABLE: u32 = 0x40 | 0x30; // request, and flash access
const GRANTED: u32 = 1 << 7;
const PRESENT: u32 = 1 << 8;

/// A start bit, two bits of a command, and six of an address.
const COMMAND_BITS: u32 = 9;
const READ: u32 = 0b110;

/// The chip and the wires to it.
pub struct Eeprom {
    words: [u16; WORDS],
    wires: u32,
    /// Bits that came in since it was selected.
    shifted: u32,
    count: u32,
    /// Where in all bits the next one out is, if it was asked for any.
    out: Option<u32>,
}

device::saved!(Eeprom { words, wires, shifted, count, out });

impl Eeprom {
    /// With the card's address.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut words = [0xffff; WORDS];
        for (word, pair) in words.iter_mut().zip(mac.chunks(2)) {
            *word = u16::from_le_bytes([pair[0], pair[1]]);
        }
        // Initialization control, subsystem, vendor and device.
        for (at, word) in [
            (0x0a, 0x6403),
            (0x0b, 0x1100),
            (0x0c, 0x1af4),
            (0x0d, 0x100e),
            (0x0e, 0x8086),
            (0x0f, 0x3040),
        ] {
            words[at] = word;
        }
        words[WORDS - 1] = 0;
        let sum = words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word));
        words[WORDS - 1] = SUM.wrapping_sub(sum);
        Self { words, wires: 0, shifted: 0, count: 0, out: None }
    }

    /// The register that reads words: start bit, address, done bit, data.
    pub fn word(&self, value: u32) -> u32 {
        const START: u32 = 1;
        const DONE: u32 = 1 << 4;
        if value & START == 0 {
            return value;
        }
        let word = self.words.get((value >> 8 & 0xff) as usize).copied().unwrap_or(0xffff);
        value & 0xff00 | DONE | u32::from(word) << 16
    }

    /// The wires as the guest sees them.
    pub fn read(&self) -> u32 {
        let bit = match self.out {
            None => true,
            Some(at) => {
                let word = self.words[(at >> 4) as usize % WORDS];
                word >> (15 - (at & 15)) & 1 != 0
            }
        };
        self.wires | GRANTED | PRESENT | if bit { DATA_OUT } else { 0 }
    }

    /// The guest moves the wires.
    pub fn write(&mut self, value: u32) {
        let before =
            std::mem::replace(&mut self.wires, value & (CLOCK | SELECT | DATA_IN | WRITABLE));
        if value & SELECT == 0 {
            return;
        }
        if before & SELECT == 0 {
            (self.shifted, self.count, self.out) = (0, 0, None);
        }
        match (before & CLOCK != 0, value & CLOCK != 0) {
            (true, false) => self.out = self.out.map(|at| at.wrapping_add(1)),
            (false, true) => self.shift(value & DATA_IN != 0),
            _ => {}
        }
    }

    fn shift(&mut self, bit: bool) {
        // Zeros before the start bit do not count.
        if self.count == 0 && !bit {
            return;
        }
        self.shifted = self.shifted << 1 | u32::from(bit);
        self.count = self.count.saturating_add(1);
        if self.count == COMMAND_BITS && self.shifted >> 6 & 7 == READ {
            // A zero comes out first.
            self.out = Some((self.shifted & 0x3f).wrapping_mul(16).wrapping_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_both_ways() {
        let mut eeprom = Eeprom::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let mut sum = 0_u16;
        for address in 0..64 {
            let word = (eeprom.word(1 | address << 8) >> 16) as u16;
            sum = sum.wrapping_add(word);
            eeprom.write(SELECT);
            let send = |eeprom: &mut Eeprom, bit: bool| {
                let data = if bit { DATA_IN } else { 0 };
                eeprom.write(SELECT | data);
                eeprom.write(SELECT | data | CLOCK);
                eeprom.write(SELECT | data);
            };
            for bit in (0..9).rev() {
                send(&mut eeprom, (READ << 6 | address) >> bit & 1 != 0);
            }
            let mut read = 0;
            for _ in 0..16 {
                eeprom.write(SELECT | CLOCK);
                read = read << 1 | u16::from(eeprom.read() & DATA_OUT != 0);
                eeprom.write(SELECT);
            }
            eeprom.write(0);
            assert_eq!(read, word, "word {address}");
        }
        assert_eq!(sum, SUM);
        assert_eq!(eeprom.word(1) >> 16, 0x5452);
    }
}
