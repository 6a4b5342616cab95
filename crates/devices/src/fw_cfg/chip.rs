//! The registers: a selected item and a place in it. Pure.

use device::Blob;

use super::items::Files;

const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// The most bytes that one request moves: zeros behind the end of an item are not worth more.
const REQUEST_BYTES_MAX: u64 = 16 << 20;

/// A DMA request as it stands in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Flags, and the item in the upper half.
    pub control: u32,
    /// Bytes to move.
    pub length: u32,
    /// Where in guest memory.
    pub address: u64,
}

impl Command {
    /// From its big-endian bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            control: word(0),
            length: word(4),
            address: u64::from(word(8)) << 32 | u64::from(word(12)),
        }
    }
}

/// What a request asks of guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These bytes go there, then zeros, so many.
    ToGuest(u64, Vec<u8>, u64),
    /// So many bytes come from there, for [`Chip::take`].
    FromGuest(u64, usize),
    /// Nothing but the new control word.
    Done(u32),
}

/// Bytes that are fetched for who reads them one by one.
const WINDOW: u64 = 4096;

/// The selected item. What cannot be read of it reads as zeros.
#[derive(Default)]
pub struct Chip {
    key: u16,
    bytes: Blob,
    at: u64,
    /// Some of the bytes, and where they begin.
    window: (u64, Vec<u8>),
}

impl Chip {
    /// Selects an item, from its start.
    pub fn select(&mut self, files: &Files, key: u16) {
        self.key = key;
        self.bytes = files.read(key & 0xbfff);
        self.window = (0, Vec::new());
        self.at = 0;
    }

    /// What is selected, and the place in it.
    #[must_use]
    pub fn place(&self) -> (u16, u64) {
        (self.key, self.at)
    }

    /// Selects an item, from this place on.
    pub fn set_place(&mut self, files: &Files, (key, at): (u16, u64)) {
        self.select(files, key);
        self.at = at;
    }

    fn part(&self, start: u64, most: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes.len().saturating_sub(start).min(most) as usize];
        if self.bytes.read(start, &mut bytes).is_err() {
            bytes.fill(0);
        }
        bytes
    }

    /// The next byte; zeros after the end.
    pub fn read(&mut self) -> u8 {
        let start = self.at / WINDOW * WINDOW;
        if self.window.1.is_empty() || self.window.0 != start {
            self.window = (start, self.part(start, WINDOW));
        }
        let byte = self.window.1.get((self.at - start) as usize).copied().unwrap_or(0);
        self.at = self.at.saturating_add(1);
        byte
    }

    /// Begins a request.
    pub fn begin(&mut self, files: &Files, command: Command) -> Outcome {
        if command.control & SELECT != 0 {
            self.select(files, (command.control >> 16) as u16);
        }
        let length = u64::from(command.length);
        if command.control & READ != 0 {
            let bytes = self.part(self.at, length);
            let zeros = (length - bytes.len() as u64).min(REQUEST_BYTES_MAX);
            self.at = self.at.saturating_add(length);
            Outcome::ToGuest(command.address, bytes, zeros)
        } else if command.control & WRITE != 0 {
            let fits = length <= self.bytes.len().saturating_sub(self.at);
            if fits && files.is_writable(self.key) {
                Outcome::FromGuest(command.address, length as usize)
            } else {
                Outcome::Done(ERROR)
            }
        } else {
            if command.control & SKIP != 0 {
                self.at = self.at.saturating_add(length);
            }
            Outcome::Done(0)
        }
    }

    /// The bytes of a [`Outcome::FromGuest`].
    pub fn take(&mut self, files: &mut Files, bytes: &[u8]) {
        files.write(self.key, self.at as usize, bytes);
        self.bytes = files.read(self.key);
        self.window = (0, Vec::new());
        self.at = self.at.saturating_add(bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::super::items::{Source, key};
    use super::*;

    fn files() -> Files {
        let mut files = Files::default();
        files.set(key::SIGNATURE, *b"QEMU");
        assert!(files.add("etc/b", Source::Bytes(vec![1, 2, 3])));
        assert!(files.add("etc/a", Source::Made(4, Box::new(|| vec![9]))));
        assert!(files.add("etc/c", Source::Written(vec![0; 4], Box::new(|_| {}))));
        assert!(!files.add(&"x".repeat(56), Source::Bytes(Vec::new())));
        files
    }

    fn command(control: u32, length: u32) -> Command {
        Command { control, length, address: 0x1000 }
    }

    #[test]
    fn items_are_read_byte_by_byte_and_end_in_zeros() {
        let (mut chip, files) = (Chip::default(), files());
        chip.select(&files, key::SIGNATURE);
        assert_eq!([0; 6].map(|_| chip.read()), *b"QEMU\0\0");
        chip.select(&files, 0x7fff);
        assert_eq!(chip.read(), 0);
    }

    #[test]
    fn the_directory_is_sorted_and_its_keys_lead_to_the_files() {
        let (mut chip, files) = (Chip::default(), files());
        chip.select(&files, key::DIRECTORY);
        let bytes: Vec<u8> = (0..4 + 3 * 64).map(|_| chip.read()).collect();
        assert_eq!(bytes[..4], [0, 0, 0, 3]);
        assert_eq!((&bytes[4..10], &bytes[12..18]), (&[0, 0, 0, 4, 0, 0x20][..], &b"etc/a\0"[..]));
        chip.select(&files, 0x20);
        assert_eq!([0; 4].map(|_| chip.read()), [9, 0, 0, 0]);
    }

    #[test]
    fn requests_read_skip_write_and_are_refused() {
        let (mut chip, mut files) = (Chip::default(), files());
        let select = |key: u32| key << 16 | SELECT;
        let done = chip.begin(&files, command(select(0x21) | SKIP, 1));
        assert_eq!(done, Outcome::Done(0));
        let read = chip.begin(&files, command(READ, 4));
        assert_eq!(read, Outcome::ToGuest(0x1000, vec![2, 3], 2));
        assert_eq!(chip.begin(&files, command(WRITE, 1)), Outcome::Done(ERROR));
        let write = chip.begin(&files, command(select(0x22) | WRITE, 4));
        assert_eq!(write, Outcome::FromGuest(0x1000, 4));
        chip.take(&mut files, &[5, 6, 7, 8]);
        assert_eq!(files.read(0x22).head(4).unwrap(), [5, 6, 7, 8]);
        let too_long = chip.begin(&files, command(select(0x22) | WRITE, 5));
        assert_eq!(too_long, Outcome::Done(ERROR));
    }
}
