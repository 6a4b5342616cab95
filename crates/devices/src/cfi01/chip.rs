//! The command state machine: pure.

use device::StateError;
use device::state::{Reader, Value};

/// What is erased at once.
pub const BLOCK_BYTES: u64 = 4096;
/// What a buffered write takes at most.
const BUFFER_BYTES: usize = 2048;

const READY: u8 = 0x80;
const ERASE_ERROR: u8 = 0x20;
const PROGRAM_ERROR: u8 = 0x10;
const LOCKED: u8 = 0x02;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Reads give the contents.
    #[default]
    Array,
    Status,
    Identity,
    Query,
    /// The next write is a byte to program.
    Program,
    /// The next write confirms an erasure.
    Erase,
    /// The next write is the number of bytes less one.
    Count,
    /// Bytes for the buffer: how many are missing, where the buffer starts.
    Fill(usize),
    /// The next write confirms the buffer.
    Confirm,
    /// The next write is a lock command.
    Lock,
}

impl Value for Mode {
    fn save(&self, into: &mut Vec<u8>) {
        let (number, missing) = match self {
            Self::Array => (0_u8, 0),
            Self::Status => (1, 0),
            Self::Identity => (2, 0),
            Self::Query => (3, 0),
            Self::Program => (4, 0),
            Self::Erase => (5, 0),
            Self::Count => (6, 0),
            Self::Fill(missing) => (7, *missing),
            Self::Confirm => (8, 0),
            Self::Lock => (9, 0),
        };
        (number, missing).save(into);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let mut saved = (0_u8, 0_usize);
        saved.load(from)?;
        *self = match saved {
            (0, _) => Self::Array,
            (1, _) => Self::Status,
            (2, _) => Self::Identity,
            (3, _) => Self::Query,
            (4, _) => Self::Program,
            (5, _) => Self::Erase,
            (6, _) => Self::Count,
            (7, missing @ 0..=BUFFER_BYTES) => Self::Fill(missing),
            (8, _) => Self::Confirm,
            (9, _) => Self::Lock,
            _ => return Err(StateError::bad("a flash chip has no such mode")),
        };
        Ok(())
    }
}

/// What a write does to the contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Bits of these bytes are cleared, at these places.
    Program(Vec<(u64, u8)>),
    /// The block that begins here becomes ones.
    Erase(u64),
}

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Chip {
    mode: Mode,
    status: u8,
    read_only: bool,
    buffer: Vec<(u64, u8)>,
    blocks: u64,
}

device::saved!(Chip {
    mode,
    status,
    buffer,
} check |chip: &Chip| chip.buffer.len() <= BUFFER_BYTES);

impl Chip {
    /// A chip of so many bytes.
    #[must_use]
    pub fn new(bytes: u64, read_only: bool) -> Self {
        Self { read_only, blocks: bytes / BLOCK_BYTES, ..Self::default() }
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        (self.mode, self.status) = (Mode::Array, 0);
        self.buffer.clear();
    }

    /// Whether reads give the contents.
    #[must_use]
    pub fn shows_array(&self) -> bool {
        self.mode == Mode::Array
    }

    /// Reads a byte while the contents do not show.
    #[must_use]
    pub fn read(&self, offset: u64) -> u8 {
        match self.mode {
            Mode::Identity => match offset & 0xff {
                0 => 0x89, // Intel
                1 => 0x18,
                _ => 0,
            },
            Mode::Query => self.query(offset & 0xff),
            _ => self.status,
        }
    }

    /// The table of the common flash interface.
    fn query(&self, offset: u64) -> u8 {
        let last = self.blocks.saturating_sub(1);
        match offset {
            0x10 => b'Q',
            0x11 => b'R',
            0x12 => b'Y',
            0x13 => 1,    // the command set
            0x15 => 0x31, // where its own table is
            0x1b => 0x45,
            0x1c => 0x55,
            0x1f..=0x22 => 7,
            0x23..=0x26 => 4,
            0x27 => (self.blocks * BLOCK_BYTES).max(1).ilog2() as u8,
            0x28 => 2,
            0x2a => BUFFER_BYTES.ilog2() as u8,
            0x2c => 1, // one region of blocks
            0x2d => last as u8,
            0x2e => (last >> 8) as u8,
            0x2f => (BLOCK_BYTES >> 8) as u8,
            0x30 => (BLOCK_BYTES >> 16) as u8,
            0x31 => b'P',
            0x32 => b'R',
            0x33 => b'I',
            0x34 => b'1',
            0x35 => b'0',
            _ => 0,
        }
    }

    /// Writes a byte.
    pub fn write(&mut self, offset: u64, value: u8) -> Effect {
        match std::mem::take(&mut self.mode) {
            Mode::Program => {
                self.mode = Mode::Status;
                self.change(PROGRAM_ERROR, Effect::Program(vec![(offset, value)]))
            }
            Mode::Erase => {
                self.mode = Mode::Status;
                match value {
                    0xd0 => self.change(ERASE_ERROR, Effect::Erase(offset & !(BLOCK_BYTES - 1))),
                    0xff => {
                        self.mode = Mode::Array;
                        Effect::None
                    }
                    _ => self.fail(ERASE_ERROR | PROGRAM_ERROR),
                }
            }
            Mode::Count => {
                self.buffer.clear();
                let count = usize::from(value) + 1;
                self.mode = Mode::Fill(count.min(BUFFER_BYTES));
                Effect::None
            }
            Mode::Fill(missing) => {
                self.buffer.push((offset, value));
                self.mode = if missing > 1 { Mode::Fill(missing - 1) } else { Mode::Confirm };
                Effect::None
            }
            Mode::Confirm => {
                self.mode = Mode::Status;
                let buffer = std::mem::take(&mut self.buffer);
                match value {
                    0xd0 => self.change(PROGRAM_ERROR, Effect::Program(buffer)),
                    _ => self.fail(ERASE_ERROR | PROGRAM_ERROR),
                }
            }
            Mode::Lock => {
                self.mode = Mode::Status;
                self.status |= READY; // blocks have no locks; saying so is all there is to do
                Effect::None
            }
            before => self.command(before, value),
        }
    }

    fn command(&mut self, before: Mode, value: u8) -> Effect {
        self.mode = match value {
            0x10 | 0x40 => Mode::Program,
            0x20 => Mode::Erase,
            0x50 => {
                self.status = 0;
                before
            }
            0x60 => Mode::Lock,
            0x70 => Mode::Status,
            0x90 => Mode::Identity,
            0x98 => Mode::Query,
            0xe8 => {
                self.status |= READY;
                Mode::Count
            }
            _ => Mode::Array,
        };
        Effect::None
    }

    fn change(&mut self, error: u8, effect: Effect) -> Effect {
        self.status |= READY;
        if self.read_only {
            self.status |= error | LOCKED;
            return Effect::None;
        }
        effect
    }

    fn fail(&mut self, errors: u8) -> Effect {
        self.status |= READY | errors;
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_tells_flash_from_ram_and_rom_by_its_status() {
        let mut chip = Chip::new(0x8_4000, false);
        chip.write(0, 0x50);
        assert!(chip.shows_array(), "clearing the status shows nothing");
        chip.write(0, 0x70);
        assert_eq!(chip.read(0), 0);
        chip.write(0, 0xff);
        assert!(chip.shows_array());
    }

    #[test]
    fn programming_and_erasing_take_two_writes() {
        let mut chip = Chip::new(0x8_4000, false);
        assert_eq!(chip.write(5, 0x10), Effect::None);
        assert_eq!(chip.write(5, 0x42), Effect::Program(vec![(5, 0x42)]));
        assert_eq!((chip.read(5), chip.shows_array()), (READY, false));
        assert_eq!(chip.write(0x1234, 0x20), Effect::None);
        assert_eq!(chip.write(0x1234, 0xd0), Effect::Erase(0x1000));
        chip.write(0, 0x20);
        assert_eq!(chip.write(0, 0x11), Effect::None);
        assert_eq!(chip.read(0), READY | ERASE_ERROR | PROGRAM_ERROR);
    }

    #[test]
    fn a_buffer_is_written_when_it_is_confirmed() {
        let mut chip = Chip::new(0x8_4000, false);
        for (at, value) in [(0, 0xe8), (0, 1), (8, 1), (9, 2)] {
            assert_eq!(chip.write(at, value), Effect::None);
        }
        assert_eq!(chip.write(0, 0xd0), Effect::Program(vec![(8, 1), (9, 2)]));
    }

    #[test]
    fn a_chip_that_is_read_only_says_so() {
        let mut chip = Chip::new(0x1000, true);
        chip.write(0, 0x40);
        assert_eq!(chip.write(0, 0), Effect::None);
        assert_eq!(chip.read(0), READY | PROGRAM_ERROR | LOCKED);
    }

    #[test]
    fn random_writes_stay_within_the_buffer() {
        let mut chip = Chip::new(0x1000, false);
        let mut seed = 1_u64;
        for _ in 0..50_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            _ = chip.write(seed >> 50, (seed >> 40) as u8);
            _ = chip.read(seed >> 30 & 0xff);
            assert!(chip.buffer.len() <= BUFFER_BYTES);
        }
    }
}
