//! A command as it stands in guest memory, and the data it moves.

use memory::FlatView;

use crate::ata::TaskFile;

/// Entries of a table that are looked at: enough for the largest command.
const ENTRIES_MAX: usize = 8192;
/// Bytes that are moved at once.
pub const PIECE_BYTES: usize = 256 << 10;

/// A command's header, table and FIS.
pub struct Command<'a> {
    memory: &'a FlatView,
    header: u64,
    table: u64,
    entries: usize,
    /// The FIS.
    pub fis: [u8; 20],
    /// The packet, for packet commands.
    pub packet: [u8; 12],
    /// The queue's reset bit.
    pub resets: bool,
    /// Where the next byte goes: entry and place in it.
    cursor: (usize, u64),
    /// Bytes moved so far.
    pub moved: u32,
}

impl<'a> Command<'a> {
    /// Reads the command of a slot.
    pub fn read(memory: &'a FlatView, list: u64, slot: u32) -> Self {
        let header = list.wrapping_add(u64::from(slot) * 32);
        let flags = memory.read_value(header, 4) as u32;
        let table = memory.read_value(header.wrapping_add(8), 8) & !0x7f;
        let (mut fis, mut packet) = ([0; 20], [0; 12]);
        memory.read(table, &mut fis);
        memory.read(table.wrapping_add(0x40), &mut packet);
        Self {
            memory,
            header,
            table,
            entries: ((flags >> 16) as usize).min(ENTRIES_MAX),
            fis,
            packet,
            resets: flags & 1 << 8 != 0,
            cursor: (0, 0),
            moved: 0,
        }
    }

    /// The registers of a command FIS.
    pub fn task(&self) -> TaskFile {
        let byte = |at: usize| u64::from(self.fis[at]);
        TaskFile {
            command: self.fis[2],
            features: u16::from_le_bytes([self.fis[3], self.fis[11]]),
            lba: byte(4)
                | byte(5) << 8
                | byte(6) << 16
                | byte(8) << 24
                | byte(9) << 32
                | byte(10) << 40,
            count: u16::from_le_bytes([self.fis[12], self.fis[13]]),
            device: self.fis[7],
        }
    }

    /// The next piece of guest memory: address and bytes, at most `most`.
    fn next_piece(&mut self, most: usize) -> Option<(u64, usize)> {
        loop {
            let (entry, at) = self.cursor;
            if entry >= self.entries {
                return None;
            }
            let place = self.table.wrapping_add(0x80 + 16 * entry as u64);
            let address = self.memory.read_value(place, 8) & !1;
            let bytes = (self.memory.read_value(place.wrapping_add(12), 4) & 0x3f_ffff) + 1;
            if at >= bytes {
                self.cursor = (entry + 1, 0);
                continue;
            }
            let piece = (bytes - at).min(most as u64);
            self.cursor = (entry, at + piece);
            return Some((address.wrapping_add(at), piece as usize));
        }
    }

    /// Moves bytes to the guest; how many fitted.
    pub fn give(&mut self, mut bytes: &[u8]) -> usize {
        let whole = bytes.len();
        while !bytes.is_empty() {
            let Some((address, length)) = self.next_piece(bytes.len()) else { break };
            self.memory.write(address, &bytes[..length]);
            bytes = &bytes[length..];
        }
        let moved = whole - bytes.len();
        self.moved = self.moved.saturating_add(moved as u32);
        moved
    }

    /// Moves bytes from the guest; how many there were.
    pub fn take(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let Some((address, length)) = self.next_piece(bytes.len() - at) else { break };
            self.memory.read(address, &mut bytes[at..at + length]);
            at += length;
        }
        self.moved = self.moved.saturating_add(at as u32);
        at
    }

    /// Tells the guest how many bytes were moved.
    pub fn finish(&self) {
        self.memory.write_value(self.header.wrapping_add(4), 4, u64::from(self.moved));
    }
}
