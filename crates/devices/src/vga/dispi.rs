//! The Bochs extension: a linear frame buffer of any size, by eleven registers.

/// The newest version.
const ID: u16 = 0xb0c5;
const ID_FIRST: u16 = 0xb0c0;
const WIDTH_MAX: u16 = 16000;
const HEIGHT_MAX: u16 = 12000;

const ENABLED: u16 = 1;
const ASKS_LIMITS: u16 = 2;
const WIDE_PALETTE: u16 = 0x20;
const KEEPS_MEMORY: u16 = 0x80;

const REGISTER_ID: usize = 0;
const WIDTH: usize = 1;
const HEIGHT: usize = 2;
const DEPTH: usize = 3;
const ENABLE: usize = 4;
const BANK: usize = 5;
const LINE: usize = 6;
const LINES: usize = 7;
const X: usize = 8;
const Y: usize = 9;
const MEMORY: usize = 10;

/// The registers.
#[derive(Clone, Debug)]
pub struct Dispi {
    /// The register that the data port shows.
    pub index: u16,
    registers: [u16; 11],
    memory_bytes: u64,
}

device::saved!(Dispi { index, registers } check |dispi: &Dispi| dispi.is_sound());

/// A linear mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Bits of a pixel: 8, 15, 16, 24, 32.
    pub depth: u16,
    /// Where the first pixel is.
    pub start: u64,
    /// Bytes from one row to the next.
    pub stride: u64,
}

impl Dispi {
    /// The registers before so much memory.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        let mut registers = [0; 11];
        registers[REGISTER_ID] = ID;
        Self { index: 0, registers, memory_bytes }
    }

    /// Whether what is shown lies in the memory, as it does whatever a guest writes.
    fn is_sound(&self) -> bool {
        let fits = |mode: Linear| {
            let bytes = u64::from(mode.height) * mode.stride;
            mode.start + bytes <= self.memory_bytes
        };
        self.registers[WIDTH] <= WIDTH_MAX
            && self.registers[HEIGHT] <= HEIGHT_MAX
            && self.bank() < self.memory_bytes
            && self.linear().is_none_or(fits)
    }

    fn bytes_of_pixel(&self) -> u64 {
        u64::from(self.registers[DEPTH].max(8)).div_ceil(8)
    }

    /// The mode, while there is one.
    #[must_use]
    pub fn linear(&self) -> Option<Linear> {
        let register = |at: usize| u64::from(self.registers[at]);
        if self.registers[ENABLE] & ENABLED == 0 {
            return None;
        }
        let stride = register(LINE) * self.bytes_of_pixel();
        let start = register(Y) * stride + register(X) * self.bytes_of_pixel();
        Some(Linear {
            width: u32::from(self.registers[WIDTH]),
            height: u32::from(self.registers[HEIGHT]),
            depth: self.registers[DEPTH],
            start,
            stride,
        })
    }

    /// The 64 KiB that the old window shows.
    #[must_use]
    pub fn bank(&self) -> u64 {
        u64::from(self.registers[BANK]) << 16
    }

    /// Whether the palette has eight bits a colour.
    #[must_use]
    pub fn has_wide_palette(&self) -> bool {
        self.registers[ENABLE] & WIDE_PALETTE != 0
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, index: u16) -> u16 {
        let index = usize::from(index);
        if index == MEMORY {
            return (self.memory_bytes >> 16) as u16;
        }
        if self.registers[ENABLE] & ASKS_LIMITS != 0 {
            match index {
                WIDTH => return WIDTH_MAX,
                HEIGHT => return HEIGHT_MAX,
                DEPTH => return 32,
                _ => {}
            }
        }
        self.registers.get(index).copied().unwrap_or(0)
    }

    /// Writes a register. True: the memory of the mode is to be cleared.
    pub fn write(&mut self, index: u16, value: u16) -> bool {
        let index = usize::from(index);
        match index {
            REGISTER_ID if (ID_FIRST..=ID).contains(&value) => self.registers[index] = value,
            WIDTH if value <= WIDTH_MAX => self.registers[index] = value & !7,
            HEIGHT if value <= HEIGHT_MAX => self.registers[index] = value,
            DEPTH if matches!(value, 0 | 4 | 8 | 15 | 16 | 24 | 32) => {
                self.registers[index] = if value == 0 { 8 } else { value };
            }
            BANK if u64::from(value) << 16 < self.memory_bytes => self.registers[index] = value,
            ENABLE => return self.enable(value),
            LINE | X | Y => {
                self.registers[index] = value;
                self.fit();
            }
            _ => {}
        }
        false
    }

    fn enable(&mut self, value: u16) -> bool {
        let starts = value & ENABLED != 0 && self.registers[ENABLE] & ENABLED == 0;
        self.registers[ENABLE] = value;
        if starts {
            self.registers[LINE] = self.registers[WIDTH];
            (self.registers[X], self.registers[Y]) = (0, 0);
            self.fit();
        }
        self.registers[BANK] = 0;
        starts && value & KEEPS_MEMORY == 0
    }

    /// Keeps the mode within the memory.
    fn fit(&mut self) {
        let registers = &mut self.registers;
        registers[LINE] = registers[LINE].max(registers[WIDTH]);
        let bytes = u64::from(registers[DEPTH].max(8)).div_ceil(8);
        let line = u64::from(registers[LINE]) * bytes;
        let lines = self.memory_bytes.checked_div(line).unwrap_or(0).min(0xffff);
        let registers = &mut self.registers;
        registers[LINES] = lines as u16;
        registers[HEIGHT] = registers[HEIGHT].min(lines as u16);
        registers[Y] = registers[Y].min(lines as u16 - registers[HEIGHT]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_what_its_registers_say_and_fits() {
        let mut dispi = Dispi::new(16 << 20);
        for (index, value) in [(1, 1024), (2, 768), (3, 32)] {
            dispi.write(index, value);
        }
        assert_eq!(dispi.linear(), None);
        assert!(dispi.write(4, 0x41));
        let mode = Linear { width: 1024, height: 768, depth: 32, start: 0, stride: 4096 };
        assert_eq!(dispi.linear(), Some(mode));
        dispi.write(9, 60000);
        let mode = dispi.linear().unwrap();
        assert!(mode.start + u64::from(mode.height) * mode.stride <= 16 << 20);
        assert_eq!((dispi.read(0), dispi.read(10)), (0xb0c5, 256));
    }
}
